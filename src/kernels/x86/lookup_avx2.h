/* kernels/x86/lookup_avx2.h: indices of packed units and their centroids, 32 at a time, with AVX2.
 * Everything here is meant to be inlined with constant `bits` (1 … 8), `dim` and `n`.
 *
 * Tables are 16 entries of one component each, in both halves of a register; shorter ones are repeated. */
#ifndef GPTVQ_KERNELS_LOOKUP_AVX2_H
#define GPTVQ_KERNELS_LOOKUP_AVX2_H

#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* More than 16 entries are searched for 16 at a time. A byte whose top bit is set finds 0: index − 16 t finds
 * something in part t where it has not become negative. Parts hold entry xor the entry 16 below, so that what
 * is found adds up to the entry. Indices from 128 on have parts of their own. */
typedef struct gptvq_table256 {
  __m256i part[4][16]; /* [component][16 entries each] */
} gptvq_table256;

/* 16 bytes of a table of `bytes` bytes that repeats itself */
GPTVQ_INLINE __m128i gptvq_repeated(const int8_t *table, size_t bytes, size_t at) {
  uint16_t two;
  uint32_t four;
  if (bytes >= 16) return _mm_loadu_si128((const void *)(table + at % bytes));
  if (bytes == 8) return _mm_set1_epi64x(*(const long long *)memcpy(&(long long){0}, table, 8));
  memcpy(&two, table, 2);
  if (bytes == 2) return _mm_set1_epi16((short)two);
  memcpy(&four, table, 4);
  return _mm_set1_epi32((int)four);
}

GPTVQ_INLINE void gptvq_load_table256(const int8_t *codebook, unsigned bits, unsigned dim,
                                      gptvq_table256 *table) {
  const size_t bytes = (size_t)dim << bits, parts = bits <= 4 ? 1 : (size_t)1 << (bits - 4);
  const __m128i low = _mm_set1_epi16(255);
  for (size_t p = 0; p < parts; p++) {
    __m128i raw[4], plane[4];
    for (size_t i = 0; i < dim; i++) raw[i] = gptvq_repeated(codebook, bytes, 16 * (p * dim + i));
    if (dim == 1) plane[0] = raw[0];
    for (size_t i = 0; 2 * i < dim;
         i++) { /* bytes apart: even ones to plane[i], odd ones to plane[i + 2] (or 1) */
      if (dim == 1) break;
      __m128i a = raw[2 * i], b = raw[2 * i + 1];
      plane[i] = _mm_packus_epi16(_mm_and_si128(a, low), _mm_and_si128(b, low));
      plane[dim / 2 + i] = _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8));
    }
    if (dim == 4) { /* components 0, 2 and 1, 3 side by side: apart once more */
      __m128i a = plane[0], b = plane[1], c = plane[2], d = plane[3];
      plane[0] = _mm_packus_epi16(_mm_and_si128(a, low), _mm_and_si128(b, low));
      plane[2] = _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8));
      plane[1] = _mm_packus_epi16(_mm_and_si128(c, low), _mm_and_si128(d, low));
      plane[3] = _mm_packus_epi16(_mm_srli_epi16(c, 8), _mm_srli_epi16(d, 8));
    }
    for (size_t e = 0; e < dim; e++) table->part[e][p] = _mm256_broadcastsi128_si256(plane[e]);
  }
  for (size_t e = 0; e < dim; e++)
    for (size_t p = parts - 1; p > 0; p--)
      if (p != 8) table->part[e][p] = _mm256_xor_si256(table->part[e][p], table->part[e][p - 1]);
}

/* 32 fields of f bits from number `at` on of a field block of `size` bytes, moved up by `shift` bits; other
 * bits are garbage. Blocks of 8 or 16 bytes are repeated, and each 8 bytes shifted as their part wants. */
GPTVQ_INLINE __m256i gptvq_fields256(const uint8_t *block, size_t size, unsigned f, size_t at,
                                     unsigned shift) {
  const long long part = (long long)(f * (at / size));
  if (size < 32) {
    __m256i v = size == 8 ? _mm256_set1_epi64x(*(const long long *)memcpy(&(long long){0}, block, 8))
                          : _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)block));
    const long long step = (long long)f;
    v = _mm256_srlv_epi64(v, size == 8
                                 ? _mm256_set_epi64x(part + 3 * step, part + 2 * step, part + step, part)
                                 : _mm256_set_epi64x(part + step, part + step, part, part));
    return _mm256_slli_epi16(v, (int)shift);
  }
  const int move = (int)part - (int)shift;
  __m256i v = _mm256_loadu_si256((const void *)(block + at % size));
  if (move > 0) v = _mm256_srli_epi16(v, move);
  if (move < 0) v = _mm256_slli_epi16(v, -move);
  return v;
}

/* Indices at … at + 31 of a unit of n. */
GPTVQ_INLINE __m256i gptvq_indices256(const uint8_t *unit, unsigned bits, size_t n, size_t at) {
  __m256i index = _mm256_setzero_si256();
  unsigned shift = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t size = n / 8 * f;
    __m256i v = gptvq_fields256(unit, size, f, at, shift);
    if (f < 8) v = _mm256_and_si256(v, _mm256_set1_epi8((char)(((1 << f) - 1) << shift)));
    index = shift == 0 ? v : _mm256_or_si256(index, v);
    unit += size;
    shift += f;
  }
  return index;
}

/* ---- units of any n ---- */

/* The fields of a unit's indices, each at its place in the index, one per byte: [field][room]. Beyond the
 * last index there is anything. `room` is a multiple of 64. */

/* One part of a field block: `size` bytes, the last few perhaps done twice. `onto`: to what is there. */
GPTVQ_INLINE void gptvq_spread_part256(const uint8_t *block, size_t size, unsigned f, unsigned part,
                                       unsigned shift, int onto, uint8_t *out) {
  const int move = (int)(f * part) - (int)shift;
  const __m256i mask = _mm256_set1_epi8((char)(((1 << f) - 1) << shift));
  if (size >= 32) {
    for (size_t j = 0;; j = j + 64 <= size ? j + 32 : size - 32) {
      __m256i v = _mm256_loadu_si256((const void *)(block + j));
      v = move < 0 ? _mm256_slli_epi16(v, -move) : _mm256_srli_epi16(v, move);
      if (f < 8) v = _mm256_and_si256(v, mask);
      if (onto) v = _mm256_or_si256(v, _mm256_loadu_si256((const void *)(out + j)));
      _mm256_storeu_si256((void *)(out + j), v);
      if (j + 32 == size) return;
    }
  }
  if (size >= 16) {
    for (size_t j = 0;; j = size - 16) {
      __m128i v = _mm_loadu_si128((const void *)(block + j));
      v = move < 0 ? _mm_slli_epi16(v, -move) : _mm_srli_epi16(v, move);
      if (f < 8) v = _mm_and_si128(v, _mm256_castsi256_si128(mask));
      if (onto) v = _mm_or_si128(v, _mm_loadu_si128((const void *)(out + j)));
      _mm_storeu_si128((void *)(out + j), v);
      if (j + 16 == size) return;
    }
  }
  for (size_t j = 0; j < size; j++) {
    const unsigned field = ((unsigned)block[j] >> (f * part) & ((1u << f) - 1u)) << shift;
    out[j] = (uint8_t)(onto ? out[j] | field : field);
  }
}

/* Room 0: the fields onto each other, which gives the indices. */
GPTVQ_INLINE void gptvq_spread_unit256(const uint8_t *unit, unsigned bits, size_t n, size_t room,
                                       uint8_t *fields) {
  unsigned shift = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t size = n / 8 * f;
    const unsigned parts = 8 / f;
#pragma GCC unroll 8
    for (unsigned part = 0; part < parts; part++)
      gptvq_spread_part256(unit, size, f, part, shift, room == 0 && shift > 0, fields + part * size);
    unit += size;
    fields += room;
    shift += f;
  }
}

/* Indices at … at + 31 from their fields. */
GPTVQ_INLINE __m256i gptvq_join_fields256(const uint8_t *fields, unsigned bits, size_t room, size_t at) {
  __m256i index = _mm256_loadu_si256((const void *)(fields + at));
  for (unsigned more = bits & (bits - 1); more != 0; more &= more - 1) {
    fields += room;
    index = _mm256_or_si256(index, _mm256_loadu_si256((const void *)(fields + at)));
  }
  return index;
}

/* Part t, and part 8 + t of 8-bit indices, into what was found before. */
GPTVQ_INLINE void gptvq_search_part256(const gptvq_table256 *table, unsigned bits, unsigned dim, size_t t,
                                       __m256i at[2], __m256i found[4][2], __m256i high[4][2]) {
  for (size_t i = 0; i < 2; i++) at[i] = _mm256_add_epi8(at[i], _mm256_set1_epi8(-16));
  for (unsigned e = 0; e < dim; e++)
    for (size_t i = 0; i < 2; i++) {
      found[e][i] = _mm256_xor_si256(found[e][i], _mm256_shuffle_epi8(table->part[e][t], at[i]));
      GPTVQ_KEEP(found[e][i]);
      if (bits == 8)
        high[e][i] = _mm256_xor_si256(high[e][i], _mm256_shuffle_epi8(table->part[e][8 + t], at[i]));
    }
}

/* found[e][i]: component e of the 32 indices index[i]; bits <= 6, or at most two components */
GPTVQ_INLINE void gptvq_look_up256(const gptvq_table256 *table, unsigned bits, unsigned dim,
                                   const __m256i index[2], __m256i found[4][2]) {
  __m256i at[2], high[4][2];
  for (size_t i = 0; i < 2; i++)
    at[i] = bits == 8 ? _mm256_and_si256(index[i], _mm256_set1_epi8(127)) : index[i];
  for (unsigned e = 0; e < dim; e++)
    for (size_t i = 0; i < 2; i++) {
      found[e][i] = _mm256_shuffle_epi8(table->part[e][0], at[i]);
      if (bits == 8) high[e][i] = _mm256_shuffle_epi8(table->part[e][8], at[i]);
    }
  if (bits == 5 || bits == 6) gptvq_search_part256(table, bits, dim, 1, at, found, high);
  if (bits == 6) {
    gptvq_search_part256(table, bits, dim, 2, at, found, high);
    gptvq_search_part256(table, bits, dim, 3, at, found, high);
  } else if (bits > 6) {
#pragma GCC unroll 1 /* sixteen registers are enough for one round only */
    for (size_t t = 1; t < 8; t++) gptvq_search_part256(table, bits, dim, t, at, found, high);
  }
  for (unsigned e = 0; bits == 8 && e < dim; e++)
    for (size_t i = 0; i < 2; i++) found[e][i] = _mm256_blendv_epi8(found[e][i], high[e][i], index[i]);
}

#endif
