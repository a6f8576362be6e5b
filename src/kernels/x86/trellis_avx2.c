/* Trellis rows with AVX2. A step takes 32 bytes of the stream, which with 2 and 4 bits per weight end the
 * windows of four or two columns each, or with 3 bits the twelve bytes of 32 columns: the windows' nibbles
 * by shifts of the bytes and of those before them, values by vpshufb from the two tables. */
#include "kernels/trellis_shapes.h"
#include "kernels/trellis_streams.h"
#include "base/half.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/trellis_tables.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <string.h>

/* ROWS at a time, of several tokens fewer; scales of STRIP groups of them are made at once. */
enum { BYTES = 32, ROWS = 32, SUMS = 64, STRIP = 32, VECTORS = GPTVQ_I8_MAX_WIDTH / 32 };

/* ---- values ---- */

/* Three bits per weight: the bytes that the windows of a step's even and odd columns lie in, and the powers
 * of two that move those of even columns down to the lower byte of a word from the one above and those of
 * odd columns up to the upper byte. */
typedef struct thirds {
  __m256i even, odd, down, up;
} thirds;

GPTVQ_INLINE void make_thirds(thirds *t) {
  _Alignas(32) uint8_t bytes[2][32];
  _Alignas(32) uint16_t factors[2][16];
  for (unsigned w = 0; w < 16; w++)
    for (unsigned odd = 0; odd < 2; odd++) {
      const unsigned start = 32 + 3 * (2 * w + odd + 1) - 8, part = start % 8;
      const unsigned byte = start / 8 - (odd == 0 && part == 0); /* not up by 16 */
      bytes[odd][2 * w] = (uint8_t)byte;
      bytes[odd][2 * w + 1] = (uint8_t)(byte + 1);
      factors[odd][w] = (uint16_t)(odd == 1 ? 1u << (8 - part) : 1u << (part == 0 ? 8 : 16 - part));
    }
  t->even = _mm256_load_si256((const void *)bytes[0]);
  t->odd = _mm256_load_si256((const void *)bytes[1]);
  t->down = _mm256_load_si256((const void *)factors[0]);
  t->up = _mm256_load_si256((const void *)factors[1]);
}

typedef struct tables {
  __m256i first, second, first_swapped, second_swapped;
} tables;

GPTVQ_INLINE tables load_tables(const int8_t *entries) {
  const gptvq_trellis_tables t = gptvq_load_trellis_tables(entries, 0);
  return (tables){_mm256_broadcastsi128_si256(t.first), _mm256_broadcastsi128_si256(t.second),
                  _mm256_broadcastsi128_si256(t.first_swapped),
                  _mm256_broadcastsi128_si256(t.second_swapped)};
}

/* Of nibbles; above them only the top bit must be clear. */
GPTVQ_INLINE __m256i look_up(__m256i first, __m256i a, __m256i second, __m256i b) {
  return _mm256_add_epi8(_mm256_shuffle_epi8(first, a), _mm256_shuffle_epi8(second, b));
}

/* Values of the step at `at`, of the planes: weights[0 … n − 1]. `first`: nothing is before it. */
GPTVQ_INLINE void step_values(const uint8_t *at, unsigned k, int first, const thirds *third,
                              const tables *table, __m256i *weights) {
  const __m256i nibble = _mm256_set1_epi8(15);
  if (k == 3) {
    __m128i bytes = _mm_loadu_si128((const void *)(first ? at : at - 4));
    if (first) bytes = _mm_slli_si128(bytes, 4);
    const __m256i x = _mm256_broadcastsi128_si256(bytes),
                  even = _mm256_mulhi_epu16(_mm256_shuffle_epi8(x, third->even), third->down),
                  odd = _mm256_mullo_epi16(_mm256_shuffle_epi8(x, third->odd), third->up),
                  windows = _mm256_blendv_epi8(even, odd, _mm256_set1_epi16((short)0xff00));
    weights[0] = look_up(table->first, _mm256_and_si256(windows, nibble), table->second,
                         _mm256_and_si256(_mm256_srli_epi16(windows, 4), nibble));
    return;
  }
  const __m256i x = _mm256_loadu_si256((const void *)at),
                p = first ? _mm256_alignr_epi8(x, _mm256_permute2x128_si256(x, x, 0x08), 15)
                          : _mm256_loadu_si256((const void *)(at - 1)),
                x0 = _mm256_and_si256(x, nibble), x4 = _mm256_srli_epi16(x, 4), p4 = _mm256_srli_epi16(p, 4),
                b0 = _mm256_and_si256(p4, nibble);
  if (k == 4) {
    weights[0] = look_up(table->first, b0, table->second, x0);
    weights[1] = look_up(table->first, x0, table->second, _mm256_and_si256(x4, nibble));
    return;
  }
  /* the window's symbols are the oldest, two, the newest: two bits each of x and of p */
  const __m256i low = _mm256_set1_epi8(3), high = _mm256_set1_epi8(12), x_low = _mm256_and_si256(x, low),
                p4_high = _mm256_and_si256(p4, high);
  weights[0] =
      look_up(table->first_swapped, _mm256_or_si256(x_low, _mm256_and_si256(p, high)), table->second, b0);
  weights[1] = look_up(table->first, _mm256_or_si256(_mm256_and_si256(p4, low), _mm256_and_si256(x, high)),
                       table->second_swapped, _mm256_or_si256(x_low, p4_high));
  weights[2] =
      look_up(table->first_swapped, _mm256_or_si256(_mm256_and_si256(x4, low), p4_high), table->second, x0);
  weights[3] = look_up(table->first, _mm256_or_si256(x_low, _mm256_and_si256(x4, high)), table->second,
                       _mm256_and_si256(_mm256_srli_epi16(x, 2), nibble));
}

/* ---- products ---- */

GPTVQ_INLINE __m256i add_products(__m256i total, __m256i magnitude, __m256i other) {
  const __m256i pairs = _mm256_maddubs_epi16(magnitude, other); /* at most 2 · 127 · 127 */
  return _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

GPTVQ_INLINE void add_total(__m256i total, __m256 scale, float *sums) {
  _mm256_store_ps(sums, _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), scale, _mm256_load_ps(sums)));
}

/* Activations of a group, all planes, and their magnitudes. */
typedef struct inputs {
  const int8_t *codes, *magnitudes;
  size_t plane;
} inputs;

/* `count` steps onto the totals of both halves in turn. `first`: they are the first ones of the row. */
GPTVQ_INLINE void multiply_steps(const uint8_t *at, unsigned k, int first, size_t count, const thirds *third,
                                 const tables *table, const inputs *x, __m256i totals[2]) {
  const size_t planes = gptvq_trellis_planes(k);
#pragma GCC unroll 8
  for (size_t v = 0; v < count; v++) {
    __m256i weights[4];
    step_values(at + v * gptvq_step_bytes(k, BYTES), k, first && v == 0, third, table, weights);
#pragma GCC unroll 4
    for (size_t e = 0; e < planes; e++) {
      const size_t i = e * x->plane + 32 * v;
      totals[v % 2] =
          add_products(totals[v % 2], _mm256_load_si256((const void *)(x->magnitudes + i)),
                       _mm256_sign_epi8(weights[e], _mm256_load_si256((const void *)(x->codes + i))));
      GPTVQ_KEEP(totals[v % 2]);
    }
  }
}

/* A group of a row, one token. `whole`: it has 256 columns. */
GPTVQ_INLINE void multiply_group(const uint8_t *at, unsigned k, int first, int whole, size_t steps,
                                 const thirds *third, const tables *table, const inputs *x, __m256 scale,
                                 float *sums) {
  __m256i totals[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  if (whole) {
    multiply_steps(at, k, first, 256 / gptvq_step_columns(k, BYTES), third, table, x, totals);
  } else {
    inputs rest = *x;
    size_t left = steps;
    if (first && left > 1) {
      multiply_steps(at, k, 1, 2, third, table, &rest, totals);
      at += 2 * gptvq_step_bytes(k, BYTES), rest.codes += 64, rest.magnitudes += 64, left -= 2, first = 0;
    }
    for (; left > 1; left -= 2, at += 2 * gptvq_step_bytes(k, BYTES), rest.codes += 64, rest.magnitudes += 64)
      multiply_steps(at, k, 0, 2, third, table, &rest, totals);
    if (left > 0 && first) multiply_steps(at, k, 1, 1, third, table, &rest, totals);
    else if (left > 0) multiply_steps(at, k, 0, 1, third, table, &rest, totals);
  }
  add_total(totals[0], scale, sums);
  if (whole || steps > 1) add_total(totals[1], scale, sums + 8);
}

/* Values of a group of a row, step by step. */
GPTVQ_INLINE void group_values(const uint8_t *at, unsigned k, int first, size_t steps, const thirds *third,
                               const tables *table, __m256i *weights) {
  const size_t planes = gptvq_trellis_planes(k);
  if (first) step_values(at, k, 1, third, table, weights);
  for (size_t v = first ? 1 : 0; v < steps; v++)
    step_values(at + v * gptvq_step_bytes(k, BYTES), k, 0, third, table, weights + v * planes);
}

/* Weights of a group of a row times the activations of `tokens` (a constant) tokens. */
GPTVQ_INLINE void multiply_tokens(const __m256i *weights, unsigned k, size_t steps, const int8_t *x,
                                  size_t plane, size_t stride, const float *scales, float row_scale,
                                  size_t tokens, float *sums) {
  const size_t planes = gptvq_trellis_planes(k);
  for (size_t half = 0; half < 2 && half < steps; half++) {
    __m256i totals[4];
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; t++) totals[t] = _mm256_setzero_si256();
    for (size_t v = half; v < steps; v += 2)
#pragma GCC unroll 4
      for (size_t e = 0; e < planes; e++) {
        const __m256i w = weights[v * planes + e], magnitude = _mm256_abs_epi8(w);
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; t++) {
          const __m256i q = _mm256_load_si256((const void *)(x + t * stride + e * plane + 32 * v));
          totals[t] = add_products(totals[t], magnitude, _mm256_sign_epi8(q, w));
          GPTVQ_KEEP(totals[t]);
        }
      }
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; t++)
      add_total(totals[t], _mm256_set1_ps(scales[t] * row_scale), sums + t * GPTVQ_I8_LANES + 8 * half);
  }
}

/* ---- rows ---- */

/* Scales of up to STRIP groups from g on: (table scale / 127) · activation scale of every token, and those of
 * the rows, of one token times the former. */
typedef struct strip {
  _Alignas(32) float rows[ROWS][STRIP], base[GPTVQ_I8_MAX_TOKENS][STRIP];
} strip;

/* Scales of eight rows' codes, of which `there` are in memory that may be read. */
GPTVQ_INLINE __m256 eight_scales(const uint8_t *codes, size_t there) {
  uint64_t few = 0;
  if (there >= 8) memcpy(&few, codes, 8);
  else
    for (size_t i = 0; i < there; i++) few |= (uint64_t)codes[i] << 8 * i;
  const __m256i code = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)few)),
                bits = _mm256_add_epi32(_mm256_slli_epi32(code, 19), _mm256_set1_epi32((127 - 8) << 23));
  return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpeq_epi32(code, _mm256_setzero_si256()), bits));
}

GPTVQ_INLINE void make_strip(const gptvq_trellis_rows *job, size_t row, size_t rows, size_t g, strip *s) {
  const size_t count = job->groups - g < STRIP ? job->groups - g : STRIP;
  for (size_t t = 0; t < job->tokens; t++) {
    const float *x_scales = (const void *)((const char *)(job->x_scales + g) + t * job->input_stride);
    for (size_t i = 0; i < count; i++)
      s->base[t][i] = gptvq_bf16_to_float(job->table_scales[g + i]) / 127.0f * x_scales[i];
  }
  for (size_t r = 0; r < rows; r++) {
    const size_t at = (row + r) * job->groups + g, there = job->rows * job->groups - at;
    for (size_t i = 0; i < count; i += 8) {
      __m256 scale = eight_scales(job->row_scales + at + i, there - i);
      if (job->tokens == 1) scale = _mm256_mul_ps(_mm256_load_ps(s->base[0] + i), scale);
      _mm256_store_ps(s->rows[r] + i, scale);
    }
  }
}

/* A group of `rows` rows. `one`: one token. */
GPTVQ_INLINE void group_rows(const gptvq_trellis_rows *job, size_t row, size_t rows, size_t g, unsigned k,
                             int one, int first, int whole, size_t width, const thirds *third,
                             const strip *scales, float (*sums)[GPTVQ_I8_LANES]) {
  _Alignas(32) int8_t magnitudes[GPTVQ_I8_MAX_WIDTH];
  __m256i weights[VECTORS];
  gptvq_padded room;
  const size_t planes = gptvq_trellis_planes(k), tokens = job->tokens, stride = job->input_stride;
  const gptvq_extent e = gptvq_extent_of(k, whole ? 256 : width, first, BYTES);
  const tables table = load_tables(job->tables + g * GPTVQ_TRELLIS_TABLE);
  const int8_t *codes = job->x + g * job->group_codes;
  const inputs x = {codes, magnitudes, gptvq_input_plane(whole ? 256 : width, planes)};
  const uint8_t *at = job->streams + row * job->row_bytes + g * job->width * k / 8;
  const bool easy = gptvq_can_read(job, at, &e) && gptvq_can_read(job, at + (rows - 1) * job->row_bytes, &e);
  for (size_t i = 0; one && i < planes * x.plane; i += 32)
    _mm256_store_si256((void *)(magnitudes + i),
                       _mm256_abs_epi8(_mm256_load_si256((const void *)(codes + i))));
  /* The next rows' streams come into the second-level cache in the order of memory. */
  const char *ahead =
      (const char *)job->streams + (row + rows) * job->row_bytes + rows * (g * job->width * k / 8);
  for (size_t r = 0; r < rows; r++, at += job->row_bytes, ahead += e.bytes) {
    const uint8_t *from = at;
    for (size_t i = 0; i < (whole ? 32 * (size_t)k : 64); i += 64) _mm_prefetch(ahead + i, _MM_HINT_T1);
    const float *scale = &scales->rows[r][g % STRIP];
    if (!easy && !gptvq_can_read(job, at, &e)) from = gptvq_pad(at, g * job->width, k, e.bytes, &room);
    if (one) {
      multiply_group(from, k, first, whole, e.steps, third, &table, &x, _mm256_broadcast_ss(scale), sums[r]);
      continue;
    }
    group_values(from, k, first, e.steps, third, &table, weights);
    size_t t = 0;
    float base[4], (*to)[GPTVQ_I8_LANES] = sums + r * tokens;
    for (; t < tokens; t += 4) {
      const size_t some = tokens - t < 4 ? tokens - t : 4;
      for (size_t i = 0; i < some; i++) base[i] = scales->base[t + i][g % STRIP];
#define SOME(n) \
  multiply_tokens(weights, k, e.steps, codes + t * stride, x.plane, stride, base, *scale, n, to[t])
      if (some == 4) SOME(4);
      else if (some == 3) SOME(3);
      else if (some == 2) SOME(2);
      else SOME(1);
#undef SOME
    }
  }
}

GPTVQ_INLINE void some_rows(const gptvq_trellis_rows *job, size_t row, size_t rows, unsigned k, int one,
                            const thirds *third) {
  _Alignas(64) float sums[SUMS][GPTVQ_I8_LANES];
  strip scales;
  memset(sums, 0, rows * job->tokens * sizeof sums[0]);
  for (size_t g = 0; g < job->groups; g++) {
    const size_t width = g + 1 == job->groups ? job->last_width : job->width;
    if (g % STRIP == 0) make_strip(job, row, rows, g, &scales);
    if (width == 256 && g > 0) group_rows(job, row, rows, g, k, one, 0, 1, width, third, &scales, sums);
    else if (width == 256) group_rows(job, row, rows, g, k, one, 1, 1, width, third, &scales, sums);
    else if (g > 0) group_rows(job, row, rows, g, k, one, 0, 0, width, third, &scales, sums);
    else group_rows(job, row, rows, g, k, one, 1, 0, width, third, &scales, sums);
  }
  float y[SUMS];
  gptvq_kernels(GPTVQ_CPU_AVX2)->i8_fold(sums[0], rows * job->tokens, y);
  for (size_t r = 0; r < rows; r++)
    for (size_t t = 0; t < job->tokens; t++) job->y[t * job->ldy + row + r] = y[r * job->tokens + t];
}

GPTVQ_INLINE void all_rows(const gptvq_trellis_rows *job, unsigned k) {
  thirds third;
  if (k == 3) make_thirds(&third);
  const size_t most = job->tokens <= SUMS / ROWS ? ROWS : SUMS / job->tokens;
  for (size_t row = 0, rows; row < job->rows; row += rows) {
    rows = job->rows - row < most ? job->rows - row : most;
    if (job->tokens == 1) some_rows(job, row, rows, k, 1, &third);
    else some_rows(job, row, rows, k, 0, &third);
  }
}

/* ---- values in column order ---- */

typedef __m256i step_vector;

/* Values of a step to column order. */
GPTVQ_INLINE void order_codes(const __m256i *w, unsigned k, int8_t *codes) {
  __m128i *to = (void *)codes;
  if (k == 3) {
    _mm256_storeu_si256((void *)codes, w[0]);
    return;
  }
  const __m256i low = _mm256_unpacklo_epi8(w[0], w[1]), high = _mm256_unpackhi_epi8(w[0], w[1]);
  if (k == 4) {
    _mm256_storeu_si256((void *)codes, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256((void *)(codes + 32), _mm256_permute2x128_si256(low, high, 0x31));
    return;
  }
  const __m256i t[2] = {low, high},
                u[2] = {_mm256_unpacklo_epi8(w[2], w[3]), _mm256_unpackhi_epi8(w[2], w[3])};
#pragma GCC unroll 2
  for (size_t i = 0; i < 2; i++) {
    const __m256i a = _mm256_unpacklo_epi16(t[i], u[i]), b = _mm256_unpackhi_epi16(t[i], u[i]);
    _mm_storeu_si128(to + 2 * i, _mm256_castsi256_si128(a));
    _mm_storeu_si128(to + 2 * i + 1, _mm256_castsi256_si128(b));
    _mm_storeu_si128(to + 2 * i + 4, _mm256_extracti128_si256(a, 1));
    _mm_storeu_si128(to + 2 * i + 5, _mm256_extracti128_si256(b, 1));
  }
}

#include "kernels/trellis_codes_template.h"

GPTVQ_TRELLIS_ROWS()
GPTVQ_TRELLIS_CODES()

void gptvq_kernels_init_trellis_avx2(gptvq_kernel_table *table) {
  table->trellis_rows = trellis_rows;
  table->trellis_codes = trellis_codes;
}
