/* checkpoint: safetensors files and model folders; files that are wrong in every way we could think of. */
#include "base/half.h"
#include "checkpoint/safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[64];

static int make_folder(void **state) {
  (void)state;
  (void)snprintf(folder, sizeof folder, "gptvq-test-XXXXXX");
  return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state) {
  (void)state;
  gptvq_error err;
  return gptvq_remove_tree(folder, &err) != GPTVQ_OK;
}

/* FOLDER/NAME with these bytes (no fsync: the sweeps write thousands) */
static const char *put(const char *name, const void *data, size_t size) {
  static char path[128];
  (void)snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
  return path;
}

static void drop(const char *name) {
  char path[128];
  (void)snprintf(path, sizeof path, "%s/%s", folder, name);
  (void)unlink(path);
}

/* A safetensors file of this header and `data_size` zeros. */
static const char *put_tensors(const char *name, const char *header, size_t data_size) {
  static uint8_t bytes[8192];
  size_t length = strlen(header);
  assert_true(8 + length + data_size <= sizeof bytes);
  memset(bytes, 0, sizeof bytes);
  bytes[0] = (uint8_t)length;
  bytes[1] = (uint8_t)(length >> 8);
  memcpy(bytes + 8, header, length);
  return put(name, bytes, 8 + length + data_size);
}

static const gptvq_tensor *find(const gptvq_st_file *file, const char *name) {
  for (size_t i = 0; i < file->count; i++)
    if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
  fail_msg("tensor %s is not there", name);
  return NULL;
}

static double element(const gptvq_tensor *tensor, size_t i) {
  const uint8_t *at = tensor->data + i * gptvq_tensor_type_size(tensor->type);
  uint16_t u16;
  float f32;
  double f64;
  int16_t i16;
  int32_t i32;
  uint32_t u32;
  int64_t i64;
  switch (tensor->type) {
  case GPTVQ_T_F32: return memcpy(&f32, at, 4), (double)f32;
  case GPTVQ_T_F64: return memcpy(&f64, at, 8), f64;
  case GPTVQ_T_F16: return memcpy(&u16, at, 2), (double)gptvq_fp16_to_float(u16);
  case GPTVQ_T_BF16: return memcpy(&u16, at, 2), (double)gptvq_bf16_to_float(u16);
  case GPTVQ_T_I8: return (int8_t)*at;
  case GPTVQ_T_U8:
  case GPTVQ_T_BOOL: return *at;
  case GPTVQ_T_I16: return memcpy(&i16, at, 2), (double)i16;
  case GPTVQ_T_U16: return memcpy(&u16, at, 2), (double)u16;
  case GPTVQ_T_I32: return memcpy(&i32, at, 4), (double)i32;
  case GPTVQ_T_U32: return memcpy(&u32, at, 4), (double)u32;
  case GPTVQ_T_I64:
  case GPTVQ_T_U64: return memcpy(&i64, at, 8), (double)i64;
  case GPTVQ_T_F8:
  case GPTVQ_T_OTHER: break;
  }
  fail_msg("%s has no readable type", tensor->name);
  return 0;
}

/* Written by the safetensors package (tests/golden/checkpoint/make_safetensors.py). */
static void golden_file(void **state) {
  (void)state;
  static const struct {
    const char *name;
    gptvq_tensor_type type;
    size_t rank, dims[3];
    double step, first;
  } expected[] = {
      {"t.I8", GPTVQ_T_I8, 2, {3, 4}, 3, -4},     {"t.I16", GPTVQ_T_I16, 2, {3, 4}, 3, -4},
      {"t.I32", GPTVQ_T_I32, 2, {3, 4}, 3, -4},   {"t.I64", GPTVQ_T_I64, 2, {3, 4}, 3, -4},
      {"t.U8", GPTVQ_T_U8, 3, {2, 1, 6}, 3, 0},   {"t.U16", GPTVQ_T_U16, 3, {2, 1, 6}, 3, 0},
      {"t.U32", GPTVQ_T_U32, 3, {2, 1, 6}, 3, 0}, {"t.U64", GPTVQ_T_U64, 3, {2, 1, 6}, 3, 0},
      {"t.F16", GPTVQ_T_F16, 1, {12}, 0.5, -1},   {"t.BF16", GPTVQ_T_BF16, 1, {12}, 0.5, -1},
      {"t.F32", GPTVQ_T_F32, 1, {12}, 0.5, -1},   {"t.F64", GPTVQ_T_F64, 1, {12}, 0.5, -1},
  };
  gptvq_error err;
  gptvq_st_file file;
  if (gptvq_st_open(TEST_SOURCE_DIR "/tests/golden/checkpoint/types.safetensors", &file, &err) != GPTVQ_OK)
    fail_msg("%s", err.message);
  assert_int_equal(file.count, 17);
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
    const gptvq_tensor *tensor = find(&file, expected[i].name);
    assert_int_equal(tensor->type, expected[i].type);
    assert_string_equal(gptvq_tensor_type_name(tensor->type), expected[i].name + 2);
    assert_int_equal(tensor->rank, expected[i].rank);
    assert_memory_equal(tensor->dims, expected[i].dims, tensor->rank * sizeof tensor->dims[0]);
    assert_int_equal(tensor->count, 12);
    for (size_t j = 0; j < 12; j++)
      assert_true(element(tensor, j) == expected[i].first + expected[i].step * (double)j);
  }
  for (size_t j = 0; j < 12; j++) assert_true(element(find(&file, "t.BOOL"), j) == (double)(j % 2));
  assert_int_equal(find(&file, "empty")->bytes, 0);
  assert_int_equal(find(&file, "empty")->rank, 2);
  assert_int_equal(find(&file, "scalar")->rank, 0);
  assert_true(element(find(&file, "scalar"), 0) == 2.5);
  assert_true(element(find(&file, "name with \"quotes\", ü and \t tab"), 0) == 1.0);
  assert_int_equal(find(&file, "t.F8_E4M3")->type, GPTVQ_T_F8);
  assert_int_equal(find(&file, "t.F8_E4M3")->bytes, 12);
  assert_string_equal(json_string_value(json_object_get(file.metadata, "note")), "golden");
  gptvq_st_close(&file);
}

#define ENTRY(dtype, shape, begin, end) \
  "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void wrong_headers_are_refused(void **state) {
  (void)state;
  static const struct {
    const char *header;
    size_t data_size;
    gptvq_status status;
    const char *words[3];
  } cases[] = {
      /* the good ones: what is refused below is not refused for another reason */
      {"{\"a\":" ENTRY("F32", "[2,3]", "0", "24") "}", 24, GPTVQ_OK, {NULL}},
      {"{\"a\":" ENTRY("F16", "[3]", "4", "10") ",\"b\":" ENTRY("U8", "[2,2]", "0", "4") "}   ",
       10,
       GPTVQ_OK,
       {NULL}},
      {"{\"e\":" ENTRY("F32", "[0]", "4", "4") ",\"a\":" ENTRY("F32", "[]", "0", "4") ",\"f\":" ENTRY(
           "I8", "[7,0]", "0", "0") "}",
       4,
       GPTVQ_OK,
       {NULL}},
      {"{}", 0, GPTVQ_OK, {NULL}},
      {"{\"__metadata__\":{\"k\":\"v\"}}", 0, GPTVQ_OK, {NULL}},
      {"{\"a\":" ENTRY("F4", "[2,2]", "0", "2") "}", 2, GPTVQ_OK, {NULL}},
      /* sizes */
      {"{\"a\":" ENTRY("F32", "[2,3]", "0", "20") "}", 20, GPTVQ_ERROR_FORMAT, {"tensor a", "24", "20"}},
      {"{\"a\":" ENTRY("F32", "[2,3]", "0", "24") "}", 23, GPTVQ_ERROR_FORMAT, {"truncated", "24", "23"}},
      {"{\"a\":" ENTRY("F32", "[2,3]", "0", "24") "}",
       25,
       GPTVQ_ERROR_FORMAT,
       {"end at byte 24", "25 bytes"}},
      {"{}", 1, GPTVQ_ERROR_FORMAT, {"byte 0", "1 bytes"}},
      {"{\"a\":" ENTRY("F32", "[4294967296,4294967296]", "0", "0") "}",
       0,
       GPTVQ_ERROR_FORMAT,
       {"tensor a", "overflows"}},
      {"{\"a\":" ENTRY("F32", "[4294967296,4294967296,0]", "0", "0") "}",
       0,
       GPTVQ_ERROR_FORMAT,
       {"overflows"}},
      {"{\"a\":" ENTRY("F64", "[4611686018427387904]", "0", "0") "}", 0, GPTVQ_ERROR_FORMAT, {"overflows"}},
      {"{\"a\":" ENTRY("F32", "[99999999999999999999]", "0", "0") "}",
       0,
       GPTVQ_ERROR_FORMAT,
       {"not valid JSON"}},
      {"{\"a\":" ENTRY("F32", "[-1]", "0", "0") "}", 0, GPTVQ_ERROR_FORMAT, {"tensor a", "dimension 0"}},
      {"{\"a\":" ENTRY("F32", "[1.0]", "0", "4") "}", 4, GPTVQ_ERROR_FORMAT, {"tensor a", "dimension 0"}},
      {"{\"a\":" ENTRY("U8", "[1,1,1,1,1,1,1,1,1]", "0", "1") "}",
       1,
       GPTVQ_ERROR_FORMAT,
       {"tensor a", "9 dim"}},
      {"{\"a\":" ENTRY("F4", "[3]", "0", "1") "}", 1, GPTVQ_ERROR_FORMAT, {"tensor a", "12 bits"}},
      /* offsets */
      {"{\"a\":" ENTRY("U8", "[4]", "8", "4") "}", 8, GPTVQ_ERROR_FORMAT, {"tensor a", "8", "4"}},
      {"{\"a\":" ENTRY("U8", "[4]", "-4", "0") "}", 8, GPTVQ_ERROR_FORMAT, {"tensor a", "data_offsets"}},
      {"{\"a\":" ENTRY("U8", "[4]", "9223372036854775803", "9223372036854775807") "}",
       8,
       GPTVQ_ERROR_FORMAT,
       {"tensor a", "truncated"}},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}",
       1,
       GPTVQ_ERROR_FORMAT,
       {"tensor a", "pair"}},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":\"0,1\"}}",
       1,
       GPTVQ_ERROR_FORMAT,
       {"tensor a", "pair"}},
      {"{\"a\":" ENTRY("U8", "[4]", "0", "4") ",\"b\":" ENTRY("U8", "[4]", "3", "7") "}",
       7,
       GPTVQ_ERROR_FORMAT,
       {"tensor b", "3", "inside tensor a that ends at 4"}},
      {"{\"a\":" ENTRY("U8", "[4]", "0", "4") ",\"b\":" ENTRY("U8", "[4]", "0", "4") "}",
       4,
       GPTVQ_ERROR_FORMAT,
       {"tensor b", "inside tensor a"}},
      {"{\"a\":" ENTRY("U8", "[4]", "0", "4") ",\"b\":" ENTRY("U8", "[4]", "5", "9") "}",
       9,
       GPTVQ_ERROR_FORMAT,
       {"tensor b", "byte 5", "end at 4"}},
      {"{\"a\":" ENTRY("U8", "[4]", "1", "5") "}", 5, GPTVQ_ERROR_FORMAT, {"tensor a", "byte 1"}},
      {"{\"a\":" ENTRY("U8", "[4]", "0", "4") ",\"z\":" ENTRY("U8", "[0]", "2", "2") "}",
       4,
       GPTVQ_ERROR_FORMAT,
       {"tensor z", "inside tensor a"}},
      /* structure */
      {"{\"a\":" ENTRY("F33", "[4]", "0", "4") "}", 4, GPTVQ_ERROR_UNSUPPORTED, {"tensor a", "F33"}},
      {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, GPTVQ_ERROR_FORMAT, {"tensor a", "dtype"}},
      {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, GPTVQ_ERROR_FORMAT, {"tensor a", "shape"}},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, GPTVQ_ERROR_FORMAT, {"tensor a", "data_offsets"}},
      {"{\"a\":[]}", 0, GPTVQ_ERROR_FORMAT, {"tensor a", "not an object"}},
      {"{\"a\":null}", 0, GPTVQ_ERROR_FORMAT, {"tensor a", "not an object"}},
      {"{\"a\":" ENTRY("U8", "[1]", "0", "1") ",\"a\":" ENTRY("U8", "[1]", "0", "1") "}",
       1,
       GPTVQ_ERROR_FORMAT,
       {"duplicate"}},
      {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
       1,
       GPTVQ_ERROR_FORMAT,
       {"duplicate"}},
      {"{\"__metadata__\":3}", 0, GPTVQ_ERROR_FORMAT, {"__metadata__"}},
      {"{\"__metadata__\":{\"k\":3}}", 0, GPTVQ_ERROR_FORMAT, {"__metadata__", "k"}},
      {"{\"a\":" ENTRY("U8", "[1]", "0", "1"), 1, GPTVQ_ERROR_FORMAT, {"not valid JSON"}},
      {"{} x", 0, GPTVQ_ERROR_FORMAT, {"not valid JSON"}},
      {"[]", 0, GPTVQ_ERROR_FORMAT, {"not a JSON object"}},
      {" {}", 0, GPTVQ_ERROR_FORMAT, {"not a JSON object"}},
      {"{\"\xff\":1}", 0, GPTVQ_ERROR_FORMAT, {"not valid JSON"}},
      {"{\"a\\u0000b\":" ENTRY("U8", "[1]", "0", "1") "}", 1, GPTVQ_ERROR_FORMAT, {"not valid JSON"}},
      {"", 0, GPTVQ_ERROR_FORMAT, {"not a JSON object"}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    gptvq_error err = {GPTVQ_OK, ""};
    gptvq_st_file file;
    const char *path = put_tensors("case.safetensors", cases[i].header, cases[i].data_size);
    gptvq_status status = gptvq_st_open(path, &file, &err);
    if (status != cases[i].status) fail_msg("case %zu: %s: %s", i, gptvq_status_name(status), err.message);
    if (status == GPTVQ_OK) {
      gptvq_st_close(&file);
      continue;
    }
    assert_int_equal(err.status, status);
    if (strstr(err.message, path) == NULL) fail_msg("case %zu does not name the file: %s", i, err.message);
    for (size_t w = 0; w < 3 && cases[i].words[w] != NULL; w++)
      if (strstr(err.message, cases[i].words[w]) == NULL)
        fail_msg("case %zu: \"%s\" is not in: %s", i, cases[i].words[w], err.message);
  }
}

static void wrong_sizes_of_the_header_are_refused(void **state) {
  (void)state;
  gptvq_error err;
  gptvq_st_file file;
  uint8_t bytes[16] = {0};
  assert_int_equal(gptvq_st_open(put("x", bytes, 0), &file, &err), GPTVQ_ERROR_FORMAT);
  assert_int_equal(gptvq_st_open(put("x", bytes, 7), &file, &err), GPTVQ_ERROR_FORMAT);
  assert_int_equal(gptvq_st_open(put("x", bytes, 8), &file, &err),
                   GPTVQ_ERROR_FORMAT); /* a header of 0 bytes */
  memcpy(bytes, "\x08\0\0\0\0\0\0\0{}      ", 16);
  assert_int_equal(gptvq_st_open(put("x", bytes, 16), &file, &err), GPTVQ_OK);
  gptvq_st_close(&file);
  assert_int_equal(gptvq_st_open(put("x", bytes, 15), &file, &err), GPTVQ_ERROR_FORMAT);
  assert_non_null(strstr(err.message, "header has 8 bytes, 7 are there"));
  memset(bytes, 0xff, 8);
  assert_int_equal(gptvq_st_open(put("x", bytes, 16), &file, &err), GPTVQ_ERROR_FORMAT);
  assert_non_null(strstr(err.message, "18446744073709551615"));
  assert_int_equal(gptvq_st_open("no/such/file.safetensors", &file, &err), GPTVQ_ERROR_IO);
  assert_non_null(strstr(err.message, "no/such/file.safetensors"));
  assert_int_equal(gptvq_st_open(folder, &file, &err), GPTVQ_ERROR_IO);
}

/* Opens; whatever is accepted must lie inside the file: its bytes are read. Refusals are one line that names
 * the file. */
static uint64_t probe(const char *path) {
  gptvq_error err = {GPTVQ_OK, ""};
  gptvq_st_file file;
  uint64_t sum = 0;
  gptvq_status status = gptvq_st_open(path, &file, &err);
  if (status == GPTVQ_OK) {
    for (size_t i = 0; i < file.count; i++) {
      assert_true(file.tensors[i].data + file.tensors[i].bytes <= file.mapping.data + file.mapping.size);
      for (size_t j = 0; j < file.tensors[i].bytes; j++) sum += file.tensors[i].data[j];
      (void)gptvq_tensor_check_finite(&file.tensors[i], &err);
    }
    gptvq_st_close(&file);
    return sum;
  }
  assert_true(status == GPTVQ_ERROR_FORMAT || status == GPTVQ_ERROR_UNSUPPORTED);
  assert_non_null(strstr(err.message, path));
  assert_null(strchr(err.message, '\n'));
  return UINT64_MAX;
}

static void damaged_files_never_crash(void **state) {
  (void)state;
  static uint8_t good[512];
  const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},\"model.w\":" ENTRY(
      "BF16", "[3,5]", "0", "30") ",\"model.b\":" ENTRY("F32", "[2]", "30",
                                                        "38") ",\"e\":" ENTRY("I64", "[0]", "38", "38") "}";
  size_t length = sizeof header - 1, size = 8 + length + 38, accepted = 0;
  assert_true(size <= sizeof good && length < 256);
  good[0] = (uint8_t)length;
  memcpy(good + 8, header, length);
  for (size_t i = 0; i < 38; i++) good[8 + length + i] = (uint8_t)(i + 1);
  assert_int_equal(probe(put("whole", good, size)), 38 * 39 / 2);
  /* the file is changed in place: thousands of new files would be slow */
  const char *path = put("cut", good, size);
  int file = open(path, O_WRONLY);
  assert_true(file >= 0);
  static const uint8_t values[] = {0, 0xff, '"', '}', ']', ',', '9', '-', ' ', '\\'};
  for (size_t at = 0; at < 8 + length; at++)
    for (size_t v = 0; v < 8 + sizeof values; v++) {
      uint8_t bad = (uint8_t)(v < 8 ? good[at] ^ (1u << v) : values[v - 8]);
      if (bad == good[at]) continue;
      assert_int_equal(pwrite(file, &bad, 1, (off_t)at), 1);
      if (probe(path) != UINT64_MAX) accepted++;
      assert_int_equal(pwrite(file, good + at, 1, (off_t)at), 1);
    }
  /* letters of names and of the metadata may change, little else */
  assert_true(accepted > 0 && accepted < 600);
  for (size_t n = size; n-- > 0;) {
    assert_int_equal(ftruncate(file, (off_t)n), 0);
    assert_int_equal(probe(path), UINT64_MAX);
  }
  assert_int_equal(close(file), 0);
}

/* ---- folders ---- */

static const char one_tensor[] = "{\"a\":" ENTRY("F32", "[2]", "0", "8") "}";
static const char other_tensor[] =
    "{\"b\":" ENTRY("BF16", "[2,2]", "0", "8") ",\"c\":" ENTRY("U8", "[1]", "8", "9") "}";

static void expect_open(gptvq_status status, const char *words) {
  gptvq_error err = {GPTVQ_OK, ""};
  gptvq_checkpoint *checkpoint;
  gptvq_status got = gptvq_checkpoint_open(folder, NULL, &checkpoint, &err);
  gptvq_checkpoint_close(checkpoint);
  if (got != status || strstr(err.message, words) == NULL)
    fail_msg("expected %s with \"%s\", got %s: %s", gptvq_status_name(status), words, gptvq_status_name(got),
             err.message);
}

static void put_text(const char *name, const char *text) { (void)put(name, text, strlen(text)); }

static void folders_without_a_model(void **state) {
  (void)state;
  expect_open(GPTVQ_ERROR_IO, "holds no config.json");
  put_text("config.json", "{\"architectures\": [");
  expect_open(GPTVQ_ERROR_FORMAT, "config.json is not valid JSON: line 1");
  put_text("config.json", "[]");
  expect_open(GPTVQ_ERROR_FORMAT, "config.json does not hold a JSON object");
  put_text("config.json", "{}");
  expect_open(GPTVQ_ERROR_IO, "holds neither model.safetensors nor model.safetensors.index.json");
  put_text("pytorch_model.bin", "x");
  expect_open(GPTVQ_ERROR_IO, "it holds pytorch_model.bin: these weights are not supported");
  put_text("config.json", "{\"quantization_config\": {\"quant_method\": \"awq\"}}");
  expect_open(GPTVQ_ERROR_UNSUPPORTED, "\"awq\"");
  put_text("config.json", "{\"quantization_config\": {\"quant_method\": \"gptvq\", \"version\": 4}}");
  expect_open(GPTVQ_ERROR_UNSUPPORTED, "version 4");
  put_text("config.json", "{\"quantization_config\": {\"quant_method\": \"gptvq\"}}");
  expect_open(GPTVQ_ERROR_FORMAT, "version is missing");
  gptvq_checkpoint *checkpoint;
  gptvq_error err;
  assert_int_equal(gptvq_checkpoint_open("no/such/model", NULL, &checkpoint, &err), GPTVQ_ERROR_IO);
  assert_non_null(strstr(err.message, "no/such/model"));
  char path[128];
  (void)snprintf(path, sizeof path, "%s/config.json", folder);
  assert_int_equal(gptvq_checkpoint_open(path, NULL, &checkpoint, &err), GPTVQ_ERROR_IO);
  assert_non_null(strstr(err.message, "neither a folder nor a GGUF file"));
}

static void keep_warning(void *user, gptvq_log_level level, const char *line) {
  assert_int_equal(level, GPTVQ_LOG_WARNING);
  (void)snprintf(user, 512, "%s", line);
}

static void single_file_folder(void **state) {
  (void)state;
  put_text("config.json", "{\"x\": 1, \"quantization_config\": null}");
  put_text("generation_config.json", "{\"y\": 2}");
  (void)put_tensors("model.safetensors", other_tensor, 9);
  put_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": \"gone.safetensors\"}}"); /* stale */
  gptvq_error err;
  gptvq_checkpoint *checkpoint;
  char warning[512] = "";
  const gptvq_callbacks callbacks = {.size = sizeof callbacks, .user = warning, .log = keep_warning};
  assert_int_equal(gptvq_checkpoint_open(folder, &callbacks, &checkpoint, &err), GPTVQ_OK);
  assert_non_null(strstr(warning, "gone.safetensors"));
  assert_string_equal(gptvq_checkpoint_folder(checkpoint), folder);
  assert_int_equal(json_integer_value(json_object_get(gptvq_checkpoint_config(checkpoint), "x")), 1);
  assert_int_equal(json_integer_value(json_object_get(gptvq_checkpoint_generation_config(checkpoint), "y")),
                   2);
  assert_int_equal(gptvq_checkpoint_tensor_count(checkpoint), 2);
  const gptvq_tensor *tensor;
  gptvq_dtype dtype;
  const size_t square[2] = {2, 2}, wide[2] = {1, 4}, one = 1;
  assert_int_equal(gptvq_checkpoint_get(checkpoint, "b", 2, square, &tensor, &dtype, &err), GPTVQ_OK);
  assert_int_equal(dtype, GPTVQ_BF16);
  assert_ptr_equal(tensor, gptvq_checkpoint_find(checkpoint, "b"));
  assert_int_equal(gptvq_checkpoint_get(checkpoint, "b", 2, wide, &tensor, &dtype, &err), GPTVQ_ERROR_FORMAT);
  assert_non_null(strstr(err.message, "tensor b has shape 2 x 2, config.json implies 1 x 4"));
  assert_int_equal(gptvq_checkpoint_get(checkpoint, "b", 1, square, &tensor, &dtype, &err),
                   GPTVQ_ERROR_FORMAT);
  assert_int_equal(gptvq_checkpoint_get(checkpoint, "c", 1, &one, &tensor, &dtype, &err),
                   GPTVQ_ERROR_UNSUPPORTED);
  assert_non_null(strstr(err.message, "tensor c is U8"));
  assert_int_equal(gptvq_checkpoint_get(checkpoint, "d", 1, &one, &tensor, &dtype, &err), GPTVQ_ERROR_FORMAT);
  assert_non_null(strstr(err.message, "tensor d is missing"));
  assert_null(gptvq_checkpoint_find(checkpoint, "bb"));
  gptvq_checkpoint_close(checkpoint);
  gptvq_checkpoint_close(NULL);
}

static void sharded_folder(void **state) {
  (void)state;
  put_text("config.json", "{}");
  (void)put_tensors("one.safetensors", one_tensor, 8);
  (void)put_tensors("two.safetensors", other_tensor, 9);
  static const char *const shards[] = {"two.safetensors", "one.safetensors"};
  gptvq_error err;
  assert_int_equal(gptvq_write_index(folder, shards, 2, &err), GPTVQ_OK);
  gptvq_checkpoint *checkpoint;
  if (gptvq_checkpoint_open(folder, NULL, &checkpoint, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  assert_int_equal(gptvq_checkpoint_tensor_count(checkpoint), 3);
  for (size_t i = 0; i < 3; i++) {
    const char name[2] = {(char)('a' + i), '\0'};
    assert_string_equal(gptvq_checkpoint_tensor_at(checkpoint, i)->name, name);
    assert_non_null(strstr(gptvq_checkpoint_find(checkpoint, name)->file, i == 0 ? "one" : "two"));
  }
  gptvq_checkpoint_close(checkpoint);

  static const struct {
    const char *index;
    gptvq_status status;
    const char *words;
  } cases[] = {
      {"{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\", \"c\": "
       "\"two.safetensors\"}}",
       GPTVQ_OK, ""},
      {"{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}}", GPTVQ_ERROR_FORMAT,
       "tensor c is not listed"},
      {"{\"weight_map\": {\"a\": \"one.safetensors\", \"d\": \"one.safetensors\"}}", GPTVQ_ERROR_FORMAT,
       "tensor d is missing"},
      {"{\"weight_map\": {\"a\": \"two.safetensors\", \"b\": \"two.safetensors\", \"c\": "
       "\"one.safetensors\"}}",
       GPTVQ_ERROR_FORMAT, "is listed in"},
      {"{\"weight_map\": {\"a\": \"three.safetensors\"}}", GPTVQ_ERROR_IO, "three.safetensors"},
      {"{\"weight_map\": {\"a\": \"../one.safetensors\"}}", GPTVQ_ERROR_FORMAT, "plain file name"},
      {"{\"weight_map\": {\"a\": \"..\"}}", GPTVQ_ERROR_FORMAT, "plain file name"},
      {"{\"weight_map\": {\"a\": \"\"}}", GPTVQ_ERROR_FORMAT, "plain file name"},
      {"{\"weight_map\": {\"a\": \"/dev/zero\"}}", GPTVQ_ERROR_FORMAT, "plain file name"},
      {"{\"weight_map\": {\"a\": 1}}", GPTVQ_ERROR_FORMAT, "not text"},
      {"{\"weight_map\": {}}", GPTVQ_ERROR_FORMAT, "0 shards"},
      {"{\"weight_map\": []}", GPTVQ_ERROR_FORMAT, "weight_map"},
      {"{}", GPTVQ_ERROR_FORMAT, "weight_map"},
      {"{\"weight_map\": {\"a\": \"one.safetensors\", \"a\": \"one.safetensors\"}}", GPTVQ_ERROR_FORMAT,
       "duplicate"},
      {"{\"weight_map\": {\"a\": \"one.safetensors\", \"__metadata__\": \"one.safetensors\"}}",
       GPTVQ_ERROR_FORMAT, "__metadata__ is missing"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    put_text("model.safetensors.index.json", cases[i].index);
    expect_open(cases[i].status, cases[i].words);
  }
  /* the same tensor in two shards */
  (void)put_tensors("two.safetensors", one_tensor, 8);
  put_text("model.safetensors.index.json",
           "{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}}");
  expect_open(GPTVQ_ERROR_FORMAT, "tensor a is listed");
  assert_int_equal(gptvq_write_index(folder, shards, 2, &err), GPTVQ_ERROR_FORMAT);
  assert_non_null(strstr(err.message, "tensor a is in two.safetensors too"));
  drop("model.safetensors.index.json");
}

static void numbers_that_are_not_finite(void **state) {
  (void)state;
  enum { N = 10000 };
  static uint8_t memory[4 * N + 1];
  static const struct {
    gptvq_tensor_type type;
    size_t size;
    uint32_t fine, bad[2];
  } cases[] = {
      {GPTVQ_T_F32, 4, 0x7f7fffffu, {0x7f800000u, 0xffc00001u}},
      {GPTVQ_T_F16, 2, 0x7bffu, {0xfc00u, 0x7e00u}},
      {GPTVQ_T_BF16, 2, 0xff7fu, {0x7f80u, 0x7f81u}},
  };
  static const size_t places[] = {0, 1, 4095, 4096, N - 1};
  for (size_t c = 0; c < 3; c++)
    for (size_t p = 0; p < sizeof places / sizeof places[0]; p++)
      for (size_t b = 0; b < 2; b++) {
        gptvq_error err;
        gptvq_tensor tensor = {.name = "model.w",
                               .file = "model.safetensors",
                               .type = cases[c].type,
                               .rank = 1,
                               .dims = {N},
                               .count = N,
                               .bytes = N * cases[c].size,
                               .data = memory + 1};
        for (size_t i = 0; i < N; i++) memcpy(memory + 1 + i * cases[c].size, &cases[c].fine, cases[c].size);
        assert_int_equal(gptvq_tensor_check_finite(&tensor, &err), GPTVQ_OK);
        memcpy(memory + 1 + places[p] * cases[c].size, &cases[c].bad[b], cases[c].size);
        if (places[p] + 1 < N) memcpy(memory + 1 + (N - 1) * cases[c].size, &cases[c].bad[1], cases[c].size);
        assert_int_equal(gptvq_tensor_check_finite(&tensor, &err), GPTVQ_ERROR_NUMERIC);
        char words[64];
        (void)snprintf(words, sizeof words, "tensor model.w holds NaN or infinity at element %zu of",
                       places[p]);
        if (strstr(err.message, words) == NULL) fail_msg("\"%s\" is not in: %s", words, err.message);
        assert_non_null(strstr(err.message, "model.safetensors"));
      }
}

/* ---- writing ---- */

static void files_are_written_as_declared(void **state) {
  (void)state;
  gptvq_error err;
  gptvq_st_writer *writer;
  char path[128];
  (void)snprintf(path, sizeof path, "%s/out.safetensors", folder);
  const size_t dims[2] = {2, 3}, none[2] = {0, 9};
  float values[6] = {1, 2, 3, 4, 5, 6};
  assert_int_equal(gptvq_st_writer_create(path, &writer, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_declare(writer, "odd", GPTVQ_T_U8, 1, dims + 1, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_declare(writer, "w \"ü\"", GPTVQ_T_F32, 2, dims, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_declare(writer, "none", GPTVQ_T_I64, 2, none, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_declare(writer, "scalar", GPTVQ_T_F32, 0, NULL, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_metadata(writer, "key", "{\"a\": 1}", &err), GPTVQ_OK);
  /* what a writer must not do */
  assert_int_equal(gptvq_st_writer_declare(writer, "odd", GPTVQ_T_U8, 1, dims, &err), GPTVQ_ERROR_INTERNAL);
  assert_int_equal(gptvq_st_writer_declare(writer, "__metadata__", GPTVQ_T_U8, 1, dims, &err),
                   GPTVQ_ERROR_INTERNAL);
  assert_int_equal(gptvq_st_writer_declare(writer, "x", GPTVQ_T_OTHER, 1, dims, &err), GPTVQ_ERROR_INTERNAL);
  const size_t vast[2] = {SIZE_MAX / 4, 5};
  assert_int_equal(gptvq_st_writer_declare(writer, "x", GPTVQ_T_F32, 2, vast, &err), GPTVQ_ERROR_INTERNAL);
  assert_int_equal(gptvq_st_writer_declare(writer, "\xff", GPTVQ_T_U8, 1, dims, &err), GPTVQ_ERROR_INTERNAL);
  assert_int_equal(gptvq_st_writer_write(writer, "xyz", 3, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_declare(writer, "late", GPTVQ_T_U8, 1, dims, &err), GPTVQ_ERROR_INTERNAL);
  assert_int_equal(gptvq_st_writer_write(writer, values, 20, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_write(writer, values + 5, 4, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_write(writer, values, 5, &err), GPTVQ_ERROR_INTERNAL); /* 4 are left */
  assert_int_equal(gptvq_st_writer_write(writer, values, 4, &err), GPTVQ_OK);
  assert_false(gptvq_path_exists(path));
  assert_int_equal(gptvq_st_writer_commit(writer, &err), GPTVQ_OK);

  gptvq_st_file file;
  if (gptvq_st_open(path, &file, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  assert_int_equal(file.count, 4);
  assert_int_equal((size_t)(find(&file, "odd")->data - file.mapping.data) % 64, 0);
  assert_memory_equal(find(&file, "odd")->data, "xyz", 3);
  assert_memory_equal(find(&file, "w \"ü\"")->data, values, sizeof values);
  assert_int_equal(find(&file, "w \"ü\"")->dims[1], 3);
  assert_int_equal(find(&file, "none")->bytes, 0);
  assert_true(element(find(&file, "scalar"), 0) == 1.0);
  assert_string_equal(json_string_value(json_object_get(file.metadata, "format")), "pt");
  assert_string_equal(json_string_value(json_object_get(file.metadata, "key")), "{\"a\": 1}");
  gptvq_st_close(&file);
}

static void unfinished_files_do_not_appear(void **state) {
  (void)state;
  gptvq_error err;
  gptvq_st_writer *writer;
  char path[128];
  const size_t three = 3;
  (void)snprintf(path, sizeof path, "%s/short.safetensors", folder);
  assert_int_equal(gptvq_st_writer_create(path, &writer, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_declare(writer, "a", GPTVQ_T_U8, 1, &three, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_write(writer, "xy", 2, &err), GPTVQ_OK);
  assert_int_equal(gptvq_st_writer_commit(writer, &err), GPTVQ_ERROR_INTERNAL);
  assert_non_null(strstr(err.message, "2 bytes of the declared 3"));
  assert_false(gptvq_path_exists(path));
  assert_int_equal(gptvq_st_writer_create(path, &writer, &err), GPTVQ_OK);
  gptvq_st_writer_abort(writer);
  assert_false(gptvq_path_exists(path));
  assert_int_equal(gptvq_st_writer_create("no/such/folder/x.safetensors", &writer, &err), GPTVQ_ERROR_IO);
  /* nothing temporary is left either: the folder can be removed as an empty one */
  assert_int_equal(rmdir(folder), 0);
  assert_int_equal(gptvq_make_folder(folder, &err), GPTVQ_OK);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(golden_file),
      IN_FOLDER(wrong_headers_are_refused),
      IN_FOLDER(wrong_sizes_of_the_header_are_refused),
      IN_FOLDER(damaged_files_never_crash),
      IN_FOLDER(folders_without_a_model),
      IN_FOLDER(single_file_folder),
      IN_FOLDER(sharded_folder),
      cmocka_unit_test(numbers_that_are_not_finite),
      IN_FOLDER(files_are_written_as_declared),
      IN_FOLDER(unfinished_files_do_not_appear),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
