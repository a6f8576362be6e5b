/* layer: the library on one matrix. A random layer of correlated inputs is packed with and without what is
 * known of its inputs; both are judged on inputs that neither has seen.
 *
 *     cc examples/layer.c $(pkg-config --cflags --libs gptvq) -o layer && ./layer 2.25 */
#include <gptvq/layer.h>

#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 256, COLS = 256, INPUTS = 1024 };

static float uniform(void) { /* −1 … 1 */
  static unsigned state = 1;
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 8) / 8388608.0f - 1.0f;
}

static void make_inputs(float *x) { /* neighbours are alike, later columns are larger */
  for (size_t i = 0; i < INPUTS; i++) {
    float last = 0;
    for (size_t c = 0; c < COLS; c++) {
      last = 0.9f * last + uniform();
      x[i * COLS + c] = last * (1.0f + 2.0f * (float)c / COLS);
    }
  }
}

/* ‖x Wᵀ − y‖² / ‖x Wᵀ‖² */
static double output_error(const float *weights, const float *x, const float *y) {
  double error = 0, total = 0;
  for (size_t i = 0; i < INPUTS; i++)
    for (size_t r = 0; r < ROWS; r++) {
      double exact = 0;
      for (size_t c = 0; c < COLS; c++) exact += (double)weights[r * COLS + c] * (double)x[i * COLS + c];
      error += (exact - (double)y[i * ROWS + r]) * (exact - (double)y[i * ROWS + r]);
      total += exact * exact;
    }
  return error / total;
}

int main(int argc, char **argv) {
  static float weights[ROWS * COLS], x[INPUTS * COLS], fresh[INPUTS * COLS], y[INPUTS * ROWS];
  static double hessian[COLS * COLS];
  gptvq_error err = {0};
  gptvq_quantize_options options;
  gptvq_quantize_options_init(&options);
  options.bits = argc > 1 ? strtod(argv[1], NULL) : 2.25;
  for (size_t i = 0; i < ROWS * COLS; i++) weights[i] = 0.1f * (uniform() + uniform() + uniform());
  make_inputs(x);
  make_inputs(fresh);
  gptvq_status status = gptvq_input_hessian(INPUTS, COLS, x, hessian, &err);
  for (int with = 0; with < 2 && status == GPTVQ_OK; with++) {
    gptvq_packed_layer *layer;
    gptvq_layer_info info = {.size = sizeof info};
    status =
        gptvq_pack_layer("a layer", ROWS, COLS, weights, with ? hessian : NULL, &options, NULL, &layer, &err);
    if (status != GPTVQ_OK) break;
    gptvq_packed_layer_get_info(layer, &info);
    status = gptvq_packed_layer_multiply(layer, GPTVQ_COMPUTE_FP32, INPUTS, fresh, y, &err);
    if (status == GPTVQ_OK)
      printf("%s: %llu bytes, %.4f bits per value, error %.6f, on other inputs %.6f\n",
             with ? "with its inputs" : "without", (unsigned long long)info.bytes, info.bits_per_value,
             info.error, output_error(weights, fresh, y));
    gptvq_packed_layer_destroy(layer);
  }
  if (status != GPTVQ_OK) fprintf(stderr, "layer: %s\n", err.message);
  return status;
}
