/* quant/run/team: members that do not belong together are told apart. One process is both members here: the
 * other one's passport is a copy of the own one, with what the test changes in it. */
#include "quant/run/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef void forgery(gptvq_passport *passport);
static void same(gptvq_passport *passport) { (void)passport; }
static void other_version(gptvq_passport *passport) { strcat(passport->version, "x"); }
static void other_processor(gptvq_passport *passport) { strcat(passport->processor, "x"); }
static void other_model(gptvq_passport *passport) { passport->model++; }
static void other_options(gptvq_passport *passport) { passport->options++; }

typedef struct other {
  size_t own; /* rank */
  forgery *change;
} other;

static gptvq_status gather(void *context, void *data, const size_t *offsets, gptvq_error *err) {
  const other *o = context;
  (void)err;
  assert_int_equal(offsets[1], sizeof(gptvq_passport));
  assert_int_equal(offsets[2], 2 * sizeof(gptvq_passport));
  gptvq_passport *passports = data;
  passports[1 - o->own] = passports[o->own];
  o->change(&passports[1 - o->own]);
  return GPTVQ_OK;
}
static gptvq_status broadcast(void *context, void *data, size_t bytes, gptvq_error *err) {
  (void)context, (void)data, (void)bytes, (void)err;
  return GPTVQ_OK;
}
static gptvq_status exchange(void *context, const void *send, const size_t *send_offsets, void *receive,
                             const size_t *receive_offsets, gptvq_error *err) {
  (void)context, (void)send, (void)send_offsets, (void)receive, (void)receive_offsets, (void)err;
  return GPTVQ_OK;
}

static gptvq_status check(size_t rank, forgery *change, gptvq_error *err) {
  other o = {rank, change};
  const gptvq_team team = {.size = sizeof team,
                           .context = &o,
                           .rank = rank,
                           .count = 2,
                           .neighbours = 1,
                           .broadcast = broadcast,
                           .gather = gather,
                           .exchange = exchange};
  gptvq_quantize_options options;
  gptvq_resolved resolved;
  gptvq_dist dist;
  gptvq_quantize_options_init(&options);
  assert_int_equal(gptvq_resolve(&options, &resolved, err), GPTVQ_OK);
  assert_int_equal(gptvq_dist_create(&team, &dist, err), GPTVQ_OK);
  json_t *identity = json_pack("{s:{s:i}, s:{s:i}}", "model", "config", 1, "options", "bits", 2);
  assert_non_null(identity);
  const gptvq_status status = gptvq_team_check(&dist, &resolved, identity, err);
  json_decref(identity);
  gptvq_dist_release(&dist);
  return status;
}

static void members_that_differ_are_refused(void **unused) {
  static const struct {
    forgery *change;
    const char *says;
  } cases[] = {{other_version, "rank 1 is gptvq "},
               {other_processor, "rank 1 has another processor"},
               {other_model, "rank 1 has another model than rank 0"},
               {other_options, "rank 1 has other options than rank 0"}};
  gptvq_error err;
  (void)unused;
  for (size_t rank = 0; rank < 2; rank++) { /* both are told, so that both end */
    assert_int_equal(check(rank, same, &err), GPTVQ_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
      assert_int_equal(check(rank, cases[i].change, &err), GPTVQ_ERROR_ARGUMENT);
      assert_non_null(strstr(err.message, cases[i].says));
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(members_that_differ_are_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
