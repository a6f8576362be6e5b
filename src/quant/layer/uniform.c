/* Uniform baselines: round to nearest, and GPTQ (arXiv 2210.17323), asymmetric, one fp16 scale and one zero
 * point per row and group. */
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "quant/layer/half_scales.h"
#include "quant/layer/layer.h"
#include "quant/layer/lookup.h"

#include <math.h>
#include <string.h>

enum { LAZY = 128 };

typedef struct uniform {
  gptvq_packed_shape shape;
  const gptvq_factor *factor;      /* NULL: round to nearest */
  size_t groups, unit, begin, end; /* scale groups per row; indices per unit; columns of the present batch */
  unsigned top;                    /* largest code */
  float *work, *error;             /* [rows × cols] processing order; error only with a factor */
  uint16_t *codes;                 /* [rows × unit] */
  uint16_t *zeros;                 /* [rows × groups] padded to a multiple of 8 */
  uint16_t *scales;                /* fp16 [rows × groups] */
  gptvq_row_energy *energy;        /* [rows] */
} uniform;

/* Min-max range of the group, zero included; the scale is the stored one before the zero point is derived
 * from it. */
static void choose_range(uniform *u, size_t row, size_t group) {
  size_t begin = group * u->shape.scale_block,
         end = gptvq_min_size(u->shape.cols, begin + u->shape.scale_block);
  float low = 0.0f, high = 0.0f;
  const float *weights = u->work + row * u->shape.cols;
  for (size_t c = begin; c < end; c++) {
    low = fminf(low, weights[c]);
    high = fmaxf(high, weights[c]);
  }
  if (low == 0.0f && high == 0.0f) low = -1.0f, high = 1.0f;
  uint16_t stored = gptvq_float_to_fp16((high - low) / (float)u->top);
  if (stored == 0) stored = 1;             /* the smallest positive fp16 */
  if (stored >= 0x7c00u) stored = 0x7bffu; /* the largest */
  float scale = gptvq_fp16_to_float(stored);
  gptvq_add_group(&u->energy[row], end - begin, weights + begin, high - low, scale, u->top);
  u->scales[row * u->groups + group] = stored;
  u->zeros[row * u->groups + group] = (uint16_t)fminf((float)u->top, fmaxf(0.0f, rintf(-low / scale)));
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

static void feed_back(uniform *u, size_t from, size_t to, size_t begin, size_t end) {
  if (u->factor == NULL || from == to) return;
  size_t n = u->shape.cols;
  gptvq_gemm_nn(u->shape.rows, end - begin, to - from, -1.0f, u->error + from, n,
                u->factor->u + from * n + begin, n, 1.0f, u->work + begin, n);
}

gptvq_status gptvq_solve_uniform(const char *name, const gptvq_packed_shape *shape, const float *weights,
                                 const gptvq_factor *factor, const gptvq_quantize_options *options,
                                 gptvq_layer_result *result, gptvq_error *err) {
  gptvq_status status = GPTVQ_OK;
  uniform u = {.shape = *shape, .top = (1u << shape->index_bits) - 1u};
  u.factor = options->method == GPTVQ_METHOD_GPTQ && options->feedback ? factor : NULL;
  size_t rows = shape->rows, n = shape->cols, zero_count;
  u.groups = gptvq_ceil_div(n, shape->scale_block);
  u.unit = gptvq_unit_indices(shape, 0);
  zero_count = gptvq_round_up(rows * u.groups, 8);
  u.work = gptvq_alloc(rows, n * sizeof *u.work);
  u.error = u.factor != NULL ? gptvq_alloc(rows, n * sizeof *u.error) : NULL;
  u.codes = gptvq_alloc_zero(rows, u.unit * sizeof *u.codes);
  u.zeros = gptvq_alloc_zero(zero_count, sizeof *u.zeros);
  u.energy = gptvq_alloc_zero(rows, sizeof *u.energy);
  if (u.work == NULL || (u.factor != NULL && u.error == NULL) || u.codes == NULL || u.zeros == NULL ||
      u.energy == NULL) {
    status = gptvq_fail_memory(err, name, gptvq_saturated_size(rows, n * 2 * sizeof(float)));
    goto done;
  }
  u.scales = (uint16_t *)result->packed.scales;
  for (size_t row = 0; row < rows; row++)
    for (size_t c = 0; c < n; c++)
      u.work[row * n + c] = weights[row * n + (factor != NULL && shape->permuted ? factor->order[c] : c)];
  for (size_t start = 0; start < n; start += shape->scale_block) {
    /* a group's range is taken from its weights as all columns before it have compensated them */
    size_t stop = gptvq_min_size(n, start + shape->scale_block);
    feed_back(&u, 0, start, start, stop);
    for (u.begin = start; u.begin < stop; u.begin = u.end) {
      u.end = gptvq_min_size(stop, u.begin + LAZY);
      feed_back(&u, start, u.begin, u.begin, u.end);
      gptvq_parallel_for(rows, 4, quantize_rows, &u);
    }
  }
  GPTVQ_TRY_GOTO(gptvq_check_half_scales(name, rows, u.energy,
                                         "`method` gptvq, or kmeans without data, stores such layers", err));
  for (size_t row = 0; row < rows; row++)
    gptvq_pack_unit(u.codes + row * u.unit, u.unit, shape->index_bits,
                    (uint8_t *)result->packed.indices + gptvq_unit_offset(shape, row, 0));
  gptvq_pack_unit(u.zeros, zero_count, shape->index_bits, (uint8_t *)result->packed.zeros);
done:
  free(u.work);
  free(u.error);
  free(u.codes);
  free(u.zeros);
  free(u.energy);
  return status;
}
