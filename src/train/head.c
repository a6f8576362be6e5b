#include "train/head.h"

#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "linalg/gemm_bf16.h"
#include "model/layer/norm.h"
#include "train/pieces.h"

#include <math.h>

enum { TOKENS = 256 }; /* whose logits are in memory at a time */

static void take_arrays(gptvq_arena *arena, bool own_head, gptvq_ft_head *head) {
  const size_t size = head->rounds ? sizeof(uint16_t) : sizeof(float);
  head->original = gptvq_arena_take(arena, head->vocab, head->hidden * size);
  head->student = own_head ? gptvq_arena_take(arena, head->vocab, head->hidden * size) : head->original;
  head->states = head->rounds ? gptvq_arena_take(arena, TOKENS, head->hidden * size) : NULL;
  for (size_t i = 0; i < 2; i++)
    head->logits[i] =
        gptvq_arena_take(arena, TOKENS * gptvq_max_size(head->vocab, head->hidden), sizeof *head->logits[i]);
  head->losses = gptvq_arena_take(arena, TOKENS, sizeof *head->losses);
}

static gptvq_ft_head head_of(const gptvq_model *model, gptvq_compute compute) {
  return (gptvq_ft_head){.hidden = model->config.hidden,
                         .vocab = model->config.vocab,
                         .scale = (float)model->config.logit_scale,
                         .cap = (float)model->config.logit_cap,
                         .rounds = gptvq_ft_rounds(compute)};
}

size_t gptvq_ft_head_bytes(const gptvq_model *original, bool own_head, gptvq_compute compute) {
  gptvq_ft_head head = head_of(original, compute);
  gptvq_arena counted = {0};
  take_arrays(&counted, own_head, &head);
  return counted.peak;
}

/* The logits' memory is room for what is to be rounded. */
static void read_matrix(const gptvq_ft_head *head, const gptvq_linear *linear, void *matrix) {
  const size_t some = TOKENS * head->vocab / head->hidden;
  if (!head->rounds) {
    gptvq_linear_decode(linear, matrix);
    return;
  }
  for (size_t row = 0, count; row < head->vocab; row += count) {
    count = gptvq_min_size(gptvq_max_size(some, 1), head->vocab - row);
    gptvq_linear_decode_rows(linear, row, row + count, head->logits[0]);
    gptvq_rows_to_bf16(count, head->hidden, head->logits[0], head->hidden,
                       (uint16_t *)matrix + row * head->hidden);
  }
}

gptvq_status gptvq_ft_head_create(const gptvq_model *original, const gptvq_linear *head,
                                  gptvq_compute compute, gptvq_ft_head *out, gptvq_error *err) {
  static const char name[] = "fine-tuning: the model's head and logits";
  *out = head_of(original, compute);
  GPTVQ_TRY(
      gptvq_arena_create(&out->memory, gptvq_ft_head_bytes(original, head != NULL, compute), name, err));
  take_arrays(&out->memory, head != NULL, out);
  gptvq_status status = gptvq_arena_check(&out->memory, name, err);
  if (status != GPTVQ_OK) {
    gptvq_ft_head_release(out);
    return status;
  }
  read_matrix(out, &original->head, out->original);
  if (head != NULL) read_matrix(out, head, out->student);
  return GPTVQ_OK;
}

void gptvq_ft_head_release(gptvq_ft_head *head) {
  gptvq_arena_destroy(&head->memory);
  *head = (gptvq_ft_head){0};
}

static void make_logits(const gptvq_ft_head *head, size_t n, const float *states, const void *matrix,
                        float *logits) {
  const size_t hidden = head->hidden, vocab = head->vocab;
  if (head->rounds) {
    gptvq_rows_to_bf16(n, hidden, states, hidden, head->states);
    gptvq_gemm_bf16_tiled_nt(n, vocab, hidden, head->scale, head->states, hidden, matrix, hidden, logits,
                             vocab);
  } else gptvq_gemm_nt(n, vocab, hidden, head->scale, states, hidden, matrix, hidden, 0.0f, logits, vocab);
  if (head->cap > 0.0f) gptvq_cap_values(n * vocab, head->cap, logits);
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

/* losses[token] = KL(teacher ‖ student); logits become weight · dKL/dlogits = weight · (student − teacher),
 * as bf16 numbers in the first half of the row if they are to be rounded. */
static void divergence_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const divergence_job *job = context;
  const gptvq_ft_head *head = job->head;
  const size_t n = head->vocab;
  for (size_t token = begin; token < end; token++) {
    float *student = head->logits[0] + token * n, *teacher = head->logits[1] + token * n;
    float shift = log_softmax(student, n);
    (void)log_softmax(teacher, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
      float p = gptvq_ft_exp(teacher[i]), q = gptvq_ft_exp(student[i]);
      sum += (double)p * ((double)teacher[i] - (double)student[i]);
      student[i] = (float)job->weight * (q - p) * gptvq_ft_cap_slope(head->cap, student[i] + shift);
    }
    head->losses[token] = sum;
    if (head->rounds) gptvq_to_bf16(n, student, (uint16_t *)(void *)student);
  }
}

double gptvq_ft_head_divergence(const gptvq_ft_head *head, size_t tokens, const float *student,
                                const float *teacher, double weight, float *gradient) {
  const size_t hidden = head->hidden, vocab = head->vocab;
  double sum = 0;
  for (size_t first = 0; first < tokens; first += TOKENS) {
    const size_t n = gptvq_min_size(TOKENS, tokens - first);
    make_logits(head, n, student + first * hidden, head->student, head->logits[0]);
    make_logits(head, n, teacher + first * hidden, head->original, head->logits[1]);
    divergence_job job = {head, weight};
    gptvq_parallel_for(n, 4, divergence_task, &job);
    for (size_t i = 0; i < n; i++) sum += head->losses[i];
    if (weight == 0.0) continue;
    float *out = gradient + first * hidden;
    if (head->rounds)
      gptvq_gemm_bf16_tiled_nn(n, hidden, vocab, head->scale, (const uint16_t *)(const void *)head->logits[0],
                               2 * vocab, head->student, hidden, out, hidden);
    else
      gptvq_gemm_nn(n, hidden, vocab, head->scale, head->logits[0], vocab, head->student, hidden, 0.0f, out,
                    hidden);
  }
  return sum;
}
