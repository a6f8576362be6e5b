/* linalg/solve/backend.h: the products and the factorisation behind Hessians and mismatches, as a table that
 * a backend may override (quant/layer/backend.h holds it, with the solver's functions). The CPU's are the
 * definition.
 *
 * All arrays are in host memory, row-major, the caller's before and after (but where a device has lent rows
 * of its own, the address that stands for them: cuda/linalg.h); strides and counts in elements; outputs alias
 * no inputs. A function may use all threads, and is called from one thread at a time. Results depend on how
 * rows are cut into calls, not on the number of threads. Errors: GPTVQ_ERROR_MEMORY, or GPTVQ_ERROR_INTERNAL
 * where the backend fails; outputs are then unspecified. Each function is given the table that it was taken
 * from. */
#ifndef GPTVQ_LINALG_SOLVE_BACKEND_H
#define GPTVQ_LINALG_SOLVE_BACKEND_H

#include "base/status.h"
#include "linalg/solve/sum.h"

#include <stdbool.h>

typedef struct gptvq_linalg gptvq_linalg;
struct gptvq_linalg {
  /* H[c × c] += Xᵀ X, upper triangle, for X[n × ldx] (ldx >= c): products in fp32 over `chunk` rows, their
   * sums in double. The backend may keep the sums until they are settled; those of cross, too. */
  gptvq_status (*gram)(const gptvq_linalg *linalg, size_t c, size_t n, size_t chunk, const float *x,
                       size_t ldx, double *h, gptvq_error *err);
  /* S[m × c] += Yᵀ X for Y[n × ldy], X[n × ldx], likewise. */
  gptvq_status (*cross)(const gptvq_linalg *linalg, size_t m, size_t c, size_t n, size_t chunk,
                        const float *y, size_t ldy, const float *x, size_t ldx, double *sums,
                        gptvq_error *err);
  /* The lower triangle of the symmetric a[n × n] becomes L⁻¹, A = L Lᵀ, double; what stands above the
   * diagonal is not read, and kept outside of the diagonal blocks of GPTVQ_CHOLESKY_BLOCK columns. *done
   * false: A is not positive definite, and destroyed. scratch: gptvq_invert_lower's. */
  gptvq_status (*inverse_factor)(const gptvq_linalg *linalg, size_t n, double *a, double *scratch, bool *done,
                                 gptvq_error *err);
  /* A group of tokens ends (gptvq_sum_fold) whose sums were added to sum->part. The backend may keep the
   * total, too, until the part is settled. */
  gptvq_status (*fold)(const gptvq_linalg *linalg, const gptvq_sum *sum, gptvq_error *err);
  /* A group ends that others add up: what is kept of these sums is added to them, as precisely as fp32 is. */
  gptvq_status (*hand_over)(const gptvq_linalg *linalg, double *sums, gptvq_error *err);
  /* Adds what is kept of these sums to them, and of their total to that: before they are read. */
  gptvq_status (*settle)(const gptvq_linalg *linalg, double *sums, gptvq_error *err);
  /* Nothing is kept any more of the sums, or the map, at this address: before their memory is given back. */
  void (*forget)(const gptvq_linalg *linalg, const void *host);
  /* What a device that has inputs itself adds, so that they need not come to the host; both NULL: the host
   * does it. remember: the backend keeps a copy of x[n × ldx], c columns, in place of the one before.
   * cross_change: S[c × c] += (X₀ − X)ᵀ X, where X₀ are the n rows remembered last, as cross. */
  gptvq_status (*remember)(const gptvq_linalg *linalg, size_t c, size_t n, const float *x, size_t ldx,
                           gptvq_error *err);
  gptvq_status (*cross_change)(const gptvq_linalg *linalg, size_t c, size_t n, size_t chunk, const float *x,
                               size_t ldx, double *sums, gptvq_error *err);
  /* w[rows × n] += alpha · (w map) for map[n × n], of which the backend may keep a copy. NULL: whoever asks
   * does it himself. */
  gptvq_status (*add_mapped)(const gptvq_linalg *linalg, size_t rows, size_t n, double alpha,
                             const float *map, float *w, gptvq_error *err);
  void *context; /* the backend's own */
};

extern const gptvq_linalg gptvq_cpu_linalg;
/* The same with inputs of products rounded to bf16, whatever `chunk`; where there are bf16 instructions
 * (gptvq_gemm_bf16_available). */
extern const gptvq_linalg gptvq_cpu_linalg_bf16;
/* Bytes that its products take beside their arguments. */
size_t gptvq_cpu_linalg_bf16_bytes(size_t m, size_t c, size_t n);

#endif
