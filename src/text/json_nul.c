#define _GNU_SOURCE
#include "text/json_nul.h"

#include <stdio.h>
#include <stdlib.h>

/* U+FDD0 … U+FDEF mean nothing, by Unicode's own word: EF B7 90 … EF B7 AF in UTF-8 */
enum { FIRST = 0xfdd0, COUNT = 32, ESCAPE = 6 /* bytes of \uXXXX */ };

/* Is there a noncharacter that the text has neither as such nor as an escape? Its number, or -1. */
static int unused_character(const char *text, size_t size) {
  bool taken[COUNT] = {false};
  for (size_t i = 0; i + 2 < size; i++) {
    long code = -1;
    if (memcmp(text + i, "\xef\xb7", 2) == 0) {
      code = FIRST + ((unsigned char)text[i + 2] - 0x90);
    } else if (text[i] == '\\' && text[i + 1] == 'u' && size - i >= ESCAPE) {
      char digits[5] = {text[i + 2], text[i + 3], text[i + 4], text[i + 5], '\0'};
      code = strtol(digits, NULL, 16);
    }
    if (code >= FIRST && code < FIRST + COUNT) taken[code - FIRST] = true;
  }
  for (int i = 0; i < COUNT; i++)
    if (!taken[i]) return FIRST + i;
  return -1;
}

static size_t end_of_string(const char *text, size_t size, size_t at) {
  while (at < size && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
  return gptvq_min_size(at, size);
}

static bool before_colon(const char *text, size_t size, size_t at) {
  while (at < size && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r' || text[at] == '\n')) at++;
  return at < size && text[at] == ':';
}

bool gptvq_json_hide_nul(char *text, size_t size, char stand_in[GPTVQ_NUL_STAND_IN]) {
  static const char nul[] = "\\u0000";
  stand_in[0] = '\0';
  if (memmem(text, size, nul, ESCAPE) == NULL) return true;
  int code = unused_character(text, size);
  char escape[16];
  (void)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)code & 0xffffu);
  bool hidden = false;
  for (size_t i = 0; i < size; i++) {
    if (text[i] != '"') continue;
    size_t begin = i + 1, end = end_of_string(text, size, begin);
    i = end;
    if (!before_colon(text, size, end + 1)) continue;
    for (size_t at = begin; at < end; at += text[at] == '\\' ? 2 : 1) {
      if (end - at < ESCAPE || memcmp(text + at, nul, ESCAPE) != 0) continue;
      if (code < 0) return false;
      memcpy(text + at, escape, ESCAPE);
      hidden = true;
    }
  }
  if (hidden) (void)snprintf(stand_in, GPTVQ_NUL_STAND_IN, "\xef\xb7%c", (char)(0x90 + (code - FIRST)));
  return true;
}

void gptvq_json_restore_nul(const char *key, const char *stand_in, gptvq_bytes *out) {
  const char *found;
  for (; (found = strstr(key, stand_in)) != NULL; key = found + strlen(stand_in)) {
    gptvq_bytes_append(out, key, (size_t)(found - key));
    gptvq_bytes_append(out, "", 1);
  }
  gptvq_bytes_append(out, key, strlen(key));
}
