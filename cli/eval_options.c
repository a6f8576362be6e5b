#include "cli.h"

#include <stdlib.h>
#include <string.h>

const char *const *gptvq_cli_computes(void) {
  static const char *names[8];
  for (int i = 0; i < 7 && strcmp(gptvq_compute_name((gptvq_compute)i), "unknown") != 0; i++)
    names[i] = gptvq_compute_name((gptvq_compute)i);
  return names;
}

void gptvq_cli_eval_init(gptvq_cli_eval *eval) {
  memset(eval, 0, sizeof *eval);
  gptvq_eval_options_init(&eval->options);
  gptvq_model_options_init(&eval->model_options);
  eval->compute = GPTVQ_COMPUTE_FP32;
}

void gptvq_cli_eval_table(gptvq_cli_eval *eval, gptvq_option table[GPTVQ_CLI_EVAL_OPTIONS]) {
  const gptvq_option options[GPTVQ_CLI_EVAL_OPTIONS] = {
      {GPTVQ_OPTION_LINES, "text", .value = &eval->text_paths, .argument = "FILE",
       .help = "the text to predict (UTF-8; - for standard input). Several: give it for each"},
      {GPTVQ_OPTION_SIZE, "ctx", .value = &eval->options.ctx, .min = 2, .max = 1 << 24, .argument = "N",
       .help = "tokens per window (default: 2048, or the model's context if smaller)"},
      {GPTVQ_OPTION_SIZE, "max-windows", .value = &eval->options.max_windows, .min = 1, .max = 1e15,
       .argument = "N", .help = "only the first N windows (default: all)"},
      {GPTVQ_OPTION_SIZE, "score-from", .value = &eval->options.score_from, .min = 0, .max = 1 << 24,
       .argument = "P",
       .help = "score only predictions made at positions >= P of each window (default 0: all ctx - 1;\n"
               "--ctx 512 --score-from 256 is llama.cpp's protocol)"},
      {GPTVQ_OPTION_SWITCH, "bos", .value = &eval->options.bos,
       .help = "put the tokenizer's BOS before the text, once (default: --no-bos)"},
      {GPTVQ_OPTION_CHOICE, "compute", .value = &eval->compute, .choices = gptvq_cli_computes(),
       .argument = "auto|fp32|bf16|int8",
       .help =
           "precision of the inputs of matrix products; sums are fp32 always; int8 is for packed layers,\n"
           "on the CPU (default fp32)"},
      {GPTVQ_OPTION_STRING, "device", .value = &eval->device_name, .argument = "cpu|cuda[:N]|auto|shim",
       .help =
           "where blocks and head run on --text: on the CPU, a CUDA card (of number N), a card where one\n"
           "will do, or, for tests, a card's kernels on the CPU; with cuda and shim --compute auto is bf16 "
           "(default cpu)"},
      {GPTVQ_OPTION_UNSIGNED, "head-bits", .value = &eval->model_options.head_bits, .min = 8, .max = 16,
       .argument = "8|16", .help = "weights of the output head (default: 8 with int8, else as stored)"},
      {GPTVQ_OPTION_FLAG, "record", .value = &eval->record,
       .help = "keep the result in the packed folder (gptvq.json), for gptvq report"},
      {GPTVQ_OPTION_FLAG, "json", .value = &eval->json, .help = "the result as JSON"},
      {.kind = GPTVQ_OPTION_END}};
  memcpy(table, options, sizeof options);
}

static int load(gptvq_cli_eval *eval, size_t i) {
  gptvq_error err;
  const char *path = eval->paths[i];
  if (gptvq_cli_read_file(path, &eval->texts[i], &eval->sizes[i], &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  if (eval->sizes[i] == 0)
    return gptvq_cli_error(GPTVQ_ERROR_DATA, "%s is empty: there is no text to predict", path);
  return 0;
}

int gptvq_cli_eval_load(gptvq_cli_eval *eval, const char *command) {
  const char *paths = eval->task_path != NULL ? eval->task_path : eval->text_paths;
  if (paths == NULL)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "--text FILE is missing; see gptvq %s --help", command);
  if (eval->compute == GPTVQ_COMPUTE_AUTO && eval->device_name != NULL &&
      (strncmp(eval->device_name, "cuda", 4) == 0 || strcmp(eval->device_name, "shim") == 0))
    eval->compute = GPTVQ_COMPUTE_BF16; /* which the processor need not have */
  eval->model_options.compute = (gptvq_compute)eval->compute;
  size_t most = 1;
  for (const char *at = paths; *at != '\0'; at++) most += *at == '\n';
  eval->paths = calloc(most, sizeof *eval->paths);
  eval->texts = calloc(most, sizeof *eval->texts);
  eval->sizes = calloc(most, sizeof *eval->sizes);
  if (eval->paths == NULL || eval->texts == NULL || eval->sizes == NULL)
    return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory for %zu texts", most);
  for (const char *at = paths; at != NULL;) {
    size_t length = strcspn(at, "\n");
    char *path = strndup(at, length);
    if (path == NULL) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory for %zu texts", most);
    eval->paths[eval->count++] = path;
    int code = load(eval, eval->count - 1);
    if (code != 0) return code;
    at = at[length] != '\0' ? at + length + 1 : NULL;
  }
  return 0;
}

int gptvq_cli_eval_open_device(gptvq_cli_eval *eval, const gptvq_model *a, const gptvq_model *b) {
  gptvq_cli_progress progress;
  const gptvq_callbacks callbacks = gptvq_cli_progress_callbacks(&progress);
  gptvq_error err;
  if (gptvq_eval_device_open(eval->device_name, a, b, &eval->options, &callbacks, &eval->device, &err) !=
      GPTVQ_OK)
    return gptvq_cli_fail(&err);
  eval->options.device = eval->device;
  return 0;
}

void gptvq_cli_eval_release(gptvq_cli_eval *eval) {
  gptvq_eval_device_close(eval->device);
  for (size_t i = 0; i < eval->count; i++) {
    free(eval->paths[i]);
    free(eval->texts[i]);
  }
  free(eval->paths);
  free(eval->texts);
  free(eval->sizes);
}

void gptvq_cli_eval_choose(gptvq_cli_eval *eval, size_t i) {
  eval->options.name = gptvq_cli_file_name(eval->paths[i]);
}

int gptvq_cli_eval_width(const gptvq_cli_eval *eval) {
  size_t width = strlen("worst");
  for (size_t i = 0; i < eval->count; i++)
    if (strlen(eval->paths[i]) > width) width = strlen(eval->paths[i]);
  return width < 60 ? (int)width : 60;
}

void gptvq_cli_eval_warn(const gptvq_cli_eval *eval, const char *path, const gptvq_model *model) {
  gptvq_model_info info = {.size = sizeof info};
  gptvq_model_get_info(model, &info);
  if (info.max_positions > 0 && eval->options.ctx > info.max_positions)
    gptvq_cli_warn("--ctx %zu is more than the %zu positions that %s was trained for", eval->options.ctx,
                   info.max_positions, path);
}

json_t *gptvq_cli_eval_json(const gptvq_eval_result *result, const char *path, const gptvq_model *model) {
  gptvq_model_info info = {.size = sizeof info};
  gptvq_model_get_info(model, &info);
  json_t *object = json_object();
  gptvq_cli_json_set(object, "model", gptvq_cli_text(path));
  gptvq_cli_json_set(object, "perplexity", gptvq_cli_number(result->perplexity));
  gptvq_cli_json_set(object, "nll", gptvq_cli_number(result->nll));
  gptvq_cli_json_set(object, "tokens", json_integer((json_int_t)result->tokens));
  gptvq_cli_json_set(object, "bits_per_value", gptvq_cli_number(info.bits_per_value));
  gptvq_cli_json_set(object, "model_bits_per_value", gptvq_cli_number(info.model_bits_per_value));
  return object;
}

void gptvq_cli_eval_json_run(json_t *object, const gptvq_cli_eval *eval, size_t i, size_t windows, size_t ctx,
                             size_t score_from, double seconds) {
  gptvq_cli_json_set(object, "windows", json_integer((json_int_t)windows));
  gptvq_cli_json_set(object, "ctx", json_integer((json_int_t)ctx));
  gptvq_cli_json_set(object, "score_from", json_integer((json_int_t)score_from));
  gptvq_cli_json_set(object, "bos", json_boolean(eval->options.bos));
  gptvq_cli_json_set(object, "text", gptvq_cli_text(eval->paths[i]));
  gptvq_cli_json_set(object, "compute", json_string(gptvq_compute_name((gptvq_compute)eval->compute)));
  gptvq_cli_json_set(object, "device", json_string(gptvq_eval_device_name(eval->device)));
  gptvq_cli_json_set(object, "seconds", gptvq_cli_number(seconds));
  double predicted = (double)windows * (double)ctx;
  gptvq_cli_json_set(object, "tokens_per_second", gptvq_cli_number(seconds > 0 ? predicted / seconds : 0));
}

int gptvq_cli_eval_packed(const char *path, const gptvq_model *model) {
  gptvq_error err;
  if (gptvq_model_quantization_json(model) == NULL)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "--record keeps results in packed folders, and %s is none",
                           path);
  return gptvq_record_evaluation(path, NULL, 0, &err) != GPTVQ_OK ? gptvq_cli_fail(&err) : 0;
}

int gptvq_cli_eval_record(const gptvq_cli_eval *eval, const char *folder, const json_t *object) {
  static const char *const local[] = {"model", "model_a", "model_b", "tokens_per_second"};
  if (!eval->record) return 0;
  json_t *kept = json_copy((json_t *)(uintptr_t)object);
  for (size_t i = 0; i < sizeof local / sizeof *local; i++) (void)json_object_del(kept, local[i]);
  const char *path =
      json_string_value(json_object_get(kept, "text")); /* whose folders are nobody's business */
  const char *slash = path != NULL ? strrchr(path, '/') : NULL;
  char *name = slash != NULL ? strdup(slash + 1) : NULL;
  if (name != NULL) gptvq_cli_json_set(kept, "text", gptvq_cli_text(name));
  free(name);
  if (eval->options.max_windows > 0)
    gptvq_cli_json_set(kept, "max_windows", json_integer((json_int_t)eval->options.max_windows));
  size_t size;
  char *text = kept == NULL ? NULL : gptvq_cli_json_text(kept, JSON_COMPACT, &size);
  json_decref(kept);
  gptvq_error err;
  int code = text == NULL ? gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory for an evaluation")
             : gptvq_record_evaluation(folder, text, size, &err) != GPTVQ_OK ? gptvq_cli_fail(&err)
                                                                             : 0;
  free(text);
  return code;
}

int gptvq_cli_eval_print_json(const gptvq_cli_eval *eval, json_t *texts) {
  if (eval->count > 1) return gptvq_cli_print_json(json_pack("{s:o}", "texts", texts));
  json_t *only = json_incref(json_array_get(texts, 0));
  json_decref(texts);
  return gptvq_cli_print_json(only);
}
