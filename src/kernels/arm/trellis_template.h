/* kernels/arm/trellis_template.h: trellis rows for aarch64, included by trellis_neon.c and trellis_dotprod.c,
 * which define dot4(sum, a, b) as for i8_template.h.
 *
 * A step takes 16 bytes of the stream, which with 2 and 4 bits per weight end the windows of four or two
 * columns each, or with 3 bits the twelve bytes of 32 columns: the windows' nibbles by shifts of the bytes
 * and of those before them, values by TBL from the two tables. */
#include "base/half.h"
#include "kernels/arm/arm.h"
#include "kernels/ref/ref.h"
#include "kernels/trellis_shapes.h"
#include "kernels/trellis_streams.h"

#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))

/* bench/arm-mca.sh marks the loops that it has analysed. */
#ifndef GPTVQ_MCA_BEGIN
#define GPTVQ_MCA_BEGIN(name) ((void)0)
#define GPTVQ_MCA_END(name) ((void)0)
#endif

enum { BYTES = 16, ROWS = 32 };

/* ---- values ---- */

/* Three bits per weight: the bytes that the windows of even and odd columns lie in, of both vectors of a
 * step, and how far up in them they begin. */
typedef struct thirds {
  uint8x16_t bytes[2][2]; /* [vector][odd] */
  int16x8_t down[2][2];
} thirds;

INLINE void make_thirds(thirds *t) {
  for (unsigned i = 0; i < 4; i++) {
    uint8_t bytes[16];
    int16_t down[8];
    for (unsigned w = 0; w < 8; w++) {
      const unsigned start = 32 + 3 * (16 * (i / 2) + 2 * w + i % 2 + 1) - 8;
      bytes[2 * w] = (uint8_t)(start / 8);
      bytes[2 * w + 1] = (uint8_t)(start / 8 + 1);
      down[w] = (int16_t)(-(int)(start % 8));
    }
    t->bytes[i / 2][i % 2] = vld1q_u8(bytes);
    t->down[i / 2][i % 2] = vld1q_s16(down);
  }
}

INLINE uint8x16_t bytes_down(uint8x16_t x, const thirds *t, size_t vector, size_t odd) {
  return vreinterpretq_u8_u16(
      vshlq_u16(vreinterpretq_u16_u8(vqtbl1q_u8(x, t->bytes[vector][odd])), t->down[vector][odd]));
}

/* Both tables of a column group, also for indices whose halves have changed places. */
typedef struct tables {
  int8x16_t first, second, first_swapped, second_swapped;
} tables;

INLINE tables load_tables(const int8_t *entries) {
  static const uint8_t swap[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const int8x16_t first = vld1q_s8(entries), second = vld1q_s8(entries + 16);
  return (tables){first, second, vqtbl1q_s8(first, vld1q_u8(swap)), vqtbl1q_s8(second, vld1q_u8(swap))};
}

INLINE int8x16_t look_up(int8x16_t first, uint8x16_t a, int8x16_t second, uint8x16_t b) {
  return vaddq_s8(vqtbl1q_s8(first, a), vqtbl1q_s8(second, b));
}

/* Vectors of a step: of the planes, or with 3 bits of 16 columns each; where they are in a group's prepared
 * input, and to which quarter of the lanes they belong. */
INLINE size_t step_vectors(unsigned k) { return k == 2 ? 4 : 2; }
INLINE size_t input_at(unsigned k, size_t v, size_t i, size_t plane) {
  return k == 3 ? 32 * v + 16 * i : i * plane + 16 * v;
}
INLINE size_t quarter_of(unsigned k, size_t v, size_t i) { return (k == 3 ? 2 * v + i : v) % 4; }

/* Values of the step at `at`. `first`: nothing is before it. */
INLINE void step_values(const uint8_t *at, unsigned k, int first, const thirds *third, const tables *table,
                        int8x16_t *weights) {
  const uint8x16_t zero = vdupq_n_u8(0), nibble = vdupq_n_u8(15);
  if (k == 3) {
    const uint8x16_t x = first ? vextq_u8(zero, vld1q_u8(at), 12) : vld1q_u8(at - 4);
    for (size_t i = 0; i < 2; i++) {
      const uint8x16_t windows = vtrn1q_u8(bytes_down(x, third, i, 0), bytes_down(x, third, i, 1));
      weights[i] = look_up(table->first, vandq_u8(windows, nibble), table->second, vshrq_n_u8(windows, 4));
    }
    return;
  }
  const uint8x16_t x = vld1q_u8(at), p = first ? vextq_u8(zero, x, 15) : vld1q_u8(at - 1),
                   x0 = vandq_u8(x, nibble), x4 = vshrq_n_u8(x, 4), p4 = vshrq_n_u8(p, 4);
  if (k == 4) {
    weights[0] = look_up(table->first, p4, table->second, x0);
    weights[1] = look_up(table->first, x0, table->second, x4);
    return;
  }
  /* the window's symbols are the oldest, two, the newest: two bits each of x and of p */
  const uint8x16_t low = vdupq_n_u8(3);
  weights[0] = look_up(table->first_swapped, vbslq_u8(low, x, vandq_u8(p, nibble)), table->second, p4);
  weights[1] = look_up(table->first, vbslq_u8(low, p4, x0), table->second_swapped, vbslq_u8(low, x, p4));
  weights[2] = look_up(table->first_swapped, vbslq_u8(low, x4, p4), table->second, x0);
  weights[3] = look_up(table->first, vbslq_u8(low, x, x4), table->second, vandq_u8(vshrq_n_u8(x, 2), nibble));
}

/* ---- products ---- */

INLINE void add_totals(const int32x4_t totals[4], float scale, float *sums) {
  for (size_t i = 0; i < 4; i++)
    vst1q_f32(sums + 4 * i, vfmaq_n_f32(vld1q_f32(sums + 4 * i), vcvtq_f32_s32(totals[i]), scale));
}

/* Step v of a group, at `at`, times its activations onto the totals. */
INLINE void multiply_step(const uint8_t *at, unsigned k, int first, size_t v, const thirds *third,
                          const tables *table, const int8_t *x, size_t plane, int32x4_t totals[4]) {
  int8x16_t weights[4];
  step_values(at, k, first, third, table, weights);
#pragma GCC unroll 4
  for (size_t i = 0; i < step_vectors(k); i++) {
    const size_t quarter = quarter_of(k, v, i);
    totals[quarter] = dot4(totals[quarter], weights[i], vld1q_s8(x + input_at(k, v, i, plane)));
  }
}

/* One token: rows of group g, which has 256 columns, is not the first one, and can be read where it is. */
INLINE void whole_rows(const gptvq_trellis_rows *job, size_t first, size_t rows, size_t g, unsigned k,
                       const thirds *third, const tables *table, float scale, float (*sums)[GPTVQ_I8_LANES]) {
  const size_t steps = 256 / gptvq_step_columns(k, BYTES), plane = 256 / gptvq_trellis_planes(k);
  const uint8_t *at = job->streams + first * job->row_bytes + g * 32 * k,
                *row_scales = job->row_scales + first * job->groups + g;
  const int8_t *x = job->x + g * job->group_codes;
  for (size_t r = 0; r < rows; r++, at += job->row_bytes, row_scales += job->groups) {
    GPTVQ_MCA_BEGIN("trellis");
    int32x4_t totals[4];
    for (size_t i = 0; i < 4; i++) totals[i] = vdupq_n_s32(0);
#pragma GCC unroll 8
    for (size_t v = 0; v < steps; v++)
      multiply_step(at + v * gptvq_step_bytes(k, BYTES), k, 0, v, third, table, x, plane, totals);
    add_totals(totals, scale * gptvq_row_scale(*row_scales), sums[r]);
    GPTVQ_MCA_END("trellis");
  }
}

/* Values of a group of a row, vector by vector. */
INLINE void group_values(const uint8_t *at, unsigned k, int first, size_t steps, const thirds *third,
                         const tables *table, int8x16_t *weights) {
  for (size_t v = 0; v < steps; v++, at += gptvq_step_bytes(k, BYTES), weights += step_vectors(k)) {
    if (first && v == 0) step_values(at, k, 1, third, table, weights);
    else step_values(at, k, 0, third, table, weights);
  }
}

INLINE void multiply_values(const int8x16_t *weights, unsigned k, size_t steps, const int8_t *x, size_t plane,
                            float scale, float *sums) {
  int32x4_t totals[4];
  for (size_t i = 0; i < 4; i++) totals[i] = vdupq_n_s32(0);
  for (size_t v = 0; v < steps; v += 4)
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
      if (v + j >= steps) break;
#pragma GCC unroll 4
      for (size_t i = 0; i < step_vectors(k); i++) {
        const size_t quarter = quarter_of(k, j, i);
        totals[quarter] = dot4(totals[quarter], weights[(v + j) * step_vectors(k) + i],
                               vld1q_s8(x + input_at(k, v + j, i, plane)));
      }
    }
  add_totals(totals, scale, sums);
}

/* At most ROWS rows. */
INLINE void some_rows(const gptvq_trellis_rows *job, size_t first, size_t rows, unsigned k,
                      const thirds *third) {
  _Alignas(64) float sums[ROWS * GPTVQ_I8_MAX_TOKENS][GPTVQ_I8_LANES];
  int8x16_t weights[GPTVQ_I8_MAX_WIDTH / 16];
  float scales[GPTVQ_I8_MAX_TOKENS];
  gptvq_padded room;
  const size_t tokens = job->tokens, planes = gptvq_trellis_planes(k);
  memset(sums, 0, rows * tokens * sizeof sums[0]);
  for (size_t g = 0; g < job->groups; g++) {
    const size_t width = g + 1 == job->groups ? job->last_width : job->width,
                 plane = gptvq_input_plane(width, planes);
    const gptvq_extent e = gptvq_extent_of(k, width, g == 0, BYTES);
    const float scale = gptvq_bf16_to_float(job->table_scales[g]) / 127.0f;
    const tables table = load_tables(job->tables + g * GPTVQ_TRELLIS_TABLE);
    const int8_t *x = job->x + g * job->group_codes;
    for (size_t i = 0; i < tokens; i++)
      scales[i] =
          scale * *(const float *)(const void *)((const char *)(job->x_scales + g) + i * job->input_stride);
    const uint8_t *at = job->streams + first * job->row_bytes + g * job->width * k / 8;
    if (tokens == 1 && width == 256 && g > 0 && gptvq_can_read(job, at, &e) &&
        gptvq_can_read(job, at + (rows - 1) * job->row_bytes, &e)) {
      whole_rows(job, first, rows, g, k, third, &table, scales[0], sums);
      continue;
    }
    for (size_t r = 0; r < rows; r++, at += job->row_bytes) {
      const float row_scale = gptvq_row_scale(job->row_scales[(first + r) * job->groups + g]);
      const uint8_t *from =
          gptvq_can_read(job, at, &e) ? at : gptvq_pad(at, g * job->width, k, e.bytes, &room);
      group_values(from, k, g == 0, e.steps, third, &table, weights);
      for (size_t i = 0; i < tokens; i++)
        multiply_values(weights, k, e.steps, x + i * job->input_stride, plane, scales[i] * row_scale,
                        sums[r * tokens + i]);
    }
  }
  for (size_t r = 0; r < rows; r++) {
    float y[GPTVQ_I8_MAX_TOKENS];
    gptvq_i8_fold_scalar(sums[r * tokens], tokens, y);
    for (size_t i = 0; i < tokens; i++) job->y[i * job->ldy + first + r] = y[i];
  }
}

INLINE void all_rows(const gptvq_trellis_rows *job, unsigned k) {
  thirds third;
  if (k == 3) make_thirds(&third);
  for (size_t row = 0; row < job->rows; row += ROWS)
    some_rows(job, row, job->rows - row < ROWS ? job->rows - row : ROWS, k, &third);
}

/* ---- values in column order ---- */

typedef int8x16_t step_vector;

INLINE void order_codes(const int8x16_t *w, unsigned k, int8_t *codes) {
  if (k == 2) {
    const int8x16x4_t four = {{w[0], w[1], w[2], w[3]}};
    vst4q_s8(codes, four);
  } else if (k == 4) {
    const int8x16x2_t two = {{w[0], w[1]}};
    vst2q_s8(codes, two);
  } else {
    vst1q_s8(codes, w[0]);
    vst1q_s8(codes + 16, w[1]);
  }
}

#include "kernels/trellis_codes_template.h"

GPTVQ_TRELLIS_ROWS()
