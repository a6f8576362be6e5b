#include "quant/plan/memory.h"
#include "base/memory.h"
#include "calib/observers.h"
#include "model/workspace.h"

#include <stdio.h>

typedef struct run {
  const gptvq_model *model;
  const gptvq_resolved *options;
  size_t budget; /* of Hessians */
  bool corrects;
} run;

static double larger(double a, double b) { return a > b ? a : b; }

/* Bytes beside Hessian factor and maps while one linear is solved: its weights, and what changes them or
 * becomes of them. */
static double solving(const run *r, const gptvq_linear *linear) {
  double weights = 4.0 * (double)linear->rows * (double)linear->cols;
  gptvq_packed_shape shape;
  if (gptvq_layer_shape(linear->rows, linear->cols, r->options, &shape, NULL) != GPTVQ_OK) return weights;
  double correcting = r->corrects ? (double)gptvq_mismatch_apply_bytes(linear->cols, linear->rows) : 0.0;
  double packing = (double)gptvq_packed_bytes(&shape) + (double)gptvq_solve_bytes(r->options, &shape, true);
  return weights + larger(correcting, packing);
}

/* Bytes while the linears of one input are made: Hessians of `together` bytes are collected in the same pass.
 */
static double input_peak(const run *r, const gptvq_block *block, const size_t *linears, size_t count,
                         bool output, double together) {
  const gptvq_linear *first = &block->linears[linears[0]];
  const gptvq_quantize_options *o = &r->options->options;
  size_t c = first->cols, rows = output ? first->rows : 0, length = o->calib_length;
  double own = (double)gptvq_hessian_bytes(c), kept = (double)gptvq_min_size((size_t)together, r->budget);
  double others = kept > own ? kept - own : 0.0;
  double collecting = own, maps = 0.0, dividing = 0.0;
  if (o->calib_compute == GPTVQ_COMPUTE_BF16)
    collecting += (double)gptvq_cpu_linalg_bf16_bytes(rows > 0 ? rows : c, c, length);
  if (o->guide > 0.0) collecting += (double)gptvq_hessian_watch_bytes(length, c);
  if (r->corrects) {
    collecting += (double)gptvq_mismatch_bytes(c, rows) + (double)gptvq_mismatch_watch_bytes(length, c, rows);
    maps = (double)gptvq_mismatch_map_bytes(c, rows);
    dividing = own + maps + (double)gptvq_mismatch_finish_bytes(c, rows) + 4.0 * (double)rows * (double)c;
  }
  double peak = larger(larger(collecting, dividing), maps + (double)gptvq_factor_peak_bytes(c, r->options));
  double solved = maps + (double)gptvq_factor_bytes(c, r->options);
  for (size_t i = 0; i < count; i++) peak = larger(peak, solved + solving(r, &block->linears[linears[i]]));
  return others + peak;
}

/* Bytes of the block's layers as they are kept until the block is written. */
static double packed_block(const run *r, const gptvq_block *block) {
  double sum = 0.0;
  gptvq_packed_shape shape;
  for (size_t i = 0; i < block->linear_count; i++)
    if (gptvq_layer_shape(block->linears[i].rows, block->linears[i].cols, r->options, &shape, NULL) ==
        GPTVQ_OK)
      sum += (double)gptvq_packed_bytes(&shape);
  return sum;
}

/* Bytes of the block's layers and of the work on them. */
static double block_peak(const run *r, const gptvq_block *block) {
  double peak = 0.0, square[GPTVQ_ALL_INPUTS] = {0.0}, all = 0.0;
  for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++)
    for (size_t e = 0; e < gptvq_input_count(block, i); e++) {
      const gptvq_linear_group readers = gptvq_input_readers(block, i, e);
      double cols = (double)block->linears[readers.linear[0]].cols;
      square[i] += 8.0 * cols * cols;
    }
  for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++) all += square[i];
  for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++)
    for (size_t e = 0; e < gptvq_input_count(block, i); e++) {
      const gptvq_linear_group readers = gptvq_input_readers(block, i, e);
      peak = larger(peak, input_peak(r, block, readers.linear, readers.count, gptvq_writes_stream(block, i),
                                     r->options->options.true_sequential ? square[i] : all));
    }
  return packed_block(r, block) + peak;
}

double gptvq_pipeline_peak(const gptvq_model *model, const gptvq_resolved *resolved, bool two_streams,
                           size_t hessian_budget) {
  const gptvq_quantize_options *options = &resolved->options;
  run r = {model, resolved, hessian_budget, false};
  r.corrects =
      two_streams && options->true_sequential && (options->mismatch > 0.0 || options->mismatch_stream > 0.0);
  double stream =
      4.0 * (double)options->calib_samples * (double)options->calib_length * (double)model->config.hidden;
  double streams = stream * (two_streams ? 2.0 : 1.0) + (options->finetune_block_steps > 0 ? stream : 0.0);
  double peak = 0.0;
  for (size_t b = 0; b < model->config.layers; b++) peak = larger(peak, block_peak(&r, &model->blocks[b]));
  return streams + peak +
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
