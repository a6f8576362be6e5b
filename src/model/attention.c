/* A block's attention on a workspace: which caches, whose description. */
#include "model/workspace.h"

gptvq_status gptvq_workspace_text(const gptvq_model *model, const gptvq_workspace *workspace, size_t slot,
                                  size_t position, size_t first, size_t n, gptvq_attention_text *out,
                                  gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const gptvq_workspace *w = workspace;
  if (slot >= w->layers || position > w->max_positions || n > w->max_positions - position)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "cache %zu, positions %zu … %zu, but the session has %zu caches of %zu positions", slot,
                      position, position + n, w->layers, w->max_positions);
  size_t size = w->half ? sizeof(uint16_t) : sizeof(float);
  size_t cache = slot * c->kv_heads * w->max_positions * c->head_dim * size;
  *out = (gptvq_attention_text){.keys = (char *)w->keys + cache,
                                .values = (char *)w->values + cache,
                                .max_positions = w->max_positions,
                                .cosines = w->cosines,
                                .sines = w->sines,
                                .position = position,
                                .first = first,
                                .n = n};
  return GPTVQ_OK;
}

void gptvq_attention_core(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *workspace,
                          const gptvq_attention_text *texts, size_t count, size_t n, float *qkv, size_t ldq) {
  const gptvq_config *c = &model->config;
  const gptvq_attention_rows rows = {.heads = c->heads,
                                     .kv_heads = c->kv_heads,
                                     .head_dim = c->head_dim,
                                     .how = block->attention,
                                     .q_norm = block->norms[GPTVQ_NORM_Q],
                                     .k_norm = block->norms[GPTVQ_NORM_K],
                                     .wide_norms = model->arch->wide_qk_norms,
                                     .eps = (float)c->rms_norm_eps,
                                     .rotary_half = workspace->rotary_half,
                                     .half = workspace->half,
                                     .texts = texts,
                                     .count = count,
                                     .n = n,
                                     .qkv = qkv,
                                     .ldq = ldq,
                                     .out = workspace->heads};
  gptvq_attend_rows(&rows);
}
