/* Packed rows × int8 activations with AVX-512 VBMI and VNNI.
 * vpdpbusd multiplies unsigned by signed bytes: the tables hold code + 128, and the sums start at −128 · Σ q
 * instead of 0. */
#include "kernels/multi/row_values.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/fold_avx512.h"
#include "kernels/x86/lookup_avx512.h"
#include "kernels/x86/x86.h"

#include <string.h>

/* Block scales: lane L of set s has the block (64 s + 4 L) / (vectors per block); its 4-bit code lies in one
 * 64-bit word. */
typedef struct block_scales {
  __m512 table;
  __m512i shift[4]; /* [set] */
} block_scales;

GPTVQ_INLINE void load_block_scales(const gptvq_i8_tile *job, size_t sets, block_scales *blocks) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m128i log_block = _mm_cvtsi32_si128(__builtin_ctzll(job->block_vectors));
  blocks->table = _mm512_loadu_ps(job->block_table);
  for (size_t s = 0; s < sets; s++) {
    __m512i first = _mm512_add_epi32(_mm512_slli_epi32(lane, 2), _mm512_set1_epi32((int)(64 * s)));
    blocks->shift[s] = _mm512_slli_epi32(_mm512_srl_epi32(first, log_block), 2);
  }
}

GPTVQ_INLINE uint64_t load_block_codes(const uint8_t *codes, size_t bytes) {
  uint64_t word = 0;
  if (bytes == 1) return codes[0];
  if (bytes == 2) memcpy(&word, codes, 2);
  else if (bytes == 4) memcpy(&word, codes, 4);
  else memcpy(&word, codes, 8);
  return word;
}

/* The scales of a set's lanes. The word's half that holds them is chosen first; a set has at most 8 blocks.
 */
GPTVQ_INLINE __m512 lane_scales(const block_scales *blocks, uint64_t codes, size_t vectors, size_t s) {
  unsigned base = (unsigned)(64 * s / vectors * 4) & 32u;
  __m512i shift = _mm512_sub_epi32(blocks->shift[s], _mm512_set1_epi32((int)base));
  __m512i code = _mm512_srlv_epi32(_mm512_set1_epi32((int)(uint32_t)(codes >> base)), shift);
  return _mm512_permutexvar_ps(code, blocks->table); /* looks at 4 bits */
}

/* 128 · Σ_e q of the lanes of set s: what the bias of the weights adds */
GPTVQ_INLINE __m512i bias_of_set(const __m512i *x, size_t sets, unsigned dim, size_t s) {
  __m512i sum = _mm512_setzero_si512();
  for (unsigned e = 0; e < dim; e++)
    sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8((char)0x80), x[e * sets + s]);
  return sum;
}

/* The usual units: 256 columns, so n = 256 / dim indices and always 4 registers of activations per token. */
typedef struct unit_kernel {
  gptvq_table512 table;
  gptvq_spread512 spread;
  block_scales blocks;
} unit_kernel;

/* weights + 128 of one unit, as activations are ordered: component e of set s at e·sets + s */
GPTVQ_INLINE void look_up_unit(const unit_kernel *k, const uint8_t *unit, unsigned bits, unsigned dim,
                               __m512i *weights) {
  const size_t n = 256 / dim, sets = n / 64;
  for (size_t s = 0; s < sets; s++) {
    __m512i index = gptvq_indices512(unit, bits, n, s, &k->spread);
    for (unsigned e = 0; e < dim; e++) weights[e * sets + s] = gptvq_look_up512(&k->table, bits, e, index);
  }
}

/* scales of the lanes of all sets of one row */
GPTVQ_INLINE void look_up_scales(const unit_kernel *k, const gptvq_i8_tile *job, const uint8_t *codes,
                                 size_t sets, __m512 *by_lane) {
  const size_t bytes = job->tile->block_bytes;
  if (bytes == 2 || bytes == 4) { /* broadcast straight from memory: 256 columns in blocks of 64 or 32 */
    uint16_t half;
    uint32_t word;
    memcpy(&half, codes, sizeof half);
    __m512i all = _mm512_set1_epi16((short)half);
    if (bytes == 4) memcpy(&word, codes, sizeof word), all = _mm512_set1_epi32((int)word);
    for (size_t s = 0; s < sets; s++)
      by_lane[s] = _mm512_permutexvar_ps(_mm512_srlv_epi32(all, k->blocks.shift[s]), k->blocks.table);
    return;
  }
  uint64_t word = load_block_codes(codes, bytes);
  for (size_t s = 0; s < sets; s++) by_lane[s] = lane_scales(&k->blocks, word, job->block_vectors, s);
}

/* with block scales each set has its own scales, so its own correction, bias[s] */
GPTVQ_INLINE void add_product(const __m512i *weights, const __m512 *by_lane, const __m512i *x,
                              const __m512i *bias, __m512i correction, __m512 scale, unsigned dim, int scaled,
                              float *sums) {
  const size_t sets = 4 / dim;
  __m512 value = _mm512_setzero_ps();
  if (!scaled) {
    for (size_t i = 0; i < 4; i++) correction = _mm512_dpbusd_epi32(correction, weights[i], x[i]);
    value = _mm512_cvtepi32_ps(correction);
  } else {
    for (size_t s = 0; s < sets; s++) {
      __m512i total = _mm512_setzero_si512();
      for (unsigned e = 0; e < dim; e++)
        total = _mm512_dpbusd_epi32(total, weights[e * sets + s], x[e * sets + s]);
      value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(total, bias[s])), by_lane[s], value);
    }
  }
  _mm512_store_ps(sums, _mm512_fmadd_ps(value, scale, _mm512_load_ps(sums)));
}

GPTVQ_INLINE void load_input(const gptvq_i8_tile *job, size_t t, unsigned dim, int scaled, __m512i *x,
                             __m512i *bias, __m512i *correction, __m512 *scale) {
  for (int i = 0; i < 4; i++) x[i] = _mm512_load_si512(job->x + t * job->input_stride + 64 * i);
  *correction = _mm512_loadu_si512((const char *)job->correction + t * job->input_stride);
  *scale = _mm512_set1_ps(job->scales[t]);
  for (size_t s = 0; scaled && s < 4 / dim; s++) bias[s] = bias_of_set(x, 4 / dim, dim, s);
}

/* One token: its activations stay in registers. Several: two rows at a time share each load of activations.
 */
GPTVQ_INLINE void full_tile(const gptvq_i8_tile *job, unsigned bits, unsigned dim, int scaled, int single) {
  const gptvq_tile *tile = job->tile;
  const size_t sets = 4 / dim, unit_bytes = 32 / dim * bits, tokens = job->tokens;
  unit_kernel k;
  const int8_t *next = (const int8_t *)tile->codebook + ((size_t)dim << bits); /* the next tile's */
  for (size_t i = 0; i < (size_t)dim << bits; i += 64) _mm_prefetch((const char *)next + i, _MM_HINT_T0);
  gptvq_load_table512(tile->codebook, bits, dim, 0x80, &k.table);
  gptvq_prepare_spread512(bits, 64 * sets, &k.spread);
  if (scaled) load_block_scales(job, sets, &k.blocks);
  const uint8_t *unit = tile->units, *codes = tile->block_codes;
  float *sums = job->sums;
  __m512i x[4], bias[4], correction, weights[2][4];
  __m512 scale, by_lane[2][4];
  if (single) load_input(job, 0, dim, scaled, x, bias, &correction, &scale);
  for (size_t row = 0, rows; row < tile->rows; row += rows) {
    rows = single || row + 1 == tile->rows ? 1 : 2;
    for (size_t r = 0; r < rows; r++, unit += unit_bytes) {
      gptvq_fetch_ahead(unit);
      if (unit_bytes > 64) gptvq_fetch_ahead(unit + 64);
      look_up_unit(&k, unit, bits, dim, weights[r]);
      if (scaled) look_up_scales(&k, job, codes, sets, by_lane[r]), codes += tile->block_bytes;
    }
    if (single) {
      add_product(weights[0], by_lane[0], x, bias, correction, scale, dim, scaled, sums);
    } else if (rows == 1) {
      for (size_t t = 0; t < tokens; t++) {
        load_input(job, t, dim, scaled, x, bias, &correction, &scale);
        add_product(weights[0], by_lane[0], x, bias, correction, scale, dim, scaled, sums + 16 * t);
      }
    } else {
      for (size_t t = 0; t < tokens; t++) {
        load_input(job, t, dim, scaled, x, bias, &correction, &scale);
        add_product(weights[0], by_lane[0], x, bias, correction, scale, dim, scaled, sums + 16 * t);
        add_product(weights[1], by_lane[1], x, bias, correction, scale, dim, scaled,
                    sums + 16 * (tokens + t));
      }
    }
    sums += 16 * rows * tokens;
  }
}

/* Any other unit: look-ups one by one, then the same sums. */
static void any_tile(const gptvq_i8_tile *job) {
  const gptvq_tile *tile = job->tile;
  const size_t sets = job->sets;
  _Alignas(64) int8_t codes[GPTVQ_I8_MAX_WIDTH + 4 * GPTVQ_I8_SET];
  _Alignas(64) float by_lane[GPTVQ_I8_MAX_WIDTH / GPTVQ_I8_SET * 16];
  float *sums = job->sums;
  for (size_t row = 0; row < tile->rows; row++) {
    gptvq_planar_codes_avx512(tile, row, sets * GPTVQ_I8_SET, codes);
    if (job->block_vectors != 0) gptvq_i8_lane_scales(job, row, by_lane);
    for (size_t t = 0; t < job->tokens; t++, sums += 16) {
      const int8_t *x = job->x + t * job->input_stride;
      __m512i all = _mm512_setzero_si512();
      __m512 value = _mm512_setzero_ps();
      for (size_t s = 0; s < sets; s++) {
        __m512i total = _mm512_setzero_si512();
        for (size_t e = 0; e < tile->dim; e++) { /* |w| · (sign(w) x): the sign moves to the signed operand */
          __m512i w = _mm512_load_si512(codes + (e * sets + s) * 64),
                  q = _mm512_load_si512(x + (e * sets + s) * 64);
          __m512i signed_q = _mm512_mask_sub_epi8(q, _mm512_movepi8_mask(w), _mm512_setzero_si512(), q);
          total = _mm512_dpbusd_epi32(total, _mm512_abs_epi8(w), signed_q);
        }
        if (job->block_vectors != 0)
          value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), _mm512_load_ps(by_lane + 16 * s), value);
        else all = _mm512_add_epi32(all, total);
      }
      if (job->block_vectors == 0) value = _mm512_cvtepi32_ps(all);
      _mm512_store_ps(sums, _mm512_fmadd_ps(value, _mm512_set1_ps(job->scales[t]), _mm512_load_ps(sums)));
    }
  }
}

#define TILE(bits, dim) \
  static void tile_##bits##_##dim(const gptvq_i8_tile *job) { \
    if (job->block_vectors != 0 && job->tokens > 1) full_tile(job, bits, dim, 1, 0); \
    else if (job->block_vectors != 0) full_tile(job, bits, dim, 1, 1); \
    else if (job->tokens > 1) full_tile(job, bits, dim, 0, 0); \
    else full_tile(job, bits, dim, 0, 1); \
  }
#define TILES(bits) \
  TILE(bits, 1) \
  TILE(bits, 2) \
  TILE(bits, 4)
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
TILES(7)
TILES(8)

typedef void (*tile_fn)(const gptvq_i8_tile *tile);
#define ROW(bits) \
  { tile_##bits##_1, tile_##bits##_2, tile_##bits##_4 }
static const tile_fn full_tiles[8][3] = {ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7), ROW(8)};

static void i8_tile(const gptvq_i8_tile *job) {
  const gptvq_tile *tile = job->tile;
  /* block scales by shifts: 8, 16, 32 … vectors per block, so at most 8 blocks per set; at most 16 per unit
   */
  bool shifts = job->block_vectors == 0 || (job->block_vectors >= 8 && tile->block_bytes <= 8 &&
                                            (job->block_vectors & (job->block_vectors - 1)) == 0);
  if (tile->index_bits <= 8 && tile->width == 256 && shifts)
    full_tiles[tile->index_bits - 1][tile->dim / 2](job);
  else any_tile(job);
}

static void i8_fold(const float *sums, size_t n, float *out) {
  size_t i = 0;
  __m512 row[8];
  for (; i + 8 <= n; i += 8) {
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; j++) row[j] = _mm512_load_ps(sums + (i + j) * 16);
    _mm256_storeu_ps(out + i, gptvq_fold8x16(row));
  }
  if (i == n) return;
#pragma GCC unroll 8
  for (size_t j = 0; j < 8; j++)
    row[j] = i + j < n ? _mm512_load_ps(sums + (i + j) * 16) : _mm512_setzero_ps();
  _mm256_mask_storeu_ps(out + i, (__mmask8)((1u << (n - i)) - 1u), gptvq_fold8x16(row));
}

void gptvq_kernels_init_i8_avx512(gptvq_kernel_table *table) {
  table->i8_tile = i8_tile;
  table->i8_fold = i8_fold;
}
