/* A block's attention on a workspace: which cache, whose description. */
#include "model/workspace.h"

static gptvq_attention_rows make_rows(const gptvq_model *model, const gptvq_block *block,
                                      gptvq_workspace *workspace, size_t slot, size_t position, size_t n,
                                      float *qkv, size_t ldq) {
  const gptvq_config *c = &model->config;
  size_t size = workspace->half ? sizeof(uint16_t) : sizeof(float);
  size_t cache = slot * c->kv_heads * workspace->max_positions * c->head_dim * size;
  return (gptvq_attention_rows){.heads = c->heads,
                                .kv_heads = c->kv_heads,
                                .head_dim = c->head_dim,
                                .how = block->attention,
                                .q_norm = block->norms[GPTVQ_NORM_Q],
                                .k_norm = block->norms[GPTVQ_NORM_K],
                                .eps = (float)c->rms_norm_eps,
                                .rotary_half = workspace->rotary_half,
                                .cosines = workspace->cosines,
                                .sines = workspace->sines,
                                .keys = (char *)workspace->keys + cache,
                                .values = (char *)workspace->values + cache,
                                .max_positions = workspace->max_positions,
                                .half = workspace->half,
                                .position = position,
                                .n = n,
                                .qkv = qkv,
                                .ldq = ldq,
                                .out = workspace->heads};
}

void gptvq_attention_core(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *workspace,
                          size_t layer, size_t position, size_t n, float *qkv, size_t ldq) {
  const gptvq_attention_rows rows = make_rows(model, block, workspace, layer, position, n, qkv, ldq);
  gptvq_attend_rows(&rows);
}

void gptvq_attention_step(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *workspace,
                          size_t layer, size_t position, size_t sequences, float *qkv, size_t ldq) {
  gptvq_attention_rows rows =
      make_rows(model, block, workspace, layer * sequences, position, sequences, qkv, ldq);
  rows.cache_step =
      rows.kv_heads * rows.max_positions * rows.head_dim * (rows.half ? sizeof(uint16_t) : sizeof(float));
  gptvq_attend_rows(&rows);
}
