#define _GNU_SOURCE
#include "base/context.h"
#include "base/status.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Levels: what users call a set of features. A level needs some, and uses others that belong to it where the
 * machine has them. */
enum { X86_WIDE = GPTVQ_CPU_AVX2 | GPTVQ_CPU_AVX512 };
static const struct {
  const char *name;
  gptvq_cpu_features needs, uses;
} levels[] = {{"ref", 0, 0},
              {"avx2", GPTVQ_CPU_AVX2, 0},
              {"avx512", X86_WIDE, GPTVQ_CPU_AVX512_BF16},
              {"amx", X86_WIDE | GPTVQ_CPU_AMX, GPTVQ_CPU_AVX512_BF16},
              {"neon", GPTVQ_CPU_NEON, 0},
              {"dotprod", GPTVQ_CPU_NEON | GPTVQ_CPU_DOTPROD, 0}};
enum { LEVELS = sizeof levels / sizeof levels[0] };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static gptvq_cpu_features machine, initial;

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
  machine = GPTVQ_CPU_AVX2;
  const unsigned wide = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
  if ((saved & 0xe6) != 0xe6 || (b & wide) != wide || !(c & bit_AVX512VBMI) || !(c & bit_AVX512VNNI)) return;
  machine |= GPTVQ_CPU_AVX512;
  unsigned edx7 = d;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5))) machine |= GPTVQ_CPU_AVX512_BF16;
  const unsigned amx = 1u << 24 | 1u << 25; /* AMX-TILE, AMX-INT8 */
  if ((saved & 0x60000) == 0x60000 && (edx7 & amx) == amx && tiles_permitted()) machine |= GPTVQ_CPU_AMX;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1ul << 20)
#endif
static void detect(void) {
  machine = GPTVQ_CPU_NEON;
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) machine |= GPTVQ_CPU_DOTPROD;
}
#else
static void detect(void) {}
#endif

static bool has_all(gptvq_cpu_features features, gptvq_cpu_features needed) {
  return (features & needed) == needed;
}

static size_t highest_level(gptvq_cpu_features features) {
  size_t level = LEVELS - 1;
  while (!has_all(features, levels[level].needs)) level--; /* the first needs nothing */
  return level;
}

static size_t find_level(const char *name) { /* LEVELS: none */
  size_t level = 0;
  while (level < LEVELS && strcmp(name, levels[level].name) != 0) level++;
  return level;
}

static gptvq_cpu_features features_of(size_t level) {
  return levels[level].needs | (machine & levels[level].uses);
}

static void initialise(void) {
  detect();
  const char *wish = getenv("GPTVQ_CPU");
  const size_t level = wish == NULL ? LEVELS : find_level(wish);
  initial = level < LEVELS && has_all(machine, levels[level].needs) ? features_of(level) : machine;
  gptvq_context_of(NULL)->cpu = initial;
}

gptvq_cpu_features gptvq_cpu_initial(void) {
  pthread_once(&once, initialise);
  return initial;
}

gptvq_cpu_features gptvq_cpu(void) {
  pthread_once(&once, initialise);
  return gptvq_context_current()->cpu;
}

gptvq_status gptvq_cpu_level(const char *name, gptvq_cpu_features *features, gptvq_error *err) {
  pthread_once(&once, initialise);
  *features = machine;
  if (strcmp(name, "auto") == 0) return GPTVQ_OK;
  const size_t level = find_level(name);
  if (level == LEVELS)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "unknown CPU level %s; known: ref, avx2, avx512, amx, neon, dotprod, auto", name);
  if (!has_all(machine, levels[level].needs))
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "this machine has no CPU level %s; its best is %s", name,
                      levels[highest_level(machine)].name);
  *features = features_of(level);
  return GPTVQ_OK;
}

const char *gptvq_cpu_level_name(gptvq_cpu_features features) { return levels[highest_level(features)].name; }

gptvq_status gptvq_context_set_cpu(gptvq_context *context, const char *level, gptvq_error *err) {
  gptvq_cpu_features features;
  GPTVQ_TRY(gptvq_cpu_level(level == NULL ? "auto" : level, &features, err));
  gptvq_context_of(context)->cpu = features;
  return GPTVQ_OK;
}

const char *gptvq_context_get_cpu(gptvq_context *context) {
  pthread_once(&once, initialise);
  return gptvq_cpu_level_name(gptvq_context_of(context)->cpu);
}

gptvq_status gptvq_set_cpu(const char *level, gptvq_error *err) {
  return gptvq_context_set_cpu(NULL, level, err);
}
const char *gptvq_get_cpu(void) { return gptvq_context_get_cpu(NULL); }
