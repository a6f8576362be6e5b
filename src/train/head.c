#include "train/head.h"

#include "base/memory.h"
#include "base/threads.h"
#include "train/pieces.h"

#include <math.h>

enum { TOKENS = GPTVQ_FT_LOGIT_TOKENS };

static void take_arrays(gptvq_arena *arena, bool own_head, gptvq_ft_head *head) {
  gptvq_ft_projection *p = &head->projection;
  head->original = gptvq_arena_take(arena, gptvq_ft_projection_matrix_bytes(p), 1);
  head->student = own_head ? gptvq_arena_take(arena, gptvq_ft_projection_matrix_bytes(p), 1) : head->original;
  p->states = p->rounds ? gptvq_arena_take(arena, gptvq_ft_projection_states_bytes(p), 1) : NULL;
  for (size_t i = 0; i < 2; i++)
    head->logits[i] = gptvq_arena_take(arena, gptvq_ft_projection_floats(p), sizeof *head->logits[i]);
  head->losses = gptvq_arena_take(arena, TOKENS, sizeof *head->losses);
}

size_t gptvq_ft_head_bytes(const gptvq_model *original, bool own_head, gptvq_compute compute) {
  gptvq_ft_head head = {.projection = gptvq_ft_projection_of(original, compute)};
  gptvq_arena counted = {0};
  take_arrays(&counted, own_head, &head);
  return counted.peak;
}

gptvq_status gptvq_ft_head_create(const gptvq_model *original, const gptvq_linear *head,
                                  gptvq_compute compute, gptvq_ft_head *out, gptvq_error *err) {
  static const char name[] = "fine-tuning: the model's head and logits";
  *out = (gptvq_ft_head){.projection = gptvq_ft_projection_of(original, compute)};
  GPTVQ_TRY(
      gptvq_arena_create(&out->memory, gptvq_ft_head_bytes(original, head != NULL, compute), name, err));
  take_arrays(&out->memory, head != NULL, out);
  gptvq_status status = gptvq_arena_check(&out->memory, name, err);
  if (status != GPTVQ_OK) {
    gptvq_ft_head_release(out);
    return status;
  }
  gptvq_ft_projection_read(&out->projection, &original->head, out->logits[0], out->original);
  if (head != NULL) gptvq_ft_projection_read(&out->projection, head, out->logits[0], out->student);
  return GPTVQ_OK;
}

void gptvq_ft_head_release(gptvq_ft_head *head) {
  gptvq_arena_destroy(&head->memory);
  *head = (gptvq_ft_head){0};
}

/* Turns one row of scores into log-probabilities; returns what was subtracted. */
static float log_softmax(float *row, size_t n) {
  float max = row[0];
  for (size_t i = 1; i < n; i++) max = row[i] > max ? row[i] : max;
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += (double)gptvq_ft_exp(row[i] - max);
  float shift = max + (float)log(sum);
  for (size_t i = 0; i < n; i++) row[i] -= shift;
  return shift;
}

typedef struct divergence_job {
  const gptvq_ft_head *head;
  double weight;
} divergence_job;

/* losses[token] = KL(teacher ‖ student); logits become weight · dKL/dlogits = weight · (student − teacher).
 */
static void divergence_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const divergence_job *job = context;
  const gptvq_ft_head *head = job->head;
  const size_t n = head->projection.vocab;
  for (size_t token = begin; token < end; token++) {
    float *student = head->logits[0] + token * n, *teacher = head->logits[1] + token * n;
    float shift = log_softmax(student, n);
    (void)log_softmax(teacher, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
      float p = gptvq_ft_exp(teacher[i]), q = gptvq_ft_exp(student[i]);
      sum += (double)p * ((double)teacher[i] - (double)student[i]);
      student[i] =
          (float)job->weight * (q - p) * gptvq_ft_cap_slope(head->projection.cap, student[i] + shift);
    }
    head->losses[token] = sum;
    gptvq_ft_projection_round(&head->projection, student);
  }
}

double gptvq_ft_head_divergence(const gptvq_ft_head *head, size_t tokens, const float *student,
                                const float *teacher, double weight, float *gradient) {
  const gptvq_ft_projection *p = &head->projection;
  double sum = 0;
  for (size_t first = 0; first < tokens; first += TOKENS) {
    const size_t n = gptvq_min_size(TOKENS, tokens - first), at = first * p->hidden;
    gptvq_ft_project(p, n, student + at, head->student, head->logits[0]);
    gptvq_ft_project(p, n, teacher + at, head->original, head->logits[1]);
    divergence_job job = {head, weight};
    gptvq_parallel_for(n, 4, divergence_task, &job);
    for (size_t i = 0; i < n; i++) sum += head->losses[i];
    if (weight != 0.0) gptvq_ft_project_back(p, n, head->logits[0], head->student, gradient + at);
  }
  return sum;
}
