#include "text/tokenizer_internal.h"

#include "base/file.h"
#include "base/json.h"
#include "gguf/model_file.h"
#include "gguf/reader.h"
#include "text/utf8.h"

/* ---- opening ---- */

gptvq_status gptvq_text_read_json(const char *path, size_t most, char nul[GPTVQ_NUL_STAND_IN], json_t **out,
                                  gptvq_error *err) {
  char *data;
  size_t size;
  json_error_t reason;
  GPTVQ_TRY(gptvq_model_file_read(path, most, &data, &size, err));
  if (!gptvq_json_hide_nul(data, size, nul)) {
    free(data);
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: NUL in a key beside all of U+FDD0 to U+FDEF is not supported", path);
  }
  /* numbers as reals: model_max_length and the like exceed 64 bits */
  *out = gptvq_json_parse(data, size, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &reason);
  free(data);
  if (*out == NULL && gptvq_json_no_memory(&reason)) return gptvq_fail_memory(err, path, size);
  if (*out == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: not valid JSON: %s (line %d, column %d)", path,
                      reason.text, reason.line, reason.column);
  return GPTVQ_OK;
}

static gptvq_status load_tokenizer(const gptvq_load *load, const json_t *json) {
  if (!json_is_object(json))
    return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT, "%s: a JSON object is expected", load->path);
  GPTVQ_TRY(gptvq_load_model(load, json_object_get(json, "model")));
  GPTVQ_TRY(gptvq_load_normalizer(load, json_object_get(json, "normalizer"), 0));
  GPTVQ_TRY(gptvq_load_pretokenizer(load, json_object_get(json, "pre_tokenizer"), 0));
  GPTVQ_TRY(gptvq_load_decoder(load, json_object_get(json, "decoder"), 0));
  GPTVQ_TRY(gptvq_load_post_processor(load, json_object_get(json, "post_processor"), 0));
  return gptvq_load_added_tokens(load, json_object_get(json, "added_tokens"));
}

static int32_t token_id(const gptvq_tokenizer *t, const char *token, size_t size) {
  int32_t id = gptvq_vocab_find(&t->added_ids, token, size);
  return id >= 0 ? id : gptvq_vocab_find(&t->bpe.vocab, token, size);
}

/* bos_token and eos_token of tokenizer_config.json: a string or {"content": …}. */
static int32_t config_token(const gptvq_tokenizer *t, const json_t *config, const char *key) {
  const json_t *value = json_object_get(config, key);
  if (json_is_object(value)) value = json_object_get(value, "content");
  return json_is_string(value) ? token_id(t, json_string_value(value), json_string_length(value)) : -1;
}

static gptvq_status load_config(gptvq_tokenizer *t, const char *folder, gptvq_error *err) {
  char *path = gptvq_join_path(folder, "tokenizer_config.json");
  if (path == NULL) return gptvq_fail_memory(err, "a path", strlen(folder));
  gptvq_status status = GPTVQ_OK;
  if (gptvq_model_file_exists(path)) {
    json_t *config = NULL;
    char nul[GPTVQ_NUL_STAND_IN];
    status = gptvq_text_read_json(path, GPTVQ_MAX_CONFIG_BYTES, nul, &config, err);
    if (status == GPTVQ_OK) {
      t->bos = config_token(t, config, "bos_token");
      t->eos = config_token(t, config, "eos_token");
    }
    json_decref(config);
  }
  free(path);
  if (t->before.size > 0) t->bos = t->before.data[0];
  return status;
}

/* Folder part of a path, malloc'd. */
static char *folder_of(const char *path) {
  const char *slash = strrchr(path, '/');
  size_t size = slash == NULL ? 1 : (size_t)(slash - path) + (slash == path);
  char *folder = malloc(size + 1);
  if (folder == NULL) return NULL;
  memcpy(folder, slash == NULL ? "." : path, size);
  folder[size] = '\0';
  return folder;
}

/* No tokenizer.json: names what is there in its place. */
static gptvq_status fail_without(const char *folder, gptvq_error *err) {
  if (gptvq_is_gguf(folder))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s: this GGUF file has no tokenizer in it", folder);
  static const char *const others[] = {"tokenizer.model", "tekken.json", "vocab.json", "vocab.txt"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    char *path = gptvq_join_path(folder, others[i]);
    bool there = path != NULL && gptvq_path_exists(path);
    free(path);
    if (!there) continue;
    return gptvq_fail(err, GPTVQ_ERROR_IO,
                      "%s: no tokenizer.json in this folder; %s is not read: convert it (transformers writes "
                      "tokenizer.json with AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER))",
                      folder, others[i]);
  }
  return gptvq_fail(err, GPTVQ_ERROR_IO,
                    "%s: no tokenizer.json in this folder: download that of the same model", folder);
}

gptvq_status gptvq_tokenizer_open(const char *path, gptvq_tokenizer **out, gptvq_error *err) {
  *out = NULL;
  bool in_folder = gptvq_is_folder(path) || gptvq_is_gguf(path);
  char *file = in_folder ? gptvq_join_path(path, "tokenizer.json") : strdup(path);
  char *folder = in_folder ? strdup(path) : folder_of(path);
  gptvq_tokenizer *t = calloc(1, sizeof *t);
  gptvq_status status = GPTVQ_OK;
  json_t *json = NULL;
  if (file == NULL || folder == NULL || t == NULL) {
    status = gptvq_fail_memory(err, "a tokenizer", sizeof *t);
    free(t);
    t = NULL;
    goto done;
  }
  gptvq_bpe_init(&t->bpe);
  t->bos = t->eos = -1;
  if (in_folder && !gptvq_model_file_exists(file)) {
    status = fail_without(path, err);
    goto done;
  }
  char nul[GPTVQ_NUL_STAND_IN];
  GPTVQ_TRY_GOTO(gptvq_text_read_json(file, GPTVQ_MAX_TOKENIZER_BYTES, nul, &json, err));
  gptvq_load load = {t, file, nul, err};
  GPTVQ_TRY_GOTO(load_tokenizer(&load, json));
  GPTVQ_TRY_GOTO(load_config(t, folder, err));
done:
  json_decref(json);
  free(file);
  free(folder);
  if (status != GPTVQ_OK) gptvq_tokenizer_close(t);
  else *out = t;
  return status;
}

void gptvq_tokenizer_close(gptvq_tokenizer *t) {
  if (t == NULL) return;
  gptvq_bpe_free(&t->bpe);
  gptvq_added_free(&t->added);
  gptvq_vocab_free(&t->added_ids);
  free(t->special);
  for (size_t i = 0; i < t->normalizer_count; i++) gptvq_normalizer_free(&t->normalizers[i]);
  for (size_t i = 0; i < t->pretokenizer_count; i++) gptvq_pretokenizer_free(&t->pretokenizers[i]);
  for (size_t i = 0; i < t->decoder_count; i++) gptvq_decoder_free(&t->decoders[i]);
  gptvq_ids_free(&t->before);
  gptvq_ids_free(&t->after);
  free(t);
}

/* ---- encoding ---- */

static void append_ids(gptvq_ids *out, const gptvq_ids *more) {
  for (size_t i = 0; i < more->size; i++) gptvq_ids_push(out, more->data[i]);
}

static gptvq_status encode_pieces(const gptvq_tokenizer *t, const gptvq_pieces *pieces, gptvq_ids *out,
                                  gptvq_error *err) {
  gptvq_bpe_scratch scratch = {0};
  gptvq_status status = GPTVQ_OK;
  gptvq_bpe_scratch_remember(&scratch, gptvq_max_size(pieces->count, pieces->text.size / 16));
  for (size_t i = 0; i < pieces->count && status == GPTVQ_OK; i++) {
    const gptvq_piece *piece = &pieces->items[i];
    if (piece->id >= 0) gptvq_ids_push(out, piece->id);
    else status = gptvq_bpe_encode(&t->bpe, pieces->text.data, piece->begin, piece->end, &scratch, out, err);
  }
  gptvq_bpe_scratch_free(&scratch);
  return status;
}

gptvq_status gptvq_tokenizer_encode(const gptvq_tokenizer *t, const char *text, size_t size, int add_special,
                                    int32_t **ids, size_t *count, gptvq_error *err) {
  *ids = NULL;
  *count = 0;
  gptvq_bytes clean = {0};
  gptvq_pieces pieces = {0};
  gptvq_ids out = {0};
  (void)gptvq_bytes_reserve(&clean, size);
  gptvq_utf8_append_lossy(&clean, text, size);
  gptvq_status status = clean.failed ? gptvq_fail_memory(err, "the text", size) : GPTVQ_OK;
  if (status == GPTVQ_OK)
    status = gptvq_added_extract(&t->added, t->normalizers, t->normalizer_count, &clean, &pieces, err);
  if (status == GPTVQ_OK) status = gptvq_pretokenize(t->pretokenizers, t->pretokenizer_count, &pieces, err);
  if (status == GPTVQ_OK && add_special) append_ids(&out, &t->before);
  if (status == GPTVQ_OK) status = encode_pieces(t, &pieces, &out, err);
  if (status == GPTVQ_OK && add_special) append_ids(&out, &t->after);
  if (status == GPTVQ_OK && (!gptvq_ids_reserve(&out, 1) || out.failed))
    status = gptvq_fail_memory(err, "token ids", size);
  gptvq_bytes_free(&clean);
  gptvq_pieces_free(&pieces);
  if (status != GPTVQ_OK) {
    gptvq_ids_free(&out);
    return status;
  }
  *ids = out.data;
  *count = out.size;
  return GPTVQ_OK;
}

/* ---- decoding ---- */

struct gptvq_text_stream {
  const gptvq_tokenizer *tokenizer;
  bool skip_special;
  gptvq_bytes out;
  gptvq_decoder_state states[GPTVQ_MAX_STAGES];
};

static gptvq_status stream_push(gptvq_text_stream *stream, int32_t id, gptvq_error *err) {
  const gptvq_tokenizer *t = stream->tokenizer;
  size_t size;
  const char *text = gptvq_vocab_text(&t->bpe.vocab, id, &size);
  if (text == NULL || (stream->skip_special && t->special[id]))
    return GPTVQ_OK; /* ids without a token say nothing */
  return gptvq_decoder_push(t->decoders, stream->states, t->decoder_count, text, size, &stream->out, err);
}

static void stream_release(gptvq_text_stream *stream) {
  for (size_t i = 0; i < GPTVQ_MAX_STAGES; i++) gptvq_decoder_state_free(&stream->states[i]);
  gptvq_bytes_free(&stream->out);
}

gptvq_status gptvq_tokenizer_decode(const gptvq_tokenizer *t, const int32_t *ids, size_t count,
                                    int skip_special, char **text, size_t *size, gptvq_error *err) {
  *text = NULL;
  *size = 0;
  gptvq_text_stream stream = {.tokenizer = t, .skip_special = skip_special != 0};
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; i < count && status == GPTVQ_OK; i++) status = stream_push(&stream, ids[i], err);
  if (status == GPTVQ_OK)
    status = gptvq_decoder_flush(t->decoders, stream.states, t->decoder_count, &stream.out, err);
  if (status == GPTVQ_OK && !gptvq_bytes_reserve(&stream.out, 1))
    status = gptvq_fail_memory(err, "decoded text", count);
  if (status == GPTVQ_OK) {
    stream.out.data[stream.out.size] = '\0';
    *text = stream.out.data;
    *size = stream.out.size;
    stream.out = (gptvq_bytes){0};
  }
  stream_release(&stream);
  return status;
}

gptvq_status gptvq_text_stream_create(const gptvq_tokenizer *tokenizer, int skip_special,
                                      gptvq_text_stream **out, gptvq_error *err) {
  *out = calloc(1, sizeof **out);
  if (*out == NULL) return gptvq_fail_memory(err, "a text stream", sizeof **out);
  (*out)->tokenizer = tokenizer;
  (*out)->skip_special = skip_special != 0;
  return GPTVQ_OK;
}

gptvq_status gptvq_text_stream_push(gptvq_text_stream *stream, int32_t id, const char **piece, size_t *size,
                                    gptvq_error *err) {
  stream->out.size = 0;
  gptvq_status status = stream_push(stream, id, err);
  *piece = stream->out.data == NULL ? "" : stream->out.data;
  *size = stream->out.size;
  return status;
}

gptvq_status gptvq_text_stream_flush(gptvq_text_stream *stream, const char **piece, size_t *size,
                                     gptvq_error *err) {
  const gptvq_tokenizer *t = stream->tokenizer;
  stream->out.size = 0;
  gptvq_status status = gptvq_decoder_flush(t->decoders, stream->states, t->decoder_count, &stream->out, err);
  *piece = stream->out.data == NULL ? "" : stream->out.data;
  *size = stream->out.size;
  return status;
}

void gptvq_text_stream_destroy(gptvq_text_stream *stream) {
  if (stream == NULL) return;
  stream_release(stream);
  free(stream);
}

/* ---- questions ---- */

size_t gptvq_tokenizer_vocab_size(const gptvq_tokenizer *t) { return t->bpe.vocab.token_count; }

int32_t gptvq_tokenizer_token_to_id(const gptvq_tokenizer *t, const char *token) {
  return token_id(t, token, strlen(token));
}

int32_t gptvq_tokenizer_bos(const gptvq_tokenizer *t) { return t->bos; }
int32_t gptvq_tokenizer_eos(const gptvq_tokenizer *t) { return t->eos; }
