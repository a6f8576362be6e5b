/* gptvq export: a model as plain weights for other programs. */
#include "cli.h"

enum { FORMAT_HF, FORMAT_GGUF };
static const char *const formats[] = {"hf", "gguf", NULL};
static const char *const types[] = {"auto", "f16", "bf16", "q8_0",
                                    NULL}; /* in the order of gptvq_gguf_type */

int gptvq_cmd_export(int argc, char **argv) {
  const char *out = NULL;
  int format = FORMAT_HF, type = GPTVQ_GGUF_AUTO, force = 0;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_STRING, "output", 'o', .value = &out, .argument = "PATH",
       .help = "the folder (hf) or the file (gguf) to make"},
      {GPTVQ_OPTION_CHOICE, "format", .value = &format, .choices = formats, .argument = "hf|gguf",
       .help =
           "hf: a Hugging Face folder of bf16 weights (default); gguf: a file for llama.cpp, of any model"},
      {GPTVQ_OPTION_CHOICE, "type", .value = &type, .choices = types, .argument = "auto|f16|bf16|q8_0",
       .help =
           "gguf: how matrices are stored (default: auto, q8_0 where rows are whole blocks of 32, else f16)"},
      {GPTVQ_OPTION_FLAG, "force", .value = &force,
       .help = "replace PATH if it is a model folder, or a file"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {
      .name = "export",
      .usage = "MODEL -o PATH [--format hf|gguf] [--type T] [--force]",
      .summary = "turn a packed folder, a plain one or a GGUF file into what other tools load",
      .examples = "  gptvq export small/ -o small-bf16/ --format hf\n"
                  "      a folder for transformers and others; as large as "
                  "the original, as good as the packed model\n"
                  "  gptvq export small/ -o small.gguf --format gguf\n"
                  "      a file for llama.cpp, tokenizer and chat template included\n",
      .options = options,
      .arguments = {"MODEL"}};
  const char *path;
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, &path, &code)) return code;
  if (out == NULL)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "-o PATH is missing; see gptvq export --help");
  if (type != GPTVQ_GGUF_AUTO && format != FORMAT_GGUF)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "--type goes with --format gguf");
  gptvq_cli_progress progress;
  gptvq_callbacks callbacks = gptvq_cli_progress_callbacks(&progress);
  gptvq_error err;
  gptvq_status status = format == FORMAT_GGUF
                            ? gptvq_export_gguf(path, out, (gptvq_gguf_type)type, force, &callbacks, &err)
                            : gptvq_export_hf(path, out, force, &callbacks, &err);
  gptvq_cli_progress_end(&progress);
  if (status != GPTVQ_OK) return gptvq_cli_fail(&err);
  gptvq_cli_note("wrote %s", out);
  return 0;
}
