/* quant/layer/beam.h against the definition written plainly, bit for bit, at every CPU level: every partial
 * assignment with all its weights, every way on with its loss in double, kept in order one after the other.
 */
#include "quant/layer/beam.h"
#include "base/memory.h"
#include "quant/layer/lookup.h"
#include "quant/options/options.h"
#include "solver_fixture.h"

enum { K = 256, ROWS = 3 };
typedef void assign_fn(const gptvq_batch *, size_t, gptvq_batch_row *);

typedef struct level {
  gptvq_cpu_features needs;
  assign_fn *assign;
  size_t (*scratch)(size_t padded, size_t width);
} level;

#define LEVEL(needs, name) \
  { needs, gptvq_batch_assign_##name, gptvq_beam_scratch_##name }
static const level levels[] = {
    LEVEL(0, base),
#if defined(__x86_64__)
    LEVEL(GPTVQ_CPU_AVX2, avx2),
    LEVEL(GPTVQ_CPU_AVX512, avx512),
#endif
};

typedef struct problem {
  gptvq_batch batch;
  float book[K * 4], t[GPTVQ_BATCH * 4], u[GPTVQ_BATCH * GPTVQ_BATCH];
  float w[ROWS][GPTVQ_BATCH], scale[ROWS][GPTVQ_BATCH];
  float feedback[GPTVQ_BATCH_FEEDBACK];
} problem;

/* coarse: of few values, so that many losses are equal */
static float value(bool coarse, double size, uint64_t *seed) {
  if (coarse) return (float)((int)gptvq_random_below(seed, 5) - 2) * 0.5f;
  return (float)(size * gauss(seed));
}

static void make(unsigned d, size_t k, size_t columns, size_t width, bool coarse, uint64_t seed, problem *p) {
  memset(p, 0, sizeof *p);
  for (size_t i = 0; i < k * d; i++) p->book[i] = value(coarse, 1.0, &seed);
  for (size_t b = 0; b < columns / d; b++)
    for (size_t i = 0; i < d; i++)
      for (size_t j = i; j < d; j++)
        p->t[(b * d + i) * d + j] = i == j ? coarse ? 1.0f : 1.0f + 0.3f * (float)gptvq_random_unit(&seed)
                                           : value(coarse, 0.2, &seed);
  for (size_t i = 0; i < columns; i++)
    for (size_t j = 0; j < columns; j++) /* beyond the triangle what must not be read */
      p->u[i * columns + j] = j < i ? NAN : j == i ? 1.0f : value(coarse, 0.1, &seed) * 0.25f;
  for (size_t r = 0; r < ROWS; r++)
    for (size_t c = 0; c < columns; c++) {
      p->w[r][c] = value(coarse, 1.0, &seed);
      p->scale[r][c] = r == 0 ? 1.0f : coarse ? 2.0f : 0.5f + (float)gptvq_random_unit(&seed);
    }
  gptvq_batch_feedback(d, columns, p->u, columns, p->feedback);
  p->batch = (gptvq_batch){.dim = d,
                           .k = k,
                           .padded = gptvq_round_up(k, GPTVQ_LOOKUP_LANES),
                           .blocks = columns / d,
                           .width = width,
                           .book = p->book,
                           .lookup = p->t,
                           .metric = p->t,
                           .feedback = p->feedback};
}

static void times_upper(size_t d, const float *t, const float *x, float *y) {
  for (size_t j = 0; j < d; j++) {
    y[j] = x[0] * t[j];
    for (size_t i = 1; i <= j; i++) y[j] += x[i] * t[i * d + j];
  }
}

typedef struct partial {
  double loss;
  float w[GPTVQ_BATCH], error[GPTVQ_BATCH];
  uint16_t index[GPTVQ_BATCH];
} partial;

/* `from` with sub-vector b settled */
static void settle(const problem *p, size_t b, float scale, double loss, size_t m, const partial *from,
                   partial *to) {
  const size_t d = p->batch.dim, columns = p->batch.blocks * d;
  float delta[4], *e = to->error + b * d;
  *to = *from;
  to->loss = loss;
  to->index[b] = (uint16_t)m;
  for (size_t j = 0; j < d; j++) delta[j] = to->w[b * d + j] - p->book[m * d + j] * scale;
  times_upper(d, p->t + b * d * d, delta, e);
  for (size_t i = (b + 1) * d; i < columns && p->batch.feedback != NULL; i++) {
    float sum = e[0] * p->u[b * d * columns + i];
    for (size_t j = 1; j < d; j++) sum += e[j] * p->u[(b * d + j) * columns + i];
    to->w[i] -= sum;
  }
}

static void definition(const problem *p, size_t row, partial *out) {
  static partial now[GPTVQ_BEAM_MAX], next[GPTVQ_BEAM_MAX];
  const size_t d = p->batch.dim, width = p->batch.width;
  size_t live = 1;
  memset(now, 0, sizeof *now);
  memcpy(now->w, p->w[row], sizeof now->w);
  for (size_t b = 0; b < p->batch.blocks; b++) {
    struct {
      double loss;
      size_t parent, m;
    } best[GPTVQ_BEAM_MAX];
    const float scale = p->scale[row][b], *t = p->t + b * d * d;
    size_t found = 0;
    for (size_t c = 0; c < live; c++)
      for (size_t m = 0; m < p->batch.k; m++) {
        float divided[4], x[4], y[4], distance = 0.0f;
        for (size_t j = 0; j < d; j++) divided[j] = now[c].w[b * d + j] / scale;
        times_upper(d, t, divided, x);
        times_upper(d, t, p->book + m * d, y);
        for (size_t j = 0; j < d; j++) distance += (x[j] - y[j]) * (x[j] - y[j]);
        const double loss = now[c].loss + (double)scale * (double)scale * (double)distance;
        size_t at = found;
        if (found < width) found++;
        else if (!(loss < best[--at].loss)) continue;
        for (; at > 0 && loss < best[at - 1].loss; at--) best[at] = best[at - 1];
        best[at].loss = loss;
        best[at].parent = c;
        best[at].m = m;
      }
    for (size_t i = 0; i < found; i++)
      settle(p, b, scale, best[i].loss, best[i].m, now + best[i].parent, next + i);
    memcpy(now, next, sizeof now);
    live = found;
  }
  *out = now[0];
}

static void check(problem *p) {
  const size_t columns = p->batch.blocks * p->batch.dim, blocks = p->batch.blocks, padded = p->batch.padded;
  p->batch.table = gptvq_alloc(gptvq_batch_table_floats(p->batch.dim, padded), sizeof(float));
  GPTVQ_MULTI_PICK(gptvq_batch_prepare)(&p->batch);
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
    const level *l = levels + i;
    if ((gptvq_cpu() & l->needs) != l->needs) continue;
    p->batch.scratch = gptvq_alloc(1, l->scratch(padded, p->batch.width));
    gptvq_batch_row rows[ROWS];
    uint16_t index[ROWS][GPTVQ_BATCH];
    float error[ROWS][GPTVQ_BATCH];
    for (size_t r = 0; r < ROWS; r++)
      rows[r] = (gptvq_batch_row){.w = p->w[r], .scale = p->scale[r], .index = index[r], .error = error[r]};
    l->assign(&p->batch, ROWS, rows);
    for (size_t r = 0; r < ROWS; r++) {
      partial want;
      definition(p, r, &want);
      assert_memory_equal(index[r], want.index, blocks * sizeof *want.index);
      if (p->batch.feedback == NULL) continue;
      assert_memory_equal(error[r], want.error, columns * sizeof *want.error);
      double squares = 0.0;
      for (size_t c = 0; c < columns; c++) squares += (double)want.error[c] * (double)want.error[c];
      if (p->batch.width > 1) assert_memory_equal(&rows[r].loss, &want.loss, sizeof want.loss);
      else assert_true(fabs(rows[r].loss - squares) <= 256.0 * 0x1p-53 * squares);
    }
    free(p->batch.scratch);
  }
  free(p->batch.table);
}

static void beam_is_its_definition(void **state) {
  (void)state;
  static problem p;
  static const size_t widths[] = {2, 3, 4, 5, 9, 17, 40, 64}, ks[] = {2, 8, 16, 64, 256},
                      sizes[] = {128, 60, 16, 4};
  uint64_t seed = 1;
  for (unsigned d = 1; d <= 4; d *= 2)
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
      for (size_t j = 0; j < sizeof widths / sizeof *widths; j++)
        for (int coarse = 0; coarse < 2; coarse++) {
          const size_t size = sizes[(i + j) % 4];
          if (widths[j] * ks[i] > 4096 && size > 60) continue; /* takes long */
          make(d, ks[i], size, widths[j], coarse, seed++, &p);
          check(&p);
        }
  make(2, 16, 128, 4, false, seed, &p); /* most used */
  check(&p);
}

static void greedy_is_its_definition(void **state) {
  (void)state;
  static problem p;
  uint64_t seed = 1;
  for (unsigned d = 1; d <= 4; d *= 2)
    for (size_t k = 4; k <= 64; k *= 4)
      for (int feedback = 0; feedback < 2; feedback++)
        for (int coarse = 0; coarse < 2; coarse++) {
          make(d, k, k == 4 ? 60 : 128, 1, coarse, seed++, &p);
          if (!feedback) p.batch.feedback = NULL;
          check(&p);
        }
}

/* Weights that overflow: whatever comes out is in bounds. */
static void infinite_weights_do_no_harm(void **state) {
  (void)state;
  static problem p;
  make(2, 8, 128, 4, false, 1, &p);
  for (size_t c = 10; c < 128; c += 7) p.w[0][c] = c % 2 ? INFINITY : -3e38f;
  p.w[1][20] = NAN;
  p.batch.table = gptvq_alloc(gptvq_batch_table_floats(2, 16), sizeof(float));
  GPTVQ_MULTI_PICK(gptvq_batch_prepare)(&p.batch);
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
    if ((gptvq_cpu() & levels[i].needs) != levels[i].needs) continue;
    p.batch.scratch = gptvq_alloc(1, levels[i].scratch(16, 4));
    uint16_t index[2][64];
    float error[2][128];
    gptvq_batch_row rows[2] = {{p.w[0], p.scale[0], index[0], error[0], 0.0},
                               {p.w[1], p.scale[1], index[1], error[1], 0.0}};
    levels[i].assign(&p.batch, 2, rows);
    for (size_t b = 0; b < 64; b++) assert_true(index[0][b] < 8 && index[1][b] < 8);
    free(p.batch.scratch);
  }
  free(p.batch.table);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(beam_is_its_definition),
                                     cmocka_unit_test(greedy_is_its_definition),
                                     cmocka_unit_test(infinite_weights_do_no_harm)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
