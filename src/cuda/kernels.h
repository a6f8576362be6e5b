/* cuda/kernels.h: the kernels by name, and their arguments; kernels/NAME.cuh has each one's contract. Read by
 * C, by C++ and by nvcc: addresses are the device's, all structs have the same layout there (64-bit
 * addresses, natural alignment). */
#ifndef GPTVQ_CUDA_KERNELS_H
#define GPTVQ_CUDA_KERNELS_H

#include <stdint.h>

/* X(name): entry gptvq_kernel_NAME, which takes one struct gptvq_kernel_NAME_arguments by value. */
#define GPTVQ_CUDA_KERNELS(X) X(add_ridge) X(add_sums) X(round_bf16)

typedef enum gptvq_kernel {
#define GPTVQ_KERNEL_ID(name) GPTVQ_KERNEL_##name,
  GPTVQ_CUDA_KERNELS(GPTVQ_KERNEL_ID)
#undef GPTVQ_KERNEL_ID
      GPTVQ_KERNEL_COUNT
} gptvq_kernel;

/* y[rows × n] += ridge[n] · x[rows × n] */
typedef struct gptvq_kernel_add_ridge_arguments {
  uint64_t rows, n;
  const float *ridge, *x;
  float *y;
} gptvq_kernel_add_ridge_arguments;

/* sums[rows × ld, the first `cols` columns] += product[rows × cols], in double */
typedef struct gptvq_kernel_add_sums_arguments {
  uint64_t rows, cols, ld;
  const float *product;
  double *sums;
} gptvq_kernel_add_sums_arguments;

/* The fp32 numbers of these bits rounded to the nearest bf16, ties to even; NaN stays NaN. */
typedef struct gptvq_kernel_round_bf16_arguments {
  uint64_t count;
  uint32_t *bits;
} gptvq_kernel_round_bf16_arguments;

#endif
