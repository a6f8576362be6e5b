/* quant/layer/solver.h: one linear layer, from weights and a Hessian to packed arrays. Knows nothing of
 * models or files. */
#ifndef GPTVQ_QUANT_LAYER_SOLVER_H
#define GPTVQ_QUANT_LAYER_SOLVER_H

#include <gptvq/quantize.h>

#include "base/status.h"
#include "format/packed.h"

/* What the solver needs of the inputs: H = X Xᵀ / n damped, its column order and U with H⁻¹ = Uᵀ U (upper
 * triangular, double). One factor serves all layers that share their input (q, k, v; gate, up). Immutable
 * once made. */
typedef struct gptvq_factor gptvq_factor;

/* hessian: [cols × cols] symmetric, not modified. Dead columns (H_ii = 0) are handled; damping is raised ×10
 * when the Cholesky factorisation fails (logged with `name`), at last the diagonal is used. act_order and
 * damping come from the options. GPTVQ_ERROR_NUMERIC: NaN or infinity in the Hessian. The caller destroys
 * *out. */
gptvq_status gptvq_factor_create(const char *name, size_t cols, const double *hessian,
                                 const gptvq_quantize_options *options, const gptvq_callbacks *callbacks,
                                 gptvq_factor **out, gptvq_error *err);
/* The same in the memory of `hessian` (from gptvq_alloc), which belongs to the factor or is released
 * afterwards, also on failure. */
gptvq_status gptvq_factor_create_over(const char *name, size_t cols, double *hessian,
                                      const gptvq_quantize_options *options, const gptvq_callbacks *callbacks,
                                      gptvq_factor **out, gptvq_error *err);
void gptvq_factor_destroy(gptvq_factor *factor);

typedef struct gptvq_layer_result {
  gptvq_packed packed; /* arrays live in `storage` */
  void *storage;       /* owned by the caller after success: gptvq_layer_result_release */
  double error; /* tr(E H Eᵀ) / tr(W H Wᵀ) with the undamped H; without data ‖E‖² / ‖W‖² */
  double seconds;
} gptvq_layer_result;
void gptvq_layer_result_release(gptvq_layer_result *result);

/* Quantizes weights[rows × cols] (not modified) by options->method with resolved sizes
 * (gptvq_quantize_options_resolve). factor NULL: no data (RTN and k-means take none; GPTQ and GPTVQ then use
 * the identity). Deterministic for any number of threads. GPTVQ_ERROR_NUMERIC: NaN or infinity in the weights
 * (name, row and column in the message). */
gptvq_status gptvq_solve_layer(const char *name, size_t rows, size_t cols, const float *weights,
                               const gptvq_factor *factor, const gptvq_quantize_options *options,
                               const gptvq_callbacks *callbacks, gptvq_layer_result *result,
                               gptvq_error *err);

/* The shape that the options give a rows × cols layer (narrow and short layers included): exact size before
 * any work. */
gptvq_status gptvq_layer_shape(size_t rows, size_t cols, const gptvq_quantize_options *options,
                               gptvq_packed_shape *shape, gptvq_error *err);

#endif
