#define _GNU_SOURCE
#include "base/context.h"
#include "base/status.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name;
  gptvq_cpu_level level;
} names[] = {{"ref", GPTVQ_CPU_REF},
             {"avx2", GPTVQ_CPU_AVX2},
             {"avx512", GPTVQ_CPU_AVX512},
             {"neon", GPTVQ_CPU_NEON},
             {"dotprod", GPTVQ_CPU_DOTPROD}};
enum { NAMES = sizeof names / sizeof names[0] };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static gptvq_cpu_level best, initial;
static unsigned extras;

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

/* Linux saves the tile registers only of processes that asked for it; what was granted holds for all threads.
 */
static int tiles_permitted(void) {
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#else
static int tiles_permitted(void) { return 1; }
#endif

static uint64_t xcr0(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

/* CPUID says what the processor has, XCR0 which register files the operating system saves. */
static void detect(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return;
  if (!(c & bit_OSXSAVE) || !(c & bit_AVX) || !(c & bit_FMA) || !(c & bit_F16C)) return;
  uint64_t saved = xcr0();
  if ((saved & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return;
  best = GPTVQ_CPU_AVX2;
  const unsigned wide = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
  if ((saved & 0xe6) != 0xe6 || (b & wide) != wide || !(c & bit_AVX512VBMI) || !(c & bit_AVX512VNNI)) return;
  best = GPTVQ_CPU_AVX512;
  unsigned edx7 = d;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5))) extras |= GPTVQ_CPU_HAS_AVX512_BF16;
  const unsigned amx = 1u << 24 | 1u << 25; /* AMX-TILE, AMX-INT8 */
  if ((saved & 0x60000) == 0x60000 && (edx7 & amx) == amx && tiles_permitted()) extras |= GPTVQ_CPU_HAS_AMX;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1ul << 20)
#endif
static void detect(void) { best = getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? GPTVQ_CPU_DOTPROD : GPTVQ_CPU_NEON; }
#else
static void detect(void) {}
#endif

/* On an x86-64 machine the levels are ref < avx2 < avx512, on aarch64 ref < neon < dotprod. */
static int available(gptvq_cpu_level level) {
  if (level == GPTVQ_CPU_REF) return 1;
  int arm = best >= GPTVQ_CPU_NEON;
  return (level >= GPTVQ_CPU_NEON) == arm && level <= best;
}

static void initialise(void) {
  detect();
  initial = best;
  const char *wish = getenv("GPTVQ_CPU");
  for (int i = 0; wish != NULL && i < NAMES; i++)
    if (strcmp(wish, names[i].name) == 0 && available(names[i].level)) initial = names[i].level;
  gptvq_context_of(NULL)->cpu = initial;
}

gptvq_cpu_level gptvq_cpu_initial(void) {
  pthread_once(&once, initialise);
  return initial;
}

gptvq_cpu_level gptvq_cpu(void) {
  pthread_once(&once, initialise);
  return gptvq_context_current()->cpu;
}

unsigned gptvq_cpu_extras(void) { return gptvq_cpu() == best ? extras : 0; }

gptvq_status gptvq_context_set_cpu(gptvq_context *context, const char *level, gptvq_error *err) {
  pthread_once(&once, initialise);
  context = gptvq_context_of(context);
  if (level == NULL || strcmp(level, "auto") == 0) {
    context->cpu = best;
    return GPTVQ_OK;
  }
  for (int i = 0; i < NAMES; i++) {
    if (strcmp(level, names[i].name) != 0) continue;
    if (!available(names[i].level))
      return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "this machine has no CPU level %s; its best is %s",
                        level, names[best].name);
    context->cpu = names[i].level;
    return GPTVQ_OK;
  }
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                    "unknown CPU level %s; known: ref, avx2, avx512, neon, dotprod, auto", level);
}

const char *gptvq_context_get_cpu(gptvq_context *context) {
  pthread_once(&once, initialise);
  return names[gptvq_context_of(context)->cpu].name;
}

gptvq_status gptvq_set_cpu(const char *level, gptvq_error *err) {
  return gptvq_context_set_cpu(NULL, level, err);
}
const char *gptvq_get_cpu(void) { return gptvq_context_get_cpu(NULL); }
