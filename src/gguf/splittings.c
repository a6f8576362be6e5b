#include "gguf/splittings.h"

#include <string.h>

#define LETTERS_AND_DIGITS(digits) \
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(ending, digits) \
  "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ending "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" ending \
  "|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 GPTVQ_SPLIT_PATTERN, LETTERS_AND_DIGITS("\\p{N}{1,3}"), true, true, false
#define DBRX GPTVQ_SPLIT_PATTERN, LETTERS_AND_DIGITS("\\p{N}{1,3}"), false, false, false
#define QWEN2 GPTVQ_SPLIT_PATTERN, LETTERS_AND_DIGITS("\\p{N}"), false, false, true
#define GPT4O GPTVQ_SPLIT_PATTERN, CASED("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "\\p{N}{1,3}"), false, false, false
#define GPT2 GPTVQ_SPLIT_GPT2, NULL, false, false, false
#define DIGITS GPTVQ_SPLIT_GPT2_DIGITS, NULL, false, false, false

static const gptvq_gguf_splitting splittings[] = {
    {"llama-bpe", LLAMA3},
    {"llama3", LLAMA3},
    {"llama-v3", LLAMA3},
    {"dbrx", DBRX},
    {"smaug-bpe", DBRX},
    {"qwen2", QWEN2},
    {"deepseek-r1-qwen", QWEN2},
    {"gpt-4o", GPT4O},
    {"llama4", GPT4O},
    {"tekken", GPTVQ_SPLIT_PATTERN, CASED("", "\\p{N}"), true, true, false},
    {"gpt-2", GPT2},
    {"phi-2", GPT2},
    {"olmo", GPT2},
    {"smollm", DIGITS},
    {"refact", DIGITS},
    {"starcoder", DIGITS},
    {"command-r", DIGITS},
    {"codeshell", DIGITS},
};
enum { COUNT = sizeof splittings / sizeof *splittings };

const gptvq_gguf_splitting *gptvq_gguf_splitting_named(const char *name, size_t size) {
  for (size_t i = 0; i < COUNT; i++)
    if (strlen(splittings[i].name) == size && memcmp(splittings[i].name, name, size) == 0)
      return &splittings[i];
  return NULL;
}

const gptvq_gguf_splitting *gptvq_gguf_splitting_like(gptvq_gguf_split split, const char *pattern,
                                                      bool ignore_merges) {
  for (size_t i = 0; i < COUNT; i++)
    if (splittings[i].split == split &&
        (split != GPTVQ_SPLIT_PATTERN ||
         (strcmp(splittings[i].pattern, pattern) == 0 && splittings[i].ignore_merges == ignore_merges)))
      return &splittings[i];
  return NULL;
}
