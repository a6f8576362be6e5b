#include "linalg/solve/cg.h"
#include "base/memory.h"
#include "base/threads.h"

#include <math.h>
#include <string.h>

void gptvq_cg_take(gptvq_cg *s, gptvq_arena *arena) {
  size_t n = gptvq_saturated_size(s->systems, s->values);
  s->solution = gptvq_arena_take(arena, n, sizeof *s->solution);
  s->residual = gptvq_arena_take(arena, n, sizeof *s->residual);
  s->product = gptvq_arena_take(arena, n, sizeof *s->product);
  s->direction = gptvq_arena_take_zero(arena, n, sizeof *s->direction);
  s->blocks = gptvq_arena_take(arena, gptvq_saturated_size(n, s->block), sizeof *s->blocks);
  s->rz = gptvq_arena_take(arena, s->systems, sizeof *s->rz);
  s->enough = gptvq_arena_take(arena, s->systems, sizeof *s->enough);
  s->active = gptvq_arena_take(arena, s->systems, sizeof *s->active);
}

/* in place: lower Cholesky factor of a d × d block; a pivot that is not positive becomes 0: that direction is
 * left alone */
static void factor_block(size_t d, double *a) {
  for (size_t c = 0; c < d; c++)
    for (size_t r = c; r < d; r++) {
      double sum = a[r * d + c];
      for (size_t m = 0; m < c; m++) sum -= a[r * d + m] * a[c * d + m];
      if (r == c) a[r * d + c] = sum > 0.0 ? sqrt(sum) : 0.0;
      else a[r * d + c] = a[c * d + c] > 0.0 ? sum / a[c * d + c] : 0.0;
    }
}

static void solve_block(size_t d, const double *l, const double *b, double *z) {
  for (size_t r = 0; r < d; r++) {
    z[r] = b[r];
    for (size_t m = 0; m < r; m++) z[r] -= l[r * d + m] * z[m];
    z[r] = l[r * d + r] > 0.0 ? z[r] / l[r * d + r] : 0.0;
  }
  for (size_t r = d; r-- > 0;) {
    for (size_t m = r + 1; m < d; m++) z[r] -= l[m * d + r] * z[m];
    z[r] = l[r * d + r] > 0.0 ? z[r] / l[r * d + r] : 0.0;
  }
}

/* z = M⁻¹ r; direction = z + beta direction; beginning with beta = 0 */
static void next_direction(const gptvq_cg *s, size_t system) {
  size_t d = s->block, at = system * s->values;
  double rz = 0.0;
  double *z = s->product + at; /* free between products */
  for (size_t c = 0; c < s->values; c += d) {
    solve_block(d, s->blocks + (at + c) * d, s->residual + at + c, z + c);
    for (size_t i = 0; i < d; i++) rz += z[c + i] * s->residual[at + c + i];
  }
  bool first = s->rz[system] < 0.0;
  double beta = first || s->rz[system] == 0.0 ? 0.0 : rz / s->rz[system];
  if (!(rz > s->enough[system])) rz = 0.0;
  for (size_t i = 0; i < s->values; i++)
    s->direction[at + i] = rz == 0.0 ? 0.0f : (float)(z[i] + beta * (double)s->direction[at + i]);
  s->rz[system] = rz;
}

static void begin_systems(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  gptvq_cg *s = context;
  size_t d = s->block;
  for (size_t system = begin; system < end; system++) {
    double *blocks = s->blocks + system * s->values * d;
    for (size_t c = 0; c < s->values; c += d) factor_block(d, blocks + c * d);
    s->rz[system] = -1.0;
    next_direction(s, system);
  }
}

static void list_active(gptvq_cg *s) {
  s->active_count = 0;
  for (size_t system = 0; system < s->systems; system++)
    if (s->rz[system] != 0.0) s->active[s->active_count++] = (uint32_t)system;
}

void gptvq_cg_begin(gptvq_cg *s) {
  gptvq_parallel_for(s->systems, 1, begin_systems, s);
  list_active(s);
}

static void step_systems(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  gptvq_cg *s = context;
  for (size_t slot = begin; slot < end; slot++) {
    size_t system = s->active[slot], at = system * s->values;
    if (s->gather != NULL) s->gather(s, system, s->product + at);
    double curvature = 0.0, slope = 0.0;
    for (size_t i = 0; i < s->values; i++) {
      curvature += (double)s->direction[at + i] * s->product[at + i];
      slope += (double)s->direction[at + i] * s->residual[at + i];
    }
    if (!(curvature > 0.0)) {
      s->rz[system] = 0.0;
      memset(s->direction + at, 0, s->values * sizeof *s->direction);
      continue;
    }
    double alpha = slope / curvature;
    for (size_t i = 0; i < s->values; i++) {
      s->solution[at + i] += alpha * (double)s->direction[at + i];
      s->residual[at + i] -= alpha * s->product[at + i];
    }
    next_direction(s, system);
  }
}

void gptvq_cg_step(gptvq_cg *s) {
  gptvq_parallel_for(s->active_count, 1, step_systems, s);
  list_active(s);
}
