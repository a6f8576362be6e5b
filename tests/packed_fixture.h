/* tests/packed_fixture.h: random packed layers of a given shape, for tests of layout, files and kernels. */
#ifndef GPTVQ_TESTS_PACKED_FIXTURE_H
#define GPTVQ_TESTS_PACKED_FIXTURE_H

#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "format/packed.h"

#include <stdlib.h>
#include <string.h>

typedef struct fixture {
  gptvq_packed packed;
  gptvq_packed_sizes sizes;
  void *blocks[12];
  size_t count;
} fixture;

/* never of size 0, so that "present" and "not NULL" are the same */
static inline void *fixture_array(fixture *f, size_t count, size_t size) {
  void *block = calloc(count + 1, size);
  if (block == NULL) abort();
  f->blocks[f->count++] = block;
  return block;
}

/* Random tables of a trellis of which one takes a random part of the range, the other one the rest. */
static inline void fixture_trellis_tables(int8_t *tables, size_t groups, uint64_t *seed) {
  for (size_t g = 0; g < groups; g++) {
    const unsigned older = (unsigned)gptvq_random_below(seed, 128);
    for (unsigned i = 0; i < GPTVQ_TRELLIS_TABLE; i++) {
      const unsigned most = i < GPTVQ_TRELLIS_TABLE / 2 ? older : 127 - older;
      *tables++ = (int8_t)((int)gptvq_random_below(seed, 2 * most + 1) - (int)most);
    }
  }
}

/* Random contents everywhere (index padding included: readers must not use it). The shape must pass
 * gptvq_packed_check. */
static inline fixture fixture_make(const gptvq_packed_shape *shape, uint64_t seed) {
  fixture f;
  memset(&f, 0, sizeof f);
  f.packed.shape = *shape;
  gptvq_packed_measure(shape, &f.sizes);
  uint8_t *indices = fixture_array(&f, f.sizes.index_bytes, 1);
  for (size_t i = 0; i < f.sizes.index_bytes; i++) indices[i] = (uint8_t)gptvq_random(&seed);
  f.packed.indices = indices;
  if (shape->kind != GPTVQ_PACKED_UNIFORM) {
    int8_t *codes = fixture_array(&f, f.sizes.codebook_values, 2);
    uint16_t *halves = (uint16_t *)(void *)codes, *scales = fixture_array(&f, f.sizes.codebook_scales, 2);
    for (size_t i = 0; i < f.sizes.codebook_values; i++) {
      if (shape->codebook_bits == 8) codes[i] = (int8_t)((int)gptvq_random_below(&seed, 255) - 127);
      else halves[i] = gptvq_float_to_fp16((float)(2.0 * gptvq_random_unit(&seed) - 1.0));
    }
    if (shape->kind == GPTVQ_PACKED_TRELLIS) fixture_trellis_tables(codes, f.sizes.column_groups, &seed);
    for (size_t i = 0; i < f.sizes.codebook_scales; i++)
      scales[i] = gptvq_float_to_bf16((float)(0.5 + gptvq_random_unit(&seed)));
    f.packed.codebooks = codes;
    f.packed.codebook_scales = scales;
    if (shape->svd_rank > 0) {
      int8_t *left = fixture_array(&f, f.sizes.left_bytes, 1),
             *right = fixture_array(&f, f.sizes.right_bytes, 1);
      float *steps = fixture_array(&f, shape->svd_rank, sizeof *steps);
      for (size_t i = 0; i < f.sizes.left_bytes; i++)
        left[i] = (int8_t)((int)gptvq_random_below(&seed, 255) - 127);
      for (size_t i = 0; i < f.sizes.right_bytes; i++)
        right[i] = (int8_t)((int)gptvq_random_below(&seed, 255) - 127);
      for (size_t i = 0; i < shape->svd_rank; i++)
        steps[i] = (float)(1e-4 * (0.5 + gptvq_random_unit(&seed)));
      f.packed.codebook_left = left;
      f.packed.codebook_right = right;
      f.packed.factor_scales = steps;
      gptvq_codebooks_from_factors(f.sizes.codebook_scales, (size_t)1 << shape->index_bits, shape->svd_rank,
                                   left, right, steps, shape->codebook_bits, codes, scales);
    }
    if (shape->scale_block > 0) {
      uint8_t *codes4 = fixture_array(&f, f.sizes.block_scale_bytes, 1);
      float *range = fixture_array(&f, 2, sizeof *range);
      for (size_t i = 0; i < f.sizes.block_scale_bytes; i++) codes4[i] = (uint8_t)gptvq_random(&seed);
      range[0] = -2.5f;
      range[1] = 0.375f;
      f.packed.block_scales = codes4;
      f.packed.block_scale_range = range;
    }
    if (shape->kind == GPTVQ_PACKED_TRELLIS) {
      uint8_t *scales8 = fixture_array(&f, f.sizes.row_scale_bytes, 1);
      for (size_t i = 0; i < f.sizes.row_scale_bytes; i++)
        scales8[i] = gptvq_random_below(&seed, 16) == 0 ? 0 : (uint8_t)(100 + gptvq_random_below(&seed, 50));
      f.packed.row_scales = scales8;
    }
  } else {
    uint16_t *scales = fixture_array(&f, f.sizes.uniform_scales, 2);
    uint8_t *zeros = fixture_array(&f, f.sizes.zero_bytes, 1);
    for (size_t i = 0; i < f.sizes.uniform_scales; i++)
      scales[i] = gptvq_float_to_fp16((float)(0.01 + 0.1 * gptvq_random_unit(&seed)));
    for (size_t i = 0; i < f.sizes.zero_bytes; i++) zeros[i] = (uint8_t)gptvq_random(&seed);
    f.packed.scales = scales;
    f.packed.zeros = zeros;
  }
  if (shape->permuted) {
    uint32_t *permutation = fixture_array(&f, shape->cols, sizeof *permutation);
    for (size_t i = 0; i < shape->cols; i++) {
      size_t j = gptvq_random_below(&seed, i + 1);
      permutation[i] = permutation[j];
      permutation[j] = (uint32_t)i;
    }
    f.packed.permutation = permutation;
  }
  return f;
}

static inline void fixture_release(fixture *f) {
  for (size_t i = 0; i < f->count; i++) free(f->blocks[i]);
  memset(f, 0, sizeof *f);
}

/* Shapes with every kind of edge: narrow last column group, short last stripe, groups larger than the matrix,
 * odd columns. */
static const gptvq_packed_shape fixture_shapes[] = {
    {GPTVQ_PACKED_VQ, 16, 256, 2, 4, 4, 256, 8, 0, false, 0},
    {GPTVQ_PACKED_VQ, 13, 600, 2, 6, 4, 256, 8, 0, true, 0},
    {GPTVQ_PACKED_VQ, 7, 40, 1, 2, 7, 256, 8, 0, false, 0},
    {GPTVQ_PACKED_VQ, 5, 37, 1, 3, 2, 16, 16, 0, true, 0},
    {GPTVQ_PACKED_VQ, 9, 130, 4, 8, 5, 64, 8, 0, false, 0},
    {GPTVQ_PACKED_VQ, 3, 101, 4, 12, 3, 4096, 8, 0, true, 0},
    {GPTVQ_PACKED_VQ, 11, 320, 2, 5, 4, 128, 16, 16, true, 0},
    {GPTVQ_PACKED_VQ, 6, 72, 2, 7, 4, 32, 8, 32, false, 0},
    {GPTVQ_PACKED_VQ, 4, 50, 1, 1, 3, 24, 8, 8, true, 0},
    {GPTVQ_PACKED_VQ, 1, 1, 1, 1, 1, 8, 8, 0, false, 0},
    {GPTVQ_PACKED_VQ, 2, 9, 4, 9, 1, 8, 16, 4, true, 0},
    {GPTVQ_PACKED_VQ, 8, 52, 4, 10, 8, 24, 8, 12, false, 0},
    {GPTVQ_PACKED_VQ, 9, 80, 1, 3, 2, 32, 8, 0, false, 3},
    {GPTVQ_PACKED_VQ, 7, 50, 1, 2, 1, 24, 16, 8, true, 4},
    {GPTVQ_PACKED_VQ, 3, 20, 1, 8, 3, 64, 8, 4, true, 1},
    {GPTVQ_PACKED_VQ, 5, 33, 1, 1, 1, 8, 8, 0, false, 2},
    {GPTVQ_PACKED_VQ, 8, 52, 2, 11, 3, 64, 8, 20, false, 0},
    {GPTVQ_PACKED_UNIFORM, 6, 256, 1, 2, 1, 256, 0, 64, false, 0},
    {GPTVQ_PACKED_UNIFORM, 7, 75, 1, 3, 1, 80, 0, 32, true, 0},
    {GPTVQ_PACKED_UNIFORM, 3, 10, 1, 4, 1, 10, 0, 128, true, 0},
    {GPTVQ_PACKED_UNIFORM, 5, 33, 1, 8, 1, 33, 0, 1, false, 0},
    {GPTVQ_PACKED_UNIFORM, 1, 5, 1, 5, 1, 5, 0, 3, false, 0},
    {GPTVQ_PACKED_TRELLIS, 6, 512, 1, 2, 6, 256, 8, 0, false, 0},
    {GPTVQ_PACKED_TRELLIS, 5, 576, 1, 2, 5, 256, 8, 0, true, 0},
    {GPTVQ_PACKED_TRELLIS, 7, 333, 1, 3, 7, 128, 8, 0, false, 0},
    {GPTVQ_PACKED_TRELLIS, 3, 75, 1, 4, 3, 40, 8, 0, true, 0},
    {GPTVQ_PACKED_TRELLIS, 2, 1, 1, 3, 2, 8, 8, 0, false, 0},
};
enum { FIXTURE_SHAPES = sizeof fixture_shapes / sizeof fixture_shapes[0] };

#endif
