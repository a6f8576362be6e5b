/* README.md of a packed folder: what a model hub shows, and what people want to know of it. */
#include "quant/run/pipeline.h"
#include "base/file.h"
#include "checkpoint/output_files.h"
#include "quant/options/options.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* "ORG/NAME" out of …/models--ORG--NAME/snapshots/…, else the last part of the path; malloc'd, NULL: out of
 * memory. */
static char *base_model(const char *model_dir) {
  static const char mark[] = "models--", snapshots[] = "/snapshots/";
  const char *hub = strstr(model_dir, snapshots), *name = hub;
  while (name != NULL && name > model_dir && name[-1] != '/') name--;
  if (name != NULL && strncmp(name, mark, sizeof mark - 1) == 0) {
    name += sizeof mark - 1;
    char *text = strndup(name, (size_t)(hub - name)), *dashes = text == NULL ? NULL : strstr(text, "--");
    if (dashes != NULL) {
      *dashes = '/';
      memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
    }
    return text;
  }
  size_t end = strlen(model_dir), begin;
  while (end > 1 && model_dir[end - 1] == '/') end--;
  for (begin = end; begin > 0 && model_dir[begin - 1] != '/'; begin--) continue;
  return strndup(model_dir + begin, end - begin);
}

/* A YAML text in quotes; what cannot stand there becomes '?'. */
static void put_yaml(FILE *out, const char *text) {
  (void)fputc('"', out);
  for (; *text != '\0'; text++)
    (void)fputc(*text == '"' || *text == '\\' || (unsigned char)*text < ' ' ? '?' : *text, out);
  (void)fprintf(out, "\"\n");
}

static void put_head(FILE *out, const char *base) {
  (void)fprintf(out, "---\nbase_model: ");
  put_yaml(out, base);
  (void)fprintf(out,
                "base_model_relation: quantized\nlibrary_name: gptvq\npipeline_tag: text-generation\ntags:\n"
                "- gptvq\n---\n");
}

/* The options as a table, those of the run's identity. */
static bool put_recipe(FILE *out, const gptvq_resolved *options) {
  json_t *settings = gptvq_options_json(options), *value;
  const char *key;
  if (settings == NULL) return false;
  (void)fprintf(out, "\n## Recipe\n| option | value |\n| --- | --- |\n");
  json_object_foreach(settings, key, value) {
    (void)fprintf(out, "| `%s` | ", key);
    if (json_is_string(value)) (void)fprintf(out, "%s", json_string_value(value));
    else if (json_is_boolean(value)) (void)fprintf(out, "%s", json_is_true(value) ? "true" : "false");
    else if (strcmp(key, "seed") == 0) (void)fprintf(out, "%" PRIu64, options->options.seed); /* 64 bits */
    else if (json_is_integer(value)) (void)fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else (void)fprintf(out, "%.10g", json_number_value(value));
    (void)fprintf(out, " |\n");
  }
  json_decref(settings);
  return true;
}

static void put_figures(FILE *out, const gptvq_resolved *options, const gptvq_calibration *calibration,
                        const gptvq_quantize_report *report) {
  (void)fprintf(out, "\n## Figures\n| | |\n| --- | --- |\n");
  (void)fprintf(out, "| bits per value of the block linears, exactly | %.4f |\n", report->bits_per_value);
  (void)fprintf(out, "| their values, and bytes in the files | %" PRIu64 ", %" PRIu64 " |\n",
                report->linear_values, report->linear_bytes);
  (void)fprintf(out, "| mean relative error of a layer's output | %.5f |\n", report->mean_error);
  if (calibration != NULL)
    (void)fprintf(out, "| calibration | %zu windows of %zu tokens, seed %" PRIu64 " |\n",
                  calibration->samples, calibration->length, options->options.seed);
  if (!isnan(report->finetune_before))
    (void)fprintf(out,
                  "| KL divergence per token on held-out calibration windows, before and after fine-tuning | "
                  "%.4f, %.4f |\n",
                  report->finetune_before, report->finetune_after);
}

/* One row: what was lost on a kind of text. */
static void put_loss(FILE *out, const char *text, const gptvq_quantize_loss *loss) {
  if (loss->tokens == 0) return;
  (void)fprintf(out, "| %s%s | %.4f | %.4f | %.4f ± %.4f | %" PRIu64 " |\n", text,
                loss->seen ? " (calibrated on it)" : "", loss->perplexity_before, loss->perplexity, loss->kl,
                loss->kl_stderr, loss->tokens);
}

static void put_losses(FILE *out, const gptvq_quantize_report *report) {
  if (report->loss_text.tokens == 0 && report->loss_self.tokens == 0) return;
  (void)fprintf(out,
                "\n## Evaluation\n| text | perplexity of the original | perplexity | KL divergence, nats per "
                "token | tokens |\n| --- | --- | --- | --- | --- |\n");
  put_loss(out, "held-out calibration text", &report->loss_text);
  put_loss(out, "what the model writes itself", &report->loss_self);
}

static bool put_card(FILE *out, const char *base, const gptvq_resolved *options,
                     const gptvq_calibration *calibration, const gptvq_quantize_report *report) {
  put_head(out, base);
  (void)fprintf(
      out,
      "# %s, %.3g bits per value\n\nThe linear layers of %s, quantized by gptvq %s (method `%s`). It runs it "
      "from its packed weights:\n\n    gptvq generate FOLDER -p \"Once upon a time\"\n    gptvq chat "
      "FOLDER\n\n"
      "`gptvq eval` and `gptvq compare` measure it on a text, `gptvq export` makes plain folders and GGUF "
      "files of it.\n",
      base, report->bits_per_value, base, gptvq_version(), gptvq_method_name(options->options.method));
  put_figures(out, options, calibration, report);
  put_losses(out, report);
  return put_recipe(out, options);
}

gptvq_status gptvq_write_card(const gptvq_output *out, const char *model_dir, const gptvq_resolved *options,
                              const gptvq_calibration *calibration, const gptvq_quantize_report *report,
                              gptvq_error *err) {
  char path[GPTVQ_PATH_MAX], *text = NULL;
  size_t size = 0;
  GPTVQ_TRY(gptvq_output_path(out, GPTVQ_CARD_NAME, path, err));
  char *base = base_model(model_dir);
  FILE *file = base == NULL ? NULL : open_memstream(&text, &size);
  bool fine = file != NULL && put_card(file, base, options, calibration, report);
  if (file != NULL) {
    fine = ferror(file) == 0 && fine;
    fine = fclose(file) == 0 && fine; /* in any case */
  }
  gptvq_status status =
      fine ? gptvq_write_file(path, text, size, err) : gptvq_fail_memory(err, GPTVQ_CARD_NAME, size);
  free(base);
  free(text);
  return status;
}
