/* Uniform baselines: round to nearest, and GPTQ (arXiv 2210.17323), asymmetric, one fp16 scale and one zero
 * point per row and group. */
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "quant/layer/half_scales.h"
#include "quant/layer/layer.h"
#include "quant/layer/lookup.h"

#include <math.h>
#include <string.h>

enum { LAZY = 128 };

typedef struct uniform {
  gptvq_packed_shape shape;
  const gptvq_backend *backend;
  const gptvq_factor *factor;      /* NULL: round to nearest */
  size_t groups, unit, zero_count; /* scale groups per row; indices per unit; zero points, padded to a
                                     multiple of 8 */
  size_t begin, end;               /* columns of the present batch */
  unsigned top;                    /* largest code */
  float *work, *error;             /* [rows × cols] processing order; error only with a factor */
  uint16_t *codes;                 /* [rows × unit] */
  uint16_t *zeros;                 /* [zero_count] */
  uint16_t *scales;                /* fp16 [rows × groups] */
  gptvq_row_energy *energy;        /* [rows] */
} uniform;

typedef struct range {
  float low, high, scale;
  uint16_t stored; /* the scale as fp16 */
} range;

/* Min-max range, zero included; the scale is the stored one before the zero point is derived from it. */
static range range_of(size_t n, const float *weights, unsigned top) {
  range r = {0};
  for (size_t c = 0; c < n; c++) {
    r.low = fminf(r.low, weights[c]);
    r.high = fmaxf(r.high, weights[c]);
  }
  if (r.low == 0.0f && r.high == 0.0f) r.low = -1.0f, r.high = 1.0f;
  r.stored = gptvq_float_to_fp16((r.high - r.low) / (float)top);
  if (r.stored == 0) r.stored = 1;             /* the smallest positive fp16 */
  if (r.stored >= 0x7c00u) r.stored = 0x7bffu; /* the largest */
  r.scale = gptvq_fp16_to_float(r.stored);
  return r;
}

static void choose_range(uniform *u, size_t row, size_t group) {
  size_t begin = group * u->shape.scale_block,
         n = gptvq_min_size(u->shape.cols - begin, u->shape.scale_block);
  const float *weights = u->work + row * u->shape.cols + begin;
  const range r = range_of(n, weights, u->top);
  gptvq_add_group(&u->energy[row], n, weights, r.high - r.low, r.scale, u->top);
  u->scales[row * u->groups + group] = r.stored;
  u->zeros[row * u->groups + group] = (uint16_t)fminf((float)u->top, fmaxf(0.0f, rintf(-r.low / r.scale)));
}

void gptvq_add_uniform_row(const gptvq_packed_shape *shape, const float *weights, gptvq_row_energy *row) {
  unsigned top = (1u << shape->index_bits) - 1u;
  for (size_t c = 0; c < shape->cols; c += shape->scale_block) {
    size_t n = gptvq_min_size(shape->cols - c, shape->scale_block);
    const range r = range_of(n, weights + c, top);
    gptvq_add_group(row, n, weights + c, r.high - r.low, r.scale, top);
  }
}

gptvq_status gptvq_check_uniform_rows(const char *name, size_t rows, const gptvq_row_energy *energy,
                                      gptvq_error *err) {
  return gptvq_check_half_scales(name, rows, energy,
                                 "`method` gptvq, or kmeans without data, stores such layers", err);
}

static void quantize_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  uniform *u = context;
  size_t n = u->shape.cols;
  for (size_t row = begin; row < end; row++)
    for (size_t c = u->begin; c < u->end; c++) {
      size_t group = c / u->shape.scale_block, at = row * u->groups + group;
      if (c % u->shape.scale_block == 0) choose_range(u, row, group);
      float scale = gptvq_fp16_to_float(u->scales[at]), zero = (float)u->zeros[at], w = u->work[row * n + c];
      float code = fminf((float)u->top, fmaxf(0.0f, rintf(w / scale) + zero));
      u->codes[row * u->unit + c] = (uint16_t)code;
      if (u->factor == NULL) continue;
      const float *row_u = u->factor->u + c * n;
      float *e = u->error + row * n + c;
      *e = (w - scale * (code - zero)) / row_u[c];
      GPTVQ_MULTI_PICK(gptvq_feedback)
      (1, u->end - c - 1, e, row_u + c + 1, n, u->work + row * n + c + 1, u->work + row * n + c + 1);
    }
}

static gptvq_status feed_back(uniform *u, gptvq_span from, gptvq_span to, gptvq_error *err) {
  if (u->factor == NULL || from.begin == from.end) return GPTVQ_OK;
  return u->backend->feedback(u->backend, u->factor, u->shape.rows, from, to, u->error, u->work, err);
}

static void take(gptvq_arena *arena, bool feedback, uniform *u) {
  size_t rows = u->shape.rows, n = u->shape.cols;
  u->groups = gptvq_ceil_div(n, u->shape.scale_block);
  u->unit = gptvq_unit_indices(&u->shape, 0);
  u->zero_count = gptvq_round_up(rows * u->groups, 8);
  u->work = gptvq_arena_take(arena, rows, n * sizeof *u->work);
  u->error = feedback ? gptvq_arena_take(arena, rows, n * sizeof *u->error) : NULL;
  u->codes = gptvq_arena_take_zero(arena, rows, u->unit * sizeof *u->codes);
  u->zeros = gptvq_arena_take_zero(arena, u->zero_count, sizeof *u->zeros);
  u->energy = gptvq_arena_take_zero(arena, rows, sizeof *u->energy);
}

size_t gptvq_solve_uniform_bytes(const gptvq_packed_shape *shape, bool feedback) {
  gptvq_arena counting = {0};
  uniform u = {.shape = *shape};
  take(&counting, feedback, &u);
  return counting.peak;
}

gptvq_status gptvq_solve_uniform(gptvq_arena *arena, const gptvq_solver *solver, const gptvq_weights *weights,
                                 const gptvq_factor *factor, gptvq_layer_result *result, gptvq_error *err) {
  const gptvq_quantize_options *options = &solver->options->options;
  const gptvq_packed_shape *shape = &result->packed.shape;
  uniform u = {.shape = *shape, .backend = solver->backend, .top = (1u << shape->index_bits) - 1u};
  u.factor = options->method == GPTVQ_METHOD_GPTQ && options->feedback ? factor : NULL;
  size_t rows = shape->rows, n = shape->cols, mark = arena->used;
  take(arena, u.factor != NULL, &u);
  GPTVQ_TRY(gptvq_arena_check(arena, weights->name, err));
  u.scales = (uint16_t *)result->packed.scales;
  for (size_t row = 0; row < rows; row++)
    for (size_t c = 0; c < n; c++)
      u.work[row * n + c] =
          weights->values[row * n + (factor != NULL && shape->permuted ? factor->order[c] : c)];
  for (size_t start = 0; start < n; start += shape->scale_block) {
    /* a group's range is taken from its weights as all columns before it have compensated them */
    size_t stop = gptvq_min_size(n, start + shape->scale_block);
    GPTVQ_TRY(feed_back(&u, (gptvq_span){0, start}, (gptvq_span){start, stop}, err));
    for (u.begin = start; u.begin < stop; u.begin = u.end) {
      u.end = gptvq_min_size(stop, u.begin + LAZY);
      GPTVQ_TRY(feed_back(&u, (gptvq_span){start, u.begin}, (gptvq_span){u.begin, u.end}, err));
      gptvq_parallel_for(rows, 4, quantize_rows, &u);
    }
  }
  if (!solver->options->scales_checked)
    GPTVQ_TRY(gptvq_check_uniform_rows(weights->name, rows, u.energy, err));
  for (size_t row = 0; row < rows; row++)
    gptvq_pack_unit(u.codes + row * u.unit, u.unit, shape->index_bits,
                    (uint8_t *)result->packed.indices + gptvq_unit_offset(shape, row, 0));
  gptvq_pack_unit(u.zeros, u.zero_count, shape->index_bits, (uint8_t *)result->packed.zeros);
  gptvq_arena_return(arena, mark);
  return GPTVQ_OK;
}
