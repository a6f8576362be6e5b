/* gptvq/tokenizer.h: text <-> token ids from a Hugging Face tokenizer.json (BPE, byte-level or
 * byte-fallback). */
#ifndef GPTVQ_TOKENIZER_H
#define GPTVQ_TOKENIZER_H

#include <gptvq/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gptvq_tokenizer gptvq_tokenizer; /* immutable after opening; may be shared between threads */

/* Reads PATH, a tokenizer.json or a model folder that holds one. On success *out is owned by the caller
 * (gptvq_tokenizer_close); on failure *out is NULL. */
GPTVQ_API gptvq_status gptvq_tokenizer_open(const char *path, gptvq_tokenizer **out, gptvq_error *err);
GPTVQ_API void gptvq_tokenizer_close(gptvq_tokenizer *tokenizer); /* NULL is fine */

/* Encodes `size` bytes. Invalid UTF-8 is first replaced by U+FFFD exactly as Python's bytes.decode("utf-8",
 * errors="replace") does. `add_special`: apply the post-processor's template (BOS/EOS). Special tokens
 * written out in the text are recognised, as the `tokenizers` package does. On success *ids is a malloc'd
 * array of *count ids that the caller frees with gptvq_free; on failure *ids is NULL. */
GPTVQ_API gptvq_status gptvq_tokenizer_encode(const gptvq_tokenizer *tokenizer, const char *text, size_t size,
                                              int add_special, int32_t **ids, size_t *count,
                                              gptvq_error *err);

/* Decodes ids to UTF-8 (NUL-terminated, *size excludes the NUL; free with gptvq_free). `skip_special` leaves
 * special tokens out. Equal to tokenizers' decode(), invalid byte sequences becoming U+FFFD. */
GPTVQ_API gptvq_status gptvq_tokenizer_decode(const gptvq_tokenizer *tokenizer, const int32_t *ids,
                                              size_t count, int skip_special, char **text, size_t *size,
                                              gptvq_error *err);

/* Streaming: appends one id and returns the bytes that became certain (complete UTF-8 sequences only), in a
 * buffer valid until the next call on the stream. The concatenation of all pieces and of the flush equals
 * gptvq_tokenizer_decode. */
typedef struct gptvq_text_stream gptvq_text_stream;
GPTVQ_API gptvq_status gptvq_text_stream_create(const gptvq_tokenizer *tokenizer, int skip_special,
                                                gptvq_text_stream **out, gptvq_error *err);
GPTVQ_API gptvq_status gptvq_text_stream_push(gptvq_text_stream *stream, int32_t id, const char **piece,
                                              size_t *size, gptvq_error *err);
GPTVQ_API gptvq_status gptvq_text_stream_flush(gptvq_text_stream *stream, const char **piece, size_t *size,
                                               gptvq_error *err);
GPTVQ_API void gptvq_text_stream_destroy(gptvq_text_stream *stream); /* NULL is fine */

/* Number of ids (largest id + 1, added tokens included); id of a token's text, or -1; is it special? */
GPTVQ_API size_t gptvq_tokenizer_vocab_size(const gptvq_tokenizer *tokenizer);
GPTVQ_API int32_t gptvq_tokenizer_token_to_id(const gptvq_tokenizer *tokenizer, const char *token);
/* BOS id that the template puts first (or, without one, bos_token of tokenizer_config.json beside it), or -1.
 */
GPTVQ_API int32_t gptvq_tokenizer_bos(const gptvq_tokenizer *tokenizer);
/* EOS id from tokenizer_config.json beside the file, or -1. */
GPTVQ_API int32_t gptvq_tokenizer_eos(const gptvq_tokenizer *tokenizer);

/* What a text looks like to someone who calibrates with it or measures a perplexity. */
typedef enum gptvq_text_kind {
  GPTVQ_TEXT_PLAIN = 0, /* UTF-8 text: prose, programs, a JSON document, whatever the script */
  GPTVQ_TEXT_FOREIGN,   /* not UTF-8 text: another encoding, a compressed or binary file */
  GPTVQ_TEXT_WRAPPED,   /* text inside JSON lines or an HTML page */
  GPTVQ_TEXT_REPEATED   /* the same few tokens over and over */
} gptvq_text_kind;
/* "plain", "foreign", "wrapped", "repeated" */
GPTVQ_API const char *gptvq_text_kind_name(gptvq_text_kind kind);

/* Judges text[size], and the tokens ids[count] of a text; either may be left out (size or count 0). `line`
 * gets one line (empty for GPTVQ_TEXT_PLAIN) that begins with `name` and says what it looks like and what to
 * do. Never an error: who wants to may use such a text. Looks at 320 KiB and 65,536 tokens from all over the
 * text; texts of less than 71 tokens are not called repeated. */
GPTVQ_API gptvq_text_kind gptvq_text_judge(const char *name, const char *text, size_t size,
                                           const int32_t *ids, size_t count, char *line, size_t line_size);

GPTVQ_API void gptvq_free(void *memory); /* frees what the library handed out; NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
