/* base/vector.h: vectors of the width of the CPU level that a file of a multi/ folder is compiled for. The
 * compiler keeps them in registers, which it does not manage from plain loops. For such files alone. */
#ifndef GPTVQ_BASE_VECTOR_H
#define GPTVQ_BASE_VECTOR_H

#include <stdint.h>

#if defined(__AVX512F__)
enum { V = 16 };
#elif defined(__AVX2__)
enum { V = 8 };
#else
enum { V = 4 };
#endif
typedef float vfloat __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef int32_t vint __attribute__((vector_size(4 * V), aligned(4), may_alias));

#define LOAD(p) (*(const vfloat *)(const void *)(p))
#define BLEND(mask, yes, no) (((mask) & (yes)) | (~(mask) & (no)))

#endif
