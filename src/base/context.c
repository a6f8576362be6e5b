#include "base/context.h"
#include "base/affinity.h"
#include "base/memory.h"
#include "base/status.h"

static gptvq_context default_context = {.pool = GPTVQ_POOL_INIT};
static _Thread_local gptvq_context *current = &default_context;

gptvq_context *gptvq_context_of(gptvq_context *context) {
  return context != NULL ? context : &default_context;
}

gptvq_context *gptvq_context_current(void) { return current; }

gptvq_status gptvq_context_create(gptvq_context **out, gptvq_error *err) {
  static const gptvq_pool empty = GPTVQ_POOL_INIT;
  gptvq_context *context = gptvq_alloc_zero(1, sizeof *context);
  *out = NULL;
  if (context == NULL) return gptvq_fail_memory(err, "a context", sizeof *context);
  context->pool = empty;
  context->cpu = gptvq_cpu_initial();
  *out = context;
  return GPTVQ_OK;
}

void gptvq_context_destroy(gptvq_context *context) {
  if (context == NULL || context == &default_context) return;
  if (current == context) (void)gptvq_context_use(NULL);
  gptvq_pool_release(&context->pool);
  free(context);
}

gptvq_context *gptvq_context_use(gptvq_context *context) {
  gptvq_context *before = current;
  context = gptvq_context_of(context);
  if (context == before) return before;
  current = context;
  gptvq_affinity_enter(&context->affinity);
  return before;
}
