/* model/layer/experts.h: which of a block's MLPs each token goes through, and its way there and back. */
#ifndef GPTVQ_MODEL_LAYER_EXPERTS_H
#define GPTVQ_MODEL_LAYER_EXPERTS_H

#include "model/arch/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gptvq_routing {
  size_t max_rows, hidden, experts, used; /* `used` experts a token */
  gptvq_router_rule rule;
  const float *correction; /* [experts] or NULL: added to what experts are chosen by */
  float *logits;           /* [max_rows × experts]: the router's, then probabilities */
  float *choice;           /* [2 × experts]: what they are chosen by, and their groups */
  float *gathered;         /* [max_rows × hidden]: the inputs of one expert, then its outputs */
  uint32_t *chosen;        /* [max_rows × used] */
  float *share;            /* [max_rows × used] */
  uint32_t *members;       /* [max_rows]: token of each gathered row */
  float *member_share;     /* [max_rows] */
} gptvq_routing;

/* Bytes of its arrays for these sizes; SIZE_MAX on overflow. */
size_t gptvq_routing_bytes(const gptvq_routing *routing);
/* Sets them up in so many bytes, aligned to 64. */
void gptvq_routing_place(gptvq_routing *routing, char *memory);

/* From finite logits of n tokens: chosen and share. The experts of the `used` largest, lowest expert first
 * among equals, and their probabilities, or their shares of the sum of these. False: there are not so many
 * experts. */
bool gptvq_route(gptvq_routing *routing, size_t n);
/* Rows of x[n × hidden] that chose the expert, in their order; returns how many. */
size_t gptvq_route_gather(gptvq_routing *routing, size_t expert, size_t n, const float *x);
/* All n tokens with the share sigmoid(gate), or 1 where `gate` is NULL; their inputs are not gathered. */
size_t gptvq_route_everyone(gptvq_routing *routing, size_t n, const float *gate);
/* sum += share · gathered, each row to its token. */
void gptvq_route_scatter(const gptvq_routing *routing, size_t members, float *sum);

#endif
