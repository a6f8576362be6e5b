#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void gptvq_cli_writer_init(gptvq_cli_writer *w) {
  memset(w, 0, sizeof *w);
  w->compute = GPTVQ_COMPUTE_AUTO;
  w->end_of_turn = -1;
  gptvq_sampler_init(&w->sampler, 0);
  w->sampler.repetition_penalty = 1.0f;
}

void gptvq_cli_sampling_table(gptvq_cli_writer *w, gptvq_option table[GPTVQ_CLI_SAMPLING_OPTIONS]) {
  const gptvq_option options[GPTVQ_CLI_SAMPLING_OPTIONS] = {
      {GPTVQ_OPTION_FLOAT, "temp", .value = &w->sampler.temperature, .min = 0, .max = 100, .argument = "T",
       .help = "temperature (default 0.8); 0 = greedy, always the most likely token"},
      {GPTVQ_OPTION_FLOAT, "top-p", .value = &w->sampler.top_p, .min = 1e-6, .max = 1, .argument = "P",
       .help = "sample from the most likely tokens that make up P (default 0.95)"},
      {GPTVQ_OPTION_SIZE, "top-k", .value = &w->sampler.top_k, .min = 0, .max = 1 << 24, .argument = "K",
       .help = "sample from the K most likely tokens; 0 = all (default)"},
      {GPTVQ_OPTION_FLOAT, "min-p", .value = &w->sampler.min_p, .min = 0, .max = 1, .argument = "P",
       .help = "leave out tokens less than P times as likely as the most likely one; 0 = none (default)"},
      {GPTVQ_OPTION_FLOAT, "repeat-penalty", .value = &w->sampler.repetition_penalty, .min = 1e-6, .max = 1e6,
       .argument = "R",
       .help = "logits of tokens that the text has already are divided by R, negative ones multiplied;\n"
               "1 = off (default)"},
      {GPTVQ_OPTION_SEED, "seed", .value = &w->seed, .argument = "S", .given = &w->seed_given,
       .help = "the same seed gives the same text (default: from the clock, reported)"}};
  memcpy(table, options, sizeof options);
}

void gptvq_cli_compute_table(gptvq_cli_writer *w, gptvq_option table[GPTVQ_CLI_COMPUTE_OPTIONS]) {
  const gptvq_option options[GPTVQ_CLI_COMPUTE_OPTIONS] = {
      {GPTVQ_OPTION_CHOICE, "compute", .value = &w->compute, .choices = gptvq_cli_computes(),
       .argument = "auto|fp32|bf16|int8",
       .help = "precision of the inputs of matrix products; auto (default): int8 for packed folders, else "
               "bf16\nwhere the weights and the processor have it, or fp32"},
      {GPTVQ_OPTION_UNSIGNED, "head-bits", .value = &w->head_bits, .min = 8, .max = 16, .argument = "8|16",
       .help = "weights of the output head (default: 8 with int8, else as stored)"},
      {GPTVQ_OPTION_FLAG, "json", .value = &w->json, .help = "text, ids and speed as JSON, at the end"}};
  memcpy(table, options, sizeof options);
}

int gptvq_cli_writer_open(gptvq_cli_writer *w, const char *path) {
  gptvq_error err;
  gptvq_model_options options = {
      .size = sizeof options, .compute = (gptvq_compute)w->compute, .head_bits = w->head_bits};
  if (!w->seed_given) w->seed = (uint64_t)time(NULL);
  w->sampler.state = w->seed;
  if (gptvq_cli_open_model(path, &options, &w->model, &err) != GPTVQ_OK ||
      gptvq_tokenizer_open(path, &w->tokenizer, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  gptvq_model_info_init(&w->info);
  gptvq_model_get_info(w->model, &w->info);
  return 0;
}

int gptvq_cli_writer_start(gptvq_cli_writer *w, size_t positions) {
  gptvq_error err;
  if (gptvq_session_create(w->model, positions, &w->session, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  int32_t *ids = realloc(w->ids, positions * sizeof *ids);
  if (ids == NULL) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: the text's tokens");
  w->ids = ids;
  w->logits = malloc(w->info.vocab * sizeof *w->logits);
  if (w->logits == NULL) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: logits");
  return 0;
}

/* Prints a piece at once, or keeps it: for the JSON, and as the answer that the conversation goes on with. */
static int emit(gptvq_cli_writer *w, const char *piece, size_t size) {
  if (size == 0) return 0;
  if (!w->json) {
    if (fwrite(piece, 1, size, stdout) != size)
      return gptvq_cli_error(GPTVQ_ERROR_IO, "cannot write to standard output: %s", strerror(errno));
    int code = gptvq_cli_flush();
    if (code != 0 || !w->keep) return code;
  }
  if (w->text_capacity - w->text_size <= size) {
    size_t capacity = 2 * (w->text_capacity + size) + 64;
    char *larger = realloc(w->text, capacity);
    if (larger == NULL) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: the generated text");
    w->text = larger;
    w->text_capacity = capacity;
  }
  memcpy(w->text + w->text_size, piece, size);
  w->text_size += size;
  return 0;
}

/* The prompt goes through the text stream too: what a token looks like may depend on those before it. */
int gptvq_cli_writer_read(gptvq_cli_writer *w, bool echo) {
  gptvq_error err;
  const char *piece;
  size_t size;
  gptvq_text_stream_destroy(w->stream);
  w->stream = NULL;
  w->text_size = 0;
  if (gptvq_text_stream_create(w->tokenizer, 1, &w->stream, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  for (size_t i = 0; i < w->prompt_count; i++) {
    if (gptvq_text_stream_push(w->stream, w->ids[i], &piece, &size, &err) != GPTVQ_OK)
      return gptvq_cli_fail(&err);
    int code = echo ? emit(w, piece, size) : 0;
    if (code != 0) return code;
  }
  return 0;
}

int gptvq_cli_writer_prompt(gptvq_cli_writer *w, bool logits) {
  enum { CHUNK = 512 };
  gptvq_error err;
  double start = gptvq_cli_clock();
  size_t first = gptvq_session_position(w->session);
  for (size_t at = first; at < w->prompt_count && !gptvq_cli_interrupted(); at += CHUNK) {
    size_t n = w->prompt_count - at < CHUNK ? w->prompt_count - at : CHUNK;
    float *out = at + n == w->prompt_count && logits ? w->logits : NULL;
    gptvq_status status = gptvq_session_forward(w->session, w->ids + at, n, out, 0, &err);
    if (status == GPTVQ_ERROR_CANCELLED &&
        !gptvq_cli_interrupted()) /* a request left over from the last turn */
      status = gptvq_session_forward(w->session, w->ids + at, n, out, 0, &err);
    if (status != GPTVQ_OK && status != GPTVQ_ERROR_CANCELLED) return gptvq_cli_fail(&err);
  }
  w->prompt_read = gptvq_session_position(w->session) - first;
  w->prompt_seconds = gptvq_cli_clock() - start;
  return 0;
}

static bool is_eos(const gptvq_cli_writer *w, int32_t id) {
  for (size_t i = 0; i < w->info.eos_count; i++)
    if (w->info.eos[i] == id) return true;
  return id == gptvq_tokenizer_eos(w->tokenizer) || (id >= 0 && id == w->end_of_turn);
}

int gptvq_cli_writer_decode(gptvq_cli_writer *w, size_t most) {
  gptvq_error err;
  const char *piece;
  size_t size;
  double start = gptvq_cli_clock();
  w->generated = 0;
  w->sampler.history = w->ids;
  w->sampler.history_count = w->prompt_count;
  for (size_t i = 0; i < most && !gptvq_cli_interrupted(); i++) {
    int32_t id;
    if (gptvq_sample(&w->sampler, w->logits, w->info.vocab, &id, &err) != GPTVQ_OK)
      return gptvq_cli_fail(&err);
    if (!w->ignore_eos && is_eos(w, id)) {
      w->stop = "eos";
      break;
    }
    w->generated++;
    w->ids[w->sampler.history_count++] = id;
    if (gptvq_text_stream_push(w->stream, id, &piece, &size, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
    int code = emit(w, piece, size);
    if (code != 0) return code;
    if (i + 1 == most) break; /* nothing follows: no need to run it */
    gptvq_status status = gptvq_session_forward(w->session, &id, 1, w->logits, 0, &err);
    if (status != GPTVQ_OK && !(status == GPTVQ_ERROR_CANCELLED && gptvq_cli_interrupted()))
      return gptvq_cli_fail(&err);
  }
  w->decode_seconds = gptvq_cli_clock() - start;
  if (gptvq_cli_interrupted()) w->stop = "interrupted";
  if (gptvq_text_stream_flush(w->stream, &piece, &size, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  return emit(w, piece, size);
}

static double rate(size_t count, double seconds) { return seconds > 0 ? (double)count / seconds : 0; }

/* The first token comes from the prompt's logits. */
static size_t steps(const gptvq_cli_writer *w) { return w->generated > 0 ? w->generated - 1 : 0; }

void gptvq_cli_writer_note(const gptvq_cli_writer *w) {
  gptvq_cli_note("prompt: %zu tokens, %.1f tokens/s; decoding: %zu tokens, %.1f tokens/s (%s; seed %llu)",
                 w->prompt_count, rate(w->prompt_read, w->prompt_seconds), w->generated,
                 rate(steps(w), w->decode_seconds), w->stop, (unsigned long long)w->seed);
}

json_t *gptvq_cli_writer_json(const gptvq_cli_writer *w, const char *path) {
  json_t *object = json_object(), *prompt_ids = json_array(), *ids = json_array();
  gptvq_cli_json_set(object, "model", gptvq_cli_text(path));
  gptvq_cli_json_set(object, "text", json_stringn(w->text != NULL ? w->text : "", w->text_size));
  for (size_t i = 0; i < w->prompt_count + w->generated; i++)
    gptvq_cli_json_append(i < w->prompt_count ? prompt_ids : ids, json_integer(w->ids[i]));
  gptvq_cli_json_set(object, "prompt_ids", prompt_ids);
  gptvq_cli_json_set(object, "ids", ids);
  gptvq_cli_json_set(object, "prompt_tokens", json_integer((json_int_t)w->prompt_count));
  gptvq_cli_json_set(object, "tokens", json_integer((json_int_t)w->generated));
  gptvq_cli_json_set(object, "stop", json_string(w->stop));
  /* a seed may need all 64 bits, JSON integers have 63 */
  gptvq_cli_json_set(object, "seed",
                     w->seed <= INT64_MAX ? json_integer((json_int_t)w->seed)
                                          : json_sprintf("%llu", (unsigned long long)w->seed));
  gptvq_cli_json_set(object, "prompt_seconds", gptvq_cli_number(w->prompt_seconds));
  gptvq_cli_json_set(object, "prompt_tokens_per_second",
                     gptvq_cli_number(rate(w->prompt_read, w->prompt_seconds)));
  gptvq_cli_json_set(object, "decode_seconds", gptvq_cli_number(w->decode_seconds));
  gptvq_cli_json_set(object, "tokens_per_second",
                     steps(w) > 0 ? gptvq_cli_number(rate(steps(w), w->decode_seconds)) : json_null());
  return object;
}

void gptvq_cli_writer_release(gptvq_cli_writer *w) {
  free(w->logits);
  free(w->text);
  gptvq_free(w->ids);
  gptvq_text_stream_destroy(w->stream);
  gptvq_session_destroy(w->session);
  gptvq_tokenizer_close(w->tokenizer);
  gptvq_model_close(w->model);
}
