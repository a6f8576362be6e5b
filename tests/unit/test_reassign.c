/* quant/layer/sweep.h against the definition written plainly, bit for bit, at every CPU level. */
#include "quant/layer/sweep.h"
#include "base/memory.h"
#include "quant/layer/beam.h"
#include "quant/layer/lookup.h"
#include "levels.h"
#include "solver_fixture.h"

enum { K = 256 };

typedef struct level {
  gptvq_cpu_features needs;
  void (*prepare)(const gptvq_sweep_batch *batch);
  double (*sweep)(const gptvq_sweep_batch *batch, float *gradient, const float *scale, uint16_t *index,
                  float *change);
} level;

#define LEVEL(needs, name) \
  { needs, gptvq_sweep_prepare_##name, gptvq_sweep_row_##name }
static const level levels[] = {EACH_LEVEL(LEVEL)};

typedef struct problem {
  gptvq_sweep_batch batch;
  float book[K * 4], h[GPTVQ_BATCH * GPTVQ_BATCH], gradient[GPTVQ_BATCH], scale[GPTVQ_BATCH];
  double metric[GPTVQ_BATCH * 4];
  uint16_t index[GPTVQ_BATCH];
} problem;

/* step: how far gradients lead. coarse: of few values, so that distances are equal */
static void make(unsigned d, size_t k, size_t columns, double step, bool coarse, uint64_t seed, problem *p) {
  memset(p, 0, sizeof *p);
  for (size_t i = 0; i < k * d; i++)
    p->book[i] = coarse ? (float)((int)gptvq_random_below(&seed, 5) - 2) : (float)gauss(&seed);
  for (size_t b = 0; b < columns / d; b++)
    for (size_t i = 0; i < d; i++)
      for (size_t j = i; j < d; j++)
        p->metric[(b * d + i) * d + j] = coarse   ? i == j
                                         : i == j ? 1.0 + gptvq_random_unit(&seed)
                                                  : 0.3 * gauss(&seed);
  for (size_t i = 0; i < columns * columns; i++) p->h[i] = (float)(0.1 * gauss(&seed));
  for (size_t c = 0; c < columns; c++) {
    p->gradient[c] = (float)(step * gauss(&seed));
    if (coarse) p->gradient[c] = (float)((int)gptvq_random_below(&seed, 3) - 1) * 0.5f;
    p->scale[c] = coarse || seed % 2 ? 1.0f : 0.5f + (float)gptvq_random_unit(&seed);
    p->index[c] = (uint16_t)gptvq_random_below(&seed, k);
  }
  p->batch = (gptvq_sweep_batch){.dim = d,
                                 .k = k,
                                 .padded = gptvq_round_up(k, GPTVQ_LOOKUP_LANES),
                                 .blocks = columns / d,
                                 .book = p->book,
                                 .metric = p->metric,
                                 .h = p->h,
                                 .stride = columns};
}

static void times_metric(size_t d, const double *r, const float *c, float *out) {
  for (size_t j = 0; j < d; j++) {
    double sum = 0.0;
    for (size_t i = 0; i <= j; i++) sum += (double)c[i] * r[i * d + j];
    out[j] = (float)sum;
  }
}

static double far(size_t d, const float *x, const float *y) {
  double sum = 0.0;
  for (size_t j = 0; j < d; j++) sum += ((double)x[j] - (double)y[j]) * ((double)x[j] - (double)y[j]);
  return sum;
}

static double definition(const problem *p, float *gradient, uint16_t *index, float *change, size_t *moved) {
  const size_t d = p->batch.dim, columns = p->batch.blocks * d;
  double gained = 0.0;
  for (size_t b = 0; b < p->batch.blocks; b++) {
    const double *r = p->metric + b * d * d;
    float *g = gradient + b * d, *delta = change + b * d, own[4], best[4], x[4], least = INFINITY;
    double z[4];
    for (size_t i = d; i-- > 0;) {
      z[i] = (double)g[i];
      for (size_t j = i + 1; j < d; j++) z[i] -= z[j] * r[i * d + j];
      z[i] /= r[i * d + i];
    }
    times_metric(d, r, p->book + index[b] * d, own);
    for (size_t j = 0; j < d; j++) {
      x[j] = own[j] + (float)z[j] / p->scale[b];
      delta[j] = 0.0f;
    }
    size_t to = 0;
    for (size_t m = 0; m < p->batch.k; m++) {
      float y[4], distance = 0.0f;
      times_metric(d, r, p->book + m * d, y);
      for (size_t j = 0; j < d; j++) distance += (x[j] - y[j]) * (x[j] - y[j]);
      if (distance >= least) continue;
      least = distance;
      to = m;
      memcpy(best, y, sizeof best);
    }
    const double gain = far(d, x, own) - far(d, x, best);
    if (to == index[b] || !(gain > 0.0)) continue;
    ++*moved;
    gained += gain * (double)p->scale[b] * (double)p->scale[b];
    for (size_t j = 0; j < d; j++) delta[j] = (p->book[to * d + j] - p->book[index[b] * d + j]) * p->scale[b];
    index[b] = (uint16_t)to;
    for (size_t c = (b + 1) * d; c < columns; c++) {
      float sum = delta[0] * p->h[b * d * columns + c];
      for (size_t j = 1; j < d; j++) sum += delta[j] * p->h[(b * d + j) * columns + c];
      gradient[c] -= sum;
    }
  }
  return gained;
}

/* Returns what fraction of the sub-vectors moves. */
static double check(problem *p) {
  const size_t columns = p->batch.blocks * p->batch.dim;
  size_t moved = 0;
  float gradient[GPTVQ_BATCH], change[GPTVQ_BATCH];
  uint16_t index[GPTVQ_BATCH];
  memcpy(gradient, p->gradient, sizeof gradient);
  memcpy(index, p->index, sizeof index);
  const double gained = definition(p, gradient, index, change, &moved);
  p->batch.table = gptvq_alloc(gptvq_batch_table_floats(p->batch.dim, p->batch.padded), sizeof(float));
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
    if ((gptvq_cpu() & levels[i].needs) != levels[i].needs) continue;
    float got_gradient[GPTVQ_BATCH], got_change[GPTVQ_BATCH];
    uint16_t got[GPTVQ_BATCH];
    memcpy(got_gradient, p->gradient, sizeof got_gradient);
    memcpy(got, p->index, sizeof got);
    levels[i].prepare(&p->batch);
    const double got_gained = levels[i].sweep(&p->batch, got_gradient, p->scale, got, got_change);
    assert_memory_equal(got, index, p->batch.blocks * sizeof *index);
    assert_memory_equal(got_change, change, columns * sizeof *change);
    assert_memory_equal(got_gradient, gradient, columns * sizeof *gradient);
    assert_memory_equal(&got_gained, &gained, sizeof gained);
  }
  free(p->batch.table);
  return (double)moved / (double)p->batch.blocks;
}

static void sweep_is_its_definition(void **state) {
  (void)state;
  static problem p;
  uint64_t seed = 1;
  for (unsigned d = 1; d <= 4; d *= 2)
    for (size_t k = 2; k <= K; k *= k == 16 ? 4 : 2)
      for (size_t columns = 28; columns <= 128; columns += 100) {
        double most = 0.0, least = 1.0;
        for (int trial = 0; trial < 4; trial++) {
          static const double steps[] = {0.0, 0.01, 0.1, 3.0};
          make(d, k, columns, steps[trial], false, seed++, &p);
          const double moved = check(&p);
          most = moved > most ? moved : most;
          least = moved < least ? moved : least;
          make(d, k, columns, 1.0, true, seed++, &p);
          (void)check(&p);
        }
        assert_true(most > 0.0 && least == 0.0);
      }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(sweep_is_its_definition)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
