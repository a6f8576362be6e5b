/* The kernels, compiled for the host. */
#include "cuda/kernels/all.cuh"
#include "cuda/shim/run.h"

namespace {
#define CALL(name) \
  void call_##name(const void *arguments) { \
    gptvq_kernel_##name(*static_cast<const gptvq_kernel_##name##_arguments *>(arguments)); \
  }
GPTVQ_CUDA_KERNELS(CALL)
#undef CALL
} // namespace

extern "C" {
#define ADDRESS(name) call_##name,
const gptvq_shim_kernel gptvq_shim_kernels[] = {GPTVQ_CUDA_KERNELS(ADDRESS)};
#define NAME(name) #name,
const char *const gptvq_shim_kernel_names[] = {GPTVQ_CUDA_KERNELS(NAME)};
}
