/* text/json_nul.h: NUL in the keys of JSON objects, which jansson refuses (a vocabulary may have it as a
 * token). */
#ifndef GPTVQ_TEXT_JSON_NUL_H
#define GPTVQ_TEXT_JSON_NUL_H

#include "text/bytes.h"

enum { GPTVQ_NUL_STAND_IN = 4 };

/* Replaces each \u0000 in a key by the escape of a noncharacter that the text does not hold: its UTF-8 bytes
 * in stand_in, "" when no key has a NUL. The size of the text stays. False when all noncharacters are taken.
 */
bool gptvq_json_hide_nul(char *text, size_t size, char stand_in[GPTVQ_NUL_STAND_IN]);
/* Appends a key with its NULs back. */
void gptvq_json_restore_nul(const char *key, const char *stand_in, gptvq_bytes *out);

#endif
