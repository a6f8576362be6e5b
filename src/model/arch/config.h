/* model/arch/config.h: config.json in gptvq's terms. Values are checked for range, not yet against the
 * tensors. */
#ifndef GPTVQ_MODEL_ARCH_CONFIG_H
#define GPTVQ_MODEL_ARCH_CONFIG_H

#include "checkpoint/config_values.h"

typedef struct gptvq_arch gptvq_arch;

typedef enum gptvq_rope_type {
  GPTVQ_ROPE_DEFAULT,
  GPTVQ_ROPE_LINEAR,
  GPTVQ_ROPE_LLAMA3,
  GPTVQ_ROPE_LONGROPE,
  GPTVQ_ROPE_YARN,
  GPTVQ_ROPE_DYNAMIC
} gptvq_rope_type;

typedef struct gptvq_rope {
  gptvq_rope_type type;
  double theta;
  double factor;                            /* all but the default */
  double low_freq_factor, high_freq_factor; /* llama3 */
  size_t original_max_positions;            /* llama3, longrope, yarn; dynamic: max_position_embeddings */
  double partial_rotary_factor;             /* fraction of head_dim that is rotated, 1 */
  double *short_factor, *long_factor;       /* longrope: [rotated dims / 2], owned by the config; else NULL */
  double beta_fast, beta_slow; /* yarn: turns in the original context of dimensions that stay, and that are
                                  stretched */
  bool truncate;               /* yarn: the dimensions between those are counted from whole ones */
  double score_scale;          /* scores are multiplied by its square: yarn, with rules.scores_grow; else 1 */
  double query_growth; /* queries at position p are multiplied by 1 + this · log(1 + ⌊p / original_max⌋) */
  double attention_factor; /* longrope, yarn: multiplies cosines and sines; longrope: 0 = derive it */
} gptvq_rope;

/* Of gpt-oss's activation: what gates are multiplied by, and what holds them. */
#define GPTVQ_SWIGLU_ALPHA 1.702f
#define GPTVQ_SWIGLU_LIMIT 7.0f
/* Layers that are gated delta nets (linear attention). */
enum { GPTVQ_DELTA_KERNEL = 16, GPTVQ_DELTA_DIM = 512 /* at most: taps, dimensions of a head */ };
typedef struct gptvq_delta_sizes {
  size_t key_heads, value_heads, key_dim, value_dim; /* value_heads is a multiple of key_heads */
  size_t kernel;                                     /* taps of the convolution */
} gptvq_delta_sizes;

/* By which of a config's ropes the queries and keys of a layer are rotated. */
typedef enum gptvq_rope_use {
  GPTVQ_USE_NO_ROPE, /* none: they know no positions */
  GPTVQ_USE_ROPE,
  GPTVQ_USE_LOCAL_ROPE, /* in some families that of layers with a window */
  GPTVQ_ROPE_USES
} gptvq_rope_use;

/* How the logits of a router become experts and their shares. */
typedef struct gptvq_router_rule {
  bool keeps_sum; /* shares are probabilities as they are, not divided by their sum */
  bool sigmoid;   /* probabilities are sigmoids, not a softmax */
  double scale;   /* of the shares; 0: none */
  /* experts stand in groups, of which only so many take part: those with the largest expert, with sigmoids
   * with the largest sum of two; 0 or 1: one group */
  size_t groups, used_groups;
} gptvq_router_rule;

/* Latent attention: what keys and values are made from, and queries; all sizes in values. */
typedef struct gptvq_latent {
  size_t kv_rank, q_rank; /* 0: there is none; queries are made directly */
  size_t plain, rotated;  /* of a query or key head: as it is, and rotated */
  size_t values;          /* of a value head */
  bool halves;            /* rotated pairs are (i, i + half), not (2i, 2i + 1) */
  double eps;             /* of the norms of what is made from */
} gptvq_latent;

typedef struct gptvq_config {
  char architecture[64]; /* as gptvq_config_architecture says */
  size_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, max_positions;
  double rms_norm_eps;
  bool tie_embeddings;
  bool attention_bias, attention_out_bias, mlp_bias; /* as the config states; the family may force them */
  size_t sliding_window;                             /* 0 = none */
  bool *layer_slides;   /* [layers] owned; which layers use the window (all, unless
                           layer_types/max_window_layers say otherwise) */
  bool *layer_is_delta; /* [layers] owned; NULL: none is */
  gptvq_delta_sizes delta;
  size_t experts, experts_per_token; /* 0, 0 for dense models */
  size_t expert_intermediate;        /* of each expert; intermediate unless the family says otherwise */
  size_t shared_intermediate;        /* of the MLP beside the experts that all tokens go through; 0: none */
  bool *layer_dense;                 /* [layers] owned; which layers have one MLP instead of experts */
  gptvq_router_rule router;
  size_t further_layers; /* behind the last one: they guess tokens after the next and are not read */
  gptvq_latent latent;   /* then head_dim is that of queries and keys */
  char hidden_act[32];
  double query_scalar;             /* queries times keys are divided by its square root */
  double attention_cap, logit_cap; /* numbers x become cap · tanh(x / cap); 0: they stay */
  double embedding_scale;          /* of what the first block reads, not of a tied output head */
  double residual_scale;           /* of what either half of a block adds to the residual stream */
  double logit_scale;              /* of what the output head gives */
  gptvq_rope rope, local_rope;
  gptvq_rope_use *layer_rope; /* [layers] owned */
  int32_t bos;                /* -1 = absent */
  int32_t *eos;               /* [eos_count] owned */
  size_t eos_count;
  char dtype[16]; /* "bfloat16", … or "" */
} gptvq_config;

/* What transformers assumes for a family where its config says nothing, and keys of the family's own. */
typedef struct gptvq_config_rules {
  double rms_norm_eps, rope_theta;
  size_t max_positions, head_dim; /* head_dim 0: hidden / heads */
  /* 0: there is no default; of kv_heads: as many as heads. Where transformers assumes another number than
   * that, which no folder of the hub leaves to it, tensors of its shape are refused. */
  size_t heads, kv_heads, vocab;
  size_t sliding_window;
  size_t experts, experts_per_token;
  const char *experts_key; /* how many experts there are, beside num_local_experts; or NULL */
  bool tie_embeddings, attention_bias;
  const char *intermediate_key; /* in place of intermediate_size; NULL: that */
  bool layer_types;             /* layer_types says which layers use the window; elsewhere it is not a key */
  bool linear_layers; /* layer_types or full_attention_interval says which layers are gated delta nets */
  bool window_switch; /* nor are use_sliding_window, without which there is no window, and max_window_layers,
                         the first layer with one */
  bool partial_rotation;        /* partial_rotary_factor counts */
  double partial_rotary_factor; /* where no key says it; 0: 1 */
  bool mrope; /* rope parameters may share dimensions out among the positions of pictures; a token of text has
                 one position, whichever way it is counted */
  bool query_growth;       /* rope parameters have to be there, and llama_4_scaling_beta is one of them */
  bool scores_grow;        /* with the context that yarn stretches, by its mscale_all_dim */
  const char *local_theta; /* not NULL: layers with a window have a rope of their own, whose theta stands in
                              rope_parameters or under this key; local_rope_theta is its default */
  double local_rope_theta;
  size_t original_positions; /* not 0: original_max_position_embeddings stands beside rope's parameters only,
                                and this is its default; longrope also goes by the
                                names "su" and "yarn" */
  /* Keys of the family's own, NULL at the end: those that read_own reads, and such as change nothing in its
   * models. NULL: none. */
  const char *const *own_keys;
  /* reads them, after all others but those of rope; NULL: nothing to read */
  gptvq_status (*read_own)(const gptvq_config_source *source, gptvq_config *config, gptvq_error *err);
} gptvq_config_rules;

/* The architecture alone, so that a caller can refuse an unknown one before its config is read:
 * architectures[0], or what model_type says where that is missing; a family's model without an output head
 * ("LlamaModel") is the one with it. GPTVQ_ERROR_FORMAT: not text of 1 … 63 bytes, neither is there, or the
 * two contradict each other; GPTVQ_ERROR_UNSUPPORTED: only a model_type, which is not known. */
gptvq_status gptvq_config_architecture(const char *folder, const json_t *config, char architecture[64],
                                       gptvq_error *err);

/* Of a model that holds a text model beside a vision tower: *inner is the config.json of the text model
 * alone, the caller's to release; NULL: it is no such model. GPTVQ_ERROR_FORMAT: it does not say what it
 * holds; GPTVQ_ERROR_UNSUPPORTED: a model of no family. */
gptvq_status gptvq_config_inner(const char *folder, const json_t *config, json_t **inner, gptvq_error *err);

/* generation may be NULL; its eos list wins. GPTVQ_ERROR_FORMAT / GPTVQ_ERROR_UNSUPPORTED naming
 * folder/config.json and the key. The caller releases *out after success; after a failure there is nothing to
 * release. Keys that are absent or null take the default that transformers gives them for that family
 * (Llama's where the architecture is of none). */
gptvq_status gptvq_config_parse(const char *folder, const json_t *config, const json_t *generation,
                                gptvq_config *out, gptvq_error *err);

/* For read_own. Where there is no layer_types: every so many-th layer is without the window that the others
 * have. */
void gptvq_config_full_every(const gptvq_config_source *source, size_t every, gptvq_config *config);

/* layer_types, one word a layer: which of them are `other`; the rest are full_attention. is_other[layers] */
gptvq_status gptvq_config_layer_types(const gptvq_config_source *source, const json_t *types,
                                      const char *other, size_t layers, bool *is_other, gptvq_error *err);

void gptvq_config_release(gptvq_config *config);

/* config->layer_is_delta and config->delta. On failure what was allocated stays in config
 * (gptvq_config_release). */
gptvq_status gptvq_config_parse_delta(const gptvq_config_source *source, gptvq_config *config,
                                      gptvq_error *err);

/* GPTVQ_ERROR_UNSUPPORTED naming a key of the object that is neither read for the architecture nor known to
 * change nothing; those of rope parameters. */
gptvq_status gptvq_config_check_keys(const gptvq_config_source *source, const char *architecture,
                                     const gptvq_config_rules *rules, gptvq_error *err);
gptvq_status gptvq_config_check_rope_keys(const gptvq_config_source *source, const gptvq_config_rules *rules,
                                          gptvq_error *err);
/* The same of one with an object for each of two kinds of layers. */
gptvq_status gptvq_config_check_rope_kinds(const gptvq_config_source *source, const char *first,
                                           const char *second, gptvq_error *err);

/* NULL: no layer uses it so. */
const gptvq_rope *gptvq_config_rope(const gptvq_config *config, gptvq_rope_use use);

/* config->rope from rope_scaling or rope_parameters, and rope_theta and partial_rotary_factor beside them;
 * config->local_rope where the family has one; query_scalar becomes what rope.score_scale makes of it. Needs
 * head_dim and max_positions. On failure the factors that
 * were allocated stay in config (gptvq_config_release). */
gptvq_status gptvq_config_parse_rope(const gptvq_config_source *source, const gptvq_config_rules *rules,
                                     gptvq_config *config, gptvq_error *err);

/* For families with experts in some of their layers: expert_intermediate, layer_dense and router from
 * moe_intermediate_size, decoder_sparse_step, mlp_only_layers and norm_topk_prob. */
gptvq_status gptvq_config_read_sparse(const gptvq_config_source *source, gptvq_config *config,
                                      gptvq_error *err);
#endif
