#include "text/added.h"

#include "text/utf8.h"

void gptvq_added_free(gptvq_added *added) {
  for (size_t i = 0; i < added->count; i++) {
    gptvq_bytes_free(&added->tokens[i].content);
    gptvq_bytes_free(&added->tokens[i].pattern);
  }
  free(added->tokens);
  free(added->raw.nodes);
  free(added->normalized.nodes);
  *added = (gptvq_added){0};
}

static int32_t new_node(gptvq_trie *trie, unsigned char byte) {
  if (trie->count == trie->capacity) {
    size_t capacity = trie->capacity == 0 ? 256 : trie->capacity * 2;
    gptvq_trie_node *nodes = capacity > INT32_MAX ? NULL : realloc(trie->nodes, capacity * sizeof *nodes);
    if (nodes == NULL) return -1;
    trie->nodes = nodes;
    trie->capacity = capacity;
  }
  trie->nodes[trie->count] = (gptvq_trie_node){-1, -1, -1, byte};
  return (int32_t)trie->count++;
}

static int32_t child_of(const gptvq_trie *trie, int32_t node, unsigned char byte) {
  if (node == 0) return trie->first[byte];
  int32_t child = trie->nodes[node].child;
  while (child >= 0 && trie->nodes[child].byte != byte) child = trie->nodes[child].sibling;
  return child;
}

static bool insert(gptvq_trie *trie, const gptvq_bytes *pattern, int32_t token) {
  int32_t node = 0;
  for (size_t i = 0; i < pattern->size; i++) {
    unsigned char byte = (unsigned char)pattern->data[i];
    int32_t child = child_of(trie, node, byte);
    if (child < 0) {
      child = new_node(trie, byte);
      if (child < 0) return false;
      if (node == 0) {
        trie->first[byte] = child;
      } else {
        trie->nodes[child].sibling = trie->nodes[node].child;
        trie->nodes[node].child = child;
      }
    }
    node = child;
  }
  if (node != 0) trie->nodes[node].token = token; /* of equal patterns the last one counts */
  return true;
}

gptvq_status gptvq_added_index(gptvq_added *added, gptvq_error *err) {
  gptvq_trie *tries[2] = {&added->raw, &added->normalized};
  for (int i = 0; i < 2; i++) {
    for (int b = 0; b < 256; b++) tries[i]->first[b] = -1;
    if (new_node(tries[i], 0) < 0) return gptvq_fail_memory(err, "the added tokens", 256);
  }
  for (size_t i = 0; i < added->count; i++) {
    const gptvq_added_token *token = &added->tokens[i];
    if (!insert(token->normalized ? &added->normalized : &added->raw, &token->pattern, (int32_t)i))
      return gptvq_fail_memory(err, "the added tokens",
                               gptvq_saturated_size(token->pattern.size, sizeof(gptvq_trie_node)));
  }
  return GPTVQ_OK;
}

/* Longest pattern at the start of p, its length; -1: none. */
static int32_t longest(const gptvq_trie *trie, const char *p, size_t size, size_t *length) {
  int32_t node = 0, found = -1;
  for (size_t i = 0; i < size; i++) {
    node = child_of(trie, node, (unsigned char)p[i]);
    if (node < 0) break;
    if (trie->nodes[node].token >= 0) {
      found = trie->nodes[node].token;
      *length = i + 1;
    }
  }
  return found;
}

static bool word_before(const char *text, size_t at) {
  size_t length;
  return at > 0 && gptvq_is_word(gptvq_utf8_get(text + gptvq_utf8_previous(text, at), &length));
}
static bool word_after(const char *text, size_t size, size_t at) {
  size_t length;
  return at < size && gptvq_is_word(gptvq_utf8_get(text + at, &length));
}

void gptvq_added_split(const gptvq_added *added, const gptvq_trie *trie, const char *text, size_t size,
                       size_t offset, bool origin, gptvq_pieces *out) {
  size_t done = 0, length = 0;
  for (size_t i = 0; i < size && trie->count > 1;) {
    int32_t found = trie->first[(unsigned char)text[i]] < 0 ? -1 : longest(trie, text + i, size - i, &length);
    if (found < 0) {
      i++;
      continue;
    }
    const gptvq_added_token *token = &added->tokens[found];
    size_t begin = i, end = i + length, step;
    i = end; /* the search goes on behind the match itself, even inside white space that rstrip takes */
    if (token->single_word && (word_before(text, begin) || word_after(text, size, end))) continue;
    if (token->lstrip) {
      while (begin > 0) {
        size_t before = gptvq_utf8_previous(text, begin);
        if (!gptvq_is_space(gptvq_utf8_get(text + before, &step))) break;
        begin = before;
      }
      begin = gptvq_max_size(begin, done);
    }
    while (token->rstrip && end < size && gptvq_is_space(gptvq_utf8_get(text + end, &step))) end += step;
    if (done < begin) gptvq_pieces_push(out, offset + done, offset + begin, -1, origin && done == 0);
    if (begin < end)
      gptvq_pieces_push(out, 0, 0, token->id, false); /* else the token before has taken all of it */
    done = gptvq_max_size(done, end);
  }
  if (done < size) gptvq_pieces_push(out, offset + done, offset + size, -1, origin && done == 0);
}

gptvq_status gptvq_added_extract(const gptvq_added *added, const gptvq_normalizer *normalizers,
                                 size_t normalizer_count, gptvq_bytes *text, gptvq_pieces *out,
                                 gptvq_error *err) {
  gptvq_pieces raw = {.text = *text};
  *text = (gptvq_bytes){0};
  gptvq_added_split(added, &added->raw, raw.text.data, raw.text.size, 0, true, &raw);
  gptvq_status status = gptvq_pieces_check(&raw, err);
  if (status == GPTVQ_OK && normalizer_count == 0) {
    if (added->normalized.count <= 1) {
      *out = raw;
      return GPTVQ_OK;
    }
    for (size_t i = 0; i < raw.count; i++) {
      const gptvq_piece *piece = &raw.items[i];
      if (piece->id >= 0) gptvq_pieces_push(out, 0, 0, piece->id, false);
      else
        gptvq_added_split(added, &added->normalized, raw.text.data + piece->begin, piece->end - piece->begin,
                          piece->begin, piece->origin, out);
    }
    out->text = raw.text;
    raw.text = (gptvq_bytes){0};
  } else if (status == GPTVQ_OK) {
    gptvq_bytes one = {0};
    for (size_t i = 0; i < raw.count && status == GPTVQ_OK; i++) {
      const gptvq_piece *piece = &raw.items[i];
      if (piece->id >= 0) {
        gptvq_pieces_push(out, 0, 0, piece->id, false);
        continue;
      }
      one.size = 0;
      gptvq_bytes_append(&one, raw.text.data + piece->begin, piece->end - piece->begin);
      bool origin = piece->origin;
      if (one.failed) out->failed = true;
      else status = gptvq_normalize(normalizers, normalizer_count, &one, &origin, err);
      if (status != GPTVQ_OK || one.failed) break;
      size_t offset = out->text.size;
      gptvq_bytes_append(&out->text, one.data, one.size);
      if (!out->text.failed)
        gptvq_added_split(added, &added->normalized, out->text.data + offset, one.size, offset, origin, out);
    }
    gptvq_bytes_free(&one);
  }
  gptvq_pieces_free(&raw);
  return status == GPTVQ_OK ? gptvq_pieces_check(out, err) : status;
}
