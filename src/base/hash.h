/* base/hash.h: a fast hash that tells inputs of a run apart. Not cryptographic. */
#ifndef GPTVQ_BASE_HASH_H
#define GPTVQ_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* XXH64 (Yann Collet, "xxHash fast digest algorithm", version 0.1.1) of `size` bytes. `seed` is 0, or the
 * hash of what comes before. */
uint64_t gptvq_hash(uint64_t seed, const void *data, size_t size);

/* In 16 hexadecimal digits. */
enum { GPTVQ_HASH_TEXT = 17 };
void gptvq_hash_text(uint64_t hash, char text[GPTVQ_HASH_TEXT]);

#endif
