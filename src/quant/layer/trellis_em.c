/* Tables of a trellis by EM: best paths, then the weighted mean of what each state stands for. */
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "quant/layer/trellis.h"

#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

enum { ROWS = GPTVQ_TRELLIS_ROWS, STATES = GPTVQ_TRELLIS_STATES };
#define LEAST_GAIN 2e-5
/* How far a round goes beyond the means, as paths follow slowly: as long as it is less than 1 the objective
 * falls with paths fixed. A third of the rounds lead to the same layer error. */
#define BEYOND 0.9

typedef struct em {
  const gptvq_trellis_points *points;
  const float *table;
  uint8_t *state; /* [rows / 16][columns][16] */
  uint8_t *scratch;
  size_t thread_bytes;
} em;

static void take(gptvq_arena *arena, em *e) {
  const gptvq_trellis_points *p = e->points;
  e->thread_bytes = gptvq_round_up((p->columns << (p->state_bits - p->step_bits)) * ROWS, 64);
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
  (p->step_bits, p->state_bits, p->columns, e->table, p->x + i * p->columns * ROWS, p->weight,
   e->state + i * p->columns * ROWS, e->scratch + thread * e->thread_bytes);
}

double gptvq_trellis_em(const gptvq_trellis_points *p, unsigned iterations, float *table,
                        gptvq_arena *arena) {
  em e = {.points = p, .table = table};
  size_t mark = arena->used;
  double mean[STATES], weight[STATES], before = INFINITY, loss = 0.0;
  take(arena, &e);
  for (unsigned round = 0; round < iterations; round++) {
    gptvq_parallel_for(p->rows / ROWS, 1, find_paths, &e);
    memset(mean, 0, sizeof mean);
    memset(weight, 0, sizeof weight);
    double total = 0.0;
    loss = 0.0;
    for (size_t i = 0; i < p->rows * p->columns; i++) {
      size_t row = i / ROWS / p->columns * ROWS + i % ROWS, c = i / ROWS % p->columns;
      double x = (double)p->x[i], w = (double)p->weight[c] * (double)p->row_weight[row],
             delta = x - (double)table[e.state[i]];
      mean[e.state[i]] += w * x;
      weight[e.state[i]] += w;
      loss += w * delta * delta;
      total += w;
    }
    loss = total > 0.0 ? loss / total : 0.0;
    const bool last = round + 1 == iterations || (round > 3 && loss > before * (1.0 - LEAST_GAIN));
    for (size_t s = 0; s < (size_t)1 << p->state_bits; s++)
      if (weight[s] > 0.0) {
        const double to = mean[s] / weight[s];
        table[s] = (float)(last ? to : to + BEYOND * (to - (double)table[s]));
      }
    if (last) break;
    before = loss;
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
  FIRST_ROUNDS = 10,
  SAMPLE_ROUNDS = 40,
  MOST_BITS = 8
};

typedef struct sample {
  float *x, *weight, *row_weight;
  gptvq_trellis_points points;
} sample;

static void take_sample(gptvq_arena *arena, unsigned step_bits, unsigned state_bits, sample *s) {
  s->x = gptvq_arena_take(arena, SAMPLE_ROWS, SAMPLE_COLUMNS * sizeof *s->x);
  s->weight = gptvq_arena_take(arena, SAMPLE_COLUMNS, sizeof *s->weight);
  s->row_weight = gptvq_arena_take(arena, SAMPLE_ROWS, sizeof *s->row_weight);
  s->points = (gptvq_trellis_points){step_bits, state_bits, SAMPLE_ROWS,  SAMPLE_COLUMNS,
                                     s->x,      s->weight,  s->row_weight};
}

size_t gptvq_gaussian_table_bytes(unsigned step_bits, unsigned state_bits) {
  gptvq_arena counting = {0};
  sample s;
  take_sample(&counting, step_bits, state_bits, &s);
  return gptvq_saturated_sum(counting.peak, gptvq_trellis_em_bytes(&s.points));
}

static float normal(uint64_t *random) {
  double u = 1.0 - gptvq_random_unit(random), v = gptvq_random_unit(random);
  return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

void gptvq_gaussian_table(unsigned step_bits, unsigned state_bits, float *table, gptvq_arena *arena) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static float known[MOST_BITS + 1][MOST_BITS + 1][STATES];
  static unsigned char ready[MOST_BITS + 1][MOST_BITS + 1];
  const size_t bytes = sizeof *table << state_bits;
  (void)pthread_mutex_lock(&mutex);
  unsigned char there = ready[step_bits][state_bits];
  if (there) memcpy(table, known[step_bits][state_bits], bytes);
  (void)pthread_mutex_unlock(&mutex);
  if (there) return;
  size_t mark = arena->used;
  sample s;
  uint64_t random = 1;
  take_sample(arena, step_bits, state_bits, &s);
  for (size_t i = 0; i < (size_t)SAMPLE_ROWS * SAMPLE_COLUMNS; i++) s.x[i] = normal(&random);
  for (size_t i = 0; i < SAMPLE_COLUMNS; i++) s.weight[i] = 1.0f;
  for (size_t i = 0; i < SAMPLE_ROWS; i++) s.row_weight[i] = 1.0f;
  double least = INFINITY;
  for (int start = 0; start < STARTS; start++) {
    float own[STATES];
    for (size_t i = 0; i < (size_t)1 << state_bits; i++) own[i] = normal(&random);
    double loss = gptvq_trellis_em(&s.points, FIRST_ROUNDS, own, arena);
    if (loss < least) memcpy(table, own, bytes);
    least = fmin(least, loss);
  }
  (void)gptvq_trellis_em(&s.points, SAMPLE_ROUNDS, table, arena);
  gptvq_arena_return(arena, mark);
  (void)pthread_mutex_lock(&mutex);
  memcpy(known[step_bits][state_bits], table, bytes);
  ready[step_bits][state_bits] = 1;
  (void)pthread_mutex_unlock(&mutex);
}
