/* kernels/x86/plan_avx512.h: indices of units of any n <= 256 with AVX-512 VBMI. Where the bytes of a set's
 * indices lie and how they are shifted depends on n alone; it is worked out once for many units. Meant to be
 * inlined with constant `bits`. */
#ifndef GPTVQ_KERNELS_PLAN_AVX512_H
#define GPTVQ_KERNELS_PLAN_AVX512_H

#include "format/tile.h"
#include "kernels/x86/lookup_avx512.h"

enum { GPTVQ_PLAN_SETS = 4 };

/* One field of f bits, a block of `bytes` bytes. Lane i of set s has index 64 s + i. Blocks of up to 64 bytes
 * are loaded once per unit and their bytes brought to the lanes by `byte`; longer ones are loaded for every
 * set, from `first` on into the lanes of `mask` and from the block's beginning on into those above. Then
 * vpmultishiftqb moves each lane's field to its place in the index. */
typedef struct gptvq_field512 {
  __m512i byte[GPTVQ_PLAN_SETS], control[GPTVQ_PLAN_SETS];
  __mmask64 mask[GPTVQ_PLAN_SETS];
  size_t first[GPTVQ_PLAN_SETS], bytes;
} gptvq_field512;

typedef struct gptvq_plan512 {
  size_t n, sets;
  gptvq_field512 field[3];
} gptvq_plan512;

GPTVQ_INLINE __mmask64 gptvq_lanes512(size_t n) { return n >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << n) - 1; }

static inline void gptvq_plan_field512(unsigned f, unsigned shift, size_t n, gptvq_field512 *field) {
  const size_t bytes = n / 8 * f;
  const __m512i base = _mm512_slli_epi16(_mm512_and_si512(gptvq_iota512(), _mm512_set1_epi8(7)), 3);
  field->bytes = bytes;
  for (size_t s = 0; 64 * s < n; s++) {
    const size_t part = 64 * s / bytes, first = 64 * s % bytes;
    field->first[s] = first;
    field->mask[s] = f == 8 ? gptvq_lanes512(n - 64 * s) : gptvq_lanes512(bytes - first);
    if (f == 8) continue;
    __m512i parts = _mm512_set1_epi8((char)part), byte;
    if (bytes > 64) {
      byte = _mm512_setzero_si512(); /* not used */
      parts = _mm512_mask_add_epi8(parts, ~field->mask[s], parts, _mm512_set1_epi8(1));
    } else { /* (first + lane) mod bytes, and how often it goes in */
      const __m512i size = _mm512_set1_epi8((char)bytes);
      byte = _mm512_add_epi8(gptvq_iota512(), _mm512_set1_epi8((char)first));
      for (__mmask64 over; (over = _mm512_cmpge_epu8_mask(byte, size)) != 0;) {
        byte = _mm512_mask_sub_epi8(byte, over, byte, size);
        parts = _mm512_mask_add_epi8(parts, over, parts, _mm512_set1_epi8(1));
      }
    }
    __m512i control = _mm512_sub_epi8(base, _mm512_set1_epi8((char)shift)); /* taken modulo 64 */
    for (unsigned i = 0; i < f; i++) control = _mm512_add_epi8(control, parts);
    field->byte[s] = byte;
    field->control[s] = control;
  }
}

static inline void gptvq_plan_unit512(unsigned bits, size_t n, gptvq_plan512 *plan) {
  unsigned shift = 0, field = 0;
  plan->n = n;
  plan->sets = (n + 63) / 64;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    gptvq_plan_field512(f, shift, n, &plan->field[field++]);
    shift += f;
  }
}

/* What a plan says of its `sets` (a constant, all of them) sets, where fields other than of 8 bits have at
 * most 64 bytes, for the compiler to keep in registers: from memory it would take it again for every row,
 * because the sums that are stored might overlap it. */
GPTVQ_INLINE void gptvq_take_plan512(const gptvq_plan512 *plan, unsigned bits, size_t sets,
                                     gptvq_plan512 *few) {
  few->n = plan->n;
  few->sets = sets;
  for (size_t f = 0; f < (size_t)__builtin_popcount(bits); f++) {
    const gptvq_field512 *from = &plan->field[f];
    gptvq_field512 *to = &few->field[f];
    to->bytes = from->bytes;
    if (to->bytes > 64 && bits < 8) __builtin_unreachable();
    for (size_t s = 0; s < sets; s++) {
      to->byte[s] = from->byte[s];
      to->control[s] = from->control[s];
      to->mask[s] = from->mask[s];
      to->first[s] = from->first[s];
    }
  }
}

/* The bytes of a unit that all its sets come from. */
typedef struct gptvq_unit512 {
  const uint8_t *at[3];
  __m512i block[3]; /* where it is short enough */
} gptvq_unit512;

GPTVQ_INLINE void gptvq_load_unit512(const gptvq_plan512 *plan, unsigned bits, const uint8_t *unit,
                                     gptvq_unit512 *loaded) {
  unsigned field = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t bytes = plan->field[field].bytes;
    loaded->at[field] = unit;
    if (f < 8) loaded->block[field] = _mm512_maskz_loadu_epi8(gptvq_lanes512(bytes), unit);
    unit += bytes;
    field++;
  }
}

/* Indices 64 · set … + 63, one per byte; bits above `bits` and what lies beyond the unit are garbage. */
GPTVQ_INLINE __m512i gptvq_planned_indices512(const gptvq_plan512 *plan, const gptvq_unit512 *unit,
                                              unsigned bits, size_t set) {
  unsigned shift = 0, i = 0;
  __m512i index = _mm512_setzero_si512();
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const gptvq_field512 *field = &plan->field[i];
    const __mmask64 mask = field->mask[set];
    __m512i v;
    if (f == 8) {
      v = _mm512_maskz_loadu_epi8(mask, unit->at[i] + 64 * set);
    } else {
      if (field->bytes <= 64) v = _mm512_permutexvar_epi8(field->byte[set], unit->block[i]);
      else {
        v = _mm512_maskz_loadu_epi8(mask, unit->at[i] + field->first[set]);
        v = _mm512_mask_loadu_epi8(v, ~mask, unit->at[i] + field->first[set] - field->bytes);
      }
      v = _mm512_multishift_epi64_epi8(field->control[set], v);
    }
    index = shift == 0
                ? v
                : _mm512_ternarylogic_epi32(_mm512_set1_epi8((char)((1 << shift) - 1)), index, v, 0xca);
    shift += f;
    i++;
  }
  return index;
}

#endif
