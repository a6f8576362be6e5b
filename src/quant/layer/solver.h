/* quant/layer/solver.h: one linear layer, from weights and a Hessian to packed arrays. Knows nothing of
 * models or files. */
#ifndef GPTVQ_QUANT_LAYER_SOLVER_H
#define GPTVQ_QUANT_LAYER_SOLVER_H

#include "base/stages.h"
#include "dist/dist.h"
#include "format/packed.h"
#include "linalg/solve/factored.h"
#include "quant/layer/backend.h"
#include "quant/options/options.h"

/* What the layers of a run are solved with. */
typedef struct gptvq_solver {
  const gptvq_resolved *options;
  const gptvq_backend *backend;
  const gptvq_callbacks *callbacks; /* or NULL */
  gptvq_stages *stages;             /* or NULL */
  gptvq_dist *dist; /* whose members deal out the rows of layers, with one result for all; NULL: alone */
} gptvq_solver;

/* What the solver needs of the inputs: H = X Xᵀ / n damped, its column order and U with H⁻¹ = Uᵀ U (upper
 * triangular, double). One factor serves all layers that share their input (q, k, v; gate, up). Immutable
 * once made. */
typedef struct gptvq_factor gptvq_factor;

/* hessian: [cols × cols] symmetric, not modified. Dead columns (H_ii = 0) are handled; damping is raised ×10
 * when the Cholesky factorisation fails (logged with `name`), at last the diagonal is used. act_order and
 * damping come from the options. GPTVQ_ERROR_NUMERIC: NaN or infinity in the Hessian. The caller destroys
 * *out. */
gptvq_status gptvq_factor_create(const gptvq_solver *solver, const char *name, size_t cols,
                                 const double *hessian, gptvq_factor **out, gptvq_error *err);
/* The same in the memory of `hessian` (from gptvq_alloc), which belongs to the factor or is released
 * afterwards, also on failure. */
gptvq_status gptvq_factor_create_over(const gptvq_solver *solver, const char *name, size_t cols,
                                      double *hessian, gptvq_factor **out, gptvq_error *err);
void gptvq_factor_destroy(gptvq_factor *factor);
gptvq_factored gptvq_factor_arrays(const gptvq_factor *factor); /* the factor's own */
/* Bytes that making one over a Hessian takes at its peak, and that it has then; the Hessian counts in both.
 */
size_t gptvq_factor_peak_bytes(size_t cols, const gptvq_resolved *options);
size_t gptvq_factor_bytes(size_t cols, const gptvq_resolved *options);

typedef struct gptvq_layer_result {
  gptvq_packed packed; /* arrays live in `storage` */
  void *storage;       /* owned by the caller after success: gptvq_layer_result_release */
  double error; /* tr(E H Eᵀ) / tr(W H Wᵀ) with the undamped H; without data ‖E‖² / ‖W‖² */
  double seconds;
} gptvq_layer_result;
void gptvq_layer_result_release(gptvq_layer_result *result);

typedef struct gptvq_weights {
  const char *name;
  size_t rows, cols;
  const float *values; /* [rows × cols] */
} gptvq_weights;

/* Quantizes the weights (not modified) by the options' method. factor NULL: no data (RTN and k-means take
 * none; GPTQ and GPTVQ then use the identity). Deterministic for any number of threads. GPTVQ_ERROR_NUMERIC:
 * NaN or infinity in the weights (name, row and column in the message). */
gptvq_status gptvq_solve_layer(const gptvq_solver *solver, const gptvq_weights *weights,
                               const gptvq_factor *factor, gptvq_layer_result *result, gptvq_error *err);
/* Bytes of scratch that it takes, exactly where every stage runs that the options may ask for, and of the
 * result's storage. */
size_t gptvq_solve_bytes(const gptvq_solver *solver, const gptvq_packed_shape *shape, bool with_factor);
size_t gptvq_packed_bytes(const gptvq_packed_shape *shape);

/* The shape that the options give a rows × cols layer (narrow and short layers included): exact size before
 * any work. */
gptvq_status gptvq_layer_shape(size_t rows, size_t cols, const gptvq_resolved *options,
                               gptvq_packed_shape *shape, gptvq_error *err);

#endif
