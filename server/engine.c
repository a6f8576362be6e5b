#include "server/engine.h"

#include "server/answer.h"
#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"

#include <math.h>
#include <string.h>

/* Tokens of a prompt that are computed together while others wait: the pieces begin at its multiples, so that
 * what is computed does not depend on who else is there. */
enum { PIECE = 256, TOGETHER = 512 };               /* TOGETHER: tokens of a pass */
static const size_t logit_bytes = (size_t)64 << 20; /* of a piece that is scored */

/* Rows of logits when a prompt is scored. */
static size_t score_rows(size_t vocab) {
  return gptvq_max_size(1, gptvq_min_size(PIECE, logit_bytes / (vocab * sizeof(float))));
}

/* Tokens of a piece that may be with others; 0: none is. */
static size_t prompt_least(const gptvq_model *model, size_t slots) {
  return slots > 1 ? gptvq_batch_prompt_tokens(model) : 0;
}

size_t gptvq_engine_estimate(const gptvq_model *model, size_t slots, size_t ctx) {
  gptvq_model_info info = {.size = sizeof info};
  gptvq_model_get_info(model, &info);
  const size_t each = gptvq_saturated_sum(gptvq_session_estimate(model, ctx),
                                          gptvq_saturated_size(ctx, sizeof(int32_t)) + sizeof(gptvq_slot));
  const size_t rows = slots + gptvq_max_size(slots, score_rows(info.vocab));
  size_t bytes = gptvq_saturated_size(slots, each);
  bytes = gptvq_saturated_sum(bytes, gptvq_batch_estimate(model, slots * GPTVQ_BATCH_TOKENS));
  if (prompt_least(model, slots) > 0)
    bytes = gptvq_saturated_sum(bytes, gptvq_batch_estimate(model, TOGETHER));
  bytes = gptvq_saturated_sum(bytes, gptvq_saturated_size(rows, info.vocab * sizeof(float)));
  return gptvq_saturated_sum(bytes, sizeof(gptvq_engine));
}

gptvq_status gptvq_engine_create(const gptvq_model *model, const gptvq_tokenizer *tokenizer, size_t slots,
                                 size_t ctx, gptvq_engine **out, gptvq_error *err) {
  *out = NULL;
  gptvq_engine *engine = calloc(1, sizeof *engine);
  if (engine == NULL) return gptvq_fail_memory(err, "the scheduler", sizeof *engine);
  engine->model = model;
  engine->tokenizer = tokenizer;
  gptvq_model_info_init(&engine->info);
  gptvq_model_get_info(model, &engine->info);
  size_t vocab = engine->info.vocab;
  engine->score_rows = score_rows(vocab);
  gptvq_status status = gptvq_slots_create(model, slots, ctx, &engine->slots, err);
  if (status == GPTVQ_OK) status = gptvq_batch_create(model, slots * GPTVQ_BATCH_TOKENS, &engine->batch, err);
  engine->prompt_least = prompt_least(model, slots);
  if (status == GPTVQ_OK && engine->prompt_least > 0)
    status = gptvq_batch_create(model, TOGETHER, &engine->prompts, err);
  if (status == GPTVQ_OK) {
    size_t rows = gptvq_max_size(slots, engine->score_rows);
    engine->logits = gptvq_alloc(rows, vocab * sizeof *engine->logits);
    engine->spare = gptvq_alloc(slots, vocab * sizeof *engine->spare);
    if (engine->logits == NULL || engine->spare == NULL)
      status = gptvq_fail_memory(err, "logits", (rows + slots) * vocab * sizeof *engine->logits);
  }
  if (status != GPTVQ_OK) gptvq_engine_destroy(engine);
  else *out = engine;
  return status;
}

void gptvq_engine_destroy(gptvq_engine *engine) {
  if (engine == NULL) return;
  gptvq_batch_destroy(engine->batch);
  gptvq_batch_destroy(engine->prompts);
  gptvq_slots_destroy(&engine->slots);
  free(engine->logits);
  free(engine->spare);
  free(engine);
}

/* ---- beginning ---- */

static gptvq_status make_room(gptvq_job *job, gptvq_error *err) {
  size_t room = job->prompt_count + job->limit;
  (void)pthread_mutex_lock(&job->request->lock);
  int32_t *ids = realloc(job->ids, room * sizeof *ids);
  if (ids != NULL) job->ids = ids;
  job->begins = malloc((job->limit + 1) * sizeof *job->begins);
  (void)pthread_mutex_unlock(&job->request->lock);
  return ids != NULL && job->begins != NULL
             ? GPTVQ_OK
             : gptvq_fail_memory(err, "an answer", room * (sizeof *ids + sizeof *job->begins));
}

static gptvq_status start(gptvq_engine *engine, gptvq_slot *slot, gptvq_error *err) {
  gptvq_job *job = slot->job;
  const gptvq_job_options *o = &job->request->options;
  if (job->prompt_count > engine->slots.ctx) /* who asks has said so before, more clearly */
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "the prompt has %zu tokens, the context %zu",
                      job->prompt_count, engine->slots.ctx);
  job->limit = gptvq_min_size(o->max_tokens, engine->slots.ctx - job->prompt_count);
  job->sampler = o->sampler;
  job->sampler.state = job->seed;
  job->scores.width = o->alternatives;
  GPTVQ_TRY(make_room(job, err));
  GPTVQ_TRY(gptvq_answer_begin(job, engine->tokenizer, err));
  return gptvq_slot_begin(slot, err);
}

void gptvq_engine_start(gptvq_engine *engine, gptvq_slot *slot) {
  gptvq_error err;
  if (start(engine, slot, &err) != GPTVQ_OK) gptvq_job_fail(slot->job, &err);
}

/* ---- tokens ---- */

typedef struct choice {
  gptvq_slot *slot;
  const float *logits; /* [vocab] */
  float *spare;        /* [vocab] */
  size_t vocab;
  int32_t id;
  gptvq_status status;
  gptvq_error err;
} choice;

/* Logits with what the request adds to them and takes from them; NULL: out of memory. */
static const float *adjust(const gptvq_job *job, const float *logits, size_t vocab, float *spare) {
  const gptvq_job_options *o = &job->request->options;
  bool penalties = (o->presence != 0 || o->frequency != 0) && job->generated > 0;
  if (!penalties && o->bias_count == 0) return logits;
  unsigned char *seen = calloc(vocab / 8 + 1, 1);
  if (seen == NULL) return NULL;
  memcpy(spare, logits, vocab * sizeof *spare);
  for (size_t i = 0; i < o->bias_count; i++) spare[o->bias[i].id] += o->bias[i].value;
  for (size_t i = 0; penalties && i < job->generated; i++) {
    size_t id = (size_t)job->ids[job->prompt_count + i];
    bool first = (seen[id / 8] >> id % 8 & 1) == 0;
    seen[id / 8] = (unsigned char)(seen[id / 8] | 1u << id % 8);
    spare[id] -= o->frequency + (first ? o->presence : 0);
  }
  free(seen);
  return spare;
}

static void choose(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  choice *choices = context;
  for (size_t i = begin; i < end; i++) {
    choice *c = &choices[i];
    gptvq_job *job = c->slot->job;
    job->sampler.history = job->ids;
    job->sampler.history_count = job->prompt_count + job->generated;
    const float *logits = adjust(job, c->logits, c->vocab, c->spare);
    c->status = logits != NULL ? gptvq_sample(&job->sampler, logits, c->vocab, &c->id, &c->err)
                               : gptvq_fail_memory(&c->err, "logits", c->vocab / 8);
    if (c->status == GPTVQ_OK && job->request->options.scores)
      gptvq_scores_add_one(&job->scores, c->logits, c->vocab, c->id);
  }
}

static bool is_eos(const gptvq_engine *engine, const gptvq_job *job, int32_t id) {
  const gptvq_job_options *o = &job->request->options;
  if (o->ignore_eos) return false;
  for (size_t i = 0; i < engine->info.eos_count; i++)
    if (engine->info.eos[i] == id) return true;
  return id == gptvq_tokenizer_eos(engine->tokenizer) || (id >= 0 && id == o->end_of_turn);
}

static void end(gptvq_job *job, gptvq_finish finish) {
  gptvq_error err;
  bool stopped;
  if (gptvq_answer_flush(job, &stopped, &err) != GPTVQ_OK) gptvq_job_fail(job, &err);
  else gptvq_job_end(job, stopped ? GPTVQ_FINISH_STOP : finish);
}

/* A token that has been chosen. */
static void take(gptvq_engine *engine, gptvq_slot *slot, int32_t id) {
  gptvq_job *job = slot->job;
  gptvq_error err;
  bool stopped;
  if (is_eos(engine, job, id)) {
    end(job, GPTVQ_FINISH_STOP);
    return;
  }
  atomic_fetch_add(&engine->counts.generated_tokens, 1);
  if (gptvq_answer_add(job, id, &stopped, &err) != GPTVQ_OK) gptvq_job_fail(job, &err);
  else if (stopped) gptvq_job_end(job, GPTVQ_FINISH_STOP);
  else if (job->sampled == job->limit) end(job, GPTVQ_FINISH_LENGTH);
  else {
    slot->next = id;
    slot->decoding = true;
    gptvq_request_wake(job->request);
  }
}

static bool reserve_scores(gptvq_job *job) {
  const gptvq_scores *scores = &job->scores;
  if (!job->request->options.scores || scores->count < scores->room) return true;
  (void)pthread_mutex_lock(&job->request->lock);
  bool fine = gptvq_scores_reserve(&job->scores, gptvq_min_size(job->limit, 2 * scores->room + 64));
  (void)pthread_mutex_unlock(&job->request->lock);
  return fine;
}

/* The next token of slots[i] from logits[i × vocab]. */
static void go_on(gptvq_engine *engine, gptvq_slot *const *slots, const float *logits, size_t count) {
  size_t vocab = engine->info.vocab, n = 0;
  choice *choices = calloc(count, sizeof *choices);
  for (size_t i = 0; i < count; i++) {
    gptvq_job *job = slots[i]->job;
    gptvq_error err;
    if (job->limit == 0) end(job, GPTVQ_FINISH_LENGTH);
    else if (choices == NULL || !reserve_scores(job)) {
      (void)gptvq_fail_memory(&err, "the next token", count * sizeof *choices);
      gptvq_job_fail(job, &err);
    } else {
      choices[n++] = (choice){
          .slot = slots[i], .logits = logits + i * vocab, .spare = engine->spare + i * vocab, .vocab = vocab};
    }
  }
  gptvq_parallel_for(n, 1, choose, choices);
  for (size_t i = 0; i < n; i++) {
    if (choices[i].status == GPTVQ_OK) take(engine, choices[i].slot, choices[i].id);
    else gptvq_job_fail(choices[i].slot->job, &choices[i].err);
  }
  free(choices);
}

/* ---- prompts ---- */

static size_t rest(const gptvq_slot *slot) { return slot->job->prompt_count - slot->count; }

/* Is what is left of the prompt computed together with the others' next tokens? */
static bool joins(const gptvq_slot *slot) {
  return slot->decoding ||
         (slot->asked && !slot->job->request->options.prompt_scores && rest(slot) <= GPTVQ_BATCH_TOKENS);
}

static bool is_active(const gptvq_slot *slot) {
  return slot->job != NULL && slot->job->finish == GPTVQ_FINISH_NONE;
}

/* Tokens of the prompt that are computed next. */
static size_t piece(const gptvq_engine *engine, const gptvq_slot *slot) {
  const bool scored = slot->job->request->options.prompt_scores;
  return gptvq_min_size(rest(slot), scored ? engine->score_rows : PIECE - slot->count % PIECE);
}

static bool may_be_together(const gptvq_engine *engine, const gptvq_slot *slot) {
  return engine->prompt_least > 0 && !slot->job->request->options.prompt_scores &&
         piece(engine, slot) >= engine->prompt_least;
}

/* Whose turn is earlier, of slots that wait for a piece? */
static bool is_before(const gptvq_slot *a, const gptvq_slot *b) {
  return a->turn < b->turn || (a->turn == b->turn && a->number < b->number);
}

size_t gptvq_engine_next_prompts(gptvq_engine *engine, gptvq_slot **slots) {
  size_t waiting = 0, count = 1, tokens;
  for (size_t i = 0; i < engine->slots.count; i++) {
    gptvq_slot *slot = &engine->slots.items[i];
    if (!is_active(slot) || slot->decoding) continue;
    if (!slot->asked) {
      if (!gptvq_slots_share(&engine->slots, slot)) continue;
      atomic_fetch_add(&engine->counts.cached_tokens, slot->job->cached);
    }
    if (joins(slot)) continue;
    size_t at = waiting++;
    for (; at > 0 && is_before(slot, slots[at - 1]); at--) slots[at] = slots[at - 1];
    slots[at] = slot;
  }
  if (waiting == 0 || !may_be_together(engine, slots[0])) return gptvq_min_size(waiting, 1);
  tokens = piece(engine, slots[0]);
  for (size_t i = 1; i < waiting; i++) {
    const size_t more = piece(engine, slots[i]);
    if (!may_be_together(engine, slots[i]) || tokens + more > TOGETHER) continue;
    slots[count++] = slots[i];
    tokens += more;
  }
  return count;
}

/* Scores of the tokens behind those at [begin, begin + n). */
static gptvq_status score_piece(gptvq_engine *engine, gptvq_slot *slot, size_t begin, size_t n,
                                gptvq_error *err) {
  gptvq_job *job = slot->job;
  gptvq_scores *scores = &slot->scores;
  size_t behind = gptvq_min_size(n, job->prompt_count - begin - 1);
  if (!gptvq_scores_reserve(scores, job->prompt_count))
    return gptvq_fail_memory(err, "scores", job->prompt_count * sizeof *scores->top);
  if (scores->count == 0) {
    scores->logprobs[0] = NAN;
    for (unsigned i = 0; i < scores->width; i++) scores->top[i] = (gptvq_alternative){-1, NAN};
    scores->count = 1;
  }
  gptvq_scores_add(scores, engine->logits, engine->info.vocab, job->ids + begin + 1, behind);
  return GPTVQ_OK;
}

static gptvq_status hand_out_scores(gptvq_slot *slot, gptvq_error *err) {
  gptvq_job *job = slot->job;
  gptvq_scores *scores = &job->prompt_scores;
  scores->width = job->request->options.alternatives;
  (void)pthread_mutex_lock(&job->request->lock);
  bool fine = gptvq_scores_reserve(scores, job->prompt_count);
  if (fine) {
    gptvq_scores_copy(&slot->scores, 0, job->prompt_count, scores);
    scores->count = job->prompt_count;
  }
  (void)pthread_mutex_unlock(&job->request->lock);
  return fine ? GPTVQ_OK : gptvq_fail_memory(err, "scores", job->prompt_count * sizeof *scores->top);
}

/* *done: the prompt is. */
static gptvq_status compute_piece(gptvq_engine *engine, gptvq_slot *slot, size_t n, gptvq_error *err) {
  gptvq_job *job = slot->job;
  const bool scored = job->request->options.prompt_scores;
  const size_t begin = slot->count;
  float *logits = scored || n == rest(slot) ? engine->logits : NULL;
  GPTVQ_TRY(gptvq_session_forward(slot->session, job->ids + begin, n, logits, scored, err));
  memcpy(slot->ids + begin, job->ids + begin, n * sizeof *slot->ids);
  slot->count += n;
  if (!scored) return GPTVQ_OK;
  GPTVQ_TRY(score_piece(engine, slot, begin, n, err));
  return rest(slot) == 0 ? hand_out_scores(slot, err) : GPTVQ_OK;
}

static void prompt_one(gptvq_engine *engine, gptvq_slot *slot) {
  gptvq_job *job = slot->job;
  const bool scored = job->request->options.prompt_scores;
  const size_t n = piece(engine, slot);
  gptvq_error err;
  gptvq_status status = compute_piece(engine, slot, n, &err);
  if (status == GPTVQ_ERROR_CANCELLED) return; /* the job goes, or it was a request left over from the last */
  if (status != GPTVQ_OK) {
    gptvq_job_fail(job, &err);
    return;
  }
  atomic_fetch_add(&engine->counts.prompt_tokens, n);
  atomic_fetch_add(&engine->counts.prompt_passes, 1);
  atomic_fetch_add(&engine->counts.prompt_texts, 1);
  if (rest(slot) == 0) go_on(engine, &slot, engine->logits + (scored ? (n - 1) * engine->info.vocab : 0), 1);
}

/* ---- all together ---- */

typedef struct step {
  gptvq_slot **slots;
  gptvq_session **sessions;
  const int32_t **ids;
  size_t *counts, count;
} step;

static bool step_create(step *s, size_t room) {
  *s = (step){.slots = calloc(room, sizeof *s->slots),
              .sessions = calloc(room, sizeof *s->sessions),
              .ids = calloc(room, sizeof *s->ids),
              .counts = calloc(room, sizeof *s->counts)};
  return s->slots != NULL && s->sessions != NULL && s->ids != NULL && s->counts != NULL;
}

static void step_release(step *s) {
  free(s->slots);
  free(s->sessions);
  free(s->ids);
  free(s->counts);
}

static void commit(gptvq_engine *engine, gptvq_slot *slot, const int32_t *ids, size_t count) {
  memcpy(slot->ids + slot->count, ids, count * sizeof *ids);
  slot->count += count;
  if (!slot->decoding) atomic_fetch_add(&engine->counts.prompt_tokens, count);
}

/* Pieces of several prompts in one pass. false: not done, nothing has happened. */
static bool prompt_together(gptvq_engine *engine, gptvq_slot *const *slots, step *s) {
  gptvq_error err;
  for (size_t i = 0; i < s->count; i++) {
    s->sessions[i] = slots[i]->session;
    s->ids[i] = slots[i]->job->ids + slots[i]->count;
    s->counts[i] = piece(engine, slots[i]);
  }
  gptvq_status status =
      gptvq_batch_forward(engine->prompts, s->count, s->sessions, s->ids, s->counts, engine->logits, &err);
  if (status == GPTVQ_ERROR_CANCELLED) return true; /* one goes; the others come again */
  if (status != GPTVQ_OK) return false;
  atomic_fetch_add(&engine->counts.prompt_passes, 1);
  atomic_fetch_add(&engine->counts.prompt_texts, s->count);
  size_t done = 0;
  for (size_t i = 0; i < s->count; i++) {
    commit(engine, slots[i], s->ids[i], s->counts[i]);
    if (rest(slots[i]) > 0) continue;
    if (done < i)
      memcpy(engine->logits + done * engine->info.vocab, engine->logits + i * engine->info.vocab,
             engine->info.vocab * sizeof *engine->logits);
    s->slots[done++] = slots[i];
  }
  if (done > 0) go_on(engine, s->slots, engine->logits, done);
  return true;
}

void gptvq_engine_prompts(gptvq_engine *engine, gptvq_slot *const *slots, size_t count) {
  for (size_t i = 0; i < count; i++) slots[i]->turn = ++engine->turn;
  step s;
  bool done = count > 1 && step_create(&s, count);
  if (count > 1) {
    s.count = count;
    done = done && prompt_together(engine, slots, &s);
    step_release(&s);
  }
  for (size_t i = 0; i < count && !done; i++) prompt_one(engine, slots[i]);
}

/* One of them spoils the step: each by itself, to find out which. */
static void step_each(gptvq_engine *engine, const step *s) {
  for (size_t i = 0; i < s->count; i++) {
    gptvq_error err;
    gptvq_status status =
        gptvq_session_forward(s->sessions[i], s->ids[i], s->counts[i], engine->logits, 0, &err);
    if (status == GPTVQ_ERROR_CANCELLED) continue; /* again in the next step, or never */
    if (status != GPTVQ_OK) {
      gptvq_job_fail(s->slots[i]->job, &err);
      continue;
    }
    commit(engine, s->slots[i], s->ids[i], s->counts[i]);
    go_on(engine, &s->slots[i], engine->logits, 1);
  }
}

static void run_step(gptvq_engine *engine, const step *s) {
  gptvq_error err;
  gptvq_status status =
      gptvq_batch_forward(engine->batch, s->count, s->sessions, s->ids, s->counts, engine->logits, &err);
  atomic_fetch_add(&engine->counts.steps, 1);
  atomic_fetch_add(&engine->counts.step_texts, s->count);
  if (status != GPTVQ_OK) {
    step_each(engine, s);
    return;
  }
  for (size_t i = 0; i < s->count; i++) commit(engine, s->slots[i], s->ids[i], s->counts[i]);
  go_on(engine, s->slots, engine->logits, s->count);
}

void gptvq_engine_step(gptvq_engine *engine) {
  step s;
  bool fine = step_create(&s, engine->slots.count);
  for (size_t i = 0; i < engine->slots.count; i++) {
    gptvq_slot *slot = &engine->slots.items[i];
    if (!is_active(slot) || !joins(slot)) continue;
    if (!fine) {
      gptvq_error err;
      (void)gptvq_fail_memory(&err, "a step", engine->slots.count * sizeof s.counts[0]);
      gptvq_job_fail(slot->job, &err);
      continue;
    }
    s.slots[s.count] = slot;
    s.sessions[s.count] = slot->session;
    s.ids[s.count] = slot->decoding ? &slot->next : slot->job->ids + slot->count;
    s.counts[s.count++] = slot->decoding ? 1 : rest(slot);
  }
  if (s.count > 0) run_step(engine, &s);
  step_release(&s);
}
