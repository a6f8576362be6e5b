/* The two tables of a trellis by EM: best paths, then the least squares of what each state stands for. */
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "quant/layer/trellis.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

enum {
  ROWS = GPTVQ_TRELLIS_ROWS,
  STATES = GPTVQ_TRELLIS_STATES,
  HALF = GPTVQ_TRELLIS_HALF,
  TABLE = GPTVQ_TRELLIS_TABLE,
  FIT_SWEEPS = 8
};
#define LEAST_GAIN 2e-5

typedef struct em {
  const gptvq_trellis_points *points;
  float values[STATES];
  uint8_t *state; /* [rows / 16][columns][16] */
  uint8_t *scratch;
  size_t thread_bytes;
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
  for (size_t i = begin; i < end; i++) GPTVQ_MULTI_PICK(gptvq_viterbi)
  (p->step_bits, p->columns, e->values, p->x + i * p->columns * ROWS, p->weight,
   e->state + i * p->columns * ROWS, e->scratch + thread * e->thread_bytes);
}

/* Entries that fit the states' sums of w x and of w best, one table after the other. Entries that nothing
 * uses stay. */
static void fit(const double *sum, const double *weight, float *tables) {
  for (int sweep = 0; sweep < 2 * FIT_SWEEPS; sweep++) {
    const size_t own = sweep % 2 == 0 ? 1 : HALF, other = HALF + 1 - own;
    float *to = tables + (sweep % 2) * HALF;
    const float *fixed = tables + (1 - sweep % 2) * HALF;
    for (size_t i = 0; i < HALF; i++) {
      double total = 0.0, mass = 0.0;
      for (size_t j = 0; j < HALF; j++) {
        const size_t s = i * own + j * other;
        total += sum[s] - weight[s] * (double)fixed[j];
        mass += weight[s];
      }
      if (mass > 0.0) to[i] = (float)(total / mass);
    }
  }
}

double gptvq_trellis_em(const gptvq_trellis_points *p, unsigned iterations, float tables[TABLE],
                        gptvq_arena *arena) {
  em e = {.points = p};
  size_t mark = arena->used;
  double sum[STATES], weight[STATES], before = INFINITY, loss = 0.0;
  take(arena, &e);
  for (unsigned round = 0; round < iterations; round++) {
    gptvq_trellis_sums(tables, e.values);
    gptvq_parallel_for(p->rows / ROWS, 1, find_paths, &e);
    memset(sum, 0, sizeof sum);
    memset(weight, 0, sizeof weight);
    double total = 0.0;
    loss = 0.0;
    for (size_t i = 0; i < p->rows * p->columns; i++) {
      size_t row = i / ROWS / p->columns * ROWS + i % ROWS, c = i / ROWS % p->columns;
      double x = (double)p->x[i], w = (double)p->weight[c] * (double)p->row_weight[row],
             delta = x - (double)e.values[e.state[i]];
      sum[e.state[i]] += w * x;
      weight[e.state[i]] += w;
      loss += w * delta * delta;
      total += w;
    }
    loss = total > 0.0 ? loss / total : 0.0;
    if (round > 3 && loss > before * (1.0 - LEAST_GAIN)) break;
    before = loss;
    fit(sum, weight, tables);
  }
  gptvq_arena_return(arena, mark);
  return loss;
}

/* ---- the start ---- */

/* Random tables start better than orderly ones, and of a few the best after some rounds is taken. */
enum {
  SAMPLE_ROWS = 256,
  SAMPLE_COLUMNS = 256,
  STARTS = 4,
  FIRST_ROUNDS = 15,
  SAMPLE_ROUNDS = 60,
  MOST_BITS = 4
};

typedef struct sample {
  float *x, *weight, *row_weight;
  gptvq_trellis_points points;
} sample;

static void take_sample(gptvq_arena *arena, unsigned step_bits, sample *s) {
  s->x = gptvq_arena_take(arena, SAMPLE_ROWS, SAMPLE_COLUMNS * sizeof *s->x);
  s->weight = gptvq_arena_take(arena, SAMPLE_COLUMNS, sizeof *s->weight);
  s->row_weight = gptvq_arena_take(arena, SAMPLE_ROWS, sizeof *s->row_weight);
  s->points =
      (gptvq_trellis_points){step_bits, SAMPLE_ROWS, SAMPLE_COLUMNS, s->x, s->weight, s->row_weight};
}

size_t gptvq_gaussian_tables_bytes(unsigned step_bits) {
  gptvq_arena counting = {0};
  sample s;
  take_sample(&counting, step_bits, &s);
  return gptvq_saturated_sum(counting.peak, gptvq_trellis_em_bytes(&s.points));
}

static float normal(uint64_t *random) {
  double u = 1.0 - gptvq_random_unit(random), v = gptvq_random_unit(random);
  return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

void gptvq_gaussian_tables(unsigned step_bits, float tables[TABLE], gptvq_arena *arena) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static float known[MOST_BITS + 1][TABLE];
  static bool ready[MOST_BITS + 1];
  (void)pthread_mutex_lock(&mutex);
  bool there = ready[step_bits];
  if (there) memcpy(tables, known[step_bits], sizeof known[step_bits]);
  (void)pthread_mutex_unlock(&mutex);
  if (there) return;
  size_t mark = arena->used;
  sample s;
  uint64_t random = 1;
  take_sample(arena, step_bits, &s);
  for (size_t i = 0; i < (size_t)SAMPLE_ROWS * SAMPLE_COLUMNS; i++) s.x[i] = normal(&random);
  for (size_t i = 0; i < SAMPLE_COLUMNS; i++) s.weight[i] = 1.0f;
  for (size_t i = 0; i < SAMPLE_ROWS; i++) s.row_weight[i] = 1.0f;
  double least = INFINITY;
  for (int start = 0; start < STARTS; start++) {
    float own[TABLE];
    for (size_t i = 0; i < TABLE; i++) own[i] = normal(&random) * 0.70710678f;
    double loss = gptvq_trellis_em(&s.points, FIRST_ROUNDS, own, arena);
    if (loss < least) memcpy(tables, own, sizeof own);
    least = fmin(least, loss);
  }
  (void)gptvq_trellis_em(&s.points, SAMPLE_ROUNDS, tables, arena);
  gptvq_arena_return(arena, mark);
  (void)pthread_mutex_lock(&mutex);
  memcpy(known[step_bits], tables, sizeof known[step_bits]);
  ready[step_bits] = true;
  (void)pthread_mutex_unlock(&mutex);
}
