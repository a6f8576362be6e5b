/* The trellis code in the GPTVQ loop: per column group a scale for each row and two tables for all rows, then
 * best paths batch by batch. */
#include "base/memory.h"
#include "base/threads.h"
#include "quant/layer/beam.h"
#include "quant/layer/layer.h"
#include "quant/layer/trellis.h"

#include <math.h>
#include <string.h>

/* Rounds that tables take, at most: what is left to gain is made up for by the re-assignment. */
enum { TABLE_ROUNDS = 24 };

static size_t sample_rows(const gptvq_vq *q) { return gptvq_min_size(q->all_rows, GPTVQ_TRELLIS_SAMPLE); }
/* The sample is spread evenly over the layer's rows. */
static size_t sample_row(const gptvq_vq *q, size_t i) { return i * q->all_rows / sample_rows(q); }
static size_t first_sample(const gptvq_vq *part, size_t member) {
  return gptvq_ceil_div(gptvq_vq_first_row(part, member) * sample_rows(part), part->all_rows);
}

static gptvq_trellis_points points_of(const gptvq_vq *q) {
  size_t rows = sample_rows(q);
  return (gptvq_trellis_points){.step_bits = q->step_bits,
                                .rows = gptvq_round_up(rows, GPTVQ_TRELLIS_ROWS),
                                .columns = gptvq_packed_width(&q->shape, 0)};
}

typedef struct making {
  float *x, *weight, *row_weight;
  float *sample; /* [sample rows × width] of all members; NULL: the part is the whole */
  double *size;  /* [all rows] weighted root mean square */
} making;

static void take_making(gptvq_arena *arena, const gptvq_vq *q, const gptvq_trellis_points *p, making *m) {
  m->x = gptvq_arena_take_zero(arena, p->rows, p->columns * sizeof *m->x);
  m->weight = gptvq_arena_take(arena, p->columns, sizeof *m->weight);
  m->row_weight = gptvq_arena_take_zero(arena, p->rows, sizeof *m->row_weight);
  m->size = gptvq_arena_take(arena, q->all_rows, sizeof *m->size);
  m->sample =
      q->dist == NULL ? NULL : gptvq_arena_take(arena, sample_rows(q), p->columns * sizeof *m->sample);
}

typedef struct measuring {
  const gptvq_vq *q;
  const gptvq_group *group;
  const making *m;
  double total; /* of the columns' weights */
} measuring;

static void measure(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const measuring *job = context;
  const gptvq_vq *q = job->q;
  for (size_t row = begin; row < end; row++) {
    const float *w = q->work + row * q->padded + job->group->start;
    double sum = 0.0;
    for (size_t c = 0; c < job->group->width; c++)
      sum += (double)job->m->weight[c] * (double)w[c] * (double)w[c];
    job->m->size[q->first_row + row] = job->total > 0.0 ? sqrt(sum / job->total) : 0.0;
  }
}

/* size of all rows; *base: the geometric mean of those that are not 0, or 0 */
static gptvq_status measure_rows(const gptvq_vq *q, const gptvq_group *group, const making *m, double *base,
                                 gptvq_error *err) {
  measuring job = {q, group, m, 0.0};
  double logs = 0.0, count = 0.0;
  for (size_t c = 0; c < group->width; c++) job.total += (double)m->weight[c];
  gptvq_parallel_for(q->rows, 64, measure, &job);
  GPTVQ_TRY(gptvq_vq_collect(q, m->size, sizeof *m->size, gptvq_vq_first_row, err));
  for (size_t row = 0; row < q->all_rows; row++) {
    if (!(m->size[row] > 0.0)) continue;
    logs += log2(m->size[row]);
    count += 1.0;
  }
  *base = count > 0.0 ? exp2(logs / count) : 0.0;
  return GPTVQ_OK;
}

/* The sampled rows of other members, as they are before they are scaled. */
static gptvq_status collect_sample(const gptvq_vq *q, const gptvq_group *group, const making *m,
                                   gptvq_error *err) {
  if (q->dist == NULL) return GPTVQ_OK;
  const size_t own = q->dist->team.rank;
  for (size_t i = first_sample(q, own); i < first_sample(q, own + 1); i++)
    memcpy(m->sample + i * group->width,
           q->work + (sample_row(q, i) - q->first_row) * q->padded + group->start,
           group->width * sizeof *m->sample);
  return gptvq_vq_collect(q, m->sample, group->width * sizeof *m->sample, first_sample, err);
}

/* The scaled sample, weighted by the square of the scales. */
static void set_points(const gptvq_vq *q, const gptvq_group *group, const making *m, double base) {
  for (size_t i = 0; i < sample_rows(q) && base > 0.0; i++) {
    const size_t row = sample_row(q, i);
    const float *w =
                    q->dist == NULL ? q->work + row * q->padded + group->start : m->sample + i * group->width,
                scale = q->scale_table[gptvq_row_scale_code(m->size[row] / base)];
    if (!(scale > 0.0f)) continue;
    m->row_weight[i] = scale * scale;
    for (size_t c = 0; c < group->width; c++)
      m->x[(i / GPTVQ_TRELLIS_ROWS * group->width + c) * GPTVQ_TRELLIS_ROWS + i % GPTVQ_TRELLIS_ROWS] =
          w[c] / scale;
  }
}

static gptvq_status em_here(gptvq_vq *q, const gptvq_trellis_points *p, unsigned rounds, float *tables,
                            double *loss, gptvq_error *err) {
  return gptvq_trellis_em(p, rounds, q->dist, tables, loss, q->arena, err);
}

gptvq_status gptvq_trellis_tables(gptvq_vq *q, size_t g, gptvq_error *err) {
  return gptvq_trellis_tables_by(q, g, em_here, err);
}

gptvq_status gptvq_trellis_tables_by(gptvq_vq *q, size_t g, gptvq_trellis_tables_em em, gptvq_error *err) {
  const gptvq_group *group = &q->group[g];
  gptvq_trellis_points p = points_of(q);
  size_t mark = q->arena->used;
  double base, loss;
  making m;
  float tables[GPTVQ_TRELLIS_TABLE];
  take_making(q->arena, q, &p, &m);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "the tables of a trellis", err));
  p.columns = group->width;
  p.x = m.x;
  p.weight = m.weight;
  p.row_weight = m.row_weight;
  for (size_t c = 0; c < group->width; c++) {
    float t = q->lookup[group->start + c];
    m.weight[c] = gptvq_factor_is_dead(q->factor, group->start + c) ? 0.0f : t * t;
  }
  GPTVQ_TRY(measure_rows(q, group, &m, &base, err));
  for (size_t row = 0; row < q->rows; row++)
    q->scale_codes[row * q->groups + group->id] =
        base > 0.0 ? gptvq_row_scale_code(m.size[q->first_row + row] / base) : 0;
  GPTVQ_TRY(collect_sample(q, group, &m, err));
  set_points(q, group, &m, base);
  for (size_t i = 0; i < GPTVQ_TRELLIS_TABLE; i++)
    tables[i] = gptvq_gaussian_tables[p.step_bits - 2][i] * (float)base;
  const unsigned rounds = q->options->em_iterations < TABLE_ROUNDS ? q->options->em_iterations : TABLE_ROUNDS;
  GPTVQ_TRY(em(q, &p, rounds, tables, &loss, err));
  gptvq_vq_store_codebook(q, g, tables);
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}

void gptvq_trellis_expand(gptvq_vq *q, size_t g) {
  gptvq_trellis_sums(q->step_bits, gptvq_vq_codebook(q, 0, g), gptvq_vq_state_values(q, g));
}

/* ---- paths ---- */

size_t gptvq_trellis_path_bytes(const gptvq_vq *q) {
  return gptvq_round_up(GPTVQ_MULTI_PICK(gptvq_path_scratch)(q->step_bits, q->beam), 64);
}

void gptvq_trellis_set_columns(const gptvq_vq *q, gptvq_span columns, gptvq_trellis_columns *out) {
  size_t g = 0;
  for (size_t c = columns.begin; c < columns.end; c++) {
    while (c >= q->group[g].start + q->group[g].width) g++;
    out->table[c - columns.begin] = gptvq_vq_state_values(q, g);
  }
}

int gptvq_trellis_prefix(const gptvq_vq *q, size_t row, size_t column) {
  return column == 0
             ? 0
             : (int)(q->index[row * q->blocks + column - 1] & ((GPTVQ_TRELLIS_STATES >> q->step_bits) - 1));
}

typedef struct assignment {
  gptvq_vq *q;
  gptvq_span batch;
  gptvq_trellis_columns columns;
  char *scratch;
  size_t thread_bytes;
} assignment;

static void assign_rows(void *context, size_t begin, size_t end, size_t thread) {
  const assignment *a = context;
  gptvq_vq *q = a->q;
  size_t n = q->padded, first = a->batch.begin;
  float scale[GPTVQ_BATCH], error[GPTVQ_BATCH];
  gptvq_path path = {.step_bits = q->step_bits,
                     .columns = a->batch.end - first,
                     .width = q->beam,
                     .table = a->columns.table,
                     .scale = scale,
                     .lookup = q->lookup + first,
                     .metric = q->metric + first,
                     .u_stride = n,
                     .end = -1};
  if (q->options->feedback && q->factor != NULL) path.u = q->factor->u + first * n + first;
  for (size_t row = begin; row < end; row++) {
    for (size_t c = 0; c < path.columns; c++) scale[c] = gptvq_vq_scale(q, row, first + c);
    path.start = gptvq_trellis_prefix(q, row, first);
    (void)GPTVQ_MULTI_PICK(gptvq_find_path)(&path, q->work + row * n + first,
                                            q->index + row * q->blocks + first, error,
                                            a->scratch + thread * a->thread_bytes);
    if (path.u != NULL) memcpy(q->error + row * n + first, error, path.columns * sizeof *error);
  }
}

static void take_assign(gptvq_arena *arena, assignment *a) {
  a->thread_bytes = gptvq_trellis_path_bytes(a->q);
  a->scratch = gptvq_arena_take(arena, gptvq_thread_count(), a->thread_bytes);
}

gptvq_status gptvq_trellis_assign(gptvq_vq *q, gptvq_span batch, gptvq_error *err) {
  assignment a = {.q = q, .batch = batch};
  size_t mark = q->arena->used;
  take_assign(q->arena, &a);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "the assignment", err));
  gptvq_trellis_set_columns(q, batch, &a.columns);
  gptvq_parallel_for(q->rows, 4, assign_rows, &a);
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}

size_t gptvq_trellis_loop_bytes(const gptvq_vq *q) {
  gptvq_arena making_tables = {0}, assigning = {0};
  gptvq_trellis_points p = points_of(q);
  assignment a = {.q = (gptvq_vq *)(uintptr_t)q};
  making m;
  take_making(&making_tables, q, &p, &m);
  take_assign(&assigning, &a);
  return gptvq_max_size(gptvq_saturated_sum(making_tables.peak, gptvq_trellis_em_bytes(&p)), assigning.peak);
}

/* ---- packing ---- */

static unsigned reversed(unsigned state, unsigned bits) {
  unsigned out = 0;
  for (unsigned i = 0; i < bits; i++) out |= (state >> i & 1u) << (bits - 1 - i);
  return out;
}

void gptvq_trellis_pack_layer(const gptvq_vq *q, gptvq_packed *packed, uint8_t *states) {
  size_t row_bytes = gptvq_trellis_row_bytes(&q->shape);
  uint8_t *row_scales = (uint8_t *)(uintptr_t)packed->row_scales,
          *streams = (uint8_t *)(uintptr_t)packed->indices;
  int8_t *tables = (int8_t *)(uintptr_t)packed->codebooks;
  for (size_t g = 0; g < q->groups; g++)
    for (size_t i = 0; i < GPTVQ_TRELLIS_TABLE; i++) {
      /* with the bits the tables change places, but for those of 2 bits per weight, of inner and outer ones
       */
      const size_t half = q->step_bits == 2 ? i / GPTVQ_TRELLIS_HALF : 1 - i / GPTVQ_TRELLIS_HALF;
      tables[g * q->k + half * GPTVQ_TRELLIS_HALF +
             reversed(i % GPTVQ_TRELLIS_HALF, GPTVQ_TRELLIS_STATE_BITS / 2)] =
          ((const int8_t *)q->codes)[g * q->k + i];
    }
  memcpy(row_scales, q->scale_codes, q->rows * q->groups);
  for (size_t row = 0; row < q->rows; row++) {
    for (size_t c = 0; c < q->shape.cols; c++)
      states[c] = (uint8_t)reversed(q->index[row * q->blocks + c], GPTVQ_TRELLIS_STATE_BITS);
    gptvq_trellis_pack(states, q->shape.cols, q->shape.index_bits, streams + row * row_bytes);
  }
}
