/* kernels/x86/x86.h: what each x86-64 file adds to the table of its level, and what they share. */
#ifndef GPTVQ_KERNELS_X86_H
#define GPTVQ_KERNELS_X86_H

#include "kernels/table.h"

#define GPTVQ_INLINE static inline __attribute__((always_inline))
/* What is computed up to here is computed before what follows: gcc would otherwise make all products first
 * and run out of registers. */
#define GPTVQ_KEEP(v) __asm__ volatile("" : "+v"(v))

void gptvq_kernels_init_dense_avx2(gptvq_kernel_table *table);
void gptvq_kernels_init_dense_avx512(gptvq_kernel_table *table);
void gptvq_kernels_init_i8_avx2(gptvq_kernel_table *table);
void gptvq_kernels_init_codes_avx2(gptvq_kernel_table *table);
void gptvq_kernels_init_gemm_avx2(gptvq_kernel_table *table);
void gptvq_kernels_init_stripe_avx512(gptvq_kernel_table *table);
void gptvq_kernels_init_gemm_avx512(gptvq_kernel_table *table);
void gptvq_kernels_init_tiles_amx(gptvq_kernel_table *table);
void gptvq_kernels_init_trellis_avx2(gptvq_kernel_table *table);
void gptvq_kernels_init_trellis_avx512(gptvq_kernel_table *table);
void gptvq_kernels_init_uniform_avx2(gptvq_kernel_table *table);
void gptvq_kernels_init_uniform_avx512(gptvq_kernel_table *table);
void gptvq_kernels_init_codes_avx512(gptvq_kernel_table *table);
void gptvq_kernels_init_i8_avx512(gptvq_kernel_table *table);

#endif
