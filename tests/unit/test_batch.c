/* Steps of several sessions together: each gets what it gets alone, in INT8 and BF16 to the bit. */
#include "tiny_model.h"

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/model/"

enum { MOST = 16, ROOM = 64, STEPS = 3, VOCAB_MAX = 512 };

/* Originals of several architectures (sliding window, experts, long rope, caps, ropes by kind of layer,
 * sinks, latent attention), and packed folders of set_up.
 */
static const char *const folders[] = {GOLDEN "llama",
                                      GOLDEN "qwen2-window",
                                      GOLDEN "mixtral",
                                      GOLDEN "phi3-longrope",
                                      GOLDEN "gemma2",
                                      GOLDEN "gemma3",
                                      GOLDEN "smollm3",
                                      GOLDEN "olmo3",
                                      GOLDEN "ministral3",
                                      GOLDEN "glm4",
                                      GOLDEN "gpt-oss",
                                      GOLDEN "deepseek-v3",
                                      GOLDEN "qwen3_5",
                                      GOLDEN "qwen3-next",
                                      "pairs",
                                      "ordered",
                                      "uniform",
                                      "experts"};
enum { FOLDERS = sizeof folders / sizeof folders[0] };

/* Sums of at most 128 fp32 products in another order over a few layers: far above their rounding, far below
 * another text's logits, as in test_block.c. */
#define FP32_BOUND 1e-4f

typedef struct texts {
  gptvq_model *model;
  gptvq_compute compute;
  size_t vocab, count;
  gptvq_session *together[MOST], *alone[MOST];
  gptvq_batch *batch;
  int32_t ids[MOST][GPTVQ_BATCH_TOKENS + 1];
  const int32_t *tokens[MOST];
  size_t counts[MOST];
} texts;

static float together[MOST * VOCAB_MAX], alone[VOCAB_MAX];

/* Sessions of several lengths at several positions, some at their beginning, each twice. */
static texts begin(const char *folder, gptvq_compute compute, size_t count) {
  texts t = {.compute = compute, .count = count};
  gptvq_model_info info = {.size = sizeof info};
  const gptvq_model_options options = {.size = sizeof options, .compute = compute};
  ok(gptvq_model_open(folder, &options, &t.model, err));
  gptvq_model_get_info(t.model, &info);
  t.vocab = info.vocab;
  assert_true(t.vocab <= VOCAB_MAX);
  for (size_t i = 0; i < count; i++) {
    int32_t prompt[ROOM];
    size_t length = i * 5 % 23;
    for (size_t p = 0; p < length; p++) prompt[p] = (int32_t)((i * 11 + p * (5 + i)) % t.vocab);
    ok(gptvq_session_create(t.model, ROOM - i, &t.together[i], err));
    ok(gptvq_session_forward(t.together[i], prompt, length, NULL, 0, err));
    ok(gptvq_session_fork(t.together[i], &t.alone[i], err));
  }
  ok(gptvq_batch_create(t.model, MOST * GPTVQ_BATCH_TOKENS, &t.batch, err));
  return t;
}

static void end(texts *t) {
  gptvq_batch_destroy(t->batch);
  for (size_t i = 0; i < t->count; i++) {
    gptvq_session_destroy(t->together[i]);
    gptvq_session_destroy(t->alone[i]);
  }
  gptvq_model_close(t->model);
}

static void choose_tokens(texts *t, size_t step, bool few) {
  for (size_t i = 0; i < t->count; i++) {
    for (size_t k = 0; k <= GPTVQ_BATCH_TOKENS; k++)
      t->ids[i][k] = (int32_t)((step * 31 + i * 7 + k * 3) % t->vocab);
    t->tokens[i] = t->ids[i];
    t->counts[i] = few ? 1 + (i + step) % GPTVQ_BATCH_TOKENS : 1;
  }
}

static gptvq_status step_together(texts *t, gptvq_error *err) {
  return gptvq_batch_forward(t->batch, t->count, t->together, t->tokens, t->counts, together, err);
}

/* What the batch has just done, session by session. */
static void assert_alone(texts *t, const char *what) {
  for (size_t i = 0; i < t->count; i++) {
    ok(gptvq_session_forward(t->alone[i], t->tokens[i], t->counts[i], alone, 0, err));
    assert_int_equal(gptvq_session_position(t->together[i]), gptvq_session_position(t->alone[i]));
    const float *x = together + i * t->vocab;
    bool same = memcmp(alone, x, t->vocab * sizeof *alone) == 0;
    if (!same && t->compute == GPTVQ_COMPUTE_FP32) {
      float most = 0.0f;
      for (size_t v = 0; v < t->vocab; v++) most = fmaxf(most, fabsf(alone[v]));
      same = true;
      for (size_t v = 0; v < t->vocab; v++) same = same && fabsf(alone[v] - x[v]) <= FP32_BOUND * most;
    }
    if (!same) fail_msg("%s: session %zu of %zu gets other logits than alone", what, i, t->count);
  }
}

static void each_gets_what_it_gets_alone(void **state) {
  (void)state;
  static const gptvq_compute computes[] = {GPTVQ_COMPUTE_FP32, GPTVQ_COMPUTE_BF16, GPTVQ_COMPUTE_INT8};
  static const size_t counts[] = {1, 2, 3, 4, 5, 8, 9, 13, 16};
  for (size_t f = 0; f < FOLDERS; f++)
    for (size_t c = 0; c < 3; c++)
      for (size_t n = 0; n < sizeof counts / sizeof counts[0]; n++) {
        gptvq_set_threads(1 + (int)(n % 3));
        texts t = begin(folders[f], computes[c], counts[n]);
        for (size_t step = 0; step < STEPS; step++) {
          choose_tokens(&t, step, step > 0);
          ok(step_together(&t, err));
          assert_alone(&t, folders[f]);
        }
        choose_tokens(&t, STEPS, false); /* keys and values are there for later steps alone */
        for (size_t i = 0; i < t.count; i++)
          ok(gptvq_session_forward(t.together[i], t.tokens[i], 1, together + i * t.vocab, 0, err));
        assert_alone(&t, folders[f]);
        end(&t);
      }
  gptvq_set_threads(0);
}

static void assert_as_before(texts *t) {
  for (size_t i = 0; i < t->count; i++)
    assert_int_equal(gptvq_session_position(t->together[i]), gptvq_session_position(t->alone[i]));
}

static void what_cannot_be_is_refused_and_changes_nothing(void **state) {
  (void)state;
  texts t = begin(GOLDEN "llama", GPTVQ_COMPUTE_FP32, 5),
        other = begin(GOLDEN "llama", GPTVQ_COMPUTE_FP32, 1);
  gptvq_error error;
  choose_tokens(&t, 0, true);
  gptvq_session *kept = t.together[3];
  t.together[3] = t.together[1];
  assert_int_equal(step_together(&t, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "sessions 1 and 3 of the batch are the same"));
  t.together[3] = other.together[0];
  assert_int_equal(step_together(&t, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "session 3 of the batch is of another model"));
  t.together[3] = kept;
  for (size_t count = 0; count <= GPTVQ_BATCH_TOKENS + 1; count += GPTVQ_BATCH_TOKENS + 1) {
    t.counts[4] = count;
    assert_int_equal(step_together(&t, &error), GPTVQ_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "session 4 of the batch"));
  }
  t.counts[4] = 1;
  t.ids[4][0] = (int32_t)t.vocab;
  assert_int_equal(step_together(&t, &error), GPTVQ_ERROR_DATA);
  assert_non_null(strstr(error.message, "session 4 of the batch: token id"));
  t.ids[4][0] = 0;
  assert_as_before(&t);

  gptvq_session *full;
  ok(gptvq_session_create(t.model, 2, &full, err));
  kept = t.together[2];
  t.together[2] = full;
  t.counts[2] = 3;
  assert_int_equal(step_together(&t, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "session of 2 positions"));
  gptvq_session_destroy(full);
  t.together[2] = kept;
  gptvq_batch *small;
  ok(gptvq_batch_create(t.model, 4, &small, err));
  assert_int_equal(gptvq_batch_forward(small, t.count, t.together, t.tokens, t.counts, NULL, &error),
                   GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "the 4 that the batch is for"));
  gptvq_batch_destroy(small);
  assert_int_equal(gptvq_batch_create(t.model, 0, &small, &error), GPTVQ_ERROR_ARGUMENT);
  assert_null(small);
  ok(gptvq_batch_forward(t.batch, 0, NULL, NULL, NULL, NULL, err)); /* nobody there */
  assert_as_before(&t);
  ok(step_together(&t, err));
  assert_alone(&t, "after all that");
  end(&t);
  end(&other);
}

static void a_cancelled_session_stops_the_step(void **state) {
  (void)state;
  texts t = begin(GOLDEN "llama", GPTVQ_COMPUTE_FP32, 4);
  gptvq_error error;
  choose_tokens(&t, 1, true);
  gptvq_session_cancel(t.together[1]);
  gptvq_session_cancel(t.together[3]);
  for (size_t i = 1; i < 4; i += 2) { /* one request a step */
    char words[64];
    (void)snprintf(words, sizeof words, "session %zu of the batch", i);
    assert_int_equal(step_together(&t, &error), GPTVQ_ERROR_CANCELLED);
    assert_non_null(strstr(error.message, words));
    assert_as_before(&t);
  }
  ok(step_together(&t, err));
  assert_alone(&t, "after two requests");
  end(&t);
}

static void numbers_that_overflow_leave_the_positions(void **state) {
  (void)state;
  texts t = begin("overflows", GPTVQ_COMPUTE_FP32, 0);
  gptvq_error error;
  t.count = 3;
  for (size_t i = 0; i < t.count; i++) {
    ok(gptvq_session_create(t.model, ROOM, &t.together[i], err));
    ok(gptvq_session_create(t.model, ROOM, &t.alone[i], err));
  }
  choose_tokens(&t, 0, true);
  assert_int_equal(step_together(&t, &error), GPTVQ_ERROR_NUMERIC);
  assert_as_before(&t);
  end(&t);
}

static int set_up(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_model overflows = tiny_llama;
  overflows.scaled_name = "layers.1.mlp.down_proj";
  overflows.scale = 1e30;
  tiny_write(&overflows, "overflows");
  tiny_write(&tiny_llama, "llama");
  tiny_write(&tiny_mixtral, "mixtral");
  tiny_write_corpus("corpus.txt", 4000);
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
  gptvq_status status = gptvq_quantize("llama", "pairs", &o, NULL, NULL, NULL);
  o.act_order = 1; /* a stored permutation */
  o.head_bits = 8;
  if (status == GPTVQ_OK) status = gptvq_quantize("llama", "ordered", &o, NULL, NULL, NULL);
  o = tiny_quantize_options(GPTVQ_METHOD_RTN);
  o.embedding_bits = 4; /* both packed, the head with a kernel of its codes */
  o.head_bits = 5;
  if (status == GPTVQ_OK) status = gptvq_quantize("llama", "uniform", &o, NULL, NULL, NULL);
  o = tiny_quantize_options(GPTVQ_METHOD_KMEANS);
  if (status == GPTVQ_OK) status = gptvq_quantize("mixtral", "experts", &o, NULL, NULL, NULL);
  return status == GPTVQ_OK ? 0 : -1;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(each_gets_what_it_gets_alone),
                                     cmocka_unit_test(what_cannot_be_is_refused_and_changes_nothing),
                                     cmocka_unit_test(a_cancelled_session_stops_the_step),
                                     cmocka_unit_test(numbers_that_overflow_leave_the_positions)};
  return cmocka_run_group_tests(tests, set_up, tiny_drop_scratch);
}
