/* train/head.h: the loss of whole-model fine-tuning: how far the next-token distributions of the quantized
 * model, the student, are from those of the original, the teacher. */
#ifndef GPTVQ_TRAIN_HEAD_H
#define GPTVQ_TRAIN_HEAD_H

#include "train/projection.h"
#include "train/train.h"

/* Logits are in memory for some tokens at a time. */
typedef struct gptvq_ft_head {
  gptvq_ft_projection projection;
  void *original, *student; /* [vocab × hidden]; may be the same */
  float *logits[2];         /* [some tokens × vocab]: the student's, the teacher's */
  double *losses;           /* [some tokens] */
  gptvq_arena memory;
} gptvq_ft_head;

/* head: the quantized model's output layer, NULL: the original's. On failure nothing is left allocated. */
gptvq_status gptvq_ft_head_create(const gptvq_model *original, const gptvq_linear *head,
                                  gptvq_compute compute, gptvq_ft_head *out, gptvq_error *err);
size_t gptvq_ft_head_bytes(const gptvq_model *original, bool own_head, gptvq_compute compute);
void gptvq_ft_head_release(gptvq_ft_head *head);

/* student, teacher[tokens × hidden]: normalised hidden states. Returns Σ KL(teacher ‖ student) over the
 * tokens; with `weight` != 0 gradient[tokens × hidden] = weight · d that / d student. Threaded. */
double gptvq_ft_head_divergence(const gptvq_ft_head *head, size_t tokens, const float *student,
                                const float *teacher, double weight, float *gradient);

#endif
