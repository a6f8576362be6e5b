/* Codebook update by the CPU's conjugate gradients, whose products are made here: directions and indices are
 * sent, sums by centroid come back. */
#include "base/memory.h"
#include "cuda/cuda.h"

#include <string.h>

/* Not the CPU's direct way, which forms the systems row by row. */
gptvq_status gptvq_cuda_update(gptvq_vq *q, double *loss, gptvq_error *err) {
  if (q->step_bits > 0) return gptvq_cuda_update_scales(q, loss, err);
  return gptvq_vq_update_gradients(q, loss, err);
}

typedef struct system_product {
  gptvq_cuda *cuda;
  const gptvq_vq *q;
  size_t values;
  const uint32_t *stripes; /* the device's, likewise what follows */
  gptvq_kernel_decode_arguments decode;
  gptvq_kernel_gather_arguments gather;
} system_product;

/* Rows of `count` listed stripes: only the last stripe of the layer may be lower. */
static size_t rows_of(const gptvq_vq *q, size_t count, const uint32_t *stripes) {
  const size_t height = q->shape.group_rows, last = stripes[count - 1] * height;
  return (count - 1) * height + gptvq_min_size(height, q->rows - last);
}

/* All indices and scales, all directions, places of groups. table: scratch, [blocks + groups + 1] */
static gptvq_status send(system_product *s, size_t count, const uint32_t *stripes, const float *directions,
                         uint32_t *table, gptvq_error *err) {
  gptvq_cuda *cuda = s->cuda;
  const gptvq_vq *q = s->q;
  const size_t d = q->dim;
  uint32_t *group_first = table + q->blocks;
  for (size_t g = 0; g < q->groups; g++) {
    group_first[g] = (uint32_t)(q->group[g].start / d);
    group_first[g + 1] = (uint32_t)((q->group[g].start + q->group[g].width) / d);
    for (size_t b = group_first[g]; b < group_first[g + 1]; b++) table[b] = (uint32_t)(g * q->k * d);
  }
  const uint32_t *there;
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_COLUMNS, q->blocks + q->groups + 1, sizeof *table, table, &there,
                            err));
  s->decode.book_of = there;
  s->gather.group_first = there + q->blocks;
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_LISTED, count, sizeof *stripes, stripes, &s->stripes, err));
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_INDEX, q->rows * q->blocks, sizeof *q->index, q->index,
                            &s->decode.index, err));
  GPTVQ_TRY(gptvq_cuda_send_scales(cuda, q, 0, q->rows, NULL, 0, q->blocks, &s->decode.scale, err));
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_BOOKS, q->stripes * s->values, sizeof *directions, directions,
                            &s->decode.books, err));
  s->gather.index = s->decode.index;
  s->gather.scale = s->decode.scale;
  return GPTVQ_OK;
}

/* stripes[0 … count) from the `first` on; sums: [count × values] on the host */
static gptvq_status multiply(system_product *s, size_t first, size_t count, size_t rows, double *sums,
                             gptvq_error *err) {
  gptvq_cuda *cuda = s->cuda;
  gptvq_device *device = cuda->device;
  const gptvq_vq *q = s->q;
  const size_t n = q->padded;
  float *x, *y;
  double *there;
  GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_ROWS, rows * n, sizeof *x, &x, err));
  GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_RESULT, rows * n, sizeof *y, &y, err));
  GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_LOSS, count * s->values, sizeof *there, &there, err));
  s->decode.rows = s->gather.rows = rows;
  s->decode.stripes = s->gather.stripes = s->stripes + first;
  s->decode.out = x;
  s->gather.y = y;
  s->gather.sums = there;
  const gptvq_device_grid by_blocks = {(unsigned)gptvq_ceil_div(q->blocks, GPTVQ_ROWS_THREADS),
                                       (unsigned)gptvq_min_size(rows, 4096), GPTVQ_ROWS_THREADS, 0};
  GPTVQ_TRY(device->launch(device, GPTVQ_KERNEL_decode, &by_blocks, &s->decode, err));
  GPTVQ_TRY(gptvq_cuda_multiply_hessian(cuda, rows, n, x, y, err));
  const gptvq_device_grid by_groups = {(unsigned)q->groups, (unsigned)count, GPTVQ_ROWS_THREADS, 0};
  GPTVQ_TRY(device->launch(device, GPTVQ_KERNEL_gather, &by_groups, &s->gather, err));
  return gptvq_device_download(device, count * s->values * sizeof *sums, sums, there, err);
}

static gptvq_status all_pieces(system_product *s, size_t count, const uint32_t *stripes, double *sums,
                               double *products, size_t most, gptvq_error *err) {
  const gptvq_vq *q = s->q;
  for (size_t first = 0; first < count;) {
    const size_t here = gptvq_min_size(most, count - first);
    GPTVQ_TRY(multiply(s, first, here, rows_of(q, here, stripes + first), sums, err));
    for (size_t i = 0; i < here; i++)
      memcpy(products + stripes[first + i] * s->values, sums + i * s->values, s->values * sizeof *sums);
    first += here;
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_cuda_times_system(const gptvq_vq *q, size_t count, const uint32_t *stripes,
                                     const float *directions, double *products, gptvq_error *err) {
  enum { MOST_STRIPES = 65535 }; /* of a grid */
  if (q->factor == NULL) return gptvq_vq_times_system(q, count, stripes, directions, products, err);
  gptvq_cuda *cuda = gptvq_cuda_of(q->backend);
  const size_t height = q->shape.group_rows, n = q->padded, values = q->groups * q->k * q->dim;
  system_product s = {
      .cuda = cuda,
      .q = q,
      .values = values,
      .decode = {.stripe_rows = height, .dim = q->dim, .blocks = (uint32_t)q->blocks, .book_stride = values},
      .gather = {.stripe_rows = height,
                 .dim = q->dim,
                 .k = (uint32_t)q->k,
                 .blocks = (uint32_t)q->blocks,
                 .sums_stride = values}};
  GPTVQ_TRY(gptvq_cuda_hessian(cuda, q->factor, err));
  const size_t each = sizeof *q->index + (q->scale_block ? sizeof(float) : 0),
               whole = q->rows * q->blocks * each + q->stripes * values * sizeof *directions +
                       count * sizeof *stripes + (q->blocks + q->groups + 1) * sizeof(uint32_t),
               rows = gptvq_cuda_piece(cuda, count * height, height,
                                       2 * n * sizeof(float) + values * sizeof *products / height + 1, whole),
               most = gptvq_min_size(MOST_STRIPES, rows / height);
  uint32_t *table = gptvq_alloc(q->blocks + q->groups + 1, sizeof *table);
  double *sums = gptvq_alloc(gptvq_min_size(most, count), values * sizeof *sums);
  gptvq_status status =
      table != NULL && sums != NULL
          ? GPTVQ_OK
          : gptvq_fail_memory(err, "the codebook update on a device", count * values * sizeof *sums);
  if (status == GPTVQ_OK) status = send(&s, count, stripes, directions, table, err);
  if (status == GPTVQ_OK) status = all_pieces(&s, count, stripes, sums, products, most, err);
  free(table);
  free(sums);
  return status;
}
