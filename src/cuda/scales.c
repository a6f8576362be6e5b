/* Row scales of a trellis: the systems of a slab of rows are made here, of which every row's is solved on the
 * CPU. */
#include "base/memory.h"
#include "cuda/cuda.h"
#include "quant/layer/trellis.h"

typedef struct slab {
  gptvq_cuda *cuda;
  const gptvq_vq *q;
  size_t first, rows;
  float *values, *products;    /* [rows × padded], the device's, likewise what follows */
  const uint32_t *group_first; /* [groups + 1], and 0, padded: the whole row */
  const double *ridge;         /* [padded] */
  double *matrix, *side, *constant;
} slab;

/* Where columns have their values in the books, then where groups begin, the row, and ridges. */
static gptvq_status send_columns(slab *s, const uint32_t **book_of, gptvq_error *err) {
  const gptvq_vq *q = s->q;
  const size_t n = q->padded, count = n + q->groups + 3;
  uint32_t *table = gptvq_alloc(count, sizeof *table), *there;
  double *ridge = gptvq_alloc(n, sizeof *ridge);
  gptvq_status status;
  GPTVQ_TRY_GOTO(table != NULL && ridge != NULL
                     ? GPTVQ_OK
                     : gptvq_fail_memory(err, "row scales on a device", count * sizeof *ridge));
  for (size_t g = 0; g < q->groups; g++) {
    table[n + g] = (uint32_t)q->group[g].start;
    for (size_t c = q->group[g].start; c < q->group[g].start + q->group[g].width; c++)
      table[c] = (uint32_t)(g * GPTVQ_TRELLIS_STATES);
  }
  table[n + q->groups] = table[count - 1] = (uint32_t)n;
  table[count - 2] = 0;
  for (size_t c = 0; c < n; c++) ridge[c] = gptvq_factor_ridge(q->factor, c);
  GPTVQ_TRY_GOTO(gptvq_cuda_send(s->cuda, GPTVQ_CUDA_COLUMNS, count, sizeof *table, table, &there, err));
  GPTVQ_TRY_GOTO(gptvq_cuda_send(s->cuda, GPTVQ_CUDA_METRIC, n, sizeof *ridge, ridge, &s->ridge, err));
  *book_of = there;
  s->group_first = there + n;
done:
  free(table);
  free(ridge);
  return status;
}

/* out = sums over parts of x and products */
static gptvq_status add_up(const slab *s, const float *x, uint32_t count, uint32_t ways,
                           const uint32_t *start, const double *ridge, double *out, size_t out_stride,
                           gptvq_error *err) {
  const gptvq_kernel_dots_arguments a = {.rows = s->rows,
                                         .stride = s->q->padded,
                                         .count = count,
                                         .ways = ways,
                                         .x = x,
                                         .y = s->products,
                                         .start = start,
                                         .ridge = ridge,
                                         .out = out,
                                         .out_stride = out_stride};
  const gptvq_device_grid grid = {(unsigned)gptvq_ceil_div(s->rows * count * ways, GPTVQ_ROWS_THREADS), 1,
                                  GPTVQ_ROWS_THREADS, 0};
  return s->cuda->device->launch(s->cuda->device, GPTVQ_KERNEL_dots, &grid, &a, err);
}

/* The weights' products with H: made once, and kept by the host. */
static gptvq_status bring_products(slab *s, const float *target, gptvq_error *err) {
  const size_t n = s->q->padded, count = s->rows * n;
  float *kept = s->q->target_product + s->first * n;
  if (s->q->has_product)
    return gptvq_cuda_send(s->cuda, GPTVQ_CUDA_RESULT, count, sizeof *kept, kept, &s->products, err);
  GPTVQ_TRY(gptvq_cuda_reserve(s->cuda, GPTVQ_CUDA_RESULT, count, sizeof *kept, &s->products, err));
  GPTVQ_TRY(gptvq_cuda_multiply_hessian(s->cuda, s->rows, n, target, s->products, err));
  return gptvq_device_download(s->cuda->device, count * sizeof *kept, kept, s->products, err);
}

/* Weights' products with H, their constants; values of the tables, and right sides. */
static gptvq_status begin(slab *s, gptvq_error *err) {
  gptvq_cuda *cuda = s->cuda;
  const gptvq_vq *q = s->q;
  const size_t n = q->padded, groups = q->groups, system = groups * groups + groups + 1;
  gptvq_kernel_decode_arguments a = {.rows = s->rows,
                                     .stripe_rows = q->shape.group_rows,
                                     .dim = 1,
                                     .blocks = (uint32_t)q->blocks,
                                     .book_stride = groups * GPTVQ_TRELLIS_STATES};
  const float *target;
  uint16_t *state;
  double *memory;
  GPTVQ_TRY(send_columns(s, &a.book_of, err));
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_BOOKS, groups * GPTVQ_TRELLIS_STATES, sizeof(float),
                            q->state_values, &a.books, err));
  GPTVQ_TRY(gptvq_cuda_target(cuda, q, s->first, s->rows, &target, err));
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_INDEX, s->rows * n, sizeof *state, q->index + s->first * n,
                            &state, err));
  GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_ROWS, s->rows * n, sizeof *s->values, &s->values, err));
  GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_LOSS, s->rows, system * sizeof *memory, &memory, err));
  s->matrix = memory;
  s->side = memory + s->rows * groups * groups;
  s->constant = s->side + s->rows * groups;
  GPTVQ_TRY(bring_products(s, target, err));
  GPTVQ_TRY(add_up(s, target, 1, 1, s->group_first + groups + 1, NULL, s->constant, 1, err));
  const gptvq_device_grid grid = {(unsigned)gptvq_ceil_div(q->blocks, GPTVQ_ROWS_THREADS),
                                  (unsigned)gptvq_min_size(s->rows, 4096), GPTVQ_ROWS_THREADS, 0};
  a.index = state;
  a.out = s->values;
  GPTVQ_TRY(cuda->device->launch(cuda->device, GPTVQ_KERNEL_decode, &grid, &a, err));
  return add_up(s, s->values, (uint32_t)groups, 4, s->group_first, NULL, s->side, groups, err);
}

/* The matrices' row of group g. */
static gptvq_status add_group(slab *s, size_t g, gptvq_error *err) {
  const gptvq_vq *q = s->q;
  const size_t n = q->padded, start = q->group[g].start, width = q->group[g].width;
  const gptvq_device_product product = {.m = s->rows,
                                        .n = start + width,
                                        .k = width,
                                        .alpha = 1.0f,
                                        .beta = 0.0f,
                                        .a = s->values + start,
                                        .lda = n,
                                        .b = s->cuda->factor.h + start * n,
                                        .ldb = n,
                                        .c = s->products,
                                        .ldc = n};
  GPTVQ_TRY(s->cuda->device->product(s->cuda->device, &product, err));
  return add_up(s, s->values, (uint32_t)g + 1, 4, s->group_first, s->ridge, s->matrix + g * q->groups,
                q->groups * q->groups, err);
}

static gptvq_status make_systems(gptvq_vq *q, size_t first, size_t count, double *constant, double *matrix,
                                 double *side, gptvq_error *err) {
  gptvq_cuda *cuda = gptvq_cuda_of(q->backend);
  gptvq_device *device = cuda->device;
  const size_t n = q->padded, groups = q->groups,
               row_bytes = n * (3 * sizeof(float) + sizeof(uint16_t)) +
                           (groups * groups + groups + 1) * sizeof(double) + groups * sizeof(float),
               others = n * (sizeof(double) + 2 * sizeof(uint32_t)) +
                        groups * (GPTVQ_TRELLIS_STATES + 2) * sizeof(float) + 3 * sizeof(uint32_t);
  GPTVQ_TRY(gptvq_cuda_hessian(cuda, q->factor, err));
  const size_t most = gptvq_cuda_piece(cuda, count, 1, row_bytes, others);
  for (size_t done = 0; done < count;) {
    slab s = {.cuda = cuda, .q = q, .first = first + done, .rows = gptvq_min_size(most, count - done)};
    GPTVQ_TRY(begin(&s, err));
    for (size_t g = 0; g < groups; g++) GPTVQ_TRY(add_group(&s, g, err));
    GPTVQ_TRY(gptvq_device_download(device, s.rows * groups * groups * sizeof *matrix,
                                    matrix + done * groups * groups, s.matrix, err));
    GPTVQ_TRY(
        gptvq_device_download(device, s.rows * groups * sizeof *side, side + done * groups, s.side, err));
    GPTVQ_TRY(gptvq_device_download(device, s.rows * sizeof *constant, constant + done, s.constant, err));
    done += s.rows;
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_cuda_update_scales(gptvq_vq *q, double *loss, gptvq_error *err) {
  return gptvq_trellis_update_scales_by(q, make_systems, loss, err);
}
