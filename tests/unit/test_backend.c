/* The table of functions that a backend overrides: everything goes through it, and what fails there is
 * reported. */
#include "calib/hessian.h"
#include "solver_fixture.h"

enum {
  GRAM,
  INVERSE_FACTOR,
  TIMES_HESSIAN,
  TIMES_SYSTEM,
  FEEDBACK,
  CODEBOOKS,
  ASSIGN,
  UPDATE,
  REASSIGN,
  SEARCH,
  FUNCTIONS
};
static const char *const names[FUNCTIONS] = {"gram",     "inverse_factor", "times_hessian", "times_system",
                                             "feedback", "codebooks",      "assign",        "update",
                                             "reassign", "search"};
static size_t calls[FUNCTIONS];
static int failing = FUNCTIONS; /* the function that fails */

static gptvq_status count(int function, gptvq_error *err) {
  calls[function]++;
  if (function != failing) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "%s fails", names[function]);
}

/* Wrappers that count, and leave the work to the CPU's functions. */
#define WRAPPED(function, table, name, parameters, arguments) \
  static gptvq_status counted_##name parameters { \
    GPTVQ_TRY(count(function, err)); \
    return table.name arguments; \
  }
WRAPPED(GRAM, gptvq_cpu_linalg, gram,
        (const gptvq_linalg *l, size_t c, size_t n, size_t chunk, const float *x, size_t ldx, double *h,
         gptvq_error *err),
        (l, c, n, chunk, x, ldx, h, err))
WRAPPED(INVERSE_FACTOR, gptvq_cpu_linalg, inverse_factor,
        (const gptvq_linalg *l, size_t n, double *a, double *scratch, bool *done, gptvq_error *err),
        (l, n, a, scratch, done, err))
WRAPPED(TIMES_HESSIAN, gptvq_cpu_backend, times_hessian,
        (const gptvq_vq *q, size_t rows, const float *x, float *y, gptvq_error *err), (q, rows, x, y, err))
WRAPPED(TIMES_SYSTEM, gptvq_cpu_backend, times_system,
        (const gptvq_vq *q, size_t n, const uint32_t *stripes, const float *directions, double *products,
         gptvq_error *err),
        (q, n, stripes, directions, products, err))
WRAPPED(FEEDBACK, gptvq_cpu_backend, feedback,
        (const gptvq_backend *b, const gptvq_factor *factor, size_t rows, gptvq_span from, gptvq_span to,
         const float *error, float *work, gptvq_error *err),
        (b, factor, rows, from, to, error, work, err))
WRAPPED(CODEBOOKS, gptvq_cpu_backend, codebooks, (gptvq_vq * q, size_t group, gptvq_error *err),
        (q, group, err))
WRAPPED(ASSIGN, gptvq_cpu_backend, assign, (gptvq_vq * q, size_t group, gptvq_span batch, gptvq_error *err),
        (q, group, batch, err))
WRAPPED(UPDATE, gptvq_cpu_backend, update, (gptvq_vq * q, double *loss, gptvq_error *err), (q, loss, err))
WRAPPED(REASSIGN, gptvq_cpu_backend, reassign, (gptvq_vq * q, double *gain, gptvq_error *err), (q, gain, err))
WRAPPED(SEARCH, gptvq_cpu_backend, search, (gptvq_vq * q, double *gain, gptvq_error *err), (q, gain, err))

static gptvq_linalg linalg;
static gptvq_backend counting;

static int make_backend(void **state) {
  (void)state;
  linalg = gptvq_cpu_linalg;
  linalg.gram = counted_gram;
  linalg.inverse_factor = counted_inverse_factor;
  counting = (gptvq_backend){.name = "counting",
                             .linalg = &linalg,
                             .times_hessian = counted_times_hessian,
                             .times_system = counted_times_system,
                             .feedback = counted_feedback,
                             .codebooks = counted_codebooks,
                             .assign = counted_assign,
                             .update = counted_update,
                             .reassign = counted_reassign,
                             .search = counted_search};
  return 0;
}

enum { ROWS = 24, COLS = 160, INPUTS = 400 };

/* From inputs to packed arrays, as gptvq_input_hessian and gptvq_pack_layer do it. */
static gptvq_status quantize(const gptvq_backend *backend, const gptvq_resolved *options, const float *x,
                             const float *w, gptvq_layer_result *result, gptvq_error *err) {
  const gptvq_solver solver = {options, backend, NULL, NULL, NULL};
  const gptvq_weights weights = {"layer", ROWS, COLS, w};
  gptvq_hessian h;
  gptvq_factor *factor = NULL;
  gptvq_status status;
  *result = (gptvq_layer_result){0};
  GPTVQ_TRY(gptvq_hessian_init(&h, backend->linalg, COLS, "layer", err));
  GPTVQ_TRY_GOTO(gptvq_hessian_add(&h, INPUTS, x, COLS, err));
  GPTVQ_TRY_GOTO(gptvq_hessian_finish(&h, "layer", err));
  GPTVQ_TRY_GOTO(gptvq_factor_create(&solver, "layer", COLS, h.values, &factor, err));
  GPTVQ_TRY_GOTO(gptvq_solve_layer(&solver, &weights, factor, result, err));
done:
  gptvq_hessian_release(&h);
  gptvq_factor_destroy(factor);
  return status;
}

static gptvq_resolved options_of(gptvq_method method, unsigned rank) {
  gptvq_quantize_options o = small_options(rank > 0 ? 1 : 2, 3, 512);
  o.method = method;
  o.group_cols = 32;
  o.svd_rank = rank;
  if (method == GPTVQ_METHOD_GPTQ) o.group_size = 32, o.dim = 1;
  return resolved(&o);
}

static float *random_inputs(void) {
  float *x = random_weights(INPUTS, COLS, 3);
  for (size_t i = 0; i < INPUTS * COLS; i++) x[i] *= 1.0f + (float)(i % COLS % 7);
  return x;
}

static void all_work_goes_through_the_table(void **state) {
  (void)state;
  float *x = random_inputs(), *w = random_weights(ROWS, COLS, 4);
  gptvq_error err = {.message = ""};
  gptvq_layer_result results[2];
  const struct {
    gptvq_method method;
    unsigned rank;
    bool used[FUNCTIONS];
  } cases[] = {{GPTVQ_METHOD_GPTVQ, 0, {true, true, true, false, true, true, true, true, true, true}},
               {GPTVQ_METHOD_GPTVQ, 2, {true, true, true, false, true, true, true, true, true, true}},
               {GPTVQ_METHOD_GPTQ, 0, {true, true, false, false, true}},
               {GPTVQ_METHOD_KMEANS, 0, {true, true, false, false, false, true, true}}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const gptvq_resolved options = options_of(cases[i].method, cases[i].rank);
    memset(calls, 0, sizeof calls);
    assert_int_equal(quantize(&gptvq_cpu_backend, &options, x, w, &results[0], &err), GPTVQ_OK);
    for (int function = 0; function < FUNCTIONS; function++) assert_int_equal(calls[function], 0);
    assert_int_equal(quantize(&counting, &options, x, w, &results[1], &err), GPTVQ_OK);
    for (int function = 0; function < FUNCTIONS; function++)
      if ((calls[function] > 0) != cases[i].used[function])
        fail_msg("case %zu: %zu calls of %s", i, calls[function], names[function]);
    assert_same_bytes(&results[0], &results[1]);
    assert_true(results[0].error == results[1].error);
    for (int r = 0; r < 2; r++) gptvq_layer_result_release(&results[r]);
  }
  free(x);
  free(w);
}

/* No result, and the backend's own message. */
static void failures_of_a_backend_are_reported(void **state) {
  (void)state;
  float *x = random_inputs(), *w = random_weights(ROWS, COLS, 4);
  for (unsigned rank = 0; rank <= 2; rank += 2)
    for (failing = 0; failing < FUNCTIONS; failing++) {
      if (failing == TIMES_SYSTEM) continue; /* the systems are small enough to be solved directly */
      const gptvq_resolved options = options_of(GPTVQ_METHOD_GPTVQ, rank);
      char message[64];
      gptvq_error err = {.message = ""};
      gptvq_layer_result result;
      assert_int_equal(quantize(&counting, &options, x, w, &result, &err), GPTVQ_ERROR_INTERNAL);
      (void)snprintf(message, sizeof message, "%s fails", names[failing]);
      assert_string_equal(err.message, message);
      assert_null(result.storage);
    }
  failing = FUNCTIONS;
  free(x);
  free(w);
}

static gptvq_status update_by_gradients(gptvq_vq *q, double *loss, gptvq_error *err) {
  return gptvq_vq_update_gradients(q, loss, err);
}

static void conjugate_gradients_go_through_the_table(void **state) {
  (void)state;
  float *x = random_inputs(), *w = random_weights(ROWS, COLS, 4);
  const gptvq_resolved options = options_of(GPTVQ_METHOD_GPTVQ, 0);
  gptvq_error err = {.message = ""};
  gptvq_layer_result result;
  gptvq_backend backend = counting;
  backend.update = update_by_gradients;
  memset(calls, 0, sizeof calls);
  assert_int_equal(quantize(&backend, &options, x, w, &result, &err), GPTVQ_OK);
  assert_true(calls[TIMES_SYSTEM] > 0);
  gptvq_layer_result_release(&result);
  failing = TIMES_SYSTEM;
  assert_int_equal(quantize(&backend, &options, x, w, &result, &err), GPTVQ_ERROR_INTERNAL);
  assert_string_equal(err.message, "times_system fails");
  failing = FUNCTIONS;
  free(x);
  free(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(all_work_goes_through_the_table),
      cmocka_unit_test(failures_of_a_backend_are_reported),
      cmocka_unit_test(conjugate_gradients_go_through_the_table),
  };
  return cmocka_run_group_tests(tests, make_backend, NULL);
}
