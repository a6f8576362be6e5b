/* server/engine.h: one step after the other of the texts in the slots, each pass over the weights for as many
 * of them as there are. All functions are for one thread. */
#ifndef GPTVQ_SERVER_ENGINE_H
#define GPTVQ_SERVER_ENGINE_H

#include "server/slots.h"

/* What has been done so far; read from any thread. */
typedef struct gptvq_engine_counts {
  _Atomic uint64_t prompt_tokens, cached_tokens; /* computed; found in slots */
  _Atomic uint64_t generated_tokens;
  _Atomic uint64_t steps, step_texts;           /* passes for single tokens; texts in them, all together */
  _Atomic uint64_t prompt_passes, prompt_texts; /* passes for pieces of prompts; pieces in them */
} gptvq_engine_counts;

typedef struct gptvq_engine {
  const gptvq_model *model;
  const gptvq_tokenizer *tokenizer;
  gptvq_model_info info;
  gptvq_slots slots;
  gptvq_batch *batch, *prompts; /* of steps; of pieces of prompts, NULL where they are not together */
  size_t prompt_least;          /* tokens of a piece that may be with others */
  size_t score_rows;            /* rows of logits when a prompt is scored */
  float *logits, *spare;        /* [max(slots, score_rows) × vocab], [slots × vocab] */
  uint64_t turn;
  gptvq_engine_counts counts;
} gptvq_engine;

/* Bytes that gptvq_engine_create takes; SIZE_MAX where they cannot be counted. */
size_t gptvq_engine_estimate(const gptvq_model *model, size_t slots, size_t ctx);
gptvq_status gptvq_engine_create(const gptvq_model *model, const gptvq_tokenizer *tokenizer, size_t slots,
                                 size_t ctx, gptvq_engine **out, gptvq_error *err);
void gptvq_engine_destroy(gptvq_engine *engine); /* NULL is fine */

/* A slot has got a job. May end it. */
void gptvq_engine_start(gptvq_engine *engine, gptvq_slot *slot);

/* The slots whose prompts are to go on next, in one pass, into slots[engine->slots.count]; returns how many.
 */
size_t gptvq_engine_next_prompts(gptvq_engine *engine, gptvq_slot **slots);
/* Computes a piece of each prompt; ends soon when one of their sessions is cancelled. May end their jobs. */
void gptvq_engine_prompts(gptvq_engine *engine, gptvq_slot *const *slots, size_t count);
/* A token of all texts that are so far. May end jobs. */
void gptvq_engine_step(gptvq_engine *engine);

#endif
