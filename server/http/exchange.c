/* One request after the other: its body is read, who asks for what is found out, the answer goes its way. */
#include "server/api/lookups.h"
#include "server/http/internal.h"

#include "base/clock.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int gptvq_exchange_socket(const gptvq_exchange *e) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(e->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  return info != NULL ? info->connect_fd : -1;
}

static gptvq_connection *watched(struct MHD_Connection *connection) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  return info != NULL ? info->socket_context : NULL;
}

/* ---- beginning and end ---- */

static const char *known_method(const char *method) {
  static const char *const methods[] = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"};
  for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
    if (strcmp(method, methods[i]) == 0) return methods[i];
  return "?";
}

static const char one_model[] = "/v1/models/";

static gptvq_endpoint find_endpoint(const char *url) {
  for (gptvq_endpoint e = GPTVQ_ENDPOINT_PAGE; e < GPTVQ_ENDPOINTS; e++)
    if (strcmp(url, gptvq_endpoint_path(e)) == 0) return e;
  return strncmp(url, one_model, sizeof one_model - 1) == 0 ? GPTVQ_ENDPOINT_MODELS : GPTVQ_ENDPOINT_OTHER;
}

static gptvq_exchange *begin(gptvq_server *server, struct MHD_Connection *connection, const char *url,
                             const char *method) {
  gptvq_exchange *e = calloc(1, sizeof *e);
  if (e == NULL) return NULL;
  e->server = server;
  e->connection = connection;
  e->endpoint = find_endpoint(url);
  e->method = known_method(method);
  e->begun = gptvq_clock();
  (void)snprintf(e->path, sizeof e->path, "%s", url);
  atomic_fetch_add(&server->running, 1);
  return e;
}

static void log_line(const gptvq_exchange *e, double seconds) {
  char line[1024], tokens[128] = "";
  if (e->prompt_tokens > 0)
    (void)snprintf(tokens, sizeof tokens, ", %zu tokens of prompt (%zu cached), %zu generated",
                   e->prompt_tokens, e->cached_tokens, e->made_tokens);
  (void)snprintf(line, sizeof line, "%s %s %u %.3f s%s%s%s", e->method, e->path, e->status, seconds, tokens,
                 e->status >= 400 && e->status != 499 ? ": "
                 : e->status == 499                   ? ": the client went away"
                                                      : "",
                 e->status >= 400 && e->status != 499 ? e->error.message : "");
  e->server->options.log(e->server->options.user, e->status >= 500 && e->status != 503, line);
}

static void remember_tokens(gptvq_exchange *e) {
  const gptvq_request *request = e->call.request;
  for (size_t i = 0; i < request->count; i++) {
    e->prompt_tokens += request->jobs[i].prompt_count;
    e->cached_tokens += request->jobs[i].cached;
    e->made_tokens += request->jobs[i].sampled;
  }
}

void gptvq_exchange_completed(void *context, struct MHD_Connection *connection, void **state,
                              enum MHD_RequestTerminationCode why) {
  gptvq_server *server = context;
  gptvq_exchange *e = *state;
  gptvq_connections_wait(&server->connections, watched(connection), GPTVQ_HTTP_PATIENCE);
  if (e == NULL) return;
  *state = NULL;
  if (e->submitted) gptvq_scheduler_end(server->service.scheduler, e->call.request);
  if (e->submitted) remember_tokens(e);
  if (e->status == 0 || (why != MHD_REQUEST_TERMINATED_COMPLETED_OK && e->status < 400)) e->status = 499;
  double seconds = gptvq_clock() - e->begun;
  gptvq_metrics_count(&server->metrics, e->endpoint, e->status, seconds);
  if (e->endpoint != GPTVQ_ENDPOINT_HEALTH && e->endpoint != GPTVQ_ENDPOINT_METRICS) log_line(e, seconds);
  if (e->call.service != NULL) gptvq_call_release(&e->call);
  free(e->events);
  free(e->body);
  free(e);
  atomic_fetch_sub(&server->running, 1);
}

/* ---- the body ---- */

static bool announces_too_much(const gptvq_exchange *e) {
  const char *length = MHD_lookup_connection_value(e->connection, MHD_HEADER_KIND, "Content-Length");
  return length != NULL && strtoull(length, NULL, 10) > e->server->options.max_body;
}

static bool too_large(gptvq_exchange *e) {
  return gptvq_api_fail(&e->error, 413, NULL, NULL,
                        "the body has more than %zu bytes (gptvq serve --max-body)",
                        e->server->options.max_body);
}

/* false: it is too large, or there is no memory; the connection is closed. */
static bool read_more(gptvq_exchange *e, const char *data, size_t size) {
  size_t most = e->server->options.max_body;
  if (size > most - e->body_size) return false;
  if (e->body_room - e->body_size < size) {
    size_t room = gptvq_min_size(most, gptvq_max_size(2 * e->body_room, e->body_size + size));
    char *larger = realloc(e->body, room);
    if (larger == NULL) return false;
    e->body = larger;
    e->body_room = room;
  }
  memcpy(e->body + e->body_size, data, size);
  e->body_size += size;
  return true;
}

/* ---- answers ---- */

static enum MHD_Result refuse(gptvq_exchange *e) { return gptvq_respond_json(e, NULL); }

static enum MHD_Result respond_health(gptvq_exchange *e) {
  bool draining = atomic_load(&e->server->draining);
  char *text = strdup(draining ? "{\"status\":\"draining\"}" : "{\"status\":\"ok\"}");
  e->status = draining ? 503 : 200;
  return gptvq_respond_text(e, "application/json", text);
}

static enum MHD_Result respond_metrics(gptvq_exchange *e) {
  const gptvq_scheduler_stats stats = gptvq_scheduler_get_stats(e->server->service.scheduler);
  e->status = 200;
  return gptvq_respond_text(e, "text/plain; version=0.0.4; charset=utf-8",
                            gptvq_metrics_text(&e->server->metrics, &stats));
}

static enum MHD_Result respond_models(gptvq_exchange *e, const char *url) {
  const gptvq_service *service = &e->server->service;
  bool one = strncmp(url, one_model, sizeof one_model - 1) == 0;
  return gptvq_respond_json(e, one ? gptvq_api_model(service, url + sizeof one_model - 1, &e->error)
                                   : gptvq_api_models(service, &e->error));
}

/* Until all of the answer is there; false: the client has gone. */
static bool wait_for_all(gptvq_exchange *e) {
  bool there = true;
  (void)MHD_set_connection_option(e->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
  while (there && !gptvq_call_finished(&e->call))
    there =
        gptvq_request_wait(e->call.request, gptvq_exchange_socket(e)) && !atomic_load(&e->server->stopping);
  (void)MHD_set_connection_option(e->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                  (unsigned)GPTVQ_HTTP_PATIENCE);
  return there;
}

static enum MHD_Result respond_call(gptvq_exchange *e, bool chat) {
  const gptvq_service *service = &e->server->service;
  if (!gptvq_call_read(service, chat, e->body, e->body_size, &e->call, &e->error)) return refuse(e);
  free(e->body);
  e->body = NULL;
  gptvq_admission admission = gptvq_scheduler_submit(service->scheduler, e->call.request);
  if (admission != GPTVQ_ADMITTED) {
    (void)gptvq_api_fail(&e->error, 503, "overloaded", NULL, "%s",
                         admission == GPTVQ_DRAINING ? "the server is stopping"
                                                     : "too many requests are waiting: try again later");
    return refuse(e);
  }
  e->submitted = true;
  if (e->call.stream) return gptvq_respond_events(e);
  if (!wait_for_all(e)) return MHD_NO;
  if (!gptvq_call_check(&e->call, &e->error)) return refuse(e);
  char *text = gptvq_call_reply(&e->call);
  if (text == NULL) (void)gptvq_api_no_memory(&e->error);
  return gptvq_respond_json(e, text);
}

static bool check_method(gptvq_exchange *e, bool post) {
  bool fine =
      post ? strcmp(e->method, "POST") == 0 : strcmp(e->method, "GET") == 0 || strcmp(e->method, "HEAD") == 0;
  return fine ||
         gptvq_api_fail(&e->error, 405, NULL, NULL, "%s takes %s requests", e->path, post ? "POST" : "GET");
}

/* Pages of others can send other types without asking. */
static bool check_type(gptvq_exchange *e) {
  static const char json[] = "application/json";
  const char *type = MHD_lookup_connection_value(e->connection, MHD_HEADER_KIND, "Content-Type");
  return (type != NULL && strncasecmp(type, json, sizeof json - 1) == 0) ||
         gptvq_api_fail(&e->error, 415, NULL, NULL, "the body must be JSON: Content-Type: application/json");
}

static enum MHD_Result answer(gptvq_exchange *e, const char *url) {
  const gptvq_service *service = &e->server->service;
  bool post = e->endpoint >= GPTVQ_ENDPOINT_COMPLETIONS;
  if (!gptvq_access_allowed(e)) return refuse(e);
  if (e->endpoint == GPTVQ_ENDPOINT_OTHER) {
    (void)gptvq_api_fail(&e->error, 404, "not_found", NULL, "there is no %.100s", url);
    return refuse(e);
  }
  if (strcmp(e->method, "OPTIONS") == 0) return gptvq_respond_nothing(e);
  if (!check_method(e, post) || (post && !check_type(e))) return refuse(e);
  switch (e->endpoint) {
  case GPTVQ_ENDPOINT_PAGE: return gptvq_respond_page(e);
  case GPTVQ_ENDPOINT_HEALTH: return respond_health(e);
  case GPTVQ_ENDPOINT_METRICS: return respond_metrics(e);
  case GPTVQ_ENDPOINT_MODELS: return respond_models(e, url);
  case GPTVQ_ENDPOINT_TOKENIZE:
    return gptvq_respond_json(e, gptvq_api_tokenize(service, e->body, e->body_size, &e->error));
  case GPTVQ_ENDPOINT_DETOKENIZE:
    return gptvq_respond_json(e, gptvq_api_detokenize(service, e->body, e->body_size, &e->error));
  default: return respond_call(e, e->endpoint == GPTVQ_ENDPOINT_CHAT);
  }
}

enum MHD_Result gptvq_exchange_handle(void *context, struct MHD_Connection *connection, const char *url,
                                      const char *method, const char *version, const char *data,
                                      size_t *data_size, void **state) {
  gptvq_server *server = context;
  (void)version;
  if (*state == NULL) {
    gptvq_exchange *e = begin(server, connection, url, method);
    if (e == NULL) return MHD_NO;
    *state = e;
    if (!announces_too_much(e)) return MHD_YES;
    (void)too_large(e);
    return refuse(e);
  }
  gptvq_exchange *e = *state;
  if (*data_size > 0) {
    if (!read_more(e, data, *data_size)) { /* there is no answering in the middle of a body */
      e->status = 413;
      (void)too_large(e);
      return MHD_NO;
    }
    *data_size = 0;
    return MHD_YES;
  }
  gptvq_connections_wait(&server->connections, watched(connection), 0);
  return answer(e, url);
}
