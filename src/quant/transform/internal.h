/* quant/transform/internal.h: between the parts of quant/transform/transform.h. */
#ifndef GPTVQ_QUANT_TRANSFORM_INTERNAL_H
#define GPTVQ_QUANT_TRANSFORM_INTERNAL_H

#include "quant/transform/transform.h"

/* Fills transform->value_order and mlp_order (order.c) for sub-vectors of dim columns; see
 * gptvq_transform_create. */
gptvq_status gptvq_transform_orders(gptvq_transform *transform, const gptvq_token_windows *windows,
                                    unsigned dim, gptvq_stream_place place, const gptvq_callbacks *callbacks,
                                    gptvq_error *err);
/* A block's part of value_order, an expert's of mlp_order; NULL where there is none. */
uint32_t *gptvq_block_value_order(const gptvq_transform *transform, size_t block);
uint32_t *gptvq_expert_order(const gptvq_transform *transform, size_t block, size_t expert);

/* One tensor of the transformed model: row r of the new one is row order(r) of the source, its columns
 * gathered, multiplied by `gain`, and every `across->n` of them rotated; then every `down->n` of the rows
 * [down_begin, down_end). A vector has one column. */
typedef struct gptvq_edit {
  char *name; /* owned */
  const gptvq_tensor *source;
  gptvq_tensor_type type; /* of the new tensor */
  size_t rows, cols;
  bool unit_gain;            /* all values become those of a norm with the gain 1, and nothing else happens */
  const float *gain;         /* [cols] or NULL */
  const uint32_t *col_order; /* [cols] new → old, or NULL */
  const gptvq_rotation *across, *down; /* or NULL */
  size_t down_begin, down_end;
  const uint32_t
      *row_order; /* [order_count], for order_parts runs of so many rows from row order_begin on; or NULL */
  size_t order_begin, order_count, order_parts;
} gptvq_edit;

/* Is what heads give gated value by value before o_proj? Then neither a rotation nor an order can pass. */
bool gptvq_heads_are_gated(const gptvq_model *model);

/* Tensors that change, sorted by name, and column orders made for them (transform.c). */
typedef struct gptvq_edits {
  gptvq_edit *items;
  size_t count, room;
  uint32_t *o_order; /* [layers][heads · head_dim], owned, or NULL */
} gptvq_edits;
gptvq_status gptvq_edits_create(const gptvq_transform *transform, gptvq_edits *edits, gptvq_error *err);
void gptvq_edits_release(gptvq_edits *edits);
const gptvq_edit *gptvq_edits_find(const gptvq_edits *edits, const char *name); /* NULL: unchanged */

#endif
