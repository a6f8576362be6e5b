/* All kernels: one translation unit for each of the two compilers. */
#include "cuda/kernels/add_ridge.cuh"
#include "cuda/kernels/assign.cuh"
#include "cuda/kernels/decode.cuh"
#include "cuda/kernels/em.cuh"
#include "cuda/kernels/path.cuh"
#include "cuda/kernels/reassign.cuh"
#include "cuda/kernels/search.cuh"
#include "cuda/kernels/sums.cuh"
