/* Layers whose rows are dealt out to the members of a team: the bytes of one, and an equal share of its work
 * for each. */
#include "cuda/backend.h"
#include "device_fixture.h"
#include "solver_fixture.h"
#include "team_fixture.h"

#include <gptvq/context.h>

typedef struct layer {
  size_t rows, cols, units; /* units: that there are to deal out; 0: everyone solves the whole layer */
  bool device;              /* on a device of each one's own */
  gptvq_resolved options;
  gptvq_weights weights;
  gptvq_factor *factor;
} layer;

typedef struct job {
  member member;
  const layer *layer;
  gptvq_layer_result result;
  gptvq_stages stages;
  size_t planned, peak;
  uint64_t sent;
  gptvq_status status;
  gptvq_error err;
} job;

static gptvq_status solve_in_team(job *j, const gptvq_backend *backend, gptvq_dist *dist,
                                  gptvq_arena *arena) {
  const layer *l = j->layer;
  const gptvq_solver solver = {&l->options, backend, NULL, &j->stages, dist};
  gptvq_packed_shape shape;
  GPTVQ_TRY(gptvq_layer_shape(l->rows, l->cols, &l->options, &shape, &j->err));
  GPTVQ_TRY(gptvq_packed_allocate(&shape, &j->result, &j->err));
  j->planned = gptvq_solve_bytes(&solver, &shape, true);
  GPTVQ_TRY(gptvq_arena_create(arena, j->planned, "layer", &j->err));
  gptvq_stages_start(&j->stages);
  GPTVQ_TRY(gptvq_solve_layer_in(arena, &solver, &l->weights, l->factor, &j->result, &j->err));
  j->peak = arena->peak;
  return GPTVQ_OK;
}

static gptvq_status solve_on_device(job *j, gptvq_dist *dist, gptvq_arena *arena) {
  gptvq_device *device;
  gptvq_cuda *cuda = NULL;
  GPTVQ_TRY(open_test_device(&device, &j->err));
  gptvq_status status = gptvq_cuda_create(device, NULL, &cuda, &j->err);
  if (status == GPTVQ_OK) status = solve_in_team(j, gptvq_cuda_backend(cuda), dist, arena);
  gptvq_cuda_destroy(cuda);
  device->close(device);
  return status;
}

static void *work(void *context) {
  job *j = context;
  const gptvq_team team = team_of(&j->member);
  gptvq_dist dist;
  gptvq_arena arena = {0};
  j->status = gptvq_dist_create(&team, &dist, &j->err);
  if (j->status == GPTVQ_OK)
    j->status = j->layer->device ? solve_on_device(j, &dist, &arena)
                                 : solve_in_team(j, &gptvq_cpu_backend, &dist, &arena);
  j->sent = dist.sent;
  gptvq_arena_destroy(&arena);
  gptvq_dist_release(&dist);
  return NULL;
}

static double flop(const job *j) {
  double sum = 0.0;
  for (int stage = 0; stage < GPTVQ_STAGES; stage++) sum += j->stages.sums[stage].flop;
  return sum;
}

static void run(const layer *l, size_t count, job *jobs) {
  memset(jobs, 0, count * sizeof *jobs);
  for (size_t r = 0; r < count; r++) jobs[r].layer = l;
  run_members(count, work, jobs, sizeof *jobs);
  for (size_t r = 0; r < count; r++)
    if (jobs[r].status != GPTVQ_OK) fail_msg("member %zu of %zu: %s", r, count, jobs[r].err.message);
}

/* Of a dealt layer every member has its units' share of the work, and of another one all of it. */
static void check(const layer *l, size_t count, const job *alone, job *jobs) {
  double sum = 0.0, most = 0.0;
  run(l, count, jobs);
  for (size_t r = 0; r < count; r++) {
    assert_same_bytes(&jobs[r].result, &alone->result);
    assert_memory_equal(&jobs[r].result.error, &alone->result.error, sizeof alone->result.error);
    assert_true(l->device ? jobs[r].peak <= jobs[r].planned : jobs[r].peak == jobs[r].planned);
    sum += flop(&jobs[r]);
    most = fmax(most, flop(&jobs[r]));
    gptvq_layer_result_release(&jobs[r].result);
  }
  if (l->units < (l->device ? count : 1)) {
    assert_true(sum == (double)count * flop(alone));
    return;
  }
  const double high = (double)gptvq_ceil_div(l->units, count) / (double)l->units;
  if (!(sum == flop(alone) && most <= 1.2 * high * sum))
    fail_msg("%zu x %zu, %zu members: %g flop, %g at most, not %g", l->rows, l->cols, count, sum, most,
             flop(alone));
  assert_true(count == 1 || jobs[0].sent > 0 || jobs[count - 1].sent > 0);
}

/* Codes of all kinds, fewer units than members, more rows than tables are made from or an error's slab has,
 * columns in an order of their own, dead ones, a row of nothing. */
static void check_cases(bool device, size_t most_rows) {
  enum { TRELLIS, VECTOR };
  static const struct {
    size_t rows, cols, units;
    int code, act_order;
    unsigned bits, scale_block;
    size_t group_size;
    bool update;
  } cases[] = {
      {97, 300, 97, TRELLIS, 2, 2, 0, 0, true},  {600, 40, 600, TRELLIS, 1, 3, 0, 0, true},
      {3, 40, 3, TRELLIS, 2, 4, 0, 0, true},     {40, 64, 40, TRELLIS, 2, 2, 0, 0, false},
      {1, 40, 0, TRELLIS, 2, 2, 0, 0, true},     {130, 64, 9, VECTOR, 2, 3, 0, 480, true},
      {600, 48, 30, VECTOR, 1, 3, 0, 960, true}, {60, 64, 3, VECTOR, 2, 3, 0, 640, true},
      {60, 64, 3, VECTOR, 2, 3, 0, 640, false},  {60, 64, 0, VECTOR, 2, 3, 0, 1 << 20, true},
      {60, 64, 0, VECTOR, 2, 3, 16, 640, true},
  };
  gptvq_set_threads(2);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const size_t rows = cases[i].rows, cols = cases[i].cols;
    if (rows > most_rows) continue;
    gptvq_quantize_options o = small_options(2, cases[i].bits, cases[i].group_size);
    if (cases[i].code == TRELLIS) {
      gptvq_quantize_options_init(&o);
      o.code = GPTVQ_CODE_TRELLIS;
      o.bits = cases[i].bits + 0.25;
    } else {
      o.scale_block = cases[i].scale_block;
    }
    o.group_cols = 48;
    o.act_order = cases[i].act_order;
    o.codebook_update = cases[i].update;
    o.reassign_rounds = 2;
    o.em_iterations = 6;
    float *w = random_weights(rows, cols, i + 1);
    double *h = random_hessian(cols, 2 * cols, i + 2);
    for (size_t c = 0; c < cols && rows > 2; c++) w[2 * cols + c] = 0.0f;
    for (size_t c = 0; c < cols; c++) h[3 * cols + c] = h[c * cols + 3] = 0.0;
    gptvq_error err = {.message = ""};
    layer l = {rows, cols, cases[i].units, device, resolved(&o), {"layer", rows, cols, w}, NULL};
    if (make_factor("layer", cols, h, &o, NULL, &l.factor, &err) != GPTVQ_OK) fail_msg("%s", err.message);
    job alone, jobs[MOST_MEMBERS];
    run(&l, 1, &alone);
    assert_true(device ? alone.peak <= alone.planned : alone.peak == alone.planned);
    assert_int_equal(alone.sent, 0);
    for (size_t count = 2; count <= MOST_MEMBERS; count++) check(&l, count, &alone, jobs);
    gptvq_layer_result_release(&alone.result);
    gptvq_factor_destroy(l.factor);
    free(w);
    free(h);
  }
}

static void members_solve_what_one_does(void **state) {
  (void)state;
  check_cases(false, SIZE_MAX);
}

/* Each on a device of its own, whose products on the shim come out the same for a row, too. */
static void members_have_devices(void **state) {
  (void)state;
  gptvq_device *device;
  gptvq_error err;
  if (on_test_card() || open_test_device(&device, &err) != GPTVQ_OK) skip();
  device->close(device);
  check_cases(true, 130);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(members_solve_what_one_does),
      cmocka_unit_test(members_have_devices),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
