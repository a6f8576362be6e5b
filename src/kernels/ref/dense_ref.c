/* Dense rows: the definition. Sums are double, so that a row's result is the correctly rounded one up to
 * n·2^-53·Σ|wx|. */
#include "base/half.h"
#include "kernels/multi/row_values.h"
#include "kernels/ref/ref.h"

static void to_float_f32(const void *in, size_t n, float *out) { memmove(out, in, n * sizeof *out); }

static void to_float_f16(const void *in, size_t n, float *out) {
  const char *bytes = in;
  for (size_t i = 0; i < n; i++) {
    uint16_t h;
    memcpy(&h, bytes + 2 * i, 2);
    out[i] = gptvq_fp16_to_float(h);
  }
}

static void to_float_bf16(const void *in, size_t n, float *out) {
  const char *bytes = in;
  for (size_t i = 0; i < n; i++) {
    uint16_t h;
    memcpy(&h, bytes + 2 * i, 2);
    out[i] = gptvq_bf16_to_float(h);
  }
}

static void to_float_i8(const void *in, size_t n, float *out) {
  for (size_t i = 0; i < n; i++) out[i] = (float)((const int8_t *)in)[i];
}

static void dense_matvec(gptvq_to_float_fn convert, size_t size, const char *weights, size_t rows,
                         size_t cols, const float *x, float *y) {
  enum { CHUNK = 256 };
  float w[CHUNK];
  for (size_t row = 0; row < rows; row++) {
    double sum = 0.0;
    for (size_t c = 0; c < cols; c += CHUNK) {
      size_t n = cols - c < CHUNK ? cols - c : CHUNK;
      convert(weights + (row * cols + c) * size, n, w);
      for (size_t i = 0; i < n; i++) sum += (double)w[i] * (double)x[c + i];
    }
    y[row] = (float)sum;
  }
}

static void matvec_f32(const void *weights, size_t rows, size_t cols, const float *x, float *y) {
  dense_matvec(to_float_f32, 4, weights, rows, cols, x, y);
}
static void matvec_f16(const void *weights, size_t rows, size_t cols, const float *x, float *y) {
  dense_matvec(to_float_f16, 2, weights, rows, cols, x, y);
}
static void matvec_bf16(const void *weights, size_t rows, size_t cols, const float *x, float *y) {
  dense_matvec(to_float_bf16, 2, weights, rows, cols, x, y);
}
static void matvec_i8(const void *weights, size_t rows, size_t cols, const float *x, float *y) {
  dense_matvec(to_float_i8, 1, weights, rows, cols, x, y);
}

void gptvq_kernels_init_ref(gptvq_kernel_table *table) {
  table->to_float[GPTVQ_F32] = to_float_f32;
  table->to_float[GPTVQ_F16] = to_float_f16;
  table->to_float[GPTVQ_BF16] = to_float_bf16;
  table->dense_matvec[GPTVQ_F32] = matvec_f32;
  table->dense_matvec[GPTVQ_F16] = matvec_f16;
  table->dense_matvec[GPTVQ_BF16] = matvec_bf16;
  table->codes_matvec = matvec_i8;
  table->packed_decode = gptvq_packed_decode_scalar;
  table->packed_matvec = gptvq_packed_matvec_scalar;
  table->i8_tile = gptvq_i8_tile_scalar;
  table->i8_fold = gptvq_i8_fold_scalar;
  table->trellis_rows = gptvq_trellis_rows_ref;
  table->trellis_codes = gptvq_trellis_codes_ref;
  table->uniform_row = gptvq_uniform_row_scalar;
  table->unpack_bytes = gptvq_unpack_bytes_base;
  table->tile_codes = gptvq_tile_codes_base;
  table->gemm_pack = gptvq_gemm_pack_ref;
  table->gemm_block = gptvq_gemm_block_ref;
}
