#include "text/vocab.h"

/* Eight bytes at a time, multiply and fold. */
uint64_t gptvq_hash_bytes(const void *data, size_t size) {
  const unsigned char *p = data;
  uint64_t hash = 0x9e3779b97f4a7c15u ^ size;
  for (; size > 0;) {
    uint64_t word = 0;
    size_t n = size < 8 ? size : 8;
    memcpy(&word, p, n);
    p += n;
    size -= n;
    unsigned __int128 product = (unsigned __int128)(hash ^ word) * 0xd6e8feb86659fd93u;
    hash = (uint64_t)product ^ (uint64_t)(product >> 64);
  }
  return hash ^ hash >> 29;
}

static gptvq_vocab_entry *slot_of(const gptvq_vocab *vocab, uint64_t hash, const char *text, size_t size) {
  for (size_t i = (size_t)hash & (vocab->slot_count - 1);; i = (i + 1) & (vocab->slot_count - 1)) {
    gptvq_vocab_entry *slot = &vocab->slots[i];
    if (slot->id < 0) return slot;
    if (slot->hash == hash && slot->size == size &&
        memcmp(vocab->strings.data + slot->offset, text, size) == 0)
      return slot;
  }
}

static bool grow_slots(gptvq_vocab *vocab) {
  size_t count = vocab->slot_count == 0 ? 1024 : vocab->slot_count * 2, bytes;
  if (!gptvq_mul(count, sizeof *vocab->slots, &bytes)) return false;
  gptvq_vocab_entry *slots = malloc(bytes);
  if (slots == NULL) return false;
  for (size_t i = 0; i < count; i++) slots[i].id = -1;
  for (size_t i = 0; i < vocab->slot_count; i++) {
    if (vocab->slots[i].id < 0) continue;
    size_t at = (size_t)vocab->slots[i].hash & (count - 1);
    while (slots[at].id >= 0) at = (at + 1) & (count - 1);
    slots[at] = vocab->slots[i];
  }
  free(vocab->slots);
  vocab->slots = slots;
  vocab->slot_count = count;
  return true;
}

static bool grow_tokens(gptvq_vocab *vocab, size_t needed) {
  if (needed > vocab->token_capacity) {
    size_t capacity = gptvq_max_size(needed, vocab->token_capacity * 2);
    gptvq_token_text *tokens =
        realloc(vocab->tokens, capacity * sizeof *tokens); /* ids are bounded: no overflow */
    if (tokens == NULL) return false;
    memset(tokens + vocab->token_capacity, 0, (capacity - vocab->token_capacity) * sizeof *tokens);
    vocab->tokens = tokens;
    vocab->token_capacity = capacity;
  }
  vocab->token_count = gptvq_max_size(vocab->token_count, needed);
  return true;
}

bool gptvq_vocab_add(gptvq_vocab *vocab, const char *text, size_t size, int32_t id, bool forward) {
  if (size > UINT32_MAX || !grow_tokens(vocab, (size_t)id + 1)) return false;
  if ((vocab->count + 1) * 2 > vocab->slot_count && !grow_slots(vocab)) return false;
  uint64_t hash = gptvq_hash_bytes(text, size);
  gptvq_vocab_entry *slot = slot_of(vocab, hash, text, size);
  size_t offset = slot->offset;
  if (slot->id < 0 || !forward) {
    offset = vocab->strings.size;
    gptvq_bytes_append(&vocab->strings, text, size);
    if (vocab->strings.failed) return false;
  }
  if (forward) {
    if (slot->id < 0) vocab->count++;
    *slot = (gptvq_vocab_entry){hash, offset, (uint32_t)size, id};
  }
  vocab->tokens[id] = (gptvq_token_text){offset, (uint32_t)size, true};
  return true;
}

int32_t gptvq_vocab_find(const gptvq_vocab *vocab, const char *text, size_t size) {
  if (vocab->slot_count == 0) return -1;
  return slot_of(vocab, gptvq_hash_bytes(text, size), text, size)->id;
}

const char *gptvq_vocab_text(const gptvq_vocab *vocab, int32_t id, size_t *size) {
  *size = 0;
  if (id < 0 || (size_t)id >= vocab->token_count || !vocab->tokens[id].present) return NULL;
  *size = vocab->tokens[id].size;
  return vocab->strings.data == NULL ? "" : vocab->strings.data + vocab->tokens[id].offset;
}

void gptvq_vocab_free(gptvq_vocab *vocab) {
  gptvq_bytes_free(&vocab->strings);
  free(vocab->slots);
  free(vocab->tokens);
  *vocab = (gptvq_vocab){0};
}
