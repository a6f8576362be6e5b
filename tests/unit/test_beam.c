/* quant/layer/beam.h against the definition written plainly, bit for bit, at every CPU level: every partial
 * assignment with all its weights, every way on with its loss in double, kept in order one after the other.
 */
#include "quant/layer/beam.h"
#include "base/memory.h"
#include "quant/layer/lookup.h"
#include "quant/options/options.h"
#include "levels.h"
#include "solver_fixture.h"

enum { K = 256, ROWS = GPTVQ_BATCH_ROWS };
typedef void assign_fn(const gptvq_batch *, size_t, gptvq_batch_row *);

typedef struct level {
  gptvq_cpu_features needs;
  assign_fn *assign;
  size_t (*scratch)(size_t padded, size_t width);
} level;

#define LEVEL(needs, name) \
  { needs, gptvq_batch_assign_##name, gptvq_beam_scratch_##name }
static const level levels[] = {EACH_LEVEL(LEVEL)};

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

static void begin(problem *p) {
  p->batch.table = gptvq_alloc(gptvq_batch_table_floats(p->batch.dim, p->batch.padded), sizeof(float));
  GPTVQ_MULTI_PICK(gptvq_batch_prepare)(&p->batch);
}

typedef struct results {
  gptvq_batch_row rows[ROWS];
  uint16_t index[ROWS][GPTVQ_BATCH];
  float error[ROWS][GPTVQ_BATCH];
} results;

/* Assigns `count` rows. Without feedback every other row has no room for errors, which nobody asks for. */
static void assign_rows(problem *p, const level *l, size_t count, results *out) {
  p->batch.scratch = gptvq_alloc(1, l->scratch(p->batch.padded, p->batch.width));
  for (size_t r = 0; r < ROWS; r++) {
    for (size_t c = 0; c < GPTVQ_BATCH; c++) out->error[r][c] = -7.0f;
    out->rows[r] = (gptvq_batch_row){.w = p->w[r],
                                     .scale = p->scale[r],
                                     .index = out->index[r],
                                     .error = p->batch.feedback == NULL && r % 2 == 0 ? NULL : out->error[r]};
  }
  l->assign(&p->batch, count, out->rows);
  free(p->batch.scratch);
}

static void compare(const problem *p, size_t row, const partial *want, const results *found) {
  const size_t columns = p->batch.blocks * p->batch.dim;
  const float *error = found->error[row];
  assert_memory_equal(found->index[row], want->index, p->batch.blocks * sizeof *want->index);
  if (p->batch.feedback == NULL) {
    for (size_t c = 0; c < GPTVQ_BATCH; c++) assert_true(error[c] == -7.0f);
    return;
  }
  assert_memory_equal(error, want->error, columns * sizeof *error);
  double squares = 0.0;
  for (size_t c = 0; c < columns; c++) squares += (double)error[c] * (double)error[c];
  if (p->batch.width > 1) assert_memory_equal(&found->rows[row].loss, &want->loss, sizeof want->loss);
  else assert_true(fabs(found->rows[row].loss - squares) <= 256.0 * 0x1p-53 * squares);
}

static void check(problem *p) {
  static partial want[ROWS];
  for (size_t r = 0; r < ROWS; r++) definition(p, r, want + r);
  begin(p);
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
    if ((gptvq_cpu() & levels[i].needs) != levels[i].needs) continue;
    for (size_t count = 1; count <= ROWS; count++) {
      results found;
      assign_rows(p, levels + i, count, &found);
      for (size_t r = 0; r < count; r++) compare(p, r, want + r, &found);
    }
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
  begin(&p);
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
    if ((gptvq_cpu() & levels[i].needs) != levels[i].needs) continue;
    results found;
    assign_rows(&p, levels + i, 2, &found);
    for (size_t b = 0; b < 64; b++) assert_true(found.index[0][b] < 8 && found.index[1][b] < 8);
  }
  free(p.batch.table);
}

/* A scale so small that the squared distances of a sub-vector overflow (and that its own square is 0, which
 * makes NaN of them): its errors count as any others' all the same, and the other rows are as they were.
 * Numbers are such that nothing else is rounded, as no feedback reaches what comes after. */
static void a_step_beyond_all_numbers_costs_its_errors(void **state) {
  (void)state;
  static problem p;
  static const size_t widths[] = {1, 2, 4, 5, 9}, places[] = {0, 5, 7, 8, 15};
  static partial want[ROWS];
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
    for (size_t j = 0; j < sizeof places / sizeof *places; j++) {
      make(2, 16, 32, widths[i], true, 1 + j, &p);
      memset(p.feedback, 0, sizeof p.feedback);
      memset(p.u, 0, sizeof p.u);
      const size_t tiny = j % ROWS, at = 2 * places[j];
      p.scale[tiny][places[j]] = (i + j) % 2 ? 0x1p-70f : 0x1p-100f;
      p.w[tiny][at] = 1.5f;
      for (size_t r = 0; r < ROWS; r++) definition(&p, r, want + r);
      begin(&p);
      for (size_t l = 0; l < sizeof levels / sizeof *levels; l++) {
        if ((gptvq_cpu() & levels[l].needs) != levels[l].needs) continue;
        results found;
        assign_rows(&p, levels + l, ROWS, &found);
        const float *error = found.error[tiny];
        const double loss = found.rows[tiny].loss;
        double squares = 0.0;
        for (size_t c = 0; c < 32; c++) squares += (double)error[c] * (double)error[c];
        assert_true(error[at] * error[at] >= 2.25f); /* of the weight: its diagonal of T is 1 */
        if (isfinite(loss) && !(loss >= squares))
          fail_msg("width %zu, sub-vector %zu: a loss of %g with squared errors of %g", widths[i], places[j],
                   loss, squares);
        for (size_t r = 0; r < ROWS; r++)
          if (r != tiny) compare(&p, r, want + r, &found);
      }
      free(p.batch.table);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(beam_is_its_definition),
                                     cmocka_unit_test(greedy_is_its_definition),
                                     cmocka_unit_test(infinite_weights_do_no_harm),
                                     cmocka_unit_test(a_step_beyond_all_numbers_costs_its_errors)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
