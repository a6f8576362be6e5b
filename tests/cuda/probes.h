#ifndef PROBES_H
#define PROBES_H

typedef struct probe {
  int *out;
} probe;
enum { PROBE_WARP_VALUES = 8 };

#ifdef __cplusplus
extern "C" {
#endif
void probe_barrier(const void *arguments);
void probe_no_barrier(const void *arguments);
void probe_warp(const void *arguments);
void probe_divergent(const void *arguments);
void probe_missing(const void *arguments);
void probe_warp_divergent(const void *arguments);
void probe_some_lanes(const void *arguments);
void probe_beyond(const void *arguments);        /* as many values beyond out[threads] */
void probe_beyond_shared(const void *arguments); /* threads beyond an array of 16 */
#ifdef __cplusplus
}
#endif

#endif
