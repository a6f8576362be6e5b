/* gptvq: compress Llama-family models by vector quantization, measure what was lost, run them. */
#include "cli.h"
#include "mpi/mpi.h"

#include <string.h>
#include <unistd.h>

static const struct {
  const char *name, *summary;
  int (*run)(int argc, char **argv);
} commands[] = {
    {"quantize", "compress a model folder into a packed one", gptvq_cmd_quantize},
    {"eval", "perplexity of a model on a text, or its answers to questions", gptvq_cmd_eval},
    {"compare", "KL divergence and agreement of two models on a text", gptvq_cmd_compare},
    {"generate", "continue a prompt", gptvq_cmd_generate},
    {"chat", "talk to a chat model", gptvq_cmd_chat},
    {"serve", "answer programs that know OpenAI's API", gptvq_cmd_serve},
    {"inspect", "layers, formats and sizes of a model", gptvq_cmd_inspect},
    {"report", "a page about a packed folder: layers, size and quality, times", gptvq_cmd_report},
    {"tokenize", "token ids of a text, and back", gptvq_cmd_tokenize},
    {"export", "turn a model into a plain Hugging Face folder or a GGUF file", gptvq_cmd_export},
    {"bench", "speed of a model; models of random weights", gptvq_cmd_bench},
    {NULL, NULL, NULL},
};

static int help(void) {
  printf("gptvq %s: compress Llama-family models by vector quantization, measure what was lost, run them.\n\n"
         "  gptvq COMMAND [arguments] [options]\n\nCommands:\n",
         gptvq_version());
  for (size_t i = 0; commands[i].name != NULL; i++)
    printf("  %-10s %s\n", commands[i].name, commands[i].summary);
  printf("\nA first tour:\n"
         "  gptvq quantize Llama-2-7b/ -o small/ --dim 2 --bits 2.25 --calib train.txt\n"
         "  gptvq eval small/ --text test.txt\n"
         "  gptvq compare Llama-2-7b/ small/ --text test.txt\n"
         "  gptvq generate small/ -p \"Once upon a time\"\n\n"
         "gptvq COMMAND --help explains a command. Exit codes: 0 done, 1 bug, 2 wrong option or argument,\n"
         "3 file cannot be read or written, 4 malformed file, 5 not supported, 6 NaN or numeric failure,\n"
         "7 out of memory, 8 unusable text or tokens, 130 interrupted.\n");
  return gptvq_cli_flush();
}

static int run(int argc, char **argv) {
  const char *name = argc > 1 ? argv[1] : "";
  if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
    const char *mpi = gptvq_mpi_version();
    printf("gptvq %s (with%s %s)\n", gptvq_version(), mpi != NULL ? "" : "out", mpi != NULL ? mpi : "MPI");
    return gptvq_cli_flush();
  }
  if (argc == 2 && strcmp(name, "--help=commands") == 0) { /* for scripts */
    for (size_t i = 0; commands[i].name != NULL; i++)
      printf("%s\t%s\n", commands[i].name, commands[i].summary);
    return gptvq_cli_flush();
  }
  bool wants_help = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0;
  if (wants_help && argc == 2) return help();
  if (argc < 2) return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "no command; see gptvq --help");
  char *help_arguments[2] = {NULL, (char[]){"--help"}};
  if (wants_help) name = argv[2]; /* gptvq help COMMAND */
  for (size_t i = 0; commands[i].name != NULL; i++) {
    if (strcmp(name, commands[i].name) != 0) continue;
    if (!wants_help) return commands[i].run(argc - 1, argv + 1);
    help_arguments[0] = argv[2];
    return commands[i].run(2, help_arguments);
  }
  const char *names[sizeof commands / sizeof commands[0]] = {NULL};
  for (size_t i = 0; commands[i].name != NULL; i++) names[i] = commands[i].name;
  const char *near = gptvq_cli_suggest(name, names);
  if (near != NULL)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "unknown command '%s'; did you mean %s?", name, near);
  return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "unknown command '%s'; see gptvq --help", name);
}

/* OpenBLAS asks this, instead of its own function, how many threads to start when it is loaded. We only ever
 * use one at a time; each of the others would take memory, and wait for ever at exit where there is too
 * little of it. */
__attribute__((visibility("default"))) int openblas_num_threads_env(void);
int openblas_num_threads_env(void) { return 1; }

int main(int argc, char **argv) {
  gptvq_cli_catch_signals();
  int code = run(argc, argv);
  if (code == GPTVQ_ERROR_MEMORY) { /* OpenBLAS's exit handler can wait for ever for its helper threads when
                                       memory is short */
    (void)fflush(NULL);
    _exit(code);
  }
  return code;
}
