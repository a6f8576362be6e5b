/* The methods of str. */
#include "text/template/run.h"

#include "text/template/strings.h"

typedef struct range {
  size_t begin, end; /* bytes */
} range;

static void no_arguments(gptvq_tpl *t, const gptvq_args *args, const char *name) {
  gptvq_tpl_bind(t, name, args, NULL, 0, 0, NULL);
}

#define CASE_METHOD(name, how) \
  static gptvq_value text_##name(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) { \
    no_arguments(t, args, "str." #name); \
    return gptvq_text(gptvq_tpl_change_case(t, self.as.text, how)); \
  }
CASE_METHOD(upper, GPTVQ_CASE_UPPER)
CASE_METHOD(lower, GPTVQ_CASE_LOWER)
CASE_METHOD(title, GPTVQ_CASE_TITLE)
CASE_METHOD(capitalize, GPTVQ_CASE_CAPITAL)
CASE_METHOD(swapcase, GPTVQ_CASE_SWAP)

#define ASKING_METHOD(name, answer) \
  static gptvq_value text_##name(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) { \
    no_arguments(t, args, "str." #name); \
    return gptvq_bool(answer); \
  }
ASKING_METHOD(isupper, gptvq_tpl_has_case(t, self.as.text, GPTVQ_CASE_UPPER))
ASKING_METHOD(islower, gptvq_tpl_has_case(t, self.as.text, GPTVQ_CASE_LOWER))
ASKING_METHOD(isspace, gptvq_tpl_all_chars(t, self.as.text, GPTVQ_SPACE))
ASKING_METHOD(isalpha, gptvq_tpl_all_chars(t, self.as.text, GPTVQ_ALPHA))
ASKING_METHOD(isdigit, gptvq_tpl_all_chars(t, self.as.text, GPTVQ_DIGIT))
ASKING_METHOD(isalnum, gptvq_tpl_all_chars(t, self.as.text, GPTVQ_ALNUM))

/* ---- stripping ---- */

static gptvq_value strip(gptvq_tpl *t, gptvq_value self, const gptvq_args *args, bool left, bool right) {
  static const char *const names[] = {"chars"};
  gptvq_value chars = gptvq_none();
  gptvq_tpl_bind(t, "str.strip", args, names, 0, 1, &chars);
  gptvq_string what =
      chars.kind == GPTVQ_NONE ? GPTVQ_STRING("") : gptvq_tpl_want_text(t, chars, "what to strip");
  if (chars.kind == GPTVQ_TEXT && what.size == 0) return self;
  return gptvq_text(gptvq_tpl_strip(t, self.as.text, what, left, right));
}
static gptvq_value text_strip(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return strip(t, self, args, true, true);
}
static gptvq_value text_lstrip(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return strip(t, self, args, true, false);
}
static gptvq_value text_rstrip(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return strip(t, self, args, false, true);
}

static bool ends(gptvq_tpl *t, gptvq_string s, gptvq_string with, bool at_end) {
  return with.size <= s.size && gptvq_tpl_begins(t, at_end ? s.data + s.size - with.size : s.data, with);
}

static gptvq_value remove_affix(gptvq_tpl *t, gptvq_value self, const gptvq_args *args, bool at_end) {
  static const char *const names[] = {"affix"};
  gptvq_value affix = gptvq_none();
  gptvq_tpl_bind(t, "str.removeprefix", args, names, 1, 1, &affix);
  gptvq_string s = self.as.text, what = gptvq_tpl_want_text(t, affix, "what to remove");
  if (!ends(t, s, what, at_end)) return self;
  return gptvq_text(at_end ? gptvq_part(s, 0, s.size - what.size) : gptvq_part(s, what.size, s.size));
}
static gptvq_value text_removeprefix(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return remove_affix(t, self, args, false);
}
static gptvq_value text_removesuffix(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return remove_affix(t, self, args, true);
}

/* ---- searching ---- */

/* The part of the text between two optional positions; false: there is no such part. */
static bool between(gptvq_tpl *t, gptvq_value self, const gptvq_value bounds[2], range *out) {
  int64_t count = (int64_t)gptvq_tpl_count_chars(t, self.as.text), at[2] = {0, count};
  for (size_t i = 0; i < 2; i++) {
    if (bounds[i].kind != GPTVQ_NONE) at[i] = gptvq_tpl_want_int(t, bounds[i], "a position");
    if (at[i] < 0) at[i] = at[i] + count < 0 ? 0 : at[i] + count;
  }
  if (at[0] > count || at[1] < at[0]) return false;
  if (at[1] > count) at[1] = count;
  *out = (range){gptvq_tpl_char_offset(t, self.as.text, (size_t)at[0]),
                 gptvq_tpl_char_offset(t, self.as.text, (size_t)at[1])};
  return true;
}

static bool any_end(gptvq_tpl *t, gptvq_string s, gptvq_value with, bool at_end) {
  if (with.kind != GPTVQ_TUPLE) return ends(t, s, gptvq_tpl_want_text(t, with, "what to look for"), at_end);
  for (size_t i = 0; i < with.as.list->count; i++)
    if (ends(t, s, gptvq_tpl_want_text(t, with.as.list->items[i], "what to look for"), at_end)) return true;
  return false;
}

static gptvq_value at_end_of(gptvq_tpl *t, gptvq_value self, const gptvq_args *args, bool at_end) {
  static const char *const names[] = {"prefix", "start", "end"};
  gptvq_value values[] = {gptvq_none(), gptvq_none(), gptvq_none()};
  range part;
  gptvq_tpl_bind(t, "str.startswith", args, names, 1, 3, values);
  return gptvq_bool(between(t, self, values + 1, &part) &&
                    any_end(t, gptvq_part(self.as.text, part.begin, part.end), values[0], at_end));
}
static gptvq_value text_startswith(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return at_end_of(t, self, args, false);
}
static gptvq_value text_endswith(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return at_end_of(t, self, args, true);
}

/* The character position of the first (or last) occurrence, -1: none. */
static int64_t search(gptvq_tpl *t, gptvq_value self, const gptvq_args *args, bool last) {
  static const char *const names[] = {"sub", "start", "end"};
  gptvq_value values[] = {gptvq_none(), gptvq_none(), gptvq_none()};
  range part;
  gptvq_tpl_bind(t, "str.find", args, names, 1, 3, values);
  gptvq_string what = gptvq_tpl_want_text(t, values[0], "what to look for");
  if (!between(t, self, values + 1, &part)) return -1;
  gptvq_string inside = gptvq_part(self.as.text, 0, part.end);
  size_t found = gptvq_tpl_find(t, inside, what, part.begin);
  if (last && what.size == 0) found = part.end;
  for (size_t next = found; last && what.size > 0 && next != SIZE_MAX;
       next = gptvq_tpl_find(t, inside, what, next + 1))
    found = next;
  return found == SIZE_MAX ? -1 : (int64_t)gptvq_tpl_count_chars(t, gptvq_part(self.as.text, 0, found));
}
static gptvq_value text_find(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return gptvq_int(search(t, self, args, false));
}
static gptvq_value text_rfind(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return gptvq_int(search(t, self, args, true));
}
static gptvq_value must_find(gptvq_tpl *t, int64_t found) {
  if (found < 0) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "substring not found");
  return gptvq_int(found);
}
static gptvq_value text_index(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return must_find(t, search(t, self, args, false));
}
static gptvq_value text_rindex(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return must_find(t, search(t, self, args, true));
}

static gptvq_value text_count(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"sub", "start", "end"};
  gptvq_value values[] = {gptvq_none(), gptvq_none(), gptvq_none()};
  range part;
  int64_t count = 0;
  gptvq_tpl_bind(t, "str.count", args, names, 1, 3, values);
  gptvq_string what = gptvq_tpl_want_text(t, values[0], "what to count");
  if (!between(t, self, values + 1, &part)) return gptvq_int(0);
  gptvq_string inside = gptvq_part(self.as.text, part.begin, part.end);
  if (what.size == 0) return gptvq_int((int64_t)gptvq_tpl_count_chars(t, inside) + 1);
  for (size_t at = gptvq_tpl_find(t, inside, what, 0); at != SIZE_MAX;
       at = gptvq_tpl_find(t, inside, what, at + what.size))
    count++;
  return gptvq_int(count);
}

/* ---- taking apart and putting together ---- */

static gptvq_value split(gptvq_tpl *t, gptvq_value self, const gptvq_args *args, bool from_right) {
  static const char *const names[] = {"sep", "maxsplit"};
  gptvq_value values[] = {gptvq_none(), gptvq_int(-1)};
  gptvq_tpl_bind(t, "str.split", args, names, 0, 2, values);
  gptvq_string sep =
      values[0].kind == GPTVQ_NONE ? GPTVQ_STRING("") : gptvq_tpl_want_text(t, values[0], "a separator");
  if (values[0].kind == GPTVQ_TEXT && sep.size == 0) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "empty separator");
  return gptvq_tpl_split(t, self.as.text, sep, gptvq_tpl_want_int(t, values[1], "maxsplit"), from_right);
}
static gptvq_value text_split(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return split(t, self, args, false);
}
static gptvq_value text_rsplit(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return split(t, self, args, true);
}

static gptvq_value text_splitlines(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"keepends"};
  gptvq_value keep = gptvq_bool(false);
  gptvq_tpl_bind(t, "str.splitlines", args, names, 0, 1, &keep);
  return gptvq_tpl_split_lines(t, self.as.text, gptvq_tpl_truth(keep));
}

static gptvq_value partition(gptvq_tpl *t, gptvq_value self, const gptvq_args *args, bool last) {
  static const char *const names[] = {"sep"};
  gptvq_value sep = gptvq_none(), out = gptvq_tpl_sequence(t, GPTVQ_TUPLE, 3), *items = out.as.list->items;
  gptvq_tpl_bind(t, "str.partition", args, names, 1, 1, &sep);
  gptvq_string s = self.as.text, what = gptvq_tpl_want_text(t, sep, "a separator");
  if (what.size == 0) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "empty separator");
  size_t found = gptvq_tpl_find(t, s, what, 0);
  for (size_t next = found; last && next != SIZE_MAX; next = gptvq_tpl_find(t, s, what, next + 1))
    found = next;
  for (size_t i = 0; i < 3; i++) items[i] = gptvq_text(GPTVQ_STRING(""));
  if (found == SIZE_MAX) {
    items[last ? 2 : 0] = self;
    return out;
  }
  items[0] = gptvq_text(gptvq_part(s, 0, found));
  items[1] = gptvq_text(what);
  items[2] = gptvq_text(gptvq_part(s, found + what.size, s.size));
  return out;
}
static gptvq_value text_partition(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return partition(t, self, args, false);
}
static gptvq_value text_rpartition(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return partition(t, self, args, true);
}

static gptvq_value text_replace(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"old", "new", "count"};
  gptvq_value values[] = {gptvq_none(), gptvq_none(), gptvq_int(-1)};
  gptvq_tpl_bind(t, "str.replace", args, names, 2, 3, values);
  gptvq_string old = gptvq_tpl_want_text(t, values[0], "what to replace");
  return gptvq_text(gptvq_tpl_replace(t, self.as.text, old,
                                      gptvq_tpl_want_text(t, values[1], "the replacement"),
                                      gptvq_tpl_want_int(t, values[2], "count")));
}

static gptvq_value text_join(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"iterable"};
  gptvq_value value = gptvq_none();
  gptvq_builder b = {0};
  gptvq_tpl_bind(t, "str.join", args, names, 1, 1, &value);
  gptvq_list list = gptvq_tpl_iterate(t, value);
  for (size_t i = 0; i < list.count; i++) {
    gptvq_string item = gptvq_tpl_want_text(t, list.items[i], "an item to join");
    if (i > 0) gptvq_tpl_build(t, &b, self.as.text.data, self.as.text.size);
    gptvq_tpl_build(t, &b, item.data, item.size);
  }
  return gptvq_text(gptvq_tpl_built(&b));
}

/* ---- filling up ---- */

static gptvq_value justify(gptvq_tpl *t, gptvq_value self, const gptvq_args *args, bool left) {
  static const char *const names[] = {"width", "fillchar"};
  gptvq_value values[] = {gptvq_none(), gptvq_text(GPTVQ_STRING(" "))};
  gptvq_builder b = {0};
  gptvq_tpl_bind(t, "str.ljust", args, names, 1, 2, values);
  int64_t width = gptvq_tpl_want_int(t, values[0], "a width"),
          count = (int64_t)gptvq_tpl_count_chars(t, self.as.text);
  gptvq_string fill = gptvq_tpl_want_text(t, values[1], "what to fill with");
  if (gptvq_tpl_count_chars(t, fill) != 1)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "the fill character must be exactly one");
  if (left) gptvq_tpl_build(t, &b, self.as.text.data, self.as.text.size);
  for (; count < width; count++) gptvq_tpl_build(t, &b, fill.data, fill.size);
  if (!left) gptvq_tpl_build(t, &b, self.as.text.data, self.as.text.size);
  return gptvq_text(gptvq_tpl_built(&b));
}
static gptvq_value text_ljust(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return justify(t, self, args, true);
}
static gptvq_value text_rjust(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return justify(t, self, args, false);
}

const gptvq_method *gptvq_tpl_text_method(gptvq_string name) {
  static const gptvq_method methods[] = {{.name = "strip", .call = text_strip},
                                         {.name = "lstrip", .call = text_lstrip},
                                         {.name = "rstrip", .call = text_rstrip},
                                         {.name = "split", .call = text_split},
                                         {.name = "rsplit", .call = text_rsplit},
                                         {.name = "splitlines", .call = text_splitlines},
                                         {.name = "startswith", .call = text_startswith},
                                         {.name = "endswith", .call = text_endswith},
                                         {.name = "find", .call = text_find},
                                         {.name = "rfind", .call = text_rfind},
                                         {.name = "index", .call = text_index},
                                         {.name = "rindex", .call = text_rindex},
                                         {.name = "count", .call = text_count},
                                         {.name = "replace", .call = text_replace},
                                         {.name = "join", .call = text_join},
                                         {.name = "format", .call = gptvq_tpl_text_format},
                                         {.name = "upper", .call = text_upper},
                                         {.name = "lower", .call = text_lower},
                                         {.name = "title", .call = text_title},
                                         {.name = "capitalize", .call = text_capitalize},
                                         {.name = "swapcase", .call = text_swapcase},
                                         {.name = "isupper", .call = text_isupper},
                                         {.name = "islower", .call = text_islower},
                                         {.name = "isspace", .call = text_isspace},
                                         {.name = "isalpha", .call = text_isalpha},
                                         {.name = "isdigit", .call = text_isdigit},
                                         {.name = "isdecimal", .call = text_isdigit},
                                         {.name = "isalnum", .call = text_isalnum},
                                         {.name = "partition", .call = text_partition},
                                         {.name = "rpartition", .call = text_rpartition},
                                         {.name = "removeprefix", .call = text_removeprefix},
                                         {.name = "removesuffix", .call = text_removesuffix},
                                         {.name = "ljust", .call = text_ljust},
                                         {.name = "rjust", .call = text_rjust},
                                         {.name = "casefold"},
                                         {.name = "center"},
                                         {.name = "encode"},
                                         {.name = "expandtabs"},
                                         {.name = "format_map"},
                                         {.name = "isascii"},
                                         {.name = "isidentifier"},
                                         {.name = "isnumeric"},
                                         {.name = "isprintable"},
                                         {.name = "istitle"},
                                         {.name = "maketrans"},
                                         {.name = "translate"},
                                         {.name = "zfill"}};
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
    if (gptvq_string_is(name, methods[i].name)) return &methods[i];
  return NULL;
}
