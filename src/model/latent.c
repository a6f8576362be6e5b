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

/* Of rows x[n × ld] the `width` first values, normalised, into y[n × width], and from there through the
 * linears that read them into out. */
static gptvq_status expand(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w, size_t n,
                           const float *x, size_t ld, const gptvq_linear_group *readers,
                           gptvq_norm_place norm, float *y, float *out, gptvq_capture capture, void *context,
                           gptvq_error *err) {
  const size_t width = gptvq_norm_size(model, norm);
  for (size_t t = 0; t < n; t++) memcpy(y + t * width, x + t * ld, width * sizeof *y);
  if (!gptvq_norm_rows(n, width, y, block->norms[norm], (float)model->config.latent.eps, y))
    return gptvq_fail_numbers(model, block, "the attention", err);
  if (capture != NULL) GPTVQ_TRY(capture(context, block, readers->linear, readers->count, y, n, width, err));
  return gptvq_group_forward(model, block, readers, w, n, y, width, out, readers->width, err);
}

gptvq_status gptvq_latent_forward(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w,
                                  size_t n, gptvq_capture capture, void *context, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const gptvq_latent *l = &c->latent;
  const size_t first = block->qkv.width, row = (c->heads + 2 * c->kv_heads) * c->head_dim,
               keys = block->qkv.offset[1];
  float *made = w->latent, *normed = made + w->max_rows * first,
        *expanded = normed + w->max_rows * latent_of(c);
  GPTVQ_TRY(gptvq_group_forward(model, block, &block->qkv, w, n, w->norm, c->hidden, made, first, err));
  if (l->q_rank > 0) {
    GPTVQ_TRY(expand(model, block, w, n, made, first, &block->q_b, GPTVQ_NORM_Q_LATENT, normed, expanded,
                     capture, context, err));
    gptvq_latent_queries(l, c->heads, n, expanded, block->q_b.width, w->wide, row);
  } else gptvq_latent_queries(l, c->heads, n, made, first, w->wide, row);
  GPTVQ_TRY(expand(model, block, w, n, made + keys, first, &block->kv_b, GPTVQ_NORM_KV_LATENT, normed,
                   expanded, capture, context, err));
  gptvq_latent_keys(l, c->heads, n, expanded, made + keys + l->kv_rank, first, w->wide, row);
  return GPTVQ_OK;
}
