#include "export/gguf_tokenizer.h"
#include "base/memory.h"
#include "gguf/splittings.h"
#include "text/tokenizer_internal.h"

#include <stdio.h>

/* Values of tokenizer.ggml.token_type. */
enum {
  TOKEN_NORMAL = 1,
  TOKEN_UNKNOWN = 2,
  TOKEN_CONTROL = 3,
  TOKEN_USER = 4,
  TOKEN_UNUSED = 5,
  TOKEN_BYTE = 6
};

static bool is_stage(const json_t *stage, const char *type) {
  const char *given = json_string_value(json_object_get(stage, "type"));
  return given != NULL && strcmp(given, type) == 0;
}

static bool is_byte_level(const json_t *stage, bool splits) {
  return is_stage(stage, "ByteLevel") && gptvq_json_flag(stage, "use_regex", true) == splits &&
         !gptvq_json_flag(stage, "add_prefix_space", false);
}

static const char *name_of(gptvq_gguf_split split, const char *pattern, bool ignore_merges) {
  const gptvq_gguf_splitting *found = gptvq_gguf_splitting_like(split, pattern, ignore_merges);
  return found == NULL ? NULL : found->name;
}

static const char *split_name(const json_t *split, bool ignore_merges) {
  const char *pattern = json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
  const char *behavior = json_string_value(json_object_get(split, "behavior"));
  if (!is_stage(split, "Split") || pattern == NULL || behavior == NULL || strcmp(behavior, "Isolated") != 0 ||
      gptvq_json_flag(split, "invert", false))
    return NULL;
  return name_of(GPTVQ_SPLIT_PATTERN, pattern, ignore_merges);
}

/* NULL: none that llama.cpp names. */
static const char *pre_name(const json_t *pre, bool ignore_merges) {
  const json_t *stages = is_stage(pre, "Sequence") ? json_object_get(pre, "pretokenizers") : NULL;
  const json_t *first = stages != NULL ? json_array_get(stages, 0) : pre;
  size_t count = stages != NULL ? json_array_size(stages) : 1;
  if (count == 1) return is_byte_level(first, true) ? name_of(GPTVQ_SPLIT_GPT2, NULL, false) : NULL;
  const json_t *second = json_array_get(stages, 1);
  if (count != 2) return NULL;
  if (is_stage(first, "Digits") && gptvq_json_flag(first, "individual_digits", false))
    return is_byte_level(second, true) ? name_of(GPTVQ_SPLIT_GPT2_DIGITS, NULL, false) : NULL;
  return is_byte_level(second, false) ? split_name(first, ignore_merges) : NULL;
}

/* BPE of whole code points with bytes to fall back on, as SentencePiece's. */
static bool is_sentencepiece(const gptvq_tokenizer *t) { return t->bpe.byte_fallback; }

static bool adds_space(const gptvq_tokenizer *t) {
  bool adds = false;
  for (size_t i = 0; i < t->normalizer_count; i++)
    adds = adds || t->normalizers[i].kind == GPTVQ_NORMALIZE_PREPEND;
  for (size_t i = 0; i < t->pretokenizer_count; i++)
    adds = adds || (t->pretokenizers[i].kind == GPTVQ_PRETOKENIZE_METASPACE &&
                    t->pretokenizers[i].prepend != GPTVQ_PREPEND_NEVER);
  return adds;
}

/* What llama.cpp does itself: spaces become "▁". NFC it leaves out, which changes rare texts alone. */
static bool normalizer_is_known(const gptvq_tokenizer *t, const gptvq_normalizer *n) {
  if (!is_sentencepiece(t)) return n->kind == GPTVQ_NORMALIZE_NFC;
  return n->kind == GPTVQ_NORMALIZE_PREPEND || n->kind == GPTVQ_NORMALIZE_REPLACE;
}

static int compare_ranks(const void *a, const void *b) {
  uint32_t x = ((const gptvq_merge *)a)->rank, y = ((const gptvq_merge *)b)->rank;
  return (x > y) - (x < y);
}

/* In order of rank; *count of them. NULL: out of memory. */
static gptvq_merge *sorted_merges(const gptvq_bpe *bpe, size_t *count) {
  gptvq_merge *merges = gptvq_alloc(bpe->merge_slots, sizeof *merges);
  *count = 0;
  for (size_t i = 0; merges != NULL && i < bpe->merge_slots; i++)
    if (bpe->merges[i].pair != UINT64_MAX) merges[(*count)++] = bpe->merges[i];
  if (merges != NULL) qsort(merges, *count, sizeof *merges, compare_ranks);
  return merges;
}

static void write_merges(gptvq_gguf *file, const gptvq_bpe *bpe, const gptvq_merge *merges, size_t count,
                         gptvq_bytes *line) {
  gptvq_gguf_texts(file, "tokenizer.ggml.merges", count);
  for (size_t i = 0; i < count; i++) {
    line->size = 0;
    for (unsigned side = 0; side < 2; side++) {
      size_t size = 0;
      const char *text =
          gptvq_vocab_text(&bpe->vocab, (int32_t)(merges[i].pair >> (side == 0 ? 32 : 0)), &size);
      if (side == 1) gptvq_bytes_append(line, " ", 1);
      gptvq_bytes_append(line, text, size);
    }
    gptvq_gguf_text_item(file, line->data, line->size);
  }
}

/* SentencePiece merges the pair whose piece has the highest score: here the one whose merge comes first. */
static void set_scores(const gptvq_merge *merges, size_t count, float *scores, size_t vocab) {
  for (size_t i = count; i-- > 0;)
    if ((size_t)merges[i].id < vocab) scores[merges[i].id] = -(float)(i + 1);
}

static gptvq_status write_pairs(gptvq_gguf *file, const gptvq_tokenizer *t, size_t vocab, gptvq_error *err) {
  size_t count;
  gptvq_bytes line = {0};
  gptvq_merge *merges = sorted_merges(&t->bpe, &count);
  float *scores = gptvq_alloc_zero(vocab, sizeof *scores);
  bool fine = merges != NULL && scores != NULL;
  if (fine && is_sentencepiece(t)) {
    set_scores(merges, count, scores, vocab);
    gptvq_gguf_f32s(file, "tokenizer.ggml.scores", scores, vocab);
  } else if (fine) {
    write_merges(file, &t->bpe, merges, count, &line);
    fine = !line.failed;
  }
  gptvq_bytes_free(&line);
  free(scores);
  free(merges);
  return fine ? GPTVQ_OK : gptvq_fail_memory(err, "the GGUF vocabulary", gptvq_saturated_size(vocab, 4));
}

static int32_t token_type(const gptvq_tokenizer *t, int32_t id, const char *text, size_t size) {
  if (text == NULL) return TOKEN_UNUSED;
  if (id == t->bpe.unk_id) return TOKEN_UNKNOWN;
  if (gptvq_vocab_find(&t->added_ids, text, size) == id)
    return t->special != NULL && t->special[id] ? TOKEN_CONTROL : TOKEN_USER;
  for (size_t i = 0; is_sentencepiece(t) && i < 256; i++)
    if (t->bpe.byte_ids[i] == id) return TOKEN_BYTE;
  return TOKEN_NORMAL;
}

/* llama.cpp prints an added token as it is: `spaces`, what stands for a space becomes one. */
static void put_token(gptvq_gguf *file, bool spaces, const char *text, size_t size) {
  static const char mark[] = "\xe2\x96\x81";
  gptvq_bytes plain = {0};
  for (size_t i = 0; spaces && i < size;) {
    const bool is_mark = size - i >= 3 && memcmp(text + i, mark, 3) == 0;
    gptvq_bytes_append(&plain, is_mark ? " " : text + i, 1);
    i += is_mark ? 3 : 1;
  }
  if (spaces && !plain.failed) gptvq_gguf_text_item(file, plain.data, plain.size);
  else gptvq_gguf_text_item(file, text, size);
  gptvq_bytes_free(&plain);
}

static gptvq_status write_tokens(gptvq_gguf *file, const gptvq_tokenizer *t, size_t vocab, gptvq_error *err) {
  int32_t *types = gptvq_alloc(vocab, sizeof *types);
  if (types == NULL) return gptvq_fail_memory(err, "the GGUF vocabulary", gptvq_saturated_size(vocab, 4));
  gptvq_gguf_texts(file, "tokenizer.ggml.tokens", vocab);
  for (size_t i = 0; i < vocab; i++) {
    size_t size = 0;
    char unused[32];
    const char *text =
        i < t->bpe.vocab.token_count ? gptvq_vocab_text(&t->bpe.vocab, (int32_t)i, &size) : NULL;
    types[i] = token_type(t, (int32_t)i, text, size);
    if (text == NULL) {
      size = (size_t)snprintf(unused, sizeof unused, "[PAD%zu]", i);
      text = unused;
    }
    put_token(file, types[i] == TOKEN_USER && is_sentencepiece(t), text, size);
  }
  gptvq_gguf_i32s(file, "tokenizer.ggml.token_type", types, vocab);
  free(types);
  return write_pairs(file, t, vocab, err);
}

static void write_special(gptvq_gguf *file, const gptvq_tokenizer *t, size_t vocab, int32_t eos) {
  const struct {
    const char *key;
    int32_t id;
  } ids[] = {{"tokenizer.ggml.bos_token_id", t->bos},
             {"tokenizer.ggml.eos_token_id", t->eos >= 0 ? t->eos : eos},
             {"tokenizer.ggml.unknown_token_id", t->bpe.unk_id}};
  for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
    if (ids[i].id >= 0 && (size_t)ids[i].id < vocab) gptvq_gguf_u32(file, ids[i].key, (uint32_t)ids[i].id);
  gptvq_gguf_bool(file, "tokenizer.ggml.add_bos_token", t->before.size == 1 && t->before.data[0] == t->bos);
  gptvq_gguf_bool(file, "tokenizer.ggml.add_eos_token", t->after.size == 1 && t->after.data[0] == t->eos);
  gptvq_gguf_bool(file, "tokenizer.ggml.add_space_prefix", is_sentencepiece(t) && adds_space(t));
}

static gptvq_status write_vocabulary(gptvq_gguf *file, const gptvq_tokenizer *t, const char *path,
                                     size_t vocab, int32_t eos, gptvq_error *err) {
  char nul[GPTVQ_NUL_STAND_IN];
  json_t *json = NULL;
  if (t->bpe.vocab.token_count > vocab)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: %zu tokens, but the model has rows for %zu: not for GGUF", path,
                      t->bpe.vocab.token_count, vocab);
  for (size_t i = 0; i < t->normalizer_count; i++)
    if (!normalizer_is_known(t, &t->normalizers[i]))
      return gptvq_fail(
          err, GPTVQ_ERROR_UNSUPPORTED,
          "%s: llama.cpp does nothing like this normalizer, so that a GGUF file would read text "
          "otherwise",
          path);
  for (size_t i = 0; is_sentencepiece(t) && i < 256; i++)
    if (t->bpe.byte_ids[i] < 0)
      return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s: byte %zu has no token, which llama.cpp needs",
                        path, i);
  if (is_sentencepiece(t)) {
    gptvq_gguf_text(file, "tokenizer.ggml.model", "llama", 5);
    gptvq_gguf_text(file, "tokenizer.ggml.pre", "default", 7);
  } else {
    GPTVQ_TRY(gptvq_text_read_json(path, GPTVQ_MAX_TOKENIZER_BYTES, nul, &json, err));
    const char *name = pre_name(json_object_get(json, "pre_tokenizer"), t->bpe.ignore_merges);
    json_decref(json);
    if (name == NULL)
      return gptvq_fail(
          err, GPTVQ_ERROR_UNSUPPORTED,
          "%s: llama.cpp has no name for this pre_tokenizer, so that a GGUF file would read text "
          "otherwise",
          path);
    gptvq_gguf_text(file, "tokenizer.ggml.model", "gpt2", 4);
    gptvq_gguf_text(file, "tokenizer.ggml.pre", name, strlen(name));
  }
  write_special(file, t, vocab, eos);
  return write_tokens(file, t, vocab, err);
}

/* ---- the chat template ---- */

/* The text, or the one named "default" of a list. */
static const json_t *default_template(const json_t *value) {
  for (size_t i = 0; i < json_array_size(value); i++) {
    const char *name = json_string_value(json_object_get(json_array_get(value, i), "name"));
    if (name != NULL && strcmp(name, "default") == 0)
      return json_object_get(json_array_get(value, i), "template");
  }
  return value;
}

static gptvq_status write_config_template(gptvq_gguf *file, const char *path, gptvq_error *err) {
  char nul[GPTVQ_NUL_STAND_IN];
  json_t *config = NULL;
  GPTVQ_TRY(gptvq_text_read_json(path, GPTVQ_MAX_CONFIG_BYTES, nul, &config, err));
  const json_t *text = default_template(json_object_get(config, "chat_template"));
  if (json_is_string(text))
    gptvq_gguf_text(file, "tokenizer.chat_template", json_string_value(text), json_string_length(text));
  json_decref(config);
  return GPTVQ_OK;
}

static gptvq_status write_template_file(gptvq_gguf *file, const char *path, gptvq_error *err) {
  char *text;
  size_t size;
  GPTVQ_TRY(gptvq_read_file(path, GPTVQ_MAX_CONFIG_BYTES, &text, &size, err));
  gptvq_gguf_text(file, "tokenizer.chat_template", text, size);
  free(text);
  return GPTVQ_OK;
}

/* Where transformers looks for it, in that order. */
static gptvq_status write_template(gptvq_gguf *file, const char *folder, gptvq_error *err) {
  char *own = gptvq_join_path(folder, "chat_template.jinja"),
       *config = gptvq_join_path(folder, "tokenizer_config.json");
  gptvq_status status = GPTVQ_OK;
  if (own == NULL || config == NULL) status = gptvq_fail_memory(err, "a path", strlen(folder));
  else if (gptvq_path_exists(own)) status = write_template_file(file, own, err);
  else if (gptvq_path_exists(config)) status = write_config_template(file, config, err);
  free(own);
  free(config);
  return status;
}

gptvq_status gptvq_gguf_tokenizer(gptvq_gguf *file, const char *folder, size_t vocab, int32_t eos,
                                  gptvq_error *err) {
  gptvq_tokenizer *tokenizer = NULL;
  char *path = gptvq_join_path(folder, "tokenizer.json");
  if (path == NULL) return gptvq_fail_memory(err, "a path", strlen(folder));
  gptvq_status status = GPTVQ_OK;
  if (!gptvq_path_exists(path)) {
    gptvq_gguf_text(file, "tokenizer.ggml.model", "no_vocab", 8);
  } else {
    status = gptvq_tokenizer_open(path, &tokenizer, err);
    if (status == GPTVQ_OK) status = write_vocabulary(file, tokenizer, path, vocab, eos, err);
    if (status == GPTVQ_OK) status = write_template(file, folder, err);
  }
  gptvq_tokenizer_close(tokenizer);
  free(path);
  return status;
}
