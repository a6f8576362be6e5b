/* Uniform rows × int8 activations with AVX-512 VNNI: codes are the unsigned operand of vpdpbusd as they
 * are. */
#include "kernels/ref/ref.h"
#include "kernels/x86/fold_avx512.h"
#include "kernels/x86/lookup_avx512.h"
#include "kernels/shapes.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>

/* Zero points of up to 16 blocks as floats, field by field; they are spread over two bytes' worth of parts
 * only where a part ends. */
GPTVQ_INLINE __m512 zero_points(const gptvq_uniform_row *row, size_t block, unsigned bits, __mmask16 lanes) {
  const size_t count = (size_t)__builtin_popcount(lanes), at = row->zero_at + block;
  const uint8_t *zeros = row->zeros;
  __m512i all = _mm512_setzero_si512();
  unsigned shift = 0;
#pragma GCC unroll 4
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t size = row->zero_count / 8 * f;
    size_t first = at;
    unsigned part = 0;
    for (; first >= size; first -= size) part++; /* up to 8 / f times; a division costs more */
    if (first + count > size) {
      uint16_t few[16] = {0};
      gptvq_unpack_range(row->zeros, row->zero_count, bits, at, count, few);
      return _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)few)));
    }
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes, zeros + first));
    bytes = _mm512_srl_epi32(bytes, _mm_cvtsi32_si128((int)(part * f)));
    bytes = _mm512_and_si512(bytes, _mm512_set1_epi32((1 << f) - 1));
    all = _mm512_or_si512(all, _mm512_sll_epi32(bytes, _mm_cvtsi32_si128((int)shift)));
    zeros += size;
    shift += f;
  }
  return _mm512_cvtepi32_ps(all);
}

/* The products of the scales into scales[blocks]; returns the lanes of the correction. */
GPTVQ_INLINE __m512 combine_scales(const gptvq_uniform_row *row, float *scales) {
  __m512 correction = _mm512_setzero_ps();
  for (size_t b = 0; b < row->blocks; b += 16) {
    const __mmask16 lanes = (__mmask16)(row->blocks - b >= 16 ? 0xffffu : (1u << (row->blocks - b)) - 1u);
    __m512 weight = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, row->scales + b));
    __m512 scale = _mm512_mul_ps(weight, _mm512_maskz_loadu_ps(lanes, row->x_scales + b));
    _mm512_store_ps(scales + b, scale);
    correction = _mm512_fmadd_ps(_mm512_mul_ps(scale, zero_points(row, b, row->bits, lanes)),
                                 _mm512_maskz_loadu_ps(lanes, row->x_sums + b), correction);
  }
  return correction;
}

/* Blocks of 32 columns are taken two by two: NARROW. */
enum { WHOLE_SETS, NARROW, BY_LANE };

/* `field` bits a code: 8 when they are unpacked. */
GPTVQ_INLINE float multiply_row(const gptvq_uniform_row *row, unsigned field, int how) {
  _Alignas(64) float scales[GPTVQ_UNIFORM_MAX_BLOCKS + 16];
  _Alignas(64) float by_lane[GPTVQ_UNIFORM_MAX_COLS / 4];
  const size_t parts = 8 / field, step = how == WHOLE_SETS ? (row->block + 63) / 64 * 64 : 64,
               per_part = row->bytes / (how == NARROW ? 32 : step);
  const __m512i mask = _mm512_set1_epi8((char)((1 << field) - 1));
  __m512 correction = combine_scales(row, scales), sums[4];
  if (how == BY_LANE) gptvq_uniform_spread(row, scales, by_lane);
  for (size_t i = 0; i < parts; i++) sums[i] = _mm512_setzero_ps();
  size_t block = 0;
  for (size_t at = 0; at < row->bytes; at += step, block += how == NARROW ? 2 : 1) {
    const size_t end = field < 8 || at + step < row->bytes ? at + step : row->bytes;
    __m512i totals[4];
    for (size_t i = 0; i < parts; i++) totals[i] = _mm512_setzero_si512();
    for (size_t j = at; j < end; j += 64) {
      const __m512i bytes = _mm512_loadu_si512(row->unit + j);
      if (field < 8) gptvq_fetch_ahead(row->unit + j);
      for (size_t i = 0; i < parts; i++) {
        __m512i code =
            field == 8
                ? bytes
                : _mm512_and_si512(i == 0 ? bytes : _mm512_srli_epi16(bytes, (unsigned)(i * field)), mask);
        totals[i] = _mm512_dpbusd_epi32(totals[i], code, _mm512_loadu_si512(row->x + i * row->bytes + j));
      }
    }
    for (size_t i = 0; i < parts; i++) {
      const float *s = scales + i * per_part + block;
      __m512 scale = how == BY_LANE ? _mm512_load_ps(by_lane + 16 * block) : _mm512_set1_ps(s[0]);
      if (how == NARROW) scale = _mm512_mask_broadcastss_ps(scale, 0xff00, _mm_load_ss(s + 1));
      sums[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(totals[i]), scale, sums[i]);
    }
  }
  for (size_t i = 1; i < parts; i++) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return gptvq_fold_difference(sums[0], correction);
}

static float uniform_row(const gptvq_uniform_row *row) {
  const bool narrow = row->block == 32;
  if (row->field == 4) return narrow ? multiply_row(row, 4, NARROW) : multiply_row(row, 4, WHOLE_SETS);
  if (row->field == 2) return narrow ? multiply_row(row, 2, NARROW) : multiply_row(row, 2, WHOLE_SETS);
  if (gptvq_uniform_whole_sets(row)) return multiply_row(row, 8, WHOLE_SETS);
  return narrow ? multiply_row(row, 8, NARROW) : multiply_row(row, 8, BY_LANE);
}

/* ---- many rows ---- */

enum { ROWS = 8, CHUNK = 16 /* blocks whose scales are made at once */, FIELDS = 3 };

/* Where the codes of a set of 64 columns lie in a field of f bits of a unit: those of the lanes `low` in the
 * bytes from `first` on, those above from the field's beginning on and f bits further up. */
typedef struct place {
  size_t bytes, first; /* of the field; of the set in it */
  __m512i shift, next; /* vpmultishiftqb's control; with the lanes above */
  __mmask64 low;
} place;

GPTVQ_INLINE void cut_lanes(place *at, unsigned f) {
  at->low = at->bytes - at->first >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (at->bytes - at->first)) - 1;
  at->next = _mm512_mask_add_epi8(at->shift, ~at->low, at->shift, _mm512_set1_epi8((char)f));
}

GPTVQ_INLINE void first_set(place *at, unsigned bits, size_t indices) {
  const __m512i byte = _mm512_slli_epi16(_mm512_and_si512(gptvq_iota512(), _mm512_set1_epi8(7)), 3);
  unsigned below = 0;
#pragma GCC unroll 4
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    *at = (place){.bytes = indices / 8 * f, .shift = _mm512_sub_epi8(byte, _mm512_set1_epi8((char)below))};
    cut_lanes(at++, f);
    below += f;
  }
}

GPTVQ_INLINE void next_set(place *at, unsigned bits) {
#pragma GCC unroll 4
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    at->first += 64;
    if (at->first >= at->bytes) {
      at->first -= at->bytes;
      at->shift = _mm512_add_epi8(at->shift, _mm512_set1_epi8((char)f));
    }
    cut_lanes(at++, f);
  }
}

GPTVQ_INLINE bool set_crosses(const place *at, unsigned bits) {
  __mmask64 low = ~(__mmask64)0;
  for (int i = 0; i < __builtin_popcount(bits); i++) low &= at[i].low;
  return ~low != 0;
}

/* The codes of a set; what lies beyond the last column is garbage. `crosses` (a constant): the end of a
 * field's block. */
GPTVQ_INLINE __m512i codes_of_set(const place *at, const uint8_t *unit, unsigned bits, int crosses) {
  __m512i code = _mm512_setzero_si512();
  unsigned below = 0;
#pragma GCC unroll 4
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    __m512i v;
    if (crosses) {
      v = _mm512_maskz_loadu_epi8(at->low, unit + at->first);
      v = _mm512_mask_loadu_epi8(v, ~at->low, unit + at->first - at->bytes);
    } else {
      v = _mm512_loadu_si512(unit + at->first);
    }
    if (f < 8) v = _mm512_multishift_epi64_epi8(crosses ? at->next : at->shift, v);
    code =
        below == 0 ? v : _mm512_ternarylogic_epi32(_mm512_set1_epi8((char)((1 << below) - 1)), code, v, 0xca);
    below += f;
    unit += at->bytes;
    at++;
  }
  return bits == 8 ? code : _mm512_and_si512(code, _mm512_set1_epi8((char)((1 << bits) - 1)));
}

/* A chunk of blocks from `block` on: products of the scales, and their part of the correction. */
GPTVQ_INLINE void scales_of_rows(const gptvq_uniform_rows *job, size_t row, size_t rows, size_t block,
                                 unsigned bits, float scales[ROWS][CHUNK], __m512 *corrections) {
  gptvq_uniform_row r = job->row;
  const size_t left = r.blocks - block;
  const __mmask16 lanes = (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1u);
  const __m512 x_scales = _mm512_maskz_loadu_ps(lanes, r.x_scales + block),
               x_sums = _mm512_maskz_loadu_ps(lanes, r.x_sums + block);
  r.zero_at += row * r.blocks;
  r.scales += row * r.blocks + block;
  for (size_t i = 0; i < rows; i++, r.scales += r.blocks, r.zero_at += r.blocks) {
    const __m512 scale = _mm512_mul_ps(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, r.scales)), x_scales);
    _mm512_store_ps(scales[i], scale);
    corrections[i] =
        _mm512_fmadd_ps(_mm512_mul_ps(scale, zero_points(&r, block, bits, lanes)), x_sums, corrections[i]);
  }
}

/* The stripe 8 KiB further on, and the numbers of one soon to come: streams too thin for the hardware to
 * follow. */
GPTVQ_INLINE void fetch_rows(const gptvq_uniform_rows *job, size_t row, size_t rows) {
  enum { NUMBERS_AHEAD = 1024 };
  const uint8_t *units = job->row.unit + row * job->unit_bytes;
  for (size_t i = 0; i < rows * job->unit_bytes; i += 64) gptvq_fetch_ahead(units + i);
  const char *scales = (const char *)(job->row.scales + row * job->row.blocks);
  for (size_t i = 0; i < rows * job->row.blocks * sizeof(uint16_t); i += 64)
    _mm_prefetch(scales + NUMBERS_AHEAD + i, _MM_HINT_T0);
}

GPTVQ_INLINE void add_set(const place *at, const uint8_t *units, size_t unit_bytes, size_t rows,
                          unsigned bits, __m512i x, int crosses, __m512i *totals) {
#pragma GCC unroll 8
  for (size_t r = 0; r < rows; r++)
    totals[r] = _mm512_dpbusd_epi32(totals[r], codes_of_set(at, units + r * unit_bytes, bits, crosses), x);
}

/* `rows` (a constant) rows from `row` on. */
GPTVQ_INLINE void multiply_stripe(const gptvq_uniform_rows *job, size_t row, unsigned bits, int narrow,
                                  size_t rows) {
  _Alignas(64) float scales[ROWS][CHUNK];
  const gptvq_uniform_row *first = &job->row;
  const uint8_t *units = first->unit + row * job->unit_bytes;
  const size_t per_part = first->bytes / 64, sets = per_part * (8 / first->field),
               per_block = first->blocks == 1 ? sets
                           : narrow           ? 1
                                              : first->block / 64;
  place at[FIELDS];
  __m512 sums[ROWS], corrections[ROWS], parts[ROWS] = {_mm512_setzero_ps()};
#pragma GCC unroll 8
  for (size_t r = 0; r < ROWS; r++) sums[r] = corrections[r] = _mm512_setzero_ps();
  fetch_rows(job, row, rows);
  first_set(at, bits, job->indices);
  for (size_t block = 0, set = 0, part_end = per_part; set < sets; block += CHUNK) {
    scales_of_rows(job, row, rows, block, bits, scales, corrections);
    for (size_t b = 0; b < CHUNK && set < sets; b += narrow ? 2 : 1) {
      const size_t end = set + per_block < sets ? set + per_block : sets;
      __m512i totals[ROWS];
#pragma GCC unroll 8
      for (size_t r = 0; r < rows; r++) totals[r] = _mm512_setzero_si512();
      for (; set < end; set++, next_set(at, bits)) {
        const __m512i x = _mm512_load_si512(first->x + 64 * set);
        if (set_crosses(at, bits)) add_set(at, units, job->unit_bytes, rows, bits, x, 1, totals);
        else add_set(at, units, job->unit_bytes, rows, bits, x, 0, totals);
      }
#pragma GCC unroll 8
      for (size_t r = 0; r < rows; r++) {
        __m512 scale = _mm512_set1_ps(scales[r][b]);
        if (narrow) scale = _mm512_mask_broadcastss_ps(scale, 0xff00, _mm_load_ss(&scales[r][b + 1]));
        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(totals[r]), scale, sums[r]);
      }
      if (set != part_end || sets == per_part) continue;
      part_end += per_part;
#pragma GCC unroll 8
      for (size_t r = 0; r < rows; r++) {
        if (set > per_part) sums[r] = _mm512_add_ps(parts[r], sums[r]);
        if (set == sets) continue;
        parts[r] = sums[r];
        sums[r] = _mm512_setzero_ps();
      }
    }
  }
  const __m256 y = _mm256_sub_ps(gptvq_fold8x16(sums), gptvq_fold8x16(corrections));
  _mm256_mask_storeu_ps(job->y + row, (__mmask8)((1u << rows) - 1u), y);
}

#include "kernels/x86/uniform_stripes.h"

GPTVQ_BITS_8(STRIPES)

/* Rows of whole sets whose fields have 64 bytes or more; those in parts are read once per part, so that a
 * stripe must stay in the first-level cache. */
static bool uniform_rows(const gptvq_uniform_rows *job) {
  enum { PARTS_BYTES = 8 << 10 };
  static void (*const run[8])(const gptvq_uniform_rows *) = {stripes_1, stripes_2, stripes_3, stripes_4,
                                                             stripes_5, stripes_6, stripes_7, stripes_8};
  const gptvq_uniform_row *row = &job->row;
  const unsigned least = row->bits & -row->bits;
  if (job->indices / 8 * least < 64) return false;
  if (!gptvq_uniform_whole_sets(row) && row->block != 32) return false;
  if (row->field < 8 && ROWS * job->unit_bytes > PARTS_BYTES) return false;
  run[row->bits - 1](job);
  return true;
}

void gptvq_kernels_init_uniform_avx512(gptvq_kernel_table *table) {
  table->uniform_row = uniform_row;
  table->uniform_rows = uniform_rows;
}
