#define _GNU_SOURCE /* realpath */
/* gptvq_export_report: what packed folders say of themselves, as one HTML page that needs nothing else. */
#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/record.h"
#include "export/report/layers.h"

#include <gptvq/quantize.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

static const char style[] =
    ":root{color-scheme:light dark;--bg:#fcfcfa;--fg:#1c1e21;--quiet:#5a6068;--grid:#dcdee2;--bar:#2f6db5;"
    "--s0:#1f66b0;--s1:#b3541e;--s2:#1d7d4f;--s3:#8a3ea8;--s4:#8b6a00;--s5:#b8325f}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#16181b;--fg:#e6e7e9;--quiet:#a2a9b2;--grid:#3a3f46;--bar:#"
    "6ea8ea;"
    "--s0:#74aef0;--s1:#f09a63;--s2:#63c794;--s3:#cf93e6;--s4:#d9b84a;--s5:#f088ac}}\n"
    "body{background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif;max-width:900px;margin:0 "
    "auto;"
    "padding:24px 20px 60px}\n"
    "h1{font-size:1.6em;margin:0 0 4px}h2{font-size:1.15em;margin:36px 0 6px}p{margin:4px 0 10px}\n"
    ".quiet,.note{color:var(--quiet);fill:var(--quiet)}\n"
    "dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:10px 18px;margin:18px 0}\n"
    "dt{color:var(--quiet);font-size:.85em}dd{margin:0;font-size:1.2em;font-variant-numeric:tabular-nums}\n"
    "svg{width:100%;height:auto;display:block}svg text{font-size:12.5px;fill:var(--fg)}svg "
    "text.quiet{fill:var(--quiet)}\n"
    ".bar{fill:var(--bar)}.grid{stroke:var(--grid);fill:none}.whisker{stroke:var(--fg);fill:none}\n"
    ".leader{stroke:var(--grid);fill:none}.join{fill:none;stroke-dasharray:4 3}.dot{stroke:var(--bg)}\n"
    ".hollow.hollow{fill:var(--bg);stroke-width:2}\n"
    ".s0{fill:var(--s0);stroke:var(--s0)}.s1{fill:var(--s1);stroke:var(--s1)}.s2{fill:var(--s2);stroke:var(--"
    "s2)}"
    ".s3{fill:var(--s3);stroke:var(--s3)}.s4{fill:var(--s4);stroke:var(--s4)}.s5{fill:var(--s5);stroke:var(--"
    "s5)}"
    "svg text[class^=s]{stroke:none}.join.join{fill:none}\n"
    "details{margin:8px 0}summary{cursor:pointer;color:var(--quiet)}.scroll{overflow-x:auto}\n"
    "table{border-collapse:collapse;font-size:.88em;font-variant-numeric:tabular-nums}th,td{padding:3px 12px "
    "3px 0;"
    "text-align:right;border-bottom:1px solid "
    "var(--grid)}th:first-child,td:first-child,td.name,th.name{text-align:left}td{white-space:nowrap}\n"
    "tr:hover .bar,.bar:hover{opacity:.7}\n";

/* A packed folder that is told of. */
typedef struct folder {
  const char *name; /* the last part of its path; owned */
  gptvq_model *model;
  gptvq_model_info info;
  json_t *record;
} folder;

static double number_of(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text != NULL ? text : "";
}

static void heading(FILE *out, const char *text) { (void)fprintf(out, "<h2>%s</h2>\n", text); }

static void fact(FILE *out, const char *name, const char *format, double value) {
  if (isnan(value)) return;
  (void)fprintf(out, "<div><dt>%s</dt><dd>", name);
  (void)fprintf(out, format, value);
  (void)fprintf(out, "</dd></div>\n");
}

static double bytes_of(const folder *f) { return (double)f->info.linear_bytes + (double)f->info.other_bytes; }

static void put_head(FILE *out, const folder *f, double mean_error) {
  const json_t *run = json_object_get(f->record, "run");
  (void)fprintf(out,
                "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"/><meta name=\"viewport\" "
                "content=\"width=device-width, initial-scale=1\"/>\n<title>");
  gptvq_put_html(out, f->name);
  (void)fprintf(out, " · gptvq report</title>\n<style>\n%s</style></head>\n<body>\n<h1>", style);
  gptvq_put_html(out, f->name);
  (void)fprintf(out, "</h1>\n<p class=\"note\">%s, %zu blocks, packed by gptvq ", f->info.architecture,
                f->info.layers);
  gptvq_put_html(out, text_of(f->record, "gptvq_version"));
  (void)fprintf(out, "</p>\n<dl>\n");
  fact(out, "bits per value, block linears", "%.4f", f->info.bits_per_value);
  fact(out, "bits per value, whole model", "%.4f", f->info.model_bits_per_value);
  fact(out, "tensors, MB", "%.2f", bytes_of(f) * 1e-6);
  fact(out, "of the original, MB", "%.2f", number_of(run, "original_bytes") * 1e-6);
  fact(out, "mean layer error", "%.5f", mean_error);
  fact(out, "quantized in, s", "%.1f", number_of(run, "seconds"));
  fact(out, "CPU time, s", "%.1f", number_of(run, "cpu_seconds"));
  fact(out, "peak memory, MB", "%.0f", number_of(run, "peak_bytes") * 1e-6);
  (void)fprintf(out, "</dl>\n");
}

static void put_layers(FILE *out, const gptvq_model *model, const gptvq_layer_grid *grid) {
  heading(out, "Error per layer");
  (void)fprintf(
      out,
      "<p>Relative error of each layer's output, ‖WX − QX‖² / ‖WX‖², when it was quantized; a bar for "
      "each block%s.</p>\n",
      grid->experts ? ", the mean over its experts" : "");
  gptvq_chart_strips(
      out, &(gptvq_strips){"Error per layer", "block", grid->names, grid->kinds, grid->blocks, grid->errors});
  heading(out, "Bits per layer");
  (void)fprintf(out, "<p>Everything that a layer stores, per value: indices, codebooks, scales.</p>\n");
  gptvq_chart_strips(
      out, &(gptvq_strips){"Bits per layer", "block", grid->names, grid->kinds, grid->blocks, grid->bits});
  (void)fprintf(out, "<details><summary>All layers as a table</summary><div class=\"scroll\"><table "
                     "id=\"layers\">\n<tr><th>layer</th><th>rows × "
                     "columns</th><th>bits per value</th><th>bytes</th><th>error</th></tr>\n");
  for (size_t i = 0; i < gptvq_model_layer_count(model); i++) {
    gptvq_layer_info layer = {.size = sizeof layer};
    gptvq_model_get_layer(model, i, &layer);
    (void)fprintf(out, "<tr><td>");
    gptvq_put_html(out, layer.name);
    (void)fprintf(out, "</td><td>%zu × %zu</td><td>%.4f</td><td>%" PRIu64 "</td><td>", layer.rows, layer.cols,
                  layer.bits_per_value, layer.bytes);
    if (isnan(layer.error)) (void)fprintf(out, "–</td></tr>\n");
    else (void)fprintf(out, "%.5f</td></tr>\n", layer.error);
  }
  (void)fprintf(out, "</table></div></details>\n");
}

/* Number of the text among those that came before, by its name. */
static unsigned series_of(const folder *folders, size_t upto_folder, const char *text) {
  unsigned series = 0;
  const char *seen[GPTVQ_SERIES] = {NULL};
  for (size_t f = 0; f <= upto_folder; f++) {
    const json_t *list = json_object_get(folders[f].record, "evaluations");
    for (size_t i = 0; i < json_array_size(list); i++) {
      const char *other = text_of(json_array_get(list, i), "text");
      unsigned s = 0;
      while (s < series && strcmp(seen[s], other) != 0) s++;
      if (s == series && series < GPTVQ_SERIES) seen[series++] = other;
      if (strcmp(other, text) == 0) return s < GPTVQ_SERIES ? s : GPTVQ_SERIES - 1;
    }
  }
  return 0;
}

static double perplexity_of(const json_t *evaluation) {
  const double packed = number_of(evaluation, "perplexity_b");
  return isnan(packed) ? number_of(evaluation, "perplexity") : packed;
}

static void put_evaluation_table(FILE *out, const folder *folders, size_t count) {
  (void)fprintf(
      out, "<div class=\"scroll\"><table id=\"evaluations\">\n<tr><th>text</th><th "
           "class=\"name\">model</th><th>context</th><th>original's perplexity</th>"
           "<th>perplexity</th><th>KL divergence</th><th>same top token</th><th>predictions</th></tr>\n");
  for (size_t f = 0; f < count; f++) {
    const json_t *list = json_object_get(folders[f].record, "evaluations");
    for (size_t i = 0; i < json_array_size(list); i++) {
      const json_t *e = json_array_get(list, i);
      const double kl = number_of(e, "kl_mean"), before = number_of(e, "perplexity_a"),
                   top = number_of(e, "top1_agreement"), ctx = number_of(e, "ctx");
      (void)fprintf(out, "<tr><td>");
      gptvq_put_html(out, text_of(e, "text"));
      if (json_is_true(json_object_get(e, "seen"))) (void)fprintf(out, " (calibrated on it)");
      (void)fprintf(out, "</td><td class=\"name\">");
      gptvq_put_html(out, folders[f].name);
      (void)fprintf(out, isnan(ctx) ? "</td><td>–" : "</td><td>%.0f", ctx);
      (void)fprintf(out, isnan(before) ? "</td><td>–" : "</td><td>%.4f", before);
      (void)fprintf(out, "</td><td>%.4f</td><td>", perplexity_of(e));
      if (isnan(kl)) (void)fprintf(out, "–");
      else (void)fprintf(out, "%.6f ± %.6f", kl, number_of(e, "kl_stderr"));
      (void)fprintf(out, isnan(top) ? "</td><td>–" : "</td><td>%.2f %%", 100 * top);
      (void)fprintf(out, "</td><td>%.0f</td></tr>\n", number_of(e, "tokens"));
    }
  }
  (void)fprintf(out, "</table></div>\n");
}

static int by_series(const void *a, const void *b) {
  const gptvq_point *x = a, *y = b;
  if (x->series != y->series) return x->series < y->series ? -1 : 1;
  const int names = strcmp(x->name, y->name); /* the last series has all texts beyond it */
  if (names != 0) return names;
  if (x->context != y->context) return x->context < y->context ? -1 : 1;
  if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
  return (x->value > y->value) - (x->value < y->value);
}

/* A point for each evaluation and folder, and one for the original where it is known; those of a text one
 * behind the other, the largest first. */
static size_t collect_points(const folder *folders, size_t count, bool kl, gptvq_point *points) {
  size_t n = 0;
  for (unsigned series = 0; series < GPTVQ_SERIES; series++) {
    bool original = false;
    for (size_t f = 0; f < count; f++) {
      const json_t *list = json_object_get(folders[f].record, "evaluations");
      const double before = number_of(json_object_get(folders[f].record, "run"), "original_bytes");
      for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        const char *text = text_of(e, "text");
        const double value = kl ? number_of(e, "kl_mean") : perplexity_of(e),
                     was = number_of(e, "perplexity_a"), ctx = number_of(e, "ctx"),
                     context = ctx > 0 ? ctx : 0;
        if (series_of(folders, f, text) != series || isnan(value)) continue;
        if (!kl && !original && !isnan(before) && !isnan(was)) {
          points[n++] = (gptvq_point){before, was, context, text, "original", series, 1};
          original = true;
        }
        points[n++] = (gptvq_point){
            bytes_of(&folders[f]), value, context, text, count > 1 ? folders[f].name : NULL, series, 0};
      }
    }
  }
  qsort(points, n, sizeof *points, by_series);
  return n;
}

static gptvq_status put_evaluations(FILE *out, const folder *folders, size_t count, gptvq_error *err) {
  size_t most = 0;
  for (size_t f = 0; f < count; f++)
    most += json_array_size(json_object_get(folders[f].record, "evaluations"));
  heading(out, "Size and quality");
  if (most == 0) {
    (void)fprintf(
        out, "<p class=\"note\">No evaluation is recorded in the folder: <code>gptvq compare ORIGINAL FOLDER "
             "--text FILE --record</code> records one.</p>\n");
    return GPTVQ_OK;
  }
  gptvq_point *points = gptvq_alloc(2 * most, sizeof *points);
  if (points == NULL)
    return gptvq_fail_memory(err, "the report", gptvq_saturated_size(2 * most, sizeof *points));
  size_t n = collect_points(folders, count, false, points);
  (void)fprintf(
      out, "<p>Perplexity of each text by the size of the model; hollow: the original. Lower is better, and "
           "further left smaller.</p>\n");
  gptvq_chart_points(out, "Size and perplexity", "perplexity", points, n);
  n = collect_points(folders, count, true, points);
  if (n > 0) {
    (void)fprintf(out, "<p>KL divergence from the original's predictions, nats per token.</p>\n");
    gptvq_chart_points(out, "Size and KL divergence", "KL divergence", points, n);
  }
  free(points);
  put_evaluation_table(out, folders, count);
  return GPTVQ_OK;
}

static void put_stages(FILE *out, const json_t *run) {
  gptvq_bar bars[GPTVQ_MAX_STAGES];
  const json_t *stages = json_object_get(run, "stages");
  size_t n = 0;
  heading(out, "Time of each stage");
  for (size_t i = 0; i < json_array_size(stages) && n < GPTVQ_MAX_STAGES; i++) {
    const json_t *stage = json_array_get(stages, i);
    const double seconds = number_of(stage, "seconds"), cpu = number_of(stage, "cpu_seconds");
    if (isnan(seconds) || seconds <= 0) continue;
    bars[n] = (gptvq_bar){.name = text_of(stage, "name"), .value = seconds};
    (void)snprintf(bars[n].text, sizeof bars[n].text, "%.2f s (CPU %.2f s)", seconds, cpu);
    n++;
  }
  if (n == 0) {
    (void)fprintf(out, "<p class=\"note\">Not recorded in the folder.</p>\n");
    return;
  }
  if (number_of(run, "blocks_resumed") > 0)
    (void)fprintf(
        out, "<p>Of the run that finished the folder; an interrupted one had quantized %.0f blocks.</p>\n",
        number_of(run, "blocks_resumed"));
  gptvq_chart_bars(out, "Time of each stage", bars, n);
}

static gptvq_status put_experts(FILE *out, const gptvq_model_info *info, const json_t *run,
                                gptvq_error *err) {
  const json_t *blocks = json_object_get(run, "expert_tokens");
  size_t rows = 0, cols = 0;
  for (size_t b = 0; b < json_array_size(blocks); b++) {
    const size_t experts = json_array_size(json_array_get(blocks, b));
    rows += experts > 0;
    cols = gptvq_max_size(cols, experts);
  }
  if (rows == 0 || rows > info->layers || cols > info->experts) return GPTVQ_OK; /* not of this model */
  enum { NAME = 32 };
  double *values = gptvq_alloc(gptvq_saturated_size(rows, cols), sizeof *values);
  char(*texts)[NAME] = gptvq_alloc(rows, sizeof *texts);
  const char **names = gptvq_alloc(rows, sizeof *names);
  gptvq_status status = GPTVQ_OK;
  if (values == NULL || texts == NULL || names == NULL) {
    status = gptvq_fail_memory(err, "the report", gptvq_saturated_size(rows, cols));
  } else {
    for (size_t b = 0, r = 0; b < json_array_size(blocks); b++) {
      const json_t *list = json_array_get(blocks, b);
      if (json_array_size(list) == 0) continue;
      for (size_t e = 0; e < cols; e++) {
        const json_t *tokens = json_array_get(list, e);
        values[r * cols + e] = json_is_integer(tokens) && json_integer_value(tokens) >= 0
                                   ? (double)json_integer_value(tokens)
                                   : (double)NAN;
      }
      (void)snprintf(texts[r], NAME, "block %zu", b);
      names[r] = texts[r];
      r++;
    }
    heading(out, "Calibration tokens of each expert");
    gptvq_chart_strips(
        out, &(gptvq_strips){"Calibration tokens of each expert", "expert", names, rows, cols, values});
  }
  free(values);
  free(texts);
  free((void *)names);
  return status;
}

static gptvq_status put_page(FILE *out, const folder *folders, size_t count, gptvq_error *err) {
  const json_t *run = json_object_get(folders[0].record, "run");
  gptvq_layer_grid grid;
  GPTVQ_TRY(gptvq_layer_grid_create(folders[0].model, &grid, err));
  put_head(out, &folders[0], grid.mean_error);
  gptvq_status status = put_evaluations(out, folders, count, err);
  if (status == GPTVQ_OK) put_layers(out, folders[0].model, &grid);
  if (status == GPTVQ_OK) put_stages(out, run);
  if (status == GPTVQ_OK) status = put_experts(out, &folders[0].info, run, err);
  (void)fprintf(out, "</body>\n</html>\n");
  gptvq_layer_grid_release(&grid);
  return status;
}

/* The last part of a path, "b" of "a/b/"; of "." and ".." that of the folder that they stand for. NULL: out
 * of memory. */
static char *name_of(const char *path) {
  size_t end = strlen(path), begin;
  while (end > 1 && path[end - 1] == '/') end--;
  for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--) continue;
  const bool stands = end - begin <= 2 && strspn(path + begin, ".") >= end - begin;
  char *full = stands ? realpath(path, NULL) : NULL, *name = NULL;
  if (full != NULL) name = strdup(strrchr(full, '/') + 1);
  else name = strndup(path + begin, end - begin);
  free(full);
  return name;
}

static gptvq_status open_folder(const char *path, folder *f, gptvq_error *err) {
  const gptvq_model_options options = {.size = sizeof options, .compute = GPTVQ_COMPUTE_FP32};
  GPTVQ_TRY(gptvq_model_open(path, &options, &f->model, err));
  f->info = (gptvq_model_info){.size = sizeof f->info};
  gptvq_model_get_info(f->model, &f->info);
  if (!f->info.packed)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%s is not packed by gptvq: there is nothing to report",
                      path);
  f->name = name_of(path);
  if (f->name == NULL) return gptvq_fail_memory(err, path, strlen(path));
  return gptvq_record_load(path, &f->record, err);
}

static gptvq_status write_page(const folder *folders, size_t count, const char *out_file, gptvq_error *err) {
  char *text = NULL;
  size_t size = 0;
  FILE *file = open_memstream(&text, &size);
  if (file == NULL) return gptvq_fail_memory(err, "the report", 0);
  gptvq_status status = put_page(file, folders, count, err);
  bool fine = ferror(file) == 0;
  fine = fclose(file) == 0 && fine;
  if (status == GPTVQ_OK)
    status = fine ? gptvq_write_file(out_file, text, size, err) : gptvq_fail_memory(err, "the report", size);
  free(text);
  return status;
}

gptvq_status gptvq_export_report(const char *const *packed_dirs, size_t count, const char *out_file,
                                 int force, gptvq_error *err) {
  if (packed_dirs == NULL || count == 0 || out_file == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "gptvq_export_report needs packed folders and a file to make");
  if (gptvq_is_folder(out_file))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s is a folder, not a file", out_file);
  if (!force && gptvq_path_exists(out_file))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s exists; use `force` to replace it", out_file);
  folder *folders = calloc(count, sizeof *folders);
  if (folders == NULL)
    return gptvq_fail_memory(err, "the report", gptvq_saturated_size(count, sizeof *folders));
  gptvq_status status = GPTVQ_OK;
  for (size_t f = 0; f < count && status == GPTVQ_OK; f++)
    status = open_folder(packed_dirs[f], &folders[f], err);
  if (status == GPTVQ_OK) status = write_page(folders, count, out_file, err);
  for (size_t f = 0; f < count; f++) {
    free((void *)(uintptr_t)folders[f].name);
    gptvq_model_close(folders[f].model);
    json_decref(folders[f].record);
  }
  free(folders);
  return status;
}
