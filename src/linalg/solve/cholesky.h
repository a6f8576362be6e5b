/* linalg/solve/cholesky.h: threaded blocked Cholesky factorisation and inverse of a triangle, double,
 * row-major, in place. Fixed tiles: the same bits for any number of threads. */
#ifndef GPTVQ_LINALG_SOLVE_CHOLESKY_H
#define GPTVQ_LINALG_SOLVE_CHOLESKY_H

#include <stdbool.h>
#include <stddef.h>

/* Lower triangle of the symmetric a[n × n] becomes L, A = L Lᵀ; the upper triangle is neither read nor kept.
 * false: not positive definite (a is then destroyed). */
bool gptvq_cholesky(size_t n, double *a);

/* Lower triangle L of a[n × n] becomes L⁻¹. scratch: GPTVQ_CHOLESKY_BLOCK · n doubles. */
enum { GPTVQ_CHOLESKY_BLOCK = 128 };
void gptvq_invert_lower(size_t n, double *a, double *scratch);

/* Solves A x = b for the symmetric a[n × n], whose lower triangle is read and destroyed, on the calling
 * thread; x takes the place of b[n]. false: not positive definite, b is unspecified. */
bool gptvq_solve_positive(size_t n, double *a, double *b);

#endif
