/* Many tokens at once: the same bytes as the scalar definition; and the products of single tokens but for the
 * order of fp32 sums. */
#define _GNU_SOURCE
#include "support.h"

/* Σ|w| of a row as the single-token kernel adds it up: uniform layers subtract the zero points last, so both
 * parts count. */
static double sum_of_weights(const gptvq_packed *p, size_t row, const float *weights) {
  const gptvq_packed_shape *s = &p->shape;
  double sum = 0.0, most = 2.0 * (double)((1u << s->index_bits) - 1u); /* code + zero point */
  for (size_t c = 0; c < s->cols; c++)
    sum += s->kind != GPTVQ_PACKED_UNIFORM
               ? fabs((double)weights[row * s->cols + c])
               : most * (double)gptvq_fp16_to_float(
                            p->scales[row * (s->cols / s->scale_block) + c / s->scale_block]);
  return sum;
}

/* The same bytes in tiles: of the fastest kernel for them at this level. */
static void check_tiles(const gptvq_packed *p, const float *x, size_t ldx, size_t count, size_t begin,
                        size_t end, const float *expected, size_t ldy, size_t total, const char *level) {
  const gptvq_packed_shape *shape = &p->shape;
  const size_t input_bytes = gptvq_packed_tiles_input_bytes(shape),
               panel_bytes = gptvq_packed_tiles_panel_bytes(shape, count),
               blocks = gptvq_ceil_div(count, GPTVQ_TILES_TOKENS);
  guarded inputs = guarded_new(blocks * input_bytes), panel = guarded_new(panel_bytes);
  guarded y = guarded_new(total * sizeof(float));
  memset(inputs.data, 0x55, blocks * input_bytes);
  memset(panel.data, 0x55, panel_bytes);
  for (size_t i = 0; i < total; i++) ((float *)y.data)[i] = -77.0f;
  for (size_t b = 0; b < blocks; b++)
    gptvq_packed_tiles_prepare(p, x + b * GPTVQ_TILES_TOKENS * ldx, ldx,
                               gptvq_min_size(GPTVQ_TILES_TOKENS, count - b * GPTVQ_TILES_TOKENS),
                               inputs.data + b * input_bytes);
  gptvq_packed_tiles_i8(p, inputs.data, count, begin, end, (float *)y.data, ldy, panel.data);
  if (memcmp(expected, y.data, total * sizeof *expected) != 0) {
    print_shape(shape, level);
    fail_msg("rows %zu-%zu of %zu tokens: other bytes in tiles", begin, end, count);
  }
  guarded_free(&inputs);
  guarded_free(&panel);
  guarded_free(&y);
}

/* The bound compares two sums of the same exact int32 products: at most one rounding per segment, scale and
 * fold on each side, so |difference| <= (segments + 24) · 2^-23 · Σ|w| · max|x|. */
static void check(const gptvq_packed_shape *shape, uint64_t *state) {
  random_layer layer;
  random_layer_new(&layer, shape, state);
  const gptvq_packed *p = &layer.packed;
  size_t cols = shape->cols, count = 1 + gptvq_random_below(state, 30),
         blocks = gptvq_ceil_div(count, GPTVQ_GEMM_BLOCK);
  size_t begin = gptvq_random_below(state, shape->rows),
         end = begin + 1 + gptvq_random_below(state, shape->rows - begin);
  size_t rows = end - begin, ldy = rows + gptvq_random_below(state, 3),
         ldx = cols + gptvq_random_below(state, 3);
  size_t total = (count - 1) * ldy + rows, single_bytes = gptvq_packed_input_bytes(shape);
  guarded x = guarded_new(((count - 1) * ldx + cols) * sizeof(float));
  float *from = (float *)x.data, *expected = gptvq_alloc(total, sizeof *expected),
        *single = gptvq_alloc(rows, sizeof *single);
  float *weights = gptvq_alloc(shape->rows * cols, sizeof *weights);
  void *input = gptvq_alloc(single_bytes, 1);
  for (size_t i = 0; i < (count - 1) * ldx + cols; i++)
    from[i] = gptvq_random_below(state, 9) ? random_normal(state) : 0.0f;
  gptvq_packed_decode_ref(p, 0, shape->rows, weights, cols);
  bool first = true;
  FOR_EACH_LEVEL(level) {
    if (!gptvq_packed_has_gemm_i8(shape)) continue;
    size_t input_bytes = gptvq_packed_gemm_input_bytes(shape),
           panel_bytes = gptvq_packed_gemm_panel_bytes(shape, rows);
    guarded inputs = guarded_new(blocks * input_bytes), panel = guarded_new(gptvq_round_up(panel_bytes, 64));
    guarded y = guarded_new(total * sizeof(float));
    memset(inputs.data, 0x55, blocks * input_bytes);
    memset(panel.data, 0x55, panel_bytes);
    for (size_t i = 0; i < total; i++) ((float *)y.data)[i] = -77.0f;
    for (size_t b = 0; b < blocks; b++)
      gptvq_packed_gemm_prepare(p, from + b * GPTVQ_GEMM_BLOCK * ldx, ldx,
                                gptvq_min_size(GPTVQ_GEMM_BLOCK, count - b * GPTVQ_GEMM_BLOCK),
                                inputs.data + b * input_bytes);
    gptvq_packed_gemm_i8(p, inputs.data, count, begin, end, (float *)y.data, ldy, panel.data);
    if (first) memcpy(expected, y.data, total * sizeof *expected);
    first = false;
    if (memcmp(expected, y.data, total * sizeof *expected) != 0) {
      print_shape(shape, level_names[level]);
      fail_msg("rows %zu-%zu of %zu tokens: not the bytes of level ref", begin, end, count);
    }
    guarded_free(&inputs);
    guarded_free(&panel);
    guarded_free(&y);
    check_tiles(p, from, ldx, count, begin, end, expected, ldy, total, level_names[level]);
  }
  assert_false(first);
  gptvq_set_cpu("ref", NULL);
  size_t segments =
      gptvq_ceil_div(cols, gptvq_min_size(shape->scale_block ? shape->scale_block : shape->group_cols, cols));
  for (size_t t = 0; t < count; t++) {
    double largest = 0.0;
    for (size_t c = 0; c < cols; c++) largest = fmax(largest, fabs((double)from[t * ldx + c]));
    gptvq_packed_prepare(p, from + t * ldx, input);
    gptvq_packed_matvec_i8(p, input, begin, end, single);
    for (size_t r = 0; r < rows; r++) {
      double sum = sum_of_weights(p, begin + r, weights), got = (double)expected[t * ldy + r];
      if (fabs(got - (double)single[r]) <= (double)(segments + 24) * (double)FLT_EPSILON * sum * largest)
        continue;
      print_shape(shape, "ref");
      fail_msg("token %zu row %zu: %.9g, alone %.9g", t, begin + r, got, (double)single[r]);
    }
    for (size_t r = rows; r < ldy && t + 1 < count; r++) assert_true(expected[t * ldy + r] == -77.0f);
  }
  free(input);
  free(weights);
  free(single);
  free(expected);
  guarded_free(&x);
  random_layer_free(&layer);
}

static void formats(void **test) {
  (void)test;
  uint64_t state = 21;
  for (unsigned dim = 1; dim <= 4; dim *= 2)
    for (unsigned bits = 1; bits <= 12; bits++)
      for (int variant = 0; variant < 6; variant++) {
        static const unsigned blocks[] = {0, 0, 16, 32, 64, 256};
        gptvq_packed_shape s = {.kind = GPTVQ_PACKED_VQ,
                                .rows = 70,
                                .cols = variant == 1 ? 256 + 128 + 13 : 512,
                                .dim = dim,
                                .index_bits = bits,
                                .group_rows = variant == 0 ? 70 : 4,
                                .group_cols = 256,
                                .codebook_bits = 8,
                                .scale_block = blocks[variant],
                                .permuted = variant == 2};
        check(&s, &state);
      }
}

static void uniform_formats(void **test) {
  (void)test;
  static const unsigned blocks[] = {32, 64, 128, 1024};
  uint64_t state = 23;
  for (unsigned bits = 2; bits <= 4; bits += 2)
    for (int variant = 0; variant < 8; variant++) {
      gptvq_packed_shape s = {.kind = GPTVQ_PACKED_UNIFORM,
                              .rows = 70,
                              .dim = 1,
                              .index_bits = bits,
                              .group_rows = 1,
                              .scale_block = blocks[variant % 4],
                              .permuted = variant >= 4};
      s.cols = s.group_cols = 8 / bits * (s.scale_block == 32 ? 64 : s.scale_block) * (variant < 4 ? 1 : 3);
      check(&s, &state);
    }
}

static void widths_of_models(void **test) {
  (void)test;
  uint64_t state = 24;
  for (size_t w = 0; w < MODEL_WIDTHS; w++)
    for (unsigned bits = 2; bits <= 8; bits++) {
      const size_t cols = model_widths[w];
      if (cols > 2000 && bits != 4) continue;
      gptvq_packed_shape vq = model_vq_shape(cols, bits <= 4 ? 2 : bits <= 6 ? 1 : 4, bits, 0, bits % 2 != 0);
      gptvq_packed_shape uniform = model_uniform_shape(cols, bits, bits % 2 == 0 ? 64 : 128);
      check(&vq, &state);
      assert_true(gptvq_packed_has_gemm_i8(&uniform) == (bits < 8));
      if (bits < 8) check(&uniform, &state);
    }
}

static void random_shapes(void **test) {
  (void)test;
  uint64_t state = 22;
  for (int done = 0; done < 150;) {
    gptvq_packed_shape s = random_shape(&state, 80, 1200);
    s.codebook_bits = 8;
    gptvq_set_cpu("ref", NULL);
    if (!gptvq_packed_has_gemm_i8(&s)) continue;
    check(&s, &state);
    done++;
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(formats), cmocka_unit_test(uniform_formats),
                                     cmocka_unit_test(widths_of_models), cmocka_unit_test(random_shapes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
