/* Uniform rows × int8 activations with AVX2: codes of up to 7 bits are the unsigned operand of vpmaddubsw as
 * they are; a pair of products is at most 2 · 127 · 127. */
#include "kernels/ref/ref.h"
#include "kernels/x86/fold_avx2.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

/* Zero points of 8 blocks as floats, field by field; they lie in 8 bytes unless a part of the unit ends
 * between them. */
GPTVQ_INLINE __m256 zero_points(const gptvq_uniform_row *row, size_t block, unsigned bits) {
  const size_t at = row->zero_at + block;
  const uint8_t *zeros = row->zeros;
  __m256i all = _mm256_setzero_si256();
  unsigned shift = 0;
#pragma GCC unroll 4
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t size = row->zero_count / 8 * f;
    size_t first = at;
    unsigned part = 0;
    for (; first >= size; first -= size) part++; /* up to 8 / f times; a division costs more */
    if (first + 8 > size) {
      uint16_t few[8];
      gptvq_unpack_range(row->zeros, row->zero_count, bits, at, 8, few);
      return _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)few)));
    }
    __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(zeros + first)));
    bytes = _mm256_srl_epi32(bytes, _mm_cvtsi32_si128((int)(part * f)));
    bytes = _mm256_and_si256(bytes, _mm256_set1_epi32((1 << f) - 1));
    all = _mm256_or_si256(all, _mm256_sll_epi32(bytes, _mm_cvtsi32_si128((int)shift)));
    zeros += size;
    shift += f;
  }
  return _mm256_cvtepi32_ps(all);
}

/* The products of the scales into scales[blocks]; the lanes of the correction. */
GPTVQ_INLINE void combine_scales(const gptvq_uniform_row *row, float *scales, __m256 correction[2]) {
  correction[0] = correction[1] = _mm256_setzero_ps();
  size_t b = 0;
  for (; b + 8 <= row->blocks; b += 8) {
    const __m256 weight = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(row->scales + b)));
    const __m256 scale = _mm256_mul_ps(weight, _mm256_loadu_ps(row->x_scales + b)),
                 product = _mm256_mul_ps(scale, zero_points(row, b, row->bits));
    _mm256_store_ps(scales + b, scale);
    correction[b / 8 % 2] = _mm256_fmadd_ps(product, _mm256_loadu_ps(row->x_sums + b), correction[b / 8 % 2]);
  }
  if (b == row->blocks) return;
  float last[8];
  uint16_t zeros[8];
  _mm256_storeu_ps(last, correction[b / 8 % 2]);
  gptvq_unpack_range(row->zeros, row->zero_count, row->bits, row->zero_at + b, row->blocks - b, zeros);
  for (size_t i = 0; b + i < row->blocks; i++) {
    scales[b + i] = _cvtsh_ss(row->scales[b + i]) * row->x_scales[b + i];
    last[i] = fmaf(scales[b + i] * (float)zeros[i], row->x_sums[b + i], last[i]);
  }
  scales[row->blocks] = 0.0f; /* blocks of 32 columns are taken two by two */
  correction[b / 8 % 2] = _mm256_loadu_ps(last);
}

/* Blocks of 32 columns are taken two by two: NARROW. */
enum { WHOLE_SETS, NARROW, BY_LANE };

/* sum + the products of four neighbouring bytes. `wide`: codes of 8 bits, as code − 128 and 128 */
GPTVQ_INLINE __m256i dot4(__m256i sum, __m256i code, __m256i x, int wide) {
  const __m256i ones = _mm256_set1_epi16(1);
  if (!wide) return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(code, x), ones));
  const __m256i w = _mm256_xor_si256(code, _mm256_set1_epi8((char)0x80));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)),
                x_pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), x);
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(x_pairs, _mm256_set1_epi16(128)));
}

/* `field` bits a code: 8 when they are unpacked. */
GPTVQ_INLINE float multiply_row(const gptvq_uniform_row *row, unsigned field, int how, int wide) {
  _Alignas(32) float scales[GPTVQ_UNIFORM_MAX_BLOCKS + 8];
  _Alignas(32) float by_lane[GPTVQ_UNIFORM_MAX_COLS / 4];
  __m256 correction[2];
  const size_t parts = 8 / field, step = how == WHOLE_SETS ? (row->block + 63) / 64 * 64 : 64,
               per_part = row->bytes / (how == NARROW ? 32 : step);
  const __m256i mask = _mm256_set1_epi8((char)((1 << field) - 1));
  combine_scales(row, scales, correction);
  if (how == BY_LANE) gptvq_uniform_spread(row, scales, by_lane);
  __m256 sums[4][2];
  for (size_t i = 0; i < parts; i++) sums[i][0] = sums[i][1] = _mm256_setzero_ps();
  size_t block = 0;
  for (size_t at = 0; at < row->bytes; at += step, block += how == NARROW ? 2 : 1) {
    const size_t end = field < 8 || at + step < row->bytes ? at + step : row->bytes;
    __m256i totals[4][2];
    for (size_t i = 0; i < parts; i++) totals[i][0] = totals[i][1] = _mm256_setzero_si256();
    for (size_t j = at; j < end; j += 64)
      for (size_t half = 0; half < 2; half++) {
        const __m256i bytes = _mm256_loadu_si256((const void *)(row->unit + j + 32 * half));
        for (size_t i = 0; i < parts; i++) {
          __m256i code = i == 0 ? bytes : _mm256_srli_epi16(bytes, (int)(i * field));
          if (field < 8) code = _mm256_and_si256(code, mask);
          __m256i x = _mm256_loadu_si256((const void *)(row->x + i * row->bytes + j + 32 * half));
          totals[i][half] = dot4(totals[i][half], code, x, wide);
        }
      }
    for (size_t i = 0; i < parts; i++)
      for (size_t half = 0; half < 2; half++) {
        const __m256 scale = how == BY_LANE
                                 ? _mm256_load_ps(by_lane + 16 * block + 8 * half)
                                 : _mm256_set1_ps(scales[i * per_part + block + (how == NARROW ? half : 0)]);
        sums[i][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[i][half]), scale, sums[i][half]);
      }
  }
  for (size_t half = 0; half < 2; half++)
    for (size_t i = 1; i < parts; i++) sums[0][half] = _mm256_add_ps(sums[0][half], sums[i][half]);
  return gptvq_fold_difference8(_mm256_add_ps(sums[0][0], sums[0][1]),
                                _mm256_add_ps(correction[0], correction[1]));
}

GPTVQ_INLINE float multiply_unpacked(const gptvq_uniform_row *row, int wide) {
  if (gptvq_uniform_whole_sets(row)) return multiply_row(row, 8, WHOLE_SETS, wide);
  return row->block == 32 ? multiply_row(row, 8, NARROW, wide) : multiply_row(row, 8, BY_LANE, wide);
}

static float uniform_row(const gptvq_uniform_row *row) {
  const bool narrow = row->block == 32;
  if (row->field == 4) return narrow ? multiply_row(row, 4, NARROW, 0) : multiply_row(row, 4, WHOLE_SETS, 0);
  if (row->field == 2) return narrow ? multiply_row(row, 2, NARROW, 0) : multiply_row(row, 2, WHOLE_SETS, 0);
  return row->bits == 8 ? multiply_unpacked(row, 1) : multiply_unpacked(row, 0);
}

/* ---- many rows ---- */

enum { ROWS = 8, CHUNK = 16 /* blocks whose scales are made at once */, FIELDS = 3, AHEAD = 8192 };

/* Where the codes of 32 columns lie in a field of f bits of a unit: in the bytes from `first` on, shifted by
 * part · f; where the field's block ends before, those that `high` takes from its beginning on and shifted by
 * f more. */
typedef struct place {
  size_t bytes, first, part;
  __m256i high;
} place;

GPTVQ_INLINE void first_place(place *at, unsigned bits, size_t indices) {
#pragma GCC unroll 4
  for (unsigned f = 4; f >= 1; f /= 2)
    if (bits & f) *at++ = (place){.bytes = indices / 8 * f};
}

GPTVQ_INLINE void next_place(place *at, unsigned bits) {
#pragma GCC unroll 4
  for (unsigned f = 4; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    at->first += 32;
    if (at->first >= at->bytes) {
      at->first -= at->bytes;
      at->part++;
    }
    at++;
  }
}

/* Does one of the fields' blocks end among the 32 columns? Then `high` is filled in. */
GPTVQ_INLINE bool place_crosses(place *at, unsigned bits) {
  bool crosses = false;
  for (int i = 0; i < __builtin_popcount(bits); i++) crosses = crosses || at[i].bytes - at[i].first < 32;
  for (int i = 0; crosses && i < __builtin_popcount(bits); i++) {
    const size_t low = at[i].bytes - at[i].first;
    at[i].high = _mm256_cmpgt_epi32(_mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28),
                                    _mm256_set1_epi32(low < 32 ? (int)low - 1 : 32));
  }
  return crosses;
}

/* Codes of 32 columns; what lies beyond the last column is garbage. */
GPTVQ_INLINE __m256i codes_at(const place *at, const uint8_t *unit, unsigned bits, int crosses) {
  __m256i code = _mm256_setzero_si256();
  unsigned below = 0;
#pragma GCC unroll 4
  for (unsigned f = 4; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const __m128i shift = _mm_cvtsi32_si128((int)(at->part * f));
    __m256i v;
    if (crosses) {
      const __m256i low = _mm256_xor_si256(at->high, _mm256_set1_epi32(-1));
      const uint8_t *from = unit + at->first;
      v = _mm256_srl_epi16(_mm256_maskload_epi32((const void *)from, low), shift);
      const __m256i w = _mm256_maskload_epi32((const void *)(from - at->bytes), at->high);
      v = _mm256_or_si256(v, _mm256_srl_epi16(w, _mm_cvtsi32_si128((int)((at->part + 1) * f))));
    } else {
      v = _mm256_srl_epi16(_mm256_loadu_si256((const void *)(unit + at->first)), shift);
    }
    v = _mm256_and_si256(v, _mm256_set1_epi8((char)((1 << f) - 1)));
    code = below == 0 ? v : _mm256_or_si256(code, _mm256_slli_epi16(v, (int)below));
    below += f;
    unit += at->bytes;
    at++;
  }
  return code;
}

GPTVQ_INLINE void add_columns(const place *at, const uint8_t *units, size_t unit_bytes, size_t rows,
                              unsigned bits, __m256i x, int crosses, __m256i *totals) {
#pragma GCC unroll 8
  for (size_t r = 0; r < rows; r++)
    totals[r] = dot4(totals[r], codes_at(at, units + r * unit_bytes, bits, crosses), x, 0);
}

/* Of up to 8 blocks from `block` on: products of the scales, and their part of the correction. */
GPTVQ_INLINE void scales_of_rows(const gptvq_uniform_rows *job, size_t row, size_t rows, size_t block,
                                 unsigned bits, float *scales, __m256 *corrections) {
  gptvq_uniform_row r = job->row;
  const size_t count = r.blocks - block < 8 ? r.blocks - block : 8;
  const __m256i lanes =
      _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  const __m256 x_scales = _mm256_maskload_ps(r.x_scales + block, lanes),
               x_sums = _mm256_maskload_ps(r.x_sums + block, lanes);
  r.zero_at += row * r.blocks;
  r.scales += row * r.blocks + block;
  for (size_t i = 0; i < rows; i++, r.scales += r.blocks, r.zero_at += r.blocks, scales += CHUNK) {
    __m128i halves;
    __m256 zeros;
    if (r.zero_at + block + 15 <= r.zero_count) { /* eight numbers can be read; they are rounded up to 8 */
      halves = _mm_loadu_si128((const void *)r.scales);
      zeros = zero_points(&r, block, bits);
    } else {
      uint16_t few[8] = {0}, of_zeros[8] = {0};
      memcpy(few, r.scales, count * sizeof *few);
      gptvq_unpack_range(r.zeros, r.zero_count, r.bits, r.zero_at + block, count, of_zeros);
      halves = _mm_loadu_si128((const void *)few);
      zeros = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)of_zeros)));
    }
    const __m256 scale = _mm256_mul_ps(_mm256_cvtph_ps(halves), x_scales);
    _mm256_store_ps(scales, scale);
    corrections[i] = _mm256_fmadd_ps(_mm256_mul_ps(scale, zeros), x_sums, corrections[i]);
  }
}

/* The stripe that comes so much later. */
GPTVQ_INLINE void fetch_rows(const gptvq_uniform_rows *job, size_t row, size_t rows) {
  const char *units = (const char *)(job->row.unit + row * job->unit_bytes);
  for (size_t i = 0; i < rows * job->unit_bytes; i += 64) _mm_prefetch(units + AHEAD + i, _MM_HINT_T1);
}

/* `rows` (a constant) rows from `row` on. */
GPTVQ_INLINE void multiply_stripe(const gptvq_uniform_rows *job, size_t row, unsigned bits, int narrow,
                                  size_t rows) {
  _Alignas(32) float scales[ROWS][CHUNK];
  const gptvq_uniform_row *first = &job->row;
  const uint8_t *units = first->unit + row * job->unit_bytes;
  const size_t per_part = first->bytes / 64, sets = per_part * (8 / first->field),
               per_block = first->blocks == 1 ? sets
                           : narrow           ? 1
                                              : first->block / 64;
  place at[2][FIELDS];
  __m256 sums[ROWS][2], parts[ROWS][2], corrections[2][ROWS];
  for (size_t r = 0; r < ROWS; r++)
    for (size_t half = 0; half < 2; half++)
      sums[r][half] = parts[r][half] = corrections[half][r] = _mm256_setzero_ps();
  fetch_rows(job, row, rows);
  first_place(at[0], bits, job->indices);
  first_place(at[1], bits, job->indices);
  next_place(at[1], bits);
  for (size_t block = 0, set = 0, part_end = per_part; set < sets; block += CHUNK) {
    scales_of_rows(job, row, rows, block, bits, scales[0], corrections[0]);
    if (block + 8 < first->blocks)
      scales_of_rows(job, row, rows, block + 8, bits, scales[0] + 8, corrections[1]);
    for (size_t b = 0, end; b < CHUNK && set < sets; b += narrow ? 2 : 1, set = end) {
      end = set + per_block < sets ? set + per_block : sets;
      for (size_t half = 0; half < 2; half++) {
        __m256i totals[ROWS];
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) totals[r] = _mm256_setzero_si256();
        for (size_t i = set; i < end; i++) {
          const __m256i x = _mm256_load_si256((const void *)(first->x + 64 * i + 32 * half));
          if (place_crosses(at[half], bits))
            add_columns(at[half], units, job->unit_bytes, rows, bits, x, 1, totals);
          else add_columns(at[half], units, job->unit_bytes, rows, bits, x, 0, totals);
          next_place(at[half], bits);
          next_place(at[half], bits);
        }
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++)
          sums[r][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[r]),
                                          _mm256_set1_ps(scales[r][b + (narrow ? half : 0)]), sums[r][half]);
      }
      if (end != part_end || sets == per_part) continue;
      for (size_t r = 0; r < rows; r++)
        for (size_t half = 0; half < 2; half++) {
          if (end > per_part) sums[r][half] = _mm256_add_ps(parts[r][half], sums[r][half]);
          if (end == sets) continue;
          parts[r][half] = sums[r][half];
          sums[r][half] = _mm256_setzero_ps();
        }
      part_end += per_part;
    }
  }
  __m256 left[8], right[8];
#pragma GCC unroll 8
  for (size_t r = 0; r < ROWS; r++) {
    left[r] = _mm256_add_ps(sums[r][0], sums[r][1]);
    right[r] = _mm256_add_ps(corrections[0][r], corrections[1][r]);
  }
  const __m256 y = _mm256_sub_ps(gptvq_fold8x8(left), gptvq_fold8x8(right));
  if (rows == ROWS) _mm256_storeu_ps(job->y + row, y);
  else job->y[row] = _mm256_cvtss_f32(y);
}

#include "kernels/x86/uniform_stripes.h"

STRIPES(1)
STRIPES(2)
STRIPES(3)
STRIPES(4)
STRIPES(5)
STRIPES(6)
STRIPES(7)

/* Rows of whole sets whose fields have 32 bytes or more, and whose ends masks of 4 bytes can cut out. */
static bool uniform_rows(const gptvq_uniform_rows *job) {
  static void (*const run[7])(const gptvq_uniform_rows *) = {stripes_1, stripes_2, stripes_3, stripes_4,
                                                             stripes_5, stripes_6, stripes_7};
  const gptvq_uniform_row *row = &job->row;
  const unsigned least = row->bits & -row->bits;
  if (row->bits == 8 || row->field < 8) return false;
  if (job->indices / 8 * least < 32 || job->indices / 8 * least % 4 != 0) return false;
  if (!gptvq_uniform_whole_sets(row) && row->block != 32) return false;
  run[row->bits - 1](job);
  return true;
}

void gptvq_kernels_init_uniform_avx2(gptvq_kernel_table *table) {
  table->uniform_row = uniform_row;
  table->uniform_rows = uniform_rows;
}
