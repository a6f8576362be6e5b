/* A card (cuda/card.h) through the driver of tests/driver, which LD_LIBRARY_PATH names: what the driver,
 * cuBLAS and cuSOLVER are asked for is what the interface of devices means. Skipped without. */
#include "cuda/card.h"
#include "cuda/staging.h"
#include "cuda/place.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define ok(call) assert_int_equal(call, GPTVQ_OK)

static const gptvq_card_need need = {1 << 20, "an image", 0};
static gptvq_device *card;

static int open_card(void **state) {
  (void)state;
  gptvq_error err;
  card = NULL;
  (void)gptvq_card_open(1, &need, &card, &err);
  return 0;
}

static int close_card(void **state) {
  (void)state;
  if (card != NULL) card->close(card);
  return 0;
}

static void cards_are_described(void **state) {
  (void)state;
  gptvq_card_info info;
  gptvq_device *other;
  gptvq_error err;
  if (card == NULL) skip();
  gptvq_card_describe(card, &info);
  assert_string_equal(info.name, "Fake 1");
  assert_string_equal(card->name, "Fake 1");
  assert_int_equal(info.number, 1);
  assert_int_equal(10 * info.major + info.minor, 90);
  assert_int_equal(info.memory, (size_t)24 << 30);
  ok(gptvq_card_open(GPTVQ_CARD_ANY, &need, &other, &err)); /* two at a time */
  gptvq_card_describe(other, &info);
  assert_int_equal(info.number, 0);
  other->close(other);
  for (unsigned i = 0; i < 5; i++) { /* of the third process on a machine with two cards: the first one */
    const gptvq_place_need process = {.neighbours = 5, .neighbour = i, .forward_only = true};
    const gptvq_device_choice choices[] = {
        {GPTVQ_ON_CUDA, 0, false}, {GPTVQ_ON_ANY, 0, false}, {GPTVQ_ON_CUDA, 1, true}};
    for (size_t j = 0; j < 3; j++) {
      gptvq_place place;
      ok(gptvq_place_open(&choices[j], &process, NULL, &place, &err));
      assert_string_equal(place.name, j == 2 || i % 2 == 1 ? "cuda:1" : "cuda:0");
      gptvq_place_close(&place);
    }
  }
  assert_int_equal(gptvq_card_open(2, &need, &other, &err), GPTVQ_ERROR_UNSUPPORTED);
  assert_null(other);
  assert_non_null(strstr(err.message, "finds 2"));
  const gptvq_card_need much = {(size_t)25 << 30, "an image", 0};
  assert_int_equal(gptvq_card_open(GPTVQ_CARD_ANY, &much, &other, &err), GPTVQ_ERROR_MEMORY);
  assert_non_null(strstr(err.message, "Fake 0"));
  void *memory;
  assert_int_equal(card->alloc(card, (size_t)1 << 60, &memory, &err), GPTVQ_ERROR_MEMORY);
  assert_null(memory);
  ok(card->alloc(card, 0, &memory, &err));
  assert_non_null(memory);
  card->free(card, memory);
  card->free(card, NULL);
}

static void memory_is_pinned_once(void **state) {
  (void)state;
  static float host[5000];
  if (card == NULL) skip();
  for (int round = 0; round < 2; round++) {
    assert_true(card->pin(card, host, sizeof host));
    assert_false(card->pin(card, host, sizeof host));
    card->unpin(card, host);
  }
  assert_false(card->pin(card, host, 0));
}

static void rows_are_copied(void **state) {
  (void)state;
  gptvq_error err;
  unsigned char host[7 * 13], back[7 * 17];
  void *memory;
  if (card == NULL) skip();
  for (size_t i = 0; i < sizeof host; i++) host[i] = (unsigned char)i;
  ok(card->alloc(card, 7 * 11, &memory, &err));
  ok(card->set(card, memory, 0xee, 7 * 11, &err));
  const gptvq_device_rows up = {5, 7, 11, 13}, down = {6, 7, 11, 17}, none = {5, 0, 5, 5};
  ok(card->upload(card, &up, memory, host, &err));
  ok(card->upload(card, &none, memory, NULL, &err));
  memset(back, 0x55, sizeof back);
  ok(card->download(card, &down, back, memory, &err));
  for (size_t r = 0; r < 7; r++)
    for (size_t c = 0; c < 17; c++)
      assert_int_equal(back[r * 17 + c], c < 5 ? host[r * 13 + c] : c < 6 ? 0xee : 0x55);
  ok(gptvq_device_upload(card, 77, memory, host, &err));
  ok(gptvq_device_download(card, 77, back, memory, &err));
  assert_memory_equal(back, host, 77);
  card->free(card, memory);
}

static void fill_bytes(unsigned char *to, size_t bytes, uint64_t seed) {
  uint64_t number = 0;
  for (size_t i = 0; i < bytes; i++, number >>= 8) {
    if (i % 8 == 0) number = gptvq_random_below(&seed, UINT64_MAX);
    to[i] = (unsigned char)number;
  }
}

/* More than the buffers of the staging hold, whole and in rows: what is sent may change at once, what has
 * come is there, from memory that is pinned and that is not. The driver in this place refuses a buffer that
 * is filled before it was copied, and has what comes arrive late. */
static void large_copies_go_in_pieces(void **state) {
  (void)state;
  enum { WIDTH = 3 << 18, APART = WIDTH + 40, THERE = WIDTH + 24, ROWS = 61 };
  gptvq_error err;
  if (card == NULL) skip();
  const size_t bytes = (size_t)ROWS * APART;
  _Static_assert((size_t)ROWS * WIDTH > (size_t)2 * GPTVQ_STAGING_BYTES, "pieces in turn");
  unsigned char *host = gptvq_alloc(bytes, 1), *back = gptvq_alloc(bytes, 1), *sent = gptvq_alloc(bytes, 1);
  void *memory;
  assert_true(host != NULL && back != NULL && sent != NULL);
  ok(card->alloc(card, bytes, &memory, &err));
  for (int pinned = 0; pinned < 2; pinned++) {
    if (pinned) assert_true(card->pin(card, host, bytes) && card->pin(card, back, bytes));
    for (int which = 0; which < 3; which++) { /* one array; gaps on both sides; on the host's only */
      const gptvq_device_rows shapes[] = {
          {bytes - 7, 1, 0, 0}, {WIDTH, ROWS, THERE, APART}, {WIDTH, ROWS, WIDTH, APART}};
      const gptvq_device_rows *shape = &shapes[which];
      fill_bytes(host, bytes, (uint64_t)(2 * which + pinned + 1));
      memcpy(sent, host, bytes);
      memset(back, 0x55, bytes);
      ok(card->upload(card, shape, memory, host, &err));
      memset(host, 0, bytes);
      ok(card->download(card, shape, back, memory, &err));
      for (size_t r = 0; r < shape->rows; r++) {
        const size_t at = r * shape->host_pitch, end = r + 1 < shape->rows ? at + shape->host_pitch : bytes;
        assert_memory_equal(back + at, sent + at, shape->row_bytes);
        for (size_t i = at + shape->row_bytes; i < end; i++) assert_int_equal(back[i], 0x55);
      }
    }
    if (pinned) {
      card->unpin(card, host);
      card->unpin(card, back);
    }
  }
  ok(card->synchronize(card, &err));
  card->free(card, memory);
  free(host);
  free(back);
  free(sent);
}

enum { M = 5, N = 7, K = 6, LDA = 9, LDB = 10, LDC = 11, MOST = 9 * 11 };

/* Small whole numbers: every result is exact, whatever the order. */
static void products_are_row_major(void **state) {
  (void)state;
  gptvq_error err;
  float a[MOST], b[MOST], c[MOST], found[MOST];
  void *da, *db, *dc;
  uint64_t seed = 5;
  if (card == NULL) skip();
  for (size_t i = 0; i < MOST; i++) {
    a[i] = floorf(16.0f * (float)gptvq_random_unit(&seed)) - 8.0f;
    b[i] = floorf(16.0f * (float)gptvq_random_unit(&seed)) - 8.0f;
    c[i] = floorf(16.0f * (float)gptvq_random_unit(&seed)) - 8.0f;
  }
  ok(card->alloc(card, sizeof a, &da, &err));
  ok(card->alloc(card, sizeof b, &db, &err));
  ok(card->alloc(card, sizeof c, &dc, &err));
  ok(gptvq_device_upload(card, sizeof a, da, a, &err));
  ok(gptvq_device_upload(card, sizeof b, db, b, &err));
  for (int which = 0; which < 12; which++) {
    const bool ta = which & 1, tb = which & 2;
    const float beta = which & 4 ? -1.0f : 0.0f;
    const bool half = which & 8;
    const gptvq_device_product p = {.transpose_a = ta,
                                    .transpose_b = tb,
                                    .precision = half        ? GPTVQ_PRODUCT_BF16
                                                 : which & 4 ? GPTVQ_PRODUCT_TF32
                                                             : GPTVQ_PRODUCT_FP32,
                                    .m = M,
                                    .n = N,
                                    .k = K,
                                    .alpha = 2.0f,
                                    .beta = beta,
                                    .a = da,
                                    .b = db,
                                    .c = dc,
                                    .lda = LDA,
                                    .ldb = LDB,
                                    .ldc = LDC};
    if (which == 8)
      for (size_t i = 0; i < 2; i++) {
        uint16_t bits[MOST];
        for (size_t e = 0; e < MOST; e++) bits[e] = gptvq_float_to_bf16((i == 0 ? a : b)[e]);
        ok(gptvq_device_upload(card, sizeof bits, i == 0 ? da : db, bits, &err));
      }
    ok(gptvq_device_upload(card, sizeof c, dc, c, &err));
    ok(card->product(card, &p, &err));
    ok(card->synchronize(card, &err));
    ok(gptvq_device_download(card, sizeof c, found, dc, &err));
    for (size_t i = 0; i < M; i++)
      for (size_t j = 0; j < LDC; j++) {
        float sum = 0.0f;
        for (size_t k = 0; k < K; k++)
          sum += (ta ? a[k * LDA + i] : a[i * LDA + k]) * (tb ? b[j % N * LDB + k] : b[k * LDB + j % N]);
        const float expected = j < N ? 2.0f * sum + beta * c[i * LDC + j] : c[i * LDC + j];
        assert_true(found[i * LDC + j] == expected);
      }
  }
  card->free(card, da);
  card->free(card, db);
  card->free(card, dc);
}

/* A = L Lᵀ of powers of two: L⁻¹ is exact. L = D (1 + N), N one step below the diagonal. */
static void factorisations_are_row_major(void **state) {
  (void)state;
  enum { SIDE = 4 };
  static const double l[SIDE][SIDE] = {{2, 0, 0, 0}, {1, 4, 0, 0}, {0, 2, 1, 0}, {0, 0, 1, 2}};
  double a[SIDE][SIDE] = {{0}}, found[SIDE][SIDE];
  gptvq_error err;
  void *memory;
  bool done;
  if (card == NULL) skip();
  for (size_t i = 0; i < SIDE; i++)
    for (size_t j = 0; j < SIDE; j++) {
      for (size_t k = 0; k < SIDE; k++) a[i][j] += l[i][k] * l[j][k];
      if (j > i) a[i][j] = NAN; /* is not read */
    }
  ok(card->alloc(card, sizeof a, &memory, &err));
  ok(gptvq_device_upload(card, sizeof a, memory, a, &err));
  ok(card->inverse_factor(card, SIDE, memory, &done, &err));
  assert_true(done);
  ok(gptvq_device_download(card, sizeof a, found, memory, &err));
  for (size_t i = 0; i < SIDE; i++)
    for (size_t j = 0; j <= i; j++) {
      double sum = 0.0;
      for (size_t k = j; k <= i; k++) sum += found[i][k] * l[k][j];
      assert_true(sum == (i == j ? 1.0 : 0.0));
    }
  a[2][2] = -1.0;
  ok(gptvq_device_upload(card, sizeof a, memory, a, &err));
  ok(card->inverse_factor(card, SIDE, memory, &done, &err));
  assert_false(done);
  card->free(card, memory);
}

static void kernels_are_launched(void **state) {
  (void)state;
  enum { ROWS = 3, COLS = 300 };
  gptvq_error err;
  float product[ROWS * COLS];
  double sums[ROWS * (COLS + 2)];
  void *dp, *ds;
  if (card == NULL) skip();
  for (size_t i = 0; i < ROWS * COLS; i++) product[i] = (float)i;
  for (size_t i = 0; i < sizeof sums / sizeof sums[0]; i++) sums[i] = 0.25;
  ok(card->alloc(card, sizeof product, &dp, &err));
  ok(card->alloc(card, sizeof sums, &ds, &err));
  ok(gptvq_device_upload(card, sizeof product, dp, product, &err));
  ok(gptvq_device_upload(card, sizeof sums, ds, sums, &err));
  const gptvq_kernel_add_sums_arguments arguments = {ROWS, COLS, COLS + 2, false, dp, ds};
  const gptvq_device_grid grid = {2, 2, 256, 60 << 10}, nothing = {0, 1, 256, 0};
  gptvq_device_grid much = grid;
  ok(card->launch(card, GPTVQ_KERNEL_add_sums, &nothing, &arguments, &err));
  ok(card->launch(card, GPTVQ_KERNEL_add_sums, &grid, &arguments, &err));
  ok(gptvq_device_download(card, sizeof sums, sums, ds, &err));
  for (size_t r = 0; r < ROWS; r++)
    for (size_t c = 0; c < COLS + 2; c++)
      assert_true(sums[r * (COLS + 2) + c] == (c < COLS ? 0.25 + (double)(r * COLS + c) : 0.25));
  much.shared_bytes = card->shared_bytes + 1;
  assert_int_equal(card->launch(card, GPTVQ_KERNEL_add_sums, &much, &arguments, &err), GPTVQ_ERROR_INTERNAL);
  assert_non_null(strstr(err.message, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"));
  card->free(card, dp);
  card->free(card, ds);
}

/* Kernel `em` has arrays in static shared memory: less than all is left for dynamic, more than 48 KiB can be
 * had. Two centroids of four points, at their quantiles. */
static void static_shared_memory_counts(void **state) {
  (void)state;
  enum { ROWS = 4 };
  gptvq_error err;
  const float w[ROWS] = {1.0f, 2.0f, 3.0f, 4.0f}, one = 1.0f;
  const uint32_t column = 0;
  float centroids[2];
  void *dw, *dt, *dc, *out, *scratch;
  if (card == NULL) skip();
  ok(card->alloc(card, sizeof w, &dw, &err));
  ok(card->alloc(card, sizeof one, &dt, &err));
  ok(card->alloc(card, sizeof column, &dc, &err));
  ok(card->alloc(card, sizeof centroids, &out, &err));
  ok(card->alloc(card, 7 * ROWS * sizeof(double), &scratch, &err));
  ok(gptvq_device_upload(card, sizeof w, dw, w, &err));
  ok(gptvq_device_upload(card, sizeof one, dt, &one, &err));
  ok(gptvq_device_upload(card, sizeof column, dc, &column, &err));
  double *keys = scratch;
  const gptvq_kernel_em_arguments a = {.rows = ROWS,
                                       .stripe_rows = ROWS,
                                       .dim = 1,
                                       .k = 2,
                                       .blocks = 1,
                                       .cdf = 1,
                                       .w = dw,
                                       .w_stride = 1,
                                       .column = dc,
                                       .t = dt,
                                       .centroids = out,
                                       .book_stride = 2,
                                       .most = ROWS,
                                       .x = (float *)(void *)(keys + ROWS),
                                       .xt = (float *)(void *)(keys + 2 * ROWS),
                                       .distance = (float *)(void *)(keys + 3 * ROWS),
                                       .index = (uint16_t *)(void *)(keys + 4 * ROWS),
                                       .previous = (uint16_t *)(void *)(keys + 5 * ROWS),
                                       .keys = keys,
                                       .sorted = (uint32_t *)(void *)(keys + 6 * ROWS)};
  const gptvq_device_grid grid = {1, 1, GPTVQ_EM_THREADS, 60 << 10};
  gptvq_device_grid much = grid;
  ok(card->launch(card, GPTVQ_KERNEL_em, &grid, &a, &err));
  ok(gptvq_device_download(card, sizeof centroids, centroids, out, &err));
  assert_true(centroids[0] == 2.0f && centroids[1] == 4.0f);
  much.shared_bytes = card->shared_bytes;
  assert_int_equal(card->launch(card, GPTVQ_KERNEL_em, &much, &a, &err), GPTVQ_ERROR_INTERNAL);
  card->free(card, dw);
  card->free(card, dt);
  card->free(card, dc);
  card->free(card, out);
  card->free(card, scratch);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(cards_are_described),    cmocka_unit_test(memory_is_pinned_once),
      cmocka_unit_test(rows_are_copied),        cmocka_unit_test(large_copies_go_in_pieces),
      cmocka_unit_test(products_are_row_major), cmocka_unit_test(factorisations_are_row_major),
      cmocka_unit_test(kernels_are_launched),   cmocka_unit_test(static_shared_memory_counts)};
  return cmocka_run_group_tests(tests, open_card, close_card);
}
