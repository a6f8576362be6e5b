/* kernels/arm/arm.h: what each aarch64 file adds to the table of its level. */
#ifndef GPTVQ_KERNELS_ARM_H
#define GPTVQ_KERNELS_ARM_H

#include "kernels/table.h"

void gptvq_kernels_init_dense_neon(gptvq_kernel_table *table);
void gptvq_kernels_init_i8_neon(gptvq_kernel_table *table);
void gptvq_kernels_init_i8_dotprod(gptvq_kernel_table *table);
void gptvq_kernels_init_trellis_neon(gptvq_kernel_table *table);
void gptvq_kernels_init_trellis_dotprod(gptvq_kernel_table *table);

#endif
