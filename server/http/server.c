/* The daemon: where it listens, how many it listens to, how it ends. */
#define _GNU_SOURCE /* dl_iterate_phdr */
#include "server/http/internal.h"

#include "base/memory.h"
#include "base/status.h"
#include "server/engine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <link.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  CONNECTIONS = 256,       /* at a time, two files each; others wait until one is closed */
  HEADER_BYTES = 64 << 10, /* of a request's line and headers, and of what waits to be sent */
  STACK_BYTES = 2 << 20    /* of a connection's thread: rendering a template takes half a MiB */
};

bool gptvq_server_available(void) { return true; }

static void notify_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                              enum MHD_ConnectionNotificationCode code) {
  gptvq_server *server = context;
  if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
    gptvq_connections_remove(&server->connections, *socket_context);
    return;
  }
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  gptvq_connection *one = gptvq_connections_add(&server->connections, info != NULL ? info->connect_fd : -1);
  gptvq_connections_wait(&server->connections, one, GPTVQ_HTTP_PATIENCE);
  *socket_context = one;
}

/* ---- listening ---- */

typedef union address {
  struct sockaddr any;
  struct sockaddr_in four;
  struct sockaddr_in6 six;
} address;

static gptvq_status read_address(const char *host, unsigned port, address *out, gptvq_error *err) {
  memset(out, 0, sizeof *out);
  const char *numeric = strcasecmp(host, "localhost") == 0 ? "127.0.0.1" : host;
  if (inet_pton(AF_INET, numeric, &out->four.sin_addr) == 1) {
    out->four.sin_family = AF_INET;
    out->four.sin_port = htons((uint16_t)port);
  } else if (inet_pton(AF_INET6, numeric, &out->six.sin6_addr) == 1) {
    out->six.sin6_family = AF_INET6;
    out->six.sin6_port = htons((uint16_t)port);
  } else {
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "--host %s: not an address of this machine in numbers, such as 127.0.0.1, 0.0.0.0 or ::", host);
  }
  return GPTVQ_OK;
}

static gptvq_status listen_at(const char *host, unsigned port, int *out, unsigned *bound, gptvq_error *err) {
  address where;
  GPTVQ_TRY(read_address(host, port, &where, err));
  const bool six = where.any.sa_family == AF_INET6;
  socklen_t size = six ? sizeof where.six : sizeof where.four;
  int yes = 1, fd = socket(where.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0) (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (fd < 0 || bind(fd, &where.any, size) != 0 || listen(fd, CONNECTIONS) != 0 ||
      getsockname(fd, &where.any, &size) != 0) {
    int why = errno;
    if (fd >= 0) (void)close(fd);
    return gptvq_fail(err, GPTVQ_ERROR_IO, "cannot listen at %s, port %u: %s%s", host, port, strerror(why),
                      why == EADDRINUSE ? " (--port N chooses another)" : "");
  }
  *out = fd;
  *bound = ntohs(six ? where.six.sin6_port : where.four.sin_port);
  return GPTVQ_OK;
}

/* ---- beginning ---- */

static gptvq_status open_service(gptvq_server *server, const char *no_chat, gptvq_error *err) {
  gptvq_service *service = &server->service;
  const gptvq_server_options *o = &server->options;
  service->name = o->name;
  service->ctx = o->ctx;
  service->queue = o->queue;
  service->timeout = o->timeout;
  service->created = (int64_t)time(NULL);
  if (no_chat != NULL) strncpy(service->no_chat, no_chat, sizeof service->no_chat - 1);
  GPTVQ_TRY(gptvq_service_look(service, err));
  const gptvq_scheduler_options options = {.slots = o->parallel, .ctx = o->ctx, .queue = o->queue};
  return gptvq_scheduler_create(service->model, service->tokenizer, &options, &service->scheduler, err);
}

/* Adds what a program or library keeps for each thread. */
static int add_thread_locals(struct dl_phdr_info *info, size_t size, void *context) {
  (void)size;
  for (size_t i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_TLS)
      *(size_t *)context += info->dlpi_phdr[i].p_memsz + info->dlpi_phdr[i].p_align;
  return 0;
}

/* Of a connection's thread: glibc takes thread-local variables, buffers of the kernels among them, from it.
 */
static size_t stack_bytes(void) {
  size_t locals = 0;
  (void)dl_iterate_phdr(add_thread_locals, &locals);
  return STACK_BYTES + gptvq_round_up(locals, 4096);
}

static gptvq_status start(gptvq_server *server, const char *no_chat, gptvq_error *err) {
  int fd = -1;
  GPTVQ_TRY(listen_at(server->options.host, server->options.port, &fd, &server->port, err));
  gptvq_status status = open_service(server, no_chat, err);
  if (status != GPTVQ_OK) {
    (void)close(fd);
    return status;
  }
  server->daemon = MHD_start_daemon(
      MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC, 0, NULL,
      NULL, gptvq_exchange_handle, server, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED,
      gptvq_exchange_completed, server, MHD_OPTION_NOTIFY_CONNECTION, notify_connection, server,
      MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
      (size_t)HEADER_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)GPTVQ_HTTP_PATIENCE,
      MHD_OPTION_THREAD_STACK_SIZE, stack_bytes(), MHD_OPTION_END);
  if (server->daemon != NULL) return GPTVQ_OK;
  (void)close(fd);
  return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "libmicrohttpd does not start");
}

size_t gptvq_server_estimate(const gptvq_model *model, size_t parallel, size_t ctx) {
  return gptvq_engine_estimate(model, parallel, ctx);
}

gptvq_status gptvq_server_start(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                                const gptvq_chat *chat, const char *no_chat,
                                const gptvq_server_options *options, gptvq_server **out, gptvq_error *err) {
  *out = NULL;
  gptvq_server *server = calloc(1, sizeof *server);
  if (server == NULL) return gptvq_fail_memory(err, "the server", sizeof *server);
  server->options = *options;
  server->service.model = model;
  server->service.tokenizer = tokenizer;
  server->service.chat = chat;
  gptvq_connections_init(&server->connections);
  gptvq_status status = start(server, no_chat, err);
  if (status != GPTVQ_OK) gptvq_server_stop(server);
  else *out = server;
  return status;
}

unsigned gptvq_server_port(const gptvq_server *server) { return server->port; }

/* ---- going on, and the end ---- */

void gptvq_server_tick(gptvq_server *server) { gptvq_connections_sweep(&server->connections); }

void gptvq_server_drain(gptvq_server *server) {
  if (atomic_exchange(&server->draining, true)) return;
  gptvq_scheduler_drain(server->service.scheduler);
  int fd = MHD_quiesce_daemon(server->daemon);
  if (fd >= 0) (void)close(fd);
}

bool gptvq_server_is_idle(gptvq_server *server) { return atomic_load(&server->running) == 0; }

void gptvq_server_stop(gptvq_server *server) {
  if (server == NULL) return;
  atomic_store(&server->stopping, true);
  if (server->daemon != NULL) MHD_stop_daemon(server->daemon);
  gptvq_scheduler_destroy(server->service.scheduler);
  gptvq_connections_destroy(&server->connections);
  free(server);
}
