/* One layer from weights to packed arrays: checks, set-up, the stages in order, packing, the reported error.
 */
#define _GNU_SOURCE
#include "base/clock.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "quant/layer/layer.h"

#include <math.h>
#include <string.h>

/* A round of update and sweeps that gains less than this fraction of the loss is the last; so is a sweep
 * inside a round. */
#define ROUND_GAIN 2e-3
#define SWEEP_GAIN 1e-3
#define MAX_BF16 0x1.fep127f
enum { MAX_SWEEPS = 4, PLAIN_EXPONENT = 30, PARTS = 11 };

void gptvq_layer_result_release(gptvq_layer_result *result) {
  free(result->storage);
  memset(result, 0, sizeof *result);
}

gptvq_status gptvq_packed_allocate(const gptvq_packed_shape *shape, gptvq_layer_result *result,
                                   gptvq_error *err) {
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(shape, &sizes);
  size_t parts[PARTS] = {sizes.index_bytes,
                         sizes.codebook_bytes,
                         2 * sizes.codebook_scales,
                         sizes.block_scale_bytes,
                         sizes.block_scale_bytes > 0 ? 2 * sizeof(float) : 0,
                         shape->permuted ? shape->cols * sizeof(uint32_t) : 0,
                         2 * sizes.uniform_scales,
                         sizes.zero_bytes,
                         sizes.left_bytes,
                         sizes.right_bytes,
                         shape->svd_rank * sizeof(float)};
  size_t total = 0;
  for (int i = 0; i < PARTS; i++) total += gptvq_round_up(parts[i], 64);
  char *at = result->storage = gptvq_alloc_zero(total, 1);
  if (at == NULL) return gptvq_fail_memory(err, "a packed layer", total);
  void *part[PARTS];
  for (int i = 0; i < PARTS; i++) {
    part[i] = parts[i] > 0 ? at : NULL;
    at += gptvq_round_up(parts[i], 64);
  }
  result->packed = (gptvq_packed){*shape,  part[0], part[1], part[2], part[3], part[4],
                                  part[5], part[6], part[7], part[8], part[9], part[10]};
  return GPTVQ_OK;
}

static gptvq_status check_weights(const char *name, size_t rows, size_t cols, const float *weights,
                                  gptvq_error *err) {
  for (size_t row = 0; row < rows; row++)
    for (size_t c = 0; c < cols; c++)
      if (!isfinite(weights[row * cols + c]))
        return gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "%s: the weight at row %zu, column %zu is %s", name, row,
                          c, isnan(weights[row * cols + c]) ? "NaN" : "infinite");
  return GPTVQ_OK;
}

/* tr(E H Eᵀ) and tr(W H Wᵀ) over slabs of rows, undamped H; without a factor the plain sums of squares */
gptvq_status gptvq_packed_error(const gptvq_packed *packed, const float *weights, const gptvq_factor *factor,
                                double *error, gptvq_error *err) {
  enum { SLAB = 256 };
  size_t rows = packed->shape.rows, cols = packed->shape.cols, n = factor != NULL ? factor->padded : cols;
  float *memory = gptvq_alloc(gptvq_min_size(SLAB, rows), (cols + 2 * n) * sizeof *memory);
  if (memory == NULL)
    return gptvq_fail_memory(err, "the layer error",
                             gptvq_saturated_size(SLAB, (cols + 2 * n) * sizeof *memory));
  size_t slab = gptvq_min_size(SLAB, rows);
  float *decoded = memory, *x = memory + slab * cols, *product = x + slab * n;
  double sums[2] = {0.0, 0.0};
  for (size_t first = 0; first < rows; first += slab) {
    size_t m = gptvq_min_size(slab, rows - first);
    gptvq_packed_decode_ref(packed, first, first + m, decoded, cols);
    for (int pass = 0; pass < 2; pass++) {
      for (size_t i = 0; i < m; i++)
        for (size_t c = 0; c < n; c++) {
          uint32_t column = factor != NULL ? factor->order[c] : (uint32_t)c;
          if (column == GPTVQ_NO_COLUMN) x[i * n + c] = 0.0f;
          else
            x[i * n + c] =
                weights[(first + i) * cols + column] - (pass == 0 ? decoded[i * cols + column] : 0.0f);
        }
      const float *y = x;
      if (factor != NULL) {
        gptvq_gemm_nn(m, n, n, 1.0f, x, n, factor->h, n, 0.0f, product, n);
        y = product;
      }
      for (size_t i = 0; i < m * n; i++) sums[pass] += (double)x[i] * (double)y[i];
    }
  }
  free(memory);
  *error = sums[0] <= 0.0 ? 0.0 : sums[1] > 0.0 ? sums[0] / sums[1] : 1.0;
  return GPTVQ_OK;
}

void gptvq_vq_release(gptvq_vq *q) {
  free(q->group);
  free(q->target);
  free(q->work);
  free(q->error);
  free(q->lookup);
  free(q->metric);
  free(q->index);
  free(q->centroids);
  free(q->codes);
  free(q->codebook_scales);
  free(q->block_scale_of);
  free(q->scale_codes);
  free(q->left);
  free(q->right);
  free(q->factor_scales);
}

static uint32_t input_column(const gptvq_vq *q, size_t c) {
  if (q->factor != NULL) return q->factor->order[c];
  return c < q->shape.cols ? (uint32_t)c : GPTVQ_NO_COLUMN;
}
static size_t storage_column(const gptvq_vq *q, size_t block) {
  size_t first = block * q->dim; /* the first column of a block is never a phantom */
  return q->factor != NULL && !q->factor->stored_permutation ? q->factor->order[first] : first;
}

/* The power of two that brings the largest weight near 1; 0 for weights of usual size, which stay as they
 * are. */
static int weight_exponent(size_t rows, size_t cols, const float *weights) {
  float most = 0.0f;
  for (size_t i = 0; i < rows * cols; i++) most = fmaxf(most, fabsf(weights[i]));
  if (most == 0.0f) return 0;
  int exponent = ilogbf(most);
  return exponent >= -PLAIN_EXPONENT && exponent <= PLAIN_EXPONENT ? 0 : exponent;
}

gptvq_status gptvq_vq_set_up(gptvq_vq *q, const float *weights, gptvq_error *err) {
  const gptvq_packed_shape *s = &q->shape;
  size_t cols = s->cols, d = s->dim;
  q->rows = s->rows;
  q->dim = s->dim;
  q->padded = gptvq_round_up(cols, d);
  q->blocks = q->padded / d;
  q->groups = gptvq_ceil_div(cols, s->group_cols);
  q->stripes = gptvq_ceil_div(q->rows, s->group_rows);
  q->k = (size_t)1 << s->index_bits;
  /* partial assignments can only be compared in the metric of the feedback */
  q->beam = q->options->hessian_weights ? gptvq_max_size(1, q->options->beam) : 1;
  q->scale_block = s->scale_block;
  size_t per_group = s->scale_block ? gptvq_ceil_div(gptvq_packed_width(s, 0), s->scale_block) : 0;
  q->scale_blocks = per_group * q->groups;
  size_t tiles = q->stripes * q->groups, values = q->k * d;
  q->group = gptvq_alloc(q->groups, sizeof *q->group);
  q->target = gptvq_alloc(q->rows, q->padded * sizeof *q->target);
  q->work = gptvq_alloc(q->rows, q->padded * sizeof *q->work);
  bool scores = q->factor != NULL || s->svd_rank > 0;
  q->error = scores ? gptvq_alloc(q->rows, q->padded * sizeof *q->error) : NULL;
  q->lookup = gptvq_alloc_zero(q->blocks, d * d * sizeof *q->lookup);
  q->metric = gptvq_alloc_zero(q->blocks, d * d * sizeof *q->metric);
  q->index = gptvq_alloc(q->rows, q->blocks * sizeof *q->index);
  q->centroids = gptvq_alloc(tiles, values * sizeof *q->centroids);
  q->codes = gptvq_alloc(tiles, values * s->codebook_bits / 8);
  q->codebook_scales = gptvq_alloc(tiles, sizeof *q->codebook_scales);
  q->block_scale_of = gptvq_alloc(q->blocks, sizeof *q->block_scale_of);
  q->scale_codes = gptvq_alloc_zero(q->rows, q->scale_blocks);
  q->left = gptvq_alloc(tiles, s->svd_rank);
  q->right = gptvq_alloc(q->k, s->svd_rank);
  q->factor_scales = gptvq_alloc(s->svd_rank, sizeof *q->factor_scales);
  if (q->left == NULL || q->right == NULL || q->factor_scales == NULL)
    return gptvq_fail_memory(err, q->name, gptvq_saturated_size(tiles, s->svd_rank));
  if (q->group == NULL || q->target == NULL || q->work == NULL || (scores && q->error == NULL) ||
      q->lookup == NULL || q->metric == NULL || q->index == NULL || q->centroids == NULL ||
      q->codes == NULL || q->codebook_scales == NULL || q->block_scale_of == NULL || q->scale_codes == NULL)
    return gptvq_fail_memory(err, q->name, gptvq_saturated_size(q->rows, q->padded * 3 * sizeof(float)));
  for (size_t g = 0, at = 0; g < q->groups; g++) {
    size_t id = storage_column(q, at / d) / s->group_cols;
    q->group[g] = (gptvq_group){id, at, gptvq_round_up(gptvq_packed_width(s, id), d)};
    at += q->group[g].width;
  }
  for (size_t b = 0; b < q->blocks; b++) {
    size_t column = storage_column(q, b), id = column / s->group_cols;
    q->block_scale_of[b] =
        s->scale_block ? (uint32_t)(id * per_group + (column - id * s->group_cols) / s->scale_block) : 0;
    for (size_t i = 0; i < d; i++)
      for (size_t j = i; j < d; j++) {
        double t = q->factor != NULL ? q->factor->metric[b * d * d + i * d + j] : i == j ? 1.0 : 0.0;
        bool phantom =
            input_column(q, b * d + i) == GPTVQ_NO_COLUMN || input_column(q, b * d + j) == GPTVQ_NO_COLUMN;
        if (i != j && !q->options->exact_metric) t = 0.0;
        q->metric[b * d * d + i * d + j] = (float)t;
        if (!q->options->hessian_weights) t = i == j ? 1.0 : 0.0;
        q->lookup[b * d * d + i * d + j] = phantom ? 0.0f : (float)t;
      }
  }
  q->exponent = weight_exponent(q->rows, cols, weights);
  for (size_t row = 0; row < q->rows; row++)
    for (size_t c = 0; c < q->padded; c++) {
      uint32_t column = input_column(q, c);
      float w = column == GPTVQ_NO_COLUMN ? 0.0f : weights[row * cols + column];
      q->target[row * q->padded + c] = q->exponent == 0 ? w : ldexpf(w, -q->exponent);
    }
  if (q->scale_block) gptvq_vq_scale_range(q);
  return GPTVQ_OK;
}

static gptvq_status update(gptvq_vq *q, double *loss, gptvq_error *err) {
  return q->rank > 0 ? gptvq_vq_update_factors(q, loss, err) : gptvq_vq_update(q, loss, err);
}

/* Rounds of codebook update and re-assignment sweeps; ends with an update, so that the codebooks fit the last
 * assignment. */
static gptvq_status refine(gptvq_vq *q, gptvq_error *err) {
  const gptvq_quantize_options *o = q->options;
  if (q->factor == NULL && q->rank > 0 && o->codebook_update)
    return update(q, &(double){0.0}, err); /* k-means */
  if (q->factor == NULL || (!o->codebook_update && o->reassign_rounds == 0)) return GPTVQ_OK;
  double loss = INFINITY, *row_loss = NULL;
  if (!o->codebook_update) {
    row_loss = gptvq_alloc(q->rows, sizeof *row_loss);
    if (row_loss == NULL) return gptvq_fail_memory(err, "re-assignment", q->rows * sizeof *row_loss);
    loss = gptvq_vq_loss(q, row_loss);
    free(row_loss);
  }
  for (unsigned round = 0;; round++) {
    double before = loss;
    if (o->codebook_update) GPTVQ_TRY(update(q, &loss, err));
    if (round >= o->reassign_rounds || (round > 0 && before - loss < ROUND_GAIN * loss && isfinite(before)))
      return GPTVQ_OK;
    double gained = 0.0, gain;
    for (int sweep = 0; sweep < MAX_SWEEPS; sweep++) {
      GPTVQ_TRY(gptvq_vq_reassign(q, &gain, err));
      gained += gain;
      if (q->beam > 1 || gain < SWEEP_GAIN * loss) break;
    }
    if (q->beam > 1) {
      GPTVQ_TRY(gptvq_vq_search(q, &gain, err));
      gained += gain;
    }
    if (!o->codebook_update) {
      loss -= gained;
      if (gained < ROUND_GAIN * loss) return GPTVQ_OK;
    }
    if (gained == 0.0) return GPTVQ_OK;
  }
}

/* The factors in storage order, and the codebooks that a reader will make of them. */
static gptvq_status pack_factors(const gptvq_vq *q, gptvq_packed *packed, gptvq_error *err) {
  size_t rank = q->rank, tiles = q->stripes * q->groups;
  int8_t *left = (int8_t *)packed->codebook_left;
  float *scales = (float *)packed->factor_scales;
  for (size_t stripe = 0; stripe < q->stripes; stripe++)
    for (size_t g = 0; g < q->groups; g++)
      memcpy(left + (stripe * q->groups + q->group[g].id) * rank, q->left + (stripe * q->groups + g) * rank,
             rank);
  memcpy((int8_t *)packed->codebook_right, q->right, rank * q->k);
  for (size_t r = 0; r < rank; r++)
    scales[r] = q->exponent == 0 ? q->factor_scales[r] : ldexpf(q->factor_scales[r], q->exponent);
  if (!gptvq_factor_scales_fit(scales, rank))
    return gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                      "%s: the weights are too large for factored codebooks: leave out `svd_rank`", q->name);
  gptvq_codebooks_from_factors(tiles, q->k, rank, packed->codebook_left, packed->codebook_right, scales,
                               q->shape.codebook_bits, (void *)(uintptr_t)packed->codebooks,
                               (uint16_t *)packed->codebook_scales);
  return GPTVQ_OK;
}

static void pack(const gptvq_vq *q, gptvq_packed *packed, uint16_t *unit) {
  const gptvq_packed_shape *s = &q->shape;
  size_t d = q->dim, values = q->k * d, code_size = s->codebook_bits / 8;
  for (size_t stripe = 0; stripe < q->stripes; stripe++)
    for (size_t g = 0; g < q->groups; g++) {
      size_t from = stripe * q->groups + g, to = stripe * q->groups + q->group[g].id;
      memcpy((char *)packed->codebooks + to * values * code_size,
             (char *)q->codes + from * values * code_size, values * code_size);
      uint16_t scale = q->codebook_scales[from];
      if (q->exponent != 0)
        scale = gptvq_float_to_bf16(fminf(ldexpf(gptvq_bf16_to_float(scale), q->exponent), MAX_BF16));
      ((uint16_t *)packed->codebook_scales)[to] = scale;
    }
  size_t per_group = q->scale_blocks / q->groups;
  for (size_t row = 0; row < q->rows; row++)
    for (size_t g = 0; g < q->groups; g++) {
      size_t id = q->group[g].id, n = gptvq_unit_indices(s, id), first = q->group[g].start / d;
      memset(unit, 0, n * sizeof *unit);
      for (size_t b = first; b < first + q->group[g].width / d; b++)
        unit[(storage_column(q, b) - id * s->group_cols) / d] = q->index[row * q->blocks + b];
      gptvq_pack_unit(unit, n, s->index_bits, (uint8_t *)packed->indices + gptvq_unit_offset(s, row, id));
      if (s->scale_block == 0) continue;
      uint8_t *bytes = (uint8_t *)packed->block_scales + gptvq_block_scale_offset(s, row, id);
      size_t codes = gptvq_ceil_div(gptvq_packed_width(s, id), s->scale_block);
      for (size_t i = 0; i < codes; i++) {
        unsigned code = q->scale_codes[row * q->scale_blocks + id * per_group + i];
        bytes[i / 2] = (uint8_t)(bytes[i / 2] | code << (i % 2 * 4));
      }
    }
  if (s->scale_block) memcpy((float *)packed->block_scale_range, q->scale_range, sizeof q->scale_range);
}

static gptvq_status solve_vq(const char *name, const gptvq_packed_shape *shape, const float *weights,
                             const gptvq_factor *factor, const gptvq_quantize_options *options,
                             gptvq_layer_result *result, gptvq_error *err) {
  gptvq_vq q = {.name = name, .options = options, .factor = factor, .shape = *shape};
  uint16_t *unit = NULL;
  gptvq_status status;
  GPTVQ_TRY_GOTO(gptvq_vq_set_up(&q, weights, err));
  unit = gptvq_alloc(gptvq_unit_indices(shape, 0), sizeof *unit);
  if (unit == NULL) {
    status = gptvq_fail_memory(err, name, gptvq_unit_indices(shape, 0) * sizeof *unit);
    goto done;
  }
  GPTVQ_TRY_GOTO(gptvq_vq_interleave(&q, err));
  GPTVQ_TRY_GOTO(refine(&q, err));
  if (shape->svd_rank > 0) {
    GPTVQ_TRY_GOTO(gptvq_vq_compress(&q, err));
    GPTVQ_TRY_GOTO(refine(&q, err));
  }
  pack(&q, &result->packed, unit);
  if (shape->svd_rank > 0) status = pack_factors(&q, &result->packed, err);
done:
  free(unit);
  gptvq_vq_release(&q);
  return status;
}

gptvq_status gptvq_solve_layer(const char *name, size_t rows, size_t cols, const float *weights,
                               const gptvq_factor *factor, const gptvq_quantize_options *options,
                               const gptvq_callbacks *callbacks, gptvq_layer_result *result,
                               gptvq_error *err) {
  double start = gptvq_clock();
  (void)callbacks;
  memset(result, 0, sizeof *result);
  gptvq_quantize_options o = *options;
  gptvq_packed_shape shape;
  GPTVQ_TRY(gptvq_quantize_options_resolve(&o, err));
  GPTVQ_TRY(gptvq_layer_shape(rows, cols, &o, &shape, err));
  GPTVQ_TRY(check_weights(name, rows, cols, weights, err));
  GPTVQ_TRY(gptvq_blas_init(err));
  const gptvq_factor *used = o.method == GPTVQ_METHOD_GPTVQ || o.method == GPTVQ_METHOD_GPTQ ? factor : NULL;
  bool vq = shape.kind == GPTVQ_PACKED_VQ;
  if (used != NULL &&
      (used->cols != cols || used->dim != shape.dim || used->group_cols != (vq ? shape.group_cols : 0) ||
       used->stored_permutation != shape.permuted))
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "%s: the Hessian factor was made for other options", name);
  if (used == NULL) shape.permuted = false; /* no Hessian, no order */
  gptvq_status status = gptvq_packed_allocate(&shape, result, err);
  if (status == GPTVQ_OK)
    status = vq ? solve_vq(name, &shape, weights, used, &o, result, err)
                : gptvq_solve_uniform(name, &shape, weights, used, &o, result, err);
  if (status == GPTVQ_OK && shape.permuted)
    memcpy((uint32_t *)result->packed.permutation, used->order, cols * sizeof(uint32_t));
  if (status == GPTVQ_OK) status = gptvq_packed_error(&result->packed, weights, factor, &result->error, err);
  result->seconds = gptvq_clock() - start;
  if (status != GPTVQ_OK) gptvq_layer_result_release(result);
  return status;
}
