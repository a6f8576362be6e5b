/* Training of the indices themselves: every weight has a continuous shadow value that follows the gradient as
 * if it were the weight; the index is the nearest centroid of the shadow (straight-through estimation). */
#include "train/train.h"

#include "base/memory.h"
#include "base/threads.h"

#include <math.h>
#include <string.h>

typedef struct index_job {
  gptvq_ft_params *params;
  gptvq_ft_table *table;
  const float *gradient; /* of the stacked matrix */
  const float *original; /* of this layer: [rows × cols] */
  float pull, rate, correction1, correction2;
} index_job;

static const float beta1 = 0.9f, beta2 = 0.95f;

/* Block scale of column c of a unit. */
static float scale_at(const gptvq_ft_table *table, size_t row, size_t g, size_t c) {
  const gptvq_packed_shape *shape = &table->packed->shape;
  if (shape->scale_block == 0) return 1.0f;
  const uint8_t *codes = table->packed->block_scales + gptvq_block_scale_offset(shape, row, g);
  size_t block = c / shape->scale_block;
  return table->block_scale[(unsigned)codes[block / 2] >> (block % 2 * 4) & 15u];
}

/* Input column that column c of group g stands for. */
static size_t column_of(const gptvq_packed *packed, size_t g, size_t c) {
  size_t column = g * packed->shape.group_cols + c;
  return packed->permutation != NULL ? packed->permutation[column] : column;
}

/* Centroid nearest to x[n] (n < dim at a ragged end): ties go to `now`, then to the lower index. */
static uint16_t nearest(const float *codebook, size_t k, size_t dim, const float *x, size_t n, uint16_t now) {
  float best = 0;
  for (size_t i = 0; i < n; i++) best += (x[i] - codebook[now * dim + i]) * (x[i] - codebook[now * dim + i]);
  for (size_t c = 0; c < k; c++) {
    float distance = 0;
    for (size_t i = 0; i < n; i++)
      distance += (x[i] - codebook[c * dim + i]) * (x[i] - codebook[c * dim + i]);
    if (distance < best) {
      best = distance;
      now = (uint16_t)c;
    }
  }
  return now;
}

typedef void (*tile_work)(index_job *job, size_t tile);
typedef struct tile_call {
  index_job *job;
  tile_work work;
} tile_call;

static void tile_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const tile_call *call = context;
  for (size_t tile = begin; tile < end; tile++) call->work(call->job, tile);
}

static void for_tiles(index_job *job, tile_work work) {
  tile_call call = {job, work};
  gptvq_parallel_for(job->table->sizes.codebook_scales, 2, tile_task, &call);
}

/* What every tile function needs to know. */
typedef struct tile_view {
  size_t g, width, dim, first_row, last_row, k, values;
  const float *codebook; /* rounded */
} tile_view;

static tile_view view(const index_job *job, size_t tile) {
  const gptvq_ft_table *table = job->table;
  const gptvq_packed_shape *shape = &table->packed->shape;
  size_t groups = table->sizes.column_groups, each = table->count / table->sizes.codebook_scales;
  tile_view v = {.g = tile % groups, .dim = shape->dim, .k = (size_t)1 << shape->index_bits};
  v.width = gptvq_packed_width(shape, v.g);
  v.first_row = tile / groups * shape->group_rows;
  v.last_row = gptvq_min_size(v.first_row + shape->group_rows, shape->rows);
  v.values = table->first + tile * each;
  v.codebook = job->params->rounded + v.values;
  return v;
}

static void start_tile(index_job *job, size_t tile) {
  const gptvq_ft_table *table = job->table;
  const gptvq_packed *packed = table->packed;
  tile_view v = view(job, tile);
  const float *codebook = job->params->theta + v.values;
  for (size_t row = v.first_row; row < v.last_row; row++) {
    size_t at = gptvq_ft_unit_index(&packed->shape, row, v.g);
    for (size_t c = 0; c < v.width; c += v.dim) {
      uint16_t index = table->indices[at + c / v.dim];
      size_t n = gptvq_min_size(v.dim, v.width - c);
      float *shadow = table->shadow + at * v.dim + c, scale = scale_at(table, row, v.g, c), full[4];
      for (size_t i = 0; i < n; i++) {
        float original = job->original[row * packed->shape.cols + column_of(packed, v.g, c + i)];
        full[i] = scale > 0 ? original / scale - codebook[index * v.dim + i] : 0.0f;
      }
      for (float pull = job->pull;; pull *= 0.5f) {
        if (pull < 0.01f) pull = 0;
        for (size_t i = 0; i < n; i++) shadow[i] = codebook[index * v.dim + i] + pull * full[i];
        if (pull == 0 || nearest(codebook, v.k, v.dim, shadow, n, index) == index) break;
      }
    }
  }
}

gptvq_status gptvq_ft_indices_create(gptvq_ft_params *params, const gptvq_block *original, float pull,
                                     gptvq_error *err) {
  for (size_t t = 0; t < params->table_count; t++) {
    gptvq_ft_table *table = &params->tables[t];
    const gptvq_packed_shape *shape = &table->packed->shape;
    if (shape->kind != GPTVQ_PACKED_VQ) continue;
    size_t indices = table->sizes.index_bytes * 8 / shape->index_bits, n = indices * shape->dim;
    const gptvq_linear *linear = &original->linears[table->linear];
    float *weights = gptvq_alloc(linear->rows * linear->cols, sizeof *weights);
    table->shadow = gptvq_alloc_zero(n, sizeof(float));
    table->shadow_mean = gptvq_alloc_zero(n, sizeof(float));
    table->shadow_square = gptvq_alloc_zero(n, sizeof(float));
    table->indices = gptvq_alloc(indices, sizeof *table->indices);
    table->kept = gptvq_alloc(indices, sizeof *table->kept);
    if (weights == NULL || table->indices == NULL || table->kept == NULL || table->shadow == NULL ||
        table->shadow_mean == NULL || table->shadow_square == NULL) {
      free(weights);
      gptvq_ft_indices_release(params);
      return gptvq_fail_memory(err, "fine-tuning of indices", gptvq_saturated_size(n, 4 * sizeof(float)));
    }
    for (size_t row = 0; row < shape->rows; row++)
      for (size_t g = 0; g < table->sizes.column_groups; g++)
        gptvq_unpack_unit(table->packed->indices + gptvq_unit_offset(shape, row, g),
                          gptvq_unit_indices(shape, g), shape->index_bits,
                          table->indices + gptvq_ft_unit_index(shape, row, g));
    gptvq_linear_decode(linear, weights);
    index_job job = {.params = params, .table = table, .original = weights, .pull = pull};
    for_tiles(&job, start_tile);
    free(weights);
  }
  return GPTVQ_OK;
}

void gptvq_ft_indices_release(gptvq_ft_params *params) {
  for (size_t t = 0; t < params->table_count; t++) {
    gptvq_ft_table *table = &params->tables[t];
    free(table->shadow);
    free(table->shadow_mean);
    free(table->shadow_square);
    free(table->kept);
    free(table->indices);
    table->shadow = table->shadow_mean = table->shadow_square = NULL;
    table->kept = table->indices = NULL;
  }
}

static void update_tile(index_job *job, size_t tile) {
  const gptvq_ft_table *table = job->table;
  const gptvq_packed *packed = table->packed;
  tile_view v = view(job, tile);
  float unit = job->params->unit[v.values];
  for (size_t row = v.first_row; row < v.last_row; row++) {
    size_t at = gptvq_ft_unit_index(&packed->shape, row, v.g) * v.dim;
    const float *gradient = job->gradient + (table->row_offset + row) * packed->shape.cols;
    for (size_t c = 0; c < v.width; c++) {
      /* shadows are in the codebook's units */
      float g = gradient[column_of(packed, v.g, c)] * scale_at(table, row, v.g, c) * unit;
      float *mean = table->shadow_mean + at + c, *square = table->shadow_square + at + c;
      *mean = beta1 * *mean + (1.0f - beta1) * g;
      *square = beta2 * *square + (1.0f - beta2) * g * g;
      table->shadow[at + c] -=
          job->rate * unit * (*mean * job->correction1) / (sqrtf(*square * job->correction2) + 1e-8f);
    }
  }
}

void gptvq_ft_indices_update(gptvq_ft_params *params, gptvq_ft_matrix matrix, const float *gradient,
                             double rate, size_t step) {
  for (size_t t = 0; t < params->table_count; t++) {
    gptvq_ft_table *table = &params->tables[t];
    if (table->matrix != matrix || table->shadow == NULL) continue;
    index_job job = {.params = params,
                     .table = table,
                     .gradient = gradient,
                     .rate = (float)rate,
                     .correction1 = (float)(1.0 / (1.0 - pow((double)beta1, (double)step))),
                     .correction2 = (float)(1.0 / (1.0 - pow((double)beta2, (double)step)))};
    for_tiles(&job, update_tile);
  }
}

static void assign_tile(index_job *job, size_t tile) {
  const gptvq_ft_table *table = job->table;
  tile_view v = view(job, tile);
  for (size_t row = v.first_row; row < v.last_row; row++) {
    size_t at = gptvq_ft_unit_index(&table->packed->shape, row, v.g);
    for (size_t c = 0; c < v.width; c += v.dim) {
      uint16_t *index = &table->indices[at + c / v.dim];
      *index = nearest(v.codebook, v.k, v.dim, table->shadow + at * v.dim + c,
                       gptvq_min_size(v.dim, v.width - c), *index);
    }
  }
}

void gptvq_ft_indices_assign(gptvq_ft_params *params) {
  for (size_t t = 0; t < params->table_count; t++) {
    if (params->tables[t].shadow == NULL) continue;
    index_job job = {.params = params, .table = &params->tables[t]};
    for_tiles(&job, assign_tile);
  }
}

static size_t index_count(const gptvq_ft_table *table) {
  return table->sizes.index_bytes * 8 / table->packed->shape.index_bits;
}

void gptvq_ft_indices_keep(gptvq_ft_params *params) {
  for (size_t t = 0; t < params->table_count; t++) {
    const gptvq_ft_table *table = &params->tables[t];
    if (table->shadow != NULL) memcpy(table->kept, table->indices, index_count(table) * sizeof *table->kept);
  }
}

void gptvq_ft_indices_restore(gptvq_ft_params *params) {
  for (size_t t = 0; t < params->table_count; t++) {
    const gptvq_ft_table *table = &params->tables[t];
    if (table->shadow != NULL) memcpy(table->indices, table->kept, index_count(table) * sizeof *table->kept);
  }
}

void gptvq_ft_indices_store(gptvq_ft_params *params) {
  for (size_t t = 0; t < params->table_count; t++) {
    const gptvq_ft_table *table = &params->tables[t];
    const gptvq_packed_shape *shape = &table->packed->shape;
    if (table->shadow == NULL) continue;
    for (size_t row = 0; row < shape->rows; row++)
      for (size_t g = 0; g < table->sizes.column_groups; g++)
        gptvq_pack_unit(table->indices + gptvq_ft_unit_index(shape, row, g), gptvq_unit_indices(shape, g),
                        shape->index_bits,
                        (uint8_t *)table->packed->indices + gptvq_unit_offset(shape, row, g));
  }
}
