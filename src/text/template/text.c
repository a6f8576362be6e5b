/* Values as texts: str(), repr(), json.dumps(). */
#include "text/template/strings.h"

#include "text/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* ---- numbers ---- */

/* The shortest digits that give the same number back, as Python's repr has them. */
void gptvq_tpl_build_float(gptvq_tpl *t, gptvq_builder *b, double x) {
  char text[40], digits[24];
  if (!isfinite(x)) {
    gptvq_tpl_build_text(t, b, isnan(x) ? "nan" : x > 0 ? "inf" : "-inf");
    return;
  }
  for (int precision = 0; precision <= 16; precision++) {
    (void)snprintf(text, sizeof text, "%.*e", precision, x);
    if (strtod(text, NULL) == x) break;
  }
  if (text[0] == '-') gptvq_tpl_build_text(t, b, "-");
  const char *mark = strchr(text, 'e');
  int exponent = (int)strtol(mark + 1, NULL, 10), count = 0;
  for (const char *c = text; c < mark; c++)
    if (*c >= '0' && *c <= '9') digits[count++] = *c; /* whatever the locale's decimal point */
  if (exponent < -4 || exponent >= 16) {
    (void)snprintf(text, sizeof text, "%c%s%.*s%s%c%02d", digits[0], count > 1 ? "." : "", count - 1,
                   digits + 1, "e", exponent < 0 ? '-' : '+', abs(exponent));
    gptvq_tpl_build_text(t, b, text);
    return;
  }
  if (exponent < 0) {
    gptvq_tpl_build_text(t, b, "0.");
    for (int i = -1; i > exponent; i--) gptvq_tpl_build_text(t, b, "0");
    gptvq_tpl_build(t, b, digits, (size_t)count);
    return;
  }
  for (int i = 0; i < count || i <= exponent; i++) {
    gptvq_tpl_build(t, b, i < count ? &digits[i] : "0", 1);
    if (i == exponent) gptvq_tpl_build_text(t, b, i + 1 < count ? "." : ".0");
  }
}

static void build_int(gptvq_tpl *t, gptvq_builder *b, int64_t x) {
  char text[24];
  (void)snprintf(text, sizeof text, "%" PRId64, x);
  gptvq_tpl_build_text(t, b, text);
}

/* ---- repr ---- */

static void repr_string(gptvq_tpl *t, gptvq_builder *b, gptvq_string s) {
  bool apostrophe = s.size > 0 && memchr(s.data, '\'', s.size) != NULL;
  char quote = apostrophe && memchr(s.data, '"', s.size) == NULL ? '"' : '\'', escape[16];
  gptvq_tpl_build(t, b, &quote, 1);
  for (size_t at = 0, size; at < s.size; at += size) {
    uint32_t c = gptvq_utf8_get(s.data + at, &size);
    if (c == '\\' || c == (unsigned char)quote) {
      gptvq_tpl_build_text(t, b, "\\");
      gptvq_tpl_build(t, b, s.data + at, 1);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      gptvq_tpl_build_text(t, b, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
    } else if (!gptvq_tpl_is_printable(c)) {
      (void)snprintf(escape, sizeof escape,
                     c < 0x100     ? "\\x%02" PRIx32
                     : c < 0x10000 ? "\\u%04" PRIx32
                                   : "\\U%08" PRIx32,
                     c);
      gptvq_tpl_build_text(t, b, escape);
    } else {
      gptvq_tpl_build(t, b, s.data + at, size);
    }
  }
  gptvq_tpl_build(t, b, &quote, 1);
}

static void repr_items(gptvq_tpl *t, gptvq_builder *b, const gptvq_list *list, const char *open,
                       const char *close) {
  gptvq_tpl_build_text(t, b, open);
  for (size_t i = 0; i < list->count; i++) {
    if (i > 0) gptvq_tpl_build_text(t, b, ", ");
    gptvq_tpl_build_repr(t, b, list->items[i]);
  }
  gptvq_tpl_build_text(t, b, close);
}

static void repr_dict(gptvq_tpl *t, gptvq_builder *b, const gptvq_dict *dict) {
  gptvq_tpl_build_text(t, b, "{");
  for (size_t i = 0; i < dict->count; i++) {
    if (i > 0) gptvq_tpl_build_text(t, b, ", ");
    gptvq_tpl_build_repr(t, b, dict->keys[i]);
    gptvq_tpl_build_text(t, b, ": ");
    gptvq_tpl_build_repr(t, b, dict->values[i]);
  }
  gptvq_tpl_build_text(t, b, "}");
}

void gptvq_tpl_build_repr(gptvq_tpl *t, gptvq_builder *b, gptvq_value v) {
  gptvq_tpl_deeper(t);
  switch (v.kind) {
  case GPTVQ_UNDEFINED: gptvq_tpl_build_text(t, b, "Undefined"); break;
  case GPTVQ_NONE: gptvq_tpl_build_text(t, b, "None"); break;
  case GPTVQ_BOOL: gptvq_tpl_build_text(t, b, v.as.boolean ? "True" : "False"); break;
  case GPTVQ_INT: build_int(t, b, v.as.integer); break;
  case GPTVQ_FLOAT: gptvq_tpl_build_float(t, b, v.as.real); break;
  case GPTVQ_TEXT: repr_string(t, b, v.as.text); break;
  case GPTVQ_LIST: repr_items(t, b, v.as.list, "[", "]"); break;
  case GPTVQ_TUPLE: repr_items(t, b, v.as.list, "(", v.as.list->count == 1 ? ",)" : ")"); break;
  case GPTVQ_DICT: repr_dict(t, b, v.as.dict); break;
  case GPTVQ_NAMESPACE:
    gptvq_tpl_build_text(t, b, "<Namespace ");
    repr_dict(t, b, v.as.dict);
    gptvq_tpl_build_text(t, b, ">");
    break;
  default: /* what Python shows is an address, which no template can mean */
    gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "a %s as text is not supported", gptvq_tpl_type_name(v));
  }
  t->depth--;
}

void gptvq_tpl_build_str(gptvq_tpl *t, gptvq_builder *b, gptvq_value v) {
  if (v.kind == GPTVQ_TEXT) gptvq_tpl_build(t, b, v.as.text.data, v.as.text.size);
  else if (v.kind != GPTVQ_UNDEFINED) gptvq_tpl_build_repr(t, b, v);
}

gptvq_string gptvq_tpl_str(gptvq_tpl *t, gptvq_value v) {
  gptvq_builder b = {0};
  if (v.kind == GPTVQ_TEXT) return v.as.text;
  gptvq_tpl_build_str(t, &b, v);
  return gptvq_tpl_built(&b);
}

gptvq_string gptvq_tpl_repr(gptvq_tpl *t, gptvq_value v) {
  gptvq_builder b = {0};
  gptvq_tpl_build_repr(t, &b, v);
  return gptvq_tpl_built(&b);
}

/* ---- JSON ---- */

static void json_escape(gptvq_tpl *t, gptvq_builder *b, uint32_t unit) {
  char text[8];
  (void)snprintf(text, sizeof text, "\\u%04x", (unsigned)unit & 0xffffu);
  gptvq_tpl_build_text(t, b, text);
}

static void json_string_of(gptvq_tpl *t, gptvq_builder *b, gptvq_string s, bool ascii) {
  static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs: character, letter of its escape */
  gptvq_tpl_build_text(t, b, "\"");
  for (size_t at = 0, size; at < s.size; at += size) {
    uint32_t c = gptvq_utf8_get(s.data + at, &size);
    const char *pair = c < 0x80 && c != 0 ? named : "";
    while (*pair != '\0' && (unsigned char)*pair != c) pair += 2;
    if (*pair != '\0') {
      gptvq_tpl_build_text(t, b, "\\");
      gptvq_tpl_build(t, b, pair + 1, 1);
    } else if (c < 0x20 || (ascii && c >= 0x7f)) {
      if (c >= 0x10000) json_escape(t, b, 0xd800 + ((c - 0x10000) >> 10));
      json_escape(t, b, c >= 0x10000 ? 0xdc00 + ((c - 0x10000) & 0x3ff) : c);
    } else {
      gptvq_tpl_build(t, b, s.data + at, size);
    }
  }
  gptvq_tpl_build_text(t, b, "\"");
}

static void json_number(gptvq_tpl *t, gptvq_builder *b, gptvq_value v) {
  if (v.kind == GPTVQ_FLOAT && !isfinite(v.as.real))
    gptvq_tpl_build_text(t, b, isnan(v.as.real) ? "NaN" : v.as.real > 0 ? "Infinity" : "-Infinity");
  else gptvq_tpl_build_repr(t, b, v);
}

static void json_key(gptvq_tpl *t, gptvq_builder *b, gptvq_value key, bool ascii) {
  gptvq_builder text = {0};
  if (key.kind == GPTVQ_TEXT) gptvq_tpl_build(t, &text, key.as.text.data, key.as.text.size);
  else if (key.kind == GPTVQ_NONE) gptvq_tpl_build_text(t, &text, "null");
  else if (key.kind == GPTVQ_BOOL) gptvq_tpl_build_text(t, &text, key.as.boolean ? "true" : "false");
  else if (gptvq_is_number(key)) json_number(t, &text, key);
  else
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "keys must be str, int, float, bool or None, not %s",
                   gptvq_tpl_type_name(key));
  json_string_of(t, b, gptvq_tpl_built(&text), ascii);
}

static void json_line(gptvq_tpl *t, gptvq_builder *b, const gptvq_json_style *style, size_t level) {
  if (!style->lines) return;
  gptvq_tpl_build_text(t, b, "\n");
  for (size_t i = 0; i < level; i++) gptvq_tpl_build(t, b, style->indent.data, style->indent.size);
}

/* The numbers of a dict's items in the order they are written in. */
static size_t *json_order(gptvq_tpl *t, const gptvq_dict *dict, bool sorted) {
  size_t *order = gptvq_tpl_alloc(t, dict->count, sizeof *order);
  for (size_t i = 0; i < dict->count; i++) {
    size_t at = i;
    while (sorted && at > 0 && gptvq_tpl_order(t, dict->keys[order[at - 1]], dict->keys[i]) > 0) {
      gptvq_tpl_work(t, 1);
      order[at] = order[at - 1];
      at--;
    }
    order[at] = i;
  }
  return order;
}

static void build_json(gptvq_tpl *t, gptvq_builder *b, gptvq_value v, const gptvq_json_style *style,
                       size_t level) {
  bool dict = v.kind == GPTVQ_DICT;
  gptvq_tpl_deeper(t);
  switch (v.kind) {
  case GPTVQ_NONE: gptvq_tpl_build_text(t, b, "null"); break;
  case GPTVQ_BOOL: gptvq_tpl_build_text(t, b, v.as.boolean ? "true" : "false"); break;
  case GPTVQ_INT:
  case GPTVQ_FLOAT: json_number(t, b, v); break;
  case GPTVQ_TEXT: json_string_of(t, b, v.as.text, style->ascii); break;
  case GPTVQ_LIST:
  case GPTVQ_TUPLE:
  case GPTVQ_DICT: {
    size_t count = dict ? v.as.dict->count : v.as.list->count;
    size_t *order = dict ? json_order(t, v.as.dict, style->sorted) : NULL;
    gptvq_tpl_build_text(t, b, dict ? "{" : "[");
    for (size_t i = 0; i < count; i++) {
      if (i > 0) gptvq_tpl_build(t, b, style->item_end.data, style->item_end.size);
      json_line(t, b, style, level + 1);
      if (dict) {
        json_key(t, b, v.as.dict->keys[order[i]], style->ascii);
        gptvq_tpl_build(t, b, style->key_end.data, style->key_end.size);
      }
      build_json(t, b, dict ? v.as.dict->values[order[i]] : v.as.list->items[i], style, level + 1);
    }
    if (count > 0) json_line(t, b, style, level);
    gptvq_tpl_build_text(t, b, dict ? "}" : "]");
    break;
  }
  default:
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "Object of type %s is not JSON serializable", gptvq_tpl_type_name(v));
  }
  t->depth--;
}

void gptvq_tpl_build_json(gptvq_tpl *t, gptvq_builder *b, gptvq_value v, const gptvq_json_style *style) {
  build_json(t, b, v, style, 0);
}
