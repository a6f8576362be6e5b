#include "gguf/tokenizer.h"
#include "base/memory.h"
#include "gguf/merges.h"
#include "gguf/splittings.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Values of tokenizer.ggml.token_type. */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, UNUSED = 5, BYTE = 6 };
enum { MAX_TOKEN = 1 << 10, MAX_TOKENS = 1 << 24, NO_ID = MAX_TOKENS };

typedef struct vocabulary {
  const gptvq_gguf_reader *reader;
  const gptvq_gguf_splitting *splitting; /* NULL: SentencePiece's */
  gptvq_piece_text *tokens;
  const uint8_t *types, *scores; /* NULL: all are normal, of score 0 */
  size_t count;
  size_t bos, eos, unk; /* NO_ID: none */
  bool add_bos, add_eos, add_space;
} vocabulary;

static unsigned type_of(const vocabulary *v, size_t id) {
  return v->types == NULL ? NORMAL : gptvq_gguf_u32_at(v->types + 4 * id);
}

/* ---- reading ---- */

static gptvq_status find_list(const vocabulary *v, const char *key, gptvq_gguf_kind kind, const uint8_t **out,
                              gptvq_error *err) {
  const gptvq_gguf_value *value;
  GPTVQ_TRY(gptvq_gguf_get_array(v->reader, key, kind, &value, err));
  if (value != NULL && value->count != v->count)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: key %s has %zu items, tokenizer.ggml.tokens %zu",
                      v->reader->path, key, value->count, v->count);
  *out = value == NULL ? NULL : value->data;
  return GPTVQ_OK;
}

static gptvq_status read_tokens(vocabulary *v, gptvq_error *err) {
  const gptvq_gguf_value *list;
  GPTVQ_TRY(gptvq_gguf_get_array(v->reader, "tokenizer.ggml.tokens", GPTVQ_GGUF_TEXT, &list, err));
  if (list == NULL || list->count == 0 || list->count > MAX_TOKENS)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: key tokenizer.ggml.tokens is missing, empty or too long",
                      v->reader->path);
  v->count = list->count;
  GPTVQ_TRY(find_list(v, "tokenizer.ggml.token_type", GPTVQ_GGUF_I32, &v->types, err));
  GPTVQ_TRY(find_list(v, "tokenizer.ggml.scores", GPTVQ_GGUF_F32, &v->scores, err));
  v->tokens = gptvq_alloc_zero(v->count, sizeof *v->tokens);
  if (v->tokens == NULL)
    return gptvq_fail_memory(err, "the vocabulary", gptvq_saturated_size(v->count, sizeof *v->tokens));
  const uint8_t *at = list->data;
  for (size_t i = 0; i < v->count; i++) {
    gptvq_piece_text *token = &v->tokens[i];
    token->text = gptvq_gguf_next_text(&at, &token->size);
    token->score = v->scores == NULL ? 0.0f : gptvq_gguf_f32_at(v->scores + 4 * i);
    token->merges = token->size > 0 && type_of(v, i) == NORMAL;
    if (token->size > MAX_TOKEN)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: token %zu has %zu bytes, at most %d are read",
                        v->reader->path, i, token->size, MAX_TOKEN);
    if (!isfinite(token->score))
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: the score of token %zu is NaN or infinity",
                        v->reader->path, i);
  }
  return GPTVQ_OK;
}

static gptvq_status read_id(const vocabulary *v, const char *key, size_t *out, gptvq_error *err) {
  size_t id = UINT32_MAX;
  *out = NO_ID;
  const gptvq_gguf_value *value = gptvq_gguf_find(v->reader, key);
  if (value != NULL && gptvq_gguf_is_negative(value)) return GPTVQ_OK; /* stands for none */
  GPTVQ_TRY(gptvq_gguf_get_size(v->reader, key, 0, UINT32_MAX, &id, err));
  if (id < v->count) *out = id; /* 2^32 - 1 too */
  return GPTVQ_OK;
}

static gptvq_status unsupported(const gptvq_gguf_reader *reader, const char *what, const char *name,
                                size_t size, gptvq_error *err) {
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                    "%s: %s \"%.*s\" is not read from GGUF files: give the folder of the original model",
                    reader->path, what, (int)gptvq_min_size(size, 64), name);
}

static bool is(const char *text, size_t size, const char *what) {
  return strlen(what) == size && memcmp(text, what, size) == 0;
}

bool gptvq_gguf_has_tokenizer(const gptvq_gguf_reader *reader) {
  const gptvq_gguf_value *model = gptvq_gguf_find(reader, "tokenizer.ggml.model");
  return model != NULL &&
         !(model->kind == GPTVQ_GGUF_TEXT && (is((const char *)model->data, model->count, "no_vocab") ||
                                              is((const char *)model->data, model->count, "none")));
}

static gptvq_status read_model(vocabulary *v, gptvq_error *err) {
  const char *model = "", *pre = "default";
  size_t size = 0, pre_size = 7;
  GPTVQ_TRY(gptvq_gguf_get_text(v->reader, "tokenizer.ggml.model", &model, &size, err));
  GPTVQ_TRY(gptvq_gguf_get_text(v->reader, "tokenizer.ggml.pre", &pre, &pre_size, err));
  if (is(model, size, "llama")) return GPTVQ_OK;
  if (!is(model, size, "gpt2")) return unsupported(v->reader, "tokenizer", model, size, err);
  v->splitting = gptvq_gguf_splitting_named(pre, pre_size);
  if (v->splitting == NULL) return unsupported(v->reader, "tokenizer.ggml.pre", pre, pre_size, err);
  return GPTVQ_OK;
}

static gptvq_status read_vocabulary(const gptvq_gguf_reader *reader, vocabulary *v, gptvq_error *err) {
  *v = (vocabulary){.reader = reader, .add_space = true};
  GPTVQ_TRY(read_model(v, err));
  GPTVQ_TRY(read_tokens(v, err));
  GPTVQ_TRY(read_id(v, "tokenizer.ggml.bos_token_id", &v->bos, err));
  GPTVQ_TRY(read_id(v, "tokenizer.ggml.eos_token_id", &v->eos, err));
  GPTVQ_TRY(read_id(v, "tokenizer.ggml.unknown_token_id", &v->unk, err));
  v->add_bos = v->splitting == NULL || v->splitting->bos;
  GPTVQ_TRY(gptvq_gguf_get_bool(reader, "tokenizer.ggml.add_bos_token", &v->add_bos, err));
  GPTVQ_TRY(gptvq_gguf_get_bool(reader, "tokenizer.ggml.add_eos_token", &v->add_eos, err));
  GPTVQ_TRY(gptvq_gguf_get_bool(reader, "tokenizer.ggml.add_space_prefix", &v->add_space, err));
  v->add_bos = v->add_bos && v->bos != NO_ID;
  v->add_eos = v->add_eos && v->eos != NO_ID;
  return GPTVQ_OK;
}

/* ---- writing: JSON, piece by piece ---- */

static void put_bytes(FILE *out, const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    const unsigned char c = (unsigned char)text[i];
    if (c == '"' || c == '\\') (void)fprintf(out, "\\%c", c);
    else if (c < 0x20) (void)fprintf(out, "\\u%04x", c);
    else (void)fputc(c, out);
  }
}
static void put_text(FILE *out, const char *text, size_t size) {
  (void)fputc('"', out);
  put_bytes(out, text, size);
  (void)fputc('"', out);
}
static void put_token(FILE *out, const vocabulary *v, size_t id) {
  put_text(out, v->tokens[id].text, v->tokens[id].size);
}

/* Phi-3's own tokens take the space behind them, as llama.cpp knows by its architecture. */
static bool strips_right(const vocabulary *v, size_t id) {
  static const char *const plain[] = {"<unk>", "<s>", "<|endoftext|>"};
  const char *architecture = "";
  size_t size = 0;
  (void)gptvq_gguf_get_text(v->reader, "general.architecture", &architecture, &size, NULL);
  if (v->splitting != NULL || !is(architecture, size, "phi3")) return false;
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
    if (is(v->tokens[id].text, v->tokens[id].size, plain[i])) return false;
  return true;
}

static void put_added(FILE *out, const vocabulary *v) {
  const char *separator = "";
  (void)fprintf(out, "\"added_tokens\":[");
  for (size_t i = 0; i < v->count; i++) {
    const unsigned type = type_of(v, i);
    if (v->tokens[i].size == 0 || (type != CONTROL && type != USER && type != UNKNOWN)) continue;
    (void)fprintf(out, "%s\n{\"id\":%zu,\"content\":", separator, i);
    put_token(out, v, i);
    (void)fprintf(
        out, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":%s,\"normalized\":false,\"special\":%s}",
        strips_right(v, i) ? "true" : "false", type == USER ? "false" : "true");
    separator = ",";
  }
  (void)fprintf(out, "],\n");
}

static void put_special(FILE *out, const vocabulary *v, size_t id) {
  (void)fprintf(out, "{\"SpecialToken\":{\"id\":");
  put_token(out, v, id);
  (void)fprintf(out, ",\"type_id\":0}}");
}

/* "single" of one text (copies 1), "pair" of two. */
static void put_template(FILE *out, const vocabulary *v, const char *name, size_t copies) {
  (void)fprintf(out, "\"%s\":[", name);
  for (size_t i = 0; i < copies; i++) {
    if (i > 0) (void)fputc(',', out);
    if (v->add_bos) {
      put_special(out, v, v->bos);
      (void)fputc(',', out);
    }
    (void)fprintf(out, "{\"Sequence\":{\"id\":\"%c\",\"type_id\":%zu}}", i == 0 ? 'A' : 'B', i);
    if (v->add_eos) {
      (void)fputc(',', out);
      put_special(out, v, v->eos);
    }
  }
  (void)fprintf(out, "],");
}

static void put_post_processor(FILE *out, const vocabulary *v) {
  (void)fprintf(out, "\"post_processor\":");
  if (!v->add_bos && !v->add_eos) {
    (void)fprintf(out, "null,\n");
    return;
  }
  (void)fprintf(out, "{\"type\":\"TemplateProcessing\",");
  put_template(out, v, "single", 1);
  put_template(out, v, "pair", 2);
  (void)fprintf(out, "\"special_tokens\":{");
  for (size_t i = 0, put = 0; i < 2; i++) {
    const size_t id = i == 0 ? v->bos : v->eos;
    if (!(i == 0 ? v->add_bos : v->add_eos) || (put > 0 && id == v->bos)) continue;
    if (put++ > 0) (void)fputc(',', out);
    put_token(out, v, id);
    (void)fprintf(out, ":{\"id\":");
    put_token(out, v, id);
    (void)fprintf(out, ",\"ids\":[%zu],\"tokens\":[", id);
    put_token(out, v, id);
    (void)fprintf(out, "]}");
  }
  (void)fprintf(out, "}},\n");
}

static void put_byte_level(FILE *out, bool splits) {
  (void)fprintf(out,
                "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":%s}",
                splits ? "true" : "false");
}

static void put_stages(FILE *out, const vocabulary *v) {
  const gptvq_gguf_splitting *s = v->splitting;
  if (s == NULL) { /* the space before a text becomes a part of its first word, as all others */
    (void)fprintf(out,
                  "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[%s{\"type\":\"Replace\","
                  "\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]},\n",
                  v->add_space ? "{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"}," : "");
    (void)fprintf(out, "\"pre_tokenizer\":null,\n");
    put_post_processor(out, v);
    (void)fprintf(out,
                  "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"
                  "{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":"
                  "\"Fuse\"}%s]},\n",
                  v->add_space ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}" : "");
    return;
  }
  (void)fprintf(out, "\"normalizer\":%s,\n\"pre_tokenizer\":", s->nfc ? "{\"type\":\"NFC\"}" : "null");
  if (s->split != GPTVQ_SPLIT_GPT2) (void)fprintf(out, "{\"type\":\"Sequence\",\"pretokenizers\":[");
  if (s->split == GPTVQ_SPLIT_GPT2_DIGITS)
    (void)fprintf(out, "{\"type\":\"Digits\",\"individual_digits\":true},");
  if (s->split == GPTVQ_SPLIT_PATTERN) {
    (void)fprintf(out, "{\"type\":\"Split\",\"pattern\":{\"Regex\":");
    put_text(out, s->pattern, strlen(s->pattern));
    (void)fprintf(out, "},\"behavior\":\"Isolated\",\"invert\":false},");
  }
  put_byte_level(out, s->split != GPTVQ_SPLIT_PATTERN);
  (void)fprintf(out, s->split != GPTVQ_SPLIT_GPT2 ? "]},\n" : ",\n");
  put_post_processor(out, v);
  (void)fprintf(out, "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"
                     "\"use_regex\":true},\n");
}

static void put_pair(FILE *out, const char *separator, const char *left, size_t left_size, const char *right,
                     size_t right_size) {
  (void)fprintf(out, "%s\n[", separator);
  put_text(out, left, left_size);
  (void)fputc(',', out);
  put_text(out, right, right_size);
  (void)fputc(']', out);
}

/* "left right", cut at the first space that is not the first byte */
static gptvq_status put_merges(FILE *out, const vocabulary *v, gptvq_error *err) {
  static const char key[] = "tokenizer.ggml.merges";
  const gptvq_gguf_value *list;
  GPTVQ_TRY(gptvq_gguf_get_array(v->reader, key, GPTVQ_GGUF_TEXT, &list, err));
  const uint8_t *at = list == NULL ? NULL : list->data;
  for (size_t i = 0; list != NULL && i < list->count; i++) {
    size_t size;
    const char *merge = gptvq_gguf_next_text(&at, &size);
    const char *space = size < 3 ? NULL : memchr(merge + 1, ' ', size - 2);
    if (space == NULL)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: key %s: item %zu is not two texts and a space",
                        v->reader->path, key, i);
    const size_t left = (size_t)(space - merge);
    put_pair(out, i > 0 ? "," : "", merge, left, space + 1, size - left - 1);
  }
  return GPTVQ_OK;
}

static gptvq_status put_piece_merges(FILE *out, const vocabulary *v, gptvq_error *err) {
  gptvq_piece_merge *merges;
  size_t count;
  if (!gptvq_piece_merges(v->tokens, v->count, &merges, &count))
    return gptvq_fail_memory(err, "the merges of the vocabulary", v->count);
  for (size_t i = 0; i < count; i++) {
    const gptvq_piece_text *left = &v->tokens[merges[i].left], *right = &v->tokens[merges[i].right];
    put_pair(out, i > 0 ? "," : "", left->text, left->size, right->text, right->size);
  }
  free(merges);
  return GPTVQ_OK;
}

static gptvq_status put_model(FILE *out, const vocabulary *v, gptvq_error *err) {
  const bool pieces = v->splitting == NULL;
  const char *separator = "";
  (void)fprintf(out, "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":");
  if (pieces && v->unk != NO_ID) put_token(out, v, v->unk);
  else (void)fprintf(out, "null");
  (void)fprintf(out,
                ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":%s,"
                "\"byte_fallback\":%s,\"ignore_merges\":%s,\"vocab\":{",
                pieces ? "true" : "false", pieces ? "true" : "false",
                !pieces && v->splitting->ignore_merges ? "true" : "false");
  for (size_t i = 0; i < v->count; i++) {
    if (type_of(v, i) == UNUSED || v->tokens[i].size == 0) continue;
    (void)fprintf(out, "%s\n", separator);
    put_token(out, v, i);
    (void)fprintf(out, ":%zu", i);
    separator = ",";
  }
  (void)fprintf(out, "},\"merges\":[");
  GPTVQ_TRY(pieces ? put_piece_merges(out, v, err) : put_merges(out, v, err));
  (void)fprintf(out, "]}}\n");
  return GPTVQ_OK;
}

static gptvq_status put_tokenizer(FILE *out, const vocabulary *v, gptvq_error *err) {
  (void)fprintf(out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n");
  put_added(out, v);
  put_stages(out, v);
  return put_model(out, v, err);
}

static gptvq_status put_config(FILE *out, const vocabulary *v, gptvq_error *err) {
  const struct {
    const char *name;
    size_t id;
  } tokens[] = {{"bos_token", v->bos}, {"eos_token", v->eos}, {"unk_token", v->unk}};
  (void)err;
  (void)fprintf(out, "{");
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
    if (tokens[i].id == NO_ID) continue;
    (void)fprintf(out, "\"%s\":", tokens[i].name);
    put_token(out, v, tokens[i].id);
    (void)fprintf(out, ",\n");
  }
  (void)fprintf(out,
                "\"add_bos_token\":%s,\n\"add_eos_token\":%s,\n\"clean_up_tokenization_spaces\":false,\n"
                "\"tokenizer_class\":\"PreTrainedTokenizerFast\"}\n",
                v->add_bos ? "true" : "false", v->add_eos ? "true" : "false");
  return GPTVQ_OK;
}

typedef gptvq_status (*put_file)(FILE *out, const vocabulary *v, gptvq_error *err);

static gptvq_status write(const gptvq_gguf_reader *reader, put_file put, char **text, size_t *size,
                          gptvq_error *err) {
  vocabulary v = {.tokens = NULL};
  *text = NULL;
  *size = 0;
  if (!gptvq_gguf_has_tokenizer(reader)) return GPTVQ_OK;
  gptvq_status status = read_vocabulary(reader, &v, err);
  FILE *out = status == GPTVQ_OK ? open_memstream(text, size) : NULL;
  if (out != NULL) {
    status = put(out, &v, err);
    const bool failed = ferror(out) != 0;
    if ((fclose(out) != 0 || failed) && status == GPTVQ_OK)
      status = gptvq_fail_memory(err, "the tokenizer", *size);
  } else if (status == GPTVQ_OK) {
    status = gptvq_fail_memory(err, "the tokenizer", v.count);
  }
  free(v.tokens);
  if (status != GPTVQ_OK) {
    free(*text);
    *text = NULL;
  }
  return status;
}

gptvq_status gptvq_gguf_tokenizer_json(const gptvq_gguf_reader *reader, char **text, size_t *size,
                                       gptvq_error *err) {
  return write(reader, put_tokenizer, text, size, err);
}
gptvq_status gptvq_gguf_tokenizer_config(const gptvq_gguf_reader *reader, char **text, size_t *size,
                                         gptvq_error *err) {
  return write(reader, put_config, text, size, err);
}
