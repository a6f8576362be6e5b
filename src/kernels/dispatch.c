#include "kernels/multi/row_values.h"
#include "kernels/rows.h"
#include "kernels/table.h"
#if defined(__x86_64__)
#include "kernels/x86/x86.h"
#elif defined(__aarch64__)
#include "kernels/arm/arm.h"
#endif

#include <pthread.h>

enum { LEVELS = GPTVQ_CPU_DOTPROD + 1 };
static gptvq_kernel_table tables[LEVELS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Every level starts from the one below it; tables of levels that this build does not have are never chosen.
 */
static void fill(void) {
  for (int level = 0; level < LEVELS; level++) {
    gptvq_kernel_table *table = &tables[level];
    gptvq_kernels_init_ref(table);
    if (level == GPTVQ_CPU_REF) {
      table->gemm_pack = gptvq_gemm_pack_ref;
      table->gemm_block = gptvq_gemm_block_ref;
      continue;
    }
    table->packed_decode = gptvq_rows_decode;
    table->packed_matvec = gptvq_rows_matvec;
#if defined(__x86_64__)
    if (level > GPTVQ_CPU_AVX512) continue;
    gptvq_kernels_init_dense_avx2(table);
    gptvq_kernels_init_codes_avx2(table);
    gptvq_kernels_init_gemm_avx2(table);
    gptvq_kernels_init_i8_avx2(table);
    gptvq_kernels_init_uniform_avx2(table);
    if (level < GPTVQ_CPU_AVX512) continue;
    gptvq_kernels_init_dense_avx512(table);
    gptvq_kernels_init_codes_avx512(table);
    gptvq_kernels_init_i8_avx512(table);
    gptvq_kernels_init_stripe_avx512(table);
    gptvq_kernels_init_uniform_avx512(table);
    gptvq_kernels_init_gemm_avx512(table);
#elif defined(__aarch64__)
    if (level < GPTVQ_CPU_NEON) continue;
    gptvq_kernels_init_dense_neon(table);
    gptvq_kernels_init_i8_neon(table);
    if (level < GPTVQ_CPU_DOTPROD) continue;
    gptvq_kernels_init_i8_dotprod(table);
#else
    table->tile_codes = gptvq_tile_codes_base;
#endif
  }
}

const gptvq_kernel_table *gptvq_kernels(gptvq_cpu_level level) {
  pthread_once(&once, fill);
  return &tables[level];
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
