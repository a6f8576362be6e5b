/* kernels/x86/x86.h: what each x86-64 file adds to the table of its level. */
#ifndef GPTVQ_KERNELS_X86_H
#define GPTVQ_KERNELS_X86_H

#include "kernels/table.h"

void gptvq_kernels_init_dense_avx2(gptvq_kernel_table *table);
void gptvq_kernels_init_dense_avx512(gptvq_kernel_table *table);
void gptvq_kernels_init_i8_avx2(gptvq_kernel_table *table);
void gptvq_kernels_init_codes_avx2(gptvq_kernel_table *table);
void gptvq_kernels_init_gemm_avx2(gptvq_kernel_table *table);
void gptvq_kernels_init_stripe_avx512(gptvq_kernel_table *table);
void gptvq_kernels_init_gemm_avx512(gptvq_kernel_table *table);
void gptvq_kernels_init_uniform_avx2(gptvq_kernel_table *table);
void gptvq_kernels_init_uniform_avx512(gptvq_kernel_table *table);
void gptvq_kernels_init_codes_avx512(gptvq_kernel_table *table);
void gptvq_kernels_init_i8_avx512(gptvq_kernel_table *table);

#endif
