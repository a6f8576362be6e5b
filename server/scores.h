/* server/scores.h: log probabilities of tokens, natural logarithm, of the model's own distribution: before
 * temperature, penalties and biases. */
#ifndef GPTVQ_SERVER_SCORES_H
#define GPTVQ_SERVER_SCORES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GPTVQ_SCORES_WIDTH = 20 };

typedef struct gptvq_alternative {
  int32_t id;
  float logprob;
} gptvq_alternative;

/* Of tokens in a row. */
typedef struct gptvq_scores {
  unsigned width;         /* alternatives of each token, set before the first */
  size_t count, room;     /* tokens */
  float *logprobs;        /* [room]; NaN: nothing came before this token */
  gptvq_alternative *top; /* [room × width], the most likely first, the lowest id among equals */
} gptvq_scores;

/* Room for so many tokens; false: out of memory, and nothing changed. */
bool gptvq_scores_reserve(gptvq_scores *scores, size_t room);
/* Copies tokens [begin, end) of `from`, whose width is no smaller, to the same places; there is room. */
void gptvq_scores_copy(const gptvq_scores *from, size_t begin, size_t end, gptvq_scores *to);
/* Token scores->count + i is ids[i], predicted by logits[i × vocab]; count += n. In as many threads as there
 * are. There is room; the vocabulary has at least `width` entries. */
void gptvq_scores_add(gptvq_scores *scores, const float *logits, size_t vocab, const int32_t *ids, size_t n);
/* The same for one token, in this thread. */
void gptvq_scores_add_one(gptvq_scores *scores, const float *logits, size_t vocab, int32_t id);
void gptvq_scores_release(gptvq_scores *scores);

#endif
