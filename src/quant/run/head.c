#include "quant/run/head.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "quant/layer/half_scales.h"
#include "quant/plan/outside.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 64, ZERO = 128, TOP = 127 };

typedef struct head_job {
  const gptvq_linear *head;
  float *rows; /* [threads][cols] */
  uint8_t *codes;
  uint16_t *scales;
  gptvq_row_energy *energy; /* [rows] */
  size_t groups, unit_bytes;
} head_job;

/* The smallest fp16 number that is not below x >= 0; infinity when there is none. */
static uint16_t round_up_fp16(float x) {
  uint16_t h = gptvq_float_to_fp16(x);
  return gptvq_fp16_to_float(h) < x ? (uint16_t)(h + 1) : h;
}

static void pack_rows(void *context, size_t begin, size_t end, size_t thread) {
  const head_job *job = context;
  const gptvq_linear *head = job->head;
  const size_t cols = head->cols;
  float *row = job->rows + thread * cols;
  for (size_t r = begin; r < end; r++) {
    gptvq_to_float(head->dtype, (const char *)head->weights + r * cols * gptvq_dtype_size(head->dtype), cols,
                   row);
    for (size_t g = 0; g < job->groups; g++) {
      const size_t first = g * GPTVQ_ROWS_GROUP, last = gptvq_min_size(first + GPTVQ_ROWS_GROUP, cols);
      float largest = 0.0f;
      bool finite = true;
      for (size_t c = first; c < last; c++) {
        finite = finite && isfinite(row[c]);
        largest = fmaxf(largest, fabsf(row[c]));
      }
      uint16_t scale = finite ? round_up_fp16(largest / (float)TOP) : 0x7c00;
      const float step = gptvq_fp16_to_float(scale);
      job->scales[r * job->groups + g] = scale;
      gptvq_add_group(&job->energy[r], last - first, row + first, largest, step, TOP);
      for (size_t c = first; c < last; c++) {
        int code = finite && step > 0.0f && isfinite(step) ? (int)rintf(row[c] / step) : 0;
        job->codes[r * job->unit_bytes + c] = (uint8_t)(ZERO + (code > TOP    ? TOP
                                                                : code < -TOP ? -TOP
                                                                              : code));
      }
    }
  }
}

gptvq_status gptvq_pack_head(const gptvq_linear *head, const char *instead, gptvq_packed *packed,
                             void **memory, gptvq_error *err) {
  gptvq_packed_sizes sizes;
  *packed = (gptvq_packed){.shape = gptvq_outside_shape(NULL, head->rows, head->cols, 8)};
  *memory = NULL;
  GPTVQ_TRY(gptvq_packed_check(&packed->shape, head->name, err));
  gptvq_packed_measure(&packed->shape, &sizes);
  const size_t codes = gptvq_round_up(sizes.index_bytes, 64), zeros = gptvq_round_up(sizes.zero_bytes, 64);
  uint8_t *block = gptvq_alloc_zero(codes + zeros + 2 * sizes.uniform_scales, 1);
  head_job job = {.head = head,
                  .rows = gptvq_alloc(gptvq_thread_count() * head->cols, sizeof(float)),
                  .codes = block,
                  .energy = gptvq_alloc_zero(head->rows, sizeof *job.energy),
                  .groups = gptvq_ceil_div(head->cols, GPTVQ_ROWS_GROUP),
                  .unit_bytes = gptvq_unit_bytes(&packed->shape, 0)};
  if (block == NULL || job.rows == NULL || job.energy == NULL) {
    free(block);
    free(job.rows);
    free(job.energy);
    return gptvq_fail_memory(err, "a matrix as int8", codes);
  }
  job.scales = (uint16_t *)(void *)(block + codes + zeros);
  memset(block + codes, ZERO,
         gptvq_min_size(sizes.uniform_scales, sizes.zero_bytes)); /* 8-bit units are bytes in order */
  gptvq_parallel_for(head->rows, ROWS, pack_rows, &job);
  free(job.rows);
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; i < sizes.uniform_scales && status == GPTVQ_OK; i++)
    if (!isfinite(gptvq_fp16_to_float(job.scales[i])))
      status = gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                          "%s.weight: row %zu holds NaN, infinity or numbers too large for fp16 scales; %s",
                          head->name, i / job.groups, instead);
  if (status == GPTVQ_OK) status = gptvq_check_half_scales(head->name, head->rows, job.energy, instead, err);
  free(job.energy);
  if (status != GPTVQ_OK) {
    free(block);
    return status;
  }
  packed->indices = block;
  packed->zeros = block + codes;
  packed->scales = job.scales;
  *memory = block;
  return GPTVQ_OK;
}
