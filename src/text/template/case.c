/* Upper, lower and title case as Python has them: Unicode's full mappings. */
#include "text/template/strings.h"

#include "text/utf8.h"

#include <utf8proc.h>

/* What becomes more than one character (SpecialCasing.txt, unconditional mappings). */
static const struct {
  uint32_t c;
  const char *upper, *title;
} special[] = {{0xdf, "SS", "Ss"},
               {0x149, "\u02bcN", "\u02bcN"},
               {0x1f0, "J\u030c", "J\u030c"},
               {0x390, "\u0399\u0308\u0301", "\u0399\u0308\u0301"},
               {0x3b0, "\u03a5\u0308\u0301", "\u03a5\u0308\u0301"},
               {0x587, "\u0535\u0552", "\u0535\u0582"},
               {0x1e96, "H\u0331", "H\u0331"},
               {0x1e97, "T\u0308", "T\u0308"},
               {0x1e98, "W\u030a", "W\u030a"},
               {0x1e99, "Y\u030a", "Y\u030a"},
               {0x1e9a, "A\u02be", "A\u02be"},
               {0x1f50, "\u03a5\u0313", "\u03a5\u0313"},
               {0x1f52, "\u03a5\u0313\u0300", "\u03a5\u0313\u0300"},
               {0x1f54, "\u03a5\u0313\u0301", "\u03a5\u0313\u0301"},
               {0x1f56, "\u03a5\u0313\u0342", "\u03a5\u0313\u0342"},
               {0x1f80, "\u1f08\u0399", "\u1f88"},
               {0x1f81, "\u1f09\u0399", "\u1f89"},
               {0x1f82, "\u1f0a\u0399", "\u1f8a"},
               {0x1f83, "\u1f0b\u0399", "\u1f8b"},
               {0x1f84, "\u1f0c\u0399", "\u1f8c"},
               {0x1f85, "\u1f0d\u0399", "\u1f8d"},
               {0x1f86, "\u1f0e\u0399", "\u1f8e"},
               {0x1f87, "\u1f0f\u0399", "\u1f8f"},
               {0x1f88, "\u1f08\u0399", "\u1f88"},
               {0x1f89, "\u1f09\u0399", "\u1f89"},
               {0x1f8a, "\u1f0a\u0399", "\u1f8a"},
               {0x1f8b, "\u1f0b\u0399", "\u1f8b"},
               {0x1f8c, "\u1f0c\u0399", "\u1f8c"},
               {0x1f8d, "\u1f0d\u0399", "\u1f8d"},
               {0x1f8e, "\u1f0e\u0399", "\u1f8e"},
               {0x1f8f, "\u1f0f\u0399", "\u1f8f"},
               {0x1f90, "\u1f28\u0399", "\u1f98"},
               {0x1f91, "\u1f29\u0399", "\u1f99"},
               {0x1f92, "\u1f2a\u0399", "\u1f9a"},
               {0x1f93, "\u1f2b\u0399", "\u1f9b"},
               {0x1f94, "\u1f2c\u0399", "\u1f9c"},
               {0x1f95, "\u1f2d\u0399", "\u1f9d"},
               {0x1f96, "\u1f2e\u0399", "\u1f9e"},
               {0x1f97, "\u1f2f\u0399", "\u1f9f"},
               {0x1f98, "\u1f28\u0399", "\u1f98"},
               {0x1f99, "\u1f29\u0399", "\u1f99"},
               {0x1f9a, "\u1f2a\u0399", "\u1f9a"},
               {0x1f9b, "\u1f2b\u0399", "\u1f9b"},
               {0x1f9c, "\u1f2c\u0399", "\u1f9c"},
               {0x1f9d, "\u1f2d\u0399", "\u1f9d"},
               {0x1f9e, "\u1f2e\u0399", "\u1f9e"},
               {0x1f9f, "\u1f2f\u0399", "\u1f9f"},
               {0x1fa0, "\u1f68\u0399", "\u1fa8"},
               {0x1fa1, "\u1f69\u0399", "\u1fa9"},
               {0x1fa2, "\u1f6a\u0399", "\u1faa"},
               {0x1fa3, "\u1f6b\u0399", "\u1fab"},
               {0x1fa4, "\u1f6c\u0399", "\u1fac"},
               {0x1fa5, "\u1f6d\u0399", "\u1fad"},
               {0x1fa6, "\u1f6e\u0399", "\u1fae"},
               {0x1fa7, "\u1f6f\u0399", "\u1faf"},
               {0x1fa8, "\u1f68\u0399", "\u1fa8"},
               {0x1fa9, "\u1f69\u0399", "\u1fa9"},
               {0x1faa, "\u1f6a\u0399", "\u1faa"},
               {0x1fab, "\u1f6b\u0399", "\u1fab"},
               {0x1fac, "\u1f6c\u0399", "\u1fac"},
               {0x1fad, "\u1f6d\u0399", "\u1fad"},
               {0x1fae, "\u1f6e\u0399", "\u1fae"},
               {0x1faf, "\u1f6f\u0399", "\u1faf"},
               {0x1fb2, "\u1fba\u0399", "\u1fba\u0345"},
               {0x1fb3, "\u0391\u0399", "\u1fbc"},
               {0x1fb4, "\u0386\u0399", "\u0386\u0345"},
               {0x1fb6, "\u0391\u0342", "\u0391\u0342"},
               {0x1fb7, "\u0391\u0342\u0399", "\u0391\u0342\u0345"},
               {0x1fbc, "\u0391\u0399", "\u1fbc"},
               {0x1fc2, "\u1fca\u0399", "\u1fca\u0345"},
               {0x1fc3, "\u0397\u0399", "\u1fcc"},
               {0x1fc4, "\u0389\u0399", "\u0389\u0345"},
               {0x1fc6, "\u0397\u0342", "\u0397\u0342"},
               {0x1fc7, "\u0397\u0342\u0399", "\u0397\u0342\u0345"},
               {0x1fcc, "\u0397\u0399", "\u1fcc"},
               {0x1fd2, "\u0399\u0308\u0300", "\u0399\u0308\u0300"},
               {0x1fd3, "\u0399\u0308\u0301", "\u0399\u0308\u0301"},
               {0x1fd6, "\u0399\u0342", "\u0399\u0342"},
               {0x1fd7, "\u0399\u0308\u0342", "\u0399\u0308\u0342"},
               {0x1fe2, "\u03a5\u0308\u0300", "\u03a5\u0308\u0300"},
               {0x1fe3, "\u03a5\u0308\u0301", "\u03a5\u0308\u0301"},
               {0x1fe4, "\u03a1\u0313", "\u03a1\u0313"},
               {0x1fe6, "\u03a5\u0342", "\u03a5\u0342"},
               {0x1fe7, "\u03a5\u0308\u0342", "\u03a5\u0308\u0342"},
               {0x1ff2, "\u1ffa\u0399", "\u1ffa\u0345"},
               {0x1ff3, "\u03a9\u0399", "\u1ffc"},
               {0x1ff4, "\u038f\u0399", "\u038f\u0345"},
               {0x1ff6, "\u03a9\u0342", "\u03a9\u0342"},
               {0x1ff7, "\u03a9\u0342\u0399", "\u03a9\u0342\u0345"},
               {0x1ffc, "\u03a9\u0399", "\u1ffc"},
               {0xfb00, "FF", "Ff"},
               {0xfb01, "FI", "Fi"},
               {0xfb02, "FL", "Fl"},
               {0xfb03, "FFI", "Ffi"},
               {0xfb04, "FFL", "Ffl"},
               {0xfb05, "ST", "St"},
               {0xfb06, "ST", "St"},
               {0xfb13, "\u0544\u0546", "\u0544\u0576"},
               {0xfb14, "\u0544\u0535", "\u0544\u0565"},
               {0xfb15, "\u0544\u053b", "\u0544\u056b"},
               {0xfb16, "\u054e\u0546", "\u054e\u0576"},
               {0xfb17, "\u0544\u053d", "\u0544\u056d"}};

static const char *special_case(uint32_t c, bool title) {
  size_t low = 0, high = sizeof special / sizeof *special;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (special[middle].c == c) return title ? special[middle].title : special[middle].upper;
    if (special[middle].c < c) low = middle + 1;
    else high = middle;
  }
  return NULL;
}

static bool is_cased(uint32_t c) {
  return utf8proc_isupper((int32_t)c) || utf8proc_islower((int32_t)c) ||
         utf8proc_category((int32_t)c) == UTF8PROC_CATEGORY_LT;
}

/* Looked through when a sigma's neighbours are asked whether they are letters. */
static bool is_case_ignorable(uint32_t c) {
  switch (utf8proc_category((int32_t)c)) {
  case UTF8PROC_CATEGORY_MN:
  case UTF8PROC_CATEGORY_ME:
  case UTF8PROC_CATEGORY_CF:
  case UTF8PROC_CATEGORY_LM:
  case UTF8PROC_CATEGORY_SK: return true;
  default: return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x2019;
  }
}

/* Is the capital sigma at `at` the last letter of a word of several? */
static bool is_final_sigma(gptvq_string s, size_t at) {
  size_t size, before = at, behind = at + 2;
  uint32_t c = 0;
  do {
    if (before == 0) return false;
    before = gptvq_utf8_previous(s.data, before);
    c = gptvq_utf8_get(s.data + before, &size);
  } while (is_case_ignorable(c));
  if (!is_cased(c)) return false;
  for (; behind < s.size; behind += size) {
    c = gptvq_utf8_get(s.data + behind, &size);
    if (!is_case_ignorable(c)) return !is_cased(c);
  }
  return true;
}

static void build_lower(gptvq_tpl *t, gptvq_builder *b, gptvq_string s, size_t at, uint32_t c) {
  if (c == 0x130) gptvq_tpl_build_text(t, b, "i\u0307");
  else if (c == 0x3a3) gptvq_tpl_build_char(t, b, is_final_sigma(s, at) ? 0x3c2 : 0x3c3);
  else gptvq_tpl_build_char(t, b, (uint32_t)utf8proc_tolower((int32_t)c));
}

static void build_upper(gptvq_tpl *t, gptvq_builder *b, uint32_t c, bool title) {
  const char *several = special_case(c, title);
  if (several != NULL) gptvq_tpl_build_text(t, b, several);
  else
    gptvq_tpl_build_char(t, b,
                         (uint32_t)(title ? utf8proc_totitle((int32_t)c) : utf8proc_toupper((int32_t)c)));
}

gptvq_string gptvq_tpl_change_case(gptvq_tpl *t, gptvq_string s, gptvq_case how) {
  gptvq_builder b = {0};
  bool in_word = false;
  gptvq_tpl_work(t, s.size);
  for (size_t at = 0, size; at < s.size; at += size) {
    uint32_t c = gptvq_utf8_get(s.data + at, &size);
    bool raise = how == GPTVQ_CASE_UPPER || (how == GPTVQ_CASE_TITLE && !in_word) ||
                 (how == GPTVQ_CASE_CAPITAL && at == 0) ||
                 (how == GPTVQ_CASE_SWAP && utf8proc_islower((int32_t)c));
    bool title = how == GPTVQ_CASE_TITLE || how == GPTVQ_CASE_CAPITAL;
    if (raise) build_upper(t, &b, c, title);
    else build_lower(t, &b, s, at, c);
    in_word = is_cased(c);
  }
  return gptvq_tpl_built(&b);
}

bool gptvq_tpl_has_case(gptvq_tpl *t, gptvq_string s, gptvq_case how) {
  bool any = false;
  gptvq_tpl_work(t, s.size);
  for (size_t at = 0, size; at < s.size; at += size) {
    uint32_t c = gptvq_utf8_get(s.data + at, &size);
    if (!is_cased(c)) continue;
    bool upper = utf8proc_isupper((int32_t)c) != 0;
    if (upper != (how == GPTVQ_CASE_UPPER)) return false;
    any = true;
  }
  return any;
}
