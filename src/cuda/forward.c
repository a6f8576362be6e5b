/* Device memory: buffers for one window, and all weights and vectors of a sweep, uploaded when they are first
 * asked for. It is held during a sweep only: the solver has other uses for it. */
#include "cuda/forward.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm_bf16.h"
#include "model/workspace.h"

#include <stdint.h>

/* PIECE: weights that are decoded together on their way to the device. */
enum { THREADS = GPTVQ_ROWS_THREADS, PIECE = 1 << 24, MOST_BLOCKS = 32768, ROWS_EACH = 4 };

/* Buffers. SUM: what a half begins with is done with when it has something to add. */
enum { X, NORM, SUM = NORM, WIDE, HEADS, ROUNDED, FLAGS, BUFFERS };

enum { PINNED = 4 }; /* the sweep's, and three of the workspace */

typedef struct kept {
  struct kept *next;
  const void *host; /* what it is a copy of, of this sweep */
  void *device;
} kept;

struct gptvq_cuda_forward {
  gptvq_forward table;
  gptvq_device *device;
  gptvq_cuda_linalg *linalg; /* or NULL */
  kept *kept;
  gptvq_device_buffer buffers[BUFFERS];
  void *pinned[PINNED]; /* memory of the host */
};

/* A half of a window at work. */
typedef struct work {
  gptvq_cuda_forward *f;
  const gptvq_forward_half *half;
  const gptvq_forward_watch *watch; /* NULL: nobody */
  size_t n, hidden;
  bool rounds;
  float *x, *norm, *sum, *wide, *heads; /* on the device, as what follows */
  uint16_t *rounded;
  uint32_t *flags; /* numbers of the stream, and of heads, that are not finite: the CPU does not ask for the
                      latter */
} work;

/* ---- memory ---- */

/* A buffer of so many bytes; sums make room for it. */
static gptvq_status take(gptvq_cuda_forward *f, gptvq_device_buffer *buffer, size_t bytes, gptvq_error *err) {
  for (bool more = f->linalg != NULL;;) {
    gptvq_error making;
    const gptvq_status status = gptvq_device_grow(f->device, buffer, bytes, err);
    if (status != GPTVQ_ERROR_MEMORY || !more) return status;
    const gptvq_status other = gptvq_cuda_linalg_make_room(f->linalg, &more, &making);
    if (other == GPTVQ_OK) continue;
    if (err != NULL) *err = making;
    return other;
  }
}

static gptvq_status reserve(gptvq_cuda_forward *f, size_t number, size_t count, size_t size,
                            gptvq_error *err) {
  return take(f, &f->buffers[number], gptvq_saturated_size(count, size), err);
}

static void prepare(const gptvq_forward *table, void *memory, size_t bytes) {
  gptvq_cuda_forward *f = table->context;
  for (size_t i = 0; i < PINNED; i++) {
    if (f->pinned[i] == memory) return;
    if (f->pinned[i] != NULL) continue;
    if (f->device->pin(f->device, memory, bytes)) f->pinned[i] = memory;
    return;
  }
}

static void drop(const gptvq_forward *table) {
  gptvq_cuda_forward *f = table->context;
  while (f->kept != NULL) {
    kept *k = f->kept;
    f->kept = k->next;
    f->device->free(f->device, k->device);
    free(k);
  }
  for (size_t i = 0; i < BUFFERS; i++) gptvq_device_drop(f->device, &f->buffers[i]);
  if (f->linalg != NULL) gptvq_cuda_linalg_rest(f->linalg);
}

static void rest(const gptvq_forward *table) {
  gptvq_cuda_forward *f = table->context;
  drop(table);
  for (size_t i = 0; i < PINNED; i++) {
    if (f->pinned[i] != NULL) f->device->unpin(f->device, f->pinned[i]);
    f->pinned[i] = NULL;
  }
}

/* The copy of `host`. *fresh: it is still to be filled. */
static gptvq_status keep(gptvq_cuda_forward *f, const void *host, size_t bytes, void **out, bool *fresh,
                         gptvq_error *err) {
  kept *k = f->kept;
  while (k != NULL && k->host != host) k = k->next;
  *fresh = k == NULL;
  if (k == NULL) {
    k = gptvq_alloc(1, sizeof *k);
    if (k == NULL) return gptvq_fail_memory(err, "weights on the device", sizeof *k);
    gptvq_device_buffer buffer = {0};
    const gptvq_status status = take(f, &buffer, bytes, err);
    if (status != GPTVQ_OK) {
      free(k);
      return status;
    }
    k->device = buffer.memory;
    k->host = host;
    k->next = f->kept;
    f->kept = k;
  }
  *out = k->device;
  return GPTVQ_OK;
}

static gptvq_status keep_vector(gptvq_cuda_forward *f, const float *host, size_t count, const float **out,
                                gptvq_error *err) {
  const size_t bytes = gptvq_saturated_size(count, sizeof *host);
  void *device = NULL;
  bool fresh = false;
  *out = NULL;
  if (host == NULL) return GPTVQ_OK;
  GPTVQ_TRY(keep(f, host, bytes, &device, &fresh, err));
  *out = device;
  return fresh ? gptvq_device_upload(f->device, bytes, device, host, err) : GPTVQ_OK;
}

typedef struct decode_job {
  const gptvq_linear *linear;
  size_t first;
  float *values;
  uint16_t *bits; /* or NULL: they stay fp32 */
} decode_job;

static void decode_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const decode_job *job = context;
  const size_t cols = job->linear->cols;
  gptvq_linear_decode_rows(job->linear, job->first + begin, job->first + end, job->values + begin * cols);
  if (job->bits != NULL)
    gptvq_to_bf16((end - begin) * cols, job->values + begin * cols, job->bits + begin * cols);
}

/* Weights that are not stored as the device takes them, piece by piece. */
static gptvq_status upload_decoded(gptvq_cuda_forward *f, const gptvq_linear *linear, bool rounds, char *to,
                                   gptvq_error *err) {
  enum { GRAIN = 32 }; /* rows */
  const size_t cols = linear->cols, size = rounds ? sizeof(uint16_t) : sizeof(float),
               most = gptvq_min_size(linear->rows, gptvq_round_up(gptvq_max_size(1, PIECE / cols), GRAIN)),
               bytes =
                   gptvq_saturated_size(most, gptvq_saturated_size(cols, sizeof(float) + sizeof(uint16_t)));
  float *values = gptvq_alloc(bytes, 1);
  if (values == NULL) return gptvq_fail_memory(err, linear->name, bytes);
  decode_job job = {linear, 0, values, rounds ? (uint16_t *)(void *)(values + most * cols) : NULL};
  gptvq_status status = GPTVQ_OK;
  for (; job.first < linear->rows && status == GPTVQ_OK; job.first += most) {
    const size_t count = gptvq_min_size(most, linear->rows - job.first);
    gptvq_parallel_for(count, GRAIN, decode_rows, &job);
    status = gptvq_device_upload(f->device, count * cols * size, to + job.first * cols * size,
                                 rounds ? (void *)job.bits : values, err);
  }
  free(values);
  return status;
}

static gptvq_status keep_linear(const work *w, const gptvq_linear *linear, const void **out,
                                gptvq_error *err) {
  const size_t values = linear->rows * linear->cols, size = w->rounds ? sizeof(uint16_t) : sizeof(float);
  void *device = NULL;
  bool fresh = false;
  GPTVQ_TRY(keep(w->f, linear->is_packed ? linear->packed.indices : linear->weights, values * size, &device,
                 &fresh, err));
  *out = device;
  if (!fresh) return GPTVQ_OK;
  if (!linear->is_packed && linear->dtype == (w->rounds ? GPTVQ_BF16 : GPTVQ_F32))
    return gptvq_device_upload(w->f->device, values * size, device, linear->weights, err);
  return upload_decoded(w->f, linear, w->rounds, device, err);
}

/* ---- steps ---- */

static gptvq_device_grid grid_of(size_t cols, size_t rows) {
  return (gptvq_device_grid){(unsigned)gptvq_ceil_div(cols, THREADS),
                             (unsigned)gptvq_min_size(gptvq_ceil_div(rows, ROWS_EACH), MOST_BLOCKS), THREADS,
                             0};
}

/* y = `parts` vectors in each row of x, normalised by the gain [size]; NULL: x, looked at. */
static gptvq_status normalise(const work *w, const float *gain, size_t parts, size_t size, const float *x,
                              size_t ldx, float *y, size_t ldy, uint32_t *flag, gptvq_error *err) {
  gptvq_kernel_norm_rows_arguments a = {.rows = w->n,
                                        .parts = parts,
                                        .size = size,
                                        .x = x,
                                        .x_stride = ldx,
                                        .eps = (float)w->half->model->config.rms_norm_eps,
                                        .y = y,
                                        .y_stride = ldy,
                                        .bad = flag};
  GPTVQ_TRY(keep_vector(w->f, gain, size, &a.gain, err));
  const gptvq_device_grid grid = {
      (unsigned)gptvq_min_size(gptvq_ceil_div(w->n * parts, THREADS / 16), MOST_BLOCKS), 1, THREADS, 0};
  return w->f->device->launch(w->f->device, GPTVQ_KERNEL_norm_rows, &grid, &a, err);
}

static gptvq_status add_rows(const work *w, size_t cols, float scale, const float *x, size_t ldx, float *y,
                             size_t ldy, gptvq_error *err) {
  const gptvq_kernel_add_rows_arguments a = {w->n, cols, scale, x, ldx, y, ldy};
  const gptvq_device_grid grid = grid_of(cols, w->n);
  return w->f->device->launch(w->f->device, GPTVQ_KERNEL_add_rows, &grid, &a, err);
}

/* w->rounded = x[n × cols], where inputs of products are rounded */
static gptvq_status round_inputs(const work *w, size_t cols, const float *x, size_t ldx, gptvq_error *err) {
  const gptvq_kernel_rows_to_bf16_arguments a = {w->n, cols, x, ldx, w->rounded};
  const gptvq_device_grid grid = grid_of(cols, w->n);
  return w->rounds ? w->f->device->launch(w->f->device, GPTVQ_KERNEL_rows_to_bf16, &grid, &a, err) : GPTVQ_OK;
}

/* y[n × ldy] = the linear of x[n × ldx], after round_inputs */
static gptvq_status multiply(const work *w, const gptvq_linear *linear, const float *x, size_t ldx, float *y,
                             size_t ldy, gptvq_error *err) {
  const float *bias;
  gptvq_device_product p = {.transpose_b = true,
                            .precision = w->rounds ? GPTVQ_PRODUCT_BF16 : GPTVQ_PRODUCT_FP32,
                            .m = w->n,
                            .n = linear->rows,
                            .k = linear->cols,
                            .alpha = 1.0f,
                            .a = w->rounds ? (const void *)w->rounded : x,
                            .lda = w->rounds ? linear->cols : ldx,
                            .ldb = linear->cols,
                            .c = y,
                            .ldc = ldy};
  GPTVQ_TRY(keep_linear(w, linear, &p.b, err));
  GPTVQ_TRY(w->f->device->product(w->f->device, &p, err));
  GPTVQ_TRY(keep_vector(w->f, linear->bias, linear->rows, &bias, err));
  return bias != NULL ? add_rows(w, linear->rows, 1.0f, bias, 0, y, ldy, err) : GPTVQ_OK;
}

/* The group's linears, which all read x[n × ldx], into y[n × its width]. */
static gptvq_status apply(const work *w, const gptvq_linear_group *group, const float *x, size_t ldx,
                          float *y, gptvq_error *err) {
  const gptvq_linear *linears = w->half->block->linears;
  GPTVQ_TRY(round_inputs(w, linears[group->linear[0]].cols, x, ldx, err));
  for (size_t i = 0; i < group->count; i++)
    GPTVQ_TRY(multiply(w, &linears[group->linear[i]], x, ldx, y + group->offset[i], group->width, err));
  return GPTVQ_OK;
}

/* Shows what linears are about to read, x[n × ldx] on the device, under an address of the host at the same
 * stride; there, too, where somebody reads there. */
static gptvq_status show(const work *w, const size_t *linears, size_t count, const float *x, size_t ldx,
                         float *host, gptvq_error *err) {
  const gptvq_forward_watch *watch = w->watch;
  gptvq_cuda_linalg *linalg = w->f->linalg;
  if (watch == NULL) return GPTVQ_OK;
  if (linalg == NULL || watch->reads(watch->context, linears[0])) {
    const size_t row = w->half->block->linears[linears[0]].cols * sizeof *x;
    const gptvq_device_rows rows = {row, w->n, ldx * sizeof *x, ldx * sizeof *x};
    prepare(&w->f->table, host, w->n * ldx * sizeof *x);
    GPTVQ_TRY(w->f->device->download(w->f->device, &rows, host, x, err));
  }
  if (linalg != NULL) gptvq_cuda_linalg_lend(linalg, host, w->n, ldx, x);
  const gptvq_status status =
      watch->capture(watch->context, w->half->block, linears, count, host, w->n, ldx, err);
  if (linalg != NULL) gptvq_cuda_linalg_take_back(linalg);
  return status;
}

static gptvq_status look(const work *w, bool *fine, gptvq_error *err) {
  uint32_t flag = 0;
  GPTVQ_TRY(gptvq_device_download(w->f->device, sizeof flag, &flag, w->flags, err));
  *fine = flag == 0;
  return GPTVQ_OK;
}

/* ---- halves ---- */

/* Memory, and x on the device. */
static gptvq_status begin(work *w, const float *x, gptvq_error *err) {
  gptvq_cuda_forward *f = w->f;
  const gptvq_block *block = w->half->block;
  const bool mlp = w->half->mlp;
  const size_t n = w->n, inner = block->linears[mlp ? block->mlps[0].down : block->o].cols,
               width = mlp ? block->mlps[0].input.width : block->qkv.width;
  GPTVQ_TRY(reserve(f, X, n, gptvq_saturated_size(w->hidden, sizeof(float)), err));
  GPTVQ_TRY(reserve(f, NORM, n, gptvq_saturated_size(w->hidden, sizeof(float)), err));
  GPTVQ_TRY(reserve(f, WIDE, n, gptvq_saturated_size(width, sizeof(float)), err));
  if (!mlp) GPTVQ_TRY(reserve(f, HEADS, n, gptvq_saturated_size(inner, sizeof(float)), err));
  if (w->rounds) GPTVQ_TRY(reserve(f, ROUNDED, n, gptvq_max_size(inner, w->hidden) * sizeof(uint16_t), err));
  GPTVQ_TRY(reserve(f, FLAGS, 2, sizeof(uint32_t), err));
  w->x = f->buffers[X].memory;
  w->norm = f->buffers[NORM].memory;
  w->sum = f->buffers[SUM].memory;
  w->wide = f->buffers[WIDE].memory;
  w->heads = f->buffers[HEADS].memory;
  w->rounded = f->buffers[ROUNDED].memory;
  w->flags = f->buffers[FLAGS].memory;
  GPTVQ_TRY(f->device->set(f->device, w->flags, 0, 2 * sizeof *w->flags, err));
  return gptvq_device_upload(f->device, n * w->hidden * sizeof *x, w->x, x, err);
}

/* w->norm = what the half reads */
static gptvq_status normalise_inputs(const work *w, gptvq_error *err) {
  const gptvq_forward_half *h = w->half;
  bool fine;
  GPTVQ_TRY(normalise(w, h->block->norms[h->mlp ? GPTVQ_NORM_MLP : GPTVQ_NORM_ATTENTION], 1, w->hidden, w->x,
                      w->hidden, w->norm, w->hidden, w->flags, err));
  GPTVQ_TRY(look(w, &fine, err));
  return fine ? GPTVQ_OK : gptvq_fail_half_inputs(h->model, h->block, h->mlp, err);
}

/* q | k | v in w->wide: norms of heads, rotation, attention into w->heads */
static gptvq_status attend(const work *w, gptvq_error *err) {
  gptvq_device *d = w->f->device;
  const gptvq_block *block = w->half->block;
  const gptvq_config *c = &w->half->model->config;
  const gptvq_attention *how = &block->attention;
  const gptvq_rotation_tables *tables = &w->half->workspace->rope[block->rope];
  const size_t width = block->qkv.width, positions = w->half->workspace->max_positions,
               heads[2] = {c->heads, c->kv_heads};
  const float *gains[2] = {block->norms[GPTVQ_NORM_Q], block->norms[GPTVQ_NORM_K]};
  for (size_t i = 0; i < 2; i++) {
    float *x = w->wide + i * c->heads * c->head_dim;
    const size_t parts = how->wide_norms ? 1 : heads[i];
    if (gains[i] != NULL)
      GPTVQ_TRY(normalise(w, gains[i], parts, heads[i] * c->head_dim / parts, x, width, x, width,
                          w->flags + 1, err));
  }
  if (tables->half > 0) {
    gptvq_kernel_rotate_rows_arguments a = {.rows = w->n,
                                            .stride = width,
                                            .heads = (uint32_t)(c->heads + c->kv_heads),
                                            .dim = (uint32_t)c->head_dim,
                                            .half = (uint32_t)tables->half,
                                            .neighbours = how->neighbours,
                                            .x = w->wide};
    GPTVQ_TRY(keep_vector(w->f, tables->cosines, positions * tables->half, &a.cosines, err));
    GPTVQ_TRY(keep_vector(w->f, tables->sines, positions * tables->half, &a.sines, err));
    const gptvq_device_grid grid = grid_of((c->heads + c->kv_heads) * tables->half, w->n);
    GPTVQ_TRY(d->launch(d, GPTVQ_KERNEL_rotate_rows, &grid, &a, err));
  }
  const gptvq_kernel_attend_arguments a = {.n = w->n,
                                           .window = how->window,
                                           .heads = (uint32_t)c->heads,
                                           .kv_heads = (uint32_t)c->kv_heads,
                                           .dim = (uint32_t)c->head_dim,
                                           .scale = how->scale,
                                           .qkv = w->wide,
                                           .stride = width,
                                           .out = w->heads};
  const gptvq_device_grid grid = {(unsigned)gptvq_ceil_div(w->n, GPTVQ_ATTEND_ROWS), (unsigned)c->heads,
                                  GPTVQ_ATTEND_THREADS, GPTVQ_ATTEND_BYTES(c->head_dim)};
  return d->launch(d, GPTVQ_KERNEL_attend, &grid, &a, err);
}

/* From the last linear's input on: x += what it gives; x back to the host. */
static gptvq_status finish(const work *w, const float *input, size_t ld, float *x, gptvq_error *err) {
  const gptvq_forward_half *h = w->half;
  const gptvq_block *block = h->block;
  const float *gain = block->norms[h->mlp ? GPTVQ_NORM_MLP_OUT : GPTVQ_NORM_ATTENTION_OUT];
  const gptvq_linear_group output = {
      .count = 1, .linear = {h->mlp ? block->mlps[0].down : block->o}, .width = w->hidden};
  GPTVQ_TRY(apply(w, &output, input, ld, w->sum, err));
  if (gain != NULL) {
    bool fine;
    GPTVQ_TRY(normalise(w, gain, 1, w->hidden, w->sum, w->hidden, w->sum, w->hidden, w->flags, err));
    GPTVQ_TRY(look(w, &fine, err));
    if (!fine) return gptvq_fail_numbers(h->model, block, h->mlp ? "the MLP" : "the attention", err);
  }
  GPTVQ_TRY(add_rows(w, w->hidden, (float)h->model->config.residual_scale, w->sum, w->hidden, w->x, w->hidden,
                     err));
  return gptvq_device_download(w->f->device, w->n * w->hidden * sizeof *x, x, w->x, err);
}

static gptvq_status run_attention(const work *w, float *x, gptvq_error *err) {
  const gptvq_block *block = w->half->block;
  const size_t heads = block->linears[block->o].cols;
  gptvq_workspace *host = w->half->workspace;
  GPTVQ_TRY(show(w, block->qkv.linear, block->qkv.count, w->norm, w->hidden, host->norm, err));
  if (w->half->stop == GPTVQ_STOP_AT_INPUT) return GPTVQ_OK;
  GPTVQ_TRY(apply(w, &block->qkv, w->norm, w->hidden, w->wide, err));
  GPTVQ_TRY(attend(w, err));
  GPTVQ_TRY(show(w, &block->o, 1, w->heads, heads, host->heads, err));
  return w->half->stop == GPTVQ_RUN_ALL ? finish(w, w->heads, heads, x, err) : GPTVQ_OK;
}

static gptvq_status run_mlp(const work *w, float *x, gptvq_error *err) {
  gptvq_device *d = w->f->device;
  const gptvq_mlp *mlp = &w->half->block->mlps[0];
  const size_t width = mlp->input.width;
  gptvq_workspace *host = w->half->workspace;
  GPTVQ_TRY(show(w, mlp->input.linear, mlp->input.count, w->norm, w->hidden, host->norm, err));
  if (w->half->stop == GPTVQ_STOP_AT_INPUT) return GPTVQ_OK;
  GPTVQ_TRY(apply(w, &mlp->input, w->norm, w->hidden, w->wide, err));
  const gptvq_kernel_gate_rows_arguments a = {w->n, width / 2, w->wide};
  const gptvq_device_grid grid = grid_of(width / 2, w->n);
  GPTVQ_TRY(d->launch(d, GPTVQ_KERNEL_gate_rows, &grid, &a, err));
  GPTVQ_TRY(show(w, &mlp->down, 1, w->wide, width, host->wide, err));
  return w->half->stop == GPTVQ_RUN_ALL ? finish(w, w->wide, width, x, err) : GPTVQ_OK;
}

static work work_of(const gptvq_forward *table, const gptvq_forward_half *half, size_t n) {
  return (work){.f = table->context,
                .half = half,
                .n = n,
                .hidden = half->model->config.hidden,
                .rounds = half->model->compute == GPTVQ_COMPUTE_BF16};
}

/* shows: what is captured has to fit into the workspace */
static gptvq_status check_rows(const gptvq_forward_half *half, size_t n, bool shows, gptvq_error *err) {
  const size_t positions = half->workspace->max_positions,
               most = shows ? gptvq_min_size(half->workspace->max_rows, positions) : positions;
  if (n <= most) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                    "block %zu: %zu tokens in one call, but the workspace is for %zu", half->block->index, n,
                    most);
}

static gptvq_status run(const gptvq_forward *table, const gptvq_forward_half *half, size_t n, float *x,
                        const gptvq_forward_watch *watch, gptvq_error *err) {
  work w = work_of(table, half, n);
  w.watch = watch;
  GPTVQ_TRY(check_rows(half, n, watch != NULL, err));
  GPTVQ_TRY(begin(&w, x, err));
  GPTVQ_TRY(normalise_inputs(&w, err));
  return half->mlp ? run_mlp(&w, x, err) : run_attention(&w, x, err);
}

static gptvq_status output(const gptvq_forward *table, const gptvq_forward_half *half, size_t n,
                           const float *input, float *x, gptvq_error *err) {
  work w = work_of(table, half, n);
  const gptvq_block *block = half->block;
  const size_t cols = block->linears[half->mlp ? block->mlps[0].down : block->o].cols;
  GPTVQ_TRY(check_rows(half, n, false, err));
  GPTVQ_TRY(begin(&w, x, err));
  float *to = half->mlp ? w.wide : w.heads;
  GPTVQ_TRY(gptvq_device_upload(w.f->device, n * cols * sizeof *input, to, input, err));
  return finish(&w, to, cols, x, err);
}

static gptvq_status head(const gptvq_forward *table, const gptvq_model *model, size_t n, const float *norm,
                         float *logits, gptvq_error *err) {
  gptvq_cuda_forward *f = table->context;
  const gptvq_linear *linear = &model->head;
  const size_t row = linear->cols * sizeof *norm, logit_row = linear->rows * sizeof *logits;
  work w = {.f = f, .n = n, .rounds = model->compute == GPTVQ_COMPUTE_BF16};
  GPTVQ_TRY(reserve(f, NORM, n, row, err));
  GPTVQ_TRY(reserve(f, WIDE, n, logit_row, err));
  if (w.rounds) GPTVQ_TRY(reserve(f, ROUNDED, n, linear->cols * sizeof *w.rounded, err));
  w.norm = f->buffers[NORM].memory;
  w.wide = f->buffers[WIDE].memory;
  w.rounded = f->buffers[ROUNDED].memory;
  GPTVQ_TRY(gptvq_device_upload(f->device, n * row, w.norm, norm, err));
  GPTVQ_TRY(round_inputs(&w, linear->cols, w.norm, linear->cols, err));
  GPTVQ_TRY(multiply(&w, linear, w.norm, linear->cols, w.wide, linear->rows, err));
  return gptvq_device_download(f->device, n * logit_row, logits, w.wide, err);
}

/* ---- the whole ---- */

const char *gptvq_cuda_forward_lacks(const gptvq_model *model, const gptvq_block *block, bool mlp) {
  if (model->compute == GPTVQ_COMPUTE_INT8) return "int8 products";
  if (block == NULL) return model->head.codes != NULL ? "int8 products" : NULL;
  const gptvq_attention *how = &block->attention;
  if (mlp && gptvq_block_routes(block)) return "experts";
  if (mlp) return block->activation != GPTVQ_SILU ? "gates other than SiLU" : NULL;
  if (block->delta != NULL) return "delta nets";
  if (model->config.latent.kv_rank > 0) return "latent attention";
  if (block->output_gate) return "gated attention";
  if (how->cap > 0.0f) return "attention with capped scores";
  if (how->sinks != NULL) return "attention with sinks";
  if (how->query_growth > 0.0f) return "attention with growing queries";
  return model->config.head_dim > GPTVQ_ATTEND_DIM ? "attention with heads of more than 128 values" : NULL;
}

static size_t number_bytes(const gptvq_model *model) {
  return model->compute == GPTVQ_COMPUTE_BF16 ? sizeof(uint16_t) : sizeof(float);
}

size_t gptvq_cuda_forward_bytes(const gptvq_model *model, const gptvq_block *block, size_t n, size_t mlp_n,
                                size_t ways) {
  const bool rounds = model->compute == GPTVQ_COMPUTE_BF16;
  const size_t hidden = model->config.hidden, rows[2] = {n, mlp_n};
  size_t weights = 0, stream = 0, wide = 0, heads = 0, widest = 0;
  for (size_t half = 0; half < 2; half++) {
    if (gptvq_cuda_forward_lacks(model, block, half == 1) != NULL) continue;
    const gptvq_linear_group *first = half == 1 ? &block->mlps[0].input : &block->qkv;
    const gptvq_linear *last = &block->linears[half == 1 ? block->mlps[0].down : block->o];
    for (size_t i = 0; i < first->count; i++) {
      const gptvq_linear *linear = &block->linears[first->linear[i]];
      weights = gptvq_saturated_sum(weights, gptvq_saturated_size(linear->rows, linear->cols));
    }
    weights = gptvq_saturated_sum(weights, gptvq_saturated_size(last->rows, last->cols));
    stream = gptvq_max_size(stream, gptvq_saturated_size(rows[half], hidden));
    wide = gptvq_max_size(wide, gptvq_saturated_size(rows[half], first->width));
    widest = gptvq_max_size(widest, gptvq_saturated_size(rows[half], gptvq_max_size(hidden, last->cols)));
    if (half == 0) heads = gptvq_saturated_size(n, last->cols);
  }
  if (weights == 0) return 0;
  const size_t numbers = gptvq_saturated_sum(gptvq_saturated_sum(gptvq_saturated_size(stream, 2), wide),
                                             gptvq_saturated_sum(heads, widest));
  size_t bytes = gptvq_saturated_size(weights, ways * number_bytes(model));
  bytes = gptvq_saturated_sum(bytes, gptvq_saturated_size(numbers, sizeof(float)));
  return gptvq_saturated_sum(bytes, rounds ? gptvq_saturated_size(widest, sizeof(uint16_t)) : 0);
}

size_t gptvq_cuda_head_bytes(const gptvq_model *model, size_t n) {
  const gptvq_linear *head = &model->head;
  if (gptvq_cuda_forward_lacks(model, NULL, false) != NULL) return 0;
  const size_t weights =
                   gptvq_saturated_size(gptvq_saturated_size(head->rows, head->cols), number_bytes(model)),
               row = gptvq_saturated_size(gptvq_saturated_sum(head->rows, 2 * head->cols), sizeof(float));
  return gptvq_saturated_sum(weights, gptvq_saturated_size(n, row));
}

gptvq_status gptvq_cuda_forward_create(gptvq_device *device, gptvq_cuda_linalg *linalg,
                                       gptvq_cuda_forward **out, gptvq_error *err) {
  gptvq_cuda_forward *f = *out = gptvq_alloc_zero(1, sizeof *f);
  if (f == NULL) return gptvq_fail_memory(err, "forward passes on a device", sizeof *f);
  f->table = (gptvq_forward){.lacks = gptvq_cuda_forward_lacks,
                             .run = run,
                             .output = output,
                             .head = head,
                             .prepare = prepare,
                             .drop = drop,
                             .rest = rest,
                             .context = f};
  f->device = device;
  f->linalg = linalg;
  return GPTVQ_OK;
}

const gptvq_forward *gptvq_cuda_forward_table(const gptvq_cuda_forward *forward) { return &forward->table; }

void gptvq_cuda_forward_destroy(gptvq_cuda_forward *f) {
  if (f == NULL) return;
  rest(&f->table);
  free(f);
}
