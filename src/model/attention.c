/* A block's attention on a workspace: which caches, whose description. */
#include "model/workspace.h"

/* Where what slot `slot` keeps is. Slots are layer · texts + text, and layers of either kind have places of
 * their own; in a workspace for single blocks each slot is one of both kinds. */
static void place_text(const gptvq_model *model, const gptvq_workspace *w, size_t slot,
                       gptvq_attention_text *out) {
  const gptvq_config *c = &model->config;
  size_t texts = w->layers / c->layers, place = slot;
  const gptvq_block *block = texts > 0 ? &model->blocks[slot / texts] : NULL;
  if (block != NULL) place = block->ordinal * texts + slot % texts;
  if (place < w->caches && (block == NULL || block->delta == NULL)) {
    size_t size = w->half ? sizeof(uint16_t) : sizeof(float);
    size_t cache = place * c->kv_heads * w->max_positions * c->head_dim * size;
    out->keys = (char *)w->keys + cache;
    out->values = (char *)w->values + cache;
  }
  if (place < w->states && (block == NULL || block->delta != NULL)) {
    out->state = w->state + place * gptvq_delta_state(&c->delta);
    out->next_state = w->next_state + place * gptvq_delta_state(&c->delta);
  }
}

gptvq_status gptvq_workspace_text(const gptvq_model *model, const gptvq_workspace *workspace, size_t slot,
                                  size_t position, size_t first, size_t n, gptvq_attention_text *out,
                                  gptvq_error *err) {
  const gptvq_workspace *w = workspace;
  if (slot >= w->layers || position > w->max_positions || n > w->max_positions - position)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "cache %zu, positions %zu … %zu, but the session has %zu caches of %zu positions", slot,
                      position, position + n, w->layers, w->max_positions);
  *out = (gptvq_attention_text){.max_positions = w->max_positions,
                                .cosines = w->cosines,
                                .sines = w->sines,
                                .position = position,
                                .first = first,
                                .n = n};
  place_text(model, w, slot, out);
  return GPTVQ_OK;
}

gptvq_status gptvq_delta_core(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w,
                              const gptvq_attention_text *texts, size_t count, size_t n, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const gptvq_linear *small[2] = {&block->delta->decay, &block->delta->beta};
  const size_t heads = c->delta.value_heads, offsets[2] = {0, heads};
  /* in fp32 always: they are small, and a decay's rounding error goes on into all later tokens */
  GPTVQ_TRY(gptvq_linears_forward(small, offsets, 2, GPTVQ_COMPUTE_FP32, n, w->norm, c->hidden, w->gates,
                                  2 * heads, &w->scratch, err));
  const gptvq_delta_rows rows = {.sizes = &c->delta,
                                 .weights = &block->delta->weights,
                                 .eps = (float)c->rms_norm_eps,
                                 .texts = texts,
                                 .count = count,
                                 .n = n,
                                 .mixed = w->wide,
                                 .ldm = block->qkv.width,
                                 .gates = w->gates,
                                 .out = w->heads};
  gptvq_delta_net_rows(&rows);
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
