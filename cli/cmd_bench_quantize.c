/* gptvq bench quantize: where the time of quantizing goes, beside the speed of matrix products. */
#include "cli.h"
#include "tools/bench.h"

#include <string.h>

/* What products in the cache would take for the same work, each in its precision, of what the stage took. */
static double peak_share(const gptvq_quantize_speed *s, size_t stage) {
  const gptvq_quantize_report *r = &s->report;
  const double bf16 = r->stage_bf16_flop[stage], exact = r->stage_double_flop[stage];
  double seconds = (r->stages[stage].flop - bf16 - exact) / s->fp32_flops + exact / s->double_flops;
  if (bf16 > 0) seconds += bf16 / s->bf16_flops;
  return r->stages[stage].cpu_seconds > 0 ? seconds / r->stages[stage].cpu_seconds : 0;
}

static void print(const gptvq_quantize_speed *s) {
  const gptvq_quantize_report *r = &s->report;
  printf("products reach %.1f GFLOP/s a thread in fp32", 1e-9 * s->fp32_flops);
  if (s->bf16_flops > 0) printf(", %.1f in bf16", 1e-9 * s->bf16_flops);
  printf(", %.1f in double", 1e-9 * s->double_flops);
  printf("; calibration in %s, %d threads\n", gptvq_compute_name(r->calib_compute), gptvq_get_threads());
  printf("%-20s %9s %6s %10s %9s %8s\n", "stage", "CPU s", "share", "GFLOP", "GFLOP/s", "of peak");
  for (size_t i = 0; i < r->stage_count; i++) {
    const gptvq_stage_time *t = &r->stages[i];
    printf("%-20s %9.3f %5.1f%%", t->name, t->cpu_seconds, 100.0 * t->cpu_seconds / r->cpu_seconds);
    if (t->flop > 0 && t->cpu_seconds > 0) {
      const double rate = t->flop / t->cpu_seconds;
      printf(" %10.1f %9.1f %7.0f%%", 1e-9 * t->flop, 1e-9 * rate, 100.0 * peak_share(s, i));
    }
    if (r->stage_device_seconds[i] > 0)
      printf(" %.3f s of %.3f on %s", r->stage_device_seconds[i], t->seconds, r->device);
    printf("\n");
  }
  printf("%-20s %9.3f\n", "all", r->cpu_seconds);
  printf("GFLOP: %s\n", GPTVQ_CLI_COUNTED);
}

static json_t *to_json(const char *shape, const gptvq_quantize_bench *bench, const gptvq_quantize_speed *s) {
  const gptvq_quantize_report *r = &s->report;
  json_t *stages = json_array();
  for (size_t i = 0; i < r->stage_count; i++) {
    const gptvq_stage_time *t = &r->stages[i];
    const double rate = t->cpu_seconds > 0 ? t->flop / t->cpu_seconds : 0;
    gptvq_cli_json_append(stages, json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "name", t->name,
                                            "seconds", t->seconds, "cpu_seconds", t->cpu_seconds, "flop",
                                            t->flop, "bf16_flop", r->stage_bf16_flop[i], "double_flop",
                                            r->stage_double_flop[i], "gflop_per_s", 1e-9 * rate, "peak_share",
                                            peak_share(s, i), "device_seconds", r->stage_device_seconds[i]));
  }
  return json_pack("{s:s, s:s, s:I, s:I, s:I, s:i, s:s, s:f, s:f, s:f, s:f, s:f, s:o}", "shape", shape,
                   "device", r->device, "layers", (json_int_t)bench->layers, "calib_samples",
                   (json_int_t)bench->options.calib_samples, "calib_length",
                   (json_int_t)bench->options.calib_length, "threads", gptvq_get_threads(), "calib_compute",
                   gptvq_compute_name(r->calib_compute), "fp32_gflop_per_s", 1e-9 * s->fp32_flops,
                   "bf16_gflop_per_s", 1e-9 * s->bf16_flops, "double_gflop_per_s", 1e-9 * s->double_flops,
                   "seconds", r->seconds, "cpu_seconds", r->cpu_seconds, "stages", stages);
}

int gptvq_cmd_bench_quantize(int argc, char **argv) {
  gptvq_quantize_bench bench;
  gptvq_quantize_bench_init(&bench);
  gptvq_quantize_options *o = &bench.options;
  int shape = 0, json = 0;
  while (strcmp(gptvq_random_shapes()[shape], bench.shape) != 0) shape++;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_CHOICE, "shape", .value = &shape, .choices = gptvq_random_shapes(), .argument = "NAME",
       .help = "one of those of bench make-model (default smollm2-135m)"},
      {GPTVQ_OPTION_SIZE, "layers", .value = &bench.layers, .min = 1, .max = 1000, .argument = "N",
       .help = "decoder blocks (default 1)"},
      {GPTVQ_OPTION_SIZE, "calib-samples", .value = &o->calib_samples, .min = 1, .max = 1 << 20,
       .argument = "N", .help = "calibration windows, which the model writes itself (default 8)"},
      {GPTVQ_OPTION_SIZE, "calib-length", .value = &o->calib_length, .min = 2, .max = 1 << 20,
       .argument = "N", .help = "tokens of a window (default 512)"},
      gptvq_cli_field("calib_compute", o),
      gptvq_cli_field("code", o),
      gptvq_cli_field("bits", o),
      gptvq_cli_field("dim", o),
      gptvq_cli_field("device", o),
      {GPTVQ_OPTION_FLAG, "json", .value = &json, .help = "everything as JSON"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {
      .name = "bench quantize",
      .usage = "[--shape NAME] [--layers N] [options]",
      .summary = "where the time of quantizing goes, on random weights, beside the speed of matrix products",
      .examples = "  gptvq bench quantize --threads 1\n"
                  "  gptvq bench quantize --shape llama-2-7b --calib-samples 2 --json\n"
                  "      needs room in TMPDIR for a block and the embeddings in bf16\n",
      .options = options,
      .arguments = {NULL}};
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, NULL, &code)) return code;
  bench.shape = gptvq_random_shapes()[shape];
  gptvq_cli_progress progress;
  const gptvq_callbacks callbacks = gptvq_cli_progress_callbacks(&progress);
  bench.callbacks = &callbacks;
  gptvq_quantize_speed speed;
  gptvq_error err;
  const gptvq_status status = gptvq_bench_quantize(&bench, &speed, &err);
  gptvq_cli_progress_end(&progress);
  if (status != GPTVQ_OK) return gptvq_cli_fail(&err);
  if (json) return gptvq_cli_print_json(to_json(bench.shape, &bench, &speed));
  print(&speed);
  return gptvq_cli_flush();
}
