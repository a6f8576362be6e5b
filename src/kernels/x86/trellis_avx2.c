/* Trellis rows with AVX2. With 2 and 4 bits per weight a byte of the stream ends the windows of four or two
 * columns, so that a few shifts of the bytes and of those before them make 32 of them; a lane's activations
 * are brought into that order first. With 3 bits a dword has the windows of four columns. Values by vpshufb,
 * as those of codebooks. */
#include "kernels/trellis_chunk.h"
#include "kernels/trellis_shapes.h"
#include "base/half.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/lookup_avx2.h"
#include "kernels/x86/x86.h"

#include <string.h>

/* VECTORS of 32 weights make a chunk, and come in pairs. */
enum { ROWS = 32, CHUNK = GPTVQ_TRELLIS_CHUNK, VECTORS = 8, AHEAD = 512 };

/* ---- windows ---- */

/* Windows that end n bits before the ends of bytes x are below; −n: after those of the bytes before them, p.
 */
GPTVQ_INLINE __m256i byte_windows(__m256i x, __m256i p, unsigned state_bits, int n) {
  const int mask = (1 << state_bits) - 1, low = n > 0 ? (1 << n) - 1 : 0;
  if (n > 0)
    return _mm256_or_si256(_mm256_and_si256(_mm256_slli_epi16(x, n), _mm256_set1_epi8((char)(mask & ~low))),
                           _mm256_and_si256(_mm256_srli_epi16(p, 8 - n), _mm256_set1_epi8((char)low)));
  if (n < 0) x = _mm256_srli_epi16(x, -n);
  return state_bits == 8 ? x : _mm256_and_si256(x, _mm256_set1_epi8((char)mask));
}

/* Three bits per weight: the bytes that the windows of a dword lie in, from one before the 12 bytes of two
 * lanes on, and how far up they begin. */
typedef struct triples {
  __m256i bytes[2], up[2];
} triples;

GPTVQ_INLINE void make_triples(unsigned state_bits, triples *t) {
  for (int part = 0; part < 2; part++) {
    _Alignas(32) uint8_t bytes[32];
    _Alignas(32) uint32_t up[8];
    for (int d = 0; d < 8; d++) {
      const int start = 8 + 48 * (d / 2 % 2) + 12 * (2 * part + d % 2) + 3 - (int)state_bits;
      for (int b = 0; b < 4; b++) bytes[4 * d + b] = (uint8_t)(start / 8 + b);
      up[d] = (uint32_t)(start % 8);
    }
    t->bytes[part] = _mm256_load_si256((const void *)bytes);
    t->up[part] = _mm256_load_si256((const void *)up);
  }
}

GPTVQ_INLINE __m256i dword_windows(__m256i x, const triples *t, unsigned state_bits, int part) {
  const int mask = (1 << state_bits) - 1;
  x = _mm256_srlv_epi32(_mm256_shuffle_epi8(x, t->bytes[part]), t->up[part]);
  __m256i low = _mm256_or_si256(_mm256_and_si256(x, _mm256_set1_epi32(mask)),
                                _mm256_and_si256(_mm256_slli_epi32(x, 5), _mm256_set1_epi32(mask << 8)));
  __m256i high = _mm256_or_si256(
      _mm256_and_si256(_mm256_slli_epi32(x, 10), _mm256_set1_epi32(mask << 16)),
      _mm256_and_si256(_mm256_slli_epi32(x, 15), _mm256_set1_epi32((int)((unsigned)mask << 24))));
  return _mm256_or_si256(low, high);
}

/* Windows of pair `pair` of a chunk's vectors; the byte before the chunk is there, with 3 bits three behind
 * it too. */
GPTVQ_INLINE void pair_windows(const uint8_t *chunk, unsigned k, unsigned state_bits, const triples *t,
                               size_t pair, __m256i index[2]) {
  const size_t v = k == 2 ? pair / 2 : pair;
  const int first = k == 2 ? (int)(pair % 2 * 2) : 0;
  if (k == 3) {
    const __m128i low = _mm_loadu_si128((const void *)(chunk + 24 * v - 1)),
                  high = _mm_loadu_si128((const void *)(chunk + 24 * v + 11));
    const __m256i x = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    for (int i = 0; i < 2; i++) index[i] = dword_windows(x, t, state_bits, i);
    return;
  }
  const __m256i x = _mm256_loadu_si256((const void *)(chunk + 32 * v)),
                p = _mm256_loadu_si256((const void *)(chunk + 32 * v - 1));
  for (int i = 0; i < 2; i++)
    index[i] = byte_windows(x, p, state_bits, (int)state_bits - (int)k - (int)k * (first + i));
}

/* ---- order ---- */

/* Activations of a chunk from prepared order to that of the vectors. */
GPTVQ_INLINE void order_inputs(const int8_t *x, unsigned k, int8_t *out) {
  const __m256i bytes = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1,
                                         5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                odd = _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8,
                                       10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  __m256i *to = (void *)out;
#pragma GCC unroll 2
  for (size_t half = 0; half < 2; half++) {
    __m256i a[4], b[4];
    for (size_t j = 0; j < 4; j++) {
      a[j] = _mm256_load_si256((const void *)(x + 64 * j + 32 * half));
      if (k == 2) a[j] = _mm256_shuffle_epi8(a[j], bytes); /* the lanes' first bytes side by side, … */
    }
    for (size_t j = 0; j < 2; j++) {
      b[j] = j == 0 ? _mm256_unpacklo_epi32(a[0], a[1]) : _mm256_unpackhi_epi32(a[0], a[1]);
      b[j + 2] = j == 0 ? _mm256_unpacklo_epi32(a[2], a[3]) : _mm256_unpackhi_epi32(a[2], a[3]);
    }
    a[0] = _mm256_unpacklo_epi64(b[0], b[2]), a[1] = _mm256_unpackhi_epi64(b[0], b[2]);
    a[2] = _mm256_unpacklo_epi64(b[1], b[3]), a[3] = _mm256_unpackhi_epi64(b[1], b[3]);
    if (k == 2) {
      for (size_t i = 0; i < 4; i++) to[4 * half + i] = _mm256_shuffle_epi8(a[i], bytes);
      continue;
    }
    for (size_t i = 0; k == 4 && i < 4; i++) a[i] = _mm256_shuffle_epi8(a[i], odd); /* of a lane */
    for (size_t i = 0; i < 2; i++) {
      const __m256i u = i == 0 ? _mm256_unpacklo_epi64(a[0], a[1]) : _mm256_unpackhi_epi64(a[0], a[1]),
                    w = i == 0 ? _mm256_unpacklo_epi64(a[2], a[3]) : _mm256_unpackhi_epi64(a[2], a[3]);
      to[4 * half + i] = _mm256_permute2x128_si256(u, w, 0x20);
      to[4 * half + 2 + i] = _mm256_permute2x128_si256(u, w, 0x31);
    }
  }
}

/* Values in the order of the vectors to column order. */
GPTVQ_INLINE void order_codes(const __m256i found[VECTORS], unsigned k, int8_t *codes) {
  __m128i *to = (void *)codes;
  if (k == 2) {
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; half++) {
      const __m256i *f = found + 4 * half;
      const __m256i t[2] = {_mm256_unpacklo_epi8(f[0], f[1]), _mm256_unpackhi_epi8(f[0], f[1])},
                    u[2] = {_mm256_unpacklo_epi8(f[2], f[3]), _mm256_unpackhi_epi8(f[2], f[3])};
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; i++) {
        const __m256i r = i % 2 == 0 ? _mm256_unpacklo_epi16(t[i / 2], u[i / 2])
                                     : _mm256_unpackhi_epi16(t[i / 2], u[i / 2]);
        _mm_storeu_si128(to + 8 * half + i, _mm256_castsi256_si128(r));
        _mm_storeu_si128(to + 8 * half + 4 + i, _mm256_extracti128_si256(r, 1));
      }
    }
    return;
  }
#pragma GCC unroll 4
  for (size_t v = 0; v < 4; v++) {
    const __m256i a = found[2 * v], b = found[2 * v + 1],
                  low = k == 3 ? _mm256_unpacklo_epi64(a, b) : _mm256_unpacklo_epi8(a, b),
                  high = k == 3 ? _mm256_unpackhi_epi64(a, b) : _mm256_unpackhi_epi8(a, b);
    _mm_storeu_si128(to + 4 * v, _mm256_castsi256_si128(low));
    _mm_storeu_si128(to + 4 * v + 1, _mm256_castsi256_si128(high));
    _mm_storeu_si128(to + 4 * v + 2, _mm256_extracti128_si256(low, 1));
    _mm_storeu_si128(to + 4 * v + 3, _mm256_extracti128_si256(high, 1));
  }
}

/* ---- products ---- */

GPTVQ_INLINE __m256i dot4(__m256i sum, __m256i w, __m256i q) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* Totals of vectors to those of lanes: of the two vectors of half the lanes each, or of four with two totals
 * a lane, onto a row's sums. */
GPTVQ_INLINE void add_totals(const __m256i totals[4], unsigned k, float scale, float *sums) {
#pragma GCC unroll 2
  for (size_t half = 0; half < 2; half++) {
    __m256i total = totals[half];
    if (k != 2)
      total = _mm256_permute4x64_epi64(_mm256_hadd_epi32(totals[2 * half], totals[2 * half + 1]), 0xd8);
    _mm256_store_ps(sums + 8 * half, _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), _mm256_set1_ps(scale),
                                                     _mm256_load_ps(sums + 8 * half)));
  }
}

/* Values of four vectors of windows, as gptvq_look_up256 finds them: each part of the table is loaded once
 * for them. */
GPTVQ_INLINE void look_up(const gptvq_table256 *table, unsigned state_bits, __m256i index[4],
                          __m256i found[4]) {
  const __m256i *part = table->part[0], below = _mm256_set1_epi8(-16);
  __m256i at[4], high[4];
  for (size_t i = 0; i < 4; i++)
    at[i] = state_bits == 8 ? _mm256_and_si256(index[i], _mm256_set1_epi8(127)) : index[i];
  for (size_t i = 0; i < 4; i++) {
    found[i] = _mm256_shuffle_epi8(part[0], at[i]);
    if (state_bits == 8) high[i] = _mm256_shuffle_epi8(part[8], at[i]);
  }
#pragma GCC unroll 8
  for (size_t t = 1; t < 8; t++) {
    if (state_bits == 6 && t == 4) break;
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
      at[i] = _mm256_add_epi8(at[i], below);
      found[i] = _mm256_xor_si256(found[i], _mm256_shuffle_epi8(part[t], at[i]));
      GPTVQ_KEEP(found[i]);
      if (state_bits == 8) {
        high[i] = _mm256_xor_si256(high[i], _mm256_shuffle_epi8(part[8 + t], at[i]));
        GPTVQ_KEEP(high[i]);
      }
    }
  }
  for (size_t i = 0; state_bits == 8 && i < 4; i++)
    found[i] = _mm256_blendv_epi8(found[i], high[i], index[i]);
}

/* Chunk `chunk` times the activations x onto the totals, or, codes not NULL, its values there. */
GPTVQ_INLINE void take_chunk(const uint8_t *chunk, unsigned k, unsigned state_bits, const triples *t,
                             const gptvq_table256 *table, const int8_t *x, __m256i *totals, __m256i *codes) {
#pragma GCC unroll 2
  for (size_t four = 0; four < 2; four++) {
    __m256i index[4], found[4];
    pair_windows(chunk, k, state_bits, t, 2 * four, index);
    pair_windows(chunk, k, state_bits, t, 2 * four + 1, index + 2);
    look_up(table, state_bits, index, found);
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
      const size_t v = 4 * four + i;
      if (codes != NULL) codes[v] = found[i];
      else {
        __m256i *total = &totals[k == 2 ? v / 4 : v / 2];
        *total = dot4(*total, found[i], _mm256_load_si256((const void *)(x + 32 * v)));
        GPTVQ_KEEP(*total);
      }
    }
  }
}

/* At most ROWS rows: tables are loaded and activations reordered once a group. */
GPTVQ_INLINE void some_rows(const gptvq_trellis_rows *job, size_t first, size_t rows, unsigned k,
                            unsigned state_bits) {
  _Alignas(64) float sums[ROWS * GPTVQ_I8_MAX_TOKENS][GPTVQ_I8_LANES];
  _Alignas(64) int8_t x[GPTVQ_I8_MAX_TOKENS][GPTVQ_I8_MAX_WIDTH];
  _Alignas(64) __m256i codes[GPTVQ_I8_MAX_WIDTH / 32];
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
    gptvq_table256 table;
    gptvq_load_table256(gptvq_all_values(job->tables + g * GPTVQ_TRELLIS_TABLE, k, (int8_t[256]){0}), state_bits,
                        1, &table);
    for (size_t i = 0; i < tokens; i++) {
      const size_t step = i * job->input_stride;
      scales[i] = scale * *(const float *)(const void *)((const char *)(job->x_scales + g) + step);
      for (size_t c = 0; c < chunks; c++)
        order_inputs(job->x + g * job->group_codes + step + c * CHUNK, k, x[i] + c * CHUNK);
    }
    for (size_t r = 0; r < rows; r++) {
      const size_t row = first + r;
      const float row_scale = gptvq_row_scale(job->row_scales[row * job->groups + g]);
      const uint8_t *stream = job->streams + row * job->row_bytes;
      if (tokens == 1) {
        __m256i totals[4];
        for (size_t i = 0; i < 4; i++) totals[i] = _mm256_setzero_si256();
        for (size_t c = 0; c < chunks; c++) {
          const uint8_t *chunk = gptvq_find_chunk(stream, k, at + c * CHUNK, cols - at - c * CHUNK, &room);
          _mm_prefetch((const char *)chunk + AHEAD, _MM_HINT_T0);
          take_chunk(chunk, k, state_bits, &t, &table, x[0] + c * CHUNK, totals, NULL);
        }
        add_totals(totals, k, scales[0] * row_scale, sums[r]);
        continue;
      }
      for (size_t c = 0; c < chunks; c++)
        take_chunk(gptvq_find_chunk(stream, k, at + c * CHUNK, cols - at - c * CHUNK, &room), k, state_bits,
                   &t, &table, NULL, NULL, codes + c * VECTORS);
      for (size_t i = 0; i < tokens; i++) {
        __m256i totals[4];
        for (size_t j = 0; j < 4; j++) totals[j] = _mm256_setzero_si256();
        for (size_t c = 0; c < chunks; c++)
#pragma GCC unroll 8
          for (size_t v = 0; v < VECTORS; v++) {
            __m256i *total = &totals[k == 2 ? v / 4 : v / 2];
            *total = dot4(*total, codes[c * VECTORS + v],
                          _mm256_load_si256((const void *)(x[i] + c * CHUNK + 32 * v)));
          }
        add_totals(totals, k, scales[i] * row_scale, sums[r * tokens + i]);
      }
    }
  }
  for (size_t r = 0; r < rows; r++) {
    float y[GPTVQ_I8_MAX_TOKENS];
    gptvq_kernels(GPTVQ_CPU_AVX2)->i8_fold(sums[r * tokens], tokens, y);
    for (size_t i = 0; i < tokens; i++) job->y[i * job->ldy + first + r] = y[i];
  }
}

/* Values of a row in column order. */
GPTVQ_INLINE void row_codes(const uint8_t *stream, unsigned k, size_t begin, size_t count,
                            const int8_t *values, int8_t *codes) {
  enum { state_bits = 8 };
  gptvq_table256 table;
  triples t;
  gptvq_padded_chunk room;
  gptvq_load_table256(gptvq_all_values(values, k, (int8_t[256]){0}), state_bits, 1, &table);
  if (k == 3) make_triples(state_bits, &t);
  for (size_t c = 0; c < count; c += CHUNK) {
    const size_t columns = count - c < CHUNK ? count - c : CHUNK;
    __m256i found[VECTORS];
    int8_t part[CHUNK];
    take_chunk(gptvq_find_chunk(stream, k, begin + c, count - c, &room), k, state_bits, &t, &table, NULL,
               NULL, found);
    order_codes(found, k, columns == CHUNK ? codes + c : part);
    if (columns < CHUNK) memcpy(codes + c, part, columns);
  }
}

GPTVQ_INLINE void all_rows(const gptvq_trellis_rows *job, unsigned k) {
  enum { state_bits = 8 };
  for (size_t row = 0; row < job->rows; row += ROWS)
    some_rows(job, row, job->rows - row < ROWS ? job->rows - row : ROWS, k, state_bits);
}

GPTVQ_TRELLIS_ROWS()
GPTVQ_TRELLIS_CODES()

void gptvq_kernels_init_trellis_avx2(gptvq_kernel_table *table) {
  table->trellis_rows = trellis_rows;
  table->trellis_codes = trellis_codes;
}
