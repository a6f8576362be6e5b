/* Embedding and output head as packed layers: rows that are looked up are the rows of the matrix, products
 * are those of it, one matrix where they are tied, the same bytes in slabs, resumed or not, and what is
 * refused. */
#define _GNU_SOURCE
#include "tiny_model.h"

#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "model/loader.h"
#include "quant/layer/solver.h"
#include "quant/run/budget.h"
#include "quant/run/outside.h"

#include <gptvq/gptvq.h>

enum { TOKENS = 12, LOGITS = TOKENS * TINY_VOCAB };
static const unsigned all_bits[] = {3, 4, 5, 6, 7, 8};

static int make_scratch(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_write(&tiny_llama, "llama");
  tiny_write(&tiny_tied, "tied");
  tiny_write(&tiny_gemma2, "gemma2"); /* tied, embeddings are scaled */
  return 0;
}

static gptvq_quantize_options options_of(gptvq_method method, unsigned embedding, unsigned head) {
  gptvq_quantize_options o;
  gptvq_quantize_options_init(&o);
  o.method = method;
  o.bits = 0;
  o.index_bits = 4;
  o.group_size = 32;
  o.embedding_bits = embedding;
  o.head_bits = head;
  o.calib = "self";
  o.calib_samples = 3;
  o.calib_length = 16;
  o.judge_tokens = 0;
  o.force = 1;
  return o;
}

static gptvq_model *open_as(const char *folder, gptvq_compute compute) {
  const gptvq_model_options options = {.size = sizeof options, .compute = compute};
  gptvq_model *model;
  ok(gptvq_model_open(folder, &options, &model, err));
  return model;
}

static void check_gather(const gptvq_model *model) {
  int32_t tokens[TINY_VOCAB];
  static float x[TINY_VOCAB * TINY_HIDDEN], rows[TINY_VOCAB * TINY_HIDDEN];
  const float scale = (float)model->config.embedding_scale;
  for (int i = 0; i < TINY_VOCAB; i++) tokens[i] = (7 * i + 3) % TINY_VOCAB;
  ok(gptvq_embed(model, tokens, TINY_VOCAB, x, err));
  gptvq_packed_decode_ref(&model->embedding.packed, 0, TINY_VOCAB, rows, TINY_HIDDEN);
  for (size_t i = 0; i < TINY_VOCAB; i++)
    for (size_t c = 0; c < TINY_HIDDEN; c++)
      assert_true(x[i * TINY_HIDDEN + c] == rows[(size_t)tokens[i] * TINY_HIDDEN + c] * scale);
}

/* One product after the other in double. fp32: any order of the sums is within n · 2^-24 · Σ|w x| (and a few
 * more roundings: the decoding's, the fold's). Int8 inputs: each is off by at most half a step of its block,
 * step = max|x| / 127 there, weights of 8 bits too by at most half of theirs, both held here by those of the
 * whole row. */
static void check_head(const gptvq_model *model, bool int8) {
  static float x[LOGITS], norm[TOKENS * TINY_HIDDEN], logits[LOGITS], w[TINY_VOCAB * TINY_HIDDEN];
  gptvq_workspace *workspace;
  gptvq_model plain = *model;
  plain.config.logit_cap = 0.0; /* the product itself */
  uint64_t state = 5;
  for (size_t i = 0; i < TOKENS * TINY_HIDDEN; i++)
    x[i] = (float)(gptvq_random(&state) >> 40) / (float)(1 << 24) - 0.5f;
  gptvq_packed_decode_ref(&model->head.packed, 0, TINY_VOCAB, w, TINY_HIDDEN);
  for (size_t n = 1; n <= TOKENS; n += TOKENS - 1) {
    ok(gptvq_workspace_create(&plain, 1, TOKENS, TOKENS, &workspace, err));
    ok(gptvq_final_norm(&plain, n, x, norm, err));
    ok(gptvq_head(&plain, workspace, n, x, logits, err));
    for (size_t i = 0; i < n; i++) {
      const float *row = norm + i * TINY_HIDDEN;
      double largest = 0.0;
      for (size_t c = 0; c < TINY_HIDDEN; c++) largest = fmax(largest, fabs((double)row[c]));
      for (size_t r = 0; r < TINY_VOCAB; r++) {
        double exact = 0.0, sum = 0.0, weights = 0.0;
        for (size_t c = 0; c < TINY_HIDDEN; c++) {
          exact += (double)row[c] * (double)w[r * TINY_HIDDEN + c];
          sum += fabs((double)row[c] * (double)w[r * TINY_HIDDEN + c]);
          weights += fabs((double)w[r * TINY_HIDDEN + c]);
        }
        double bound = (TINY_HIDDEN + 8) * 0x1p-24 * sum;
        if (int8) bound = 1.001 * (weights * largest / 254.0 + bound);
        if (!(fabs((double)logits[i * TINY_VOCAB + r] - exact) <= bound))
          fail_msg("token %zu of %zu, row %zu: %g, should be %g", i, n, r, (double)logits[i * TINY_VOCAB + r],
                   exact);
      }
    }
    gptvq_workspace_destroy(workspace);
  }
}

/* Bytes as FORMAT.md has them. */
static uint64_t expected_bytes(unsigned bits) {
  if (bits == 8) return TINY_VOCAB * (TINY_HIDDEN + 2 + 1);
  return TINY_VOCAB * TINY_HIDDEN * bits / 8 + 2 * TINY_VOCAB + TINY_VOCAB * bits / 8;
}

static void one_matrix(const char *name, bool tied, gptvq_method method) {
  gptvq_model *original = open_as(name, GPTVQ_COMPUTE_FP32);
  gptvq_model_info before = {.size = sizeof before}, after = {.size = sizeof after};
  gptvq_model_get_info(original, &before);
  const size_t dense = TINY_VOCAB * TINY_HIDDEN * gptvq_dtype_size(original->embedding.dtype),
               matrices = tied ? 1 : 2;
  gptvq_quantize_options o = options_of(method, 0, 16);
  ok(gptvq_quantize(name, "whole", &o, NULL, NULL, err));
  gptvq_model *whole = open_as("whole", GPTVQ_COMPUTE_FP32);
  gptvq_model_get_info(whole, &before);
  for (size_t b = 0; b < sizeof all_bits / sizeof all_bits[0]; b++) {
    /* of a tied pair either option will do */
    o = options_of(method, tied && b % 2 == 1 ? 16 : all_bits[b], tied && b % 2 == 0 ? 16 : all_bits[b]);
    ok(gptvq_quantize(name, "packed", &o, NULL, NULL, err));
    for (gptvq_compute compute = GPTVQ_COMPUTE_FP32; compute <= GPTVQ_COMPUTE_INT8; compute++) {
      if (compute == GPTVQ_COMPUTE_BF16) continue;
      gptvq_model *model = open_as("packed", compute);
      assert_true(model->embedding.is_packed && model->head.is_packed);
      assert_int_equal(model->config.tie_embeddings, tied);
      assert_int_equal(model->head.packed.indices == model->embedding.packed.indices, tied);
      assert_int_equal(model->head.packed.shape.index_bits, all_bits[b]);
      assert_int_equal(gptvq_checkpoint_has_packed(model->checkpoint, "lm_head"), !tied);
      check_gather(model);
      check_head(model, compute == GPTVQ_COMPUTE_INT8);
      gptvq_model_get_info(model, &after);
      assert_int_equal(after.parameters, before.parameters);
      assert_int_equal(after.head_bits, all_bits[b]);
      assert_int_equal(before.other_bytes - after.other_bytes,
                       matrices * (dense - expected_bytes(all_bits[b])));
      gptvq_other_info other = {.size = sizeof other};
      gptvq_model_get_other(model, 0, &other);
      assert_string_equal(other.name, "model.embed_tokens");
      assert_int_equal(other.index_bits, all_bits[b]);
      assert_int_equal(other.bytes, expected_bytes(all_bits[b]));
      gptvq_model_close(model);
    }
  }
  gptvq_model_close(whole);
  gptvq_model_close(original);
}

static void tied_without_data(void **state) {
  (void)state;
  one_matrix("tied", true, GPTVQ_METHOD_RTN);
  one_matrix("gemma2", true, GPTVQ_METHOD_RTN);
}
static void tied_with_data(void **state) {
  (void)state;
  one_matrix("tied", true, GPTVQ_METHOD_GPTQ);
}
static void two_matrices(void **state) {
  (void)state;
  one_matrix("llama", false, GPTVQ_METHOD_RTN);
  one_matrix("llama", false, GPTVQ_METHOD_GPTQ);
}

/* With the trellis code, 3 and 4 bits are one too, where the matrix is not too large for it. */
static void trellis(void **state) {
  (void)state;
  gptvq_quantize_options o = options_of(GPTVQ_METHOD_GPTVQ, 3, 16);
  gptvq_outside outside;
  o.code = GPTVQ_CODE_TRELLIS;
  o.bits = 3;
  o.index_bits = 0;
  o.group_size = 0;
  o.em_iterations = 5;
  ok(gptvq_quantize("tied", "packed", &o, NULL, NULL, err));
  for (gptvq_compute compute = GPTVQ_COMPUTE_FP32; compute <= GPTVQ_COMPUTE_INT8; compute++) {
    gptvq_model *model = open_as("packed", compute);
    assert_int_equal(model->embedding.packed.shape.kind, GPTVQ_PACKED_TRELLIS);
    assert_int_equal(model->embedding.packed.shape.index_bits, 3);
    if (compute == GPTVQ_COMPUTE_FP32) {
      ok(gptvq_outside_read(model->checkpoint, &outside, err));
      assert_string_equal(outside.embedding.method, "gptvq");
      gptvq_outside_release(&outside);
    }
    check_gather(model);
    if (compute != GPTVQ_COMPUTE_BF16) check_head(model, compute == GPTVQ_COMPUTE_INT8);
    gptvq_model_close(model);
  }
  ok(gptvq_quantize("llama", "packed", &o, NULL, NULL, err)); /* no Hessian of an embedding */
  gptvq_model *model = open_as("packed", GPTVQ_COMPUTE_FP32);
  assert_int_equal(model->embedding.packed.shape.kind, GPTVQ_PACKED_TRELLIS);
  assert_false(model->head.is_packed);
  check_gather(model);
  gptvq_model_close(model);
  gptvq_resolved resolved;
  ok(gptvq_resolve(&o, &resolved, err));
  const gptvq_quantize_options *r = &resolved.options;
  assert_int_equal(gptvq_outside_shape(r, 1 << 17, 1 << 11, 4).kind, GPTVQ_PACKED_TRELLIS);
  assert_int_equal(gptvq_outside_shape(r, (1 << 17) + 1, 1 << 11, 4).kind, GPTVQ_PACKED_UNIFORM);
  assert_int_equal(gptvq_outside_shape(r, 1 << 17, 1 << 11, 5).kind, GPTVQ_PACKED_UNIFORM);
}

/* The head is made with a Hessian where there is data, the embedding is not; one may stay. */
static void which_method(void **state) {
  (void)state;
  gptvq_outside outside;
  gptvq_quantize_options o = options_of(GPTVQ_METHOD_GPTQ, 4, 3);
  ok(gptvq_quantize("llama", "packed", &o, NULL, NULL, err));
  gptvq_model *model = open_as("packed", GPTVQ_COMPUTE_FP32);
  ok(gptvq_outside_read(model->checkpoint, &outside, err));
  assert_string_equal(outside.embedding.method, "rtn");
  assert_string_equal(outside.head.method, "gptq");
  assert_true(outside.embedding.error > 0.0 && outside.embedding.error < 0.02);
  assert_true(outside.head.error > 0.0 && outside.head.error < 0.2);
  gptvq_outside_release(&outside);
  gptvq_model_close(model);
  o.head_bits = 16;
  ok(gptvq_quantize("llama", "packed", &o, NULL, NULL, err));
  model = open_as("packed", GPTVQ_COMPUTE_FP32);
  assert_true(model->embedding.is_packed && !model->head.is_packed);
  gptvq_model_close(model);
  ok(gptvq_export_hf("packed", "exported", 1, NULL, err));
  model = open_as("exported", GPTVQ_COMPUTE_FP32);
  assert_false(model->embedding.is_packed);
  gptvq_model_close(model);
}

/* Rows that are packed in several slabs are those of the matrix solved at once. */
static void slabs(void **state) {
  (void)state;
  enum { COLS = 64 };
  const size_t rows = (1 << 22) / COLS + 4465; /* a second slab, zero points that end inside a byte's codes */
  float *weights = malloc(rows * COLS * sizeof *weights);
  double *hessian = malloc(COLS * COLS * sizeof *hessian);
  assert_non_null(weights);
  assert_non_null(hessian);
  uint64_t random = 3;
  for (size_t i = 0; i < rows * COLS; i++)
    weights[i] = (float)(gptvq_random(&random) >> 40) / (float)(1 << 24) - 0.4f;
  for (size_t i = 0; i < COLS; i++)
    for (size_t j = 0; j < COLS; j++) hessian[i * COLS + j] = i == j ? 1.0 + (double)i / COLS : 0.5;
  gptvq_model_parts parts = {.stored_count = 0};
  gptvq_model model = {.owned = &parts, .config = {.vocab = rows, .hidden = COLS, .tie_embeddings = true}};
  model.embedding = (gptvq_linear){.name = "embedding", .rows = rows, .cols = COLS, .weights = weights};
  model.head = model.embedding;
  gptvq_quantize_options o = options_of(GPTVQ_METHOD_GPTQ, 3, 16);
  gptvq_resolved run, own;
  gptvq_outside outside;
  gptvq_layer_result whole;
  gptvq_factor *factor;
  const gptvq_outside_bits bits = {3, 16};
  ok(gptvq_blas_init(err));
  ok(gptvq_resolve(&o, &run, err));
  const gptvq_solver solver = {&run, &gptvq_cpu_backend, NULL, NULL, NULL};
  assert_true(gptvq_outside_rows(rows, COLS) < rows);
  ok(gptvq_outside_options(&o, GPTVQ_PACKED_UNIFORM, 3, true, &own, err));
  const gptvq_solver at_once = {&own, &gptvq_cpu_backend, NULL, NULL, NULL};
  ok(gptvq_factor_create(&at_once, "embedding", COLS, hessian, &factor, err));
  ok(gptvq_solve_layer(&at_once, &(gptvq_weights){"embedding", rows, COLS, weights}, factor, &whole, err));
  const size_t threads = gptvq_thread_count();
  for (size_t t = 1; t <= 3; t += 2) {
    gptvq_set_threads((int)t);
    ok(gptvq_outside_pack(&model, &solver, &bits, hessian, &outside, err));
    gptvq_packed_sizes sizes;
    gptvq_packed_measure(&whole.packed.shape, &sizes);
    assert_memory_equal(&outside.embedding.packed.shape, &whole.packed.shape, sizeof whole.packed.shape);
    assert_memory_equal(outside.embedding.packed.indices, whole.packed.indices, sizes.index_bytes);
    assert_memory_equal(outside.embedding.packed.scales, whole.packed.scales, 2 * sizes.uniform_scales);
    assert_memory_equal(outside.embedding.packed.zeros, whole.packed.zeros, sizes.zero_bytes);
    assert_true(fabs(outside.embedding.error - whole.error) < 1e-4 * whole.error);
    gptvq_outside_release(&outside);
  }
  gptvq_set_threads((int)threads);
  gptvq_layer_result_release(&whole);
  gptvq_factor_destroy(factor);
  free(hessian);
  free(weights);
}

static void expect(gptvq_status status, gptvq_status wanted, const gptvq_error *error, const char *text) {
  if (status != wanted || strstr(error->message, text) == NULL)
    fail_msg("%d '%s', expected %d '%s'", (int)status, error->message, (int)wanted, text);
}

/* What of both is not given: 4 beside a trellis here, 16 beside all else; of one matrix what the other one
 * says. */
static void what_is_not_given(void **state) {
  (void)state;
  static const struct {
    const char *name;
    gptvq_code code;
    unsigned embedding, head;               /* given */
    unsigned wanted_embedding, wanted_head; /* of one matrix: 16 for the head */
  } cases[] = {
      {"llama", GPTVQ_CODE_AUTO, 0, 0, 4, 4},     {"tied", GPTVQ_CODE_AUTO, 0, 0, 4, 16},
      {"llama", GPTVQ_CODE_VQ, 0, 0, 16, 16},     {"tied", GPTVQ_CODE_VQ, 0, 0, 16, 16},
      {"llama", GPTVQ_CODE_AUTO, 4, 0, 4, 4},     {"tied", GPTVQ_CODE_AUTO, 4, 0, 4, 16},
      {"llama", GPTVQ_CODE_AUTO, 0, 8, 4, 8},     {"tied", GPTVQ_CODE_AUTO, 0, 8, 8, 16},
      {"llama", GPTVQ_CODE_AUTO, 16, 0, 16, 4},   {"tied", GPTVQ_CODE_AUTO, 16, 0, 16, 16},
      {"llama", GPTVQ_CODE_AUTO, 0, 16, 4, 16},   {"tied", GPTVQ_CODE_AUTO, 0, 16, 16, 16},
      {"llama", GPTVQ_CODE_AUTO, 16, 16, 16, 16}, {"tied", GPTVQ_CODE_AUTO, 16, 16, 16, 16},
      {"llama", GPTVQ_CODE_VQ, 4, 0, 4, 16},      {"tied", GPTVQ_CODE_VQ, 4, 0, 4, 16},
      {"llama", GPTVQ_CODE_VQ, 0, 4, 16, 4},      {"tied", GPTVQ_CODE_VQ, 0, 4, 4, 16},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    gptvq_model *model = open_as(cases[i].name, GPTVQ_COMPUTE_FP32);
    gptvq_quantize_options o;
    gptvq_resolved r;
    gptvq_outside_bits bits;
    gptvq_quantize_options_init(&o);
    o.code = cases[i].code;
    o.embedding_bits = cases[i].embedding;
    o.head_bits = cases[i].head;
    ok(gptvq_resolve(&o, &r, err));
    ok(gptvq_budget_settle(model, NULL, &r, err));
    ok(gptvq_outside_bits_of(model, &r.options, &bits, err));
    if (bits.embedding != cases[i].wanted_embedding || bits.head != cases[i].wanted_head)
      fail_msg("%s, case %zu: embedding %u, head %u", cases[i].name, i, bits.embedding, bits.head);
    gptvq_resolved again; /* nothing is left to settle */
    ok(gptvq_resolve(&r.options, &again, err));
    assert_memory_equal(&again.options, &r.options, sizeof r.options);
    gptvq_model_close(model);
  }
}

static int stop_late(void *user, const gptvq_progress *progress) {
  int *left = user;
  (void)progress;
  return (*left)-- <= 0;
}

/* Interrupted after some blocks, or while the matrices are packed, and resumed: the same bytes. */
static void resumed(void **state) {
  (void)state;
  int calls = 1 << 30;
  const gptvq_callbacks counting = {.size = sizeof counting, .user = &calls, .progress = stop_late};
  gptvq_quantize_options o = options_of(GPTVQ_METHOD_GPTVQ, 4, 16);
  o.dim = 2;
  o.index_bits = 4;
  o.group_size = 512;
  o.em_iterations = 3;
  ok(gptvq_quantize("tied", "straight", &o, &counting, NULL, err));
  const int all = (1 << 30) - calls;
  assert_true(all > 8);
  for (int part = 1; part <= 4; part++) {
    int left = all * part / 5;
    const gptvq_callbacks stopping = {.size = sizeof stopping, .user = &left, .progress = stop_late};
    gptvq_quantize_options again = o;
    char cut[16];
    (void)snprintf(cut, sizeof cut, "cut%d", part);
    assert_int_equal(gptvq_quantize("tied", cut, &o, &stopping, NULL, NULL), GPTVQ_ERROR_CANCELLED);
    again.force = 0;
    again.resume = 1;
    ok(gptvq_quantize("tied", cut, &again, NULL, NULL, err));
    for (int shard = 1; shard <= 3; shard++) {
      char a[80], b[80];
      (void)snprintf(a, sizeof a, "straight/model-0000%d-of-00003.safetensors", shard);
      (void)snprintf(b, sizeof b, "%s/model-0000%d-of-00003.safetensors", cut, shard);
      assert_same_file(a, b);
    }
  }
}

/* A run goes on with what its defaults have become, and with nothing else. */
static void defaults_are_what_they_became(void **state) {
  (void)state;
  int left = 1 << 30;
  const gptvq_callbacks stopping = {.size = sizeof stopping, .user = &left, .progress = stop_late};
  gptvq_quantize_options o = options_of(GPTVQ_METHOD_GPTVQ, 0, 0);
  gptvq_error error;
  o.bits = 2.25;
  o.index_bits = 0;
  o.group_size = 0;
  o.em_iterations = 3;
  ok(gptvq_quantize("llama", "begun", &o, &stopping, NULL, err));
  ok(gptvq_remove_tree("begun", err));
  left = ((1 << 30) - left) * 4 / 5;
  assert_int_equal(gptvq_quantize("llama", "begun", &o, &stopping, NULL, NULL), GPTVQ_ERROR_CANCELLED);
  o.force = 0;
  o.resume = 1;
  o.dim = 2;
  expect(gptvq_quantize("llama", "begun", &o, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT, &error,
         "`dim` was 1, is now 2");
  o.dim = 1;
  o.code = GPTVQ_CODE_TRELLIS;
  o.index_bits = 2;
  o.allocate = GPTVQ_ALLOCATE_SENSITIVITY;
  o.head_bits = 4;
  o.embedding_bits = 16;
  expect(gptvq_quantize("llama", "begun", &o, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT, &error,
         "`embedding_bits` was 4, is now 16");
  o.embedding_bits = 4;
  gptvq_quantize_report report = {.size = sizeof report};
  ok(gptvq_quantize("llama", "begun", &o, NULL, &report, err));
  assert_true(report.blocks_resumed > 0);
}

/* Tuning is against the predictions through the packed matrices, which stay as they are: what it says of the
 * model is what the folder then is. */
static void tuned(void **state) {
  (void)state;
  gptvq_quantize_options o = options_of(GPTVQ_METHOD_GPTQ, 3, 16);
  gptvq_quantize_report plain = {.size = sizeof plain}, packed = {.size = sizeof packed};
  gptvq_outside before, after;
  o.finetune_steps = 3;
  o.calib_samples = 6;
  o.finetune_batch = 2;
  o.embedding_bits = 0;
  ok(gptvq_quantize("tied", "plain", &o, NULL, &plain, err));
  o.embedding_bits = 3;
  ok(gptvq_quantize("tied", "tuned", &o, NULL, &packed, err));
  /* blocks of 4 bits lose little, a matrix of 3 much: a student with the original's would not show it */
  assert_true(packed.finetune_before > 2.0 * plain.finetune_before);
  assert_true(packed.finetune_after <= packed.finetune_before);
  o.finetune_steps = 0;
  ok(gptvq_quantize("tied", "untuned", &o, NULL, NULL, err));
  gptvq_model *a = open_as("untuned", GPTVQ_COMPUTE_FP32), *b = open_as("tuned", GPTVQ_COMPUTE_FP32);
  ok(gptvq_outside_read(a->checkpoint, &before, err));
  ok(gptvq_outside_read(b->checkpoint, &after, err));
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(&before.embedding.packed.shape, &sizes);
  assert_memory_equal(before.embedding.packed.indices, after.embedding.packed.indices, sizes.index_bytes);
  assert_true(before.embedding.error == after.embedding.error);
  assert_string_equal(after.embedding.method, "gptq");
  gptvq_outside_release(&before);
  gptvq_outside_release(&after);
  gptvq_model_close(a);
  gptvq_model_close(b);
}

static void refusals(void **state) {
  (void)state;
  gptvq_error error;
  gptvq_quantize_options o = options_of(GPTVQ_METHOD_RTN, 9, 16);
  expect(gptvq_quantize("tied", "x", &o, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT, &error,
         "`embedding_bits` 9 is not possible");
  o = options_of(GPTVQ_METHOD_RTN, 4, 12);
  expect(gptvq_quantize("tied", "x", &o, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT, &error,
         "`head_bits` 12 is not possible");
  o = options_of(GPTVQ_METHOD_RTN, 4, 8);
  expect(gptvq_quantize("tied", "x", &o, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT, &error, "are one matrix");
  assert_int_equal(access("x", F_OK), -1);
  tiny_model huge = tiny_tied; /* beyond fp16 scales */
  huge.scaled_name = "embed_tokens";
  huge.scale = 1e12;
  tiny_write(&huge, "huge");
  for (unsigned bits = 4; bits <= 8; bits += 4) {
    o = options_of(GPTVQ_METHOD_RTN, bits, 16);
    expect(gptvq_quantize("huge", "x", &o, NULL, NULL, &error), GPTVQ_ERROR_NUMERIC, &error,
           "`embedding_bits` 16 keeps it as it is");
  }
}

/* A packed embedding of another size than config.json says, or beside a plain one. */
static void hostile(void **state) {
  (void)state;
  const gptvq_model_options fp32 = {.size = sizeof fp32, .compute = GPTVQ_COMPUTE_FP32};
  gptvq_error error;
  gptvq_model *model;
  gptvq_quantize_options o = options_of(GPTVQ_METHOD_RTN, 4, 16);
  ok(gptvq_quantize("tied", "bad", &o, NULL, NULL, err));
  json_error_t where;
  json_t *config = json_load_file("bad/config.json", 0, &where);
  assert_non_null(config);
  const json_int_t sizes[] = {TINY_VOCAB - 1, TINY_VOCAB + 1, 1 << 26};
  for (size_t i = 0; i < 3; i++) {
    json_object_set_new(config, "vocab_size", json_integer(sizes[i]));
    assert_int_equal(json_dump_file(config, "bad/config.json", 0), 0);
    expect(gptvq_model_open("bad", &fp32, &model, &error), GPTVQ_ERROR_FORMAT, &error,
           "packed layer model.embed_tokens is 96 x 64, but config.json makes it");
  }
  json_object_set_new(config, "vocab_size", json_integer(TINY_VOCAB));
  json_object_set_new(config, "tie_word_embeddings", json_false());
  assert_int_equal(json_dump_file(config, "bad/config.json", 0), 0);
  expect(gptvq_model_open("bad", &fp32, &model, &error), GPTVQ_ERROR_FORMAT, &error,
         "lm_head.weight is missing");
  /* packed, though config.json does not say so: no original */
  json_object_del(config, "quantization_config");
  json_object_set_new(config, "tie_word_embeddings", json_true());
  assert_int_equal(json_dump_file(config, "bad/config.json", 0), 0);
  gptvq_quantize_plan plan = {.size = sizeof plan};
  expect(gptvq_quantize("bad", "x", &o, NULL, NULL, &error), GPTVQ_ERROR_UNSUPPORTED, &error,
         "bad is already quantized (it has packed layers)");
  expect(gptvq_quantize_plan_make("bad", &o, NULL, &plan, &error), GPTVQ_ERROR_UNSUPPORTED, &error,
         "bad is already quantized (it has packed layers)");
  json_decref(config);
}

static void few_windows_do_for_the_head(void **state) {
  (void)state;
  gptvq_model *model = open_as("tied", GPTVQ_COMPUTE_FP32);
  const size_t hidden = model->config.hidden;
  assert_int_equal(gptvq_outside_windows(model, 64, hidden), 28);      /* as many as columns ask for */
  assert_int_equal(gptvq_outside_windows(model, 64, hidden * 28), 16); /* a quarter */
  assert_int_equal(gptvq_outside_windows(model, 40, hidden), 40);      /* more than half: all */
  assert_int_equal(gptvq_outside_windows(model, 1, hidden * 28), 1);
  gptvq_model_close(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(tied_without_data),
                                     cmocka_unit_test(tied_with_data),
                                     cmocka_unit_test(two_matrices),
                                     cmocka_unit_test(which_method),
                                     cmocka_unit_test(slabs),
                                     cmocka_unit_test(what_is_not_given),
                                     cmocka_unit_test(resumed),
                                     cmocka_unit_test(defaults_are_what_they_became),
                                     cmocka_unit_test(trellis),
                                     cmocka_unit_test(tuned),
                                     cmocka_unit_test(refusals),
                                     cmocka_unit_test(hostile),
                                     cmocka_unit_test(few_windows_do_for_the_head)};
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
