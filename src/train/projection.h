/* train/projection.h: hidden states to logits and back, for losses of next tokens. Matrix and inputs are
 * fp32, or rounded to bf16 where products are. */
#ifndef GPTVQ_TRAIN_PROJECTION_H
#define GPTVQ_TRAIN_PROJECTION_H

#include "train/train.h"

enum { GPTVQ_FT_LOGIT_TOKENS = 256 }; /* whose logits are in memory at a time */

typedef struct gptvq_ft_projection {
  size_t hidden, vocab;
  float scale, cap; /* of logits */
  bool rounds;
  void *states; /* rounds: [GPTVQ_FT_LOGIT_TOKENS × hidden] */
} gptvq_ft_projection;

gptvq_ft_projection gptvq_ft_projection_of(const gptvq_model *model, gptvq_compute compute);
size_t gptvq_ft_projection_matrix_bytes(const gptvq_ft_projection *projection);
size_t gptvq_ft_projection_states_bytes(const gptvq_ft_projection *projection); /* 0: states stay NULL */
/* Floats of logits of GPTVQ_FT_LOGIT_TOKENS tokens, and of `scratch` below. */
size_t gptvq_ft_projection_floats(const gptvq_ft_projection *projection);
/* The output layer's weights, as products take them. */
void gptvq_ft_projection_read(const gptvq_ft_projection *projection, const gptvq_linear *linear,
                              float *scratch, void *matrix);
/* logits[n × vocab] of normalised states[n × hidden], n <= GPTVQ_FT_LOGIT_TOKENS. Threaded. */
void gptvq_ft_project(const gptvq_ft_projection *projection, size_t n, const float *states,
                      const void *matrix, float *logits);
/* A row of slopes by the logits, [vocab], as gptvq_ft_project_back takes it: with `rounds` bf16 numbers in
 * the first half of the row. */
void gptvq_ft_projection_round(const gptvq_ft_projection *projection, float *slopes);
/* gradient[n × hidden] by the states. Threaded. */
void gptvq_ft_project_back(const gptvq_ft_projection *projection, size_t n, const float *slopes,
                           const void *matrix, float *gradient);

#endif
