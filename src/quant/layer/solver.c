/* One layer from weights to packed arrays: checks, set-up, the stages in order, packing, the reported error.
 */
#define _GNU_SOURCE
#include "base/clock.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "linalg/multi/rows_product.h"
#include "linalg/rows_product.h"
#include "quant/layer/layer.h"
#include "quant/layer/trellis.h"

#include <math.h>
#include <string.h>

/* A round of update and sweeps that gains less than this fraction of the loss is the last; so is a sweep
 * inside a round. */
#define ROUND_GAIN 2e-3
#define SWEEP_GAIN 1e-3
#define MAX_BF16 0x1.fep127f
enum { MAX_SWEEPS = 4, PLAIN_EXPONENT = 30, PARTS = 12 };

void gptvq_layer_result_release(gptvq_layer_result *result) {
  free(result->storage);
  memset(result, 0, sizeof *result);
}

/* Bytes of the arrays, in the order of gptvq_packed's members; the sum with each rounded up to 64. */
static size_t packed_parts(const gptvq_packed_shape *shape, size_t parts[PARTS]) {
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(shape, &sizes);
  const size_t bytes[PARTS] = {sizes.index_bytes,
                               sizes.codebook_bytes,
                               2 * sizes.codebook_scales,
                               sizes.block_scale_bytes,
                               sizes.block_scale_bytes > 0 ? 2 * sizeof(float) : 0,
                               shape->permuted ? shape->cols * sizeof(uint32_t) : 0,
                               2 * sizes.uniform_scales,
                               sizes.zero_bytes,
                               sizes.left_bytes,
                               sizes.right_bytes,
                               shape->svd_rank * sizeof(float),
                               sizes.row_scale_bytes};
  size_t total = 0;
  for (int i = 0; i < PARTS; i++) total += gptvq_round_up(bytes[i], 64);
  memcpy(parts, bytes, sizeof bytes);
  return total;
}

size_t gptvq_packed_bytes(const gptvq_packed_shape *shape) {
  size_t parts[PARTS];
  return packed_parts(shape, parts);
}

gptvq_status gptvq_packed_allocate(const gptvq_packed_shape *shape, gptvq_layer_result *result,
                                   gptvq_error *err) {
  size_t parts[PARTS], total = packed_parts(shape, parts);
  char *at = result->storage = gptvq_alloc_zero(total, 1);
  if (at == NULL) return gptvq_fail_memory(err, "a packed layer", total);
  void *part[PARTS];
  for (int i = 0; i < PARTS; i++) {
    part[i] = parts[i] > 0 ? at : NULL;
    at += gptvq_round_up(parts[i], 64);
  }
  result->packed = (gptvq_packed){*shape,  part[0], part[1], part[2], part[3],  part[4], part[5],
                                  part[6], part[7], part[8], part[9], part[10], part[11]};
  return GPTVQ_OK;
}

static gptvq_status check_weights(const gptvq_weights *w, gptvq_error *err) {
  for (size_t row = 0; row < w->rows; row++)
    for (size_t c = 0; c < w->cols; c++) {
      float value = w->values[row * w->cols + c];
      if (!isfinite(value))
        return gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "%s: the weight at row %zu, column %zu is %s", w->name,
                          row, c, isnan(value) ? "NaN" : "infinite");
    }
  return GPTVQ_OK;
}

/* Columns of H that are multiplied together: of those before the diagonal block the products count twice. */
enum { ERROR_COLUMNS = 2 * GPTVQ_ROWS_PRODUCT_WIDTH };

typedef struct error_scratch { /* slab: rows that are worked on together */
  size_t slab, slabs;
  double (*sums)[2];            /* [slabs] */
  double *row_sums;             /* [slab] */
  float *decoded, *x, *product; /* [slab × cols], [slab × padded], [slab × ERROR_COLUMNS] */
} error_scratch;

static void take_error(gptvq_arena *arena, const gptvq_packed_shape *shape, bool with_factor,
                       error_scratch *s) {
  size_t n = with_factor ? gptvq_round_up(shape->cols, shape->dim) : shape->cols;
  s->slab = gptvq_min_size(256, shape->rows);
  s->slabs = gptvq_ceil_div(shape->rows, s->slab);
  s->sums = gptvq_arena_take(arena, s->slabs, sizeof *s->sums);
  s->decoded = gptvq_arena_take(arena, s->slab, shape->cols * sizeof(float));
  s->x = gptvq_arena_take(arena, s->slab, n * sizeof(float));
  s->row_sums = gptvq_arena_take(arena, s->slab, sizeof *s->row_sums);
  s->product = with_factor ? gptvq_arena_take(arena, s->slab, ERROR_COLUMNS * sizeof(float)) : NULL;
}

size_t gptvq_packed_error_bytes(const gptvq_packed_shape *shape, bool with_factor) {
  gptvq_arena counting = {0};
  error_scratch s;
  take_error(&counting, shape, with_factor, &s);
  return counting.peak;
}

typedef struct error_rows {
  const gptvq_packed *packed;
  const float *weights;
  const gptvq_factor *factor;
  const error_scratch *s;
  size_t first;        /* row of the slab */
  bool minus_decoded;  /* x = weights − decoded; else weights */
  size_t begin, width; /* of columns that were multiplied */
  double times;        /* what their products count */
} error_rows;

static void decode_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const error_rows *e = context;
  const size_t cols = e->packed->shape.cols;
  gptvq_packed_decode_ref(e->packed, e->first + begin, e->first + end, e->s->decoded + begin * cols, cols);
}

/* x, and the sum of its squares */
static void take_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const error_rows *e = context;
  const size_t cols = e->packed->shape.cols, n = e->factor != NULL ? e->factor->padded : cols;
  for (size_t i = begin; i < end; i++) {
    float *x = e->s->x + i * n;
    e->s->row_sums[i] = 0.0;
    for (size_t c = 0; c < n; c++) {
      const uint32_t column = e->factor != NULL ? e->factor->order[c] : (uint32_t)c;
      const bool phantom = column == GPTVQ_NO_COLUMN;
      x[c] = phantom ? 0.0f : e->weights[(e->first + i) * cols + column];
      if (!phantom && e->minus_decoded) x[c] -= e->s->decoded[i * cols + column];
      if (e->factor == NULL) e->s->row_sums[i] += (double)x[c] * (double)x[c];
    }
  }
}

static void add_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const error_rows *e = context;
  for (size_t i = begin; i < end; i++) {
    const float *x = e->s->x + i * e->factor->padded + e->begin, *product = e->s->product + i * ERROR_COLUMNS;
    double sum = 0.0;
    for (size_t c = 0; c < e->width; c++) sum += (double)x[c] * (double)product[c];
    e->s->row_sums[i] += e->times * sum;
  }
}

/* e->s->row_sums[rows] = x H xᵀ, where H is symmetric. */
static void multiply_rows(error_rows *e, size_t rows) {
  const size_t n = e->factor->padded;
  const error_scratch *s = e->s;
  for (e->begin = 0; e->begin < n; e->begin += e->width) {
    e->width = gptvq_min_size(ERROR_COLUMNS, n - e->begin);
    for (int before = 0; before < 2; before++) { /* the rows of the diagonal block, then those before it */
      const size_t row = before ? 0 : e->begin, height = before ? e->begin : e->width;
      if (height == 0) continue;
      e->times = before ? 2.0 : 1.0;
      gptvq_rows_product(false, rows, e->width, height, s->x + row, n, e->factor->h + row * n + e->begin, n,
                         s->product, ERROR_COLUMNS);
      gptvq_parallel_for(rows, 16, add_rows, e);
    }
  }
}

/* tr(E H Eᵀ) and tr(W H Wᵀ) of one slab of rows, undamped H; without a factor the plain sums of squares */
static gptvq_status sum_slab(const gptvq_backend *backend, const gptvq_packed *packed, const float *weights,
                             const gptvq_factor *factor, const error_scratch *s, size_t first, double sums[2],
                             gptvq_error *err) {
  const size_t m = gptvq_min_size(s->slab, packed->shape.rows - first);
  error_rows e = {.packed = packed, .weights = weights, .factor = factor, .s = s, .first = first};
  gptvq_parallel_for(m, 4, decode_rows, &e);
  for (int pass = 0; pass < 2; pass++) {
    e.minus_decoded = pass == 0;
    gptvq_parallel_for(m, 4, take_rows, &e);
    if (factor != NULL && backend->row_losses != NULL)
      GPTVQ_TRY(backend->row_losses(backend, factor, m, s->x, s->row_sums, err));
    else if (factor != NULL) multiply_rows(&e, m);
    sums[pass] = 0.0;
    for (size_t i = 0; i < m; i++) sums[pass] += s->row_sums[i];
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_packed_error(gptvq_arena *arena, const gptvq_solver *solver, const gptvq_packed *packed,
                                const float *weights, const gptvq_factor *factor, double *error,
                                gptvq_error *err) {
  gptvq_dist *shared = factor != NULL ? solver->dist : NULL; /* plain sums are soon made */
  size_t mark = arena->used, begin, end;
  error_scratch s;
  take_error(arena, &packed->shape, factor != NULL, &s);
  GPTVQ_TRY(gptvq_arena_check(arena, "the layer error", err));
  gptvq_dist_own(shared, s.slabs, &begin, &end);
  for (size_t slab = begin; slab < end; slab++)
    GPTVQ_TRY(sum_slab(solver->backend, packed, weights, factor, &s, slab * s.slab, s.sums[slab], err));
  GPTVQ_TRY(gptvq_dist_gather_items(shared, s.sums, s.slabs, sizeof *s.sums, err));
  double sums[2] = {0.0, 0.0};
  for (size_t slab = 0; slab < s.slabs; slab++)
    for (int pass = 0; pass < 2; pass++) sums[pass] += s.sums[slab][pass];
  gptvq_arena_return(arena, mark);
  *error = sums[0] <= 0.0 ? 0.0 : sums[1] > 0.0 ? sums[0] / sums[1] : 1.0;
  return GPTVQ_OK;
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

static size_t scale_codes_per_group(const gptvq_packed_shape *s) {
  return s->scale_block ? gptvq_ceil_div(gptvq_packed_width(s, 0), s->scale_block) : 0;
}

gptvq_vq gptvq_vq_of(const gptvq_solver *solver, const char *name, const gptvq_packed_shape *shape,
                     const gptvq_factor *factor, bool has_factor) {
  const gptvq_quantize_options *o = &solver->options->options;
  gptvq_vq q = {
      .name = name,
      .options = o,
      .backend = solver->backend,
      .stages = solver->stages,
      .factor = factor,
      .has_factor = has_factor,
      .shape = *shape,
      .rows = shape->rows,
      .all_rows = shape->rows,
      .dim = shape->dim,
      .padded = gptvq_round_up(shape->cols, shape->dim),
      .groups = gptvq_ceil_div(shape->cols, shape->group_cols),
      .stripes = shape->kind == GPTVQ_PACKED_TRELLIS ? 1 : gptvq_ceil_div(shape->rows, shape->group_rows),
      .unit_rows = shape->kind == GPTVQ_PACKED_TRELLIS ? 1 : shape->group_rows,
      .k = shape->kind == GPTVQ_PACKED_TRELLIS ? GPTVQ_TRELLIS_TABLE : (size_t)1 << shape->index_bits,
      /* partial assignments can only be compared in the metric of the feedback */
      .beam = o->hessian_weights ? gptvq_max_size(1, o->beam) : 1,
      .scale_block = shape->scale_block};
  q.blocks = q.padded / q.dim;
  q.units = gptvq_ceil_div(q.rows, q.unit_rows);
  q.scale_blocks = scale_codes_per_group(shape) * q.groups;
  if (shape->kind == GPTVQ_PACKED_TRELLIS) {
    q.step_bits = shape->index_bits;
    q.beam = gptvq_min_size(gptvq_ceil_div(gptvq_max_size(1, o->beam), 2), GPTVQ_PATHS_MAX);
    q.scale_blocks = q.groups;
    q.scale_block = (unsigned)gptvq_min_size(shape->group_cols, shape->cols);
    for (unsigned code = 0; code < 256; code++) q.scale_table[code] = gptvq_row_scale((uint8_t)code);
  }
  return q;
}

static void take_arrays(gptvq_arena *arena, gptvq_vq *q) {
  const gptvq_packed_shape *s = &q->shape;
  size_t d = q->dim, tiles = q->stripes * q->groups, values = q->k * d;
  size_t row_floats = q->padded * sizeof(float);
  bool scores = q->has_factor || s->svd_rank > 0;
  q->group = gptvq_arena_take(arena, q->groups, sizeof *q->group);
  q->target = gptvq_arena_take(arena, q->rows, row_floats);
  q->work = gptvq_arena_take(arena, q->rows, row_floats);
  q->error = scores ? gptvq_arena_take(arena, q->rows, row_floats) : NULL;
  q->target_product = q->has_factor && q->options->codebook_update && q->step_bits > 0
                          ? gptvq_arena_take(arena, q->rows, row_floats)
                          : NULL;
  q->lookup = gptvq_arena_take_zero(arena, q->blocks, d * d * sizeof *q->lookup);
  q->metric = gptvq_arena_take_zero(arena, q->blocks, d * d * sizeof *q->metric);
  q->index = gptvq_arena_take(arena, q->rows, q->blocks * sizeof *q->index);
  q->centroids = gptvq_arena_take(arena, tiles, values * sizeof *q->centroids);
  q->codes = gptvq_arena_take(arena, tiles, values * s->codebook_bits / 8);
  q->state_values = gptvq_arena_take(arena, q->step_bits > 0 ? q->groups : 0,
                                     GPTVQ_TRELLIS_STATES * sizeof *q->state_values);
  q->unit_values = gptvq_arena_take(arena, gptvq_ceil_div(q->all_rows, q->unit_rows), sizeof *q->unit_values);
  q->codebook_scales = gptvq_arena_take(arena, tiles, sizeof *q->codebook_scales);
  q->block_scale_of = gptvq_arena_take(arena, q->blocks, sizeof *q->block_scale_of);
  q->scale_codes = gptvq_arena_take_zero(arena, q->rows, q->scale_blocks);
  q->left = gptvq_arena_take(arena, tiles, s->svd_rank);
  q->right = gptvq_arena_take(arena, q->k, s->svd_rank);
  q->factor_scales = gptvq_arena_take(arena, s->svd_rank, sizeof *q->factor_scales);
}

gptvq_status gptvq_vq_set_up(gptvq_vq *q, const float *weights, gptvq_error *err) {
  const gptvq_packed_shape *s = &q->shape;
  size_t cols = s->cols, d = s->dim, per_group = scale_codes_per_group(s);
  take_arrays(q->arena, q);
  GPTVQ_TRY(gptvq_arena_check(q->arena, q->name, err));
  for (size_t g = 0, at = 0; g < q->groups; g++) {
    size_t id = storage_column(q, at / d) / s->group_cols;
    q->group[g] = (gptvq_group){id, at, gptvq_round_up(gptvq_packed_width(s, id), d)};
    at += q->group[g].width;
  }
  for (size_t b = 0; b < q->blocks; b++) {
    size_t column = storage_column(q, b), id = column / s->group_cols;
    q->block_scale_of[b] = s->scale_block
                               ? (uint32_t)(id * per_group + (column - id * s->group_cols) / s->scale_block)
                           : q->step_bits ? (uint32_t)id
                                          : 0;
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
  q->exponent = weight_exponent(q->all_rows, cols, weights);
  for (size_t row = 0; row < q->rows; row++)
    for (size_t c = 0; c < q->padded; c++) {
      uint32_t column = input_column(q, c);
      float w = column == GPTVQ_NO_COLUMN ? 0.0f : weights[(q->first_row + row) * cols + column];
      q->target[row * q->padded + c] = q->exponent == 0 ? w : ldexpf(w, -q->exponent);
    }
  if (s->scale_block) gptvq_vq_scale_range(q);
  return GPTVQ_OK;
}

static gptvq_status update(gptvq_vq *q, double *loss, gptvq_error *err) {
  gptvq_stage before = gptvq_stage_enter(q->stages, GPTVQ_STAGE_UPDATE);
  if (q->rank > 0) GPTVQ_TRY(gptvq_vq_update_factors(q, loss, err));
  else GPTVQ_TRY(q->backend->update(q, loss, err));
  (void)gptvq_stage_enter(q->stages, before);
  return GPTVQ_OK;
}

static gptvq_status reassign(gptvq_vq *q, gptvq_status (*sweep)(gptvq_vq *q, double *gain, gptvq_error *err),
                             double *gain, gptvq_error *err) {
  gptvq_stage before = gptvq_stage_enter(q->stages, GPTVQ_STAGE_REASSIGN);
  GPTVQ_TRY(sweep(q, gain, err));
  (void)gptvq_stage_enter(q->stages, before);
  return GPTVQ_OK;
}

/* Rounds of codebook update and re-assignment sweeps; ends with an update, so that the codebooks fit the last
 * assignment. */
static gptvq_status rounds(gptvq_vq *q, gptvq_error *err) {
  const gptvq_quantize_options *o = q->options;
  if (q->factor == NULL && q->rank > 0 && o->codebook_update)
    return update(q, &(double){0.0}, err); /* k-means */
  if (q->factor == NULL || (!o->codebook_update && o->reassign_rounds == 0)) return GPTVQ_OK;
  double loss = INFINITY;
  if (!o->codebook_update) {
    size_t mark = q->arena->used;
    double *row_loss = gptvq_arena_take(q->arena, q->rows, sizeof *row_loss);
    GPTVQ_TRY(gptvq_arena_check(q->arena, "re-assignment", err));
    GPTVQ_TRY(gptvq_vq_loss(q, row_loss, &loss, err));
    gptvq_arena_return(q->arena, mark);
  }
  for (unsigned round = 0;; round++) {
    double before = loss;
    if (o->codebook_update) GPTVQ_TRY(update(q, &loss, err));
    if (round >= o->reassign_rounds || (round > 0 && before - loss < ROUND_GAIN * loss && isfinite(before)))
      return GPTVQ_OK;
    double gained = 0.0, gain;
    for (int sweep = 0; q->step_bits == 0 && sweep < MAX_SWEEPS; sweep++) {
      GPTVQ_TRY(reassign(q, q->backend->reassign, &gain, err));
      gained += gain;
      if (q->beam > 1 || gain < SWEEP_GAIN * loss) break;
    }
    if (q->beam > 1 || q->step_bits > 0) {
      GPTVQ_TRY(reassign(q, q->backend->search, &gain, err));
      gained += gain;
    }
    if (!o->codebook_update) {
      loss -= gained;
      if (gained < ROUND_GAIN * loss) return GPTVQ_OK;
    }
    if (gained == 0.0) return GPTVQ_OK;
  }
}

/* Are the codebooks updated again and again by systems that the CPU forms? (Plans of memory have no backend,
 * and leave room for them in any case.) */
static bool keeps_systems(const gptvq_vq *q, bool factored) {
  return q->options->codebook_update && q->options->reassign_rounds > 0 && q->step_bits == 0 && !factored &&
         (q->backend == NULL || q->backend->update == gptvq_vq_update) && gptvq_vq_is_direct(q);
}

static gptvq_status refine(gptvq_vq *q, gptvq_error *err) {
  const size_t mark = q->arena->used;
  if (keeps_systems(q, q->rank > 0)) gptvq_vq_keep_systems(q->arena, q, GPTVQ_KEPT_BYTES);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "refinement", err));
  GPTVQ_TRY(rounds(q, err));
  q->kept = (gptvq_kept_systems){0};
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}

/* factored: the codebooks are (already) the product of factors */
static size_t refine_bytes(const gptvq_vq *q, bool factored) {
  const gptvq_quantize_options *o = q->options;
  bool repeated = q->has_factor && o->reassign_rounds > 0;
  gptvq_arena counting = {0}, kept = {0};
  gptvq_vq sized = *q;
  if (keeps_systems(q, factored)) gptvq_vq_keep_systems(&kept, &sized, GPTVQ_KEPT_BYTES);
  if (repeated) (void)gptvq_arena_take(&counting, q->rows, sizeof(double));
  size_t most = counting.peak;
  if (o->codebook_update && factored) most = gptvq_vq_update_factors_bytes(q);
  else if (o->codebook_update && q->has_factor && q->step_bits > 0) most = gptvq_trellis_scales_bytes(q);
  else if (o->codebook_update && q->has_factor) most = gptvq_vq_update_bytes(&sized);
  if (repeated) most = gptvq_max_size(most, gptvq_vq_reassign_bytes(q));
  if (repeated && (q->beam > 1 || q->step_bits > 0)) most = gptvq_max_size(most, gptvq_vq_search_bytes(q));
  return gptvq_saturated_sum(kept.peak, most);
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
  if (q->step_bits > 0) {
    gptvq_trellis_pack_layer(q, packed, (uint8_t *)unit);
    return;
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

static uint16_t *take_unit(gptvq_arena *arena, const gptvq_packed_shape *shape) {
  size_t n = shape->kind == GPTVQ_PACKED_TRELLIS ? shape->cols : gptvq_unit_indices(shape, 0);
  return gptvq_arena_take(arena, n, sizeof(uint16_t));
}

size_t gptvq_vq_bytes(const gptvq_vq *q) {
  gptvq_arena counting = {0};
  gptvq_vq sized = *q;
  take_arrays(&counting, &sized);
  (void)take_unit(&counting, &q->shape);
  size_t stages = gptvq_max_size(gptvq_vq_interleave_bytes(q), refine_bytes(q, false));
  if (q->shape.svd_rank > 0)
    stages = gptvq_max_size(stages, gptvq_max_size(gptvq_vq_compress_bytes(q), refine_bytes(q, true)));
  if (q->dist != NULL) stages = gptvq_max_size(stages, gptvq_vq_assemble_bytes(q));
  return gptvq_saturated_sum(counting.peak, stages);
}

/* From weights to codebooks and indices; *unit: memory for packing them. */
static gptvq_status work_on(gptvq_vq *q, const float *weights, uint16_t **unit, gptvq_error *err) {
  GPTVQ_TRY(gptvq_vq_set_up(q, weights, err));
  *unit = take_unit(q->arena, &q->shape);
  GPTVQ_TRY(gptvq_arena_check(q->arena, q->name, err));
  gptvq_stage before = gptvq_stage_enter(q->stages, GPTVQ_STAGE_LOOP);
  GPTVQ_TRY(gptvq_vq_interleave(q, err));
  (void)gptvq_stage_enter(q->stages, before);
  GPTVQ_TRY(refine(q, err));
  if (q->shape.svd_rank == 0) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_vq_compress(q, err));
  return refine(q, err);
}

static gptvq_status solve_vq(gptvq_arena *arena, const gptvq_solver *solver, const gptvq_weights *weights,
                             const gptvq_factor *factor, gptvq_layer_result *result, gptvq_error *err) {
  const gptvq_packed_shape *shape = &result->packed.shape;
  gptvq_vq q = gptvq_vq_of(solver, weights->name, shape, factor, factor != NULL), part;
  size_t mark = arena->used;
  uint16_t *unit;
  const bool dealt = gptvq_vq_deal(solver, &q, &part);
  if (dealt) {
    part.arena = arena;
    GPTVQ_TRY(work_on(&part, weights->values, &unit, err));
    GPTVQ_TRY(gptvq_vq_assemble(&part, &q, err));
  } else {
    q.arena = arena;
    GPTVQ_TRY(work_on(&q, weights->values, &unit, err));
  }
  pack(&q, &result->packed, unit);
  if (shape->svd_rank > 0) GPTVQ_TRY(pack_factors(&q, &result->packed, err));
  gptvq_arena_return(arena, mark);
  return GPTVQ_OK;
}

static bool uses_data(const gptvq_resolved *options) {
  gptvq_method method = options->options.method;
  return method == GPTVQ_METHOD_GPTVQ || method == GPTVQ_METHOD_GPTQ;
}

size_t gptvq_solve_bytes(const gptvq_solver *solver, const gptvq_packed_shape *shape, bool with_factor) {
  bool used = with_factor && uses_data(solver->options);
  size_t solving;
  if (shape->kind != GPTVQ_PACKED_UNIFORM) {
    gptvq_vq part;
    const gptvq_vq q = gptvq_vq_of(solver, "", shape, NULL, used);
    solving = gptvq_vq_bytes(gptvq_vq_deal(solver, &q, &part) ? &part : &q);
  } else {
    solving = gptvq_solve_uniform_bytes(shape, used && solver->options->options.feedback);
  }
  return gptvq_max_size(solving, gptvq_packed_error_bytes(shape, with_factor));
}

gptvq_status gptvq_solve_layer_in(gptvq_arena *arena, const gptvq_solver *solver,
                                  const gptvq_weights *weights, const gptvq_factor *factor,
                                  gptvq_layer_result *result, gptvq_error *err) {
  const gptvq_factor *used = uses_data(solver->options) ? factor : NULL;
  bool vq = result->packed.shape.kind != GPTVQ_PACKED_UNIFORM;
  GPTVQ_TRY(vq ? solve_vq(arena, solver, weights, used, result, err)
               : gptvq_solve_uniform(arena, solver, weights, used, result, err));
  if (result->packed.shape.permuted)
    memcpy((uint32_t *)result->packed.permutation, used->order, weights->cols * sizeof(uint32_t));
  return gptvq_packed_error(arena, solver, &result->packed, weights->values, factor, &result->error, err);
}

gptvq_status gptvq_solve_layer(const gptvq_solver *solver, const gptvq_weights *weights,
                               const gptvq_factor *factor, gptvq_layer_result *result, gptvq_error *err) {
  double start = gptvq_clock();
  const gptvq_factor *used = uses_data(solver->options) ? factor : NULL;
  gptvq_packed_shape shape;
  gptvq_arena arena = {0};
  gptvq_status status;
  memset(result, 0, sizeof *result);
  GPTVQ_TRY(gptvq_layer_shape(weights->rows, weights->cols, solver->options, &shape, err));
  GPTVQ_TRY(check_weights(weights, err));
  GPTVQ_TRY(gptvq_blas_init(err));
  if (used != NULL && (used->cols != weights->cols || used->dim != shape.dim ||
                       used->group_cols != (shape.kind != GPTVQ_PACKED_UNIFORM ? shape.group_cols : 0) ||
                       used->stored_permutation != shape.permuted))
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "%s: the Hessian factor was made for other options",
                      weights->name);
  if (used == NULL) shape.permuted = false; /* no Hessian, no order */
  GPTVQ_TRY(gptvq_packed_allocate(&shape, result, err));
  GPTVQ_TRY_GOTO(
      gptvq_arena_create(&arena, gptvq_solve_bytes(solver, &shape, factor != NULL), weights->name, err));
  status = gptvq_solve_layer_in(&arena, solver, weights, factor, result, err);
done:
  gptvq_arena_destroy(&arena);
  result->seconds = gptvq_clock() - start;
  if (status != GPTVQ_OK) gptvq_layer_result_release(result);
  return status;
}
