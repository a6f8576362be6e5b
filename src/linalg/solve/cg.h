/* linalg/solve/cg.h: preconditioned conjugate gradients for the quadratics that the layer loss is in its
 * codebooks (update.c) and in the factors of its codebooks (compress.c). Several independent systems advance
 * in step, so that they share the products with the Hessian. */
#ifndef GPTVQ_LINALG_SOLVE_CG_H
#define GPTVQ_LINALG_SOLVE_CG_H

#include "base/arena.h"

typedef struct gptvq_cg gptvq_cg;
struct gptvq_cg {
  /* set by the caller */
  size_t systems, values; /* independent systems; unknowns of each, a multiple of block */
  size_t block;           /* size of the diagonal blocks that the preconditioner inverts */
  /* out[values] = the product of one system's matrix with its direction, as the caller has prepared it; any
   * thread. NULL: the caller has put the products into `product`. */
  void (*gather)(const gptvq_cg *s, size_t system, double *out);
  const void *context;
  /* gptvq_cg_take; solution, residual (minus the gradient at the solution), blocks (lower triangles) and
   * enough are filled in by the caller */
  double *solution, *residual, *product; /* [systems × values] */
  float *direction;                      /* [systems × values] */
  double *blocks;                        /* [systems][values / block][block²] */
  double *enough; /* [systems] likewise: a system is finished when the gain that its residual promises, r M⁻¹
                     r, is not above this */
  double *rz;     /* [systems] that gain; 0: finished */
  uint32_t *active; /* [active_count] systems that are not finished */
  size_t active_count;
};

/* The arrays above, from the arena. */
void gptvq_cg_take(gptvq_cg *s, gptvq_arena *arena);
/* Factors the blocks and makes the first directions. */
void gptvq_cg_begin(gptvq_cg *s);
/* While systems are active the caller prepares the products with their directions, or what gather needs of
 * them (what these change in the layer's values, times H), and calls this. */
void gptvq_cg_step(gptvq_cg *s);

#endif
