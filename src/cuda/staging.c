#include "cuda/staging.h"
#include "base/memory.h"
#include "base/threads.h"

#include <string.h>

void gptvq_staging_open(gptvq_staging *s, const gptvq_nvidia *nvidia) {
  *s = (gptvq_staging){.memory = gptvq_alloc(2, GPTVQ_STAGING_BYTES)};
  if (s->memory == NULL) return;
  if (nvidia->host_register(s->memory, (size_t)2 * GPTVQ_STAGING_BYTES, 0) == CUDA_SUCCESS) {
    s->nvidia = nvidia;
    for (int i = 0; i < 2; i++)
      if (nvidia->event_create(&s->copied[i], CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS) {
        s->copied[i] = NULL;
        gptvq_staging_close(s);
        return;
      }
    return;
  }
  free(s->memory);
  s->memory = NULL;
}

void gptvq_staging_close(gptvq_staging *s) {
  for (int i = 0; i < 2 && s->nvidia != NULL; i++) {
    if (s->busy[i]) (void)s->nvidia->event_synchronize(s->copied[i]);
    if (s->copied[i] != NULL) (void)s->nvidia->event_destroy(s->copied[i]);
  }
  if (s->nvidia != NULL) (void)s->nvidia->host_unregister(s->memory);
  free(s->memory);
  *s = (gptvq_staging){0};
}

/* Without gaps on either side. */
static bool is_whole(const gptvq_device_rows *shape) {
  return shape->rows == 1 ||
         (shape->host_pitch == shape->row_bytes && shape->device_pitch == shape->row_bytes);
}

bool gptvq_staging_takes(const gptvq_staging *s, const gptvq_device_rows *shape) {
  return s->nvidia != NULL && (is_whole(shape) || shape->row_bytes <= GPTVQ_STAGING_BYTES) &&
         gptvq_saturated_size(shape->rows, shape->row_bytes) >= GPTVQ_STAGING_LEAST;
}

/* Rows of a shape without gaps are as long as suits the threads. */
static gptvq_device_rows cut(const gptvq_device_rows *shape) {
  enum { ROW = 256 << 10 };
  const gptvq_device_rows rows = {
    .row_bytes = ROW,
    .rows = gptvq_ceil_div(shape->rows * shape->row_bytes, ROW),
    .device_pitch = ROW,
    .host_pitch = ROW
  };
  return is_whole(shape) ? rows : *shape;
}

/* Some rows on their way: between the host's, `pitch` bytes apart, and a buffer, where they are close. */
typedef struct passage {
  char *buffer, *host;
  size_t row_bytes, pitch, bytes; /* bytes: of all of them; the last one may be shorter */
  bool up;
} passage;

static void pass_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const passage *p = context;
  for (size_t r = begin; r < end; r++) {
    char *near = p->buffer + r * p->row_bytes, *far = p->host + r * p->pitch;
    const size_t bytes = gptvq_min_size(p->row_bytes, p->bytes - r * p->row_bytes);
    memcpy(p->up ? near : far, p->up ? far : near, bytes);
  }
}

static void pass(passage *p) {
  gptvq_parallel_for(gptvq_ceil_div(p->bytes, p->row_bytes), gptvq_ceil_div(64 << 10, p->row_bytes),
                     pass_rows, p);
}

/* The next buffer, once the card has done with it. */
static gptvq_status take_buffer(gptvq_staging *s, int *number, gptvq_error *err) {
  *number = s->next;
  s->next = 1 - s->next;
  if (!s->busy[*number]) return GPTVQ_OK;
  s->busy[*number] = false;
  return gptvq_nvidia_check(s->nvidia, s->nvidia->event_synchronize(s->copied[*number]), "copying", err);
}

/* Between the buffer and rows on the card, `pitch` bytes apart, in the order of all that it is asked for. */
static gptvq_status start_copy(gptvq_staging *s, int number, const passage *p, CUdeviceptr card, size_t pitch,
                               gptvq_error *err) {
  const gptvq_nvidia *n = s->nvidia;
  const int host = CU_MEMORYTYPE_HOST, device = CU_MEMORYTYPE_DEVICE;
  const CUDA_MEMCPY2D copy = {.srcMemoryType = p->up ? host : device,
                              .srcHost = p->up ? p->buffer : NULL,
                              .srcDevice = p->up ? 0 : card,
                              .srcPitch = p->up ? p->row_bytes : pitch,
                              .dstMemoryType = p->up ? device : host,
                              .dstHost = p->up ? NULL : p->buffer,
                              .dstDevice = p->up ? card : 0,
                              .dstPitch = p->up ? pitch : p->row_bytes,
                              .WidthInBytes = p->row_bytes,
                              .Height = p->bytes / p->row_bytes};
  const CUresult result = pitch != p->row_bytes ? n->copy_rows_async(&copy, NULL)
                          : p->up               ? n->upload_async(card, p->buffer, p->bytes, NULL)
                                                : n->download_async(p->buffer, card, p->bytes, NULL);
  GPTVQ_TRY(gptvq_nvidia_check(n, result, p->up ? "copying to it" : "copying from it", err));
  GPTVQ_TRY(gptvq_nvidia_check(n, n->event_record(s->copied[number], NULL), "copying", err));
  s->busy[number] = true;
  return GPTVQ_OK;
}

gptvq_status gptvq_staging_upload(gptvq_staging *s, const gptvq_device_rows *shape, CUdeviceptr to,
                                  const void *from, gptvq_error *err) {
  const gptvq_device_rows rows = cut(shape);
  const size_t most = GPTVQ_STAGING_BYTES / rows.row_bytes, all = shape->rows * shape->row_bytes;
  for (size_t r = 0; r < rows.rows; r += most) {
    int number;
    GPTVQ_TRY(take_buffer(s, &number, err));
    passage p = {.buffer = s->memory + (size_t)number * GPTVQ_STAGING_BYTES,
                 .host = (char *)(uintptr_t)from + r * rows.host_pitch,
                 .row_bytes = rows.row_bytes,
                 .pitch = rows.host_pitch,
                 .bytes = gptvq_min_size(most * rows.row_bytes, all - r * rows.row_bytes),
                 .up = true};
    pass(&p);
    GPTVQ_TRY(start_copy(s, number, &p, to + r * rows.device_pitch, rows.device_pitch, err));
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_staging_download(gptvq_staging *s, const gptvq_device_rows *shape, void *to,
                                    CUdeviceptr from, gptvq_error *err) {
  const gptvq_device_rows rows = cut(shape);
  const size_t most = GPTVQ_STAGING_BYTES / rows.row_bytes, all = shape->rows * shape->row_bytes;
  passage coming = {0};
  for (size_t r = 0; r < rows.rows || coming.bytes > 0; r += most) {
    passage p = {0};
    int number;
    if (r < rows.rows) {
      GPTVQ_TRY(take_buffer(s, &number, err));
      p = (passage){.buffer = s->memory + (size_t)number * GPTVQ_STAGING_BYTES,
                    .host = (char *)to + r * rows.host_pitch,
                    .row_bytes = rows.row_bytes,
                    .pitch = rows.host_pitch,
                    .bytes = gptvq_min_size(most * rows.row_bytes, all - r * rows.row_bytes)};
      GPTVQ_TRY(start_copy(s, number, &p, from + r * rows.device_pitch, rows.device_pitch, err));
    }
    if (coming.bytes > 0) { /* the one before has come, or will while this one is on its way */
      const int before = coming.buffer == s->memory ? 0 : 1;
      s->busy[before] = false;
      GPTVQ_TRY(gptvq_nvidia_check(s->nvidia, s->nvidia->event_synchronize(s->copied[before]),
                                   "copying from it", err));
      pass(&coming);
    }
    coming = p;
  }
  return GPTVQ_OK;
}
