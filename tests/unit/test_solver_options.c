/* Sizes from bits, shapes of layers, refused options. */
#include "solver_fixture.h"

static gptvq_quantize_options asked(gptvq_method method, double bits, unsigned dim, unsigned scale_block) {
  gptvq_quantize_options o;
  gptvq_quantize_options_init(&o);
  o.method = method;
  o.bits = bits;
  o.dim = dim;
  o.index_bits = 0;
  o.group_size = 0;
  o.scale_block = scale_block;
  return o;
}

/* The settings of the paper, and neighbours. */
static void bits_give_the_paper_s_sizes(void **state) {
  (void)state;
  static const struct {
    gptvq_method method;
    double bits;
    unsigned dim, scale_block, index_bits;
    size_t group;
  } cases[] = {
      {GPTVQ_METHOD_GPTVQ, 2.125, 1, 0, 2, 256},   {GPTVQ_METHOD_GPTVQ, 2.25, 1, 0, 2, 128},
      {GPTVQ_METHOD_GPTVQ, 2.125, 2, 0, 4, 2048},  {GPTVQ_METHOD_GPTVQ, 2.25, 2, 0, 4, 1024},
      {GPTVQ_METHOD_GPTVQ, 2.25, 4, 0, 8, 32768},  {GPTVQ_METHOD_GPTVQ, 2.125, 4, 0, 8, 65536},
      {GPTVQ_METHOD_GPTVQ, 3.125, 1, 0, 3, 512},   {GPTVQ_METHOD_GPTVQ, 3.125, 2, 0, 6, 8192},
      {GPTVQ_METHOD_GPTVQ, 4.125, 1, 0, 4, 1024},  {GPTVQ_METHOD_GPTVQ, 4.125, 2, 0, 8, 32768},
      {GPTVQ_METHOD_GPTVQ, 2.125, 2, 64, 4, 4096}, {GPTVQ_METHOD_GPTVQ, 3.125, 4, 0, 12, 1048576},
      {GPTVQ_METHOD_KMEANS, 2.0, 2, 0, 3, 256},    {GPTVQ_METHOD_GPTVQ, 2.3, 2, 0, 4, 853},
      {GPTVQ_METHOD_GPTQ, 2.125, 2, 0, 2, 128},    {GPTVQ_METHOD_RTN, 2.25, 1, 0, 2, 64},
      {GPTVQ_METHOD_GPTQ, 3.125, 4, 64, 3, 128},   {GPTVQ_METHOD_RTN, 4.125, 1, 0, 4, 128},
      {GPTVQ_METHOD_RTN, 8.5, 1, 0, 8, 32},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    gptvq_quantize_options o = asked(cases[i].method, cases[i].bits, cases[i].dim, cases[i].scale_block),
                           again;
    gptvq_error err;
    assert_int_equal(gptvq_quantize_options_resolve(&o, &err), GPTVQ_OK);
    assert_int_equal(o.index_bits, cases[i].index_bits);
    assert_int_equal(o.group_size, cases[i].group);
    assert_true(fabs(o.bits - cases[i].bits) < 1e-3);
    again = o;
    assert_int_equal(gptvq_quantize_options_resolve(&again, &err), GPTVQ_OK);
    assert_memory_equal(&again, &o, sizeof o);
  }
}

/* Whatever the paper does not have is off: an option that is added later and left on in the paper's recipe
 * fails here. */
static void the_paper_s_recipe_has_nothing_else(void **state) {
  (void)state;
  gptvq_quantize_options paper, bare, usual, init;
  gptvq_error err;
  GPTVQ_INIT(&bare);
  bare.bits = 2.25; /* what the paper has */
  bare.nominal = 1;
  bare.code = GPTVQ_CODE_VQ;
  bare.group_cols = 256;
  bare.codebook_bits = 8;
  bare.em_iterations = 100;
  bare.hessian_weights = bare.feedback = bare.codebook_update = 1;
  bare.damping = 0.01;
  bare.calib_samples = 128;
  bare.beam = 1; /* off */
  gptvq_quantize_options_recipe(&paper, GPTVQ_RECIPE_PAPER);
  assert_int_equal(paper.finetune_steps, 0);
  bare.finetune_batch = paper.finetune_batch; /* without steps of no effect */
  bare.finetune_rate = paper.finetune_rate;
  assert_memory_equal(&paper, &bare, sizeof paper);
  assert_int_equal(gptvq_quantize_options_resolve(&paper, &err), GPTVQ_OK);
  assert_int_equal(paper.dim, 2);
  assert_true(paper.embedding_bits == 16 && paper.head_bits == 16);
  gptvq_quantize_options_recipe(&usual, GPTVQ_RECIPE_DEFAULT);
  gptvq_quantize_options_init(&init);
  assert_memory_equal(&usual, &init, sizeof usual);
}

static void part_of_the_sizes_may_be_given(void **state) {
  (void)state;
  gptvq_error err;
  gptvq_quantize_options o = asked(GPTVQ_METHOD_GPTVQ, 2.25, 2, 0);
  o.index_bits = 3;
  assert_int_equal(gptvq_quantize_options_resolve(&o, &err), GPTVQ_OK);
  assert_int_equal(o.group_size, 171); /* 8 · 2 · 8 / 0.75 = 170.67 */
  o = asked(GPTVQ_METHOD_GPTVQ, 2.25, 2, 0);
  o.group_size = 4096;
  assert_int_equal(gptvq_quantize_options_resolve(&o, &err), GPTVQ_OK);
  assert_int_equal(o.index_bits, 4);
  o = asked(GPTVQ_METHOD_GPTVQ, 0.0, 2, 0);
  o.index_bits = 5;
  o.group_size = 10240;
  assert_int_equal(gptvq_quantize_options_resolve(&o, &err), GPTVQ_OK);
  assert_true(fabs(o.bits - 2.55) < 1e-12);
  o = asked(GPTVQ_METHOD_GPTVQ, 2.25, 2, 0);
  o.codebook_bits = 16;
  assert_int_equal(gptvq_quantize_options_resolve(&o, &err), GPTVQ_OK);
  assert_int_equal(o.group_size, 2048);
}

static void refused(gptvq_quantize_options o, const char *named, const char *value) {
  gptvq_error err = {.message = ""};
  assert_int_equal(gptvq_quantize_options_resolve(&o, &err), GPTVQ_ERROR_ARGUMENT);
  if (strstr(err.message, named) == NULL || strstr(err.message, value) == NULL)
    fail_msg("message: %s", err.message);
}

static void absurd_values_are_named(void **state) {
  (void)state;
  gptvq_quantize_options o;
#define REFUSED(member, setting, value) \
  o = asked(GPTVQ_METHOD_GPTVQ, 2.25, 2, 0); \
  o.member = setting; \
  refused(o, #member, value)
  REFUSED(dim, 3, "3");
  REFUSED(bits, -1.0, "-1");
  REFUSED(bits, (double)NAN, "nan");
  REFUSED(bits, 0.0, "bits");
  REFUSED(bits, 0.1, "nearest possible size is 0.5");
  o = asked(GPTVQ_METHOD_GPTVQ, 15.0, 2, 0);
  o.nominal = 1;
  refused(o, "bits", "nearest possible size is 7");
  REFUSED(index_bits, 13, "13");
  REFUSED(index_bits, 8, "8");
  REFUSED(group_size, 7, "7");
  REFUSED(group_cols, 100, "100");
  REFUSED(codebook_bits, 4, "4");
  REFUSED(scale_block, 24, "24");
  REFUSED(scale_block, 512, "512");
  REFUSED(damping, -0.5, "-0.5");
  REFUSED(damping, (double)NAN, "nan");
  REFUSED(beam, 0, "0");
  REFUSED(beam, 65, "65");
  REFUSED(act_order, 3, "`act_order` 3 is unknown: choose off, columns or blocks");
  REFUSED(reassign_rounds, 100000, "100000");
  REFUSED(em_iterations, 1000000, "1000000");
  REFUSED(em_init, (gptvq_em_init)9, "9");
  REFUSED(method, (gptvq_method)9, "9");
  o = asked(GPTVQ_METHOD_RTN, 0.5, 1, 0);
  refused(o, "bits", "nearest");
  o = asked(GPTVQ_METHOD_GPTQ, 12.0, 1, 0);
  o.nominal = 1;
  refused(o, "bits", "8.125");
}

/* What `code` auto becomes, and what it means for dimension, size, embedding and head. */
static void codes_follow_from_the_other_options(void **state) {
  (void)state;
  static const struct {
    const char *name, *value; /* set beside the defaults */
    double bits;              /* 0: the default's */
    gptvq_code code;
    unsigned index_bits;
  } cases[] = {
      {"calib", "self", 0.0, GPTVQ_CODE_TRELLIS, 2},
      {"calib", "self", 2.0, GPTVQ_CODE_TRELLIS, 2},
      {"calib", "self", 2.45, GPTVQ_CODE_TRELLIS, 2},
      {"calib", "self", 2.46, GPTVQ_CODE_TRELLIS, 2},
      {"allocate", "uniform", 2.45, GPTVQ_CODE_TRELLIS, 2},
      {"allocate", "uniform", 2.46, GPTVQ_CODE_VQ, 4},
      {"calib", "self", 3.125, GPTVQ_CODE_TRELLIS, 3},
      {"calib", "self", 4.45, GPTVQ_CODE_TRELLIS, 4},
      {"calib", "self", 1.99, GPTVQ_CODE_VQ, 3},
      {"calib", "self", 5.125, GPTVQ_CODE_VQ, 10},
      {"allocate", "sensitivity", 2.7, GPTVQ_CODE_TRELLIS, 2},
      {"allocate", "sensitivity", 4.04, GPTVQ_CODE_TRELLIS, 4},
      {"allocate", "sensitivity", 4.6, GPTVQ_CODE_VQ, 9},
      {"method", "kmeans", 0.0, GPTVQ_CODE_TRELLIS, 2},
      {"method", "kmeans", 2.46, GPTVQ_CODE_VQ, 4},
      {"method", "gptq", 0.0, GPTVQ_CODE_VQ, 2},
      {"method", "rtn", 0.0, GPTVQ_CODE_VQ, 2},
      {"beam", "8", 0.0, GPTVQ_CODE_TRELLIS, 2},
      {"act_order", "columns", 0.0, GPTVQ_CODE_TRELLIS, 2},
      {"group_cols", "128", 0.0, GPTVQ_CODE_TRELLIS, 2},
      {"finetune_steps", "2", 0.0, GPTVQ_CODE_TRELLIS, 2},
      {"code", "vq", 0.0, GPTVQ_CODE_VQ, 4},
      {"dim", "2", 0.0, GPTVQ_CODE_VQ, 4},
      {"dim", "1", 0.0, GPTVQ_CODE_VQ, 2},
      {"index_bits", "4", 0.0, GPTVQ_CODE_VQ, 4},
      {"group_size", "1024", 0.0, GPTVQ_CODE_VQ, 4},
      {"scale_block", "64", 0.0, GPTVQ_CODE_VQ, 4},
      {"codebook_bits", "16", 0.0, GPTVQ_CODE_VQ, 4},
      {"em_init", "cdf", 0.0, GPTVQ_CODE_VQ, 4},
      {"finetune_index_rate", "0.001", 0.0, GPTVQ_CODE_VQ, 4},
      {"model_bits", "3", 0.0, GPTVQ_CODE_AUTO, 0},
      {"group_cols", "32", 2.19, GPTVQ_CODE_VQ, 4}, /* 0.25 bits of scales */
      {"group_cols", "32", 2.45, GPTVQ_CODE_TRELLIS, 2},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    gptvq_quantize_options o, again;
    gptvq_error err = {.message = ""};
    gptvq_quantize_options_init(&o);
    assert_int_equal(o.code, GPTVQ_CODE_AUTO);
    if (cases[i].bits > 0.0) o.bits = cases[i].bits;
    assert_int_equal(gptvq_quantize_options_set(&o, cases[i].name, cases[i].value, &err), GPTVQ_OK);
    if (gptvq_quantize_options_resolve(&o, &err) != GPTVQ_OK)
      fail_msg("%s %s: %s", cases[i].name, cases[i].value, err.message);
    if (o.code != cases[i].code || o.index_bits != cases[i].index_bits)
      fail_msg("%s %s, %g bits: %s of %u bits", cases[i].name, cases[i].value, cases[i].bits,
               gptvq_code_name(o.code), o.index_bits);
    const bool trellis = o.code == GPTVQ_CODE_TRELLIS,
               uniform = o.method == GPTVQ_METHOD_GPTQ || o.method == GPTVQ_METHOD_RTN;
    if (strcmp(cases[i].name, "dim") != 0)
      assert_int_equal(o.dim, o.model_bits > 0.0 ? 0 : trellis || uniform ? 1 : 2);
    const unsigned outside = o.model_bits > 0.0 || trellis ? 0 : 16; /* 0: the model decides */
    assert_int_equal(o.embedding_bits, outside);
    assert_int_equal(o.head_bits, outside);
    const bool chooses = trellis && o.method == GPTVQ_METHOD_GPTVQ && cases[i].bits != 2.0 &&
                         o.index_bits < 4 && strcmp(cases[i].value, "uniform") != 0;
    const bool asked_for = strcmp(cases[i].value, "sensitivity") == 0, waits = o.model_bits > 0.0;
    assert_int_equal(o.allocate, waits                  ? GPTVQ_ALLOCATE_AUTO
                                 : chooses || asked_for ? GPTVQ_ALLOCATE_SENSITIVITY
                                                        : GPTVQ_ALLOCATE_UNIFORM);
    again = o;
    assert_int_equal(gptvq_quantize_options_resolve(&again, &err), GPTVQ_OK);
    assert_memory_equal(&again, &o, sizeof o);
  }
  /* what is explicit stays */
  gptvq_quantize_options o;
  gptvq_error err;
  gptvq_quantize_options_recipe(&o, GPTVQ_RECIPE_PAPER);
  o.code = GPTVQ_CODE_TRELLIS;
  o.embedding_bits = o.head_bits = 16;
  assert_int_equal(gptvq_quantize_options_resolve(&o, &err), GPTVQ_OK);
  assert_int_equal(o.code, GPTVQ_CODE_TRELLIS);
  assert_true(o.embedding_bits == 16 && o.head_bits == 16);
  o.dim = 2;
  refused(o, "`dim` other than 1", "use `code` vq");
}

static gptvq_packed_shape shape_of(size_t rows, size_t cols, const gptvq_quantize_options *o) {
  gptvq_packed_shape shape = {0};
  gptvq_error err = {.message = ""};
  gptvq_resolved r;
  if (gptvq_resolve(o, &r, &err) != GPTVQ_OK || gptvq_layer_shape(rows, cols, &r, &shape, &err) != GPTVQ_OK)
    fail_msg("%zu x %zu: %s", rows, cols, err.message);
  return shape;
}

static void layers_get_whole_or_even_groups(void **state) {
  (void)state;
  gptvq_quantize_options o = asked(GPTVQ_METHOD_GPTVQ, 2.125, 2, 0); /* l = 2048 */
  gptvq_packed_shape s = shape_of(4096, 4096, &o);
  assert_int_equal(s.group_rows, 8);
  assert_int_equal(s.group_cols, 256);
  s = shape_of(256, 768, &o);
  assert_int_equal(s.group_rows, 8);
  assert_int_equal(s.group_cols, 256);
  s = shape_of(1536, 576,
               &o); /* 256 + 256 + 64 columns; as many rows as groups of 192 would have: 2048 / 192 */
  assert_int_equal(s.group_cols, 256);
  assert_int_equal(s.group_rows, 11);
  s = shape_of(64, 100,
               &o); /* narrower than a group: the codebook covers 2048 / 100 rows, evened out to 3 stripes */
  assert_int_equal(s.group_cols, 100);
  assert_int_equal(s.group_rows, 22);
  s = shape_of(3, 256, &o); /* shorter than a group */
  assert_int_equal(s.group_rows, 3);
  s = shape_of(10, 300,
               &o); /* two even column groups of a multiple of 8; l / 152 = 13 rows are more than there are */
  assert_int_equal(s.group_cols, 152);
  assert_int_equal(s.group_rows, 10);
  s = shape_of(1, 1, &o);
  assert_int_equal(s.group_cols, 1);
  assert_int_equal(s.group_rows, 1);
  o = asked(GPTVQ_METHOD_GPTVQ, 2.25, 1, 0); /* l = 128: groups of one row and 128 columns */
  s = shape_of(16, 512, &o);
  assert_int_equal(s.group_cols, 128);
  assert_int_equal(s.group_rows, 1);
  o = asked(GPTVQ_METHOD_GPTVQ, 2.125, 2, 64); /* l = 4096 with scales every 64 columns */
  s = shape_of(64, 320, &o);
  assert_int_equal(s.group_cols, 256);
  s = shape_of(64, 328, &o);
  assert_int_equal(s.group_cols, 192);
  assert_int_equal(s.scale_block, 64);
  o = asked(GPTVQ_METHOD_GPTQ, 2.125, 2, 0);
  s = shape_of(5, 100, &o);
  assert_int_equal(s.kind, GPTVQ_PACKED_UNIFORM);
  assert_int_equal(s.scale_block, 100);
  assert_int_equal(s.dim, 1);
}

/* Every shape is one that the packed format accepts, and the bits of a large layer are the nominal ones plus
 * the codebook scales. */
static void shapes_are_valid_and_sized(void **state) {
  (void)state;
  static const double sizes[] = {2.125, 2.25, 3.125, 4.125};
  for (unsigned dim = 1; dim <= 4; dim *= 2)
    for (size_t b = 0; b < 4; b++)
      for (unsigned scale_block = 0; scale_block <= 64; scale_block += 64) {
        if (dim == 4 && sizes[b] > 4.0) continue;   /* k = 65536 */
        if (dim == 1 && scale_block != 0) continue; /* l is not a multiple of the blocks' columns */
        gptvq_quantize_options o = asked(GPTVQ_METHOD_GPTVQ, sizes[b], dim, scale_block);
        for (size_t rows = 1; rows < 2000; rows = rows * 3 + 1)
          for (size_t cols = 1; cols < 3000; cols = cols * 2 + 3) {
            gptvq_packed_shape s = shape_of(rows, cols, &o);
            assert_in_range(s.group_rows, 1, rows);
          }
        gptvq_packed_shape s = shape_of(8192, 8192, &o);
        gptvq_packed_sizes bytes;
        gptvq_packed_measure(&s, &bytes);
        double values = 8192.0 * 8192.0;
        double bits =
            8.0 * (double)(bytes.index_bytes + bytes.codebook_bytes + bytes.block_scale_bytes) / values;
        if (fabs(bits - sizes[b]) >= 0.02)
          fail_msg("dim %u, %g bits, scales %u: %g stored", dim, sizes[b], scale_block, bits);
        assert_int_equal(bytes.codebook_scales,
                         gptvq_ceil_div(8192, s.group_rows) * gptvq_ceil_div(8192, s.group_cols));
      }
}

/* Every row of the table: its default and its paper's value are possible, every choice can be set, is read
 * back and is taken by the check of all options, and what lies outside the range is refused by name. */
static void every_choice_of_every_option_is_possible(void **state) {
  (void)state;
  const gptvq_field *f;
  gptvq_quantize_options o;
  gptvq_error err;
  char text[64], name[80];
  for (size_t i = 0; (f = gptvq_quantize_field(i)) != NULL; i++) {
    for (size_t j = 0; j < i; j++) {
      const gptvq_field *other = gptvq_quantize_field(j);
      assert_string_not_equal(f->name, other->name);
      assert_string_not_equal(f->flag, other->flag);
      assert_int_not_equal(f->offset, other->offset);
    }
    for (size_t c = 0; f->choices != NULL && f->choices[c] != NULL; c++) {
      gptvq_quantize_options_init(&o);
      assert_int_equal(gptvq_quantize_options_set(&o, f->name, f->choices[c], &err), GPTVQ_OK);
      assert_int_equal(gptvq_quantize_options_get(&o, f->name, text, sizeof text, &err), GPTVQ_OK);
      assert_string_equal(text, f->choices[c]);
      assert_int_equal(gptvq_quantize_options_resolve(&o, &err), GPTVQ_OK);
    }
    if (f->choices != NULL || f->type == GPTVQ_FIELD_SWITCH || f->type == GPTVQ_FIELD_SEED ||
        f->type == GPTVQ_FIELD_TEXT || f->type == GPTVQ_FIELD_WORD)
      continue;
    (void)snprintf(name, sizeof name, "`%s`", f->name);
    double outside[2] = {f->min - (f->type == GPTVQ_FIELD_DOUBLE ? 1e-10 : 1), f->max + 1};
    if (f->type != GPTVQ_FIELD_DOUBLE && f->min < 1) outside[0] = outside[1]; /* unsigned: nothing is below */
    for (int k = 0; k < 2; k++) {
      gptvq_quantize_options before;
      gptvq_quantize_options_init(&o);
      before = o;
      (void)snprintf(text, sizeof text, "%.17g", outside[k]);
      bool derived = f->derived != NULL && outside[k] == 0.0;
      assert_int_equal(gptvq_quantize_options_set(&o, f->name, text, &err),
                       derived ? GPTVQ_OK : GPTVQ_ERROR_ARGUMENT);
      if (derived) continue;
      assert_non_null(strstr(err.message, name));
      assert_memory_equal(&o, &before, sizeof o);
      assert_int_equal(gptvq_quantize_options_set(&o, f->name, "many", &err), GPTVQ_ERROR_ARGUMENT);
      assert_int_equal(gptvq_quantize_options_set(&o, f->name, "", &err), GPTVQ_ERROR_ARGUMENT);
    }
    for (int k = 0; k < 2; k++) {
      (void)snprintf(text, sizeof text, "%.17g", k == 0 ? f->min : f->max);
      assert_int_equal(gptvq_quantize_options_set(&o, f->name, text, &err), GPTVQ_OK);
    }
  }
  assert_int_equal(gptvq_quantize_options_set(&o, "colour", "red", &err), GPTVQ_ERROR_ARGUMENT);
  assert_int_equal(gptvq_quantize_options_set(&o, "seed", "18446744073709551615", &err), GPTVQ_OK);
  assert_true(o.seed == UINT64_MAX);
  assert_int_equal(gptvq_quantize_options_set(&o, "seed", "-1", &err), GPTVQ_ERROR_ARGUMENT);
  assert_int_equal(gptvq_quantize_options_set(&o, "calib", "self", &err), GPTVQ_OK);
  assert_int_equal(gptvq_quantize_options_get(&o, "calib", text, 4, &err),
                   GPTVQ_ERROR_ARGUMENT); /* no room */
  assert_int_equal(gptvq_quantize_options_get(&o, "calib", text, 5, &err), GPTVQ_OK);
  assert_string_equal(text, "self");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(bits_give_the_paper_s_sizes),
                                     cmocka_unit_test(the_paper_s_recipe_has_nothing_else),
                                     cmocka_unit_test(part_of_the_sizes_may_be_given),
                                     cmocka_unit_test(absurd_values_are_named),
                                     cmocka_unit_test(codes_follow_from_the_other_options),
                                     cmocka_unit_test(layers_get_whole_or_even_groups),
                                     cmocka_unit_test(shapes_are_valid_and_sized),
                                     cmocka_unit_test(every_choice_of_every_option_is_possible)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
