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

/* codebook scale / 127 · activation scale for up to 64 groups */
GPTVQ_INLINE void combine_scales(const uint16_t *codebook_scales, const float *x_scales, size_t count,
                                 float *scales) {
  for (size_t g = 0; g < count; g += 16) {
    const __mmask16 lanes = (__mmask16)(count - g >= 16 ? 0xffffu : (1u << (count - g)) - 1u);
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, codebook_scales + g));
    __m512 scale = _mm512_div_ps(_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)), _mm512_set1_ps(127.0f));
    _mm512_store_ps(scales + g, _mm512_mul_ps(scale, _mm512_maskz_loadu_ps(lanes, x_scales + g)));
  }
}

GPTVQ_INLINE void stripe(const gptvq_i8_stripe *job, unsigned bits, unsigned dim, size_t rows, int full) {
  _Alignas(64) float scales[SCALES];
  const gptvq_plan512 *plan = job->plan;
  size_t sets = 4 / dim, unit_bytes = 32 / dim * bits;
  gptvq_spread512 spread;
  if (full) gptvq_prepare_spread512(bits, 256 / dim, &spread);
  __m512 sums[8];
#pragma GCC unroll 8
  for (size_t r = 0; r < 8; r++) sums[r] = _mm512_setzero_ps();
  const uint8_t *units = job->units;
  const int8_t *codebook = job->codebook, *x = job->x;
  const int32_t *correction = job->corrections;
  _mm_prefetch((const char *)(job->codebook_scales + job->groups) + 64, _MM_HINT_T0);
  for (size_t g = 0; g < job->groups; g++) {
    if (g % SCALES == 0)
      combine_scales(job->codebook_scales + g, job->x_scales + g,
                     job->groups - g < SCALES ? job->groups - g : SCALES, scales);
    _mm_prefetch((const char *)codebook + CODEBOOKS_AHEAD, _MM_HINT_T0);
    if (!full) {
      if (g + 1 == job->groups) plan = job->last_plan, units = job->last_units;
      sets = plan->sets;
      unit_bytes = plan->n / 8 * bits;
    }
    gptvq_table512 table;
    gptvq_load_table512(codebook, bits, dim, 0x80, &table);
    __m512i copy[4];
    const __m512i *q = (const void *)x;
    if (full) {
      for (int i = 0; i < 4; i++) copy[i] = _mm512_load_si512(x + 64 * i);
      q = copy;
    }
    const __m512i start = _mm512_loadu_si512(correction);
    const __m512 scale = _mm512_set1_ps(scales[g % SCALES]);
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++) {
      const uint8_t *unit = units + r * unit_bytes;
      gptvq_fetch_ahead(unit);
      gptvq_unit512 loaded;
      if (!full) gptvq_load_unit512(plan, bits, unit, &loaded);
      __m512i total = start;
#pragma GCC unroll 4
      for (size_t s = 0; s < sets; s++) {
        const __m512i index = full ? gptvq_indices512(unit, bits, 256 / dim, s, &spread)
                                   : gptvq_planned_indices512(plan, &loaded, bits, s);
        for (unsigned e = 0; e < dim; e++)
          total = _mm512_dpbusd_epi32(total, gptvq_look_up512(&table, bits, e, index), q[e * sets + s]);
      }
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), scale, sums[r]);
    }
    units += job->unit_step;
    codebook += (size_t)dim << bits;
    x += job->group_codes;
    correction += 16;
  }
  _mm256_mask_storeu_ps(job->y, (__mmask8)((1u << rows) - 1u), gptvq_fold8x16(sums));
}

/* 1, 2, 4 or 8 rows */
#define STRIPE(bits, dim) \
  static void full_##bits##_##dim(const gptvq_i8_stripe *job) { \
    if (job->rows == 8) stripe(job, bits, dim, 8, 1); \
    else if (job->rows == 4) stripe(job, bits, dim, 4, 1); \
    else if (job->rows == 2) stripe(job, bits, dim, 2, 1); \
    else stripe(job, bits, dim, 1, 1); \
  } \
  static void planned_##bits##_##dim(const gptvq_i8_stripe *job) { \
    if (job->rows == 8) stripe(job, bits, dim, 8, 0); \
    else if (job->rows == 4) stripe(job, bits, dim, 4, 0); \
    else if (job->rows == 2) stripe(job, bits, dim, 2, 0); \
    else stripe(job, bits, dim, 1, 0); \
  }
GPTVQ_SHAPES_4(STRIPE)

typedef void (*stripe_fn)(const gptvq_i8_stripe *job);
#define FULL(bits, dim) GPTVQ_ENTRY(full, bits, dim)
#define PLANNED(bits, dim) GPTVQ_ENTRY(planned, bits, dim)
static const stripe_fn full_stripes[4][3] = {GPTVQ_SHAPES_4(FULL)},
                       planned_stripes[4][3] = {GPTVQ_SHAPES_4(PLANNED)};

static bool i8_stripe(const gptvq_i8_stripe *job) {
  if (job->index_bits > 4 || job->rows > 8 || (job->rows & (job->rows - 1)) != 0) return false;
  if (job->width > 64 * GPTVQ_PLAN_SETS * job->dim) return false;
  const bool full = job->width == 256 && job->last_width == 256;
  (full ? full_stripes : planned_stripes)[job->index_bits - 1][job->dim / 2](job);
  return true;
}

void gptvq_kernels_init_stripe_avx512(gptvq_kernel_table *table) { table->i8_stripe = i8_stripe; }
