/* model/arch/arch.h: a family of models as constants: what its config.json may leave out, what its tensors
 * are called, and of which pieces its blocks are made. One file per family; GPTVQ_FAMILIES lists them.
 * Loading, both directions of the arithmetic, memory estimates and writers read this and nothing
 * else about a family. */
#ifndef GPTVQ_MODEL_ARCH_ARCH_H
#define GPTVQ_MODEL_ARCH_ARCH_H

#include "checkpoint/checkpoint.h"
#include "model/arch/config.h"

enum { GPTVQ_MAX_PARTS = 3 };

/* Inputs of a block's linears. Linears that share one stand side by side. */
typedef enum gptvq_block_input {
  GPTVQ_INPUT_QKV,
  GPTVQ_INPUT_O,
  GPTVQ_INPUT_GATE_UP,
  GPTVQ_INPUT_DOWN,
  GPTVQ_INPUTS,                   /* those that every block has */
  GPTVQ_INPUT_Q_B = GPTVQ_INPUTS, /* latent attention: the vector that queries are made from */
  GPTVQ_INPUT_KV_B,               /* that of keys and values */
  GPTVQ_ALL_INPUTS
} gptvq_block_input;
/* All of them, in the order in which a token meets them. */
extern const gptvq_block_input gptvq_input_order[GPTVQ_ALL_INPUTS];
static inline bool gptvq_input_in_mlp(gptvq_block_input input) {
  return input == GPTVQ_INPUT_GATE_UP || input == GPTVQ_INPUT_DOWN;
}

/* Where RMS norms of a block can stand. */
typedef enum gptvq_norm_place {
  GPTVQ_NORM_ATTENTION,     /* before the attention */
  GPTVQ_NORM_MLP,           /* before the MLP */
  GPTVQ_NORM_Q,             /* of each query head, of head_dim values; or wide_qk_norms */
  GPTVQ_NORM_K,             /* of each key head */
  GPTVQ_NORM_ATTENTION_OUT, /* of what o_proj gives, before it is added to the residual stream */
  GPTVQ_NORM_MLP_OUT,       /* of what down_proj gives */
  GPTVQ_NORM_Q_LATENT,      /* of what GPTVQ_INPUT_Q_B is then */
  GPTVQ_NORM_KV_LATENT,     /* of what GPTVQ_INPUT_KV_B is then */
  GPTVQ_NORMS
} gptvq_norm_place;

typedef enum gptvq_bias_rule { GPTVQ_BIAS_NEVER, GPTVQ_BIAS_ALWAYS, GPTVQ_BIAS_CONFIG } gptvq_bias_rule;

/* Names are relative to "model.layers.N."; NULL ends a list. */
typedef struct gptvq_arch_linears {
  const char *names[GPTVQ_MAX_PARTS + 1]; /* one name for QKV or GATE_UP: all of them fused, in this order */
  gptvq_bias_rule bias;
} gptvq_arch_linears;

/* The parts of a gated delta net, which stands in place of the attention in some layers. */
typedef struct gptvq_arch_delta {
  gptvq_arch_linears linears[GPTVQ_INPUT_O + 1]; /* in place of QKV: q | k | v, z; of O; no biases */
  const char *decay, *beta;                      /* linears that stay as they are: [value_heads × hidden] */
  const char *taps, *rate, *time_bias, *norm;    /* full names: of the convolution, A_log, … */
} gptvq_arch_delta;

/* Tensors of a checkpoint that its text does not need. */
typedef struct gptvq_arch_skipped {
  const char *prefix, *what;
} gptvq_arch_skipped;

struct gptvq_arch {
  const char *name, *model_type; /* NameForCausalLM; NameModel is the same without its output head */
  gptvq_config_rules config;
  const char *norms[GPTVQ_NORMS]; /* NAME.weight; NULL: there is none */
  float norm_offset; /* a norm's gain is this + its weight, of those of heads and the last one too */
  gptvq_arch_linears linears[GPTVQ_ALL_INPUTS];
  const char *direct_q;    /* the first of QKV where queries are made from no latent vector */
  const char *router;      /* NULL: no mixture of experts */
  const char *experts;     /* "…%zu." before the names of GATE_UP and DOWN; NULL: nothing */
  const char *dense;       /* before them in layers without experts */
  const char *shared;      /* before them in the MLP beside the experts */
  const char *shared_gate; /* its output times the sigmoid of what this gives, one row; NULL: as it is */
  gptvq_experts_layout all_experts; /* of tensors of all experts, where the folder has them */
  bool router_bias;
  const char *router_correction; /* added to what experts are chosen by, not to their shares; NULL: nothing */
  bool clamped_swiglu;           /* whatever hidden_act says (gptvq_clamped_mul) */
  const char *sinks;             /* scores of one more key of each head; NULL: none */
  bool wide_qk_norms;            /* Q and K are norms of all heads together, not of each */
  bool slides;                   /* honours sliding_window */
  bool output_gate; /* q_proj gives q | gate of each head; what a head gives is multiplied by sigmoid(gate) */
  gptvq_arch_delta delta; /* with config.linear_layers */
  bool woven_delta;       /* rows of its linears lie by key head in in_proj_qkvz and in_proj_ba (model.c) */
  gptvq_arch_skipped skipped; /* prefix NULL: none */
  bool rotates_neighbours;    /* rotary embedding of pairs (2i, 2i + 1), not (i, i + half) */
};

/* Parts of the description that most families share. */
#define GPTVQ_PRE_NORMS \
  [GPTVQ_NORM_ATTENTION] = "input_layernorm", [GPTVQ_NORM_MLP] = "post_attention_layernorm"
#define GPTVQ_POST_NORMS \
  [GPTVQ_NORM_ATTENTION_OUT] = "post_attention_layernorm", /* of the half */ \
      [GPTVQ_NORM_MLP_OUT] = "post_feedforward_layernorm"
#define GPTVQ_NORMS_AROUND \
  [GPTVQ_NORM_ATTENTION] = "input_layernorm", [GPTVQ_NORM_MLP] = "pre_feedforward_layernorm", GPTVQ_POST_NORMS
#define GPTVQ_QK_NORMS [GPTVQ_NORM_Q] = "self_attn.q_norm", [GPTVQ_NORM_K] = "self_attn.k_norm"
#define GPTVQ_SPLIT_QKV \
  { "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj" }
#define GPTVQ_O_PROJ \
  { "self_attn.o_proj" }
#define GPTVQ_SPLIT_GATE_UP \
  { "mlp.gate_proj", "mlp.up_proj" }
#define GPTVQ_DOWN_PROJ \
  { "mlp.down_proj" }
#define GPTVQ_SPLIT_LINEARS(attention_bias, mlp_bias) \
  [GPTVQ_INPUT_QKV] = {GPTVQ_SPLIT_QKV, attention_bias}, [GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, attention_bias}, \
  [GPTVQ_INPUT_GATE_UP] = {GPTVQ_SPLIT_GATE_UP, mlp_bias}, [GPTVQ_INPUT_DOWN] = {GPTVQ_DOWN_PROJ, mlp_bias}
/* Of families with experts: what MLPs of all kinds are called behind their prefixes. */
#define GPTVQ_EXPERT_LINEARS \
  .router = "mlp.gate", .experts = "mlp.experts.%zu.", .dense = "mlp.", \
  .all_experts = GPTVQ_EXPERTS_STACKED, \
  .linears[GPTVQ_INPUT_GATE_UP] = {{"gate_proj", "up_proj"}, GPTVQ_BIAS_NEVER}, \
  .linears[GPTVQ_INPUT_DOWN] = {{"down_proj"}, GPTVQ_BIAS_NEVER}

#define GPTVQ_LATENT_NORMS \
  [GPTVQ_NORM_Q_LATENT] = "self_attn.q_a_layernorm", [GPTVQ_NORM_KV_LATENT] = "self_attn.kv_a_layernorm"
#define GPTVQ_LATENT_LINEARS \
  .direct_q = "self_attn.q_proj", \
  .linears[GPTVQ_INPUT_QKV] = {{"self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"}, GPTVQ_BIAS_CONFIG}, \
  .linears[GPTVQ_INPUT_Q_B] = {{"self_attn.q_b_proj"}, GPTVQ_BIAS_NEVER}, \
  .linears[GPTVQ_INPUT_KV_B] = {{"self_attn.kv_b_proj"}, GPTVQ_BIAS_NEVER}

/* All families, each gptvq_arch_NAME in NAME.c. */
/* clang-format off */
#define GPTVQ_FAMILIES(X) \
  X(llama) \
  X(mistral) \
  X(mixtral) \
  X(qwen2) \
  X(qwen3) \
  X(phi3) \
  X(gemma2) \
  X(granite) \
  X(granite4) \
  X(seed_oss) \
  X(glm) \
  X(glm4) \
  X(ministral3) \
  X(qwen2_moe) \
  X(qwen3_moe) \
  X(olmoe) \
  X(ministral) \
  X(ernie4_5) \
  X(smollm3) \
  X(gemma) \
  X(gemma3) \
  X(olmo2) \
  X(olmo3) \
  X(exaone4) \
  X(gpt_oss) \
  X(deepseek_v2) \
  X(deepseek_v3) \
  X(qwen3_5) \
  X(qwen3_5_moe) \
  X(qwen3_next)
/* clang-format on */
#define GPTVQ_DECLARE_FAMILY(name) extern const gptvq_arch gptvq_arch_##name;
GPTVQ_FAMILIES(GPTVQ_DECLARE_FAMILY)
#undef GPTVQ_DECLARE_FAMILY

/* The family whose NameForCausalLM, or NameModel, that is; NULL: none. */
const gptvq_arch *gptvq_find_arch(const char *architecture);
/* The family of that model_type; NULL: none. */
const gptvq_arch *gptvq_find_model_type(const char *model_type);
/* GPTVQ_ERROR_UNSUPPORTED with the list of those that are. */
gptvq_status gptvq_fail_arch(const char *folder, const char *architecture, gptvq_error *err);

static inline size_t gptvq_linear_parts(const gptvq_arch_linears *linears) {
  size_t count = 0;
  while (count < GPTVQ_MAX_PARTS && linears->names[count] != NULL) count++;
  return count;
}
static inline size_t gptvq_arch_parts(const gptvq_arch *arch, gptvq_block_input input) {
  return gptvq_linear_parts(&arch->linears[input]);
}

/* weights[n] of a norm become its gains, which are what everything computes with, and back. Back and forth
 * gives the same gains, whatever type the weights have in between. */
static inline void gptvq_weights_to_gains(const gptvq_arch *arch, size_t n, float *weights) {
  for (size_t i = 0; i < n && arch->norm_offset != 0.0f; i++) weights[i] += arch->norm_offset;
}
static inline float gptvq_gain_to_weight(const gptvq_arch *arch, float gain) {
  return arch->norm_offset != 0.0f ? gain - arch->norm_offset : gain;
}

/* "model.layers.BLOCK.NAME" + suffix into text[GPTVQ_TENSOR_NAME]; returns text. */
enum { GPTVQ_TENSOR_NAME = 128 };
const char *gptvq_block_name(size_t block, const char *name, const char *suffix,
                             char text[GPTVQ_TENSOR_NAME]);
/* The same for a linear of one MLP: an expert's number, or one of these. */
#define GPTVQ_MLP_DENSE SIZE_MAX
#define GPTVQ_MLP_SHARED (SIZE_MAX - 1)
const char *gptvq_linear_name(const gptvq_arch *arch, size_t block, gptvq_block_input input, size_t part,
                              size_t mlp, char text[GPTVQ_TENSOR_NAME]);

#endif
