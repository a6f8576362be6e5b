/* The tables of packed linears to matrices, and the gradients of matrices to those of tables. Indices are
 * read as they are packed, some of a row at a time. */
#include "train/train.h"

#include "base/memory.h"
#include "base/threads.h"
#include "format/unpack.h"

#include <string.h>

enum { CHUNK = 512, MOST_DIM = 4 }; /* indices at a time; values of a centroid */

static bool is_vq(const gptvq_ft_table *table) { return table->packed->shape.kind == GPTVQ_PACKED_VQ; }

/* `count` <= CHUNK indices of a unit from `first` on; room: where they are unpacked if need be. */
static const uint16_t *indices_of(const gptvq_ft_table *table, size_t row, size_t g, size_t first,
                                  size_t count, uint16_t room[CHUNK]) {
  const gptvq_packed_shape *shape = &table->packed->shape;
  if (table->indices != NULL) return table->indices + gptvq_ft_unit_index(shape, row, g) + first;
  gptvq_unpack_indices(table->packed->indices + gptvq_unit_offset(shape, row, g),
                       gptvq_unit_indices(shape, g), shape->index_bits, first, count, room);
  return room;
}

/* out[count × dim] = the centroids; sums += x[count × dim]. `dim` is a constant where they are inlined. */
static inline __attribute__((always_inline)) void look_up(size_t dim, size_t count, const uint16_t *indices,
                                                          const float *values, float *out) {
  for (size_t i = 0; i < count; i++)
    for (size_t d = 0; d < dim; d++) out[i * dim + d] = values[indices[i] * dim + d];
}
static inline __attribute__((always_inline)) void add_up(size_t dim, size_t count, const uint16_t *indices,
                                                         const float *x, float *sums) {
  for (size_t i = 0; i < count; i++)
    for (size_t d = 0; d < dim; d++) sums[indices[i] * dim + d] += x[i * dim + d];
}

static void look_up_any(size_t dim, size_t count, const uint16_t *indices, const float *values, float *out) {
  if (dim == 1) look_up(1, count, indices, values, out);
  else if (dim == 2) look_up(2, count, indices, values, out);
  else look_up(4, count, indices, values, out);
}

static void add_up_any(size_t dim, size_t count, const uint16_t *indices, const float *x, float *sums) {
  if (dim == 1) add_up(1, count, indices, x, sums);
  else if (dim == 2) add_up(2, count, indices, x, sums);
  else add_up(4, count, indices, x, sums);
}

/* x[n] of a row of a tile, from its column `first` on, times their block scales */
static void scale_blocks(const gptvq_ft_table *table, size_t row, size_t g, size_t first, size_t n,
                         float *x) {
  const gptvq_packed_shape *shape = &table->packed->shape;
  if (shape->scale_block == 0) return;
  const uint8_t *codes = table->packed->block_scales + gptvq_block_scale_offset(shape, row, g);
  for (size_t c = 0; c < n; c++) {
    const size_t block = (first + c) / shape->scale_block;
    x[c] *= table->block_scale[(unsigned)codes[block / 2] >> (block % 2 * 4) & 15u];
  }
}

/* Columns [first, first + n) of the packed matrix, whose places in a row are permuted. */
static void put(const gptvq_packed *packed, size_t first, size_t n, const float *values, float *row) {
  if (packed->permutation == NULL) memcpy(row + first, values, n * sizeof *row);
  else
    for (size_t c = 0; c < n; c++) row[packed->permutation[first + c]] = values[c];
}
static void take(const gptvq_packed *packed, size_t first, size_t n, const float *row, float *values) {
  if (packed->permutation == NULL) memcpy(values, row + first, n * sizeof *row);
  else
    for (size_t c = 0; c < n; c++) values[c] = row[packed->permutation[first + c]];
}

typedef struct table_job {
  const gptvq_ft_table *table;
  const float *rounded;  /* fill: of all parameters */
  float *matrix;         /* the stacked one */
  const float *gradient; /* scatter: of that */
  float *sums;           /* of all parameters */
} table_job;

/* The rows and columns that share a codebook. */
typedef struct tile_place {
  size_t g, column, width, subs;  /* its group of columns, their first, their number, indices of a row */
  size_t first_row, last_row, at; /* at: of the codebook's first value among the table's */
} tile_place;

static tile_place place_of(const gptvq_ft_table *table, size_t tile) {
  const gptvq_packed_shape *shape = &table->packed->shape;
  const size_t groups = table->sizes.column_groups, g = tile % groups, width = gptvq_packed_width(shape, g),
               first_row = tile / groups * shape->group_rows;
  return (tile_place){.g = g,
                      .column = g * shape->group_cols,
                      .width = width,
                      .subs = gptvq_ceil_div(width, shape->dim),
                      .first_row = first_row,
                      .last_row = gptvq_min_size(first_row + shape->group_rows, shape->rows),
                      .at = tile * (table->sizes.codebook_values / table->sizes.codebook_scales)};
}

static void fill_tile(const table_job *job, size_t tile) {
  const gptvq_ft_table *table = job->table;
  const tile_place p = place_of(table, tile);
  const size_t dim = table->packed->shape.dim, cols = table->packed->shape.cols;
  const float *values = job->rounded + table->first + p.at;
  uint16_t room[CHUNK];
  float part[CHUNK * MOST_DIM];
  for (size_t row = p.first_row; row < p.last_row; row++)
    for (size_t s = 0; s < p.subs; s += CHUNK) {
      const size_t count = gptvq_min_size(CHUNK, p.subs - s),
                   n = gptvq_min_size(count * dim, p.width - s * dim);
      look_up_any(dim, count, indices_of(table, row, p.g, s, count, room), values, part);
      scale_blocks(table, row, p.g, s * dim, n, part);
      put(table->packed, p.column + s * dim, n, part, job->matrix + (table->row_offset + row) * cols);
    }
}

static void scatter_tile(const table_job *job, size_t tile) {
  const gptvq_ft_table *table = job->table;
  const tile_place p = place_of(table, tile);
  const size_t dim = table->packed->shape.dim, cols = table->packed->shape.cols;
  float *sums = job->sums + table->first + p.at;
  uint16_t room[CHUNK];
  float part[CHUNK * MOST_DIM];
  for (size_t row = p.first_row; row < p.last_row; row++)
    for (size_t s = 0; s < p.subs; s += CHUNK) {
      const size_t count = gptvq_min_size(CHUNK, p.subs - s),
                   n = gptvq_min_size(count * dim, p.width - s * dim);
      take(table->packed, p.column + s * dim, n, job->gradient + (table->row_offset + row) * cols, part);
      scale_blocks(table, row, p.g, s * dim, n, part);
      for (size_t c = n; c < count * dim; c++)
        part[c] = 0.0f; /* what the last centroid has beyond the edge */
      add_up_any(dim, count, indices_of(table, row, p.g, s, count, room), part, sums);
    }
}

/* The place of a column's scale among those of all rows. */
static size_t scale_of(const gptvq_packed_shape *shape, size_t row, size_t column) {
  return row * gptvq_ceil_div(shape->cols, shape->scale_block) + column / shape->scale_block;
}

static void fill_row(const table_job *job, size_t row) {
  const gptvq_ft_table *table = job->table;
  const gptvq_packed_shape *shape = &table->packed->shape;
  const float *scales = job->rounded + table->first;
  uint16_t room[CHUNK];
  float part[CHUNK];
  for (size_t c = 0; c < shape->cols; c += CHUNK) {
    const size_t n = gptvq_min_size(CHUNK, shape->cols - c);
    const uint16_t *codes = indices_of(table, row, 0, c, n, room);
    for (size_t i = 0; i < n; i++) {
      const size_t place = scale_of(shape, row, c + i);
      part[i] = scales[place] * (float)((int)codes[i] - (int)table->zeros[place]);
    }
    put(table->packed, c, n, part, job->matrix + (table->row_offset + row) * shape->cols);
  }
}

static void scatter_row(const table_job *job, size_t row) {
  const gptvq_ft_table *table = job->table;
  const gptvq_packed_shape *shape = &table->packed->shape;
  float *sums = job->sums + table->first;
  uint16_t room[CHUNK];
  float part[CHUNK];
  for (size_t c = 0; c < shape->cols; c += CHUNK) {
    const size_t n = gptvq_min_size(CHUNK, shape->cols - c);
    const uint16_t *codes = indices_of(table, row, 0, c, n, room);
    take(table->packed, c, n, job->gradient + (table->row_offset + row) * shape->cols, part);
    for (size_t i = 0; i < n; i++) {
      const size_t place = scale_of(shape, row, c + i);
      sums[place] += part[i] * (float)((int)codes[i] - (int)table->zeros[place]);
    }
  }
}

static void fill_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const table_job *job = context;
  for (size_t i = begin; i < end; i++)
    if (is_vq(job->table)) fill_tile(job, i);
    else fill_row(job, i);
}

static void scatter_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const table_job *job = context;
  for (size_t i = begin; i < end; i++)
    if (is_vq(job->table)) scatter_tile(job, i);
    else scatter_row(job, i);
}

/* A tile's codebook, or a row's scales, are one task's. */
static size_t task_count(const gptvq_ft_table *table) {
  return is_vq(table) ? table->sizes.codebook_scales : table->packed->shape.rows;
}

void gptvq_ft_table_fill(const gptvq_ft_params *params, const gptvq_ft_table *table, float *matrix) {
  table_job job = {.table = table, .rounded = params->rounded, .matrix = matrix};
  gptvq_parallel_for(task_count(table), 4, fill_task, &job);
}

void gptvq_ft_table_scatter(gptvq_ft_params *params, const gptvq_ft_table *table, const float *gradient) {
  table_job job = {.table = table, .gradient = gradient, .sums = params->gradient};
  gptvq_parallel_for(task_count(table), 4, scatter_task, &job);
}
