#include "quant/resume.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char state_name[] = "resume.json", tokens_name[] = "calibration.tokens";
enum { STATE_FORMAT = 2, SAMPLED_BYTES = 256 };

const char *gptvq_method_name(gptvq_method method) {
  switch (method) {
  case GPTVQ_METHOD_GPTVQ: return "gptvq";
  case GPTVQ_METHOD_GPTQ: return "gptq";
  case GPTVQ_METHOD_RTN: return "rtn";
  case GPTVQ_METHOD_KMEANS: return "kmeans";
  }
  return "unknown";
}

static const char *init_name(gptvq_em_init init) {
  switch (init) {
  case GPTVQ_INIT_MAHALANOBIS: return "mahalanobis";
  case GPTVQ_INIT_KMEANSPP: return "kmeans++";
  case GPTVQ_INIT_CDF: return "cdf";
  }
  return "unknown";
}

json_t *gptvq_options_json(const gptvq_quantize_options *o) {
  json_t *json = json_pack(
      "{s:s, s:f, s:i, s:i, s:I, s:I, s:i, s:i, s:s, s:i, s:b, s:b, s:b, s:b, s:i, s:i, s:b, s:f, s:I, s:I, "
      "s:I, s:I, s:f,"
      " s:f, s:f, s:i, s:f, s:f, s:b, s:i, s:i}",
      "method", gptvq_method_name(o->method), "bits", o->bits, "dim", (int)o->dim, "index_bits",
      (int)o->index_bits, "group_size", (json_int_t)o->group_size, "group_cols", (json_int_t)o->group_cols,
      "codebook_bits", (int)o->codebook_bits, "scale_block", (int)o->scale_block, "em_init",
      init_name(o->em_init), "em_iterations", (int)o->em_iterations, "hessian_weights",
      o->hessian_weights != 0, "exact_metric", o->exact_metric != 0, "feedback", o->feedback != 0,
      "codebook_update", o->codebook_update != 0, "reassign_rounds", (int)o->reassign_rounds, "act_order",
      o->act_order, "true_sequential", o->true_sequential != 0, "damping", o->damping, "seed",
      (json_int_t)o->seed, "finetune_steps", (json_int_t)o->finetune_steps, "finetune_block_steps",
      (json_int_t)o->finetune_block_steps, "finetune_batch", (json_int_t)o->finetune_batch, "finetune_rate",
      o->finetune_rate, "mismatch", o->mismatch, "mismatch_stream", o->mismatch_stream, "beam", (int)o->beam,
      "finetune_index_rate", o->finetune_index_rate, "guide", o->guide, "allocate", o->allocate, "rotate",
      o->rotate, "head_bits", (int)o->head_bits);
  if (json != NULL && o->svd_rank > 0 &&
      json_object_set_new(json, "svd_rank", json_integer((json_int_t)o->svd_rank)) != 0) {
    json_decref(json); /* absent means none: folders without factors stay byte for byte what they were */
    json = NULL;
  }
  return json;
}

json_t *gptvq_calibration_json(const gptvq_calibration *c, uint64_t seed) {
  return json_pack("{s:s, s:I, s:I, s:I, s:I}", "source", c->source, "samples", (json_int_t)c->samples,
                   "length", (json_int_t)c->length, "seed", (json_int_t)seed, "tokens",
                   (json_int_t)(c->samples * c->length));
}

static void hex(uint64_t hash, char text[17]) {
  (void)snprintf(text, 17, "%016llx", (unsigned long long)hash);
}

static uint64_t hash_tensors(const gptvq_checkpoint *checkpoint) {
  uint64_t hash = GPTVQ_HASH_START;
  for (size_t i = 0; i < gptvq_checkpoint_tensor_count(checkpoint); i++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(checkpoint, i);
    uint64_t header[3] = {(uint64_t)tensor->type, tensor->rank, tensor->bytes};
    hash = gptvq_hash(hash, tensor->name, strlen(tensor->name) + 1);
    hash = gptvq_hash(hash, header, sizeof header);
    hash = gptvq_hash(hash, tensor->dims, tensor->rank * sizeof tensor->dims[0]);
    size_t part = gptvq_min_size(tensor->bytes, SAMPLED_BYTES);
    if (part == 0) continue;
    hash = gptvq_hash(hash, tensor->data,
                      part); /* tells a fine-tuned sibling apart without reading everything */
    hash = gptvq_hash(hash, tensor->data + (tensor->bytes - part), part);
  }
  return hash;
}

json_t *gptvq_run_identity(const gptvq_model *model, const gptvq_quantize_options *options) {
  char *config = gptvq_json_dump(gptvq_checkpoint_config(model->checkpoint), JSON_COMPACT | JSON_SORT_KEYS);
  json_t *shape = gptvq_options_json(options), *identity = NULL;
  if (config == NULL || shape == NULL) goto done;
  if (options->method == GPTVQ_METHOD_GPTVQ || options->method == GPTVQ_METHOD_GPTQ) {
    json_t *samples = json_integer((json_int_t)options->calib_samples);
    json_t *length = json_integer((json_int_t)options->calib_length);
    if (json_object_set_new(shape, "calib_samples", samples) != 0 ||
        json_object_set_new(shape, "calib_length", length) != 0)
      goto done;
  }
  char config_hash[17], tensor_hash[17];
  hex(gptvq_hash(GPTVQ_HASH_START, config, strlen(config)), config_hash);
  hex(hash_tensors(model->checkpoint), tensor_hash);
  identity = json_pack("{s:i, s:s, s:O, s:{s:s, s:s, s:I}}", "format", STATE_FORMAT, "gptvq_version",
                       gptvq_version(), "options", shape, "model", "config", config_hash, "tensors",
                       tensor_hash, "parameters", (json_int_t)model->info.parameters);
done:
  json_decref(shape);
  free(config);
  return identity;
}

gptvq_status gptvq_run_state_read(const gptvq_output *out, bool *found, gptvq_run_state *state,
                                  gptvq_error *err) {
  char path[GPTVQ_PATH_MAX], *text = NULL;
  size_t size;
  *found = false;
  *state = (gptvq_run_state){0};
  GPTVQ_TRY(gptvq_output_path(out, state_name, path, err));
  if (!gptvq_path_exists(path)) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_read_file(path, 1 << 20, &text, &size, err));
  json_error_t where;
  json_t *root = gptvq_json_parse(text, size, JSON_REJECT_DUPLICATES, &where);
  free(text);
  if (root == NULL && gptvq_json_no_memory(&where)) return gptvq_fail_memory(err, path, size);
  const char *hash = json_string_value(json_object_get(root, "calibration_hash"));
  json_t *identity = json_object_get(root, "run"), *blocks = json_object_get(root, "blocks");
  gptvq_status status = GPTVQ_OK;
  if (hash == NULL || strlen(hash) >= sizeof state->calibration_hash || !json_is_object(identity) ||
      !json_is_integer(blocks) || json_integer_value(blocks) < 0) {
    status = gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s is damaged: the run cannot be resumed; start over with --force", path);
  } else {
    *found = true;
    strcpy(state->calibration_hash, hash);
    state->blocks = (size_t)json_integer_value(blocks);
    state->finetuned = json_is_true(json_object_get(root, "finetuned"));
    state->finetune_before = json_number_value(json_object_get(root, "finetune_before"));
    state->finetune_after = json_number_value(json_object_get(root, "finetune_after"));
    state->identity = json_incref(identity);
  }
  json_decref(root);
  return status;
}

gptvq_status gptvq_run_state_write(const gptvq_output *out, const gptvq_run_state *state, gptvq_error *err) {
  char path[GPTVQ_PATH_MAX];
  GPTVQ_TRY(gptvq_output_path(out, state_name, path, err));
  json_t *root =
      json_pack("{s:O, s:s, s:I, s:b, s:f, s:f}", "run", state->identity, "calibration_hash",
                state->calibration_hash, "blocks", (json_int_t)state->blocks, "finetuned", state->finetuned,
                "finetune_before", state->finetune_before, "finetune_after", state->finetune_after);
  if (root == NULL) return gptvq_fail_memory(err, path, 0);
  gptvq_status status = gptvq_write_json(path, root, err);
  json_decref(root);
  return status;
}

void gptvq_run_state_release(gptvq_run_state *state) {
  json_decref(state->identity);
  *state = (gptvq_run_state){0};
}

typedef struct difference_list {
  char text[600];
  size_t count;
} difference_list;

static void add_difference(difference_list *list, const char *name, const json_t *saved, const json_t *now) {
  if (list->count++ >= 3) return;
  char *a = saved != NULL ? gptvq_json_dump(saved, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
  char *b = now != NULL ? gptvq_json_dump(now, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
  size_t used = strlen(list->text);
  (void)snprintf(list->text + used, sizeof list->text - used, "%s%s was %.60s, is now %.60s",
                 used > 0 ? "; " : "", name, a != NULL ? a : "absent", b != NULL ? b : "absent");
  free(a);
  free(b);
}

static void compare(difference_list *list, const char *prefix, const json_t *saved, const json_t *now) {
  const char *key;
  json_t *value;
  char name[128];
  json_object_foreach((json_t *)(uintptr_t)now, key, value) {
    const json_t *before = json_object_get(saved, key);
    (void)snprintf(name, sizeof name, "%s%s", prefix, key);
    if (json_is_object(value) && json_is_object(before)) {
      char inner[160];
      (void)snprintf(inner, sizeof inner, "%s.", name);
      compare(list, strcmp(key, "options") == 0 ? "" : inner, before, value);
    } else if (before == NULL || !json_equal(before, value)) {
      add_difference(list, name, before, value);
    }
  }
  json_object_foreach((json_t *)(uintptr_t)saved, key, value) {
    if (json_object_get(now, key) != NULL) continue;
    (void)snprintf(name, sizeof name, "%s%s", prefix, key);
    add_difference(list, name, value, NULL);
  }
}

gptvq_status gptvq_run_identity_compare(const gptvq_output *out, const json_t *saved, const json_t *now,
                                        gptvq_error *err) {
  difference_list list = {0};
  compare(&list, "", saved, now);
  if (list.count == 0) return GPTVQ_OK;
  return gptvq_fail(
      err, GPTVQ_ERROR_ARGUMENT,
      "%s cannot be resumed with these options: %s%s; repeat the first run's options, or start over "
      "with --force",
      out->work, list.text, list.count > 3 ? "; and more" : "");
}

gptvq_status gptvq_saved_tokens_write(const gptvq_output *out, const gptvq_calibration *c, gptvq_error *err) {
  char path[GPTVQ_PATH_MAX];
  GPTVQ_TRY(gptvq_output_path(out, tokens_name, path, err));
  return gptvq_write_file(path, c->tokens, c->samples * c->length * sizeof *c->tokens, err);
}

gptvq_status gptvq_saved_tokens_read(const gptvq_output *out, const char *hash, gptvq_calibration *c,
                                     bool *found, gptvq_error *err) {
  char path[GPTVQ_PATH_MAX], actual[17];
  gptvq_mapping file;
  *found = false;
  GPTVQ_TRY(gptvq_output_path(out, tokens_name, path, err));
  if (!gptvq_path_exists(path)) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_map_file(path, &file, err));
  if (file.size == c->samples * c->length * sizeof *c->tokens) {
    memcpy(c->tokens, file.data, file.size);
    c->hash = gptvq_calibration_hash(c->samples, c->length, c->tokens);
    hex(c->hash, actual);
    *found = strcmp(actual, hash) == 0;
  }
  gptvq_unmap_file(&file);
  return GPTVQ_OK;
}

void gptvq_run_state_remove(const char *folder) {
  const char *names[] = {state_name, tokens_name};
  for (size_t i = 0; i < 2; i++) {
    char path[GPTVQ_PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    if (length > 0 && length < GPTVQ_PATH_MAX) (void)unlink(path);
  }
}
