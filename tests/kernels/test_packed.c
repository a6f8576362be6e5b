/* Packed layers: decoding is bit-exact at every CPU level; products lie within a rounding bound of a
 * double-precision sum. */
#define _GNU_SOURCE
#include "support.h"

/* n terms, fp32 accumulation in any order, terms rounded twice (value, product): |error| <= (n +
 * 4)·2^-24·Σ|value·x| */
static double bound(size_t n, double magnitude) { return ((double)n + 4.0) * 0x1p-24 * magnitude + 1e-37; }

static void check_decode(const random_layer *layer, uint64_t *state) {
  const gptvq_packed_shape *s = &layer->packed.shape;
  size_t stride = s->cols + gptvq_random_below(state, 3);
  size_t begin = gptvq_random_below(state, s->rows),
         end = begin + 1 + gptvq_random_below(state, s->rows - begin);
  size_t count = (end - begin - 1) * stride + s->cols;
  float *expected = gptvq_alloc(count, sizeof *expected);
  assert_non_null(expected);
  for (size_t i = 0; i < count; i++) expected[i] = -77.0f; /* what lies between rows must stay */
  gptvq_packed_decode_ref(&layer->packed, begin, end, expected, stride);
  FOR_EACH_LEVEL(level) {
    guarded out = guarded_new(count * sizeof(float));
    for (size_t i = 0; i < count; i++) ((float *)out.data)[i] = -77.0f;
    gptvq_packed_decode(&layer->packed, begin, end, (float *)out.data, stride);
    for (size_t i = 0; i < count; i++) {
      if (memcmp(&expected[i], out.data + i * 4, 4) == 0) continue;
      print_shape(s, level_names[level]);
      fail_msg("rows %zu-%zu: row %zu column %zu is %.9g, not %.9g", begin, end, begin + i / stride,
               i % stride, (double)((float *)out.data)[i], (double)expected[i]);
    }
    guarded_free(&out);
  }
  free(expected);
}

static void check_matvec(const random_layer *layer, uint64_t *state) {
  const gptvq_packed_shape *s = &layer->packed.shape;
  float *weights = gptvq_alloc(s->rows * s->cols, sizeof *weights);
  assert_non_null(weights);
  gptvq_packed_decode_ref(&layer->packed, 0, s->rows, weights, s->cols);
  guarded x = guarded_new(s->cols * sizeof(float));
  float *values = (float *)x.data;
  for (size_t c = 0; c < s->cols; c++) values[c] = random_normal(state);
  size_t begin = gptvq_random_below(state, s->rows),
         end = begin + 1 + gptvq_random_below(state, s->rows - begin);
  FOR_EACH_LEVEL(level) {
    guarded y = guarded_new((end - begin) * sizeof(float));
    gptvq_packed_matvec(&layer->packed, begin, end, values, (float *)y.data);
    for (size_t row = begin; row < end; row++) {
      double sum = 0.0, magnitude = 0.0;
      for (size_t c = 0; c < s->cols; c++) {
        size_t from = layer->packed.permutation ? layer->packed.permutation[c] : c;
        double term = (double)weights[row * s->cols + from] * (double)values[c];
        sum += term;
        magnitude += fabs(term);
      }
      double got = (double)((float *)y.data)[row - begin];
      if (fabs(got - sum) <= bound(s->cols, magnitude)) continue;
      print_shape(s, level_names[level]);
      fail_msg("rows %zu-%zu: y[%zu] is %.9g, not %.9g (bound %.3g)", begin, end, row, got, sum,
               bound(s->cols, magnitude));
    }
    guarded_free(&y);
  }
  guarded_free(&x);
  free(weights);
}

static void check_shape(const gptvq_packed_shape *shape, uint64_t *state) {
  random_layer layer;
  random_layer_new(&layer, shape, state);
  check_decode(&layer, state);
  check_matvec(&layer, state);
  random_layer_free(&layer);
}

/* Every (dim, index bits) at the usual group width with a ragged last group. */
static void formats(void **test) {
  (void)test;
  uint64_t state = 1;
  for (unsigned dim = 1; dim <= 4; dim *= 2)
    for (unsigned bits = 1; bits <= 12; bits++)
      for (int variant = 0; variant < 4; variant++) {
        gptvq_packed_shape s = {.kind = GPTVQ_PACKED_VQ,
                                .rows = 11,
                                .cols = variant == 1 ? 512 : 256 + 64 + 5,
                                .dim = dim,
                                .index_bits = bits,
                                .group_rows = 4,
                                .group_cols = 256,
                                .codebook_bits = variant == 2 ? 16 : 8,
                                .scale_block = variant == 3 ? 32 : 0};
        check_shape(&s, &state);
      }
  for (unsigned bits = 1; bits <= 8; bits++)
    for (unsigned block = 64; block <= 128; block *= 2) {
      gptvq_packed_shape s = {.kind = GPTVQ_PACKED_UNIFORM,
                              .rows = 5,
                              .cols = 384,
                              .dim = 1,
                              .index_bits = bits,
                              .group_rows = 1,
                              .group_cols = 384,
                              .scale_block = block};
      check_shape(&s, &state);
    }
}

static void random_shapes(void **test) {
  (void)test;
  uint64_t state = 2;
  for (int round = 0; round < 400; round++) {
    gptvq_packed_shape s = random_shape(&state, 20, 600);
    check_shape(&s, &state);
  }
}

/* Packing and unpacking are inverses, and unpacking agrees with a bit-by-bit reading of the documented
 * layout. */
static void units(void **test) {
  (void)test;
  uint64_t state = 3;
  for (unsigned bits = 1; bits <= 12; bits++)
    for (size_t n = 8; n <= 264; n += 8) {
      uint16_t in[264], out[264];
      uint8_t bytes[264 * 12 / 8];
      for (size_t i = 0; i < n; i++) in[i] = (uint16_t)gptvq_random_below(&state, (size_t)1 << bits);
      gptvq_pack_unit(in, n, bits, bytes);
      gptvq_unpack_unit(bytes, n, bits, out);
      assert_memory_equal(in, out, n * sizeof *in);
      size_t field_start = 0;
      unsigned shift = 0;
      for (unsigned f = 8; f >= 1; f /= 2) {
        if (!(bits & f)) continue;
        size_t size = n * f / 8;
        for (size_t j = 0; j < n; j++)
          for (unsigned b = 0; b < f; b++)
            assert_int_equal(bytes[field_start + j % size] >> (f * (unsigned)(j / size) + b) & 1,
                             in[j] >> (shift + b) & 1);
        field_start += size;
        shift += f;
      }
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(units), cmocka_unit_test(formats),
                                     cmocka_unit_test(random_shapes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
