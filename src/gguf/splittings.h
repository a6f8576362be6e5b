/* gguf/splittings.h: what llama.cpp calls the splitting that goes before byte-level BPE (tokenizer.ggml.pre;
 * its llm_tokenizer_bpe has the same expressions). */
#ifndef GPTVQ_GGUF_SPLITTINGS_H
#define GPTVQ_GGUF_SPLITTINGS_H

#include <stdbool.h>
#include <stddef.h>

typedef enum gptvq_gguf_split {
  GPTVQ_SPLIT_PATTERN,    /* by `pattern` */
  GPTVQ_SPLIT_GPT2,       /* as GPT-2 does */
  GPTVQ_SPLIT_GPT2_DIGITS /* each digit by itself, then as GPT-2 does */
} gptvq_gguf_split;

typedef struct gptvq_gguf_splitting {
  const char *name;
  gptvq_gguf_split split;
  const char *pattern;
  bool ignore_merges; /* words that are in the vocabulary are taken whole */
  bool bos;           /* a text begins with BOS where the file does not say */
  bool nfc;           /* the models' own tokenizers normalize, which llama.cpp leaves out */
} gptvq_gguf_splitting;

/* Of several names for one splitting the first is the one to write; NULL: none. */
const gptvq_gguf_splitting *gptvq_gguf_splitting_named(const char *name, size_t size);
const gptvq_gguf_splitting *gptvq_gguf_splitting_like(gptvq_gguf_split split, const char *pattern,
                                                      bool ignore_merges);

#endif
