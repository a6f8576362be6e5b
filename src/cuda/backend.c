#include "cuda/backend.h"
#include "base/memory.h"
#include "cuda/cuda.h"

#include <string.h>

gptvq_status gptvq_cuda_reserve(gptvq_cuda *cuda, gptvq_cuda_use use, size_t count, size_t size, void *out,
                                gptvq_error *err) {
  gptvq_device_buffer *b = &cuda->buffers[use];
  const size_t bytes = gptvq_saturated_size(count, size);
  gptvq_status status = gptvq_device_grow(cuda->device, b, bytes, err);
  if (status == GPTVQ_ERROR_MEMORY && gptvq_cuda_linalg_drop_map(cuda->linalg))
    status = gptvq_device_grow(cuda->device, b, bytes, err);
  GPTVQ_TRY(status);
  memcpy(out, &b->memory, sizeof b->memory); /* a pointer to whatever the caller has there */
  return GPTVQ_OK;
}

gptvq_status gptvq_cuda_send(gptvq_cuda *cuda, gptvq_cuda_use use, size_t count, size_t size,
                             const void *from, void *out, gptvq_error *err) {
  void *memory;
  GPTVQ_TRY(gptvq_cuda_reserve(cuda, use, count, size, &memory, err));
  memcpy(out, &memory, sizeof memory);
  return gptvq_device_upload(cuda->device, count * size, memory, from, err);
}

gptvq_status gptvq_cuda_send_rows(gptvq_cuda *cuda, gptvq_cuda_use use, size_t rows, size_t width,
                                  const float *from, size_t stride, float **out, gptvq_error *err) {
  const gptvq_device_rows shape = {width * sizeof(float), rows, width * sizeof(float),
                                   stride * sizeof(float)};
  GPTVQ_TRY(gptvq_cuda_reserve(cuda, use, rows, shape.row_bytes, out, err));
  return cuda->device->upload(cuda->device, &shape, *out, from, err);
}

void gptvq_cuda_forget_factor(gptvq_cuda *cuda) {
  gptvq_cuda_factor *f = &cuda->factor;
  cuda->device->free(cuda->device, f->h);
  cuda->device->free(cuda->device, f->u);
  cuda->device->free(cuda->device, f->ridge);
  *f = (gptvq_cuda_factor){0};
  cuda->layer = (gptvq_cuda_layer){0};
}

static void release_buffers(gptvq_cuda *cuda) {
  cuda->layer = (gptvq_cuda_layer){0};
  for (int use = 0; use < GPTVQ_CUDA_USES; use++) gptvq_device_drop(cuda->device, &cuda->buffers[use]);
}

void gptvq_cuda_drop(gptvq_cuda *cuda, float **array) {
  cuda->device->free(cuda->device, *array);
  *array = NULL;
}

/* *to = numbers of the factor, unless it is there. Where memory is short, the map goes, or else buffers and
 * *other. */
static gptvq_status keep(gptvq_cuda *cuda, size_t count, const float *from, float **to, float **other,
                         gptvq_error *err) {
  void *memory;
  if (*to != NULL) return GPTVQ_OK;
  const size_t bytes = gptvq_saturated_size(count, sizeof **to);
  gptvq_status status = cuda->device->alloc(cuda->device, bytes, &memory, err);
  if (status == GPTVQ_ERROR_MEMORY && gptvq_cuda_linalg_drop_map(cuda->linalg))
    status = cuda->device->alloc(cuda->device, bytes, &memory, err);
  if (status == GPTVQ_ERROR_MEMORY) {
    release_buffers(cuda);
    gptvq_cuda_drop(cuda, other);
    cuda->device->crowded = true;
    status = cuda->device->alloc(cuda->device, bytes, &memory, err);
  }
  GPTVQ_TRY(status);
  *to = memory;
  return gptvq_device_upload(cuda->device, count * sizeof **to, memory, from, err);
}

static void know_factor(gptvq_cuda *cuda, const gptvq_factor *factor) {
  if (cuda->factor.id == factor->id) return;
  gptvq_cuda_forget_factor(cuda);
  cuda->factor.id = factor->id;
}

void gptvq_cuda_begin_layer(gptvq_cuda *cuda, const gptvq_factor *factor) {
  if (factor != NULL) know_factor(cuda, factor);
  cuda->layer = (gptvq_cuda_layer){0};
}

gptvq_status gptvq_cuda_hessian(gptvq_cuda *cuda, const gptvq_factor *factor, gptvq_error *err) {
  const size_t n = factor->padded;
  know_factor(cuda, factor);
  if (cuda->factor.ridge == NULL) {
    float *ridge = gptvq_alloc(n, sizeof *ridge);
    if (ridge == NULL) return gptvq_fail_memory(err, "a Hessian's ridge", n * sizeof *ridge);
    for (size_t c = 0; c < n; c++) ridge[c] = (float)gptvq_factor_ridge(factor, c);
    const gptvq_status status = keep(cuda, n, ridge, &cuda->factor.ridge, &cuda->factor.u, err);
    free(ridge);
    GPTVQ_TRY(status);
  }
  return keep(cuda, n * n, factor->h, &cuda->factor.h, &cuda->factor.u, err);
}

gptvq_status gptvq_cuda_triangle(gptvq_cuda *cuda, const gptvq_factor *factor, gptvq_error *err) {
  know_factor(cuda, factor);
  return keep(cuda, factor->padded * factor->padded, factor->u, &cuda->factor.u, &cuda->factor.h, err);
}

static size_t free_bytes_of(gptvq_device *device) {
  size_t free_bytes = 0, total;
  if (device->memory(device, &free_bytes, &total, NULL) != GPTVQ_OK) return 0;
  return free_bytes - free_bytes / 16; /* what allocation loses */
}

bool gptvq_cuda_fits(gptvq_cuda *cuda, size_t bytes) {
  if (bytes <= free_bytes_of(cuda->device)) return true;
  if (gptvq_cuda_linalg_drop_map(cuda->linalg) && bytes <= free_bytes_of(cuda->device)) return true;
  release_buffers(cuda);
  if (bytes <= free_bytes_of(cuda->device)) return true;
  cuda->device->crowded = true;
  return false;
}

size_t gptvq_cuda_piece(gptvq_cuda *cuda, size_t rows, size_t unit, size_t row_bytes, size_t other) {
  if (gptvq_cuda_fits(cuda, gptvq_saturated_sum(other, gptvq_saturated_size(rows, row_bytes)))) return rows;
  const size_t free_bytes = free_bytes_of(cuda->device);
  const size_t fit = free_bytes > other ? (free_bytes - other) / gptvq_max_size(1, row_bytes) : 0;
  return gptvq_min_size(rows, gptvq_max_size(unit, fit / unit * unit));
}

gptvq_status gptvq_cuda_target(gptvq_cuda *cuda, const gptvq_vq *q, size_t begin, size_t rows,
                               const float **out, gptvq_error *err) {
  const size_t n = q->padded;
  if (cuda->layer.target == q->target && cuda->layer.rows == q->rows) {
    *out = (const float *)cuda->buffers[GPTVQ_CUDA_TARGET].memory + begin * n;
    return GPTVQ_OK;
  }
  cuda->layer.target = NULL;
  GPTVQ_TRY(
      gptvq_cuda_send(cuda, GPTVQ_CUDA_TARGET, rows * n, sizeof **out, q->target + begin * n, out, err));
  cuda->layer.rows = q->rows;
  if (rows == q->rows) cuda->layer.target = q->target;
  return GPTVQ_OK;
}

const float *gptvq_cuda_errors(const gptvq_cuda *cuda, const float *error, size_t rows, size_t end) {
  const gptvq_cuda_layer *layer = &cuda->layer;
  return layer->error == error && layer->rows == rows && layer->columns >= end
             ? cuda->buffers[GPTVQ_CUDA_ERRORS].memory
             : NULL;
}

/* value[rows][count] of rows from `begin` on: the scales `which` of each */
static void copy_scales(const gptvq_vq *q, size_t begin, size_t rows, const uint32_t *which, size_t count,
                        float *value) {
  for (size_t row = 0; row < rows; row++) {
    const uint8_t *codes = q->scale_codes + (begin + row) * q->scale_blocks;
    for (size_t i = 0; i < count; i++) value[row * count + i] = q->scale_table[codes[which[i]]];
  }
}

gptvq_status gptvq_cuda_send_scales(gptvq_cuda *cuda, const gptvq_vq *q, size_t begin, size_t end,
                                    const uint32_t *list, size_t first, size_t blocks,
                                    gptvq_kernel_scales *out, gptvq_error *err) {
  *out = (gptvq_kernel_scales){0};
  if (q->scale_block == 0) return GPTVQ_OK;
  size_t count = 0; /* of those that the sub-vectors have */
  gptvq_status status = GPTVQ_OK;
  uint32_t *place = gptvq_alloc(q->scale_blocks, sizeof *place),
           *which = gptvq_alloc(q->scale_blocks, sizeof *which), *of = gptvq_alloc(blocks, sizeof *of);
  float *value = NULL;
  if (place != NULL && which != NULL && of != NULL) {
    memset(place, 0xff, q->scale_blocks * sizeof *place);
    for (size_t b = 0; b < blocks; b++) {
      const uint32_t scale = q->block_scale_of[list != NULL ? list[b] : first + b];
      if (place[scale] == UINT32_MAX) {
        which[count] = scale;
        place[scale] = (uint32_t)count++;
      }
      of[b] = place[scale];
    }
    value = gptvq_alloc(end - begin, count * sizeof *value);
  }
  if (value == NULL) {
    status = gptvq_fail_memory(err, "scales for the device", (end - begin) * sizeof *value);
  } else {
    copy_scales(q, begin, end - begin, which, count, value);
    out->stride = count;
    status = gptvq_cuda_send(cuda, GPTVQ_CUDA_SCALE_OF, blocks, sizeof *of, of, &out->of, err);
    if (status == GPTVQ_OK)
      status = gptvq_cuda_send(cuda, GPTVQ_CUDA_SCALE, (end - begin) * count, sizeof *value, value,
                               &out->value, err);
  }
  free(place);
  free(which);
  free(of);
  free(value);
  return status;
}

gptvq_status gptvq_cuda_create(gptvq_device *device, gptvq_cuda_linalg *linalg, gptvq_cuda **out,
                               gptvq_error *err) {
  *out = NULL;
  gptvq_cuda *cuda = gptvq_alloc_zero(1, sizeof *cuda);
  if (cuda == NULL) return gptvq_fail_memory(err, "a device's backend", sizeof *cuda);
  cuda->device = device;
  cuda->linalg = linalg;
  cuda->backend = gptvq_cpu_backend;
  cuda->backend.name = device->name;
  cuda->backend.context = cuda;
  cuda->backend.times_hessian = gptvq_cuda_times_hessian;
  cuda->backend.feedback = gptvq_cuda_feedback;
  cuda->backend.codebooks = gptvq_cuda_codebooks;
  cuda->backend.assign = gptvq_cuda_assign;
  cuda->backend.times_system = gptvq_cuda_times_system;
  cuda->backend.update = gptvq_cuda_update;
  cuda->backend.reassign = gptvq_cuda_reassign;
  cuda->backend.search = gptvq_cuda_search;
  cuda->backend.row_losses = gptvq_cuda_row_losses;
  cuda->backend.divide = gptvq_cuda_divide;
  *out = cuda;
  return GPTVQ_OK;
}

void gptvq_cuda_destroy(gptvq_cuda *cuda) {
  if (cuda == NULL) return;
  gptvq_cuda_forget_factor(cuda);
  release_buffers(cuda);
  free(cuda);
}

const gptvq_backend *gptvq_cuda_backend(const gptvq_cuda *cuda) { return &cuda->backend; }

const char *gptvq_cuda_left_to_cpu(const gptvq_cuda *cuda) {
  (void)cuda;
  return "a Hessian that has no room for its factorisation; vectors of the codebook update, and solving for "
         "row scales; of k-means the start kmeanspp and what surrounds the paths of a trellis, of loop and "
         "search more than 32 partial assignments; uniform codes but for feedback";
}
