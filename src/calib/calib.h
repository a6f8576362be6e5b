/* calib/calib.h: the calibration tokens. */
#ifndef GPTVQ_CALIB_CALIB_H
#define GPTVQ_CALIB_CALIB_H

#include <gptvq/quantize.h>

#include "base/status.h"
#include "calib/sweep.h"
#include "model/model_internal.h"

typedef struct gptvq_calibration {
  size_t samples, length;
  size_t
      block_held; /* the last of the samples, which block-wise fine-tuning is judged by and not trained on */
  size_t held; /* windows after the samples, unseen by all else: fine-tuning of the model is judged by them */
  /* windows behind those, of the texts and of the model's own text: the finished model is judged by them */
  size_t judged_text, judged_self;
  bool seen; /* a text had no room for windows of its own: those of judged_text are some of the samples too */
  int32_t *tokens;  /* [samples + held + judged_text + judged_self][length], owned */
  int32_t *written; /* [written_count][length], owned: all that the model wrote, to go on with later */
  size_t written_count;
  uint64_t hash;    /* of all windows and their arrangement */
  char source[256]; /* "self" or the text file's name without its folder; of several each with its windows */
} gptvq_calibration;

/* Memory for the model to write its windows in. */
typedef struct gptvq_text_room {
  size_t caches; /* bytes of caches and logits of texts that are written side by side */
  bool pages;    /* do the pages of blocks stay from token to token? Without, a token takes a sixth longer */
} gptvq_text_room;

/* Windows to take from options->calib (samples and length as in the options; length 0 = min(2048, the model's
 * context)). Several sources, a line each, share the windows by weight; each one's windows are spread evenly
 * among the others'.
 *
 * A text file is tokenized once, without BOS. The valid starts are cut into `samples` equal strata and window
 * i starts at a random place of stratum i: spread over the whole text, different for each seed. Windows
 * overlap (with a warning) when the text has fewer tokens than they take. With fine-tuning, windows are held
 * out that share no token with any other; a short text gives fewer of them, or none (with a warning). So are
 * those that the finished model is judged by, without a warning.
 * GPTVQ_ERROR_DATA: fewer than `length` tokens, or an id that the model lacks.
 *
 * "self": each window is made of equal texts of at most 2048 tokens, sampled from the model at temperature 1,
 * every other one started with BOS, the others (all, of a model without one) with a random token, and
 * restarted so after each EOS. Up to 128 texts are written side by side (fewer where their caches exceed
 * room.caches bytes), with inputs in bf16 and caches in fp16. The text depends on the seed, the number of
 * windows, their length and (by the last digits of the logits) how many go together and the processor, not
 * on the number of threads. `written`, or NULL: what the same run wrote before, taken in
 * its place where it is as many windows.
 *
 * GPTVQ_ERROR_ARGUMENT: no calib, zero samples, fewer than sources, a length above the model's context. The
 * caller releases *out.
 */
gptvq_status gptvq_calibration_create(const gptvq_model *model, const char *model_dir,
                                      const gptvq_quantize_options *options,
                                      const gptvq_token_windows *written, gptvq_text_room room,
                                      const gptvq_callbacks *callbacks, gptvq_calibration *out,
                                      gptvq_error *err);
/* Bytes that making the windows takes, pages of the model's blocks included, those of embedding and head
 * aside; calib_length set. Asks for the sizes of text files. */
double gptvq_calibration_peak(const gptvq_model *model, const gptvq_quantize_options *options,
                              gptvq_text_room room);
/* How many windows gptvq_calibration_create makes of these options, how many of them the model writes, and by
 * how many the finished model is judged; 0 where it would fail. */
void gptvq_calibration_count(const gptvq_model *model, const gptvq_quantize_options *options, size_t *written,
                             size_t *windows, size_t *judged);
/* What the model's writing is, of the same options. */
typedef struct gptvq_writing {
  double tokens;   /* 0: it writes nothing */
  size_t together; /* texts side by side */
  double caches;   /* bytes of keys and values that a token reads, on the mean */
} gptvq_writing;
gptvq_writing gptvq_calibration_writing(const gptvq_model *model, const gptvq_quantize_options *options,
                                        gptvq_text_room room);
void gptvq_calibration_release(gptvq_calibration *calibration);

/* Checks the numbers of the options against the model and says how long windows are. */
gptvq_status gptvq_calibration_length(const gptvq_model *model, const gptvq_quantize_options *options,
                                      size_t *length, gptvq_error *err);
/* Hash of windows, as in gptvq_calibration.hash. */
uint64_t gptvq_calibration_hash(size_t samples, size_t length, const int32_t *tokens);
/* How many of `held` windows, to be disjoint from each other and from `samples` more, a text of `count`
 * tokens has room for: all if every window can have tokens of its own, else their share of the text, at least
 * one if that leaves half of it, never more than half. */
size_t gptvq_calibration_room(size_t count, size_t samples, size_t held, size_t length);
/* First tokens of the windows in a text of `count` >= length tokens: `samples` ascending ones, which may
 * overlap, then `held` ascending ones, which share no token with any other (held <= gptvq_calibration_room).
 */
void gptvq_calibration_offsets(size_t count, size_t samples, size_t held, size_t length, uint64_t seed,
                               size_t *offsets);

#endif
