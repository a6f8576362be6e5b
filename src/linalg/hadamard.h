/* linalg/hadamard.h: randomised Hadamard rotations of any size.
 *
 * n = p · m, p a power of two and m odd: Q = D (H_p ⊗ C_m) / sqrt(p), with D a diagonal of random signs, H_p
 * the Hadamard matrix in Sylvester's order and C_m the Hartley matrix cas(2π j k / m) / sqrt(m), cas = cos +
 * sin, symmetric and orthogonal for every m (for m = 1 it is 1). All entries of Q are at most sqrt(2 / n),
 * for powers of two exactly ± 1 / sqrt(n). */
#ifndef GPTVQ_LINALG_HADAMARD_H
#define GPTVQ_LINALG_HADAMARD_H

#include "base/status.h"

enum { GPTVQ_ROTATION_ODD_MAX = 4095 }; /* C_m is held in memory and takes m products per value */

typedef struct gptvq_rotation {
  size_t n, power, odd;
  double *signs;   /* [n] ± 1 / sqrt(power), owned */
  double *hartley; /* [odd × odd], in the same allocation */
} gptvq_rotation;

/* Signs from `seed`. GPTVQ_ERROR_UNSUPPORTED: n is 0 or its odd part above GPTVQ_ROTATION_ODD_MAX; `what`
 * names the size in the message. GPTVQ_ERROR_MEMORY. The caller releases. */
gptvq_status gptvq_rotation_init(gptvq_rotation *rotation, size_t n, uint64_t seed, const char *what,
                                 gptvq_error *err);
void gptvq_rotation_release(gptvq_rotation *rotation);

/* x ← x Q for the row vector x[n], which is Qᵀ x for the column; scratch[n]. In double: n (log₂ p + m)
 * operations. */
void gptvq_rotation_apply(const gptvq_rotation *rotation, double *x, double *scratch);

#endif
