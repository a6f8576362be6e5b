/* Trellis rows: states and bit streams, scales of rows. */
#include "format/packed.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

size_t gptvq_trellis_row_bytes(const gptvq_packed_shape *shape) {
  return gptvq_ceil_div(shape->cols * shape->index_bits, 8);
}

uint8_t gptvq_row_scale_code(double scale) {
  if (!(scale > 0.0)) return 0;
  int exponent;
  double mantissa = frexp(scale, &exponent);                       /* 0.5 … 1 */
  int code = (int)fmin(16.0 * (mantissa * 2.0 - 1.0) + 0.5, 16.0); /* 16: the next power of two */
  double whole = (exponent - 1.0 + 8.0) * 16.0 + code;
  return (uint8_t)fmin(255.0, fmax(1.0, whole));
}

void gptvq_trellis_states(const uint8_t *stream, unsigned index_bits, size_t begin, size_t count,
                          uint8_t *states) {
  for (size_t i = 0; i < count; i++) {
    size_t end = (begin + i + 1) * index_bits; /* of the window */
    size_t byte = (end - 1) / 8;
    unsigned bits = (unsigned)stream[byte] << 8 | (byte > 0 ? stream[byte - 1] : 0u);
    states[i] = (uint8_t)(bits >> (end - 8 * byte));
  }
}

void gptvq_trellis_pack(const uint8_t *states, size_t cols, unsigned index_bits, uint8_t *stream) {
  memset(stream, 0, gptvq_ceil_div(cols * index_bits, 8));
  for (size_t c = 0; c < cols; c++) {
    unsigned own = (unsigned)states[c] >> (GPTVQ_TRELLIS_STATE_BITS - index_bits);
    size_t at = c * index_bits;
    stream[at / 8] = (uint8_t)(stream[at / 8] | own << at % 8);
    if (at % 8 + index_bits > 8) stream[at / 8 + 1] = (uint8_t)(own >> (8 - at % 8));
  }
}

size_t gptvq_trellis_find_overflow(const int8_t *tables, size_t groups) {
  for (size_t g = 0; g < groups; g++) {
    int low[2] = {127, 127}, high[2] = {-128, -128};
    for (size_t i = 0; i < GPTVQ_TRELLIS_TABLE; i++) {
      const int value = tables[g * GPTVQ_TRELLIS_TABLE + i], table = i >= GPTVQ_TRELLIS_TABLE / 2;
      if (value < low[table]) low[table] = value;
      if (value > high[table]) high[table] = value;
    }
    if (low[0] + low[1] < -127 || high[0] + high[1] > 127) return g;
  }
  return groups;
}
