/* text/added.h: added tokens, recognised in the text before any splitting: those with normalized = false in
 * the text as it is, the others in the normalized text. */
#ifndef GPTVQ_TEXT_ADDED_H
#define GPTVQ_TEXT_ADDED_H

#include "text/normalize.h"

typedef struct gptvq_added_token {
  gptvq_bytes content;
  gptvq_bytes pattern; /* what the text is searched for: the content, or its normalized form */
  int32_t id;
  bool single_word, lstrip, rstrip, normalized, special;
} gptvq_added_token;

/* A byte trie over patterns; children of a node are a list of siblings. */
typedef struct gptvq_trie_node {
  int32_t child, sibling; /* -1: none */
  int32_t token;          /* index of the token that ends here, or -1 */
  unsigned char byte;
} gptvq_trie_node;

typedef struct gptvq_trie {
  gptvq_trie_node *nodes; /* nodes[0] is the root */
  size_t count, capacity;
  int32_t first[256]; /* children of the root by byte */
} gptvq_trie;

typedef struct gptvq_added {
  gptvq_added_token *tokens;
  size_t count;
  gptvq_trie raw, normalized;
} gptvq_added;

void gptvq_added_free(gptvq_added *added);
/* After the tokens and their patterns are set. GPTVQ_ERROR_MEMORY. */
gptvq_status gptvq_added_index(gptvq_added *added, gptvq_error *err);

/* Cuts `text` (well-formed) at the tokens of the trie: pushes pieces with begin and end + offset. Tokens get
 * their id. */
void gptvq_added_split(const gptvq_added *added, const gptvq_trie *trie, const char *text, size_t size,
                       size_t offset, bool origin, gptvq_pieces *out);

/* From the text as given to the pieces that pre-tokenizing starts from: raw tokens, normalization, normalized
 * tokens. */
gptvq_status gptvq_added_extract(const gptvq_added *added, const gptvq_normalizer *normalizers,
                                 size_t normalizer_count, gptvq_bytes *text, gptvq_pieces *out,
                                 gptvq_error *err);

#endif
