/* text/vocab.h: token strings and their ids, both ways. */
#ifndef GPTVQ_TEXT_VOCAB_H
#define GPTVQ_TEXT_VOCAB_H

#include "text/bytes.h"

/* Ids above this are refused: the tables are indexed by id. */
#define GPTVQ_MAX_TOKEN_ID ((int64_t)(1 << 24) - 1)

typedef struct gptvq_vocab_entry {
  uint64_t hash;
  size_t offset; /* into strings */
  uint32_t size;
  int32_t id; /* -1: free slot */
} gptvq_vocab_entry;

typedef struct gptvq_token_text {
  size_t offset; /* into strings */
  uint32_t size;
  bool present;
} gptvq_token_text;

typedef struct gptvq_vocab {
  gptvq_bytes strings;
  gptvq_vocab_entry *slots; /* open addressing, a power of two, at most half full */
  size_t slot_count, count; /* count: number of different strings */
  gptvq_token_text *tokens; /* by id */
  size_t token_count;       /* largest id + 1 */
  size_t token_capacity;
} gptvq_vocab;

uint64_t gptvq_hash_bytes(const void *data, size_t size);

/* Maps the string to the id (a later id for the same string wins) and, with `forward` off, only the id to the
 * string. id in [0, GPTVQ_MAX_TOKEN_ID]. False when out of memory. */
bool gptvq_vocab_add(gptvq_vocab *vocab, const char *text, size_t size, int32_t id, bool forward);
int32_t gptvq_vocab_find(const gptvq_vocab *vocab, const char *text, size_t size); /* -1: none */
/* Text of an id, or NULL; valid until the next gptvq_vocab_add. */
const char *gptvq_vocab_text(const gptvq_vocab *vocab, int32_t id, size_t *size);
void gptvq_vocab_free(gptvq_vocab *vocab);

#endif
