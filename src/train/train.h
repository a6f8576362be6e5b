/* train/train.h: one decoder block as a differentiable function of its continuous parameters.
 *
 * All activations are fp32, row-major, one row a token; a batch is a whole number of windows of `length`
 * tokens, each window attending only to itself. The four matrices of a block are kept stacked as the forward
 * pass uses them: q|k|v, o, gate|up, down. */
#ifndef GPTVQ_TRAIN_TRAIN_H
#define GPTVQ_TRAIN_TRAIN_H

#include "base/arena.h"
#include "base/half.h"
#include "model/layer/experts.h"
#include "model/model_internal.h"
#include "train/finetune.h"

/* The matrices of a block: the readers of each input, stacked. Those of the attention come first, then two of
 * each MLP: of number m GPTVQ_FT_GATE_UP + 2 m and GPTVQ_FT_DOWN + 2 m. */
typedef size_t gptvq_ft_matrix;
enum { GPTVQ_FT_QKV, GPTVQ_FT_O, GPTVQ_FT_Q_B, GPTVQ_FT_KV_B, GPTVQ_FT_GATE_UP, GPTVQ_FT_DOWN };
/* Which input that is, and of which MLP (else 0). */
gptvq_block_input gptvq_ft_input(gptvq_ft_matrix matrix);
static inline size_t gptvq_ft_mlp(gptvq_ft_matrix matrix) {
  return matrix < GPTVQ_FT_GATE_UP ? 0 : (matrix - GPTVQ_FT_GATE_UP) / 2;
}

/* The numbers of a block. Pointers are borrowed. */
typedef struct gptvq_ft_dims {
  size_t hidden, heads, kv_heads, head_dim;
  size_t intermediate;                       /* of the MLP, or of each expert */
  size_t mlp_count;                          /* 1, or experts and perhaps the MLP beside them */
  size_t experts, used, shared_intermediate; /* 0: there are none */
  gptvq_router_rule router;
  const float *router_correction; /* [experts] or NULL */
  bool router_bias, shared_gate;
  size_t length; /* tokens of a window */
  gptvq_attention attention;
  bool output_gate;        /* the first matrix gives q | gate of each head */
  gptvq_latent latent;     /* kv_rank 0: attention is not latent */
  gptvq_delta_sizes delta; /* value_heads 0: the block is no delta net */
  gptvq_delta_weights net; /* of that */
  gptvq_activation activation;
  float eps;
  float residual_scale; /* of what either half adds to x */
  float norm_offset;    /* weights of norms are stored as gain − this */
  bool has_norm[GPTVQ_NORMS];
  bool has_bias[GPTVQ_ALL_INPUTS];
  size_t rotary; /* rotated values of a head (the first ones), even, or 0; value i is paired with i + rotary /
                    2 */
  const float *cosine, *sine; /* [length][rotary / 2] */
} gptvq_ft_dims;

static inline size_t gptvq_ft_matrices(const gptvq_ft_dims *dims) {
  return GPTVQ_FT_GATE_UP + 2 * dims->mlp_count;
}
size_t gptvq_ft_rows(const gptvq_ft_dims *dims, gptvq_ft_matrix matrix); /* outputs; 0: it is not there */
size_t gptvq_ft_cols(const gptvq_ft_dims *dims, gptvq_ft_matrix matrix); /* inputs */
size_t gptvq_ft_norm_size(const gptvq_ft_dims *dims, gptvq_norm_place norm);
size_t gptvq_ft_mlp_width(const gptvq_ft_dims *dims, size_t mlp);
/* Values of a row q | k | v of the attention, in delta nets q | k | v | z; what an o reads. */
size_t gptvq_ft_core_width(const gptvq_ft_dims *dims);

/* Everything that the block multiplies with; also used for the gradients of norms and biases (the rest NULL
 * there). */
typedef struct gptvq_ft_weights {
  size_t matrices;
  float **matrix;           /* [matrices], each [rows × cols] or NULL; see `rounded` */
  float **bias;             /* [matrices], each [rows] or NULL */
  float *norm[GPTVQ_NORMS]; /* or NULL */
  /* what stays as it is; NULL where there is none */
  float *router, *router_bias; /* [experts × hidden], [experts] */
  float *shared_gate;          /* [hidden] */
  float *delta_gates;          /* [2 value_heads × hidden]: decay | beta */
  /* Room for the factors of a product, rounded to bf16: [max_tokens × the most rows or columns of a matrix].
   * Not NULL: products are of bf16 numbers, and the first half of each row of a matrix's memory holds them.
   */
  uint16_t *rounded[2];
} gptvq_ft_weights;

/* What the forward pass leaves behind for the backward pass, for up to max_tokens tokens. */
typedef struct gptvq_ft_tape gptvq_ft_tape;

/* Where one block at a time is worked on: the memory of its weights and of its tape, which the next block
 * takes over. Owned. */
typedef struct gptvq_ft_workspace {
  gptvq_arena arena;
  size_t max_tokens;
  bool with_backward, rounds;
  gptvq_ft_weights weights; /* gptvq_ft_params_fill */
  gptvq_ft_tape *tape;
} gptvq_ft_workspace;
/* Are the factors of products rounded to bf16? Sums and all else stay in fp32. With GPTVQ_COMPUTE_BF16, where
 * gptvq_gemm_bf16_available. */
bool gptvq_ft_rounds(gptvq_compute compute);
/* A workspace for any of the blocks dims[count], set up for the first. On failure nothing is left
 * allocated. */
gptvq_status gptvq_ft_workspace_create(const gptvq_ft_dims *dims, size_t count, size_t max_tokens,
                                       bool with_backward, gptvq_compute compute,
                                       gptvq_ft_workspace *workspace, gptvq_error *err);
/* Sets it up for another of them: the weights are undefined then, and the tape is empty. */
gptvq_status gptvq_ft_workspace_set(gptvq_ft_workspace *workspace, const gptvq_ft_dims *dims,
                                    gptvq_error *err);
void gptvq_ft_workspace_destroy(gptvq_ft_workspace *workspace); /* a zeroed struct is fine */
/* What it takes for one block; SIZE_MAX on overflow. */
size_t gptvq_ft_workspace_bytes(const gptvq_ft_dims *dims, size_t max_tokens, bool with_backward,
                                gptvq_compute compute);
/* Norms and biases alone, zeroed. */
void gptvq_ft_take_vectors(gptvq_arena *arena, const gptvq_ft_dims *dims, gptvq_ft_weights *out);

/* Returns block(x) for `tokens` tokens (a multiple of dims->length, at most max_tokens): [tokens × hidden],
 * valid until the next call. x must stay as it is until the backward pass is done. */
const float *gptvq_ft_forward(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                              size_t tokens, const float *x);

/* Called with each matrix's gradient dW[rows × cols] as soon as it is known; the memory is reused afterwards.
 */
typedef void (*gptvq_ft_sink)(void *context, gptvq_ft_matrix matrix, const float *gradient);

/* The gradient dy[count × width] of a matrix's outputs (before norms and rotation). */
typedef struct gptvq_ft_watched {
  gptvq_ft_matrix matrix;
  size_t count, width;
  const float *dy;
  const uint32_t *tokens; /* [count], of an expert: of the rows; NULL: all in order */
  const float *shares;    /* [count] of the expert in its token; NULL: 1 */
} gptvq_ft_watched;
/* Called with it for each matrix, for those who want it per token. */
typedef void (*gptvq_ft_watch)(void *context, const gptvq_ft_watched *watched);

/* Back-propagation through the last forward call. gradient_out[tokens × hidden] = dL/d block(x). Adds to
 * `vectors` (norms and biases); gives dL/dW of every matrix to `sink` (NULL: not wanted); gradient_in[tokens
 * × hidden] = dL/dx, or NULL: not wanted. gradient_in may be gradient_out. */
void gptvq_ft_backward(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                       const float *gradient_out, gptvq_ft_weights *vectors, gptvq_ft_sink sink,
                       void *context, float *gradient_in);

/* Where tokens went in a block with experts (experts.c). Rows are those of the first expert, of the second,
 * …, of the MLP beside them, each in the order of its tokens. */
typedef struct gptvq_ft_routes {
  gptvq_routing routing;    /* logits: probabilities, see experts.h */
  bool routed;              /* the last forward call found experts for all its tokens */
  size_t *first;            /* [mlp_count + 1]: rows of each MLP */
  uint32_t *tokens, *slots; /* [rows]: which token, and which of its choices */
  float *shares;            /* [rows] */
  float *out;               /* [tokens × hidden]: of one expert; backward: the gradient of that */
  float *d_shares;          /* [tokens × used], backward only, as the rest */
  float *d_logits;          /* [tokens × experts] */
  float *d_product;         /* [tokens × widest MLP] */
} gptvq_ft_routes;

struct gptvq_ft_tape {
  size_t max_tokens, tokens;
  const float *x;         /* the input of the last forward call, borrowed */
  const float *inputs[2]; /* of qkv and of gate|up: [tokens × hidden] */
  float *normed[2];       /* the same where a norm stands before them; else NULL */
  float *inverse_rms[2];  /* [tokens] */
  float *made;            /* what the first matrix gives, where that is not rows q | k | v yet; else NULL */
  float *raw;             /* q|k|v before q/k norms; NULL without them */
  float *qkv;             /* rows of the core after norms and rotation; of delta nets after the convolution */
  float *lse;             /* [tokens × heads]: log Σ exp(score) */
  float *attention;       /* [tokens × heads · head_dim] */
  float *core;            /* [tokens × inputs of o] where that is not the attention as it is */
  float *latents[2], *expanded; /* latent attention: inputs of q_b and kv_b; what kv_b gives */
  float *delta_gates;           /* delta nets: [tokens × 2 value_heads] */
  float *states;                /* delta nets: gptvq_ft_delta_states */
  float *middle;                /* x + attention part */
  float *unnormed[2],
      *out_inverse_rms[2];  /* what o and down give, where a norm stands behind them; else NULL */
  float *gate_up, *product; /* [rows × 2 · intermediate], [rows × intermediate] */
  float *out;               /* [tokens × hidden] */
  float *attention_scratch;
  gptvq_ft_routes routes;
  /* backward only */
  float *d_hidden, *d_middle, *d_wide, *d_matrix;
  float *d_made;        /* as made */
  float *d_gates;       /* as delta_gates */
  float *d_core;        /* as core, or of what stands between */
  float *d_unnormed;    /* [tokens × hidden], with norms behind o or down, or a residual_scale */
  double *partial;      /* of the heads' norms */
  gptvq_ft_watch watch; /* NULL unless somebody sets it */
  void *watch_context;
};

/* ---- parameters (params.c, tables.c) ---- */

/* A packed linear whose table (codebooks, or uniform scales) is optimised. */
typedef struct gptvq_ft_table {
  const gptvq_packed *packed; /* borrowed; gptvq_ft_params_store writes its codebooks and scales */
  gptvq_packed_sizes sizes;
  size_t linear; /* index into the block's linears */
  gptvq_ft_matrix matrix;
  size_t row_offset;     /* of its first row in the stacked matrix */
  size_t first, count;   /* its range of theta: [tile][k][dim], or [row][group], or, of a trellis, both */
  uint16_t *zeros;       /* uniform: unpacked zero points */
  float block_scale[16]; /* what each block-scale code multiplies with; 1 without block scales */
  /* Where indices are trained too (indices.c), else NULL: the indices, unpacked, units in stored order; for
   * each weight, in the order of the indices, a continuous value whose nearest centroid is the index, and
   * Adam's two averages of its gradient. */
  uint16_t *indices;
  float *shadow, *shadow_mean, *shadow_square;
  uint16_t *kept; /* indices of the best step */
} gptvq_ft_table;

/* A norm or a bias. */
typedef struct gptvq_ft_vector {
  float *target;          /* the block's own vector, written by gptvq_ft_params_store */
  gptvq_norm_place norm;  /* GPTVQ_NORMS: a bias */
  gptvq_ft_matrix matrix; /* of a bias: where it belongs */
  size_t row_offset;
  size_t first, count;
  float offset; /* what is stored of a value is that much less */
} gptvq_ft_vector;
/* Its place in a block's weights, or in their gradients. */
static inline float *gptvq_ft_vector_in(const gptvq_ft_vector *vector, const gptvq_ft_weights *weights) {
  return vector->norm < GPTVQ_NORMS ? weights->norm[vector->norm]
                                    : weights->bias[vector->matrix] + vector->row_offset;
}

/* All that is optimised in one block, as one flat vector theta. Codebook values are in the weights' own units
 * (centroid · scale). There is nothing here of the size of the weights, unless indices are trained: those are
 * made of theta and the packed indices whenever they are needed. */
typedef struct gptvq_ft_params {
  const gptvq_ft_dims *dims;
  const gptvq_block *block;
  size_t table_count, vector_count, count;
  gptvq_ft_table *tables;
  gptvq_ft_vector *vectors;
  float *theta, *gradient;
  float *rounded;           /* theta as the packed format can hold it */
  float *unit;              /* typical size of each value at the start: learning rates are relative to it */
  gptvq_dtype vector_dtype; /* precision that norms and biases are stored in */
  gptvq_ft_weights vector_gradients;
  gptvq_arena memory; /* of these */
} gptvq_ft_params;

/* Reads the block: packed linears become tables, norms and biases vectors; dense linears are frozen.
 * `rounded` is the block as it is. The block is borrowed: its packed codebooks, scales, norms and biases must
 * be writable memory if gptvq_ft_params_store is called. Routers, their biases, and what a delta net has
 * beside its linears stay as they are. */
gptvq_status gptvq_ft_params_create(const gptvq_ft_dims *dims, const gptvq_block *block,
                                    gptvq_dtype vector_dtype, gptvq_ft_params *params, gptvq_error *err);
void gptvq_ft_params_release(gptvq_ft_params *params);
/* Values of theta of a block's norms and biases. */
size_t gptvq_ft_vector_values(const gptvq_ft_dims *dims);
/* Of a trained value: theta, gradient, rounded, unit, best and Adam's two. */
enum { GPTVQ_FT_VALUE_BYTES = 7 * sizeof(float) };
/* How many of theta's values are codebooks and scales; they come first. */
size_t gptvq_ft_table_values(const gptvq_ft_params *params);
/* x as it is stored in that precision, less `offset` */
float gptvq_ft_round(gptvq_dtype dtype, float offset, float x);

/* theta → rounded, as the packed format will hold it, or, without `rounding`, exactly; and, where they are
 * trained, the indices that go with it. */
void gptvq_ft_params_round(gptvq_ft_params *params, bool rounding);
/* rounded → weights, all of them; threaded. */
void gptvq_ft_params_fill(const gptvq_ft_params *params, gptvq_ft_weights *weights);
/* A gptvq_ft_sink (context: gptvq_ft_params): adds a matrix's gradient to the gradient of the tables. */
void gptvq_ft_params_scatter(void *params, gptvq_ft_matrix matrix, const float *gradient);
/* Before and after the backward passes of a step: zeroes all gradients; moves the vectors' gradients into
 * params->gradient. */
void gptvq_ft_params_begin(gptvq_ft_params *params);
void gptvq_ft_params_finish(gptvq_ft_params *params);
/* Writes theta, rounded, into the block's packed arrays, norms and biases. */
void gptvq_ft_params_store(gptvq_ft_params *params);

/* Where the indices of a unit begin in gptvq_ft_table.indices. */
static inline size_t gptvq_ft_unit_index(const gptvq_packed_shape *shape, size_t row, size_t group) {
  return gptvq_unit_offset(shape, row, group) * 8 / shape->index_bits;
}

/* ---- tables to matrices and back: tables.c, of trellis layers trellis.c ---- */

/* The rows of a packed linear in `matrix`, its whole stacked matrix, from params->rounded. */
void gptvq_ft_table_fill(const gptvq_ft_params *params, const gptvq_ft_table *table, float *matrix);
/* params->gradient += what the gradient of the stacked matrix says of the table. */
void gptvq_ft_table_scatter(gptvq_ft_params *params, const gptvq_ft_table *table, const float *gradient);
void gptvq_ft_trellis_fill(const gptvq_ft_params *params, const gptvq_ft_table *table, float *matrix);
void gptvq_ft_trellis_scatter(gptvq_ft_params *params, const gptvq_ft_table *table, const float *gradient);
/* What params.c does with the row scales of a trellis; its tables are codebooks. */
void gptvq_ft_trellis_read(const gptvq_ft_table *table, float *theta, float *unit);
void gptvq_ft_trellis_round(const gptvq_ft_table *table, bool rounding, const float *theta, float *rounded);
void gptvq_ft_trellis_store(const gptvq_ft_table *table, const float *theta);

/* ---- indices (indices.c) ---- */

/* Makes the VQ indices of all tables trainable: they are unpacked. Shadow values start from the quantized
 * weights, moved by the fraction `pull` of the way towards the original weights (block `original`, not
 * modified), less far where the index would not stay the nearest. */
gptvq_status gptvq_ft_indices_create(gptvq_ft_params *params, const gptvq_block *original, float pull,
                                     gptvq_error *err);
void gptvq_ft_indices_release(gptvq_ft_params *params);
/* What that takes for a block of one value per index, at most: shadow values and averages, indices and the
 * best ones; 0 where the options do not ask for it. */
double gptvq_ft_index_bytes(const gptvq_block *block, const gptvq_finetune_options *options);
/* One Adam step of the shadow values of `matrix` by its gradient; `step` counts from 1. */
void gptvq_ft_indices_update(gptvq_ft_params *params, gptvq_ft_matrix matrix, const float *gradient,
                             double rate, size_t step);
/* indices = nearest centroids among params->rounded (tables without shadow values are left alone). */
void gptvq_ft_indices_assign(gptvq_ft_params *params);
/* Remembers the indices; brings them back. */
void gptvq_ft_indices_keep(gptvq_ft_params *params);
void gptvq_ft_indices_restore(gptvq_ft_params *params);
/* Writes the indices into the packed arrays, which must be writable. */
void gptvq_ft_indices_store(gptvq_ft_params *params);

/* ---- training ---- */

/* Adam (arXiv 1412.6980) without weight decay. */
typedef struct gptvq_ft_adam {
  size_t count, step;
  float *mean, *square;
} gptvq_ft_adam;
gptvq_status gptvq_ft_adam_create(size_t count, gptvq_ft_adam *adam, gptvq_error *err);
void gptvq_ft_adam_release(gptvq_ft_adam *adam);
void gptvq_ft_adam_restart(gptvq_ft_adam *adam); /* as it was created */
/* theta[i] −= rate(i) · unit[i] · Adam's direction; rate(i) = table_rate below `tables`, vector_rate from
 * there on. */
void gptvq_ft_adam_update(gptvq_ft_adam *adam, size_t tables, double table_rate, double vector_rate,
                          const float *unit, const float *gradient, float *theta);
/* What looks at the held-out windows have found: {.slower = 1} at first. */
typedef struct gptvq_ft_looks {
  size_t stale;  /* in a row without a new best */
  double slower; /* what learning rates are multiplied with */
} gptvq_ft_looks;
typedef enum gptvq_ft_look { GPTVQ_FT_BETTER, GPTVQ_FT_WORSE, GPTVQ_FT_OVER } gptvq_ft_look;
/* A new best, which *result then has; none, and the rates are halved; none for the last time. NaN is no best.
 */
gptvq_ft_look gptvq_ft_judge(gptvq_ft_looks *looks, const gptvq_finetune_options *options, double error,
                             gptvq_finetune_result *result);

/* 0 … 1: a short linear warm-up, then half a cosine down to 0. */
double gptvq_ft_schedule(size_t step, size_t steps);

/* The dims of a model's block without the tables of cosines and sines, which sizes do not need. */
gptvq_ft_dims gptvq_ft_dims_of(const gptvq_model *model, const gptvq_block *block, size_t length);
/* The dims of a model's block for windows of `length` tokens; *tables (cosines and sines) is the caller's to
 * free. */
gptvq_status gptvq_ft_dims_create(const gptvq_model *model, const gptvq_block *block, size_t length,
                                  gptvq_ft_dims *dims, float **tables, gptvq_error *err);

/* The loop of gptvq_finetune_block. Indices are trained where shadow values are there
 * (gptvq_ft_indices_create). */
gptvq_status gptvq_ft_train(gptvq_ft_params *params, size_t windows, const gptvq_stream *inputs,
                            const gptvq_stream *targets, const gptvq_finetune_options *options,
                            const gptvq_callbacks *callbacks, gptvq_finetune_result *result,
                            gptvq_error *err);

/* Windows of a training run: which are held out, and the order in which the others come (windows.c).
 */
typedef struct gptvq_ft_windows {
  size_t *training, training_count, *held, held_count, at;
  uint64_t random;
} gptvq_ft_windows;
gptvq_status gptvq_ft_windows_create(size_t windows, const gptvq_finetune_options *options,
                                     gptvq_ft_windows *out, gptvq_error *err);
void gptvq_ft_windows_release(gptvq_ft_windows *windows);
/* `batch` (at most training_count) window numbers for the next step; each epoch is shuffled anew. */
const size_t *gptvq_ft_windows_next(gptvq_ft_windows *windows, size_t batch);

#endif
