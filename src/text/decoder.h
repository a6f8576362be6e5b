/* text/decoder.h: the decoders of tokenizer.json, run as a stream.
 *
 * Tokens flow through the stages as fragments that say whether a token starts and ends with them; Fuse and
 * ByteLevel turn all tokens into one endless token. A stage holds back only what a later token could still
 * change. */
#ifndef GPTVQ_TEXT_DECODER_H
#define GPTVQ_TEXT_DECODER_H

#include "text/regex.h"

typedef enum gptvq_decoder_kind {
  GPTVQ_DECODE_BYTE_LEVEL,
  GPTVQ_DECODE_REPLACE,
  GPTVQ_DECODE_BYTE_FALLBACK,
  GPTVQ_DECODE_FUSE,
  GPTVQ_DECODE_STRIP,
  GPTVQ_DECODE_METASPACE,
  GPTVQ_DECODE_JOIN /* no decoder at all: the tokens, with spaces between them */
} gptvq_decoder_kind;

typedef struct gptvq_decoder {
  gptvq_decoder_kind kind;
  gptvq_regex *regex;  /* replace */
  gptvq_bytes content; /* replace: the replacement; strip, metaspace: one code point */
  size_t start, stop;  /* strip: how many to take away at most; metaspace: start != 0: leave out those of the
                          first token */
} gptvq_decoder;

void gptvq_decoder_free(gptvq_decoder *decoder);

/* What a stage remembers between fragments; zero-initialise. */
typedef struct gptvq_decoder_state {
  gptvq_bytes held; /* replace, byte fallback: the token so far; byte level: an incomplete sequence; strip:
                       what may be cut */
  gptvq_bytes run;  /* byte fallback: bytes not yet judged */
  size_t tokens;    /* tokens seen */
  size_t cut;       /* strip: characters taken away at the start of this token */
  bool open;        /* byte level, fuse: the endless token has started */
  bool inside;      /* strip: something other than the content has been seen in this token */
} gptvq_decoder_state;

void gptvq_decoder_state_free(gptvq_decoder_state *state);

/* One whole token through all stages; what is certain is appended to out. */
gptvq_status gptvq_decoder_push(const gptvq_decoder *decoders, gptvq_decoder_state *states, size_t count,
                                const char *token, size_t size, gptvq_bytes *out, gptvq_error *err);
/* The end: everything held back. */
gptvq_status gptvq_decoder_flush(const gptvq_decoder *decoders, gptvq_decoder_state *states, size_t count,
                                 gptvq_bytes *out, gptvq_error *err);

#endif
