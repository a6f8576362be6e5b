#include "text/bpe.h"

#include "text/utf8.h"

#include <stdio.h>

enum { NO_RANK = -1 }; /* as uint32_t: the highest rank of all */

void gptvq_bpe_init(gptvq_bpe *bpe) {
  memset(bpe, 0, sizeof *bpe);
  bpe->unk_id = -1;
}

void gptvq_bpe_free(gptvq_bpe *bpe) {
  gptvq_vocab_free(&bpe->vocab);
  gptvq_bytes_free(&bpe->prefix);
  gptvq_bytes_free(&bpe->suffix);
  free(bpe->merges);
  free(bpe->joints);
  for (size_t i = 0; i < sizeof bpe->char_pages / sizeof *bpe->char_pages; i++) free(bpe->char_pages[i]);
  memset(bpe, 0, sizeof *bpe);
}

static int32_t char_id(const gptvq_bpe *bpe, uint32_t c) {
  const int32_t *page = bpe->char_pages[c >> 8];
  return page == NULL ? -1 : page[c & 0xff];
}

bool gptvq_bpe_index(gptvq_bpe *bpe) {
  for (size_t i = 0; i < bpe->vocab.slot_count; i++) {
    const gptvq_vocab_entry *entry = &bpe->vocab.slots[i];
    if (entry->id < 0 || entry->size == 0 || entry->size > 4) continue;
    size_t length;
    uint32_t c = gptvq_utf8_get(bpe->vocab.strings.data + entry->offset,
                                &length); /* jansson yields well-formed UTF-8 */
    if (length != entry->size) continue;
    int32_t **page = &bpe->char_pages[c >> 8];
    if (*page == NULL) {
      *page = malloc(256 * sizeof **page);
      if (*page == NULL) return false;
      for (int k = 0; k < 256; k++) (*page)[k] = -1;
    }
    (*page)[c & 0xff] = entry->id;
  }
  for (unsigned b = 0; b < 256; b++) {
    char code[8];
    (void)snprintf(code, sizeof code, "<0x%02X>", b);
    bpe->byte_ids[b] = gptvq_vocab_find(&bpe->vocab, code, 6);
  }
  bpe->can_cut = bpe->prefix.size == 0 && bpe->suffix.size == 0;
  return true;
}

/* ---- the merge table and the joints: sets of id pairs ---- */

static uint64_t pair_of(int32_t left, int32_t right) {
  return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}
static size_t pair_slot(uint64_t pair, size_t slots) {
  uint64_t h = pair * 0x9e3779b97f4a7c15u;
  return (size_t)(h ^ h >> 32) & (slots - 1);
}

static gptvq_merge *merge_slot(gptvq_merge *merges, size_t slots, uint64_t pair) {
  size_t i = pair_slot(pair, slots);
  while (merges[i].pair != pair && merges[i].pair != UINT64_MAX) i = (i + 1) & (slots - 1);
  return &merges[i];
}

static const gptvq_merge *find_merge(const gptvq_bpe *bpe, int32_t left, int32_t right) {
  if (bpe->merge_slots == 0) return NULL;
  uint64_t pair = pair_of(left, right);
  const gptvq_merge *merge = merge_slot(bpe->merges, bpe->merge_slots, pair);
  return merge->pair == pair ? merge : NULL;
}

static bool grow_merges(gptvq_bpe *bpe) {
  size_t slots = bpe->merge_slots == 0 ? 1024 : bpe->merge_slots * 2;
  gptvq_merge *merges = malloc(slots * sizeof *merges);
  if (merges == NULL) return false;
  for (size_t i = 0; i < slots; i++) merges[i].pair = UINT64_MAX;
  for (size_t i = 0; i < bpe->merge_slots; i++)
    if (bpe->merges[i].pair != UINT64_MAX) *merge_slot(merges, slots, bpe->merges[i].pair) = bpe->merges[i];
  free(bpe->merges);
  bpe->merges = merges;
  bpe->merge_slots = slots;
  return true;
}

static uint64_t *joint_slot(uint64_t *joints, size_t slots, uint64_t pair) {
  size_t i = pair_slot(pair, slots);
  while (joints[i] != pair && joints[i] != UINT64_MAX) i = (i + 1) & (slots - 1);
  return &joints[i];
}

static bool is_joint(const gptvq_bpe *bpe, int32_t left, int32_t right) {
  if (bpe->joint_slots == 0) return false;
  uint64_t pair = pair_of(left, right);
  return *joint_slot(bpe->joints, bpe->joint_slots, pair) == pair;
}

static bool add_joint(gptvq_bpe *bpe, int32_t left, int32_t right) {
  if ((bpe->joint_count + 1) * 2 > bpe->joint_slots) {
    size_t slots = bpe->joint_slots == 0 ? 1024 : bpe->joint_slots * 2;
    uint64_t *joints = malloc(slots * sizeof *joints);
    if (joints == NULL) return false;
    for (size_t i = 0; i < slots; i++) joints[i] = UINT64_MAX;
    for (size_t i = 0; i < bpe->joint_slots; i++)
      if (bpe->joints[i] != UINT64_MAX) *joint_slot(joints, slots, bpe->joints[i]) = bpe->joints[i];
    free(bpe->joints);
    bpe->joints = joints;
    bpe->joint_slots = slots;
  }
  uint64_t pair = pair_of(left, right), *slot = joint_slot(bpe->joints, bpe->joint_slots, pair);
  if (*slot != pair) {
    *slot = pair;
    bpe->joint_count++;
  }
  return true;
}

/* The symbols on both sides of the seam of a merge. Cutting is sound only while every symbol of a merge is a
 * single code point, so a merge that names the unknown token or a byte token turns it off. */
static bool note_joint(gptvq_bpe *bpe, const char *left, size_t left_size, const char *right,
                       size_t right_size, int32_t left_id, int32_t right_id) {
  if (left_id == bpe->unk_id || right_id == bpe->unk_id) bpe->can_cut = false;
  for (unsigned b = 0; b < 256 && bpe->byte_fallback; b++)
    if (bpe->byte_ids[b] == left_id || bpe->byte_ids[b] == right_id) bpe->can_cut = false;
  if (!bpe->can_cut) return true;
  if (left_size == 0 || right_size == 0) {
    bpe->can_cut = false;
    return true;
  }
  size_t length;
  int32_t a = char_id(bpe, gptvq_utf8_get(left + gptvq_utf8_previous(left, left_size), &length));
  int32_t b = char_id(bpe, gptvq_utf8_get(right, &length));
  return a < 0 || b < 0 ||
         add_joint(bpe, a, b); /* a merge whose symbols are not in the vocabulary never happens */
}

int gptvq_bpe_add_merge(gptvq_bpe *bpe, const char *left, size_t left_size, const char *right,
                        size_t right_size) {
  int32_t left_id = gptvq_vocab_find(&bpe->vocab, left, left_size);
  if (left_id < 0) return 0;
  int32_t right_id = gptvq_vocab_find(&bpe->vocab, right, right_size);
  if (right_id < 0) return 1;
  gptvq_bytes both = {0};
  gptvq_bytes_append(&both, left, left_size);
  size_t skip = gptvq_min_size(bpe->prefix.size, right_size);
  gptvq_bytes_append(&both, right + skip, right_size - skip);
  int32_t id =
      both.failed ? -1 : gptvq_vocab_find(&bpe->vocab, both.data == NULL ? "" : both.data, both.size);
  bool failed = both.failed;
  gptvq_bytes_free(&both);
  if (failed) return 3;
  if (id < 0) return 2;
  if ((bpe->merge_count + 1) * 2 > bpe->merge_slots && !grow_merges(bpe)) return 3;
  *merge_slot(bpe->merges, bpe->merge_slots, pair_of(left_id, right_id)) =
      (gptvq_merge){pair_of(left_id, right_id), (uint32_t)bpe->merge_count, id};
  bpe->merge_count++; /* also the rank: a repeated pair keeps its last one, and its slot stays counted */
  return note_joint(bpe, left, left_size, right, right_size, left_id, right_id) ? -1 : 3;
}

/* ---- scratch ---- */

typedef struct gptvq_bpe_seen {
  uint32_t hash, begin, size; /* size 0: free */
  uint32_t first, count;      /* where its ids are in the output */
  bool part; /* encoded as a part of a longer piece (ignore_merges does not apply to those) */
} gptvq_bpe_seen;

void gptvq_bpe_scratch_free(gptvq_bpe_scratch *scratch) {
  free(scratch->symbols);
  free(scratch->previous);
  free(scratch->next);
  free(scratch->ranks);
  free(scratch->heap);
  free(scratch->seen);
  *scratch = (gptvq_bpe_scratch){0};
}

void gptvq_bpe_scratch_remember(gptvq_bpe_scratch *scratch, size_t words) {
  size_t slots = 64;
  while (slots < words && slots < 65536) slots *= 2;
  free(scratch->seen);
  scratch->seen = calloc(slots, sizeof *scratch->seen);
  scratch->seen_slots = scratch->seen == NULL ? 0 : slots;
}

static bool grow_array(void *array, size_t capacity, size_t width) {
  void *old;
  memcpy(&old, array, sizeof old);
  void *grown = realloc(old, capacity * width);
  if (grown == NULL) return false;
  memcpy(array, &grown, sizeof grown);
  return true;
}

static bool reserve_symbols(gptvq_bpe_scratch *s, size_t count) {
  if (count <= s->capacity) return true;
  size_t capacity =
      gptvq_max_size(count, gptvq_max_size(256, s->capacity * 2)); /* < 2^33: no overflow below */
  if (!grow_array(&s->symbols, capacity, sizeof *s->symbols) ||
      !grow_array(&s->ranks, capacity, sizeof *s->ranks) ||
      !grow_array(&s->previous, capacity, sizeof *s->previous) ||
      !grow_array(&s->next, capacity, sizeof *s->next))
    return false;
  s->capacity = capacity;
  return true;
}

/* ---- symbols ---- */

/* Symbols of text[0 … size) into scratch->symbols; *count of them. */
static gptvq_status make_symbols(const gptvq_bpe *bpe, const char *text, size_t size,
                                 gptvq_bpe_scratch *scratch, size_t *count, gptvq_error *err) {
  size_t most;
  if (!gptvq_add(size, bpe->prefix.size + bpe->suffix.size, &most) ||
      (bpe->prefix.size > 0 && !gptvq_mul(size, bpe->prefix.size + 4, &most)) ||
      !gptvq_add(most, bpe->suffix.size + 1, &most) || most >= UINT32_MAX || !reserve_symbols(scratch, most))
    return gptvq_fail_memory(err, "the tokenizer", gptvq_saturated_size(size, 16));
  int32_t *symbols = scratch->symbols;
  size_t n = 0;
  int32_t pending = -1; /* an unknown symbol that the next one may join */
  gptvq_bytes dressed = {0};
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; i < size;) {
    size_t length;
    uint32_t c = gptvq_utf8_get(text + i, &length);
    const char *bytes = text + i;
    size_t byte_count = length;
    int32_t id;
    if (bpe->prefix.size > 0 || bpe->suffix.size > 0) {
      dressed.size = 0;
      if (i > 0) gptvq_bytes_append(&dressed, bpe->prefix.data, bpe->prefix.size);
      gptvq_bytes_append(&dressed, text + i, length);
      if (i + length == size) gptvq_bytes_append(&dressed, bpe->suffix.data, bpe->suffix.size);
      if (dressed.failed) {
        status = gptvq_fail_memory(err, "the tokenizer", byte_count);
        break;
      }
      bytes = dressed.data;
      byte_count = dressed.size;
      id = gptvq_vocab_find(&bpe->vocab, bytes, byte_count);
    } else {
      id = char_id(bpe, c);
    }
    i += length;
    if (id >= 0) {
      if (pending >= 0) symbols[n++] = pending;
      pending = -1;
      symbols[n++] = id;
      continue;
    }
    if (bpe->byte_fallback) {
      bool all = true;
      for (size_t k = 0; k < byte_count; k++) all = all && bpe->byte_ids[(unsigned char)bytes[k]] >= 0;
      if (all) { /* a pending unknown symbol stays pending, as in the tokenizers package */
        for (size_t k = 0; k < byte_count; k++) symbols[n++] = bpe->byte_ids[(unsigned char)bytes[k]];
        continue;
      }
    }
    if (bpe->unk_missing) {
      status = gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                          "the text has characters outside the vocabulary, and the tokenizer's unk_token is "
                          "not in the vocabulary");
      break;
    }
    if (bpe->unk_id < 0) continue;
    if (pending >= 0 && !bpe->fuse_unk) symbols[n++] = pending;
    pending = bpe->unk_id;
  }
  if (pending >= 0) symbols[n++] = pending;
  gptvq_bytes_free(&dressed);
  *count = n;
  return status;
}

/* ---- merging ---- */

/* A row short enough that looking for the best pair again and again is cheapest. */
static size_t merge_short(const gptvq_bpe *bpe, int32_t *symbols, uint32_t *ranks, size_t n) {
  for (size_t i = 0; i + 1 < n; i++) {
    const gptvq_merge *merge = find_merge(bpe, symbols[i], symbols[i + 1]);
    ranks[i] = merge == NULL ? (uint32_t)NO_RANK : merge->rank;
  }
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; i++)
      if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] == (uint32_t)NO_RANK) break;
    symbols[best] = find_merge(bpe, symbols[best], symbols[best + 1])->id;
    memmove(symbols + best + 1, symbols + best + 2, (n - best - 2) * sizeof *symbols);
    memmove(ranks + best, ranks + best + 1, (n - best - 2) * sizeof *ranks);
    n--;
    for (size_t i = best == 0 ? 0 : best - 1; i <= best && i + 1 < n; i++) {
      const gptvq_merge *merge = find_merge(bpe, symbols[i], symbols[i + 1]);
      ranks[i] = merge == NULL ? (uint32_t)NO_RANK : merge->rank;
    }
  }
  return n;
}

static bool heap_push(gptvq_bpe_scratch *s, size_t *size, uint64_t key) {
  if (*size == s->heap_capacity) {
    size_t capacity = gptvq_max_size(1024, s->heap_capacity * 2);
    if (!grow_array(&s->heap, capacity, sizeof *s->heap)) return false;
    s->heap_capacity = capacity;
  }
  size_t i = (*size)++;
  while (i > 0 && s->heap[(i - 1) / 2] > key) {
    s->heap[i] = s->heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  s->heap[i] = key;
  return true;
}

static uint64_t heap_pop(gptvq_bpe_scratch *s, size_t *size) {
  uint64_t top = s->heap[0], last = s->heap[--*size];
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= *size) break;
    if (child + 1 < *size && s->heap[child + 1] < s->heap[child]) child++;
    if (s->heap[child] >= last) break;
    s->heap[i] = s->heap[child];
    i = child;
  }
  s->heap[i] = last;
  return top;
}

/* rank << 32 | position, so that the smallest key is the lowest rank, leftmost first */
static bool push_pair(const gptvq_bpe *bpe, gptvq_bpe_scratch *s, size_t *size, uint32_t left,
                      uint32_t right) {
  const gptvq_merge *merge = find_merge(bpe, s->symbols[left], s->symbols[right]);
  return merge == NULL || heap_push(s, size, (uint64_t)merge->rank << 32 | left);
}

/* O(n log n): a heap of candidate pairs over a linked list of symbols. Returns SIZE_MAX when out of memory.
 */
static size_t merge_long(const gptvq_bpe *bpe, gptvq_bpe_scratch *s, size_t n) {
  const uint32_t none = UINT32_MAX;
  int32_t *symbols = s->symbols;
  size_t size = 0;
  for (size_t i = 0; i < n; i++) {
    s->previous[i] = i == 0 ? none : (uint32_t)(i - 1);
    s->next[i] = i + 1 == n ? none : (uint32_t)(i + 1);
  }
  for (size_t i = 0; i + 1 < n; i++)
    if (!push_pair(bpe, s, &size, (uint32_t)i, (uint32_t)(i + 1))) return SIZE_MAX;
  while (size > 0) {
    uint64_t key = heap_pop(s, &size);
    uint32_t at = (uint32_t)key, right = s->next[at];
    if (symbols[at] < 0 || right == none) continue; /* merged away meanwhile */
    const gptvq_merge *merge = find_merge(bpe, symbols[at], symbols[right]);
    if (merge == NULL || merge->rank != (uint32_t)(key >> 32))
      continue; /* one of the two has grown meanwhile */
    symbols[at] = merge->id;
    symbols[right] = -1;
    s->next[at] = s->next[right];
    if (s->next[at] != none) {
      s->previous[s->next[at]] = at;
      if (!push_pair(bpe, s, &size, at, s->next[at])) return SIZE_MAX;
    }
    if (s->previous[at] != none && !push_pair(bpe, s, &size, s->previous[at], at)) return SIZE_MAX;
  }
  size_t kept = 0;
  for (size_t i = 0; i < n; i++)
    if (symbols[i] >= 0) symbols[kept++] = symbols[i];
  return kept;
}

/* text[begin, end) as one row. `part`: it was cut out of a longer piece. */
static gptvq_status encode_row(const gptvq_bpe *bpe, const char *text, size_t begin, size_t end, bool part,
                               gptvq_bpe_scratch *scratch, gptvq_ids *out, gptvq_error *err) {
  enum { LONGEST_SEEN = 64, SHORT_ROW = 32 };
  size_t size = end - begin;
  gptvq_bpe_seen *seen = NULL;
  uint32_t hash = 0;
  if (size <= LONGEST_SEEN && scratch->seen_slots > 0) {
    hash = (uint32_t)gptvq_hash_bytes(text + begin, size);
    seen = &scratch->seen[hash & (scratch->seen_slots - 1)];
    if (seen->size == size && seen->hash == hash && seen->part == part &&
        memcmp(text + seen->begin, text + begin, size) == 0) {
      for (uint32_t i = 0; i < seen->count; i++) gptvq_ids_push(out, out->data[seen->first + i]);
      return GPTVQ_OK;
    }
  }
  size_t first = out->size;
  int32_t whole = bpe->ignore_merges && !part ? gptvq_vocab_find(&bpe->vocab, text + begin, size) : -1;
  if (whole >= 0) {
    gptvq_ids_push(out, whole);
  } else {
    size_t count = 0;
    GPTVQ_TRY(make_symbols(bpe, text + begin, size, scratch, &count, err));
    count = count <= SHORT_ROW ? merge_short(bpe, scratch->symbols, scratch->ranks, count)
                               : merge_long(bpe, scratch, count);
    if (count == SIZE_MAX || !gptvq_ids_reserve(out, count))
      return gptvq_fail_memory(err, "the tokenizer", gptvq_saturated_size(size, 16));
    memcpy(out->data + out->size, scratch->symbols, count * sizeof *out->data);
    out->size += count;
  }
  if (seen != NULL && !out->failed && out->size <= UINT32_MAX)
    *seen = (gptvq_bpe_seen){
        hash, (uint32_t)begin, (uint32_t)size, (uint32_t)first, (uint32_t)(out->size - first), part};
  return GPTVQ_OK;
}

gptvq_status gptvq_bpe_encode(const gptvq_bpe *bpe, const char *text, size_t begin, size_t end,
                              gptvq_bpe_scratch *scratch, gptvq_ids *out, gptvq_error *err) {
  enum { LONG_PIECE = 128 };
  if (end - begin < LONG_PIECE || !bpe->can_cut)
    return encode_row(bpe, text, begin, end, false, scratch, out, err);
  if (bpe->ignore_merges) {
    int32_t whole = gptvq_vocab_find(&bpe->vocab, text + begin, end - begin);
    if (whole >= 0) {
      gptvq_ids_push(out, whole);
      return GPTVQ_OK;
    }
  }
  int32_t left = -1;
  for (size_t i = begin; i < end;) {
    size_t length;
    int32_t right = char_id(bpe, gptvq_utf8_get(text + i, &length));
    if (left >= 0 && right >= 0 && !is_joint(bpe, left, right)) {
      GPTVQ_TRY(encode_row(bpe, text, begin, i, true, scratch, out, err));
      begin = i;
    }
    left = right;
    i += length;
  }
  return encode_row(bpe, text, begin, end, true, scratch, out, err);
}
