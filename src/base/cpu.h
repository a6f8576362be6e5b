/* base/cpu.h: what this processor and its operating system can run, and what kernels may use of it. */
#ifndef GPTVQ_BASE_CPU_H
#define GPTVQ_BASE_CPU_H

#include "base/status.h"

/* A set of features, bit by bit. Each is what one kind of kernel is compiled for. */
typedef unsigned gptvq_cpu_features;
enum {
  GPTVQ_CPU_AVX2 = 1,        /* x86-64: AVX2, FMA, F16C */
  GPTVQ_CPU_AVX512 = 2,      /* x86-64: AVX-512 F, BW, DQ, VL, VBMI, VNNI */
  GPTVQ_CPU_AVX512_BF16 = 4, /* x86-64 */
  GPTVQ_CPU_AMX = 8,         /* x86-64: AMX-TILE, AMX-INT8, AMX-BF16, permitted to this process */
  GPTVQ_CPU_NEON = 16,       /* every aarch64 */
  GPTVQ_CPU_DOTPROD = 32,    /* aarch64: SDOT, UDOT */
  GPTVQ_CPU_ALL = 63
};

/* The features in force: all of this machine, lowered by GPTVQ_CPU or gptvq_set_cpu. Nothing else reads what
 * those have set; what depends on features takes them as an argument. */
gptvq_cpu_features gptvq_cpu(void);

/* The features of this machine that the level of that name uses ("auto": all of them).
 * GPTVQ_ERROR_UNSUPPORTED when it lacks one that the level needs, GPTVQ_ERROR_ARGUMENT for unknown names. */
gptvq_status gptvq_cpu_level(const char *name, gptvq_cpu_features *features, gptvq_error *err);
/* The highest level that these features are enough for. */
const char *gptvq_cpu_level_name(gptvq_cpu_features features);

#endif
