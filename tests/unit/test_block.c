/* The parts of a block as the quantizer uses them: captures, stops, replaced linears, single-block
 * workspaces. */
#include "base/memory.h"
#include "model/model_internal.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/model/"
enum { N = 24, MAX_CALLS = 16, MAX_WIDTH = 64 };

static const char *const folders[] = {"llama",  "llama-head-dim-bias", "mistral", "qwen3", "phi3", "mixtral",
                                      "qwen3_5"};
enum { FOLDERS = sizeof folders / sizeof folders[0] };

typedef struct seen {
  size_t calls, rows_of_call[MAX_CALLS], first_linear[MAX_CALLS], count[MAX_CALLS];
  float inputs[MAX_CALLS][N * MAX_WIDTH]; /* [rows × cols of the linears] */
  size_t fail_at;                         /* call that reports an error; 0 = none */
} seen;

static gptvq_status remember(void *context, const gptvq_block *block, const size_t *linears, size_t count,
                             const float *x, size_t n, size_t ldx, gptvq_error *err) {
  seen *s = context;
  if (linears[0] == GPTVQ_ROUTER_INPUT) { /* of all tokens, before the first expert */
    assert_true(gptvq_block_routes(block) && count == 1 && n == N && s->calls % 2 == 0);
    return GPTVQ_OK;
  }
  assert_in_range(s->calls, 0, MAX_CALLS - 1);
  size_t cols = block->linears[linears[0]].cols;
  assert_true(cols <= MAX_WIDTH && n <= N && ldx >= cols);
  for (size_t i = 1; i < count; i++) assert_int_equal(block->linears[linears[i]].cols, cols);
  for (size_t i = 0; i < n; i++) memcpy(s->inputs[s->calls] + i * cols, x + i * ldx, cols * sizeof *x);
  s->first_linear[s->calls] = linears[0];
  s->count[s->calls] = count;
  s->rows_of_call[s->calls++] = n;
  if (s->fail_at == s->calls) return gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "as told");
  return GPTVQ_OK;
}

typedef struct fixture {
  gptvq_model *model;
  gptvq_workspace *workspace;
  size_t values; /* N × hidden */
  float *start, *x;
} fixture;

static fixture open_fixture(const char *name) {
  fixture f;
  char path[512];
  gptvq_error err = {GPTVQ_OK, ""};
  int32_t ids[N];
  snprintf(path, sizeof path, GOLDEN "%s", name);
  if (gptvq_model_open(path, &in_fp32, &f.model, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  assert_int_equal(gptvq_workspace_create(f.model, 1, N, N, &f.workspace, &err), GPTVQ_OK);
  f.values = N * f.model->config.hidden;
  f.start = gptvq_alloc(f.values, sizeof *f.start);
  f.x = gptvq_alloc(f.values, sizeof *f.x);
  for (size_t i = 0; i < N; i++) ids[i] = (int32_t)(i * 37 % 64);
  assert_int_equal(gptvq_embed(f.model, ids, N, f.start, &err), GPTVQ_OK);
  memcpy(f.x, f.start, f.values * sizeof *f.x);
  return f;
}

static void close_fixture(fixture *f) {
  gptvq_workspace_destroy(f->workspace);
  gptvq_model_close(f->model);
  free(f->start);
  free(f->x);
}

static void attention(fixture *f, const gptvq_block *block, gptvq_stop stop, seen *s) {
  gptvq_error err = {GPTVQ_OK, ""};
  if (gptvq_block_attention(f->model, block, f->workspace, 0, 0, N, f->x, stop, s == NULL ? NULL : remember,
                            s, &err) != GPTVQ_OK)
    fail_msg("%s", err.message);
}

static void mlp(fixture *f, const gptvq_block *block, gptvq_stop stop, seen *s) {
  gptvq_error err = {GPTVQ_OK, ""};
  if (gptvq_block_mlp(f->model, block, f->workspace, N, f->x, stop, s == NULL ? NULL : remember, s, &err) !=
      GPTVQ_OK)
    fail_msg("%s", err.message);
}

/* One block at a time in a workspace for one block, then the head: the same bits as the session. */
static void blocks_make_the_session(void **state) {
  (void)state;
  for (size_t i = 0; i < FOLDERS; i++) {
    fixture f = open_fixture(folders[i]);
    float logits[N * 64], expected[N * 64];
    int32_t ids[N];
    for (size_t b = 0; b < f.model->config.layers; b++) {
      attention(&f, &f.model->blocks[b], GPTVQ_RUN_ALL, NULL);
      mlp(&f, &f.model->blocks[b], GPTVQ_RUN_ALL, NULL);
    }
    assert_int_equal(gptvq_head(f.model, f.workspace, N, f.x, logits, NULL), GPTVQ_OK);
    gptvq_session *session;
    assert_int_equal(gptvq_session_create(f.model, N, &session, NULL), GPTVQ_OK);
    for (size_t t = 0; t < N; t++) ids[t] = (int32_t)(t * 37 % 64);
    assert_int_equal(gptvq_session_forward(session, ids, N, expected, 1, NULL), GPTVQ_OK);
    assert_memory_equal(logits, expected, sizeof logits);
    gptvq_session_destroy(session);
    close_fixture(&f);
  }
}

/* Stops leave x as it was and capture a prefix of what the whole run captures; what the last linears make of
 * their captured inputs is what the run adds to x. */
static void captures_are_the_inputs(void **state) {
  (void)state;
  static seen all, first, second;
  for (size_t i = 0; i < FOLDERS; i++) {
    fixture f = open_fixture(folders[i]);
    const gptvq_block *block = &f.model->blocks[0];
    size_t hidden = f.model->config.hidden;
    all = first = second = (seen){.calls = 0};
    attention(&f, block, GPTVQ_STOP_AT_INPUT, &first);
    attention(&f, block, GPTVQ_STOP_AT_OUTPUT, &second);
    assert_memory_equal(f.x, f.start, f.values * sizeof *f.x);
    attention(&f, block, GPTVQ_RUN_ALL, &all);
    assert_int_equal(first.calls, 1);
    assert_int_equal(second.calls, 2);
    assert_int_equal(all.calls, 2);
    assert_int_equal(all.count[0], block->qkv.count);
    assert_int_equal(all.first_linear[1], block->o);
    assert_memory_equal(first.inputs[0], all.inputs[0], sizeof all.inputs[0]);
    assert_memory_equal(second.inputs, all.inputs, sizeof all.inputs);
    const gptvq_linear *o = &block->linears[block->o];
    float added[N * MAX_WIDTH];
    assert_int_equal(
        gptvq_linear_forward(o, GPTVQ_COMPUTE_FP32, N, all.inputs[1], o->cols, added, hidden, NULL),
        GPTVQ_OK);
    for (size_t v = 0; v < f.values; v++) assert_true(f.start[v] + added[v] == f.x[v]);
    memcpy(f.start, f.x, f.values * sizeof *f.x);
    all = first = second = (seen){.calls = 0};
    mlp(&f, block, GPTVQ_STOP_AT_INPUT, &first);
    mlp(&f, block, GPTVQ_STOP_AT_OUTPUT, &second);
    assert_memory_equal(f.x, f.start, f.values * sizeof *f.x);
    mlp(&f, block, GPTVQ_RUN_ALL, &all);
    assert_int_equal(first.calls, block->mlp_count);
    assert_int_equal(all.calls, 2 * block->mlp_count);
    assert_memory_equal(&second, &all, sizeof all);
    size_t rows = 0;
    for (size_t e = 0; e < block->mlp_count; e++) {
      assert_memory_equal(first.inputs[e], all.inputs[2 * e], sizeof all.inputs[0]);
      assert_int_equal(all.first_linear[2 * e], block->mlps[e].input.linear[0]);
      assert_int_equal(all.first_linear[2 * e + 1], block->mlps[e].down);
      assert_int_equal(all.rows_of_call[2 * e], all.rows_of_call[2 * e + 1]);
      rows += all.rows_of_call[2 * e];
    }
    assert_int_equal(rows, N * (f.model->config.experts > 0 ? f.model->config.experts_per_token : 1));
    close_fixture(&f);
  }
}

static void replaced_linears_are_used(void **state) {
  (void)state;
  fixture f = open_fixture("llama");
  gptvq_block block = f.model->blocks[0];
  gptvq_linear linears[7];
  static float zeros[64 * 64];
  memcpy(linears, block.linears, sizeof linears);
  linears[block.o].weights = zeros;
  linears[block.o].dtype = GPTVQ_F32;
  block.linears = linears;
  attention(&f, &block, GPTVQ_RUN_ALL, NULL);
  assert_memory_equal(f.x, f.start, f.values * sizeof *f.x); /* nothing was added */
  close_fixture(&f);
}

static void failures_pass_through(void **state) {
  (void)state;
  fixture f = open_fixture("mixtral");
  gptvq_error err;
  static seen s;
  const gptvq_block *block = &f.model->blocks[1];
  for (size_t at = 1; at <= 2 * block->mlp_count; at++) {
    s = (seen){.fail_at = at};
    assert_int_equal(gptvq_block_mlp(f.model, block, f.workspace, N, f.x, GPTVQ_RUN_ALL, remember, &s, &err),
                     GPTVQ_ERROR_NUMERIC);
    assert_string_equal(err.message, "as told");
    assert_memory_equal(f.x, f.start, f.values * sizeof *f.x);
  }
  assert_int_equal(gptvq_block_mlp(f.model, block, f.workspace, N + 1, f.x, GPTVQ_RUN_ALL, NULL, NULL, &err),
                   GPTVQ_ERROR_ARGUMENT);
  assert_int_equal(
      gptvq_block_attention(f.model, block, f.workspace, 0, 1, N, f.x, GPTVQ_RUN_ALL, NULL, NULL, &err),
      GPTVQ_ERROR_ARGUMENT);
  assert_int_equal(
      gptvq_block_attention(f.model, block, f.workspace, 1, 0, N, f.x, GPTVQ_RUN_ALL, NULL, NULL, &err),
      GPTVQ_ERROR_ARGUMENT);
  close_fixture(&f);
}

/* Texts that go side by side, token by token, see what each sees in a session of its own; sums of at most 128
 * fp32 products in another order over few layers: 1e-4 of the largest logit is far above their rounding, far
 * below another text's logits. */
static void texts_side_by_side_are_texts_alone(void **state) {
  (void)state;
  enum { TEXTS = 9, LENGTH = 7, VOCAB_MAX = 512 };
  for (size_t i = 0; i < FOLDERS; i++) {
    gptvq_model *model;
    gptvq_workspace *workspace;
    gptvq_error err = {GPTVQ_OK, ""};
    char path[512];
    snprintf(path, sizeof path, GOLDEN "%s", folders[i]);
    assert_int_equal(gptvq_model_open(path, &in_fp32, &model, &err), GPTVQ_OK);
    size_t hidden = model->config.hidden, vocab = model->config.vocab, layers = model->config.layers;
    assert_true(vocab <= VOCAB_MAX);
    assert_int_equal(gptvq_workspace_create(model, layers * TEXTS, TEXTS, LENGTH, &workspace, &err),
                     GPTVQ_OK);
    static float logits[TEXTS * VOCAB_MAX], alone[VOCAB_MAX];
    int32_t tokens[TEXTS][LENGTH], column[TEXTS];
    float *x = gptvq_alloc(TEXTS, hidden * sizeof *x), other = 0.0f;
    for (size_t t = 0; t < TEXTS; t++)
      for (size_t p = 0; p < LENGTH; p++) tokens[t][p] = (int32_t)((t * 11 + p * (5 + t)) % 64);
    for (size_t p = 0; p < LENGTH; p++) {
      for (size_t t = 0; t < TEXTS; t++) column[t] = tokens[t][p];
      assert_int_equal(gptvq_embed(model, column, TEXTS, x, &err), GPTVQ_OK);
      for (size_t b = 0; b < layers; b++) {
        gptvq_attention_text texts[TEXTS];
        for (size_t t = 0; t < TEXTS; t++)
          assert_int_equal(gptvq_workspace_text(model, &model->blocks[b], workspace, b * TEXTS + t, p, t, 1,
                                                &texts[t], &err),
                           GPTVQ_OK);
        assert_int_equal(
            gptvq_block_attention_step(model, &model->blocks[b], workspace, texts, TEXTS, TEXTS, x, &err),
            GPTVQ_OK);
        assert_int_equal(
            gptvq_block_mlp(model, &model->blocks[b], workspace, TEXTS, x, GPTVQ_RUN_ALL, NULL, NULL, &err),
            GPTVQ_OK);
      }
    }
    assert_int_equal(gptvq_head(model, workspace, TEXTS, x, logits, &err), GPTVQ_OK);
    for (size_t t = 0; t < TEXTS; t++) {
      gptvq_session *session;
      assert_int_equal(gptvq_session_create(model, LENGTH, &session, &err), GPTVQ_OK);
      assert_int_equal(gptvq_session_forward(session, tokens[t], LENGTH, alone, 0, &err), GPTVQ_OK);
      float most = 0.0f;
      for (size_t v = 0; v < vocab; v++) most = fmaxf(most, fabsf(alone[v]));
      for (size_t v = 0; v < vocab; v++) {
        if (!(fabsf(alone[v] - logits[t * vocab + v]) <= 1e-4f * most))
          fail_msg("%s, text %zu: logit %zu is %g, alone %g", folders[i], t, v, (double)logits[t * vocab + v],
                   (double)alone[v]);
        other = fmaxf(other, fabsf(alone[v] - logits[(t + 1) % TEXTS * vocab + v]) / most);
      }
      gptvq_session_destroy(session);
    }
    assert_true(other > 1e-2f);
    gptvq_attention_text text;
    assert_int_equal(
        gptvq_workspace_text(model, &model->blocks[0], workspace, layers * TEXTS, 0, 0, 1, &text, &err),
        GPTVQ_ERROR_ARGUMENT);
    assert_int_equal(gptvq_workspace_text(model, &model->blocks[0], workspace, 0, LENGTH, 0, 1, &text, &err),
                     GPTVQ_ERROR_ARGUMENT);
    free(x);
    gptvq_workspace_destroy(workspace);
    gptvq_model_close(model);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(texts_side_by_side_are_texts_alone), cmocka_unit_test(blocks_make_the_session),
      cmocka_unit_test(captures_are_the_inputs), cmocka_unit_test(replaced_linears_are_used),
      cmocka_unit_test(failures_pass_through)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
