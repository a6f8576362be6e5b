/* Arenas, and that what the solver takes of one is what it said it would. */
#include "calib/mismatch.h"
#include "solver_fixture.h"

#include <gptvq/status.h>

static void pieces_are_given_back_in_order(void **state) {
  (void)state;
  gptvq_arena arena, counting = {0};
  gptvq_error err;
  for (size_t i = 1; i <= 3; i++) assert_null(gptvq_arena_take(&counting, i, 50));
  assert_int_equal(gptvq_arena_create(&arena, counting.peak, "work", &err), GPTVQ_OK);
  char *first = gptvq_arena_take(&arena, 1, 50);
  size_t mark = arena.used;
  char *second = gptvq_arena_take(&arena, 2, 50), *third = gptvq_arena_take_zero(&arena, 3, 50);
  assert_non_null(third);
  assert_int_equal((uintptr_t)first % 64 + (uintptr_t)second % 64 + (uintptr_t)third % 64, 0);
  assert_true(second >= first + 50 && third >= second + 100);
  for (size_t i = 0; i < 150; i++) assert_int_equal(third[i], 0);
  assert_int_equal(arena.peak, counting.peak);
  assert_int_equal(gptvq_arena_check(&arena, "work", &err), GPTVQ_OK);
  gptvq_arena_return(&arena, mark);
  assert_ptr_equal(gptvq_arena_take(&arena, 1, 1), second);
  /* more than is there: said, and never handed out */
  assert_null(gptvq_arena_take(&arena, 1, counting.peak));
  assert_null(gptvq_arena_take_zero(&arena, SIZE_MAX / 2, 4));
  assert_int_equal(gptvq_arena_check(&arena, "work", &err), GPTVQ_ERROR_INTERNAL);
  assert_string_equal(err.message, "work takes more scratch memory than was planned");
  gptvq_arena_destroy(&arena);
}

static void sizes_that_overflow_are_refused(void **state) {
  (void)state;
  gptvq_arena arena, counting = {0};
  gptvq_error err;
  (void)gptvq_arena_take(&counting, SIZE_MAX / 2, 4);
  assert_int_equal(counting.peak, SIZE_MAX);
  (void)gptvq_arena_take(&counting, 1, 64);
  assert_int_equal(counting.peak, SIZE_MAX);
  assert_int_equal(gptvq_arena_create(&arena, counting.peak, "work", &err), GPTVQ_ERROR_MEMORY);
  assert_string_equal(err.message, "out of memory: the size of work overflows");
  gptvq_arena_destroy(&arena);
}

/* Every setting runs all stages that it may: the estimate is met to the byte. */
static void solving_takes_what_was_planned(void **state) {
  (void)state;
  static const size_t shapes[][2] = {{40, 96}, {7, 301}, {130, 64}};
  gptvq_error err = {.message = ""};
  for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
    size_t rows = shapes[s][0], cols = shapes[s][1];
    float *w = random_weights(rows, cols, 5 + s);
    double *h = random_hessian(cols, 2 * cols, 6 + s);
    for (unsigned variant = 0; variant < 12; variant++) {
      static const unsigned dims[] = {2, 4, 1, 2, 2, 1, 1, 1, 1, 2, 2, 1},
                            ranks[] = {0, 0, 0, 0, 0, 2, 3, 0, 0, 0, 0, 2};
      gptvq_quantize_options o = small_options(dims[variant], 3, 512);
      o.group_cols = 32;
      o.svd_rank = ranks[variant];
      o.beam = variant == 3 ? 1 : 4;
      o.scale_block = variant == 1 ? 16 : 0;
      o.act_order = variant == 2 ? 1 : 2;
      o.codebook_update = variant != 4 && variant != 6;
      o.codebook_bits = variant == 2 ? 16 : 8;
      if (variant == 9) o.reassign_rounds = 0;
      if (variant == 7 || variant == 8) {
        o.method = variant == 7 ? GPTVQ_METHOD_GPTQ : GPTVQ_METHOD_RTN;
        o.group_size = 32;
      } else if (variant >= 10) {
        o.method = GPTVQ_METHOD_KMEANS;
      }
      const gptvq_resolved r = resolved(&o);
      const gptvq_solver solver = {&r, &gptvq_cpu_backend, NULL, NULL, NULL};
      gptvq_factor *f = NULL;
      gptvq_layer_result result = {0};
      gptvq_packed_shape shape;
      gptvq_arena arena;
      bool data = variant < 8;
      assert_int_equal(gptvq_layer_shape(rows, cols, &r, &shape, &err), GPTVQ_OK);
      if (data) {
        assert_int_equal(gptvq_factor_create(&solver, "layer", cols, h, &f, &err), GPTVQ_OK);
        size_t u = f->padded * f->padded * sizeof *f->u;
        assert_int_equal(f->arena.peak, f->arena.size);
        assert_int_equal(gptvq_factor_bytes(cols, &r), f->arena.size + u);
        assert_true(gptvq_factor_peak_bytes(cols, &r) >= f->arena.size + 2 * u);
      } else {
        shape.permuted = false;
      }
      assert_int_equal(gptvq_packed_allocate(&shape, &result, &err), GPTVQ_OK);
      size_t planned = gptvq_solve_bytes(&solver, &shape, data);
      assert_int_equal(gptvq_arena_create(&arena, planned, "layer", &err), GPTVQ_OK);
      const gptvq_weights weights = {"layer", rows, cols, w};
      if (gptvq_solve_layer_in(&arena, &solver, &weights, f, &result, &err) != GPTVQ_OK)
        fail_msg("%zu x %zu, variant %u: %s", rows, cols, variant, err.message);
      if (arena.peak != planned)
        fail_msg("%zu x %zu, variant %u: %zu bytes, not %zu", rows, cols, variant, arena.peak, planned);
      assert_int_equal(arena.used, 0);
      gptvq_arena_destroy(&arena);
      gptvq_layer_result_release(&result);
      gptvq_factor_destroy(f);
    }
    free(w);
    free(h);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pieces_are_given_back_in_order),
      cmocka_unit_test(sizes_that_overflow_are_refused),
      cmocka_unit_test(solving_takes_what_was_planned),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
