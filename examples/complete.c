/* The library in one page: continues a text, always with the most likely token.
 *
 *   cc complete.c $(pkg-config --cflags --libs gptvq) -o complete      after: cmake --install build/release --prefix PREFIX
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
  int32_t *ids;
  float *logits;
} run;

static int is_end(const gptvq_model_info *info, int32_t id) {
  for (size_t i = 0; i < info->eos_count; i++)
    if (info->eos[i] == id) return 1;
  return 0;
}

static gptvq_status complete(run *r, const char *path, const char *text, size_t tokens, gptvq_error *err) {
  const gptvq_model_options options = {.compute = GPTVQ_COMPUTE_AUTO};
  gptvq_sampler greedy = {.temperature = 0.0f, .top_p = 1.0f};
  gptvq_model_info info;
  gptvq_status status;
  size_t count, size;
  const char *piece;
  if ((status = gptvq_tokenizer_open(path, &r->tokenizer, err)) != GPTVQ_OK) return status;
  if ((status = gptvq_tokenizer_encode(r->tokenizer, text, strlen(text), 1, &r->ids, &count, err)) != GPTVQ_OK) return status;
  if ((status = gptvq_model_open(path, &options, &r->model, err)) != GPTVQ_OK) return status;
  if ((status = gptvq_session_create(r->model, count + tokens, &r->session, err)) != GPTVQ_OK) return status;
  if ((status = gptvq_text_stream_create(r->tokenizer, 1, &r->stream, err)) != GPTVQ_OK) return status;
  gptvq_model_get_info(r->model, &info);
  r->logits = malloc(info.vocab * sizeof *r->logits);
  if (r->logits == NULL) return GPTVQ_ERROR_MEMORY;
  if ((status = gptvq_session_forward(r->session, r->ids, count, r->logits, 0, err)) != GPTVQ_OK) return status;
  fputs(text, stdout);
  for (size_t i = 0; i < tokens; i++) {
    int32_t id;
    if ((status = gptvq_sample(&greedy, r->logits, info.vocab, &id, err)) != GPTVQ_OK) return status;
    if (is_end(&info, id)) break;
    if ((status = gptvq_text_stream_push(r->stream, id, &piece, &size, err)) != GPTVQ_OK) return status;
    fwrite(piece, 1, size, stdout);
    if (i + 1 < tokens && (status = gptvq_session_forward(r->session, &id, 1, r->logits, 0, err)) != GPTVQ_OK) return status;
  }
  if ((status = gptvq_text_stream_flush(r->stream, &piece, &size, err)) != GPTVQ_OK) return status;
  fwrite(piece, 1, size, stdout);
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
