/* A trellis: tables by EM, whose paths and sums are kernel `viterbi`'s; paths of a batch of columns by kernel
 * `path`, whose rows go through the device in pieces that fit. */
#include "base/memory.h"
#include "cuda/cuda.h"
#include "quant/layer/beam.h"
#include "quant/layer/trellis.h"

_Static_assert(sizeof(gptvq_state_sums) == GPTVQ_STATE_SUMS * sizeof(double), "what the kernels write");
_Static_assert((int)GPTVQ_PATH_COLUMNS == (int)GPTVQ_BATCH, "a batch is what the kernel takes");

/* Blocks of a grid for each processor: more than it has at work at a time. */
enum { BLOCKS = 12 };

/* Blocks with a row each at a time, and what tails one has. */
static size_t grid_blocks(const gptvq_cuda *cuda, const gptvq_vq *q, size_t rows, size_t *tail_bytes) {
  gptvq_device *device = cuda->device;
  size_t free_bytes, total;
  *tail_bytes = 2 * GPTVQ_PATH_PATHS(q->step_bits, q->beam) * GPTVQ_PATH_COLUMNS * sizeof(float);
  if (device->memory(device, &free_bytes, &total, NULL) != GPTVQ_OK) total = 0;
  const size_t most = gptvq_min_size(GPTVQ_CUDA_TAIL_BYTES, total / 8) / *tail_bytes;
  return gptvq_min_size(rows, gptvq_min_size(device->processors * BLOCKS, gptvq_max_size(1, most)));
}

size_t gptvq_cuda_path_bytes(const gptvq_cuda *cuda, const gptvq_vq *q, size_t rows, bool feedback) {
  size_t tail_bytes;
  const size_t blocks = grid_blocks(cuda, q, rows, &tail_bytes);
  return feedback ? blocks * tail_bytes : 0;
}

gptvq_status gptvq_cuda_find_paths(gptvq_cuda *cuda, const gptvq_vq *q, gptvq_kernel_path_arguments *a,
                                   gptvq_error *err) {
  const gptvq_kernel kernel =
      (gptvq_kernel)(GPTVQ_KERNEL_path_2_1 + (q->step_bits - 2) * GPTVQ_PATH_WIDTHS + q->beam - 1);
  size_t tail_bytes;
  const size_t blocks = grid_blocks(cuda, q, a->rows, &tail_bytes);
  if (a->u != NULL) GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_TAILS, blocks, tail_bytes, &a->tails, err));
  const gptvq_device_grid grid = {(unsigned)blocks, 1, 32, GPTVQ_PATH_SHARED(q->step_bits, q->beam)};
  return cuda->device->launch(cuda->device, kernel, &grid, a, err);
}

/* States of the column before a batch, of rows [begin, begin + rows). */
static gptvq_status send_before(gptvq_cuda *cuda, const gptvq_vq *q, size_t begin, size_t rows, size_t column,
                                gptvq_kernel_path_arguments *a, gptvq_error *err) {
  if (column == 0) return GPTVQ_OK;
  uint16_t *before = gptvq_alloc(rows, sizeof *before);
  if (before == NULL) return gptvq_fail_memory(err, "states for the device", rows * sizeof *before);
  for (size_t row = 0; row < rows; row++) before[row] = q->index[(begin + row) * q->blocks + column - 1];
  const gptvq_status status =
      gptvq_cuda_send(cuda, GPTVQ_CUDA_BEFORE, rows, sizeof *before, before, &a->before, err);
  free(before);
  a->bound_stride = 1;
  return status;
}

gptvq_status gptvq_cuda_trellis_assign(gptvq_vq *q, size_t group, gptvq_span batch, gptvq_error *err) {
  gptvq_cuda *cuda = gptvq_cuda_of(q->backend);
  gptvq_device *device = cuda->device;
  const size_t n = q->padded, columns = batch.end - batch.begin;
  const bool feedback = q->options->feedback && q->factor != NULL;
  if (GPTVQ_PATH_SHARED(q->step_bits, q->beam) > device->shared_bytes)
    return gptvq_vq_assign(q, group, batch, err);
  gptvq_kernel_path_arguments a = {.columns = (uint32_t)columns,
                                   .w_stride = columns,
                                   .u_stride = columns,
                                   .state_stride = columns,
                                   .error_stride = columns};
  float *w, *u, *error = NULL;
  uint16_t *state;
  const size_t row_bytes =
      2 * columns * sizeof(float) + columns * sizeof *state + sizeof(float) + sizeof *state;
  const size_t piece =
      gptvq_cuda_piece(cuda, q->rows, 1, row_bytes,
                       gptvq_cuda_path_bytes(cuda, q, q->rows, feedback) +
                           (columns * columns + 3 * columns + GPTVQ_TRELLIS_STATES) * sizeof(float));
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_LOOKUP, columns, sizeof(float), q->lookup + batch.begin,
                            &a.lookup, err));
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_METRIC, columns, sizeof(float), q->metric + batch.begin,
                            &a.metric, err));
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_BOOKS, GPTVQ_TRELLIS_STATES, sizeof(float),
                            gptvq_vq_state_values(q, group), &a.books, err));
  if (feedback) {
    GPTVQ_TRY(gptvq_cuda_send_rows(cuda, GPTVQ_CUDA_SQUARE, columns, columns,
                                   q->factor->u + batch.begin * n + batch.begin, n, &u, err));
    a.u = u;
  }
  for (size_t begin = 0; begin < q->rows;) {
    const size_t rows = gptvq_min_size(piece, q->rows - begin);
    a.rows = rows;
    GPTVQ_TRY(gptvq_cuda_send_rows(cuda, GPTVQ_CUDA_ROWS, rows, columns, q->work + begin * n + batch.begin, n,
                                   &w, err));
    GPTVQ_TRY(
        gptvq_cuda_send_scales(cuda, q, begin, begin + rows, NULL, batch.begin, columns, &a.scale, err));
    GPTVQ_TRY(send_before(cuda, q, begin, rows, batch.begin, &a, err));
    GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_INDEX, rows * columns, sizeof *state, &state, err));
    if (feedback)
      GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_RESULT, rows * columns, sizeof *error, &error, err));
    a.w = w;
    a.state = state;
    a.error = error;
    GPTVQ_TRY(gptvq_cuda_find_paths(cuda, q, &a, err));
    const gptvq_device_rows states = {columns * sizeof *state, rows, columns * sizeof *state,
                                      q->blocks * sizeof *state},
                            errors = {columns * sizeof *error, rows, columns * sizeof *error,
                                      n * sizeof *error};
    GPTVQ_TRY(device->download(device, &states, q->index + begin * q->blocks + batch.begin, state, err));
    if (feedback)
      GPTVQ_TRY(device->download(device, &errors, q->error + begin * n + batch.begin, error, err));
    begin += rows;
  }
  return GPTVQ_OK;
}

/* ---- tables ---- */

typedef struct fitting {
  gptvq_cuda *cuda;
  size_t rows;
  gptvq_kernel_viterbi_arguments a;
  double *total; /* [GPTVQ_STATE_SUMS] */
} fitting;

static gptvq_status sum_paths(void *context, const float values[GPTVQ_TRELLIS_STATES], gptvq_state_sums *out,
                              gptvq_error *err) {
  fitting *f = context;
  gptvq_device *device = f->cuda->device;
  GPTVQ_TRY(gptvq_cuda_send(f->cuda, GPTVQ_CUDA_BOOKS, GPTVQ_TRELLIS_STATES, sizeof *values, values,
                            &f->a.values, err));
  const gptvq_device_grid rows = {(unsigned)f->rows, 1, 32, GPTVQ_VITERBI_SHARED(f->a.columns)},
                          numbers = {(GPTVQ_STATE_SUMS + 31) / 32, 1, 32, 0};
  GPTVQ_TRY(device->launch(device, GPTVQ_KERNEL_viterbi, &rows, &f->a, err));
  const gptvq_kernel_add_states_arguments add = {.rows = f->rows, .sums = f->a.sums, .out = f->total};
  GPTVQ_TRY(device->launch(device, GPTVQ_KERNEL_add_states, &numbers, &add, err));
  return gptvq_device_download(device, sizeof *out, out, f->total, err);
}

static gptvq_status em(gptvq_vq *q, const gptvq_trellis_points *p, unsigned iterations, float *tables,
                       double *loss, gptvq_error *err) {
  gptvq_cuda *cuda = gptvq_cuda_of(q->backend);
  fitting f = {
      .cuda = cuda, .rows = p->rows, .a = {.step_bits = p->step_bits, .columns = (uint32_t)p->columns}};
  const size_t sums = (p->rows + 1) * GPTVQ_STATE_SUMS * sizeof(double),
               points = (p->rows * (p->columns + 1) + p->columns + GPTVQ_TRELLIS_STATES) * sizeof(float);
  (void)gptvq_cuda_piece(cuda, 1, 1, 0, sums + points); /* where memory is short, buffers go */
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_ROWS, p->rows * p->columns, sizeof *p->x, p->x, &f.a.x, err));
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_LOOKUP, p->columns, sizeof(float), p->weight, &f.a.weight, err));
  GPTVQ_TRY(
      gptvq_cuda_send(cuda, GPTVQ_CUDA_SCALE, p->rows, sizeof(float), p->row_weight, &f.a.row_weight, err));
  GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_POINTS, 1, sums, &f.a.sums, err));
  f.total = f.a.sums + p->rows * GPTVQ_STATE_SUMS;
  return gptvq_trellis_fit(p, iterations, sum_paths, &f, tables, loss, err);
}

gptvq_status gptvq_cuda_trellis_tables(gptvq_vq *q, size_t group, gptvq_error *err) {
  const size_t shared = gptvq_cuda_of(q->backend)->device->shared_bytes;
  if (GPTVQ_VITERBI_SHARED(q->group[group].width) > shared) return gptvq_vq_codebooks(q, group, err);
  return gptvq_trellis_tables_by(q, group, em, err);
}
