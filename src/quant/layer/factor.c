/* The Hessian of one input: order of the columns, damping, U with H⁻¹ = Uᵀ U, block metrics. */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "linalg/solve/cholesky.h"
#include "linalg/solve/narrow.h"
#include "base/keyed.h"
#include "quant/layer/layer.h"
#include "quant/options/options.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* A phantom or dead column weighs this fraction of a mean one; damping starts here when it is 0 and the
 * factorisation fails. */
#define TINY 1e-6

/* Block order: groups by descending mean diagonal, inside a group sub-vectors by descending diagonal sum. A
 * block that holds phantoms stays last in its group. */
static void order_blocks(gptvq_factor *f, const double *diagonal, gptvq_keyed *groups, gptvq_keyed *blocks) {
  size_t width = f->group_cols, count = gptvq_ceil_div(f->cols, width), at = 0;
  for (size_t g = 0; g < count; g++) {
    size_t begin = g * width, end = gptvq_min_size(f->cols, begin + width);
    double sum = 0.0;
    for (size_t c = begin; c < end; c++) sum += diagonal[c];
    groups[g] = (gptvq_keyed){sum / (double)(end - begin), (uint32_t)g};
  }
  gptvq_sort_descending(groups, count);
  for (size_t i = 0; i < count; i++) {
    size_t begin = (size_t)groups[i].at * width, end = gptvq_min_size(f->cols, begin + width), n = 0;
    for (size_t c = begin; c < end; c += f->dim, n++) {
      double sum = 0.0;
      for (size_t j = c; j < gptvq_min_size(end, c + f->dim); j++) sum += diagonal[j];
      blocks[n] = (gptvq_keyed){c + f->dim > end ? -1.0 : sum, (uint32_t)c};
    }
    gptvq_sort_descending(blocks, n);
    for (size_t b = 0; b < n; b++)
      for (size_t j = 0; j < f->dim; j++, at++)
        f->order[at] = blocks[b].at + j < end ? (uint32_t)(blocks[b].at + j) : GPTVQ_NO_COLUMN;
  }
}

/* keys: [2 · padded] scratch */
static void make_order(gptvq_factor *f, const double *diagonal, int act_order, gptvq_keyed *keys) {
  for (size_t c = 0; c < f->padded; c++) f->order[c] = c < f->cols ? (uint32_t)c : GPTVQ_NO_COLUMN;
  if (act_order == 0 || (act_order == 2 && f->group_cols == 0)) return;
  if (act_order == 1) {
    for (size_t c = 0; c < f->cols; c++) keys[c] = (gptvq_keyed){diagonal[c], (uint32_t)c};
    gptvq_sort_descending(keys, f->cols);
    for (size_t c = 0; c < f->cols; c++) f->order[c] = keys[c].at;
    f->stored_permutation = true;
  } else {
    order_blocks(f, diagonal, keys, keys + f->padded);
  }
}

typedef struct job {
  const gptvq_factor *f;
  const double *hessian;
  double *diagonal; /* [cols] of the Hessian */
  double *work;     /* [padded²]; hessian itself when it is the solver's to overwrite; NULL: not there yet */
  double *saved;    /* then: its diagonal blocks, whose upper parts the factorisation does not spare */
  double *scratch;  /* gptvq_invert_lower's */
  gptvq_keyed *keys;
  double scale, damping;
} job;

static void take_arrays(gptvq_arena *arena, gptvq_factor *f) {
  size_t n = f->padded;
  f->order = gptvq_arena_take(arena, n, sizeof *f->order);
  f->metric = gptvq_arena_take(arena, n, f->dim * sizeof *f->metric);
  f->metric_h = gptvq_arena_take(arena, n, f->dim * sizeof *f->metric_h);
  f->h = gptvq_arena_take(arena, n, gptvq_saturated_size(n, sizeof *f->h));
  f->dead = gptvq_arena_take_zero(arena, n, sizeof *f->dead);
}

static void take_scratch(gptvq_arena *arena, size_t cols, size_t padded, job *j) {
  enum { BLOCK = GPTVQ_CHOLESKY_BLOCK };
  j->diagonal = gptvq_arena_take(arena, cols, sizeof *j->diagonal);
  j->keys = gptvq_arena_take(arena, padded, 2 * sizeof *j->keys);
  j->scratch = gptvq_arena_take(arena, gptvq_max_size(padded, BLOCK), BLOCK * sizeof *j->scratch);
  j->saved = gptvq_arena_take(arena, padded, BLOCK * sizeof *j->saved);
}

static gptvq_factor factor_of(size_t cols, const gptvq_resolved *options) {
  const gptvq_quantize_options *o = &options->options;
  return (gptvq_factor){.cols = cols,
                        .dim = o->dim,
                        .padded = gptvq_round_up(cols, o->dim),
                        .group_cols = gptvq_is_uniform(o) ? 0 : gptvq_group_columns(cols, options),
                        .ridge = o->damping};
}

static size_t arrays_bytes(gptvq_factor f) {
  gptvq_arena counting = {0};
  take_arrays(&counting, &f);
  return counting.peak;
}

static size_t scratch_bytes(size_t cols, size_t padded) {
  gptvq_arena counting = {0};
  job j;
  take_scratch(&counting, cols, padded, &j);
  return counting.peak;
}

static size_t square_bytes(size_t n, size_t size) {
  return gptvq_saturated_size(gptvq_saturated_size(n, n), size);
}

size_t gptvq_factor_bytes(size_t cols, const gptvq_resolved *options) {
  const gptvq_factor f = factor_of(cols, options);
  return gptvq_saturated_sum(arrays_bytes(f), square_bytes(f.padded, sizeof *f.u));
}

size_t gptvq_factor_peak_bytes(size_t cols, const gptvq_resolved *options) {
  const gptvq_factor f = factor_of(cols, options);
  size_t own = gptvq_saturated_sum(arrays_bytes(f), scratch_bytes(cols, f.padded));
  if (f.padded != cols) own = gptvq_saturated_sum(own, square_bytes(f.padded, sizeof(double)));
  return gptvq_saturated_sum(own, square_bytes(cols, sizeof(double)));
}

/* An element, from the upper triangle: the lower one may be at work. */
static double element(const job *j, uint32_t row, uint32_t column) {
  if (row == column) return j->diagonal[row];
  return row < column ? j->hessian[row * j->f->cols + column] : j->hessian[column * j->f->cols + row];
}

/* H in processing order, scaled, as fp32; phantoms are isolated */
static void reorder_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const job *j = context;
  const gptvq_factor *f = j->f;
  for (size_t a = begin; a < end; a++) {
    float *row = f->h + a * f->padded;
    memset(row, 0, f->padded * sizeof *row);
    if (f->order[a] == GPTVQ_NO_COLUMN) continue;
    const double *source = j->hessian + f->order[a] * f->cols;
    for (size_t b = 0; b < f->padded; b++)
      if (f->order[b] != GPTVQ_NO_COLUMN) row[b] = (float)(source[f->order[b]] * j->scale);
  }
}

/* The damped H with rows and columns reversed: its Cholesky factor L gives U = reversed L⁻¹. */
static void reverse_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const job *j = context;
  const gptvq_factor *f = j->f;
  size_t n = f->padded;
  for (size_t a = begin; a < end; a++) {
    double *row = j->work + a * n;
    uint32_t from = f->order[n - 1 - a];
    for (size_t b = 0; b <= a; b++) {
      uint32_t to = f->order[n - 1 - b];
      row[b] = from == GPTVQ_NO_COLUMN || to == GPTVQ_NO_COLUMN ? 0.0 : element(j, from, to) * j->scale;
    }
    row[a] += from == GPTVQ_NO_COLUMN || gptvq_factor_is_dead(f, n - 1 - a) ? TINY : j->damping;
  }
}

void gptvq_invert_upper(size_t d, const double *u, double *t) {
  memset(t, 0, d * d * sizeof *t);
  for (size_t c = 0; c < d; c++)
    for (size_t r = c + 1; r-- > 0;) {
      double sum = r == c ? 1.0 : 0.0;
      for (size_t i = r + 1; i <= c; i++) sum -= u[r * d + i] * t[i * d + c];
      t[r * d + c] = sum / u[r * d + r];
    }
}

/* d × d: upper triangular R with A = R Rᵀ; A positive definite */
static void factor_upper(size_t d, const double *a, double *r) {
  memset(r, 0, d * d * sizeof *r);
  for (size_t c = d; c-- > 0;)
    for (size_t i = c + 1; i-- > 0;) {
      double sum = a[i * d + c];
      for (size_t m = c + 1; m < d; m++) sum -= r[i * d + m] * r[c * d + m];
      r[i * d + c] = i == c ? sqrt(sum > TINY * TINY ? sum : TINY * TINY) : sum / r[c * d + c];
    }
}

/* T and R of every block, from the reversed double L⁻¹ in work (NULL: diagonal U) */
static void make_metrics(gptvq_factor *f, const double *work) {
  size_t n = f->padded, d = f->dim;
  for (size_t b = 0; b < n / d; b++) {
    double u[16] = {0}, h[16];
    for (size_t i = 0; i < d; i++)
      for (size_t j = 0; j < d; j++) {
        size_t r = b * d + i, c = b * d + j;
        h[i * d + j] = (double)f->h[r * n + c];
        if (i == j) h[i * d + j] += gptvq_factor_ridge(f, r);
        if (j >= i)
          u[i * d + j] = work != NULL ? work[(n - 1 - r) * n + (n - 1 - c)]
                         : i == j     ? (double)f->u[r * n + r]
                                      : 0.0;
      }
    gptvq_invert_upper(d, u, f->metric + b * d * d);
    factor_upper(d, h, f->metric_h + b * d * d);
  }
}

typedef struct square_job {
  double *values; /* [n × n], of which `width` of row i, and step · i more, are looked at */
  size_t n, width, step;
  double most;
  atomic_bool bad;
} square_job;

static void clear_upper(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const square_job *j = context;
  for (size_t a = begin; a < end; a++)
    for (size_t b = a + 1; b < j->n; b++) j->values[a * j->n + b] = 0.0;
}

static void swap_ends(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const square_job *j = context;
  const size_t last = j->n * j->n - 1;
  for (size_t i = begin; i < end; i++) {
    const double swap = j->values[i];
    j->values[i] = j->values[last - i];
    j->values[last - i] = swap;
  }
}

/* The reversed L⁻¹ becomes U as fp32 in the same memory: reversing rows and columns of a square is reversing
 * the array. */
static float *finish_u(double *work, size_t n) {
  square_job square = {.values = work, .n = n};
  gptvq_parallel_for(n, gptvq_rows_per_task(n), clear_upper, &square);
  gptvq_parallel_for(n * n / 2, 8192, swap_ends, &square);
  return gptvq_narrow(work, n * n, 1.0);
}

static void look_at_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  square_job *j = context;
  bool bad = false;
  for (size_t i = begin; i < end; i++)
    for (size_t c = 0; c < j->width + j->step * i; c++) bad |= !(fabs(j->values[i * j->n + c]) <= j->most);
  if (bad) atomic_store(&j->bad, true);
}

/* Neither NaN nor larger than `most`: a square, or its lower triangle. */
static bool all_within(const double *values, size_t n, bool lower, double most) {
  square_job square = {
      .values = (double *)(uintptr_t)values, .n = n, .width = lower ? 1 : n, .step = lower, .most = most};
  gptvq_parallel_for(n, gptvq_rows_per_task(n), look_at_rows, &square);
  return !atomic_load(&square.bad);
}

/* Rows of `saved` are what stands right of the diagonal inside its block of GPTVQ_CHOLESKY_BLOCK columns. */
static void copy_diagonal_blocks(const job *j, bool back) {
  size_t n = j->f->padded;
  for (size_t r = 0; r < n; r++) {
    size_t end = gptvq_min_size(n, gptvq_round_up(r + 1, GPTVQ_CHOLESKY_BLOCK)), count = end - r - 1;
    double *row = j->work + r * n + r + 1, *copy = j->saved + r * GPTVQ_CHOLESKY_BLOCK;
    memcpy(back ? row : copy, back ? copy : row, count * sizeof *row);
  }
}

static gptvq_status factorise(const gptvq_solver *solver, const char *name, gptvq_factor *f, job *j,
                              gptvq_error *err) {
  size_t n = f->padded;
  bool in_place = j->work != NULL, done = false;
  if (!in_place) j->work = gptvq_alloc(n, gptvq_saturated_size(n, sizeof *j->work));
  if (j->work == NULL)
    return gptvq_fail_memory(err, "the Hessian factorisation", square_bytes(n, sizeof *j->work));
  f->u = (float *)(void *)j->work; /* what it becomes */
  if (in_place) copy_diagonal_blocks(j, false);
  for (int attempt = 0; attempt < 6 && !done; attempt++) {
    if (attempt > 0) {
      double next = j->damping > 0.0 ? 10.0 * j->damping : TINY;
      gptvq_log(solver->callbacks, GPTVQ_LOG_WARNING,
                "%s: the Hessian is not positive definite with damping %g of its mean diagonal; trying %g",
                name, j->damping, next);
      j->damping = next;
      if (in_place) copy_diagonal_blocks(j, true);
    }
    gptvq_parallel_for(n, 16, reverse_rows, j);
    GPTVQ_TRY(
        solver->backend->linalg->inverse_factor(solver->backend->linalg, n, j->work, j->scratch, &done, err));
    done = done && all_within(j->work, n, true, 1e30);
  }
  f->damping = j->damping;
  if (done) {
    make_metrics(f, j->work);
    f->u = finish_u(j->work, n);
    return GPTVQ_OK;
  }
  gptvq_log(solver->callbacks, GPTVQ_LOG_WARNING,
            "%s: the Hessian cannot be factorised; only its diagonal is used, without error feedback", name);
  f->diagonal = true;
  f->damping = fmax(f->damping, 0.01);
  memset(f->u, 0, n * n * sizeof *f->u);
  for (size_t c = 0; c < n; c++) {
    double h = fmax((double)f->h[c * n + c], 0.0);
    f->u[c * n + c] =
        (float)(1.0 /
                sqrt(h + (f->order[c] == GPTVQ_NO_COLUMN || gptvq_factor_is_dead(f, c) ? TINY : f->damping)));
  }
  make_metrics(f, NULL);
  return GPTVQ_OK;
}

/* Its mean diagonal, and how many inputs are always zero. */
static gptvq_status check_hessian(const char *name, size_t cols, const double *hessian, double *mean,
                                  size_t *dead, gptvq_error *err) {
  const bool finite = all_within(hessian, cols, false, DBL_MAX);
  for (size_t i = 0; i < cols; i++) {
    for (size_t j = 0; j < cols && !finite; j++)
      if (!isfinite(hessian[i * cols + j]))
        return gptvq_fail(
            err, GPTVQ_ERROR_NUMERIC,
            "%s: the Hessian holds NaN or infinity at row %zu, column %zu: the activations overflowed", name,
            i, j);
    double h = hessian[i * cols + i];
    if (h < 0.0)
      return gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "%s: the Hessian's diagonal is negative (%g) at column %zu",
                        name, h, i);
    *mean += h / (double)cols;
    *dead += h == 0.0;
  }
  return GPTVQ_OK;
}

static _Atomic uint64_t factors_made;

/* spare: the Hessian itself where it may be overwritten; it is then released in any case */
static gptvq_status create(const gptvq_solver *solver, const char *name, size_t cols, const double *hessian,
                           double *spare, gptvq_factor **out, gptvq_error *err) {
  const gptvq_quantize_options *o = &solver->options->options;
  double mean = 0.0;
  size_t dead = 0;
  gptvq_arena scratch = {0};
  gptvq_factor *f = NULL;
  gptvq_status status;
  *out = NULL;
  GPTVQ_TRY_GOTO(cols > 0 ? GPTVQ_OK
                          : gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%s: a Hessian without columns", name));
  GPTVQ_TRY_GOTO(check_hessian(name, cols, hessian, &mean, &dead, err));
  if (dead == cols) {
    gptvq_log(solver->callbacks, GPTVQ_LOG_WARNING,
              "%s: no calibration input reached this layer; the identity takes the place of its Hessian",
              name);
  } else if (dead > 0) {
    gptvq_log(solver->callbacks, GPTVQ_LOG_WARNING,
              "%s: %zu of %zu inputs are always zero; their weights do not count", name, dead, cols);
  }
  f = gptvq_alloc_zero(1, sizeof *f);
  GPTVQ_TRY_GOTO(f != NULL ? GPTVQ_OK : gptvq_fail_memory(err, "a Hessian factor", sizeof *f));
  *f = factor_of(cols, solver->options);
  f->id = atomic_fetch_add(&factors_made, 1) + 1;
  size_t n = f->padded;
  if (dead == cols) { /* the same path as any other H */
    free(spare);
    spare = gptvq_alloc_zero(cols, cols * sizeof *spare);
    GPTVQ_TRY_GOTO(spare != NULL
                       ? GPTVQ_OK
                       : gptvq_fail_memory(err, "the Hessian of a layer", square_bytes(cols, sizeof *spare)));
    for (size_t c = 0; c < cols; c++) spare[c * cols + c] = 1.0;
    mean = 1.0;
    hessian = spare;
  }
  f->scale = 1.0 / mean;
  job j = {.f = f, .hessian = hessian, .scale = f->scale, .damping = o->damping};
  if (o->mismatch > 0.0 || o->mismatch_stream > 0.0) /* which is divided by it, too */
    j.damping = fmax(j.damping, TINY);
  GPTVQ_TRY_GOTO(gptvq_arena_create(&f->arena, arrays_bytes(*f), "the Hessian of a layer", err));
  take_arrays(&f->arena, f);
  GPTVQ_TRY_GOTO(gptvq_arena_check(&f->arena, "the Hessian of a layer", err));
  GPTVQ_TRY_GOTO(gptvq_arena_create(&scratch, scratch_bytes(cols, n), "the Hessian factorisation", err));
  take_scratch(&scratch, cols, n, &j);
  GPTVQ_TRY_GOTO(gptvq_arena_check(&scratch, "the Hessian factorisation", err));
  for (size_t c = 0; c < cols; c++) j.diagonal[c] = hessian[c * cols + c];
  bool data = o->method == GPTVQ_METHOD_GPTVQ || o->method == GPTVQ_METHOD_GPTQ;
  /* a trellis runs through the columns as they are stored */
  bool as_stored = !data || (o->code == GPTVQ_CODE_TRELLIS && o->act_order != 1);
  make_order(f, j.diagonal, as_stored ? 0 : o->act_order, j.keys);
  if (dead == 0 || dead == cols) f->dead = NULL;
  for (size_t c = 0; c < n && f->dead != NULL; c++)
    f->dead[c] = f->order[c] != GPTVQ_NO_COLUMN && j.diagonal[f->order[c]] == 0.0;
  if (!isfinite(j.scale)) { /* a subnormal mean */
    status = gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                        "%s: the Hessian's mean diagonal %g is too small to be used", name, mean);
    goto done;
  }
  gptvq_parallel_for(n, 16, reorder_rows, &j);
  if (spare != NULL && n == cols) {
    j.work = spare;
    spare = NULL; /* becomes U, or is released */
  }
  GPTVQ_TRY_GOTO(factorise(solver, name, f, &j, err));
  *out = f;
done:
  gptvq_arena_destroy(&scratch);
  free(spare);
  if (status != GPTVQ_OK) gptvq_factor_destroy(f);
  return status;
}

gptvq_status gptvq_factor_create(const gptvq_solver *solver, const char *name, size_t cols,
                                 const double *hessian, gptvq_factor **out, gptvq_error *err) {
  GPTVQ_TRY(gptvq_blas_init(err));
  return create(solver, name, cols, hessian, NULL, out, err);
}

gptvq_status gptvq_factor_create_over(const gptvq_solver *solver, const char *name, size_t cols,
                                      double *hessian, gptvq_factor **out, gptvq_error *err) {
  gptvq_status status = gptvq_blas_init(err);
  if (status == GPTVQ_OK) return create(solver, name, cols, hessian, hessian, out, err);
  free(hessian);
  return status;
}

gptvq_factored gptvq_factor_arrays(const gptvq_factor *f) {
  return (gptvq_factored){f->cols, f->padded, f->order, f->h, f->u, f->scale, f->diagonal};
}

void gptvq_factor_destroy(gptvq_factor *factor) {
  if (factor == NULL) return;
  gptvq_arena_destroy(&factor->arena);
  free(factor->u);
  free(factor);
}
