/* gptvq generate: continue a prompt, token by token. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

typedef struct generation {
  gptvq_cli_writer writer;
  const char *prompt, *prompt_file;
  size_t count;
  int bos, echo;
} generation;

/* The prompt as ids. An empty one starts from BOS. */
static int encode_prompt(generation *job) {
  gptvq_error err;
  gptvq_cli_writer *w = &job->writer;
  size_t size = job->prompt != NULL ? strlen(job->prompt) : 0;
  const char *text = job->prompt;
  char *file_text = NULL;
  if (job->prompt_file != NULL) {
    if (gptvq_cli_read_file(job->prompt_file, &file_text, &size, &err) != GPTVQ_OK)
      return gptvq_cli_fail(&err);
    text = file_text;
    gptvq_cli_warn_encoding(job->prompt_file, text, size);
  }
  gptvq_status status =
      gptvq_tokenizer_encode(w->tokenizer, text, size, job->bos, &w->ids, &w->prompt_count, &err);
  free(file_text);
  if (status != GPTVQ_OK) return gptvq_cli_fail(&err);
  if (w->prompt_count > 0) return 0;
  int32_t bos = w->info.bos >= 0 ? w->info.bos : gptvq_tokenizer_bos(w->tokenizer);
  if (bos < 0 || !job->bos)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "the prompt is empty%s: there is nothing to continue",
                           !job->bos ? " and --no-bos leaves out BOS" : " and the model has no BOS token");
  int32_t *ids = realloc(w->ids, sizeof *ids);
  if (ids == NULL) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: the prompt");
  ids[0] = bos;
  w->ids = ids;
  w->prompt_count = 1;
  return 0;
}

static int prepare(generation *job, const char *path) {
  gptvq_cli_writer *w = &job->writer;
  int code = gptvq_cli_writer_open(w, path);
  if (code == 0) code = encode_prompt(job);
  if (code != 0) return code;
  size_t limit = w->info.max_positions > 0 ? w->info.max_positions : SIZE_MAX;
  if (w->prompt_count > limit)
    return gptvq_cli_error(GPTVQ_ERROR_DATA, "the prompt has %zu tokens, the model's context %zu",
                           w->prompt_count, limit);
  w->stop = "length";
  if (job->count > limit - w->prompt_count) {
    job->count = limit - w->prompt_count;
    w->stop = "context";
    gptvq_cli_warn("the model's context of %zu tokens leaves room for %zu after the prompt", limit,
                   job->count);
  }
  return gptvq_cli_writer_start(w, w->prompt_count + job->count);
}

static int report(generation *job, const char *path) {
  if (job->writer.json) return gptvq_cli_print_json(gptvq_cli_writer_json(&job->writer, path));
  (void)putchar('\n');
  int code = gptvq_cli_flush();
  if (code == 0) gptvq_cli_writer_note(&job->writer);
  return code;
}

static int run(generation *job, const char *path) {
  gptvq_cli_writer *w = &job->writer;
  int code = prepare(job, path);
  if (code == 0) code = gptvq_cli_writer_read(w, job->echo);
  if (code == 0) code = gptvq_cli_writer_prompt(w, job->count > 0);
  gptvq_cli_hear_signals(); /* what was printed is ended in order */
  if (code == 0) code = gptvq_cli_writer_decode(w, job->count);
  if (code == 0) code = report(job, path);
  if (code == 0 && gptvq_cli_interrupted())
    code = gptvq_cli_error(GPTVQ_ERROR_CANCELLED, "stopped on request");
  return code;
}

int gptvq_cmd_generate(int argc, char **argv) {
  enum { FIRST = 3, BETWEEN = 3 };
  generation job = {.count = 128, .bos = 1, .echo = 1};
  gptvq_cli_writer_init(&job.writer);
  const gptvq_option first[FIRST] = {
      {GPTVQ_OPTION_TEXT, "prompt", 'p', .value = &job.prompt, .argument = "TEXT",
       .help = "the text to continue"},
      {GPTVQ_OPTION_STRING, "prompt-file", .value = &job.prompt_file, .argument = "FILE",
       .help = "the text to continue, from a file (- for standard input)"},
      {GPTVQ_OPTION_SIZE, "tokens", 'n', .value = &job.count, .min = 0, .max = 1 << 24, .argument = "N",
       .help = "tokens to generate at most (default 128)"}};
  const gptvq_option between[BETWEEN] = {
      {GPTVQ_OPTION_SWITCH, "bos", .value = &job.bos,
       .help = "begin as the tokenizer's template says (default)"},
      {GPTVQ_OPTION_SWITCH, "echo", .value = &job.echo, .help = "print the prompt too (default)"},
      {GPTVQ_OPTION_FLAG, "ignore-eos", .value = &job.writer.ignore_eos,
       .help = "go on after the end-of-text token"}};
  gptvq_option options[FIRST + GPTVQ_CLI_SAMPLING_OPTIONS + BETWEEN + GPTVQ_CLI_COMPUTE_OPTIONS + 1] = {
      {.kind = GPTVQ_OPTION_END}};
  memcpy(options, first, sizeof first);
  gptvq_cli_sampling_table(&job.writer, options + FIRST);
  memcpy(options + FIRST + GPTVQ_CLI_SAMPLING_OPTIONS, between, sizeof between);
  gptvq_cli_compute_table(&job.writer, options + FIRST + GPTVQ_CLI_SAMPLING_OPTIONS + BETWEEN);
  const gptvq_cli_command command = {.name = "generate",
                                     .usage = "MODEL -p TEXT [-n N] [options]",
                                     .summary = "continue a prompt with a model folder, original or packed",
                                     .examples =
                                         "  gptvq generate small/ -p \"Once upon a time\"\n"
                                         "  gptvq generate small/ -p \"Once upon a time\" -n 64 --temp 0\n"
                                         "      greedy: the same text every time\n"
                                         "  gptvq generate small/ -p \"Dear\" --temp 1 --top-p 0.9 --seed 7\n"
                                         "  gptvq generate small/ -p \"\"\n"
                                         "      starts from the BOS token alone\n",
                                     .options = options,
                                     .arguments = {"MODEL"}};
  const char *path;
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, &path, &code)) return code;
  if ((job.prompt == NULL) == (job.prompt_file == NULL))
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "give a prompt: -p TEXT or --prompt-file FILE, one of them");
  code = run(&job, path);
  gptvq_cli_writer_release(&job.writer);
  return code;
}
