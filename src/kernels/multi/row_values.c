#include "kernels/multi/row_values.h"

#include <string.h>

void GPTVQ_MULTI(gptvq_unpack_bytes)(const uint8_t *unit, size_t n, unsigned bits, uint8_t *indices) {
  unsigned shift = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t size = n / 8 * f;
    const unsigned mask = (1u << f) - 1u;
    for (unsigned part = 0; part < 8 / f; part++) {
      uint8_t *out = indices + part * size;
      if (shift == 0)
        for (size_t j = 0; j < size; j++) out[j] = (uint8_t)((unsigned)unit[j] >> (f * part) & mask);
      else
        for (size_t j = 0; j < size; j++) out[j] |= (uint8_t)(((unsigned)unit[j] >> (f * part) & mask) << shift);
    }
    unit += size;
    shift += f;
  }
}

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
        for (size_t j = 0; j < size; j++) out[j] = (uint16_t)(out[j] | ((unsigned)unit[j] >> (f * part) & mask) << shift);
    }
    unit += size;
    shift += f;
  }
}

static inline void look_up(const int8_t *codebook, const uint16_t *indices, size_t n, size_t dim, int8_t *out) {
  for (size_t i = 0; i < n; i++) memcpy(out + i * dim, codebook + indices[i] * dim, dim);
}

void GPTVQ_MULTI(gptvq_tile_codes)(const gptvq_tile *tile, int8_t *codes, size_t stride) {
  uint16_t indices[GPTVQ_TILE_MAX_WIDTH];
  const int8_t *codebook = tile->codebook;
  for (size_t row = 0; row < tile->rows; row++, codes += stride) {
    GPTVQ_MULTI(gptvq_unpack_words)(tile->units + row * tile->unit_bytes, tile->indices, tile->index_bits, indices);
    if (tile->dim == 1) look_up(codebook, indices, tile->indices, 1, codes);
    else if (tile->dim == 2) look_up(codebook, indices, tile->indices, 2, codes);
    else look_up(codebook, indices, tile->indices, 4, codes);
  }
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

/* The compiler maps these to whatever registers the level has. By pointer: passing them by value would depend on the level. */
typedef float floats __attribute__((vector_size(64)));
typedef int32_t words __attribute__((vector_size(64)));
typedef int8_t bytes __attribute__((vector_size(16)));

static inline void add_product_values(const float *values, const float *x, floats *sum) {
  floats v, w;
  memcpy(&v, values, sizeof v);
  memcpy(&w, x, sizeof w);
  *sum += v * w;
}
static inline void add_product_codes(const int8_t *codes, const float *x, floats *sum) {
  bytes v;
  floats w;
  memcpy(&v, codes, sizeof v);
  memcpy(&w, x, sizeof w);
  *sum += __builtin_convertvector(__builtin_convertvector(v, words), floats) * w;
}

static inline float fold(const floats *sums) {
  float lanes[16];
  floats sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
  memcpy(lanes, &sum, sizeof lanes);
  for (size_t half = 8; half > 0; half /= 2)
    for (size_t i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}

#define DOT(type, add_product)                                                                                       \
  floats sums[4] = {{0}, {0}, {0}, {0}};                                                                             \
  size_t i = 0;                                                                                                      \
  for (; i + 64 <= n; i += 64)                                                                                       \
    for (size_t j = 0; j < 4; j++) add_product(values + i + 16 * j, x + i + 16 * j, &sums[j]);                       \
  if (i < n) {                                                                                                       \
    type last[64] = {0};                                                                                             \
    float last_x[64] = {0};                                                                                          \
    memcpy(last, values + i, (n - i) * sizeof *last);                                                                \
    memcpy(last_x, x + i, (n - i) * sizeof *last_x);                                                                 \
    for (size_t j = 0; j < 4; j++) add_product(last + 16 * j, last_x + 16 * j, &sums[j]);                            \
  }                                                                                                                  \
  return fold(sums);

float GPTVQ_MULTI(gptvq_dot_codes)(const int8_t *values, const float *x, size_t n) { DOT(int8_t, add_product_codes) }
float GPTVQ_MULTI(gptvq_dot_values)(const float *values, const float *x, size_t n) { DOT(float, add_product_values) }
