#include "server/scores.h"

#include "base/memory.h"
#include "base/threads.h"

#include <math.h>
#include <string.h>

bool gptvq_scores_reserve(gptvq_scores *scores, size_t room) {
  if (room <= scores->room) return true;
  size_t bytes, top_bytes;
  if (!gptvq_mul(room, sizeof *scores->logprobs, &bytes) ||
      !gptvq_mul(room, scores->width * sizeof *scores->top, &top_bytes))
    return false;
  float *logprobs = realloc(scores->logprobs, bytes);
  if (logprobs == NULL) return false;
  scores->logprobs = logprobs;
  if (scores->width > 0) {
    gptvq_alternative *top = realloc(scores->top, top_bytes);
    if (top == NULL) return false;
    scores->top = top;
  }
  scores->room = room;
  return true;
}

void gptvq_scores_copy(const gptvq_scores *from, size_t begin, size_t end, gptvq_scores *to) {
  for (size_t i = begin; i < end; i++) {
    to->logprobs[i] = from->logprobs[i];
    if (to->width > 0)
      memcpy(to->top + i * to->width, from->top + i * from->width, to->width * sizeof *to->top);
  }
}

/* The most likely of `vocab` logits, in order. */
static void find_top(const float *logits, size_t vocab, double total, unsigned width,
                     gptvq_alternative *top) {
  unsigned count = 0;
  for (size_t i = 0; i < vocab; i++) {
    if (count == width && !(logits[i] > top[count - 1].logprob)) continue;
    unsigned at = count < width ? count++ : count - 1;
    for (; at > 0 && logits[i] > top[at - 1].logprob; at--) top[at] = top[at - 1];
    top[at] = (gptvq_alternative){(int32_t)i, logits[i]};
  }
  for (unsigned i = 0; i < count; i++) top[i].logprob = (float)((double)top[i].logprob - total);
}

static void score(gptvq_scores *scores, size_t at, const float *logits, size_t vocab, int32_t id) {
  float largest = logits[0];
  for (size_t i = 1; i < vocab; i++) largest = logits[i] > largest ? logits[i] : largest;
  double sum = 0;
  for (size_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - (double)largest);
  double total = (double)largest + log(sum);
  scores->logprobs[at] = (float)((double)logits[id] - total);
  if (scores->width > 0) find_top(logits, vocab, total, scores->width, scores->top + at * scores->width);
}

typedef struct score_job {
  gptvq_scores *scores;
  const float *logits;
  size_t vocab;
  const int32_t *ids;
} score_job;

static void score_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const score_job *job = context;
  for (size_t i = begin; i < end; i++)
    score(job->scores, job->scores->count + i, job->logits + i * job->vocab, job->vocab, job->ids[i]);
}

void gptvq_scores_add(gptvq_scores *scores, const float *logits, size_t vocab, const int32_t *ids, size_t n) {
  score_job job = {scores, logits, vocab, ids};
  gptvq_parallel_for(n, 1, score_rows, &job);
  scores->count += n;
}

void gptvq_scores_add_one(gptvq_scores *scores, const float *logits, size_t vocab, int32_t id) {
  score(scores, scores->count, logits, vocab, id);
  scores->count++;
}

void gptvq_scores_release(gptvq_scores *scores) {
  free(scores->logprobs);
  free(scores->top);
  *scores = (gptvq_scores){.width = 0};
}
