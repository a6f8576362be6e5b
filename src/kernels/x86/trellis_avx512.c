/* Trellis rows with AVX-512 VBMI: windows by vpmultishiftqb, values by vpermb and vpermi2b. */
#include "kernels/trellis.h"
#include "kernels/trellis_shapes.h"
#include "base/half.h"
#include "kernels/x86/fold_avx512.h"
#include "kernels/x86/lookup_avx512.h"
#include "kernels/x86/x86.h"

#include <string.h>

enum { ROWS = 4, FEW_ROWS = 2, STRIP = 64, FAR = 8192, CHUNKS = GPTVQ_I8_MAX_WIDTH / GPTVQ_TRELLIS_CHUNK };

/* How the windows of set j of a chunk are found: bytes spread to dwords by `bytes` (not with 2 bits per
 * weight: there a qword holds the windows of its own 32 columns but for the first ones, which are those of a
 * load one byte earlier), then shifted by `bits`. */
typedef struct windows {
  __m512i bytes[4], bits[4];
} windows;

GPTVQ_INLINE void make_windows(unsigned k, unsigned state_bits, windows *w) {
  const __m512i p = gptvq_iota512(), three = _mm512_set1_epi8(3);
  const __m512i b = _mm512_and_si512(p, three);
  __m512i kb = _mm512_setzero_si512(); /* k · b */
  for (unsigned i = 0; i < k; i++) kb = _mm512_add_epi8(kb, b);
  const __m512i upper =
      _mm512_and_si512(_mm512_slli_epi16(p, 3), _mm512_set1_epi8(32)); /* 32 · (lane is odd) */
  const __m512i lane = _mm512_and_si512(_mm512_srli_epi16(p, 2), _mm512_set1_epi8(15));
  for (int j = 0; j < 4; j++) {
    const int first = (int)(4 * k) * j + (int)k - (int)state_bits + (j == 0 ? 8 : 0); /* bit of column 4j */
    const int start = k == 2 ? first : first % 8;
    w->bits[j] = _mm512_add_epi8(_mm512_add_epi8(upper, kb), _mm512_set1_epi8((char)start));
    __m512i from = _mm512_add_epi8(b, _mm512_set1_epi8((char)(first / 8)));
    for (unsigned i = 0; i < 2 * k; i++) from = _mm512_add_epi8(from, lane);
    w->bytes[j] = from;
  }
}

/* Bytes [from, from + 64) of a chunk of `bytes` bytes, from >= −1; those before `first` and beyond the chunk
 * are not read. */
GPTVQ_INLINE __m512i load_part(const uint8_t *chunk, int from, size_t bytes, int first) {
  const size_t end = bytes > (size_t)(from + 64) ? 64 : (size_t)((int)bytes - from);
  if ((int)bytes <= from) return _mm512_setzero_si512();
  __mmask64 mask = end == 64 ? ~(__mmask64)0 : ((__mmask64)1 << end) - 1;
  if (from < first) mask &= ~(__mmask64)1;
  return _mm512_maskz_loadu_epi8(mask, chunk + from);
}

/* The values (code + 128) of a chunk, in the order of prepared inputs: weights[4]. whole: all of its 32k
 * bytes are there, and the byte before them. */
GPTVQ_INLINE void chunk_values(const uint8_t *chunk, size_t bytes, int before, int whole, unsigned k,
                               unsigned state_bits, const windows *w, const gptvq_table512 *table,
                               __m512i *weights) {
  __m512i part[4]; /* one byte earlier: low, high; in place: low, high */
  for (int i = 0; i < (k == 2 ? 3 : 4); i++) {
    if (k == 2 && i == 1) continue;
    const int from = i == 0 ? -1 : i == 1 ? 63 : i == 2 ? 0 : 64;
    part[i] = whole && (k != 3 || i % 2 == 0) ? _mm512_loadu_si512(chunk + from)
                                              : load_part(chunk, from, bytes, before ? -1 : 0);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    __m512i x = part[j == 0 ? 0 : 2];
    if (k != 2) x = _mm512_permutex2var_epi8(x, w->bytes[j], part[j == 0 ? 1 : 3]);
    weights[j] = gptvq_look_up512(table, state_bits, 0, _mm512_multishift_epi64_epi8(w->bits[j], x));
  }
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
GPTVQ_INLINE void one_token(const gptvq_trellis_rows *job, size_t row, unsigned k, unsigned state_bits,
                            const windows *w, size_t rows) {
  _Alignas(64) float base[STRIP], scales[ROWS][STRIP];
  const size_t chunk_bytes = 32 * k;
  const uint8_t *stream = job->streams + row * job->row_bytes, *ahead = stream + rows * job->row_bytes;
  const int8_t *table_codes = job->tables, *x = job->x;
  __m512 sums[8];
#pragma GCC unroll 8
  for (int r = 0; r < 8; r++) sums[r] = _mm512_setzero_ps();
  for (size_t g = 0; g < job->groups; g++, table_codes += GPTVQ_TRELLIS_TABLE, x += job->group_codes) {
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
    gptvq_table512 table;
    gptvq_load_table512(gptvq_all_values(table_codes, k, (int8_t[256]){0}), state_bits, 1, 0x80, &table);
    const __m512i start = _mm512_loadu_si512(job->corrections + 16 * g);
    if (width == GPTVQ_TRELLIS_CHUNK && g > 0) { /* the usual one */
      const __m512i *q = (const void *)x;
      const uint8_t *chunk = stream + g * chunk_bytes;
#pragma GCC unroll 4
      for (size_t r = 0; r < rows; r++, chunk += job->row_bytes, ahead += chunk_bytes) {
        __m512i weights[4], total = start;
        for (size_t i = 0; i < chunk_bytes; i += 64) {
          _mm_prefetch((const char *)ahead + FAR + i, _MM_HINT_T1);
          _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
        }
        chunk_values(chunk, chunk_bytes, 1, 1, k, state_bits, w, &table, weights);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) total = _mm512_dpbusd_epi32(total, weights[j], q[j]);
        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), _mm512_set1_ps(scales[r][g % STRIP]), sums[r]);
      }
      continue;
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
      const uint8_t *chunk = stream + r * job->row_bytes + g * job->width * k / 8;
      __m512i total = start;
      for (size_t c = 0; c < width; c += GPTVQ_TRELLIS_CHUNK, chunk += chunk_bytes) {
        const size_t columns = width - c < GPTVQ_TRELLIS_CHUNK ? width - c : GPTVQ_TRELLIS_CHUNK;
        __m512i weights[4];
        chunk_values(chunk, (columns * k + 7) / 8, g + c > 0, 0, k, state_bits, w, &table, weights);
        for (int j = 0; j < 4; j++)
          total = _mm512_dpbusd_epi32(total, weights[j], _mm512_load_si512(x + c + 64 * j));
      }
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), _mm512_set1_ps(scales[r][g % STRIP]), sums[r]);
    }
  }
  _mm256_mask_storeu_ps(job->y + row, (__mmask8)((1u << rows) - 1u), gptvq_fold8x16(sums));
}

/* `rows` (a constant) rows from `row` on, several tokens: weights of a group are looked up once. */
GPTVQ_INLINE void few_tokens(const gptvq_trellis_rows *job, size_t row, unsigned k, unsigned state_bits,
                             const windows *w, size_t rows) {
  _Alignas(64) float base[GPTVQ_I8_MAX_TOKENS][STRIP], scales[FEW_ROWS][STRIP];
  __m512 sums[FEW_ROWS][GPTVQ_I8_MAX_TOKENS];
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
    gptvq_table512 table;
    gptvq_load_table512(gptvq_all_values(job->tables + g * GPTVQ_TRELLIS_TABLE, k, (int8_t[256]){0}), state_bits,
                        1, 0x80, &table);
    if (width == GPTVQ_TRELLIS_CHUNK && g > 0) { /* the usual one */
      __m512i whole[FEW_ROWS][4];
#pragma GCC unroll 2
      for (size_t r = 0; r < rows; r++) {
        const uint8_t *chunk = job->streams + (row + r) * job->row_bytes + g * 32 * k;
        for (size_t i = 0; i < 32 * k; i += 64)
          _mm_prefetch((const char *)chunk + rows * job->row_bytes + i, _MM_HINT_T0);
        chunk_values(chunk, 32 * k, 1, 1, k, state_bits, w, &table, whole[r]);
      }
      for (size_t t = 0; t < job->tokens; t++) {
        const __m512i *q = (const void *)(job->x + g * job->group_codes + t * job->input_stride),
                      start = _mm512_loadu_si512((const char *)(job->corrections + 16 * g) +
                                                 t * job->input_stride);
#pragma GCC unroll 2
        for (size_t r = 0; r < rows; r++) {
          __m512i total = start;
#pragma GCC unroll 4
          for (int j = 0; j < 4; j++) total = _mm512_dpbusd_epi32(total, whole[r][j], q[j]);
          sums[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total),
                                       _mm512_set1_ps(base[t][g % STRIP] * scales[r][g % STRIP]), sums[r][t]);
        }
      }
      continue;
    }
    __m512i weights[FEW_ROWS][4 * CHUNKS];
    const size_t sets = (width + GPTVQ_TRELLIS_CHUNK - 1) / GPTVQ_TRELLIS_CHUNK * 4;
    for (size_t r = 0; r < rows; r++)
      for (size_t s = 0; s < sets; s += 4) {
        const size_t c = s * 64, columns = width - c < GPTVQ_TRELLIS_CHUNK ? width - c : GPTVQ_TRELLIS_CHUNK;
        chunk_values(job->streams + (row + r) * job->row_bytes + (g * job->width + c) * k / 8,
                     (columns * k + 7) / 8, g + c > 0, 0, k, state_bits, w, &table, weights[r] + s);
      }
    for (size_t t = 0; t < job->tokens; t++) {
      const int8_t *x = job->x + g * job->group_codes + t * job->input_stride;
      const __m512i start =
          _mm512_loadu_si512((const char *)(job->corrections + 16 * g) + t * job->input_stride);
      __m512i total[FEW_ROWS];
      for (size_t r = 0; r < rows; r++) total[r] = start;
      for (size_t s = 0; s < sets; s++) {
        const __m512i q = _mm512_load_si512(x + 64 * s);
#pragma GCC unroll 2
        for (size_t r = 0; r < rows; r++) total[r] = _mm512_dpbusd_epi32(total[r], weights[r][s], q);
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
  enum { state_bits = 8 };
  windows w;
  make_windows(k, state_bits, &w);
  size_t row = 0;
  if (job->tokens == 1) {
    for (; row + ROWS <= job->rows; row += ROWS) one_token(job, row, k, state_bits, &w, ROWS);
    for (; row < job->rows; row++) one_token(job, row, k, state_bits, &w, 1);
  } else {
    for (; row + FEW_ROWS <= job->rows; row += FEW_ROWS) few_tokens(job, row, k, state_bits, &w, FEW_ROWS);
    for (; row < job->rows; row++) few_tokens(job, row, k, state_bits, &w, 1);
  }
}

/* 64 columns at a time: their bytes and the one before, spread to 8 columns a qword. */
GPTVQ_INLINE void row_codes(const uint8_t *stream, unsigned k, size_t begin, size_t count,
                            const int8_t *values, int8_t *codes) {
  enum { state_bits = 8 };
  const __m512i p = gptvq_iota512(), b = _mm512_and_si512(p, _mm512_set1_epi8(7)),
                qword = _mm512_and_si512(_mm512_srli_epi16(p, 3), _mm512_set1_epi8(7));
  __m512i bytes = b, bits = _mm512_set1_epi8((char)(8 + k - state_bits));
  for (unsigned i = 0; i < k; i++) {
    bytes = _mm512_add_epi8(bytes, qword);
    bits = _mm512_add_epi8(bits, b);
  }
  gptvq_table512 table;
  gptvq_load_table512(gptvq_all_values(values, k, (int8_t[256]){0}), state_bits, 1, 0, &table);
  for (size_t c = 0; c < count; c += 64) {
    const size_t columns = count - c < 64 ? count - c : 64;
    __m512i x = load_part(stream + (begin + c) * k / 8, -1, (columns * k + 7) / 8, begin + c > 0 ? -1 : 0);
    x = _mm512_multishift_epi64_epi8(bits, _mm512_permutexvar_epi8(bytes, x));
    _mm512_mask_storeu_epi8(codes + c, columns == 64 ? ~(__mmask64)0 : ((__mmask64)1 << columns) - 1,
                            gptvq_look_up512(&table, state_bits, 0, x));
  }
}

GPTVQ_TRELLIS_ROWS()
GPTVQ_TRELLIS_CODES()

void gptvq_kernels_init_trellis_avx512(gptvq_kernel_table *table) {
  table->trellis_rows = trellis_rows;
  table->trellis_codes = trellis_codes;
}
