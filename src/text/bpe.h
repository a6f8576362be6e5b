/* text/bpe.h: byte-pair encoding of one piece of text.
 *
 * The piece becomes a row of symbols (one per code point; per byte where the code point is not in the
 * vocabulary and byte_fallback is on), then the adjacent pair with the lowest merge rank, the leftmost of
 * equals, is merged until no pair is in the table (Sennrich et al., arXiv 1508.07909). */
#ifndef GPTVQ_TEXT_BPE_H
#define GPTVQ_TEXT_BPE_H

#include "text/vocab.h"

typedef struct gptvq_merge {
  uint64_t pair; /* left id << 32 | right id; UINT64_MAX: free slot */
  uint32_t rank;
  int32_t id;
} gptvq_merge;

typedef struct gptvq_bpe {
  gptvq_vocab vocab;
  gptvq_merge *merges; /* open addressing, a power of two, at most half full */
  size_t merge_slots, merge_count;
  int32_t
      *char_pages[0x1100]; /* id of a single code point, by its upper bits: 256 per page; NULL page: none */
  int32_t byte_ids[256];   /* ids of "<0x00>" … "<0xFF>", or -1 */
  int32_t unk_id;          /* -1: unknown symbols vanish */
  bool unk_missing;        /* unk_token is set but is not in the vocabulary */
  bool fuse_unk, byte_fallback, ignore_merges;
  gptvq_bytes prefix, suffix; /* continuing_subword_prefix, end_of_word_suffix */
  /* Pairs of symbols that occur side by side inside some token made by a merge. Between two symbols that are
   * no such pair a long piece can be cut without changing its encoding. */
  uint64_t *joints;
  size_t joint_slots, joint_count;
  bool can_cut;
} gptvq_bpe;

void gptvq_bpe_init(gptvq_bpe *bpe);
void gptvq_bpe_free(gptvq_bpe *bpe);
/* After the vocabulary, prefix, suffix and flags are set: builds char_pages and byte_ids. False when out of
 * memory. */
bool gptvq_bpe_index(gptvq_bpe *bpe);
/* Next merge in order of rank. -1: done; 0, 1, 2: left, right, or their union is not in the vocabulary; 3:
 * out of memory. */
int gptvq_bpe_add_merge(gptvq_bpe *bpe, const char *left, size_t left_size, const char *right,
                        size_t right_size);

/* Scratch of one encode call; zero-initialise. */
typedef struct gptvq_bpe_scratch {
  int32_t *symbols; /* capacity of each array */
  uint32_t *previous, *next;
  uint32_t *ranks;
  uint64_t *heap;
  size_t capacity, heap_capacity;
  struct gptvq_bpe_seen *seen; /* words met before in this text */
  size_t seen_slots;
} gptvq_bpe_scratch;
void gptvq_bpe_scratch_free(gptvq_bpe_scratch *scratch);
/* Memory for remembering about `words` words. Without it nothing is remembered. */
void gptvq_bpe_scratch_remember(gptvq_bpe_scratch *scratch, size_t words);

/* Appends the ids of text[begin, end), well-formed UTF-8 that stays where it is during all calls with this
 * scratch. GPTVQ_ERROR_MEMORY; GPTVQ_ERROR_FORMAT when unk_token is needed and missing. */
gptvq_status gptvq_bpe_encode(const gptvq_bpe *bpe, const char *text, size_t begin, size_t end,
                              gptvq_bpe_scratch *scratch, gptvq_ids *out, gptvq_error *err);

#endif
