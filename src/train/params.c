/* The continuous parameters of a quantized block and the way between them and its matrices. */
#include "train/train.h"

#include "base/memory.h"
#include "base/threads.h"

#include <math.h>
#include <string.h>

enum { MOST_VALUES = 4 << 12 }; /* of a codebook */

static bool is_vq(const gptvq_ft_table *table) { return table->packed->shape.kind == GPTVQ_PACKED_VQ; }
static bool is_trellis(const gptvq_ft_table *table) {
  return table->packed->shape.kind == GPTVQ_PACKED_TRELLIS;
}
static bool has_codebooks(const gptvq_ft_table *table) { return is_vq(table) || is_trellis(table); }
/* of one codebook, or table of a trellis */
static size_t codebook_values(const gptvq_ft_table *table) {
  return table->sizes.codebook_values / table->sizes.codebook_scales;
}

/* codes per uniform scale row */
static size_t uniform_groups(const gptvq_packed_shape *shape) {
  return gptvq_ceil_div(shape->cols, shape->scale_block);
}

/* ---- creation ---- */

static gptvq_status add_table(gptvq_ft_params *params, const gptvq_linear *linear, size_t index,
                              gptvq_ft_matrix matrix, size_t row_offset, gptvq_error *err) {
  gptvq_ft_table *table = &params->tables[params->table_count++];
  const gptvq_packed *packed = &linear->packed;
  const gptvq_packed_shape *shape = &packed->shape;
  table->packed = packed;
  table->linear = index;
  table->matrix = matrix;
  table->row_offset = row_offset;
  gptvq_packed_measure(shape, &table->sizes);
  table->first = params->count;
  table->count = has_codebooks(table) ? table->sizes.codebook_values + table->sizes.row_scale_bytes
                                      : table->sizes.uniform_scales;
  params->count += table->count;
  if (is_trellis(table)) return gptvq_ft_trellis_states(table, err);
  size_t n = table->sizes.index_bytes * 8 / shape->index_bits;
  table->indices = gptvq_alloc(n, sizeof *table->indices);
  if (table->indices == NULL)
    return gptvq_fail_memory(err, "fine-tuning: unpacked indices",
                             gptvq_saturated_size(n, sizeof *table->indices));
  size_t groups = is_vq(table) ? table->sizes.column_groups : 1;
  for (size_t row = 0; row < shape->rows; row++)
    for (size_t g = 0; g < groups; g++) {
      gptvq_unpack_unit(packed->indices + gptvq_unit_offset(shape, row, g), gptvq_unit_indices(shape, g),
                        shape->index_bits, table->indices + gptvq_ft_unit_index(shape, row, g));
    }
  if (!is_vq(table)) {
    n = gptvq_round_up(table->count, 8);
    table->zeros = gptvq_alloc(n, sizeof *table->zeros);
    if (table->zeros == NULL)
      return gptvq_fail_memory(err, "fine-tuning: zero points", n * sizeof *table->zeros);
    gptvq_unpack_unit(packed->zeros, n, shape->index_bits, table->zeros);
  }
  for (unsigned code = 0; code < 16; code++)
    table->block_scale[code] =
        is_vq(table) && shape->scale_block != 0
            ? exp2f(packed->block_scale_range[0] + packed->block_scale_range[1] * (float)code)
            : 1.0f;
  return GPTVQ_OK;
}

static gptvq_status add_linear(gptvq_ft_params *params, const gptvq_block *block, size_t index,
                               gptvq_ft_matrix matrix, size_t row_offset, gptvq_error *err) {
  const gptvq_linear *linear = &block->linears[index];
  const gptvq_ft_dims *dims = params->dims;
  if (linear->cols != gptvq_ft_cols(dims, matrix) || row_offset + linear->rows > gptvq_ft_rows(dims, matrix))
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "fine-tuning: %s does not fit the block", linear->name);
  float *weights = params->weights.matrix[matrix] + row_offset * linear->cols;
  if (linear->is_packed) gptvq_packed_decode(&linear->packed, 0, linear->rows, weights, linear->cols);
  else gptvq_to_float(linear->dtype, linear->weights, linear->rows * linear->cols, weights);
  if (linear->bias != NULL) {
    float *place = params->weights.bias[matrix] + row_offset;
    memcpy(place, linear->bias, linear->rows * sizeof *place);
    params->vectors[params->vector_count++] =
        (gptvq_ft_vector){(float *)linear->bias, place, params->vector_gradients.bias[matrix] + row_offset, 0,
                          linear->rows,          0.0f};
  }
  return linear->is_packed ? add_table(params, linear, index, matrix, row_offset, err) : GPTVQ_OK;
}

static gptvq_status add_group(gptvq_ft_params *params, const gptvq_block *block, gptvq_ft_matrix matrix,
                              gptvq_error *err) {
  const gptvq_linear_group group = gptvq_input_readers(block, gptvq_ft_input(matrix), gptvq_ft_mlp(matrix));
  for (size_t i = 0; i < group.count; i++)
    GPTVQ_TRY(add_linear(params, block, group.linear[i], matrix, group.offset[i], err));
  return GPTVQ_OK;
}

/* What is not optimised. */
static void read_frozen(const gptvq_ft_dims *dims, const gptvq_block *block, gptvq_ft_weights *weights) {
  if (weights->router != NULL) gptvq_linear_decode(&block->router, weights->router);
  if (weights->router_bias != NULL)
    memcpy(weights->router_bias, block->router.bias, dims->experts * sizeof *weights->router_bias);
  if (weights->shared_gate != NULL) gptvq_linear_decode(&block->shared_gate, weights->shared_gate);
  if (weights->delta_gates == NULL) return;
  gptvq_linear_decode(&block->delta->decay, weights->delta_gates);
  gptvq_linear_decode(&block->delta->beta, weights->delta_gates + dims->delta.value_heads * dims->hidden);
}

/* theta as the block has it now */
static void read_values(gptvq_ft_params *params) {
  for (size_t t = 0; t < params->table_count; t++) {
    const gptvq_ft_table *table = &params->tables[t];
    const gptvq_packed *packed = table->packed;
    float *theta = params->theta + table->first, *unit = params->unit + table->first;
    if (is_trellis(table)) gptvq_ft_trellis_read(table, params->theta, params->unit);
    if (!has_codebooks(table)) {
      for (size_t i = 0; i < table->count; i++)
        unit[i] = fabsf(theta[i] = gptvq_fp16_to_float(packed->scales[i]));
      continue;
    }
    size_t each = codebook_values(table);
    for (size_t tile = 0; tile < table->sizes.codebook_scales; tile++) {
      float scale = gptvq_bf16_to_float(packed->codebook_scales[tile]);
      double sum = 0;
      for (size_t i = tile * each; i < (tile + 1) * each; i++) {
        theta[i] = packed->shape.codebook_bits == 8
                       ? (float)((const int8_t *)packed->codebooks)[i] * (scale / 127.0f)
                       : gptvq_fp16_to_float(((const uint16_t *)packed->codebooks)[i]) * scale;
        sum += (double)theta[i] * (double)theta[i];
      }
      float rms = (float)sqrt(sum / (double)each);
      for (size_t i = tile * each; i < (tile + 1) * each; i++) unit[i] = rms;
    }
  }
  for (size_t v = 0; v < params->vector_count; v++) {
    gptvq_ft_vector *vector = &params->vectors[v];
    double sum = 0;
    for (size_t i = 0; i < vector->count; i++) sum += (double)vector->weight[i] * (double)vector->weight[i];
    float rms = (float)sqrt(sum / (double)vector->count);
    for (size_t i = 0; i < vector->count; i++) {
      params->theta[vector->first + i] = vector->weight[i];
      params->unit[vector->first + i] = rms;
    }
  }
}

gptvq_status gptvq_ft_params_create(const gptvq_ft_dims *dims, const gptvq_block *block,
                                    gptvq_dtype vector_dtype, gptvq_ft_params *params, gptvq_error *err) {
  memset(params, 0, sizeof *params);
  params->dims = dims;
  params->vector_dtype = vector_dtype;
  gptvq_status status;
  GPTVQ_TRY_GOTO(gptvq_ft_weights_create(dims, true, &params->weights, err));
  GPTVQ_TRY_GOTO(gptvq_ft_weights_create(dims, false, &params->vector_gradients, err));
  params->tables = calloc(block->linear_count, sizeof *params->tables);
  params->vectors = calloc(block->linear_count + GPTVQ_NORMS, sizeof *params->vectors);
  if (params->tables == NULL || params->vectors == NULL) {
    status =
        gptvq_fail_memory(err, "fine-tuning: parameter lists", block->linear_count * sizeof *params->tables);
    goto done;
  }
  for (gptvq_ft_matrix m = 0; m < gptvq_ft_matrices(dims); m++)
    if (gptvq_ft_rows(dims, m) > 0) GPTVQ_TRY_GOTO(add_group(params, block, m, err));
  read_frozen(dims, block, &params->weights);
  for (gptvq_norm_place n = 0; n < GPTVQ_NORMS; n++) {
    if (!dims->has_norm[n]) continue;
    size_t size = gptvq_ft_norm_size(dims, n);
    memcpy(params->weights.norm[n], block->norms[n], size * sizeof(float));
    params->vectors[params->vector_count++] = (gptvq_ft_vector){
        (float *)block->norms[n], params->weights.norm[n], params->vector_gradients.norm[n], 0, size,
        dims->norm_offset};
  }
  for (size_t v = 0; v < params->vector_count; v++) {
    params->vectors[v].first = params->count;
    params->count += params->vectors[v].count;
  }
  params->theta = gptvq_alloc(params->count, sizeof(float));
  params->gradient = gptvq_alloc_zero(params->count, sizeof(float));
  params->rounded = gptvq_alloc(params->count, sizeof(float));
  params->unit = gptvq_alloc(params->count, sizeof(float));
  if (params->theta == NULL || params->gradient == NULL || params->rounded == NULL || params->unit == NULL) {
    status = gptvq_fail_memory(err, "fine-tuning: parameters",
                               gptvq_saturated_size(params->count, 4 * sizeof(float)));
    goto done;
  }
  read_values(params);
  memcpy(params->rounded, params->theta, params->count * sizeof(float)); /* as stored, so far */
  return GPTVQ_OK;
done:
  gptvq_ft_params_release(params);
  return status;
}

void gptvq_ft_params_release(gptvq_ft_params *params) {
  gptvq_ft_indices_release(params);
  for (size_t t = 0; t < params->table_count; t++) {
    free(params->tables[t].indices);
    free(params->tables[t].zeros);
  }
  free(params->tables);
  free(params->vectors);
  free(params->theta);
  free(params->gradient);
  free(params->rounded);
  free(params->unit);
  gptvq_ft_weights_release(&params->weights);
  gptvq_ft_weights_release(&params->vector_gradients);
  memset(params, 0, sizeof *params);
}

size_t gptvq_ft_table_values(const gptvq_ft_params *params) {
  size_t count = 0;
  for (size_t i = 0; i < params->table_count; i++) count += params->tables[i].count;
  return count;
}

/* ---- theta to the packed format's numbers ---- */

/* One codebook, or the tables of a trellis' group, as they are stored. */
static void round_codebook(const gptvq_ft_table *table, const float *theta, void *codes, uint16_t *scale) {
  if (is_trellis(table)) gptvq_round_trellis_tables(theta, codes, scale);
  else gptvq_round_codebook(theta, codebook_values(table), table->packed->shape.codebook_bits, codes, scale);
}

float gptvq_ft_round(gptvq_dtype dtype, float offset, float x) {
  if (offset != 0.0f) return gptvq_ft_round(dtype, 0.0f, x - offset) + offset;
  if (dtype == GPTVQ_BF16) return gptvq_bf16_to_float(gptvq_float_to_bf16(x));
  if (dtype == GPTVQ_F16) return gptvq_fp16_to_float(gptvq_float_to_fp16(x));
  return x;
}

typedef struct table_job {
  gptvq_ft_params *params;
  const gptvq_ft_table *table;
  bool rounding;
  const float *gradient; /* scatter: the stacked matrix's gradient */
} table_job;

/* Codebooks of tiles [begin, end) as they will be stored. */
static void round_tiles(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const table_job *job = context;
  const gptvq_ft_table *table = job->table;
  size_t each = codebook_values(table);
  for (size_t tile = begin; tile < end; tile++) {
    const float *theta = job->params->theta + table->first + tile * each;
    float *rounded = job->params->rounded + table->first + tile * each;
    uint16_t codes[MOST_VALUES], scale;
    memcpy(rounded, theta, each * sizeof *rounded);
    if (!job->rounding) continue;
    round_codebook(table, theta, codes, &scale);
    gptvq_expand_codebook(codes, each, table->packed->shape.codebook_bits, scale, rounded);
  }
}

static void round_values(gptvq_ft_params *params, bool rounding) {
  for (size_t t = 0; t < params->table_count; t++) {
    const gptvq_ft_table *table = &params->tables[t];
    table_job job = {params, table, rounding, NULL};
    if (is_trellis(table)) gptvq_ft_trellis_round(table, rounding, params->theta, params->rounded);
    if (has_codebooks(table)) {
      gptvq_parallel_for(table->sizes.codebook_scales, 16, round_tiles, &job);
      continue;
    }
    for (size_t i = table->first; i < table->first + table->count; i++)
      params->rounded[i] =
          rounding ? gptvq_fp16_to_float(gptvq_float_to_fp16(params->theta[i])) : params->theta[i];
  }
  for (size_t v = 0; v < params->vector_count; v++) {
    const gptvq_ft_vector *vector = &params->vectors[v];
    for (size_t i = vector->first; i < vector->first + vector->count; i++)
      params->rounded[i] = rounding ? gptvq_ft_round(params->vector_dtype, vector->offset, params->theta[i])
                                    : params->theta[i];
  }
}

/* ---- tables to matrices and back ---- */

/* Calls for each unit of a tile what `scatter` says: weights = table[index] · block scale, or table gradient
 * += gradient. */
static void vq_tile(const table_job *job, size_t tile, bool scatter) {
  const gptvq_ft_table *table = job->table;
  const gptvq_packed *packed = table->packed;
  const gptvq_packed_shape *shape = &packed->shape;
  size_t groups = table->sizes.column_groups, g = tile % groups, dim = shape->dim, cols = shape->cols;
  size_t each = codebook_values(table), width = gptvq_packed_width(shape, g);
  size_t first_row = tile / groups * shape->group_rows;
  size_t last_row = gptvq_min_size(first_row + shape->group_rows, shape->rows);
  const float *values = job->params->rounded + table->first + tile * each;
  float *sums = job->params->gradient + table->first + tile * each;
  for (size_t row = first_row; row < last_row; row++) {
    const uint16_t *indices = table->indices + gptvq_ft_unit_index(shape, row, g);
    const uint8_t *codes =
        shape->scale_block ? packed->block_scales + gptvq_block_scale_offset(shape, row, g) : NULL;
    size_t at = (table->row_offset + row) * cols;
    for (size_t c = 0; c < width; c++) {
      size_t place = indices[c / dim] * dim + c % dim, column = g * shape->group_cols + c;
      float scale = 1.0f;
      if (codes != NULL) {
        size_t block = c / shape->scale_block;
        scale = table->block_scale[(unsigned)codes[block / 2] >> (block % 2 * 4) & 15u];
      }
      if (packed->permutation != NULL) column = packed->permutation[column];
      if (scatter) sums[place] += job->gradient[at + column] * scale;
      else job->params->weights.matrix[table->matrix][at + column] = values[place] * scale;
    }
  }
}

static void uniform_row(const table_job *job, size_t row, bool scatter) {
  const gptvq_ft_table *table = job->table;
  const gptvq_packed_shape *shape = &table->packed->shape;
  const uint32_t *permutation = table->packed->permutation;
  size_t groups = uniform_groups(shape), at = (table->row_offset + row) * shape->cols;
  const uint16_t *codes = table->indices + gptvq_ft_unit_index(shape, row, 0);
  for (size_t c = 0; c < shape->cols; c++) {
    size_t place = row * groups + c / shape->scale_block, column = permutation != NULL ? permutation[c] : c;
    float code = (float)((int)codes[c] - (int)table->zeros[place]);
    if (scatter) job->params->gradient[table->first + place] += job->gradient[at + column] * code;
    else
      job->params->weights.matrix[table->matrix][at + column] =
          job->params->rounded[table->first + place] * code;
  }
}

static void build_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const table_job *job = context;
  for (size_t i = begin; i < end; i++)
    if (is_vq(job->table)) vq_tile(job, i, false);
    else uniform_row(job, i, false);
}

static void scatter_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const table_job *job = context;
  for (size_t i = begin; i < end; i++)
    if (is_vq(job->table)) vq_tile(job, i, true);
    else uniform_row(job, i, true);
}

static size_t task_count(const gptvq_ft_table *table) {
  return is_vq(table) ? table->sizes.codebook_scales : table->packed->shape.rows;
}

void gptvq_ft_params_build(gptvq_ft_params *params, bool rounding) {
  round_values(params, rounding);
  gptvq_ft_indices_assign(params);
  for (size_t t = 0; t < params->table_count; t++) {
    table_job job = {params, &params->tables[t], rounding, NULL};
    if (is_trellis(job.table)) gptvq_ft_trellis_build(params, job.table);
    else gptvq_parallel_for(task_count(job.table), 4, build_task, &job);
  }
  for (size_t v = 0; v < params->vector_count; v++)
    memcpy(params->vectors[v].weight, params->rounded + params->vectors[v].first,
           params->vectors[v].count * sizeof(float));
}

void gptvq_ft_params_scatter(void *context, gptvq_ft_matrix matrix, const float *gradient) {
  gptvq_ft_params *params = context;
  for (size_t t = 0; t < params->table_count; t++) {
    if (params->tables[t].matrix != matrix) continue;
    table_job job = {params, &params->tables[t], false, gradient};
    if (is_trellis(job.table)) gptvq_ft_trellis_scatter(params, job.table, gradient);
    else gptvq_parallel_for(task_count(job.table), 4, scatter_task, &job);
  }
}

void gptvq_ft_params_begin(gptvq_ft_params *params) {
  memset(params->gradient, 0, params->count * sizeof(float));
  for (size_t v = 0; v < params->vector_count; v++)
    memset(params->vectors[v].gradient, 0, params->vectors[v].count * sizeof(float));
}

void gptvq_ft_params_finish(gptvq_ft_params *params) {
  for (size_t v = 0; v < params->vector_count; v++)
    memcpy(params->gradient + params->vectors[v].first, params->vectors[v].gradient,
           params->vectors[v].count * sizeof(float));
}

void gptvq_ft_params_store(gptvq_ft_params *params) {
  gptvq_ft_indices_store(params);
  for (size_t t = 0; t < params->table_count; t++) {
    const gptvq_ft_table *table = &params->tables[t];
    const gptvq_packed *packed = table->packed;
    const float *theta = params->theta + table->first;
    if (is_trellis(table)) gptvq_ft_trellis_store(table, params->theta);
    if (!has_codebooks(table)) {
      uint16_t *scales = (uint16_t *)packed->scales;
      for (size_t i = 0; i < table->count; i++) scales[i] = gptvq_float_to_fp16(theta[i]);
      continue;
    }
    const size_t each = codebook_values(table), bytes = each * packed->shape.codebook_bits / 8;
    for (size_t tile = 0; tile < table->sizes.codebook_scales; tile++)
      round_codebook(table, theta + tile * each, (char *)(uintptr_t)packed->codebooks + tile * bytes,
                     (uint16_t *)(uintptr_t)packed->codebook_scales + tile);
  }
  for (size_t v = 0; v < params->vector_count; v++)
    for (size_t i = 0; i < params->vectors[v].count; i++)
      params->vectors[v].target[i] = gptvq_ft_round(params->vector_dtype, params->vectors[v].offset,
                                                    params->theta[params->vectors[v].first + i]);
}
