#include "kernels/multi/trellis_lanes.h"

#include <math.h>

enum { CHUNK = 256, LANES = 16, LANE = 16 };

/* inlined with constant bits */
static inline void look_up(const uint8_t *stream, unsigned k, unsigned bits, size_t begin, size_t count,
                           const int8_t *table, int8_t *codes) {
  const unsigned mask = (1u << bits) - 1u;
  for (size_t c = 0; c < count;
       c += 8) { /* eight columns are k whole bytes; their windows begin one byte earlier */
    const size_t n = count - c < 8 ? count - c : 8, at = (begin + c) * k / 8;
    uint64_t word = at > 0 ? stream[at - 1] : 0;
    for (size_t i = 0; i < (n * k + 7) / 8; i++) word |= (uint64_t)stream[at + i] << (8 * i + 8);
    if (n == 8)
      for (unsigned i = 0; i < 8; i++) codes[c + i] = table[word >> (8 + k * (i + 1) - bits) & mask];
    else
      for (unsigned i = 0; i < n; i++) codes[c + i] = table[word >> (8 + k * (i + 1) - bits) & mask];
  }
}

void GPTVQ_MULTI(gptvq_window_codes)(const uint8_t *stream, unsigned index_bits, unsigned state_bits,
                                     size_t begin, size_t count, const int8_t *table, int8_t *codes) {
  if (index_bits == 2) look_up(stream, 2, state_bits, begin, count, table, codes);
  else if (index_bits == 3) look_up(stream, 3, state_bits, begin, count, table, codes);
  else look_up(stream, 4, state_bits, begin, count, table, codes);
}

void GPTVQ_MULTI(gptvq_add_lanes)(size_t chunks, const int8_t *codes, const int8_t *x, float scale,
                                  float *sums) {
  int32_t totals[LANES] = {0};
  for (size_t chunk = 0; chunk < chunks; chunk++, codes += CHUNK, x += CHUNK)
    for (size_t lane = 0; lane < LANES; lane++) {
      int32_t sum = 0;
      for (size_t i = 0; i < LANE; i++) sum += (int16_t)codes[LANE * lane + i] * (int16_t)x[LANE * lane + i];
      totals[lane] += sum;
    }
  for (size_t lane = 0; lane < LANES; lane++) sums[lane] = fmaf((float)totals[lane], scale, sums[lane]);
}
