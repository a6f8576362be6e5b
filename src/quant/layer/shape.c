/* The shape that a layer gets. docs/METHOD.md, "Sizes". */
#include "base/memory.h"
#include "quant/layer/layer.h"
#include "quant/options/options.h"

#include <string.h>

/* Columns of the widest group that options allow, a multiple of *multiple. */
static size_t widest_group(const gptvq_quantize_options *o, size_t *multiple) {
  *multiple = gptvq_max_size(8, o->scale_block);
  if (o->code == GPTVQ_CODE_TRELLIS) return o->group_cols;
  return gptvq_min_size(o->group_cols, gptvq_max_size(*multiple, o->group_size / *multiple * *multiple));
}

/* Columns of the least number of groups when all are as equal as can be. */
static size_t even_columns(size_t cols, const gptvq_quantize_options *o) {
  size_t multiple, widest = widest_group(o, &multiple);
  if (cols <= widest) return cols;
  return gptvq_round_up(gptvq_ceil_div(cols, gptvq_ceil_div(cols, widest)), multiple);
}

/* Kernels are made for whole groups: those come first, if what remains is whole sets of 64 columns as well;
 * else groups are even. */
size_t gptvq_group_columns(size_t cols, const gptvq_resolved *options) {
  enum { SET = 64 };
  const gptvq_quantize_options *o = &options->options;
  if (gptvq_is_uniform(o)) return cols;
  size_t multiple, widest = widest_group(o, &multiple);
  return cols > widest && widest % SET == 0 && cols % SET == 0 ? widest : even_columns(cols, o);
}

gptvq_status gptvq_layer_shape(size_t rows, size_t cols, const gptvq_resolved *options,
                               gptvq_packed_shape *shape, gptvq_error *err) {
  const gptvq_quantize_options *o = &options->options;
  if (rows == 0 || cols == 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "a layer of %zu x %zu values is empty", rows, cols);
  memset(shape, 0, sizeof *shape);
  shape->rows = rows;
  shape->cols = cols;
  shape->dim = o->dim;
  shape->index_bits = o->index_bits;
  shape->permuted = o->act_order == 1 && (o->method == GPTVQ_METHOD_GPTVQ || o->method == GPTVQ_METHOD_GPTQ);
  shape->group_cols = gptvq_group_columns(cols, options);
  if (gptvq_is_uniform(o)) {
    shape->kind = GPTVQ_PACKED_UNIFORM;
    shape->group_rows = 1;
    shape->scale_block = (unsigned)gptvq_min_size(o->group_size, cols);
  } else if (o->code == GPTVQ_CODE_TRELLIS) {
    shape->kind = GPTVQ_PACKED_TRELLIS;
    shape->codebook_bits = o->codebook_bits;
    shape->group_rows = rows;
  } else {
    shape->kind = GPTVQ_PACKED_VQ;
    shape->codebook_bits = o->codebook_bits;
    shape->scale_block = o->scale_block;
    /* stripes of l / width rows of groups of mean width, the nearest number, then evened out over the rows */
    size_t width = even_columns(cols, o), stripe = gptvq_max_size(1, (o->group_size + width / 2) / width);
    size_t stripes = rows > stripe ? (rows + stripe / 2) / stripe : 1;
    shape->group_rows = gptvq_ceil_div(rows, stripes);
    if (gptvq_ceil_div(rows, shape->group_rows) != stripes)
      shape->group_rows = stripe; /* many low stripes: rounding up would tell */
    size_t tiles = gptvq_ceil_div(rows, shape->group_rows) * gptvq_ceil_div(cols, shape->group_cols);
    shape->svd_rank = (unsigned)gptvq_min_size(o->svd_rank, tiles);
  }
  return gptvq_packed_check(shape, "layer", err);
}
