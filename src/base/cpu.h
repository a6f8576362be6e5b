/* base/cpu.h: what this processor and its operating system can run, and the level that kernels may use. */
#ifndef GPTVQ_BASE_CPU_H
#define GPTVQ_BASE_CPU_H

/* Levels are cumulative on each architecture. AVX512 means F, BW, DQ, VL, VBMI and VNNI together. */
typedef enum gptvq_cpu_level {
  GPTVQ_CPU_REF = 0,
  GPTVQ_CPU_AVX2,   /* x86-64: AVX2, FMA, F16C */
  GPTVQ_CPU_AVX512, /* x86-64: + AVX-512 F/BW/DQ/VL/VBMI/VNNI */
  GPTVQ_CPU_NEON,   /* aarch64 baseline */
  GPTVQ_CPU_DOTPROD /* aarch64: + SDOT/UDOT */
} gptvq_cpu_level;

/* Bits beside the level. */
enum { GPTVQ_CPU_HAS_AVX512_BF16 = 1, GPTVQ_CPU_HAS_AMX = 2 };

/* The level in force: the best one of this machine, lowered by GPTVQ_CPU or gptvq_set_cpu. */
gptvq_cpu_level gptvq_cpu(void);
unsigned gptvq_cpu_extras(void);

#endif
