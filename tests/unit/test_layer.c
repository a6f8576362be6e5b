/* gptvq/layer.h against double-precision references, and against gptvq_quantize on the same layer. */
#include "solver_fixture.h"
#include "tiny_model.h"
#include "calib/calib.h"
#include "checkpoint/checkpoint_internal.h"
#include "checkpoint/packed_parts.h"
#include "model/model_internal.h"

#include <gptvq/layer.h>

/* The arrays add up to what is stored, but for a permutation, which may be narrower in files. */
static void check_arrays(const gptvq_packed_layer *layer, uint64_t bytes) {
  gptvq_array array = {.size = sizeof array};
  size_t sum = 0, index = 0;
  for (; gptvq_packed_layer_get_array(layer, index, &array); index++) {
    size_t size = strcmp(array.type, "U8") == 0 || strcmp(array.type, "I8") == 0      ? 1
                  : strcmp(array.type, "F16") == 0 || strcmp(array.type, "BF16") == 0 ? 2
                                                                                      : 4;
    for (size_t d = 0; d < array.rank; d++) size *= array.dims[d];
    sum += strcmp(array.name, "permutation") == 0 ? size / 2 : size;
    assert_non_null(array.data);
  }
  assert_true(index >= 2);
  assert_int_equal(sum, bytes);
  assert_false(gptvq_packed_layer_get_array(layer, SIZE_MAX, &array));
}

/* Layer number l of the model multiplies as the packed matrix does. */
static void check_products(const gptvq_model *model, size_t l, const gptvq_packed_layer *layer) {
  gptvq_layer_info info = {.size = sizeof info};
  gptvq_error err;
  gptvq_model_get_layer(model, l, &info);
  float *x = calloc(2 * info.cols, sizeof *x), *y = calloc(4 * info.rows, sizeof *y);
  assert_true(x != NULL && y != NULL);
  for (size_t i = 0; i < 2 * info.cols; i++) x[i] = (float)(i % 7) - 3.0f;
  assert_int_equal(gptvq_model_multiply(model, l, GPTVQ_COMPUTE_FP32, 2, x, y, &err), GPTVQ_OK);
  assert_int_equal(gptvq_packed_layer_multiply(layer, GPTVQ_COMPUTE_FP32, 2, x, y + 2 * info.rows, &err),
                   GPTVQ_OK);
  assert_memory_equal(y, y + 2 * info.rows, 2 * info.rows * sizeof *y);
  assert_int_equal(
      gptvq_model_multiply(model, gptvq_model_layer_count(model), GPTVQ_COMPUTE_FP32, 2, x, y, &err),
      GPTVQ_ERROR_ARGUMENT);
  free(x);
  free(y);
}

static int make_scratch(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_write(&tiny_llama, "llama");
  tiny_write_corpus("corpus.txt", 4000);
  return 0;
}

enum { ROWS = 24, COLS = 48, N = 7 };

/* A layer alone shares no bytes with others: the code that fills `bits`. */
static void a_layer_takes_its_bits(void **state) {
  (void)state;
  enum { SIDE = 512 };
  float *w = random_weights(SIDE, SIDE, 4);
  static const double bits[] = {2.25, 2.9, 3.95};
  for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
    gptvq_quantize_options o;
    gptvq_packed_layer *layer;
    gptvq_layer_info info = {.size = sizeof info};
    gptvq_quantize_options_init(&o);
    o.bits = bits[i];
    o.em_iterations = 1;
    ok(gptvq_pack_layer("a layer", SIDE, SIDE, w, NULL, &o, NULL, &layer, err));
    gptvq_packed_layer_get_info(layer, &info);
    assert_true(info.bits_per_value > bits[i] - 0.25 && info.bits_per_value < bits[i] + 0.1);
    gptvq_packed_layer_destroy(layer);
  }
  free(w);
}

/* Errors and products are what the decoded weights give; sums in fp32 of at most COLS terms. */
static void figures_are_those_of_the_decoded_weights(void **state) {
  (void)state;
  float *w = random_weights(ROWS, COLS, 1), *x = random_weights(N, COLS, 2), decoded[ROWS * COLS],
        y[N * ROWS];
  double *h = random_hessian(COLS, 300, 3);
  const gptvq_method methods[] = {GPTVQ_METHOD_GPTVQ, GPTVQ_METHOD_GPTQ, GPTVQ_METHOD_RTN,
                                  GPTVQ_METHOD_KMEANS};
  for (size_t i = 0; i < 8; i++) {
    const double *hessian = i % 2 ? h : NULL;
    gptvq_quantize_options o = tiny_quantize_options(methods[i / 2]);
    gptvq_packed_layer *layer;
    gptvq_layer_info info = {.size = sizeof info};
    ok(gptvq_pack_layer("a layer", ROWS, COLS, w, hessian, &o, NULL, &layer, err));
    gptvq_packed_layer_get_info(layer, &info);
    gptvq_packed_layer_decode(layer, decoded);
    assert_string_equal(info.name, "a layer");
    assert_string_equal(info.method, gptvq_method_name(methods[i / 2]));
    assert_true(info.rows == ROWS && info.cols == COLS && info.bytes > 0);
    assert_true(info.bits_per_value == 8.0 * (double)info.bytes / (ROWS * COLS));
    double sums[2] = {0.0, 0.0}, e[COLS], exact[COLS];
    for (size_t r = 0; r < ROWS; r++) {
      for (size_t c = 0; c < COLS; c++) {
        exact[c] = (double)w[r * COLS + c];
        e[c] = exact[c] - (double)decoded[r * COLS + c];
      }
      sums[0] += row_loss(COLS, e, hessian);
      sums[1] += row_loss(COLS, exact, hessian);
    }
    if (!(fabs(info.error - sums[0] / sums[1]) <= 1e-5 * info.error)) /* H is kept in fp32 */
      fail_msg("%s: error %.9g, not %.9g", info.method, info.error, sums[0] / sums[1]);
    ok(gptvq_packed_layer_multiply(layer, GPTVQ_COMPUTE_FP32, N, x, y, err));
    for (size_t n = 0; n < N; n++)
      for (size_t r = 0; r < ROWS; r++) {
        double sum = 0.0, size = 0.0;
        for (size_t c = 0; c < COLS; c++) {
          double product = (double)decoded[r * COLS + c] * (double)x[n * COLS + c];
          sum += product;
          size += fabs(product);
        }
        if (!(fabs((double)y[n * ROWS + r] - sum) <= (COLS + 4) * 0x1p-23 * size))
          fail_msg("%s: y[%zu][%zu] = %.9g, not %.9g", info.method, n, r, (double)y[n * ROWS + r], sum);
      }
    gptvq_packed_layer_destroy(layer);
  }
  free(w);
  free(x);
  free(h);
}

typedef struct captured {
  float x[48 * 256];
  size_t n, cols;
} captured;

static gptvq_status keep(void *context, const gptvq_block *block, const size_t *linears, size_t count,
                         const float *x, size_t n, size_t ldx, gptvq_error *err) {
  (void)err;
  (void)count;
  captured *kept = context;
  kept->n = n;
  kept->cols = block->linears[linears[0]].cols;
  assert_true(n * kept->cols <= sizeof kept->x / sizeof *kept->x);
  for (size_t i = 0; i < n; i++) memcpy(kept->x + i * kept->cols, x + i * ldx, kept->cols * sizeof *x);
  return GPTVQ_OK;
}

/* q, k and v of the first block read the embeddings of one calibration window: the same inputs, the same
 * bytes. */
static void packs_what_quantize_packs(void **state) {
  (void)state;
  const gptvq_method methods[] = {GPTVQ_METHOD_GPTVQ, GPTVQ_METHOD_GPTQ, GPTVQ_METHOD_RTN,
                                  GPTVQ_METHOD_KMEANS};
  static captured kept;
  for (size_t m = 0; m < 4; m++) {
    bool data = m < 2;
    gptvq_quantize_options o;
    gptvq_quantize_options_recipe(&o, GPTVQ_RECIPE_PAPER);
    const gptvq_quantize_options tiny = tiny_quantize_options(methods[m]);
    o.method = methods[m];
    o.bits = 0;
    o.dim = tiny.dim;
    o.index_bits = tiny.index_bits;
    o.group_size = tiny.group_size;
    o.calib = data ? "corpus.txt" : NULL;
    o.calib_samples = 1;
    o.calib_length = 48;
    o.calib_compute = GPTVQ_COMPUTE_FP32; /* as the Hessian is made here */
    o.force = 1;
    ok(gptvq_quantize("llama", "packed", &o, NULL, NULL, err));
    gptvq_model *model, *packed;
    const gptvq_model_options fp32 = {.size = sizeof fp32, .compute = GPTVQ_COMPUTE_FP32},
                              zero = {.size = sizeof zero};
    ok(gptvq_model_open("llama", &fp32, &model, err));
    ok(gptvq_model_open("packed", &zero, &packed, err));
    gptvq_model_info opened = {.size = sizeof opened};
    gptvq_model_get_info(packed, &opened);
    assert_int_equal(opened.compute, GPTVQ_COMPUTE_INT8); /* what all zero means for a packed folder */
    double *hessian = NULL;
    if (data) {
      gptvq_calibration calibration;
      gptvq_workspace *workspace;
      ok(gptvq_calibration_create(model, "llama", &o, NULL, (gptvq_text_room){(size_t)4 << 30, true}, NULL,
                                  &calibration, err));
      assert_int_equal(calibration.samples, 1);
      ok(gptvq_workspace_create(model, 1, calibration.length, calibration.length, &workspace, err));
      float *x = gptvq_alloc(calibration.length, model->config.hidden * sizeof *x);
      ok(gptvq_embed(model, calibration.tokens, calibration.length, x, err));
      ok(gptvq_block_attention(model, &model->blocks[0], workspace, 0, 0, calibration.length, x,
                               GPTVQ_STOP_AT_INPUT, keep, &kept, err));
      hessian = gptvq_alloc(kept.cols, kept.cols * sizeof *hessian);
      ok(gptvq_input_hessian(kept.n, kept.cols, kept.x, hessian, err));
      free(x);
      gptvq_workspace_destroy(workspace);
      gptvq_calibration_release(&calibration);
    }
    for (size_t i = 0; i < model->blocks[0].qkv.count; i++) {
      const gptvq_linear *original = &model->blocks[0].linears[model->blocks[0].qkv.linear[i]],
                         *expected = &packed->blocks[0].linears[packed->blocks[0].qkv.linear[i]];
      size_t values = original->rows * original->cols;
      float *w = gptvq_alloc(values, sizeof *w), *a = gptvq_alloc(values, sizeof *a),
            *b = gptvq_alloc(values, sizeof *b);
      gptvq_linear_decode(original, w);
      gptvq_linear_decode(expected, a);
      gptvq_packed_layer *layer;
      gptvq_layer_info info = {.size = sizeof info}, stored = {.size = sizeof stored};
      ok(gptvq_pack_layer(original->name, original->rows, original->cols, w, hessian, &o, NULL, &layer, err));
      gptvq_packed_layer_decode(layer, b);
      assert_memory_equal(a, b, values * sizeof *a);
      gptvq_packed_layer_get_info(layer, &info);
      size_t l = 0;
      for (; l < gptvq_model_layer_count(packed); l++) {
        gptvq_model_get_layer(packed, l, &stored);
        if (strcmp(stored.name, original->name) == 0) break;
      }
      assert_string_equal(stored.name, original->name);
      check_arrays(layer, info.bytes);
      check_products(packed, l, layer);
      assert_int_equal(info.bytes, stored.bytes);
      assert_string_equal(info.method, stored.method);
      assert_string_equal(info.format, stored.format);
      assert_true(fabs(info.error - stored.error) <= 1e-6 * stored.error); /* as text in the folder */
      gptvq_packed_layer_destroy(layer);
      free(w);
      free(a);
      free(b);
    }
    free(hessian);
    gptvq_model_close(model);
    gptvq_model_close(packed);
  }
}

static void nonsense_is_refused(void **state) {
  (void)state;
  gptvq_error error;
  gptvq_packed_layer *layer = (gptvq_packed_layer *)&error;
  float w[64] = {1.0f}, x[16] = {0.0f}, y[8];
  double h[64] = {0.0};
  assert_int_equal(gptvq_pack_layer("a", 0, 8, w, NULL, NULL, NULL, &layer, &error), GPTVQ_ERROR_ARGUMENT);
  assert_null(layer);
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_RTN);
  o.index_bits = 99;
  assert_int_equal(gptvq_pack_layer("a", 8, 8, w, NULL, &o, NULL, &layer, &error), GPTVQ_ERROR_ARGUMENT);
  o = tiny_quantize_options(GPTVQ_METHOD_RTN);
  w[9] = NAN;
  assert_int_equal(gptvq_pack_layer("my.layer", 8, 8, w, NULL, &o, NULL, &layer, &error),
                   GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(error.message, "my.layer"));
  w[9] = 0.0f;
  h[0] = (double)INFINITY;
  o = tiny_quantize_options(GPTVQ_METHOD_GPTQ);
  assert_int_equal(gptvq_pack_layer("a", 8, 8, w, h, &o, NULL, &layer, &error), GPTVQ_ERROR_NUMERIC);
  assert_int_equal(gptvq_input_hessian(0, 8, x, h, &error), GPTVQ_ERROR_ARGUMENT);
  x[3] = NAN;
  assert_int_equal(gptvq_input_hessian(2, 8, x, h, &error), GPTVQ_ERROR_NUMERIC);
  ok(gptvq_pack_layer("a", 8, 8, w, NULL, &o, NULL, &layer, err));
  assert_int_equal(gptvq_packed_layer_multiply(layer, (gptvq_compute)4, 1, x, y, &error),
                   GPTVQ_ERROR_ARGUMENT);
  gptvq_packed_layer_destroy(layer);
}

/* The arrays of a layer of a folder, and its description. */
typedef struct found_layer {
  gptvq_array arrays[GPTVQ_PART_COUNT + 1];
  size_t count;
  const char *description;
} found_layer;

static void find_layer(const gptvq_checkpoint *folder, const char *name, found_layer *found) {
  char key[200];
  size_t length = strlen(name);
  *found = (found_layer){0};
  for (size_t t = 0; t < gptvq_checkpoint_tensor_count(folder); t++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(folder, t);
    if (strncmp(tensor->name, name, length) != 0 || tensor->name[length] != '.' ||
        strcmp(tensor->name + length, ".bias") == 0)
      continue;
    gptvq_array *array = &found->arrays[found->count++];
    *array = (gptvq_array){.size = sizeof *array,
                           .name = tensor->name + length + 1,
                           .type = gptvq_tensor_type_name(tensor->type),
                           .rank = tensor->rank,
                           .data = tensor->data};
    memcpy(array->dims, tensor->dims, sizeof array->dims);
    (void)snprintf(key, sizeof key, "gptvq.%s", name);
    if (found->description == NULL) found->description = gptvq_checkpoint_metadata(folder, tensor, key);
  }
  assert_true(found->count >= 2 && found->description != NULL);
}

/* Opened from its arrays, a layer is what it is in the model: the same bits of every product and figure. */
static void arrays_of_a_folder_are_its_layers(void **state) {
  (void)state;
  for (int variant = 0; variant < 5; variant++) {
    gptvq_quantize_options o = tiny_quantize_options(variant == 1 ? GPTVQ_METHOD_RTN : GPTVQ_METHOD_KMEANS);
    if (variant == 2) {
      o.method = GPTVQ_METHOD_GPTQ; /* with permutations */
      o.act_order = 1;
      o.calib = "corpus.txt";
    }
    if (variant == 3) {
      o.dim = 1;
      o.index_bits = 3;
      o.svd_rank = 2;
    }
    if (variant == 4) {
      o = (gptvq_quantize_options){.size = sizeof o};
      gptvq_quantize_options_init(&o);
      o.code = GPTVQ_CODE_TRELLIS;
      o.bits = 2.25;
      o.calib = "corpus.txt";
      o.calib_samples = 4;
      o.calib_length = 48;
    }
    o.force = 1;
    ok(gptvq_quantize("llama", "arrays", &o, NULL, NULL, err));
    const gptvq_model_options open = {.size = sizeof open, .compute = GPTVQ_COMPUTE_FP32};
    gptvq_model *model;
    gptvq_checkpoint *folder;
    bool permuted = false;
    ok(gptvq_model_open("arrays", &open, &model, err));
    ok(gptvq_checkpoint_open("arrays", NULL, &folder, err));
    for (size_t l = 0; l < gptvq_model_layer_count(model); l++) {
      gptvq_layer_info wanted = {.size = sizeof wanted}, info = {.size = sizeof info};
      gptvq_packed_layer *layer;
      found_layer found;
      gptvq_model_get_layer(model, l, &wanted);
      find_layer(folder, wanted.name, &found);
      for (size_t i = 0; i < found.count; i++)
        permuted = permuted || strcmp(found.arrays[i].name, "permutation") == 0;
      ok(gptvq_packed_layer_open(wanted.name, found.description, strlen(found.description), found.arrays,
                                 found.count, &layer, err));
      check_products(model, l, layer);
      gptvq_packed_layer_get_info(layer, &info);
      assert_string_equal(info.method, wanted.method);
      assert_string_equal(info.format, wanted.format);
      assert_true(info.bytes == wanted.bytes && info.bits_per_value == wanted.bits_per_value &&
                  info.svd_rank == wanted.svd_rank);
      assert_true(info.error == wanted.error || (isnan(info.error) && isnan(wanted.error)));
      gptvq_packed_layer_destroy(layer);
    }
    assert_int_equal(permuted, variant == 2);
    gptvq_checkpoint_close(folder);
    gptvq_model_close(model);
  }
}

static void refused(const found_layer *found, const char *description, size_t count, gptvq_status status,
                    const char *what) {
  gptvq_packed_layer *layer;
  gptvq_error error = {0};
  assert_int_equal(gptvq_packed_layer_open("model.layers.0.mlp.up_proj", description, strlen(description),
                                           found->arrays, count, &layer, &error),
                   status);
  assert_null(layer);
  assert_non_null(strstr(error.message, what));
  assert_non_null(strstr(error.message, "model.layers.0.mlp.up_proj"));
}

static void arrays_that_are_none(void **state) {
  (void)state;
  static const char name[] = "model.layers.0.mlp.up_proj";
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_RTN);
  gptvq_checkpoint *folder;
  gptvq_packed_layer *layer;
  gptvq_error error = {0};
  found_layer f;
  o.force = 1;
  ok(gptvq_quantize("llama", "arrays", &o, NULL, NULL, err));
  ok(gptvq_checkpoint_open("arrays", NULL, &folder, err));
  find_layer(folder, name, &f);
  const size_t count = f.count;
  const gptvq_array last = f.arrays[count - 1];
  const char *text = f.description;
  refused(&f, text, count - 1, GPTVQ_ERROR_FORMAT, "is missing");
  refused(&f, "[1]", count, GPTVQ_ERROR_FORMAT, "not a JSON object");
  refused(&f, "{\"version\": 1", count, GPTVQ_ERROR_FORMAT, "not a JSON object");
  refused(&f, "{\"version\": 77}", count, GPTVQ_ERROR_UNSUPPORTED, "version 77");
  f.arrays[count] = last;
  refused(&f, text, count + 1, GPTVQ_ERROR_ARGUMENT, "twice");
  f.arrays[count].name = "indexes";
  refused(&f, text, count + 1, GPTVQ_ERROR_FORMAT, "does not call for");
  f.arrays[count].name = "codebooks"; /* of another format */
  refused(&f, text, count + 1, GPTVQ_ERROR_FORMAT, "contradicts");
  f.arrays[count - 1].type = "F8_E5M2";
  refused(&f, text, count, GPTVQ_ERROR_ARGUMENT, "F8_E5M2");
  f.arrays[count - 1].type = "F32";
  refused(&f, text, count, GPTVQ_ERROR_FORMAT, "is F32");
  f.arrays[count - 1] = last;
  f.arrays[count - 1].dims[0]++;
  refused(&f, text, count, GPTVQ_ERROR_FORMAT, "has shape");
  f.arrays[count - 1].dims[0] = SIZE_MAX;
  f.arrays[count - 1].dims[1] = 3;
  f.arrays[count - 1].rank = 2;
  refused(&f, text, count, GPTVQ_ERROR_ARGUMENT, "too large");
  f.arrays[count - 1].rank = 5;
  refused(&f, text, count, GPTVQ_ERROR_ARGUMENT, "5 dimensions");
  f.arrays[count - 1] = last;
  f.arrays[count - 1].data = NULL;
  refused(&f, text, count, GPTVQ_ERROR_ARGUMENT, "data");
  f.arrays[count - 1] = last;
  f.arrays[count - 1].size = 1;
  refused(&f, text, count, GPTVQ_ERROR_ARGUMENT, "size");
  f.arrays[count - 1] = last;
  refused(&f, text, 1000, GPTVQ_ERROR_ARGUMENT, "1000 arrays");
  assert_int_equal(gptvq_packed_layer_open(name, NULL, 0, f.arrays, count, &layer, &error),
                   GPTVQ_ERROR_ARGUMENT);
  ok(gptvq_packed_layer_open(name, text, strlen(text), f.arrays, count, &layer, err));
  gptvq_packed_layer_destroy(layer);
  gptvq_checkpoint_close(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(arrays_of_a_folder_are_its_layers),
                                     cmocka_unit_test(arrays_that_are_none),
                                     cmocka_unit_test(a_layer_takes_its_bits),
                                     cmocka_unit_test(figures_are_those_of_the_decoded_weights),
                                     cmocka_unit_test(packs_what_quantize_packs),
                                     cmocka_unit_test(nonsense_is_refused)};
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
