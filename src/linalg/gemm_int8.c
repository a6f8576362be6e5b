#include "linalg/gemm_int8.h"
#include "base/cpu.h"
#include "linalg/onednn.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static enum { BY_PROCESSOR, NEVER, ALWAYS } choice;

static void read_choice(void) {
  const char *text = getenv("GPTVQ_GEMM");
  if (text != NULL && strcmp(text, "own") == 0) choice = NEVER;
  if (text != NULL && strcmp(text, "onednn") == 0) choice = ALWAYS;
}

bool gptvq_gemm_int8_wanted(void) {
  pthread_once(&once, read_choice);
  if (choice == NEVER || (choice == BY_PROCESSOR && !(gptvq_cpu() & GPTVQ_CPU_AMX))) return false;
  return gptvq_onednn_works(GPTVQ_ONEDNN_INT8);
}

bool gptvq_gemm_int8_serial_nt(size_t m, size_t n, size_t k, const int8_t *a, size_t lda, const int8_t *b,
                               size_t ldb, int32_t *c, size_t ldc) {
  return gptvq_onednn_product(GPTVQ_ONEDNN_INT8, m, n, k, a, lda, b, ldb, c, ldc);
}
