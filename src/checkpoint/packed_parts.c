#include "checkpoint/packed_parts.h"
#include "base/memory.h"

#include <string.h>

void gptvq_packed_parts(const gptvq_packed_shape *shape, gptvq_packed_part parts[GPTVQ_PART_COUNT]) {
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(shape, &sizes);
  bool vq = shape->kind == GPTVQ_PACKED_VQ, trellis = shape->kind == GPTVQ_PACKED_TRELLIS,
       uniform = shape->kind == GPTVQ_PACKED_UNIFORM, scaled = vq && shape->scale_block > 0,
       factored = vq && shape->svd_rank > 0, codebooks = trellis || (vq && !factored);
  size_t k = trellis ? GPTVQ_TRELLIS_TABLE : (size_t)1 << shape->index_bits, s = sizes.stripes,
         g = sizes.column_groups;
  size_t rank = shape->svd_rank;
  parts[GPTVQ_PART_FACTOR_SCALES] =
      (gptvq_packed_part){factored, ".codebook_factor_scales", GPTVQ_T_F32, 1, {rank}};
  parts[GPTVQ_PART_CODEBOOK_LEFT] =
      (gptvq_packed_part){factored, ".codebook_left", GPTVQ_T_I8, 3, {s, g, rank}};
  parts[GPTVQ_PART_CODEBOOK_RIGHT] =
      (gptvq_packed_part){factored, ".codebook_right", GPTVQ_T_I8, 2, {rank, k}};
  parts[GPTVQ_PART_BLOCK_SCALE_RANGE] =
      (gptvq_packed_part){scaled, ".block_scale_range", GPTVQ_T_F32, 1, {2}};
  parts[GPTVQ_PART_CODEBOOK_SCALES] =
      (gptvq_packed_part){codebooks, ".codebook_scales", GPTVQ_T_BF16, 2, {s, g}};
  parts[GPTVQ_PART_SCALES] =
      (gptvq_packed_part){uniform,
                          ".scales",
                          GPTVQ_T_F16,
                          2,
                          {shape->rows, uniform ? gptvq_ceil_div(shape->cols, shape->scale_block) : 0}};
  parts[GPTVQ_PART_PERMUTATION] = (gptvq_packed_part){
      shape->permuted, ".permutation", shape->cols <= 65536 ? GPTVQ_T_U16 : GPTVQ_T_U32, 1, {shape->cols}};
  parts[GPTVQ_PART_CODEBOOKS] = (gptvq_packed_part){codebooks,
                                                    ".codebooks",
                                                    shape->codebook_bits == 8 ? GPTVQ_T_I8 : GPTVQ_T_F16,
                                                    4,
                                                    {s, g, k, shape->dim}};
  parts[GPTVQ_PART_INDICES] = (gptvq_packed_part){true, ".indices", GPTVQ_T_U8, 1, {sizes.index_bytes}};
  parts[GPTVQ_PART_BLOCK_SCALES] =
      (gptvq_packed_part){scaled, ".block_scales", GPTVQ_T_U8, 1, {sizes.block_scale_bytes}};
  parts[GPTVQ_PART_ROW_SCALES] = (gptvq_packed_part){trellis, ".row_scales", GPTVQ_T_U8, 2, {shape->rows, g}};
  parts[GPTVQ_PART_ZEROS] = (gptvq_packed_part){uniform, ".zeros", GPTVQ_T_U8, 1, {sizes.zero_bytes}};
}

const void *gptvq_packed_part_data(const gptvq_packed *p, enum gptvq_part part) {
  switch (part) {
  case GPTVQ_PART_FACTOR_SCALES: return p->factor_scales;
  case GPTVQ_PART_CODEBOOK_LEFT: return p->codebook_left;
  case GPTVQ_PART_CODEBOOK_RIGHT: return p->codebook_right;
  case GPTVQ_PART_BLOCK_SCALE_RANGE: return p->block_scale_range;
  case GPTVQ_PART_CODEBOOK_SCALES: return p->codebook_scales;
  case GPTVQ_PART_SCALES: return p->scales;
  case GPTVQ_PART_PERMUTATION: return p->permutation;
  case GPTVQ_PART_CODEBOOKS: return p->codebooks;
  case GPTVQ_PART_INDICES: return p->indices;
  case GPTVQ_PART_BLOCK_SCALES: return p->block_scales;
  case GPTVQ_PART_ROW_SCALES: return p->row_scales;
  case GPTVQ_PART_ZEROS: return p->zeros;
  case GPTVQ_PART_COUNT: break;
  }
  return NULL;
}

char *gptvq_part_name(const char *name, const char *suffix) {
  size_t a = strlen(name), b = strlen(suffix);
  char *text = malloc(a + b + 1);
  if (text == NULL) return NULL;
  memcpy(text, name, a);
  memcpy(text + a, suffix, b + 1);
  return text;
}
