/* normalizer, pre_tokenizer and decoder of tokenizer.json */
#include "text/tokenizer_internal.h"

#include "text/utf8.h"

bool gptvq_json_flag(const json_t *object, const char *key, bool absent) {
  const json_t *value = json_object_get(object, key);
  return json_is_boolean(value) ? json_is_true(value) : absent;
}

/* The "type" of a stage, after checks that hold for every stage. */
static gptvq_status stage_type(const gptvq_load *load, const char *section, const json_t *json, size_t depth,
                               size_t count, const char **type) {
  *type = json_string_value(json_object_get(json, "type"));
  if (*type == NULL)
    return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT, "%s: %s: an object with a \"type\" is expected",
                      load->path, section);
  if (depth > GPTVQ_MAX_SEQUENCE_DEPTH || count >= GPTVQ_MAX_STAGES)
    return gptvq_fail(load->err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: %s: more than %d steps or %d levels of Sequence", load->path, section,
                      (int)GPTVQ_MAX_STAGES, (int)GPTVQ_MAX_SEQUENCE_DEPTH);
  return GPTVQ_OK;
}

typedef gptvq_status loader(const gptvq_load *load, const json_t *json, size_t depth);

static gptvq_status sequence(const gptvq_load *load, const char *section, const json_t *list, size_t depth,
                             loader *one) {
  if (!json_is_array(list))
    return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT, "%s: %s: Sequence without its list", load->path,
                      section);
  for (size_t i = 0; i < json_array_size(list); i++) GPTVQ_TRY(one(load, json_array_get(list, i), depth + 1));
  return GPTVQ_OK;
}

/* {"String": …} or {"Regex": …} */
static gptvq_status pattern(const gptvq_load *load, const char *section, const json_t *json,
                            gptvq_regex **out) {
  const json_t *value = json_object_get(json, "pattern");
  const json_t *literal = json_object_get(value, "String"), *regex = json_object_get(value, "Regex");
  const json_t *text = literal != NULL ? literal : regex;
  if (!json_is_string(text))
    return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT,
                      "%s: %s: a pattern {\"String\": …} or {\"Regex\": …} is expected", load->path, section);
  gptvq_error inner;
  gptvq_status status =
      gptvq_regex_compile(json_string_value(text), json_string_length(text), literal != NULL, out, &inner);
  if (status != GPTVQ_OK)
    return gptvq_fail(load->err, status, "%s: %s: %s", load->path, section, inner.message);
  return GPTVQ_OK;
}

static gptvq_status text_field(const gptvq_load *load, const char *section, const json_t *json,
                               const char *key, gptvq_bytes *out) {
  const json_t *value = json_object_get(json, key);
  if (!json_is_string(value))
    return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT, "%s: %s: a string \"%s\" is expected", load->path,
                      section, key);
  gptvq_bytes_append(out, json_string_value(value), json_string_length(value));
  return out->failed ? gptvq_fail_memory(load->err, section, json_string_length(value)) : GPTVQ_OK;
}

/* A string of one code point. */
static gptvq_status character_field(const gptvq_load *load, const char *section, const json_t *json,
                                    const char *key, gptvq_bytes *out) {
  GPTVQ_TRY(text_field(load, section, json, key, out));
  size_t length = 0;
  if (out->size > 0) (void)gptvq_utf8_get(out->data, &length);
  if (out->size == 0 || length != out->size)
    return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT, "%s: %s: \"%s\" must be one character", load->path,
                      section, key);
  return GPTVQ_OK;
}

gptvq_status gptvq_load_normalizer(const gptvq_load *load, const json_t *json, size_t depth) {
  static const struct {
    const char *name;
    gptvq_normalizer_kind kind;
  } simple[] = {{"NFC", GPTVQ_NORMALIZE_NFC},
                {"NFD", GPTVQ_NORMALIZE_NFD},
                {"NFKC", GPTVQ_NORMALIZE_NFKC},
                {"NFKD", GPTVQ_NORMALIZE_NFKD},
                {"Lowercase", GPTVQ_NORMALIZE_LOWERCASE},
                {"StripAccents", GPTVQ_NORMALIZE_STRIP_ACCENTS},
                {"ByteLevel", GPTVQ_NORMALIZE_BYTE_LEVEL}};
  const char *section = "normalizer", *type;
  gptvq_tokenizer *t = load->tokenizer;
  if (json == NULL || json_is_null(json)) return GPTVQ_OK;
  GPTVQ_TRY(stage_type(load, section, json, depth, t->normalizer_count, &type));
  if (strcmp(type, "Sequence") == 0)
    return sequence(load, section, json_object_get(json, "normalizers"), depth, gptvq_load_normalizer);
  gptvq_normalizer *n = &t->normalizers[t->normalizer_count];
  *n = (gptvq_normalizer){0};
  t->normalizer_count++; /* counted first: whatever it comes to own is released with the tokenizer */
  if (strcmp(type, "Prepend") == 0) {
    n->kind = GPTVQ_NORMALIZE_PREPEND;
    return text_field(load, section, json, "prepend", &n->content);
  }
  if (strcmp(type, "Replace") == 0) {
    n->kind = GPTVQ_NORMALIZE_REPLACE;
    GPTVQ_TRY(pattern(load, section, json, &n->regex));
    return text_field(load, section, json, "content", &n->content);
  }
  if (strcmp(type, "Strip") == 0) {
    n->kind = GPTVQ_NORMALIZE_STRIP;
    n->left = gptvq_json_flag(json, "strip_left", true);
    n->right = gptvq_json_flag(json, "strip_right", true);
    return GPTVQ_OK;
  }
  for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
    if (strcmp(type, simple[i].name) == 0) {
      n->kind = simple[i].kind;
      return GPTVQ_OK;
    }
  return gptvq_fail(load->err, GPTVQ_ERROR_UNSUPPORTED,
                    "%s: normalizer %s is not supported; supported: Sequence, Prepend, Replace, Strip, "
                    "StripAccents, NFC, NFD, "
                    "NFKC, NFKD, Lowercase, ByteLevel",
                    load->path, type);
}

static gptvq_status behavior(const gptvq_load *load, const json_t *json, gptvq_split_behavior *out) {
  static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                      "Contiguous"};
  const json_t *value = json_object_get(json, "behavior");
  if (value == NULL) return GPTVQ_OK;
  const char *name = json_string_value(value);
  for (size_t i = 0; name != NULL && i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0) {
      *out = (gptvq_split_behavior)i;
      return GPTVQ_OK;
    }
  return gptvq_fail(load->err, GPTVQ_ERROR_UNSUPPORTED, "%s: pre_tokenizer: behavior %s is not supported",
                    load->path, name == NULL ? "(not a string)" : name);
}

/* Metaspace's prepend_scheme, and the add_prefix_space that older files have instead. */
static gptvq_status prepend_scheme(const gptvq_load *load, const char *section, const json_t *json,
                                   gptvq_prepend_scheme *out) {
  const json_t *value = json_object_get(json, "prepend_scheme");
  const char *name = json_string_value(value);
  *out = GPTVQ_PREPEND_ALWAYS;
  if (name != NULL && strcmp(name, "first") == 0) *out = GPTVQ_PREPEND_FIRST;
  else if (name != NULL && strcmp(name, "never") == 0) *out = GPTVQ_PREPEND_NEVER;
  else if (value != NULL && (name == NULL || strcmp(name, "always") != 0))
    return gptvq_fail(load->err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: %s: Metaspace's prepend_scheme must be always, first or never", load->path,
                      section);
  if (!gptvq_json_flag(json, "add_prefix_space", true)) *out = GPTVQ_PREPEND_NEVER;
  return GPTVQ_OK;
}

gptvq_status gptvq_load_pretokenizer(const gptvq_load *load, const json_t *json, size_t depth) {
  const char *section = "pre_tokenizer", *type;
  gptvq_tokenizer *t = load->tokenizer;
  if (json == NULL || json_is_null(json)) return GPTVQ_OK;
  GPTVQ_TRY(stage_type(load, section, json, depth, t->pretokenizer_count, &type));
  if (strcmp(type, "Sequence") == 0)
    return sequence(load, section, json_object_get(json, "pretokenizers"), depth, gptvq_load_pretokenizer);
  gptvq_pretokenizer *p = &t->pretokenizers[t->pretokenizer_count];
  *p = (gptvq_pretokenizer){.behavior = GPTVQ_SPLIT_ISOLATED};
  t->pretokenizer_count++;
  if (strcmp(type, "Split") == 0) {
    p->kind = GPTVQ_PRETOKENIZE_SPLIT;
    p->invert = gptvq_json_flag(json, "invert", false);
    GPTVQ_TRY(behavior(load, json, &p->behavior));
    return pattern(load, section, json, &p->regex);
  }
  if (strcmp(type, "ByteLevel") == 0) {
    p->kind = GPTVQ_PRETOKENIZE_BYTE_LEVEL;
    p->add_prefix_space = gptvq_json_flag(json, "add_prefix_space", true);
    if (!gptvq_json_flag(json, "use_regex", true)) return GPTVQ_OK;
    return gptvq_regex_compile(gptvq_gpt2_pattern, strlen(gptvq_gpt2_pattern), false, &p->regex, load->err);
  }
  if (strcmp(type, "Metaspace") == 0) {
    p->kind = GPTVQ_PRETOKENIZE_METASPACE;
    gptvq_bytes replacement = {0};
    gptvq_status status = character_field(load, section, json, "replacement", &replacement);
    if (status == GPTVQ_OK) {
      memcpy(p->replacement, replacement.data, replacement.size); /* one code point: at most four bytes */
      p->replacement_size = replacement.size;
    }
    gptvq_bytes_free(&replacement);
    if (status != GPTVQ_OK) return status;
    p->split = gptvq_json_flag(json, "split", true);
    return prepend_scheme(load, section, json, &p->prepend);
  }
  if (strcmp(type, "Digits") == 0) {
    p->kind = GPTVQ_PRETOKENIZE_DIGITS;
    if (!gptvq_json_flag(json, "individual_digits", false)) p->behavior = GPTVQ_SPLIT_CONTIGUOUS;
    return GPTVQ_OK;
  }
  if (strcmp(type, "Punctuation") == 0) {
    p->kind = GPTVQ_PRETOKENIZE_PUNCTUATION;
    return behavior(load, json, &p->behavior);
  }
  if (strcmp(type, "Whitespace") == 0) {
    p->kind = GPTVQ_PRETOKENIZE_WHITESPACE;
    return GPTVQ_OK;
  }
  if (strcmp(type, "WhitespaceSplit") == 0) {
    p->kind = GPTVQ_PRETOKENIZE_WHITESPACE_SPLIT;
    p->behavior = GPTVQ_SPLIT_REMOVED;
    return GPTVQ_OK;
  }
  return gptvq_fail(
      load->err, GPTVQ_ERROR_UNSUPPORTED,
      "%s: pre_tokenizer %s is not supported; supported: Sequence, Split, ByteLevel, Metaspace, Digits, "
      "Punctuation, Whitespace, WhitespaceSplit",
      load->path, type);
}

static gptvq_status count_field(const gptvq_load *load, const json_t *json, const char *key, size_t *out) {
  const json_t *value = json_object_get(json, key);
  double number = json_number_value(value);
  if (!json_is_number(value) || !(number >= 0 && number <= 1000000))
    return gptvq_fail(load->err, GPTVQ_ERROR_FORMAT, "%s: decoder: Strip needs a count \"%s\"", load->path,
                      key);
  *out = (size_t)number;
  return GPTVQ_OK;
}

gptvq_status gptvq_load_decoder(const gptvq_load *load, const json_t *json, size_t depth) {
  const char *section = "decoder", *type;
  gptvq_tokenizer *t = load->tokenizer;
  if (json == NULL || json_is_null(json)) {
    if (depth == 0) t->decoders[t->decoder_count++].kind = GPTVQ_DECODE_JOIN;
    return GPTVQ_OK;
  }
  GPTVQ_TRY(stage_type(load, section, json, depth, t->decoder_count, &type));
  if (strcmp(type, "Sequence") == 0)
    return sequence(load, section, json_object_get(json, "decoders"), depth, gptvq_load_decoder);
  gptvq_decoder *d = &t->decoders[t->decoder_count];
  *d = (gptvq_decoder){0};
  t->decoder_count++;
  if (strcmp(type, "ByteLevel") == 0) {
    d->kind = GPTVQ_DECODE_BYTE_LEVEL;
    return GPTVQ_OK;
  }
  if (strcmp(type, "Replace") == 0) {
    d->kind = GPTVQ_DECODE_REPLACE;
    GPTVQ_TRY(pattern(load, section, json, &d->regex));
    return text_field(load, section, json, "content", &d->content);
  }
  if (strcmp(type, "ByteFallback") == 0) {
    d->kind = GPTVQ_DECODE_BYTE_FALLBACK;
    return GPTVQ_OK;
  }
  if (strcmp(type, "Fuse") == 0) {
    d->kind = GPTVQ_DECODE_FUSE;
    return GPTVQ_OK;
  }
  if (strcmp(type, "Strip") == 0) {
    d->kind = GPTVQ_DECODE_STRIP;
    GPTVQ_TRY(character_field(load, section, json, "content", &d->content));
    GPTVQ_TRY(count_field(load, json, "start", &d->start));
    return count_field(load, json, "stop", &d->stop);
  }
  if (strcmp(type, "Metaspace") == 0) {
    gptvq_prepend_scheme scheme;
    d->kind = GPTVQ_DECODE_METASPACE;
    GPTVQ_TRY(character_field(load, section, json, "replacement", &d->content));
    GPTVQ_TRY(prepend_scheme(load, section, json, &scheme));
    d->start = scheme != GPTVQ_PREPEND_NEVER;
    return GPTVQ_OK;
  }
  return gptvq_fail(
      load->err, GPTVQ_ERROR_UNSUPPORTED,
      "%s: decoder %s is not supported; supported: Sequence, ByteLevel, Replace, ByteFallback, Fuse, Strip, "
      "Metaspace",
      load->path, type);
}
