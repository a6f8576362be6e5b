/* The scheduler of gptvq serve: texts together are what they are alone, prompts are shared, and what nobody
 * waits for is let go of. */
#include "base/clock.h"
#include "base/file.h"
#include "server/engine.h"
#include "server/scheduler.h"

#include <gptvq/quantize.h>

#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL TEST_SOURCE_DIR "/examples/stories-4m"

enum { SLOTS = 4, CTX = 320, QUEUE = 64, MOST = 40, PIECE = 256 };

static gptvq_model *model;
static gptvq_tokenizer *tokenizer;
static gptvq_scheduler *scheduler;
static size_t vocab;
static gptvq_error err;

#define ok(expression) assert_int_equal((expression), GPTVQ_OK)

static int set_up(void **state) {
  (void)state;
  /* activations are rounded: the same to the bit in whatever company */
  const gptvq_model_options options = {.size = sizeof options, .compute = GPTVQ_COMPUTE_BF16};
  gptvq_model_info info = {.size = sizeof info};
  ok(gptvq_model_open(MODEL, &options, &model, &err));
  ok(gptvq_tokenizer_open(MODEL, &tokenizer, &err));
  gptvq_model_get_info(model, &info);
  vocab = info.vocab;
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  gptvq_tokenizer_close(tokenizer);
  gptvq_model_close(model);
  return 0;
}

static int begin(void **state) {
  (void)state;
  const gptvq_scheduler_options options = {.slots = SLOTS, .ctx = CTX, .queue = QUEUE};
  ok(gptvq_scheduler_create(model, tokenizer, &options, &scheduler, &err));
  return 0;
}

static int end(void **state) {
  (void)state;
  gptvq_scheduler_destroy(scheduler);
  return 0;
}

static void set_prompt(gptvq_job *job, const char *text) {
  ok(gptvq_tokenizer_encode(tokenizer, text, strlen(text), 1, &job->ids, &job->prompt_count, &err));
}

/* Greedy, of one job for each text. */
static gptvq_request *ask(size_t count, const char *const *texts, size_t most) {
  gptvq_request *request;
  ok(gptvq_request_create(count, &request, &err));
  request->options.sampler.temperature = 0;
  request->options.max_tokens = most;
  for (size_t i = 0; i < count; i++) set_prompt(&request->jobs[i], texts[i]);
  return request;
}

static void wait_for(gptvq_request *request) {
  for (;;) {
    (void)pthread_mutex_lock(&request->lock);
    size_t left = request->left;
    (void)pthread_mutex_unlock(&request->lock);
    if (left == 0) return;
    assert_true(gptvq_request_wait(request, -1));
  }
}

static void answer(gptvq_request *request) {
  assert_int_equal(gptvq_scheduler_submit(scheduler, request), GPTVQ_ADMITTED);
  wait_for(request);
  gptvq_scheduler_end(scheduler, request);
}

/* The same without the scheduler. */
static void assert_alone(const gptvq_job *job, size_t most) {
  gptvq_session *session;
  float *logits = malloc(vocab * sizeof *logits);
  gptvq_sampler sampler = {.size = sizeof sampler, .top_p = 1};
  ok(gptvq_session_create(model, CTX, &session, &err));
  for (size_t at = 0; at < job->prompt_count; at += PIECE)
    ok(gptvq_session_forward(session, job->ids + at,
                             at + PIECE < job->prompt_count ? PIECE : job->prompt_count - at, logits, 0,
                             &err));
  assert_int_equal(job->generated, most);
  for (size_t i = 0; i < most; i++) {
    int32_t id;
    ok(gptvq_sample(&sampler, logits, vocab, &id, &err));
    assert_int_equal(id, job->ids[job->prompt_count + i]);
    ok(gptvq_session_forward(session, &id, 1, logits, 0, &err));
  }
  gptvq_session_destroy(session);
  free(logits);
}

static const char *const texts[] = {"Once upon a time",
                                    "One day a little dog",
                                    "Tom and Lily went to the park to",
                                    "The",
                                    "It was raining and the big red ball",
                                    "She said",
                                    "There was a cat who liked to climb trees, and one day the cat",
                                    "A boy"};
enum { TEXTS = sizeof texts / sizeof texts[0] };
/* Long enough to be worth sharing. */
static const char story[] =
    "Once upon a time there was a little girl who lived in a small house near the forest. "
    "Every day she went out to play with her dog, and they ran and jumped until";

static void texts_together_are_what_they_are_alone(void **state) {
  (void)state;
  gptvq_request *request = ask(TEXTS, texts, MOST);
  request->options.ignore_eos = true;
  answer(request);
  for (size_t i = 0; i < TEXTS; i++) {
    const gptvq_job *job = &request->jobs[i];
    char *text;
    size_t size;
    assert_int_equal(job->finish, GPTVQ_FINISH_LENGTH);
    assert_alone(job, MOST);
    ok(gptvq_tokenizer_decode(tokenizer, job->ids + job->prompt_count, MOST, 1, &text, &size, &err));
    assert_int_equal(size, job->text_size);
    assert_memory_equal(text, job->text, size);
    gptvq_free(text);
  }
  const gptvq_scheduler_stats stats = gptvq_scheduler_get_stats(scheduler);
  assert_int_equal(stats.generated_tokens, TEXTS * MOST);
  assert_int_equal(stats.busy + stats.queued, 0);
  /* the passes are shared: eight texts in four slots need half as many steps as four alone */
  assert_true(stats.steps < 3 * MOST);
  gptvq_request_destroy(request);
}

static void seeds_decide_whoever_else_is_there(void **state) {
  (void)state;
  char first[4096] = "";
  for (int round = 0; round < 2; round++) {
    gptvq_request *request = ask(round == 0 ? 1 : TEXTS, texts, MOST);
    request->options.sampler.temperature = 1;
    request->options.no_cache = true;
    for (size_t i = 0; i < request->count; i++) request->jobs[i].seed = 7 + i;
    answer(request);
    const gptvq_job *job = &request->jobs[0];
    assert_true(job->text_size < sizeof first);
    if (round == 0) memcpy(first, job->text, job->text_size);
    assert_memory_equal(first, job->text, job->text_size);
    gptvq_request_destroy(request);
  }
}

static void prompts_are_shared(void **state) {
  (void)state;
  const char *const same[] = {story, story, story};
  gptvq_request *request = ask(3, same, MOST);
  answer(request);
  size_t count = request->jobs[0].prompt_count;
  assert_true(count > 30);
  assert_int_equal(request->jobs[0].cached, 0);
  for (size_t i = 1; i < 3; i++) assert_int_equal(request->jobs[i].cached, count - 1);
  gptvq_request *again = ask(1, same, MOST);
  answer(again);
  assert_int_equal(again->jobs[0].cached, count - 1);

  /* what differs behind the beginning shares the beginning alone */
  char other[sizeof story + 32];
  (void)snprintf(other, sizeof other, "%.*s in the garden", (int)sizeof story / 2, story);
  const char *const others[] = {other};
  gptvq_request *third = ask(1, others, MOST);
  answer(third);
  assert_in_range(third->jobs[0].cached, 16, count - 2);
  const gptvq_scheduler_stats stats = gptvq_scheduler_get_stats(scheduler);
  assert_int_equal(stats.cached_tokens, 3 * (count - 1) + third->jobs[0].cached);
  gptvq_request_destroy(request);
  gptvq_request_destroy(again);
  gptvq_request_destroy(third);
}

/* Scores of a prompt by itself: logits of all places, in one call. */
static void assert_scores(const gptvq_job *job) {
  gptvq_session *session;
  float *logits = malloc(job->prompt_count * vocab * sizeof *logits);
  ok(gptvq_session_create(model, CTX, &session, &err));
  ok(gptvq_session_forward(session, job->ids, job->prompt_count, logits, 1, &err));
  assert_int_equal(job->prompt_scores.count, job->prompt_count);
  assert_true(isnan(job->prompt_scores.logprobs[0]));
  for (size_t i = 1; i < job->prompt_count; i++) {
    const float *row = logits + (i - 1) * vocab;
    double sum = 0;
    float best = -INFINITY;
    for (size_t v = 0; v < vocab; v++) {
      sum += exp((double)row[v]);
      if (row[v] > best) best = row[v];
    }
    /* where a part was there already the pieces are others, whose inputs were rounded to 8 bits on the way */
    double bound = job->cached == 0 ? 1e-5 : 0.05;
    double own = (double)row[job->ids[i]] - log(sum), likeliest = (double)best - log(sum);
    assert_true(fabs((double)job->prompt_scores.logprobs[i] - own) < bound * (1 + fabs(own)));
    assert_true(fabs((double)job->prompt_scores.top[i * 2].logprob - likeliest) <
                bound * (1 + fabs(likeliest)));
    assert_true(job->prompt_scores.top[i * 2].logprob >= job->prompt_scores.top[i * 2 + 1].logprob);
  }
  gptvq_session_destroy(session);
  free(logits);
}

static void prompts_are_scored_once(void **state) {
  (void)state;
  for (int round = 0; round < 2; round++) {
    char longer[sizeof story + 32];
    (void)snprintf(longer, sizeof longer, "%s they were tired", story);
    const char *const both[] = {story, longer};
    gptvq_request *request = ask(2, both, 1);
    request->options.scores = request->options.prompt_scores = true;
    request->options.alternatives = 2;
    answer(request);
    for (size_t i = 0; i < 2; i++) {
      assert_scores(&request->jobs[i]);
      assert_int_equal(request->jobs[i].scores.count, 1);
    }
    assert_true(request->jobs[1].cached > 30); /* the other's scores too */
    if (round == 1) assert_int_equal(request->jobs[1].cached, request->jobs[1].prompt_count - 1);
    gptvq_request_destroy(request);
  }
  /* a text without scores in the same slots does not leave wrong ones behind */
  const char *const plain[] = {story, texts[0], texts[1], texts[2]};
  gptvq_request *request = ask(4, plain, MOST);
  answer(request);
  gptvq_request_destroy(request);
  const char *const one[] = {story};
  request = ask(1, one, 0);
  request->options.prompt_scores = true;
  request->options.alternatives = 2;
  answer(request);
  assert_int_equal(request->jobs[0].finish, GPTVQ_FINISH_LENGTH);
  assert_int_equal(request->jobs[0].generated, 0);
  assert_scores(&request->jobs[0]);
  gptvq_request_destroy(request);
}

static void stop_texts_end_answers(void **state) {
  (void)state;
  gptvq_request *whole = ask(1, texts, MOST), *cut = ask(1, texts, MOST), *held = ask(1, texts, MOST);
  answer(whole);
  /* from the middle of one token to the middle of another */
  char stop[8] = "", wrong[8];
  memcpy(stop, whole->jobs[0].text + 20, 7);
  memcpy(wrong, stop, sizeof wrong);
  wrong[6] = '#'; /* held back, and then not what it might have been */
  cut->options.stops[0] = stop;
  held->options.stops[0] = wrong;
  cut->options.stop_sizes[0] = held->options.stop_sizes[0] = 7;
  cut->options.stop_count = held->options.stop_count = 1;
  answer(cut);
  assert_int_equal(cut->jobs[0].finish, GPTVQ_FINISH_STOP);
  size_t size = cut->jobs[0].text_size;
  assert_in_range(size, 1, 20);
  assert_memory_equal(cut->jobs[0].text, whole->jobs[0].text, size);
  assert_memory_equal(whole->jobs[0].text + size, stop, 7);
  assert_true(cut->jobs[0].generated <= cut->jobs[0].sampled);
  answer(held);
  assert_int_equal(held->jobs[0].text_size, whole->jobs[0].text_size);
  assert_int_equal(held->jobs[0].finish, GPTVQ_FINISH_LENGTH);
  gptvq_request_destroy(whole);
  gptvq_request_destroy(cut);
  gptvq_request_destroy(held);
}

static void biases_and_penalties_change_answers(void **state) {
  (void)state;
  gptvq_request *usual = ask(1, texts, MOST), *biased = ask(1, texts, MOST), *fresh = ask(1, texts, MOST);
  answer(usual);
  int32_t first = usual->jobs[0].ids[usual->jobs[0].prompt_count];
  biased->options.bias = malloc(sizeof *biased->options.bias);
  biased->options.bias[0] = (gptvq_bias){first, -100};
  biased->options.bias_count = 1;
  answer(biased);
  for (size_t i = 0; i < MOST; i++)
    assert_int_not_equal(biased->jobs[0].ids[biased->jobs[0].prompt_count + i], first);
  fresh->options.presence = 100; /* nothing is said twice */
  answer(fresh);
  const int32_t *made = fresh->jobs[0].ids + fresh->jobs[0].prompt_count;
  for (size_t i = 0; i < MOST; i++)
    for (size_t j = 0; j < i; j++) assert_int_not_equal(made[i], made[j]);
  gptvq_request_destroy(usual);
  gptvq_request_destroy(biased);
  gptvq_request_destroy(fresh);
}

static void nobody_waits_for_what_is_not_wanted(void **state) {
  (void)state;
  const char *many[QUEUE];
  for (size_t i = 0; i < QUEUE; i++) many[i] = story;
  gptvq_request *crowd = ask(QUEUE, many, CTX), *late = ask(QUEUE, many, CTX), *one = ask(1, texts, 4);
  crowd->options.ignore_eos = true;
  assert_int_equal(gptvq_scheduler_submit(scheduler, crowd), GPTVQ_ADMITTED);
  assert_int_equal(gptvq_scheduler_submit(scheduler, late), GPTVQ_QUEUE_FULL);
  while (gptvq_scheduler_get_stats(scheduler).busy < SLOTS) (void)gptvq_request_wait(crowd, -1);
  gptvq_scheduler_end(scheduler, crowd);
  const gptvq_scheduler_stats stats = gptvq_scheduler_get_stats(scheduler);
  assert_int_equal(stats.busy + stats.queued, 0);
  assert_int_equal(stats.cancelled, QUEUE);
  for (size_t i = 0; i < QUEUE; i++) assert_int_equal(crowd->jobs[i].finish, GPTVQ_FINISH_FAILED);
  answer(one); /* and all goes on as ever */
  assert_alone(&one->jobs[0], 4);
  /* time that is up */
  gptvq_request *slow = ask(1, many, CTX);
  slow->options.ignore_eos = true;
  slow->deadline = gptvq_clock() + 1e-3;
  answer(slow);
  assert_int_equal(slow->jobs[0].finish, GPTVQ_FINISH_FAILED);
  assert_int_equal(slow->jobs[0].error.status, GPTVQ_ERROR_CANCELLED);
  gptvq_scheduler_drain(scheduler);
  gptvq_request *too_late = ask(1, texts, 1);
  assert_int_equal(gptvq_scheduler_submit(scheduler, too_late), GPTVQ_DRAINING);
  gptvq_request_destroy(crowd);
  gptvq_request_destroy(late);
  gptvq_request_destroy(one);
  gptvq_request_destroy(slow);
  gptvq_request_destroy(too_late);
}

static void answers_end_where_the_context_does(void **state) {
  (void)state;
  gptvq_request *request = ask(1, texts, SIZE_MAX / 2);
  request->options.ignore_eos = true;
  answer(request);
  assert_int_equal(request->jobs[0].finish, GPTVQ_FINISH_LENGTH);
  assert_int_equal(request->jobs[0].prompt_count + request->jobs[0].generated, CTX);
  gptvq_request_destroy(request);
}

/* ---- prompts together: a packed model, in int8 ---- */

static char scratch[] = "gptvq-test-XXXXXX";

static int set_up_packed(void **state) {
  gptvq_quantize_options o = {.size = sizeof o};
  const gptvq_model_options options = {.size = sizeof options, .compute = GPTVQ_COMPUTE_INT8};
  gptvq_model_info info = {.size = sizeof info};
  (void)state;
  gptvq_quantize_options_init(&o);
  o.method = GPTVQ_METHOD_KMEANS;
  o.bits = 2.25;
  o.dim = 2;
  o.em_iterations = 2;
  if (mkdtemp(scratch) == NULL || chdir(scratch) != 0) return -1;
  ok(gptvq_quantize(MODEL, "packed", &o, NULL, NULL, &err));
  ok(gptvq_model_open("packed", &options, &model, &err));
  ok(gptvq_tokenizer_open("packed", &tokenizer, &err));
  gptvq_model_get_info(model, &info);
  vocab = info.vocab;
  return 0;
}

static int tear_down_packed(void **state) {
  (void)tear_down(state);
  ok(gptvq_remove_tree("packed", &err));
  return chdir("..") == 0 && rmdir(scratch) == 0 ? 0 : -1;
}

enum { TEXT = 4096 };

static size_t tokens_of(const char *text) {
  gptvq_job job = {.ids = NULL};
  set_prompt(&job, text);
  gptvq_free(job.ids);
  return job.prompt_count;
}

/* A prompt of at least so many tokens that begins with the number. */
static const char *long_prompt(size_t number, size_t least, char text[TEXT]) {
  size_t length = (size_t)snprintf(text, TEXT, "%zu and %zu. %s", number, number * number, story);
  while (tokens_of(text) < least)
    length += (size_t)snprintf(text + length, TEXT - length, ". Then %s", "the dog ran to the big red ball");
  return text;
}

/* What the server says at its start is what the allocator gives out, but for what that adds to a piece. */
static void memory_is_what_was_estimated(void **state) {
  (void)state;
#if defined __GLIBC__ && __GLIBC_PREREQ(2, 33)
  static const size_t slots[] = {1, 3, SLOTS}, contexts[] = {64, CTX, 2048};
  for (size_t i = 0; i < 3; i++) {
    gptvq_engine *engine;
    const size_t estimate = gptvq_engine_estimate(model, slots[i], contexts[i]);
    const struct mallinfo2 before = mallinfo2();
    ok(gptvq_engine_create(model, tokenizer, slots[i], contexts[i], &engine, &err));
    const struct mallinfo2 after = mallinfo2();
    gptvq_engine_destroy(engine);
    const size_t taken = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
    if (taken == 0) skip(); /* a sanitizer's allocator, which counts for itself */
    /* pieces are of whole 64 bytes and aligned to them, with 16 before them; large ones are of whole pages */
    const size_t pieces = 8 * slots[i] + 16, pages = after.hblks - before.hblks;
    assert_in_range(taken, estimate, estimate + pieces * 144 + pages * 2 * 4096);
  }
  assert_int_equal(gptvq_engine_estimate(model, 4, SIZE_MAX / 2), SIZE_MAX);
#else
  skip();
#endif
}

/* Logits of prompts in one pass are those of each by itself, to the bit, wherever the sessions are. */
static void prompts_together_are_prompts_alone(void **state) {
  (void)state;
  const size_t least = gptvq_batch_prompt_tokens(model);
  if (least == 0) skip();
  enum { N = 5 };
  const size_t counts[N] = {least, 33, 64, 100, 41}, before[N] = {0, 3, 17, 40, 0};
  gptvq_session *together[N], *alone[N];
  static int32_t ids[N][160];
  const int32_t *tokens[N];
  gptvq_batch *batch;
  gptvq_error error = {0};
  float *both = malloc((N + 1) * vocab * sizeof *both), *one = both + N * vocab;
  assert_non_null(both);
  ok(gptvq_batch_create(model, 400, &batch, &err));
  for (size_t i = 0; i < N; i++) {
    for (size_t p = 0; p < 160; p++) ids[i][p] = (int32_t)((i * 131 + p * (7 + 2 * i) + p * p) % vocab);
    ok(gptvq_session_create(model, CTX, &together[i], &err));
    ok(gptvq_session_forward(together[i], ids[i], before[i], NULL, 0, &err));
    ok(gptvq_session_fork(together[i], &alone[i], &err));
    tokens[i] = ids[i] + before[i];
  }
  for (size_t n = N; n >= 2; n--) { /* company of other sizes */
    ok(gptvq_batch_forward(batch, n, together, tokens, counts, both, &err));
    for (size_t i = 0; i < n; i++) {
      if (n == N) ok(gptvq_session_forward(alone[i], tokens[i], counts[i], one, 0, &err));
      assert_int_equal(gptvq_session_position(together[i]), before[i] + counts[i]);
      if (n == N) assert_memory_equal(both + i * vocab, one, vocab * sizeof *one);
      int32_t next = 5;
      gptvq_session *after;
      ok(gptvq_session_fork(together[i], &after, &err)); /* keys and values too */
      ok(gptvq_session_forward(after, &next, 1, both + i * vocab, 0, &err));
      gptvq_session_destroy(after);
      ok(gptvq_session_fork(alone[i], &after, &err));
      ok(gptvq_session_forward(after, &next, 1, one, 0, &err));
      assert_memory_equal(both + i * vocab, one, vocab * sizeof *one);
      gptvq_session_destroy(after);
      ok(gptvq_session_truncate(together[i], before[i], &err));
    }
  }
  /* prompts and single tokens do not go together, nor more tokens than there is room for */
  const size_t mixed[] = {least, 1}, small[] = {least, least - 1}, large[] = {160, 160, 160};
  assert_int_equal(gptvq_batch_forward(batch, 2, together, tokens, mixed, both, &error),
                   GPTVQ_ERROR_ARGUMENT);
  assert_int_equal(gptvq_batch_forward(batch, 2, together, tokens, small, both, &error),
                   GPTVQ_ERROR_ARGUMENT);
  assert_int_equal(gptvq_batch_forward(batch, 3, together, (const int32_t *const[]){ids[0], ids[1], ids[2]},
                                       large, both, &error),
                   GPTVQ_ERROR_ARGUMENT);
  for (size_t i = 0; i < N; i++) assert_int_equal(gptvq_session_position(together[i]), before[i]);
  gptvq_batch_destroy(batch);
  for (size_t i = 0; i < N; i++) {
    gptvq_session_destroy(together[i]);
    gptvq_session_destroy(alone[i]);
  }
  free(both);
}

/* Prompts of several texts are computed in one pass, and each text is what it is alone. Those of more than a
 * piece take as many passes as pieces fit into them. */
static void prompts_share_passes(void **state) {
  (void)state;
  static char memory[SLOTS][TEXT];
  const char *prompts[SLOTS];
  if (gptvq_batch_prompt_tokens(model) == 0) skip(); /* no kernels for it here */
  for (size_t i = 0; i < SLOTS; i++) prompts[i] = long_prompt(i + 2, 0, memory[i]);
  gptvq_request *request = ask(SLOTS, prompts, MOST);
  request->options.ignore_eos = true;
  answer(request);
  gptvq_scheduler_stats stats = gptvq_scheduler_get_stats(scheduler);
  size_t tokens = 0;
  for (size_t i = 0; i < SLOTS; i++) {
    assert_int_equal(request->jobs[i].cached, 0);
    assert_alone(&request->jobs[i], MOST);
    tokens += request->jobs[i].prompt_count;
  }
  assert_int_equal(stats.prompt_passes, 1);
  assert_int_equal(stats.prompt_texts, SLOTS);
  assert_int_equal(stats.prompt_tokens, tokens);
  gptvq_request_destroy(request);

  /* longer than a piece: two times 256 tokens, twice; then what is left of all four */
  for (size_t i = 0; i < SLOTS; i++) prompts[i] = long_prompt(i + 12, 256 + 24, memory[i]);
  request = ask(SLOTS, prompts, 4);
  request->options.ignore_eos = true;
  answer(request);
  for (size_t i = 0; i < SLOTS; i++) {
    assert_in_range(request->jobs[i].prompt_count, 256 + 24, CTX - 4);
    assert_alone(&request->jobs[i], 4);
  }
  const uint64_t before = stats.prompt_passes;
  stats = gptvq_scheduler_get_stats(scheduler);
  assert_int_equal(stats.prompt_passes - before, 3);
  gptvq_request_destroy(request);
}

/* Texts whose client goes away in the middle of a shared pass take no other with them. */
static void a_shared_pass_outlives_a_client(void **state) {
  (void)state;
  static char memory[SLOTS][TEXT];
  const char *prompts[SLOTS];
  if (gptvq_batch_prompt_tokens(model) == 0) skip();
  for (size_t i = 0; i < SLOTS; i++) prompts[i] = long_prompt(i + 2, 256, memory[i]);
  for (size_t round = 0; round < 8; round++) {
    gptvq_request *stays = ask(2, prompts, 2), *goes = ask(2, prompts + 2, 2);
    stays->options.no_cache = goes->options.no_cache = stays->options.ignore_eos = true;
    assert_int_equal(gptvq_scheduler_submit(scheduler, goes), GPTVQ_ADMITTED);
    assert_int_equal(gptvq_scheduler_submit(scheduler, stays), GPTVQ_ADMITTED);
    const double until = gptvq_clock() + 1e-3 * (double)round;
    while (gptvq_clock() < until) continue;
    gptvq_scheduler_end(scheduler, goes);
    wait_for(stays);
    gptvq_scheduler_end(scheduler, stays);
    for (size_t i = 0; i < 2; i++) assert_alone(&stays->jobs[i], 2);
    gptvq_request_destroy(stays);
    gptvq_request_destroy(goes);
  }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
  const struct CMUnitTest tests[] = {cmocka_unit_test(memory_is_what_was_estimated),
                                     TEST(texts_together_are_what_they_are_alone),
                                     TEST(seeds_decide_whoever_else_is_there),
                                     TEST(prompts_are_shared),
                                     TEST(prompts_are_scored_once),
                                     TEST(stop_texts_end_answers),
                                     TEST(biases_and_penalties_change_answers),
                                     TEST(nobody_waits_for_what_is_not_wanted),
                                     TEST(answers_end_where_the_context_does)};
  const struct CMUnitTest packed[] = {cmocka_unit_test(memory_is_what_was_estimated),
                                      cmocka_unit_test(prompts_together_are_prompts_alone),
                                      TEST(prompts_share_passes), TEST(a_shared_pass_outlives_a_client)};
  return cmocka_run_group_tests(tests, set_up, tear_down) +
         cmocka_run_group_tests(packed, set_up_packed, tear_down_packed);
}
