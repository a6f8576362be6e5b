/* gptvq export: a packed folder as plain bf16 weights. */
#include "cli.h"

static const char *const formats[] = {"hf", NULL};

int gptvq_cmd_export(int argc, char **argv) {
  const char *out = NULL;
  int format = 0, force = 0;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_STRING, "output", 'o', .value = &out, .argument = "DIR", .help = "the folder to make"},
      {GPTVQ_OPTION_CHOICE, "format", .value = &format, .choices = formats, .argument = "hf",
       .help = "hf: a Hugging Face folder of bf16 weights (default)"},
      {GPTVQ_OPTION_FLAG, "force", .value = &force, .help = "replace DIR if it is a model folder"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {.name = "export",
                                     .usage = "PACKED -o DIR [--format hf] [--force]",
                                     .summary = "de-quantize a packed folder into one that other tools load",
                                     .examples = "  gptvq export small/ -o small-bf16/ --format hf\n"
                                                 "      a folder for transformers and others; as large as "
                                                 "the original, as good as the packed model\n",
                                     .options = options,
                                     .arguments = {"PACKED"}};
  const char *path;
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, &path, &code)) return code;
  if (out == NULL) return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "-o DIR is missing; see gptvq export --help");
  gptvq_cli_progress progress;
  gptvq_callbacks callbacks = gptvq_cli_progress_callbacks(&progress);
  gptvq_error err;
  gptvq_status status = gptvq_export_hf(path, out, force, &callbacks, &err);
  gptvq_cli_progress_end(&progress);
  if (status != GPTVQ_OK) return gptvq_cli_fail(&err);
  gptvq_cli_note("wrote %s", out);
  return 0;
}
