#include "base/hash.h"

#include <stdio.h>
#include <string.h>

static const uint64_t prime1 = 0x9e3779b185ebca87u, prime2 = 0xc2b2ae3d27d4eb4fu,
                      prime3 = 0x165667b19e3779f9u, prime4 = 0x85ebca77c2b2ae63u,
                      prime5 = 0x27d4eb2f165667c5u;

static uint64_t rotate(uint64_t x, unsigned bits) { return x << bits | x >> (64 - bits); }

static uint64_t word(const uint8_t *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

/* One-to-one in `lane` and in `value`: of two inputs that differ in one word no lane ends the same. */
static uint64_t mix(uint64_t lane, uint64_t value) { return rotate(lane + value * prime2, 31) * prime1; }

static uint64_t join(uint64_t hash, uint64_t lane) { return (hash ^ mix(0, lane)) * prime1 + prime4; }

uint64_t gptvq_hash(uint64_t seed, const void *data, size_t size) {
  const uint8_t *at = data, *end = at + size;
  uint64_t hash = seed + prime5;
  if (size >= 32) {
    uint64_t a = seed + prime1 + prime2, b = seed + prime2, c = seed, d = seed - prime1;
    for (; end - at >= 32; at += 32) {
      a = mix(a, word(at));
      b = mix(b, word(at + 8));
      c = mix(c, word(at + 16));
      d = mix(d, word(at + 24));
    }
    hash = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
    hash = join(join(join(join(hash, a), b), c), d);
  }
  hash += size;
  for (; end - at >= 8; at += 8) hash = rotate(hash ^ mix(0, word(at)), 27) * prime1 + prime4;
  if (end - at >= 4) {
    uint32_t half;
    memcpy(&half, at, sizeof half);
    hash = rotate(hash ^ half * prime1, 23) * prime2 + prime3;
    at += 4;
  }
  for (; at < end; at++) hash = rotate(hash ^ *at * prime5, 11) * prime1;
  hash = (hash ^ hash >> 33) * prime2;
  hash = (hash ^ hash >> 29) * prime3;
  return hash ^ hash >> 32;
}

void gptvq_hash_text(uint64_t hash, char text[GPTVQ_HASH_TEXT]) {
  (void)snprintf(text, GPTVQ_HASH_TEXT, "%016llx", (unsigned long long)hash);
}
