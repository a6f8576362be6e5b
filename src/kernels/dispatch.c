#include "kernels/rows.h"
#include "kernels/table.h"
#if defined(__x86_64__)
#include "kernels/x86/x86.h"
#elif defined(__aarch64__)
#include "kernels/arm/arm.h"
#endif

#include <pthread.h>

/* What fills the table, in this order, where all the features that it needs are there: later rows overwrite
 * earlier ones. */
static const struct {
  gptvq_cpu_features needs;
  void (*fill)(gptvq_kernel_table *table);
} rows[] = {
    {0, gptvq_kernels_init_ref},
#if defined(__x86_64__)
    {GPTVQ_CPU_AVX2, gptvq_kernels_init_rows},
    {GPTVQ_CPU_AVX2, gptvq_kernels_init_dense_avx2},
    {GPTVQ_CPU_AVX2, gptvq_kernels_init_codes_avx2},
    {GPTVQ_CPU_AVX2, gptvq_kernels_init_gemm_avx2},
    {GPTVQ_CPU_AVX2, gptvq_kernels_init_i8_avx2},
    {GPTVQ_CPU_AVX2, gptvq_kernels_init_trellis_avx2},
    {GPTVQ_CPU_AVX2, gptvq_kernels_init_uniform_avx2},
    {GPTVQ_CPU_AVX512, gptvq_kernels_init_dense_avx512},
    {GPTVQ_CPU_AVX512, gptvq_kernels_init_codes_avx512},
    {GPTVQ_CPU_AVX512, gptvq_kernels_init_i8_avx512},
    {GPTVQ_CPU_AVX512, gptvq_kernels_init_stripe_avx512},
    {GPTVQ_CPU_AVX512, gptvq_kernels_init_trellis_avx512},
    {GPTVQ_CPU_AVX512, gptvq_kernels_init_uniform_avx512},
    {GPTVQ_CPU_AVX512, gptvq_kernels_init_gemm_avx512},
#if defined(GPTVQ_HAVE_AMX)
    {GPTVQ_CPU_AVX512 | GPTVQ_CPU_AMX, gptvq_kernels_init_tiles_amx},
#endif
#elif defined(__aarch64__)
    {GPTVQ_CPU_NEON, gptvq_kernels_init_rows},
    {GPTVQ_CPU_NEON, gptvq_kernels_init_dense_neon},
    {GPTVQ_CPU_NEON, gptvq_kernels_init_i8_neon},
    {GPTVQ_CPU_NEON, gptvq_kernels_init_trellis_neon},
    {GPTVQ_CPU_DOTPROD, gptvq_kernels_init_i8_dotprod},
    {GPTVQ_CPU_DOTPROD, gptvq_kernels_init_trellis_dotprod},
#endif
};

/* One for every set of features: few enough. */
enum { SETS = GPTVQ_CPU_ALL + 1 };
static gptvq_kernel_table tables[SETS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill(void) {
  for (gptvq_cpu_features features = 0; features < SETS; features++)
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
      if ((features & rows[i].needs) == rows[i].needs) rows[i].fill(&tables[features]);
}

const gptvq_kernel_table *gptvq_kernels(gptvq_cpu_features features) {
  pthread_once(&once, fill);
  return &tables[features];
}

void gptvq_to_float(gptvq_dtype dtype, const void *in, size_t n, float *out) {
  gptvq_kernels(gptvq_cpu())->to_float[dtype](in, n, out);
}

void gptvq_dense_matvec(gptvq_dtype dtype, const void *weights, size_t cols, size_t begin, size_t end,
                        const float *x, float *y) {
  const char *first = (const char *)weights + begin * cols * gptvq_dtype_size(dtype);
  gptvq_kernels(gptvq_cpu())->dense_matvec[dtype](first, end - begin, cols, x, y);
}

void gptvq_packed_decode(const gptvq_packed *packed, size_t begin, size_t end, float *out, size_t stride) {
  gptvq_kernels(gptvq_cpu())->packed_decode(packed, begin, end, out, stride);
}

void gptvq_packed_matvec(const gptvq_packed *packed, size_t begin, size_t end, const float *x, float *y) {
  gptvq_kernels(gptvq_cpu())->packed_matvec(packed, begin, end, x, y);
}

uint64_t gptvq_int8_peak(uint64_t times) {
  uint64_t (*const peak)(uint64_t) = gptvq_kernels(gptvq_cpu())->i8_peak;
  return peak == NULL ? 0 : peak(times);
}
