/* Where a run is at work, and how much memory a card needs for it. */
#include "quant/run/pipeline.h"
#include "base/memory.h"
#include "quant/plan/memory.h"

/* fp32 arrays of rows × cols, and of cols × cols, that the solver has on a device: weights, work and errors;
 * H and U. */
enum { LAYER_ARRAYS = 4, SQUARE_ARRAYS = 2 };

static size_t solver_bytes(size_t rows, size_t cols) {
  const size_t row = gptvq_saturated_size(cols, sizeof(float));
  return gptvq_saturated_sum(gptvq_saturated_size(rows, LAYER_ARRAYS * row),
                             gptvq_saturated_size(cols, SQUARE_ARRAYS * row));
}

/* Tails of a trellis of 2 bits with as many paths as there can be. */
static size_t trellis_bytes(size_t rows, const gptvq_resolved *options) {
  enum { ROW = 2 * 4 * 64 * 128 * sizeof(float) };
  if (options->options.code != GPTVQ_CODE_TRELLIS) return 0;
  return gptvq_min_size(GPTVQ_CUDA_TAIL_BYTES, gptvq_saturated_size(rows, ROW));
}

/* Its largest layer's: what is left of the layer before, and the sums for the next. */
static size_t device_bytes(const gptvq_model *model, const gptvq_resolved *options) {
  size_t most = 0;
  for (size_t b = 0; b < model->config.layers; b++)
    for (size_t i = 0; i < model->blocks[b].linear_count; i++) {
      const gptvq_linear *linear = &model->blocks[b].linears[i];
      const size_t height = gptvq_max_size(linear->rows, linear->cols);
      size_t bytes =
          gptvq_saturated_sum(solver_bytes(linear->rows, linear->cols), trellis_bytes(linear->rows, options));
      if (gptvq_run_uses_data(options))
        bytes = gptvq_saturated_sum(bytes, gptvq_cuda_linalg_bytes(height, linear->cols));
      most = gptvq_max_size(most, bytes);
    }
  return most;
}

gptvq_status gptvq_pipeline_place(const gptvq_model *model, const gptvq_resolved *options,
                                  gptvq_stages *stages, const gptvq_callbacks *callbacks, gptvq_place *out,
                                  gptvq_error *err) {
  gptvq_device_choice choice;
  GPTVQ_TRY(gptvq_device_parse(options->options.device, &choice, err));
  const gptvq_place_need need = {.bytes = device_bytes(model, options),
                                 .rounds = options->options.calib_compute == GPTVQ_COMPUTE_BF16,
                                 .stages = stages};
  return gptvq_place_open(&choice, &need, callbacks, out, err);
}
