#define _GNU_SOURCE /* O_TMPFILE */
#include "calib/stream.h"

#include "base/file.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { PIECE = 1 << 14 }; /* values that are converted as one task, where they can be cut so */

static size_t window_bytes(const gptvq_stream *s) {
  return s->values * (s->half ? sizeof(uint16_t) : sizeof(float));
}

size_t gptvq_stream_bytes(size_t windows, size_t values, bool half) {
  return gptvq_saturated_size(windows, gptvq_saturated_size(values, half ? sizeof(uint16_t) : sizeof(float)));
}

static gptvq_status fail_file(const gptvq_stream *s, int reason, gptvq_error *err) {
  return gptvq_fail(err, GPTVQ_ERROR_IO,
                    "the scratch file of calibration activations in %s (%.1f GB): %s: make room there, give "
                    "more memory (`memory_limit`) or fewer `calib_samples`",
                    s->folder, (double)gptvq_stream_bytes(s->windows, s->values, s->half) * 1e-9,
                    strerror(reason));
}

/* A file that has no name, or has lost it. */
static int open_nameless(const char *folder) {
  int file = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT))
    return file;
  char name[64];
  (void)snprintf(name, sizeof name, "scratch.tmp.%ld", (long)getpid());
  char *path = gptvq_join_path(folder, name);
  if (path == NULL) {
    errno = ENOMEM;
    return -1;
  }
  file = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (file >= 0) (void)unlink(path);
  free(path);
  return file;
}

static gptvq_status create_file(gptvq_stream *s, const char *folder, size_t bytes, gptvq_error *err) {
  s->folder = strdup(folder);
  s->staging = s->half ? gptvq_alloc(s->values, sizeof *s->staging) : NULL;
  if (s->folder == NULL || (s->half && s->staging == NULL))
    return gptvq_fail_memory(err, "a scratch file", gptvq_saturated_size(s->values, sizeof *s->staging));
  s->file = open_nameless(folder);
  if (s->file < 0) return fail_file(s, errno, err);
  struct statvfs disk; /* asked first: a disk is not filled for others to find out that it is too small */
  const bool full = fstatvfs(s->file, &disk) == 0 && bytes / disk.f_frsize >= disk.f_bavail;
  int reason = full ? ENOSPC : bytes > INT64_MAX ? EFBIG : posix_fallocate(s->file, 0, (off_t)bytes);
  if (reason != 0) return fail_file(s, reason, err);
  (void)posix_fadvise(s->file, 0, 0, POSIX_FADV_SEQUENTIAL);
  return GPTVQ_OK;
}

gptvq_status gptvq_stream_create(size_t windows, size_t values, gptvq_stream_place place, const char *name,
                                 gptvq_stream *out, gptvq_error *err) {
  size_t bytes = gptvq_stream_bytes(windows, values, place.half);
  *out = (gptvq_stream){.windows = windows, .values = values, .half = place.half, .file = -1};
  gptvq_status status = GPTVQ_OK;
  if (place.folder != NULL) status = create_file(out, place.folder, bytes, err);
  else if (bytes == SIZE_MAX || (out->memory = gptvq_alloc(bytes, 1)) == NULL)
    status = gptvq_fail_memory(err, name, bytes);
  if (status != GPTVQ_OK) gptvq_stream_release(out);
  return status;
}

void gptvq_stream_release(gptvq_stream *s) {
  if (s->folder != NULL && s->file >= 0) (void)close(s->file);
  if (!s->borrowed) free(s->memory);
  free(s->folder);
  free(s->staging);
  *s = (gptvq_stream){.file = -1};
}

typedef struct convert_job {
  size_t cols, ldx; /* of rows in fp32 */
  const float *from;
  uint16_t *half;
  float *to; /* or NULL: from fp32 to bf16 */
} convert_job;

static void convert_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const convert_job *job = context;
  for (size_t r = begin; r < end; r++) {
    uint16_t *half = job->half + r * job->cols;
    if (job->to != NULL)
      for (size_t i = 0; i < job->cols; i++) job->to[r * job->ldx + i] = gptvq_bf16_to_float(half[i]);
    else
      for (size_t i = 0; i < job->cols; i++) half[i] = gptvq_float_to_bf16(job->from[r * job->ldx + i]);
  }
}

/* Bytes [begin, begin + bytes) of the file. */
static gptvq_status transfer(const gptvq_stream *s, size_t begin, char *data, size_t bytes, bool write,
                             gptvq_error *err) {
  for (size_t done = 0; done < bytes;) {
    const off_t at = (off_t)(begin + done);
    ssize_t moved = write ? pwrite(s->file, data + done, bytes - done, at)
                          : pread(s->file, data + done, bytes - done, at);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return fail_file(s, moved < 0 ? errno : EIO, err);
    done += (size_t)moved;
  }
  return GPTVQ_OK;
}

static uint16_t *half_values(const gptvq_stream *s, size_t window) {
  return s->memory != NULL ? (uint16_t *)(void *)s->memory + window * s->values : s->staging;
}

/* Rows short enough to be shared out. */
static size_t piece(size_t values) { return values % PIECE == 0 ? PIECE : values; }

gptvq_status gptvq_stream_read(const gptvq_stream *s, size_t window, float *out, gptvq_error *err) {
  const size_t bytes = window_bytes(s), begin = window * bytes, cols = piece(s->values);
  char *data = s->half ? (char *)half_values(s, window) : (char *)out;
  if (s->memory == NULL) GPTVQ_TRY(transfer(s, begin, data, bytes, false, err));
  else if (!s->half) memcpy(out, s->memory + begin, bytes);
  if (!s->half) return GPTVQ_OK;
  convert_job job = {.cols = cols, .ldx = cols, .half = half_values(s, window), .to = out};
  gptvq_parallel_for(s->values / cols, 1, convert_task, &job);
  return GPTVQ_OK;
}

gptvq_status gptvq_stream_write(const gptvq_stream *s, size_t window, const float *in, gptvq_error *err) {
  const size_t cols = piece(s->values);
  return gptvq_stream_write_rows(s, window, cols, in, cols, err);
}

gptvq_status gptvq_stream_write_rows(const gptvq_stream *s, size_t window, size_t cols, const float *in,
                                     size_t ldx, gptvq_error *err) {
  const size_t bytes = window_bytes(s), begin = window * bytes, rows = s->values / cols;
  if (s->half) {
    convert_job job = {.cols = cols, .ldx = ldx, .from = in, .half = half_values(s, window)};
    gptvq_parallel_for(rows, 1, convert_task, &job);
    return s->memory != NULL ? GPTVQ_OK : transfer(s, begin, (char *)s->staging, bytes, true, err);
  }
  for (size_t r = 0; r < rows; r++) {
    const size_t row = cols * sizeof *in;
    const float *from = in + r * ldx;
    if (s->memory != NULL) memcpy(s->memory + begin + r * row, from, row);
    else GPTVQ_TRY(transfer(s, begin + r * row, (char *)(uintptr_t)from, row, true, err));
  }
  return GPTVQ_OK;
}

static void round_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  float *x = context;
  for (size_t i = begin; i < end; i++) x[i] = gptvq_bf16_to_float(gptvq_float_to_bf16(x[i]));
}

void gptvq_stream_round(const gptvq_stream *s, float *x) {
  if (s->half) gptvq_parallel_for(s->values, PIECE, round_task, x);
}

gptvq_status gptvq_stream_copy(const gptvq_stream *from, const gptvq_stream *to, gptvq_error *err) {
  float *window = gptvq_alloc(from->values, sizeof *window);
  if (window == NULL)
    return gptvq_fail_memory(err, "calibration activations",
                             gptvq_saturated_size(from->values, sizeof *window));
  gptvq_status status = GPTVQ_OK;
  for (size_t w = 0; w < from->windows && status == GPTVQ_OK; w++) {
    status = gptvq_stream_read(from, w, window, err);
    if (status == GPTVQ_OK) status = gptvq_stream_write(to, w, window, err);
  }
  free(window);
  return status;
}
