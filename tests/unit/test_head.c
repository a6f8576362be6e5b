/* The output head stored as int8 codes: half the bytes, the same model within the codes' rounding, by every
 * way of computing. */
#define _GNU_SOURCE
#include "tiny_model.h"

#include "base/memory.h"
#include "model/model_internal.h"
#include "quant/plan/outside.h"
#include "quant/run/head.h"

#include <gptvq/gptvq.h>
#include <unistd.h>

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};

enum { TOKENS = 12, LOGITS = TOKENS * TINY_VOCAB };

static int make_scratch(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_write(&tiny_llama, "llama");
  tiny_write(&tiny_tied, "tied");
  return 0;
}

static void pack(const char *in, const char *out, unsigned head_bits) {
  gptvq_quantize_options o;
  gptvq_quantize_options_init(&o);
  o.method = GPTVQ_METHOD_RTN;
  o.bits = 0;
  o.index_bits = 4;
  o.group_size = 32;
  o.head_bits = head_bits;
  o.force = 1;
  ok(gptvq_quantize(in, out, &o, NULL, NULL, err));
}

static void logits_of(const char *folder, gptvq_compute compute, float *logits, gptvq_model_info *info) {
  const gptvq_model_options options = {.size = sizeof options, .compute = compute};
  gptvq_model *model;
  gptvq_session *session;
  int32_t tokens[TOKENS];
  for (int i = 0; i < TOKENS; i++) tokens[i] = 7 * i % TINY_VOCAB;
  ok(gptvq_model_open(folder, &options, &model, err));
  gptvq_model_get_info(model, info);
  ok(gptvq_session_create(model, TOKENS, &session, err));
  ok(gptvq_session_forward(session, tokens, TOKENS, logits, 1, err));
  gptvq_session_destroy(session);
  gptvq_model_close(model);
}

/* The head's input has rms 1 · gain <= 1.1; a code is off by at most half a step, step <= max|w| / 127 · (1 +
 * 2^-10), max|w| <= 0.2: |difference| <= Σ|x| · step / 2 <= 64 · 1.1 · 0.2 / 254 · (1 + 2^-10) by Cauchy's
 * inequality; int8 inputs round both sides alike. */
static void same_model(void **state) {
  (void)state;
  static float whole[LOGITS], half[LOGITS];
  gptvq_model_info a = {.size = sizeof a}, b = {.size = sizeof b};
  pack("llama", "whole", 16);
  pack("llama", "half", 8);
  assert_same_file("whole/model-00001-of-00004.safetensors", "half/model-00001-of-00004.safetensors");
  logits_of("whole", GPTVQ_COMPUTE_FP32, whole, &a);
  logits_of("half", GPTVQ_COMPUTE_FP32, half, &b);
  assert_int_equal(b.head_bits, 8);
  assert_int_equal(a.parameters, b.parameters);
  assert_true(a.linear_bytes == b.linear_bytes);
  gptvq_packed_shape shape = gptvq_outside_shape(NULL, TINY_VOCAB, TINY_HIDDEN, 8);
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(&shape, &sizes);
  const gptvq_linear *head;
  gptvq_model *original;
  ok(gptvq_model_open("llama", &in_fp32, &original, err));
  head = &original->head;
  size_t stored = head->rows * head->cols * gptvq_dtype_size(head->dtype);
  assert_int_equal(a.other_bytes - b.other_bytes,
                   stored - sizes.index_bytes - sizes.zero_bytes - 2 * sizes.uniform_scales);
  const double bound = 64 * 1.1 * 0.2 / 254 * (1 + 1.0 / 1024);
  bool differs = false;
  for (size_t i = 0; i < LOGITS; i++) {
    differs = differs || whole[i] != half[i];
    if (!(fabs((double)whole[i] - (double)half[i]) <= bound))
      fail_msg("logit %zu: %.6g, should be %.6g", i, (double)half[i], (double)whole[i]);
  }
  assert_true(differs);
  gptvq_model_close(original);
}

/* int8 inputs: the codes of the file are the ones that the kernels take, exactly. */
static void codes_as_stored(void **state) {
  (void)state;
  const gptvq_model_options options = {.size = sizeof options, .compute = GPTVQ_COMPUTE_INT8};
  gptvq_model *model, *original;
  gptvq_packed packed;
  void *memory;
  pack("llama", "half", 8);
  ok(gptvq_model_open("half", &options, &model, err));
  ok(gptvq_model_open("llama", &in_fp32, &original, err));
  ok(gptvq_pack_head(&original->head, "do so", &packed, &memory, err));
  assert_non_null(model->head.codes);
  assert_memory_equal(model->head.codes, packed.indices, TINY_VOCAB * TINY_HIDDEN);
  float row[TINY_HIDDEN], decoded[TINY_HIDDEN];
  for (size_t r = 0; r < TINY_VOCAB; r++) {
    gptvq_to_float(original->head.dtype,
                   (const char *)original->head.weights +
                       r * TINY_HIDDEN * gptvq_dtype_size(original->head.dtype),
                   TINY_HIDDEN, row);
    gptvq_packed_decode(&packed, r, r + 1, decoded, TINY_HIDDEN);
    float step = gptvq_fp16_to_float(packed.scales[r]);
    assert_true(step == model->head.code_scales[r]);
    for (size_t c = 0; c < TINY_HIDDEN; c++)
      if (!(fabsf(decoded[c] - row[c]) <= step * 0.5f * 1.00001f))
        fail_msg("row %zu column %zu: %g, not %g", r, c, (double)decoded[c], (double)row[c]);
  }
  free(memory);
  gptvq_model_close(original);
  gptvq_model_close(model);
}

static void exported_head(void **state) {
  (void)state;
  static float half[LOGITS], exported[LOGITS];
  gptvq_model_info info = {.size = sizeof info};
  pack("llama", "half", 8);
  ok(gptvq_export_hf("half", "exported", 1, NULL, err));
  logits_of("half", GPTVQ_COMPUTE_FP32, half, &info);
  logits_of("exported", GPTVQ_COMPUTE_FP32, exported, &info);
  assert_int_equal(info.head_bits, 16);
  for (size_t i = 0; i < LOGITS; i++)
    assert_true(fabsf(half[i] - exported[i]) <=
                0.02f * (1.0f + fabsf(half[i]))); /* bf16 weights everywhere */
}

static void refusals(void **state) {
  (void)state;
  gptvq_model_options options = {.size = sizeof options, .head_bits = 16};
  gptvq_model *model;
  gptvq_error error;
  pack("llama", "half", 8);
  assert_int_equal(gptvq_model_open("half", &options, &model, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "stored with 8 bits"));
  gptvq_quantize_options o;
  gptvq_quantize_options_init(&o);
  o.head_bits = 12;
  assert_int_equal(gptvq_quantize_options_resolve(&o, &error), GPTVQ_ERROR_ARGUMENT);
  float weights[2 * 300];
  for (size_t i = 0; i < 600; i++) weights[i] = 0.5f;
  const gptvq_linear head = {
      .name = "lm_head", .rows = 2, .cols = 300, .dtype = GPTVQ_F32, .weights = weights};
  gptvq_packed packed;
  void *memory;
  weights[599] = NAN;
  assert_int_equal(gptvq_pack_head(&head, "`head_bits` 16 keeps it", &packed, &memory, &error),
                   GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(error.message, "row 1"));
  weights[599] = 1e9f; /* / 127 is beyond fp16 */
  assert_int_equal(gptvq_pack_head(&head, "`head_bits` 16 keeps it", &packed, &memory, &error),
                   GPTVQ_ERROR_NUMERIC);
  for (size_t i = 0; i < 600; i++) weights[i] = 1e-8f; /* / 127 rounds to no fp16 number near it */
  assert_int_equal(gptvq_pack_head(&head, "`head_bits` 16 keeps it", &packed, &memory, &error),
                   GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(error.message, "lm_head"));
  assert_non_null(strstr(error.message, "`head_bits` 16"));
  for (size_t i = 0; i < 300; i++) weights[i] = 0.5f; /* one row of no weight beside another does no harm */
  ok(gptvq_pack_head(&head, "`head_bits` 16 keeps it", &packed, &memory, err));
  free(memory);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(same_model), cmocka_unit_test(codes_as_stored),
                                     cmocka_unit_test(exported_head), cmocka_unit_test(refusals)};
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
