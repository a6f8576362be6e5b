/* A block's attention on a workspace: which caches, whose description. */
#include "model/workspace.h"
#include "base/memory.h"

gptvq_status gptvq_workspace_text(const gptvq_model *model, const gptvq_block *block,
                                  const gptvq_workspace *workspace, size_t slot, size_t position,
                                  size_t first, size_t n, gptvq_attention_text *out, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const gptvq_workspace *w = workspace;
  if (slot >= w->layers || position > w->max_positions || n > w->max_positions - position)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "cache %zu, positions %zu … %zu, but the session has %zu caches of %zu positions", slot,
                      position, position + n, w->layers, w->max_positions);
  size_t size = w->half ? sizeof(uint16_t) : sizeof(float);
  const gptvq_rotation_tables tables = w->rope[block->rope];
  size_t cache = slot * c->kv_heads * w->max_positions * c->head_dim * size;
  *out = (gptvq_attention_text){.keys = (char *)w->keys + cache,
                                .values = (char *)w->values + cache,
                                .max_positions = w->max_positions,
                                .cosines = tables.cosines,
                                .sines = tables.sines,
                                .position = position,
                                .first = first,
                                .n = n};
  return GPTVQ_OK;
}

/* A workspace made for one session has room already; one that runs others' texts grows with them. */
static gptvq_status reserve_parts(const gptvq_model *model, gptvq_workspace *w,
                                  const gptvq_attention_text *texts, size_t count, size_t n,
                                  gptvq_error *err) {
  const gptvq_config *c = &model->config;
  size_t longest = 0;
  for (size_t i = 0; i < count; i++) longest = gptvq_max_size(longest, texts[i].position + texts[i].n);
  if (count == 1 && n > GPTVQ_ATTENTION_FEW) return GPTVQ_OK;
  size_t bytes = gptvq_attention_part_bytes(n * c->heads, c->head_dim, longest);
  if (bytes <= w->part_bytes) return GPTVQ_OK;
  bytes = gptvq_max_size(bytes, 2 * w->part_bytes);
  float *parts = gptvq_alloc(bytes, 1);
  if (parts == NULL) return gptvq_fail_memory(err, "attention over long texts", bytes);
  free(w->parts);
  w->parts = parts;
  w->part_bytes = bytes;
  return GPTVQ_OK;
}

gptvq_status gptvq_attention_core(const gptvq_model *model, const gptvq_block *block,
                                  gptvq_workspace *workspace, const gptvq_attention_text *texts, size_t count,
                                  size_t n, float *qkv, size_t ldq, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  GPTVQ_TRY(reserve_parts(model, workspace, texts, count, n, err));
  const gptvq_attention_rows rows = {.heads = c->heads,
                                     .kv_heads = c->kv_heads,
                                     .head_dim = c->head_dim,
                                     .how = block->attention,
                                     .q_norm = block->norms[GPTVQ_NORM_Q],
                                     .k_norm = block->norms[GPTVQ_NORM_K],
                                     .eps = (float)c->rms_norm_eps,
                                     .rotary_half = workspace->rope[block->rope].half,
                                     .half = workspace->half,
                                     .texts = texts,
                                     .count = count,
                                     .n = n,
                                     .qkv = qkv,
                                     .ldq = ldq,
                                     .out = workspace->heads,
                                     .parts = workspace->parts};
  gptvq_attend_rows(&rows);
  return GPTVQ_OK;
}
