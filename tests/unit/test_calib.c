/* quant: Hessians, calibration windows, the state of a run, output folders. */
#include "tiny_model.h"
#include "base/memory.h"
#include "calib/parts.h"
#include "calib/hessian.h"
#include "checkpoint/output.h"
#include "quant/options/options.h"
#include "quant/run/resume.h"

#include <unistd.h>

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};

static int make_scratch(void **state) {
  (void)state;
  return tiny_enter_scratch();
}

/* Against a double loop. Every fp32 product sum over at most 256 rows is off by at most 256·2^-24 of Σ|x_i
 * x_j|. */
static void hessian_is_the_mean_of_outer_products(void **state) {
  (void)state;
  enum { COLS = 37, LD = 41, N = 611 };
  static float x[N * LD];
  static double sum[COLS * COLS], absolute[COLS * COLS];
  uint64_t random = 7;
  for (size_t i = 0; i < N * LD; i++) x[i] = (float)(gptvq_random_unit(&random) - 0.3);
  for (size_t n = 0; n < N; n++)
    for (size_t i = 0; i < COLS; i++)
      for (size_t j = 0; j < COLS; j++) {
        double product = (double)x[n * LD + i] * (double)x[n * LD + j];
        sum[i * COLS + j] += product;
        absolute[i * COLS + j] += fabs(product);
      }
  gptvq_hessian h;
  ok(gptvq_hessian_init(&h, &gptvq_cpu_linalg, COLS, "layer", err));
  ok(gptvq_hessian_add(&h, 300, x, LD, err));
  ok(gptvq_hessian_add(&h, 0, x, LD, err));
  ok(gptvq_hessian_add(&h, N - 300, x + 300 * LD, LD, err));
  assert_int_equal(h.tokens, N);
  ok(gptvq_hessian_finish(&h, "layer", err));
  for (size_t i = 0; i < COLS * COLS; i++) {
    double bound = 256 * 0x1p-24 * absolute[i] / N;
    if (!(fabs(h.values[i] - sum[i] / N) <= bound))
      fail_msg("element %zu: %.9g, not %.9g", i, h.values[i], sum[i] / N);
  }
  for (size_t i = 0; i < COLS; i++)
    for (size_t j = 0; j < COLS; j++) assert_true(h.values[i * COLS + j] == h.values[j * COLS + i]);
  gptvq_hessian_release(&h);
}

static void hessian_names_bad_activations(void **state) {
  (void)state;
  const float bad[] = {NAN, INFINITY, 1e30f};
  for (size_t i = 0; i < 3; i++) {
    float x[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, bad[i], 12};
    gptvq_hessian h;
    gptvq_error error = {0};
    ok(gptvq_hessian_init(&h, &gptvq_cpu_linalg, 4, "layer", err));
    ok(gptvq_hessian_add(&h, 3, x, 4, err));
    assert_int_equal(gptvq_hessian_finish(&h, "model.layers.3.mlp.down_proj", &error), GPTVQ_ERROR_NUMERIC);
    assert_non_null(strstr(error.message, "model.layers.3.mlp.down_proj"));
    assert_non_null(strstr(error.message, "column 2"));
    gptvq_hessian_release(&h);
  }
}

static void windows_spread_over_the_text(void **state) {
  (void)state;
  size_t a[10], b[10], c[10];
  gptvq_calibration_offsets(10000, 10, 0, 100, 0, a);
  gptvq_calibration_offsets(10000, 10, 0, 100, 0, b);
  gptvq_calibration_offsets(10000, 10, 0, 100, 1, c);
  size_t different = 0;
  for (size_t i = 0; i < 10; i++) {
    assert_int_equal(a[i], b[i]);
    different += a[i] != c[i];
    assert_in_range(a[i], 9901 * i / 10, 9901 * (i + 1) / 10 - 1);
    assert_true(a[i] + 100 <= 10000);
  }
  assert_true(different >= 8);                      /* two of them agree by chance about once in 10^3 seeds */
  gptvq_calibration_offsets(100, 10, 0, 100, 5, a); /* the only window there is, ten times */
  for (size_t i = 0; i < 10; i++) assert_int_equal(a[i], 0);
  gptvq_calibration_offsets(103, 10, 0, 100, 5, a); /* fewer starts than windows */
  for (size_t i = 0; i < 10; i++) assert_in_range(a[i], 0, 3);
}

/* Where the windows of a run without fine-tuning are decides its bytes: these places stay as they are. */
static void windows_stay_where_they_were(void **state) {
  (void)state;
  static const struct {
    size_t count;
    uint64_t seed;
    size_t expected[6];
  } cases[] = {{10000, 0, {455, 3184, 3803, 5404, 6727, 8937}},
               {10000, 12345, {649, 2525, 4343, 5358, 7640, 9405}},
               {350, 7, {20, 66, 111, 155, 185, 250}}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    size_t offsets[6];
    gptvq_calibration_offsets(cases[i].count, 6, 0, 100, cases[i].seed, offsets);
    for (size_t w = 0; w < 6; w++) assert_int_equal(offsets[w], cases[i].expected[w]);
  }
}

/* Held-out windows share no token with others, however long the text; long ones give all that are asked for.
 */
static void held_out_windows_are_apart(void **state) {
  (void)state;
  static const size_t sizes[][2] = {{1, 1}, {2, 1}, {3, 2}, {16, 2}, {128, 16}, {112, 32}};
  static const size_t lengths[] = {1, 7, 64, 512};
  static size_t offsets[160];
  for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++)
      for (size_t tenths = 10; tenths <= 10 * 4 * (sizes[s][0] + sizes[s][1]); tenths += 1 + tenths / 5)
        for (uint64_t seed = 0; seed < 5; seed++) {
          size_t samples = sizes[s][0], length = lengths[l], count = length * tenths / 10;
          size_t held = gptvq_calibration_room(count, samples, sizes[s][1], length);
          if (count >= (samples + sizes[s][1]) * length) assert_int_equal(held, sizes[s][1]);
          assert_true(held <= sizes[s][1] && (count >= 2 * length) == (held > 0));
          gptvq_calibration_offsets(count, samples, held, length, seed, offsets);
          for (size_t a = 0; a < samples + held; a++) {
            bool fits =
                offsets[a] + length <= count && (a == 0 || a == samples || offsets[a - 1] <= offsets[a]);
            for (size_t b = samples; b < samples + held && fits; b++)
              fits = a == b || offsets[a] + length <= offsets[b] || offsets[b] + length <= offsets[a];
            if (!fits)
              fail_msg("%zu + %zu windows of %zu in %zu tokens, seed %zu: window %zu at %zu", samples, held,
                       length, count, (size_t)seed, a, offsets[a]);
          }
        }
}

typedef struct warnings {
  size_t overlap, room;
} warnings;

static void count_warnings(void *user, gptvq_log_level level, const char *line) {
  warnings *w = user;
  if (level != GPTVQ_LOG_WARNING) return;
  w->overlap += strstr(line, "the windows overlap") != NULL;
  w->room += strstr(line, "to hold out of fine-tuning") != NULL;
}

/* The windows that a run gets, found again in a text of random characters, one token each. */
static void fine_tuning_is_judged_by_tokens_of_its_own(void **state) {
  (void)state;
  enum { LENGTH = 16, SAMPLES = 24, LONGEST = 6000 };
  static const size_t counts[] = {LONGEST, 600, 200, 33, 20};
  gptvq_model *model;
  gptvq_tokenizer *tokenizer;
  tiny_write(&tiny_llama, "tuned");
  ok(gptvq_model_open("tuned", &in_fp32, &model, err));
  ok(gptvq_tokenizer_open("tuned", &tokenizer, err));
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
    for (int kinds = 0; kinds < 4; kinds++) { /* 1: block after block, 2: the model */
      gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
      gptvq_calibration c;
      warnings seen = {0};
      gptvq_callbacks callbacks = {.size = sizeof callbacks, .user = &seen, .log = count_warnings};
      char *text;
      size_t size, count;
      int32_t *ids;
      tiny_write_corpus("corpus.txt", counts[i]);
      ok(gptvq_read_file("corpus.txt", 1 << 20, &text, &size, err));
      ok(gptvq_tokenizer_encode(tokenizer, text, size, 0, &ids, &count, err));
      assert_int_equal(count, counts[i]);
      o.calib_samples = SAMPLES;
      o.calib_length = LENGTH;
      o.calib_self = 0.0;
      o.judge_tokens = 0;
      o.finetune_block_steps = (size_t)kinds & 1;
      o.finetune_steps = (size_t)kinds >> 1;
      ok(gptvq_calibration_create(model, "tuned", &o, NULL, (gptvq_text_room){(size_t)4 << 30, true},
                                  &callbacks, &c, err));
      size_t wanted = (kinds & 1 ? SAMPLES / 8u : 0) + (kinds & 2 ? SAMPLES / 8u : 0);
      size_t windows = c.samples + c.held, first = c.samples - c.block_held, users[LONGEST] = {0};
      assert_int_equal(c.samples, SAMPLES);
      assert_int_equal(seen.room, c.held + c.block_held < wanted);
      if (counts[i] == LONGEST) assert_int_equal(c.held + c.block_held, wanted);
      if (counts[i] >= 2 * LENGTH && wanted > 0) assert_true(c.held + c.block_held > 0);
      for (size_t w = 0; w < windows; w++) {
        size_t at = 0;
        while (at + LENGTH <= count && memcmp(ids + at, c.tokens + w * LENGTH, LENGTH * sizeof *ids) != 0)
          at++;
        assert_true(at + LENGTH <= count);
        for (size_t t = at; t < at + LENGTH; t++) {
          if (w >= first) assert_int_equal(users[t], 0); /* the held-out ones are the last */
          users[t]++;
        }
      }
      gptvq_calibration_release(&c);
      gptvq_free(ids);
      free(text);
    }
  gptvq_tokenizer_close(tokenizer);
  gptvq_model_close(model);
}

static void sources_have_weights(void **state) {
  (void)state;
  gptvq_calibration_sources list;
  ok(gptvq_calibration_sources_parse("a.txt:2\n\nfolder:1/b.txt\nself:0.25\nc:d\nself:0.25\nc:d:3\nc:d", 0.75,
                                     &list, err));
  static const char *const paths[] = {"a.txt", "folder:1/b.txt", "self", "c:d"};
  static const double weights[] = {2.0, 1.0, 0.5, 5.0};
  assert_int_equal(list.count, 4);
  for (size_t i = 0; i < 4; i++) {
    assert_string_equal(list.items[i].path, paths[i]);
    assert_true(list.items[i].weight == weights[i]);
    assert_int_equal(list.items[i].self, i == 2);
  }
  gptvq_calibration_sources_release(&list);
  static const char *const bad[] = {"a.txt\nb.txt:0", "b.txt:-1", "b.txt:nan", "b.txt:inf", "b.txt:2e6"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    gptvq_error error = {0};
    assert_int_equal(gptvq_calibration_sources_parse(bad[i], 0.5, &list, &error), GPTVQ_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "b.txt"));
  }
  /* the model's own text by itself: all without texts, its share of all beside them, none where it is none */
  for (int named = 0; named < 2; named++) {
    ok(gptvq_calibration_sources_parse(named ? "\n" : NULL, 0.0, &list, err));
    assert_true(list.count == 1 && list.items[0].self);
    gptvq_calibration_sources_release(&list);
  }
  ok(gptvq_calibration_sources_parse("a:3\nb", 0.75, &list, err));
  assert_int_equal(list.count, 3);
  assert_true(list.items[2].self && list.items[2].implied && list.items[2].weight == 12.0);
  gptvq_calibration_sources_release(&list);
  ok(gptvq_calibration_sources_parse("a:3\nb", 0.0, &list, err));
  assert_int_equal(list.count, 2);
  gptvq_calibration_sources_release(&list);
}

/* A name in Latin-1, one that is cut inside a character, and one that is UTF-8. */
static void any_name_of_a_text_can_be_reported(void **state) {
  (void)state;
  static const char *const names[][2] = {
      {"caf\xe9.txt", "caf?.txt"}, {"caf\xc3\xa9, \xc3", "caf??, ?"}, {"caf\xc3\xa9", "caf\xc3\xa9"}};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    gptvq_calibration c = {.samples = 2, .length = 8};
    strcpy(c.source, names[i][0]);
    json_t *json = gptvq_calibration_json(&c, 1);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "source")), names[i][1]);
    json_decref(json);
  }
}

/* Every share is within one window of its weight, and none is lost. */
static void windows_are_shared_by_weight(void **state) {
  (void)state;
  gptvq_calibration_source items[5] = {
      {.weight = 3}, {.weight = 1e-3}, {.weight = 1}, {.weight = 1}, {.weight = 7.5}};
  for (size_t count = 1; count <= 5; count++)
    for (size_t total = 0; total < 200; total += 1 + total / 7) {
      const gptvq_calibration_sources list = {.count = count, .items = items};
      size_t shares[5], sum = 0;
      double weights = 0;
      for (size_t i = 0; i < count; i++) weights += items[i].weight;
      gptvq_calibration_share(&list, total, shares);
      for (size_t i = 0; i < count; i++) {
        sum += shares[i];
        assert_true(fabs((double)shares[i] - (double)total * items[i].weight / weights) < 1.0 + 1e-9);
      }
      assert_int_equal(sum, total);
    }
}

/* Two texts of different letters, one token each: the windows of a mixture are those that each text gives
 * alone for its share, in their order, and spread among the others. */
static void texts_are_mixed(void **state) {
  (void)state;
  enum { LENGTH = 16, SAMPLES = 24, FIRST = 18, SECOND = 6 };
  gptvq_model *model;
  tiny_write(&tiny_llama, "mixed");
  ok(gptvq_model_open("mixed", &in_fp32, &model, err));
  tiny_write_corpus("first.txt", 3000);
  tiny_write_corpus("second.txt", 2000);
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
  o.calib_length = LENGTH;
  o.calib_self = 0.0;
  o.judge_tokens = 0;
  for (int tunes = 0; tunes < 2; tunes++) {
    gptvq_calibration whole, alone[2];
    static const char *const lists[] = {"first.txt", "second.txt"};
    const size_t shares[] = {FIRST, SECOND};
    o.finetune_steps = (size_t)tunes;
    for (size_t s = 0; s < 2; s++) {
      o.calib = lists[s];
      o.calib_samples = shares[s];
      ok(gptvq_calibration_create(model, "mixed", &o, NULL, (gptvq_text_room){(size_t)4 << 30, true}, NULL,
                                  &alone[s], err));
    }
    o.calib = "first.txt:3\nsecond.txt";
    o.calib_samples = SAMPLES;
    ok(gptvq_calibration_create(model, "mixed", &o, NULL, (gptvq_text_room){(size_t)4 << 30, true}, NULL,
                                &whole, err));
    assert_int_equal(whole.samples, SAMPLES);
    assert_string_equal(whole.source, "first.txt: 18, second.txt: 6");
    assert_int_equal(whole.held, tunes ? 3 : 0);
    size_t next[2] = {0, 0};
    for (size_t w = 0; w < SAMPLES; w++) {
      size_t s = 0;
      while (s < 2 &&
             (next[s] == shares[s] || memcmp(alone[s].tokens + next[s] * LENGTH, whole.tokens + w * LENGTH,
                                             LENGTH * sizeof *whole.tokens) != 0))
        s++;
      if (tunes == 0) assert_true(s < 2); /* with held-out windows the places of the others are other ones */
      if (s < 2) next[s]++;
      if (tunes == 0 && w % 4 == 3) assert_int_equal(next[1], (w + 1) / 4);
    }
    gptvq_calibration_release(&whole);
    for (size_t s = 0; s < 2; s++) gptvq_calibration_release(&alone[s]);
  }
  gptvq_calibration c;
  gptvq_error error = {0};
  o.finetune_steps = 0;
  o.calib_samples = 1;
  assert_int_equal(gptvq_calibration_create(model, "mixed", &o, NULL,
                                            (gptvq_text_room){(size_t)4 << 30, true}, NULL, &c, &error),
                   GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "second.txt gets none of 1 calibration windows"));
  gptvq_model_close(model);
}

/* What the model is judged by shares no token of the text with what it is calibrated on, unless the text is
 * too short, which it says; and what the model wrote is taken up again. */
static void the_finished_model_is_judged_by_unseen_windows(void **state) {
  (void)state;
  enum { LENGTH = 16, SAMPLES = 12, LONGEST = 4000 };
  static const size_t counts[] = {LONGEST, 400, 20};
  gptvq_model *model;
  gptvq_tokenizer *tokenizer;
  tiny_write(&tiny_llama, "judged");
  ok(gptvq_model_open("judged", &in_fp32, &model, err));
  ok(gptvq_tokenizer_open("judged", &tokenizer, err));
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
    for (int tunes = 0; tunes < 2; tunes++) {
      gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
      gptvq_calibration c, again;
      char *text;
      size_t size, count, users[LONGEST] = {0};
      int32_t *ids;
      tiny_write_corpus("corpus.txt", counts[i]);
      ok(gptvq_read_file("corpus.txt", 1 << 20, &text, &size, err));
      ok(gptvq_tokenizer_encode(tokenizer, text, size, 0, &ids, &count, err));
      o.calib_samples = SAMPLES;
      o.calib_length = LENGTH;
      o.calib_self = 0.5;
      o.judge_tokens = 2 * LENGTH + 1; /* three windows, which is a quarter, too */
      o.finetune_steps = (size_t)tunes;
      ok(gptvq_calibration_create(model, "judged", &o, NULL, (gptvq_text_room){(size_t)4 << 30, true}, NULL,
                                  &c, err));
      assert_int_equal(c.samples, SAMPLES);
      assert_int_equal(c.judged_text, 3);
      assert_int_equal(c.judged_self, 3);
      assert_int_equal(c.seen, counts[i] == 20);
      assert_int_equal(c.written_count, SAMPLES / 2 + 3 + (tunes ? 1 : 0));
      size_t counted, windows;
      gptvq_calibration_count(model, &o, &counted, &windows, &(size_t){0});
      assert_int_equal(counted, c.written_count);
      if (!c.seen) assert_int_equal(windows, c.samples + c.held + c.judged_text + c.judged_self);
      size_t found = 0;
      for (size_t w = 0; w < c.samples + c.held + c.judged_text; w++) {
        size_t at = 0;
        bool judged = w >= c.samples + c.held;
        while (at + LENGTH <= count && memcmp(ids + at, c.tokens + w * LENGTH, LENGTH * sizeof *ids) != 0)
          at++;
        if (at + LENGTH > count) continue; /* the model's */
        found++;
        for (size_t t = at; t < at + LENGTH; t++) {
          if (judged && !c.seen) assert_int_equal(users[t], 0);
          users[t]++;
        }
      }
      assert_int_equal(found, SAMPLES / 2 + 3 + (tunes && counts[i] > 20 ? 1 : 0));
      gptvq_token_windows written = {c.written_count, LENGTH, c.written};
      const int32_t first = c.written[0];
      c.written[0] = (first + 1) % 2; /* taken as it is, where it fits */
      ok(gptvq_calibration_create(model, "judged", &o, &written, (gptvq_text_room){(size_t)4 << 30, true},
                                  NULL, &again, err));
      assert_int_equal(again.written[0], c.written[0]);
      gptvq_calibration_release(&again);
      c.written[0] = (int32_t)model->config.vocab;
      ok(gptvq_calibration_create(model, "judged", &o, &written, (gptvq_text_room){(size_t)4 << 30, true},
                                  NULL, &again, err));
      assert_int_equal(again.written[0], first);
      assert_true(again.hash == c.hash);
      gptvq_calibration_release(&again);
      gptvq_calibration_release(&c);
      gptvq_free(ids);
      free(text);
    }
  gptvq_tokenizer_close(tokenizer);
  gptvq_model_close(model);
}

static void token_hash_sees_every_token_and_the_cut(void **state) {
  (void)state;
  int32_t tokens[12];
  for (int32_t i = 0; i < 12; i++) tokens[i] = i;
  uint64_t hash = gptvq_calibration_hash(3, 4, tokens);
  assert_true(hash != gptvq_calibration_hash(4, 3, tokens));
  for (size_t i = 0; i < 12; i++) {
    tokens[i]++;
    assert_true(hash != gptvq_calibration_hash(3, 4, tokens));
    tokens[i]--;
  }
  assert_true(hash == gptvq_calibration_hash(3, 4, tokens));
}

static void run_state_survives_the_file_and_differences_are_named(void **state) {
  (void)state;
  gptvq_resolved options = {0};
  gptvq_error error = {0};
  gptvq_output out;
  options.options.bits = 2.25;
  options.options.dim = 2;
  json_t *saved;
  ok(gptvq_output_check("run", ".", 0, 0, &out, err));
  ok(gptvq_output_open(&out, &saved, err));
  assert_null(saved);
  bool found = true;
  gptvq_run_state empty;
  ok(gptvq_run_state_parse(&out, saved, &found, &empty, err));
  assert_false(found);

  gptvq_run_state written = {.identity =
                                 json_pack("{s:i, s:s, s:o}", "format", GPTVQ_STATE_FORMAT, "gptvq_version",
                                           "0", "options", gptvq_options_json(&options)),
                             .calibration_hash = "0123456789abcdef",
                             .blocks = 7,
                             .finetuned = true,
                             .finetune_after = 0.25};
  gptvq_run_state read;
  assert_non_null(written.identity);
  ok(gptvq_run_state_write(&out, &written, err));
  ok(gptvq_output_read_state("run.partial", &saved, err));
  ok(gptvq_run_state_parse(&out, saved, &found, &read, err));
  json_decref(saved);
  assert_true(found);
  assert_int_equal(read.blocks, 7);
  assert_string_equal(read.calibration_hash, "0123456789abcdef");
  ok(gptvq_run_identity_compare(&out, read.identity, written.identity, err));

  options.options.bits = 3.125;
  options.options.act_order = 1;
  json_t *other = json_pack("{s:i, s:s, s:o}", "format", GPTVQ_STATE_FORMAT, "gptvq_version", "0", "options",
                            gptvq_options_json(&options));
  assert_int_equal(gptvq_run_identity_compare(&out, read.identity, other, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "`bits` was 2.25, is now 3.125"));
  assert_non_null(strstr(error.message, "`act_order` was 0, is now 1"));
  json_decref(other);
  json_t *old = json_pack("{s:i, s:s}", "format", 2, "gptvq_version", "0.0.9");
  assert_int_equal(gptvq_run_identity_compare(&out, old, read.identity, &error), GPTVQ_ERROR_UNSUPPORTED);
  assert_non_null(strstr(error.message, "begun by gptvq 0.0.9"));
  json_decref(old);
  gptvq_run_state_release(&read);
  gptvq_run_state_release(&written);

  tiny_write_text("run.partial", "resume.json", "{\"blocks\": -1}");
  assert_int_equal(gptvq_output_read_state("run.partial", &saved, &error), GPTVQ_ERROR_FORMAT);
  assert_non_null(strstr(error.message, "resume.json"));
  gptvq_output_discard(&out);
  gptvq_output_release(&out);
  assert_false(gptvq_path_exists("run.partial"));
}

/* Each word of the options shows in the identity of a run, so that one added later cannot be forgotten: but
 * where the text comes from (its tokens are hashed; samples and length stand beside), what to do with the
 * output, where it is made, and padding. Any bit changes a number of any type. */
static void every_option_is_in_the_identity(void **state) {
  (void)state;
#define WORDS_OF(member) \
  { offsetof(gptvq_quantize_options, member), sizeof((gptvq_quantize_options){0}.member) }
  static const size_t left_out[][2] = {
      WORDS_OF(calib),
      WORDS_OF(calib_samples),
      WORDS_OF(calib_length),
      WORDS_OF(size),
      WORDS_OF(force),
      WORDS_OF(resume),
      WORDS_OF(memory_limit),
      WORDS_OF(device),
      WORDS_OF(nominal), /* the sizes that follow are there, and shared_bits (test_ceiling) */
      {offsetof(gptvq_quantize_options, method) + sizeof(gptvq_method), 4},
      {offsetof(gptvq_quantize_options, true_sequential) + sizeof(int), 4},
      {offsetof(gptvq_quantize_options, beam) + sizeof(unsigned), 4},
      {offsetof(gptvq_quantize_options, code) + sizeof(gptvq_code), 4},
      {offsetof(gptvq_quantize_options, embedding_bits) + sizeof(unsigned), 4},
      {offsetof(gptvq_quantize_options, nominal) + sizeof(int), 4}};
#undef WORDS_OF
  gptvq_resolved options = {0};
  json_t *none = gptvq_options_json(&options);
  for (size_t at = 0; at < sizeof options.options; at += 4) {
    const uint32_t one = 1;
    bool expected = true;
    for (size_t i = 0; i < sizeof left_out / sizeof left_out[0]; i++)
      expected = expected && (at < left_out[i][0] || at >= left_out[i][0] + left_out[i][1]);
    memset(&options, 0, sizeof options);
    memcpy((char *)&options + at, &one, sizeof one);
    json_t *changed = gptvq_options_json(&options);
    assert_non_null(changed);
    if (expected == (bool)json_equal(none, changed))
      fail_msg("the option at byte %zu of gptvq_quantize_options%s", at,
               expected ? " is in no identity" : " is known");
    json_decref(changed);
  }
  json_decref(none);
}

static void output_folders_are_checked_before_any_work(void **state) {
  (void)state;
  gptvq_error error = {0};
  gptvq_output out, second;
  json_t *saved;
  ok(gptvq_make_folder("model", err));
  ok(gptvq_make_folder("model/inner", err));
  tiny_write_text("model", "config.json", "{}");
  ok(gptvq_make_folder("other", err));
  tiny_write_text("other", "thesis.doc", "years of work");

  assert_int_equal(gptvq_output_check("model", "model/inner", 0, 0, &out, &error), GPTVQ_ERROR_ARGUMENT);
  gptvq_output_release(&out);
  assert_int_equal(gptvq_output_check("model", "model", 1, 0, &out, &error), GPTVQ_ERROR_ARGUMENT);
  gptvq_output_release(&out);
  assert_int_equal(gptvq_output_check("out.partial/", "model", 0, 0, &out, &error), GPTVQ_ERROR_ARGUMENT);
  gptvq_output_release(&out);
  assert_int_equal(gptvq_output_check("..", "model", 1, 0, &out, &error), GPTVQ_ERROR_ARGUMENT);
  gptvq_output_release(&out);
  assert_int_equal(gptvq_output_check("", "model", 1, 0, &out, &error), GPTVQ_ERROR_ARGUMENT);
  gptvq_output_release(&out);
  assert_int_equal(gptvq_output_check("other", "model", 0, 0, &out, &error), GPTVQ_ERROR_IO);
  assert_non_null(strstr(error.message, "`force`"));
  gptvq_output_release(&out);
  assert_int_equal(gptvq_output_check("other", "model", 1, 0, &out, &error),
                   GPTVQ_ERROR_IO); /* not a model: never replaced */
  assert_non_null(strstr(error.message, "not a model folder"));
  gptvq_output_release(&out);
  assert_int_equal(gptvq_output_check("absent/out", "model", 0, 0, &out, &error), GPTVQ_OK);
  assert_int_equal(gptvq_output_open(&out, &saved, &error), GPTVQ_ERROR_IO);
  gptvq_output_release(&out);

  ok(gptvq_output_check("fresh///", "model", 0, 0, &out, err));
  assert_string_equal(out.path, "fresh");
  ok(gptvq_output_open(&out, &saved, err));
  ok(gptvq_output_check("fresh", "model", 0, 0, &second, err));
  assert_int_equal(gptvq_output_open(&second, &saved, &error), GPTVQ_ERROR_IO); /* locked */
  gptvq_output_discard(&second);
  gptvq_output_release(&second);
  assert_true(gptvq_is_folder("fresh.partial"));
  assert_int_equal(gptvq_output_check_space(&out, UINT64_MAX, &error), GPTVQ_ERROR_IO);
  ok(gptvq_output_check_space(&out, 1, err));
  gptvq_output_discard(&out);
  gptvq_output_release(&out);
  assert_false(gptvq_path_exists("fresh.partial"));
}

static const char old_config[] = "{\"model_type\": \"llama\", \"old\": true}",
                  new_config[] = "{\"model_type\": \"llama\", \"old\": false}";

static void assert_text(const char *path, const char *expected) {
  char *text;
  size_t size;
  ok(gptvq_read_file(path, 100, &text, &size, err));
  assert_string_equal(text, expected);
  free(text);
}

static void publishing_replaces_a_folder_whole(void **state) {
  (void)state;
  gptvq_output out;
  ok(gptvq_make_folder("target", err));
  tiny_write_text("target", "config.json", old_config);
  tiny_write_text("target", "old.txt", "old");
  ok(gptvq_make_folder("source", err));
  gptvq_error error = {0};
  assert_int_equal(gptvq_output_check("target", "source", 1, 0, &out, &error), GPTVQ_ERROR_IO);
  assert_non_null(strstr(error.message, "target/old.txt"));
  gptvq_output_release(&out);
  tiny_write_text("source", "old.txt", "a side file of the source"); /* and so of an output made from it */
  ok(gptvq_output_check("target", "source", 1, 0, &out, err));
  ok(gptvq_output_start(&out, "export", 1, err));
  tiny_write_text("target.partial", "config.json", new_config);
  /* what no run has written is neither published nor removed, nor is a folder of somebody else */
  tiny_write_text("target.partial", "notes.txt", "mine");
  assert_int_equal(gptvq_output_publish(&out, NULL, &error), GPTVQ_ERROR_IO);
  assert_non_null(strstr(error.message, "target.partial/notes.txt"));
  gptvq_output_discard(&out);
  assert_text("target.partial/notes.txt", "mine");
  assert_text("target/config.json", old_config);
  gptvq_output_release(&out);
  ok(gptvq_output_check("target", "source", 1, 0, &out, err));
  assert_int_equal(gptvq_output_start(&out, "export", 1, &error), GPTVQ_ERROR_IO);
  assert_non_null(strstr(error.message, "not an interrupted run"));
  assert_int_equal(unlink("target.partial/notes.txt"), 0);
  ok(gptvq_output_start(&out, "export", 1, err));
  tiny_write_text("target.partial", "config.json", new_config);
  ok(gptvq_output_publish(&out, NULL, err));
  gptvq_output_release(&out);
  assert_int_equal(file_count("target"), 1);
  assert_text("target/config.json", new_config);
  assert_false(gptvq_path_exists("target.partial"));
}

static void a_folder_that_has_appeared_is_not_replaced(void **state) {
  (void)state;
  for (int force = 0; force < 2; force++) {
    gptvq_output out;
    gptvq_error error = {0};
    ok(gptvq_output_check("late", NULL, force, 0, &out, err));
    ok(gptvq_output_start(&out, "export", 0, err));
    tiny_write_text("late.partial", "config.json", new_config);
    ok(gptvq_make_folder("late", err));
    tiny_write_text("late", "config.json", old_config);
    gptvq_status status = gptvq_output_publish(&out, NULL, &error);
    assert_int_equal(status, force ? GPTVQ_OK : GPTVQ_ERROR_IO);
    if (!force) assert_non_null(strstr(error.message, "late exists; use `force`"));
    assert_text("late/config.json", force ? new_config : old_config);
    assert_int_equal(gptvq_path_exists("late.partial"), !force);
    gptvq_output_discard(&out);
    gptvq_output_release(&out);
    ok(gptvq_remove_tree("late", err));
  }
}

static void side_files_travel_and_weights_do_not(void **state) {
  (void)state;
  ok(gptvq_make_folder("from", err));
  ok(gptvq_make_folder("to", err));
  ok(gptvq_make_folder("from/folder.json", err));
  const char *names[] = {"config.json",
                         "model.safetensors",
                         "model.safetensors.index.json",
                         "pytorch_model.bin.index.json",
                         "tokenizer.json",
                         "tokenizer.model",
                         "merges.txt",
                         "chat_template.jinja",
                         "generation_config.json",
                         "README.md",
                         ".hidden.json"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) tiny_write_text("from", names[i], names[i]);
  ok(gptvq_copy_side_files("from", "to", err));
  assert_int_equal(file_count("to"), 5);
  for (size_t i = 4; i < 9; i++) {
    char *a = gptvq_join_path("from", names[i]), *b = gptvq_join_path("to", names[i]);
    assert_same_file(a, b);
    free(a);
    free(b);
  }
}

/* So that they are the windows of that length: text after text, the last one of each window cut. */
static void a_written_window_is_made_of_short_texts(void **state) {
  (void)state;
  enum { TEXTS = 2, WINDOWS = 2, SHORT = 1301, LONG = TEXTS * SHORT - 1 };
  static int32_t whole[WINDOWS * LONG], parts[WINDOWS * TEXTS * SHORT];
  gptvq_model *model;
  tiny_write(&tiny_llama, "writes");
  ok(gptvq_model_open("writes", &in_fp32, &model, err));
  gptvq_calibration a = {.samples = WINDOWS, .length = LONG, .tokens = whole},
                    b = {.samples = WINDOWS * TEXTS, .length = SHORT, .tokens = parts};
  ok(gptvq_calibration_sample(model, 5, (gptvq_text_room){(size_t)4 << 30, true}, NULL, &a, err));
  ok(gptvq_calibration_sample(model, 5, (gptvq_text_room){(size_t)4 << 30, true}, NULL, &b, err));
  for (size_t w = 0; w < WINDOWS; w++)
    assert_memory_equal(whole + w * LONG, parts + w * TEXTS * SHORT, LONG * sizeof *whole);
  size_t from_bos = 0;
  for (size_t t = 0; t < WINDOWS * TEXTS; t += 2) from_bos += parts[t * SHORT] == model->info.bos;
  assert_int_equal(from_bos, TEXTS);
  gptvq_model_close(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(hessian_is_the_mean_of_outer_products),
      cmocka_unit_test(hessian_names_bad_activations),
      cmocka_unit_test(windows_spread_over_the_text),
      cmocka_unit_test(windows_stay_where_they_were),
      cmocka_unit_test(held_out_windows_are_apart),
      cmocka_unit_test(fine_tuning_is_judged_by_tokens_of_its_own),
      cmocka_unit_test(sources_have_weights),
      cmocka_unit_test(windows_are_shared_by_weight),
      cmocka_unit_test(texts_are_mixed),
      cmocka_unit_test(the_finished_model_is_judged_by_unseen_windows),
      cmocka_unit_test(any_name_of_a_text_can_be_reported),
      cmocka_unit_test(token_hash_sees_every_token_and_the_cut),
      cmocka_unit_test(run_state_survives_the_file_and_differences_are_named),
      cmocka_unit_test(every_option_is_in_the_identity),
      cmocka_unit_test(a_written_window_is_made_of_short_texts),
      cmocka_unit_test(output_folders_are_checked_before_any_work),
      cmocka_unit_test(publishing_replaces_a_folder_whole),
      cmocka_unit_test(a_folder_that_has_appeared_is_not_replaced),
      cmocka_unit_test(side_files_travel_and_weights_do_not),
  };
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
