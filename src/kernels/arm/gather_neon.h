/* kernels/arm/gather_neon.h: centroids of codebooks that no TBL holds: whole ones are loaded, one by one,
 * through the integer side of the processor, which look-ups leave idle. Meant to be inlined with constant
 * `dim` (2 or 4) and `wide`.
 *
 * An index brings its components side by side. A chunk of 16 indices therefore comes in `dim` parts of 16
 * bytes, part p with indices 4 L + p · 4/dim … of lane L = 0 … 3, and activations are brought into the same
 * order once per tile. */
#ifndef GPTVQ_KERNELS_GATHER_NEON_H
#define GPTVQ_KERNELS_GATHER_NEON_H

#include "kernels/arm/lookup_neon.h"

/* The 256 activations of a group, [component][256 / dim], in the order of the parts of its chunks. */
INLINE void gptvq_order_inputs_neon(const int8_t *x, unsigned dim, int8_t ordered[256]) {
  const size_t n = 256 / dim, each = 4 / dim; /* indices of a lane in one part */
  for (size_t i = 0; i < n; i++)
    for (size_t e = 0; e < dim; e++)
      ordered[i / 16 * 16 * dim + i % 4 / each * 16 + i % 16 / 4 * 4 + i % each * dim + e] = x[e * n + i];
}

/* Index i of 8 bytes of indices, `wide` ones of 16 bits. */
INLINE uint64_t gptvq_pick_index(uint64_t word, unsigned i, bool wide) {
  return wide ? word >> (16 * i) & 0xffff : word >> (8 * i) & 0xff;
}

INLINE uint64_t gptvq_load_centroid(const int8_t *codebook, unsigned dim, uint64_t index) {
  uint16_t two;
  uint32_t four;
  if (dim == 2) {
    memcpy(&two, codebook + 2 * index, 2);
    return two;
  }
  memcpy(&four, codebook + 4 * index, 4);
  return four;
}

/* Lane L of part p of the chunk whose indices stand at `indices`. */
INLINE uint64_t gptvq_gather_lane(const int8_t *codebook, unsigned dim, const uint64_t words[4], bool wide,
                                  unsigned lane, unsigned p) {
  const unsigned each = 4 / dim, per_word = wide ? 4 : 8;
  uint64_t value = 0;
  for (unsigned i = 0; i < each; i++) {
    const unsigned at = 4 * lane + p * each + i;
    value |= gptvq_load_centroid(codebook, dim, gptvq_pick_index(words[at / per_word], at % per_word, wide))
             << (8 * dim * i);
  }
  return value;
}

INLINE void gptvq_gather_chunk(const int8_t *codebook, unsigned dim, const void *indices, bool wide,
                               int8x16_t *parts) {
  uint64_t words[4] = {0};
  memcpy(words, indices, wide ? 32 : 16);
  for (unsigned p = 0; p < dim; p++) {
    uint64_t half[2];
    for (unsigned h = 0; h < 2; h++)
      half[h] = gptvq_gather_lane(codebook, dim, words, wide, 2 * h, p) |
                gptvq_gather_lane(codebook, dim, words, wide, 2 * h + 1, p) << 32;
    parts[p] = vreinterpretq_s8_u64(vcombine_u64(vcreate_u64(half[0]), vcreate_u64(half[1])));
  }
}

#endif
