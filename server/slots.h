/* server/slots.h: the sessions that requests run in, and what they still know of earlier ones.
 *
 * A slot keeps its tokens, with their keys and values, when its job is done: the next job that begins with
 * the same tokens goes on from there, in the same slot or in another that they are copied to. */
#ifndef GPTVQ_SERVER_SLOTS_H
#define GPTVQ_SERVER_SLOTS_H

#include "server/job.h"

typedef struct gptvq_slot {
  gptvq_session *session;
  int32_t *ids; /* [ctx]: the tokens that the session has */
  size_t count;
  gptvq_scores scores; /* of ids: the first scores.count */
  uint64_t used;       /* when it last had a job, in numbers of jobs */
  /* of the job */
  gptvq_job *job;  /* NULL: the slot is free */
  uint64_t number; /* of the job: later ones are larger */
  uint64_t turn;   /* when a piece of its prompt was last computed */
  bool decoding;   /* the prompt is done, `next` follows */
  bool asked;      /* what others know of its prompt has been looked for */
  bool prompting;  /* a piece of its prompt is being computed: the scheduler's, under its lock */
  int32_t next;
} gptvq_slot;

typedef struct gptvq_slots {
  size_t count, ctx;
  gptvq_slot *items; /* [count] */
  uint64_t jobs;     /* so far */
} gptvq_slots;

gptvq_status gptvq_slots_create(const gptvq_model *model, size_t count, size_t ctx, gptvq_slots *out,
                                gptvq_error *err);
void gptvq_slots_destroy(gptvq_slots *slots);

/* A free slot for the job, the best there is; NULL: none. It is taken. */
gptvq_slot *gptvq_slots_take(gptvq_slots *slots, gptvq_job *job);
/* Makes the slot's session begin with as much of the job's prompt as it knows already; at least one token is
 * left to compute. */
gptvq_status gptvq_slot_begin(gptvq_slot *slot, gptvq_error *err);
/* Looks for another slot that knows more of the prompt, and copies it. false: one is about to know more, it
 * is better to wait for it. */
bool gptvq_slots_share(gptvq_slots *slots, gptvq_slot *slot);
void gptvq_slot_free(gptvq_slot *slot);

#endif
