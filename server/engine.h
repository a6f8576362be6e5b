/* server/engine.h: one step after the other of the texts in the slots, each pass over the weights for as many
 * of them as there are. All functions are for one thread. */
#ifndef GPTVQ_SERVER_ENGINE_H
#define GPTVQ_SERVER_ENGINE_H

#include "server/slots.h"

/* What has been done so far; read from any thread. */
typedef struct gptvq_engine_counts {
  _Atomic uint64_t prompt_tokens, cached_tokens; /* computed; found in slots */
  _Atomic uint64_t generated_tokens;
  _Atomic uint64_t steps, step_texts; /* passes for single tokens; texts in them, all together */
  _Atomic uint64_t prompt_passes;     /* passes for pieces of prompts */
} gptvq_engine_counts;

typedef struct gptvq_engine {
  const gptvq_model *model;
  const gptvq_tokenizer *tokenizer;
  gptvq_model_info info;
  gptvq_slots slots;
  gptvq_batch *batch;
  size_t score_rows;     /* rows of logits when a prompt is scored */
  float *logits, *spare; /* [max(slots, score_rows) × vocab], [slots × vocab] */
  uint64_t turn;
  gptvq_engine_counts counts;
} gptvq_engine;

gptvq_status gptvq_engine_create(const gptvq_model *model, const gptvq_tokenizer *tokenizer, size_t slots,
                                 size_t ctx, gptvq_engine **out, gptvq_error *err);
void gptvq_engine_destroy(gptvq_engine *engine); /* NULL is fine */

/* A slot has got a job. May end it. */
void gptvq_engine_start(gptvq_engine *engine, gptvq_slot *slot);

/* The slot whose prompt is to go on next, or NULL. */
gptvq_slot *gptvq_engine_next_prompt(gptvq_engine *engine);
/* Computes a piece of its prompt; ends soon when its session is cancelled. May end its job. */
void gptvq_engine_prompt(gptvq_engine *engine, gptvq_slot *slot);
/* A token of all texts that are so far. May end jobs. */
void gptvq_engine_step(gptvq_engine *engine);

#endif
