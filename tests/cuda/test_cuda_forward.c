/* Forward passes on the shim: each kernel against the CPU's function, attention against sums in double, and
 * halves of blocks of several families against the CPU's. */
#include "base/half.h"
#include "base/memory.h"
#include "cuda/forward.h"
#include "cuda/shim/shim.h"
#include "device_fixture.h"
#include "model/layer/gate.h"
#include "model/layer/norm.h"
#include "model/layer/rope.h"
#include "model/workspace.h"
#include "solver_fixture.h"

#include <math.h>

static gptvq_device *device;

static void ok(gptvq_status status, const gptvq_error *err) {
  if (status != GPTVQ_OK) fail_msg("%s", err->message);
}

static int open_device(void **state) {
  (void)state;
  gptvq_error err = {.message = ""};
  return open_test_device(&device, &err) == GPTVQ_OK ? 0 : -1;
}

static int close_device(void **state) {
  (void)state;
  size_t free_bytes, total;
  const bool all = device->memory(device, &free_bytes, &total, NULL) == GPTVQ_OK && free_bytes == total;
  const bool card = on_test_card();
  device->close(device);
  return all || card ? 0 : -1;
}

static void *send(const void *from, size_t bytes) {
  gptvq_error err = {.message = ""};
  void *memory;
  ok(device->alloc(device, bytes, &memory, &err), &err);
  ok(gptvq_device_upload(device, bytes, memory, from, &err), &err);
  return memory;
}

static void take(void *memory, size_t bytes, void *to) {
  gptvq_error err = {.message = ""};
  ok(gptvq_device_download(device, bytes, to, memory, &err), &err);
  device->free(device, memory);
}

static void launch(gptvq_kernel kernel, size_t cols, size_t rows, size_t threads, size_t shared,
                   const void *arguments) {
  gptvq_error err = {.message = ""};
  const gptvq_device_grid grid = {(unsigned)cols, (unsigned)rows, (unsigned)threads, shared};
  ok(device->launch(device, kernel, &grid, arguments, &err), &err);
}

static float *numbers(size_t n, uint64_t seed) {
  float *x = random_weights(1, n, seed);
  for (size_t i = 0; i < n; i++) x[i] *= 20.0f; /* standard deviation 1 */
  return x;
}

enum { ROWS = 7, THREADS = GPTVQ_ROWS_THREADS };

static void norms_are_the_cpus(void **state) {
  (void)state;
  static const size_t sizes[] = {1, 15, 16, 40, 128, 300}, parts[] = {1, 3};
  for (int reverse = 0; reverse < 2; reverse++)
    for (size_t s = 0; s < 6; s++)
      for (size_t p = 0; p < 2; p++)
        for (int bad = 0; bad < 3; bad++) { /* 0: none; 1: a number, with gain; 2: without gain */
          const size_t size = sizes[s], stride = parts[p] * size + 3, n = ROWS * stride;
          float *x = numbers(n, 1 + s), *gain = numbers(size, 50 + s), *found = gptvq_alloc(n, sizeof *found);
          if (bad > 0) x[3 * stride] = INFINITY;
          uint32_t flag = 0;
          if (!on_test_card()) gptvq_shim_reverse(device, reverse);
          gptvq_kernel_norm_rows_arguments a = {.rows = ROWS,
                                                .parts = parts[p],
                                                .size = size,
                                                .x = send(x, n * sizeof *x),
                                                .x_stride = stride,
                                                .gain = bad < 2 ? send(gain, size * sizeof *gain) : NULL,
                                                .eps = 1e-5f,
                                                .y_stride = stride,
                                                .bad = send(&flag, sizeof flag)};
          a.y = (float *)(uintptr_t)a.x;
          launch(GPTVQ_KERNEL_norm_rows, 1 + size % 2, 1, THREADS, 0, &a);
          take(a.y, n * sizeof *found, found);
          device->free(device, (void *)(uintptr_t)a.gain);
          take(a.bad, sizeof flag, &flag);
          assert_int_equal(flag, bad > 0);
          for (size_t r = 0; r < ROWS && bad < 2; r++)
            for (size_t i = 0; i < parts[p]; i++) {
              float *v = x + r * stride + i * size;
              (void)gptvq_norm_rows(1, size, v, gain, 1e-5f, v);
            }
          for (size_t i = 0; i < n; i++) /* one NaN is as good as another */
            assert_true(memcmp(&x[i], &found[i], sizeof *x) == 0 || (isnan(x[i]) && isnan(found[i])));
          free(x);
          free(gain);
          free(found);
        }
}

static void rows_are_the_cpus(void **state) {
  (void)state;
  enum { COLS = 300, HEADS = 3, DIM = 20, HALF = 6 };
  float *x = numbers(ROWS * COLS, 3), *y = numbers(ROWS * COLS, 4),
        *found = gptvq_alloc(ROWS * COLS, sizeof *found),
        *expected = gptvq_alloc(ROWS * COLS, sizeof *expected);
  uint16_t bits[ROWS * COLS];
  x[5] = NAN;
  x[6] = INFINITY;
  x[7] = -1e-40f;
  x[8] = 3e38f; /* rounds to infinity */
  for (int bias = 0; bias < 2; bias++) {
    const gptvq_kernel_add_rows_arguments a = {ROWS,
                                               COLS,
                                               bias ? 1.0f : 0.22f,
                                               send(y, ROWS * COLS * sizeof *y),
                                               bias ? 0 : COLS,
                                               send(y, ROWS * COLS * sizeof *y),
                                               COLS};
    memcpy(expected, y, ROWS * COLS * sizeof *y);
    if (!bias) gptvq_add_rows(ROWS, COLS, 0.22f, y, expected);
    for (size_t i = 0; bias && i < ROWS * COLS; i++) expected[i] += y[i % COLS];
    launch(GPTVQ_KERNEL_add_rows, 2, 3, THREADS, 0, &a);
    device->free(device, (void *)(uintptr_t)a.x);
    take(a.y, ROWS * COLS * sizeof *found, found);
    assert_memory_equal(found, expected, ROWS * COLS * sizeof *found);
  }
  const gptvq_kernel_gate_rows_arguments gate = {ROWS, COLS / 2, send(y, ROWS * COLS * sizeof *y)};
  memcpy(expected, y, ROWS * COLS * sizeof *y);
  gptvq_gate_rows(GPTVQ_SILU, ROWS, COLS, expected);
  launch(GPTVQ_KERNEL_gate_rows, 1, 2, THREADS, 0, &gate);
  take(gate.wide, ROWS * COLS * sizeof *found, found);
  assert_memory_equal(found, expected, ROWS * COLS * sizeof *found);
  for (int neighbours = 0; neighbours < 2; neighbours++) {
    float *cosines = numbers(ROWS * HALF, 8), *sines = numbers(ROWS * HALF, 9);
    const gptvq_kernel_rotate_rows_arguments a = {.rows = ROWS,
                                                  .stride = COLS,
                                                  .heads = HEADS,
                                                  .dim = DIM,
                                                  .half = HALF,
                                                  .neighbours = (uint32_t)neighbours,
                                                  .cosines = send(cosines, ROWS * HALF * sizeof *cosines),
                                                  .sines = send(sines, ROWS * HALF * sizeof *sines),
                                                  .x = send(y, ROWS * COLS * sizeof *y)};
    memcpy(expected, y, ROWS * COLS * sizeof *y);
    for (size_t r = 0; r < ROWS; r++)
      gptvq_rotate_heads(HALF, neighbours, cosines + r * HALF, sines + r * HALF, HEADS, DIM,
                         expected + r * COLS, false);
    launch(GPTVQ_KERNEL_rotate_rows, 1, 2, THREADS, 0, &a);
    device->free(device, (void *)(uintptr_t)a.cosines);
    device->free(device, (void *)(uintptr_t)a.sines);
    take(a.x, ROWS * COLS * sizeof *found, found);
    assert_memory_equal(found, expected, ROWS * COLS * sizeof *found);
    free(cosines);
    free(sines);
  }
  const gptvq_kernel_rows_to_bf16_arguments round = {ROWS, COLS - 4, send(x, ROWS * COLS * sizeof *x), COLS,
                                                     send(bits, sizeof bits)};
  launch(GPTVQ_KERNEL_rows_to_bf16, 2, 2, THREADS, 0, &round);
  device->free(device, (void *)(uintptr_t)round.x);
  take(round.bits, sizeof bits, bits);
  for (size_t r = 0; r < ROWS; r++)
    for (size_t c = 0; c < COLS - 4; c++)
      assert_int_equal(bits[r * (COLS - 4) + c], gptvq_float_to_bf16(x[r * COLS + c]));
  free(x);
  free(y);
  free(found);
  free(expected);
}

/* γ of n roundings */
static double gamma_of(double n) { return n * 0x1p-24 / (1.0 - n * 0x1p-24); }

/* One query against sums in double. With scores s, each wrong by at most γ_(dim + 1) · scale · Σ |q k|, the
 * exponentials' arguments by twice that and the rounding of s − max; exp itself by 2 ulp, and once more for
 * each tile whose maximum is new. Both sums, of weights and of weighted values, have n terms. */
static void check_query(const gptvq_kernel_attend_arguments *a, const float *qkv, size_t row, size_t head,
                        const float *out) {
  const size_t dim = a->dim, kv_head = head / (a->heads / a->kv_heads),
               first = row + 1 > a->window ? row + 1 - a->window : 0;
  const float *q = qkv + row * a->stride + head * dim;
  double *score = gptvq_alloc(row + 1, sizeof *score), top = -INFINITY, least = INFINITY, wrong = 0.0,
         sum = 0.0;
  for (size_t key = first; key <= row; key++) {
    const float *k = qkv + key * a->stride + (a->heads + kv_head) * dim;
    double terms = score[key] = 0.0;
    for (size_t i = 0; i < dim; i++) {
      score[key] += (double)q[i] * (double)k[i] * (double)a->scale;
      terms += fabs((double)q[i] * (double)k[i] * (double)a->scale);
    }
    wrong = fmax(wrong, gamma_of((double)dim + 1.0) * terms);
    top = fmax(top, score[key]);
    least = fmin(least, score[key]);
  }
  const double tiles = (double)gptvq_ceil_div(row + 1, GPTVQ_ATTEND_ROWS),
               relative = 2.0 * wrong + 0x1p-24 * (top - least) + 6.0 * 0x1p-24 * (1.0 + tiles),
               bound = 2.0 * (relative + gamma_of((double)row + 4.0)) * 1.01;
  for (size_t key = first; key <= row; key++) sum += score[key] = exp(score[key] - top);
  for (size_t i = 0; i < dim; i++) {
    double expected = 0.0, magnitude = 0.0;
    for (size_t key = first; key <= row; key++) {
      const double term =
          score[key] / sum * (double)qkv[key * a->stride + (a->heads + a->kv_heads + kv_head) * dim + i];
      expected += term;
      magnitude += fabs(term);
    }
    const double found = (double)out[(row * a->heads + head) * dim + i];
    if (!(fabs(found - expected) <= bound * magnitude))
      fail_msg("n %zu, dim %zu, window %zu, row %zu, head %zu, value %zu: %.9g, not %.9g ± %.2g",
               (size_t)a->n, dim, (size_t)a->window, row, head, i, found, expected, bound * magnitude);
  }
  free(score);
}

static void attention_is_a_softmax(void **state) {
  (void)state;
  static const struct {
    size_t n, dim, window;
  } cases[] = {{1, 16, SIZE_MAX},    {63, 64, SIZE_MAX}, {65, 20, 7},
               {150, 128, SIZE_MAX}, {150, 80, 70},      {130, 16, 64}};
  for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
    const size_t n = cases[c].n, dim = cases[c].dim, heads = 4, kv_heads = 2,
                 stride = (heads + 2 * kv_heads) * dim + 5;
    float *qkv = numbers(n * stride, 100 + c), *out[2];
    gptvq_kernel_attend_arguments a = {.n = n,
                                       .window = cases[c].window,
                                       .heads = (uint32_t)heads,
                                       .kv_heads = (uint32_t)kv_heads,
                                       .dim = (uint32_t)dim,
                                       .scale = 3.0f / sqrtf((float)dim), /* some keys weigh little */
                                       .stride = stride};
    for (int reverse = 0; reverse < 2; reverse++) {
      out[reverse] = gptvq_alloc(n * heads * dim, sizeof *out[reverse]);
      if (!on_test_card()) gptvq_shim_reverse(device, reverse);
      a.qkv = send(qkv, n * stride * sizeof *qkv);
      a.out = send(out[reverse], n * heads * dim * sizeof *out[reverse]);
      launch(GPTVQ_KERNEL_attend, gptvq_ceil_div(n, GPTVQ_ATTEND_ROWS), heads, GPTVQ_ATTEND_THREADS,
             GPTVQ_ATTEND_BYTES(dim), &a);
      device->free(device, (void *)(uintptr_t)a.qkv);
      take(a.out, n * heads * dim * sizeof *out[reverse], out[reverse]);
    }
    assert_memory_equal(out[0], out[1], n * heads * dim * sizeof *out[0]);
    for (size_t row = 0; row < n; row++)
      for (size_t head = 0; head < heads; head++) check_query(&a, qkv, row, head, out[0]);
    free(qkv);
    free(out[0]);
    free(out[1]);
  }
}

/* ---- halves of blocks ---- */

enum { N = 90, INPUTS = 2, WIDEST = 256 };

typedef struct seen {
  size_t calls, linear[INPUTS], cols[INPUTS];
  float inputs[INPUTS][N * WIDEST];
  const gptvq_linalg *passed_to; /* not NULL: nothing is read, inputs go on to it */
  double sums[INPUTS][WIDEST * WIDEST];
} seen;

static gptvq_status remember(void *context, const gptvq_block *block, const size_t *linears, size_t count,
                             const float *x, size_t n, size_t ldx, gptvq_error *err) {
  seen *s = context;
  assert_true(count > 0 && s->calls < INPUTS && n == N);
  s->linear[s->calls] = linears[0];
  const size_t cols = s->cols[s->calls] = block->linears[linears[0]].cols;
  assert_true(cols <= WIDEST && ldx >= cols);
  for (size_t i = 0; s->passed_to == NULL && i < n; i++)
    memcpy(s->inputs[s->calls] + i * cols, x + i * ldx, cols * sizeof *x);
  const size_t call = s->calls++;
  return s->passed_to != NULL ? s->passed_to->gram(s->passed_to, cols, n, 256, x, ldx, s->sums[call], err)
                              : GPTVQ_OK;
}

static bool reads(void *context, size_t linear) {
  (void)linear;
  return ((const seen *)context)->passed_to == NULL;
}

typedef struct fixture {
  gptvq_model *model;
  gptvq_workspace *workspace;
  gptvq_cuda_linalg *linalg;
  gptvq_cuda_forward *forward;
  const gptvq_forward *table;
  float *x; /* [N × hidden] */
} fixture;

static fixture open_fixture(const char *name) {
  static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};
  fixture f;
  char path[512];
  int32_t ids[N];
  gptvq_error err = {.message = ""};
  (void)snprintf(path, sizeof path, TEST_SOURCE_DIR "/tests/golden/model/%s", name);
  ok(gptvq_model_open(path, &in_fp32, &f.model, &err), &err);
  ok(gptvq_workspace_create(f.model, 1, N, N, &f.workspace, &err), &err);
  ok(gptvq_cuda_linalg_create(device, false, &f.linalg, &err), &err);
  ok(gptvq_cuda_forward_create(device, f.linalg, &f.forward, &err), &err);
  f.table = gptvq_cuda_forward_table(f.forward);
  f.x = gptvq_alloc(N * f.model->config.hidden, sizeof *f.x);
  for (size_t i = 0; i < N; i++) ids[i] = (int32_t)(i * 37 % 40);
  ok(gptvq_embed(f.model, ids, N, f.x, &err), &err);
  return f;
}

static void close_fixture(fixture *f) {
  gptvq_cuda_forward_destroy(f->forward);
  gptvq_cuda_linalg_destroy(f->linalg);
  gptvq_workspace_destroy(f->workspace);
  gptvq_model_close(f->model);
  free(f->x);
}

static gptvq_status on_cpu(const fixture *f, const gptvq_forward_half *h, float *x, seen *s,
                           gptvq_error *err) {
  return h->mlp
             ? gptvq_block_mlp(f->model, h->block, f->workspace, N, x, h->stop, remember, s, err)
             : gptvq_block_attention(f->model, h->block, f->workspace, 0, 0, N, x, h->stop, remember, s, err);
}

static gptvq_status on_device(const fixture *f, const gptvq_forward_half *h, float *x, seen *s,
                              gptvq_error *err) {
  const gptvq_forward_watch watch = {remember, reads, s};
  return f->table->run(f->table, h, N, x, &watch, err);
}

/* ‖found − expected‖ / ‖expected − base‖ */
static double distance(size_t n, const float *found, const float *expected, const float *base) {
  double wrong = 0.0, all = 0.0;
  for (size_t i = 0; i < n; i++) {
    const double e = (double)expected[i] - (base != NULL ? (double)base[i] : 0.0);
    wrong += ((double)found[i] - (double)expected[i]) * ((double)found[i] - (double)expected[i]);
    all += e * e;
  }
  return sqrt(wrong / all);
}

/* Inputs that go on to the linalg without coming to the host make the sums of those that were seen. */
static void check_passing_on(const fixture *f, const gptvq_forward_half *h, float *x, const seen *before) {
  static seen passed;
  static double sums[WIDEST * WIDEST];
  const gptvq_linalg *l = passed.passed_to = gptvq_cuda_linalg_table(f->linalg);
  gptvq_workspace *w = f->workspace;
  gptvq_error err = {.message = ""};
  float *const unread[] = {w->norm, w->heads, w->wide};
  passed.calls = 0;
  memset(passed.sums, 0, sizeof passed.sums);
  for (size_t i = 0; i < 3; i++) unread[i][0] = unread[i][1] = NAN;
  ok(on_device(f, h, x, &passed, &err), &err);
  assert_int_equal(passed.calls, before->calls);
  for (size_t i = 0; i < passed.calls; i++) {
    const size_t cols = before->cols[i];
    memset(sums, 0, sizeof sums);
    ok(l->gram(l, cols, N, 256, before->inputs[i], cols, sums, &err), &err);
    ok(l->settle(l, sums, &err), &err);
    ok(l->settle(l, passed.sums[i], &err), &err);
    assert_memory_equal(passed.sums[i], sums, cols * cols * sizeof *sums);
  }
}

/* The half in all three lengths; what it looks at and adds is within `tolerance` of the CPU's. */
static void compare_half(const fixture *f, const gptvq_block *block, bool mlp, float *x, const char *name,
                         double tolerance) {
  static seen cpu, found;
  const size_t values = N * f->model->config.hidden;
  gptvq_error err = {.message = ""};
  float *expected = gptvq_alloc(values, sizeof *expected), *moved = gptvq_alloc(values, sizeof *moved);
  for (int stop = GPTVQ_STOP_AT_INPUT; stop <= GPTVQ_RUN_ALL; stop++) {
    const gptvq_forward_half half = {f->model, block, mlp, (gptvq_stop)stop, f->workspace};
    const double allowed = stop == GPTVQ_STOP_AT_INPUT ? 0.0 : tolerance;
    cpu.calls = found.calls = 0;
    memcpy(expected, x, values * sizeof *x);
    memcpy(moved, x, values * sizeof *x);
    ok(on_cpu(f, &half, expected, &cpu, &err), &err);
    f->table->prepare(f->table, moved, values * sizeof *moved);
    ok(on_device(f, &half, moved, &found, &err), &err);
    assert_int_equal(found.calls, cpu.calls);
    for (size_t i = 0; i < cpu.calls; i++) {
      assert_int_equal(found.linear[i], cpu.linear[i]);
      const double far = distance(N * cpu.cols[i], found.inputs[i], cpu.inputs[i], NULL);
      if (!(far <= (i == 0 ? 0.0 : allowed)))
        fail_msg("%s, block %zu: input %zu of the %s is %g off", name, block->index, i,
                 mlp ? "MLP" : "attention", far);
    }
    if (stop != GPTVQ_RUN_ALL) {
      assert_memory_equal(moved, x, values * sizeof *x);
      continue;
    }
    const double far = distance(values, moved, expected, x);
    if (!(far <= allowed))
      fail_msg("%s, block %zu: the %s adds %g off", name, block->index, mlp ? "MLP" : "attention", far);
    float *again = gptvq_alloc(values, sizeof *again); /* from the captured input on: the same bits */
    memcpy(again, x, values * sizeof *x);
    ok(f->table->output(f->table, &half, N, found.inputs[1], again, &err), &err);
    assert_memory_equal(again, moved, values * sizeof *again);
    memcpy(again, x, values * sizeof *x);
    check_passing_on(f, &half, again, &found);
    assert_memory_equal(again, moved, values * sizeof *again);
    free(again);
  }
  f->table->rest(f->table);
  if (!on_test_card()) assert_int_equal(gptvq_shim_pinned(device), 0);
  memcpy(x, expected, values * sizeof *x);
  free(expected);
  free(moved);
}

/* A product's sums of k <= 128 terms are 2 γ_k Σ |terms| apart, and Σ |terms| is some √k times the sum: 2^-13
 * in the worst case, as a root mean square 1/√k of that for the roundings and again for the terms, 2^-20;
 * four products follow each other. With bf16 a number that lies so near to where rounding changes goes the
 * other way by 2^-8: a share of 2^-20 · 2^8 of them, 2^-14 as a root mean square, in each of two inputs, and
 * their products add √k of these. Where the CPU rounds queries, keys, weights and values of the attention,
 * too, each of these is 2^-9 off at most. */
static void halves_are_the_cpus(void **state) {
  (void)state;
  static const char *const folders[] = {"llama",         "llama-head-dim-bias",
                                        "llama-yarn",    "mistral",
                                        "qwen2",         "qwen2-window",
                                        "qwen3",         "phi3",
                                        "phi3-longrope", "glm",
                                        "glm4",          "olmo2",
                                        "olmo3",         "exaone4",
                                        "granite",       "ernie4_5",
                                        "smollm3",       "mixtral"};
  size_t halves = 0;
  for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
    for (int how = 0; how < 3; how++) {
      static const double tolerances[] = {0x1p-18, 0x1p-10, 0x1p-7};
      fixture f = open_fixture(folders[i]);
      if (how > 0) f.model->compute = GPTVQ_COMPUTE_BF16;
      f.model->rounds_attention = how == 2;
      for (size_t b = 0; b < f.model->config.layers; b++)
        for (int mlp = 0; mlp < 2; mlp++) {
          const gptvq_block *block = &f.model->blocks[b];
          if (f.table->lacks(f.model, block, mlp) != NULL) continue;
          compare_half(&f, block, mlp, f.x, folders[i], tolerances[how]);
          halves++;
        }
      close_fixture(&f);
    }
  assert_true(halves > 3 * 2 * (sizeof folders / sizeof folders[0]));
}

static void what_is_left_to_the_cpu_is_said(void **state) {
  (void)state;
  static const struct {
    const char *folder, *attention, *mlp;
  } cases[] = {{"llama", NULL, NULL},
               {"mixtral", NULL, "experts"},
               {"gemma2", "attention with capped scores", "gates other than SiLU"},
               {"gpt-oss", "attention with sinks", "experts"},
               {"deepseek-v3", "latent attention", NULL},
               {"qwen3_5", "delta nets", NULL},
               {"ministral3", "attention with growing queries", NULL}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    fixture f = open_fixture(cases[i].folder);
    const char *const expected[2] = {cases[i].attention, cases[i].mlp};
    for (int mlp = 0; mlp < 2; mlp++) {
      const char *why = f.table->lacks(f.model, &f.model->blocks[0], mlp);
      if (expected[mlp] == NULL) assert_null(why);
      else assert_string_equal(why, expected[mlp]);
    }
    f.model->compute = GPTVQ_COMPUTE_INT8;
    assert_string_equal(f.table->lacks(f.model, &f.model->blocks[0], true), "int8 products");
    close_fixture(&f);
  }
}

/* The CPU's lines. */
static void numbers_that_are_not_finite_are_errors(void **state) {
  (void)state;
  for (int mlp = 0; mlp < 2; mlp++) {
    static seen s;
    fixture f = open_fixture("llama");
    const gptvq_forward_half half = {f.model, &f.model->blocks[1], mlp, GPTVQ_RUN_ALL, f.workspace};
    gptvq_error expected = {.message = ""}, err = {.message = ""};
    f.x[17] = NAN;
    s.calls = 0;
    assert_int_equal(on_cpu(&f, &half, f.x, &s, &expected), GPTVQ_ERROR_NUMERIC);
    assert_int_equal(on_device(&f, &half, f.x, &s, &err), GPTVQ_ERROR_NUMERIC);
    assert_int_equal(s.calls, 0);
    assert_string_equal(err.message, expected.message);
    close_fixture(&f);
  }
}

/* What is asked for fits into what is said to be needed, and less is an error after which it goes on. */
static void memory_is_what_was_said(void **state) {
  (void)state;
  if (on_test_card()) skip();
  fixture f = open_fixture("qwen3");
  static seen s;
  const gptvq_block *block = &f.model->blocks[0];
  gptvq_error err = {.message = ""};
  const size_t vectors = 4 * N * f.model->config.hidden * sizeof(float), /* gains, rotations */
      bytes = gptvq_cuda_forward_bytes(f.model, block, N, N, 1);
  for (int enough = 0; enough < 2; enough++)
    for (int mlp = 0; mlp < 2; mlp++) {
      const gptvq_forward_half half = {f.model, block, mlp, GPTVQ_RUN_ALL, f.workspace};
      gptvq_shim_limit(device, enough ? bytes + vectors : bytes / 4);
      s.calls = 0;
      const gptvq_status status = on_device(&f, &half, f.x, &s, &err);
      assert_int_equal(status, enough ? GPTVQ_OK : GPTVQ_ERROR_MEMORY);
      if (!enough) f.table->rest(f.table);
    }
  close_fixture(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(norms_are_the_cpus),
                                     cmocka_unit_test(rows_are_the_cpus),
                                     cmocka_unit_test(attention_is_a_softmax),
                                     cmocka_unit_test(halves_are_the_cpus),
                                     cmocka_unit_test(what_is_left_to_the_cpu_is_said),
                                     cmocka_unit_test(numbers_that_are_not_finite_are_errors),
                                     cmocka_unit_test(memory_is_what_was_said)};
  return cmocka_run_group_tests(tests, open_device, close_device);
}
