/* Trellis layers in training: tables and the scales of rows; paths stay. Of a table's theta the first values
 * are its tables, the others the row scales [row][group]. */
#include "train/train.h"

#include "base/memory.h"
#include "base/threads.h"

#include <math.h>
#include <string.h>

enum { TABLE = GPTVQ_TRELLIS_TABLE, HALF = TABLE / 2 };

static size_t scales_at(const gptvq_ft_table *table) { return table->first + table->sizes.codebook_values; }

gptvq_status gptvq_ft_trellis_states(gptvq_ft_table *table, gptvq_error *err) {
  const gptvq_packed_shape *shape = &table->packed->shape;
  const size_t row_bytes = gptvq_trellis_row_bytes(shape);
  uint8_t *row_states = gptvq_alloc(shape->cols, 1);
  table->indices = gptvq_alloc(shape->rows, shape->cols * sizeof *table->indices);
  if (row_states == NULL || table->indices == NULL) {
    free(row_states);
    return gptvq_fail_memory(err, "fine-tuning: states of a trellis",
                             gptvq_saturated_size(shape->rows, shape->cols * sizeof *table->indices));
  }
  for (size_t row = 0; row < shape->rows; row++) {
    gptvq_trellis_states(table->packed->indices + row * row_bytes, shape->index_bits, 0, shape->cols,
                         row_states);
    for (size_t c = 0; c < shape->cols; c++) table->indices[row * shape->cols + c] = row_states[c];
  }
  free(row_states);
  return GPTVQ_OK;
}

void gptvq_ft_trellis_read(const gptvq_ft_table *table, float *theta, float *unit) {
  for (size_t i = 0; i < table->sizes.row_scale_bytes; i++)
    theta[scales_at(table) + i] = unit[scales_at(table) + i] = gptvq_row_scale(table->packed->row_scales[i]);
}

void gptvq_ft_trellis_round(const gptvq_ft_table *table, bool rounding, const float *theta, float *rounded) {
  for (size_t i = scales_at(table); i < table->first + table->count; i++)
    rounded[i] = rounding ? gptvq_row_scale(gptvq_row_scale_code((double)theta[i])) : theta[i];
}

void gptvq_ft_trellis_store(const gptvq_ft_table *table, const float *theta) {
  uint8_t *codes = (uint8_t *)table->packed->row_scales;
  for (size_t i = 0; i < table->sizes.row_scale_bytes; i++)
    codes[i] = gptvq_row_scale_code((double)theta[scales_at(table) + i]);
}

/* A row of one column group: its states, its values' places in the matrix. */
typedef struct part {
  const uint16_t *states;
  const uint32_t *permutation; /* NULL: none */
  size_t begin, end;           /* columns as they are stored */
} part;

static part part_of(const gptvq_ft_table *table, size_t row, size_t g) {
  const gptvq_packed_shape *shape = &table->packed->shape;
  const size_t begin = g * shape->group_cols;
  return (part){table->indices + row * shape->cols, table->packed->permutation, begin,
                begin + gptvq_packed_width(shape, g)};
}

static size_t column(const part *p, size_t c) { return p->permutation != NULL ? p->permutation[c] : c; }

/* Entries of a group's tables that a state's value is the sum of. */
static size_t first(unsigned k, unsigned state) { return gptvq_trellis_entry(k, state, 0); }
static size_t second(unsigned k, unsigned state) { return HALF + gptvq_trellis_entry(k, state, 1); }
static float value_of(const float *tables, unsigned k, unsigned state) {
  return tables[first(k, state)] + tables[second(k, state)];
}

typedef struct trellis_job {
  gptvq_ft_params *params;
  const gptvq_ft_table *table;
  const float *gradient; /* of the stacked matrix */
} trellis_job;

static void build_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const trellis_job *job = context;
  const gptvq_ft_table *table = job->table;
  const gptvq_packed_shape *shape = &table->packed->shape;
  const size_t groups = table->sizes.column_groups;
  for (size_t row = begin; row < end; row++) {
    float *out = job->params->weights.matrix[table->matrix] + (table->row_offset + row) * shape->cols;
    for (size_t g = 0; g < groups; g++) {
      const part p = part_of(table, row, g);
      const float *values = job->params->rounded + table->first + g * TABLE,
                  scale = job->params->rounded[scales_at(table) + row * groups + g];
      for (size_t c = p.begin; c < p.end; c++)
        out[column(&p, c)] = value_of(values, shape->index_bits, p.states[c]) * scale;
    }
  }
}

void gptvq_ft_trellis_build(gptvq_ft_params *params, const gptvq_ft_table *table) {
  trellis_job job = {params, table, NULL};
  gptvq_parallel_for(table->packed->shape.rows, 4, build_rows, &job);
}

/* A group's table is that of all rows: it is one task's. */
static void scatter_groups(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const trellis_job *job = context;
  const gptvq_ft_table *table = job->table;
  const gptvq_packed_shape *shape = &table->packed->shape;
  const size_t groups = table->sizes.column_groups;
  for (size_t g = begin; g < end; g++) {
    const float *values = job->params->rounded + table->first + g * TABLE;
    float *sums = job->params->gradient + table->first + g * TABLE;
    double own[TABLE] = {0};
    for (size_t row = 0; row < shape->rows; row++) {
      const part p = part_of(table, row, g);
      const float *gradient = job->gradient + (table->row_offset + row) * shape->cols;
      const size_t at = scales_at(table) + row * groups + g;
      const double scale = (double)job->params->rounded[at];
      double slope = 0.0;
      for (size_t c = p.begin; c < p.end; c++) {
        const double d = (double)gradient[column(&p, c)];
        own[first(shape->index_bits, p.states[c])] += d * scale;
        own[second(shape->index_bits, p.states[c])] += d * scale;
        slope += d * (double)value_of(values, shape->index_bits, p.states[c]);
      }
      job->params->gradient[at] += (float)slope;
    }
    for (size_t i = 0; i < TABLE; i++) sums[i] += (float)own[i];
  }
}

void gptvq_ft_trellis_scatter(gptvq_ft_params *params, const gptvq_ft_table *table, const float *gradient) {
  trellis_job job = {params, table, gradient};
  gptvq_parallel_for(table->sizes.column_groups, 1, scatter_groups, &job);
}
