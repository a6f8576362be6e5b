/* Integer products: the same bytes at every CPU level; the prepared input as documented; and the whole within
 * the error of the activations' rounding from the exact product. */
#define _GNU_SOURCE
#include "support.h"

/* Lets inputs be ordinary, extreme (all codes ±127) or mostly zero. */
static void fill_input(float *x, size_t n, uint64_t *state) {
  size_t kind = gptvq_random_below(state, 5);
  for (size_t i = 0; i < n; i++) {
    float value = random_normal(state);
    if (kind == 0) value = value < 0 ? -1.0f : 1.0f;
    if (kind == 1) value = 3.0f;
    if (kind == 2 && gptvq_random_below(state, 8)) value = 0.0f;
    if (kind == 3 && i < n / 2) value *= 1e-20f;
    x[i] = value;
  }
}

static void check_tokens(const gptvq_packed_shape *shape, size_t count, uint64_t *state) {
  random_layer layer;
  random_layer_new(&layer, shape, state);
  const gptvq_packed *p = &layer.packed;
  size_t bytes = gptvq_packed_input_bytes(shape), cols = shape->cols;
  guarded x = guarded_new(count * cols * sizeof(float)), inputs = guarded_new(count * bytes);
  fill_input((float *)x.data, count * cols, state);
  size_t begin = gptvq_random_below(state, 2) ? 0 : gptvq_random_below(state, shape->rows),
         end = begin + 1 + gptvq_random_below(state, shape->rows - begin);
  if (gptvq_random_below(state, 2)) end = shape->rows; /* behind it there is nothing to read */
  size_t ldy = end - begin + gptvq_random_below(state, 3), total = (count - 1) * ldy + end - begin;
  float *expected = gptvq_alloc(total, sizeof *expected);
  unsigned char *first_inputs = gptvq_alloc(count * bytes, 1);
  assert_true(expected != NULL && first_inputs != NULL);
  FOR_EACH_LEVEL(level) {
    memset(inputs.data, 0x55, count * bytes);
    for (size_t t = 0; t < count; t++)
      gptvq_packed_prepare(p, (float *)x.data + t * cols, inputs.data + t * bytes);
    guarded y = guarded_new(total * sizeof(float));
    for (size_t i = 0; i < total; i++) ((float *)y.data)[i] = -77.0f;
    gptvq_packed_matmul_i8(p, inputs.data, count, begin, end, (float *)y.data, ldy);
    if (level == 0) memcpy(expected, y.data, total * sizeof *expected);
    for (size_t i = 0; i < total; i++) {
      if (memcmp(&expected[i], y.data + i * 4, 4) == 0) continue;
      print_shape(shape, level_names[level]);
      fail_msg("rows %zu-%zu of %zu tokens: row %zu of token %zu is %.9g, not %.9g", begin, end, count,
               i % ldy, i / ldy, (double)((float *)y.data)[i], (double)expected[i]);
    }
    /* one token alone gives the same bytes */
    size_t t = gptvq_random_below(state, count);
    gptvq_packed_matvec_i8(p, inputs.data + t * bytes, begin, end, (float *)y.data);
    assert_memory_equal(y.data, expected + t * ldy, (end - begin) * sizeof *expected);
    guarded_free(&y);
  }
  /* |y − exact| <= Σ_groups (activation scale / 2) · Σ |w| + rounding; the scale is max |x| / 127 of the
   * group */
  float *weights = gptvq_alloc(shape->rows * cols, sizeof *weights);
  assert_non_null(weights);
  gptvq_packed_decode_ref(p, 0, shape->rows, weights, cols);
  size_t width =
      gptvq_min_size(shape->kind == GPTVQ_PACKED_UNIFORM ? shape->scale_block : shape->group_cols, cols);
  for (size_t t = 0; t < count; t++)
    for (size_t row = begin; row < end; row++) {
      double sum = 0.0, limit = 0.0;
      for (size_t g = 0; g * width < cols; g++) {
        double largest = 0.0, absolute = 0.0, magnitude = 0.0;
        for (size_t c = g * width; c < cols && c < (g + 1) * width; c++) {
          size_t from = p->permutation ? p->permutation[c] : c;
          double w = (double)weights[row * cols + from], v = (double)((float *)x.data)[t * cols + from];
          sum += w * v;
          largest = fmax(largest, fabs(v));
          absolute += fabs(w);
          magnitude += fabs(w * v);
        }
        limit += largest / 254.0 * absolute * 1.0001 + 1e-5 * magnitude;
        if (shape->kind == GPTVQ_PACKED_UNIFORM)
          limit += 1e-4 * largest * (double)width; /* code and zero part cancel */
      }
      double got = (double)expected[t * ldy + row - begin];
      if (!(fabs(got - sum) <= limit)) {
        print_shape(shape, "ref");
        fail_msg("token %zu row %zu: %.9g, not %.9g (bound %.3g)", t, row, got, sum, limit);
      }
    }
  free(weights);
  free(expected);
  free(first_inputs);
  guarded_free(&x);
  guarded_free(&inputs);
  random_layer_free(&layer);
}

static void check(const gptvq_packed_shape *shape, uint64_t *state) {
  size_t count = 1 + gptvq_random_below(state, 3) % 2 *
                         gptvq_random_below(state, gptvq_random_below(state, 8) == 0 ? 70 : 12);
  check_tokens(shape, count, state);
}

static void formats(void **test) {
  (void)test;
  uint64_t state = 11;
  for (unsigned dim = 1; dim <= 4; dim *= 2)
    for (unsigned bits = 1; bits <= 12; bits++)
      for (int variant = 0; variant < 8; variant++) {
        static const unsigned blocks[] = {0, 0, 0, 16, 32, 64, 128, 256};
        gptvq_packed_shape s = {.kind = GPTVQ_PACKED_VQ,
                                .rows = 13,
                                .cols = variant == 1 ? 256 + 128 + 13 : 512,
                                .dim = dim,
                                .index_bits = bits,
                                .group_rows = variant == 2 ? 13 : 4,
                                .group_cols = 256,
                                .codebook_bits = 8,
                                .scale_block = blocks[variant]};
        check(&s, &state);
        for (size_t count = 6; count <= 7; count++)
          check_tokens(&s, count, &state); /* 4 + 2, 4 + 3 and 4 + 2 + 1 at a time */
      }
}

static gptvq_packed_shape trellis_shape(unsigned k, size_t rows, size_t cols, size_t group_cols) {
  return (gptvq_packed_shape){.kind = GPTVQ_PACKED_TRELLIS,
                              .rows = rows,
                              .cols = cols,
                              .dim = 1,
                              .index_bits = k,
                              .group_rows = rows,
                              .group_cols = group_cols,
                              .codebook_bits = 8};
}

/* Every trellis, with whole groups, wide ones, a rest of any kind, and few and many rows and tokens. */
static void trellises(void **test) {
  (void)test;
  uint64_t state = 17;
  static const size_t widths[][2] = {{512, 256},        {576, 256}, {256 + 13, 256}, {512 + 1, 256},
                                     {1024 + 40, 1024}, {300, 40},  {5, 8},          {1, 8},
                                     {700, 512},        {129, 64},  {1021, 1024},    {255, 256}};
  static const size_t rows[] = {1, 2, 13, 31, 33, 70};
  for (unsigned k = 2; k <= 4; k++) {
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
      for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        gptvq_packed_shape s = trellis_shape(k, rows[r], widths[i][0], widths[i][1]);
        check_tokens(&s, 1 + (i + r) % 8, &state);
      }
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
      gptvq_packed_shape s = trellis_shape(k, 13, widths[i][0], widths[i][1]);
      check_tokens(&s, 1, &state);
      check_tokens(&s, 5, &state);
      check_tokens(&s, 35, &state);
    }
    for (size_t w = 0; w < MODEL_WIDTHS; w++) {
      gptvq_packed_shape s = trellis_shape(k, 5, model_widths[w], 256);
      check_tokens(&s, 1 + w % 3, &state);
    }
  }
}

/* Values from any multiple of eight columns on, of a stream that has nothing before it and nothing behind. */
static void trellis_codes_from_any_column(void **test) {
  (void)test;
  uint64_t state = 23;
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  guarded stream = guarded_new(page);
  int8_t tables[GPTVQ_TRELLIS_TABLE], expected[256], codes[256];
  fixture_trellis_tables(tables, 1, &state);
  for (size_t i = 0; i < page; i++) stream.data[i] = (uint8_t)gptvq_random(&state);
  for (unsigned k = 2; k <= 4; k++)
    for (size_t begin = 0; begin <= 64; begin += 8)
      for (size_t count = 1; count <= 200; count += 13) {
        const size_t last = (8 * page / k - count) / 8 * 8 - begin; /* as far before the end */
        for (int end = 0; end < 2; end++) {
          const size_t at = end ? last : begin;
          gptvq_trellis_codes_ref(stream.data, k, at, count, tables, expected);
          FOR_EACH_LEVEL(level) {
            gptvq_kernels(gptvq_cpu())->trellis_codes(stream.data, k, at, count, tables, codes);
            if (memcmp(codes, expected, count) != 0)
              fail_msg("%s, %u bits: %zu columns from %zu on", level_names[level], k, count, at);
          }
        }
      }
  assert_int_equal(gptvq_set_cpu("auto", NULL), GPTVQ_OK);
  guarded_free(&stream);
}

/* Streams that begin and end beside unreadable pages: whole pages of them. */
static void trellises_between_pages(void **test) {
  (void)test;
  uint64_t state = 19;
  const size_t rows = (size_t)sysconf(_SC_PAGESIZE) / 32; /* of 32 k bytes */
  static const size_t groups[] = {256, 8, 64, 136};
  for (unsigned k = 2; k <= 4; k++)
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
      for (size_t tokens = 1; tokens <= 2; tokens++) {
        gptvq_packed_shape s = trellis_shape(k, rows, 256, groups[i]);
        check_tokens(&s, tokens, &state);
      }
}

/* Blocks that are no power of two of columns, which groups of 256 columns cannot have unless they hold all of
 * them. */
static void odd_blocks(void **test) {
  (void)test;
  uint64_t state = 16;
  for (unsigned dim = 1; dim <= 4; dim *= 2)
    for (unsigned bits = 1; bits <= 12; bits++) {
      gptvq_packed_shape s = {.kind = GPTVQ_PACKED_VQ,
                              .rows = 9,
                              .cols = 256,
                              .dim = dim,
                              .index_bits = bits,
                              .group_rows = 9,
                              .group_cols = 256,
                              .codebook_bits = 8,
                              .scale_block = 48};
      assert_true(gptvq_packed_has_i8(&s));
      check(&s, &state);
    }
}

/* Tiles of one row, and widths with whole sets other than 256. */
static void small_and_wide_tiles(void **test) {
  (void)test;
  uint64_t state = 17;
  static const size_t widths[] = {256, 64, 128, 512, 1024};
  for (unsigned dim = 1; dim <= 4; dim *= 2)
    for (unsigned bits = 1; bits <= 12; bits++)
      for (int w = 0; w < 5; w++)
        for (int scaled = 0; scaled < 2; scaled++) {
          gptvq_packed_shape s = {.kind = GPTVQ_PACKED_VQ,
                                  .rows = 9,
                                  .cols = 1024 + 64,
                                  .dim = dim,
                                  .index_bits = bits,
                                  .group_rows = w == 0 ? 1 : 3,
                                  .group_cols = widths[w],
                                  .codebook_bits = 8,
                                  .scale_block = scaled ? 32 : 0};
          if (w == 0) s.cols = 512;
          check(&s, &state);
        }
}

static void uniform_formats(void **test) {
  (void)test;
  uint64_t state = 14;
  static const unsigned blocks[] = {32, 64, 128, 256};
  for (unsigned bits = 2; bits <= 4; bits += 2)
    for (int b = 0; b < 4; b++)
      for (size_t times = 1; times <= 9; times++) {
        size_t cols = times * 8 / bits * (blocks[b] == 32 ? 64 : blocks[b]);
        gptvq_packed_shape s = {.kind = GPTVQ_PACKED_UNIFORM,
                                .rows = 7 + times,
                                .cols = cols,
                                .dim = 1,
                                .index_bits = bits,
                                .group_rows = 1,
                                .group_cols = cols,
                                .scale_block = blocks[b],
                                .permuted = times % 3 == 0};
        assert_true(gptvq_packed_has_i8(&s));
        check(&s, &state);
      }
}

static void widths_of_models(void **test) {
  (void)test;
  uint64_t state = 18;
  for (size_t w = 0; w < MODEL_WIDTHS; w++) {
    const size_t cols = model_widths[w];
    for (unsigned bits = 1; bits <= 8; bits++) {
      if (cols > 3000 && bits != 4) continue;
      for (unsigned dim = 1; dim <= 4; dim *= 2)
        for (int variant = 0; variant < 4; variant++) {
          gptvq_packed_shape s = model_vq_shape(cols, dim, bits, variant % 2 ? 64 : 0, variant < 2);
          check(&s, &state);
        }
      for (unsigned block = 32; block <= 128; block *= 2) {
        gptvq_packed_shape s = model_uniform_shape(cols, bits, block);
        assert_true(gptvq_packed_has_i8(&s));
        check(&s, &state);
      }
    }
  }
}

static void random_shapes(void **test) {
  (void)test;
  uint64_t state = 12;
  for (int done = 0; done < 400;) {
    gptvq_packed_shape s = random_shape(&state, 40, 1200);
    s.codebook_bits = 8;
    if (s.kind == GPTVQ_PACKED_VQ && gptvq_random_below(&state, 2)) {
      s.group_cols = 256;
      if (s.scale_block && 256 % s.scale_block) s.scale_block = 64;
    }
    if (!gptvq_packed_has_i8(&s)) continue;
    check(&s, &state);
    done++;
  }
}

/* Not only the levels of one machine agree, but all machines: a hash of the results of fixed layers. */
static void same_everywhere(void **test) {
  (void)test;
  uint64_t state = 15;
  static const struct {
    unsigned dim, bits, block;
  } formats_[] = {{2, 4, 0}, {2, 6, 0}, {4, 8, 0}, {1, 3, 0}, {2, 4, 64}, {4, 12, 32}};
  uint32_t hash = 2166136261u;
  for (size_t f = 0; f < sizeof formats_ / sizeof formats_[0]; f++) {
    gptvq_packed_shape s = {.kind = GPTVQ_PACKED_VQ,
                            .rows = 24,
                            .cols = 768,
                            .dim = formats_[f].dim,
                            .index_bits = formats_[f].bits,
                            .group_rows = 8,
                            .group_cols = 256,
                            .codebook_bits = 8,
                            .scale_block = formats_[f].block};
    random_layer layer;
    random_layer_new(&layer, &s, &state);
    if (s.scale_block != 0) { /* powers of two need no library function */
      static const float range[] = {-4.0f, 1.0f};
      layer.packed.block_scale_range = range;
    }
    float x[768], y[24];
    for (size_t c = 0; c < 768; c++) x[c] = random_normal(&state);
    void *input = gptvq_alloc(gptvq_packed_input_bytes(&s), 1);
    assert_non_null(input);
    gptvq_packed_prepare(&layer.packed, x, input);
    gptvq_packed_matvec_i8(&layer.packed, input, 0, 24, y);
    for (size_t i = 0; i < sizeof y; i++) hash = (hash ^ ((unsigned char *)y)[i]) * 16777619u;
    free(input);
    random_layer_free(&layer);
  }
  assert_int_equal(hash, 0x94e423dbu); /* the same on x86-64 and aarch64 */
}

/* Infinite and NaN activations must not look like numbers. */
static void bad_activations(void **test) {
  (void)test;
  uint64_t state = 13;
  gptvq_packed_shape s = {.kind = GPTVQ_PACKED_VQ,
                          .rows = 4,
                          .cols = 512,
                          .dim = 2,
                          .index_bits = 4,
                          .group_rows = 4,
                          .group_cols = 256,
                          .codebook_bits = 8};
  random_layer layer;
  random_layer_new(&layer, &s, &state);
  float x[512], y[4];
  static const float bad[] = {INFINITY, -INFINITY, NAN};
  void *input = gptvq_alloc(gptvq_packed_input_bytes(&s), 1);
  assert_non_null(input);
  FOR_EACH_LEVEL(level)
  for (int i = 0; i < 3; i++) {
    for (size_t c = 0; c < 512; c++) x[c] = 1.0f;
    x[300 + i] = bad[i];
    gptvq_packed_prepare(&layer.packed, x, input);
    gptvq_packed_matvec_i8(&layer.packed, input, 0, 4, y);
    for (int row = 0; row < 4; row++) assert_true(isnan(y[row]));
  }
  free(input);
  random_layer_free(&layer);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(formats),
                                     cmocka_unit_test(trellises),
                                     cmocka_unit_test(trellises_between_pages),
                                     cmocka_unit_test(trellis_codes_from_any_column),
                                     cmocka_unit_test(odd_blocks),
                                     cmocka_unit_test(small_and_wide_tiles),
                                     cmocka_unit_test(uniform_formats),
                                     cmocka_unit_test(widths_of_models),
                                     cmocka_unit_test(random_shapes),
                                     cmocka_unit_test(same_everywhere),
                                     cmocka_unit_test(bad_activations)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
