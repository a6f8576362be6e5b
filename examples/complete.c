/* The library in one page: continues a text, always with the most likely token.
 *
 *   cc complete.c $(pkg-config --cflags --libs gptvq) -o complete      after: cmake --install build/release
 * --prefix PREFIX
 *   ./complete MODEL TEXT [TOKENS]
 *
 * It prints what `gptvq generate MODEL -p TEXT -n TOKENS --temp 0` prints. */
#include <gptvq/gptvq.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct run {
  gptvq_tokenizer *tokenizer;
  gptvq_model *model;
  gptvq_session *session;
  gptvq_text_stream *stream;
  gptvq_model_info info;
  int32_t *ids, bos;
  float *logits;
} run;

static gptvq_status fail(gptvq_error *err, gptvq_status status, const char *message) {
  err->status = status;
  snprintf(err->message, sizeof err->message, "%s", message);
  return status;
}

static int is_end(const run *r, int32_t id) {
  for (size_t i = 0; i < r->info.eos_count; i++)
    if (r->info.eos[i] == id) return 1;
  return id == gptvq_tokenizer_eos(r->tokenizer);
}

/* What a token looks like may depend on those before it: all of them, the prompt's too, go through the
 * stream. */
static gptvq_status print_tokens(run *r, const int32_t *ids, size_t count, gptvq_error *err) {
  const char *piece;
  size_t size;
  for (size_t i = 0; i < count; i++) {
    gptvq_status status = gptvq_text_stream_push(r->stream, ids[i], &piece, &size, err);
    if (status != GPTVQ_OK) return status;
    fwrite(piece, 1, size, stdout);
  }
  return GPTVQ_OK;
}

static gptvq_status complete(run *r, const char *path, const char *text, size_t tokens, gptvq_error *err) {
  const gptvq_model_options options = {.size = sizeof options, .compute = GPTVQ_COMPUTE_AUTO};
  gptvq_sampler greedy = {.size = sizeof greedy, .temperature = 0.0f, .top_p = 1.0f};
  gptvq_status status;
  size_t count, size;
  if ((status = gptvq_model_open(path, &options, &r->model, err)) != GPTVQ_OK) return status;
  gptvq_model_info_init(&r->info);
  gptvq_model_get_info(r->model, &r->info);
  if ((status = gptvq_tokenizer_open(path, &r->tokenizer, err)) != GPTVQ_OK) return status;
  if ((status = gptvq_tokenizer_encode(r->tokenizer, text, strlen(text), 1, &r->ids, &count, err)) !=
      GPTVQ_OK)
    return status;
  const int32_t *prompt = r->ids;
  if (count == 0) { /* an empty text begins with BOS */
    r->bos = r->info.bos >= 0 ? r->info.bos : gptvq_tokenizer_bos(r->tokenizer);
    if (r->bos < 0) return fail(err, GPTVQ_ERROR_ARGUMENT, "there is nothing to continue");
    prompt = &r->bos;
    count = 1;
  }
  if (r->info.max_positions > 0 && count > r->info.max_positions)
    return fail(err, GPTVQ_ERROR_DATA, "the text is longer than the model's context");
  if (r->info.max_positions > 0 && tokens > r->info.max_positions - count)
    tokens = r->info.max_positions - count;
  if ((status = gptvq_session_create(r->model, count + tokens, &r->session, err)) != GPTVQ_OK) return status;
  if ((status = gptvq_text_stream_create(r->tokenizer, 1, &r->stream, err)) != GPTVQ_OK) return status;
  if ((r->logits = malloc(r->info.vocab * sizeof *r->logits)) == NULL)
    return fail(err, GPTVQ_ERROR_MEMORY, "out of memory: logits");

  if ((status = print_tokens(r, prompt, count, err)) != GPTVQ_OK) return status;
  if ((status = gptvq_session_forward(r->session, prompt, count, r->logits, 0, err)) != GPTVQ_OK)
    return status;
  for (size_t i = 0; i < tokens; i++) {
    int32_t id;
    if ((status = gptvq_sample(&greedy, r->logits, r->info.vocab, &id, err)) != GPTVQ_OK) return status;
    if (is_end(r, id)) break;
    if ((status = print_tokens(r, &id, 1, err)) != GPTVQ_OK) return status;
    if (i + 1 < tokens && (status = gptvq_session_forward(r->session, &id, 1, r->logits, 0, err)) != GPTVQ_OK)
      return status;
  }
  const char *rest;
  if ((status = gptvq_text_stream_flush(r->stream, &rest, &size, err)) != GPTVQ_OK) return status;
  fwrite(rest, 1, size, stdout);
  putchar('\n');
  return GPTVQ_OK;
}

int main(int argc, char **argv) {
  gptvq_error err = {0};
  run r = {0};
  if (argc < 3) {
    fprintf(stderr, "usage: complete MODEL TEXT [TOKENS]\n");
    return GPTVQ_ERROR_ARGUMENT;
  }
  gptvq_status status = complete(&r, argv[1], argv[2], argc > 3 ? strtoul(argv[3], NULL, 10) : 64, &err);
  if (status != GPTVQ_OK) fprintf(stderr, "complete: %s\n", err.message);
  free(r.logits);
  gptvq_free(r.ids);
  gptvq_text_stream_destroy(r.stream);
  gptvq_session_destroy(r.session);
  gptvq_model_close(r.model);
  gptvq_tokenizer_close(r.tokenizer);
  return status;
}
