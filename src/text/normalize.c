#include "text/normalize.h"

#include "text/utf8.h"

#include <utf8proc.h>

void gptvq_normalizer_free(gptvq_normalizer *normalizer) {
  gptvq_bytes_free(&normalizer->content);
  gptvq_regex_free(normalizer->regex);
}

gptvq_status gptvq_replace(const gptvq_regex *regex, const gptvq_bytes *content, const char *text,
                           size_t size, gptvq_bytes *out, bool *kept_start, gptvq_error *err) {
  gptvq_regex_walk walk;
  GPTVQ_TRY(gptvq_regex_begin(&walk, regex, err));
  gptvq_regex_text(&walk, text, size);
  gptvq_status status = GPTVQ_OK;
  size_t done = 0, begin, end;
  bool found = false;
  *kept_start = true;
  while (size > 0) {
    GPTVQ_TRY_GOTO(gptvq_regex_next(&walk, &found, &begin, &end, err));
    if (!found) break;
    if (begin == 0 && end > 0 && content->size == 0) *kept_start = false;
    gptvq_bytes_append(out, text + done, begin - done);
    gptvq_bytes_append(out, content->data, content->size);
    done = end;
    if (out->size > UINT32_MAX) {
      status = gptvq_fail(err, GPTVQ_ERROR_DATA,
                          "replacing a pattern blows a text of %zu bytes up beyond 4 GiB", size);
      goto done;
    }
  }
  if (size > done) gptvq_bytes_append(out, text + done, size - done);
done:
  gptvq_regex_finish(&walk);
  return status;
}

/* Replaces *text by *fresh. */
static gptvq_status take(gptvq_bytes *text, gptvq_bytes *fresh, gptvq_error *err) {
  bool failed = fresh->failed;
  if (failed || fresh->size == 0) gptvq_bytes_free(fresh);
  gptvq_bytes_free(text);
  *text = *fresh;
  return failed ? gptvq_fail_memory(err, "a normalized text", 0) : GPTVQ_OK;
}

/* ---- Unicode normalization forms ---- */

typedef struct code_points {
  int32_t *data, *spare; /* spare: as large, for sorting */
  size_t capacity;
} code_points;

static bool code_points_reserve(code_points *points, size_t count) {
  if (count <= points->capacity) return true;
  size_t capacity = gptvq_max_size(count, points->capacity * 2 + 64), bytes;
  if (!gptvq_mul(capacity, sizeof(int32_t), &bytes)) return false;
  int32_t *data = realloc(points->data, bytes);
  if (data != NULL) points->data = data;
  int32_t *spare = realloc(points->spare, bytes);
  if (spare != NULL) points->spare = spare;
  if (data == NULL || spare == NULL) return false;
  points->capacity = capacity;
  return true;
}

static unsigned combining_class(int32_t c) { return (unsigned)utf8proc_get_property(c)->combining_class; }

/* Canonical ordering: each run of characters with a combining class other than 0 is sorted by it, stably. A
 * counting sort over the classes that occur, so that a hostile run of marks costs no square. */
static void order_marks(code_points *points, size_t count) {
  for (size_t i = 0; i < count;) {
    if (combining_class(points->data[i]) == 0) {
      i++;
      continue;
    }
    size_t end = i;
    bool sorted = true;
    unsigned before = 0;
    size_t starts[257] = {0};
    for (; end < count; end++) {
      unsigned class = combining_class(points->data[end]);
      if (class == 0) break;
      sorted = sorted && class >= before;
      before = class;
      starts[class + 1]++;
    }
    if (!sorted) {
      for (size_t class = 1; class < 257; class ++) starts[class] += starts[class - 1];
      for (size_t k = i; k < end; k++)
        points->spare[starts[combining_class(points->data[k])]++] = points->data[k];
      memcpy(points->data + i, points->spare, (end - i) * sizeof *points->data);
    }
    i = end;
  }
}

/* Decompositions that Unicode has gained since 12.0, whose tables the tokenizers package uses: it leaves
 * these as they are. */
static bool is_newer(uint32_t c) {
  return c == 0x32ff || (c >= 0xa7f2 && c <= 0xa7f4) || c == 0xab69 || (c >= 0x10781 && c <= 0x107ba) ||
         c == 0x11938 || c == 0x1f16c || (c >= 0x1fbf0 && c <= 0x1fbf9) || (c >= 0x1e030 && c <= 0x1e06d);
}

/* A stretch without two adjacent ASCII characters inside: what surrounds it cannot interact with it. */
static bool normalize_stretch(const char *text, size_t size, int options, code_points *points,
                              gptvq_bytes *out) {
  const int compose = options & UTF8PROC_COMPOSE;
  const utf8proc_option_t decompose = (utf8proc_option_t)((options & ~UTF8PROC_COMPOSE) | UTF8PROC_DECOMPOSE);
  enum { LONGEST_DECOMPOSITION = 32 }; /* of one character: 18 (U+FDFA) */
  size_t count = 0;
  for (size_t i = 0; i < size;) {
    size_t length;
    uint32_t c = gptvq_utf8_get(text + i, &length);
    i += length;
    if (!code_points_reserve(points, count + LONGEST_DECOMPOSITION)) return false;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, points->data + count,
                                                 LONGEST_DECOMPOSITION, decompose, NULL);
    if (n < 0 || n > LONGEST_DECOMPOSITION ||
        is_newer(c)) { /* the first two cannot happen for a scalar value */
      points->data[count] = (int32_t)c;
      n = 1;
    }
    count += (size_t)n;
  }
  order_marks(points, count);
  if (compose) {
    utf8proc_ssize_t n = utf8proc_normalize_utf32(points->data, (utf8proc_ssize_t)count,
                                                  (utf8proc_option_t)(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    if (n >= 0) count = (size_t)n;
  }
  for (size_t i = 0; i < count; i++) gptvq_utf8_append(out, (uint32_t)points->data[i]);
  return true;
}

static gptvq_status normal_form(gptvq_bytes *text, int options, gptvq_error *err) {
  gptvq_bytes fresh = {0};
  code_points points = {0};
  bool fine = true;
  const char *p = text->data;
  size_t size = text->size, i = 0;
  while (i < size && fine) {
    size_t ascii = i;
    while (ascii < size && (unsigned char)p[ascii] < 0x80) ascii++;
    size_t begin = ascii > i && ascii < size ? ascii - 1 : ascii; /* the last one may be the base of a mark */
    gptvq_bytes_append(&fresh, p + i, begin - i);
    size_t end = ascii;
    while (end < size && (unsigned char)p[end] >= 0x80) end++;
    if (end > begin) fine = normalize_stretch(p + begin, end - begin, options, &points, &fresh);
    i = end;
  }
  free(points.data);
  free(points.spare);
  fresh.failed = fresh.failed || !fine;
  return take(text, &fresh, err);
}

/* ---- the simple ones ---- */

static gptvq_status by_character(gptvq_bytes *text, gptvq_normalizer_kind kind, gptvq_error *err) {
  gptvq_bytes fresh = {0};
  for (size_t i = 0; i < text->size;) {
    size_t length;
    uint32_t c = gptvq_utf8_get(text->data + i, &length);
    i += length;
    if (kind == GPTVQ_NORMALIZE_STRIP_ACCENTS) {
      if (!gptvq_is_mark(c)) gptvq_utf8_append(&fresh, c);
    } else if (c == 0x130) { /* the one character whose lower case is two: i with dot above */
      gptvq_bytes_append(&fresh, "i\xcc\x87", 3);
    } else {
      gptvq_utf8_append(&fresh, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
    }
  }
  return take(text, &fresh, err);
}

static void strip(gptvq_bytes *text, bool left, bool right, bool *origin) {
  size_t begin = 0, end = text->size, length;
  while (left && begin < end && gptvq_is_space(gptvq_utf8_get(text->data + begin, &length))) begin += length;
  while (right && end > begin) {
    size_t last = gptvq_utf8_previous(text->data, end);
    if (!gptvq_is_space(gptvq_utf8_get(text->data + last, &length))) break;
    end = last;
  }
  if (begin > 0) {
    *origin = false;
    memmove(text->data, text->data + begin, end - begin);
  }
  text->size = end - begin;
}

void gptvq_byte_level_append(gptvq_bytes *out, const char *text, size_t size) {
  if (size > SIZE_MAX / 2) out->failed = true;
  else (void)gptvq_bytes_reserve(out, 2 * size);
  if (out->failed) return;
  char *to = out->data + out->size;
  for (size_t i = 0; i < size; i++) {
    unsigned char byte = (unsigned char)text[i];
    if (byte > 0x20 && byte < 0x7f) *to++ = (char)byte;
    else to += gptvq_utf8_encode(gptvq_byte_level_char(byte), to); /* at most two bytes */
  }
  out->size = (size_t)(to - out->data);
}

static gptvq_status apply(const gptvq_normalizer *n, gptvq_bytes *text, bool *origin, gptvq_error *err) {
  gptvq_bytes fresh = {0};
  switch (n->kind) {
  case GPTVQ_NORMALIZE_PREPEND:
    if (text->size == 0) return GPTVQ_OK;
    gptvq_bytes_append(&fresh, n->content.data, n->content.size);
    gptvq_bytes_append(&fresh, text->data, text->size);
    return take(text, &fresh, err);
  case GPTVQ_NORMALIZE_REPLACE: {
    bool kept_start;
    gptvq_status status =
        gptvq_replace(n->regex, &n->content, text->data, text->size, &fresh, &kept_start, err);
    if (status != GPTVQ_OK) {
      gptvq_bytes_free(&fresh);
      return status;
    }
    *origin = *origin && kept_start;
    return take(text, &fresh, err);
  }
  case GPTVQ_NORMALIZE_NFC: return normal_form(text, UTF8PROC_COMPOSE, err);
  case GPTVQ_NORMALIZE_NFD: return normal_form(text, 0, err);
  case GPTVQ_NORMALIZE_NFKC: return normal_form(text, UTF8PROC_COMPOSE | UTF8PROC_COMPAT, err);
  case GPTVQ_NORMALIZE_NFKD: return normal_form(text, UTF8PROC_COMPAT, err);
  case GPTVQ_NORMALIZE_LOWERCASE:
  case GPTVQ_NORMALIZE_STRIP_ACCENTS: return by_character(text, n->kind, err);
  case GPTVQ_NORMALIZE_STRIP: strip(text, n->left, n->right, origin); return GPTVQ_OK;
  case GPTVQ_NORMALIZE_BYTE_LEVEL:
    if (text->size == 0) return GPTVQ_OK;
    gptvq_byte_level_append(&fresh, text->data, text->size);
    return take(text, &fresh, err);
  }
  return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "unknown normalizer");
}

gptvq_status gptvq_normalize(const gptvq_normalizer *normalizers, size_t count, gptvq_bytes *text,
                             bool *origin, gptvq_error *err) {
  enum {
    MOST_GROWTH = 256
  }; /* far beyond any Unicode form; steps that feed each other could double the text every time */
  size_t start = gptvq_max_size(text->size, (size_t)1 << 16);
  for (size_t i = 0; i < count; i++) {
    GPTVQ_TRY(apply(&normalizers[i], text, origin, err));
    if (text->size / MOST_GROWTH > start)
      return gptvq_fail(err, GPTVQ_ERROR_DATA, "the tokenizer's normalizer blows a text up to %zu bytes",
                        text->size);
  }
  return GPTVQ_OK;
}
