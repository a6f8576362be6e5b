/* gptvq bench kernels: the kernels alone. */
#include "cli.h"
#include "tools/bench.h"

#include <stdlib.h>
#include <string.h>

typedef struct output {
  json_t *results; /* NULL: text */
  gptvq_kernel_speed *speeds;
  size_t count, rounds;
  bool full; /* no memory for more */
} output;

/* Of the read bandwidth: the medians. */
static double share(const gptvq_kernel_speed *s) {
  return s->bytes / s->median_seconds / s->bandwidth_median;
}

/* Of the int8 products that registers allow: the least times; 0: not known. */
static double product_share(const gptvq_kernel_speed *s) {
  if (s->products == 0.0) return 0.0;
  return (double)s->rows * (double)s->cols * (double)s->tokens / s->min_seconds / s->products;
}

static bool same_shape(const gptvq_kernel_speed *a, const gptvq_kernel_speed *b) {
  return a->rows == b->rows && a->cols == b->cols;
}

static void print_speed(const output *out, const gptvq_kernel_speed *s) {
  if (out->count == 1)
    printf("%s, %d threads, %zu rounds\n", gptvq_get_cpu(), gptvq_get_threads(), out->rounds);
  if (out->count == 1 || !same_shape(s, s - 1))
    printf("\n%zu x %zu: memory reads %.1f GB/s (median %.1f), at most %.0f (%.0f) Gproduct/s of int8\n"
           "%-22s %6s %9s %9s %6s %6s %6s %10s %6s %7s %7s\n",
           s->rows, s->cols, 1e-9 * s->bandwidth, 1e-9 * s->bandwidth_median, 1e-9 * s->products,
           1e-9 * s->products_median, "kernel", "bits", "least us", "median us", "GB/s", "of it", "median",
           "Gweight/s", "of it", "/ int4", "median");
  double weights = (double)s->rows * (double)s->cols * (double)s->tokens;
  printf("%-22s %6.3f %9.1f %9.1f %6.2f %5.0f%% %5.0f%% %10.1f %5.0f%% %7.2f %7.2f\n", s->kernel, s->bits,
         1e6 * s->min_seconds, 1e6 * s->median_seconds, 1e-9 * s->bytes / s->min_seconds,
         100 * s->bytes / s->min_seconds / s->bandwidth, 100 * share(s), 1e-9 * weights / s->min_seconds,
         100 * product_share(s), s->int4_ratio, s->int4_ratio_median);
  (void)fflush(stdout);
}

/* A line per kernel, a column per shape. */
static void print_shares(const output *out) {
  size_t kernels = 1;
  while (kernels < out->count && same_shape(&out->speeds[0], &out->speeds[kernels])) kernels++;
  printf("\n%-22s", "share of the read");
  for (size_t i = 0; i < out->count; i += kernels) printf(" %6zu", out->speeds[i].rows);
  printf("\n%-22s", "bandwidth, one token");
  for (size_t i = 0; i < out->count; i += kernels) printf(" %6zu", out->speeds[i].cols);
  for (size_t k = 0; k < kernels; k++) {
    if (out->speeds[k].tokens != 1) continue;
    printf("\n%-22s", out->speeds[k].kernel);
    for (size_t i = k; i < out->count; i += kernels) printf(" %5.0f%%", 100 * share(&out->speeds[i]));
  }
  printf("\n");
}

static int report(void *user, const gptvq_kernel_speed *s) {
  output *out = user;
  if (out->results == NULL) {
    gptvq_kernel_speed *more = realloc(out->speeds, (out->count + 1) * sizeof *more);
    out->full = more == NULL;
    if (out->full) return 1;
    out->speeds = more;
    more[out->count++] = *s;
    print_speed(out, &more[out->count - 1]);
    return 0;
  }
  gptvq_cli_json_append(
      out->results,
      json_pack("{s:s, s:I, s:I, s:I, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
                "kernel", s->kernel, "rows", (json_int_t)s->rows, "cols", (json_int_t)s->cols, "tokens",
                (json_int_t)s->tokens, "bits", s->bits, "bytes", (json_int_t)s->bytes, "min_us",
                1e6 * s->min_seconds, "median_us", 1e6 * s->median_seconds, "gb_per_s",
                1e-9 * s->bytes / s->min_seconds, "bandwidth_gb_per_s", 1e-9 * s->bandwidth,
                "bandwidth_median_gb_per_s", 1e-9 * s->bandwidth_median, "bandwidth_share_median", share(s),
                "gweights_per_s",
                1e-9 * (double)s->rows * (double)s->cols * (double)s->tokens / s->min_seconds,
                "int8_gproducts_per_s", 1e-9 * s->products, "int8_share", product_share(s), "int4_ratio",
                s->int4_ratio, "int4_ratio_median", s->int4_ratio_median));
  return 0;
}

int gptvq_cmd_bench_kernels(int argc, char **argv) {
  gptvq_kernel_bench bench;
  gptvq_kernel_bench_init(&bench);
  size_t megabytes = bench.bytes >> 20;
  char shapes_help[256];
  (void)snprintf(shapes_help, sizeof shapes_help,
                 "\"all\", or widths (a layer of a model that has them; else a square) and\n"
                 "ROWSxCOLS, with commas between them (default: %s)",
                 bench.shapes);
  int json = 0;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_STRING, "shapes", .value = &bench.shapes, .argument = "LIST", .help = shapes_help},
      {GPTVQ_OPTION_STRING, "formats", .value = &bench.formats, .argument = "LIST",
       .help =
           "parts of kernels' names, with commas between them (default: all); int4-g128 is always measured"},
      {GPTVQ_OPTION_SIZE, "tokens", 'n', .value = &bench.tokens, .min = 1, .max = 1 << 20, .argument = "N",
       .help = "leave out what multiplies more than N tokens at a time, of 1, 4, 16 and 128 (default 128)"},
      {GPTVQ_OPTION_SIZE, "rounds", .value = &bench.rounds, .min = 1, .max = 1001, .argument = "N",
       .help = "turns of all kernels and of reading memory (default 9)"},
      {GPTVQ_OPTION_SIZE, "memory", .value = &megabytes, .min = 64, .max = 1 << 20, .argument = "MIB",
       .help = "memory to walk through, several times what the caches hold (default 256)"},
      {GPTVQ_OPTION_FLAG, "json", .value = &json, .help = "everything as JSON"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {
      .name = "bench kernels",
      .usage = "[--shapes LIST] [--formats LIST] [options]",
      .summary = "products of packed matrices against the memory's read bandwidth and 4-bit integers",
      .examples = "  gptvq bench kernels --threads 2\n"
                  "  gptvq bench kernels --shapes all --tokens 1\n"
                  "  gptvq bench kernels --formats 2.125,2.25,head\n"
                  "  gptvq bench kernels --shapes 576,4096x11008 --rounds 3 --cpu 0 --json\n",
      .options = options,
      .arguments = {NULL}};
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, NULL, &code)) return code;
  bench.bytes = megabytes << 20;
  output out = {.results = json ? json_array() : NULL, .rounds = bench.rounds};
  gptvq_error err;
  if (gptvq_bench_kernels(&bench, report, &out, &err) != GPTVQ_OK) {
    json_decref(out.results);
    free(out.speeds);
    return out.full ? gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: results") : gptvq_cli_fail(&err);
  }
  if (!json) {
    print_shares(&out);
    free(out.speeds);
    return gptvq_cli_flush();
  }
  return gptvq_cli_print_json(json_pack("{s:s, s:i, s:I, s:o}", "cpu", gptvq_get_cpu(), "threads",
                                        gptvq_get_threads(), "rounds", (json_int_t)bench.rounds, "results",
                                        out.results));
}
