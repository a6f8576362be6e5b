/* Answers on their way. */
#include "server/http/internal.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_header(struct MHD_Response *response, const char *name, const char *value) {
  (void)MHD_add_response_header(response, name, value);
}

static void add_cors(const gptvq_exchange *e, struct MHD_Response *response) {
  const char *origin = gptvq_access_origin(e);
  if (origin == NULL) return;
  add_header(response, "Access-Control-Allow-Origin", origin);
  add_header(response, "Access-Control-Allow-Headers", "Authorization, Content-Type");
  add_header(response, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
  add_header(response, "Vary", "Origin");
}

/* Takes the response; NULL: out of memory, the connection is closed. */
static enum MHD_Result queue(gptvq_exchange *e, struct MHD_Response *response, const char *type) {
  if (response == NULL) return MHD_NO;
  if (type != NULL) add_header(response, "Content-Type", type);
  add_cors(e, response);
  if (e->status == 401) add_header(response, "WWW-Authenticate", "Bearer");
  if (e->status == 503) add_header(response, "Retry-After", "1");
  if (atomic_load(&e->server->draining)) add_header(response, "Connection", "close");
  enum MHD_Result queued = MHD_queue_response(e->connection, e->status, response);
  MHD_destroy_response(response);
  return queued;
}

enum MHD_Result gptvq_respond_text(gptvq_exchange *e, const char *type, char *text) {
  if (text == NULL) return MHD_NO;
  struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
  if (response == NULL) free(text);
  return queue(e, response, type);
}

enum MHD_Result gptvq_respond_json(gptvq_exchange *e, char *text) {
  e->status = 200;
  if (text == NULL) {
    e->status = e->error.http;
    text = gptvq_api_error_text(&e->error);
  }
  return gptvq_respond_text(e, "application/json", text);
}

enum MHD_Result gptvq_respond_nothing(gptvq_exchange *e) {
  e->status = 204;
  return queue(e, MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT), NULL);
}

enum MHD_Result gptvq_respond_page(gptvq_exchange *e) {
  e->status = 200;
  struct MHD_Response *response =
      MHD_create_response_from_buffer(gptvq_page_size, (void *)(uintptr_t)gptvq_page, MHD_RESPMEM_PERSISTENT);
  if (response == NULL) return MHD_NO;
  add_header(response, "Content-Security-Policy",
             "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
             "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
  add_header(response, "X-Content-Type-Options", "nosniff");
  add_header(response, "Cache-Control", "no-cache");
  return queue(e, response, "text/html; charset=utf-8");
}

/* ---- events ---- */

/* libmicrohttpd closes connections that are silent; not while we let them wait. */
static void be_patient(gptvq_exchange *e, bool patient) {
  (void)MHD_set_connection_option(e->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                  patient ? 0u : (unsigned)GPTVQ_HTTP_PATIENCE);
}

/* The next events; false: the client has gone, or there is no memory. */
static bool wait_for_events(gptvq_exchange *e) {
  enum { SILENCE = 15 }; /* seconds, after which a comment shows that the server is there */
  static const char comment[] = ": waiting\n\n";
  double since = gptvq_clock();
  for (;;) {
    free(e->events);
    e->events_sent = 0;
    e->events = gptvq_call_events(&e->call, &e->events_size);
    if (e->events == NULL) return false;
    if (e->events_size > 0) return true;
    if (gptvq_clock() - since > SILENCE) {
      free(e->events);
      e->events = strdup(comment);
      e->events_size = sizeof comment - 1;
      return e->events != NULL;
    }
    if (!gptvq_request_wait(e->call.request, gptvq_exchange_socket(e)) || atomic_load(&e->server->stopping))
      return false;
  }
}

static ssize_t read_events(void *context, uint64_t position, char *buffer, size_t room) {
  gptvq_exchange *e = context;
  (void)position;
  if (e->events_sent == e->events_size) {
    if (e->call.done) return MHD_CONTENT_READER_END_OF_STREAM;
    be_patient(e, true);
    bool there = wait_for_events(e);
    be_patient(e, false);
    if (!there) {
      e->status = 499;
      return MHD_CONTENT_READER_END_WITH_ERROR;
    }
  }
  size_t size = e->events_size - e->events_sent;
  if (size > room) size = room;
  memcpy(buffer, e->events + e->events_sent, size);
  e->events_sent += size;
  return (ssize_t)size;
}

enum MHD_Result gptvq_respond_events(gptvq_exchange *e) {
  enum { BLOCK = 16 << 10 };
  e->status = 200;
  struct MHD_Response *response =
      MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_events, e, NULL);
  if (response == NULL) return MHD_NO;
  add_header(response, "Cache-Control", "no-cache");
  return queue(e, response, "text/event-stream");
}
