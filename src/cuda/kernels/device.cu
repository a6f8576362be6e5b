/* The kernels, compiled by nvcc. */
#include "cuda/kernels/all.cuh"
