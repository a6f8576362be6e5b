/* In the place of http/ where libmicrohttpd is missing. */
#include "server/server.h"

#include "base/status.h"

#include <stddef.h>

bool gptvq_server_available(void) { return false; }

size_t gptvq_server_estimate(const gptvq_model *model, size_t parallel, size_t ctx) {
  (void)model, (void)parallel, (void)ctx;
  return 0;
}

gptvq_status gptvq_server_start(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                                const gptvq_chat *chat, const char *no_chat,
                                const gptvq_server_options *options, gptvq_server **out, gptvq_error *err) {
  (void)model, (void)tokenizer, (void)chat, (void)no_chat, (void)options;
  *out = NULL;
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                    "this gptvq was built without its server: install libmicrohttpd-dev and build again");
}

unsigned gptvq_server_port(const gptvq_server *server) { return server == NULL ? 0 : 0; }
void gptvq_server_tick(gptvq_server *server) { (void)server; }
void gptvq_server_drain(gptvq_server *server) { (void)server; }
bool gptvq_server_is_idle(gptvq_server *server) { return server == NULL || true; }
void gptvq_server_stop(gptvq_server *server) { (void)server; }
