/* gptvq inspect: the layers of a model folder, how they are stored, and what that takes. */
#include "cli.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* "gptvq vq d=2 k=64 c8" (c8 r2: factors of rank 2) / "rtn uniform 2 bits" / "bf16" */
static void describe(const gptvq_layer_info *layer, char text[64]) {
  const char *space = layer->method[0] != '\0' ? " " : "";
  if (strcmp(layer->format, "vq") == 0) {
    int length = snprintf(text, 64, "%s%s%s d=%u k=%zu c%u", layer->method, space, layer->format, layer->dim,
                          (size_t)1 << layer->index_bits, layer->codebook_bits);
    if (layer->svd_rank > 0 && length > 0 && length < 64)
      (void)snprintf(text + length, 64 - (size_t)length, " r%u", layer->svd_rank);
  } else if (layer->index_bits > 0)
    (void)snprintf(text, 64, "%s%s%s %u-bit", layer->method, space, layer->format, layer->index_bits);
  else (void)snprintf(text, 64, "%s%s%s", layer->method, space, layer->format);
}

static void print_layers(const gptvq_model *model) {
  size_t count = gptvq_model_layer_count(model), width = 5, format_width = 6;
  gptvq_layer_info layer = {.size = sizeof layer};
  char text[64], shape[48], group[48], scale[16], error[16];
  for (size_t i = 0; i < count; i++) {
    gptvq_model_get_layer(model, i, &layer);
    describe(&layer, text);
    if (strlen(layer.name) > width) width = strlen(layer.name);
    if (strlen(text) > format_width) format_width = strlen(text);
  }
  printf("%-*s  %13s  %-*s  %11s  %5s  %8s  %11s  %8s\n", (int)width, "layer", "rows x cols",
         (int)format_width, "format", "group", "scale", "bits", "bytes", "error");
  for (size_t i = 0; i < count; i++) {
    gptvq_model_get_layer(model, i, &layer);
    describe(&layer, text);
    (void)snprintf(shape, sizeof shape, "%zu x %zu", layer.rows, layer.cols);
    (void)snprintf(group, sizeof group, "%zu x %zu", layer.group_rows, layer.group_cols);
    (void)snprintf(scale, sizeof scale, "%u", layer.scale_block);
    (void)snprintf(error, sizeof error, "%.5f", layer.error);
    printf("%-*s  %13s  %-*s  %11s  %5s  %8.4f  %11" PRIu64 "  %8s\n", (int)width, layer.name, shape,
           (int)format_width, text, strcmp(layer.format, "vq") == 0 ? group : "-",
           layer.scale_block > 0 ? scale : "-", layer.bits_per_value, layer.bytes,
           isnan(layer.error) ? "-" : error);
  }
}

static void print_others(const gptvq_model *model) {
  gptvq_other_info other = {.size = sizeof other};
  for (int used = 1; used >= 0; used--)
    for (size_t i = 0; i < gptvq_model_other_count(model); i++) {
      gptvq_model_get_other(model, i, &other);
      if (other.used != used) continue;
      printf("%s  %s, ",
             !used                  ? "left out     "
             : other.index_bits > 0 ? "packed       "
                                    : "not quantized",
             other.name);
      if (strchr(other.name, '*') != NULL)
        printf("%zu tensor%s of %zu values", other.tensors, other.tensors == 1 ? "" : "s", other.rows);
      else printf("%zu x %zu", other.rows, other.cols);
      printf(", %" PRIu64 " bytes", other.bytes);
      if (other.index_bits > 0)
        printf(", %.4f bits per value", 8.0 * (double)other.bytes / (double)(other.rows * other.cols));
      printf(": %s\n", other.why);
    }
}

/* Do the layers add up to the totals, and the totals to the files? */
static bool verify(const gptvq_model *model, const gptvq_model_info *info, const gptvq_cli_files *files) {
  uint64_t layers = 0, values = 0;
  for (size_t i = 0; i < gptvq_model_layer_count(model); i++) {
    gptvq_layer_info layer = {.size = sizeof layer};
    gptvq_model_get_layer(model, i, &layer);
    layers += layer.bytes;
    values += (uint64_t)layer.rows * layer.cols;
  }
  uint64_t tensors = files->bytes - files->header_bytes,
           counted = info->linear_bytes + info->other_bytes + info->beside_bytes;
  if (layers != info->linear_bytes || values != info->linear_values) {
    gptvq_cli_warn("the layers have %" PRIu64 " bytes for %" PRIu64
                   " values, the model's account says %" PRIu64 " for %" PRIu64,
                   layers, values, info->linear_bytes, info->linear_values);
    return false;
  }
  if (tensors != counted) {
    gptvq_cli_warn("the files hold %" PRIu64 " bytes of tensors, the model's account says %" PRIu64, tensors,
                   counted);
    return false;
  }
  return true;
}

static double mean_error(const gptvq_model *model) {
  double sum = 0;
  size_t known = 0;
  for (size_t i = 0; i < gptvq_model_layer_count(model); i++) {
    gptvq_layer_info layer = {.size = sizeof layer};
    gptvq_model_get_layer(model, i, &layer);
    if (isnan(layer.error)) continue;
    sum += layer.error;
    known++;
  }
  return known > 0 ? sum / (double)known : NAN;
}

static json_t *layers_json(const gptvq_model *model) {
  json_t *array = json_array();
  for (size_t i = 0; i < gptvq_model_layer_count(model); i++) {
    gptvq_layer_info l = {.size = sizeof l};
    gptvq_model_get_layer(model, i, &l);
    gptvq_cli_json_append(
        array, json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:i, s:I, s:I, s:i, s:i, s:I, s:f, s:o, s:i}",
                         "name", l.name, "format", l.format, "method", l.method, "rows", (json_int_t)l.rows,
                         "cols", (json_int_t)l.cols, "dim", (int)l.dim, "index_bits", (int)l.index_bits,
                         "group_rows", (json_int_t)l.group_rows, "group_cols", (json_int_t)l.group_cols,
                         "codebook_bits", (int)l.codebook_bits, "scale_block", (int)l.scale_block, "bytes",
                         (json_int_t)l.bytes, "bits_per_value", l.bits_per_value, "error",
                         gptvq_cli_number(l.error), "svd_rank", (int)l.svd_rank));
  }
  return array;
}

static json_t *others_json(const gptvq_model *model) {
  json_t *array = json_array();
  for (size_t i = 0; i < gptvq_model_other_count(model); i++) {
    gptvq_other_info other = {.size = sizeof other};
    gptvq_model_get_other(model, i, &other);
    gptvq_cli_json_append(array, json_pack("{s:s, s:b, s:i, s:I, s:I, s:I, s:I, s:s}", "name", other.name,
                                           "used", other.used, "index_bits", (int)other.index_bits, "tensors",
                                           (json_int_t)other.tensors, "rows", (json_int_t)other.rows, "cols",
                                           (json_int_t)other.cols, "bytes", (json_int_t)other.bytes, "why",
                                           other.why));
  }
  return array;
}

static int print_json(const char *path, const gptvq_model *model, const gptvq_model_info *info,
                      const gptvq_cli_files *files, bool verified) {
  const char *quantization = gptvq_model_quantization_json(model);
  json_error_t why;
  json_t *parsed =
      quantization != NULL ? gptvq_cli_parse_json(quantization, strlen(quantization), &why) : NULL;
  json_t *object = json_pack(
      "{s:o, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "model", gptvq_cli_text(path),
      "architecture", info->architecture, "family", info->family, "packed", info->packed, "blocks",
      (json_int_t)info->layers, "hidden", (json_int_t)info->hidden, "intermediate",
      (json_int_t)info->intermediate, "heads", (json_int_t)info->heads, "kv_heads",
      (json_int_t)info->kv_heads, "head_dim", (json_int_t)info->head_dim, "vocab", (json_int_t)info->vocab,
      "max_positions", (json_int_t)info->max_positions, "experts", (json_int_t)info->experts);
  json_t *sizes = json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o, s:I, s:I, s:I, s:b}", "parameters",
                            (json_int_t)info->parameters, "linear_values", (json_int_t)info->linear_values,
                            "linear_bytes", (json_int_t)info->linear_bytes, "other_bytes",
                            (json_int_t)info->other_bytes, "beside_bytes", (json_int_t)info->beside_bytes,
                            "bits_per_value", info->bits_per_value, "model_bits_per_value",
                            info->model_bits_per_value, "mean_error", gptvq_cli_number(mean_error(model)),
                            "files", (json_int_t)files->count, "file_bytes", (json_int_t)files->bytes,
                            "header_bytes", (json_int_t)files->header_bytes, "verified", verified);
  const char *key;
  json_t *size;
  json_object_foreach(sizes, key, size) gptvq_cli_json_set(object, key, json_incref(size));
  if (sizes == NULL) gptvq_cli_json_set(object, "parameters", NULL);
  json_decref(sizes);
  gptvq_cli_json_set(object, "quantization", parsed != NULL ? parsed : json_null());
  gptvq_cli_json_set(object, "layers", layers_json(model));
  gptvq_cli_json_set(object, "others", others_json(model));
  return gptvq_cli_print_json(object);
}

static int print_text(const gptvq_model *model, const gptvq_model_info *info, const gptvq_cli_files *files,
                      bool verified) {
  char a[GPTVQ_CLI_SIZE_TEXT], b[GPTVQ_CLI_SIZE_TEXT];
  printf("%s, %zu blocks, hidden %zu, MLP %zu, %zu heads of %zu (%zu for keys and values), vocabulary %zu, "
         "context %zu",
         info->architecture, info->layers, info->hidden, info->intermediate, info->heads, info->head_dim,
         info->kv_heads, info->vocab, info->max_positions);
  if (info->experts > 0) printf(", %zu experts", info->experts);
  printf("\nfamily %s, %s\n\n", info->family, info->packed ? "packed by gptvq" : "original weights");
  print_layers(model);
  printf("\n");
  print_others(model);
  double error = mean_error(model);
  printf("\nblock linears  %" PRIu64 " values in %s: %.4f bits per value\n", info->linear_values,
         gptvq_cli_size_text(info->linear_bytes, a), info->bits_per_value);
  printf("everything     %" PRIu64 " parameters in %s: %.4f bits per value\n", info->parameters,
         gptvq_cli_size_text(info->linear_bytes + info->other_bytes, a), info->model_bits_per_value);
  if (!isnan(error)) printf("mean error     %.5f of a layer's output\n", error);
  printf("on disk        %zu file%s, %s, of which %s headers; %s\n", files->count,
         files->count == 1 ? "" : "s", gptvq_cli_size_text(files->bytes, a),
         gptvq_cli_size_text(files->header_bytes, b),
         verified ? "the rest is the sum of the tensors above" : "the sums do NOT agree, see the warning");
  return gptvq_cli_flush();
}

int gptvq_cmd_inspect(int argc, char **argv) {
  int json = 0;
  const gptvq_option options[] = {{GPTVQ_OPTION_FLAG, "json", .value = &json, .help = "everything as JSON"},
                                  {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {
      .name = "inspect",
      .usage = "MODEL [--json]",
      .summary = "layers, formats, exact sizes and errors of a model folder, original or packed",
      .examples = "  gptvq inspect small/\n"
                  "  gptvq inspect small/ --json\n",
      .options = options,
      .arguments = {"MODEL"}};
  const char *path;
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, &path, &code)) return code;
  gptvq_model *model = NULL;
  gptvq_error err;
  gptvq_cli_files files;
  gptvq_model_info info = {.size = sizeof info};
  if (gptvq_cli_open_model(
          path, &(gptvq_model_options){.size = sizeof(gptvq_model_options), .compute = GPTVQ_COMPUTE_FP32},
          &model, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  gptvq_model_get_info(model, &info);
  if (gptvq_cli_weigh_folder(path, info.packed != 0, &files, &err) != GPTVQ_OK) {
    code = gptvq_cli_fail(&err);
  } else {
    if (files.header_bytes == 0) /* a GGUF file: what is around its tensors */
      files.header_bytes = files.bytes - info.linear_bytes - info.other_bytes - info.beside_bytes;
    bool verified = verify(model, &info, &files);
    code =
        json ? print_json(path, model, &info, &files, verified) : print_text(model, &info, &files, verified);
  }
  gptvq_model_close(model);
  return code;
}
