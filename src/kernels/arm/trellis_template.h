/* kernels/arm/trellis_template.h: trellis rows for aarch64; included by trellis_neon.c and trellis_dotprod.c,
 * which define dot4(sum, a, b) as for i8_template.h.
 *
 * With 2 and 4 bits per weight a byte of the stream ends the windows of four or two columns, so that a shift
 * of the bytes and an insertion from those before them make 16 of them; a lane's activations are brought into
 * that order first. With 3 bits a dword has the windows of four columns. Values by TBL and TBX. */
#include "base/half.h"
#include "kernels/arm/arm.h"
#include "kernels/arm/lookup_neon.h"
#include "kernels/ref/ref.h"
#include "kernels/trellis_chunk.h"
#include "kernels/trellis_shapes.h"

/* bench/arm-mca.sh marks the loops that it has analysed. */
#ifndef GPTVQ_MCA_BEGIN
#define GPTVQ_MCA_BEGIN(name) ((void)0)
#define GPTVQ_MCA_END(name) ((void)0)
#endif

/* VECTORS of 16 weights make a chunk, quarters of them the columns of four lanes. */
enum { ROWS = 32, CHUNK = GPTVQ_TRELLIS_CHUNK, VECTORS = 16 };

/* ---- windows ---- */

/* Windows that end n bits before the ends of bytes x begin; −n: behind them. p: the bytes before x. */
INLINE uint8x16_t byte_windows(uint8x16_t x, uint8x16_t p, unsigned state_bits, int n) {
  switch (n) {
  case 6: x = vsriq_n_u8(vshlq_n_u8(x, 6), p, 2); break;
  case 5: x = vsriq_n_u8(vshlq_n_u8(x, 5), p, 3); break;
  case 4: x = vsriq_n_u8(vshlq_n_u8(x, 4), p, 4); break;
  case 3: x = vsriq_n_u8(vshlq_n_u8(x, 3), p, 5); break;
  case 2: x = vsriq_n_u8(vshlq_n_u8(x, 2), p, 6); break;
  case 1: x = vsriq_n_u8(vshlq_n_u8(x, 1), p, 7); break;
  case 0: break;
  case -1: return vshrq_n_u8(x, 1); /* the last ones of their bytes: nothing is above them */
  default: return vshrq_n_u8(x, 2);
  }
  return state_bits == 8 ? x : x & (uint8_t)((1u << state_bits) - 1u);
}

/* Three bits per weight: the bytes that the windows of a dword lie in, from one before the 6 bytes of two
 * lanes on, and how far up they begin. */
typedef struct triples {
  uint8x16_t bytes[2];
  int32x4_t down[2];
} triples;

INLINE void make_triples(unsigned state_bits, triples *t) {
  for (int part = 0; part < 2; part++) {
    uint8_t bytes[16];
    int32_t down[4];
    for (int d = 0; d < 4; d++) {
      const int start = 8 + 48 * (d / 2) + 12 * (2 * part + d % 2) + 3 - (int)state_bits;
      for (int b = 0; b < 4; b++) bytes[4 * d + b] = (uint8_t)(start / 8 + b);
      down[d] = -(start % 8);
    }
    t->bytes[part] = vld1q_u8(bytes);
    t->down[part] = vld1q_s32(down);
  }
}

INLINE uint8x16_t dword_windows(uint8x16_t bytes, const triples *t, unsigned state_bits, int part) {
  const uint32x4_t x = vshlq_u32(vreinterpretq_u32_u8(vqtbl1q_u8(bytes, t->bytes[part])), t->down[part]);
  uint32x4_t all = vsliq_n_u32(x, vshrq_n_u32(x, 3), 8);
  all = vsliq_n_u32(all, vshrq_n_u32(x, 6), 16);
  all = vsliq_n_u32(all, vshrq_n_u32(x, 9), 24);
  const uint8x16_t index = vreinterpretq_u8_u32(all);
  return state_bits == 8 ? index : index & (uint8_t)((1u << state_bits) - 1u);
}

/* Windows of vector v of a chunk; the byte before it is there, with 3 bits three behind it too. */
INLINE uint8x16_t vector_windows(const uint8_t *chunk, unsigned k, unsigned state_bits, const triples *t,
                                 size_t v) {
  if (k == 3) return dword_windows(vld1q_u8(chunk + v / 2 * 12 - 1), t, state_bits, (int)(v % 2));
  const size_t columns = 8 / k; /* that end in a byte */
  const uint8_t *bytes = chunk + v / columns * 16;
  return byte_windows(vld1q_u8(bytes), vld1q_u8(bytes - 1), state_bits,
                      (int)state_bits - (int)k * (1 + (int)(v % columns)));
}

/* ---- order ---- */

INLINE int8x16_t shuffle(int8x16_t x, const uint8_t order[16]) { return vqtbl1q_s8(x, vld1q_u8(order)); }

INLINE int8x16_t zip_low(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
INLINE int8x16_t zip_high(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
INLINE int8x16_t even_dwords(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vtrn1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}
INLINE int8x16_t odd_dwords(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vtrn2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

/* Activations of a chunk from prepared order to that of the vectors. */
INLINE void order_inputs(const int8_t *x, unsigned k, int8_t *out) {
  static const uint8_t square[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15},
                       apart[16] = {0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15};
  for (size_t quarter = 0; quarter < 4; quarter++, out += 64) {
    int8x16_t a[4], lane[4];
    for (size_t j = 0; j < 4; j++) {
      a[j] = vld1q_s8(x + 64 * j + 16 * quarter);
      if (k == 2) a[j] = shuffle(a[j], square); /* the lanes' first bytes side by side, … */
    }
    const int8x16_t even[2] = {even_dwords(a[0], a[1]), even_dwords(a[2], a[3])},
                    odd[2] = {odd_dwords(a[0], a[1]), odd_dwords(a[2], a[3])};
    lane[0] = zip_low(even[0], even[1]), lane[1] = zip_low(odd[0], odd[1]);
    lane[2] = zip_high(even[0], even[1]), lane[3] = zip_high(odd[0], odd[1]);
    if (k == 2) {
      for (size_t i = 0; i < 4; i++) vst1q_s8(out + 16 * i, shuffle(lane[i], square));
      continue;
    }
    for (size_t i = 0; k == 4 && i < 4; i++) lane[i] = shuffle(lane[i], apart);
    for (size_t i = 0; i < 2; i++) {
      vst1q_s8(out + 32 * i, zip_low(lane[2 * i], lane[2 * i + 1]));
      vst1q_s8(out + 32 * i + 16, zip_high(lane[2 * i], lane[2 * i + 1]));
    }
  }
}

/* Values in the order of the vectors to column order. */
INLINE void order_codes(const int8_t *from, unsigned k, int8_t *codes) {
  for (size_t i = 0; i < CHUNK; i += k == 2 ? 64 : 32) {
    const int8x16_t a = vld1q_s8(from + i), b = vld1q_s8(from + i + 16);
    if (k == 2) {
      const int8x16x4_t four = {{a, b, vld1q_s8(from + i + 32), vld1q_s8(from + i + 48)}};
      vst4q_s8(codes + i, four);
    } else if (k == 4) {
      const int8x16x2_t two = {{a, b}};
      vst2q_s8(codes + i, two);
    } else {
      vst1q_s8(codes + i, zip_low(a, b));
      vst1q_s8(codes + i + 16, zip_high(a, b));
    }
  }
}

/* ---- products ---- */

/* Which of the totals vector v belongs to: those of four lanes, or, but with 2 bits, of two lanes twice. */
INLINE size_t total_of(unsigned k, size_t v) { return k == 2 ? v / 4 : v / 2; }

INLINE void add_totals(const int32x4_t totals[8], unsigned k, float scale, float *sums) {
  for (size_t quarter = 0; quarter < 4; quarter++) {
    const int32x4_t total =
        k == 2 ? totals[quarter] : vpaddq_s32(totals[2 * quarter], totals[2 * quarter + 1]);
    vst1q_f32(sums + 4 * quarter, vfmaq_n_f32(vld1q_f32(sums + 4 * quarter), vcvtq_f32_s32(total), scale));
  }
}

/* A chunk times the activations x onto the totals. */
INLINE void multiply_chunk(const uint8_t *chunk, unsigned k, unsigned state_bits, const triples *t,
                           const gptvq_tables_neon *table, const int8_t *x, int32x4_t totals[8]) {
#pragma GCC unroll 16
  for (size_t v = 0; v < VECTORS; v++)
    totals[total_of(k, v)] =
        dot4(totals[total_of(k, v)],
             gptvq_look_up_neon(table, state_bits, 0, vector_windows(chunk, k, state_bits, t, v)),
             vld1q_s8(x + 16 * v));
}

INLINE void chunk_values(const uint8_t *chunk, unsigned k, unsigned state_bits, const triples *t,
                         const gptvq_tables_neon *table, int8_t *values) {
#pragma GCC unroll 16
  for (size_t v = 0; v < VECTORS; v++)
    vst1q_s8(values + 16 * v,
             gptvq_look_up_neon(table, state_bits, 0, vector_windows(chunk, k, state_bits, t, v)));
}

/* One token: rows of group g, which is a chunk that can be read in place. */
INLINE void whole_rows(const gptvq_trellis_rows *job, size_t first, size_t rows, size_t g, unsigned k,
                       unsigned state_bits, const triples *t, const gptvq_tables_neon *table, const int8_t *x,
                       float scale, float (*sums)[GPTVQ_I8_LANES]) {
  const uint8_t *chunk = job->streams + first * job->row_bytes + g * (CHUNK / 8) * k,
                *row_scales = job->row_scales + first * job->groups + g;
  for (size_t r = 0; r < rows; r++, chunk += job->row_bytes, row_scales += job->groups) {
    GPTVQ_MCA_BEGIN("trellis");
    int32x4_t totals[8];
    for (size_t i = 0; i < 8; i++) totals[i] = vdupq_n_s32(0);
    multiply_chunk(chunk, k, state_bits, t, table, x, totals);
    add_totals(totals, k, scale * gptvq_row_scale(*row_scales), sums[r]);
    GPTVQ_MCA_END("trellis");
  }
}

/* At most ROWS rows: tables are loaded and activations reordered once a group. */
INLINE void some_rows(const gptvq_trellis_rows *job, size_t first, size_t rows, unsigned k,
                      unsigned state_bits) {
  _Alignas(64) float sums[ROWS * GPTVQ_I8_MAX_TOKENS][GPTVQ_I8_LANES];
  int8_t x[GPTVQ_I8_MAX_TOKENS][GPTVQ_I8_MAX_WIDTH], codes[GPTVQ_I8_MAX_WIDTH];
  float scales[GPTVQ_I8_MAX_TOKENS];
  gptvq_padded_chunk room;
  triples t;
  const size_t tokens = job->tokens, cols = (job->groups - 1) * job->width + job->last_width;
  if (k == 3) make_triples(state_bits, &t);
  memset(sums, 0, rows * tokens * sizeof sums[0]);
  for (size_t g = 0; g < job->groups; g++) {
    const size_t width = g + 1 == job->groups ? job->last_width : job->width,
                 chunks = (width + CHUNK - 1) / CHUNK, at = g * job->width;
    const float scale = gptvq_bf16_to_float(job->table_scales[g]) / 127.0f;
    gptvq_tables_neon table;
    gptvq_load_tables_neon(gptvq_all_values(job->tables + g * GPTVQ_TRELLIS_TABLE, k, (int8_t[256]){0}),
                           state_bits, 1, &table);
    for (size_t i = 0; i < tokens; i++) {
      const size_t step = i * job->input_stride;
      scales[i] = scale * *(const float *)(const void *)((const char *)(job->x_scales + g) + step);
      for (size_t c = 0; c < chunks; c++)
        order_inputs(job->x + g * job->group_codes + step + c * CHUNK, k, x[i] + c * CHUNK);
    }
    if (tokens == 1 && width == CHUNK && gptvq_chunk_in_place(k, at, cols - at)) {
      whole_rows(job, first, rows, g, k, state_bits, &t, &table, x[0], scales[0], sums);
      continue;
    }
    for (size_t r = 0; r < rows; r++) {
      const size_t row = first + r;
      const float row_scale = gptvq_row_scale(job->row_scales[row * job->groups + g]);
      for (size_t c = 0; c < chunks; c++)
        chunk_values(gptvq_find_chunk(job->streams + row * job->row_bytes, k, at + c * CHUNK,
                                      cols - at - c * CHUNK, &room),
                     k, state_bits, &t, &table, codes + c * CHUNK);
      for (size_t i = 0; i < tokens; i++) {
        int32x4_t totals[8];
        for (size_t j = 0; j < 8; j++) totals[j] = vdupq_n_s32(0);
        for (size_t c = 0; c < chunks * CHUNK; c += CHUNK)
#pragma GCC unroll 16
          for (size_t v = 0; v < VECTORS; v++)
            totals[total_of(k, v)] =
                dot4(totals[total_of(k, v)], vld1q_s8(codes + c + 16 * v), vld1q_s8(x[i] + c + 16 * v));
        add_totals(totals, k, scales[i] * row_scale, sums[r * tokens + i]);
      }
    }
  }
  for (size_t r = 0; r < rows; r++) {
    float y[GPTVQ_I8_MAX_TOKENS];
    gptvq_i8_fold_scalar(sums[r * tokens], tokens, y);
    for (size_t i = 0; i < tokens; i++) job->y[i * job->ldy + first + r] = y[i];
  }
}

/* Values of a row in column order. */
INLINE void row_codes(const uint8_t *stream, unsigned k, size_t begin, size_t count, const int8_t *values,
                      int8_t *codes) {
  enum { state_bits = 8 };
  gptvq_tables_neon table;
  triples t;
  gptvq_padded_chunk room;
  int8_t found[CHUNK], part[CHUNK];
  gptvq_load_tables_neon(gptvq_all_values(values, k, (int8_t[256]){0}), state_bits, 1, &table);
  if (k == 3) make_triples(state_bits, &t);
  for (size_t c = 0; c < count; c += CHUNK) {
    const size_t columns = count - c < CHUNK ? count - c : CHUNK;
    chunk_values(gptvq_find_chunk(stream, k, begin + c, count - c, &room), k, state_bits, &t, &table, found);
    order_codes(found, k, columns == CHUNK ? codes + c : part);
    if (columns < CHUNK) memcpy(codes + c, part, columns);
  }
}

INLINE void all_rows(const gptvq_trellis_rows *job, unsigned k) {
  enum { state_bits = 8 };
  for (size_t row = 0; row < job->rows; row += ROWS)
    some_rows(job, row, job->rows - row < ROWS ? job->rows - row : ROWS, k, state_bits);
}

GPTVQ_TRELLIS_ROWS()
