/* quant/layer/backend.h: the functions in which quantizing a layer spends its time, as a table that a backend
 * may override, all of it or some. The CPU's (gptvq_cpu_backend) are the definition: another backend's
 * results are compared with theirs.
 *
 * Arrays are those of quant/layer/layer.h: host memory, row-major, columns in processing order, counts and
 * strides in elements. They stay the solver's: a backend may keep copies between two calls for the same
 * layer, but what a function is to change has changed when it returns. A function is called from one thread
 * at a time and may use all threads; its result does not depend on their number. Scratch: the CPU's functions
 * take theirs from q->arena (gptvq_vq_…_bytes), where nothing is left when they return. Errors:
 * GPTVQ_ERROR_MEMORY, or GPTVQ_ERROR_INTERNAL where the backend fails; the layer is then given up. */
#ifndef GPTVQ_QUANT_LAYER_BACKEND_H
#define GPTVQ_QUANT_LAYER_BACKEND_H

#include "linalg/solve/backend.h"

struct gptvq_factor;
struct gptvq_vq;

typedef struct gptvq_span { /* columns [begin, end) */
  size_t begin, end;
} gptvq_span;

typedef struct gptvq_backend gptvq_backend;
struct gptvq_backend {
  const char *name;
  /* Gram products of calibration inputs and the factorisation of the Hessian. */
  const gptvq_linalg *linalg;
  /* y[rows × padded] = x (H + ridge), fp32; without a factor y = x. rows <= q->rows. x and y: q->work,
   * q->error or other arrays, never the same. Most of the time of update, search and re-assignment goes here.
   */
  gptvq_status (*times_hessian)(const struct gptvq_vq *q, size_t rows, const float *x, float *y,
                                gptvq_error *err);
  /* Feedback: work[rows][to] −= error[rows][from] U[from][to] in fp32, rows of factor->padded numbers. The
   * columns `to` come after `from`. backend: the table itself. */
  gptvq_status (*feedback)(const gptvq_backend *backend, const struct gptvq_factor *factor, size_t rows,
                           gptvq_span from, gptvq_span to, const float *error, float *work, gptvq_error *err);
  /* k-means of one group (its place in q->group) in all stripes, from q->work: assignment to the nearest in
   * the metric q->lookup, and centroids from these, from the options' start, em_iterations times at most.
   * Codebooks are stored (gptvq_vq_store_codebook); scale codes of the group are chosen first. Of a trellis
   * its two tables, which all rows share. */
  gptvq_status (*codebooks)(struct gptvq_vq *q, size_t group, gptvq_error *err);
  /* The GPTVQ step for a batch of at most GPTVQ_BATCH columns of that group: q->index of its sub-vectors, the
   * best of q->beam partial assignments kept in each row, of a trellis for each prefix; q->error = their
   * scaled errors e′, with feedback among the batch's columns only; q->work of the batch is destroyed.
   * Without feedback q->error stays. */
  gptvq_status (*assign)(struct gptvq_vq *q, size_t group, gptvq_span batch, gptvq_error *err);
  /* Of stripes[0 … count): products[stripe × values] = the matrix of the stripe's codebook update times its
   * direction, directions[stripe × values], values = groups · k · dim: decoded, times H + ridge, gathered by
   * centroid. Destroys q->work and q->error. What an update by conjugate gradients spends its time with. */
  gptvq_status (*times_system)(const struct gptvq_vq *q, size_t count, const uint32_t *stripes,
                               const float *directions, double *products, gptvq_error *err);
  /* q's codebooks by conjugate gradients on the layer loss, assignments fixed; a stripe that is not better
   * when its codebooks are stored keeps what it had. Of a trellis its row scales, row by row. *loss:
   * afterwards. q->work and q->error are the gradient's afterwards if q->has_gradient says so, and destroyed
   * otherwise; so with `reassign` and `search`. */
  gptvq_status (*update)(struct gptvq_vq *q, double *loss, gptvq_error *err);
  /* One sweep of re-assignment, codebooks fixed: over single sub-vectors (not of a trellis), and over batches
   * of columns searched as a whole with q->beam partial assignments. *gain: decrease of the loss, >= 0. */
  gptvq_status (*reassign)(struct gptvq_vq *q, double *gain, gptvq_error *err);
  gptvq_status (*search)(struct gptvq_vq *q, double *gain, gptvq_error *err);
  /* out[rows] = x H xᵀ of each row of x[rows × padded], fp32 products with the factor's undamped H. backend:
   * the table itself. NULL: the host does it. */
  gptvq_status (*row_losses)(const gptvq_backend *backend, const struct gptvq_factor *factor, size_t rows,
                             const float *x, double *out, gptvq_error *err);
  /* map[rows × cols] = (map − share · weights H) (H + λ)⁻¹ with the factor's H and U, as
   * gptvq_mismatch_divide (calib/mismatch.h), whose arrays these are; weights NULL: nothing is taken.
   * backend: the table itself. NULL: the host does it. */
  gptvq_status (*divide)(const gptvq_backend *backend, const struct gptvq_factor *factor, size_t rows,
                         const float *weights, double share, float *map, gptvq_error *err);
  void *context; /* the backend's own */
};

extern const gptvq_backend gptvq_cpu_backend;

#endif
