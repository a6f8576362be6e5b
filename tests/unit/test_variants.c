/* What the tensors of a folder mean: under other names, in other types, with others beside them. The expected
 * likelihoods are transformers' (tests/golden/model/make_variants.py). */
#include "model/model_internal.h"
#include "checkpoint/output.h"
#include "tiny_model.h"

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};

#define STORIES TEST_SOURCE_DIR "/examples/stories-4m"
#define EMBEDDING "model.embed_tokens.weight"
#define HEAD "lm_head.weight"

/* How a folder differs from the one that it is made of. */
typedef struct variant {
  const char *config;               /* keys to change; null removes one */
  const char *strip;                /* tensors whose name begins so lose "model." */
  const char *prefix;               /* put before all names */
  const char *absent;               /* a tensor that is left out */
  const char *head;                 /* the tensor whose values lm_head.weight has; NULL: its own */
  gptvq_tensor_type all, head_type; /* GPTVQ_T_OTHER: as they are */
  bool four_types;                  /* F64, F32, F16 and BF16 in turn, by name */
  const char *extra;                /* one more tensor: its name, */
  size_t extra_rank, extra_dims[4]; /* shape, */
  gptvq_tensor_type extra_type;     /* and type, F32 or F64, */
  double extra_value;               /* and last value; the others are 0 */
} variant;
#define AS_IT_IS .all = GPTVQ_T_OTHER, .head_type = GPTVQ_T_OTHER

static bool begins(const char *name, const char *start) {
  return start != NULL && strncmp(name, start, strlen(start)) == 0;
}

static void write_as(gptvq_st_writer *writer, const gptvq_tensor *tensor, gptvq_tensor_type type) {
  if (type == tensor->type) {
    ok(gptvq_st_writer_write(writer, tensor->data, tensor->bytes, err));
    return;
  }
  assert_int_equal(tensor->type, GPTVQ_T_BF16);
  const size_t size = gptvq_tensor_type_size(type);
  uint8_t *values = malloc(tensor->count * size);
  assert_non_null(values);
  for (size_t i = 0; i < tensor->count; i++) {
    uint16_t bits;
    memcpy(&bits, tensor->data + 2 * i, 2);
    const float single = gptvq_bf16_to_float(bits);
    const double wide = (double)single;
    const uint16_t half = gptvq_float_to_fp16(single);
    memcpy(values + i * size,
           type == GPTVQ_T_F64   ? (const void *)&wide
           : type == GPTVQ_T_F32 ? (const void *)&single
                                 : (const void *)&half,
           size);
  }
  ok(gptvq_st_writer_write(writer, values, tensor->count * size, err));
  free(values);
}

static gptvq_tensor_type type_of(const variant *v, const gptvq_tensor *tensor, size_t number) {
  static const gptvq_tensor_type types[] = {GPTVQ_T_F64, GPTVQ_T_F32, GPTVQ_T_F16, GPTVQ_T_BF16};
  if (v->four_types) return types[number % 4];
  if (v->head_type != GPTVQ_T_OTHER && strcmp(tensor->name, HEAD) == 0) return v->head_type;
  return v->all != GPTVQ_T_OTHER ? v->all : tensor->type;
}

static void write_tensors(const variant *v, const gptvq_checkpoint *source, gptvq_st_writer *writer) {
  static double extra[4096];
  size_t count = gptvq_checkpoint_tensor_count(source), extra_count = 1;
  for (int pass = 0; pass < 2; pass++) {
    for (size_t t = 0; t < count; t++) {
      const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(source, t);
      const gptvq_tensor_type type = type_of(v, tensor, t);
      char name[160];
      if (v->absent != NULL && strcmp(tensor->name, v->absent) == 0) continue;
      (void)snprintf(name, sizeof name, "%s%s", v->prefix != NULL ? v->prefix : "",
                     tensor->name + (begins(tensor->name, v->strip) ? strlen("model.") : 0));
      if (pass == 0) {
        ok(gptvq_st_writer_declare(writer, name, type, tensor->rank, tensor->dims, err));
      } else {
        bool other = v->head != NULL && strcmp(tensor->name, HEAD) == 0;
        write_as(writer, other ? gptvq_checkpoint_find(source, v->head) : tensor, type);
      }
    }
    if (v->extra == NULL) continue;
    if (pass == 0)
      ok(gptvq_st_writer_declare(writer, v->extra, v->extra_type, v->extra_rank, v->extra_dims, err));
    for (size_t i = 0; pass == 1 && i < v->extra_rank; i++) extra_count *= v->extra_dims[i];
    float *narrow = (float *)extra;
    if (v->extra_type == GPTVQ_T_F64) extra[extra_count - 1] = v->extra_value;
    else narrow[extra_count - 1] = (float)v->extra_value;
    if (pass == 1)
      ok(gptvq_st_writer_write(writer, extra, extra_count * gptvq_tensor_type_size(v->extra_type), err));
    memset(extra, 0, sizeof extra);
  }
}

/* The folder `from` as `folder`, with the changes of v. */
static void write_variant(const char *from, const char *folder, const variant *v) {
  gptvq_checkpoint *source;
  gptvq_st_writer *writer;
  char path[256];
  ok(gptvq_remove_tree(folder, err));
  ok(gptvq_make_folder(folder, err));
  ok(gptvq_copy_side_files(from, folder, err));
  ok(gptvq_checkpoint_open(from, NULL, &source, err));
  (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
  ok(gptvq_st_writer_create(path, &writer, err));
  write_tensors(v, source, writer);
  ok(gptvq_st_writer_commit(writer, err));
  json_t *config = json_deep_copy(gptvq_checkpoint_config(source)), *value;
  json_t *changes = json_loads(v->config != NULL ? v->config : "{}", 0, NULL);
  const char *key;
  assert_non_null(changes);
  json_object_foreach(changes, key, value) {
    if (json_is_null(value)) json_object_del(config, key);
    else json_object_set(config, key, value);
  }
  (void)snprintf(path, sizeof path, "%s/config.json", folder);
  ok(gptvq_write_json(path, config, err));
  json_decref(changes);
  json_decref(config);
  gptvq_checkpoint_close(source);
}

static char heard[4096]; /* the warnings, one a line */
static void hear(void *user, gptvq_log_level level, const char *line) {
  (void)user;
  if (level != GPTVQ_LOG_WARNING) return;
  size_t used = strlen(heard);
  (void)snprintf(heard + used, sizeof heard - used, "%s\n", line);
}
static const gptvq_callbacks listener = {.size = sizeof listener, .log = hear};
static const gptvq_model_options listening = {
    .size = sizeof listening, .compute = GPTVQ_COMPUTE_FP32, .callbacks = &listener};

static gptvq_status open_heard(const char *folder, gptvq_model **model, gptvq_error *err) {
  heard[0] = '\0';
  return gptvq_model_open(folder, &listening, model, err);
}

static void check_words(const char *what, const char *text, const char *const *words) {
  for (size_t w = 0; w < 3 && words[w] != NULL; w++)
    if (strstr(text, words[w]) == NULL) fail_msg("%s: \"%s\" does not say %s", what, text, words[w]);
}

static double likelihood(const gptvq_model *model) {
  gptvq_tokenizer *tokenizer;
  gptvq_eval_options options;
  gptvq_eval_result result = {.size = sizeof result};
  char *text;
  size_t size;
  gptvq_eval_options_init(&options);
  options.ctx = 256;
  options.max_windows = 2;
  ok(gptvq_tokenizer_open(STORIES, &tokenizer, err));
  ok(gptvq_read_file(TEST_SOURCE_DIR "/examples/text/eval.txt", 1 << 24, &text, &size, err));
  ok(gptvq_eval_text(model, tokenizer, text, size, &options, NULL, &result, err));
  free(text);
  gptvq_tokenizer_close(tokenizer);
  return result.nll;
}

#define TIED "{\"tie_word_embeddings\": true}"
#define BASE "{\"architectures\": [\"LlamaModel\"]}"
#define BASE_TIED "{\"architectures\": [\"LlamaModel\"], \"tie_word_embeddings\": true}"

static void likelihoods_equal_transformers(void **state) {
  (void)state;
  const double own = 1.648018814, tied = 8.445540516, rounded = 1.648018827;
  const struct {
    const char *name;
    variant v;
    double nll;
    const char *words[3]; /* of the warnings; none: no warning */
  } cases[] = {
      {"as it is", {AS_IT_IS}, own, {NULL}},
      {"tied, own head", {AS_IT_IS, .config = TIED}, own, {"tie_word_embeddings", "lm_head", NULL}},
      {"tied, own fp32 head",
       {.all = GPTVQ_T_OTHER, .head_type = GPTVQ_T_F32, .config = TIED},
       own,
       {"tie_word_embeddings", "lm_head", NULL}},
      {"tied, equal head", {AS_IT_IS, .config = TIED, .head = EMBEDDING}, tied, {NULL}},
      {"tied, equal fp32 head",
       {.all = GPTVQ_T_OTHER, .head_type = GPTVQ_T_F32, .config = TIED, .head = EMBEDDING},
       tied,
       {NULL}},
      {"tied, head alone",
       {AS_IT_IS, .config = TIED, .head = EMBEDDING, .absent = EMBEDDING},
       tied,
       {EMBEDDING, HEAD, NULL}},
      {"no architectures",
       {AS_IT_IS, .config = "{\"architectures\": null}"},
       own,
       {"architectures is missing", "LlamaForCausalLM", NULL}},
      {"no prefix", {AS_IT_IS, .strip = "model."}, own, {"model.embed_tokens.weight", NULL, NULL}},
      {"one without prefix", {AS_IT_IS, .strip = "model.norm"}, own, {"norm.weight is", NULL, NULL}},
      {"LlamaModel",
       {AS_IT_IS, .strip = "model.", .config = BASE},
       own,
       {"LlamaModel", "LlamaForCausalLM", NULL}},
      {"LlamaModel, tied",
       {AS_IT_IS, .strip = "model.", .config = BASE_TIED, .absent = HEAD},
       tied,
       {"LlamaModel", "LlamaForCausalLM", NULL}},
      {"a bias of zeros",
       {AS_IT_IS, .extra = "model.layers.0.self_attn.q_proj.bias", .extra_rank = 1, .extra_dims = {256}},
       own,
       {"model.layers.0.self_attn.q_proj.bias", "zero", NULL}},
      {"a mask",
       {AS_IT_IS, .extra = "model.layers.3.attention.masked_bias", .extra_value = -1e9},
       own,
       {"masked_bias"}},
      {"a mask of positions",
       {AS_IT_IS, .extra = "model.layers.3.attention.bias", .extra_rank = 4, .extra_dims = {1, 1, 8, 8},
        .extra_value = 1},
       own,
       {"attention.bias"}},
      {"a value head",
       {AS_IT_IS, .extra = "v_head.summary.weight", .extra_rank = 2, .extra_dims = {1, 256},
        .extra_value = 1},
       own,
       {"v_head.summary.weight"}},
      {"frequencies",
       {AS_IT_IS, .extra = "rotary_emb.inv_freq", .extra_rank = 1, .extra_dims = {16}, .extra_value = 1},
       own,
       {"rotary_emb.inv_freq is read as model."}},
      {"fp64", {.all = GPTVQ_T_F64, .head_type = GPTVQ_T_OTHER}, own, {"F64", HEAD, NULL}},
      {"four types", {AS_IT_IS, .four_types = true}, rounded, {"F64", HEAD, NULL}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    gptvq_model *model;
    write_variant(STORIES, "variant", &cases[i].v);
    ok(open_heard("variant", &model, err));
    check_words(cases[i].name, heard, cases[i].words);
    if (cases[i].words[0] == NULL && heard[0] != '\0') fail_msg("%s: warns: %s", cases[i].name, heard);
    /* as in tests/cli/eval.sh */
    const double nll = likelihood(model);
    if (!(fabs(nll - cases[i].nll) <= 1e-5 * cases[i].nll))
      fail_msg("%s: %.9f, transformers has %.9f", cases[i].name, nll, cases[i].nll);
    gptvq_model_close(model);
  }
}

static void doubtful_folders_are_refused(void **state) {
  (void)state;
  const struct {
    variant v;
    gptvq_status status;
    const char *words[3];
  } cases[] = {
      {{AS_IT_IS, .absent = HEAD}, GPTVQ_ERROR_FORMAT, {HEAD, "tie_word_embeddings"}},
      {{AS_IT_IS, .strip = "model.", .config = BASE, .absent = HEAD}, GPTVQ_ERROR_FORMAT, {HEAD}},
      {{AS_IT_IS, .absent = EMBEDDING}, GPTVQ_ERROR_FORMAT, {EMBEDDING, "missing"}},
      {{AS_IT_IS, .prefix = "thinker."},
       GPTVQ_ERROR_UNSUPPORTED,
       {"model.safetensors", "thinker.model.embed_tokens.weight"}},
      {{AS_IT_IS, .extra = "vision_tower.post_layernorm.weight", .extra_rank = 1, .extra_dims = {64}},
       GPTVQ_ERROR_FORMAT,
       {"vision_tower.post_layernorm.weight", "no place"}},
      {{AS_IT_IS, .config = "{\"architectures\": [\"Gemma3ForConditionalGeneration\"]}"},
       GPTVQ_ERROR_FORMAT,
       {"Gemma3ForConditionalGeneration", "text_config"}},
      {{AS_IT_IS, .config = "{\"architectures\": [\"Mistral3ForConditionalGeneration\"], \"text_config\": "
                            "{\"model_type\": \"new\"}}"},
       GPTVQ_ERROR_UNSUPPORTED,
       {"Mistral3ForConditionalGeneration", "text_config.model_type new"}},
      {{AS_IT_IS, .prefix = "_orig_mod."}, GPTVQ_ERROR_UNSUPPORTED, {"_orig_mod.model.embed_tokens.weight"}},
      {{AS_IT_IS, .extra = "norm.weight", .extra_rank = 1, .extra_dims = {64}},
       GPTVQ_ERROR_FORMAT,
       {"tensor norm.weight", "no place"}},
      {{AS_IT_IS, .extra = "model.layers.0.self_attn.q_proj.bias", .extra_rank = 1, .extra_dims = {64},
        .extra_value = 1e-30},
       GPTVQ_ERROR_FORMAT,
       {"self_attn.q_proj.bias", "not zero"}},
      {{AS_IT_IS, .extra = "score.weight", .extra_rank = 2, .extra_dims = {2, 64}},
       GPTVQ_ERROR_FORMAT,
       {"score.weight", "no place"}},
      {{AS_IT_IS, .extra = "model.layers.0.self_attn.q_proj.bias", .extra_rank = 1, .extra_dims = {64},
        .extra_type = GPTVQ_T_F64, .extra_value = 3.5e38},
       GPTVQ_ERROR_NUMERIC,
       {"model.safetensors", "self_attn.q_proj.bias", "element 63 of 64"}},
      {{AS_IT_IS, .config = "{\"architectures\": null}"},
       GPTVQ_ERROR_FORMAT,
       {"architectures", "model_type"}},
      {{AS_IT_IS, .config = "{\"architectures\": [], \"model_type\": \"gpt2\"}"},
       GPTVQ_ERROR_UNSUPPORTED,
       {"architectures", "gpt2"}},
      {{AS_IT_IS, .config = "{\"model_type\": \"mistral\"}"},
       GPTVQ_ERROR_FORMAT,
       {"LlamaForCausalLM", "mistral"}},
      {{AS_IT_IS, .config = "{\"architectures\": [\"LlamaForSequenceClassification\"]}"},
       GPTVQ_ERROR_UNSUPPORTED,
       {"LlamaForSequenceClassification"}},
  };
  tiny_write(&tiny_llama, "tiny");
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    gptvq_model *model;
    gptvq_error err = {GPTVQ_OK, ""};
    char what[24];
    (void)snprintf(what, sizeof what, "case %zu", i);
    write_variant("tiny", "variant", &cases[i].v);
    gptvq_status status = gptvq_model_open("variant", &in_fp32, &model, &err);
    if (status != cases[i].status) fail_msg("%s: %s: %s", what, gptvq_status_name(status), err.message);
    check_words(what, err.message, cases[i].words);
  }
}

/* Every architecture without "model." and as the model without an output head, by its model_type alone. */
static void every_family_has_its_names(void **state) {
  (void)state;
  static const struct {
    const tiny_model *model;
    const char *base, *by_type;
  } families[] = {
      {&tiny_llama, BASE, "{\"architectures\": null, \"model_type\": \"llama\"}"},
      {&tiny_mixtral, "{\"architectures\": [\"MixtralModel\"]}",
       "{\"architectures\": null, \"model_type\": \"mixtral\"}"},
      {&tiny_qwen2, "{\"architectures\": [\"Qwen2Model\"]}",
       "{\"architectures\": null, \"model_type\": \"qwen2\"}"},
      {&tiny_qwen3, "{\"architectures\": [\"Qwen3Model\"]}",
       "{\"architectures\": null, \"model_type\": \"qwen3\"}"},
      {&tiny_phi3, "{\"architectures\": [\"Phi3Model\"]}",
       "{\"architectures\": null, \"model_type\": \"phi3\"}"},
      {&tiny_gemma3, "{\"architectures\": [\"Gemma3Model\"]}",
       "{\"architectures\": null, \"model_type\": \"gemma3_text\"}"},
      {&tiny_smollm3, "{\"architectures\": [\"SmolLM3Model\"]}",
       "{\"architectures\": null, \"model_type\": \"smollm3\"}"},
      {&tiny_olmo3, "{\"architectures\": [\"Olmo3Model\"]}",
       "{\"architectures\": null, \"model_type\": \"olmo3\"}"},
      {&tiny_exaone4, "{\"architectures\": [\"Exaone4Model\"]}",
       "{\"architectures\": null, \"model_type\": \"exaone4\"}"},
  };
  for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
    ok(gptvq_remove_tree("tiny", err));
    tiny_write(families[i].model, "tiny");
    const variant base = {AS_IT_IS, .strip = "model.", .config = families[i].base},
                  by_type = {AS_IT_IS, .config = families[i].by_type};
    write_variant("tiny", "variant", &base);
    assert_true(tiny_logit_distance("variant", "tiny") == 0);
    write_variant("tiny", "variant", &by_type);
    assert_true(tiny_logit_distance("variant", "tiny") == 0);
  }
}

/* config.json of `folder` as the text_config of a model that also has a vision tower. */
static void wrap_config(const char *folder, const char *outer, const char *model_type) {
  char path[256];
  json_error_t where;
  (void)snprintf(path, sizeof path, "%s/config.json", folder);
  json_t *text = json_load_file(path, 0, &where);
  assert_non_null(text);
  json_object_del(text, "architectures");
  json_object_del(text, "eos_token_id");
  json_object_set_new(text, "model_type", json_string(model_type));
  json_t *config = json_pack("{s:[s], s:s, s:i, s:{s:i}, s:o}", "architectures", outer, "model_type", "outer",
                             "eos_token_id", 1, "vision_config", "hidden_size", 8, "text_config", text);
  assert_non_null(config);
  ok(gptvq_write_json(path, config, err));
  json_decref(config);
}

/* The older and the newer names of a text model beside a vision tower: the same function as alone, and packed
 * folders have nothing of what is around it. */
static void text_models_inside_of_others(void **state) {
  (void)state;
  tiny_model mistral = tiny_llama;
  mistral.architecture = "MistralForCausalLM";
  const struct {
    const tiny_model *model;
    const char *outer, *model_type;
    variant v;
  } cases[] = {
      {&tiny_gemma3,
       "Gemma3ForConditionalGeneration",
       "gemma3_text",
       {AS_IT_IS, .prefix = "language_model.", .extra = "vision_tower.head.probe", .extra_rank = 3,
        .extra_dims = {1, 1, 64}, .extra_value = 1}},
      {&tiny_gemma3,
       "Gemma3ForConditionalGeneration",
       "gemma3_text",
       {AS_IT_IS, .strip = "model.", .prefix = "model.language_model.",
        .extra = "model.multi_modal_projector.mm_soft_emb_norm.weight", .extra_rank = 1, .extra_dims = {64},
        .extra_value = 1}},
      {&mistral,
       "Mistral3ForConditionalGeneration",
       "mistral",
       {AS_IT_IS, .prefix = "language_model.", .extra = "vision_tower.ln_pre.weight", .extra_rank = 1,
        .extra_dims = {64}, .extra_value = 1}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    gptvq_model *model, *alone;
    ok(gptvq_remove_tree("tiny", err));
    tiny_write(cases[i].model, "tiny");
    write_variant("tiny", "variant", &cases[i].v);
    wrap_config("variant", cases[i].outer, cases[i].model_type);
    assert_true(tiny_logit_distance("variant", "tiny") == 0);
    ok(open_heard("variant", &model, err));
    char group[64]; /* all of it, up to the first part of its name that no prefix has */
    const size_t prefix = (strncmp(cases[i].v.extra, "model.", 6) == 0 ? 6u : 0u);
    (void)snprintf(group, sizeof group, "%.*s.*", (int)(prefix + strcspn(cases[i].v.extra + prefix, ".")),
                   cases[i].v.extra);
    const char *const words[3] = {"left out: ", group, "inputs of pictures"};
    check_words(cases[i].outer, heard, words);
    ok(gptvq_model_open("tiny", &in_fp32, &alone, err));
    assert_int_equal(model->info.other_bytes, alone->info.other_bytes);
    assert_int_equal(model->info.beside_bytes, 64 * sizeof(float));
    assert_int_equal(alone->info.beside_bytes, 0);
    assert_string_equal(model->info.architecture, alone->info.architecture);
    gptvq_model_close(alone);
    gptvq_model_close(model);
    gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
    o.force = 1;
    ok(gptvq_quantize("variant", "packed", &o, NULL, NULL, err));
    ok(gptvq_quantize("tiny", "alone", &o, NULL, NULL, err));
    ok(open_heard("packed", &model, err));
    assert_string_equal(heard, "");
    assert_null(json_object_get(gptvq_checkpoint_config(model->checkpoint), "text_config"));
    assert_null(gptvq_checkpoint_find(model->checkpoint, cases[i].v.extra));
    gptvq_model_close(model);
    assert_true(tiny_logit_distance("packed", "alone") == 0);
  }
}

static gptvq_quantize_options options_of(unsigned head_bits) {
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
  o.head_bits = head_bits;
  o.force = 1;
  return o;
}

static void assert_stored(const char *folder, const char *name, bool there) {
  gptvq_checkpoint *checkpoint;
  ok(gptvq_checkpoint_open(folder, NULL, &checkpoint, err));
  if ((gptvq_checkpoint_find(checkpoint, name) != NULL) != there)
    fail_msg("%s: %s is %s", folder, name, there ? "missing" : "there");
  gptvq_checkpoint_close(checkpoint);
}

/* Folders that mean the same are packed to the same bytes, config.json included, with a head of 8 bits or as
 * it is; so are their exports. */
static void what_means_the_same_is_packed_alike(void **state) {
  (void)state;
  static const variant variants[] = {
      {AS_IT_IS, .config = TIED},
      {AS_IT_IS, .strip = "model."},
      {AS_IT_IS, .strip = "model.", .config = BASE_TIED},
      {AS_IT_IS, .extra = "model.layers.1.mlp.up_proj.bias", .extra_rank = 1, .extra_dims = {96}},
  };
  ok(gptvq_remove_tree("tiny", err));
  tiny_write(&tiny_llama, "tiny");
  for (unsigned head_bits = 8; head_bits <= 16; head_bits += 8) {
    gptvq_quantize_options o = options_of(head_bits);
    ok(gptvq_quantize("tiny", "packed", &o, NULL, NULL, err));
    ok(gptvq_export_hf("packed", "plain", 1, NULL, err));
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
      write_variant("tiny", "variant", &variants[i]);
      ok(gptvq_quantize("variant", "packed-variant", &o, NULL, NULL, err));
      assert_same_folder("packed", "packed-variant");
      ok(gptvq_export_hf("packed-variant", "plain-variant", 1, NULL, err));
      assert_same_folder("plain", "plain-variant");
    }
  }
}

/* Packed folders of before, which say "tied" beside a head of their own. */
static void packed_heads_are_used(void **state) {
  (void)state;
  for (unsigned head_bits = 8; head_bits <= 16; head_bits += 8) {
    gptvq_quantize_options o = options_of(head_bits);
    gptvq_model *model;
    char *text;
    size_t size;
    ok(gptvq_quantize("tiny", "packed", &o, NULL, NULL, err));
    ok(gptvq_export_hf("packed", "plain", 1, NULL, err));
    ok(gptvq_quantize("tiny", "packed-tied", &o, NULL, NULL, err));
    ok(gptvq_read_file("packed-tied/config.json", 1 << 20, &text, &size, err));
    char *value = strstr(text, "\"tie_word_embeddings\": false");
    assert_non_null(value);
    memcpy(value, "\"tie_word_embeddings\":  true", strlen("\"tie_word_embeddings\": false"));
    tiny_write_text("packed-tied", "config.json", text);
    free(text);
    ok(open_heard("packed-tied", &model, err));
    assert_non_null(strstr(heard, "lm_head"));
    assert_false(model->config.tie_embeddings);
    gptvq_model_close(model);
    assert_true(tiny_logit_distance("packed-tied", "packed") == 0);
    ok(gptvq_export_hf("packed-tied", "plain-tied", 1, NULL, err));
    assert_same_folder("plain", "plain-tied");
  }
}

/* The account counts what is in the files, used or not. */
static void accounts_are_of_the_files(void **state) {
  (void)state;
  const variant twice = {AS_IT_IS, .config = TIED, .head = EMBEDDING},
                wide = {.all = GPTVQ_T_F64, .head_type = GPTVQ_T_OTHER},
                extra = {AS_IT_IS, .extra = "v_head.summary.weight", .extra_rank = 2, .extra_dims = {1, 64}};
  const uint64_t table = (uint64_t)TINY_VOCAB * TINY_HIDDEN;
  gptvq_model *model, *other;
  gptvq_layer_info layer = {.size = sizeof layer};
  ok(gptvq_model_open("tiny", &in_fp32, &model, err));
  const gptvq_model_info whole = model->info;
  assert_int_equal(whole.linear_bytes + whole.other_bytes, 2 * whole.parameters);

  write_variant("tiny", "variant", &twice);
  ok(gptvq_model_open("variant", &in_fp32, &other, err));
  assert_int_equal(other->info.parameters, whole.parameters - table);
  assert_int_equal(other->info.other_bytes, whole.other_bytes);
  gptvq_model_close(other);
  gptvq_quantize_options o = options_of(16);
  ok(gptvq_quantize("variant", "packed", &o, NULL, NULL, err));
  assert_stored("packed", EMBEDDING, true);
  assert_stored("packed", HEAD, false); /* not twice */

  write_variant("tiny", "variant", &extra);
  ok(gptvq_model_open("variant", &in_fp32, &other, err));
  assert_int_equal(other->info.parameters, whole.parameters);
  assert_int_equal(other->info.other_bytes, whole.other_bytes + 64 * sizeof(float));
  gptvq_model_close(other);

  write_variant("tiny", "variant", &wide);
  ok(gptvq_model_open("variant", &in_fp32, &other, err));
  assert_int_equal(other->info.linear_bytes, 4 * whole.linear_bytes);
  assert_int_equal(other->info.linear_bytes + other->info.other_bytes,
                   gptvq_checkpoint_bytes(other->checkpoint));
  assert_true(other->info.bits_per_value == 64.0);
  gptvq_model_get_layer(other, 0, &layer);
  assert_string_equal(layer.format, "fp64");
  gptvq_model_close(other);
  gptvq_model_close(model);
}

/* The same numbers in wider types are the same model, packed too. */
static void wide_types_are_quantized(void **state) {
  (void)state;
  const variant wide = {.all = GPTVQ_T_F64, .head_type = GPTVQ_T_OTHER};
  gptvq_quantize_options o = options_of(8);
  gptvq_model *model;
  write_variant("tiny", "variant", &wide);
  assert_true(tiny_logit_distance("variant", "tiny") == 0);
  ok(gptvq_quantize("tiny", "packed", &o, NULL, NULL, err));
  ok(gptvq_quantize("variant", "packed-variant", &o, NULL, NULL, err));
  assert_true(tiny_logit_distance("packed-variant", "packed") == 0);
  ok(open_heard("packed-variant", &model, err));
  assert_string_equal(heard, "");
  gptvq_model_close(model);
}

static int set_up(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_write_corpus("corpus.txt", 4000);
  return 0;
}

/* Rows of Qwen3-Next's fused matrices: each key head of them has to be whole. */
static void woven_rows_have_to_fit(void **state) {
  (void)state;
  tiny_model wrong = tiny_qwen3_next;
  wrong.keys = TINY_SHARED_KEYS "\"linear_num_key_heads\": 2, \"linear_num_value_heads\": 2, "
                                "\"linear_key_head_dim\": 8, \"linear_value_head_dim\": 12, "
                                "\"full_attention_interval\": 2, \"mlp_only_layers\": [1]";
  gptvq_model *model;
  gptvq_error error = {0};
  tiny_write(&wrong, "woven");
  assert_int_equal(gptvq_model_open("woven", &in_fp32, &model, &error), GPTVQ_ERROR_FORMAT);
  assert_non_null(strstr(error.message, "in_proj_"));
  assert_non_null(strstr(error.message, "cannot be taken apart: config.json describes 2 groups of"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(likelihoods_equal_transformers), cmocka_unit_test(doubtful_folders_are_refused),
      cmocka_unit_test(every_family_has_its_names),     cmocka_unit_test(what_means_the_same_is_packed_alike),
      cmocka_unit_test(packed_heads_are_used),          cmocka_unit_test(accounts_are_of_the_files),
      cmocka_unit_test(wide_types_are_quantized),       cmocka_unit_test(text_models_inside_of_others),
      cmocka_unit_test(woven_rows_have_to_fit)};
  return cmocka_run_group_tests(tests, set_up, tiny_drop_scratch);
}
