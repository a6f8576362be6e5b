/* The levels of functions that are compiled once for each (base/multi.h): LEVEL(what the processor needs,
 * how names end), in a row. */
#ifndef LEVELS_H
#define LEVELS_H

#include "base/cpu.h"

#if defined(__x86_64__)
#define EACH_LEVEL(LEVEL) LEVEL(0, base), LEVEL(GPTVQ_CPU_AVX2, avx2), LEVEL(GPTVQ_CPU_AVX512, avx512)
#else
#define EACH_LEVEL(LEVEL) LEVEL(0, base)
#endif

#endif
