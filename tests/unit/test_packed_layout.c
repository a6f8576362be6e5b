/* format/packed: the layout against a walk through memory in storage order, decoding against a second, naive
 * definition. */
#include "packed_fixture.h"
#include "format/unpack.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static void units_round_trip(void **state) {
  (void)state;
  uint64_t seed = 1;
  for (unsigned bits = 1; bits <= 12; bits++)
    for (size_t n = 8; n <= 136; n += 8) {
      uint16_t in[136], out[136 + 1];
      uint8_t bytes[136 * 12 / 8 + 1];
      size_t size = n / 8 * bits;
      for (size_t i = 0; i < n; i++) in[i] = (uint16_t)(gptvq_random(&seed) & ((1u << bits) - 1u));
      bytes[size] = 0xa5;
      gptvq_pack_unit(in, n, bits, bytes);
      assert_int_equal(bytes[size], 0xa5);
      gptvq_unpack_unit(bytes, n, bits, out);
      assert_memory_equal(in, out, n * sizeof in[0]);
      for (size_t first = 0; first < n; first += 3)
        for (size_t count = 1; first + count <= n; count += 7) {
          memset(out, 0xff, sizeof out);
          gptvq_unpack_indices(bytes, n, bits, first, count, out);
          assert_memory_equal(in + first, out, count * sizeof in[0]);
          assert_int_equal(out[count], 0xffff);
        }
    }
}

/* The field layout bit by bit: each index has its low 8 (4, 2, 1) bits in the field of that width at byte j,
 * bit f·i. */
static void fields_lie_as_documented(void **state) {
  (void)state;
  static const unsigned fields[13][4] = {{0},       {1}, {2},    {2, 1}, {4},       {4, 1}, {4, 2},
                                         {4, 2, 1}, {8}, {8, 1}, {8, 2}, {8, 2, 1}, {8, 4}};
  enum { N = 24 };
  for (unsigned bits = 1; bits <= 12; bits++)
    for (size_t at = 0; at < N; at++)
      for (unsigned bit = 0; bit < bits; bit++) {
        uint16_t indices[N] = {0};
        uint8_t bytes[N * 12 / 8];
        indices[at] = (uint16_t)(1u << bit);
        gptvq_pack_unit(indices, N, bits, bytes);
        size_t base = 0;
        unsigned shift = 0, field = 0;
        while (bit >= shift + fields[bits][field]) {
          shift += fields[bits][field];
          base += N / 8 * fields[bits][field++];
        }
        unsigned f = fields[bits][field];
        size_t count = N / 8 * f, byte = base + at % count;
        unsigned place = f * (unsigned)(at / count) + bit - shift;
        for (size_t i = 0; i < N / 8 * bits; i++) assert_int_equal(bytes[i], i == byte ? 1u << place : 0u);
      }
}

/* The worked example of docs/FORMAT.md: 16 indices of 3 bits. */
static void example_of_the_format_document(void **state) {
  (void)state;
  static const uint16_t indices[16] = {5, 2, 7, 0, 1, 6, 3, 4, 4, 3, 6, 1, 0, 7, 2, 5};
  static const uint8_t expected[6] = {0x05, 0xfa, 0xaf, 0x50, 0x33, 0xcc};
  uint8_t bytes[6];
  gptvq_pack_unit(indices, 16, 3, bytes);
  assert_memory_equal(bytes, expected, sizeof bytes);
}

/* Offsets equal a walk stripe by stripe, column group by column group, row by row; the walk ends at the
 * measured sizes. */
static void offsets_follow_the_walk(void **state) {
  (void)state;
  for (size_t i = 0; i < FIXTURE_SHAPES; i++) {
    const gptvq_packed_shape *s = &fixture_shapes[i];
    gptvq_error err;
    assert_int_equal(gptvq_packed_check(s, "layer", &err), GPTVQ_OK);
    if (s->kind == GPTVQ_PACKED_TRELLIS) continue;
    gptvq_packed_sizes sizes;
    gptvq_packed_measure(s, &sizes);
    size_t at = 0, scale_at = 0, tiles = 0, covered = 0;
    for (size_t row0 = 0; row0 < s->rows; row0 += s->group_rows)
      for (size_t g = 0, col = 0; col < s->cols; g++, col += s->group_cols, tiles++)
        for (size_t row = row0; row < s->rows && row < row0 + s->group_rows; row++) {
          size_t width = s->cols - col < s->group_cols ? s->cols - col : s->group_cols;
          size_t n = 0;
          while (n * s->dim < width || n % 8 != 0) n++;
          assert_int_equal(gptvq_packed_width(s, g), width);
          assert_int_equal(gptvq_unit_indices(s, g), n);
          assert_int_equal(gptvq_unit_bytes(s, g), n * s->index_bits / 8);
          assert_int_equal(gptvq_unit_offset(s, row, g), at);
          at += n * s->index_bits / 8;
          covered += width;
          if (s->kind == GPTVQ_PACKED_VQ) {
            assert_int_equal(gptvq_block_scale_offset(s, row, g), scale_at);
            size_t codes = 0;
            while (s->scale_block > 0 && codes * s->scale_block < width) codes++;
            scale_at += (codes + 1) / 2;
          }
        }
    assert_int_equal(covered, s->rows * s->cols);
    assert_int_equal(sizes.index_bytes, at);
    assert_int_equal(sizes.block_scale_bytes, scale_at);
    assert_int_equal(sizes.stripes * sizes.column_groups, tiles);
    size_t stored = sizes.index_bytes + sizes.block_scale_bytes + (sizes.block_scale_bytes > 0 ? 8 : 0) +
                    (s->permuted ? 2 * s->cols : 0) + 2 * sizes.uniform_scales + sizes.zero_bytes;
    if (s->svd_rank > 0) stored += s->svd_rank * (tiles + ((size_t)1 << s->index_bits) + 4);
    else stored += sizes.codebook_bytes + 2 * sizes.codebook_scales;
    assert_int_equal(sizes.stored_bytes, stored);
    if (s->kind == GPTVQ_PACKED_VQ) {
      assert_int_equal(sizes.codebook_scales, tiles);
      assert_int_equal(sizes.codebook_values, tiles * ((size_t)1 << s->index_bits) * s->dim);
      assert_int_equal(sizes.codebook_bytes, sizes.codebook_values * (s->codebook_bits / 8));
    }
  }
}

/* Streams, tables and scales add up; so do the bits that FORMAT.md counts. */
static void trellis_sizes(void **state) {
  (void)state;
  const gptvq_packed_shape s = {GPTVQ_PACKED_TRELLIS, 256, 768, 1, 2, 256, 256, 8, 0, false, 0};
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(&s, &sizes);
  assert_int_equal(sizes.index_bytes, 256 * 768 / 4);
  assert_int_equal(sizes.codebook_bytes, 3 * 32);
  assert_int_equal(sizes.codebook_scales, 3);
  assert_int_equal(sizes.row_scale_bytes, 256 * 3);
  assert_int_equal(sizes.stored_bytes, 256 * 768 / 4 + 3 * 32 + 2 * 3 + 256 * 3);
}

/* The worked example of docs/FORMAT.md, 4.7. */
static void trellis_example(void **state) {
  (void)state;
  static const uint8_t stream[2] = {0xd8, 0x27}, expected[6] = {0, 128, 96, 216, 246, 125};
  uint8_t states[6];
  gptvq_trellis_states(stream, 2, 0, 6, states);
  assert_memory_equal(states, expected, sizeof states);
}

/* A window is the last 8 bits of the stream, read bit by bit; packing is the inverse of reading. */
static void trellis_windows(void **state) {
  (void)state;
  enum { COLS = 77 };
  uint64_t random = 4;
  for (unsigned k = 2; k <= 4; k++) {
    uint8_t stream[COLS * 4 / 8 + 1], again[sizeof stream], states[COLS];
    size_t bytes = (COLS * k + 7) / 8;
    for (size_t i = 0; i < bytes; i++) stream[i] = (uint8_t)gptvq_random(&random);
    if (COLS * k % 8 != 0) stream[bytes - 1] &= (uint8_t)((1u << COLS * k % 8) - 1u); /* padding is 0 */
    gptvq_trellis_states(stream, k, 0, COLS, states);
    for (size_t c = 0; c < COLS; c++) {
      unsigned expected = 0;
      for (unsigned i = 0; i < 8; i++) {
        long at = (long)(k * (c + 1)) - 8 + (long)i;
        if (at >= 0) expected |= (unsigned)(stream[at / 8] >> at % 8 & 1) << i;
      }
      assert_int_equal(states[c], expected);
    }
    gptvq_trellis_pack(states, COLS, k, again);
    assert_memory_equal(stream, again, bytes);
  }
}

/* Sums of the two tables within ±127, up to both ends, and one beyond either. */
static void trellis_tables_are_bounded(void **state) {
  (void)state;
  int8_t tables[3][GPTVQ_TRELLIS_TABLE] = {{0}};
  tables[0][3] = 100, tables[0][16 + 9] = 27;
  tables[1][15] = -127;
  tables[2][0] = -1, tables[2][31] = -126;
  assert_int_equal(gptvq_trellis_find_overflow(tables[0], 3), 3);
  assert_int_equal(gptvq_trellis_value(tables[0], 3, 9 << 4 | 3), 127);
  assert_int_equal(gptvq_trellis_value(tables[2], 4, 15 << 4), -127);
  tables[2][31] = -127;
  assert_int_equal(gptvq_trellis_find_overflow(tables[0], 3), 2);
  tables[1][15] = -128;
  assert_int_equal(gptvq_trellis_find_overflow(tables[0], 3), 1);
  tables[0][16 + 8] = 28;
  assert_int_equal(gptvq_trellis_find_overflow(tables[0], 3), 0);
}

/* Codes ascend with their scales; the nearest code of a scale is at most half a step away. */
static void row_scales_are_ordered(void **state) {
  (void)state;
  assert_true(gptvq_row_scale(0) == 0.0f && gptvq_row_scale(128) == 1.0f);
  for (unsigned code = 1; code < 256; code++) {
    double scale = (double)gptvq_row_scale((uint8_t)code);
    assert_true(scale == (1.0 + code % 16 / 16.0) * exp2((double)(code / 16) - 8.0));
    assert_int_equal(gptvq_row_scale_code(scale), code);
    if (code == 255) continue;
    double next = (double)gptvq_row_scale((uint8_t)(code + 1));
    assert_int_equal(gptvq_row_scale_code(scale + 0.49 * (next - scale)), code);
    assert_int_equal(gptvq_row_scale_code(scale + 0.51 * (next - scale)), code + 1);
  }
  assert_int_equal(gptvq_row_scale_code(0.0), 0);
  assert_int_equal(gptvq_row_scale_code(-1.0), 0);
  assert_int_equal(gptvq_row_scale_code(NAN), 0);
  assert_int_equal(gptvq_row_scale_code(1e-30), 1);
  assert_int_equal(gptvq_row_scale_code(1e30), 255);
}

/* One value in double, from the whole layer unpacked in storage order. */
static void naive_decode(const fixture *f, double *out) {
  const gptvq_packed *p = &f->packed;
  const gptvq_packed_shape *s = &p->shape;
  const uint8_t *unit = p->indices, *scale_codes = p->block_scales;
  for (size_t row = 0; s->kind == GPTVQ_PACKED_TRELLIS && row < s->rows; row++)
    for (size_t c = 0; c < s->cols; c++) {
      unsigned window = 0;
      for (unsigned i = 0; i < 8; i++) {
        long at = (long)(s->index_bits * (c + 1)) - 8 + (long)i;
        const uint8_t *row_stream = p->indices + row * ((s->cols * s->index_bits + 7) / 8);
        if (at >= 0) window |= (unsigned)(row_stream[at / 8] >> at % 8 & 1) << i;
      }
      size_t g = c / s->group_cols, groups = (s->cols + s->group_cols - 1) / s->group_cols;
      const int8_t *table = (const int8_t *)p->codebooks + g * 32;
      unsigned code = p->row_scales[row * groups + g];
      double scale = code == 0 ? 0.0 : (1.0 + code % 16 / 16.0) * exp2((double)(code / 16) - 8.0);
      out[row * s->cols + (p->permutation != NULL ? p->permutation[c] : c)] =
          ((double)table[s->index_bits == 2 ? window % 4 + window / 64 * 4 : window % 16] +
           table[16 + (s->index_bits == 2 ? window / 4 % 16 : window / 16)]) /
          127.0 * (double)gptvq_bf16_to_float(p->codebook_scales[g]) * scale;
    }
  if (s->kind == GPTVQ_PACKED_TRELLIS) return;
  uint16_t *zeros = NULL;
  if (s->kind == GPTVQ_PACKED_UNIFORM) {
    size_t n = (f->sizes.uniform_scales + 7) / 8 * 8;
    zeros = calloc(n, sizeof *zeros);
    gptvq_unpack_unit(p->zeros, n, s->index_bits, zeros);
  }
  size_t tile = 0, k = (size_t)1 << s->index_bits;
  uint16_t *indices = calloc(s->cols + 64, sizeof *indices);
  for (size_t row0 = 0; row0 < s->rows; row0 += s->group_rows)
    for (size_t col0 = 0; col0 < s->cols; col0 += s->group_cols, tile++)
      for (size_t row = row0; row < s->rows && row < row0 + s->group_rows; row++) {
        size_t width = s->cols - col0 < s->group_cols ? s->cols - col0 : s->group_cols;
        size_t n = ((width + s->dim - 1) / s->dim + 7) / 8 * 8;
        gptvq_unpack_unit(unit, n, s->index_bits, indices);
        unit += n * s->index_bits / 8;
        for (size_t c = 0; c < width; c++) {
          double value;
          unsigned index = indices[c / s->dim];
          if (s->kind == GPTVQ_PACKED_UNIFORM) {
            size_t group = row * ((s->cols + s->scale_block - 1) / s->scale_block) + c / s->scale_block;
            value = (double)gptvq_fp16_to_float(p->scales[group]) * ((int)index - (int)zeros[group]);
          } else {
            size_t at = (tile * k + index) * s->dim + c % s->dim;
            double scale = (double)gptvq_bf16_to_float(p->codebook_scales[tile]);
            value = s->codebook_bits == 8
                        ? (double)((const int8_t *)p->codebooks)[at] / 127.0 * scale
                        : (double)gptvq_fp16_to_float(((const uint16_t *)p->codebooks)[at]) * scale;
            if (s->scale_block > 0) {
              unsigned code = c / s->scale_block % 2 == 0 ? scale_codes[c / s->scale_block / 2] & 15u
                                                          : scale_codes[c / s->scale_block / 2] >> 4;
              value *= exp2((double)p->block_scale_range[0] + (double)p->block_scale_range[1] * code);
            }
          }
          size_t to = p->permutation != NULL ? p->permutation[col0 + c] : col0 + c;
          out[row * s->cols + to] = value;
        }
        if (s->kind == GPTVQ_PACKED_VQ && s->scale_block > 0)
          scale_codes += ((width + s->scale_block - 1) / s->scale_block + 1) / 2;
      }
  free(indices);
  free(zeros);
}

/* Roundings of scale / 127, the product, exp2f (within 1 ulp) and the last product: |error| <= 5 · 2^-24 ·
 * |value|. */
static void decode_equals_the_naive_definition(void **state) {
  (void)state;
  for (size_t i = 0; i < FIXTURE_SHAPES; i++) {
    const gptvq_packed_shape *s = &fixture_shapes[i];
    fixture f = fixture_make(s, 100 + i);
    size_t stride = s->cols + 3;
    double *expected = calloc(s->rows * s->cols, sizeof *expected);
    float *out = calloc(s->rows * stride, sizeof *out);
    for (size_t j = 0; j < s->rows * stride; j++) out[j] = -7.0f;
    naive_decode(&f, expected);
    gptvq_packed_decode_ref(&f.packed, 0, s->rows, out, stride);
    for (size_t row = 0; row < s->rows; row++) {
      for (size_t col = 0; col < s->cols; col++) {
        double want = expected[row * s->cols + col], got = (double)out[row * stride + col];
        if (!(fabs(got - want) <= 5.0 * 0x1p-24 * fabs(want)))
          fail_msg("shape %zu, row %zu, column %zu: %.9g, not %.9g", i, row, col, got, want);
      }
      for (size_t col = s->cols; col < stride; col++) assert_true(out[row * stride + col] == -7.0f);
    }
    /* a range of rows gives the same numbers as all of them */
    if (s->rows > 2) {
      float *part = calloc(s->cols, sizeof *part);
      gptvq_packed_decode_ref(&f.packed, s->rows - 2, s->rows - 1, part, s->cols);
      assert_memory_equal(part, out + (s->rows - 2) * stride, s->cols * sizeof *part);
      free(part);
    }
    free(out);
    free(expected);
    fixture_release(&f);
  }
}

/* The fp32 sum rounded to int8 or fp16 against sums in double: R terms, each product and addition within
 * 2^-24 of the sum of magnitudes; the scale at most 2^-7 above the largest value; codes within half a step.
 * Small whole numbers come out exactly. */
static void codebooks_of_factors(void **state) {
  (void)state;
  enum { TILES = 50, K = 16, RANK = 5 };
  uint64_t seed = 3;
  int8_t left[TILES * RANK], right[RANK * K], codes[TILES * K];
  uint16_t halves[TILES * K], scales[TILES];
  float steps[RANK], values[K];
  for (size_t i = 0; i < TILES * RANK; i++) left[i] = (int8_t)((int)gptvq_random_below(&seed, 256) - 128);
  for (size_t i = 0; i < RANK * K; i++) right[i] = (int8_t)((int)gptvq_random_below(&seed, 256) - 128);
  for (size_t i = 0; i < RANK; i++) steps[i] = (float)(0.01 * (gptvq_random_unit(&seed) - 0.5));
  memset(left, 0, RANK); /* a codebook of zeros */
  for (unsigned bits = 8; bits <= 16; bits += 8) {
    void *made = bits == 8 ? (void *)codes : (void *)halves;
    gptvq_codebooks_from_factors(TILES, K, RANK, left, right, steps, bits, made, scales);
    for (size_t t = 0; t < TILES; t++) {
      double most = 0.0, bound = 0.0;
      gptvq_expand_codebook((char *)made + t * K * (bits / 8), K, bits, scales[t], values);
      double scale = (double)gptvq_bf16_to_float(scales[t]);
      for (size_t m = 0; m < K; m++) {
        double sum = 0.0, magnitude = 0.0;
        for (size_t r = 0; r < RANK; r++) {
          double term = (double)steps[r] * left[t * RANK + r] * right[r * K + m];
          sum += term;
          magnitude += fabs(term);
        }
        double rounding = 2.0 * RANK * 0x1p-24 * magnitude,
               step = bits == 8 ? scale / 254.0 : scale * 0x1p-11;
        most = fmax(most, fabs(sum));
        bound = fmax(bound, rounding);
        assert_true(fabs((double)values[m] - sum) <= rounding + step * 1.000001 + 4.0 * 0x1p-24 * scale);
      }
      assert_true(scale >= most - bound && scale <= (most + bound) * (1.0 + 0x1p-7));
      if (t == 0) assert_true(scale == 0.0);
    }
  }
  static const int8_t one_left[2] = {2, -3}, one_right[4] = {-1, 0, 1, 4};
  static const float one[1] = {0.25f};
  gptvq_codebooks_from_factors(2, 4, 1, one_left, one_right, one, 16, halves, scales);
  assert_int_equal(scales[0], 0x4000); /* 2 · 4 / 4 */
  assert_int_equal(scales[1], 0x4040); /* 3 */
  gptvq_expand_codebook(halves, 4, 16, scales[0], values);
  for (size_t m = 0; m < 4; m++) assert_true(values[m] == 0.5f * (float)one_right[m]);
  static const float wide[2] = {0x1p111f, 0x1p112f}, wider[2] = {0x1p113f, 0x1p113f},
                     infinite[1] = {INFINITY};
  assert_true(gptvq_factor_scales_fit(wide, 2));
  assert_false(gptvq_factor_scales_fit(wider, 2));
  assert_false(gptvq_factor_scales_fit(infinite, 1));
}

static void impossible_shapes_are_refused(void **state) {
  (void)state;
  const gptvq_packed_shape good = {GPTVQ_PACKED_VQ, 16, 256, 2, 4, 4, 128, 8, 0, false, 0};
  const gptvq_packed_shape uniform = {GPTVQ_PACKED_UNIFORM, 16, 256, 1, 4, 1, 256, 0, 64, false, 0};
  const gptvq_packed_shape factored = {GPTVQ_PACKED_VQ, 16, 256, 1, 3, 4, 128, 8, 0,
                                       false,           8}; /* 8 codebooks of 8 */
  const gptvq_packed_shape trellis = {GPTVQ_PACKED_TRELLIS, 16, 256, 1, 2, 16, 128, 8, 0, false, 0};
  gptvq_packed_shape bad[34];
  size_t n = 0;
  for (size_t i = 0; i < 34; i++) bad[i] = i < 16 ? good : i < 20 ? uniform : i < 25 ? factored : trellis;
  bad[n++].rows = 0;
  bad[n++].cols = 0;
  bad[n++].rows = SIZE_MAX;
  bad[n++].rows = (size_t)1 << 34;
  bad[n++].dim = 0;
  bad[n++].dim = 3;
  bad[n++].index_bits = 0;
  bad[n++].index_bits = 13;
  bad[n++].group_rows = 0;
  bad[n++].group_rows = 17;
  bad[n++].group_cols = 0;
  bad[n++].group_cols = 100;
  bad[n++].group_cols = SIZE_MAX;
  bad[n++].codebook_bits = 4;
  bad[n++].scale_block = 3;
  bad[n++].scale_block = 96;
  bad[n++].dim = 2;
  bad[n++].index_bits = 9;
  bad[n++].scale_block = 0;
  bad[n++].group_rows = 2;
  bad[n++].svd_rank = 9;
  bad[n++].group_rows = 16; /* 2 codebooks */
  bad[n++].dim = 2;
  bad[n++].index_bits = 9;
  bad[n++].index_bits = 2;
  bad[n++].dim = 2;
  bad[n++].index_bits = 1;
  bad[n++].index_bits = 5;
  bad[n++].dim = 2;
  bad[n++].group_rows = 8;
  bad[n++].group_cols = 100;
  bad[n++].codebook_bits = 16;
  bad[n++].scale_block = 8;
  bad[n++].svd_rank = 1;
  assert_int_equal(n, 34);
  gptvq_error err;
  assert_int_equal(gptvq_packed_check(&trellis, "layer", &err), GPTVQ_OK);
  assert_int_equal(gptvq_packed_check(&factored, "layer", &err), GPTVQ_OK);
  assert_int_equal(gptvq_packed_check(&good, "layer", &err), GPTVQ_OK);
  assert_int_equal(gptvq_packed_check(&uniform, "layer", &err), GPTVQ_OK);
  for (size_t i = 0; i < n; i++) {
    if (gptvq_packed_check(&bad[i], "some.layer", &err) != GPTVQ_ERROR_FORMAT)
      fail_msg("shape %zu was accepted", i);
    assert_non_null(strstr(err.message, "some.layer"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(units_round_trip),
      cmocka_unit_test(fields_lie_as_documented),
      cmocka_unit_test(example_of_the_format_document),
      cmocka_unit_test(offsets_follow_the_walk),
      cmocka_unit_test(trellis_sizes),
      cmocka_unit_test(trellis_example),
      cmocka_unit_test(trellis_windows),
      cmocka_unit_test(trellis_tables_are_bounded),
      cmocka_unit_test(row_scales_are_ordered),
      cmocka_unit_test(decode_equals_the_naive_definition),
      cmocka_unit_test(codebooks_of_factors),
      cmocka_unit_test(impossible_shapes_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
