#include "kernels/multi/row_values.h"

#include <math.h>
#include <string.h>

void GPTVQ_MULTI(gptvq_unpack_words)(const uint8_t *unit, size_t n, unsigned bits, uint16_t *indices) {
  unsigned shift = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t size = n / 8 * f;
    const unsigned mask = (1u << f) - 1u;
    for (unsigned part = 0; part < 8 / f; part++) {
      uint16_t *out = indices + part * size;
      if (shift == 0)
        for (size_t j = 0; j < size; j++) out[j] = (uint16_t)((unsigned)unit[j] >> (f * part) & mask);
      else
        for (size_t j = 0; j < size; j++)
          out[j] = (uint16_t)(out[j] | ((unsigned)unit[j] >> (f * part) & mask) << shift);
    }
    unit += size;
    shift += f;
  }
}

/* One part of a field block, eight bytes at a time; the last eight may be done twice. */
static inline uint64_t load8(const uint8_t *from) {
  uint64_t word;
  memcpy(&word, from, 8);
  return word;
}
static inline void unpack_part(const uint8_t *block, size_t size, unsigned down, uint64_t mask, unsigned up,
                               uint8_t *out) {
  if (size < 8) {
    for (size_t j = 0; j < size; j++) {
      const unsigned field = ((unsigned)block[j] >> down & (unsigned)(mask & 255)) << up;
      out[j] = (uint8_t)(up == 0 ? field : out[j] | field);
    }
    return;
  }
  const size_t words = size / 8, last = size - 8;
  uint64_t word;
  if (up == 0) {
    for (size_t j = 0; j < words; j++) {
      word = load8(block + 8 * j) >> down & mask;
      memcpy(out + 8 * j, &word, 8);
    }
    word = load8(block + last) >> down & mask;
    memcpy(out + last, &word, 8);
    return;
  }
  const uint64_t end = load8(out + last); /* before it is changed */
  for (size_t j = 0; j < words; j++) {
    word = load8(out + 8 * j) | (load8(block + 8 * j) >> down & mask) << up;
    memcpy(out + 8 * j, &word, 8);
  }
  word = end | (load8(block + last) >> down & mask) << up;
  memcpy(out + last, &word, 8);
}

void GPTVQ_MULTI(gptvq_unpack_bytes)(const uint8_t *unit, size_t n, unsigned bits, uint8_t *indices) {
  unsigned up = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t size = n / 8 * f;
    const uint64_t mask = (1u << f) - 1u;
    for (unsigned part = 0; part < 8 / f; part++)
      unpack_part(unit, size, f * part, mask * 0x0101010101010101u, up, indices + part * size);
    unit += size;
    up += f;
  }
}

/* inlined with constant dim */
static inline void look_up(const int8_t *codebook, const uint16_t *indices, size_t n, size_t dim,
                           int8_t *out) {
  for (size_t i = 0; i < n; i++) memcpy(out + i * dim, codebook + indices[i] * dim, dim);
}

void GPTVQ_MULTI(gptvq_tile_codes)(const gptvq_tile *tile, int8_t *codes, size_t stride) {
  uint16_t indices[GPTVQ_TILE_MAX_WIDTH];
  const int8_t *codebook = tile->codebook;
  for (size_t row = 0; row < tile->rows; row++, codes += stride) {
    GPTVQ_MULTI(gptvq_unpack_words)
    (tile->units + row * tile->unit_bytes, tile->indices, tile->index_bits, indices);
    if (tile->dim == 1) look_up(codebook, indices, tile->indices, 1, codes);
    else if (tile->dim == 2) look_up(codebook, indices, tile->indices, 2, codes);
    else look_up(codebook, indices, tile->indices, 4, codes);
  }
}

/* Whole centroids are fetched and then taken apart, which the compiler vectorises. */
void GPTVQ_MULTI(gptvq_planar_codes)(const gptvq_tile *tile, size_t row, size_t plane, int8_t *codes) {
  int8_t centroids[GPTVQ_TILE_CODES];
  gptvq_tile one = *tile;
  one.units += row * tile->unit_bytes;
  one.rows = 1;
  const size_t n = tile->indices;
  GPTVQ_MULTI(gptvq_tile_codes)(&one, centroids, 0);
  if (tile->dim == 1) memcpy(codes, centroids, n);
  else if (tile->dim == 2)
    for (size_t i = 0; i < n; i++) codes[i] = centroids[2 * i], codes[plane + i] = centroids[2 * i + 1];
  else
    for (size_t i = 0; i < n; i++) {
      codes[i] = centroids[4 * i];
      codes[plane + i] = centroids[4 * i + 1];
      codes[2 * plane + i] = centroids[4 * i + 2];
      codes[3 * plane + i] = centroids[4 * i + 3];
    }
  for (size_t e = 0; e < tile->dim; e++) memset(codes + e * plane + n, 0, plane - n);
}

void GPTVQ_MULTI(gptvq_scale_codes)(const int8_t *codes, size_t n, float scale, float *out) {
  for (size_t i = 0; i < n; i++) out[i] = (float)codes[i] * scale;
}

void GPTVQ_MULTI(gptvq_scale_uniform)(const uint8_t *codes, size_t n, int zero, float scale, float *out) {
  for (size_t i = 0; i < n; i++) out[i] = scale * (float)((int)codes[i] - zero);
}

void GPTVQ_MULTI(gptvq_multiply)(float *values, size_t n, float factor) {
  for (size_t i = 0; i < n; i++) values[i] *= factor;
}
