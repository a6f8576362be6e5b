/* Matrices of fp8 numbers with scales of their blocks, as a folder's tensors. */
#include "tiny_model.h"

#include <string.h>

enum { ROWS = 130, COLS = 260, DOWN = 2, ACROSS = 3 };

static int make_scratch(void **state) {
  (void)state;
  return tiny_enter_scratch();
}

/* What an e4m3 code stands for, by its definition. */
static double e4m3(unsigned code) {
  const int exponent = (int)(code >> 3 & 15u), mantissa = (int)(code & 7u);
  const double size = exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 10);
  return (code & 128u) != 0 ? -size : size;
}

static float scale_of(size_t block) { return 0.37f + 0.01f * (float)block; }

/* One matrix NAME of ROWS × COLS codes, with `rows` × `cols` scales of a type (rows 0: none). */
static void write_folder(const char *quantization, size_t rows, size_t cols, gptvq_tensor_type type,
                         bool nan) {
  static uint8_t codes[ROWS * COLS];
  char config[512];
  const size_t dims[2] = {ROWS, COLS}, scale_dims[2] = {rows, cols};
  gptvq_st_writer *writer;
  ok(gptvq_make_folder("fp8", err));
  (void)snprintf(config, sizeof config,
                 "{\"architectures\": [\"LlamaForCausalLM\"], \"quantization_config\": %s}", quantization);
  tiny_write_text("fp8", "config.json", config);
  ok(gptvq_st_writer_create("fp8/model.safetensors", &writer, err));
  ok(gptvq_st_writer_declare(writer, "layers.0.x.weight", GPTVQ_T_F8, 2, dims, err));
  if (rows > 0) ok(gptvq_st_writer_declare(writer, "layers.0.x.weight_scale_inv", type, 2, scale_dims, err));
  for (size_t i = 0; i < ROWS * COLS; i++) {
    codes[i] = (uint8_t)(i * 31 % 256);
    if ((codes[i] & 127u) == 127u && !nan) codes[i] = 0;
  }
  ok(gptvq_st_writer_write(writer, codes, sizeof codes, err));
  for (size_t i = 0; i < rows * cols; i++) {
    const float scale = scale_of(i);
    const uint16_t half = gptvq_float_to_bf16(scale);
    ok(gptvq_st_writer_write(writer, type == GPTVQ_T_F32 ? (const void *)&scale : &half,
                             type == GPTVQ_T_F32 ? sizeof scale : sizeof half, err));
  }
  ok(gptvq_st_writer_commit(writer, err));
}

static void check_values(size_t block_rows, size_t block_cols, bool half) {
  gptvq_checkpoint *checkpoint;
  ok(gptvq_checkpoint_open("fp8", NULL, &checkpoint, err));
  assert_int_equal(gptvq_checkpoint_tensor_count(checkpoint), 1); /* the scales are part of it */
  const gptvq_tensor *tensor = gptvq_checkpoint_find(checkpoint, "model.layers.0.x.weight");
  assert_non_null(tensor);
  assert_true(tensor->type == GPTVQ_T_BF16 && tensor->bytes == 2 * ROWS * COLS);
  assert_int_equal(tensor->file_bytes, gptvq_checkpoint_bytes(checkpoint));
  const size_t across = (COLS + block_cols - 1) / block_cols;
  for (size_t i = 0; i < ROWS * COLS; i++) {
    uint16_t bits;
    const unsigned byte = (unsigned)(i * 31 % 256), code = (byte & 127u) == 127u ? 0 : byte;
    float scale = scale_of(i / COLS / block_rows * across + i % COLS / block_cols);
    if (half) scale = gptvq_bf16_to_float(gptvq_float_to_bf16(scale));
    memcpy(&bits, tensor->data + 2 * i, sizeof bits);
    /* the product of 4 and 24 bits, rounded to fp32 and then to bf16, as torch does */
    assert_int_equal(bits, gptvq_float_to_bf16((float)(e4m3(code) * (double)scale)));
  }
  gptvq_checkpoint_close(checkpoint);
}

static void numbers_are_codes_times_scales(void **state) {
  (void)state;
  write_folder("{\"quant_method\": \"fp8\"}", DOWN, ACROSS, GPTVQ_T_F32, false);
  check_values(128, 128, false);
  write_folder("{\"quant_method\": \"fp8\", \"weight_block_size\": [64, 260]}", 3, 1, GPTVQ_T_BF16, false);
  check_values(64, 260, true);
}

static void expect_refused(gptvq_status status, const char *words) {
  gptvq_checkpoint *checkpoint;
  gptvq_error error = {GPTVQ_OK, ""};
  assert_int_equal(gptvq_checkpoint_open("fp8", NULL, &checkpoint, &error), status);
  if (strstr(error.message, words) == NULL) fail_msg("%s", error.message);
}

static void bad_scales_are_refused(void **state) {
  (void)state;
  static const char fp8[] = "{\"quant_method\": \"fp8\"}";
  write_folder(fp8, 0, 0, GPTVQ_T_F32, false);
  expect_refused(GPTVQ_ERROR_UNSUPPORTED, "model.layers.0.x.weight_scale_inv is missing");
  write_folder(fp8, ACROSS, DOWN, GPTVQ_T_F32, false);
  expect_refused(GPTVQ_ERROR_FORMAT, "is F32 of 3 x 2, but blocks of 128 x 128 of the matrix take 2 x 3");
  write_folder(fp8, DOWN, ACROSS, GPTVQ_T_U16, false);
  expect_refused(GPTVQ_ERROR_FORMAT, "is U16 of 2 x 3");
  write_folder("{\"quant_method\": \"fp8\", \"weight_block_size\": [128, 0]}", DOWN, ACROSS, GPTVQ_T_F32,
               false);
  expect_refused(GPTVQ_ERROR_FORMAT, "weight_block_size is not two positive numbers");
  write_folder("{\"quant_method\": \"fbgemm_fp8\"}", DOWN, ACROSS, GPTVQ_T_F32, false);
  expect_refused(GPTVQ_ERROR_UNSUPPORTED, "fbgemm_fp8");
  write_folder(fp8, DOWN, ACROSS, GPTVQ_T_F32, true);
  gptvq_checkpoint *checkpoint;
  gptvq_error error;
  ok(gptvq_checkpoint_open("fp8", NULL, &checkpoint, err));
  assert_int_equal(gptvq_tensor_check_finite(gptvq_checkpoint_tensor_at(checkpoint, 0), &error),
                   GPTVQ_ERROR_NUMERIC);
  gptvq_checkpoint_close(checkpoint);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(numbers_are_codes_times_scales),
                                     cmocka_unit_test(bad_scales_are_refused)};
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
