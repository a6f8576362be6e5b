/* server/http/internal.h: what the files of the HTTP server share. */
#ifndef GPTVQ_SERVER_HTTP_INTERNAL_H
#define GPTVQ_SERVER_HTTP_INTERNAL_H

#include "server/api/call.h"
#include "server/server.h"
#include "server/http/connections.h"
#include "server/http/metrics.h"

#include <microhttpd.h>

struct gptvq_server {
  gptvq_server_options options;
  gptvq_service service;
  struct MHD_Daemon *daemon;
  unsigned port;
  gptvq_connections connections;
  gptvq_metrics metrics;
  atomic_bool draining, stopping;
  _Atomic int64_t running; /* exchanges */
};

/* A request and its answer. */
typedef struct gptvq_exchange {
  gptvq_server *server;
  struct MHD_Connection *connection;
  gptvq_endpoint endpoint;
  const char *method;
  char path[128]; /* for the log; cut when it is longer */
  double begun;   /* gptvq_clock() */
  char *body;     /* [body_size], owned */
  size_t body_size, body_room;
  bool read; /* the body is there */
  unsigned status;
  gptvq_api_error error; /* of status >= 400 */
  gptvq_call call;       /* empty: none */
  bool submitted;        /* the scheduler has to be told when it ends */
  char *events;          /* of a stream: what has not been sent yet, owned */
  size_t events_size, events_sent;
  size_t prompt_tokens, cached_tokens, made_tokens; /* for the log */
} gptvq_exchange;

/* Seconds in which a client has to say what it wants, and to take what it gets. */
enum { GPTVQ_HTTP_PATIENCE = 30 };

/* ---- exchange.c ---- */

enum MHD_Result gptvq_exchange_handle(void *server, struct MHD_Connection *connection, const char *url,
                                      const char *method, const char *version, const char *data,
                                      size_t *data_size, void **state);
void gptvq_exchange_completed(void *server, struct MHD_Connection *connection, void **state,
                              enum MHD_RequestTerminationCode why);
int gptvq_exchange_socket(const gptvq_exchange *exchange);

/* ---- respond.c ---- */

/* Sends `text` (takes it, free()) or, when it is NULL, exchange->error. */
enum MHD_Result gptvq_respond_json(gptvq_exchange *exchange, char *text);
enum MHD_Result gptvq_respond_text(gptvq_exchange *exchange, const char *type, char *text);
enum MHD_Result gptvq_respond_page(gptvq_exchange *exchange);
enum MHD_Result gptvq_respond_nothing(gptvq_exchange *exchange); /* 204, with what CORS says */
/* Sends the events of exchange->call as they come. */
enum MHD_Result gptvq_respond_events(gptvq_exchange *exchange);

/* ---- access.c ---- */

/* May this client ask at all? false: exchange->error says why not. */
bool gptvq_access_allowed(gptvq_exchange *exchange);
/* The origin that is told that it may read the answer; NULL: none. */
const char *gptvq_access_origin(const gptvq_exchange *exchange);

/* ---- page, generated from page.html ---- */
extern const unsigned char gptvq_page[];
extern const size_t gptvq_page_size;

#endif
