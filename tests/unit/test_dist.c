/* dist/: windows dealt out, and sums whose bits do not depend on the number of members. Members are threads
 * here. */
#include "base/random.h"
#include "team_fixture.h"

enum { MOST = MOST_MEMBERS, COLS = 37, ROWS = 11, WINDOWS = 21 };

/* The sum of a window: numbers of very different size, so that another order gives other bits. */
static void add_window(size_t window, size_t values, double *sums) {
  uint64_t random = 17 + window;
  for (size_t i = 0; i < values; i++) {
    double value = gptvq_random_unit(&random) - 0.5, size = gptvq_random_unit(&random);
    sums[i] += value * (size < 0.3 ? 1e9 : size < 0.6 ? 1.0 : 1e-9);
  }
}

typedef struct job {
  member member;
  bool upper;
  double result[COLS * (COLS + 1)];
  uint64_t sent, windows;
} job;

static void *work(void *context) {
  job *j = context;
  const gptvq_team team = team_of(&j->member);
  static _Thread_local double values[COLS * (COLS + 1)], total[ROWS * COLS];
  gptvq_dist dist;
  gptvq_error err;
  memset(values, 0, sizeof values);
  memset(total, 0, sizeof total);
  assert_int_equal(gptvq_dist_create(&team, &dist, &err), GPTVQ_OK);
  const gptvq_deal deal = gptvq_deal_of(WINDOWS, team.rank, team.count);
  const size_t rows = j->upper ? COLS : ROWS;
  const gptvq_sum sum = {
      .rows = rows, .cols = COLS, .upper = j->upper, .part = values, .total = j->upper ? NULL : total};
  for (size_t round = 0; round < gptvq_deal_rounds(&deal); round++) {
    const size_t group = round * team.count + team.rank;
    for (size_t w = group < deal.groups ? gptvq_deal_begin(&deal, group) : WINDOWS;
         w < (group < deal.groups ? gptvq_deal_begin(&deal, group + 1) : 0); w++) {
      static _Thread_local double whole[COLS * COLS];
      memset(whole, 0, sizeof whole);
      add_window(w, rows * COLS, whole);
      for (size_t r = 0; r < rows; r++)
        for (size_t c = j->upper ? r : 0; c < COLS; c++) values[r * COLS + c] += whole[r * COLS + c];
      j->windows++;
    }
    assert_int_equal(gptvq_sum_add(&sum, &gptvq_cpu_linalg, &dist, &deal, round, &err), GPTVQ_OK);
  }
  assert_int_equal(gptvq_sum_gather(&sum, &dist, &err), GPTVQ_OK);
  assert_int_equal(j->windows, gptvq_deal_count(&deal));
  assert_int_equal(gptvq_dist_total(&dist, &j->windows, 1, &err), GPTVQ_OK);
  gptvq_sum_unfold(&sum);
  for (size_t r = 0; r < rows; r++)
    for (size_t c = j->upper ? r : 0; c < COLS; c++)
      j->result[r * COLS + c] = (j->upper ? values : total)[r * COLS + c];
  j->sent = dist.sent;
  gptvq_dist_release(&dist);
  return NULL;
}

/* The definition: sums of the groups, rounded to fp32, added in their order. */
static void define(bool upper, double out[COLS * (COLS + 1)]) {
  const gptvq_deal deal = gptvq_deal_of(WINDOWS, 0, 1);
  const size_t rows = upper ? COLS : ROWS;
  memset(out, 0, COLS * (COLS + 1) * sizeof *out);
  for (size_t g = 0; g < deal.groups; g++) {
    static double group[COLS * COLS];
    memset(group, 0, sizeof group);
    for (size_t w = gptvq_deal_begin(&deal, g); w < gptvq_deal_begin(&deal, g + 1); w++)
      add_window(w, rows * COLS, group);
    for (size_t r = 0; r < rows; r++)
      for (size_t c = upper ? r : 0; c < COLS; c++) out[r * COLS + c] += (double)(float)group[r * COLS + c];
  }
}

static void sums_do_not_depend_on_the_members(void **unused) {
  (void)unused;
  for (int upper = 0; upper < 2; upper++) {
    static job jobs[MOST];
    static double expected[COLS * (COLS + 1)];
    define(upper == 1, expected);
    for (size_t count = 1; count <= MOST; count++) {
      memset(jobs, 0, sizeof jobs);
      for (size_t r = 0; r < count; r++) jobs[r].upper = upper == 1;
      run_members(count, work, jobs, sizeof jobs[0]);
      uint64_t sent = 0;
      for (size_t r = 0; r < count; r++) {
        assert_memory_equal(jobs[r].result, expected, sizeof expected);
        assert_int_equal(jobs[r].windows, WINDOWS);
        sent += jobs[r].sent;
      }
      /* docs/SCALING.md: groups to the rows' owners, totals to all; and a counter each */
      const uint64_t values = upper ? COLS * (COLS + 1) / 2 : ROWS * COLS;
      const uint64_t totals = 8 * (count - 1) * (values + count),
                     groups = 4 * gptvq_deal_groups(WINDOWS) * values;
      if (count == 1) assert_int_equal(sent, 0);
      else
        assert_true(sent >= totals + groups - groups / count - groups / 8 &&
                    sent <= totals + groups - groups / count + groups / 8);
    }
  }
}

static void groups_are_few_and_no_fewer(void **unused) {
  static const size_t expected[][2] = {{0, 0},    {1, 1},    {7, 7},    {8, 8},    {9, 8},
                                       {35, 8},   {36, 9},   {67, 16},  {128, 32}, {255, 63},
                                       {256, 64}, {257, 64}, {4096, 64}};
  (void)unused;
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
    assert_int_equal(gptvq_deal_groups(expected[i][0]), expected[i][1]);
}

static void every_window_is_dealt_once(void **unused) {
  (void)unused;
  for (size_t windows = 1; windows < 400; windows += 7)
    for (size_t members = 1; members <= MOST; members++) {
      size_t count = 0, next = 0;
      for (size_t r = 0; r < members; r++) {
        const gptvq_deal deal = gptvq_deal_of(windows, r, members);
        count += gptvq_deal_count(&deal);
        assert_true(deal.groups == gptvq_deal_groups(windows));
        assert_int_equal(gptvq_deal_begin(&deal, 0), 0);
        assert_int_equal(gptvq_deal_begin(&deal, deal.groups), windows);
        for (size_t g = 0; g < deal.groups; g++)
          assert_true(gptvq_deal_begin(&deal, g) < gptvq_deal_begin(&deal, g + 1));
        next = gptvq_deal_begin(&deal, deal.groups);
      }
      assert_int_equal(count, windows);
      assert_int_equal(next, windows);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(groups_are_few_and_no_fewer),
      cmocka_unit_test(every_window_is_dealt_once),
      cmocka_unit_test(sums_do_not_depend_on_the_members),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
