/* linalg/sums.h: sums over tokens in double, of products that are made in chunks: what Gram products in fp32
 * (gemm.c) and in bf16 (sums_bf16.c) share. */
#ifndef GPTVQ_LINALG_SUMS_H
#define GPTVQ_LINALG_SUMS_H

#include <stdbool.h>
#include <stddef.h>

/* Rows and columns of a tile of the sums at most. */
enum { GPTVQ_SUMS_TILE = 256 };

typedef struct gptvq_sums {
  size_t m, n, tokens;
  size_t chunk, tile; /* tokens whose products are added up in fp32; <= GPTVQ_SUMS_TILE */
  size_t size;        /* bytes of a number of a and b */
  const void *a, *b;  /* [tokens × lda], [tokens × ldb] */
  size_t lda, ldb;
  bool upper; /* m = n: only the upper triangle */
  /* product[m × n, rows of GPTVQ_SUMS_TILE] = Aᵀ B of k tokens; with `upper` only the upper triangle counts.
   * On any thread. */
  void (*multiply)(bool upper, size_t m, size_t n, size_t k, const void *a, size_t lda, const void *b,
                   size_t ldb, float *product);
  void (*add)(size_t n, const float *x, double *sums); /* sums[n] += x */
  double *sums;                                        /* [m × n] */
} gptvq_sums;

/* The plain `add`. */
void gptvq_add_in_double(size_t n, const float *x, double *sums);
/* sums += Aᵀ B. Threaded; tiles and chunks are those of the shape: the same bits for any number of threads.
 */
void gptvq_sums_add(const gptvq_sums *sums);

#endif
