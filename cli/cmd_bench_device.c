/* gptvq bench device: what a device can do, and how fast. */
#include "cli.h"
#include "tools/bench.h"

int gptvq_cmd_bench_device(int argc, char **argv) {
  gptvq_device_bench bench;
  gptvq_device_bench_init(&bench);
  size_t megabytes = bench.bytes >> 20;
  int json = 0;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_STRING, "device", .value = &bench.device, .argument = "cuda[:N]|shim",
       .help = "a card, or a card's kernels on the CPU (default cuda)"},
      {GPTVQ_OPTION_SIZE, "side", .value = &bench.side, .min = 64, .max = 32768, .argument = "N",
       .help = "rows and columns of the products (default 8192)"},
      {GPTVQ_OPTION_SIZE, "megabytes", .value = &megabytes, .min = 1, .max = 65536, .argument = "N",
       .help = "of each copy (default 256)"},
      {GPTVQ_OPTION_DOUBLE, "seconds", .value = &bench.seconds, .min = 0.001, .max = 60, .argument = "S",
       .help = "that each measurement is repeated for (default 1)"},
      {GPTVQ_OPTION_FLAG, "json", .value = &json, .help = "everything as JSON"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {
      .name = "bench device",
      .usage = "[--device cuda[:N]|shim] [options]",
      .summary = "copies, products and a factorisation on a device; the fastest of several each",
      .examples = "  gptvq bench device --device cuda:0\n",
      .options = options,
      .arguments = {NULL}};
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, NULL, &code)) return code;
  bench.bytes = megabytes << 20;
  gptvq_device_speed s;
  gptvq_error err;
  if (gptvq_bench_device(&bench, &s, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  if (json)
    return gptvq_cli_print_json(json_pack(
        "{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:f}", "name", s.name, "memory_bytes", s.memory,
        "upload_bytes_per_s", s.upload, "download_bytes_per_s", s.download, "fp32_gflop_per_s",
        1e-9 * s.fp32_flops, "tf32_gflop_per_s", 1e-9 * s.tf32_flops, "bf16_gflop_per_s", 1e-9 * s.bf16_flops,
        "factor_side", (json_int_t)s.factor_side, "factor_seconds", s.factor_seconds));
  printf("device           %s, %.1f GB\n", s.name, 1e-9 * s.memory);
  printf("copies           %.2f GB/s to it, %.2f GB/s from it\n", 1e-9 * s.upload, 1e-9 * s.download);
  printf("products         %.1f GFLOP/s in fp32, %.1f in TF32, %.1f in bf16\n", 1e-9 * s.fp32_flops,
         1e-9 * s.tf32_flops, 1e-9 * s.bf16_flops);
  printf("factorisation    %.4f s for %zu x %zu in double\n", s.factor_seconds, s.factor_side, s.factor_side);
  return gptvq_cli_flush();
}
