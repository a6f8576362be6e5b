/* A block's attention on a workspace: which caches, whose description. */
#include "model/workspace.h"
#include "base/memory.h"

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
    const size_t key = w->latents ? gptvq_latent_key(&c->latent) : c->kv_heads * c->head_dim;
    size_t cache = place * w->max_positions * key * size;
    out->keys = (char *)w->keys + cache;
    out->values = w->latents ? NULL : (char *)w->values + cache;
    out->latent = w->latents;
  }
  if (place < w->states && (block == NULL || block->delta != NULL)) {
    out->state = w->state + place * gptvq_delta_state(&c->delta);
    out->next_state = w->next_state + place * gptvq_delta_state(&c->delta);
  }
}

gptvq_status gptvq_workspace_text(const gptvq_model *model, const gptvq_block *block,
                                  const gptvq_workspace *workspace, size_t slot, size_t position,
                                  size_t first, size_t n, gptvq_attention_text *out, gptvq_error *err) {
  const gptvq_workspace *w = workspace;
  if (slot >= w->layers || position > w->max_positions || n > w->max_positions - position)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "cache %zu, positions %zu … %zu, but the session has %zu caches of %zu positions", slot,
                      position, position + n, w->layers, w->max_positions);
  const gptvq_rotation_tables tables = w->rope[block->rope];
  *out = (gptvq_attention_text){.max_positions = w->max_positions,
                                .cosines = tables.cosines,
                                .sines = tables.sines,
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

/* A workspace made for one session has room already; one that runs others' texts grows with them. */
static gptvq_status reserve_parts(const gptvq_model *model, gptvq_workspace *w,
                                  const gptvq_attention_text *texts, size_t count, size_t n, size_t head_dim,
                                  gptvq_error *err) {
  const gptvq_config *c = &model->config;
  size_t longest = 0;
  for (size_t i = 0; i < count; i++) longest = gptvq_max_size(longest, texts[i].position + texts[i].n);
  if (count == 1 && n > GPTVQ_ATTENTION_FEW) return GPTVQ_OK;
  size_t bytes = gptvq_attention_part_bytes(n * c->heads, head_dim, longest);
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
  const bool latent = count > 0 && texts->latent; /* then all are */
  const size_t head_dim = latent ? gptvq_latent_key(&c->latent) : c->head_dim;
  GPTVQ_TRY(reserve_parts(model, workspace, texts, count, n, head_dim, err));
  const gptvq_attention_rows rows = {.heads = c->heads,
                                     .kv_heads = latent ? 1 : c->kv_heads,
                                     .head_dim = head_dim,
                                     .how = block->attention,
                                     .q_norm = block->norms[GPTVQ_NORM_Q],
                                     .k_norm = block->norms[GPTVQ_NORM_K],
                                     .eps = (float)c->rms_norm_eps,
                                     .rotary_half = workspace->rope[block->rope].half,
                                     .half = workspace->half,
                                     .rounds = model->rounds_attention,
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
