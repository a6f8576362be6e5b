/* base/json.h: jansson where memory may run out. jansson 2.14 does not look at every allocation of its own:
 * its reader then writes beyond a buffer or stops at an assertion, json_dumps leaves keys out. What is built
 * (json_pack, json_object_set_new, …) reports failures and is used as it is. */
#ifndef GPTVQ_BASE_JSON_H
#define GPTVQ_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* json_loadb; a new value, or NULL with the reason in *where. */
json_t *gptvq_json_parse(const char *text, size_t size, size_t flags, json_error_t *where);
/* Was memory the reason? */
bool gptvq_json_no_memory(const json_error_t *where);

/* json_dumps: a NUL-terminated text to be released with free(); NULL when out of memory. */
char *gptvq_json_dump(const json_t *json, size_t flags);

#endif
