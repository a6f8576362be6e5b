/* All kernels: one translation unit for each of the two compilers. */
#include "cuda/kernels/add_ridge.cuh"
#include "cuda/kernels/assign.cuh"
#include "cuda/kernels/em.cuh"
#include "cuda/kernels/sums.cuh"
