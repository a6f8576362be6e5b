/* Trellis rows with AVX-512 VBMI: nibbles by shifts of the stream's bytes and of those before them, with 3
 * bits by vpmultishiftqb; values by vpermb from the two tables, which are repeated four times: it looks at
 * six bits, so that garbage above a nibble does not matter. */
#include "kernels/trellis.h"
#include "kernels/trellis_shapes.h"
#include "base/half.h"
#include "kernels/x86/fold_avx512.h"
#include "kernels/x86/lookup_avx512.h"
#include "kernels/x86/trellis_tables.h"
#include "kernels/x86/x86.h"

#include <string.h>

enum { ROWS = 4, FEW_ROWS = 2, STRIP = 64, FAR = 8192, SETS = GPTVQ_I8_MAX_WIDTH / GPTVQ_I8_SET };

typedef struct tables {
  __m512i first, second, first_swapped, second_swapped;
} tables;

GPTVQ_INLINE tables load_tables(const int8_t *entries, int flip) {
  const gptvq_trellis_tables t = gptvq_load_trellis_tables(entries, flip);
  return (tables){_mm512_broadcast_i32x4(t.first), _mm512_broadcast_i32x4(t.second),
                  _mm512_broadcast_i32x4(t.first_swapped), _mm512_broadcast_i32x4(t.second_swapped)};
}

GPTVQ_INLINE __m512i look_up(__m512i first, __m512i a, __m512i second, __m512i b) {
  return _mm512_add_epi8(_mm512_permutexvar_epi8(a, first), _mm512_permutexvar_epi8(b, second));
}

/* The lower two bits of x, the others of y. */
GPTVQ_INLINE __m512i merge(__m512i x, __m512i y) {
  return _mm512_ternarylogic_epi64(_mm512_set1_epi8(3), x, y, 0xca);
}

/* Values of windows. */
GPTVQ_INLINE __m512i window_values(const tables *t, unsigned k, __m512i w) {
  const __m512i upper = _mm512_srli_epi16(w, 4);
  if (k == 2) return look_up(t->first, merge(w, upper), t->second, _mm512_srli_epi16(w, 2));
  return look_up(t->first, w, t->second, upper);
}

/* How windows of k bits are taken from a load that begins one byte before them: the bytes of eight columns
 * spread to a qword, then shifted. */
typedef struct windows {
  __m512i bytes, bits;
} windows;

GPTVQ_INLINE windows make_windows(unsigned k) {
  const __m512i p = gptvq_iota512(), b = _mm512_and_si512(p, _mm512_set1_epi8(7)),
                qword = _mm512_and_si512(_mm512_srli_epi16(p, 3), _mm512_set1_epi8(7));
  windows w = {b, _mm512_set1_epi8((char)k)};
  for (unsigned i = 0; i < k; i++) {
    w.bytes = _mm512_add_epi8(w.bytes, qword);
    w.bits = _mm512_add_epi8(w.bits, b);
  }
  return w;
}

GPTVQ_INLINE __m512i find_windows(const windows *w, __m512i x) {
  return _mm512_multishift_epi64_epi8(w->bits, _mm512_permutexvar_epi8(w->bytes, x));
}

/* `count` bytes, at most 64, from `at` on; but for the first if not `whole`. */
GPTVQ_INLINE __m512i load_bytes(const uint8_t *at, size_t count, int whole) {
  __mmask64 mask = count == 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1;
  if (!whole) mask &= ~(__mmask64)1;
  return _mm512_maskz_loadu_epi8(mask, at);
}

/* Bytes of the stream that a set of 64 indices of all planes ends. */
GPTVQ_INLINE size_t set_bytes(unsigned k) { return k == 3 ? 24 : 64; }

/* Values (with the tables' flip) of the set at `at`, of which `bytes` are there, of the planes:
 * weights[0 … n − 1]. `before`: there is a byte before it. */
GPTVQ_INLINE void set_values(const uint8_t *at, size_t bytes, int before, unsigned k, const windows *w,
                             const tables *t, __m512i *weights) {
  if (k == 3) {
    weights[0] = window_values(t, k, find_windows(w, load_bytes(at - 1, bytes + 1, before)));
    return;
  }
  const __m512i x = load_bytes(at, bytes, 1), p = load_bytes(at - 1, bytes, before),
                x4 = _mm512_srli_epi16(x, 4), p4 = _mm512_srli_epi16(p, 4);
  if (k == 4) {
    weights[0] = look_up(t->first, p4, t->second, x);
    weights[1] = look_up(t->first, x, t->second, x4);
    return;
  }
  /* the window's symbols are the oldest, two, the newest: two bits each of x and of p */
  weights[0] = look_up(t->first_swapped, merge(x, p), t->second, p4);
  weights[1] = look_up(t->first, merge(p4, x), t->second_swapped, merge(x, p4));
  weights[2] = look_up(t->first_swapped, merge(x4, p4), t->second, x);
  weights[3] = look_up(t->first, merge(x, x4), t->second, _mm512_srli_epi16(x, 2));
}

/* The place of set s, plane e of a group of `sets` sets in its prepared input. */
GPTVQ_INLINE size_t input_at(size_t s, size_t e, size_t sets) { return 64 * (e * sets + s); }

/* Sets of `width` columns; bytes that set s of a group of that width has. */
GPTVQ_INLINE size_t set_count(unsigned k, size_t width) {
  return gptvq_input_plane(width, gptvq_trellis_planes(k)) / GPTVQ_I8_SET;
}
GPTVQ_INLINE size_t bytes_of_set(unsigned k, size_t width, size_t s) {
  const size_t left = (width * k + 7) / 8 - s * set_bytes(k);
  return left < set_bytes(k) ? left : set_bytes(k);
}

/* Row scales of `count` groups; beyond them 0. */
GPTVQ_INLINE __m512 row_scales(const uint8_t *codes, size_t count) {
  const __mmask16 lanes = (__mmask16)(count >= 16 ? 0xffffu : (1u << count) - 1u);
  __m512i code = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes, codes));
  __m512i bits = _mm512_maskz_add_epi32(_mm512_test_epi32_mask(code, code), _mm512_slli_epi32(code, 19),
                                        _mm512_set1_epi32((127 - 8) << 23));
  return _mm512_castsi512_ps(bits);
}

/* (table scale / 127) · activation scale of groups from g on, at most STRIP */
GPTVQ_INLINE void base_scales(const gptvq_trellis_rows *job, const float *x_scales, size_t g, float *out) {
  const size_t count = job->groups - g < STRIP ? job->groups - g : STRIP;
  for (size_t i = 0; i < count; i += 16) {
    const __mmask16 lanes = (__mmask16)(count - i >= 16 ? 0xffffu : (1u << (count - i)) - 1u);
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, job->table_scales + g + i));
    __m512 scale = _mm512_div_ps(_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)), _mm512_set1_ps(127.0f));
    _mm512_store_ps(out + i, _mm512_mul_ps(scale, _mm512_maskz_loadu_ps(lanes, x_scales + g + i)));
  }
}

/* `rows` (a constant) rows from `row` on, one token. */
GPTVQ_INLINE void one_token(const gptvq_trellis_rows *job, size_t row, unsigned k, const windows *w,
                            size_t rows) {
  _Alignas(64) float base[STRIP], scales[ROWS][STRIP];
  const size_t chunk_bytes = 32 * k, planes = gptvq_trellis_planes(k), whole_sets = 4 / planes;
  const uint8_t *stream = job->streams + row * job->row_bytes, *ahead = stream + rows * job->row_bytes;
  const int8_t *entries = job->tables, *x = job->x;
  __m512 sums[8];
#pragma GCC unroll 8
  for (int r = 0; r < 8; r++) sums[r] = _mm512_setzero_ps();
  for (size_t g = 0; g < job->groups; g++, entries += GPTVQ_TRELLIS_TABLE, x += job->group_codes) {
    const size_t width = g + 1 == job->groups ? job->last_width : job->width;
    if (g % STRIP == 0) {
      base_scales(job, job->x_scales, g, base);
      for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < STRIP && g + i < job->groups; i += 16)
          _mm512_store_ps(scales[r] + i,
                          _mm512_mul_ps(_mm512_load_ps(base + i),
                                        row_scales(job->row_scales + (row + r) * job->groups + g + i,
                                                   job->groups - g - i)));
    }
    const tables table = load_tables(entries, 0x80);
    const __m512i start = _mm512_loadu_si512(job->corrections + 16 * g);
    if (width == 256) { /* the usual one */
      const uint8_t *chunk = stream + g * chunk_bytes;
#pragma GCC unroll 4
      for (size_t r = 0; r < rows; r++, chunk += job->row_bytes, ahead += chunk_bytes) {
        __m512i total = start;
        for (size_t i = 0; i < chunk_bytes; i += 64) {
          _mm_prefetch((const char *)ahead + FAR + i, _MM_HINT_T1);
          _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
        }
#pragma GCC unroll 4
        for (size_t s = 0; s < whole_sets; s++) {
          __m512i weights[4];
          set_values(chunk + s * set_bytes(k), set_bytes(k), g + s > 0, k, w, &table, weights);
#pragma GCC unroll 4
          for (size_t e = 0; e < planes; e++)
            total = _mm512_dpbusd_epi32(total, weights[e], _mm512_load_si512(x + input_at(s, e, whole_sets)));
        }
        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), _mm512_set1_ps(scales[r][g % STRIP]), sums[r]);
      }
      continue;
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
      const uint8_t *chunk = stream + r * job->row_bytes + g * job->width * k / 8;
      const size_t sets = set_count(k, width);
      __m512i total = start;
      for (size_t s = 0; s < sets; s++) {
        __m512i weights[4];
        set_values(chunk + s * set_bytes(k), bytes_of_set(k, width, s), g + s > 0, k, w, &table, weights);
#pragma GCC unroll 4
        for (size_t e = 0; e < planes; e++)
          total = _mm512_dpbusd_epi32(total, weights[e], _mm512_load_si512(x + input_at(s, e, sets)));
      }
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), _mm512_set1_ps(scales[r][g % STRIP]), sums[r]);
    }
  }
  _mm256_mask_storeu_ps(job->y + row, (__mmask8)((1u << rows) - 1u), gptvq_fold8x16(sums));
}

/* `rows` (a constant) rows from `row` on, several tokens: weights of a group are looked up once. */
GPTVQ_INLINE void few_tokens(const gptvq_trellis_rows *job, size_t row, unsigned k, const windows *w,
                             size_t rows) {
  _Alignas(64) float base[GPTVQ_I8_MAX_TOKENS][STRIP], scales[FEW_ROWS][STRIP];
  __m512 sums[FEW_ROWS][GPTVQ_I8_MAX_TOKENS];
  const size_t planes = gptvq_trellis_planes(k), whole_sets = 4 / planes;
  memset(sums, 0, sizeof sums);
  for (size_t g = 0; g < job->groups; g++) {
    const size_t width = g + 1 == job->groups ? job->last_width : job->width;
    if (g % STRIP == 0) {
      for (size_t t = 0; t < job->tokens; t++)
        base_scales(job, (const void *)((const char *)job->x_scales + t * job->input_stride), g, base[t]);
      for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < STRIP && g + i < job->groups; i += 16)
          _mm512_store_ps(scales[r] + i,
                          row_scales(job->row_scales + (row + r) * job->groups + g + i, job->groups - g - i));
    }
    const tables table = load_tables(job->tables + g * GPTVQ_TRELLIS_TABLE, 0x80);
    if (width == 256) {           /* the usual one */
      __m512i whole[FEW_ROWS][4]; /* set by set */
#pragma GCC unroll 2
      for (size_t r = 0; r < rows; r++) {
        const uint8_t *chunk = job->streams + (row + r) * job->row_bytes + g * 32 * k;
        for (size_t i = 0; i < 32 * k; i += 64)
          _mm_prefetch((const char *)chunk + rows * job->row_bytes + i, _MM_HINT_T0);
#pragma GCC unroll 4
        for (size_t s = 0; s < whole_sets; s++)
          set_values(chunk + s * set_bytes(k), set_bytes(k), g + s > 0, k, w, &table, whole[r] + s * planes);
      }
      for (size_t t = 0; t < job->tokens; t++) {
        const int8_t *x = job->x + g * job->group_codes + t * job->input_stride;
        const __m512i start =
            _mm512_loadu_si512((const char *)(job->corrections + 16 * g) + t * job->input_stride);
#pragma GCC unroll 2
        for (size_t r = 0; r < rows; r++) {
          __m512i total = start;
#pragma GCC unroll 4
          for (size_t i = 0; i < 4; i++)
            total = _mm512_dpbusd_epi32(total, whole[r][i],
                                        _mm512_load_si512(x + input_at(i / planes, i % planes, whole_sets)));
          sums[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total),
                                       _mm512_set1_ps(base[t][g % STRIP] * scales[r][g % STRIP]), sums[r][t]);
        }
      }
      continue;
    }
    __m512i weights[FEW_ROWS][SETS];
    const size_t sets = set_count(k, width);
    for (size_t r = 0; r < rows; r++)
      for (size_t s = 0; s < sets; s++)
        set_values(job->streams + (row + r) * job->row_bytes + g * job->width * k / 8 + s * set_bytes(k),
                   bytes_of_set(k, width, s), g + s > 0, k, w, &table, weights[r] + s * planes);
    for (size_t t = 0; t < job->tokens; t++) {
      const int8_t *x = job->x + g * job->group_codes + t * job->input_stride;
      const __m512i start =
          _mm512_loadu_si512((const char *)(job->corrections + 16 * g) + t * job->input_stride);
      __m512i total[FEW_ROWS];
      for (size_t r = 0; r < rows; r++) total[r] = start;
      for (size_t s = 0; s < sets; s++)
#pragma GCC unroll 4
        for (size_t e = 0; e < planes; e++) {
          const __m512i q = _mm512_load_si512(x + input_at(s, e, sets));
#pragma GCC unroll 2
          for (size_t r = 0; r < rows; r++)
            total[r] = _mm512_dpbusd_epi32(total[r], weights[r][s * planes + e], q);
        }
#pragma GCC unroll 2
      for (size_t r = 0; r < rows; r++)
        sums[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[r]),
                                     _mm512_set1_ps(base[t][g % STRIP] * scales[r][g % STRIP]), sums[r][t]);
    }
  }
  for (size_t r = 0; r < rows; r++)
    for (size_t t = 0; t < job->tokens; t += 8) {
      float y[8];
      __m512 own[8];
      for (size_t i = 0; i < 8; i++) own[i] = t + i < job->tokens ? sums[r][t + i] : _mm512_setzero_ps();
      _mm256_storeu_ps(y, gptvq_fold8x16(own));
      for (size_t i = 0; i < 8 && t + i < job->tokens; i++) job->y[(t + i) * job->ldy + row + r] = y[i];
    }
}

GPTVQ_INLINE void all_rows(const gptvq_trellis_rows *job, unsigned k) {
  const windows w = make_windows(k);
  size_t row = 0;
  if (job->tokens == 1) {
    for (; row + ROWS <= job->rows; row += ROWS) one_token(job, row, k, &w, ROWS);
    for (; row < job->rows; row++) one_token(job, row, k, &w, 1);
  } else {
    for (; row + FEW_ROWS <= job->rows; row += FEW_ROWS) few_tokens(job, row, k, &w, FEW_ROWS);
    for (; row < job->rows; row++) few_tokens(job, row, k, &w, 1);
  }
}

/* 64 columns at a time. */
GPTVQ_INLINE void row_codes(const uint8_t *stream, unsigned k, size_t begin, size_t count,
                            const int8_t *entries, int8_t *codes) {
  const windows w = make_windows(k);
  const tables table = load_tables(entries, 0);
  for (size_t c = 0; c < count; c += 64) {
    const size_t columns = count - c < 64 ? count - c : 64;
    const __m512i y = find_windows(
        &w, load_bytes(stream + (begin + c) * k / 8 - 1, (columns * k + 7) / 8 + 1, begin + c > 0));
    _mm512_mask_storeu_epi8(codes + c, columns == 64 ? ~(__mmask64)0 : ((__mmask64)1 << columns) - 1,
                            window_values(&table, k, y));
  }
}

GPTVQ_TRELLIS_ROWS()
GPTVQ_TRELLIS_CODES()

void gptvq_kernels_init_trellis_avx512(gptvq_kernel_table *table) {
  table->trellis_rows = trellis_rows;
  table->trellis_codes = trellis_codes;
}
