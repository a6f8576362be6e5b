/* Whole layers through the backend on the shim, or on a card. */
#include "cuda_fixture.h"

static gptvq_layer_result solve_on(const gptvq_backend *backend, const layer_case *c, const layer_input *in) {
  gptvq_error err = {.message = ""};
  gptvq_layer_result result;
  if (gptvq_solve_layer(&(gptvq_solver){&in->options, backend, NULL, NULL, NULL},
                        &(gptvq_weights){"test", c->rows, c->cols, in->w}, in->factor, &result,
                        &err) != GPTVQ_OK)
    fail_msg("%s", err.message);
  return result;
}

/* The CPU with the backend's way in the codebook update. */
static gptvq_status update_by_gradients(gptvq_vq *q, double *loss, gptvq_error *err) {
  return q->step_bits > 0 ? gptvq_vq_update(q, loss, err) : gptvq_vq_update_gradients(q, loss, err);
}

/* With the CPU's products, and the kernels' operations are the CPU's: the bytes have to be the same. */
static void layers_are_the_cpus(void **state) {
  (void)state;
  fixture f = open_fixture();
  take_cpu_products(&f);
  gptvq_backend cpu = gptvq_cpu_backend;
  cpu.update = update_by_gradients;
  for (size_t i = 0; i < LAYER_CASES; i++) {
    layer_input in = make_input(&layer_cases[i]);
    gptvq_layer_result expected = solve_on(&cpu, &layer_cases[i], &in),
                       shim = solve_on(gptvq_cuda_backend(f.cuda), &layer_cases[i], &in);
    assert_same_bytes(&expected, &shim);
    gptvq_layer_result_release(&expected);
    gptvq_layer_result_release(&shim);
    release_input(&in);
  }
  close_fixture(&f);
}

/* Where the CPU solves the systems of the update directly, conjugate gradients end within 3e-4 of the least
 * loss (update.c), and re-assignments go other ways from there: the errors of a layer that is not tiny are
 * within 1 %. */
static void errors_are_within_one_percent(void **state) {
  (void)state;
  const layer_case cases[] = {
      {.dim = 2, .index_bits = 4, .beam = 2, .rows = 48, .cols = 64, .group_size = 1024, .group_cols = 64},
      {.dim = 1, .index_bits = 3, .beam = 2, .rows = 32, .cols = 96, .group_size = 1024, .group_cols = 96}};
  fixture f = open_fixture();
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    layer_input in = make_input(&cases[i]);
    gptvq_layer_result cpu = solve_on(&gptvq_cpu_backend, &cases[i], &in),
                       shim = solve_on(gptvq_cuda_backend(f.cuda), &cases[i], &in);
    if (!(fabs(shim.error - cpu.error) <= 0.01 * cpu.error))
      fail_msg("case %zu: error %g, on the CPU %g", i, shim.error, cpu.error);
    gptvq_layer_result_release(&cpu);
    gptvq_layer_result_release(&shim);
    release_input(&in);
  }
  close_fixture(&f);
}

/* A device on which only some rows fit at a time: the same kernels and sums; products of other heights. */
static void little_memory_means_smaller_pieces(void **state) {
  (void)state;
  if (on_test_card()) skip(); /* only the shim's can be limited */
  const struct {
    layer_case layer;
    size_t some, none; /* bytes of the device on which some rows fit, or not even one */
  } cases[] = {
      {{.dim = 2, .index_bits = 4, .beam = 2, .rows = 64, .cols = 64, .group_size = 512, .group_cols = 64},
       160 << 10,
       8 << 10},
      {{.trellis = true, .index_bits = 4, .beam = 2, .rows = 64, .cols = 96, .group_cols = 48},
       420 << 10,
       8 << 10}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const layer_case *c = &cases[i].layer;
    layer_input in = make_input(c);
    gptvq_error err = {.message = ""};
    gptvq_layer_result result, expected = solve_on(&gptvq_cpu_backend, c, &in);
    const gptvq_weights weights = {"test", c->rows, c->cols, in.w};
    fixture f = open_fixture();
    const gptvq_solver solver = {&in.options, gptvq_cuda_backend(f.cuda), NULL, NULL, NULL};
    gptvq_shim_limit(f.device, cases[i].some);
    if (gptvq_solve_layer(&solver, &weights, in.factor, &result, &err) != GPTVQ_OK)
      fail_msg("%s", err.message);
    assert_true(fabs(result.error - expected.error) <= 0.05 * expected.error);
    gptvq_layer_result_release(&result);
    gptvq_layer_result_release(&expected);
    close_fixture(&f);
    f = open_fixture();
    const gptvq_solver without = {&in.options, gptvq_cuda_backend(f.cuda), NULL, NULL, NULL};
    gptvq_shim_limit(f.device, cases[i].none);
    assert_int_equal(gptvq_solve_layer(&without, &weights, in.factor, &result, &err), GPTVQ_ERROR_MEMORY);
    assert_non_null(strstr(err.message, "device 'shim': "));
    release_input(&in);
    close_fixture(&f);
  }
}

/* Every sweep multiplies the errors of all rows with H, batch by batch. */
static void sweeps_are_counted(void **state) {
  (void)state;
  const layer_case cases[] = {
      {.dim = 2, .index_bits = 4, .beam = 2, .rows = 48, .cols = 64, .group_size = 1024, .group_cols = 64},
      {.trellis = true, .index_bits = 4, .beam = 2, .rows = 16, .cols = 160, .group_cols = 160}};
  fixture f = open_fixture();
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const layer_case *c = &cases[i];
    layer_input in = make_input(c);
    gptvq_layer_result result;
    gptvq_stages stages;
    gptvq_stages_start(&stages);
    const gptvq_solver solver = {&in.options, gptvq_cuda_backend(f.cuda), NULL, &stages, NULL};
    const gptvq_weights weights = {"test", c->rows, c->cols, in.w};
    assert_int_equal(gptvq_solve_layer(&solver, &weights, in.factor, &result, NULL), GPTVQ_OK);
    const double flop = stages.sums[GPTVQ_STAGE_REASSIGN].precise_flop[GPTVQ_IN_FP32],
                 sweep = 2.0 * (double)(c->rows * c->cols * c->cols);
    if (!(flop >= sweep) || fmod(flop, sweep) != 0.0)
      fail_msg("case %zu: %g FLOP of re-assignment, a sweep has %g", i, flop, sweep);
    gptvq_layer_result_release(&result);
    release_input(&in);
  }
  close_fixture(&f);
}

/* The same functions run: kernels are launched, not the CPU's functions called. */
static gptvq_status (*launch)(gptvq_device *, gptvq_kernel, const gptvq_device_grid *, const void *,
                              gptvq_error *);
enum { SOLVER_KERNELS = GPTVQ_KERNEL_add_sums }; /* those for calibration come last */
static size_t launches[GPTVQ_KERNEL_COUNT];
static gptvq_kernel failing = GPTVQ_KERNEL_COUNT;
static gptvq_status counted_launch(gptvq_device *device, gptvq_kernel kernel, const gptvq_device_grid *grid,
                                   const void *arguments, gptvq_error *err) {
  launches[kernel]++;
  if (kernel == failing) return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "the card is lost");
  return launch(device, kernel, grid, arguments, err);
}

static void all_kernels_are_used_and_their_failures_reported(void **state) {
  (void)state;
  const layer_case cases[] = {
      {.dim = 2, .index_bits = 3, .beam = 2, .rows = 8, .cols = 32, .group_size = 128, .group_cols = 32},
      {.trellis = true, .index_bits = 4, .beam = 4, .rows = 4, .cols = 32, .group_cols = 32}};
  fixture f = open_fixture();
  launch = f.device->launch;
  f.device->launch = counted_launch;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const layer_case *c = &cases[i];
    layer_input in = make_input(c);
    const gptvq_weights weights = {"test", c->rows, c->cols, in.w};
    const gptvq_solver solver = {&in.options, gptvq_cuda_backend(f.cuda), NULL, NULL, NULL};
    size_t before[GPTVQ_KERNEL_COUNT], used[SOLVER_KERNELS];
    gptvq_layer_result result;
    failing = GPTVQ_KERNEL_COUNT;
    memcpy(before, launches, sizeof before);
    assert_int_equal(gptvq_solve_layer(&solver, &weights, in.factor, &result, NULL), GPTVQ_OK);
    gptvq_layer_result_release(&result);
    for (size_t kernel = 0; kernel < SOLVER_KERNELS; kernel++)
      used[kernel] = launches[kernel] - before[kernel];
    for (failing = (gptvq_kernel)0; (int)failing < SOLVER_KERNELS; failing++) {
      gptvq_error err = {.message = ""};
      if (used[failing] == 0) continue;
      assert_int_equal(gptvq_solve_layer(&solver, &weights, in.factor, &result, &err), GPTVQ_ERROR_INTERNAL);
      assert_string_equal(err.message, "the card is lost");
    }
    release_input(&in);
  }
  for (size_t kernel = 0; kernel < SOLVER_KERNELS;
       kernel++) /* of the paths' one; test_cuda_kernels has all */
    assert_true(launches[kernel] > 0 || (kernel >= GPTVQ_KERNEL_path_2_1 && kernel <= GPTVQ_KERNEL_path_4_4));
  assert_true(launches[GPTVQ_KERNEL_path_4_2] > 0);
  close_fixture(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(layers_are_the_cpus),
      cmocka_unit_test(errors_are_within_one_percent),
      cmocka_unit_test(little_memory_means_smaller_pieces),
      cmocka_unit_test(sweeps_are_counted),
      cmocka_unit_test(all_kernels_are_used_and_their_failures_reported),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
