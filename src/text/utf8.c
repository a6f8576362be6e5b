#include "text/utf8.h"

#include <utf8proc.h>

size_t gptvq_utf8_decode(const char *p, size_t size, uint32_t *code_point) {
  const unsigned char *s = (const unsigned char *)p;
  unsigned first = s[0], low = 0x80, high = 0xbf; /* bounds of the second byte (Unicode, table 3-7) */
  size_t length;
  uint32_t c;
  if (first < 0x80) {
    *code_point = first;
    return 1;
  } else if (first >= 0xc2 && first <= 0xdf) {
    length = 2;
    c = first & 0x1f;
  } else if (first >= 0xe0 && first <= 0xef) {
    length = 3;
    c = first & 0x0f;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
  } else if (first >= 0xf0 && first <= 0xf4) {
    length = 4;
    c = first & 0x07;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
  } else {
    *code_point = GPTVQ_UTF8_BAD;
    return 1;
  }
  for (size_t i = 1; i < length; i++) {
    if (i == size) {
      *code_point = GPTVQ_UTF8_INCOMPLETE;
      return i;
    }
    if (s[i] < low || s[i] > high) {
      *code_point = GPTVQ_UTF8_BAD;
      return i;
    }
    c = c << 6 | (s[i] & 0x3fu);
    low = 0x80;
    high = 0xbf;
  }
  *code_point = c;
  return length;
}

size_t gptvq_utf8_encode(uint32_t c, char out[4]) {
  if (c < 0x80) {
    out[0] = (char)c;
    return 1;
  }
  if (c < 0x800) {
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3f));
    return 2;
  }
  if (c < 0x10000) {
    out[0] = (char)(0xe0 | c >> 12);
    out[1] = (char)(0x80 | (c >> 6 & 0x3f));
    out[2] = (char)(0x80 | (c & 0x3f));
    return 3;
  }
  out[0] = (char)(0xf0 | c >> 18);
  out[1] = (char)(0x80 | (c >> 12 & 0x3f));
  out[2] = (char)(0x80 | (c >> 6 & 0x3f));
  out[3] = (char)(0x80 | (c & 0x3f));
  return 4;
}

void gptvq_utf8_append(gptvq_bytes *out, uint32_t code_point) {
  char encoded[4];
  gptvq_bytes_append(out, encoded, gptvq_utf8_encode(code_point, encoded));
}

void gptvq_utf8_append_lossy(gptvq_bytes *out, const char *p, size_t size) {
  size_t good = 0, i = 0; /* [good, i) is well-formed and not yet appended */
  while (i < size) {
    if ((unsigned char)p[i] < 0x80) {
      i++;
      continue;
    }
    uint32_t c;
    size_t length = gptvq_utf8_decode(p + i, size - i, &c);
    if (c >= GPTVQ_UTF8_INCOMPLETE) {
      gptvq_bytes_append(out, p + good, i - good);
      gptvq_bytes_append(out, "\xef\xbf\xbd", 3);
      good = i + length;
    }
    i += length;
  }
  if (size > good) gptvq_bytes_append(out, p + good, size - good);
}

bool gptvq_utf8_valid(const char *p, size_t size) {
  for (size_t i = 0; i < size;) {
    uint32_t c;
    i += gptvq_utf8_decode(p + i, size - i, &c);
    if (c >= GPTVQ_UTF8_INCOMPLETE) return false;
  }
  return true;
}

bool gptvq_is_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static utf8proc_category_t category(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c); }

bool gptvq_is_word(uint32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  switch (category(c)) {
  case UTF8PROC_CATEGORY_LU:
  case UTF8PROC_CATEGORY_LL:
  case UTF8PROC_CATEGORY_LT:
  case UTF8PROC_CATEGORY_LM:
  case UTF8PROC_CATEGORY_LO:
  case UTF8PROC_CATEGORY_MN:
  case UTF8PROC_CATEGORY_MC:
  case UTF8PROC_CATEGORY_ME:
  case UTF8PROC_CATEGORY_ND:
  case UTF8PROC_CATEGORY_NL:
  case UTF8PROC_CATEGORY_PC: return true;
  default: break;
  }
  /* Join_Control, and the symbols that are Alphabetic: circled and squared letters */
  return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
         (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
}

bool gptvq_is_numeric(uint32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  utf8proc_category_t kind = category(c);
  return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_NO;
}

bool gptvq_is_punctuation(uint32_t c) {
  if (c < 0x80)
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
  switch (category(c)) {
  case UTF8PROC_CATEGORY_PC:
  case UTF8PROC_CATEGORY_PD:
  case UTF8PROC_CATEGORY_PS:
  case UTF8PROC_CATEGORY_PE:
  case UTF8PROC_CATEGORY_PI:
  case UTF8PROC_CATEGORY_PF:
  case UTF8PROC_CATEGORY_PO: return true;
  default: return false;
  }
}

bool gptvq_is_mark(uint32_t c) {
  if (c < 0x300) return false;
  utf8proc_category_t kind = category(c);
  return kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_MC || kind == UTF8PROC_CATEGORY_ME;
}

/* Printable Latin-1 stands for itself; the other 68 bytes, in order, get U+0100 …: 0x00-0x20, 0x7f-0xa0,
 * 0xad. */
uint32_t gptvq_byte_level_char(unsigned char byte) {
  if (byte <= 0x20) return 0x100u + byte;
  if (byte >= 0x7f && byte <= 0xa0) return 0x121u + (byte - 0x7fu);
  if (byte == 0xad) return 0x143;
  return byte;
}

int gptvq_byte_level_byte(uint32_t c) {
  if (c >= 0x100) {
    if (c <= 0x120) return (int)(c - 0x100);
    if (c <= 0x142) return (int)(c - 0x121 + 0x7f);
    return c == 0x143 ? 0xad : -1;
  }
  return gptvq_byte_level_char((unsigned char)c) == c ? (int)c : -1;
}
