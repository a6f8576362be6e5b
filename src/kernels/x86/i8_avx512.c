/* Packed rows × int8 activations with AVX-512 VBMI and VNNI.
 * vpdpbusd multiplies unsigned by signed bytes: the tables hold code + 128, and the sums start at −128 · Σ q
 * instead of 0. */
#include "kernels/multi/row_values.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/fold_avx512.h"
#include "kernels/x86/plan_avx512.h"
#include "kernels/shapes.h"
#include "kernels/x86/x86.h"

#include <string.h>

enum { SETS = GPTVQ_PLAN_SETS, ROWS = 4 /* at once, of several tokens */ };

/* Block scales: lane L of set s has the block (64 s + 4 L) / (vectors per block), whose 4-bit code lies
 * `shift` bits up: of the unit's word of codes, where they are 2 or 4 bytes, else of byte `byte`. */
typedef struct block_scales {
  __m512 table;
  __m512i byte[SETS], shift[SETS];
} block_scales;

static void load_block_scales(const gptvq_i8_tile *job, block_scales *blocks) {
  const __m512 lane = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
               per_lane = _mm512_set1_ps(4.0f / (float)job->block_vectors);
  const size_t bytes = job->tile->block_bytes;
  const __m512i most = _mm512_set1_epi32(bytes == 2 || bytes == 4 ? 7 : 1);
  blocks->table = _mm512_loadu_ps(job->block_table);
  for (size_t s = 0; s < job->sets; s++) {
    const __m512 middle = _mm512_add_ps(lane, _mm512_set1_ps((float)(16 * s) + 0.5f)); /* far from any edge */
    const __m512i block = _mm512_cvttps_epi32(_mm512_mul_ps(middle, per_lane));
    blocks->byte[s] = _mm512_srli_epi32(block, 1);
    blocks->shift[s] = _mm512_slli_epi32(_mm512_and_si512(block, most), 2);
  }
}

/* 128 · Σ_e q of the lanes of set s: what the bias of the weights adds */
GPTVQ_INLINE __m512i bias_of_set(const __m512i *x, size_t sets, unsigned dim, size_t s) {
  __m512i sum = _mm512_setzero_si512();
  for (unsigned e = 0; e < dim; e++)
    sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8((char)0x80), x[e * sets + s]);
  return sum;
}

typedef struct unit_kernel {
  gptvq_table512 table;
  gptvq_spread512 spread;
  block_scales blocks;
  const gptvq_plan512 *plan; /* NULL: 256 columns, so n = 256 / dim and always 4 registers of activations */
} unit_kernel;

/* weights + 128 of one unit, as activations are ordered: component e of set s at e·sets + s */
GPTVQ_INLINE void look_up_unit(const unit_kernel *k, const uint8_t *unit, unsigned bits, unsigned dim,
                               size_t sets, __m512i *weights) {
  gptvq_unit512 loaded;
  if (k->plan != NULL) gptvq_load_unit512(k->plan, bits, unit, &loaded);
  for (size_t s = 0; s < sets; s++) {
    const __m512i index = k->plan != NULL ? gptvq_planned_indices512(k->plan, &loaded, bits, s)
                                          : gptvq_indices512(unit, bits, 256 / dim, s, &k->spread);
    for (unsigned e = 0; e < dim; e++) weights[e * sets + s] = gptvq_look_up512(&k->table, bits, e, index);
  }
}

/* scales of the lanes of all sets of one row; vpermps looks at 4 bits */
GPTVQ_INLINE void look_up_scales(const block_scales *blocks, const uint8_t *codes, size_t bytes, size_t sets,
                                 __m512 *by_lane) {
  uint16_t half;
  uint32_t word;
  __m512i all = _mm512_setzero_si512();
  if (bytes == 2) all = _mm512_set1_epi16((short)*(uint16_t *)memcpy(&half, codes, sizeof half));
  else if (bytes == 4) all = _mm512_set1_epi32((int)*(uint32_t *)memcpy(&word, codes, sizeof word));
  else all = _mm512_maskz_loadu_epi8(gptvq_lanes512(bytes), codes);
  for (size_t s = 0; s < sets; s++) {
    const __m512i own = bytes == 2 || bytes == 4 ? all : _mm512_permutexvar_epi8(blocks->byte[s], all);
    by_lane[s] = _mm512_permutexvar_ps(_mm512_srlv_epi32(own, blocks->shift[s]), blocks->table);
  }
}

/* The activations of one token. With block scales each set has its own scales, so its own correction,
 * bias[s]. */
typedef struct token_input {
  const __m512i *x; /* [dim × sets] */
  __m512i copy[4], bias[SETS], correction;
  __m512 scale;
} token_input;

GPTVQ_INLINE void add_product(const __m512i *weights, const __m512 *by_lane, const token_input *in,
                              unsigned dim, size_t sets, int scaled, float *sums) {
  __m512 value = _mm512_setzero_ps();
  __m512i total = in->correction;
  for (size_t s = 0; s < sets; s++) {
    if (scaled) total = _mm512_setzero_si512();
    for (unsigned e = 0; e < dim; e++)
      total = _mm512_dpbusd_epi32(total, weights[e * sets + s], in->x[e * sets + s]);
    if (scaled)
      value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(total, in->bias[s])), by_lane[s], value);
  }
  if (!scaled) value = _mm512_cvtepi32_ps(total);
  _mm512_store_ps(sums, _mm512_fmadd_ps(value, in->scale, _mm512_load_ps(sums)));
}

/* `copied`: into registers */
GPTVQ_INLINE void load_input(const gptvq_i8_tile *job, size_t t, unsigned dim, size_t sets, int scaled,
                             int copied, token_input *in) {
  in->x = (const void *)(job->x + t * job->input_stride);
  if (copied) {
    for (int i = 0; i < 4; i++) in->copy[i] = _mm512_load_si512(in->x + i);
    in->x = in->copy;
  }
  in->correction = _mm512_loadu_si512((const char *)job->correction + t * job->input_stride);
  in->scale = _mm512_set1_ps(job->scales[t]);
  for (size_t s = 0; scaled && s < sets; s++) in->bias[s] = bias_of_set(in->x, sets, dim, s);
}

/* One token, no block scales: from the tables into the products. `sets`: a constant, where the plan can be
 * taken, or 0. */
GPTVQ_INLINE void planned_tile(const gptvq_i8_tile *job, unsigned bits, unsigned dim, size_t sets) {
  const gptvq_tile *tile = job->tile;
  const gptvq_plan512 *plan = job->plan;
  const uint8_t *unit = tile->units;
  gptvq_table512 table;
  gptvq_plan512 few;
  token_input in;
  gptvq_load_table512(tile->codebook, bits, dim, 0x80, &table);
  if (sets != 0) {
    gptvq_take_plan512(plan, bits, sets, &few);
    plan = &few;
  } else {
    sets = job->sets;
  }
  load_input(job, 0, dim, sets, 0, 0, &in);
  float *sums = job->sums;
  for (size_t row = tile->rows; row > 0; row--, unit += tile->unit_bytes, sums += 16) {
    gptvq_fetch_ahead(unit);
    gptvq_unit512 loaded;
    gptvq_load_unit512(plan, bits, unit, &loaded);
    __m512i total = in.correction;
    for (size_t s = 0; s < sets; s++) {
      const __m512i index = gptvq_planned_indices512(plan, &loaded, bits, s);
      for (unsigned e = 0; e < dim; e++)
        total = _mm512_dpbusd_epi32(total, gptvq_look_up512(&table, bits, e, index), in.x[e * sets + s]);
    }
    _mm512_store_ps(sums, _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), in.scale, _mm512_load_ps(sums)));
  }
}

/* How much is known of a unit: nothing (up to 256 indices), that it has 4 / dim sets, that it has 256
 * columns. Activations stay in registers where the number of sets is known. */
enum { ANY_SETS, ALL_SETS, FULL };

/* `rows` units from `unit` on, 4 registers of weights each, times all tokens: a load of activations serves
 * all of them. */
GPTVQ_INLINE const uint8_t *rows_by_tokens(const gptvq_i8_tile *job, const unit_kernel *k, unsigned bits,
                                           unsigned dim, size_t unit_bytes, size_t rows, const uint8_t *unit,
                                           float *sums) {
  __m512i weights[ROWS][4];
#pragma GCC unroll 4
  for (size_t r = 0; r < rows; r++, unit += unit_bytes) {
    gptvq_fetch_ahead(unit);
    if (unit_bytes > 64) gptvq_fetch_ahead(unit + 64);
    look_up_unit(k, unit, bits, dim, 4 / dim, weights[r]);
  }
  const char *input = (const char *)job->x, *correction = (const char *)job->correction;
  for (size_t t = 0; t < job->tokens; t++, input += job->input_stride, correction += job->input_stride) {
    const __m512i a = _mm512_load_si512(input), b = _mm512_load_si512(input + 64),
                  c = _mm512_load_si512(input + 128), d = _mm512_load_si512(input + 192),
                  start = _mm512_loadu_si512(correction);
    const __m512 scale = _mm512_set1_ps(job->scales[t]);
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
      __m512i total = _mm512_dpbusd_epi32(start, weights[r][0], a);
      total = _mm512_dpbusd_epi32(total, weights[r][1], b);
      total = _mm512_dpbusd_epi32(total, weights[r][2], c);
      total = _mm512_dpbusd_epi32(total, weights[r][3], d);
      float *to = sums + 16 * (r * job->tokens + t);
      _mm512_store_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), scale, _mm512_load_ps(to)));
    }
  }
  return unit;
}

/* Several tokens, no block scales, 4 / dim sets. */
GPTVQ_INLINE void tokens_tile(const gptvq_i8_tile *job, unsigned bits, unsigned dim, int full) {
  const gptvq_tile *tile = job->tile;
  const size_t unit_bytes = full ? 32 / dim * bits : tile->unit_bytes;
  unit_kernel k = {.plan = full ? NULL : job->plan};
  const int8_t *next = (const int8_t *)tile->codebook + ((size_t)dim << bits); /* the next tile's */
  for (size_t i = 0; i < (size_t)dim << bits; i += 64) _mm_prefetch((const char *)next + i, _MM_HINT_T0);
  gptvq_load_table512(tile->codebook, bits, dim, 0x80, &k.table);
  if (full) gptvq_prepare_spread512(bits, 256 / dim, &k.spread);
  const uint8_t *unit = tile->units;
  float *sums = job->sums;
  size_t row = 0;
  for (; row + ROWS <= tile->rows; row += ROWS, sums += 16 * ROWS * job->tokens)
    unit = rows_by_tokens(job, &k, bits, dim, unit_bytes, ROWS, unit, sums);
  for (; row < tile->rows; row++, sums += 16 * job->tokens)
    unit = rows_by_tokens(job, &k, bits, dim, unit_bytes, 1, unit, sums);
}

/* Several tokens: two rows at a time share each load of activations. */
GPTVQ_INLINE void unit_tile(const gptvq_i8_tile *job, unsigned bits, unsigned dim, int scaled, int single,
                            int known) {
  const gptvq_tile *tile = job->tile;
  const int full = known == FULL;
  const size_t sets = known != ANY_SETS ? 4 / dim : job->sets, tokens = job->tokens;
  const size_t unit_bytes = full ? 32 / dim * bits : tile->unit_bytes;
  if (sets == 0) return; /* says to the compiler that there are weights */
  unit_kernel k = {.plan = full ? NULL : job->plan};
  const int8_t *next = (const int8_t *)tile->codebook + ((size_t)dim << bits); /* the next tile's */
  for (size_t i = 0; i < (size_t)dim << bits; i += 64) _mm_prefetch((const char *)next + i, _MM_HINT_T0);
  gptvq_load_table512(tile->codebook, bits, dim, 0x80, &k.table);
  if (full) gptvq_prepare_spread512(bits, 64 * sets, &k.spread);
  if (scaled) load_block_scales(job, &k.blocks);
  const uint8_t *unit = tile->units, *codes = tile->block_codes;
  float *sums = job->sums;
  token_input in;
  __m512i weights[2][SETS * 4];
  __m512 by_lane[2][SETS];
  if (single) load_input(job, 0, dim, sets, scaled, known != ANY_SETS, &in);
  for (size_t row = 0, rows; row < tile->rows; row += rows) {
    rows = single || row + 1 == tile->rows ? 1 : 2;
    for (size_t r = 0; r < rows; r++, unit += unit_bytes) {
      gptvq_fetch_ahead(unit);
      if (unit_bytes > 64) gptvq_fetch_ahead(unit + 64);
      look_up_unit(&k, unit, bits, dim, sets, weights[r]);
      if (scaled) look_up_scales(&k.blocks, codes, tile->block_bytes, sets, by_lane[r]);
      if (scaled) codes += tile->block_bytes;
    }
    for (size_t t = 0; t < (single ? 1 : tokens); t++) {
      if (!single) load_input(job, t, dim, sets, scaled, known != ANY_SETS, &in);
      add_product(weights[0], by_lane[0], &in, dim, sets, scaled, sums + 16 * t);
      if (rows == 2) add_product(weights[1], by_lane[1], &in, dim, sets, scaled, sums + 16 * (tokens + t));
    }
    sums += 16 * rows * tokens;
  }
}

/* Larger codebooks and longer units: look-ups one by one, then the same sums. */
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
  static void full_##bits##_##dim(const gptvq_i8_tile *job) { \
    if (job->block_vectors != 0 && job->tokens > 1) unit_tile(job, bits, dim, 1, 0, FULL); \
    else if (job->block_vectors != 0) unit_tile(job, bits, dim, 1, 1, FULL); \
    else if (job->tokens > 1) tokens_tile(job, bits, dim, 1); \
    else unit_tile(job, bits, dim, 0, 1, FULL); \
  } \
  static void planned_##bits##_##dim(const gptvq_i8_tile *job) { \
    if (job->block_vectors != 0 && job->sets != 4 / dim) unit_tile(job, bits, dim, 1, 0, ANY_SETS); \
    else if (job->block_vectors != 0 && job->tokens > 1) unit_tile(job, bits, dim, 1, 0, ALL_SETS); \
    else if (job->block_vectors != 0) unit_tile(job, bits, dim, 1, 1, ALL_SETS); \
    else if (job->tokens == 1 && job->sets == 1) planned_tile(job, bits, dim, 1); \
    else if (job->tokens == 1 && job->sets == 2 && dim == 2) planned_tile(job, bits, dim, 2); \
    else if (job->tokens == 1) planned_tile(job, bits, dim, 0); \
    else if (job->sets == 4 / dim) tokens_tile(job, bits, dim, 0); \
    else unit_tile(job, bits, dim, 0, 0, ANY_SETS); \
  }
GPTVQ_SHAPES_8(TILE)

typedef void (*tile_fn)(const gptvq_i8_tile *tile);
#define WHOLE(bits, dim) GPTVQ_ENTRY(full, bits, dim)
#define PLANNED(bits, dim) GPTVQ_ENTRY(planned, bits, dim)
static const tile_fn full_tiles[8][3] = {GPTVQ_SHAPES_8(WHOLE)},
                     planned_tiles[8][3] = {GPTVQ_SHAPES_8(PLANNED)};

static void i8_tile(const gptvq_i8_tile *job) {
  const gptvq_tile *tile = job->tile;
  if (tile->index_bits > 8 || job->sets > SETS) any_tile(job);
  else (tile->width == 256 ? full_tiles : planned_tiles)[tile->index_bits - 1][tile->dim / 2](job);
}

static void i8_plan(unsigned bits, size_t n, void *plan) {
  _Static_assert(sizeof(gptvq_plan512) <= GPTVQ_I8_PLAN_BYTES, "room for a plan");
  if (bits <= 8 && n <= 64 * SETS) gptvq_plan_unit512(bits, n, plan);
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
  table->i8_plan = i8_plan;
  table->i8_tile = i8_tile;
  table->i8_tokens = 20; /* a unit and token take 6.1 cycles, there 4.3 once weights are decoded (Zen 4) */
  table->i8_tokens_other = 16;
  table->i8_fold = i8_fold;
}
