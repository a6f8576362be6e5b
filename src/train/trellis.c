/* Trellis layers in training: tables and the scales of rows; paths stay. Of a table's theta the first values
 * are its tables, the others the row scales [row][group]. */
#include "train/train.h"

#include "base/memory.h"
#include "base/threads.h"

enum {
  TABLE = GPTVQ_TRELLIS_TABLE,
  HALF = TABLE / 2,
  STATES = 1 << GPTVQ_TRELLIS_STATE_BITS,
  CHUNK = 1024, /* columns at a time */
  ROWS = 64     /* of a task */
};

static size_t scales_at(const gptvq_ft_table *table) { return table->first + table->sizes.codebook_values; }

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

/* Some columns of a row of one column group, as they are stored: their states, and where their values are. */
typedef struct part {
  size_t begin, count;
  const uint32_t *permutation; /* NULL: none */
  uint8_t states[CHUNK];
} part;

static void read_part(const gptvq_packed *packed, size_t row, size_t begin, size_t count, part *out) {
  const gptvq_packed_shape *shape = &packed->shape;
  out->begin = begin;
  out->count = count;
  out->permutation = packed->permutation;
  gptvq_trellis_states(packed->indices + row * gptvq_trellis_row_bytes(shape), shape->index_bits, begin,
                       count, out->states);
}

static size_t column(const part *p, size_t i) {
  return p->permutation != NULL ? p->permutation[p->begin + i] : p->begin + i;
}

/* The entries of a group's tables that a state's value is the sum of, and these sums. */
static size_t first(unsigned k, unsigned state) { return gptvq_trellis_entry(k, state, 0); }
static size_t second(unsigned k, unsigned state) { return HALF + gptvq_trellis_entry(k, state, 1); }
static void list_values(const float *tables, unsigned k, float values[STATES]) {
  for (unsigned state = 0; state < STATES; state++)
    values[state] = tables[first(k, state)] + tables[second(k, state)];
}

typedef struct trellis_job {
  const gptvq_ft_table *table;
  const float *rounded;  /* of all parameters */
  float *matrix;         /* fill: the stacked one */
  const float *gradient; /* scatter: of that */
  float *sums;           /* of all parameters */
} trellis_job;

/* A task: some rows of one group. */
static void fill_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const trellis_job *job = context;
  const gptvq_ft_table *table = job->table;
  const gptvq_packed_shape *shape = &table->packed->shape;
  const size_t groups = table->sizes.column_groups;
  for (size_t task = begin; task < end; task++) {
    const size_t g = task % groups, from = task / groups * ROWS,
                 to = gptvq_min_size(from + ROWS, shape->rows),
                 end_column = g * shape->group_cols + gptvq_packed_width(shape, g);
    float values[STATES];
    list_values(job->rounded + table->first + g * TABLE, shape->index_bits, values);
    for (size_t row = from; row < to; row++) {
      const float scale = job->rounded[scales_at(table) + row * groups + g];
      float *out = job->matrix + (table->row_offset + row) * shape->cols;
      for (size_t c = g * shape->group_cols; c < end_column; c += CHUNK) {
        part p;
        read_part(table->packed, row, c, gptvq_min_size(CHUNK, end_column - c), &p);
        for (size_t i = 0; i < p.count; i++) out[column(&p, i)] = values[p.states[i]] * scale;
      }
    }
  }
}

void gptvq_ft_trellis_fill(const gptvq_ft_params *params, const gptvq_ft_table *table, float *matrix) {
  trellis_job job = {.table = table, .rounded = params->rounded, .matrix = matrix};
  gptvq_parallel_for(gptvq_ceil_div(table->packed->shape.rows, ROWS) * table->sizes.column_groups, 1,
                     fill_rows, &job);
}

/* A group's table is that of all rows: it is one task's. Its gradient is gathered by states first. */
static void scatter_groups(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const trellis_job *job = context;
  const gptvq_ft_table *table = job->table;
  const gptvq_packed_shape *shape = &table->packed->shape;
  const size_t groups = table->sizes.column_groups;
  const unsigned k = shape->index_bits;
  for (size_t g = begin; g < end; g++) {
    const size_t end_column = g * shape->group_cols + gptvq_packed_width(shape, g);
    float values[STATES], *sums = job->sums + table->first + g * TABLE;
    double by_state[STATES] = {0}, own[TABLE] = {0};
    list_values(job->rounded + table->first + g * TABLE, k, values);
    for (size_t row = 0; row < shape->rows; row++) {
      const float *gradient = job->gradient + (table->row_offset + row) * shape->cols;
      const size_t at = scales_at(table) + row * groups + g;
      const double scale = (double)job->rounded[at];
      double slope = 0.0;
      for (size_t c = g * shape->group_cols; c < end_column; c += CHUNK) {
        part p;
        read_part(table->packed, row, c, gptvq_min_size(CHUNK, end_column - c), &p);
        for (size_t i = 0; i < p.count; i++) {
          const double d = (double)gradient[column(&p, i)];
          by_state[p.states[i]] += d * scale;
          slope += d * (double)values[p.states[i]];
        }
      }
      job->sums[at] += (float)slope;
    }
    for (unsigned state = 0; state < STATES; state++) {
      own[first(k, state)] += by_state[state];
      own[second(k, state)] += by_state[state];
    }
    for (size_t i = 0; i < TABLE; i++) sums[i] += (float)own[i];
  }
}

void gptvq_ft_trellis_scatter(gptvq_ft_params *params, const gptvq_ft_table *table, const float *gradient) {
  trellis_job job = {
      .table = table, .rounded = params->rounded, .gradient = gradient, .sums = params->gradient};
  gptvq_parallel_for(table->sizes.column_groups, 1, scatter_groups, &job);
}
