/* checkpoint: packed layers written and read back; descriptions and tensors that contradict each other are
 * refused. */
#include "packed_fixture.h"

#include "base/file.h"
#include "checkpoint/checkpoint.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <fcntl.h>
#include <unistd.h>
#include <cmocka.h>

static const char config_text[] = "{\"architectures\": [\"LlamaForCausalLM\"], \"quantization_config\": "
                                  "{\"quant_method\": \"gptvq\", \"version\": 1}}";

static void write_text(const char *folder, const char *name, const char *text) {
  gptvq_error err;
  char *path = gptvq_join_path(folder, name);
  assert_int_equal(gptvq_write_file(path, text, strlen(text), &err), GPTVQ_OK);
  free(path);
}

static char *layer_name(size_t i) {
  static char name[64];
  (void)snprintf(name, sizeof name, "model.layers.%zu.mlp.up_proj", i);
  return name;
}

/* Layers [begin, end) of the shapes table, with a tensor of an odd size before them to misalign everything.
 */
static void write_shard(const char *folder, const char *file, size_t begin, size_t end) {
  gptvq_error err;
  gptvq_st_writer *writer;
  char *path = gptvq_join_path(folder, file), odd[64];
  const size_t three = 3;
  assert_int_equal(gptvq_st_writer_create(path, &writer, &err), GPTVQ_OK);
  (void)snprintf(odd, sizeof odd, "odd.%zu", begin);
  assert_int_equal(gptvq_st_writer_declare(writer, odd, GPTVQ_T_U8, 1, &three, &err), GPTVQ_OK);
  for (size_t i = begin; i < end; i++) {
    fixture f = fixture_make(&fixture_shapes[i], i);
    assert_int_equal(gptvq_packed_declare(writer, layer_name(i), &f.packed, "gptvq",
                                          i == 3 ? (double)NAN : 0.25 + (double)i, &err),
                     GPTVQ_OK);
    fixture_release(&f);
  }
  assert_int_equal(gptvq_st_writer_write(writer, "odd", 3, &err), GPTVQ_OK);
  for (size_t i = begin; i < end; i++) {
    fixture f = fixture_make(&fixture_shapes[i], i);
    assert_int_equal(gptvq_packed_write(writer, &f.packed, &err), GPTVQ_OK);
    fixture_release(&f);
  }
  assert_int_equal(gptvq_st_writer_commit(writer, &err), GPTVQ_OK);
  free(path);
}

static void layers_round_trip(void **state) {
  (void)state;
  gptvq_error err;
  char folder[] = "gptvq-test-XXXXXX";
  assert_non_null(mkdtemp(folder));
  write_text(folder, "config.json", config_text);
  static const char *const shards[] = {"a.safetensors", "b.safetensors"};
  write_shard(folder, shards[0], 0, 7);
  write_shard(folder, shards[1], 7, FIXTURE_SHAPES);
  assert_int_equal(gptvq_write_index(folder, shards, 2, &err), GPTVQ_OK);
  gptvq_checkpoint *checkpoint;
  if (gptvq_checkpoint_open(folder, NULL, &checkpoint, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  uint64_t total = 6; /* the two odd tensors */
  for (size_t i = 0; i < FIXTURE_SHAPES; i++) {
    fixture f = fixture_make(&fixture_shapes[i], i);
    gptvq_packed packed;
    gptvq_packed_info info;
    void *owned;
    assert_true(gptvq_checkpoint_has_packed(checkpoint, layer_name(i)));
    if (gptvq_checkpoint_get_packed(checkpoint, layer_name(i), &packed, &info, &owned, &err) != GPTVQ_OK)
      fail_msg("shape %zu: %s", i, err.message);
    const gptvq_packed_shape *a = &packed.shape, *b = &f.packed.shape;
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->cols, b->cols);
    assert_int_equal(a->dim, b->dim);
    assert_int_equal(a->index_bits, b->index_bits);
    assert_int_equal(a->group_rows, b->group_rows);
    assert_int_equal(a->group_cols, b->group_cols);
    assert_int_equal(a->codebook_bits, b->codebook_bits);
    assert_int_equal(a->scale_block, b->scale_block);
    assert_int_equal(a->permuted, b->permuted);
    const fixture *g = &f;
    struct {
      const void *read, *written;
      size_t bytes, align, in_file;
    } arrays[] = {
        {packed.indices, g->packed.indices, g->sizes.index_bytes, 1, g->sizes.index_bytes},
        {packed.codebooks, g->packed.codebooks, g->sizes.codebook_bytes, a->codebook_bits == 16 ? 2 : 1,
         a->svd_rank > 0 ? 0 : g->sizes.codebook_bytes},
        {packed.codebook_scales, g->packed.codebook_scales, g->sizes.codebook_scales * 2, 2,
         a->svd_rank > 0 ? 0 : g->sizes.codebook_scales * 2},
        {packed.codebook_left, g->packed.codebook_left, g->sizes.left_bytes, 1, g->sizes.left_bytes},
        {packed.codebook_right, g->packed.codebook_right, g->sizes.right_bytes, 1, g->sizes.right_bytes},
        {packed.factor_scales, g->packed.factor_scales, a->svd_rank * 4, 4, a->svd_rank * 4},
        {packed.block_scales, g->packed.block_scales, g->sizes.block_scale_bytes, 1,
         g->sizes.block_scale_bytes},
        {packed.block_scale_range, g->packed.block_scale_range, g->packed.block_scale_range ? 8 : 0, 4,
         g->packed.block_scale_range ? 8 : 0},
        {packed.permutation, g->packed.permutation, b->permuted ? b->cols * 4 : 0, 4,
         b->permuted ? b->cols * 2 : 0},
        {packed.row_scales, g->packed.row_scales, g->sizes.row_scale_bytes, 1, g->sizes.row_scale_bytes},
        {packed.scales, g->packed.scales, g->sizes.uniform_scales * 2, 2, g->sizes.uniform_scales * 2},
        {packed.zeros, g->packed.zeros, g->sizes.zero_bytes, 1, g->sizes.zero_bytes},
    };
    uint64_t bytes = 0;
    for (size_t j = 0; j < sizeof arrays / sizeof arrays[0]; j++) {
      assert_int_equal(arrays[j].read == NULL, arrays[j].written == NULL);
      if (arrays[j].read == NULL) continue;
      assert_memory_equal(arrays[j].read, arrays[j].written, arrays[j].bytes);
      assert_int_equal((uintptr_t)arrays[j].read % arrays[j].align, 0);
      bytes += arrays[j].in_file;
    }
    assert_int_equal(info.bytes, bytes);
    assert_int_equal(bytes, g->sizes.stored_bytes);
    assert_int_equal(a->svd_rank, b->svd_rank);
    assert_string_equal(info.method, "gptvq");
    if (i == 3) assert_true(isnan(info.error));
    else assert_true(info.error == 0.25 + (double)i);
    total += bytes;
    free(owned);
    fixture_release(&f);
  }
  uint64_t in_tensors = 0;
  for (size_t i = 0; i < gptvq_checkpoint_tensor_count(checkpoint); i++)
    in_tensors += gptvq_checkpoint_tensor_at(checkpoint, i)->bytes;
  assert_int_equal(in_tensors, total);
  assert_false(gptvq_checkpoint_has_packed(checkpoint, "model.layers.0.mlp"));
  gptvq_packed packed;
  gptvq_packed_info info;
  void *owned;
  assert_int_equal(gptvq_checkpoint_get_packed(checkpoint, "absent", &packed, &info, &owned, &err),
                   GPTVQ_ERROR_FORMAT);
  assert_non_null(strstr(err.message, "absent.indices"));
  gptvq_checkpoint_close(checkpoint);
  assert_int_equal(gptvq_remove_tree(folder, &err), GPTVQ_OK);
}

/* One small layer whose description and tensors a test may falsify before they are written. */
typedef struct layer_file {
  char description[1024];
  struct layer_tensor {
    const char *name;
    gptvq_tensor_type type;
    size_t rank, dims[4];
    const void *data;
    size_t bytes;
  } tensors[8];
  size_t count;
} layer_file;

static const uint8_t zeros[256];
static const uint16_t identity[8] = {0, 1, 2, 3, 4, 5, 6, 7};
static const uint16_t ones_bf16[2] = {0x3f80, 0x3f80};
static const float range_data[2] = {-1.0f, 0.125f};

/* 4 × 8, d = 2, k = 4, stripes of 2 rows, block scales every 4 columns, permuted */
static layer_file good_layer(void) {
  layer_file f = {.description =
                      "{\"format\":\"vq\",\"version\":1,\"rows\":4,\"cols\":8,\"dim\":2,\"index_bits\":2,"
                      "\"group_rows\":2,\"group_cols\":8,\"codebook_bits\":8,\"scale_block\":4,"
                      "\"permuted\":true,\"method\":\"gptvq\",\"error\":0.5}",
                  .tensors = {{"layer.block_scale_range", GPTVQ_T_F32, 1, {2}, range_data, 8},
                              {"layer.codebook_scales", GPTVQ_T_BF16, 2, {2, 1}, ones_bf16, 4},
                              {"layer.permutation", GPTVQ_T_U16, 1, {8}, identity, 16},
                              {"layer.codebooks", GPTVQ_T_I8, 4, {2, 1, 4, 2}, zeros, 16},
                              {"layer.indices", GPTVQ_T_U8, 1, {8}, zeros, 8},
                              {"layer.block_scales", GPTVQ_T_U8, 1, {4}, zeros, 4}},
                  .count = 6};
  return f;
}

/* Writes, opens, reads; the message of a failure stays in err. */
static gptvq_status try_layer(const layer_file *f, gptvq_error *err) {
  char folder[] = "gptvq-test-XXXXXX";
  assert_non_null(mkdtemp(folder));
  write_text(folder, "config.json", config_text);
  char *path = gptvq_join_path(folder, "model.safetensors");
  gptvq_st_writer *writer;
  assert_int_equal(gptvq_st_writer_create(path, &writer, err), GPTVQ_OK);
  free(path);
  if (f->description[0] != '\0')
    assert_int_equal(gptvq_st_writer_metadata(writer, "gptvq.layer", f->description, err), GPTVQ_OK);
  for (size_t i = 0; i < f->count; i++)
    assert_int_equal(gptvq_st_writer_declare(writer, f->tensors[i].name, f->tensors[i].type,
                                             f->tensors[i].rank, f->tensors[i].dims, err),
                     GPTVQ_OK);
  for (size_t i = 0; i < f->count; i++)
    assert_int_equal(gptvq_st_writer_write(writer, f->tensors[i].data, f->tensors[i].bytes, err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_commit(writer, err), GPTVQ_OK);
  gptvq_checkpoint *checkpoint;
  gptvq_packed packed;
  gptvq_packed_info info;
  void *owned;
  if (gptvq_checkpoint_open(folder, NULL, &checkpoint, err) != GPTVQ_OK) fail_msg("%s", err->message);
  gptvq_status status = gptvq_checkpoint_get_packed(checkpoint, "layer", &packed, &info, &owned, err);
  if (status == GPTVQ_OK) free(owned);
  else assert_null(owned);
  gptvq_checkpoint_close(checkpoint);
  gptvq_error ignored;
  assert_int_equal(gptvq_remove_tree(folder, &ignored), GPTVQ_OK);
  return status;
}

static void refuse(const layer_file *f, gptvq_status status, const char *words) {
  gptvq_error err = {GPTVQ_OK, ""};
  gptvq_status got = try_layer(f, &err);
  if (got != status || strstr(err.message, words) == NULL || strstr(err.message, "layer") == NULL)
    fail_msg("expected %s with \"%s\", got %s: %s", gptvq_status_name(status), words, gptvq_status_name(got),
             err.message);
}

static void replace(layer_file *f, const char *from, const char *to) {
  char *at = strstr(f->description, from);
  assert_non_null(at);
  char rest[1024];
  (void)snprintf(rest, sizeof rest, "%s", at + strlen(from));
  (void)snprintf(at, sizeof f->description - (size_t)(at - f->description), "%s%s", to, rest);
}

/* One replacement in the description of a good layer, and how it is refused. */
typedef struct edit {
  const char *from, *to;
  gptvq_status status;
  const char *words;
} edit;

static void refuse_edits(layer_file (*good)(void), const edit *edits, size_t count) {
  for (size_t i = 0; i < count; i++) {
    layer_file f = good();
    replace(&f, edits[i].from, edits[i].to);
    refuse(&f, edits[i].status, edits[i].words);
  }
}

/* Each tensor of a good layer in turn: absent, or of another type. */
static void refuse_tensors(layer_file (*good)(void)) {
  for (size_t i = 0, count = good().count; i < count; i++) {
    layer_file f = good();
    f.tensors[i] = f.tensors[--f.count];
    refuse(&f, GPTVQ_ERROR_FORMAT, "missing");
    f = good();
    f.tensors[i].type = GPTVQ_T_I32;
    f.tensors[i].data = zeros;
    f.tensors[i].bytes = 4;
    for (size_t d = 0; d < f.tensors[i].rank; d++) f.tensors[i].bytes *= f.tensors[i].dims[d];
    refuse(&f, GPTVQ_ERROR_FORMAT, f.tensors[i].name);
  }
}

static void contradictions_are_refused(void **state) {
  (void)state;
  gptvq_error err;
  layer_file f = good_layer();
  if (try_layer(&f, &err) != GPTVQ_OK) fail_msg("%s", err.message);

  static const edit edits[] = {
      {"\"version\":1", "\"version\":4", GPTVQ_ERROR_UNSUPPORTED, "version 4"},
      {"\"version\":1", "\"version\":0", GPTVQ_ERROR_UNSUPPORTED, "version 0"},
      {"\"version\":1", "\"version\":2", GPTVQ_ERROR_FORMAT, "svd_rank is missing"},
      {"\"version\":1", "\"svd_rank\":1,\"version\":1", GPTVQ_ERROR_UNSUPPORTED, "svd_rank"},
      {"\"version\":1", "\"svd_rank\":1,\"version\":2", GPTVQ_ERROR_FORMAT, "dimension 2"},
      {"\"version\":1,", "", GPTVQ_ERROR_FORMAT, "version is missing"},
      {"\"version\":1", "\"version\":3", GPTVQ_ERROR_FORMAT, "\"vq\" is not one of version 3"},
      {"\"vq\"", "\"trellis\"", GPTVQ_ERROR_FORMAT, "\"trellis\" is not one of version 1"},
      {"\"vq\"", "\"woven\"", GPTVQ_ERROR_UNSUPPORTED, "woven"},
      {"\"rows\"", "\"sparse\":1,\"rows\"", GPTVQ_ERROR_UNSUPPORTED, "sparse"},
      {"\"rows\":4", "\"rows\":5", GPTVQ_ERROR_FORMAT, "shape"},
      {"\"rows\":4", "\"rows\":-4", GPTVQ_ERROR_FORMAT, "rows"},
      {"\"rows\":4", "\"rows\":1099511627776", GPTVQ_ERROR_FORMAT, "1099511627776"},
      {"\"rows\":4,", "", GPTVQ_ERROR_FORMAT, "rows is missing"},
      {"\"rows\":4", "\"rows\":4,\"rows\":4", GPTVQ_ERROR_FORMAT, "not a JSON object"},
      {"\"dim\":2", "\"dim\":3", GPTVQ_ERROR_FORMAT, "dimension 3"},
      {"\"dim\":2", "\"dim\":1", GPTVQ_ERROR_FORMAT, "shape"},
      {"\"index_bits\":2", "\"index_bits\":13", GPTVQ_ERROR_FORMAT, "13 index bits"},
      {"\"codebook_bits\":8", "\"codebook_bits\":16", GPTVQ_ERROR_FORMAT, "F16"},
      {"\"permuted\":true", "\"permuted\":false", GPTVQ_ERROR_FORMAT, "permutation"},
      {"\"permuted\":true", "\"permuted\":1", GPTVQ_ERROR_FORMAT, "permuted"},
      {"\"scale_block\":4", "\"scale_block\":0", GPTVQ_ERROR_FORMAT, "block_scale_range"},
      {"\"format\":\"vq\"", "\"format\":\"uniform\"", GPTVQ_ERROR_FORMAT, "uniform"},
      {"\"gptvq\"", "\"a method with a long name\"", GPTVQ_ERROR_FORMAT, "method"},
      {"\"error\":0.5", "\"error\":-1", GPTVQ_ERROR_FORMAT, "error"},
      {"{", "[", GPTVQ_ERROR_FORMAT, "not a JSON object"},
  };
  refuse_edits(good_layer, edits, sizeof edits / sizeof edits[0]);
  f = good_layer();
  f.description[0] = '\0';
  refuse(&f, GPTVQ_ERROR_FORMAT, "__metadata__");

  refuse_tensors(good_layer);
  f = good_layer();
  f.tensors[f.count].name = "layer.zeros";
  f.tensors[f.count].type = GPTVQ_T_U8;
  f.tensors[f.count++].rank = 1;
  refuse(&f, GPTVQ_ERROR_FORMAT, "contradicts");
}

/* Folders of other versions of the format, and of other methods. */
static void other_versions_are_refused(void **state) {
  (void)state;
  static const struct {
    const char *quantization;
    gptvq_status status;
    const char *words;
  } cases[] = {
      {"{\"quant_method\": \"gptvq\", \"version\": 4}", GPTVQ_ERROR_UNSUPPORTED,
       "format version 4 is not supported, only versions up to 3"},
      {"{\"quant_method\": \"gptvq\", \"version\": 0}", GPTVQ_ERROR_UNSUPPORTED,
       "format version 0 is not supported, only versions up to 3"},
      {"{\"quant_method\": \"gptvq\", \"version\": \"1\"}", GPTVQ_ERROR_FORMAT, "version is missing"},
      {"{\"quant_method\": \"gptvq\"}", GPTVQ_ERROR_FORMAT, "version is missing"},
      {"{\"quant_method\": \"awq\", \"version\": 1}", GPTVQ_ERROR_UNSUPPORTED, "awq"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    gptvq_error err = {0};
    gptvq_checkpoint *checkpoint;
    char folder[] = "gptvq-test-XXXXXX", text[256];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(text, sizeof text,
                   "{\"architectures\": [\"LlamaForCausalLM\"], \"quantization_config\": %s}",
                   cases[i].quantization);
    write_text(folder, "config.json", text);
    const gptvq_status status = gptvq_checkpoint_open(folder, NULL, &checkpoint, &err);
    if (status != cases[i].status || strstr(err.message, cases[i].words) == NULL ||
        strstr(err.message, folder) == NULL)
      fail_msg("%s: status %d, %s", cases[i].quantization, (int)status, err.message);
    assert_null(checkpoint);
    char *path = gptvq_join_path(folder, "config.json");
    assert_int_equal(unlink(path), 0);
    free(path);
    assert_int_equal(rmdir(folder), 0);
  }
}

static void bad_numbers_are_refused(void **state) {
  (void)state;
  static const uint16_t twice[8] = {0, 1, 2, 3, 4, 5, 6, 6}, beyond[8] = {0, 1, 2, 3, 4, 5, 6, 8};
  static const uint16_t infinite[2] = {0x3f80, 0x7f80};
  static const float nan_range[2] = {0.0f, NAN}, wide_range[2] = {0.0f, 10.0f};
  layer_file f = good_layer();
  f.tensors[2].data = twice;
  refuse(&f, GPTVQ_ERROR_FORMAT, "second time");
  f.tensors[2].data = beyond;
  refuse(&f, GPTVQ_ERROR_FORMAT, "element 7 is 8");
  f = good_layer();
  f.tensors[1].data = infinite;
  refuse(&f, GPTVQ_ERROR_NUMERIC, "codebook_scales holds NaN or infinity at row 1, column 0");
  f = good_layer();
  f.tensors[0].data = nan_range;
  refuse(&f, GPTVQ_ERROR_NUMERIC, "block_scale_range");
  f.tensors[0].data = wide_range;
  refuse(&f, GPTVQ_ERROR_FORMAT, "2^150");
}

/* 4 × 16, d = 1, k = 4, codebooks of one row and 8 columns as factors of rank 2 */
static layer_file factored_layer(void) {
  static const float steps[2] = {0.5f, 0.25f};
  layer_file f = {.description =
                      "{\"format\":\"vq\",\"version\":2,\"rows\":4,\"cols\":16,\"dim\":1,\"index_bits\":2,"
                      "\"group_rows\":1,\"group_cols\":8,\"codebook_bits\":8,\"scale_block\":0,"
                      "\"permuted\":false,\"method\":\"gptvq\",\"error\":0.5,\"svd_rank\":2}",
                  .tensors = {{"layer.codebook_factor_scales", GPTVQ_T_F32, 1, {2}, steps, 8},
                              {"layer.codebook_left", GPTVQ_T_I8, 3, {4, 2, 2}, zeros, 16},
                              {"layer.codebook_right", GPTVQ_T_I8, 2, {2, 4}, zeros, 8},
                              {"layer.indices", GPTVQ_T_U8, 1, {16}, zeros, 16}},
                  .count = 4};
  return f;
}

static void bad_factors_are_refused(void **state) {
  (void)state;
  static const float nan_step[2] = {0.5f, NAN}, huge_step[2] = {0x1p100f, 0x1p120f};
  gptvq_error err;
  layer_file f = factored_layer();
  if (try_layer(&f, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  static const edit edits[] = {
      {"\"svd_rank\":2", "\"svd_rank\":0", GPTVQ_ERROR_FORMAT, "contradicts"},
      {"\"svd_rank\":2", "\"svd_rank\":1", GPTVQ_ERROR_FORMAT, "shape"},
      {"\"svd_rank\":2", "\"svd_rank\":5", GPTVQ_ERROR_FORMAT, "rank 5"},
      {"\"svd_rank\":2", "\"svd_rank\":-2", GPTVQ_ERROR_FORMAT, "svd_rank"},
      {"\"svd_rank\":2", "\"svd_rank\":1e9", GPTVQ_ERROR_FORMAT, "svd_rank"},
      {"\"svd_rank\":2", "\"svd_rank\":1073741824", GPTVQ_ERROR_FORMAT, "rank 1073741824"},
      {",\"svd_rank\":2", "", GPTVQ_ERROR_FORMAT, "svd_rank is missing"},
      {"\"version\":2", "\"version\":1", GPTVQ_ERROR_UNSUPPORTED, "svd_rank"},
      {"\"index_bits\":2", "\"index_bits\":9", GPTVQ_ERROR_FORMAT, "512 centroids"},
      {"\"index_bits\":2", "\"index_bits\":1", GPTVQ_ERROR_FORMAT, "shape"},
      {"\"group_rows\":1", "\"group_rows\":2", GPTVQ_ERROR_FORMAT, "codebook_left has shape"},
      {"\"vq\"", "\"uniform\"", GPTVQ_ERROR_FORMAT, "uniform"},
  };
  refuse_edits(factored_layer, edits, sizeof edits / sizeof edits[0]);
  refuse_tensors(factored_layer);
  for (size_t i = 0; i < 4; i++) {
    f = factored_layer();
    f.tensors[i].dims[0]--; /* cut short */
    f.tensors[i].bytes = f.tensors[i].bytes / (f.tensors[i].dims[0] + 1) * f.tensors[i].dims[0];
    refuse(&f, GPTVQ_ERROR_FORMAT, "shape");
  }
  f = factored_layer(); /* both the codebooks and their factors */
  f.tensors[f.count++] = (struct layer_tensor){"layer.codebook_scales", GPTVQ_T_BF16, 2, {4, 2}, zeros, 16};
  refuse(&f, GPTVQ_ERROR_FORMAT, "contradicts");
  f = factored_layer();
  f.tensors[0].data = nan_step;
  refuse(&f, GPTVQ_ERROR_NUMERIC, "codebook_factor_scales holds NaN");
  f.tensors[0].data = huge_step;
  refuse(&f, GPTVQ_ERROR_NUMERIC, "codebook_factor_scales gives centroids beyond");
}

/* 2 × 16, groups of 8 columns */
static layer_file trellis_layer(void) {
  static const int8_t tables[64] = {[3] = -100, [20] = -27, [32] = 127};
  layer_file f = {
      .description =
          "{\"format\":\"trellis\",\"version\":3,\"rows\":2,\"cols\":16,\"dim\":1,\"index_bits\":2,"
          "\"group_rows\":2,\"group_cols\":8,\"codebook_bits\":8,\"scale_block\":0,"
          "\"permuted\":false,\"method\":\"gptvq\",\"error\":0.5}",
      .tensors = {{"layer.codebook_scales", GPTVQ_T_BF16, 2, {1, 2}, ones_bf16, 4},
                  {"layer.codebooks", GPTVQ_T_I8, 4, {1, 2, 32, 1}, tables, 64},
                  {"layer.indices", GPTVQ_T_U8, 1, {8}, zeros, 8},
                  {"layer.row_scales", GPTVQ_T_U8, 2, {2, 2}, zeros, 4}},
      .count = 4};
  return f;
}

static void bad_trellises_are_refused(void **state) {
  (void)state;
  static const int8_t low[64] = {[3] = -100, [20] = -28}, high[64] = {[47] = 127, [63] = 1};
  gptvq_error err;
  layer_file f = trellis_layer();
  if (try_layer(&f, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  static const edit edits[] = {
      {"\"version\":3", "\"version\":2", GPTVQ_ERROR_FORMAT, "\"trellis\" is not one of version 2"},
      {"\"dim\":1", "\"dim\":1,\"state_bits\":8", GPTVQ_ERROR_UNSUPPORTED, "state_bits"},
      {"\"index_bits\":2", "\"index_bits\":5", GPTVQ_ERROR_FORMAT, "5 bits per weight"},
      {"\"index_bits\":2", "\"index_bits\":3", GPTVQ_ERROR_FORMAT, "indices has shape"},
      {"\"group_rows\":2", "\"group_rows\":1", GPTVQ_ERROR_FORMAT, "groups of 1 rows"},
      {"\"group_cols\":8", "\"group_cols\":16", GPTVQ_ERROR_FORMAT, "shape"},
  };
  refuse_edits(trellis_layer, edits, sizeof edits / sizeof edits[0]);
  refuse_tensors(trellis_layer);
  f.tensors[1].data = low;
  refuse(&f, GPTVQ_ERROR_FORMAT,
         "codebooks has values beyond ±127: sums of the two tables of column group 0");
  f.tensors[1].data = high;
  refuse(&f, GPTVQ_ERROR_FORMAT, "column group 1");
}

/* Permutations of more than 65536 columns are 32 bits wide in the file. */
static void wide_permutations(void **state) {
  (void)state;
  gptvq_error err;
  char folder[] = "gptvq-test-XXXXXX";
  assert_non_null(mkdtemp(folder));
  write_text(folder, "config.json", config_text);
  char *path = gptvq_join_path(folder, "model.safetensors");
  const gptvq_packed_shape shape = {GPTVQ_PACKED_VQ, 1, 65544, 4, 1, 1, 65544, 8, 0, true, 0};
  fixture f = fixture_make(&shape, 3);
  gptvq_st_writer *writer;
  assert_int_equal(gptvq_st_writer_create(path, &writer, &err), GPTVQ_OK);
  assert_int_equal(gptvq_packed_declare(writer, "layer", &f.packed, "kmeans", 0.0, &err), GPTVQ_OK);
  assert_int_equal(gptvq_packed_write(writer, &f.packed, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_commit(writer, &err), GPTVQ_OK);
  gptvq_checkpoint *checkpoint;
  assert_int_equal(gptvq_checkpoint_open(folder, NULL, &checkpoint, &err), GPTVQ_OK);
  assert_int_equal(gptvq_checkpoint_find(checkpoint, "layer.permutation")->type, GPTVQ_T_U32);
  gptvq_packed packed;
  gptvq_packed_info info;
  void *owned;
  assert_int_equal(gptvq_checkpoint_get_packed(checkpoint, "layer", &packed, &info, &owned, &err), GPTVQ_OK);
  assert_memory_equal(packed.permutation, f.packed.permutation, shape.cols * 4);
  free(owned);
  gptvq_checkpoint_close(checkpoint);
  fixture_release(&f);
  free(path);
  assert_int_equal(gptvq_remove_tree(folder, &err), GPTVQ_OK);
}

/* Every byte of the header of a packed file damaged in several ways, and every truncation: refused with one
 * line, or read and decoded within bounds (asan-ubsan watches). */
static void damage_everything(const gptvq_packed_shape *shape) {
  gptvq_error err;
  char folder[] = "gptvq-test-XXXXXX", *data;
  assert_non_null(mkdtemp(folder));
  write_text(folder, "config.json", config_text);
  char *path = gptvq_join_path(folder, "model.safetensors");
  fixture f = fixture_make(shape, 5);
  gptvq_st_writer *writer;
  assert_int_equal(gptvq_st_writer_create(path, &writer, &err), GPTVQ_OK);
  assert_int_equal(gptvq_packed_declare(writer, "layer", &f.packed, "gptvq", 0.25, &err), GPTVQ_OK);
  assert_int_equal(gptvq_packed_write(writer, &f.packed, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_commit(writer, &err), GPTVQ_OK);
  fixture_release(&f);
  size_t size, accepted = 0, refused = 0;
  assert_int_equal(gptvq_read_file(path, 1 << 20, &data, &size, &err), GPTVQ_OK);
  size_t header = 8 + ((uint8_t)data[0] | (size_t)(uint8_t)data[1] << 8);
  static const char values[] = {'0', '9', '"', '-'};
  int file = open(path, O_WRONLY);
  assert_true(file >= 0);
  for (size_t at = 0; at < header + size; at++) { /* beyond the header: shorter and shorter */
    for (size_t v = 0; v < (at < header ? 3 + sizeof values : 1); v++) {
      if (at < header) {
        char bad = v < 3 ? (char)0 : values[v - 3];
        if (v < 3) bad = (char)((uint8_t)data[at] ^ (1u << 2 * v));
        assert_int_equal(pwrite(file, &bad, 1, (off_t)at), 1);
      } else {
        assert_int_equal(ftruncate(file, (off_t)(size - 1 - (at - header))), 0);
      }
      gptvq_checkpoint *checkpoint;
      gptvq_packed packed;
      gptvq_packed_info info;
      void *owned = NULL;
      err.message[0] = '\0';
      gptvq_status status = gptvq_checkpoint_open(folder, NULL, &checkpoint, &err);
      if (status == GPTVQ_OK)
        status = gptvq_checkpoint_get_packed(checkpoint, "layer", &packed, &info, &owned, &err);
      if (status == GPTVQ_OK) {
        size_t cols = packed.shape.cols;
        float *out = calloc(packed.shape.rows * cols, sizeof *out);
        assert_non_null(out);
        gptvq_packed_decode_ref(&packed, 0, packed.shape.rows, out, cols);
        free(out);
        accepted++;
      } else {
        assert_true(status == GPTVQ_ERROR_FORMAT || status == GPTVQ_ERROR_UNSUPPORTED ||
                    status == GPTVQ_ERROR_NUMERIC);
        assert_non_null(strstr(err.message, folder));
        refused++;
      }
      free(owned);
      gptvq_checkpoint_close(checkpoint);
      if (at < header) assert_int_equal(pwrite(file, data + at, 1, (off_t)at), 1);
    }
  }
  assert_int_equal(close(file), 0);
  assert_true(accepted > 0 && refused > 5 * accepted);
  free(data);
  free(path);
  assert_int_equal(gptvq_remove_tree(folder, &err), GPTVQ_OK);
}

static void damaged_files_never_crash(void **state) {
  (void)state;
  damage_everything(&(gptvq_packed_shape){GPTVQ_PACKED_VQ, 3, 24, 2, 3, 2, 16, 16, 8, true, 0});
  damage_everything(&(gptvq_packed_shape){GPTVQ_PACKED_VQ, 3, 24, 1, 3, 1, 16, 8, 0, false, 2});
  damage_everything(&(gptvq_packed_shape){GPTVQ_PACKED_TRELLIS, 3, 24, 1, 2, 3, 16, 8, 0, true, 0});
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(layers_round_trip),          cmocka_unit_test(contradictions_are_refused),
      cmocka_unit_test(other_versions_are_refused), cmocka_unit_test(bad_numbers_are_refused),
      cmocka_unit_test(bad_factors_are_refused),    cmocka_unit_test(bad_trellises_are_refused),
      cmocka_unit_test(wide_permutations),          cmocka_unit_test(damaged_files_never_crash),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
