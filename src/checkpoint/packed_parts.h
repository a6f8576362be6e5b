/* checkpoint/packed_parts.h: the tensors of a packed layer, one list for reader and writer. docs/FORMAT.md
 * gives their meaning. */
#ifndef GPTVQ_CHECKPOINT_PACKED_PARTS_H
#define GPTVQ_CHECKPOINT_PACKED_PARTS_H

#include "checkpoint/checkpoint.h"

/* In the order in which they stand in a file: the wide types first, so that they are rarely misaligned. */
enum gptvq_part {
  GPTVQ_PART_FACTOR_SCALES,
  GPTVQ_PART_BLOCK_SCALE_RANGE,
  GPTVQ_PART_CODEBOOK_SCALES,
  GPTVQ_PART_SCALES,
  GPTVQ_PART_PERMUTATION,
  GPTVQ_PART_CODEBOOKS,
  GPTVQ_PART_CODEBOOK_LEFT,
  GPTVQ_PART_CODEBOOK_RIGHT,
  GPTVQ_PART_INDICES,
  GPTVQ_PART_BLOCK_SCALES,
  GPTVQ_PART_ROW_SCALES,
  GPTVQ_PART_ZEROS,
  GPTVQ_PART_COUNT
};

typedef struct gptvq_packed_part {
  bool present;       /* this shape has the tensor */
  const char *suffix; /* ".indices" */
  gptvq_tensor_type type;
  size_t rank, dims[4];
} gptvq_packed_part;

/* For a checked shape. */
void gptvq_packed_parts(const gptvq_packed_shape *shape, gptvq_packed_part parts[GPTVQ_PART_COUNT]);

/* The array in memory; NULL where the shape has none. */
const void *gptvq_packed_part_data(const gptvq_packed *packed, enum gptvq_part part);

/* malloc'd "NAME" + "SUFFIX"; NULL when out of memory */
char *gptvq_part_name(const char *name, const char *suffix);

/* Key of a layer's description in __metadata__ is this + NAME. */
#define GPTVQ_PACKED_KEY "gptvq."

#endif
