/* The sweep: what observers see and in which order, what moves, where it stops. */
#include "base/memory.h"
#include "calib/sweep.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/model/"
enum { WINDOWS = 3, LENGTH = 8, MAX_EVENTS = 64 };

static const char *const folders[] = {"llama", "phi3", "mixtral"};
enum { FOLDERS = sizeof folders / sizeof folders[0] };

typedef struct journal {
  size_t count, fail_at;
  char text[MAX_EVENTS][24]; /* "pass linear window" */
  size_t rows[MAX_EVENTS];
} journal;
typedef struct seat { /* one observer's context */
  journal *journal;
  const gptvq_linear *linear;
  int pass;
  const float *stream; /* what it must find there in window 0; NULL: not asked */
} seat;

static gptvq_status note(void *context, const gptvq_observed *in, gptvq_error *err) {
  seat *s = context;
  journal *j = s->journal;
  assert_in_range(j->count, 0, MAX_EVENTS - 1);
  assert_int_equal(in->cols, s->linear->cols);
  assert_true(in->ldx >= in->cols && in->rows > 0 && in->rows <= LENGTH);
  if (s->stream != NULL && in->window == 0)
    assert_memory_equal(in->stream, s->stream, LENGTH * sizeof *s->stream);
  for (size_t t = 0; t < in->rows; t++) assert_true(isfinite(in->x[t * in->ldx + in->cols - 1]));
  j->rows[j->count] = in->rows;
  (void)snprintf(j->text[j->count++], sizeof j->text[0], "%d %zu", s->pass, in->window);
  return j->count == j->fail_at ? gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "as told") : GPTVQ_OK;
}

typedef struct reports {
  size_t count, stop_at;
} reports;

static int report(void *user, const gptvq_progress *progress) {
  reports *r = user;
  r->count++;
  assert_string_equal(progress->phase, "phase");
  assert_string_equal(progress->item, "item");
  assert_int_equal(progress->done, 10 + 2 * r->count);
  assert_int_equal(progress->total, 99);
  assert_true(isnan(progress->value));
  return r->count == r->stop_at;
}

typedef struct fixture {
  gptvq_sweep sweep;
  gptvq_model *model;
  const gptvq_block *block;
  size_t values;          /* of a window */
  gptvq_stream stream;    /* x */
  float *start, *x, *end; /* [WINDOWS × LENGTH × hidden]; end: what the block makes of start */
} fixture;

static fixture open_fixture(const char *name) {
  fixture f = {.sweep = {.windows = WINDOWS, .length = LENGTH, .phase = "phase", .item = "item"}};
  gptvq_error err = {GPTVQ_OK, ""};
  char path[512];
  int32_t ids[WINDOWS * LENGTH];
  (void)snprintf(path, sizeof path, GOLDEN "%s", name);
  if (gptvq_model_open(path, NULL, &f.model, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  f.sweep.model = f.model;
  f.block = &f.model->blocks[1];
  f.values = LENGTH * f.model->config.hidden;
  assert_int_equal(gptvq_workspace_create(f.model, 1, LENGTH, LENGTH, &f.sweep.workspace, &err), GPTVQ_OK);
  f.start = gptvq_alloc(WINDOWS * f.values, sizeof *f.start);
  f.x = gptvq_alloc(WINDOWS * f.values, sizeof *f.x);
  f.end = gptvq_alloc(WINDOWS * f.values, sizeof *f.end);
  for (size_t i = 0; i < WINDOWS * LENGTH; i++) ids[i] = (int32_t)(i * 37 % 64);
  assert_int_equal(gptvq_embed(f.model, ids, WINDOWS * LENGTH, f.start, &err), GPTVQ_OK);
  f.stream = gptvq_stream_over(WINDOWS, f.values, f.x);
  memcpy(f.x, f.start, WINDOWS * f.values * sizeof *f.x);
  memcpy(f.end, f.start, WINDOWS * f.values * sizeof *f.x);
  for (size_t w = 0; w < WINDOWS; w++) {
    float *x = f.end + w * f.values;
    assert_int_equal(gptvq_block_attention(f.model, f.block, f.sweep.workspace, 0, 0, LENGTH, x,
                                           GPTVQ_RUN_ALL, NULL, NULL, &err),
                     GPTVQ_OK);
    assert_int_equal(
        gptvq_block_mlp(f.model, f.block, f.sweep.workspace, LENGTH, x, GPTVQ_RUN_ALL, NULL, NULL, &err),
        GPTVQ_OK);
  }
  return f;
}

static void close_fixture(fixture *f) {
  gptvq_workspace_destroy(f->sweep.workspace);
  gptvq_model_close(f->model);
  free(f->start);
  free(f->x);
  free(f->end);
}

static gptvq_status run(const fixture *f, const gptvq_pass *passes, size_t count) {
  gptvq_error err = {GPTVQ_OK, ""};
  return gptvq_sweep_block(&f->sweep, passes, count, &err);
}

static gptvq_observer watch(const fixture *f, seat *s, journal *j, gptvq_block_input input, size_t mlp,
                            int pass) {
  size_t linear = gptvq_input_readers(f->block, input, mlp).linear[0];
  *s = (seat){.journal = j, .linear = &f->block->linears[linear], .pass = pass};
  return (gptvq_observer){.linear = linear, .on_input = note, .context = s};
}

static void assert_bits(const fixture *f, const float *a, const float *b) {
  assert_memory_equal(a, b, WINDOWS * f->values * sizeof *a);
}

/* Window by window through both passes; experts together take each token as often as it chooses. */
static void order_and_rows(void **state) {
  (void)state;
  for (size_t i = 0; i < FOLDERS; i++) {
    fixture f = open_fixture(folders[i]);
    static journal j;
    seat seats[16];
    gptvq_observer first[1], second[15];
    size_t experts = f.block->mlp_count, count = 0;
    float *other = gptvq_alloc(WINDOWS * f.values, sizeof *other);
    memcpy(other, f.start, WINDOWS * f.values * sizeof *other);
    j = (journal){0};
    first[0] = watch(&f, &seats[15], &j, GPTVQ_INPUT_O, 0, 1);
    seats[15].stream = f.start;
    for (size_t e = 0; e < experts; e++, count++)
      second[count] = watch(&f, &seats[count], &j, GPTVQ_INPUT_DOWN, e, 2);
    const gptvq_stream two = gptvq_stream_over(WINDOWS, f.values, other);
    const gptvq_pass passes[2] = {{.block = f.block,
                                   .x = &two,
                                   .attention = true,
                                   .stop = GPTVQ_STOP_AT_OUTPUT,
                                   .observers = first,
                                   .observer_count = 1},
                                  gptvq_whole_block(f.block, &f.stream, second, count)};
    assert_int_equal(run(&f, passes, 2), GPTVQ_OK);
    assert_bits(&f, other, f.start);
    assert_bits(&f, f.x, f.end);
    size_t at = 0, used = experts > 1 ? f.model->config.experts_per_token : 1;
    for (size_t w = 0; w < WINDOWS; w++) {
      char text[24];
      (void)snprintf(text, sizeof text, "1 %zu", w);
      assert_string_equal(j.text[at], text);
      assert_int_equal(j.rows[at++], LENGTH);
      (void)snprintf(text, sizeof text, "2 %zu", w);
      size_t rows = 0;
      while (at < j.count && strcmp(j.text[at], text) == 0) rows += j.rows[at++];
      assert_int_equal(rows, LENGTH * used);
    }
    assert_int_equal(at, j.count);
    free(other);
    close_fixture(&f);
  }
}

typedef struct copies {
  float *values; /* [WINDOWS × LENGTH × cols] */
  size_t cols;
} copies;
static gptvq_status take(void *context, const gptvq_observed *in, gptvq_error *err) {
  const copies *c = context;
  gptvq_kept kept = {c->cols, gptvq_stream_over(WINDOWS, LENGTH * c->cols, c->values)};
  return gptvq_keep_input(&kept, in, err);
}

/* The MLP's inputs with x entering the attention: the same as of x after the attention, and x stays. */
static void stops_leave_x(void **state) {
  (void)state;
  fixture f = open_fixture("llama");
  size_t cols = f.block->linears[f.block->mlps[0].down].cols, bytes = WINDOWS * LENGTH * cols * sizeof(float);
  copies a = {gptvq_alloc(bytes, 1), cols}, b = {gptvq_alloc(bytes, 1), cols};
  const size_t down = f.block->mlps[0].down;
  const gptvq_observer see_a = {.linear = down, .on_input = take, .context = &a},
                       see_b = {.linear = down, .on_input = take, .context = &b};
  gptvq_pass pass = gptvq_whole_block(f.block, &f.stream, &see_a, 1);
  pass.stop = GPTVQ_STOP_AT_OUTPUT;
  assert_int_equal(run(&f, &pass, 1), GPTVQ_OK);
  assert_bits(&f, f.x, f.start);
  const gptvq_pass attention = {.block = f.block, .x = &f.stream, .attention = true, .stop = GPTVQ_RUN_ALL};
  assert_int_equal(run(&f, &attention, 1), GPTVQ_OK);
  pass.observers = &see_b;
  pass.attention = false;
  assert_int_equal(run(&f, &pass, 1), GPTVQ_OK);
  assert_memory_equal(a.values, b.values, bytes);
  /* on from what was kept of all windows but the last: the same numbers, and nobody is asked */
  const gptvq_kept kept = {cols, gptvq_stream_over(WINDOWS - 1, LENGTH * cols, a.values)};
  memset(b.values, 0, bytes);
  pass.stop = GPTVQ_RUN_ALL;
  pass.kept = &kept;
  assert_int_equal(run(&f, &pass, 1), GPTVQ_OK);
  assert_bits(&f, f.x, f.end);
  for (size_t i = 0; i < (WINDOWS - 1) * LENGTH * cols; i++) assert_true(b.values[i] == 0.0f);
  free(a.values);
  free(b.values);
  close_fixture(&f);
}

static void progress_and_failures_end_it(void **state) {
  (void)state;
  fixture f = open_fixture("llama");
  static journal j;
  seat s;
  const gptvq_observer observer = watch(&f, &s, &j, GPTVQ_INPUT_QKV, 0, 1);
  const gptvq_pass pass = gptvq_whole_block(f.block, &f.stream, &observer, 1);
  reports r = {0};
  const gptvq_callbacks callbacks = {.size = sizeof callbacks, .user = &r, .progress = report};
  f.sweep.callbacks = &callbacks;
  f.sweep.done = 10;
  f.sweep.step = 2;
  f.sweep.total = 99;
  j = (journal){0};
  assert_int_equal(run(&f, &pass, 1), GPTVQ_OK);
  assert_int_equal(r.count, WINDOWS);
  r = (reports){.stop_at = 2};
  j = (journal){0};
  assert_int_equal(run(&f, &pass, 1), GPTVQ_ERROR_CANCELLED);
  assert_int_equal(j.count, 2);
  j = (journal){.fail_at = 2};
  f.sweep.callbacks = NULL;
  assert_int_equal(run(&f, &pass, 1), GPTVQ_ERROR_NUMERIC);
  assert_int_equal(j.count, 2);
  close_fixture(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(order_and_rows), cmocka_unit_test(stops_leave_x),
                                     cmocka_unit_test(progress_and_failures_end_it)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
