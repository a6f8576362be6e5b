#define _GNU_SOURCE
#include "base/affinity.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert((int)GPTVQ_MAX_CPUS == CPU_SETSIZE, "a list holds every CPU of a set");

static pthread_once_t once = PTHREAD_ONCE_INIT;
static cpu_set_t original; /* of the process, before anything was bound */
static bool known;
static _Thread_local cpu_set_t own; /* of this thread, while it is bound */
static _Thread_local bool bound;

static void look(void) {
  known = sched_getaffinity(0, sizeof original, &original) == 0 && CPU_COUNT(&original) > 0;
}

size_t gptvq_affinity_available(void) {
  (void)pthread_once(&once, look);
  return known ? (size_t)CPU_COUNT(&original) : 1;
}

/* "0-3,6" of a set, cut short when it does not fit. */
static void describe(const cpu_set_t *set, char *text, size_t size) {
  size_t at = 0;
  text[0] = '\0';
  for (int i = 0; i < GPTVQ_MAX_CPUS; i++) {
    if (!CPU_ISSET(i, set)) continue;
    int last = i;
    while (last + 1 < GPTVQ_MAX_CPUS && CPU_ISSET(last + 1, set)) last++;
    int length = last > i ? snprintf(text + at, size - at, "%s%d-%d", at > 0 ? "," : "", i, last)
                          : snprintf(text + at, size - at, "%s%d", at > 0 ? "," : "", i);
    if (length < 0 || (size_t)length >= size - at) {
      text[at] = '\0';
      return;
    }
    at += (size_t)length;
    i = last;
  }
}

/* A number at *text, which moves past it; false: there is none, or one that no machine has. */
static bool read_number(const char **text, int *number) {
  char *end;
  if (**text < '0' || **text > '9') return false;
  long value = strtol(*text, &end, 10);
  *number = value > GPTVQ_MAX_CPUS ? GPTVQ_MAX_CPUS : (int)value;
  *text = end;
  return true;
}

static gptvq_status not_a_list(const char *list, gptvq_error *err) {
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "'%.100s' is not a list of CPUs such as 0-3,6", list);
}

static gptvq_status read_list(const char *list, int *out, size_t *n, gptvq_error *err) {
  cpu_set_t seen;
  char allowed[128];
  CPU_ZERO(&seen);
  *n = 0;
  for (const char *at = list;; at++) {
    int first, last;
    if (!read_number(&at, &first)) return not_a_list(list, err);
    last = first;
    if (*at == '-') {
      at++;
      if (!read_number(&at, &last) || last < first) return not_a_list(list, err);
    }
    for (int i = first; i <= last; i++) {
      if (i >= GPTVQ_MAX_CPUS || !CPU_ISSET(i, &original)) {
        describe(&original, allowed, sizeof allowed);
        return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                          "'%.100s': there is no CPU %d%s that this process may use; it may use %s", list, i,
                          i >= GPTVQ_MAX_CPUS ? " or above" : "", allowed);
      }
      if (CPU_ISSET(i, &seen))
        return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "'%.100s' names CPU %d twice", list, i);
      CPU_SET(i, &seen);
      out[(*n)++] = i;
    }
    if (*at == '\0') return GPTVQ_OK;
    if (*at != ',') return not_a_list(list, err);
  }
}

gptvq_status gptvq_affinity_set(gptvq_affinity *affinity, const char *list, gptvq_error *err) {
  int wanted[GPTVQ_MAX_CPUS];
  size_t n = 0;
  (void)pthread_once(&once, look);
  if (list == NULL) {
    affinity->count = 0;
    return GPTVQ_OK;
  }
  if (!known)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "the system does not say which CPUs this process may use");
  GPTVQ_TRY(read_list(list, wanted, &n, err));
  for (size_t i = 0; i < n; i++) affinity->cpus[i] = wanted[i];
  affinity->count = n;
  return GPTVQ_OK;
}

/* A CPU that was taken away in the meantime leaves the thread where it is: slower at worst. */
void gptvq_affinity_bind(const gptvq_affinity *affinity, size_t thread) {
  cpu_set_t set;
  if (affinity->count == 0) return;
  CPU_ZERO(&set);
  CPU_SET(affinity->cpus[thread % affinity->count], &set);
  (void)sched_setaffinity(0, sizeof set, &set);
}

void gptvq_affinity_enter(const gptvq_affinity *affinity) {
  if (affinity->count > 0 && !bound) bound = sched_getaffinity(0, sizeof own, &own) == 0;
  if (affinity->count == 0 && bound) {
    (void)sched_setaffinity(0, sizeof own, &own);
    bound = false;
  }
  gptvq_affinity_bind(affinity, 0);
}
