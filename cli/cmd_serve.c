/* gptvq serve: a model for all programs that know OpenAI's API. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "cli.h"

#include "server/server.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct serving {
  gptvq_server_options options;
  gptvq_model_options model_options;
  const char *template_file;
  int compute;
  double drain; /* seconds */
  char name[NAME_MAX + 1];
  gptvq_model *model;
  gptvq_tokenizer *tokenizer;
  gptvq_chat *chat;
  gptvq_server *server;
} serving;

static void on_log(void *user, bool problem, const char *line) {
  (void)user;
  if (problem) gptvq_cli_warn("%s", line);
  else gptvq_cli_note("%s", line);
}

/* The last part of the folder's path. */
static void name_after(const char *path, char name[NAME_MAX + 1]) {
  char *real = realpath(path, NULL);
  const char *whole = real != NULL ? real : path, *slash = strrchr(whole, '/');
  (void)snprintf(name, NAME_MAX + 1, "%s", slash != NULL && slash[1] != '\0' ? slash + 1 : "model");
  for (char *c = name; *c != '\0'; c++)
    if ((unsigned char)*c < 0x21 || (unsigned char)*c > 0x7e) *c = '-';
  free(real);
}

static int open_all(serving *s, const char *path) {
  gptvq_error err;
  char no_chat[sizeof err.message] = "";
  s->model_options.compute = (gptvq_compute)s->compute;
  if (gptvq_cli_open_model(path, &s->model_options, &s->model, &err) != GPTVQ_OK ||
      gptvq_tokenizer_open(path, &s->tokenizer, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  if (gptvq_chat_open(path, s->template_file, &s->chat, &err) != GPTVQ_OK) {
    if (s->template_file != NULL || err.status == GPTVQ_ERROR_MEMORY) return gptvq_cli_fail(&err);
    size_t folder = strncmp(err.message, path, strlen(path)) == 0 ? strlen(path) : 0;
    folder += strspn(err.message + folder, ": "); /* clients need not know where it is */
    (void)snprintf(no_chat, sizeof no_chat, "%s", err.message + folder);
    gptvq_cli_warn("no chats, only completions: %s", err.message);
  }
  gptvq_model_info info = {.size = sizeof info};
  gptvq_model_get_info(s->model, &info);
  size_t limit = info.max_positions > 0 ? info.max_positions : SIZE_MAX;
  if (s->options.ctx > limit) gptvq_cli_warn("--ctx: the model's context has %zu tokens", limit);
  if (s->options.ctx == 0) s->options.ctx = 4096;
  if (s->options.ctx > limit) s->options.ctx = limit;
  if (s->options.name == NULL) {
    name_after(path, s->name);
    s->options.name = s->name;
  }
  if (gptvq_server_start(s->model, s->tokenizer, s->chat, no_chat, &s->options, &s->server, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  return 0;
}

static int announce(const serving *s) {
  char size[GPTVQ_CLI_SIZE_TEXT];
  const gptvq_server_options *o = &s->options;
  const char *bracket = strchr(o->host, ':') != NULL ? "[" : "";
  gptvq_cli_note("%s: %zu text%s of up to %zu tokens at a time, which take up to %s; Ctrl-C stops", o->name,
                 o->parallel, o->parallel == 1 ? "" : "s", o->ctx,
                 gptvq_cli_size_text(gptvq_server_estimate(s->model, o->parallel, o->ctx), size));
  printf("http://%s%s%s:%u\n", bracket, o->host, bracket[0] != '\0' ? "]" : "", gptvq_server_port(s->server));
  return gptvq_cli_flush();
}

/* Until a signal comes, or a second has passed; its number, or 0. */
static int wait_second(const sigset_t *signals) {
  const struct timespec second = {.tv_sec = 1};
  int got = sigtimedwait(signals, NULL, &second);
  return got > 0 ? got : 0;
}

static int serve(serving *s, const sigset_t *signals) {
  while (wait_second(signals) == 0) gptvq_server_tick(s->server);
  gptvq_server_drain(s->server);
  gptvq_cli_note("stopping: requests that have begun are answered first, for up to %g s (again: at once)",
                 s->drain);
  double until = gptvq_cli_clock() + s->drain;
  const struct timespec moment = {.tv_nsec = 50000000};
  while (!gptvq_server_is_idle(s->server)) {
    if (gptvq_cli_clock() > until || sigtimedwait(signals, NULL, &moment) > 0)
      return gptvq_cli_error(GPTVQ_ERROR_CANCELLED, "stopped with requests unanswered");
    gptvq_server_tick(s->server);
  }
  return 0;
}

static int check(const serving *s) {
  if (!gptvq_server_available())
    return gptvq_cli_error(
        GPTVQ_ERROR_UNSUPPORTED,
        "this gptvq was built without its server: install libmicrohttpd-dev and build again");
  if (!gptvq_server_is_loopback(s->options.host) && s->options.api_key == NULL)
    gptvq_cli_warn("--host %s without --api-key: everybody who reaches this machine may use the model",
                   s->options.host);
  return 0;
}

/* While the model is read, one thread takes signals, which end the process as they do elsewhere. All threads
 * that are made meanwhile have them blocked. */
typedef struct hearing {
  const sigset_t *signals;
  atomic_bool over;
} hearing;

static void *hear(void *context) {
  hearing *h = context;
  const struct timespec moment = {.tv_nsec = 20000000};
  while (!atomic_load(&h->over)) {
    const int got = sigtimedwait(h->signals, NULL, &moment);
    if (got <= 0) continue;
    (void)pthread_sigmask(SIG_UNBLOCK, h->signals, NULL);
    (void)raise(got);
  }
  return NULL;
}

static int open_interruptibly(serving *s, const char *path, const sigset_t *signals) {
  hearing h = {.signals = signals};
  pthread_t thread;
  const bool there = pthread_create(&thread, NULL, hear, &h) == 0;
  const int code = open_all(s, path);
  atomic_store(&h.over, true);
  if (there) (void)pthread_join(thread, NULL);
  return code;
}

int gptvq_cmd_serve(int argc, char **argv) {
  serving s = {.options = {.host = "127.0.0.1",
                           .port = 8080,
                           .parallel = 4,
                           .queue = 256,
                           .max_body = 8 << 20,
                           .timeout = 600,
                           .log = on_log},
               .drain = 30};
  gptvq_model_options_init(&s.model_options);
  const gptvq_option options[] = {
      {GPTVQ_OPTION_STRING, "host", .value = &s.options.host, .argument = "ADDRESS",
       .help = "where to listen (default 127.0.0.1: this machine alone; 0.0.0.0 or ::: everywhere)"},
      {GPTVQ_OPTION_UNSIGNED, "port", .value = &s.options.port, .min = 0, .max = 65535, .argument = "N",
       .help = "port (default 8080); 0: any that is free. The address is printed"},
      {GPTVQ_OPTION_STRING, "api-key", .value = &s.options.api_key, .argument = "KEY",
       .help = "clients have to send KEY (default: $GPTVQ_API_KEY, which other users of this machine\n"
               "cannot see; without either everybody may ask)"},
      {GPTVQ_OPTION_SIZE, "parallel", .value = &s.options.parallel, .min = 1, .max = 256, .argument = "N",
       .help = "texts that are written at a time (default 4); they share each pass over the weights"},
      {GPTVQ_OPTION_SIZE, "ctx", .value = &s.options.ctx, .min = 16, .max = 1 << 24, .argument = "N",
       .help = "tokens of each text, its prompt included (default: 4096, or the model's context if\n"
               "smaller)"},
      {GPTVQ_OPTION_SIZE, "queue", .value = &s.options.queue, .min = 1, .max = 1 << 16, .argument = "N",
       .help = "texts that may wait for their turn, and texts of one request (default 256)"},
      {GPTVQ_OPTION_DOUBLE, "timeout", .value = &s.options.timeout, .min = 1, .max = 1e6, .zero = true,
       .argument = "S", .help = "seconds that a request may take, waiting included; 0: any (default 600)"},
      {GPTVQ_OPTION_DOUBLE, "drain", .value = &s.drain, .min = 0, .max = 1e6, .argument = "S",
       .help = "seconds that requests have to end after SIGTERM or Ctrl-C (default 30)"},
      {GPTVQ_OPTION_SIZE, "max-body", .value = &s.options.max_body, .min = 1024, .max = 1 << 30,
       .argument = "BYTES", .help = "of a request at most (default 8388608)"},
      {GPTVQ_OPTION_STRING, "name", .value = &s.options.name, .argument = "NAME",
       .help = "what clients call the model (default: its folder's name)"},
      {GPTVQ_OPTION_STRING, "cors", .value = &s.options.cors, .argument = "ORIGIN",
       .help = "let web pages of ORIGIN use the server, such as https://chat.example; *: of anyone\n"
               "(default: its own page alone)"},
      {GPTVQ_OPTION_STRING, "template", .value = &s.template_file, .argument = "FILE",
       .help = "a chat template (Jinja) instead of the model's"},
      {GPTVQ_OPTION_CHOICE, "compute", .value = &s.compute, .choices = gptvq_cli_computes(),
       .argument = "auto|fp32|bf16|int8",
       .help = "precision of the inputs of matrix products; auto (default): int8 for packed folders, else "
               "bf16\nwhere the weights and the processor have it, or fp32"},
      {GPTVQ_OPTION_UNSIGNED, "head-bits", .value = &s.model_options.head_bits, .min = 8, .max = 16,
       .argument = "8|16", .help = "weights of the output head (default: 8 with int8, else as stored)"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {
      .name = "serve",
      .usage = "MODEL [--port N] [options]",
      .summary = "answer programs that know OpenAI's API, over HTTP",
      .examples = "  gptvq serve small/\n"
                  "      then talk to it at http://127.0.0.1:8080, or give programs\n"
                  "      http://127.0.0.1:8080/v1 as the API's base URL\n"
                  "  gptvq serve small/ --parallel 16 --ctx 2048\n"
                  "  GPTVQ_API_KEY=secret gptvq serve small/ --host 0.0.0.0\n"
                  "  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' \\\n"
                  "       -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 40}'\n",
      .options = options,
      .arguments = {"MODEL"}};
  const char *path, *key = getenv("GPTVQ_API_KEY");
  int code;
  if (key != NULL && key[0] != '\0') s.options.api_key = key;
  if (!gptvq_cli_parse(&command, argc, argv, &path, &code)) return code;
  sigset_t signals;
  (void)sigemptyset(&signals);
  (void)sigaddset(&signals, SIGINT);
  (void)sigaddset(&signals, SIGTERM);
  code = check(&s);
  /* from here on they wait for `serve`, in all threads that will be */
  (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
  (void)signal(SIGPIPE, SIG_IGN);
  if (code == 0) code = open_interruptibly(&s, path, &signals);
  if (code == 0) code = announce(&s);
  if (code == 0) code = serve(&s, &signals);
  gptvq_server_stop(s.server);
  gptvq_chat_close(s.chat);
  gptvq_tokenizer_close(s.tokenizer);
  gptvq_model_close(s.model);
  return code;
}
