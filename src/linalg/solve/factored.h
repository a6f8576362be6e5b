/* linalg/solve/factored.h: a Hessian and its damped inverse, as the solver has them.
 *
 * Rows and columns stand in another order (processing order), perhaps with phantoms among them:
 * H = h / scale, (H + λ)⁻¹ = scale · Uᵀ U. */
#ifndef GPTVQ_LINALG_FACTORED_H
#define GPTVQ_LINALG_FACTORED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Borrowed arrays. */
typedef struct gptvq_factored {
  size_t cols, padded; /* of the Hessian; of h and U */
  const uint32_t
      *order;         /* [padded] the Hessian's column, or UINT32_MAX: a phantom, whose rows in h are zero */
  const float *h, *u; /* [padded²] each; u upper triangular, zeros below */
  double scale;
  bool diagonal; /* there was no factor: U is diagonal */
} gptvq_factored;

#endif
