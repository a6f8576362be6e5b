/* A block's latent attention up to rows q | k | v: keys and values of all heads are made from one short
 * vector a token, queries too where the model has it so. */
#include "model/layer/latent.h"
#include "base/memory.h"
#include "model/layer/norm.h"
#include "model/workspace.h"

#include <string.h>

static size_t latent_of(const gptvq_config *c) { return c->latent.q_rank + c->latent.kv_rank; }

size_t gptvq_latent_floats(const gptvq_config *c) {
  const gptvq_latent *l = &c->latent;
  if (l->kv_rank == 0) return 0;
  const size_t first = (l->q_rank > 0 ? l->q_rank : c->heads * c->head_dim) + l->kv_rank + l->rotated;
  return first + latent_of(c) + c->heads * gptvq_max_size(c->head_dim, l->plain + l->values);
}

/* Of rows x[n × ld] the `width` first values, normalised, into y[n × width]. */
static gptvq_status normalise(const gptvq_model *model, const gptvq_block *block, size_t n, const float *x,
                              size_t ld, const gptvq_linear_group *readers, gptvq_norm_place norm, float *y,
                              gptvq_capture capture, void *context, gptvq_error *err) {
  const size_t width = gptvq_norm_size(model, norm);
  for (size_t t = 0; t < n; t++) memcpy(y + t * width, x + t * ld, width * sizeof *y);
  if (!gptvq_norm_rows(n, width, y, block->norms[norm], (float)model->config.latent.eps, y))
    return gptvq_fail_numbers(model, block, "the attention", err);
  return capture != NULL ? capture(context, block, readers->linear, readers->count, y, n, width, err)
                         : GPTVQ_OK;
}

gptvq_latent_rows gptvq_latent_rows_of(const gptvq_model *model, const gptvq_workspace *w, size_t count,
                                       size_t n) {
  return (gptvq_latent_rows){.latent = &model->config.latent,
                             .heads = model->config.heads,
                             .n = n,
                             .alone = count > 1 || n <= GPTVQ_ATTENTION_FEW,
                             .kv_b = w->kv_b};
}

gptvq_status gptvq_latent_forward(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w,
                                  size_t count, size_t n, bool shared, gptvq_capture capture, void *context,
                                  gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const gptvq_latent *l = &c->latent;
  const size_t first = block->qkv.width, keys = block->qkv.offset[1], row = gptvq_latent_width(c, shared);
  float *made = w->latent, *normed = made + w->max_rows * first,
        *expanded = normed + w->max_rows * latent_of(c);
  const float *queries = made;
  size_t ldq = first;
  const gptvq_latent_rows rows = gptvq_latent_rows_of(model, w, count, n);
  GPTVQ_TRY(gptvq_group_forward(model, block, &block->qkv, w, n, w->norm, c->hidden, made, first, err));
  if (l->q_rank > 0) {
    ldq = block->q_b.width;
    GPTVQ_TRY(normalise(model, block, n, made, first, &block->q_b, GPTVQ_NORM_Q_LATENT, normed, capture,
                        context, err));
    GPTVQ_TRY(gptvq_group_forward(model, block, &block->q_b, w, n, normed, l->q_rank, expanded, ldq, err));
    queries = expanded;
  }
  if (shared) {
    gptvq_linear_decode(&block->linears[block->kv_b.linear[0]], w->kv_b);
    gptvq_latent_absorb(&rows, queries, ldq, w->wide, row);
  } else gptvq_latent_queries(l, c->heads, n, queries, ldq, w->wide, row);
  GPTVQ_TRY(normalise(model, block, n, made + keys, first, &block->kv_b, GPTVQ_NORM_KV_LATENT, normed,
                      capture, context, err));
  if (shared) {
    gptvq_latent_share(&rows, normed, made + keys + l->kv_rank, first, w->wide, row);
    return GPTVQ_OK;
  }
  GPTVQ_TRY(gptvq_group_forward(model, block, &block->kv_b, w, n, normed, l->kv_rank, expanded,
                                block->kv_b.width, err));
  gptvq_latent_keys(l, c->heads, n, expanded, made + keys + l->kv_rank, first, w->wide, row);
  return GPTVQ_OK;
}
