/* model/workspace.h: memory of a running text, shared by block.c, attention.c and session.c. */
#ifndef GPTVQ_MODEL_WORKSPACE_H
#define GPTVQ_MODEL_WORKSPACE_H

#include "model/layer/experts.h"
#include "model/layer/latent.h"
#include "model/linear.h"

/* [max_positions × half] */
typedef struct gptvq_rotation_tables {
  size_t half; /* gptvq_rope_half */
  float *cosines, *sines;
} gptvq_rotation_tables;

struct gptvq_workspace {
  size_t layers, max_rows, max_positions;
  gptvq_rotation_tables rope[GPTVQ_ROPE_USES]; /* empty where no layer uses it */
  bool half;                                   /* keys and values are fp16, else fp32 */
  size_t caches, states;                       /* places for keys and values, and for states of delta nets */
  bool latents; /* of latent attention, in sessions: keys alone, [caches][max_positions][gptvq_latent_key] */
  void *keys, *values;       /* [caches][kv_heads][max_positions][head_dim] */
  float *own_states;         /* [states][gptvq_delta_state] */
  float *state, *next_state; /* such states, own_states unless a session sets them: those that a call begins
                                with, and where it leaves its own */
  float *norm;               /* [max_rows × hidden]: normalised inputs */
  float *wide;               /* [max_rows × widest linear group]: q | k | v, gate | up */
  float *heads;              /* [max_rows × widest input of an o]: attention output */
  float *gates;              /* [max_rows × 2 value_heads]: decay | beta of delta nets */
  float *sum;                /* [max_rows × hidden]: what a half block adds */
  float *parts;              /* [part_bytes]: what few rows have of the parts of a long context */
  float *latent;             /* [max_rows × gptvq_latent_floats], or NULL */
  float *kv_b;               /* of latent attention: that matrix, of the block at work, as fp32 */
  size_t part_bytes;
  gptvq_routing routing; /* in models with experts */
  const bool *wanted; /* [mlp_count] of the block: those that a run which stops before the end is for, others
                         are left out; NULL: all */
  gptvq_scratch scratch;
};

/* Are keys and values fp16? Not those of heads of more than GPTVQ_HALF_DIM values. */
bool gptvq_workspace_keeps_half(const gptvq_model *model);
/* Bytes that gptvq_workspace_create takes; SIZE_MAX on overflow. */
size_t gptvq_workspace_bytes(const gptvq_model *model, size_t layers, size_t max_rows, size_t max_positions);

/* Of those, what each text keeps in a workspace with places for all layers. */
size_t gptvq_workspace_text_bytes(const gptvq_model *model, size_t max_positions);
/* Floats of the states in a workspace of so many layers; 0: the model has none. */
size_t gptvq_workspace_states(const gptvq_model *model, size_t layers);

/* Keys and values of the first `positions` positions; `to` was made with the same sizes. */
void gptvq_workspace_copy_cache(const gptvq_model *model, const gptvq_workspace *from, size_t positions,
                                gptvq_workspace *to);

/* Latent attention (latent.c): floats of a row that it needs, 0 without it. */
size_t gptvq_latent_floats(const gptvq_config *config);
/* Values of a row q | k | v, or with one key that all heads share q | k. */
static inline size_t gptvq_latent_width(const gptvq_config *config, bool shared) {
  return shared ? (config->heads + 1) * gptvq_latent_key(&config->latent)
                : (config->heads + 2 * config->kv_heads) * config->head_dim;
}
/* From the normalised inputs in workspace->norm: such rows of n tokens of `count` texts into workspace->wide,
 * before rotation. Inputs of the linears in between are captured. GPTVQ_ERROR_NUMERIC: they are not finite.
 */
gptvq_status gptvq_latent_forward(const gptvq_model *model, const gptvq_block *block,
                                  gptvq_workspace *workspace, size_t count, size_t n, bool shared,
                                  gptvq_capture capture, void *context, gptvq_error *err);
/* With the workspace's kv_b. */
gptvq_latent_rows gptvq_latent_rows_of(const gptvq_model *model, const gptvq_workspace *workspace,
                                       size_t count, size_t n);

/* Applies the group's linears to x[n × ldx] into y[n × ldy]. */
gptvq_status gptvq_group_forward(const gptvq_model *model, const gptvq_block *block,
                                 const gptvq_linear_group *group, gptvq_workspace *workspace, size_t n,
                                 const float *x, size_t ldx, float *y, size_t ldy, gptvq_error *err);

/* Softmax attention of n rows q | k | v in `qkv` (row stride ldq), tokens of the texts, over the texts'
 * caches; rotates queries and keys, appends to the caches, writes workspace->heads. GPTVQ_ERROR_MEMORY: no
 * room for the parts of texts longer than the workspace was made for. */
gptvq_status gptvq_attention_core(const gptvq_model *model, const gptvq_block *block,
                                  gptvq_workspace *workspace, const gptvq_attention_text *texts, size_t count,
                                  size_t n, float *qkv, size_t ldq, gptvq_error *err);

/* The delta net of n rows q | k | v | z in w->wide, whose inputs are still in w->norm; writes w->heads.
 * GPTVQ_ERROR_MEMORY. */
gptvq_status gptvq_delta_core(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *workspace,
                              const gptvq_attention_text *texts, size_t count, size_t n, gptvq_error *err);

#endif
