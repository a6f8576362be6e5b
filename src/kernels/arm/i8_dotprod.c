/* Integer products with SDOT (Armv8.2). */
#include <arm_neon.h>

static inline int32x4_t dot4(int32x4_t sum, int8x16_t a, int8x16_t b) { return vdotq_s32(sum, a, b); }

#include "kernels/arm/i8_template.h"
#include "kernels/arm/loops_dotprod.h"

/* The loops of loops_dotprod.h: units of 256 columns, one token, no block scales. */
static void run_loop(const gptvq_i8_tile *job) {
  const gptvq_tile *tile = job->tile;
  const size_t k = (size_t)1 << tile->index_bits;
  const int8_t *codebook = tile->codebook;
  int8_t planes[128]; /* [component][k] */
  if (tile->dim == 1) {
    const int8x16_t raw = gptvq_load_part(codebook, 4);
    vst1q_s8(planes, gptvq_small_table(raw, 4, 1, 0, 0));
    vst1q_s8(planes + 16, gptvq_small_table(raw, 4, 1, 2, 0));
    vq_loop_pairs(tile->units, planes, job->x, tile->rows, job->scales[0], job->sums);
    return;
  }
  for (size_t i = 0; i < k; i += 16) {
    const int8x16x2_t two = vld2q_s8(codebook + 2 * i);
    vst1q_s8(planes + i, two.val[0]);
    vst1q_s8(planes + k + i, two.val[1]);
  }
  (k == 16   ? vq_loop_16
   : k == 32 ? vq_loop_32
             : vq_loop_64)(tile->units, planes, job->x, tile->rows, job->scales[0], job->sums);
}

static void i8_tile_dotprod(const gptvq_i8_tile *job) {
  const gptvq_tile *tile = job->tile;
  const unsigned bits = tile->index_bits;
  const bool has_loop = tile->dim == 2 ? bits >= 4 && bits <= 6 : tile->dim == 1 && bits == 2;
  if (has_loop && job->tokens == 1 && job->block_vectors == 0 && tile->width == 256) run_loop(job);
  else i8_tile(job);
}

/* add_scales() for 4 bits, 16 blocks at a time while there are so many. */
static __attribute__((noinline)) void int4_scales(const gptvq_uniform_row *row, float *scales,
                                                  float *correction) {
  /* zero points are a unit of nibbles: the high ones begin at `half`; here all come from one kind */
  const size_t half = row->zero_count / 2, end = row->zero_at < half ? half : row->zero_count;
  const size_t left = end - row->zero_at, whole = (left < row->blocks ? left : row->blocks) / 16 * 16;
  const uint8_t *zeros_at = row->zeros + row->zero_at % half;
  const int8x16_t shift = vdupq_n_s8(row->zero_at < half ? 0 : -4);
  float32x4_t sums[4];
  for (size_t i = 0; i < 4; i++) sums[i] = vdupq_n_f32(0);
  for (size_t b = 0; b < whole; b += 16) {
    GPTVQ_MCA_BEGIN("scales");
    const uint8x16_t zeros = vshlq_u8(vld1q_u8(zeros_at + b), shift) & 15;
    const uint16x8_t wide[2] = {vmovl_u8(vget_low_u8(zeros)), vmovl_high_u8(zeros)};
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
      const uint16x8_t two = wide[i / 2];
      const uint32x4_t zero = i % 2 == 0 ? vmovl_u16(vget_low_u16(two)) : vmovl_high_u16(two);
      const float16x4_t stored = vreinterpret_f16_u16(vld1_u16(row->scales + b + 4 * i));
      const float32x4_t scale = vcvt_f32_f16(stored) * vld1q_f32(row->x_scales + b + 4 * i);
      vst1q_f32(scales + b + 4 * i, scale);
      sums[i] = vfmaq_f32(sums[i], scale * vcvtq_f32_u32(zero), vld1q_f32(row->x_sums + b + 4 * i));
    }
    GPTVQ_MCA_END("scales");
  }
  for (size_t i = 0; i < 4; i++) vst1q_f32(correction + 4 * i, sums[i]);
  add_scales(row, whole, scales, correction);
}

static float uniform_row_dotprod(const gptvq_uniform_row *row) {
  if (row->field != 4 || row->block != 128) return uniform_row(row);
  float scales[GPTVQ_UNIFORM_MAX_BLOCKS], correction[16], sums[32];
  const size_t per_part = row->bytes / 128;
  int4_scales(row, scales, correction);
  int4_loop(row->unit, row->x, row->x + row->bytes, scales, scales + per_part, per_part, sums);
  for (size_t lane = 0; lane < 16; lane++) sums[lane] += sums[16 + lane];
  return gptvq_fold16(sums) - gptvq_fold16(correction);
}

static uint64_t peak(uint64_t times) {
  enum { SUMS = 16 };
  int32x4_t sums[SUMS];
  int8x16_t a = vdupq_n_s8(0);
  for (size_t t = 0; t < SUMS; t++) sums[t] = vdupq_n_s32(0);
  for (uint64_t i = 0; i < times; i++)
#pragma GCC unroll 16
    for (size_t t = 0; t < SUMS; t++) {
      sums[t] = vdotq_s32(sums[t], a, a);
      __asm__ volatile("" : "+w"(sums[t]));
    }
  return times * SUMS * 16;
}

void gptvq_kernels_init_i8_dotprod(gptvq_kernel_table *table) {
  table->i8_peak = peak;
  table->i8_tile = i8_tile_dotprod;
  table->uniform_row = uniform_row_dotprod;
}
