/* Numbers that go wrong, in the weights or on the way, end with GPTVQ_ERROR_NUMERIC, and whose they are is
 * said. */
#define _GNU_SOURCE /* memmem */
#include "tiny_model.h"

enum { TOKENS = 24 };

static int make_scratch(void **state) {
  (void)state;
  int failed = tiny_enter_scratch();
  if (!failed) tiny_write_corpus("corpus.txt", 4000);
  return failed;
}

static const int32_t *tokens(void) {
  static int32_t ids[TOKENS];
  for (int i = 0; i < TOKENS; i++) ids[i] = (i * 37 + 5) % TINY_VOCAB;
  return ids;
}

/* The folder through a session (fewer or more tokens, last or all logits) and through eval: all say the same.
 */
static gptvq_status run_folder(const char *folder, gptvq_compute compute, gptvq_error *failure) {
  static float logits[TOKENS * TINY_VOCAB];
  const gptvq_model_options options = {.size = sizeof options, .compute = compute, .head_bits = 16};
  gptvq_model *model;
  gptvq_status first = GPTVQ_OK;
  GPTVQ_TRY(gptvq_model_open(folder, &options, &model, failure));
  for (int variant = 0; variant < 3; variant++) {
    gptvq_session *session;
    gptvq_error error = {0};
    ok(gptvq_session_create(model, TOKENS, &session, err));
    gptvq_status status =
        gptvq_session_forward(session, tokens(), variant == 1 ? 2 : TOKENS, logits, variant == 0, &error);
    gptvq_session_destroy(session);
    if (variant == 0) first = status, *failure = error;
    assert_int_equal(status, first);
    assert_string_equal(error.message, failure->message);
    for (int i = 0; status == GPTVQ_OK && i < TINY_VOCAB; i++) assert_true(isfinite(logits[i]));
  }
  gptvq_tokenizer *tokenizer;
  gptvq_eval_options eval;
  gptvq_eval_result result = {.size = sizeof result};
  gptvq_error error = {0};
  char path[256], text[TOKENS + 1] = {0};
  (void)snprintf(path, sizeof path, "%s/tokenizer.json", folder);
  ok(gptvq_tokenizer_open(path, &tokenizer, err));
  for (int i = 0; i < TOKENS; i++) text[i] = (char)('!' + (i * 37 + 3) % 94);
  gptvq_eval_options_init(&eval);
  eval.ctx = TOKENS;
  assert_int_equal(gptvq_eval_text(model, tokenizer, text, TOKENS, &eval, NULL, &result, &error), first);
  assert_string_equal(error.message, failure->message);
  gptvq_tokenizer_close(tokenizer);
  gptvq_model_close(model);
  return first;
}

typedef struct wrong {
  const tiny_model *model;
  const char *name; /* tensors made too large by this factor; or, with 0, one number of theirs NaN */
  double scale;
  const char *words; /* NULL: all is fine */
} wrong;

static void write_wrong(const wrong *w, const char *folder) {
  tiny_model m = *w->model;
  if (w->scale != 0) m.scaled_name = w->name, m.scale = w->scale;
  else m.bad_name = w->name, m.bad = NAN;
  tiny_write(&m, folder);
}

static void layers_are_named(void **state) {
  (void)state;
  static const wrong cases[] = {
      {&tiny_llama, "layers.1.mlp.up_proj", 1e30, "the MLP of block 1 (model.layers.1) gives"},
      {&tiny_llama, "layers.2.mlp.up_proj", 1e30,
       "the MLP of block 2 (model.layers.2) gives"}, /* the last one */
      {&tiny_llama, "layers.1.self_attn.o_proj", 1e30, "the attention of block 1 (model.layers.1) gives"},
      {&tiny_qwen3, "layers.1.self_attn.k_proj", 1e30, "the attention of block 1 (model.layers.1) gives"},
      {&tiny_llama, "embed_tokens", 1e30, "the embedding gives"},
      {&tiny_llama, "lm_head", 1e39, "the output head gives"},
      {&tiny_mixtral, "layers.1.block_sparse_moe.gate", 1e39, "the router of block 1 (model.layers.1) gives"},
      {&tiny_mixtral, "layers.1.block_sparse_moe.gate", 1e34, NULL},
      {&tiny_llama, "layers.1.self_attn.q_proj", 1e30, NULL}, /* a sharp choice, but a number */
      {&tiny_llama, "layers.0.self_attn.v_proj", 0,
       "layers.0.self_attn.v_proj.weight holds NaN or infinity at row 16, column 0"},
      {&tiny_llama, "layers.2.mlp.down_proj", 0,
       "layers.2.mlp.down_proj.weight holds NaN or infinity at row 32, column 0"},
      {&tiny_phi3, "layers.1.mlp.gate_up_proj", 0,
       "layers.1.mlp.gate_up_proj.weight holds NaN or infinity at row 96, column 0"},
      {&tiny_mixtral, "layers.1.block_sparse_moe.experts.0.w2", 0,
       "experts.0.w2.weight holds NaN or infinity at row 32, column 0"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    write_wrong(&cases[i], "wrong");
    for (int compute = GPTVQ_COMPUTE_FP32; compute <= GPTVQ_COMPUTE_INT8; compute++) {
      gptvq_error error = {0};
      gptvq_status status = run_folder("wrong", (gptvq_compute)compute, &error);
      if (status != (cases[i].words == NULL ? GPTVQ_OK : GPTVQ_ERROR_NUMERIC) ||
          (cases[i].words != NULL && strstr(error.message, cases[i].words) == NULL))
        fail_msg("%s x %g, compute %d: %s, \"%s\"", cases[i].name, cases[i].scale, compute,
                 gptvq_status_name(status), error.message);
    }
    ok(gptvq_remove_tree("wrong", err));
  }
}

/* Keys beyond fp16, where they are kept as that: scores would be infinite, of either sign. */
static void keys_beyond_fp16_are_noticed(void **state) {
  (void)state;
  static const wrong keys = {&tiny_llama, "layers.0.self_attn.k_proj", 1e6, NULL};
  gptvq_error error = {0};
  write_wrong(&keys, "keys");
  ok(run_folder("keys", GPTVQ_COMPUTE_FP32, err));
  assert_int_equal(run_folder("keys", GPTVQ_COMPUTE_INT8, &error), GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(error.message, "the attention of block 0 (model.layers.0) gives"));
}

static int count_reports(void *user, const gptvq_progress *progress) {
  (void)progress;
  ++*(int *)user;
  return 0;
}

/* Damaged weights are found before any work, whatever the method and whichever tensor. */
static void quantize_looks_first(void **state) {
  (void)state;
  static const struct {
    const tiny_model *model;
    const char *name, *words;
  } cases[] = {
      {&tiny_llama, "layers.2.mlp.down_proj",
       "layers.2.mlp.down_proj.weight holds NaN or infinity at row 32, column 0"},
      {&tiny_llama, "layers.2.post_attention",
       "layers.2.post_attention_layernorm.weight holds NaN or infinity at element 32 of 64"},
      {&tiny_qwen2, "layers.1.self_attn.k_proj.bias",
       "layers.1.self_attn.k_proj.bias holds NaN or infinity at element 16 of 32"},
      {&tiny_llama, "lm_head", "lm_head.weight holds NaN or infinity at row 48, column 0"},
      {&tiny_mixtral, "layers.1.block_sparse_moe.experts.3.w3",
       "experts.3.w3.weight holds NaN or infinity at row 48, column 0"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const wrong w = {cases[i].model, cases[i].name, 0, NULL};
    write_wrong(&w, "damaged");
    for (int method = 0; method <= GPTVQ_METHOD_KMEANS; method++) {
      gptvq_quantize_options o = tiny_quantize_options((gptvq_method)method);
      gptvq_error error = {0};
      int reports = 0;
      const gptvq_callbacks callbacks = {
          .size = sizeof callbacks, .user = &reports, .progress = count_reports};
      gptvq_status status = gptvq_quantize("damaged", "out", &o, &callbacks, NULL, &error);
      if (status != GPTVQ_ERROR_NUMERIC || strstr(error.message, cases[i].words) == NULL || reports != 0 ||
          gptvq_path_exists("out.partial"))
        fail_msg("%s: %s after %d reports, \"%s\"", cases[i].name, gptvq_status_name(status), reports,
                 error.message);
    }
    ok(gptvq_remove_tree("damaged", err));
  }
  /* and an output head that 8 bits do not hold */
  const wrong head = {&tiny_llama, "lm_head", 1e-8, NULL};
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_RTN);
  gptvq_error error = {0};
  write_wrong(&head, "head");
  o.head_bits = 8;
  assert_int_equal(gptvq_quantize("head", "out", &o, NULL, NULL, &error), GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(error.message, "lm_head: "));
  assert_false(gptvq_path_exists("out.partial"));
}

/* Finite weights that give infinite activations: every path of the quantizer that runs the model. */
static void calibration_names_the_layer(void **state) {
  (void)state;
  static const wrong cases[] = {
      {&tiny_mixtral, "layers.1.block_sparse_moe.gate", 1e39, "the router of block 1"},
      {&tiny_llama, "layers.1.self_attn.o_proj", 1e30, "the attention of block 1"},
      {&tiny_llama, "embed_tokens", 1e30, "the embedding"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    write_wrong(&cases[i], "large");
    for (int variant = 0; variant < 3; variant++) {
      gptvq_quantize_options o = tiny_quantize_options(variant == 2 ? GPTVQ_METHOD_GPTQ : GPTVQ_METHOD_GPTVQ);
      gptvq_error error = {0};
      o.force = 1;
      if (variant == 1) o.calib = "self";
      gptvq_status status = gptvq_quantize("large", "out", &o, NULL, NULL, &error);
      bool uniform = strstr(error.message, "uniform codes") != NULL; /* gptq may meet the weights first */
      if (status != GPTVQ_ERROR_NUMERIC || (strstr(error.message, cases[i].words) == NULL && !uniform))
        fail_msg("%s, variant %d: %s, \"%s\"", cases[i].name, variant, gptvq_status_name(status),
                 error.message);
    }
    ok(gptvq_remove_tree("large", err));
  }
}

static void poke(char *file, size_t size, const gptvq_tensor *tensor, const void *value, size_t width) {
  char *at = memmem(file, size, tensor->data, tensor->bytes);
  assert_non_null(at);
  for (size_t i = 0; i < tensor->bytes; i += width) memcpy(at + i, value, width);
}

/* A packed layer whose finite scales give infinite weights: refused by the export, noticed when it runs. */
static void packed_scales_that_overflow(void **state) {
  (void)state;
  static const char shard[] = "packed/model-00002-of-00004.safetensors",
                    name[] = "model.layers.1.mlp.up_proj.";
  static const float range[2] = {119.0f, 0.0f};
  static const uint16_t largest = 0x7f7f;
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_KMEANS);
  gptvq_checkpoint *checkpoint;
  gptvq_error error = {0};
  char *file, tensor[96];
  size_t size;
  o.scale_block = 16;
  tiny_write(&tiny_llama, "plain");
  ok(gptvq_quantize("plain", "packed", &o, NULL, NULL, err));
  ok(gptvq_read_file(shard, 1 << 24, &file, &size, err));
  ok(gptvq_checkpoint_open("packed", NULL, &checkpoint, err));
  (void)snprintf(tensor, sizeof tensor, "%sblock_scale_range", name);
  poke(file, size, gptvq_checkpoint_find(checkpoint, tensor), range, sizeof range);
  (void)snprintf(tensor, sizeof tensor, "%scodebook_scales", name);
  poke(file, size, gptvq_checkpoint_find(checkpoint, tensor), &largest, sizeof largest);
  gptvq_checkpoint_close(checkpoint);
  ok(gptvq_write_file(shard, file, size, err));
  free(file);
  assert_int_equal(gptvq_export_hf("packed", "plain-again", 0, NULL, &error), GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(error.message, "model.layers.1.mlp.up_proj"));
  assert_false(gptvq_path_exists("plain-again"));
  for (int compute = GPTVQ_COMPUTE_FP32; compute <= GPTVQ_COMPUTE_INT8; compute++) {
    assert_int_equal(run_folder("packed", (gptvq_compute)compute, &error), GPTVQ_ERROR_NUMERIC);
    assert_non_null(strstr(error.message, "the MLP of block 1 (model.layers.1) gives"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(layers_are_named),
      cmocka_unit_test(keys_beyond_fp16_are_noticed),
      cmocka_unit_test(quantize_looks_first),
      cmocka_unit_test(calibration_names_the_layer),
      cmocka_unit_test(packed_scales_that_overflow),
  };
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
