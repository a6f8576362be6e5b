/* The two tables of a trellis by EM: best paths, then the least squares of what each state stands for. */
#include "base/memory.h"
#include "base/threads.h"
#include "quant/layer/trellis.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum {
  ROWS = GPTVQ_TRELLIS_ROWS,
  STATES = GPTVQ_TRELLIS_STATES,
  HALF = GPTVQ_TRELLIS_HALF,
  TABLE = GPTVQ_TRELLIS_TABLE,
  FIT_SWEEPS = 8
};
#define LEAST_GAIN 2e-5
/* How far a round goes beyond the best tables for its paths, as paths follow slowly: as long as it is less
 * than 1 the objective falls with paths fixed. A third of the rounds lead to the same layer error. */
#define BEYOND 0.9f

/* ---- paths and sums ---- */

typedef struct em {
  const gptvq_trellis_points *points;
  gptvq_dist *dist;
  const float *values;
  uint8_t *state; /* [rows / 16][columns][16] */
  uint8_t *scratch;
  size_t thread_bytes;
  size_t first;           /* set of 16 rows whose paths this member finds */
  gptvq_state_sums *sums; /* [rows / 16] */
} em;

static void take(gptvq_arena *arena, em *e) {
  const gptvq_trellis_points *p = e->points;
  e->thread_bytes = gptvq_round_up((p->columns * STATES >> p->step_bits) * ROWS, 64);
  e->state = gptvq_arena_take(arena, p->rows, p->columns);
  e->scratch = gptvq_arena_take(arena, gptvq_thread_count(), e->thread_bytes);
  e->sums = gptvq_arena_take(arena, p->rows / ROWS, sizeof *e->sums);
}

size_t gptvq_trellis_em_bytes(const gptvq_trellis_points *points) {
  gptvq_arena counting = {0};
  em e = {.points = points};
  take(&counting, &e);
  return counting.peak;
}

static void find_paths(void *context, size_t begin, size_t end, size_t thread) {
  const em *e = context;
  const gptvq_trellis_points *p = e->points;
  for (size_t i = e->first + begin; i < e->first + end; i++) GPTVQ_MULTI_PICK(gptvq_viterbi)
  (p->step_bits, p->columns, e->values, p->x + i * p->columns * ROWS, p->weight,
   e->state + i * p->columns * ROWS, e->scratch + thread * e->thread_bytes);
}

static void add_sums(const gptvq_state_sums *from, gptvq_state_sums *to) {
  for (size_t s = 0; s < STATES; s++) to->wx[s] += from->wx[s];
  for (size_t s = 0; s < STATES; s++) to->w[s] += from->w[s];
  to->loss += from->loss;
}

static void sum_sets(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const em *e = context;
  const gptvq_trellis_points *p = e->points;
  for (size_t set = begin; set < end; set++) {
    memset(&e->sums[set], 0, sizeof e->sums[set]);
    for (size_t row = 0; row < ROWS; row++) {
      gptvq_state_sums own = {.loss = 0.0};
      for (size_t c = 0; c < p->columns; c++) {
        const size_t i = (set * p->columns + c) * ROWS + row;
        const uint8_t state = e->state[i];
        const double x = (double)p->x[i], w = (double)p->weight[c] * (double)p->row_weight[set * ROWS + row],
                     delta = x - (double)e->values[state];
        own.wx[state] += w * x;
        own.w[state] += w;
        own.loss += w * delta * delta;
      }
      add_sums(&own, &e->sums[set]);
    }
  }
}

static gptvq_status sum_paths(void *context, const float values[STATES], gptvq_state_sums *out,
                              gptvq_error *err) {
  em *e = context;
  const gptvq_trellis_points *p = e->points;
  size_t end;
  e->values = values;
  gptvq_dist_own(e->dist, p->rows / ROWS, &e->first, &end);
  gptvq_parallel_for(end - e->first, 1, find_paths, e);
  GPTVQ_TRY(gptvq_dist_gather_items(e->dist, e->state, p->rows / ROWS, p->columns * ROWS, err));
  gptvq_parallel_for(p->rows / ROWS, 1, sum_sets, e);
  memset(out, 0, sizeof *out);
  for (size_t set = 0; set < p->rows / ROWS; set++) add_sums(&e->sums[set], out);
  return GPTVQ_OK;
}

/* ---- tables ---- */

/* Entries that fit the states' sums of w x and of w best, one table after the other. Entries that nothing
 * uses stay. */
static void fit(unsigned step_bits, const double *sum, const double *weight, float *tables) {
  for (unsigned sweep = 0; sweep < 2 * FIT_SWEEPS; sweep++) {
    const unsigned own = sweep % 2, other = 1 - own;
    double total[HALF] = {0}, mass[HALF] = {0};
    for (unsigned s = 0; s < STATES; s++) {
      const unsigned entry = gptvq_trellis_entry(step_bits, s, own);
      total[entry] +=
          sum[s] - weight[s] * (double)tables[other * HALF + gptvq_trellis_entry(step_bits, s, other)];
      mass[entry] += weight[s];
    }
    for (size_t i = 0; i < HALF; i++)
      if (mass[i] > 0.0) tables[own * HALF + i] = (float)(total[i] / mass[i]);
  }
}

static double total_weight(const gptvq_trellis_points *p) {
  double columns = 0.0, rows = 0.0;
  for (size_t c = 0; c < p->columns; c++) columns += (double)p->weight[c];
  for (size_t row = 0; row < p->rows; row++) rows += (double)p->row_weight[row];
  return columns * rows;
}

gptvq_status gptvq_trellis_fit(const gptvq_trellis_points *p, unsigned iterations,
                               gptvq_status (*sum)(void *context, const float values[STATES],
                                                   gptvq_state_sums *out, gptvq_error *err),
                               void *context, float tables[TABLE], double *out, gptvq_error *err) {
  const double total = total_weight(p);
  double before = INFINITY, loss = 0.0;
  float values[STATES];
  gptvq_state_sums sums;
  for (unsigned round = 0; round < iterations; round++) {
    gptvq_trellis_sums(p->step_bits, tables, values);
    GPTVQ_TRY(sum(context, values, &sums, err));
    loss = total > 0.0 ? sums.loss / total : 0.0;
    const bool last = round + 1 == iterations || (round > 3 && loss > before * (1.0 - LEAST_GAIN));
    float old[TABLE];
    memcpy(old, tables, sizeof old);
    fit(p->step_bits, sums.wx, sums.w, tables);
    if (last) break;
    for (size_t i = 0; i < TABLE; i++) tables[i] += BEYOND * (tables[i] - old[i]);
    before = loss;
  }
  *out = loss;
  return GPTVQ_OK;
}

gptvq_status gptvq_trellis_em(const gptvq_trellis_points *p, unsigned iterations, gptvq_dist *dist,
                              float tables[TABLE], double *out, gptvq_arena *arena, gptvq_error *err) {
  em e = {.points = p, .dist = dist};
  const size_t mark = arena->used;
  take(arena, &e);
  GPTVQ_TRY(gptvq_arena_check(arena, "the tables of a trellis", err));
  GPTVQ_TRY(gptvq_trellis_fit(p, iterations, sum_paths, &e, tables, out, err));
  gptvq_arena_return(arena, mark);
  return GPTVQ_OK;
}
