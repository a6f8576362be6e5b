/* model/model_internal.h: the decoder-only transformer as the rest of the library sees it.
 *
 * A family's description (model/arch/arch.h) turns a checkpoint into blocks whose linears are listed by role;
 * the forward pass has no branches for families beyond what those lists, flags and numbers say.
 * Activations are fp32, row-major, one row a token. */
#ifndef GPTVQ_MODEL_INTERNAL_H
#define GPTVQ_MODEL_INTERNAL_H

#include <gptvq/model.h>

#include "base/context.h"
#include "checkpoint/checkpoint.h"
#include "kernels/kernels.h"
#include "model/arch/arch.h"
#include "model/layer/attention.h"
#include "model/layer/delta.h"
#include "model/layer/gate.h"

/* A linear layer y = W x + b in any storage. */
typedef struct gptvq_linear {
  const char *name; /* "model.layers.0.self_attn.q_proj", owned by the model */
  size_t rows, cols;
  bool is_packed;
  gptvq_dtype dtype;   /* dense */
  const void *weights; /* dense: [rows][cols], perhaps unaligned */
  gptvq_packed packed; /* packed */
  const char *stored;  /* dense: gptvq_tensor.stored */
  const float *bias;   /* [rows] fp32, or NULL; not owned by this struct */
  const uint8_t
      *codes; /* the same weights as int8 codes (gptvq_rows_quantize), used instead of them; or NULL */
  const float *code_scales;
} gptvq_linear;

/* Y[n × rows] = X[n × cols] Wᵀ + b. Strides in elements. Few tokens: matrix × vector kernels on the stored
 * weights; many: panels of rows are decoded into scratch memory and multiplied. Never holds more than a few
 * panels of fp32 weights. */
gptvq_status gptvq_linear_forward(const gptvq_linear *linear, gptvq_compute compute, size_t n, const float *x,
                                  size_t ldx, float *y, size_t ldy, gptvq_error *err);
/* The whole matrix as fp32 into weights[rows × cols] (for the quantizer and the exporter). */
void gptvq_linear_decode(const gptvq_linear *linear, float *weights);
/* Rows [begin, end) of it, by the calling thread. */
void gptvq_linear_decode_rows(const gptvq_linear *linear, size_t begin, size_t end, float *values);

/* What stands in public about a linear of `bytes` bytes in files; strings are not copied. */
void gptvq_linear_info(const gptvq_linear *linear, const char *method, uint64_t bytes, double error,
                       gptvq_layer_info *info);

/* Linears that read the same input and write side by side into one output row: {q, k, v} or {qkv}; {gate, up}
 * or {gate_up}. */
typedef struct gptvq_linear_group {
  size_t count;
  size_t linear[GPTVQ_MAX_PARTS]; /* indices into gptvq_block.linears */
  size_t offset[GPTVQ_MAX_PARTS]; /* first output column of each */
  size_t width;                   /* output columns of all */
} gptvq_linear_group;

typedef struct gptvq_mlp {
  gptvq_linear_group input; /* gate | up */
  size_t down;              /* index into gptvq_block.linears */
} gptvq_mlp;

static inline size_t gptvq_mlp_width(const gptvq_mlp *mlp) { return mlp->input.width / 2; }

/* A gated delta net: its other linears are the block's, as those of an attention are. */
typedef struct gptvq_delta_net {
  gptvq_linear decay, beta; /* [value_heads × hidden]; never quantized */
  gptvq_delta_weights weights;
} gptvq_delta_net;

typedef struct gptvq_block {
  size_t index;
  size_t ordinal;                  /* among the blocks that keep what it keeps: keys and values, or a state */
  const float *norms[GPTVQ_NORMS]; /* gains, [gptvq_norm_size]; NULL where the family has no norm */
  gptvq_linear_group qkv;          /* {q or q_a, kv_a} with latent attention */
  gptvq_linear_group q_b, kv_b;    /* of latent attention; count 0: none */
  size_t o;                        /* index into linears */
  size_t mlp_count;                /* 1, or the number of experts and of the MLP beside them, the last one */
  gptvq_mlp *mlps;
  gptvq_linear router; /* [experts × hidden] in layers with experts, perhaps a bias; never quantized */
  const float *router_correction; /* [experts] or NULL */
  gptvq_linear shared_gate;       /* [1 × hidden] or without weights; never quantized */
  size_t linear_count;
  gptvq_linear *linears; /* all quantizable linears, in the order of the inputs; experts one by one */
  gptvq_attention attention;
  gptvq_rope_use rope;    /* of queries and keys */
  bool output_gate;       /* the first linear gives q | gate of each head */
  gptvq_delta_net *delta; /* stands in place of the attention: q | k | v, z for q, k, v; NULL: it does not */
  gptvq_activation activation;
} gptvq_block;

/* The linears that read an input; mlp: which expert, else 0. */
gptvq_linear_group gptvq_input_readers(const gptvq_block *block, gptvq_block_input input, size_t mlp);

/* How many such inputs the block has: one, or one an expert, or none. */
static inline size_t gptvq_input_count(const gptvq_block *block, gptvq_block_input input) {
  if (input == GPTVQ_INPUT_Q_B) return block->q_b.count > 0 ? 1 : 0;
  if (input == GPTVQ_INPUT_KV_B) return block->kv_b.count > 0 ? 1 : 0;
  return gptvq_input_in_mlp(input) ? block->mlp_count : 1;
}
/* Is it what the last linear of a half reads, the one that writes to the residual stream? */
static inline bool gptvq_input_is_last(gptvq_block_input input) {
  return input == GPTVQ_INPUT_O || input == GPTVQ_INPUT_DOWN;
}

/* The norm between the last linear of that input's half and the residual stream; GPTVQ_NORMS: the input is
 * not that linear's. */
static inline gptvq_norm_place gptvq_norm_behind(gptvq_block_input input) {
  return input == GPTVQ_INPUT_O      ? GPTVQ_NORM_ATTENTION_OUT
         : input == GPTVQ_INPUT_DOWN ? GPTVQ_NORM_MLP_OUT
                                     : GPTVQ_NORMS;
}
/* Do its readers write to the residual stream themselves, with no norm between? */
static inline bool gptvq_writes_stream(const gptvq_block *block, gptvq_block_input input) {
  return gptvq_input_is_last(input) && block->norms[gptvq_norm_behind(input)] == NULL;
}

/* Does a router send tokens through different MLPs? Then there is no one input of down_proj for all tokens.
 */
static inline bool gptvq_block_routes(const gptvq_block *block) { return block->router.weights != NULL; }

struct gptvq_model {
  const gptvq_arch *arch;
  gptvq_checkpoint *checkpoint;
  gptvq_config config;
  gptvq_compute compute;
  bool rounds_attention;  /* with bf16 the products of attention, too, where rows are many: calibration */
  gptvq_linear embedding; /* [vocab × hidden]: rows are looked up */
  gptvq_linear head;      /* [vocab × hidden]; the embedding when tied */
  const float *final_norm;
  gptvq_block *blocks;
  gptvq_model_info info;
  gptvq_context *context; /* that it was opened in: public calls on it run there */
  void *owned;            /* implementation's own allocations, see model.c */
};

static inline size_t gptvq_norm_size(const gptvq_model *model, gptvq_norm_place place) {
  const gptvq_config *c = &model->config;
  const bool wide = model->arch->wide_qk_norms;
  if (place == GPTVQ_NORM_Q) return (wide ? c->heads : 1) * c->head_dim;
  if (place == GPTVQ_NORM_K) return (wide ? c->kv_heads : 1) * c->head_dim;
  if (place == GPTVQ_NORM_Q_LATENT) return c->latent.q_rank;
  if (place == GPTVQ_NORM_KV_LATENT) return c->latent.kv_rank;
  return c->hidden;
}

static inline bool gptvq_model_routes(const gptvq_model *model) {
  for (size_t i = 0; i < model->config.layers; i++)
    if (gptvq_block_routes(&model->blocks[i])) return true;
  return false;
}
static inline bool gptvq_layer_is_delta(const gptvq_model *model, size_t layer) {
  return model->config.layer_is_delta != NULL && model->config.layer_is_delta[layer];
}
/* Has the layer a router and experts, as config.json describes it? */
static inline bool gptvq_layer_has_experts(const gptvq_model *model, size_t layer) {
  return model->arch->router != NULL && !model->config.layer_dense[layer];
}
/* The largest count and the largest width of a block's MLPs; upper bounds. */
static inline size_t gptvq_model_mlps(const gptvq_model *model) {
  size_t most = 1;
  for (size_t i = 0; i < model->config.layers; i++)
    if (model->blocks[i].mlp_count > most) most = model->blocks[i].mlp_count;
  return most;
}
static inline size_t gptvq_model_mlp_width(const gptvq_model *model) {
  size_t widest = 0;
  for (size_t i = 0; i < model->config.layers; i++)
    for (size_t m = 0; m < model->blocks[i].mlp_count; m++) {
      const size_t width = gptvq_mlp_width(&model->blocks[i].mlps[m]);
      if (width > widest) widest = width;
    }
  return widest;
}

/* Does a text leave more than keys and values, which cannot be taken back token by token? */
static inline bool gptvq_model_has_state(const gptvq_model *model) {
  for (size_t i = 0; i < model->config.layers; i++)
    if (model->blocks[i].delta != NULL) return true;
  return false;
}

/* config.json as the model was read, for a folder of tensors under the names of model->checkpoint: the
 * architecture's own name, and embeddings tied only if they were. The caller releases it; NULL: out of
 * memory.
 */
json_t *gptvq_model_config(const gptvq_model *model);

/* GPTVQ_ERROR_NUMERIC: numbers are no longer finite, or too large to be squared, after `part` ("the
 * attention") of the block, or of the model where `block` is NULL. Only now are the weights read for it: one
 * of the block's (of those outside of all blocks) that is NaN or infinite is named with tensor, row and
 * column. */
gptvq_status gptvq_fail_numbers(const gptvq_model *model, const gptvq_block *block, const char *part,
                                gptvq_error *err);
/* The same where they are what the attention or the MLP of the block reads: what came before is to blame. */
gptvq_status gptvq_fail_half_inputs(const gptvq_model *model, const gptvq_block *block, bool mlp,
                                    gptvq_error *err);

/* The weights of a linear, of a block, or of the whole model, will not be looked at for a while: the pages of
 * their files no longer count as this process's memory (base/file.h). */
void gptvq_linear_rest(const gptvq_linear *linear);
void gptvq_block_rest(const gptvq_block *block);
void gptvq_model_rest(const gptvq_model *model);

/* Scratch memory and KV cache for up to max_rows tokens per call and max_positions positions, for one block
 * at a time (layers = 1) or for all (layers = config.layers). */
typedef struct gptvq_workspace gptvq_workspace;
gptvq_status gptvq_workspace_create(const gptvq_model *model, size_t layers, size_t max_rows,
                                    size_t max_positions, gptvq_workspace **out, gptvq_error *err);
void gptvq_workspace_destroy(gptvq_workspace *workspace);

/* In place of a linear's index: what a router reads, which is not the input of any of the block's linears. */
#define GPTVQ_ROUTER_INPUT SIZE_MAX

/* Called with the inputs of linears of a block, before they are applied: x[n × ldx]. n may be 0 for an
 * expert. Also with those of the router, GPTVQ_ROUTER_INPUT alone. */
typedef gptvq_status (*gptvq_capture)(void *context, const gptvq_block *block, const size_t *linears,
                                      size_t count, const float *x, size_t n, size_t ldx, gptvq_error *err);

/* How far to go: until the inputs of the first linears are captured, those of the second, or all the way (x
 * updated). */
typedef enum gptvq_stop { GPTVQ_STOP_AT_INPUT, GPTVQ_STOP_AT_OUTPUT, GPTVQ_RUN_ALL } gptvq_stop;

/* x[n × hidden] += attention(norm(x)), normalised once more where the family does so, for the tokens at
 * positions [position, position + n), keys and values being appended to the workspace's cache of `layer` (0
 * when it was made for one block). `capture` may be NULL; x is left as it was unless GPTVQ_RUN_ALL. The block
 * may be a copy whose linears were replaced (the quantizer does that). GPTVQ_ERROR_NUMERIC here and in what
 * follows: x, what the attention made of it, or the router's logits are NaN, infinite or too large. What the
 * last part of a block leaves is seen by the next one, or by gptvq_head. */
gptvq_status gptvq_block_attention(const gptvq_model *model, const gptvq_block *block,
                                   gptvq_workspace *workspace, size_t layer, size_t position, size_t n,
                                   float *x, gptvq_stop stop, gptvq_capture capture, void *context,
                                   gptvq_error *err);
/* For the block: the n tokens at `position` of one of several texts, rows from `first` on, whose keys and
 * values are in cache `slot` of the workspace. GPTVQ_ERROR_ARGUMENT: it has no such slot or positions. */
gptvq_status gptvq_workspace_text(const gptvq_model *model, const gptvq_block *block,
                                  const gptvq_workspace *workspace, size_t slot, size_t position,
                                  size_t first, size_t n, gptvq_attention_text *out, gptvq_error *err);
/* The same for the tokens of `count` texts, n in all, each with a cache of its own, which may be another
 * workspace's of the same model (the mlp half asks nothing of the kind). */
gptvq_status gptvq_block_attention_step(const gptvq_model *model, const gptvq_block *block,
                                        gptvq_workspace *workspace, const gptvq_attention_text *texts,
                                        size_t count, size_t n, float *x, gptvq_error *err);
/* x[n × hidden] += mlp(norm(x)), the same */
gptvq_status gptvq_block_mlp(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *workspace,
                             size_t n, float *x, gptvq_stop stop, gptvq_capture capture, void *context,
                             gptvq_error *err);

/* The last step of either half from its captured input on: x[n × hidden] += o_proj(input[n × cols]), or
 * down_proj (the block's only MLP). The same numbers as from running the half again. */
gptvq_status gptvq_block_output(const gptvq_model *model, const gptvq_block *block,
                                gptvq_workspace *workspace, bool mlp, size_t n, const float *input, float *x,
                                gptvq_error *err);

/* x[n × hidden] = embedding rows, times an fp32 factor where the family has one (transformers rounds it to
 * the weights' type when it computes in that). GPTVQ_ERROR_DATA for an id outside the vocabulary. */
gptvq_status gptvq_embed(const gptvq_model *model, const int32_t *tokens, size_t n, float *x,
                         gptvq_error *err);
/* norm[n × hidden]: what the head takes of the last block's x. GPTVQ_ERROR_NUMERIC: x is NaN, infinite or too
 * large. */
gptvq_status gptvq_final_norm(const gptvq_model *model, size_t n, const float *x, float *norm,
                              gptvq_error *err);
/* logits[n × vocab] = head(norm(x)), finite; x is left as it was. GPTVQ_ERROR_NUMERIC: they are not. */
gptvq_status gptvq_head(const gptvq_model *model, gptvq_workspace *workspace, size_t n, const float *x,
                        float *logits, gptvq_error *err);

#endif
