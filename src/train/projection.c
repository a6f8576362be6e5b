#include "train/projection.h"

#include "base/memory.h"
#include "linalg/gemm.h"
#include "linalg/gemm_bf16.h"
#include "model/layer/norm.h"

gptvq_ft_projection gptvq_ft_projection_of(const gptvq_model *model, gptvq_compute compute) {
  return (gptvq_ft_projection){.hidden = model->config.hidden,
                               .vocab = model->config.vocab,
                               .scale = (float)model->config.logit_scale,
                               .cap = (float)model->config.logit_cap,
                               .rounds = gptvq_ft_rounds(compute)};
}

size_t gptvq_ft_projection_matrix_bytes(const gptvq_ft_projection *p) {
  return gptvq_saturated_size(gptvq_saturated_size(p->vocab, p->hidden),
                              p->rounds ? sizeof(uint16_t) : sizeof(float));
}

size_t gptvq_ft_projection_states_bytes(const gptvq_ft_projection *p) {
  return p->rounds ? gptvq_saturated_size(p->hidden, GPTVQ_FT_LOGIT_TOKENS * sizeof(uint16_t)) : 0;
}

size_t gptvq_ft_projection_floats(const gptvq_ft_projection *p) {
  return gptvq_saturated_size(gptvq_max_size(p->vocab, p->hidden), GPTVQ_FT_LOGIT_TOKENS);
}

void gptvq_ft_projection_read(const gptvq_ft_projection *p, const gptvq_linear *linear, float *scratch,
                              void *matrix) {
  const size_t some = gptvq_ft_projection_floats(p) / p->hidden;
  if (!p->rounds) {
    gptvq_linear_decode(linear, matrix);
    return;
  }
  for (size_t row = 0, count; row < p->vocab; row += count) {
    count = gptvq_min_size(some, p->vocab - row);
    gptvq_linear_decode_rows(linear, row, row + count, scratch);
    gptvq_rows_to_bf16(count, p->hidden, scratch, p->hidden, (uint16_t *)matrix + row * p->hidden);
  }
}

void gptvq_ft_project(const gptvq_ft_projection *p, size_t n, const float *states, const void *matrix,
                      float *logits) {
  const size_t hidden = p->hidden, vocab = p->vocab;
  if (p->rounds) {
    gptvq_rows_to_bf16(n, hidden, states, hidden, p->states);
    gptvq_gemm_bf16_tiled_nt(n, vocab, hidden, p->scale, p->states, hidden, matrix, hidden, logits, vocab);
  } else gptvq_gemm_nt(n, vocab, hidden, p->scale, states, hidden, matrix, hidden, 0.0f, logits, vocab);
  if (p->cap > 0.0f) gptvq_cap_values(n * vocab, p->cap, logits);
}

void gptvq_ft_projection_round(const gptvq_ft_projection *p, float *slopes) {
  if (p->rounds) gptvq_to_bf16(p->vocab, slopes, (uint16_t *)(void *)slopes);
}

void gptvq_ft_project_back(const gptvq_ft_projection *p, size_t n, const float *slopes, const void *matrix,
                           float *gradient) {
  const size_t hidden = p->hidden, vocab = p->vocab;
  if (p->rounds)
    gptvq_gemm_bf16_tiled_nn(n, hidden, vocab, p->scale, (const uint16_t *)(const void *)slopes, 2 * vocab,
                             matrix, hidden, gradient, hidden);
  else gptvq_gemm_nn(n, hidden, vocab, p->scale, slopes, vocab, matrix, hidden, 0.0f, gradient, hidden);
}
