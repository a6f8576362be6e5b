/* gptvq bench kernels: the kernels alone. */
#include "cli.h"
#include "tools/bench.h"

#include <stdlib.h>

typedef struct output {
  json_t *results;   /* NULL: text */
  size_t rows, cols; /* of the last line */
} output;

static void print_speed(output *out, const gptvq_kernel_speed *s) {
  if (s->rows != out->rows || s->cols != out->cols)
    printf("\n%zu x %zu: memory reads %.1f GB/s (median %.1f)\n%-22s %6s %9s %9s %6s %6s %6s %10s %7s %7s\n",
           s->rows, s->cols, 1e-9 * s->bandwidth, 1e-9 * s->bandwidth_median, "kernel", "bits", "least us",
           "median us", "GB/s", "of it", "median", "Gweight/s", "/ int4", "median");
  out->rows = s->rows;
  out->cols = s->cols;
  double weights = (double)s->rows * (double)s->cols * (double)s->tokens;
  printf("%-22s %6.3f %9.1f %9.1f %6.2f %5.0f%% %5.0f%% %10.1f %7.2f %7.2f\n", s->kernel, s->bits,
         1e6 * s->min_seconds, 1e6 * s->median_seconds, 1e-9 * s->bytes / s->min_seconds,
         100 * s->bytes / s->min_seconds / s->bandwidth,
         100 * s->bytes / s->median_seconds / s->bandwidth_median, 1e-9 * weights / s->min_seconds,
         s->int4_ratio, s->int4_ratio_median);
  (void)fflush(stdout);
}

static int report(void *user, const gptvq_kernel_speed *s) {
  output *out = user;
  if (out->results == NULL) print_speed(out, s);
  else
    gptvq_cli_json_append(
        out->results,
        json_pack("{s:s, s:I, s:I, s:I, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "kernel",
                  s->kernel, "rows", (json_int_t)s->rows, "cols", (json_int_t)s->cols, "tokens",
                  (json_int_t)s->tokens, "bits", s->bits, "bytes", (json_int_t)s->bytes, "min_us",
                  1e6 * s->min_seconds, "median_us", 1e6 * s->median_seconds, "gb_per_s",
                  1e-9 * s->bytes / s->min_seconds, "bandwidth_gb_per_s", 1e-9 * s->bandwidth,
                  "bandwidth_median_gb_per_s", 1e-9 * s->bandwidth_median, "gweights_per_s",
                  1e-9 * (double)s->rows * (double)s->cols * (double)s->tokens / s->min_seconds, "int4_ratio",
                  s->int4_ratio, "int4_ratio_median", s->int4_ratio_median));
  return 0;
}

int gptvq_cmd_bench_kernels(int argc, char **argv) {
  gptvq_kernel_bench bench;
  gptvq_kernel_bench_init(&bench);
  size_t megabytes = bench.bytes >> 20;
  int json = 0;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_SIZE, "shapes", .value = &bench.shapes, .min = 1, .max = 5, .argument = "N",
       .help =
           "the first N of 4096 x 4096, 11008 x 4096, 4096 x 11008, 14336 x 4096, 4096 x 14336 (default 3)"},
      {GPTVQ_OPTION_SIZE, "rounds", .value = &bench.rounds, .min = 1, .max = 1001, .argument = "N",
       .help = "turns of all kernels and of reading memory (default 9)"},
      {GPTVQ_OPTION_SIZE, "memory", .value = &megabytes, .min = 64, .max = 1 << 20, .argument = "MIB",
       .help = "memory to walk through, several times what the caches hold (default 256)"},
      {GPTVQ_OPTION_FLAG, "json", .value = &json, .help = "everything as JSON"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {
      .name = "bench kernels",
      .usage = "[--shapes N] [--rounds N] [options]",
      .summary = "matrix x vector kernels against the memory's read bandwidth and 4-bit integers",
      .examples = "  gptvq bench kernels --threads 2\n"
                  "  gptvq bench kernels --shapes 1 --rounds 3 --cpu 0 --json\n",
      .options = options,
      .arguments = {NULL}};
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, NULL, &code)) return code;
  bench.bytes = megabytes << 20;
  output out = {.results = json ? json_array() : NULL};
  gptvq_error err;
  if (!json) printf("%s, %d threads, %zu rounds\n", gptvq_get_cpu(), gptvq_get_threads(), bench.rounds);
  if (gptvq_bench_kernels(&bench, report, &out, &err) != GPTVQ_OK) {
    json_decref(out.results);
    return gptvq_cli_fail(&err);
  }
  if (!json) return gptvq_cli_flush();
  return gptvq_cli_print_json(json_pack("{s:s, s:i, s:I, s:o}", "cpu", gptvq_get_cpu(), "threads",
                                        gptvq_get_threads(), "rounds", (json_int_t)bench.rounds, "results",
                                        out.results));
}
