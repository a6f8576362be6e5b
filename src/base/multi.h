/* base/multi.h: portable C compiled once per CPU level.
 *
 * Every .c file in a folder named multi/ is compiled for each level of the architecture (baseline, AVX2,
 * AVX-512) with its own flags and no fast-math: the same source, the same results bit for bit, wider vectors.
 * Functions are named GPTVQ_MULTI(name) = name_base, name_avx2, name_avx512; GPTVQ_MULTI_DECLARE declares all
 * three, GPTVQ_MULTI_PICK takes the best one for gptvq_cpu(). No FMA contraction (ISO C mode), so levels
 * agree exactly. */
#ifndef GPTVQ_BASE_MULTI_H
#define GPTVQ_BASE_MULTI_H

#include "base/cpu.h"

#define GPTVQ_MULTI_JOIN2(name, level) name##_##level
#define GPTVQ_MULTI_JOIN(name, level) GPTVQ_MULTI_JOIN2(name, level)
#ifdef GPTVQ_MULTI_LEVEL
#define GPTVQ_MULTI(name) GPTVQ_MULTI_JOIN(name, GPTVQ_MULTI_LEVEL)
#endif

#if defined(__x86_64__)
#define GPTVQ_MULTI_DECLARE(result, name, ...) \
  result name##_base(__VA_ARGS__); \
  result name##_avx2(__VA_ARGS__); \
  result name##_avx512(__VA_ARGS__)
#define GPTVQ_MULTI_FOR(name, features) \
  ((features)&GPTVQ_CPU_AVX512 ? name##_avx512 : (features)&GPTVQ_CPU_AVX2 ? name##_avx2 : name##_base)
#else
#define GPTVQ_MULTI_DECLARE(result, name, ...) result name##_base(__VA_ARGS__)
#define GPTVQ_MULTI_FOR(name, features) name##_base
#endif
#define GPTVQ_MULTI_PICK(name) GPTVQ_MULTI_FOR(name, gptvq_cpu())
#endif
