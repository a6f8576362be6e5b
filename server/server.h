/* server/server.h: the HTTP server of gptvq serve: what OpenAI's clients ask for, answered by one model. */
#ifndef GPTVQ_SERVER_SERVER_H
#define GPTVQ_SERVER_SERVER_H

#include <gptvq/gptvq.h>
#include <stdbool.h>

typedef struct gptvq_server gptvq_server;

typedef struct gptvq_server_options {
  const char *host;    /* a numeric address, or "localhost" */
  unsigned port;       /* 0: any that is free */
  const char *api_key; /* NULL: everybody may ask */
  const char *name;    /* of the model, for clients */
  const char *cors;    /* an origin whose pages may ask, "*": any; NULL: none but the server's own page */
  size_t parallel;     /* texts at a time */
  size_t ctx;          /* tokens of each at most */
  size_t queue;        /* texts that wait at most, and texts of a request */
  size_t max_body;     /* bytes of a request at most */
  double timeout;      /* seconds that a request may take; 0: any */
  /* A line about a request; from any thread. problem: it is the server's, not the client's. */
  void (*log)(void *user, bool problem, const char *line);
  void *user;
} gptvq_server_options;

/* Is there a server in this build? */
bool gptvq_server_available(void);
/* Is it an address of this machine alone, or the one name that is always one? 127.example.com is anybody's.
 */
bool gptvq_server_is_loopback(const char *host);
/* Bytes that the slots and what they compute in take: parallel texts of ctx tokens. SIZE_MAX where they
 * cannot be counted. */
size_t gptvq_server_estimate(const gptvq_model *model, size_t parallel, size_t ctx);
/* Listens, and answers in threads of its own. Model, tokenizer, chat (NULL: no_chat says why there is none)
 * and the options' texts have to outlive it. On success the caller owns *out. GPTVQ_ERROR_UNSUPPORTED: not in
 * this build; GPTVQ_ERROR_IO: the address is not to be had. */
gptvq_status gptvq_server_start(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                                const gptvq_chat *chat, const char *no_chat,
                                const gptvq_server_options *options, gptvq_server **out, gptvq_error *err);
unsigned gptvq_server_port(const gptvq_server *server);
/* To be called about once a second: closes connections that take too long to say what they want. */
void gptvq_server_tick(gptvq_server *server);
/* Takes no new connections and no new requests; what has begun goes on. */
void gptvq_server_drain(gptvq_server *server);
/* Has all that had begun ended? */
bool gptvq_server_is_idle(gptvq_server *server);
/* Ends what is left. NULL is fine. */
void gptvq_server_stop(gptvq_server *server);

#endif
