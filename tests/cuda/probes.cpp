/* Kernels that show what the shim does with threads, shared memory and mistakes. */
#include "probes.h"
#include "cuda/shim/cuda.h"

static const probe &of(const void *arguments) { return *static_cast<const probe *>(arguments); }

/* out[block · threads + thread] = sum over the block of thread numbers and the block's, through shared memory
 * that others fill. */
void probe_barrier(const void *arguments) {
  const probe &a = of(arguments);
  int *shared = static_cast<int *>(gptvq_shim_dynamic());
  GPTVQ_SHARED(int, total, 1);
  shared[threadIdx.x] = (int)(threadIdx.x + blockIdx.x + 10 * blockIdx.y);
  __syncthreads();
  if (threadIdx.x == blockDim.x - 1) {
    total[0] = 0;
    for (unsigned i = 0; i < blockDim.x; i++) total[0] += shared[i];
  }
  __syncthreads();
  a.out[(blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x] = total[0];
}

/* The same without the second barrier. */
void probe_no_barrier(const void *arguments) {
  const probe &a = of(arguments);
  GPTVQ_SHARED(int, total, 1);
  if (threadIdx.x == blockDim.x - 1) total[0] = 7;
  a.out[threadIdx.x] = total[0];
}

void probe_warp(const void *arguments) {
  const probe &a = of(arguments);
  const unsigned lane = threadIdx.x % 32, all = 0xffffffffu;
  int *out = a.out + threadIdx.x * PROBE_WARP_VALUES;
  out[0] = __shfl_sync(all, (int)threadIdx.x, 5);
  out[1] = __shfl_up_sync(all, (int)threadIdx.x, 1);
  out[2] = __shfl_down_sync(all, (int)threadIdx.x, 3);
  out[3] = __shfl_xor_sync(all, (int)threadIdx.x, 16);
  out[4] = (int)__ballot_sync(all, lane % 3 == 0);
  out[5] = __any_sync(all, threadIdx.x == 33);
  out[6] = __all_sync(all, threadIdx.x < 32);
  const double third = __shfl_sync(all, 1.0 / (1.0 + threadIdx.x), 2);
  out[7] = third == 1.0 / (3.0 + threadIdx.x / 32 * 32);
}

void probe_divergent(const void *) {
  if (threadIdx.x < 40) __syncthreads();
  else __syncthreads();
}
void probe_missing(const void *) {
  if (threadIdx.x != 3 || blockIdx.x < 2) __syncthreads();
}
void probe_warp_divergent(const void *) {
  if (threadIdx.x % 32 < 7) (void)__ballot_sync(0xffffffffu, true);
}
void probe_some_lanes(const void *) { (void)__shfl_sync(0xffu, 1, 0); }

void probe_beyond(const void *arguments) { of(arguments).out[blockDim.x + threadIdx.x] = 1; }
void probe_beyond_shared(const void *arguments) {
  GPTVQ_SHARED(int, few, 16);
  int *at = few; /* UBSan would find an array's index first */
  at[threadIdx.x] = 1;
  of(arguments).out[threadIdx.x] = few[0];
}
