/* Stripes of few rows × int8 activations with AVX-512: one call for all column groups, a row's sums in a
 * register. With 4 or 8 rows per codebook a call per tile would cost as much as the tile. */
#include "kernels/ref/ref.h"
#include "kernels/x86/fold_avx512.h"
#include "kernels/x86/lookup_avx512.h"
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

GPTVQ_INLINE void stripe(const gptvq_i8_stripe *job, unsigned bits, unsigned dim, size_t rows) {
  const size_t n = 256 / dim, sets = n / 64, unit_bytes = n / 8 * bits;
  _Alignas(64) float scales[SCALES];
  gptvq_spread512 spread;
  gptvq_prepare_spread512(bits, n, &spread);
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
    gptvq_table512 table;
    gptvq_load_table512(codebook, bits, dim, 0x80, &table);
    __m512i q[4];
    for (int i = 0; i < 4; i++) q[i] = _mm512_load_si512(x + 64 * i);
    const __m512i start = _mm512_loadu_si512(correction);
    const __m512 scale = _mm512_set1_ps(scales[g % SCALES]);
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++) {
      const uint8_t *unit = units + r * unit_bytes;
      gptvq_fetch_ahead(unit);
      __m512i total = start;
#pragma GCC unroll 4
      for (size_t s = 0; s < sets; s++) {
        __m512i index = gptvq_indices512(unit, bits, n, s, &spread);
        for (unsigned e = 0; e < dim; e++)
          total = _mm512_dpbusd_epi32(total, gptvq_look_up512(&table, bits, e, index), q[e * sets + s]);
      }
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), scale, sums[r]);
    }
    units += job->unit_step;
    codebook += (size_t)dim << bits;
    x += 256;
    correction += 16;
  }
  _mm256_mask_storeu_ps(job->y, (__mmask8)((1u << rows) - 1u), gptvq_fold8x16(sums));
}

#define STRIPE(bits, dim, rows) \
  static void stripe_##bits##_##dim##_##rows(const gptvq_i8_stripe *job) { stripe(job, bits, dim, rows); }
#define DIMS(bits, rows) \
  STRIPE(bits, 1, rows) \
  STRIPE(bits, 2, rows) \
  STRIPE(bits, 4, rows)
#define HEIGHTS(bits) \
  DIMS(bits, 1) \
  DIMS(bits, 2) \
  DIMS(bits, 4) \
  DIMS(bits, 8)
HEIGHTS(1)
HEIGHTS(2)
HEIGHTS(3)
HEIGHTS(4)

typedef void (*stripe_fn)(const gptvq_i8_stripe *job);
#define LIST_DIMS(bits, rows) \
  { stripe_##bits##_1_##rows, stripe_##bits##_2_##rows, stripe_##bits##_4_##rows }
#define LIST(bits) \
  { LIST_DIMS(bits, 1), LIST_DIMS(bits, 2), LIST_DIMS(bits, 4), LIST_DIMS(bits, 8) }
static const stripe_fn stripes[4][4][3] = {LIST(1), LIST(2), LIST(3), LIST(4)};

static bool i8_stripe(const gptvq_i8_stripe *job) {
  if (job->index_bits > 4 || job->rows > 8 || (job->rows & (job->rows - 1)) != 0) return false;
  stripes[job->index_bits - 1][__builtin_ctzll(job->rows)][job->dim / 2](job);
  return true;
}

void gptvq_kernels_init_stripe_avx512(gptvq_kernel_table *table) { table->i8_stripe = i8_stripe; }
