#include "gguf/merges.h"
#include "base/hash.h"
#include "base/memory.h"

#include <string.h>

enum { NONE = UINT32_MAX };

typedef struct table { /* of pieces by their texts: open addressing, at most half full */
  const gptvq_piece_text *pieces;
  uint32_t *slots;
  size_t mask;
} table;

static uint32_t *find(const table *t, const char *text, size_t size) {
  size_t at = (size_t)gptvq_hash(0, text, size) & t->mask;
  for (;; at = (at + 1) & t->mask) {
    const gptvq_piece_text *piece = t->slots[at] == NONE ? NULL : &t->pieces[t->slots[at]];
    if (piece == NULL || (piece->size == size && memcmp(piece->text, text, size) == 0)) return &t->slots[at];
  }
}

static bool fill(table *t, const gptvq_piece_text *pieces, size_t count) {
  size_t slots = 64;
  while (slots / 2 < count) slots *= 2;
  *t = (table){pieces, gptvq_alloc(slots, sizeof *t->slots), slots - 1};
  if (t->slots == NULL) return false;
  memset(t->slots, 0xff, slots * sizeof *t->slots);
  for (size_t i = 0; i < count; i++)
    if (pieces[i].merges) *find(t, pieces[i].text, pieces[i].size) = (uint32_t)i;
  return true;
}

typedef struct list {
  gptvq_piece_merge *items;
  size_t count, capacity;
} list;

static bool push(list *l, gptvq_piece_merge merge) {
  if (l->count == l->capacity) {
    const size_t capacity = 2 * l->capacity + 1024;
    gptvq_piece_merge *more = realloc(l->items, gptvq_saturated_size(capacity, sizeof *more));
    if (more == NULL) return false;
    l->items = more;
    l->capacity = capacity;
  }
  l->items[l->count++] = merge;
  return true;
}

static bool begins_character(char byte) { return ((unsigned char)byte & 0xc0) != 0x80; }

static bool split(const table *t, const gptvq_piece_text *piece, list *out) {
  uint32_t characters = 0, before = 1;
  for (size_t i = 0; i < piece->size; i++) characters += begins_character(piece->text[i]);
  for (size_t at = 1; at < piece->size; at++) {
    if (!begins_character(piece->text[at])) continue;
    const uint32_t left = *find(t, piece->text, at);
    const uint32_t right = left == NONE ? NONE : *find(t, piece->text + at, piece->size - at);
    if (right != NONE &&
        !push(out, (gptvq_piece_merge){left, right, {before, characters - before}, piece->score}))
      return false;
    before++;
  }
  return true;
}

/* Lengths and parts tell any two merges of one score apart that are not of different pieces. */
static int by_rank(const void *a, const void *b) {
  const gptvq_piece_merge *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  for (size_t i = 0; i < 2; i++)
    if (x->lengths[i] != y->lengths[i]) return x->lengths[i] > y->lengths[i] ? -1 : 1;
  if (x->left != y->left) return x->left < y->left ? -1 : 1;
  return (x->right > y->right) - (x->right < y->right);
}

bool gptvq_piece_merges(const gptvq_piece_text *pieces, size_t count, gptvq_piece_merge **out,
                        size_t *merges) {
  table t;
  list l = {NULL, 0, 0};
  bool fine = fill(&t, pieces, count);
  for (size_t i = 0; i < count && fine; i++)
    if (pieces[i].merges) fine = split(&t, &pieces[i], &l);
  free(t.slots);
  if (!fine) {
    free(l.items);
    return false;
  }
  if (l.count > 0) qsort(l.items, l.count, sizeof *l.items, by_rank);
  *out = l.items;
  *merges = l.count;
  return true;
}
