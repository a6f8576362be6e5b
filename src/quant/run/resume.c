#include "quant/run/resume.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/threads.h"
#include "checkpoint/output_files.h"

#include <stdio.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 20 };

/* A file's name need not be UTF-8, and a long list of names is cut anywhere. */
static json_t *source_json(const char *source) {
  char plain[sizeof((gptvq_calibration *)0)->source];
  json_t *text = json_string(source);
  if (text != NULL) return text;
  for (size_t i = 0; i <= strlen(source); i++) plain[i] = (unsigned char)source[i] < 0x80 ? source[i] : '?';
  return json_string(plain);
}

json_t *gptvq_calibration_json(const gptvq_calibration *c, uint64_t seed) {
  return json_pack("{s:o, s:I, s:I, s:I, s:I}", "source", source_json(c->source), "samples",
                   (json_int_t)c->samples, "length", (json_int_t)c->length, "seed", (json_int_t)seed,
                   "tokens", (json_int_t)(c->samples * c->length));
}

/* A stretch of a tensor. All bytes count: nothing else tells a model from one with a changed weight. And as
 * they are read, NaN and infinity are found now, not hours later. */
typedef struct piece {
  const gptvq_tensor *tensor;
  size_t at, bytes;
  uint64_t hash;
  bool finite;
} piece;

static void hash_pieces(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  piece *pieces = context;
  for (piece *p = pieces + begin; p < pieces + end; p++) {
    /* a power of two, and so are the pieces; 0 for types that are not numbers to us */
    size_t size = gptvq_max_size(1, gptvq_tensor_type_size(p->tensor->type));
    p->hash = gptvq_hash(0, p->tensor->data + p->at, p->bytes);
    p->finite = gptvq_tensor_is_finite(p->tensor, p->at / size, p->bytes / size);
    gptvq_mapping_rest(p->tensor->data + p->at, p->bytes);
  }
}

static gptvq_status hash_tensors(const gptvq_checkpoint *checkpoint, uint64_t *out, gptvq_error *err) {
  size_t tensors = gptvq_checkpoint_tensor_count(checkpoint), count = 0, next = 0;
  for (size_t t = 0; t < tensors; t++)
    count += gptvq_ceil_div(gptvq_checkpoint_tensor_at(checkpoint, t)->bytes, PIECE_BYTES);
  piece *pieces = gptvq_alloc(count, sizeof *pieces);
  if (pieces == NULL)
    return gptvq_fail_memory(err, "the hash of the model", gptvq_saturated_size(count, sizeof *pieces));
  for (size_t t = 0; t < tensors; t++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(checkpoint, t);
    for (size_t at = 0; at < tensor->bytes; at += PIECE_BYTES)
      pieces[next++] =
          (piece){.tensor = tensor, .at = at, .bytes = gptvq_min_size(tensor->bytes - at, PIECE_BYTES)};
  }
  gptvq_parallel_for(count, 1, hash_pieces, pieces);
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; i < count && status == GPTVQ_OK; i++)
    if (!pieces[i].finite) status = gptvq_tensor_check_finite(pieces[i].tensor, err); /* says where */
  uint64_t hash = 0;
  next = 0;
  for (size_t t = 0; t < tensors; t++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(checkpoint, t);
    uint64_t header[3] = {(uint64_t)tensor->type, tensor->rank, tensor->bytes};
    hash = gptvq_hash(hash, tensor->name, strlen(tensor->name) + 1);
    hash = gptvq_hash(hash, header, sizeof header);
    hash = gptvq_hash(hash, tensor->dims, tensor->rank * sizeof tensor->dims[0]);
    gptvq_mapping_rest(tensor->data, tensor->bytes); /* pages between pieces, too */
    for (size_t at = 0; at < tensor->bytes; at += PIECE_BYTES, next++)
      hash = gptvq_hash(hash, &pieces[next].hash, sizeof pieces[next].hash);
  }
  free(pieces);
  *out = hash;
  return status;
}

gptvq_status gptvq_run_identity(const gptvq_model *model, const gptvq_resolved *options, json_t **identity,
                                gptvq_error *err) {
  gptvq_method method = options->options.method;
  uint64_t tensors = 0, side_files = 0;
  *identity = NULL;
  GPTVQ_TRY(hash_tensors(model->checkpoint, &tensors, err));
  GPTVQ_TRY(gptvq_hash_side_files(gptvq_checkpoint_folder(model->checkpoint), &side_files, err));
  char *config = gptvq_json_dump(gptvq_checkpoint_config(model->checkpoint), JSON_COMPACT | JSON_SORT_KEYS);
  json_t *shape = gptvq_options_json(options), *data = NULL, *run = gptvq_output_run("quantize");
  bool fine = config != NULL && shape != NULL && run != NULL;
  if (fine && (method == GPTVQ_METHOD_GPTVQ || method == GPTVQ_METHOD_GPTQ)) {
    data = gptvq_options_data_json(options);
    fine = data != NULL && json_object_update(shape, data) == 0;
  }
  if (fine && options->shared != 0.0 && options->shared != options->options.bits)
    fine = json_object_set_new(shape, "shared_bits", json_real(options->shared)) == 0;
  if (fine) {
    char config_hash[17], tensor_hash[17], side_hash[17];
    gptvq_hash_text(gptvq_hash(0, config, strlen(config)), config_hash);
    gptvq_hash_text(tensors, tensor_hash);
    gptvq_hash_text(side_files, side_hash);
    fine = json_object_set(run, "options", shape) == 0 &&
           json_object_set_new(run, "model",
                               json_pack("{s:s, s:s, s:s, s:I}", "config", config_hash, "tensors",
                                         tensor_hash, "side_files", side_hash, "parameters",
                                         (json_int_t)model->info.parameters)) == 0;
  }
  json_decref(shape);
  json_decref(data);
  free(config);
  if (fine) {
    *identity = run;
    return GPTVQ_OK;
  }
  json_decref(run);
  return gptvq_fail_memory(err, "the description of the run", 0);
}

gptvq_status gptvq_run_state_parse(const gptvq_output *out, const json_t *root, bool *found,
                                   gptvq_run_state *state, gptvq_error *err) {
  const char *hash = json_string_value(json_object_get(root, "calibration_hash"));
  json_t *identity = json_object_get(root, "run"), *blocks = json_object_get(root, "blocks");
  *found = false;
  *state = (gptvq_run_state){0};
  if (blocks == NULL) return GPTVQ_OK; /* nothing was begun, or not by this command */
  if (hash == NULL || strlen(hash) >= sizeof state->calibration_hash || !json_is_object(identity) ||
      !json_is_integer(blocks) || json_integer_value(blocks) < 0)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/" GPTVQ_STATE_NAME
                      " is damaged: the run cannot be resumed; start over with `force`",
                      out->published ? out->path : out->work);
  *found = true;
  strcpy(state->calibration_hash, hash);
  state->blocks = (size_t)json_integer_value(blocks);
  state->finetuned = json_is_true(json_object_get(root, "finetuned"));
  state->finetune_before = json_number_value(json_object_get(root, "finetune_before"));
  state->finetune_after = json_number_value(json_object_get(root, "finetune_after"));
  state->identity = json_incref(identity);
  return GPTVQ_OK;
}

gptvq_status gptvq_run_state_write(const gptvq_output *out, const gptvq_run_state *state, gptvq_error *err) {
  json_t *root =
      json_pack("{s:O, s:s, s:I, s:b, s:f, s:f}", "run", state->identity, "calibration_hash",
                state->calibration_hash, "blocks", (json_int_t)state->blocks, "finetuned", state->finetuned,
                "finetune_before", state->finetune_before, "finetune_after", state->finetune_after);
  if (root == NULL) return gptvq_fail_memory(err, "the state of the run", 0);
  gptvq_status status = gptvq_output_write_state(out, root, err);
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

/* A value as its option is given; of an option that is not there what that means, if it is not 0.
 */
static void print_value(const char *name, const json_t *value, char *text, size_t size) {
  const gptvq_field *field = gptvq_field_find(name);
  char *json = value != NULL ? gptvq_json_dump(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
  if (field != NULL && field->choices != NULL && json_is_boolean(value))
    (void)snprintf(text, size, "%s", field->choices[json_is_true(value)]);
  else if (json != NULL) (void)snprintf(text, size, "%s", json);
  else if (field != NULL && field->choices != NULL && field->absent != 0.0)
    (void)snprintf(text, size, "\"%s\"", field->choices[(size_t)field->absent]);
  else if (field != NULL && field->absent != 0.0) (void)snprintf(text, size, "%g", field->absent);
  else (void)snprintf(text, size, "absent");
  free(json);
}

static void add_difference(difference_list *list, const char *name, const json_t *saved, const json_t *now) {
  char before[64], after[64];
  if (list->count++ >= 3) return;
  print_value(name, saved, before, sizeof before);
  print_value(name, now, after, sizeof after);
  const size_t used = strlen(list->text);
  (void)snprintf(list->text + used, sizeof list->text - used, "%s`%s` was %s, is now %s",
                 used > 0 ? "; " : "", name, before, after);
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
  const char *folder = out->published ? out->path : out->work;
  json_int_t format = json_integer_value(json_object_get(saved, "format"));
  if (format != GPTVQ_STATE_FORMAT)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "%s was begun by gptvq %s, whose runs this version cannot resume (their state has format "
        "%" JSON_INTEGER_FORMAT ", not %d): start over with `force`",
        folder, json_string_value(json_object_get(saved, "gptvq_version")), format, GPTVQ_STATE_FORMAT);
  compare(&list, "", saved, now);
  if (list.count == 0) return GPTVQ_OK;
  return gptvq_fail(
      err, GPTVQ_ERROR_ARGUMENT,
      "%s cannot be resumed: %s%s; repeat the first run's options on the same model, or start over "
      "with `force`",
      folder, list.text, list.count > 3 ? "; and more" : "");
}

gptvq_status gptvq_saved_tokens_write(const gptvq_output *out, const gptvq_calibration *c, gptvq_error *err) {
  char path[GPTVQ_PATH_MAX];
  if (c->written_count == 0) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_output_path(out, GPTVQ_TOKENS_NAME, path, err));
  return gptvq_write_file(path, c->written, c->written_count * c->length * sizeof *c->written, err);
}

gptvq_status gptvq_saved_tokens_map(const gptvq_output *out, size_t length, gptvq_mapping *file,
                                    gptvq_token_windows *written, gptvq_error *err) {
  char path[GPTVQ_PATH_MAX];
  *file = (gptvq_mapping){0};
  *written = (gptvq_token_windows){0};
  GPTVQ_TRY(gptvq_output_path(out, GPTVQ_TOKENS_NAME, path, err));
  if (!gptvq_path_exists(path)) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_map_file(path, file, err));
  size_t window = length * sizeof *written->tokens;
  if (file->size % window != 0) return GPTVQ_OK; /* not what was written: it will be written anew */
  *written = (gptvq_token_windows){file->size / window, length, (const int32_t *)file->data};
  return GPTVQ_OK;
}
