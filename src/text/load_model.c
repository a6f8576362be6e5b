/* model, added_tokens and post_processor of tokenizer.json */
#include "text/tokenizer_internal.h"

#include "text/json_nul.h"
#include "text/utf8.h"

bool gptvq_json_id(const json_t *json, int32_t *id) {
  double value = json_number_value(json);
  if (!json_is_number(json) || !(value >= 0 && value <= (double)GPTVQ_MAX_TOKEN_ID)) return false;
  *id = (int32_t)value;
  return (double)*id == value;
}

static gptvq_status bad(const gptvq_load *load, const char *what) {
  return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT, "%s: %s", load->path, what);
}

static gptvq_status out_of_memory(const gptvq_load *load) {
  return gptvq_fail(load->err, GPTVQ_ERROR_MEMORY, "out of memory while reading %s", load->path);
}

/* ---- model ---- */

static gptvq_status add_token(const gptvq_load *load, const char *text, const json_t *value,
                              gptvq_bytes *scratch) {
  size_t size = strlen(text);
  int32_t id;
  if (!gptvq_json_id(value, &id))
    return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT,
                      "%s: the id of token \"%s\" is not a number from 0 to %lld", load->path, text,
                      (long long)GPTVQ_MAX_TOKEN_ID);
  if (load->nul[0] != '\0' && size > 0) {
    scratch->size = 0;
    gptvq_json_restore_nul(text, load->nul, scratch);
    text = scratch->data;
    size = scratch->size;
  }
  if (scratch->failed || !gptvq_vocab_add(&load->tokenizer->bpe.vocab, text, size, id, true))
    return out_of_memory(load);
  return GPTVQ_OK;
}

static gptvq_status load_vocab(const gptvq_load *load, json_t *vocab) {
  const char *text;
  json_t *value;
  gptvq_bytes scratch = {0};
  gptvq_status status = GPTVQ_OK;
  if (!json_is_object(vocab)) return bad(load, "model.vocab must be an object of tokens and ids");
  json_object_foreach(vocab, text, value) {
    status = add_token(load, text, value, &scratch);
    if (status != GPTVQ_OK) break;
  }
  gptvq_bytes_free(&scratch);
  return status;
}

/* A merge is "left right" or ["left", "right"]. */
static bool merge_parts(const json_t *merge, const char *part[2], size_t size[2]) {
  if (json_is_array(merge)) {
    for (size_t i = 0; i < 2; i++) {
      part[i] = json_string_value(json_array_get(merge, i));
      size[i] = json_string_length(json_array_get(merge, i));
    }
    return json_array_size(merge) == 2 && part[0] != NULL && part[1] != NULL;
  }
  if (!json_is_string(merge)) return false;
  const char *text = json_string_value(merge), *space = memchr(text, ' ', json_string_length(merge));
  if (space == NULL) return false;
  part[0] = text;
  size[0] = (size_t)(space - text);
  part[1] = space + 1;
  size[1] = json_string_length(merge) - size[0] - 1;
  return memchr(part[1], ' ', size[1]) == NULL;
}

static gptvq_status load_merges(const gptvq_load *load, const json_t *merges) {
  if (!json_is_array(merges)) return bad(load, "model.merges must be a list");
  if (json_array_size(merges) >= UINT32_MAX) return bad(load, "model.merges is too long");
  for (size_t i = 0; i < json_array_size(merges); i++) {
    const json_t *merge = json_array_get(merges, i);
    const char *part[2];
    size_t size[2];
    if (json_is_string(merge) && strncmp(json_string_value(merge), "#version", 8) == 0) continue;
    if (!merge_parts(merge, part, size))
      return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT, "%s: merge %zu is neither \"a b\" nor [\"a\", \"b\"]",
                        load->path, i + 1);
    int wrong = gptvq_bpe_add_merge(&load->tokenizer->bpe, part[0], size[0], part[1], size[1]);
    if (wrong == 3) return out_of_memory(load);
    if (wrong >= 0)
      return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT,
                        "%s: merge %zu (\"%.*s\" and \"%.*s\") names the token \"%.*s%.*s\", which is not in "
                        "the vocabulary",
                        load->path, i + 1, (int)gptvq_min_size(size[0], 100), part[0],
                        (int)gptvq_min_size(size[1], 100), part[1],
                        wrong == 1 ? 0 : (int)gptvq_min_size(size[0], 100), part[0],
                        wrong == 0 ? 0 : (int)gptvq_min_size(size[1], 100), part[1]);
  }
  return GPTVQ_OK;
}

static gptvq_status optional_text(const gptvq_load *load, const json_t *model, const char *key,
                                  gptvq_bytes *out) {
  const json_t *value = json_object_get(model, key);
  if (value == NULL || json_is_null(value)) return GPTVQ_OK;
  if (!json_is_string(value))
    return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT, "%s: model.%s must be a string or null", load->path,
                      key);
  gptvq_bytes_append(out, json_string_value(value), json_string_length(value));
  return out->failed ? out_of_memory(load) : GPTVQ_OK;
}

gptvq_status gptvq_load_model(const gptvq_load *load, const json_t *json) {
  gptvq_bpe *bpe = &load->tokenizer->bpe;
  if (!json_is_object(json)) return bad(load, "no \"model\": this is not a tokenizer.json");
  const char *type = json_string_value(json_object_get(json, "type"));
  if (type == NULL && json_object_get(json, "merges") != NULL) type = "BPE"; /* as old files have it */
  if (type == NULL) return bad(load, "model has no \"type\"");
  if (strcmp(type, "BPE") != 0)
    return gptvq_fail(load->err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: tokenizer model %s is not supported; supported: BPE", load->path, type);
  const json_t *dropout = json_object_get(json, "dropout");
  if (json_is_number(dropout) && json_number_value(dropout) != 0)
    return gptvq_fail(load->err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: BPE dropout is not supported: set model.dropout to null", load->path);
  bpe->fuse_unk = gptvq_json_flag(json, "fuse_unk", false);
  bpe->byte_fallback = gptvq_json_flag(json, "byte_fallback", false);
  bpe->ignore_merges = gptvq_json_flag(json, "ignore_merges", false);
  GPTVQ_TRY(optional_text(load, json, "continuing_subword_prefix", &bpe->prefix));
  GPTVQ_TRY(optional_text(load, json, "end_of_word_suffix", &bpe->suffix));
  GPTVQ_TRY(load_vocab(load, json_object_get(json, "vocab")));
  gptvq_bytes unk = {0};
  gptvq_status status = optional_text(load, json, "unk_token", &unk);
  if (status == GPTVQ_OK && json_is_string(json_object_get(json, "unk_token"))) {
    bpe->unk_id = gptvq_vocab_find(&bpe->vocab, unk.data == NULL ? "" : unk.data, unk.size);
    bpe->unk_missing = bpe->unk_id < 0;
  }
  gptvq_bytes_free(&unk);
  GPTVQ_TRY(status);
  if (!gptvq_bpe_index(bpe)) return out_of_memory(load);
  return load_merges(load, json_object_get(json, "merges"));
}

/* ---- added tokens ---- */

static gptvq_status normalized_pattern(const gptvq_load *load, gptvq_added_token *token) {
  const gptvq_tokenizer *t = load->tokenizer;
  bool origin = true;
  gptvq_bytes_append(&token->pattern, token->content.data, token->content.size);
  if (token->pattern.failed || token->content.failed) return out_of_memory(load);
  if (!token->normalized) return GPTVQ_OK;
  return gptvq_normalize(t->normalizers, t->normalizer_count, &token->pattern, &origin, load->err);
}

gptvq_status gptvq_load_added_tokens(const gptvq_load *load, const json_t *json) {
  gptvq_tokenizer *t = load->tokenizer;
  if (json != NULL && !json_is_null(json) && !json_is_array(json))
    return bad(load, "added_tokens must be a list");
  size_t listed = json_array_size(json);
  t->added.tokens = calloc(listed + 1, sizeof *t->added.tokens);
  if (t->added.tokens == NULL) return out_of_memory(load);
  /* Ids are given out as the tokenizers package does: the vocabulary's, else the next free one; the listed id
   * is a comment. */
  int64_t next = (int64_t)t->bpe.vocab.count;
  gptvq_vocab special = {0};
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; i < listed && status == GPTVQ_OK; i++) {
    const json_t *one = json_array_get(json, i), *content = json_object_get(one, "content");
    if (!json_is_string(content)) {
      status = bad(load, "an added token without \"content\"");
      break;
    }
    const char *text = json_string_value(content);
    size_t size = json_string_length(content);
    if (size == 0) continue;
    gptvq_added_token *token = &t->added.tokens[t->added.count++];
    gptvq_bytes_append(&token->content, text, size);
    token->single_word = gptvq_json_flag(one, "single_word", false);
    token->lstrip = gptvq_json_flag(one, "lstrip", false);
    token->rstrip = gptvq_json_flag(one, "rstrip", false);
    token->special = gptvq_json_flag(one, "special", false);
    token->normalized = gptvq_json_flag(one, "normalized", !token->special);
    token->id = gptvq_vocab_find(&t->added_ids, text, size);
    if (token->id < 0) token->id = gptvq_vocab_find(&t->bpe.vocab, text, size);
    if (token->id < 0) {
      if (next > GPTVQ_MAX_TOKEN_ID) {
        status = bad(load, "too many added tokens");
        break;
      }
      token->id = (int32_t)next++;
    }
    status = normalized_pattern(load, token);
    if (status != GPTVQ_OK) break;
    const char *shown = token->pattern.data == NULL ? "" : token->pattern.data;
    if (!gptvq_vocab_add(&t->added_ids, text, size, token->id, true) ||
        !gptvq_vocab_add(&t->bpe.vocab, shown, token->pattern.size, token->id, false) ||
        (token->special && !gptvq_vocab_add(&special, text, size, 0, true)))
      status = out_of_memory(load);
  }
  if (status == GPTVQ_OK) status = gptvq_added_index(&t->added, load->err);
  size_t count = t->bpe.vocab.token_count;
  t->special = calloc(count + 1, 1);
  if (status == GPTVQ_OK && t->special == NULL) status = out_of_memory(load);
  for (size_t id = 0; id < count && status == GPTVQ_OK; id++) {
    size_t size;
    const char *text = gptvq_vocab_text(&t->bpe.vocab, (int32_t)id, &size);
    t->special[id] = text != NULL && gptvq_vocab_find(&special, text, size) >= 0;
  }
  gptvq_vocab_free(&special);
  return status;
}

/* ---- post-processor ---- */

/* Puts `front` before everything that is before already. */
static void wrap(gptvq_tokenizer *t, const gptvq_ids *front, const gptvq_ids *back) {
  gptvq_ids before = {0};
  for (size_t i = 0; i < front->size; i++) gptvq_ids_push(&before, front->data[i]);
  for (size_t i = 0; i < t->before.size; i++) gptvq_ids_push(&before, t->before.data[i]);
  for (size_t i = 0; i < back->size; i++) gptvq_ids_push(&t->after, back->data[i]);
  gptvq_ids_free(&t->before);
  t->before = before;
}

static gptvq_status template_ids(const gptvq_load *load, const json_t *tokens, const char *name,
                                 gptvq_ids *out) {
  const json_t *list = json_object_get(json_object_get(tokens, name), "ids");
  if (name == NULL || !json_is_array(list))
    return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT,
                      "%s: post_processor: the template names %s, which special_tokens lacks", load->path,
                      name == NULL ? "a token" : name);
  for (size_t i = 0; i < json_array_size(list); i++) {
    int32_t id;
    if (!gptvq_json_id(json_array_get(list, i), &id))
      return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT, "%s: post_processor: a bad id for %s", load->path,
                        name);
    gptvq_ids_push(out, id);
  }
  return GPTVQ_OK;
}

static gptvq_status load_template(const gptvq_load *load, const json_t *json) {
  const json_t *single = json_object_get(json, "single"), *tokens = json_object_get(json, "special_tokens");
  if (!json_is_array(single)) return bad(load, "post_processor: TemplateProcessing without \"single\"");
  gptvq_ids around[2] = {{0}, {0}};
  size_t texts = 0;
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; i < json_array_size(single) && status == GPTVQ_OK; i++) {
    const json_t *item = json_array_get(single, i), *special = json_object_get(item, "SpecialToken");
    if (special != NULL)
      status =
          template_ids(load, tokens, json_string_value(json_object_get(special, "id")), &around[texts > 0]);
    else if (json_object_get(item, "Sequence") != NULL) texts++;
    else status = bad(load, "post_processor: a template item is neither SpecialToken nor Sequence");
  }
  if (status == GPTVQ_OK && texts != 1)
    status = gptvq_fail(load->err, GPTVQ_ERROR_UNSUPPORTED,
                        "%s: post_processor: a template must hold the text exactly once", load->path);
  if (status == GPTVQ_OK && (around[0].failed || around[1].failed)) status = out_of_memory(load);
  if (status == GPTVQ_OK) wrap(load->tokenizer, &around[0], &around[1]);
  gptvq_ids_free(&around[0]);
  gptvq_ids_free(&around[1]);
  return status;
}

/* BertProcessing and RobertaProcessing: "cls": ["<s>", 0], "sep": ["</s>", 2] */
static gptvq_status load_cls_sep(const gptvq_load *load, const json_t *json) {
  int32_t cls, sep;
  if (!gptvq_json_id(json_array_get(json_object_get(json, "cls"), 1), &cls) ||
      !gptvq_json_id(json_array_get(json_object_get(json, "sep"), 1), &sep))
    return bad(load, "post_processor: cls and sep must be [token, id]");
  gptvq_ids front = {.data = &cls, .size = 1}, back = {.data = &sep, .size = 1};
  wrap(load->tokenizer, &front, &back);
  return GPTVQ_OK;
}

gptvq_status gptvq_load_post_processor(const gptvq_load *load, const json_t *json, size_t depth) {
  if (json == NULL || json_is_null(json)) return GPTVQ_OK;
  const char *type = json_string_value(json_object_get(json, "type"));
  if (type == NULL) return bad(load, "post_processor: an object with a \"type\" is expected");
  if (depth > GPTVQ_MAX_SEQUENCE_DEPTH) return bad(load, "post_processor: too many levels of Sequence");
  gptvq_status status = GPTVQ_OK;
  if (strcmp(type, "Sequence") == 0) {
    const json_t *list = json_object_get(json, "processors");
    if (!json_is_array(list)) return bad(load, "post_processor: Sequence without \"processors\"");
    for (size_t i = 0; i < json_array_size(list); i++)
      GPTVQ_TRY(gptvq_load_post_processor(load, json_array_get(list, i), depth + 1));
  } else if (strcmp(type, "TemplateProcessing") == 0) {
    status = load_template(load, json);
  } else if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0) {
    status = load_cls_sep(load, json);
  } else if (strcmp(type, "ByteLevel") != 0) { /* ByteLevel only adjusts offsets */
    return gptvq_fail(
        load->err, GPTVQ_ERROR_UNSUPPORTED,
        "%s: post_processor %s is not supported; supported: Sequence, TemplateProcessing, ByteLevel, "
        "BertProcessing, RobertaProcessing",
        load->path, type);
  }
  if (status == GPTVQ_OK && (load->tokenizer->before.failed || load->tokenizer->after.failed))
    return out_of_memory(load);
  return status;
}
