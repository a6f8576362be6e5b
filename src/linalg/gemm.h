/* linalg/gemm.h: threaded matrix products over a single-threaded BLAS.
 * The work is cut into fixed tiles, one BLAS call each, so results do not depend on the number of threads.
 * Row-major; strides in elements; outputs must not alias inputs. */
#ifndef GPTVQ_LINALG_GEMM_H
#define GPTVQ_LINALG_GEMM_H

#include <gptvq/status.h>
#include <stdbool.h>
#include <stddef.h>

/* C[m × n] = alpha · A[m × k] · B[n × k]ᵀ + beta · C */
void gptvq_gemm_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                   size_t ldb, float beta, float *c, size_t ldc);
/* C[m × n] = alpha · A[m × k] · B[k × n] + beta · C */
void gptvq_gemm_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                   size_t ldb, float beta, float *c, size_t ldc);
/* The same two as one BLAS call on the calling thread: for use inside tasks. */
void gptvq_gemm_serial_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                          const float *b, size_t ldb, float beta, float *c, size_t ldc);
void gptvq_gemm_serial_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                          const float *b, size_t ldb, float beta, float *c, size_t ldc);
/* C[m × n] = alpha · A[k × m]ᵀ · B[k × n] + beta · C */
void gptvq_gemm_tn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                   size_t ldb, float beta, float *c, size_t ldc);
/* C[m × n] = A[m × n] · Uᵀ and A[m × n] · U for an upper triangle U[n × n]: what stands below the diagonal is
 * zero. About half of the work of the products above. */
void gptvq_gemm_nt_upper(size_t m, size_t n, const float *a, size_t lda, const float *u, size_t ldu, float *c,
                         size_t ldc);
void gptvq_gemm_nn_upper(size_t m, size_t n, const float *a, size_t lda, const float *u, size_t ldu, float *c,
                         size_t ldc);
/* H[c × c] += Xᵀ X for X[n × c], upper triangle: products in fp32 over `chunk` rows at a time (few enough
 * that fp32 sums are fine), added in double one chunk after the other. */
void gptvq_gram_update(size_t c, size_t n, size_t chunk, const float *x, size_t ldx, double *h);
/* S[m × c] += Yᵀ X for Y[n × m], X[n × c], likewise. */
void gptvq_cross_update(size_t m, size_t c, size_t n, size_t chunk, const float *y, size_t ldy,
                        const float *x, size_t ldx, double *sums);

/* OpenBLAS uses one thread from now on, as all functions here need (and see to): before any other BLAS or
 * LAPACK call. */
void gptvq_blas_one_thread(void);
/* The processor that OpenBLAS's kernels are for. Static storage. */
const char *gptvq_blas_core(void);
/* One thread as well, and OpenBLAS's buffers, one for each of our threads, are there from now on: to be
 * called before work that needs products, which cannot report GPTVQ_ERROR_MEMORY themselves. Cheap when it is
 * so already.
 */
gptvq_status gptvq_blas_init(gptvq_error *err);

#endif
