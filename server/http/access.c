/* Who may ask: the API key, and pages of which origins. */
#include "server/http/internal.h"

#include <string.h>
#include <strings.h>

/* In a time that does not depend on how much of the key is right. */
static bool same_key(const char *key, const char *given) {
  size_t key_size = strlen(key), size = strlen(given);
  volatile unsigned char differences = key_size != size;
  for (size_t i = 0; i < size; i++)
    differences = (unsigned char)(differences | (given[i] ^ key[key_size > 0 ? i % key_size : 0]));
  return differences == 0;
}

static const char *header(const gptvq_exchange *e, const char *name) {
  return MHD_lookup_connection_value(e->connection, MHD_HEADER_KIND, name);
}

static bool has_key(const gptvq_exchange *e) {
  static const char scheme[] = "Bearer ";
  const char *key = e->server->options.api_key, *given = header(e, "Authorization");
  if (key == NULL) return true;
  return given != NULL && strncasecmp(given, scheme, sizeof scheme - 1) == 0 &&
         same_key(key, given + sizeof scheme - 1);
}

/* HOST or HOST:PORT, [HOST] or [HOST]:PORT: is HOST this machine by a name that no other machine can have? */
static bool names_loopback(const char *authority) {
  char host[64];
  const char *begin = authority[0] == '[' ? authority + 1 : authority;
  size_t size = strcspn(begin, authority[0] == '[' ? "]" : ":");
  if (size >= sizeof host) return false;
  memcpy(host, begin, size);
  host[size] = '\0';
  return gptvq_server_is_loopback(host);
}

static bool is_local(const gptvq_exchange *e) { return gptvq_server_is_loopback(e->server->options.host); }

/* The server's own page: its origin is the host that it was asked for under. A name that resolves to a
 * loopback address can be anybody's. */
static bool is_own(const gptvq_exchange *e, const char *origin) {
  const char *host = header(e, "Host"), *authority = strstr(origin, "://");
  if (host == NULL || authority == NULL || strcasecmp(authority + 3, host) != 0) return false;
  return !is_local(e) || names_loopback(host);
}

const char *gptvq_access_origin(const gptvq_exchange *e) {
  const char *cors = e->server->options.cors, *origin = header(e, "Origin");
  if (cors == NULL || origin == NULL) return NULL;
  return strcmp(cors, "*") == 0 || strcmp(cors, origin) == 0 ? cors : NULL;
}

bool gptvq_access_allowed(gptvq_exchange *e) {
  const char *origin = header(e, "Origin");
  if (origin != NULL && !is_own(e, origin) && gptvq_access_origin(e) == NULL)
    return gptvq_api_fail(&e->error, 403, "origin_not_allowed", NULL,
                          "pages of %.200s may not use this server (gptvq serve --cors ORIGIN)", origin);
  /* a page that has its own name resolve to this machine sends no Origin with GET */
  const char *host = header(e, "Host");
  if (origin == NULL && host != NULL && e->server->options.api_key == NULL && is_local(e) &&
      !names_loopback(host))
    return gptvq_api_fail(&e->error, 403, "host_not_allowed", NULL,
                          "%.200s is no name of this machine alone (gptvq serve --api-key KEY)", host);
  bool open = e->endpoint == GPTVQ_ENDPOINT_PAGE || e->endpoint == GPTVQ_ENDPOINT_HEALTH ||
              strcmp(e->method, MHD_HTTP_METHOD_OPTIONS) == 0;
  if (open || has_key(e)) return true;
  return gptvq_api_fail(&e->error, 401, "invalid_api_key", NULL,
                        "the API key is missing or wrong: Authorization: Bearer KEY");
}
