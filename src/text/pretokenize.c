#include "text/pretokenize.h"

#include "text/normalize.h"
#include "text/utf8.h"

const char gptvq_gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

void gptvq_pretokenizer_free(gptvq_pretokenizer *pretokenizer) { gptvq_regex_free(pretokenizer->regex); }

/* Collects the spans of one piece (delimiters and what is between them, in order, covering it) and pushes the
 * pieces that the behaviour makes of them. Only the last span is pending at any time. */
typedef struct splitter {
  gptvq_pieces *out;
  gptvq_split_behavior behavior;
  bool invert;
  size_t start; /* of the piece in the text */
  bool origin;  /* the piece starts where the text starts */
  size_t begin, end;
  bool pending, was_match;
} splitter;

static void emit(splitter *s, size_t begin, size_t end) {
  if (end > begin) gptvq_pieces_push(s->out, begin, end, -1, s->origin && begin == s->start);
}

static void splitter_begin(splitter *s, size_t start, bool origin) {
  s->start = start;
  s->origin = origin;
  s->pending = s->was_match = false;
}

static void splitter_span(splitter *s, size_t begin, size_t end, bool match) {
  match = match != s->invert;
  bool joins = false; /* this span continues the pending one */
  switch (s->behavior) {
  case GPTVQ_SPLIT_ISOLATED: emit(s, begin, end); return;
  case GPTVQ_SPLIT_REMOVED:
    if (!match) emit(s, begin, end);
    return;
  case GPTVQ_SPLIT_CONTIGUOUS: joins = match == s->was_match; break;
  case GPTVQ_SPLIT_MERGED_WITH_PREVIOUS: joins = match && !s->was_match; break;
  case GPTVQ_SPLIT_MERGED_WITH_NEXT: joins = !match && s->was_match; break;
  }
  if (joins && s->pending) {
    s->end = end;
  } else {
    if (s->pending) emit(s, s->begin, s->end);
    s->begin = begin;
    s->end = end;
    s->pending = true;
  }
  s->was_match = match;
}

static void splitter_end(splitter *s) {
  if (s->pending) emit(s, s->begin, s->end);
  s->pending = false;
}

static gptvq_status split_regex(splitter *s, gptvq_regex_walk *walk, const char *text, size_t begin,
                                size_t end, bool origin, gptvq_error *err) {
  splitter_begin(s, begin, origin);
  gptvq_regex_text(walk, text + begin, end - begin);
  size_t done = begin, from, to;
  bool found;
  for (;;) {
    GPTVQ_TRY(gptvq_regex_next(walk, &found, &from, &to, err));
    if (!found) break;
    if (begin + from > done) splitter_span(s, done, begin + from, false);
    splitter_span(s, begin + from, begin + to, true);
    done = begin + to;
  }
  if (done < end) splitter_span(s, done, end, false);
  splitter_end(s);
  return GPTVQ_OK;
}

/* ---- pre-tokenizers that cut at characters of a kind ---- */

static bool is_delimiter(gptvq_pretokenizer_kind kind, uint32_t c) {
  switch (kind) {
  case GPTVQ_PRETOKENIZE_DIGITS: return gptvq_is_numeric(c);
  case GPTVQ_PRETOKENIZE_PUNCTUATION: return gptvq_is_punctuation(c);
  default: return gptvq_is_space(c);
  }
}

static void split_characters(splitter *s, gptvq_pretokenizer_kind kind, const char *text,
                             const gptvq_piece *piece) {
  splitter_begin(s, piece->begin, piece->origin);
  size_t done = piece->begin, length;
  for (size_t i = piece->begin; i < piece->end; i += length) {
    if (!is_delimiter(kind, gptvq_utf8_get(text + i, &length))) continue;
    if (i > done) splitter_span(s, done, i, false);
    splitter_span(s, i, i + length, true);
    done = i + length;
  }
  if (done < piece->end) splitter_span(s, done, piece->end, false);
  splitter_end(s);
}

/* \w+ and [^\w\s]+ */
static void split_words(splitter *s, const char *text, const gptvq_piece *piece) {
  splitter_begin(s, piece->begin, piece->origin);
  size_t begin = piece->begin, length;
  int kind = 0; /* 0: space, 1: word, 2: other */
  for (size_t i = piece->begin; i < piece->end; i += length) {
    uint32_t c = gptvq_utf8_get(text + i, &length);
    int now = gptvq_is_word(c) ? 1 : gptvq_is_space(c) ? 0 : 2;
    if (now == kind) continue;
    if (kind != 0) emit(s, begin, i);
    begin = i;
    kind = now;
  }
  if (kind != 0) emit(s, begin, piece->end);
}

/* ---- metaspace ---- */

static void metaspace(const gptvq_pretokenizer *p, const char *text, const gptvq_piece *piece,
                      gptvq_pieces *out) {
  size_t begin = out->text.size;
  const char *from = text + piece->begin, *end = text + piece->end;
  bool marked = *from == ' ' || ((size_t)(end - from) >= p->replacement_size &&
                                 memcmp(from, p->replacement, p->replacement_size) == 0);
  if (!marked && (p->prepend == GPTVQ_PREPEND_ALWAYS || (p->prepend == GPTVQ_PREPEND_FIRST && piece->origin)))
    gptvq_bytes_append(&out->text, p->replacement, p->replacement_size);
  while (from < end) {
    const char *space = memchr(from, ' ', (size_t)(end - from));
    gptvq_bytes_append(&out->text, from, (size_t)((space == NULL ? end : space) - from));
    if (space == NULL) break;
    gptvq_bytes_append(&out->text, p->replacement, p->replacement_size);
    from = space + 1;
  }
  size_t size = out->text.size;
  if (out->text.failed) return;
  for (size_t i = begin + 1; p->split && i + p->replacement_size <= size; i++) {
    const char *hit = memchr(out->text.data + i, p->replacement[0], size - i - p->replacement_size + 1);
    if (hit == NULL) break;
    i = (size_t)(hit - out->text.data);
    if (memcmp(hit, p->replacement, p->replacement_size) != 0) continue;
    gptvq_pieces_push(out, begin, i, -1, piece->origin && begin == 0);
    begin = i;
  }
  if (size > begin) gptvq_pieces_push(out, begin, size, -1, piece->origin && begin == 0);
}

/* ---- one pre-tokenizer over all pieces ---- */

/* The text is rewritten: each piece, with its prefix, then cut by the expression, then as byte stand-ins. */
static gptvq_status byte_level(const gptvq_pretokenizer *p, const gptvq_pieces *in, gptvq_pieces *out,
                               gptvq_regex_walk *walk, gptvq_error *err) {
  gptvq_pieces parts = {0};
  gptvq_bytes prefixed = {0};
  splitter s = {.out = &parts, .behavior = GPTVQ_SPLIT_ISOLATED};
  gptvq_status status = GPTVQ_OK;
  (void)gptvq_bytes_reserve(&out->text, in->text.size + in->text.size / 4);
  for (size_t i = 0; i < in->count; i++) {
    const gptvq_piece *piece = &in->items[i];
    if (piece->id >= 0) {
      gptvq_pieces_push(out, 0, 0, piece->id, piece->origin);
      continue;
    }
    const char *text = in->text.data + piece->begin;
    size_t size = piece->end - piece->begin;
    if (p->add_prefix_space && text[0] != ' ') {
      prefixed.size = 0;
      gptvq_bytes_append(&prefixed, " ", 1);
      gptvq_bytes_append(&prefixed, text, size);
      if (prefixed.failed) {
        status = gptvq_fail_memory(err, "the tokenizer", size);
        break;
      }
      text = prefixed.data;
      size = prefixed.size;
    }
    parts.count = 0;
    if (p->regex == NULL) gptvq_pieces_push(&parts, 0, size, -1, piece->origin);
    else GPTVQ_TRY_GOTO(split_regex(&s, walk, text, 0, size, piece->origin, err));
    if (parts.failed) out->failed = true;
    for (size_t k = 0; k < parts.count; k++) {
      size_t begin = out->text.size;
      gptvq_byte_level_append(&out->text, text + parts.items[k].begin,
                              parts.items[k].end - parts.items[k].begin);
      gptvq_pieces_push(out, begin, out->text.size, -1, parts.items[k].origin);
    }
  }
done:
  gptvq_pieces_free(&parts);
  gptvq_bytes_free(&prefixed);
  return status;
}

static gptvq_status apply(const gptvq_pretokenizer *p, const gptvq_pieces *in, gptvq_pieces *out,
                          gptvq_regex_walk *walk, gptvq_error *err) {
  if (p->kind == GPTVQ_PRETOKENIZE_BYTE_LEVEL) return byte_level(p, in, out, walk, err);
  splitter s = {.out = out, .behavior = p->behavior, .invert = p->invert};
  for (size_t i = 0; i < in->count; i++) {
    const gptvq_piece *piece = &in->items[i];
    if (piece->id >= 0) {
      gptvq_pieces_push(out, 0, 0, piece->id, piece->origin);
    } else if (p->kind == GPTVQ_PRETOKENIZE_METASPACE) {
      metaspace(p, in->text.data, piece, out);
    } else if (p->kind == GPTVQ_PRETOKENIZE_SPLIT) {
      GPTVQ_TRY(split_regex(&s, walk, in->text.data, piece->begin, piece->end, piece->origin, err));
    } else if (p->kind == GPTVQ_PRETOKENIZE_WHITESPACE) {
      split_words(&s, in->text.data, piece);
    } else {
      split_characters(&s, p->kind, in->text.data, piece);
    }
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_pretokenize(const gptvq_pretokenizer *pretokenizers, size_t count, gptvq_pieces *pieces,
                               gptvq_error *err) {
  for (size_t i = 0; i < count && pieces->count > 0; i++) {
    const gptvq_pretokenizer *p = &pretokenizers[i];
    bool rewrites = p->kind == GPTVQ_PRETOKENIZE_BYTE_LEVEL || p->kind == GPTVQ_PRETOKENIZE_METASPACE;
    gptvq_regex_walk walk = {0};
    if (p->regex != NULL) GPTVQ_TRY(gptvq_regex_begin(&walk, p->regex, err));
    gptvq_pieces out = {0};
    gptvq_status status = apply(p, pieces, &out, &walk, err);
    gptvq_regex_finish(&walk);
    if (status == GPTVQ_OK && !rewrites) { /* the text moves on as it is */
      out.text = pieces->text;
      pieces->text = (gptvq_bytes){0};
    }
    if (status == GPTVQ_OK) status = gptvq_pieces_check(&out, err);
    if (status != GPTVQ_OK) {
      gptvq_pieces_free(&out);
      return status;
    }
    gptvq_pieces_free(pieces);
    *pieces = out;
  }
  return GPTVQ_OK;
}
