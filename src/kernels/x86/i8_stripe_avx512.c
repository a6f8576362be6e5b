/* Stripes of few rows × int8 activations with AVX-512: one call for all column groups, a row's sums in a
 * register. With 4 or 8 rows per codebook a call per tile would cost as much as the tile. */
#include "kernels/ref/ref.h"
#include "kernels/x86/fold_avx512.h"
#include "kernels/x86/plan_avx512.h"
#include "kernels/shapes.h"
#include "kernels/x86/x86.h"

enum {
  SCALES = 64,
  CODEBOOKS_AHEAD = 1024 /* bytes: a stream of their own, too thin for the hardware to follow */
};

/* codebook scale / 127 · activation scale of up to SCALES groups from g on */
GPTVQ_INLINE void combine_scales(const gptvq_i8_stripe *job, size_t g, float *scales) {
  const size_t count = job->groups - g < SCALES ? job->groups - g : SCALES;
  const uint16_t *codebook_scales = job->codebook_scales + g;
  const float *x_scales = job->x_scales + g;
  for (size_t i = 0; i < count; i += 16) {
    const __mmask16 lanes = (__mmask16)(count - i >= 16 ? 0xffffu : (1u << (count - i)) - 1u);
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, codebook_scales + i));
    __m512 scale = _mm512_div_ps(_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)), _mm512_set1_ps(127.0f));
    _mm512_store_ps(scales + i, _mm512_mul_ps(scale, _mm512_maskz_loadu_ps(lanes, x_scales + i)));
  }
}

/* Where a stripe is read. */
typedef struct position {
  const uint8_t *units;
  const int8_t *codebook, *x;
  const int32_t *correction;
} position;

/* One row of a group onto its sums. `full`: 256 columns. */
GPTVQ_INLINE void add_row(const uint8_t *unit, const gptvq_plan512 *plan, const gptvq_spread512 *spread,
                          const gptvq_table512 *table, unsigned bits, unsigned dim, int full,
                          const __m512i *x, __m512i start, float scale, __m512 *sums) {
  const size_t sets = full ? 4 / dim : plan->sets;
  gptvq_fetch_ahead(unit);
  gptvq_unit512 loaded;
  if (!full) gptvq_load_unit512(plan, bits, unit, &loaded);
#pragma GCC unroll 4
  for (size_t s = 0; s < sets; s++) {
    const __m512i index = full ? gptvq_indices512(unit, bits, 256 / dim, s, spread)
                               : gptvq_planned_indices512(plan, &loaded, bits, s);
    for (unsigned e = 0; e < dim; e++)
      start = _mm512_dpbusd_epi32(start, gptvq_look_up512(table, bits, e, index), x[e * sets + s]);
  }
  *sums = _mm512_fmadd_ps(_mm512_cvtepi32_ps(start), _mm512_set1_ps(scale), *sums);
}

GPTVQ_INLINE void next_group(const gptvq_i8_stripe *job, unsigned bits, unsigned dim, position *at) {
  at->units += job->unit_step;
  at->codebook += (size_t)dim << bits;
  at->x += job->group_codes;
  at->correction += 16;
}

/* A table for the codebook; the codebook of a later group is fetched. */
GPTVQ_INLINE void load_codebook(const position *at, unsigned bits, unsigned dim, gptvq_table512 *table) {
  _mm_prefetch((const char *)at->codebook + CODEBOOKS_AHEAD, _MM_HINT_T0);
  gptvq_load_table512(at->codebook, bits, dim, 0x80, table);
}

/* A group by its plan onto the sums of `rows` (a constant) rows: `sets` (a constant) sets, the last perhaps
 * not filled. */
GPTVQ_INLINE void planned_group(const gptvq_plan512 *plan, const uint8_t *unit, const position *at,
                                unsigned bits, unsigned dim, size_t sets, float scale, size_t rows,
                                __m512 *sums) {
  const size_t unit_bytes = plan->n / 8 * bits;
  const __m512i start = _mm512_loadu_si512(at->correction);
  gptvq_table512 table;
  gptvq_plan512 few;
  load_codebook(at, bits, dim, &table);
  gptvq_take_plan512(plan, bits, sets, &few);
#pragma GCC unroll 8
  for (size_t r = 0; r < rows; r++, unit += unit_bytes)
    add_row(unit, &few, NULL, &table, bits, dim, 0, (const void *)at->x, start, scale, &sums[r]);
}

/* The same for any number of rows and sets, with the sums in memory. */
GPTVQ_INLINE void planned_memory(const gptvq_plan512 *plan, const uint8_t *unit, const position *at,
                                 unsigned bits, unsigned dim, float scale, size_t rows, __m512 *sums) {
  const __m512i start = _mm512_loadu_si512(at->correction);
  gptvq_table512 table;
  load_codebook(at, bits, dim, &table);
  for (size_t r = 0; r < rows; r++, unit += plan->n / 8 * bits)
    add_row(unit, plan, NULL, &table, bits, dim, 0, (const void *)at->x, start, scale, &sums[r]);
}

/* `rows` (a constant) rows, their sums in registers. Groups of 256 columns come first; what follows them, a
 * narrower last group or all groups of a layer that has none of 256 columns, goes by its plan. */
GPTVQ_INLINE void stripe(const gptvq_i8_stripe *job, unsigned bits, unsigned dim, size_t rows,
                         void (*in_memory)(const gptvq_plan512 *plan, const uint8_t *unit, const position *at,
                                           float scale, size_t rows, __m512 *sums)) {
  _Alignas(64) float scales[SCALES];
  const size_t full = job->width != 256 ? 0 : job->groups - (job->last_width != 256);
  gptvq_spread512 spread;
  gptvq_prepare_spread512(bits, 256 / dim, &spread);
  __m512 sums[8], stored[8];
#pragma GCC unroll 8
  for (size_t r = 0; r < 8; r++) sums[r] = _mm512_setzero_ps();
  position at = {job->units, job->codebook, job->x, job->corrections};
  _mm_prefetch((const char *)(job->codebook_scales + job->groups) + 64, _MM_HINT_T0);
  size_t g = 0;
  for (; g < full; g++, next_group(job, bits, dim, &at)) {
    if (g % SCALES == 0) combine_scales(job, g, scales);
    const __m512i start = _mm512_loadu_si512(at.correction);
    gptvq_table512 table;
    __m512i x[4];
    load_codebook(&at, bits, dim, &table);
    for (int i = 0; i < 4; i++) x[i] = _mm512_load_si512(at.x + 64 * i);
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++)
      add_row(at.units + r * (32 / dim * bits), NULL, &spread, &table, bits, dim, 1, x, start,
              scales[g % SCALES], &sums[r]);
  }
  for (; g < job->groups; g++, next_group(job, bits, dim, &at)) {
    if (g % SCALES == 0) combine_scales(job, g, scales);
    const bool last = g + 1 == job->groups;
    const gptvq_plan512 *plan = last ? job->last_plan : job->plan;
    const uint8_t *unit = last ? job->last_units : at.units;
    const float scale = scales[g % SCALES];
    if (dim == 4 || plan->n <= 64) planned_group(plan, unit, &at, bits, dim, 1, scale, rows, sums);
    else if (dim == 2) planned_group(plan, unit, &at, bits, dim, 2, scale, rows, sums);
    else {
#pragma GCC unroll 8
      for (size_t r = 0; r < rows; r++) stored[r] = sums[r];
      in_memory(plan, unit, &at, scale, rows, stored);
#pragma GCC unroll 8
      for (size_t r = 0; r < rows; r++) sums[r] = stored[r];
    }
  }
  _mm256_mask_storeu_ps(job->y, (__mmask8)((1u << rows) - 1u), gptvq_fold8x16(sums));
}

#define STRIPE(bits, dim) \
  static void planned_##bits##_##dim(const gptvq_plan512 *plan, const uint8_t *unit, const position *at, \
                                     float scale, size_t rows, __m512 *sums) { \
    planned_memory(plan, unit, at, bits, dim, scale, rows, sums); \
  } \
  static void stripe_##bits##_##dim(const gptvq_i8_stripe *job) { \
    switch (job->rows) { \
    case 1: stripe(job, bits, dim, 1, planned_##bits##_##dim); return; \
    case 2: stripe(job, bits, dim, 2, planned_##bits##_##dim); return; \
    case 3: stripe(job, bits, dim, 3, planned_##bits##_##dim); return; \
    case 4: stripe(job, bits, dim, 4, planned_##bits##_##dim); return; \
    case 5: stripe(job, bits, dim, 5, planned_##bits##_##dim); return; \
    case 6: stripe(job, bits, dim, 6, planned_##bits##_##dim); return; \
    case 7: stripe(job, bits, dim, 7, planned_##bits##_##dim); return; \
    default: stripe(job, bits, dim, 8, planned_##bits##_##dim); return; \
    } \
  }
GPTVQ_SHAPES_4(STRIPE)

#define ENTRY(bits, dim) GPTVQ_ENTRY(stripe, bits, dim)
static const gptvq_i8_stripe_fn stripes[4][3] = {GPTVQ_SHAPES_4(ENTRY)};

static gptvq_i8_stripe_fn i8_stripe(const gptvq_packed_shape *shape) {
  const size_t width = shape->cols < shape->group_cols ? shape->cols : shape->group_cols;
  if (shape->scale_block != 0 || shape->index_bits > 4 || width > 256) return NULL;
  return stripes[shape->index_bits - 1][shape->dim / 2];
}

void gptvq_kernels_init_stripe_avx512(gptvq_kernel_table *table) { table->i8_stripe = i8_stripe; }
