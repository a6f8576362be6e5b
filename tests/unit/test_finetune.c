/* Fine-tuning: the block's forward pass against a double-precision definition of its own, every gradient
 * against finite differences of that definition, and the training loop. */
#include "finetune_block.h"

#include <float.h>

/* ---- tests ---- */

/* Each output is a chain of a handful of sums of at most WIDTH products: c · WIDTH · ε of the largest value
 * around. */
enum { WIDTH = 64, CHAIN = 8 };

/* A workspace with the block's weights on it, as it came. */
static void set_up(const gptvq_ft_params *params, size_t tokens, bool with_backward,
                   gptvq_ft_workspace *workspace) {
  gptvq_error err;
  assert_int_equal(
      gptvq_ft_workspace_create(params->dims, 1, tokens, with_backward, GPTVQ_COMPUTE_FP32, workspace, &err),
      GPTVQ_OK);
  gptvq_ft_params_fill(params, &workspace->weights);
}

/* As theta is now, without rounding. */
static void build(gptvq_ft_params *params, gptvq_ft_workspace *workspace) {
  gptvq_ft_params_round(params, false);
  gptvq_ft_params_fill(params, &workspace->weights);
}

static void forward_is_the_definition(void **state) {
  (void)state;
  for (size_t i = 0; i < VARIANTS; i++) {
    fixture f;
    gptvq_error err;
    gptvq_ft_params params;
    gptvq_ft_workspace workspace;
    seed = i;
    make_fixture(&f, &variants[i], WINDOWS);
    assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
    set_up(&params, TOKENS, false, &workspace);
    double x[TOKENS * HIDDEN], expected[TOKENS * HIDDEN], largest = 0;
    for (size_t j = 0; j < TOKENS * HIDDEN; j++) x[j] = (double)f.x[j];
    (void)ref_block(&f.dims, &workspace.weights, TOKENS, x, expected);
    for (size_t j = 0; j < TOKENS * HIDDEN; j++) largest = fmax(largest, fabs(expected[j]));
    const float *y = gptvq_ft_forward(&f.dims, &workspace.weights, workspace.tape, TOKENS, f.x);
    for (size_t j = 0; j < TOKENS * HIDDEN; j++)
      if (!(fabs((double)y[j] - expected[j]) <= CHAIN * WIDTH * (double)FLT_EPSILON * largest))
        fail_msg("%s: output %zu is %.9g, not %.9g", variants[i].name, j, (double)y[j], expected[j]);
    gptvq_ft_workspace_destroy(&workspace);
    gptvq_ft_params_release(&params);
    free_fixture(&f);
  }
}

/* Building the weights from theta gives the decoded packed weights (no scale changes before a step), of all
 * but trellises exactly. */
static void theta_starts_as_the_packed_weights(void **state) {
  (void)state;
  for (size_t i = 0; i < VARIANTS; i++) {
    fixture f;
    gptvq_error err;
    gptvq_ft_params params;
    seed = i;
    make_fixture(&f, &variants[i], WINDOWS);
    gptvq_ft_workspace workspace;
    assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
    set_up(&params, TOKENS, false, &workspace);
    for (size_t t = 0; t < params.table_count; t++) {
      const gptvq_ft_table *table = &params.tables[t];
      const gptvq_packed_shape *shape = &table->packed->shape;
      float *expected = gptvq_alloc(shape->rows * shape->cols, sizeof *expected);
      float *built = workspace.weights.matrix[table->matrix] + table->row_offset * shape->cols;
      gptvq_packed_decode_ref(table->packed, 0, shape->rows, expected, shape->cols);
      memset(built, 0x7f, shape->rows * shape->cols * sizeof *built);
      build(&params, &workspace);
      if (shape->kind != GPTVQ_PACKED_TRELLIS)
        assert_memory_equal(built, expected, shape->rows * shape->cols * sizeof *built);
      /* sums of entries, whose own roundings are of the size of the largest sum */
      float largest = 0.0f;
      for (size_t j = 0; j < shape->rows * shape->cols; j++) largest = fmaxf(largest, fabsf(expected[j]));
      for (size_t j = 0; j < shape->rows * shape->cols; j++)
        assert_true(fabsf(built[j] - expected[j]) <= 4.0f * FLT_EPSILON * largest);
      free(expected);
    }
    gptvq_ft_workspace_destroy(&workspace);
    gptvq_ft_params_release(&params);
    free_fixture(&f);
  }
}

static double functional(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights, const double *x,
                         const float *r) {
  double out[TOKENS * HIDDEN], sum = 0;
  (void)ref_block(dims, weights, TOKENS, x, out);
  for (size_t i = 0; i < TOKENS * HIDDEN; i++) sum += (double)r[i] * out[i];
  return sum;
}

/* Steps of finite differences must not reach what a clamped activation holds, nor another choice of experts:
 * they move gate and up by some hundredths, the router's probabilities by less. */
static bool limits_are_far(const fixture *f, const gptvq_ft_weights *weights, const gptvq_ft_tape *tape) {
  double x[TOKENS * HIDDEN], out[TOKENS * HIDDEN];
  const size_t used = f->v->kind == ROUTED ? 2 : 1;
  for (size_t i = 0; clamps(f->v) && i < TOKENS * used * 2 * INTERMEDIATE; i++)
    if (fabsf(fabsf(tape->gate_up[i]) - GPTVQ_SWIGLU_LIMIT) < 0.06f) return false;
  for (size_t i = 0; i < TOKENS * HIDDEN; i++) x[i] = (double)f->x[i];
  return ref_block(&f->dims, weights, TOKENS, x, out) > 0.01;
}

/* L = Σ r ∘ block(x). The four-point stencil's own error is h⁴/30 · L⁽⁵⁾: with h = 2⁻⁹ of values around one
 * (and of a few tenths in front of norms behind o and down), far below the rounding errors of the fp32
 * gradients, which are sums of at most TOKENS · WIDTH products behind a CHAIN of sums and whose rounding
 * errors add up like a random walk: CHAIN · √(TOKENS · WIDTH) · ε of the largest gradient of the same array.
 */
static void gradients_are_finite_differences(void **state) {
  (void)state;
  const double tolerance = CHAIN * sqrt((double)TOKENS * WIDTH) * (double)FLT_EPSILON;
  for (size_t v = 0; v < VARIANTS; v++) {
    fixture f;
    gptvq_error err;
    gptvq_ft_params params;
    gptvq_ft_workspace workspace;
    for (uint64_t start = 100 + v;; start += VARIANTS) {
      seed = start;
      make_fixture(&f, &variants[v], WINDOWS);
      assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
      set_up(&params, TOKENS, true, &workspace);
      gptvq_ft_forward(&f.dims, &workspace.weights, workspace.tape, TOKENS, f.x);
      if (limits_are_far(&f, &workspace.weights, workspace.tape)) break;
      gptvq_ft_workspace_destroy(&workspace);
      gptvq_ft_params_release(&params);
      free_fixture(&f);
    }
    float *r = random_vector(TOKENS * HIDDEN, 0, 1), gradient_in[TOKENS * HIDDEN];
    double x[TOKENS * HIDDEN];
    for (size_t i = 0; i < TOKENS * HIDDEN; i++) x[i] = (double)f.x[i];
    gptvq_ft_params_begin(&params);
    gptvq_ft_forward(&f.dims, &workspace.weights, workspace.tape, TOKENS, f.x);
    gptvq_ft_backward(&f.dims, &workspace.weights, workspace.tape, r, &params.vector_gradients,
                      gptvq_ft_params_scatter, &params, gradient_in);
    gptvq_ft_params_finish(&params);

    /* arrays of parameters, each with its own largest gradient */
    size_t starts[128], arrays = 0;
    const size_t stride = routes(f.v) ? 13 : 3; /* some of each array */
    for (size_t t = 0; t < params.table_count; t++) starts[arrays++] = params.tables[t].first;
    for (size_t t = 0; t < params.vector_count; t++) starts[arrays++] = params.vectors[t].first;
    starts[arrays] = params.count;
    for (size_t a = 0; a < arrays; a++) {
      double largest = 0;
      for (size_t i = starts[a]; i < starts[a + 1]; i++)
        largest = fmax(largest, fabs((double)params.gradient[i]));
      assert_true(largest > 0.0);
      for (size_t i = starts[a]; i < starts[a + 1]; i += stride) {
        float start = params.theta[i], h = 0x1p-9f;
        double value[4];
        for (int k = 0; k < 4; k++) {
          params.theta[i] = start + h * (float)(k < 2 ? k - 2 : k - 1);
          build(&params, &workspace);
          value[k] = functional(&f.dims, &workspace.weights, x, r);
        }
        params.theta[i] = start;
        double expected = (8.0 * (value[2] - value[1]) - (value[3] - value[0])) / (12.0 * (double)h);
        if (!(fabs((double)params.gradient[i] - expected) <= tolerance * largest))
          fail_msg("%s: array %zu, parameter %zu: gradient %.9g, finite difference %.9g, largest %.9g",
                   variants[v].name, a, i - starts[a], (double)params.gradient[i], expected, largest);
      }
    }
    build(&params, &workspace);
    double largest = 0;
    for (size_t i = 0; i < TOKENS * HIDDEN; i++) largest = fmax(largest, fabs((double)gradient_in[i]));
    for (size_t i = 0; i < TOKENS * HIDDEN; i += 5) {
      double start = x[i], h = 0x1p-9, value[4];
      for (int k = 0; k < 4; k++) {
        x[i] = start + h * (double)(k < 2 ? k - 2 : k - 1);
        value[k] = functional(&f.dims, &workspace.weights, x, r);
      }
      x[i] = start;
      double expected = (8.0 * (value[2] - value[1]) - (value[3] - value[0])) / (12.0 * h);
      if (!(fabs((double)gradient_in[i] - expected) <= tolerance * largest))
        fail_msg("%s: input %zu: gradient %.9g, finite difference %.9g", variants[v].name, i,
                 (double)gradient_in[i], expected);
    }
    free(r);
    gptvq_ft_workspace_destroy(&workspace);
    gptvq_ft_params_release(&params);
    free_fixture(&f);
  }
}

/* The gradients of all parameters of one pass, as `compute` gives them. */
static void gradients_of(const fixture *f, gptvq_ft_params *params, gptvq_compute compute, const float *r,
                         float *gradient_in) {
  gptvq_error err;
  gptvq_ft_workspace workspace;
  assert_int_equal(gptvq_ft_workspace_create(&f->dims, 1, TOKENS, true, compute, &workspace, &err), GPTVQ_OK);
  gptvq_ft_params_fill(params, &workspace.weights);
  gptvq_ft_params_begin(params);
  gptvq_ft_forward(&f->dims, &workspace.weights, workspace.tape, TOKENS, f->x);
  gptvq_ft_backward(&f->dims, &workspace.weights, workspace.tape, r, &params->vector_gradients,
                    gptvq_ft_params_scatter, params, gradient_in);
  gptvq_ft_params_finish(params);
  gptvq_ft_workspace_destroy(&workspace);
}

static double distance(size_t n, const float *a, const float *b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < n; i++) {
    difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    size += (double)b[i] * (double)b[i];
  }
  return sqrt(difference / size);
}

/* Both factors of a product are off by 2^-9 of themselves at most, and a gradient is behind a chain of some
 * products forward and as many back, whose errors add up: 2 · 2 · CHAIN · 2^-9 of its length, less what is
 * random about them. That they are rounded at all shows as well. */
static void gradients_in_bf16_are_near(void **state) {
  (void)state;
  if (!gptvq_ft_rounds(GPTVQ_COMPUTE_BF16)) skip();
  for (size_t v = 0; v < VARIANTS; v++) {
    fixture f;
    gptvq_error err;
    gptvq_ft_params params;
    if (routes(&variants[v])) continue; /* tokens may be sent elsewhere */
    seed = 300 + v;
    make_fixture(&f, &variants[v], WINDOWS);
    assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
    float *r = random_vector(TOKENS * HIDDEN, 0, 1), in[2][TOKENS * HIDDEN];
    float *all = gptvq_alloc(params.count, sizeof *all);
    gradients_of(&f, &params, GPTVQ_COMPUTE_FP32, r, in[0]);
    memcpy(all, params.gradient, params.count * sizeof *all);
    gradients_of(&f, &params, GPTVQ_COMPUTE_BF16, r, in[1]);
    const double most = 4 * CHAIN * 0x1p-9, off_in = distance(TOKENS * HIDDEN, in[1], in[0]);
    for (size_t t = 0; t < params.table_count; t++) { /* by itself: large ones do not hide small ones */
      const gptvq_ft_table *table = &params.tables[t];
      const double off = distance(table->count, params.gradient + table->first, all + table->first);
      if (!(off > 0.0 && off <= most))
        fail_msg("%s: the tables of linear %zu off by %.3g", variants[v].name, table->linear, off);
    }
    const size_t tables = gptvq_ft_table_values(&params);
    const double off = distance(params.count - tables, params.gradient + tables, all + tables);
    if (!(off <= most && off_in <= most))
      fail_msg("%s: norms and biases off by %.3g, inputs by %.3g", variants[v].name, off, off_in);
    free(all);
    free(r);
    gptvq_ft_params_release(&params);
    free_fixture(&f);
  }
}

/* ---- training ---- */

enum { MANY = 24 };

/* targets = outputs of the block as it is; then every codebook and norm is disturbed. */
static float *disturb(fixture *f) {
  gptvq_error err;
  gptvq_ft_params params;
  gptvq_ft_workspace workspace;
  float *targets = gptvq_alloc(MANY * LENGTH * HIDDEN, sizeof *targets);
  assert_int_equal(gptvq_ft_params_create(&f->dims, &f->block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
  set_up(&params, MANY * LENGTH, false, &workspace);
  memcpy(targets, gptvq_ft_forward(&f->dims, &workspace.weights, workspace.tape, MANY * LENGTH, f->x),
         MANY * LENGTH * HIDDEN * sizeof *targets);
  gptvq_ft_workspace_destroy(&workspace);
  for (size_t i = 0; i < params.count; i++) params.theta[i] += 0.15f * params.unit[i] * uniform(1.0f);
  gptvq_ft_params_store(&params);
  gptvq_ft_params_release(&params);
  return targets;
}

/* The relative error of the block as stored, over the held-out windows (the last third), by the definition.
 */
static double stored_error(fixture *f, const float *targets) {
  gptvq_error err;
  gptvq_ft_params params;
  assert_int_equal(gptvq_ft_params_create(&f->dims, &f->block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
  gptvq_ft_workspace workspace;
  set_up(&params, TOKENS, false, &workspace);
  double *x = gptvq_alloc(MANY * LENGTH * HIDDEN, sizeof *x),
         *out = gptvq_alloc(MANY * LENGTH * HIDDEN, sizeof *out);
  for (size_t i = 0; i < MANY * LENGTH * HIDDEN; i++) x[i] = (double)f->x[i];
  (void)ref_block(&f->dims, &workspace.weights, MANY * LENGTH, x, out);
  double errors = 0, deviation = 0;
  for (size_t j = 0; j < HIDDEN; j++) {
    double sum = 0, squares = 0;
    for (size_t t = 0; t < MANY * LENGTH; t++) {
      double y = (double)targets[t * HIDDEN + j], e = out[t * HIDDEN + j] - y;
      sum += y;
      squares += y * y;
      if (t / LENGTH >= MANY - MANY / 3) errors += e * e;
    }
    deviation += squares - sum * sum / (MANY * LENGTH);
  }
  free(x);
  free(out);
  gptvq_ft_workspace_destroy(&workspace);
  gptvq_ft_params_release(&params);
  return errors / (MANY / 3) / (deviation / MANY);
}

static gptvq_finetune_options training_options(void) {
  gptvq_finetune_options options;
  gptvq_finetune_options_init(&options);
  options.steps = 60;
  options.batch = 5;
  options.holdout = MANY / 3;
  options.evaluate_every = 10;
  options.table_rate = options.vector_rate = 0.02;
  options.max_tokens = 3 * LENGTH; /* so that a batch takes two parts */
  return options;
}

static gptvq_status run_training(gptvq_ft_params *params, size_t windows, float *inputs, float *targets,
                                 const gptvq_finetune_options *options, const gptvq_callbacks *callbacks,
                                 gptvq_finetune_result *result, gptvq_error *err) {
  const gptvq_stream in = gptvq_stream_over(windows, LENGTH * HIDDEN, inputs),
                     out = gptvq_stream_over(windows, LENGTH * HIDDEN, targets);
  return gptvq_ft_train(params, windows, &in, &out, options, callbacks, result, err);
}

static void train(fixture *f, float *targets, const gptvq_finetune_options *options,
                  gptvq_finetune_result *result) {
  gptvq_error err;
  gptvq_ft_params params;
  assert_int_equal(gptvq_ft_params_create(&f->dims, &f->block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
  assert_int_equal(run_training(&params, MANY, f->x, targets, options, NULL, result, &err), GPTVQ_OK);
  gptvq_ft_params_release(&params);
}

static void training_lowers_the_stored_error(void **state) {
  (void)state;
  for (size_t v = 0; v < VARIANTS; v++) {
    fixture f;
    gptvq_finetune_result result;
    gptvq_finetune_options options = training_options();
    if (routes(&variants[v])) options.steps = 120; /* each expert sees a third of the tokens */
    seed = 200 + v;
    make_fixture(&f, &variants[v], MANY);
    float *targets = disturb(&f);
    double before = stored_error(&f, targets);
    train(&f, targets, &options, &result);
    double after = stored_error(&f, targets);
    if (!(after < 0.5 * before)) fail_msg("%s: error %.6g became %.6g only", variants[v].name, before, after);
    assert_true(result.best_step > 0);
    /* what is reported is what is stored; squared errors carry twice the forward pass's relative rounding
     * error, seen through the ratio of the outputs to their error, at most 1 / sqrt(after) */
    double slack = 2.0 * CHAIN * WIDTH * (double)FLT_EPSILON / sqrt(after);
    assert_true(fabs(result.before - before) <= slack * before);
    assert_true(fabs(result.after - after) <= slack * after);
    free(targets);
    free_fixture(&f);
  }
}

/* Some indices are wrong: only training of the indices can repair that. */
static void training_of_indices_repairs_them(void **state) {
  (void)state;
  for (size_t v = 0; v + 1 < VARIANTS; v++) { /* the last one has no indices into codebooks */
    double after[2], before = 0;
    if (variants[v].kind >= SINKS)
      continue; /* indices know no pieces; what is clamped or not chosen has no gradient */
    for (int indices = 0; indices < 2; indices++) {
      fixture f;
      gptvq_error err;
      gptvq_ft_params params;
      gptvq_finetune_result result;
      gptvq_finetune_options options = training_options();
      options.steps = 80;
      options.index_rate = indices ? 0.03 : 0;
      seed = 400 + v;
      make_fixture(&f, &variants[v], MANY);
      float *targets = disturb(&f);
      for (size_t i = 0; i < f.block.linear_count; i++) {
        gptvq_packed_sizes sizes;
        gptvq_packed_measure(&f.linears[i].packed.shape, &sizes);
        for (size_t j = 0; j < sizes.index_bytes; j += 16) ((uint8_t *)f.linears[i].packed.indices)[j] ^= 1;
      }
      before = stored_error(&f, targets);
      assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
      if (indices) assert_int_equal(gptvq_ft_indices_create(&params, &f.block, 0.5f, &err), GPTVQ_OK);
      assert_int_equal(run_training(&params, MANY, f.x, targets, &options, NULL, &result, &err), GPTVQ_OK);
      gptvq_ft_params_release(&params);
      after[indices] = stored_error(&f, targets);
      double slack = 2.0 * CHAIN * WIDTH * (double)FLT_EPSILON / sqrt(after[indices]);
      assert_true(fabs(result.after - after[indices]) <= slack * after[indices]);
      free(targets);
      free_fixture(&f);
    }
    if (!(after[1] < 0.9 * after[0]))
      fail_msg("%s: error %.6g became %.6g, with trained indices %.6g", variants[v].name, before, after[0],
               after[1]);
  }
}

static uint64_t fingerprint(const fixture *f) {
  uint64_t hash = 14695981039346656037u;
  const gptvq_norm_place norm = f->v->kind == JOINT ? GPTVQ_NORM_MLP_OUT : GPTVQ_NORM_ATTENTION;
  for (size_t i = 0; i < f->block.linear_count; i++) {
    const gptvq_packed *p = &f->linears[i].packed;
    gptvq_packed_sizes sizes;
    if (!f->linears[i].is_packed) continue;
    gptvq_packed_measure(&p->shape, &sizes);
    const uint8_t *parts[] = {p->codebooks, (const uint8_t *)p->codebook_scales, (const uint8_t *)p->scales,
                              p->row_scales, (const uint8_t *)f->block.norms[norm]};
    size_t bytes[] = {sizes.codebook_bytes, 2 * sizes.codebook_scales, 2 * sizes.uniform_scales,
                      sizes.row_scale_bytes, HIDDEN * sizeof(float)};
    for (size_t part = 0; part < 5; part++)
      for (size_t j = 0; j < bytes[part]; j++) hash = (hash ^ parts[part][j]) * 1099511628211u;
  }
  return hash;
}

static void same_bytes_for_any_threads(void **state) {
  (void)state;
  for (size_t v = 0; v < VARIANTS; v++) {
    uint64_t first = 0;
    for (int threads = 1; threads <= 3; threads++) {
      fixture f;
      gptvq_finetune_result result;
      gptvq_finetune_options options = training_options();
      options.steps = 10;
      gptvq_set_threads(threads);
      seed = 300 + v;
      make_fixture(&f, &variants[v], MANY);
      float *targets = disturb(&f);
      uint64_t before = fingerprint(&f);
      train(&f, targets, &options, &result);
      if (threads == 1) first = fingerprint(&f);
      assert_true(fingerprint(&f) == first && first != before);
      free(targets);
      free_fixture(&f);
    }
  }
  gptvq_set_threads(1);
}

static void a_useless_training_changes_nothing(void **state) {
  (void)state;
  fixture f;
  gptvq_finetune_result result;
  gptvq_finetune_options options = training_options();
  options.table_rate = options.vector_rate = 50.0;
  options.patience = 2;
  seed = 7;
  make_fixture(&f, &variants[0], MANY);
  float *targets = disturb(&f);
  uint64_t before = fingerprint(&f);
  train(&f, targets, &options, &result);
  assert_int_equal(result.best_step, 0);
  assert_int_equal(result.steps, 20); /* two looks at the held-out windows */
  assert_true(result.after == result.before);
  assert_true(fingerprint(&f) == before);
  free(targets);
  free_fixture(&f);
}

/* Far too high, and high to the end of the schedule: training gains by going back, and by halving the rates.
 */
static void too_high_a_rate_is_halved(void **state) {
  (void)state;
  fixture f;
  gptvq_finetune_result result;
  gptvq_finetune_options options = training_options();
  options.table_rate = 2.0;
  options.vector_rate = 1.0;
  options.steps = 120;
  options.evaluate_every = 5;
  options.patience = 20;
  seed = 7;
  make_fixture(&f, &variants[0], MANY);
  float *targets = disturb(&f);
  train(&f, targets, &options, &result);
  assert_true(result.best_step > 25 && result.after < 0.5 * result.before);
  free(targets);
  free_fixture(&f);
}

static void bad_input_is_refused(void **state) {
  (void)state;
  fixture f;
  gptvq_error err;
  gptvq_ft_params params;
  gptvq_finetune_result result;
  gptvq_finetune_options options = training_options();
  seed = 8;
  make_fixture(&f, &variants[0], MANY);
  float *targets = disturb(&f);
  uint64_t before = fingerprint(&f);
  assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
  assert_int_equal(run_training(&params, 0, f.x, targets, &options, NULL, &result, &err), GPTVQ_ERROR_DATA);
  targets[17] = NAN;
  assert_int_equal(run_training(&params, MANY, f.x, targets, &options, NULL, &result, &err),
                   GPTVQ_ERROR_NUMERIC);
  targets[17] = 0;
  f.x[(MANY - 1) * LENGTH * HIDDEN + 3] = INFINITY; /* in a held-out window */
  assert_int_equal(run_training(&params, MANY, f.x, targets, &options, NULL, &result, &err),
                   GPTVQ_ERROR_NUMERIC);
  gptvq_ft_params_release(&params);
  assert_true(fingerprint(&f) == before);
  free(targets);
  free_fixture(&f);
}

int main(void) {
  gptvq_set_threads(1); /* the work is too little to share out */
  const struct CMUnitTest tests[] = {cmocka_unit_test(forward_is_the_definition),
                                     cmocka_unit_test(theta_starts_as_the_packed_weights),
                                     cmocka_unit_test(gradients_are_finite_differences),
                                     cmocka_unit_test(gradients_in_bf16_are_near),
                                     cmocka_unit_test(training_lowers_the_stored_error),
                                     cmocka_unit_test(training_of_indices_repairs_them),
                                     cmocka_unit_test(same_bytes_for_any_threads),
                                     cmocka_unit_test(a_useless_training_changes_nothing),
                                     cmocka_unit_test(too_high_a_rate_is_halved),
                                     cmocka_unit_test(bad_input_is_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
