/* Runs a fuzz target without libFuzzer: each seed file as it is, then `count` pseudo-random mutations of
 * each, the same on every machine. usage: fuzz_x COUNT SEED_FILE… */
#include "fuzz.h"

#include "base/file.h"
#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* words of the formats: they get further than random bytes */
static const char *const words[] = {
    "\"",      "{",         "}",         "[",        "]",      ",",          ":",
    "0",       "-1",        "1e9",       "null",     "true",   "4294967296", "9223372036854775807",
    "\"F32\"", "\"shape\"", "\"dtype\"", "\"rows\"", "\"vq\"", "\\\"",       "\\u0000",
    "{%",      "%}",        "{{",        "}}",       "|",      " if ",       "(",
    ")",       ".",         "messages",  "[::-1]",   "loop",   "~",          "else"};

/* A few edits of data[*size] in a buffer of `room` bytes. */
static void mutate(uint8_t *data, size_t *size, size_t room, uint64_t *state) {
  for (size_t edits = 1 + gptvq_random_below(state, 4); edits > 0; edits--) {
    if (*size == 0) return;
    size_t at = gptvq_random_below(state, *size), limit = gptvq_random_below(state, 2) ? *size : 2048;
    if (at >= limit) at %= limit; /* more often in the header */
    switch (gptvq_random_below(state, 6)) {
    case 0: data[at] = (uint8_t)gptvq_random(state); break;
    case 1: data[at] ^= (uint8_t)(1u << gptvq_random_below(state, 8)); break;
    case 2: *size = at; break;
    case 3: { /* remove some bytes */
      size_t n = 1 + gptvq_random_below(state, 8);
      if (n > *size - at) n = *size - at;
      memmove(data + at, data + at + n, *size - at - n);
      *size -= n;
      break;
    }
    default: { /* overwrite or insert a word */
      const char *word = words[gptvq_random_below(state, sizeof words / sizeof words[0])];
      size_t n = strlen(word);
      if (*size + n > room) break;
      if (gptvq_random_below(state, 2)) {
        memmove(data + at + n, data + at, *size - at);
        *size += n;
      } else if (n > *size - at) {
        break;
      }
      memcpy(data + at, word, n);
    }
    }
  }
}

int main(int argc, char **argv) {
  if (argc < 3) {
    (void)fprintf(stderr, "usage: %s COUNT SEED_FILE...\n", argv[0]);
    return 2;
  }
  unsigned long count = strtoul(argv[1], NULL, 10), runs = 0;
  for (int i = 2; i < argc; i++) {
    char *seed;
    size_t size;
    gptvq_error err;
    if (gptvq_read_file(argv[i], 1 << 20, &seed, &size, &err) != GPTVQ_OK) {
      (void)fprintf(stderr, "%s\n", err.message);
      return 1;
    }
    (void)LLVMFuzzerTestOneInput((const uint8_t *)seed, size);
    uint64_t state = (uint64_t)i;
    for (unsigned long n = 0; n < count; n++, runs++) {
      size_t length = size, room = size + 256;
      uint8_t *data = malloc(room);
      if (data == NULL) return 1;
      memcpy(data, seed, size);
      mutate(data, &length, room, &state);
      uint8_t *exact = malloc(length + 1); /* so that a sanitizer sees the end */
      if (exact == NULL) return 1;
      memcpy(exact, data, length);
      free(data);
      (void)LLVMFuzzerTestOneInput(exact, length);
      free(exact);
    }
    free(seed);
  }
  (void)printf("%lu mutations\n", runs);
  return 0;
}
