/* --device as text; products and factorisations on the shim or a card (cuda/linalg.h) against the CPU's. */
#include "counted_upload.h"
#include "device_fixture.h"
#include "cuda/linalg.h"
#include "cuda/shim/shim.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "calib/hessian.h"
#include "calib/mismatch.h"
#include "linalg/gemm.h"
#include "linalg/solve/cholesky.h"
#include "quant/options/options.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define ok(call) assert_int_equal(call, GPTVQ_OK)

static void devices_have_names(void **state) {
  (void)state;
  gptvq_device_choice d;
  gptvq_error err;
  static const struct {
    const char *text;
    gptvq_device_choice choice;
  } good[] = {{NULL, {GPTVQ_ON_CPU, 0, false}},           {"", {GPTVQ_ON_CPU, 0, false}},
              {"cpu", {GPTVQ_ON_CPU, 0, false}},          {"cuda", {GPTVQ_ON_CUDA, 0, false}},
              {"cuda:0", {GPTVQ_ON_CUDA, 0, true}},       {"cuda:12", {GPTVQ_ON_CUDA, 12, true}},
              {"cuda:1023", {GPTVQ_ON_CUDA, 1023, true}}, {"auto", {GPTVQ_ON_ANY, 0, false}},
              {"shim", {GPTVQ_ON_SHIM, 0, false}}};
  static const char *const bad[] = {"gpu",       "CUDA",    "cuda:",
                                    "cuda:-1",   "cuda:1x", "cuda: 1",
                                    "cuda:1024", "cpu:0",   "cuda:99999999999999999999"};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    ok(gptvq_device_parse(good[i].text, &d, &err));
    assert_int_equal(d.kind, good[i].choice.kind);
    assert_int_equal(d.card, good[i].choice.card);
    assert_int_equal(d.numbered, good[i].choice.numbered);
  }
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_int_equal(gptvq_device_parse(bad[i], &d, &err), GPTVQ_ERROR_ARGUMENT);
    assert_non_null(strstr(err.message, "`device`"));
  }
  gptvq_quantize_options options;
  gptvq_quantize_options_init(&options);
  options.device = "gpu";
  assert_int_equal(gptvq_quantize_options_resolve(&options, &err), GPTVQ_ERROR_ARGUMENT);
}

/* ---- sums ---- */

enum { M = 90, C = 2100, N = 600, LDX = C + 3, LDY = M + 1, CHUNK = 256 }; /* C: more than a panel of rows */

typedef struct inputs {
  float *x, *y;                        /* [N × LDX], [N × LDY] */
  double *expected, *magnitude, *sums; /* [C × C] */
} inputs;

static int make_inputs(void **state) {
  static inputs in;
  uint64_t seed = 7;
  in.x = gptvq_alloc(N, LDX * sizeof *in.x);
  in.y = gptvq_alloc(N, LDY * sizeof *in.y);
  in.expected = gptvq_alloc(C, C * sizeof(double));
  in.magnitude = gptvq_alloc(C, C * sizeof(double));
  in.sums = gptvq_alloc(C, C * sizeof(double));
  if (in.x == NULL || in.y == NULL || in.expected == NULL || in.magnitude == NULL || in.sums == NULL)
    return 1;
  for (size_t i = 0; i < (size_t)N * LDX; i++) in.x[i] = (float)(gptvq_random_unit(&seed) - 0.5);
  for (size_t i = 0; i < (size_t)N * LDY; i++) in.y[i] = (float)(gptvq_random_unit(&seed) - 0.25);
  *state = &in;
  return 0;
}

static int release_inputs(void **state) {
  inputs *in = *state;
  free(in->x);
  free(in->y);
  free(in->expected);
  free(in->magnitude);
  free(in->sums);
  return 0;
}

static float rounded(float x, bool rounds) {
  return rounds ? gptvq_bf16_to_float(gptvq_float_to_bf16(x)) : x;
}

/* Of many rows a few are looked at, those around a panel's end among them. */
static bool is_checked(size_t m, size_t r) {
  return m == M || r % 191 == 0 || (r > 2045 && r < 2051) || r == m - 1;
}

/* yᵀ x, in double, and the same of absolute values. */
static void make_expected(const inputs *in, bool cross, bool rounds) {
  const size_t m = cross ? M : C;
  memset(in->expected, 0, m * C * sizeof(double));
  memset(in->magnitude, 0, m * C * sizeof(double));
  for (size_t t = 0; t < N; t++)
    for (size_t r = 0; r < m; r++) {
      if (!is_checked(m, r)) continue;
      const double y = (double)rounded(cross ? in->y[t * LDY + r] : in->x[t * LDX + r], rounds);
      for (size_t c = cross ? 0 : r; c < C; c++) {
        const double product = y * (double)rounded(in->x[t * LDX + c], rounds);
        in->expected[r * C + c] += product;
        in->magnitude[r * C + c] += fabs(product);
      }
    }
}

/* An fp32 sum of CHUNK products is off by at most CHUNK · 2^-24 of the sum of their magnitudes (each product
 * and each partial sum is rounded once; by twice that where tensor cores cut off); the sums of chunks, in
 * double, by nothing that matters. */
static void check_sums(const inputs *in, size_t m, bool upper, bool rounds, double start) {
  const double terms = !rounds ? CHUNK : on_test_card() ? 2 * N : N; /* 1,024 at most with bf16 */
  for (size_t r = 0; r < m; r++)
    for (size_t c = 0; c < C; c++) {
      const double found = in->sums[r * C + c], bound = terms * 0x1p-24 * in->magnitude[r * C + c];
      if (upper && c < r) {
        if (found != start) fail_msg("below the diagonal, at %zu, %zu: %g", r, c, found);
      } else if (is_checked(m, r) && !(fabs(found - start - in->expected[r * C + c]) <= bound)) {
        fail_msg("at %zu, %zu: %.9g instead of %.9g, bound %.2g", r, c, found - start,
                 in->expected[r * C + c], bound);
      }
    }
}

static void fill(const inputs *in, double value) {
  for (size_t i = 0; i < (size_t)C * C; i++) in->sums[i] = value;
}

static gptvq_status add_all(const gptvq_linalg *l, const inputs *in, bool cross, double *sums,
                            gptvq_error *err) {
  enum { FIRST = 300 }; /* in two calls of different sizes */
  for (size_t t = 0; t < N; t += t == 0 ? FIRST : N) {
    const size_t n = t == 0 ? FIRST : N - FIRST;
    const float *x = in->x + t * LDX, *y = in->y + t * LDY;
    GPTVQ_TRY(cross ? l->cross(l, M, C, n, CHUNK, y, LDY, x, LDX, sums, err)
                    : l->gram(l, C, n, CHUNK, x, LDX, sums, err));
  }
  return GPTVQ_OK;
}

static void sums_are_those_of_the_definition(void **state) {
  const inputs *in = *state;
  gptvq_device *device;
  gptvq_error err;
  ok(open_test_device(&device, &err));
  for (int rounds = 0; rounds < 2; rounds++)
    for (int cross = 0; cross < 2; cross++) {
      gptvq_cuda_linalg *linalg;
      size_t before, after, total;
      ok(device->memory(device, &before, &total, &err));
      ok(gptvq_cuda_linalg_create(device, rounds != 0, &linalg, &err));
      const gptvq_linalg *l = gptvq_cuda_linalg_table(linalg);
      make_expected(in, cross != 0, rounds != 0);
      fill(in, 0.5);
      ok(add_all(l, in, cross != 0, in->sums, &err));
      ok(l->settle(l, in->sums, &err));
      check_sums(in, cross ? M : C, !cross, rounds != 0, 0.5);
      ok(l->settle(l, in->sums, &err)); /* nothing is left to add */
      check_sums(in, cross ? M : C, !cross, rounds != 0, 0.5);
      gptvq_cuda_linalg_destroy(linalg);
      ok(device->memory(device, &after, &total, &err));
      if (!on_test_card()) assert_int_equal(before, after);
    }
  device->close(device);
}

/* Rows that the device has count for those at the host's address, which is not read: from the same numbers
 * the same bits, in two calls. */
static void lent_rows_are_not_read(void **state) {
  const inputs *in = *state;
  gptvq_device *device;
  gptvq_error err;
  void *memory;
  const size_t values = (size_t)N * LDX, count = (size_t)C * C;
  double *expected = in->expected;
  inputs unread = *in;
  unread.x = gptvq_alloc(values, sizeof *unread.x);
  assert_non_null(unread.x);
  for (size_t i = 0; i < values; i++) unread.x[i] = NAN;
  ok(open_test_device(&device, &err));
  ok(device->alloc(device, values * sizeof *in->x, &memory, &err));
  ok(gptvq_device_upload(device, values * sizeof *in->x, memory, in->x, &err));
  for (int which = 0; which < 4; which++) {
    const bool rounds = which & 1, cross = which & 2;
    gptvq_cuda_linalg *linalg;
    ok(gptvq_cuda_linalg_create(device, rounds, &linalg, &err));
    const gptvq_linalg *l = gptvq_cuda_linalg_table(linalg);
    memset(expected, 0, count * sizeof *expected);
    fill(in, 0.0);
    ok(add_all(l, in, cross, expected, &err));
    gptvq_cuda_linalg_lend(linalg, unread.x, N, LDX, memory);
    ok(add_all(l, &unread, cross, in->sums, &err));
    gptvq_cuda_linalg_take_back(linalg);
    ok(l->settle(l, expected, &err));
    ok(l->settle(l, in->sums, &err));
    assert_memory_equal(expected, in->sums, count * sizeof *expected);
    gptvq_cuda_linalg_destroy(linalg);
  }
  device->free(device, memory);
  device->close(device);
  free(unread.x);
}

/* (X₀ − X)ᵀ X with X₀ remembered, from the host or lent: what the cross product of the difference gives. */
static void changes_are_differences(void **state) {
  const inputs *in = *state;
  gptvq_device *device;
  gptvq_error err;
  void *memory;
  enum { ROWS = 300, COLS = M, LD = LDX, AT = 7 }; /* columns from AT on are X₀'s */
  const size_t count = (size_t)COLS * COLS;
  float *difference = gptvq_alloc(ROWS, COLS * sizeof *difference),
        *unread = gptvq_alloc(ROWS, LD * sizeof *unread);
  double *expected = in->expected;
  assert_true(difference != NULL && unread != NULL);
  for (size_t i = 0; i < (size_t)ROWS * LD; i++) unread[i] = NAN;
  for (size_t t = 0; t < ROWS; t++)
    for (size_t c = 0; c < COLS; c++) difference[t * COLS + c] = in->x[t * LD + AT + c] - in->y[t * LDY + c];
  ok(open_test_device(&device, &err));
  ok(device->alloc(device, (size_t)ROWS * LD * sizeof *in->x, &memory, &err));
  ok(gptvq_device_upload(device, (size_t)ROWS * LD * sizeof *in->x, memory, in->x, &err));
  for (int which = 0; which < 4; which++) {
    const bool rounds = which & 1, lends = which & 2;
    gptvq_cuda_linalg *linalg;
    ok(gptvq_cuda_linalg_create(device, rounds, &linalg, &err));
    const gptvq_linalg *l = gptvq_cuda_linalg_table(linalg);
    memset(expected, 0, count * sizeof *expected);
    memset(in->sums, 0, count * sizeof *in->sums);
    assert_int_equal(l->cross_change(l, COLS, ROWS, CHUNK, in->y, LDY, in->sums, &err), GPTVQ_ERROR_INTERNAL);
    if (lends) gptvq_cuda_linalg_lend(linalg, unread, ROWS, LD, memory);
    ok(l->remember(l, COLS, ROWS, (lends ? unread : in->x) + AT, LD, &err));
    gptvq_cuda_linalg_take_back(linalg);
    assert_int_equal(l->cross_change(l, COLS, ROWS - 1, CHUNK, in->y, LDY, in->sums, &err),
                     GPTVQ_ERROR_INTERNAL);
    ok(l->cross_change(l, COLS, ROWS, CHUNK, in->y, LDY, in->sums, &err));
    ok(l->cross(l, COLS, COLS, ROWS, CHUNK, difference, COLS, in->y, LDY, expected, &err));
    ok(l->settle(l, expected, &err));
    ok(l->settle(l, in->sums, &err));
    assert_memory_equal(expected, in->sums, count * sizeof *expected);
    gptvq_cuda_linalg_destroy(linalg);
  }
  device->free(device, memory);
  device->close(device);
  free(difference);
  free(unread);
}

static void forgotten_sums_are_gone(void **state) {
  const inputs *in = *state;
  gptvq_device *device;
  gptvq_cuda_linalg *linalg;
  gptvq_error err;
  ok(open_test_device(&device, &err));
  ok(gptvq_cuda_linalg_create(device, false, &linalg, &err));
  const gptvq_linalg *l = gptvq_cuda_linalg_table(linalg);
  fill(in, 0.0);
  ok(add_all(l, in, true, in->sums, &err));
  l->forget(l, in->sums);
  l->forget(l, in->sums);
  ok(l->settle(l, in->sums, &err));
  for (size_t i = 0; i < (size_t)M * C; i++) assert_true(in->sums[i] == 0.0);
  gptvq_cuda_linalg_destroy(linalg);
  device->close(device);
}

/* For the Gram product's sums, a panel and a chunk. */
#define LEAST \
  ((size_t)(C + 1) * C * sizeof(double) + (size_t)2048 * C * sizeof(float) + \
   (size_t)CHUNK * C * sizeof(float))

/* With less and less memory: sums of others go back to the host first, then slabs get smaller; the result is
 * the same to the bit; at last it is an error. */
static void little_memory_is_enough(void **state) {
  const inputs *in = *state;
  if (on_test_card()) skip(); /* only the shim's can be limited */
  gptvq_device *device;
  gptvq_error err;
  double *other = gptvq_alloc_zero(M, C * sizeof *other), *first = gptvq_alloc(C, C * sizeof *first);
  assert_non_null(other);
  assert_non_null(first);
  const size_t limits[] = {SIZE_MAX, LEAST + (size_t)M * C * sizeof(double) / 2, LEAST};
  make_expected(in, true, false);
  for (size_t i = 0; i < 3; i++) {
    gptvq_cuda_linalg *linalg;
    ok(gptvq_device_open_shim(&device, &err));
    if (limits[i] != SIZE_MAX) gptvq_shim_limit(device, limits[i]);
    ok(gptvq_cuda_linalg_create(device, false, &linalg, &err));
    const gptvq_linalg *l = gptvq_cuda_linalg_table(linalg);
    memset(other, 0, (size_t)M * C * sizeof *other);
    fill(in, 0.0);
    ok(add_all(l, in, true, other, &err));
    ok(add_all(l, in, false, in->sums, &err));
    ok(l->settle(l, in->sums, &err));
    ok(l->settle(l, other, &err));
    if (i == 0) memcpy(first, in->sums, (size_t)C * C * sizeof *first);
    else assert_memory_equal(first, in->sums, (size_t)C * C * sizeof *first);
    memcpy(in->sums, other, (size_t)M * C * sizeof *other);
    check_sums(in, M, false, false, 0.0);
    gptvq_cuda_linalg_destroy(linalg);
    device->close(device);
  }
  gptvq_cuda_linalg *linalg;
  ok(gptvq_device_open_shim(&device, &err));
  gptvq_shim_limit(device, LEAST - 1);
  ok(gptvq_cuda_linalg_create(device, false, &linalg, &err));
  const gptvq_linalg *l = gptvq_cuda_linalg_table(linalg);
  assert_int_equal(add_all(l, in, false, in->sums, &err), GPTVQ_ERROR_MEMORY);
  gptvq_cuda_linalg_destroy(linalg);
  device->close(device);
  free(other);
  free(first);
}

/* ---- groups ---- */

/* Bytes that come from the device, beside the device's function. */
static gptvq_status (*download)(gptvq_device *, const gptvq_device_rows *, void *, const void *,
                                gptvq_error *);
static size_t downloaded;
static gptvq_status counted_download(gptvq_device *device, const gptvq_device_rows *shape, void *to,
                                     const void *from, gptvq_error *err) {
  downloaded += shape->rows * shape->row_bytes;
  return download(device, shape, to, from, err);
}

/* What folding is defined by. */
static gptvq_status fold_on_host(const gptvq_linalg *l, const gptvq_sum *sum, gptvq_error *err) {
  GPTVQ_TRY(l->settle(l, sum->part, err));
  gptvq_sum_fold(sum);
  return GPTVQ_OK;
}

/* The same by way of a team. */
static gptvq_status fold_handed_over(const gptvq_linalg *l, const gptvq_sum *sum, gptvq_error *err) {
  GPTVQ_TRY(l->hand_over(l, sum->part, err));
  gptvq_sum_fold(sum);
  return GPTVQ_OK;
}

typedef enum way { ON_DEVICE, ON_HOST, HANDED_OVER } way;

/* A Hessian of C columns and a mismatch of M, of `groups` groups; hessian[C × C], sums[M × M]. limit: of the
 * device's memory, 0: what is used when the first group ends. */
static void collect_groups(const inputs *in, size_t groups, way how, size_t limit, double *hessian,
                           double *sums) {
  enum {
    AT = 7
  }; /* columns of x from here on are the mismatch's inputs, its first N · M numbers what they were */
  gptvq_device *device;
  gptvq_cuda_linalg *linalg;
  gptvq_error err;
  gptvq_dist alone;
  gptvq_hessian h;
  gptvq_mismatch m;
  ok(open_test_device(&device, &err));
  if (limit > 0) gptvq_shim_limit(device, limit);
  download = device->download;
  device->download = counted_download;
  downloaded = 0;
  ok(gptvq_cuda_linalg_create(device, false, &linalg, &err));
  gptvq_linalg l = *gptvq_cuda_linalg_table(linalg);
  if (how != ON_DEVICE) l.fold = how == ON_HOST ? fold_on_host : fold_handed_over;
  ok(gptvq_dist_create(NULL, &alone, &err));
  ok(gptvq_hessian_init(&h, &l, C, "test", &err));
  ok(gptvq_mismatch_init(&m, &l, M, 0, 1.0, 0.0, "test", &err));
  for (size_t g = 0; g < groups; g++) {
    const size_t begin = N * g / groups, n = N * (g + 1) / groups - begin;
    const gptvq_deviation tokens = {
        .n = n, .x_original = in->x + begin * M, .x = in->x + begin * LDX + AT, .ldx = LDX};
    ok(gptvq_hessian_add(&h, n, in->x + begin * LDX, LDX, &err));
    ok(gptvq_mismatch_add(&m, &tokens, &err));
    if (limit == 0) gptvq_shim_limit(device, 0);
    ok(gptvq_hessian_add_group(&h, &alone, NULL, g, &err));
    ok(gptvq_mismatch_add_group(&m, &alone, NULL, g, &err));
  }
  ok(gptvq_hessian_gather(&h, &alone, &err));
  ok(gptvq_mismatch_gather(&m, &alone, &err));
  ok(gptvq_hessian_finish(&h, "test", &err));
  memcpy(hessian, h.values, (size_t)C * C * sizeof *hessian);
  memcpy(sums, m.sums, (size_t)M * M * sizeof *sums);
  gptvq_hessian_release(&h);
  gptvq_mismatch_release(&m);
  gptvq_dist_release(&alone);
  gptvq_cuda_linalg_destroy(linalg);
  device->close(device);
}

/* Sums of groups become totals on the device, by the host's operations: the same bits, and they come to the
 * host once, however many groups there are; what of them goes to others comes in fp32. Where there is no room
 * for the totals, or for all parts, the host adds up. */
static void groups_are_folded_on_the_device(void **state) {
  const inputs *in = *state;
  enum { GROUPS = 5, SLACK = 8 << 20 /* of a triangle's pieces */ };
  const size_t values = (size_t)C * C, triangle = (size_t)C * (C + 1) / 2, square = (size_t)M * M;
  double *h = gptvq_alloc(2 * values, sizeof *h), *sums = gptvq_alloc(2 * square, sizeof *sums);
  size_t bytes[2];
  assert_true(h != NULL && sums != NULL);
  for (size_t i = 0; i < 2; i++) {
    const size_t groups = i == 0 ? 1 : GROUPS;
    collect_groups(in, groups, ON_HOST, SIZE_MAX, h, sums);
    collect_groups(in, groups, ON_DEVICE, SIZE_MAX, h + values, sums + square);
    assert_memory_equal(h, h + values, values * sizeof *h);
    assert_memory_equal(sums, sums + square, square * sizeof *sums);
    bytes[i] = downloaded;
  }
  assert_int_equal(bytes[0], bytes[1]);
  assert_true(bytes[0] <= (triangle + square) * sizeof *h + SLACK);
  collect_groups(in, GROUPS, HANDED_OVER, SIZE_MAX, h + values, sums + square);
  assert_memory_equal(h, h + values, values * sizeof *h);
  assert_memory_equal(sums, sums + square, square * sizeof *sums);
  assert_true(downloaded <= GROUPS * ((triangle + square) * sizeof(float) + SLACK));
  for (size_t i = 0; i < 2 && !on_test_card(); i++) { /* the mismatch's total does not fit; nor both parts */
    const size_t least = LEAST - (CHUNK - N / GROUPS) * C * sizeof(float); /* a group is less than a chunk */
    collect_groups(in, GROUPS, ON_DEVICE, i == 0 ? 0 : least, h + values, sums + square);
    assert_memory_equal(h, h + values, values * sizeof *h);
    assert_memory_equal(sums, sums + square, square * sizeof *sums);
    assert_true(downloaded > bytes[1]);
  }
  free(h);
  free(sums);
}

/* ---- factorisation ---- */

enum { SIDE = 333 };

static void factorisations_are_the_cpu_s(void **state) {
  (void)state;
  gptvq_device *device;
  gptvq_cuda_linalg *linalg;
  gptvq_error err;
  const size_t count = (size_t)SIDE * SIDE, block = GPTVQ_CHOLESKY_BLOCK;
  double *a = gptvq_alloc(count, sizeof *a), *inverse = gptvq_alloc(count, sizeof *inverse);
  double *scratch = gptvq_alloc(SIDE, block * sizeof *scratch);
  bool done;
  assert_true(a != NULL && inverse != NULL && scratch != NULL);
  ok(open_test_device(&device, &err));
  ok(gptvq_cuda_linalg_create(device, false, &linalg, &err));
  const gptvq_linalg *l = gptvq_cuda_linalg_table(linalg);
  uint64_t seed = 3;
  for (size_t r = 0; r < SIDE; r++)
    for (size_t c = 0; c < SIDE; c++) {
      a[r * SIDE + c] = c > r ? -77.0 : c == r ? (double)SIDE : gptvq_random_unit(&seed) - 0.5;
      inverse[r * SIDE + c] = a[r * SIDE + c];
    }
  ok(l->inverse_factor(l, SIDE, inverse, scratch, &done, &err));
  assert_true(done);
  /* L⁻¹ A L⁻ᵀ = 1; A is close to SIDE · 1: errors are few ε, SIDE of them are summed */
  for (size_t i = 0; i < SIDE; i++)
    for (size_t j = 0; j <= i; j++) {
      double sum = 0.0;
      for (size_t r = 0; r <= i; r++)
        for (size_t c = 0; c <= j; c++)
          sum += inverse[i * SIDE + r] * a[r >= c ? r * SIDE + c : c * SIDE + r] * inverse[j * SIDE + c];
      if (!(fabs(sum - (i == j ? 1.0 : 0.0)) <= 8.0 * SIDE * 0x1p-53)) fail_msg("at %zu, %zu: %g", i, j, sum);
      if (i % 37 != 0) break; /* of some rows all, of all the first: it is a product of three */
    }
  for (size_t r = 0; r < SIDE; r++)
    for (size_t c = r + 1; c < SIDE; c++)
      if (c / block != r / block) assert_true(inverse[r * SIDE + c] == -77.0);
  a[5 * SIDE + 5] = -1.0;
  ok(l->inverse_factor(l, SIDE, a, scratch, &done, &err));
  assert_false(done);
  ok(l->inverse_factor(l, 0, a, scratch, &done, &err));
  assert_true(done);
  gptvq_cuda_linalg_destroy(linalg);
  device->close(device);
  free(a);
  free(inverse);
  free(scratch);
}

/* ---- maps ---- */

/* w + α w map: fp32 sums of C products in either order, the last roundings; with little memory, and by the
 * host where there is none, the same bits. A map that is there is not sent again; a forgotten one is, and one
 * that sums needed the room of. */
static void rows_are_mapped(void **state) {
  const inputs *in = *state;
  const float *map = in->x; /* [C × C] of N × LDX */
  const size_t all = (size_t)M * C;
  const double share = 0.75;
  gptvq_device *device;
  gptvq_cuda_linalg *linalg;
  gptvq_error err;
  float *square = gptvq_alloc(C, C * sizeof *square), *w = gptvq_alloc(all, sizeof *w),
        *found = gptvq_alloc(all, sizeof *found), *first = gptvq_alloc(all, sizeof *first);
  assert_true(square != NULL && w != NULL && found != NULL && first != NULL);
  for (size_t i = 0; i < (size_t)C * C; i++) square[i] = map[i % ((size_t)N * LDX)];
  for (size_t i = 0; i < all; i++) w[i] = in->x[i * 7 % ((size_t)N * LDX)];
  ok(open_test_device(&device, &err));
  upload = device->upload;
  device->upload = counted_upload;
  ok(gptvq_cuda_linalg_create(device, false, &linalg, &err));
  const gptvq_linalg *l = gptvq_cuda_linalg_table(linalg);
  for (int round = 0; round < (on_test_card() ? 3 : 4); round++) {
    memcpy(found, w, all * sizeof *found);
    uploaded = 0;
    if (round >= 2) l->forget(l, square);
    if (round == 3) gptvq_shim_limit(device, ((size_t)C * C + (size_t)2 * 50 * C) * sizeof *w); /* 50 rows */
    ok(l->add_mapped(l, M, C, share, square, found, &err));
    assert_int_equal(device->crowded, round == 3);
    assert_int_equal(uploaded, (all + (round == 1 ? 0 : (size_t)C * C)) * sizeof *w);
    if (round == 0) memcpy(first, found, all * sizeof *found);
    assert_memory_equal(found, first, all * sizeof *found);
    for (size_t r = 0; r < M; r += 13)
      for (size_t c = 0; c < C; c++) {
        double change = 0.0, magnitude = fabs((double)w[r * C + c]);
        for (size_t k = 0; k < C; k++) {
          const double product = share * (double)w[r * C + k] * (double)square[k * C + c];
          change += product;
          magnitude += fabs(product);
        }
        const double expected = (double)w[r * C + c] + change;
        assert_true(fabs((double)found[r * C + c] - expected) <= (C + 4) * 0x1p-24 * magnitude);
      }
  }
  if (!on_test_card()) {
    gptvq_shim_limit(device, LEAST);
    make_expected(in, false, false);
    fill(in, 0.5);
    ok(add_all(l, in, false, in->sums, &err));
    ok(l->settle(l, in->sums, &err));
    check_sums(in, C, true, false, 0.5);
    for (int there = 1; there >= 0; there--) { /* room for the map; none */
      if (!there) l->forget(l, square);
      if (!there) gptvq_cuda_linalg_rest(linalg);
      if (!there) gptvq_shim_limit(device, 0);
      uploaded = 0;
      memcpy(found, w, all * sizeof *found);
      ok(l->add_mapped(l, M, C, share, square, found, &err));
      assert_int_equal(uploaded, there ? (all + (size_t)C * C) * sizeof *w : 0);
      assert_memory_equal(found, first, all * sizeof *found);
    }
  }
  gptvq_cuda_linalg_destroy(linalg);
  device->close(device);
  free(square);
  free(w);
  free(found);
  free(first);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(devices_have_names),
      cmocka_unit_test_setup_teardown(sums_are_those_of_the_definition, make_inputs, release_inputs),
      cmocka_unit_test_setup_teardown(lent_rows_are_not_read, make_inputs, release_inputs),
      cmocka_unit_test_setup_teardown(changes_are_differences, make_inputs, release_inputs),
      cmocka_unit_test_setup_teardown(forgotten_sums_are_gone, make_inputs, release_inputs),
      cmocka_unit_test_setup_teardown(little_memory_is_enough, make_inputs, release_inputs),
      cmocka_unit_test_setup_teardown(groups_are_folded_on_the_device, make_inputs, release_inputs),
      cmocka_unit_test(factorisations_are_the_cpu_s),
      cmocka_unit_test_setup_teardown(rows_are_mapped, make_inputs, release_inputs)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
