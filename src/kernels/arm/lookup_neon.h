/* kernels/arm/lookup_neon.h: indices of packed units and their centroids with TBL, 16 at a time. Everything
 * here is meant to be inlined with constant `bits`, `dim` and `n`, so that shifts become immediates and
 * tables stay in registers.
 *
 * Indices of 1, 2 and 4 bits are looked up by nibbles: a nibble holds 4 / bits indices, and a 16-entry table
 * per index of the nibble and component answers for it without taking the nibble apart. Wider indices are put
 * together from their fields. */
#ifndef GPTVQ_KERNELS_LOOKUP_NEON_H
#define GPTVQ_KERNELS_LOOKUP_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* ---- tables ---- */
typedef struct gptvq_tables_neon {
  int8x16x4_t part[4][4]; /* [component][64 entries each]; nibbles: val[o] of [component][0] for index o of
                             the nibble */
} gptvq_tables_neon;

/* `bytes` bytes, zeros behind */
INLINE int8x16_t gptvq_load_part(const int8_t *from, size_t bytes) {
  int8_t copy[16] = {0};
  if (bytes >= 16) return vld1q_s8(from);
  memcpy(copy, from, bytes);
  return vld1q_s8(copy);
}

/* Entry (i >> shift) mod k, component e, of a codebook of at most 16 bytes, for i = 0 … 15. */
INLINE int8x16_t gptvq_small_table(int8x16_t raw, unsigned k, unsigned dim, unsigned shift, unsigned e) {
  static const uint8_t iota[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const uint8x16_t entry = (vld1q_u8(iota) >> (uint8_t)shift) & (uint8_t)(k - 1);
  return vqtbl1q_s8(raw, entry * (uint8_t)dim + (uint8_t)e);
}

/* codebook[k][dim] to planes, one per component. */
INLINE void gptvq_load_tables_neon(const int8_t *codebook, unsigned bits, unsigned dim,
                                   gptvq_tables_neon *t) {
  const unsigned k = 1u << bits;
  if (k * dim <= 16) {
    const int8x16_t raw = gptvq_load_part(codebook, k * dim);
    for (unsigned e = 0; e < dim; e++)
      for (unsigned o = 0; o < (bits <= 2 ? 4 / bits : 1); o++)
        t->part[e][0].val[o] = gptvq_small_table(raw, k, dim, o * bits, e);
    return;
  }
  int8_t padded[64] = {0}; /* 8 entries of 4 components */
  if (k < 16) codebook = memcpy(padded, codebook, k * dim);
  for (unsigned i = 0; i < (k + 15) / 16; i++) {
    const int8_t *from = codebook + 16 * dim * i;
    int8x16_t plane[4];
    if (dim == 1) {
      plane[0] = vld1q_s8(from);
    } else if (dim == 2) {
      int8x16x2_t two = vld2q_s8(from);
      plane[0] = two.val[0], plane[1] = two.val[1];
    } else {
      int8x16x4_t four = vld4q_s8(from);
      plane[0] = four.val[0], plane[1] = four.val[1], plane[2] = four.val[2], plane[3] = four.val[3];
    }
    for (unsigned e = 0; e < dim; e++) t->part[e][i / 4].val[i % 4] = plane[e];
  }
}

/* Component e of the entries at `index`, which must be clean. */
INLINE int8x16_t gptvq_look_up_neon(const gptvq_tables_neon *t, unsigned bits, unsigned e, uint8x16_t index) {
  const int8x16x4_t *part = t->part[e];
  if (bits <= 4) return vqtbl1q_s8(part[0].val[0], index);
  if (bits == 5) return vqtbl2q_s8((int8x16x2_t){{part[0].val[0], part[0].val[1]}}, index);
  int8x16_t found =
      vqtbl4q_s8(part[0], index); /* 0 where the index is out of range; vqtbx would take longer */
  for (unsigned i = 1; i < (1u << bits) / 64; i++)
    found = vorrq_s8(found, vqtbl4q_s8(part[i], index - (uint8_t)(64 * i)));
  return found;
}

/* ---- indices ---- */
/* Indices at … at + 15 of a unit of n; the fields' bytes must be multiples of 16. */
INLINE uint8x16_t gptvq_indices_neon(const uint8_t *unit, unsigned bits, size_t n, size_t at) {
  const uint8_t all = (uint8_t)((1u << bits) - 1u);
  if (bits == 5 || bits == 6) { /* a nibble and one or two bits */
    const unsigned f = bits - 4;
    const size_t low = n / 2, high = n / 8 * f;
    const uint8x16_t nibbles = vld1q_u8(unit + at % low), rest = vld1q_u8(unit + low + at % high);
    const int place = (int)(f * (at / high)); /* of the field in its byte */
    if (at < low) return vsliq_n_u8(nibbles, place > 0 ? rest >> (uint8_t)place : rest, 4) & all;
    const uint8x16_t above = place > 4   ? rest >> (uint8_t)(place - 4)
                             : place < 4 ? rest << (uint8_t)(4 - place)
                                         : rest;
    const uint8x16_t joined = vsriq_n_u8(above, nibbles, 4);
    return place + (int)f == 8 && place >= 4 ? joined : joined & all;
  }
  uint8x16_t index = vdupq_n_u8(0);
  unsigned shift = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t size = n / 8 * f;
    const unsigned down = (unsigned)(f * (at / size));
    uint8x16_t v = vld1q_u8(unit + at % size);
    if (down != 0) v = v >> (uint8_t)down;
    if (down + f < 8) v = v & (uint8_t)((1u << f) - 1u);
    index = shift == 0 ? v : index | v << (uint8_t)shift;
    unit += size;
    shift += f;
  }
  return index;
}

#endif
