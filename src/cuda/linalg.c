/* Device memory: the sums, each as long as it is not settled, and their totals over groups of tokens; a panel
 * of a product; slabs of inputs. Where it does not suffice, the sums that were used longest ago go back to
 * the host, which goes on with their totals, and slabs get smaller. */
#include "cuda/linalg.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/rows_product.h"

#include <stdint.h>
#include <string.h>

/* PANEL: rows of a product before its sums are added. SLAB: tokens that are uploaded together, a multiple of
 * every chunk. ROUNDED_CHUNK: tokens whose products are added in fp32 where inputs are bf16, as the CPU's.
 * PIECE: bytes of a triangle that come back together. SLAB, LEAST_SLAB: rows, too, that are mapped together,
 * at most and at least. */
enum { THREADS = 256, PANEL = 2048, SLAB = 2048, LEAST_SLAB = 32, ROUNDED_CHUNK = 1024, PIECE = 8 << 20 };
/* Buffers, in the order in which they are reserved. */
enum { PRODUCT, INPUTS, OTHERS, BUFFERS };

/* Sums that are kept. */
typedef struct kept {
  struct kept *next; /* used longer ago */
  gptvq_sum sum;     /* whose: the host's arrays; total NULL before a group has ended */
  /* on the device, laid out as the host's: [rows × cols], with `upper` [(cols + 1) × cols]; NULL: not there
   */
  double *part;
  double *total; /* with `upper` part; NULL: the device has none (yet) */
  bool adds;     /* part is not zeros */
  bool on_host;  /* as the device had no room, some of these sums is the host's, and so is the total */
} kept;

typedef struct lent {
  const float *host, *device; /* [rows × ld] each; NULL: none */
  size_t rows, ld;
} lent;

struct gptvq_cuda_linalg {
  gptvq_linalg table;
  gptvq_device *device;
  bool rounds;
  kept *latest;
  gptvq_device_buffer buffers[BUFFERS];
  lent lent;
  gptvq_device_buffer map; /* a copy of map_host[map_cols × map_cols] (NULL: of none) */
  const float *map_host;
  size_t map_cols;
  gptvq_device_buffer remembered; /* [remembered_rows × remembered_cols], as they came */
  size_t remembered_rows, remembered_cols;
};

static gptvq_cuda_linalg *of(const gptvq_linalg *table) { return table->context; }

/* ---- sums that are kept ---- */

static kept **find(gptvq_cuda_linalg *l, const void *host) {
  for (kept **at = &l->latest; *at != NULL; at = &(*at)->next)
    if ((*at)->sum.part == host) return at;
  return NULL;
}

static void free_arrays(gptvq_device *device, kept *k) {
  if (k->total != k->part) device->free(device, k->total);
  device->free(device, k->part);
  k->total = k->part = NULL;
}

static void remove_at(gptvq_cuda_linalg *l, kept **at) {
  kept *k = *at;
  *at = k->next;
  free_arrays(l->device, k);
  free(k);
}

/* What of row r is copied: with `upper` of the part from the diagonal on, of the total, whose rows begin with
 * 1, what stands before it. */
typedef enum extent { WHOLE, FROM_DIAGONAL, BEFORE_DIAGONAL } extent;

/* Rows of sums on their way to the host's. */
typedef struct arrived {
  extent what;
  size_t first, cols, width; /* the row that the piece begins with; width: of the piece */
  const double *piece;
  double *to; /* the host's first row, from the piece's first column on */
} arrived;

static void add_arrived(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const arrived *a = context;
  for (size_t i = begin; i < end; i++) {
    const size_t n = a->what == BEFORE_DIAGONAL ? a->first + i : a->width;
    for (size_t c = a->what == FROM_DIAGONAL ? i : 0; c < n; c++)
      a->to[i * a->cols + c] += a->piece[i * a->width + c];
  }
}

/* Adds the device's rows [begin, end) of `cols` columns, rows in pieces, to the host's. */
static gptvq_status add_to_host(gptvq_device *d, extent what, size_t begin, size_t end, size_t cols,
                                const double *from, double *to, gptvq_error *err) {
  const size_t row_bytes = gptvq_saturated_size(cols, sizeof(double)),
               rows = gptvq_min_size(end - begin, gptvq_max_size(1, PIECE / row_bytes));
  double *piece = gptvq_alloc(rows, row_bytes);
  if (piece == NULL)
    return gptvq_fail_memory(err, "sums from the device", gptvq_saturated_size(rows, row_bytes));
  gptvq_status status = GPTVQ_OK;
  for (size_t r = begin; r < end && status == GPTVQ_OK; r += rows) {
    const size_t count = gptvq_min_size(rows, end - r), first = what == FROM_DIAGONAL ? r : 0,
                 width = (what == BEFORE_DIAGONAL ? r + count - 1 : cols) - first;
    const gptvq_device_rows shape = {width * sizeof *piece, count, row_bytes, width * sizeof *piece};
    status = d->download(d, &shape, piece, from + r * cols + first, err);
    arrived a = {what, r, cols, width, piece, to + r * cols + first};
    if (status == GPTVQ_OK) gptvq_parallel_for(count, gptvq_rows_per_task(width), add_arrived, &a);
  }
  free(piece);
  return status;
}

static gptvq_status add_part_to_host(gptvq_cuda_linalg *l, kept *k, gptvq_error *err) {
  const gptvq_sum *s = &k->sum;
  if (k->adds)
    GPTVQ_TRY(
        add_to_host(l->device, s->upper ? FROM_DIAGONAL : WHOLE, 0, s->rows, s->cols, k->part, s->part, err));
  k->adds = false;
  return GPTVQ_OK;
}

/* All of it goes back to the host. */
static gptvq_status give_back(gptvq_cuda_linalg *l, kept *k, gptvq_error *err) {
  const gptvq_sum *s = &k->sum;
  GPTVQ_TRY(add_part_to_host(l, k, err));
  if (k->total != NULL && s->upper)
    GPTVQ_TRY(add_to_host(l->device, BEFORE_DIAGONAL, 1, s->cols + 1, s->cols, k->total, s->part, err));
  else if (k->total != NULL)
    GPTVQ_TRY(add_to_host(l->device, WHOLE, 0, s->rows, s->cols, k->total, s->total, err));
  free_arrays(l->device, k);
  k->on_host = true;
  return GPTVQ_OK;
}

static void drop_map(gptvq_cuda_linalg *l) {
  gptvq_device_drop(l->device, &l->map);
  l->map_host = NULL;
}

bool gptvq_cuda_linalg_drop_map(gptvq_cuda_linalg *l) {
  if (l == NULL || l->map_host == NULL) return false;
  drop_map(l);
  l->device->crowded = true;
  return true;
}

/* Makes room: buffers from number `first` on go, or, if there are none, the map, or the sums used longest
 * ago but for those of `spare`. *done false: there is nothing to go. */
static gptvq_status make_room(gptvq_cuda_linalg *l, const double *spare, size_t first, bool *done,
                              gptvq_error *err) {
  kept *last = NULL;
  *done = false;
  for (size_t i = first; i < BUFFERS; i++) {
    *done = *done || l->buffers[i].memory != NULL;
    gptvq_device_drop(l->device, &l->buffers[i]);
  }
  if (*done) return GPTVQ_OK;
  *done = gptvq_cuda_linalg_drop_map(l);
  for (kept *k = l->latest; k != NULL && !*done; k = k->next)
    if (k->part != NULL && k->sum.part != spare) last = k;
  *done = *done || last != NULL;
  l->device->crowded = l->device->crowded || *done;
  return last != NULL ? give_back(l, last, err) : GPTVQ_OK;
}

gptvq_status gptvq_cuda_linalg_make_room(gptvq_cuda_linalg *linalg, bool *done, gptvq_error *err) {
  return make_room(linalg, NULL, 0, done, err);
}

static gptvq_status take(gptvq_cuda_linalg *l, const double *spare, size_t first, size_t bytes, void **out,
                         gptvq_error *err) {
  for (bool more = true;;) {
    const gptvq_status status = l->device->alloc(l->device, bytes, out, err);
    if (status != GPTVQ_ERROR_MEMORY) return status;
    gptvq_error making;
    const gptvq_status other = make_room(l, spare, first, &more, &making);
    if (other != GPTVQ_OK) {
      if (err != NULL) *err = making;
      return other;
    }
    if (!more) return status;
  }
}

static gptvq_status reserve(gptvq_cuda_linalg *l, const double *spare, size_t number, size_t bytes,
                            gptvq_error *err) {
  gptvq_device_buffer *b = &l->buffers[number];
  void *memory;
  if (b->bytes >= bytes) return GPTVQ_OK;
  gptvq_device_drop(l->device, b);
  GPTVQ_TRY(take(l, spare, number + 1, bytes, &memory, err));
  *b = (gptvq_device_buffer){memory, bytes};
  return GPTVQ_OK;
}

/* The sums of `host`, zeros if the device had none. */
static gptvq_status keep(gptvq_cuda_linalg *l, double *host, size_t m, size_t c, bool upper, kept **out,
                         gptvq_error *err) {
  kept **at = find(l, host), *k = *out = at != NULL ? *at : gptvq_alloc(1, sizeof *k);
  if (k == NULL) return gptvq_fail_memory(err, "sums", sizeof *k);
  if (at != NULL) *at = k->next;
  else *k = (kept){.sum = {.rows = m, .cols = c, .upper = upper, .part = host}};
  k->next = l->latest; /* the one used last comes first */
  l->latest = k;
  if (k->part != NULL) return GPTVQ_OK;
  const size_t bytes = gptvq_saturated_size(upper ? m + 1 : m, gptvq_saturated_size(c, sizeof(double)));
  void *memory;
  GPTVQ_TRY(take(l, NULL, 0, bytes, &memory, err));
  k->part = memory;
  return l->device->set(l->device, memory, 0, bytes, err);
}

/* ---- ends of groups ---- */

/* The host goes on with this group; the device's part begins anew. */
static gptvq_status bring_part(gptvq_cuda_linalg *l, kept *k, gptvq_error *err) {
  if (!k->adds) return GPTVQ_OK;
  GPTVQ_TRY(add_part_to_host(l, k, err));
  return l->device->set(l->device, k->part, 0, k->sum.rows * k->sum.cols * sizeof(double), err);
}

/* A grid's blocks in one direction at most; rows that each sees at least. */
enum { MOST_BLOCKS = 32768, ROWS_EACH = 8 };

static gptvq_device_grid grid_of(size_t cols, size_t rows) {
  return (gptvq_device_grid){(unsigned)gptvq_min_size(gptvq_ceil_div(cols, THREADS), MOST_BLOCKS),
                             (unsigned)gptvq_min_size(gptvq_ceil_div(rows, ROWS_EACH), MOST_BLOCKS), THREADS,
                             0};
}

static gptvq_status fold_sums(gptvq_cuda_linalg *l, const gptvq_kernel_fold_sums_arguments *a,
                              gptvq_error *err) {
  const gptvq_device_grid grid = grid_of(a->cols, a->rows);
  return l->device->launch(l->device, GPTVQ_KERNEL_fold_sums, &grid, a, err);
}

/* The device begins a total, where it has the room: nothing else goes for it. */
static gptvq_status begin_total(gptvq_cuda_linalg *l, kept *k, gptvq_error *err) {
  const size_t bytes = k->sum.rows * k->sum.cols * sizeof(double); /* as many as part has */
  void *memory;
  if (k->sum.upper) {
    k->total = k->part;
    return GPTVQ_OK;
  }
  const gptvq_status status = l->device->alloc(l->device, bytes, &memory, err);
  k->on_host = status == GPTVQ_ERROR_MEMORY;
  l->device->crowded = l->device->crowded || k->on_host;
  if (status != GPTVQ_OK) return k->on_host ? GPTVQ_OK : status;
  k->total = memory;
  return l->device->set(l->device, memory, 0, bytes, err);
}

static gptvq_status fold(const gptvq_linalg *table, const gptvq_sum *sum, gptvq_error *err) {
  gptvq_cuda_linalg *l = of(table);
  kept **at = find(l, sum->part), *k = at != NULL ? *at : NULL;
  if (k != NULL) {
    k->sum = *sum;
    if (!k->on_host && k->total == NULL && k->part != NULL) GPTVQ_TRY(begin_total(l, k, err));
    if (!k->on_host && !k->adds) return GPTVQ_OK;
    if (!k->on_host) {
      const gptvq_kernel_fold_sums_arguments a = {.rows = sum->rows,
                                                  .cols = sum->cols,
                                                  .ld = sum->cols,
                                                  .upper = sum->upper,
                                                  .part = k->part,
                                                  .total = k->total};
      k->adds = false;
      return fold_sums(l, &a, err);
    }
    GPTVQ_TRY(bring_part(l, k, err));
  }
  gptvq_sum_fold(sum);
  return GPTVQ_OK;
}

/* In fp32, where all of the group is on the device. */
static gptvq_status hand_over(const gptvq_linalg *table, double *sums, gptvq_error *err) {
  gptvq_cuda_linalg *l = of(table);
  kept **at = find(l, sums), *k = at != NULL ? *at : NULL;
  if (k == NULL) return GPTVQ_OK;
  const bool whole = !k->on_host;
  k->on_host = false;
  if (!k->adds) return GPTVQ_OK;
  if (!whole) return bring_part(l, k, err);
  const gptvq_sum *s = &k->sum;
  const size_t most =
      gptvq_min_size(gptvq_min_size(PANEL, s->rows), gptvq_max_size(1, PIECE / (s->cols * sizeof(float))));
  GPTVQ_TRY(reserve(l, sums, PRODUCT, most * s->cols * sizeof(float), err));
  float *rounded = l->buffers[PRODUCT].memory, *host = gptvq_alloc(most, s->cols * sizeof *host);
  if (host == NULL) return gptvq_fail_memory(err, "sums from the device", most * s->cols * sizeof *host);
  gptvq_status status = GPTVQ_OK;
  for (size_t r = 0; r < s->rows && status == GPTVQ_OK; r += most) {
    const size_t rows = gptvq_min_size(most, s->rows - r), first = s->upper ? r : 0, cols = s->cols - first;
    const gptvq_kernel_fold_sums_arguments a = {.rows = rows,
                                                .cols = cols,
                                                .ld = s->cols,
                                                .upper = s->upper,
                                                .part = k->part + r * s->cols + first,
                                                .rounded = rounded};
    GPTVQ_TRY_GOTO(fold_sums(l, &a, err));
    GPTVQ_TRY_GOTO(gptvq_device_download(l->device, rows * cols * sizeof *host, host, rounded, err));
    for (size_t i = 0; i < rows; i++)
      for (size_t c = s->upper ? i : 0; c < cols; c++)
        s->part[(r + i) * s->cols + first + c] += (double)host[i * cols + c];
  }
  k->adds = false;
done:
  free(host);
  return status;
}

static gptvq_status settle(const gptvq_linalg *table, double *sums, gptvq_error *err) {
  gptvq_cuda_linalg *l = of(table);
  kept **at = find(l, sums);
  if (at == NULL) return GPTVQ_OK;
  GPTVQ_TRY(give_back(l, *at, err));
  remove_at(l, at);
  return GPTVQ_OK;
}

static void forget(const gptvq_linalg *table, const void *host) {
  gptvq_cuda_linalg *l = of(table);
  kept **at = find(l, host);
  if (at != NULL) remove_at(l, at);
  if (l->map_host == host) drop_map(l);
}

/* ---- products ---- */

static gptvq_status take_rows(gptvq_cuda_linalg *l, const gptvq_kernel_take_rows_arguments *a,
                              gptvq_error *err) {
  const gptvq_device_grid grid = grid_of(a->cols, a->rows);
  return l->device->launch(l->device, GPTVQ_KERNEL_take_rows, &grid, a, err);
}

/* Where the device has rows of the host already; NULL: nowhere. */
static const float *find_lent(const gptvq_cuda_linalg *l, const float *x, size_t ldx) {
  const uintptr_t begin = (uintptr_t)l->lent.host, at = (uintptr_t)x;
  if (begin == 0 || ldx != l->lent.ld || at < begin) return NULL;
  const size_t offset = (at - begin) / sizeof *x;
  return offset < l->lent.rows * l->lent.ld ? l->lent.device + offset : NULL;
}

/* x[n × ldx], the first `cols` columns, close together on the device, rounded if asked for */
static gptvq_status bring_inputs(gptvq_cuda_linalg *l, size_t n, size_t cols, const float *x, size_t ldx,
                                 bool rounds, float *to, gptvq_error *err) {
  const gptvq_device_rows rows = {cols * sizeof *x, n, cols * sizeof *x, ldx * sizeof *x};
  const float *there = find_lent(l, x, ldx);
  if (there != NULL) {
    const gptvq_kernel_take_rows_arguments a = {n, cols, there, ldx, NULL, rounds, to};
    return take_rows(l, &a, err);
  }
  GPTVQ_TRY(l->device->upload(l->device, &rows, to, x, err));
  if (!rounds) return GPTVQ_OK;
  const gptvq_kernel_round_bf16_arguments arguments = {n * cols, (uint32_t *)(void *)to};
  const gptvq_device_grid grid = grid_of(n * cols, 1);
  return l->device->launch(l->device, GPTVQ_KERNEL_round_bf16, &grid, &arguments, err);
}

/* What one side of a product is made of. */
typedef enum others {
  ITSELF, /* the inputs: a triangle of sums */
  ROWS,   /* other rows */
  CHANGE  /* what was remembered less the inputs, which are still to be rounded */
} others;

/* sums += yᵀ x over at most `chunk` tokens, in panels of rows; of a triangle without the columns left of each
 * panel's first diagonal element. */
static gptvq_status add_chunk(gptvq_cuda_linalg *l, const kept *k, size_t n, const float *y, const float *x,
                              gptvq_error *err) {
  gptvq_device *d = l->device;
  const size_t m = k->sum.rows, c = k->sum.cols;
  for (size_t r = 0; r < m; r += PANEL) {
    const size_t rows = gptvq_min_size(PANEL, m - r), from = k->sum.upper ? r : 0, cols = c - from;
    /* bf16 values are exact in TF32 */
    const gptvq_device_product product = {.transpose_a = true,
                                          .precision = l->rounds ? GPTVQ_PRODUCT_TF32 : GPTVQ_PRODUCT_FP32,
                                          .m = rows,
                                          .n = cols,
                                          .k = n,
                                          .alpha = 1.0f,
                                          .a = y + r,
                                          .lda = m,
                                          .b = x + from,
                                          .ldb = c,
                                          .c = l->buffers[PRODUCT].memory,
                                          .ldc = cols};
    GPTVQ_TRY(d->product(d, &product, err));
    const gptvq_kernel_add_sums_arguments arguments = {
        rows, cols, c, k->sum.upper, l->buffers[PRODUCT].memory, k->part + r * c + from};
    const gptvq_device_grid grid = grid_of(cols, rows);
    GPTVQ_TRY(d->launch(d, GPTVQ_KERNEL_add_sums, &grid, &arguments, err));
  }
  return GPTVQ_OK;
}

/* Room for slabs of as many tokens as fit, at most `most`; at least `chunk`, where there are as many. */
static gptvq_status reserve_inputs(gptvq_cuda_linalg *l, const kept *k, size_t most, size_t chunk, bool both,
                                   size_t *slab, gptvq_error *err) {
  const gptvq_sum *s = &k->sum;
  for (*slab = gptvq_round_up(most, chunk);; *slab = gptvq_round_up(*slab / 2, chunk)) {
    const size_t bytes = gptvq_min_size(*slab, most) * sizeof(float);
    gptvq_status status = reserve(l, s->part, INPUTS, bytes * s->cols, err);
    if (status == GPTVQ_OK && both) status = reserve(l, s->part, OTHERS, bytes * s->rows, err);
    if (status != GPTVQ_ERROR_MEMORY || *slab <= chunk) return status;
    l->device->crowded = true;
    gptvq_device_drop(l->device, &l->buffers[INPUTS]);
  }
}

static gptvq_status add(gptvq_cuda_linalg *l, others kind, size_t m, size_t c, size_t n, size_t chunk,
                        const float *y, size_t ldy, const float *x, size_t ldx, double *host,
                        gptvq_error *err) {
  kept *k;
  size_t slab;
  if (n == 0 || m == 0 || c == 0) return GPTVQ_OK;
  if (l->rounds) chunk = gptvq_max_size(chunk, ROUNDED_CHUNK);
  GPTVQ_TRY(keep(l, host, m, c, kind == ITSELF, &k, err));
  k->adds = true;
  GPTVQ_TRY(reserve(l, host, PRODUCT, gptvq_min_size(PANEL, m) * c * sizeof(float), err));
  GPTVQ_TRY(reserve_inputs(l, k, gptvq_min_size(n, SLAB), chunk, kind != ITSELF, &slab, err));
  float *inputs = l->buffers[INPUTS].memory, *other = kind != ITSELF ? l->buffers[OTHERS].memory : inputs;
  for (size_t t = 0; t < n; t += slab) {
    const size_t count = gptvq_min_size(slab, n - t);
    GPTVQ_TRY(bring_inputs(l, count, c, x + t * ldx, ldx, l->rounds && kind != CHANGE, inputs, err));
    if (kind == ROWS) GPTVQ_TRY(bring_inputs(l, count, m, y + t * ldy, ldy, l->rounds, other, err));
    if (kind == CHANGE) {
      const gptvq_kernel_take_rows_arguments change = {
          count, c, inputs, c, (const float *)l->remembered.memory + t * c, l->rounds, other};
      const gptvq_kernel_round_bf16_arguments round = {count * c, (uint32_t *)(void *)inputs};
      const gptvq_device_grid grid = grid_of(count * c, 1);
      GPTVQ_TRY(take_rows(l, &change, err));
      if (l->rounds) GPTVQ_TRY(l->device->launch(l->device, GPTVQ_KERNEL_round_bf16, &grid, &round, err));
    }
    for (size_t i = 0; i < count; i += chunk)
      GPTVQ_TRY(add_chunk(l, k, gptvq_min_size(chunk, count - i), other + i * m, inputs + i * c, err));
  }
  return GPTVQ_OK;
}

static gptvq_status gram(const gptvq_linalg *table, size_t c, size_t n, size_t chunk, const float *x,
                         size_t ldx, double *h, gptvq_error *err) {
  return add(of(table), ITSELF, c, c, n, chunk, NULL, 0, x, ldx, h, err);
}

static gptvq_status cross(const gptvq_linalg *table, size_t m, size_t c, size_t n, size_t chunk,
                          const float *y, size_t ldy, const float *x, size_t ldx, double *sums,
                          gptvq_error *err) {
  return add(of(table), ROWS, m, c, n, chunk, y, ldy, x, ldx, sums, err);
}

static gptvq_status remember(const gptvq_linalg *table, size_t c, size_t n, const float *x, size_t ldx,
                             gptvq_error *err) {
  gptvq_cuda_linalg *l = of(table);
  const size_t bytes = gptvq_saturated_size(n, gptvq_saturated_size(c, sizeof *x));
  void *memory;
  l->remembered_rows = l->remembered_cols = 0;
  if (l->remembered.memory == NULL || l->remembered.bytes < bytes) {
    gptvq_device_drop(l->device, &l->remembered);
    GPTVQ_TRY(take(l, NULL, 0, bytes, &memory, err));
    l->remembered = (gptvq_device_buffer){memory, bytes};
  }
  GPTVQ_TRY(bring_inputs(l, n, c, x, ldx, false, l->remembered.memory, err));
  l->remembered_rows = n;
  l->remembered_cols = c;
  return GPTVQ_OK;
}

static gptvq_status cross_change(const gptvq_linalg *table, size_t c, size_t n, size_t chunk, const float *x,
                                 size_t ldx, double *sums, gptvq_error *err) {
  gptvq_cuda_linalg *l = of(table);
  if (l->remembered_rows != n || l->remembered_cols != c)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "%zu x %zu inputs were remembered, not %zu x %zu",
                      l->remembered_rows, l->remembered_cols, n, c);
  return add(l, CHANGE, c, c, n, chunk, NULL, 0, x, ldx, sums, err);
}

void gptvq_cuda_linalg_lend(gptvq_cuda_linalg *l, const float *x, size_t n, size_t ld, const float *device) {
  l->lent = (lent){x, device, n, ld};
}

void gptvq_cuda_linalg_take_back(gptvq_cuda_linalg *l) { l->lent = (lent){0}; }

static void rest_buffers(gptvq_cuda_linalg *l) {
  for (size_t i = 0; i < BUFFERS; i++) gptvq_device_drop(l->device, &l->buffers[i]);
}

void gptvq_cuda_linalg_rest(gptvq_cuda_linalg *l) {
  rest_buffers(l);
  gptvq_device_drop(l->device, &l->remembered);
  l->remembered_rows = l->remembered_cols = 0;
}

/* ---- maps ---- */

/* The map, unless it is there, and buffers for *slab rows of weights and as many of what changes them. */
static gptvq_status prepare_map(gptvq_cuda_linalg *l, size_t rows, size_t n, const float *map, size_t *slab,
                                gptvq_error *err) {
  const size_t row = n * sizeof *map, bytes = gptvq_saturated_size(n, row);
  void *memory;
  if (l->map_host != map || l->map_cols != n) {
    drop_map(l);
    GPTVQ_TRY(take(l, NULL, 0, bytes, &memory, err));
    l->map = (gptvq_device_buffer){memory, bytes};
    GPTVQ_TRY(gptvq_device_upload(l->device, bytes, memory, map, err));
    l->map_host = map;
    l->map_cols = n;
  }
  for (*slab = gptvq_min_size(SLAB, rows);; *slab /= 2) {
    gptvq_status status = gptvq_device_grow(l->device, &l->buffers[INPUTS], *slab * row, err);
    if (status == GPTVQ_OK) status = gptvq_device_grow(l->device, &l->buffers[OTHERS], *slab * row, err);
    if (status != GPTVQ_ERROR_MEMORY || *slab / 2 < LEAST_SLAB) return status;
    l->device->crowded = true;
    gptvq_device_drop(l->device, &l->buffers[INPUTS]);
  }
}

typedef struct change {
  size_t cols;
  float scale, *w;
  const float *product;
} change;

static void change_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const change *job = context;
  for (size_t i = begin * job->cols; i < end * job->cols; i++) job->w[i] += job->scale * job->product[i];
}

/* By the shim's operations, so that it does not show there where the map had no room. */
static gptvq_status add_mapped_on_host(size_t rows, size_t n, double alpha, const float *map, float *w,
                                       gptvq_error *err) {
  const size_t slab = gptvq_min_size(SLAB, rows), bytes = gptvq_saturated_size(slab, n * sizeof *w);
  float *product = gptvq_alloc(bytes, 1);
  if (product == NULL) return gptvq_fail_memory(err, "weights that are mapped", bytes);
  for (size_t r = 0; r < rows; r += slab) {
    const size_t count = gptvq_min_size(slab, rows - r);
    change job = {n, (float)alpha, w + r * n, product};
    gptvq_rows_product(false, count, n, n, job.w, n, map, n, product, n);
    gptvq_parallel_for(count, gptvq_rows_per_task(n), change_rows, &job);
  }
  free(product);
  return GPTVQ_OK;
}

static gptvq_status add_mapped(const gptvq_linalg *table, size_t rows, size_t n, double alpha,
                               const float *map, float *w, gptvq_error *err) {
  gptvq_cuda_linalg *l = of(table);
  gptvq_device *d = l->device;
  const size_t row = n * sizeof *w;
  size_t slab;
  gptvq_status status = prepare_map(l, rows, n, map, &slab, err);
  if (status == GPTVQ_ERROR_MEMORY) {
    d->crowded = true;
    rest_buffers(l);
    drop_map(l);
    return add_mapped_on_host(rows, n, alpha, map, w, err);
  }
  float *weights = l->buffers[INPUTS].memory, *mapped = l->buffers[OTHERS].memory;
  for (size_t r = 0; r < rows && status == GPTVQ_OK; r += slab) {
    const size_t count = gptvq_min_size(slab, rows - r);
    const gptvq_device_product product = {.m = count,
                                          .n = n,
                                          .k = n,
                                          .alpha = 1.0f,
                                          .a = weights,
                                          .lda = n,
                                          .b = l->map.memory,
                                          .ldb = n,
                                          .c = mapped,
                                          .ldc = n};
    const gptvq_kernel_add_rows_arguments add = {count, n, (float)alpha, mapped, n, weights, n};
    const gptvq_device_grid grid = grid_of(n, count);
    status = gptvq_device_upload(d, count * row, weights, w + r * n, err);
    if (status == GPTVQ_OK) status = d->product(d, &product, err);
    if (status == GPTVQ_OK) status = d->launch(d, GPTVQ_KERNEL_add_rows, &grid, &add, err);
    if (status == GPTVQ_OK) status = gptvq_device_download(d, count * row, w + r * n, weights, err);
  }
  rest_buffers(l);
  return status;
}

/* ---- factorisation ---- */

typedef struct returned { /* rows of a triangle, from `first` on */
  size_t first, n, width;
  const double *piece; /* [rows × width] */
  double *to;          /* [n × n] */
} returned;

static void copy_returned(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const returned *g = context;
  for (size_t i = begin; i < end; i++)
    memcpy(g->to + (g->first + i) * g->n, g->piece + i * g->width, (g->first + i + 1) * sizeof *g->to);
}

/* Rows up to their diagonal, to the device or back, in pieces; what stands right of it stays. */
static gptvq_status copy_triangle(gptvq_device *d, size_t n, double *host, double *device, bool back,
                                  gptvq_error *err) {
  const size_t most = gptvq_min_size(n, gptvq_max_size(1, PIECE / (n * sizeof(double))));
  double *piece = back ? gptvq_alloc(most, n * sizeof *piece) : NULL;
  gptvq_status status = GPTVQ_OK;
  if (back && piece == NULL)
    return gptvq_fail_memory(err, "the Hessian factorisation", most * n * sizeof *piece);
  for (size_t r = 0; r < n && status == GPTVQ_OK; r += most) {
    const size_t count = gptvq_min_size(most, n - r), cols = r + count;
    const gptvq_device_rows rows = {cols * sizeof *host, count, n * sizeof *host,
                                    (back ? cols : n) * sizeof *host};
    status = back ? d->download(d, &rows, piece, device + r * n, err)
                  : d->upload(d, &rows, device + r * n, host + r * n, err);
    returned got = {r, n, cols, piece, host};
    if (back && status == GPTVQ_OK) gptvq_parallel_for(count, gptvq_rows_per_task(cols), copy_returned, &got);
  }
  free(piece);
  return status;
}

static gptvq_status inverse_factor(const gptvq_linalg *table, size_t n, double *a, double *scratch,
                                   bool *done, gptvq_error *err) {
  gptvq_cuda_linalg *l = of(table);
  gptvq_device *d = l->device;
  void *memory;
  *done = true;
  if (n == 0) return GPTVQ_OK;
  gptvq_status status =
      take(l, NULL, 0, gptvq_saturated_size(n, gptvq_saturated_size(n, sizeof *a)), &memory, err);
  if (status != GPTVQ_OK) memory = NULL;
  else status = copy_triangle(d, n, a, memory, false, err);
  for (bool more = true; status == GPTVQ_OK;) {
    status = d->inverse_factor(d, n, memory, done, err);
    if (status != GPTVQ_ERROR_MEMORY) break;
    gptvq_error making;
    if (make_room(l, NULL, 0, &more, &making) != GPTVQ_OK || !more) break;
    status = copy_triangle(d, n, a, memory, false, err);
  }
  if (status == GPTVQ_OK && *done) status = copy_triangle(d, n, a, memory, true, err);
  d->free(d, memory);
  if (status != GPTVQ_ERROR_MEMORY) return status;
  d->crowded = true;
  return gptvq_cpu_linalg.inverse_factor(&gptvq_cpu_linalg, n, a, scratch, done, err); /* a is as it was */
}

/* ---- the whole ---- */

gptvq_status gptvq_cuda_linalg_create(gptvq_device *device, bool rounds, gptvq_cuda_linalg **out,
                                      gptvq_error *err) {
  gptvq_cuda_linalg *l = *out = gptvq_alloc_zero(1, sizeof *l);
  if (l == NULL) return gptvq_fail_memory(err, "products on a device", sizeof *l);
  l->table = (gptvq_linalg){.gram = gram,
                            .cross = cross,
                            .inverse_factor = inverse_factor,
                            .fold = fold,
                            .hand_over = hand_over,
                            .settle = settle,
                            .forget = forget,
                            .remember = remember,
                            .cross_change = cross_change,
                            .add_mapped = add_mapped,
                            .context = l};
  l->device = device;
  l->rounds = rounds;
  return GPTVQ_OK;
}

const gptvq_linalg *gptvq_cuda_linalg_table(const gptvq_cuda_linalg *linalg) { return &linalg->table; }

void gptvq_cuda_linalg_destroy(gptvq_cuda_linalg *l) {
  if (l == NULL) return;
  while (l->latest != NULL) remove_at(l, &l->latest);
  gptvq_cuda_linalg_rest(l);
  drop_map(l);
  free(l);
}

size_t gptvq_cuda_linalg_bytes(size_t m, size_t c) {
  enum { CHUNK = 1024 };
  const size_t height = m > 0 ? m : c;
  const size_t sums = gptvq_saturated_size(gptvq_max_size(m, c + 1), gptvq_saturated_size(c, sizeof(double)));
  const size_t panel =
      gptvq_saturated_size(gptvq_min_size(PANEL, height), gptvq_saturated_size(c, sizeof(float)));
  const size_t inputs =
      gptvq_saturated_size(CHUNK, gptvq_saturated_size(gptvq_saturated_sum(c, m), sizeof(float)));
  return gptvq_saturated_sum(sums, gptvq_saturated_sum(panel, inputs));
}
