#include "server/slots.h"

#include "base/memory.h"
#include "base/status.h"

#include <string.h>

/* Tokens that are worth a copy, or waiting for. */
enum { WORTH = 16 };

gptvq_status gptvq_slots_create(const gptvq_model *model, size_t count, size_t ctx, gptvq_slots *out,
                                gptvq_error *err) {
  *out = (gptvq_slots){.ctx = ctx};
  out->items = calloc(count, sizeof *out->items);
  if (out->items == NULL) return gptvq_fail_memory(err, "slots", count * sizeof *out->items);
  out->count = count;
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; i < count && status == GPTVQ_OK; i++) {
    status = gptvq_session_create(model, ctx, &out->items[i].session, err);
    out->items[i].ids = gptvq_alloc(ctx, sizeof *out->items[i].ids);
    if (status == GPTVQ_OK && out->items[i].ids == NULL)
      status = gptvq_fail_memory(err, "a slot", ctx * sizeof *out->items[i].ids);
  }
  if (status != GPTVQ_OK) gptvq_slots_destroy(out);
  return status;
}

void gptvq_slots_destroy(gptvq_slots *slots) {
  for (size_t i = 0; i < slots->count; i++) {
    gptvq_session_destroy(slots->items[i].session);
    gptvq_scores_release(&slots->items[i].scores);
    free(slots->items[i].ids);
  }
  free(slots->items);
  *slots = (gptvq_slots){.count = 0};
}

/* ---- what a slot knows of a prompt ---- */

/* Tokens of `ids` that the job's prompt begins with. */
static size_t common(const int32_t *ids, size_t count, const gptvq_job *job) {
  size_t most = gptvq_min_size(count, job->prompt_count), same = 0;
  while (same < most && ids[same] == job->ids[same]) same++;
  return same;
}

/* Where the job can go on with what is known of `same` of its first tokens: the last one has to be computed
 * for its logits, and so has, where the prompt's scores are asked for, the last one whose successor has none.
 */
static size_t reach(const gptvq_job *job, size_t same, const gptvq_scores *scores) {
  const gptvq_job_options *o = &job->request->options;
  if (o->no_cache) return 0;
  size_t most = job->prompt_count - 1;
  if (!o->prompt_scores) return gptvq_min_size(same, most);
  if (scores->width < o->alternatives) return 0;
  size_t known = gptvq_min_size(same, scores->count);
  return known > 0 ? known - 1 : 0;
}

static size_t knows(const gptvq_slot *slot, const gptvq_job *job) {
  return reach(job, common(slot->ids, slot->count, job), &slot->scores);
}

/* ---- taking one ---- */

gptvq_slot *gptvq_slots_take(gptvq_slots *slots, gptvq_job *job) {
  gptvq_slot *best = NULL, *oldest = NULL;
  size_t most = 0;
  for (size_t i = 0; i < slots->count; i++) {
    gptvq_slot *slot = &slots->items[i];
    if (slot->job != NULL) continue;
    size_t known = knows(slot, job);
    if (best == NULL || known > most) best = slot;
    if (known > most) most = known;
    if (oldest == NULL || slot->used < oldest->used) oldest = slot;
  }
  if (best == NULL) return NULL;
  /* rather than cutting off most of what a slot knows its beginning is copied */
  if (most < WORTH || 2 * most < best->count) best = oldest;
  best->job = job;
  best->number = best->used = ++slots->jobs;
  best->turn = 0;
  best->decoding = best->asked = false;
  return best;
}

void gptvq_slot_free(gptvq_slot *slot) { slot->job = NULL; }

static gptvq_status go_back(gptvq_slot *slot, size_t position, gptvq_error *err) {
  gptvq_status status = gptvq_session_truncate(slot->session, position, err);
  if (status == GPTVQ_ERROR_UNSUPPORTED) { /* its states do not go back to there: all of it again */
    position = 0;
    status = gptvq_session_truncate(slot->session, 0, err);
  }
  if (status != GPTVQ_OK) return status;
  slot->count = position;
  return GPTVQ_OK;
}

gptvq_status gptvq_slot_begin(gptvq_slot *slot, gptvq_error *err) {
  gptvq_job *job = slot->job;
  const gptvq_job_options *o = &job->request->options;
  size_t same = common(slot->ids, slot->count, job), position = knows(slot, job);
  GPTVQ_TRY(go_back(slot, position, err));
  job->cached = slot->count;
  slot->scores.count = gptvq_min_size(slot->scores.count, same);
  if (!o->prompt_scores) {
    slot->scores.count = gptvq_min_size(slot->scores.count, slot->count);
    return GPTVQ_OK;
  }
  if (slot->scores.width < o->alternatives) { /* of another width: from the beginning */
    gptvq_scores_release(&slot->scores);
    slot->scores.width = o->alternatives;
  }
  slot->scores.count = gptvq_min_size(slot->scores.count, slot->count + 1);
  return GPTVQ_OK;
}

/* ---- sharing ---- */

static gptvq_status copy(const gptvq_slot *from, size_t position, gptvq_slot *to, gptvq_error *err) {
  GPTVQ_TRY(gptvq_session_copy(from->session, position, to->session, err));
  memcpy(to->ids, from->ids, position * sizeof *to->ids);
  to->count = position;
  to->job->cached = position;
  if (!to->job->request->options.prompt_scores) {
    to->scores.count = gptvq_min_size(to->scores.count, position);
    return GPTVQ_OK;
  }
  size_t scores = position + 1; /* of the next token too: its id is the same in both */
  gptvq_scores_release(&to->scores);
  to->scores.width = to->job->request->options.alternatives;
  if (!gptvq_scores_reserve(&to->scores, scores)) {
    to->count = to->job->cached = 0;
    gptvq_session_reset(to->session);
    return gptvq_fail_memory(err, "scores", scores * sizeof *to->scores.logprobs);
  }
  gptvq_scores_copy(&from->scores, 0, scores, &to->scores);
  to->scores.count = scores;
  return GPTVQ_OK;
}

/* What a slot will know of the other's prompt when it has computed its own. */
static size_t will_know(const gptvq_slot *slot, const gptvq_job *job) {
  const gptvq_job_options *o = &slot->job->request->options;
  size_t same = common(slot->job->ids, slot->job->prompt_count, job);
  const gptvq_scores then = {.width = o->prompt_scores ? o->alternatives : 0,
                             .count = o->prompt_scores ? same : 0};
  return reach(job, same, &then);
}

bool gptvq_slots_share(gptvq_slots *slots, gptvq_slot *slot) {
  const gptvq_slot *best = NULL;
  size_t most = slot->count + WORTH;
  for (size_t i = 0; i < slots->count; i++) {
    const gptvq_slot *other = &slots->items[i];
    if (other == slot) continue;
    if (other->job != NULL && !other->decoding && other->number < slot->number) {
      size_t later = will_know(other, slot->job);
      if (later >= most && later > knows(other, slot->job)) return false;
    }
    size_t known = knows(other, slot->job);
    if (known < most) continue;
    best = other;
    most = known + 1;
  }
  slot->asked = true;
  gptvq_error err;
  if (best != NULL) (void)copy(best, most - 1, slot, &err); /* else all of it is computed */
  return true;
}
