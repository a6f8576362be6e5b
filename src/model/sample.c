/* Sampling: without memory of its own but for the repetition penalty. top-k and top-p cut the sorted list of
 * tokens at a value, which is found by radix selection on the bits of the logits, a few passes over them. */
#include <gptvq/model.h>

#include "base/half.h"
#include "base/memory.h"
#include "base/sized.h"
#include "base/random.h"
#include "base/status.h"
#include "model/layer/vector.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { BUCKETS = 2048 };

/* Unsigned numbers in the order of the floats. */
static uint32_t order_key(float x) {
  uint32_t bits = gptvq_float_bits(x + 0.0f); /* -0 becomes 0 */
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

typedef struct candidates {
  const float *logits;
  size_t vocab;
  double maximum, inverse_temperature;
  uint32_t key; /* tokens above this key are in, below are out */
  size_t ties;  /* of those with this key, so many are in, lowest ids first */
} candidates;

static double weight_of(const candidates *c, size_t i, bool counted) {
  return counted ? 1.0 : exp(((double)c->logits[i] - c->maximum) * c->inverse_temperature);
}

/* Walks the kept tokens in the order of their ids. */
static bool is_kept(const candidates *c, size_t i, size_t *ties_left) {
  uint32_t key = order_key(c->logits[i]);
  if (key != c->key) return key > c->key;
  if (*ties_left == 0) return false;
  --*ties_left;
  return true;
}

/* Narrows the candidates to the fewest of largest logit whose weights (1 each, or the probabilities) reach
 * `target`. */
static void keep_top(candidates *c, bool counted, double target) {
  static const unsigned shifts[] = {21, 10, 0}, widths[] = {11, 11, 10};
  double above = 0.0; /* weight of all keys beyond the bucket being split */
  uint32_t prefix = 0;
  size_t tie_count = 0;
  for (size_t level = 0; level < 3; level++) {
    double weights[BUCKETS] = {0.0};
    size_t counts[BUCKETS] = {0}, ties_left = c->ties;
    uint32_t mask = (1u << widths[level]) - 1u;
    unsigned high = shifts[level] + widths[level];
    for (size_t i = 0; i < c->vocab; i++) {
      if (!is_kept(c, i, &ties_left)) continue;
      uint32_t key = order_key(c->logits[i]);
      if (level > 0 && key >> high != prefix) continue;
      uint32_t bucket = key >> shifts[level] & mask;
      weights[bucket] += weight_of(c, i, counted);
      counts[bucket]++;
    }
    uint32_t bucket = mask, lowest = mask;
    for (uint32_t b = mask + 1; b-- > 0;)
      if (counts[b] > 0) lowest = b; /* rounding of the sums must not lead past the last token */
    while (bucket > lowest && (counts[bucket] == 0 || above + weights[bucket] < target))
      above += weights[bucket--];
    prefix = level == 0 ? bucket : prefix << widths[level] | bucket;
    tie_count = counts[bucket];
  }
  /* all tokens of one key weigh the same */
  size_t ties = tie_count, left = c->ties, needed = 1;
  for (size_t i = 0; i < c->vocab; i++) {
    if (!is_kept(c, i, &left) || order_key(c->logits[i]) != prefix) continue;
    double weight = weight_of(c, i, counted);
    while (needed < ties && above + weight * (double)needed < target) needed++;
    break;
  }
  c->key = prefix;
  c->ties = needed;
}

static double total_weight(const candidates *c) {
  double sum = 0.0;
  size_t ties_left = c->ties;
  for (size_t i = 0; i < c->vocab; i++)
    if (is_kept(c, i, &ties_left)) sum += weight_of(c, i, false);
  return sum;
}

/* Leaves out what is less than `share` as likely as the most likely token, whose weight is 1. */
static void keep_likely(candidates *c, double share) {
  uint32_t lowest = UINT32_MAX;
  for (size_t i = 0; i < c->vocab; i++)
    if (order_key(c->logits[i]) < lowest && weight_of(c, i, false) >= share) lowest = order_key(c->logits[i]);
  if (lowest <= c->key) return;
  c->key = lowest;
  c->ties = SIZE_MAX;
}

/* copy[vocab] = the logits with each token of the history made less likely, once. */
static gptvq_status penalize(const gptvq_sampler *sampler, const float *logits, size_t vocab, float *copy,
                             gptvq_error *err) {
  memcpy(copy, logits, vocab * sizeof *copy);
  for (size_t i = 0; i < sampler->history_count; i++) {
    int32_t id = sampler->history[i];
    if (id < 0 || (size_t)id >= vocab)
      return gptvq_fail(err, GPTVQ_ERROR_DATA, "token id %d is outside the vocabulary of %zu", (int)id,
                        vocab);
    /* from the original: a second time changes nothing */
    copy[id] = logits[id] > 0.0f ? logits[id] / sampler->repetition_penalty
                                 : logits[id] * sampler->repetition_penalty;
  }
  return GPTVQ_OK;
}

/* *top: the largest. */
static gptvq_status check_logits(const float *logits, size_t vocab, float *top, gptvq_error *err) {
  unsigned bad = 0;
  for (size_t i = 0; i < vocab; i++) bad |= !(logits[i] < INFINITY) ? 1u : 0u;
  for (size_t i = 0; bad && i < vocab; i++)
    if (!(logits[i] < INFINITY))
      return gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                        "logit %zu is %g: the model's weights are damaged or too large", i,
                        (double)logits[i]);
  *top = GPTVQ_MULTI_PICK(gptvq_max)(vocab, logits);
  return *top > -INFINITY ? GPTVQ_OK : gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "all logits are minus infinity");
}

static size_t first_of(const float *logits, float value) {
  size_t i = 0;
  while (logits[i] != value) i++;
  return i;
}

/* Weights of some tokens in fp32, and their sum. */
enum { CHUNK = 256 };
static double weigh(const candidates *c, size_t begin, size_t count, float *weights) {
  for (size_t i = 0; i < count; i++)
    weights[i] = (float)(((double)c->logits[begin + i] - c->maximum) * c->inverse_temperature);
  return (double)GPTVQ_MULTI_PICK(gptvq_exp_sum)(count, 0.0f, weights);
}

/* Where nothing is cut: a pass for the sum of all weights, and one to where the sum passes its share. */
static size_t draw_from_all(const candidates *c, uint64_t *state) {
  float weights[CHUNK];
  double sum = 0.0;
  for (size_t at = 0; at < c->vocab; at += CHUNK)
    sum += weigh(c, at, gptvq_min_size(CHUNK, c->vocab - at), weights);
  double left = gptvq_random_unit(state) * sum;
  for (size_t at = 0; at < c->vocab; at += CHUNK) {
    const size_t count = gptvq_min_size(CHUNK, c->vocab - at);
    const double of_chunk = weigh(c, at, count, weights);
    if (left >= of_chunk) {
      left -= of_chunk;
      continue;
    }
    for (size_t i = 0; i < count; i++) {
      if ((double)weights[i] > left && c->logits[at + i] > -INFINITY) return at + i;
      left -= (double)weights[i];
    }
  }
  return first_of(c->logits, (float)c->maximum); /* by rounding the sum never gets there */
}

static size_t draw_from_kept(const candidates *c, uint64_t *state) {
  double threshold = gptvq_random_unit(state) * total_weight(c), sum = 0.0;
  size_t ties_left = c->ties, token = 0;
  for (size_t i = 0; i < c->vocab; i++) {
    if (!is_kept(c, i, &ties_left)) continue;
    double weight = weight_of(c, i, false);
    if (weight > 0.0) token = i; /* the last possible one when rounding leaves the sum below the threshold */
    sum += weight;
    if (sum > threshold) break;
  }
  return token;
}

static gptvq_status sample(gptvq_sampler *sampler, const float *logits, size_t vocab, int32_t *token,
                           gptvq_error *err) {
  float top = -INFINITY;
  GPTVQ_TRY(check_logits(logits, vocab, &top, err));
  if (sampler->temperature == 0.0f) {
    *token = (int32_t)first_of(logits, top);
    return GPTVQ_OK;
  }
  candidates c = {logits, vocab, (double)top, 1.0 / (double)sampler->temperature, 0, 0};
  const bool counts = sampler->top_k > 0 && sampler->top_k < vocab,
             cuts = counts || sampler->top_p < 1.0f || sampler->min_p > 0.0f;
  if (counts) keep_top(&c, true, (double)sampler->top_k);
  if (sampler->top_p < 1.0f) keep_top(&c, false, (double)sampler->top_p * total_weight(&c));
  if (sampler->min_p > 0.0f) keep_likely(&c, (double)sampler->min_p);
  *token = (int32_t)(cuts ? draw_from_kept(&c, &sampler->state) : draw_from_all(&c, &sampler->state));
  return GPTVQ_OK;
}

static gptvq_status check_and_sample(gptvq_sampler *sampler, const float *logits, size_t vocab,
                                     int32_t *token, gptvq_error *err) {
  if (vocab == 0 || vocab > INT32_MAX)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "cannot sample from a vocabulary of %zu", vocab);
  if (!(sampler->temperature >= 0.0f) || isinf(sampler->temperature))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "temperature %g must be a number >= 0",
                      (double)sampler->temperature);
  if (!(sampler->top_p > 0.0f && sampler->top_p <= 1.0f))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "top-p %g must be in (0, 1]", (double)sampler->top_p);
  if (!(sampler->min_p >= 0.0f && sampler->min_p <= 1.0f))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "min-p %g must be in [0, 1]", (double)sampler->min_p);
  float penalty = sampler->repetition_penalty;
  if (!(penalty >= 0.0f) || isinf(penalty))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "repetition penalty %g must be a number >= 0",
                      (double)penalty);
  if (penalty == 0.0f || penalty == 1.0f || sampler->history_count == 0)
    return sample(sampler, logits, vocab, token, err);
  float *copy = gptvq_alloc(vocab, sizeof *copy);
  if (copy == NULL) return gptvq_fail_memory(err, "penalized logits", vocab * sizeof *copy);
  gptvq_status status = penalize(sampler, logits, vocab, copy, err);
  if (status == GPTVQ_OK) status = sample(sampler, copy, vocab, token, err);
  free(copy);
  return status;
}

gptvq_status gptvq_sample(gptvq_sampler *sampler, const float *logits, size_t vocab, int32_t *token,
                          gptvq_error *err) {
  gptvq_sampler own = {.size = sizeof own, .top_p = 1.0f};
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_sampler, sampler, &own, err));
  gptvq_status status = check_and_sample(&own, logits, vocab, token, err);
  sampler->state = own.state;
  return status;
}
