/* kernels/x86/trellis_tables.h: both tables of a column group of a trellis, also for indices whose halves
 * have changed places. */
#ifndef GPTVQ_KERNELS_X86_TRELLIS_TABLES_H
#define GPTVQ_KERNELS_X86_TRELLIS_TABLES_H

#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <stdint.h>

typedef struct gptvq_trellis_tables {
  __m128i first, second, first_swapped, second_swapped;
} gptvq_trellis_tables;

/* entries: first[16], second[16]. With `flip` = 0x80 sums of an entry each are values + 128. */
GPTVQ_INLINE gptvq_trellis_tables gptvq_load_trellis_tables(const int8_t *entries, int flip) {
  const __m128i first = _mm_loadu_si128((const void *)entries),
                second =
                    _mm_xor_si128(_mm_loadu_si128((const void *)(entries + 16)), _mm_set1_epi8((char)flip)),
                swap = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return (gptvq_trellis_tables){first, second, _mm_shuffle_epi8(first, swap), _mm_shuffle_epi8(second, swap)};
}

#endif
