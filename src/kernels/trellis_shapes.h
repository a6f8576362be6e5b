/* kernels/trellis_shapes.h: one function for each number of bits that a trellis has per weight (2 to 4), made
 * of a function that has it as its last argument or its second one and is inlined with a constant, and the
 * one that picks it. For the files of the levels' kernels. */
#ifndef GPTVQ_KERNELS_TRELLIS_SHAPES_H
#define GPTVQ_KERNELS_TRELLIS_SHAPES_H

#include "kernels/trellis.h"

/* static void trellis_rows(job), of an all_rows(job, k) */
#define GPTVQ_TRELLIS_ROWS() \
  static void trellis_rows_2(const gptvq_trellis_rows *job) { all_rows(job, 2); } \
  static void trellis_rows_3(const gptvq_trellis_rows *job) { all_rows(job, 3); } \
  static void trellis_rows_4(const gptvq_trellis_rows *job) { all_rows(job, 4); } \
  static void trellis_rows(const gptvq_trellis_rows *job) { \
    static void (*const functions[3])(const gptvq_trellis_rows *) = {trellis_rows_2, trellis_rows_3, \
                                                                     trellis_rows_4}; \
    functions[job->index_bits - 2](job); \
  }

/* static void trellis_codes(stream, index_bits, begin, count, table, codes), of a
 * row_codes(stream, k, begin, count, table, codes) */
#define GPTVQ_TRELLIS_CODES_OF(k) \
  static void trellis_codes_##k(const uint8_t *stream, size_t begin, size_t count, const int8_t *table, \
                                int8_t *codes) { \
    row_codes(stream, k, begin, count, table, codes); \
  }
#define GPTVQ_TRELLIS_CODES() \
  GPTVQ_TRELLIS_CODES_OF(2) \
  GPTVQ_TRELLIS_CODES_OF(3) \
  GPTVQ_TRELLIS_CODES_OF(4) \
  static void trellis_codes(const uint8_t *stream, unsigned index_bits, size_t begin, size_t count, \
                            const int8_t *table, int8_t *codes) { \
    static void (*const functions[3])(const uint8_t *, size_t, size_t, const int8_t *, \
                                      int8_t *) = {trellis_codes_2, trellis_codes_3, trellis_codes_4}; \
    functions[index_bits - 2](stream, begin, count, table, codes); \
  }

#endif
