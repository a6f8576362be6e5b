/* text/tokenizer_internal.h: a loaded tokenizer.json. */
#ifndef GPTVQ_TEXT_TOKENIZER_INTERNAL_H
#define GPTVQ_TEXT_TOKENIZER_INTERNAL_H

#include "text/added.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/json_nul.h"
#include "text/normalize.h"
#include "text/pretokenize.h"

#include <gptvq/tokenizer.h>
#include <jansson.h>

enum { GPTVQ_MAX_STAGES = 64, GPTVQ_MAX_SEQUENCE_DEPTH = 16 };
enum { GPTVQ_MAX_CONFIG_BYTES = 64 << 20, GPTVQ_MAX_TOKENIZER_BYTES = 512 << 20 };

struct gptvq_tokenizer {
  gptvq_bpe bpe; /* its vocab.tokens also holds what added tokens decode to */
  gptvq_added added;
  gptvq_vocab added_ids;  /* content of each added token -> id */
  unsigned char *special; /* by id: left out when special tokens are skipped */
  gptvq_normalizer normalizers[GPTVQ_MAX_STAGES];
  gptvq_pretokenizer pretokenizers[GPTVQ_MAX_STAGES];
  gptvq_decoder decoders[GPTVQ_MAX_STAGES];
  size_t normalizer_count, pretokenizer_count, decoder_count;
  gptvq_ids before, after; /* what the template puts around the text */
  int32_t bos, eos;
};

/* Where a value comes from, for messages. */
typedef struct gptvq_load {
  gptvq_tokenizer *tokenizer;
  const char *path;
  const char *nul; /* what stands for NUL in keys, or "" */
  gptvq_error *err;
} gptvq_load;

/* A JSON file of at most `most` bytes, numbers as reals; NULs in keys become `nul` (text/json_nul.h). */
gptvq_status gptvq_text_read_json(const char *path, size_t most, char nul[GPTVQ_NUL_STAND_IN], json_t **out,
                                  gptvq_error *err);

/* The sections of tokenizer.json; NULL and JSON null mean none. */
gptvq_status gptvq_load_normalizer(const gptvq_load *load, const json_t *json, size_t depth);
gptvq_status gptvq_load_pretokenizer(const gptvq_load *load, const json_t *json, size_t depth);
gptvq_status gptvq_load_decoder(const gptvq_load *load, const json_t *json, size_t depth);
gptvq_status gptvq_load_model(const gptvq_load *load, const json_t *json);
gptvq_status gptvq_load_added_tokens(const gptvq_load *load,
                                     const json_t *json); /* after model and normalizer */
gptvq_status gptvq_load_post_processor(const gptvq_load *load, const json_t *json, size_t depth);

/* A JSON number as a token id; false when it is none. Numbers are read as reals (JSON_DECODE_INT_AS_REAL). */
bool gptvq_json_id(const json_t *json, int32_t *id);
bool gptvq_json_flag(const json_t *object, const char *key, bool absent);

#endif
