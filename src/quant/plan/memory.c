#include "quant/plan/memory.h"
#include "base/memory.h"
#include "model/workspace.h"
#include "linalg/solve/cholesky.h"
#include "quant/layer/solver.h"

#include <stdio.h>

enum { TOGETHER = 2048 }; /* tokens, rows and columns that calib/mismatch.c works on together */

typedef struct run {
  const gptvq_model *model;
  const gptvq_quantize_options *options;
  size_t budget; /* of Hessians */
  bool corrects;
} run;

/* Bytes beside the factor while one linear is solved. */
static double solving(const run *r, const gptvq_linear *linear) {
  const gptvq_quantize_options *o = r->options;
  double rows = (double)linear->rows, values = rows * (double)linear->cols;
  gptvq_packed_shape shape;
  gptvq_packed_sizes sizes;
  if (gptvq_layer_shape(linear->rows, linear->cols, o, &shape, NULL) != GPTVQ_OK) return 0.0;
  gptvq_packed_measure(&shape, &sizes);
  if (shape.kind != GPTVQ_PACKED_VQ) return 14.0 * values; /* weights, compensated weights, errors, codes */
  /* weights, targets, compensated weights, errors, indices; codebooks, and in the update solution, residual,
   * product, direction, preconditioner, copies */
  double code = o->codebook_bits / 8.0, numbers = (double)sizes.codebook_values;
  double update = o->codebook_update ? numbers * (8.0 * (3.0 + o->dim) + 8.0 + code) : 0.0;
  if (shape.svd_rank > 0) { /* all codebooks, gradient, curvature, change; of the left factor copies and the
                               same numbers as of codebooks above */
    double rank = shape.svd_rank, left = (double)sizes.left_bytes;
    double factors =
        o->codebook_update ? 28.0 * numbers + left * (8.0 * (5.0 + rank) + 4.0) : 24.0 * numbers + 8.0 * left;
    if (factors > update) update = factors;
  }
  return 16.0 * values + 2.0 * values / o->dim + numbers * (4.0 + code) + update + 4.0 * 128.0 * rows;
}

/* Bytes while the linears of one input are made: Hessians of `together` bytes are collected in the same pass.
 */
static double input_peak(const run *r, const gptvq_block *block, const size_t *linears, size_t count,
                         bool output, double together) {
  const gptvq_linear *first = &block->linears[linears[0]];
  double c = (double)first->cols, rows = output ? (double)first->rows : 0.0,
         length = (double)r->options->calib_length;
  double square = c * c, kept = (double)gptvq_min_size((size_t)together, r->budget),
         hessians = kept < 8.0 * square ? 8.0 * square : kept;
  double maps = r->corrects ? 4.0 * c * (c + rows) : 0.0, strips = 8.0 * c * GPTVQ_CHOLESKY_BLOCK;
  double captured = (r->options->guide > 0.0 ? 4.0 * length * c : 0.0) +
                    (r->corrects ? 4.0 * length * (c + (double)r->model->config.hidden) : 0.0);
  double collecting =
      hessians + captured + (r->corrects ? 2.0 * maps + 4.0 * TOGETHER * (c > rows ? c : rows) : 0.0);
  double dividing = r->corrects ? hessians + maps + 4.0 * square + 4.0 * TOGETHER * c + 2.0 * strips : 0.0;
  double factoring = hessians + maps + 4.0 * square + 2.0 * strips +
                     (first->cols % r->options->dim != 0 ? 8.0 * square : 0.0);
  double peak = collecting > dividing ? collecting : dividing;
  if (factoring > peak) peak = factoring;
  for (size_t i = 0; i < count; i++) {
    double solve =
        hessians + maps +
        solving(r, &block->linears[linears[i]]); /* two fp32 squares take the place of the Hessian */
    if (solve > peak) peak = solve;
  }
  return peak;
}

double gptvq_pipeline_peak(const gptvq_model *model, const gptvq_quantize_options *options, bool two_streams,
                           size_t hessian_budget) {
  const gptvq_block *block = &model->blocks[0];
  run r = {model, options, hessian_budget, false};
  r.corrects =
      two_streams && options->true_sequential && (options->mismatch > 0.0 || options->mismatch_stream > 0.0);
  double stream =
      4.0 * (double)options->calib_samples * (double)options->calib_length * (double)model->config.hidden;
  double streams = stream * (two_streams ? 2.0 : 1.0) + (options->finetune_block_steps > 0 ? stream : 0.0);
  double packed = 0.0, peak = 0.0, square[GPTVQ_INPUTS] = {0.0};
  for (size_t i = 0; i < block->linear_count; i++)
    packed += options->bits / 8.0 * (double)block->linears[i].rows * (double)block->linears[i].cols;
  for (gptvq_block_input i = 0; i < GPTVQ_INPUTS; i++)
    for (size_t e = 0; e < gptvq_input_count(block, i); e++) {
      const gptvq_linear_group readers = gptvq_input_readers(block, i, e);
      double cols = (double)block->linears[readers.linear[0]].cols;
      square[i] += 8.0 * cols * cols;
    }
  double all = square[0] + square[1] + square[2] + square[3];
  for (gptvq_block_input i = 0; i < GPTVQ_INPUTS; i++)
    for (size_t e = 0; e < gptvq_input_count(block, i); e++) {
      const gptvq_linear_group readers = gptvq_input_readers(block, i, e);
      double here = input_peak(&r, block, readers.linear, readers.count, gptvq_writes_stream(block, i),
                               options->true_sequential ? square[i] : all);
      if (here > peak) peak = here;
    }
  return streams + packed + peak +
         (double)gptvq_workspace_bytes(model, 1, options->calib_length, options->calib_length);
}

bool gptvq_memory_warning(double peak, double without_mismatch, double available, char *text, size_t size) {
  if (available <= 0.0 || peak <= available) return false;
  int used =
      snprintf(text, size,
               "this takes about %.1f GB of memory at its peak, but only %.1f GB are available: ", peak / 1e9,
               available / 1e9);
  if (used < 0 || (size_t)used >= size) return true;
  if (without_mismatch < peak)
    (void)snprintf(text + used, size - (size_t)used, "%.1f GB with `mismatch` 0 and `mismatch_stream` 0%s",
                   without_mismatch / 1e9,
                   without_mismatch > available ? " and less with fewer `calib_samples`" : "");
  else
    (void)snprintf(text + used, size - (size_t)used,
                   "give fewer `calib_samples` or a shorter `calib_length`");
  return true;
}
