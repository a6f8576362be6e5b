/* Contexts: each has threads, CPUs and a CPU level of its own, and they are used at the same time. Meant for
 * the thread sanitizer too. */
#define _GNU_SOURCE
#include "base/context.h"
#include "tiny_model.h"

#include <pthread.h>
#include <sched.h>

enum { TOKENS = 24, ROUNDS = 6 };

static gptvq_context *make(int threads, const char *level) {
  gptvq_context *context;
  ok(gptvq_context_create(&context, err));
  gptvq_context_set_threads(context, threads);
  ok(gptvq_context_set_cpu(context, level, err));
  return context;
}

typedef struct seen {
  _Atomic size_t tasks, others; /* those that found another context, or a thread number beyond it */
  gptvq_context *context;
} seen;

static void look(void *argument, size_t begin, size_t end, size_t thread) {
  seen *s = argument;
  atomic_fetch_add(&s->tasks, end - begin);
  if (gptvq_context_current() != s->context || thread >= gptvq_thread_count() ||
      gptvq_cpu() != s->context->cpu)
    atomic_fetch_add(&s->others, 1);
}

static void settings_are_a_contexts_own(void **state) {
  (void)state;
  gptvq_set_threads(2);
  gptvq_context *a = make(1, "ref"), *b = make(3, NULL), *start = gptvq_context_use(NULL);
  const char *best = gptvq_context_get_cpu(b);
  assert_string_equal(gptvq_get_cpu(), best);
  assert_string_equal(gptvq_context_get_cpu(a), "ref");
  assert_int_equal(gptvq_context_get_threads(a), 1);
  assert_int_equal(gptvq_context_get_threads(b), 3);
  assert_int_equal(gptvq_get_threads(), 2);
  gptvq_context *const all[] = {a, b, start};
  for (size_t i = 0; i < 3; i++) {
    seen s = {.context = all[i]};
    gptvq_context *before = gptvq_context_use(all[i]);
    assert_ptr_equal(before, i == 0 ? start : all[i - 1]);
    assert_int_equal(gptvq_thread_count(), gptvq_context_get_threads(all[i]));
    for (size_t round = 0; round < 100; round++) gptvq_parallel_for(50, 1, look, &s);
    assert_int_equal(atomic_load(&s.tasks), 5000);
    assert_int_equal(atomic_load(&s.others), 0);
  }
  assert_int_equal(gptvq_get_threads(), 2); /* of the default context, wherever the caller is */
  gptvq_error error;
  assert_int_equal(gptvq_context_set_cpu(a, "fast", &error), GPTVQ_ERROR_ARGUMENT);
  assert_int_equal(gptvq_context_set_affinity(a, "x", &error), GPTVQ_ERROR_ARGUMENT);
  assert_string_equal(gptvq_context_get_cpu(a), "ref");
  size_t everywhere = gptvq_thread_count_everywhere();
  gptvq_context_destroy(a);
  assert_int_equal(gptvq_thread_count_everywhere(), everywhere - 1);
  (void)gptvq_context_use(b);
  gptvq_context_destroy(b); /* the thread is not left in what is gone */
  assert_ptr_equal(gptvq_context_current(), start);
  gptvq_context_destroy(NULL);
  gptvq_context_destroy(start); /* the default one stays */
  assert_int_equal(gptvq_get_threads(), 2);
  gptvq_set_threads(0);
}

static int first_cpu(void) {
  cpu_set_t set;
  assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &set)) cpu++;
  return cpu;
}

static int cpu_count(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : -1;
}

static int bound_while_running(void *user, const gptvq_progress *progress) {
  (void)progress;
  *(int *)user = cpu_count();
  return 0;
}

static void threads_are_bound_while_they_are_in_it(void **state) {
  (void)state;
  char list[16];
  int before = cpu_count(), inside = 0;
  gptvq_context *context = make(1, NULL);
  (void)snprintf(list, sizeof list, "%d", first_cpu());
  ok(gptvq_context_set_affinity(context, list, err));
  assert_int_equal(gptvq_context_get_threads(context), 1);
  assert_int_equal(cpu_count(), before); /* this thread is in the default context */
  gptvq_context *start = gptvq_context_use(context);
  assert_int_equal(cpu_count(), 1);
  gptvq_model *model;
  gptvq_tokenizer *tokenizer;
  gptvq_eval_result result = {.size = sizeof result};
  gptvq_mapping text;
  ok(gptvq_model_open("llama", NULL, &model, err));
  (void)gptvq_context_use(start);
  assert_int_equal(cpu_count(), before);
  ok(gptvq_tokenizer_open("llama", &tokenizer, err));
  ok(gptvq_map_file("corpus.txt", &text, err));
  const gptvq_callbacks callbacks = {
      .size = sizeof callbacks, .user = &inside, .progress = bound_while_running};
  const gptvq_eval_options options = {.size = sizeof options, .ctx = 32, .max_windows = 1};
  ok(gptvq_eval_text(model, tokenizer, (const char *)text.data, text.size, &options, &callbacks, &result,
                     err));
  assert_int_equal(inside, 1); /* the model's context, not the caller's */
  assert_int_equal(cpu_count(), before);
  assert_ptr_equal(gptvq_context_current(), start);
  gptvq_unmap_file(&text);
  gptvq_tokenizer_close(tokenizer);
  gptvq_model_close(model);
  gptvq_context_destroy(context);
}

/* ---- at the same time ---- */

typedef struct worker {
  gptvq_context *context; /* that the model is opened in; the thread itself stays in the default one */
  gptvq_compute compute;
  const char *out; /* not NULL: quantizes instead */
  float logits[TOKENS * TINY_VOCAB];
  gptvq_status status;
  gptvq_error err;
  pthread_t id;
} worker;

static pthread_barrier_t together;

static gptvq_status decode(worker *w) {
  gptvq_model *model = NULL;
  gptvq_session *session = NULL;
  gptvq_context *before = gptvq_context_use(w->context);
  const gptvq_model_options options = {.size = sizeof options, .compute = w->compute};
  gptvq_status status = gptvq_model_open("packed", &options, &model, &w->err);
  (void)gptvq_context_use(before);
  if (status == GPTVQ_OK) status = gptvq_session_create(model, TOKENS, &session, &w->err);
  for (int round = 0; round < ROUNDS && status == GPTVQ_OK; round++) {
    gptvq_session_reset(session);
    for (int32_t i = 0; i < TOKENS && status == GPTVQ_OK; i++) {
      int32_t token = (i * 29 + 5) % TINY_VOCAB;
      status = gptvq_session_forward(session, &token, 1, w->logits + i * TINY_VOCAB, 0, &w->err);
    }
  }
  gptvq_session_destroy(session);
  gptvq_model_close(model);
  return status;
}

static gptvq_status quantize(worker *w) {
  gptvq_quantize_options options = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
  options.calib_compute = GPTVQ_COMPUTE_FP32; /* contexts differ in their instruction sets */
  (void)gptvq_context_use(w->context);
  return gptvq_quantize("llama", w->out, &options, NULL, NULL, &w->err);
}

static void *run(void *argument) {
  worker *w = argument;
  pthread_barrier_wait(&together);
  w->status = w->out != NULL ? quantize(w) : decode(w);
  return NULL;
}

static void contexts_work_at_the_same_time(void **state) {
  (void)state;
  static const char *const levels[] = {"ref", NULL};
  static worker alone[4], many[8];
  for (size_t i = 0; i < 4; i++) { /* one after the other, in the default context */
    gptvq_set_threads(i % 2 == 0 ? 1 : 2);
    ok(gptvq_set_cpu(levels[i / 2], err));
    alone[i] = (worker){.compute = i % 2 == 0 ? GPTVQ_COMPUTE_FP32 : GPTVQ_COMPUTE_INT8};
    assert_int_equal(decode(&alone[i]), GPTVQ_OK);
  }
  gptvq_set_threads(0);
  gptvq_context *contexts[] = {make(2, levels[0]), make(3, levels[1])};
  assert_int_equal(pthread_barrier_init(&together, NULL, 8), 0);
  for (size_t i = 0; i < 8; i++) { /* two of a kind, and a run of the quantizer in each context */
    many[i] = i < 6 ? (worker){.context = contexts[i % 4 / 2], .compute = alone[i % 4].compute}
                    : (worker){.context = contexts[i - 6], .out = i == 6 ? "first" : "second"};
    assert_int_equal(pthread_create(&many[i].id, NULL, run, &many[i]), 0);
  }
  for (size_t i = 0; i < 8; i++) {
    assert_int_equal(pthread_join(many[i].id, NULL), 0);
    if (many[i].status != GPTVQ_OK) fail_msg("%zu: %s", i, many[i].err.message);
    if (i < 6) assert_memory_equal(many[i].logits, alone[i % 4].logits, sizeof many[i].logits);
  }
  assert_same_folder("packed", "first");
  assert_same_folder("packed", "second");
  (void)pthread_barrier_destroy(&together);
  for (size_t i = 0; i < 2; i++) gptvq_context_destroy(contexts[i]);
}

static int set_up(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_write(&tiny_llama, "llama");
  tiny_write_corpus("corpus.txt", 4000);
  gptvq_quantize_options options = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
  options.calib_compute = GPTVQ_COMPUTE_FP32; /* contexts differ in their instruction sets */
  return gptvq_quantize("llama", "packed", &options, NULL, NULL, NULL) == GPTVQ_OK ? 0 : -1;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(settings_are_a_contexts_own),
                                     cmocka_unit_test(threads_are_bound_while_they_are_in_it),
                                     cmocka_unit_test(contexts_work_at_the_same_time)};
  return cmocka_run_group_tests(tests, set_up, tiny_drop_scratch);
}
