/* calib/stream.h: values of all calibration windows that stay from one sweep to the next: the residual stream
 * on its way through the blocks, inputs that are to be used once more. In fp32 or bf16, in memory or in a
 * scratch file. What is read depends on the precision alone, not on the place. */
#ifndef GPTVQ_CALIB_STREAM_H
#define GPTVQ_CALIB_STREAM_H

#include "base/status.h"

#include <stdbool.h>

typedef struct gptvq_stream {
  size_t windows, values; /* values of one window */
  bool half;              /* bf16, rounded to nearest even; else fp32 */
  char *memory;           /* NULL: in the file */
  bool borrowed;          /* the memory is another's */
  int file;               /* without a name: nothing is left of it when the process ends, however it does */
  char *folder;           /* it lies in, for messages */
  uint16_t *staging;      /* [values] between the file and fp32 */
} gptvq_stream;

/* Bytes of all its windows; SIZE_MAX on overflow. */
size_t gptvq_stream_bytes(size_t windows, size_t values, bool half);
/* How the streams of a run are kept. */
typedef struct gptvq_stream_place {
  bool half;
  const char *folder; /* of scratch files; NULL: in memory */
} gptvq_stream_place;
/* The room of a scratch file on the disk is taken now. Not initialised.
 * `name`: what it holds, for messages. GPTVQ_ERROR_MEMORY; GPTVQ_ERROR_IO: no such file can be made, or the
 * disk has no room. On failure there is nothing to release. */
gptvq_status gptvq_stream_create(size_t windows, size_t values, gptvq_stream_place place, const char *name,
                                 gptvq_stream *out, gptvq_error *err);
/* One of fp32 over another's memory, [windows × values]. */
static inline gptvq_stream gptvq_stream_over(size_t windows, size_t values, float *memory) {
  return (gptvq_stream){
      .windows = windows, .values = values, .memory = (char *)memory, .borrowed = true, .file = -1};
}
/* out[values], in[values]: one window. GPTVQ_ERROR_IO naming the folder of the file. From one thread at a
 * time. */
gptvq_status gptvq_stream_read(const gptvq_stream *stream, size_t window, float *out, gptvq_error *err);
gptvq_status gptvq_stream_write(const gptvq_stream *stream, size_t window, const float *in, gptvq_error *err);
/* The same from rows of `cols` values, a divisor of `values`, that lie ldx >= cols apart. */
gptvq_status gptvq_stream_write_rows(const gptvq_stream *stream, size_t window, size_t cols, const float *in,
                                     size_t ldx, gptvq_error *err);
/* x[values] as it would be read after it had been written. */
void gptvq_stream_round(const gptvq_stream *stream, float *x);
/* All windows of one of the same shape. */
gptvq_status gptvq_stream_copy(const gptvq_stream *from, const gptvq_stream *to, gptvq_error *err);
void gptvq_stream_release(gptvq_stream *stream); /* a zeroed struct is fine */

#endif
