/* The output head as int8 codes: half the memory traffic of the largest matrix that stays unquantized. */
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "model/loader.h"

#include <math.h>

enum { ROWS = 64 };

typedef struct head_job {
  const gptvq_linear *head;
  float *rows; /* [threads][cols] */
  uint8_t *codes;
  float *scales;
} head_job;

static void quantize_rows(void *context, size_t begin, size_t end, size_t thread) {
  const head_job *job = context;
  const gptvq_linear *head = job->head;
  size_t cols = head->cols, groups = gptvq_ceil_div(cols, GPTVQ_ROWS_GROUP);
  float *row = job->rows + thread * cols;
  for (size_t i = begin; i < end; i++) {
    gptvq_to_float(head->dtype, (const char *)head->weights + i * cols * gptvq_dtype_size(head->dtype), cols,
                   row);
    gptvq_rows_quantize(cols, row, job->codes + i * cols, job->scales + i * groups);
  }
}

/* A head stored as 8-bit codes in the way of quant/run/head.c: its bytes are the codes that the kernels take.
 */
static bool is_stored(const gptvq_packed_shape *s) {
  return s->kind == GPTVQ_PACKED_UNIFORM && s->index_bits == 8 && s->scale_block == GPTVQ_ROWS_GROUP &&
         !s->permuted && gptvq_unit_bytes(s, 0) == s->cols;
}

static void use_stored(gptvq_linear *head, float *scales, size_t groups) {
  const gptvq_packed *p = &head->packed;
  for (size_t i = 0; i < p->shape.rows * groups; i++) {
    if (p->zeros[i] != 128) return;
    scales[i] = gptvq_fp16_to_float(p->scales[i]);
  }
  head->codes = p->indices;
  head->code_scales = scales;
}

gptvq_status gptvq_quantize_head(gptvq_model *model, gptvq_error *err) {
  gptvq_linear *head = &model->head;
  size_t groups = gptvq_ceil_div(head->cols, GPTVQ_ROWS_GROUP);
  if (head->is_packed) { /* others have kernels of their own, or are decoded as they are used */
    if (!is_stored(&head->packed.shape)) return GPTVQ_OK;
    float *scales = gptvq_model_alloc(model, head->rows * groups, sizeof *scales);
    if (scales == NULL)
      return gptvq_fail_memory(err, "the output head's scales", head->rows * groups * sizeof *scales);
    use_stored(head, scales, groups);
    return GPTVQ_OK;
  }
  head_job job = {.head = head, .rows = gptvq_alloc(gptvq_thread_count() * head->cols, sizeof(float))};
  job.codes = gptvq_model_alloc(model, head->rows, head->cols);
  job.scales = gptvq_model_alloc(model, head->rows * groups, sizeof *job.scales);
  if (job.rows == NULL || job.codes == NULL || job.scales == NULL) {
    free(job.rows);
    return gptvq_fail_memory(err, "the output head as int8", head->rows * head->cols);
  }
  gptvq_parallel_for(head->rows, ROWS, quantize_rows, &job);
  free(job.rows);
  for (size_t i = 0; i < head->rows * groups; i++)
    if (!isfinite(job.scales[i]))
      return gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                        "%s.weight: NaN or infinity in row %zu: the file is damaged", head->name, i / groups);
  head->codes = job.codes;
  head->code_scales = job.scales;
  return GPTVQ_OK;
}
