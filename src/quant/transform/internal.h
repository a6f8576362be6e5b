/* quant/transform/internal.h: between the parts of quant/transform/transform.h. */
#ifndef GPTVQ_QUANT_TRANSFORM_INTERNAL_H
#define GPTVQ_QUANT_TRANSFORM_INTERNAL_H

#include "quant/transform/transform.h"

/* One tensor of the transformed model: the source's columns multiplied by `gain`, and every `across->n` of
 * them rotated; then every `down->n` of the rows [down_begin, down_end). A vector has one column. */
typedef struct gptvq_edit {
  char *name; /* owned */
  const gptvq_tensor *source;
  gptvq_tensor_type type; /* of the new tensor */
  size_t rows, cols;
  bool unit_gain;    /* all values become those of a norm with the gain 1, and nothing else happens */
  const float *gain; /* [cols] or NULL */
  const gptvq_rotation *across, *down; /* or NULL */
  size_t down_begin, down_end;
} gptvq_edit;

/* Tensors that change, sorted by name (transform.c). */
typedef struct gptvq_edits {
  gptvq_edit *items;
  size_t count, room;
} gptvq_edits;
gptvq_status gptvq_edits_create(const gptvq_transform *transform, gptvq_edits *edits, gptvq_error *err);
void gptvq_edits_release(gptvq_edits *edits);
const gptvq_edit *gptvq_edits_find(const gptvq_edits *edits, const char *name); /* NULL: unchanged */

#endif
