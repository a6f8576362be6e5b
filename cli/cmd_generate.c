/* gptvq generate: continue a prompt, token by token. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct generation {
  /* options */
  const char *prompt, *prompt_file;
  size_t count;
  gptvq_sampler sampler;
  uint64_t seed;
  unsigned head_bits;
  int bos, echo, ignore_eos, compute, json, seed_given;
  /* state; all owned */
  gptvq_model *model;
  gptvq_tokenizer *tokenizer;
  gptvq_session *session;
  gptvq_text_stream *stream;
  char *file_text;
  int32_t *prompt_ids; /* [prompt_count]; room for all that is generated */
  float *logits;
  char *text; /* with --json: what was printed otherwise */
  size_t text_size, text_capacity;
  /* results */
  gptvq_model_info info;
  json_t *ids; /* generated */
  size_t prompt_count, generated;
  double prompt_seconds, decode_seconds;
  const char *stop; /* "length", "eos", "context", "interrupted" */
} generation;

/* Prints a piece at once, or keeps it for the JSON. */
static int emit(generation *job, const char *piece, size_t size) {
  if (size == 0) return 0;
  if (!job->json) {
    if (fwrite(piece, 1, size, stdout) != size)
      return gptvq_cli_error(GPTVQ_ERROR_IO, "cannot write to standard output: %s", strerror(errno));
    return gptvq_cli_flush();
  }
  if (job->text_capacity - job->text_size <= size) {
    size_t capacity = 2 * (job->text_capacity + size) + 64;
    char *larger = realloc(job->text, capacity);
    if (larger == NULL) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: the generated text");
    job->text = larger;
    job->text_capacity = capacity;
  }
  memcpy(job->text + job->text_size, piece, size);
  job->text_size += size;
  return 0;
}

/* The prompt as ids. An empty one starts from BOS. */
static int encode_prompt(generation *job) {
  gptvq_error err;
  size_t size = job->prompt != NULL ? strlen(job->prompt) : 0;
  const char *text = job->prompt;
  if (job->prompt_file != NULL) {
    if (gptvq_cli_read_file(job->prompt_file, &job->file_text, &size, &err) != GPTVQ_OK)
      return gptvq_cli_fail(&err);
    text = job->file_text;
    gptvq_cli_warn_encoding(job->prompt_file, text, size);
  }
  if (gptvq_tokenizer_encode(job->tokenizer, text, size, job->bos, &job->prompt_ids, &job->prompt_count,
                             &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  if (job->prompt_count > 0) return 0;
  int32_t bos = job->info.bos >= 0 ? job->info.bos : gptvq_tokenizer_bos(job->tokenizer);
  if (bos < 0 || !job->bos)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "the prompt is empty%s: there is nothing to continue",
                           !job->bos ? " and --no-bos leaves out BOS" : " and the model has no BOS token");
  int32_t *ids = realloc(job->prompt_ids, sizeof *ids);
  if (ids == NULL) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: the prompt");
  ids[0] = bos;
  job->prompt_ids = ids;
  job->prompt_count = 1;
  return 0;
}

static int prepare(generation *job, const char *path) {
  gptvq_error err;
  gptvq_model_options options = {
      .size = sizeof options, .compute = (gptvq_compute)job->compute, .head_bits = job->head_bits};
  if (gptvq_cli_open_model(path, &options, &job->model, &err) != GPTVQ_OK ||
      gptvq_tokenizer_open(path, &job->tokenizer, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  gptvq_model_info_init(&job->info);
  gptvq_model_get_info(job->model, &job->info);
  int code = encode_prompt(job);
  if (code != 0) return code;
  size_t limit = job->info.max_positions > 0 ? job->info.max_positions : SIZE_MAX;
  if (job->prompt_count > limit)
    return gptvq_cli_error(GPTVQ_ERROR_DATA, "the prompt has %zu tokens, the model's context %zu",
                           job->prompt_count, limit);
  job->stop = "length";
  if (job->count > limit - job->prompt_count) {
    job->count = limit - job->prompt_count;
    job->stop = "context";
    gptvq_cli_warn("the model's context of %zu tokens leaves room for %zu after the prompt", limit,
                   job->count);
  }
  if (gptvq_session_create(job->model, job->prompt_count + job->count, &job->session, &err) != GPTVQ_OK ||
      gptvq_text_stream_create(job->tokenizer, 1, &job->stream, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  int32_t *history = realloc(job->prompt_ids, (job->prompt_count + job->count) * sizeof *history);
  if (history == NULL) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: the text's tokens");
  job->prompt_ids = history;
  job->sampler.history = history;
  job->sampler.history_count = job->prompt_count;
  job->logits = malloc(job->info.vocab * sizeof *job->logits);
  job->ids = json_array();
  if (job->logits == NULL || job->ids == NULL)
    return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: logits");
  return 0;
}

static bool is_eos(const generation *job, int32_t id) {
  for (size_t i = 0; i < job->info.eos_count; i++)
    if (job->info.eos[i] == id) return true;
  return id == gptvq_tokenizer_eos(job->tokenizer);
}

/* Runs the prompt. It goes through the text stream too: what a token looks like may depend on those before
 * it. */
static int run_prompt(generation *job) {
  enum { CHUNK = 512 };
  gptvq_error err;
  const char *piece;
  size_t size;
  for (size_t i = 0; i < job->prompt_count; i++) {
    if (gptvq_text_stream_push(job->stream, job->prompt_ids[i], &piece, &size, &err) != GPTVQ_OK)
      return gptvq_cli_fail(&err);
    int code = job->echo ? emit(job, piece, size) : 0;
    if (code != 0) return code;
  }
  double start = gptvq_cli_clock();
  for (size_t at = 0; at < job->prompt_count; at += CHUNK) {
    size_t n = job->prompt_count - at < CHUNK ? job->prompt_count - at : CHUNK;
    float *logits = at + n == job->prompt_count && job->count > 0 ? job->logits : NULL;
    if (gptvq_session_forward(job->session, job->prompt_ids + at, n, logits, 0, &err) != GPTVQ_OK)
      return gptvq_cli_fail(&err);
  }
  job->prompt_seconds = gptvq_cli_clock() - start;
  return 0;
}

static int decode(generation *job) {
  gptvq_error err;
  const char *piece;
  size_t size;
  double start = gptvq_cli_clock();
  gptvq_cli_hear_signals(); /* what was printed is ended in order */
  for (size_t i = 0; i < job->count && !gptvq_cli_interrupted(); i++) {
    int32_t id;
    if (gptvq_sample(&job->sampler, job->logits, job->info.vocab, &id, &err) != GPTVQ_OK)
      return gptvq_cli_fail(&err);
    if (!job->ignore_eos && is_eos(job, id)) {
      job->stop = "eos";
      break;
    }
    job->generated++;
    job->prompt_ids[job->sampler.history_count++] = id;
    gptvq_cli_json_append(job->ids, json_integer(id));
    if (gptvq_text_stream_push(job->stream, id, &piece, &size, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
    int code = emit(job, piece, size);
    if (code != 0) return code;
    if (i + 1 == job->count) break; /* nothing follows: no need to run it */
    if (gptvq_session_forward(job->session, &id, 1, job->logits, 0, &err) != GPTVQ_OK)
      return gptvq_cli_fail(&err);
  }
  job->decode_seconds = gptvq_cli_clock() - start;
  if (gptvq_cli_interrupted()) job->stop = "interrupted";
  if (gptvq_text_stream_flush(job->stream, &piece, &size, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  return emit(job, piece, size);
}

static double rate(size_t count, double seconds) { return seconds > 0 ? (double)count / seconds : 0; }

static int report(generation *job, const char *path) {
  size_t steps =
      job->generated > 0 ? job->generated - 1 : 0; /* the first token comes from the prompt's logits */
  if (!job->json) {
    (void)putchar('\n');
    int code = gptvq_cli_flush();
    if (code != 0) return code;
    gptvq_cli_note("prompt: %zu tokens, %.1f tokens/s; decoding: %zu tokens, %.1f tokens/s (%s; seed %llu)",
                   job->prompt_count, rate(job->prompt_count, job->prompt_seconds), job->generated,
                   rate(steps, job->decode_seconds), job->stop, (unsigned long long)job->seed);
    return 0;
  }
  json_t *object = json_object();
  gptvq_cli_json_set(object, "model", gptvq_cli_text(path));
  gptvq_cli_json_set(object, "text", json_stringn(job->text != NULL ? job->text : "", job->text_size));
  json_t *prompt_ids = json_array();
  for (size_t i = 0; i < job->prompt_count; i++)
    gptvq_cli_json_append(prompt_ids, json_integer(job->prompt_ids[i]));
  gptvq_cli_json_set(object, "prompt_ids", prompt_ids);
  gptvq_cli_json_set(object, "ids", json_incref(job->ids));
  gptvq_cli_json_set(object, "prompt_tokens", json_integer((json_int_t)job->prompt_count));
  gptvq_cli_json_set(object, "tokens", json_integer((json_int_t)job->generated));
  gptvq_cli_json_set(object, "stop", json_string(job->stop));
  /* a seed may need all 64 bits, JSON integers have 63 */
  gptvq_cli_json_set(object, "seed",
                     job->seed <= INT64_MAX ? json_integer((json_int_t)job->seed)
                                            : json_sprintf("%llu", (unsigned long long)job->seed));
  gptvq_cli_json_set(object, "prompt_seconds", gptvq_cli_number(job->prompt_seconds));
  gptvq_cli_json_set(object, "prompt_tokens_per_second",
                     gptvq_cli_number(rate(job->prompt_count, job->prompt_seconds)));
  gptvq_cli_json_set(object, "decode_seconds", gptvq_cli_number(job->decode_seconds));
  gptvq_cli_json_set(object, "tokens_per_second",
                     steps > 0 ? gptvq_cli_number(rate(steps, job->decode_seconds)) : json_null());
  return gptvq_cli_print_json(object);
}

static void release(generation *job) {
  json_decref(job->ids);
  free(job->logits);
  free(job->text);
  free(job->file_text);
  gptvq_free(job->prompt_ids);
  if (job->stream != NULL) gptvq_text_stream_destroy(job->stream);
  if (job->session != NULL) gptvq_session_destroy(job->session);
  gptvq_tokenizer_close(job->tokenizer);
  gptvq_model_close(job->model);
}

int gptvq_cmd_generate(int argc, char **argv) {
  generation job = {.count = 128, .bos = 1, .echo = 1, .compute = GPTVQ_COMPUTE_AUTO};
  gptvq_sampler_init(&job.sampler, 0);
  job.sampler.repetition_penalty = 1.0f;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_TEXT, "prompt", 'p', .value = &job.prompt, .argument = "TEXT",
       .help = "the text to continue"},
      {GPTVQ_OPTION_STRING, "prompt-file", .value = &job.prompt_file, .argument = "FILE",
       .help = "the text to continue, from a file (- for standard input)"},
      {GPTVQ_OPTION_SIZE, "tokens", 'n', .value = &job.count, .min = 0, .max = 1 << 24, .argument = "N",
       .help = "tokens to generate at most (default 128)"},
      {GPTVQ_OPTION_FLOAT, "temp", .value = &job.sampler.temperature, .min = 0, .max = 100, .argument = "T",
       .help = "temperature (default 0.8); 0 = greedy, always the most likely token"},
      {GPTVQ_OPTION_FLOAT, "top-p", .value = &job.sampler.top_p, .min = 1e-6, .max = 1, .argument = "P",
       .help = "sample from the most likely tokens that make up P (default 0.95)"},
      {GPTVQ_OPTION_SIZE, "top-k", .value = &job.sampler.top_k, .min = 0, .max = 1 << 24, .argument = "K",
       .help = "sample from the K most likely tokens; 0 = all (default)"},
      {GPTVQ_OPTION_FLOAT, "min-p", .value = &job.sampler.min_p, .min = 0, .max = 1, .argument = "P",
       .help = "leave out tokens less than P times as likely as the most likely one; 0 = none (default)"},
      {GPTVQ_OPTION_FLOAT, "repeat-penalty", .value = &job.sampler.repetition_penalty, .min = 1e-6,
       .max = 1e6, .argument = "R",
       .help = "logits of tokens that the text has already are divided by R, negative ones multiplied;\n"
               "1 = off (default)"},
      {GPTVQ_OPTION_SEED, "seed", .value = &job.seed, .argument = "S", .given = &job.seed_given,
       .help = "the same seed gives the same text (default: from the clock, reported)"},
      {GPTVQ_OPTION_SWITCH, "bos", .value = &job.bos,
       .help = "begin as the tokenizer's template says (default)"},
      {GPTVQ_OPTION_SWITCH, "echo", .value = &job.echo, .help = "print the prompt too (default)"},
      {GPTVQ_OPTION_FLAG, "ignore-eos", .value = &job.ignore_eos,
       .help = "go on after the end-of-text token"},
      {GPTVQ_OPTION_CHOICE, "compute", .value = &job.compute, .choices = gptvq_cli_computes(),
       .argument = "auto|fp32|bf16|int8",
       .help = "precision of the inputs of matrix products; auto (default): int8 for packed folders, fp32 "
               "for others"},
      {GPTVQ_OPTION_UNSIGNED, "head-bits", .value = &job.head_bits, .min = 8, .max = 16, .argument = "8|16",
       .help = "weights of the output head (default: 8 with int8, else as stored)"},
      {GPTVQ_OPTION_FLAG, "json", .value = &job.json, .help = "text, ids and speed as JSON, at the end"},
      {.kind = GPTVQ_OPTION_END}};
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
  if (!job.seed_given) job.seed = (uint64_t)time(NULL);
  job.sampler.state = job.seed;
  code = prepare(&job, path);
  if (code == 0) code = run_prompt(&job);
  if (code == 0) code = decode(&job);
  if (code == 0) code = report(&job, path);
  if (code == 0 && gptvq_cli_interrupted())
    code = gptvq_cli_error(GPTVQ_ERROR_CANCELLED, "stopped on request");
  release(&job);
  return code;
}
