/* Whole layers through the backend on the shim. */
#include "cuda_fixture.h"

static gptvq_layer_result solve_on(const gptvq_backend *backend, const layer_case *c, const layer_input *in) {
  gptvq_error err = {.message = ""};
  gptvq_layer_result result;
  if (gptvq_solve_layer(&(gptvq_solver){&in->options, backend, NULL, NULL},
                        &(gptvq_weights){"test", c->rows, c->cols, in->w}, in->factor, &result,
                        &err) != GPTVQ_OK)
    fail_msg("%s", err.message);
  return result;
}

/* The shim's products are the CPU's, the kernels' operations too: the bytes have to be the same. */
static void layers_are_the_cpus(void **state) {
  (void)state;
  fixture f = open_fixture();
  for (size_t i = 0; i < LAYER_CASES; i++) {
    layer_input in = make_input(&layer_cases[i]);
    gptvq_layer_result cpu = solve_on(&gptvq_cpu_backend, &layer_cases[i], &in),
                       shim = solve_on(gptvq_cuda_backend(f.cuda), &layer_cases[i], &in);
    if (fabs(shim.error - cpu.error) > 0.01 * cpu.error)
      fail_msg("case %zu: %g %g", i, shim.error, cpu.error);
    assert_same_bytes(&cpu, &shim);
    gptvq_layer_result_release(&cpu);
    gptvq_layer_result_release(&shim);
    release_input(&in);
  }
  close_fixture(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(layers_are_the_cpus),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
