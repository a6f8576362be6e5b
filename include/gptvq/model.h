/* gptvq/model.h: open a model folder (original or packed) and run it. */
#ifndef GPTVQ_MODEL_H
#define GPTVQ_MODEL_H

#include <gptvq/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gptvq_model gptvq_model; /* immutable, memory-mapped weights; may be shared between sessions */
typedef struct gptvq_session
    gptvq_session; /* KV cache and scratch memory of one running text; one thread at a time */

typedef enum gptvq_compute {
  GPTVQ_COMPUTE_AUTO = 0, /* INT8 for packed folders; for others BF16 where their weights are bf16 and the
                             processor has AVX512-BF16, else FP32 */
  GPTVQ_COMPUTE_FP32 = 1,
  GPTVQ_COMPUTE_BF16 = 2, /* inputs of matrix products over dense weights are rounded to bf16, for prompts
                             those over packed ones too; sums are fp32 */
  GPTVQ_COMPUTE_INT8 = 3  /* as BF16, and inputs of packed layers are int8 codes with a scale per column group
                             where there are kernels for the format; keys and values are kept as fp16 */
} gptvq_compute;

/* "auto", "fp32", "bf16", "int8" */
GPTVQ_API const char *gptvq_compute_name(gptvq_compute compute);
/* GPTVQ_ERROR_ARGUMENT: no such name; *compute stays as it is. */
GPTVQ_API gptvq_status gptvq_compute_from_name(const char *name, gptvq_compute *compute, gptvq_error *err);

typedef struct gptvq_model_options {
  size_t size;
  gptvq_compute compute;
  unsigned head_bits; /* weights of the output head: 16 = as stored, 8 = int8 with a scale per 256 columns,
                         made when the model is opened; 0 = 8 when computing in INT8, else 16 */
  const gptvq_callbacks *callbacks; /* log hears warnings while the folder is opened; NULL: nobody does */
} gptvq_model_options;
static inline void gptvq_model_options_init(gptvq_model_options *options) { GPTVQ_INIT(options); }

typedef struct gptvq_model_info {
  size_t size;
  char architecture[64]; /* "LlamaForCausalLM" */
  size_t layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, max_positions, experts;
  uint64_t parameters;         /* values of the model, tied tensors counted once */
  uint64_t linear_values;      /* values in the block linears, the ones that are quantized */
  uint64_t linear_bytes;       /* bytes that they take in the files */
  uint64_t other_bytes;        /* bytes of all other tensors, used or not, but for beside_bytes */
  double bits_per_value;       /* 8 · linear_bytes / linear_values */
  double model_bits_per_value; /* 8 · all tensor bytes / parameters */
  int packed;                  /* 1: a gptvq folder */
  int32_t bos;                 /* from config.json / generation_config.json; -1 where absent */
  const int32_t *eos; /* [eos_count] ids that end a text, from the same files; lives as long as the model */
  size_t eos_count;
  gptvq_compute compute; /* in force: never AUTO */
  unsigned head_bits;    /* of the output head's weights as they are used; 16, 32: as stored */
  const char *family;    /* "Llama", "Gemma2": a row of docs/MODELS.md; a constant */
  uint64_t beside_bytes; /* of groups of tensors that the text model does without (what makes inputs of
                            pictures, layers and heads that guess further tokens): part of nothing above */
} gptvq_model_info;
static inline void gptvq_model_info_init(gptvq_model_info *info) { GPTVQ_INIT(info); }

/* One block linear (or expert) as stored; strings live as long as the model. */
typedef struct gptvq_layer_info {
  size_t size;
  const char *name;   /* "model.layers.0.self_attn.q_proj" */
  const char *format; /* "bf16", "fp16", "fp32", "fp64", "fp8", "mxfp4", "vq", "uniform", "trellis"; of a GGUF
                         file "Q4_K" … */
  const char *method; /* "gptvq", "gptq", "rtn", "kmeans", or "" */
  size_t rows, cols;
  unsigned dim;        /* VQ dimension d; 1 for uniform and dense */
  unsigned index_bits; /* log2 k; code bits for uniform; 0 for dense */
  size_t group_rows, group_cols;
  unsigned codebook_bits; /* 8 or 16; 0 for others */
  unsigned scale_block;   /* N_s, 0 = none; for uniform the group size */
  uint64_t bytes;         /* all of its tensors, in the files */
  double bits_per_value;
  double error;      /* relative layer error reported when it was quantized, NaN if unknown */
  unsigned svd_rank; /* rank of the stored factors of all codebooks; 0 = codebooks stored as they are */
} gptvq_layer_info;
static inline void gptvq_layer_info_init(gptvq_layer_info *info) { GPTVQ_INIT(info); }

/* A tensor that is none of the block linears': a matrix that is not quantized with them, perhaps packed by
 * itself (embedding, output head), or one (or a group) that the model leaves out. Norms and biases are not
 * told. Strings live as long as the model. */
typedef struct gptvq_other_info {
  size_t size;
  const char *name; /* "lm_head.weight" */
  const char *why;  /* it stays as it is, or is left out; of a packed one: what it is */
  int used;         /* 0: left out */
  size_t rows, cols;
  uint64_t bytes; /* in the files */
  size_t tensors; /* more than 1: of a group that is left out, name its names' beginning and "*", rows all
                     values */
  unsigned
      index_bits; /* of a packed matrix, whose `name` is without ".weight": bits of a code; 0: it is none */
} gptvq_other_info;
static inline void gptvq_other_info_init(gptvq_other_info *info) { GPTVQ_INIT(info); }

/* PATH: a Hugging Face folder (docs/CLI.md says which of its files count). options NULL: the
 * defaults. On success the caller owns *out. What is not as it should be but means only one thing
 * (docs/FORMAT.md, section 3.1) is a warning, anything else that the architecture has no place for
 * GPTVQ_ERROR_FORMAT or GPTVQ_ERROR_UNSUPPORTED naming the tensor. */
GPTVQ_API gptvq_status gptvq_model_open(const char *path, const gptvq_model_options *options,
                                        gptvq_model **out, gptvq_error *err);
GPTVQ_API void gptvq_model_close(gptvq_model *model); /* after its sessions; NULL is fine */
GPTVQ_API void gptvq_model_get_info(const gptvq_model *model, gptvq_model_info *info);
GPTVQ_API size_t gptvq_model_layer_count(const gptvq_model *model); /* number of block linears */
GPTVQ_API void gptvq_model_get_layer(const gptvq_model *model, size_t index, gptvq_layer_info *info);
GPTVQ_API size_t gptvq_model_other_count(const gptvq_model *model);
GPTVQ_API void gptvq_model_get_other(const gptvq_model *model, size_t index, gptvq_other_info *info);
/* quantization_config of config.json as JSON text, or NULL for an original model; lives as long as the model.
 */
GPTVQ_API const char *gptvq_model_quantization_json(const gptvq_model *model);

/* y[n × rows] = x[n × cols] Wᵀ + bias of block linear number `layer`, packed or not, in the layouts of
 * gptvq_session_forward; for programs that run the model themselves. compute: FP32, or INT8 (AUTO: INT8 for a
 * packed one). From any thread; in the model's context. GPTVQ_ERROR_ARGUMENT: there is no such layer. */
GPTVQ_API gptvq_status gptvq_model_multiply(const gptvq_model *model, size_t layer, gptvq_compute compute,
                                            size_t n, const float *x, float *y, gptvq_error *err);

/* A session for at most max_tokens positions. Bytes it will take: gptvq_session_estimate. */
GPTVQ_API size_t gptvq_session_estimate(const gptvq_model *model, size_t max_tokens);
GPTVQ_API gptvq_status gptvq_session_create(const gptvq_model *model, size_t max_tokens, gptvq_session **out,
                                            gptvq_error *err);
GPTVQ_API void gptvq_session_destroy(gptvq_session *session); /* NULL is fine */
GPTVQ_API void gptvq_session_reset(gptvq_session *session);   /* forget all positions */
GPTVQ_API size_t gptvq_session_position(const gptvq_session *session);
/* Back to the first `position` tokens; what follows is forgotten. GPTVQ_ERROR_ARGUMENT: there are not so
 * many. Models with linear attention (Qwen3.5, Qwen3-Next) keep states instead of keys and values: they go
 * back to where the last call that succeeded began, once, to where the last one of more than
 * GPTVQ_BATCH_TOKENS tokens ended, and to 0; GPTVQ_ERROR_UNSUPPORTED: elsewhere. */
GPTVQ_API gptvq_status gptvq_session_truncate(gptvq_session *session, size_t position, gptvq_error *err);
/* The same, or where it cannot go back to there, to the nearest position before it that it can go back to:
 * *reached (may be NULL), from which on the tokens have to be given again. Prefixes are reused so. */
GPTVQ_API gptvq_status gptvq_session_rewind(gptvq_session *session, size_t position, size_t *reached,
                                            gptvq_error *err);
/* A second session of the same size on the same model, at the same position: keys, values and states are
 * copied, nothing is shared but the model. The caller owns *out. */
GPTVQ_API gptvq_status gptvq_session_fork(const gptvq_session *session, gptvq_session **out,
                                          gptvq_error *err);
/* The first `positions` tokens of `from` in the place of what `to` has: a session of the same model and size,
 * which is at that position afterwards. GPTVQ_ERROR_ARGUMENT: it is another model's, of another size, or
 * `from` has fewer tokens; GPTVQ_ERROR_UNSUPPORTED: states of linear attention are kept where `from` is,
 * where its last prompt ended and at 0 only. On failure `to` is what it was. */
GPTVQ_API gptvq_status gptvq_session_copy(const gptvq_session *from, size_t positions, gptvq_session *to,
                                          gptvq_error *err);
/* From any thread: the gptvq_session_forward or gptvq_batch_forward that is running, or else the next one,
 * ends soon with GPTVQ_ERROR_CANCELLED and leaves the position where it was. The session can be used again
 * after that. gptvq_session_reset takes a request back that nothing has seen. */
GPTVQ_API void gptvq_session_cancel(gptvq_session *session);

/* Appends `count` tokens. logits: caller's buffer of vocab floats (logits after the last token) or, with
 * all_logits, of count × vocab floats, row-major; NULL: not computed. GPTVQ_ERROR_DATA: id outside the
 * vocabulary; GPTVQ_ERROR_ARGUMENT: more positions than the session has; logits after the last of no tokens.
 * GPTVQ_ERROR_NUMERIC: NaN, infinity or overflow on the way or in the logits, naming the block or the tensor.
 * GPTVQ_ERROR_CANCELLED: gptvq_session_cancel. */
GPTVQ_API gptvq_status gptvq_session_forward(gptvq_session *session, const int32_t *tokens, size_t count,
                                             float *logits, int all_logits, gptvq_error *err);

/* One step of several sessions of one model together, at whatever positions: each pass over the weights
 * serves them all. Each session's logits are those that gptvq_session_forward gives it for the same tokens,
 * whoever else is in the step: bit for bit in BF16 and INT8, which round activations, and up to the rounding
 * of fp32 sums in another order in FP32. The batch is scratch memory, to be used by one thread at a time like
 * the sessions in it, and for as many steps as wanted. */
typedef struct gptvq_batch gptvq_batch;
/* Tokens of a session in a step at most; longer prompts are gptvq_session_forward's. */
enum { GPTVQ_BATCH_TOKENS = 4 };
/* Prompts may be together too: each of so many tokens at least, and of at most 512 (or what its session has
 * room for). 0: not in this model, where numbers could come out otherwise in company: computing in FP32 or
 * BF16, with experts, latent or linear attention, or matrices that are not packed. */
GPTVQ_API size_t gptvq_batch_prompt_tokens(const gptvq_model *model);
/* For steps of up to max_tokens tokens, those of all sessions counted. On success the caller owns *out. Bytes
 * it will take: gptvq_batch_estimate, SIZE_MAX where they cannot be counted. */
GPTVQ_API size_t gptvq_batch_estimate(const gptvq_model *model, size_t max_tokens);
GPTVQ_API gptvq_status gptvq_batch_create(const gptvq_model *model, size_t max_tokens, gptvq_batch **out,
                                          gptvq_error *err);
GPTVQ_API void gptvq_batch_destroy(gptvq_batch *batch); /* before its model is closed; NULL is fine */
/* Appends tokens[i][counts[i]] to sessions[i], i < count: up to GPTVQ_BATCH_TOKENS of each, or of each at
 * least gptvq_batch_prompt_tokens. logits[count × vocab]: row i after the last token
 * of session i; NULL: not computed. On failure every session is where it was. GPTVQ_ERROR_ARGUMENT: a session
 * of another model, one that is there twice, no or too many tokens of one or of all, or no room in a session.
 * GPTVQ_ERROR_CANCELLED: gptvq_session_cancel of one of the sessions, whose number the message says; its
 * request is taken back, the others' are not. Else as gptvq_session_forward. */
GPTVQ_API gptvq_status gptvq_batch_forward(gptvq_batch *batch, size_t count, gptvq_session *const *sessions,
                                           const int32_t *const *tokens, const size_t *counts, float *logits,
                                           gptvq_error *err);

/* Sampling, in this order: repetition penalty, temperature, top-k, top-p, min-p. */
typedef struct gptvq_sampler {
  size_t size;
  float temperature; /* 0 = greedy (lowest id among equals) */
  float top_p;       /* the most likely tokens that make up top_p, in (0, 1] */
  size_t top_k;      /* the top_k most likely tokens; 0 = all */
  uint64_t state;    /* random state; start it with the seed */
  float min_p;       /* tokens at least min_p times as likely as the most likely one, in [0, 1]; 0 = all */
  /* positive logits of tokens in `history` are divided by it, others multiplied; 0 or 1 = off */
  float repetition_penalty;
  const int32_t *history; /* [history_count] the text so far; not copied; may be NULL when there is none */
  size_t history_count;
} gptvq_sampler;
/* temperature 0.8, top_p 0.95, the rest off. */
static inline void gptvq_sampler_init(gptvq_sampler *sampler, uint64_t seed) {
  GPTVQ_INIT(sampler);
  sampler->temperature = 0.8f;
  sampler->top_p = 0.95f;
  sampler->state = seed;
}
/* GPTVQ_ERROR_ARGUMENT: a member out of its range; GPTVQ_ERROR_DATA: a token of the history outside of the
 * vocabulary; GPTVQ_ERROR_NUMERIC: a logit that is NaN or plus infinity. Memory is taken only for the
 * penalty.
 */
GPTVQ_API gptvq_status gptvq_sample(gptvq_sampler *sampler, const float *logits, size_t vocab, int32_t *token,
                                    gptvq_error *err);

#ifdef __cplusplus
}
#endif
#endif
