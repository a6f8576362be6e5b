/* kernels/trellis_shapes.h: one function for each shape of a trellis (2 to 4 bits a weight, windows of 6 to 8
 * bits), made of a function that has both as its last arguments and is inlined with constants, and the one
 * that picks it. For the files of the levels' kernels. */
#ifndef GPTVQ_KERNELS_TRELLIS_SHAPES_H
#define GPTVQ_KERNELS_TRELLIS_SHAPES_H

#define GPTVQ_TRELLIS_STATE_BITS(X, k) X(k, 6) X(k, 7) X(k, 8)
#define GPTVQ_TRELLIS_SHAPES(X) \
  GPTVQ_TRELLIS_STATE_BITS(X, 2) GPTVQ_TRELLIS_STATE_BITS(X, 3) GPTVQ_TRELLIS_STATE_BITS(X, 4)

/* static void trellis_rows(job), of an all_rows(job, k, state_bits) */
#define GPTVQ_TRELLIS_ROWS_OF(k, bits) \
  static void trellis_##k##_##bits(const gptvq_trellis_rows *job) { all_rows(job, k, bits); }
#define GPTVQ_TRELLIS_ROWS_ENTRY(k, bits) [k - 2][bits - 6] = trellis_##k##_##bits,
#define GPTVQ_TRELLIS_ROWS() \
  GPTVQ_TRELLIS_SHAPES(GPTVQ_TRELLIS_ROWS_OF) \
  static void trellis_rows(const gptvq_trellis_rows *job) { \
    static void (*const functions[3][3])(const gptvq_trellis_rows *) = { \
        GPTVQ_TRELLIS_SHAPES(GPTVQ_TRELLIS_ROWS_ENTRY)}; \
    functions[job->index_bits - 2][job->state_bits - 6](job); \
  }

/* static void trellis_codes(stream, index_bits, state_bits, begin, count, values, codes), of a
 * row_codes(stream, k, state_bits, begin, count, values, codes) */
#define GPTVQ_TRELLIS_CODES_OF(k, bits) \
  static void codes_##k##_##bits(const uint8_t *stream, size_t begin, size_t count, const int8_t *values, \
                                 int8_t *codes) { \
    row_codes(stream, k, bits, begin, count, values, codes); \
  }
#define GPTVQ_TRELLIS_CODES_ENTRY(k, bits) [k - 2][bits - 6] = codes_##k##_##bits,
#define GPTVQ_TRELLIS_CODES() \
  GPTVQ_TRELLIS_SHAPES(GPTVQ_TRELLIS_CODES_OF) \
  static void trellis_codes(const uint8_t *stream, unsigned index_bits, unsigned state_bits, size_t begin, \
                            size_t count, const int8_t *values, int8_t *codes) { \
    static void (*const functions[3][3])(const uint8_t *, size_t, size_t, const int8_t *, \
                                         int8_t *) = {GPTVQ_TRELLIS_SHAPES(GPTVQ_TRELLIS_CODES_ENTRY)}; \
    functions[index_bits - 2][state_bits - 6](stream, begin, count, values, codes); \
  }

#endif
