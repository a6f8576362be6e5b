/* quant: rotations leave the model's function as it is, and whole quantizations with them. */
#include "tiny_model.h"
#include "base/memory.h"
#include "linalg/hadamard.h"
#include "quant/transform/transform.h"

#include <float.h>
#include <gptvq/gptvq.h>
#include <unistd.h>

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/model/"

static int make_scratch(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_write_corpus("corpus.txt", 4000);
  return 0;
}

/* Q Qᵀ = 1. An entry of Q passes log₂ p additions and m products: its error is below (log₂ p + 3 m) ε of a
 * number below 1, and that of a sum of n products of two such entries below 2 n times as much. */
static void rotations_are_orthogonal(void **state) {
  (void)state;
  const size_t sizes[] = {1, 2, 8, 64, 3, 12, 7, 96, 56, 80, 105};
  for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
    size_t n = sizes[s];
    gptvq_rotation r;
    ok(gptvq_rotation_init(&r, n, 17, "a size", err));
    assert_int_equal(r.power * r.odd, n);
    double *q = calloc(n * n, sizeof *q), *rest = calloc(n, sizeof *rest);
    double bound = 2.0 * (double)n * (log2((double)r.power) + 3.0 * (double)r.odd) * DBL_EPSILON;
    for (size_t i = 0; i < n; i++) {
      q[i * n + i] = 1.0;
      gptvq_rotation_apply(&r, q + i * n, rest);
      for (size_t j = 0; j < n; j++) {
        double entry = fabs(q[i * n + j]);
        assert_true(entry <= sqrt((r.odd > 1 ? 2.0 : 1.0) / (double)n) + bound);
        if (r.odd == 1) assert_true(entry >= sqrt(1.0 / (double)n) - bound); /* all of the same size */
      }
    }
    for (size_t i = 0; i < n; i++)
      for (size_t j = 0; j <= i; j++) {
        double sum = 0;
        for (size_t k = 0; k < n; k++) sum += q[i * n + k] * q[j * n + k];
        assert_true(fabs(sum - (i == j ? 1.0 : 0.0)) <= bound + DBL_EPSILON);
      }
    free(q);
    free(rest);
    gptvq_rotation_release(&r);
  }
  gptvq_rotation a, b;
  ok(gptvq_rotation_init(&a, 64, 1, "a size", err));
  ok(gptvq_rotation_init(&b, 64, 2, "a size", err));
  assert_memory_not_equal(a.signs, b.signs, 64 * sizeof *a.signs);
  gptvq_rotation_release(&a);
  gptvq_rotation_release(&b);
  gptvq_error error = {0};
  assert_int_equal(gptvq_rotation_init(&a, 2 * 4097, 1, "a hidden size", &error), GPTVQ_ERROR_UNSUPPORTED);
  assert_non_null(strstr(error.message, "a hidden size of 8194 cannot be rotated"));
  assert_int_equal(gptvq_rotation_init(&a, 0, 1, "a size", &error), GPTVQ_ERROR_UNSUPPORTED);
}

/* The same model with every number as fp32. */
static void write_as_fp32(const char *from, const char *to) {
  gptvq_checkpoint *source;
  gptvq_st_writer *writer;
  ok(gptvq_remove_tree(to, err));
  ok(gptvq_make_folder(to, err));
  ok(gptvq_checkpoint_open(from, NULL, &source, err));
  char *path = gptvq_join_path(to, "model.safetensors"), *config = gptvq_join_path(from, "config.json");
  char *copy = gptvq_join_path(to, "config.json");
  ok(gptvq_copy_file(config, copy, err));
  ok(gptvq_st_writer_create(path, &writer, err));
  size_t count = gptvq_checkpoint_tensor_count(source);
  for (size_t i = 0; i < count; i++) {
    const gptvq_tensor *t = gptvq_checkpoint_tensor_at(source, i);
    ok(gptvq_st_writer_declare(writer, t->name, GPTVQ_T_F32, t->rank, t->dims, err));
  }
  for (size_t i = 0; i < count; i++) {
    const gptvq_tensor *t = gptvq_checkpoint_tensor_at(source, i);
    gptvq_dtype dtype = t->type == GPTVQ_T_F32 ? GPTVQ_F32 : t->type == GPTVQ_T_F16 ? GPTVQ_F16 : GPTVQ_BF16;
    float *values = malloc(t->count * sizeof *values);
    gptvq_to_float(dtype, t->data, t->count, values);
    ok(gptvq_st_writer_write(writer, values, t->count * sizeof *values, err));
    free(values);
  }
  ok(gptvq_st_writer_commit(writer, err));
  gptvq_checkpoint_close(source);
  free(path);
  free(config);
  free(copy);
}

typedef struct golden {
  uint32_t count, vocab;
  double error;
  int32_t ids[256];
  double *logits;
  char *data;
} golden;

static void read_golden(const char *path, golden *g) {
  size_t size;
  ok(gptvq_read_file(path, 1 << 20, &g->data, &size, err));
  memcpy(&g->count, g->data + 8, 4);
  memcpy(&g->vocab, g->data + 12, 4);
  memcpy(&g->error, g->data + 16, 8);
  assert_true(g->count <= 256);
  memcpy(g->ids, g->data + 32, g->count * 4);
  g->logits = malloc((size_t)g->count * g->vocab * sizeof *g->logits);
  memcpy(g->logits, g->data + 32 + g->count * 4, (size_t)g->count * g->vocab * sizeof *g->logits);
}

static bool all_are(const gptvq_tensor *tensor, float expected) {
  size_t same = 0;
  for (size_t i = 0; i < tensor->count; i++) {
    float value;
    memcpy(&value, tensor->data + i * sizeof value, sizeof value);
    same += value == expected;
  }
  return same == tensor->count;
}

/* Rounding a transformed weight to fp32, at most twice, moves a dot product of n terms by 2 ε Σ |w x|, less
 * than its own rounding error, for which the fixtures have the oracle's sample: the bound is twice that of
 * tests/unit/test_model.c. A wrong sign or place moves logits by more than 1e-2. */
static void the_function_stays(void **state) {
  (void)state;
  const char *models[] = {"llama",
                          "llama-tied",
                          "llama-head-dim-bias",
                          "llama3-rope",
                          "llama-sharded",
                          "mistral",
                          "qwen2",
                          "qwen2-window",
                          "qwen3",
                          "phi3",
                          "phi3-longrope",
                          "mixtral",
                          "gemma2",
                          "gemma2-uncapped",
                          "smollm3",
                          "smollm3-window",
                          "gemma",
                          "gemma3",
                          "gemma3-untied",
                          "gemma3-vision",
                          "olmo2",
                          "olmo3-kinds",
                          "exaone4",
                          "exaone4-full",
                          "qwen3-moe",
                          "qwen3-moe-fused",
                          "qwen2-moe",
                          "olmoe",
                          "granite",
                          "granite-biases",
                          "granite4",
                          "seed-oss-biases",
                          "glm",
                          "glm4",
                          "ministral3",
                          "ernie4_5-biases",
                          "gpt-oss",
                          "deepseek-v2-lite",
                          "deepseek-v2",
                          "deepseek-v3",
                          "deepseek-v3-plain",
                          "qwen3_5",
                          "qwen3_5-inner",
                          "qwen3_5-moe",
                          "qwen3_5-moe-inner",
                          "qwen3-next",
                          "qwen3-next-dense"};
  const double slack = 8.0;
  for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
    char from[512], path[600];
    (void)snprintf(from, sizeof from, GOLDEN "%s", models[m]);
    (void)snprintf(path, sizeof path, "%s/golden.bin", from);
    golden g = {0};
    read_golden(path, &g);
    write_as_fp32(from, "source");
    gptvq_model *model;
    ok(gptvq_model_open("source", &in_fp32, &model, err));
    float *logits = malloc((size_t)g.count * g.vocab * sizeof *logits);
    const bool residual =
        gptvq_writes_stream(&model->blocks[0], GPTVQ_INPUT_O); /* see what_cannot_be_rotated_is_refused */
    const bool held = model->config.latent.kv_rank > 0 || model->arch->output_gate;
    for (int rotate = 0; rotate < (held ? GPTVQ_ROTATE_HEADS : 4);
         rotate += residual ? 1 : GPTVQ_ROTATE_HEADS) {
      gptvq_quantize_options o;
      gptvq_quantize_options_init(&o);
      o.rotate = rotate;
      o.seed = 5;
      gptvq_resolved resolved;
      ok(gptvq_resolve(&o, &resolved, err));
      assert_int_equal(gptvq_transform_wanted(&resolved), rotate != 0);
      gptvq_transform transform;
      uint64_t bytes, counted = 0;
      ok(gptvq_remove_tree("changed", err));
      ok(gptvq_make_folder("changed", err));
      ok(gptvq_transform_create(model, &resolved, &transform, err));
      ok(gptvq_transform_bytes(&transform, &bytes, err));
      ok(gptvq_transform_write(&transform, "changed", NULL, err));
      gptvq_transform_release(&transform);
      folder_logits("changed", g.ids, g.count, logits);
      for (size_t i = 0; i < (size_t)g.count * g.vocab; i++) {
        double distance = fabs((double)logits[i] - g.logits[i]);
        if (!(distance <= slack * g.error))
          fail_msg("%s, rotate %d: logit %zu is %.9g, should be %.9g (bound %.2g)", models[m], rotate, i,
                   (double)logits[i], g.logits[i], slack * g.error);
      }
      gptvq_checkpoint *changed;
      ok(gptvq_checkpoint_open("changed", NULL, &changed, err));
      for (size_t t = 0; t < gptvq_checkpoint_tensor_count(changed); t++)
        counted += gptvq_checkpoint_tensor_at(changed, t)->bytes;
      assert_int_equal(bytes, counted);
      const gptvq_tensor *norm =
          gptvq_checkpoint_find(changed, "model.layers.1.post_attention_layernorm.weight");
      assert_true(all_are(norm, gptvq_gain_to_weight(model->arch, 1.0f)) ==
                  ((rotate & GPTVQ_ROTATE_RESIDUAL) != 0));
      gptvq_checkpoint_close(changed);
    }
    gptvq_model_close(model);
    free(logits);
    free(g.logits);
    free(g.data);
  }
}

static gptvq_quantize_options transform_options(gptvq_method method) {
  gptvq_quantize_options o = tiny_quantize_options(method);
  o.rotate = GPTVQ_ROTATE_ALL;
  return o;
}

/* A norm's gains between o_proj and the residual stream cannot be moved through a rotation, nor can values of
 * latent attention, which share a linear with keys: said before any work. */
static void what_cannot_be_rotated_is_refused(void **state) {
  (void)state;
  gptvq_quantize_options o = transform_options(GPTVQ_METHOD_GPTVQ);
  tiny_write(&tiny_gemma2, "gemma2");
  for (int rotate = GPTVQ_ROTATE_RESIDUAL; rotate <= GPTVQ_ROTATE_ALL;
       rotate += GPTVQ_ROTATE_ALL - GPTVQ_ROTATE_RESIDUAL) {
    gptvq_error error = {0};
    o.rotate = rotate;
    assert_int_equal(gptvq_quantize("gemma2", "refused", &o, NULL, NULL, &error), GPTVQ_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "residual stream of a Gemma2ForCausalLM cannot be rotated"));
    assert_false(gptvq_path_exists("refused.partial"));
  }
  gptvq_error error = {0};
  tiny_write(&tiny_deepseek, "deepseek");
  assert_int_equal(gptvq_quantize("deepseek", "refused", &o, NULL, NULL, &error), GPTVQ_ERROR_UNSUPPORTED);
  assert_non_null(strstr(error.message, "heads of a DeepseekV3ForCausalLM cannot be rotated"));
}

/* Gates stand between the heads and o_proj. */
static void refused_before_gates(void **state) {
  (void)state;
  gptvq_quantize_options o = transform_options(GPTVQ_METHOD_GPTVQ);
  tiny_write(&tiny_qwen3_5, "qwen3_5");
  for (int rotate = GPTVQ_ROTATE_HEADS; rotate <= GPTVQ_ROTATE_ALL; rotate++) {
    gptvq_error error = {0};
    o.rotate = rotate;
    assert_int_equal(gptvq_quantize("qwen3_5", "refused", &o, NULL, NULL, &error), GPTVQ_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "the heads of a Qwen3_5ForCausalLM cannot be rotated"));
    assert_false(gptvq_path_exists("refused.partial"));
  }
}

/* Bounds as in tests/unit/test_pipeline.c. */
static void every_architecture_is_quantized(void **state) {
  (void)state;
  const tiny_model *models[] = {
      &tiny_llama,     &tiny_tied,    &tiny_mixtral,     &tiny_qwen2,     &tiny_qwen3,      &tiny_phi3,
      &tiny_gemma2,    &tiny_smollm3, &tiny_gemma3,      &tiny_olmo3,     &tiny_exaone4,    &tiny_qwen3_moe,
      &tiny_qwen2_moe, &tiny_olmoe,   &tiny_granite,     &tiny_glm4,      &tiny_ministral3, &tiny_gpt_oss,
      &tiny_deepseek,  &tiny_qwen3_5, &tiny_qwen3_5_moe, &tiny_qwen3_next};
  const gptvq_method methods[] = {GPTVQ_METHOD_GPTVQ, GPTVQ_METHOD_GPTQ, GPTVQ_METHOD_RTN};
  for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
    ok(gptvq_remove_tree("any", err));
    tiny_write(models[m], "any");
    for (size_t method = 0; method < 3; method++) {
      gptvq_quantize_options o = transform_options(methods[method]);
      const bool residual =
          models[m]->behind == 0 && !models[m]->glm4; /* see what_cannot_be_rotated_is_refused */
      if (!residual) o.rotate = GPTVQ_ROTATE_HEADS;
      if (models[m]->deepseek || models[m]->hybrid) o.rotate = GPTVQ_ROTATE_RESIDUAL;
      if (methods[method] == GPTVQ_METHOD_RTN) o.calib = NULL;
      o.force = 1;
      gptvq_quantize_report report = {.size = sizeof report};
      ok(gptvq_quantize("any", "packed", &o, NULL, &report, err));
      gptvq_free(report.expert_tokens);
      double distance = tiny_logit_distance("packed", "any"), bound = o.index_bits == 4 ? 0.5 : 0.8;
      if (!(distance < bound))
        fail_msg("%s, method %zu: logits are off by %g", models[m]->architecture, method, distance);
      assert_true(report.mean_error > 0 && report.mean_error < 0.3);
      assert_false(gptvq_path_exists("packed/transformed"));
      assert_false(gptvq_path_exists("packed.partial"));
      gptvq_model *packed, *original;
      ok(gptvq_model_open("packed", &in_fp32, &packed, err));
      ok(gptvq_model_open("any", &in_fp32, &original, err));
      size_t untied = models[m]->tied && residual ? TINY_VOCAB * TINY_HIDDEN : 0;
      assert_int_equal(packed->config.tie_embeddings, models[m]->tied && !residual);
      assert_int_equal(packed->info.parameters, original->info.parameters + untied);
      assert_int_equal(packed->embedding.dtype, GPTVQ_BF16);
      assert_int_equal(packed->head.dtype, GPTVQ_BF16);
      for (size_t b = 0; b < packed->config.layers; b++) {
        for (size_t i = 0; residual && i < TINY_HIDDEN; i++)
          assert_true(packed->blocks[b].norms[GPTVQ_NORM_ATTENTION][i] == 1.0f);
        for (size_t i = 0; i < packed->blocks[b].linear_count; i++) {
          assert_true(packed->blocks[b].linears[i].is_packed);
          assert_null(packed->blocks[b].linears[i].packed.permutation);
        }
      }
      gptvq_model_close(original);
      gptvq_model_close(packed);
      ok(gptvq_export_hf("packed", "plain", 1, NULL, err));
      distance = tiny_logit_distance("plain", "packed");
      /* a rounded input may turn a token to another expert, whose output is another one */
      if (!(distance < (models[m]->experts || models[m]->sparse ? 0.3 : 0.03)))
        fail_msg("%s, method %zu: the export is off by %g", models[m]->architecture, method, distance);
    }
  }
}

typedef struct watcher {
  size_t stop_after, layers, stop_at, events;
} watcher;
static int watch(void *user, const gptvq_progress *progress) {
  watcher *w = user;
  if (++w->events == w->stop_at) return 1;
  if (strcmp(progress->phase, "quantize") != 0 || isnan(progress->value)) return 0;
  return ++w->layers == w->stop_after;
}

/* Two threads, a run that was cut after its first block, and one that was cut while it wrote the transformed
 * model. */
static void the_same_bytes(void **state) {
  (void)state;
  gptvq_quantize_options o = transform_options(GPTVQ_METHOD_GPTVQ), other;
  gptvq_error error;
  tiny_write(&tiny_tied, "tied");
  gptvq_set_threads(1);
  ok(gptvq_quantize("tied", "whole", &o, NULL, NULL, err));
  gptvq_set_threads(2);
  ok(gptvq_quantize("tied", "two", &o, NULL, NULL, err));
  assert_same_folder("whole", "two");
  gptvq_set_threads(0);
  for (int gone = 0; gone < 2; gone++) {
    watcher w = {.stop_after = 9};
    const gptvq_callbacks callbacks = {sizeof callbacks, &w, NULL, watch};
    assert_int_equal(gptvq_quantize("tied", "cut", &o, &callbacks, NULL, &error), GPTVQ_ERROR_CANCELLED);
    assert_true(gptvq_path_exists("cut.partial/transformed/model.safetensors"));
    if (gone) ok(gptvq_remove_tree("cut.partial/transformed", err)); /* then it is made again */
    other = o;
    other.resume = 1;
    other.rotate = GPTVQ_ROTATE_HEADS;
    assert_int_equal(gptvq_quantize("tied", "cut", &other, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "`rotate` was 3, is now 2"));
    other.rotate = GPTVQ_ROTATE_ALL;
    ok(gptvq_quantize("tied", "cut", &other, NULL, NULL, err));
    assert_same_folder("whole", "cut");
    ok(gptvq_remove_tree("cut", err));
  }
  const size_t events[] = {3, 12, 20};
  for (size_t i = 0; i < 3; i++) {
    watcher w = {.stop_at = events[i]};
    const gptvq_callbacks callbacks = {sizeof callbacks, &w, NULL, watch};
    assert_int_equal(gptvq_quantize("tied", "cut", &o, &callbacks, NULL, &error), GPTVQ_ERROR_CANCELLED);
    assert_int_equal(w.layers, 0);
    assert_false(gptvq_path_exists("cut.partial")); /* nothing to resume: nothing stays */
  }
  o.seed++;
  ok(gptvq_quantize("tied", "three", &o, NULL, NULL, err));
  assert_true(tiny_logit_distance("whole", "three") > 0);
}

static void bad_numbers_are_named(void **state) {
  (void)state;
  tiny_model m = tiny_llama;
  m.bad_name = "layers.1.mlp.up_proj";
  m.bad = NAN;
  tiny_write(&m, "nan");
  for (int variant = 0; variant < 2; variant++) {
    gptvq_quantize_options o = transform_options(GPTVQ_METHOD_GPTVQ);
    gptvq_error error = {0};
    if (variant > 0) o.rotate = 0;
    assert_int_equal(gptvq_quantize("nan", "out", &o, NULL, NULL, &error), GPTVQ_ERROR_NUMERIC);
    if (strstr(error.message,
               "model.layers.1.mlp.up_proj.weight holds NaN or infinity at row 48, column 0") == NULL)
      fail_msg("%s", error.message);
    assert_false(gptvq_path_exists("out.partial"));
  }
  gptvq_quantize_options o = transform_options(GPTVQ_METHOD_GPTVQ);
  gptvq_error error = {0};
  o.rotate = 4;
  assert_int_equal(gptvq_quantize("nan", "out", &o, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "`rotate` 4"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rotations_are_orthogonal),
      cmocka_unit_test(the_function_stays),
      cmocka_unit_test(what_cannot_be_rotated_is_refused),
      cmocka_unit_test(refused_before_gates),
      cmocka_unit_test(every_architecture_is_quantized),
      cmocka_unit_test(the_same_bytes),
      cmocka_unit_test(bad_numbers_are_named),
  };
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
