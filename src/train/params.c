/* The continuous parameters of a quantized block and the way between them and its matrices. */
#include "train/train.h"

#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm_bf16.h"

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

static size_t trained_values(const gptvq_packed_shape *shape) {
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(shape, &sizes);
  return shape->kind == GPTVQ_PACKED_UNIFORM ? sizes.uniform_scales
                                             : sizes.codebook_values + sizes.row_scale_bytes;
}

double gptvq_finetune_linear_bytes(const gptvq_packed_shape *shape) {
  enum { COPIED = 2 }; /* tables and scales: in memory of their own, beside the file's pages */
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(shape, &sizes);
  return (double)GPTVQ_FT_VALUE_BYTES * (double)trained_values(shape) +
         COPIED * (double)(sizes.stored_bytes - sizes.index_bytes) +
         (double)(sizes.uniform_scales * sizeof(uint16_t)); /* zero points */
}

size_t gptvq_ft_vector_values(const gptvq_ft_dims *dims) {
  size_t count = 0;
  for (gptvq_ft_matrix m = 0; m < gptvq_ft_matrices(dims); m++)
    if (dims->has_bias[gptvq_ft_input(m)]) count += gptvq_ft_rows(dims, m);
  for (gptvq_norm_place n = 0; n < GPTVQ_NORMS; n++)
    if (dims->has_norm[n]) count += gptvq_ft_norm_size(dims, n);
  return count;
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
  table->count = trained_values(shape);
  params->count += table->count;
  if (!has_codebooks(table)) {
    const size_t n = gptvq_round_up(table->count, 8);
    table->zeros = gptvq_alloc(n, sizeof *table->zeros);
    if (table->zeros == NULL)
      return gptvq_fail_memory(err, "fine-tuning: zero points",
                               gptvq_saturated_size(n, sizeof *table->zeros));
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
  if (linear->bias != NULL)
    params->vectors[params->vector_count++] = (gptvq_ft_vector){.target = (float *)linear->bias,
                                                                .norm = GPTVQ_NORMS,
                                                                .matrix = matrix,
                                                                .row_offset = row_offset,
                                                                .count = linear->rows};
  return linear->is_packed ? add_table(params, linear, index, matrix, row_offset, err) : GPTVQ_OK;
}

static gptvq_status add_group(gptvq_ft_params *params, const gptvq_block *block, gptvq_ft_matrix matrix,
                              gptvq_error *err) {
  const gptvq_linear_group group = gptvq_input_readers(block, gptvq_ft_input(matrix), gptvq_ft_mlp(matrix));
  for (size_t i = 0; i < group.count; i++)
    GPTVQ_TRY(add_linear(params, block, group.linear[i], matrix, group.offset[i], err));
  return GPTVQ_OK;
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
    const gptvq_ft_vector *vector = &params->vectors[v];
    double sum = 0;
    for (size_t i = 0; i < vector->count; i++) sum += (double)vector->target[i] * (double)vector->target[i];
    float rms = (float)sqrt(sum / (double)vector->count);
    for (size_t i = 0; i < vector->count; i++) {
      params->theta[vector->first + i] = vector->target[i];
      params->unit[vector->first + i] = rms;
    }
  }
}

/* The arrays of a block with so many parameters. */
static void take_arrays(gptvq_arena *arena, gptvq_ft_params *params) {
  params->theta = gptvq_arena_take(arena, params->count, sizeof(float));
  params->gradient = gptvq_arena_take_zero(arena, params->count, sizeof(float));
  params->rounded = gptvq_arena_take(arena, params->count, sizeof(float));
  params->unit = gptvq_arena_take(arena, params->count, sizeof(float));
  gptvq_ft_take_vectors(arena, params->dims, &params->vector_gradients);
}

static gptvq_status create_arrays(gptvq_ft_params *params, gptvq_error *err) {
  gptvq_arena counted = {0};
  take_arrays(&counted, params);
  GPTVQ_TRY(gptvq_arena_create(&params->memory, counted.peak, "fine-tuning: parameters", err));
  take_arrays(&params->memory, params);
  return gptvq_arena_check(&params->memory, "fine-tuning: parameters", err);
}

gptvq_status gptvq_ft_params_create(const gptvq_ft_dims *dims, const gptvq_block *block,
                                    gptvq_dtype vector_dtype, gptvq_ft_params *params, gptvq_error *err) {
  memset(params, 0, sizeof *params);
  params->dims = dims;
  params->block = block;
  params->vector_dtype = vector_dtype;
  gptvq_status status;
  params->tables = calloc(block->linear_count, sizeof *params->tables);
  params->vectors = calloc(block->linear_count + GPTVQ_NORMS, sizeof *params->vectors);
  if (params->tables == NULL || params->vectors == NULL) {
    status =
        gptvq_fail_memory(err, "fine-tuning: parameter lists", block->linear_count * sizeof *params->tables);
    goto done;
  }
  for (gptvq_ft_matrix m = 0; m < gptvq_ft_matrices(dims); m++)
    if (gptvq_ft_rows(dims, m) > 0) GPTVQ_TRY_GOTO(add_group(params, block, m, err));
  for (gptvq_norm_place n = 0; n < GPTVQ_NORMS; n++)
    if (dims->has_norm[n])
      params->vectors[params->vector_count++] = (gptvq_ft_vector){.target = (float *)block->norms[n],
                                                                  .norm = n,
                                                                  .count = gptvq_ft_norm_size(dims, n),
                                                                  .offset = dims->norm_offset};
  for (size_t v = 0; v < params->vector_count; v++) {
    params->vectors[v].first = params->count;
    params->count += params->vectors[v].count;
  }
  GPTVQ_TRY_GOTO(create_arrays(params, err));
  read_values(params);
  memcpy(params->rounded, params->theta, params->count * sizeof(float)); /* as stored, so far */
  return GPTVQ_OK;
done:
  gptvq_ft_params_release(params);
  return status;
}

void gptvq_ft_params_release(gptvq_ft_params *params) {
  gptvq_ft_indices_release(params);
  for (size_t t = 0; t < params->table_count; t++) free(params->tables[t].zeros);
  free(params->tables);
  free(params->vectors);
  gptvq_arena_destroy(&params->memory);
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

void gptvq_ft_params_round(gptvq_ft_params *params, bool rounding) {
  for (size_t t = 0; t < params->table_count; t++) {
    const gptvq_ft_table *table = &params->tables[t];
    table_job job = {params, table, rounding};
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
  gptvq_ft_indices_assign(params);
}

/* ---- parameters to matrices and back ---- */

static void fill_frozen(const gptvq_ft_params *params, gptvq_ft_matrix matrix, gptvq_ft_weights *weights) {
  const gptvq_block *block = params->block;
  const gptvq_linear_group group = gptvq_input_readers(block, gptvq_ft_input(matrix), gptvq_ft_mlp(matrix));
  for (size_t i = 0; i < group.count; i++) {
    const gptvq_linear *linear = &block->linears[group.linear[i]];
    if (!linear->is_packed)
      gptvq_linear_decode(linear, weights->matrix[matrix] + group.offset[i] * linear->cols);
  }
}

/* What stands beside the linears. */
static void fill_others(const gptvq_ft_dims *dims, const gptvq_block *block, gptvq_ft_weights *weights) {
  if (weights->router != NULL) gptvq_linear_decode(&block->router, weights->router);
  if (weights->router_bias != NULL)
    memcpy(weights->router_bias, block->router.bias, dims->experts * sizeof *weights->router_bias);
  if (weights->shared_gate != NULL) gptvq_linear_decode(&block->shared_gate, weights->shared_gate);
  if (weights->delta_gates == NULL) return;
  gptvq_linear_decode(&block->delta->decay, weights->delta_gates);
  gptvq_linear_decode(&block->delta->beta, weights->delta_gates + dims->delta.value_heads * dims->hidden);
}

typedef struct rounding_job {
  float *matrix;
  size_t cols;
} rounding_job;

static void round_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rounding_job *job = context;
  for (size_t row = begin; row < end; row++) {
    float *at = job->matrix + row * job->cols;
    gptvq_to_bf16(job->cols, at, (uint16_t *)(void *)at);
  }
}

void gptvq_ft_params_fill(const gptvq_ft_params *params, gptvq_ft_weights *weights) {
  const gptvq_ft_dims *dims = params->dims;
  for (gptvq_ft_matrix m = 0; m < weights->matrices; m++)
    if (gptvq_ft_rows(dims, m) > 0) fill_frozen(params, m, weights);
  for (size_t t = 0; t < params->table_count; t++) {
    const gptvq_ft_table *table = &params->tables[t];
    if (is_trellis(table)) gptvq_ft_trellis_fill(params, table, weights->matrix[table->matrix]);
    else gptvq_ft_table_fill(params, table, weights->matrix[table->matrix]);
  }
  for (gptvq_ft_matrix m = 0; m < weights->matrices && weights->rounded[0] != NULL; m++) {
    rounding_job job = {weights->matrix[m], gptvq_ft_cols(dims, m)};
    gptvq_parallel_for(gptvq_ft_rows(dims, m), gptvq_rows_per_task(job.cols), round_rows, &job);
  }
  for (size_t v = 0; v < params->vector_count; v++)
    memcpy(gptvq_ft_vector_in(&params->vectors[v], weights), params->rounded + params->vectors[v].first,
           params->vectors[v].count * sizeof(float));
  fill_others(dims, params->block, weights);
}

void gptvq_ft_params_scatter(void *context, gptvq_ft_matrix matrix, const float *gradient) {
  gptvq_ft_params *params = context;
  for (size_t t = 0; t < params->table_count; t++) {
    const gptvq_ft_table *table = &params->tables[t];
    if (table->matrix != matrix) continue;
    if (is_trellis(table)) gptvq_ft_trellis_scatter(params, table, gradient);
    else gptvq_ft_table_scatter(params, table, gradient);
  }
}

void gptvq_ft_params_begin(gptvq_ft_params *params) {
  memset(params->gradient, 0, params->count * sizeof(float));
  for (size_t v = 0; v < params->vector_count; v++)
    memset(gptvq_ft_vector_in(&params->vectors[v], &params->vector_gradients), 0,
           params->vectors[v].count * sizeof(float));
}

void gptvq_ft_params_finish(gptvq_ft_params *params) {
  for (size_t v = 0; v < params->vector_count; v++)
    memcpy(params->gradient + params->vectors[v].first,
           gptvq_ft_vector_in(&params->vectors[v], &params->vector_gradients),
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
