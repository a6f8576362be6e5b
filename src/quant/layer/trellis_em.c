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

typedef struct em {
  const gptvq_trellis_points *points;
  float values[STATES];
  uint8_t *state; /* [rows / 16][columns][16] */
  uint8_t *scratch;
  size_t thread_bytes;
  size_t first; /* set of 16 rows whose paths this member finds */
} em;

static void take(gptvq_arena *arena, em *e) {
  const gptvq_trellis_points *p = e->points;
  e->thread_bytes = gptvq_round_up((p->columns * STATES >> p->step_bits) * ROWS, 64);
  e->state = gptvq_arena_take(arena, p->rows, p->columns);
  e->scratch = gptvq_arena_take(arena, gptvq_thread_count(), e->thread_bytes);
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

/* What each state is to fit: Σ w x and Σ w of its points; returns the weighted mean squared error of all. */
static double sum_states(const em *e, double sum[STATES], double weight[STATES]) {
  const gptvq_trellis_points *p = e->points;
  double loss = 0.0, total = 0.0;
  memset(sum, 0, STATES * sizeof *sum);
  memset(weight, 0, STATES * sizeof *weight);
  for (size_t set = 0, i = 0; set < p->rows / ROWS; set++)
    for (size_t c = 0; c < p->columns; c++)
      for (size_t row = set * ROWS; row < (set + 1) * ROWS; row++, i++) {
        const uint8_t state = e->state[i];
        const double x = (double)p->x[i], w = (double)p->weight[c] * (double)p->row_weight[row],
                     delta = x - (double)e->values[state];
        sum[state] += w * x;
        weight[state] += w;
        loss += w * delta * delta;
        total += w;
      }
  return total > 0.0 ? loss / total : 0.0;
}

gptvq_status gptvq_trellis_em(const gptvq_trellis_points *p, unsigned iterations, gptvq_dist *dist,
                              float tables[TABLE], double *out, gptvq_arena *arena, gptvq_error *err) {
  em e = {.points = p};
  size_t mark = arena->used, end;
  double sum[STATES], weight[STATES], before = INFINITY, loss = 0.0;
  take(arena, &e);
  GPTVQ_TRY(gptvq_arena_check(arena, "the tables of a trellis", err));
  gptvq_dist_own(dist, p->rows / ROWS, &e.first, &end);
  for (unsigned round = 0; round < iterations; round++) {
    gptvq_trellis_sums(p->step_bits, tables, e.values);
    gptvq_parallel_for(end - e.first, 1, find_paths, &e);
    GPTVQ_TRY(gptvq_dist_gather_items(dist, e.state, p->rows / ROWS, p->columns * ROWS, err));
    loss = sum_states(&e, sum, weight);
    const bool last = round + 1 == iterations || (round > 3 && loss > before * (1.0 - LEAST_GAIN));
    float old[TABLE];
    memcpy(old, tables, sizeof old);
    fit(p->step_bits, sum, weight, tables);
    if (last) break;
    for (size_t i = 0; i < TABLE; i++) tables[i] += BEYOND * (tables[i] - old[i]);
    before = loss;
  }
  gptvq_arena_return(arena, mark);
  *out = loss;
  return GPTVQ_OK;
}
