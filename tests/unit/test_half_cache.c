/* Keys and values as fp16: conversions equal the scalar ones everywhere; attention of heads that share them
 * equals that of heads with rounded fp32 ones of their own, bit for bit. */
#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "kernels/kernels.h"
#include "model/layer/attention.h"
#include "model/layer/vector.h"

#include <gptvq/status.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *const levels[] = {"ref", "avx2", "avx512", "neon"};
#define FOR_EACH_LEVEL(level) \
  for (size_t level = 0; level < sizeof levels / sizeof levels[0]; level++) \
    if (gptvq_set_cpu(levels[level], NULL) == GPTVQ_OK)

static void conversions(void **state) {
  (void)state;
  enum { ALL = 65536 };
  uint16_t *half = gptvq_alloc(ALL, sizeof *half), *back = gptvq_alloc(ALL, sizeof *back);
  float *x = gptvq_alloc(ALL, sizeof *x);
  uint64_t seed = 3;
  FOR_EACH_LEVEL(level) {
    for (size_t i = 0; i < ALL; i++) half[i] = (uint16_t)i;
    gptvq_to_float(GPTVQ_F16, half, ALL, x);
    GPTVQ_MULTI_PICK(gptvq_to_half)(ALL, x, back);
    for (size_t i = 0; i < ALL; i++) {
      bool nan = (i & 0x7fff) > 0x7c00;
      if (nan ? !isnan(x[i]) : gptvq_float_bits(x[i]) != gptvq_float_bits(gptvq_fp16_to_float((uint16_t)i)))
        fail_msg("%s: %#zx becomes %g", levels[level], i, (double)x[i]);
      bool lost = (i & 0x7fff) >= 0x7c00; /* infinity becomes NaN */
      if (lost ? (back[i] & 0x7fff) <= 0x7c00 : back[i] != i)
        fail_msg("%s: %#zx comes back as %#x", levels[level], i, back[i]);
    }
    for (int round = 0; round < 20; round++) { /* between the halves, ties among them, and far outside */
      for (size_t i = 0; i < ALL; i++) {
        uint32_t bits = (uint32_t)gptvq_random(&seed);
        if (round % 2)
          bits = (bits & 0x8fffe000u) | 0x30000000u | (bits & 1u ? 0x1000u : 0u) | (bits & 2u ? 1u : 0u);
        x[i] = gptvq_bits_float(bits);
      }
      GPTVQ_MULTI_PICK(gptvq_to_half)(ALL, x, back);
      for (size_t i = 0; i < ALL; i++) {
        uint16_t half_of = gptvq_float_to_fp16(x[i]);
        bool lost = (half_of & 0x7fff) >= 0x7c00;
        if (lost ? (back[i] & 0x7fff) <= 0x7c00 : back[i] != half_of)
          fail_msg("%s: %a becomes %#x", levels[level], (double)x[i], back[i]);
      }
    }
  }
  free(half);
  free(back);
  free(x);
}

enum { COUNT = 200, HEADS = 20, SHARE = 10, OWNERS = HEADS / SHARE, MOST_DIM = GPTVQ_HALF_DIM };
static uint16_t half_keys[OWNERS * COUNT * MOST_DIM], half_values[OWNERS * COUNT * MOST_DIM];
static float keys[HEADS * COUNT * MOST_DIM], values[HEADS * COUNT * MOST_DIM];

/* The last of `count` tokens. */
static void attend_last(size_t dim, size_t count, float cap, size_t kv_heads, bool half, float *out) {
  float row[3 * HEADS * MOST_DIM], angles[1] = {0.0f};
  uint64_t seed = dim;
  for (size_t i = 0; i < HEADS * dim; i++) row[i] = (float)gptvq_random_unit(&seed);
  for (size_t h = 0; h < kv_heads; h++)
    for (size_t i = 0; i < dim; i++) {
      size_t from = (h * HEADS / kv_heads * COUNT + count - 1) * dim + i;
      row[(HEADS + h) * dim + i] = keys[from];
      row[(HEADS + kv_heads + h) * dim + i] = values[from];
    }
  const gptvq_attention_text text = {.keys = half ? (char *)half_keys : (char *)keys,
                                     .values = half ? (char *)half_values : (char *)values,
                                     .max_positions = COUNT,
                                     .cosines = angles,
                                     .sines = angles,
                                     .position = count - 1,
                                     .n = 1};
  const gptvq_attention_rows rows = {.heads = HEADS,
                                     .kv_heads = kv_heads,
                                     .head_dim = dim,
                                     .how = {.window = SIZE_MAX, .scale = 0.3f, .cap = cap},
                                     .half = half,
                                     .texts = &text,
                                     .count = 1,
                                     .n = 1,
                                     .qkv = row,
                                     .out = out};
  gptvq_attend_rows(&rows);
}

static void attention(void **state) {
  (void)state;
  static const size_t dims[] = {8, 32, 80, 128};
  static float expected[HEADS * MOST_DIM], got[HEADS * MOST_DIM];
  uint64_t seed = 5;
  for (size_t d = 0; d < 4; d++) {
    size_t dim = dims[d], size = COUNT * dim;
    for (size_t i = 0; i < OWNERS * size; i++) {
      half_keys[i] = gptvq_float_to_fp16((float)(4.0 * gptvq_random_unit(&seed) - 2.0));
      half_values[i] = gptvq_float_to_fp16((float)(4.0 * gptvq_random_unit(&seed) - 2.0));
    }
    for (size_t i = 0; i < HEADS * size; i++) {
      size_t from = i / size / SHARE * size + i % size;
      keys[i] = gptvq_fp16_to_float(half_keys[from]);
      values[i] = gptvq_fp16_to_float(half_values[from]);
    }
    FOR_EACH_LEVEL(level) {
      for (size_t count = 1; count <= COUNT; count += 33) {
        const float cap = count % 2 != 0 ? 0.0f : 5.0f;
        attend_last(dim, count, cap, HEADS, false, expected);
        attend_last(dim, count, cap, OWNERS, true, got);
        assert_memory_equal(got, expected, HEADS * dim * sizeof *got);
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(conversions), cmocka_unit_test(attention)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
