/* The memory of a block that is trained: its weights, and what the forward pass leaves behind. */
#include "train/pieces.h"

#include "base/memory.h"
#include "linalg/gemm_bf16.h"

#include <string.h>

gptvq_block_input gptvq_ft_input(gptvq_ft_matrix matrix) {
  static const gptvq_block_input inputs[] = {GPTVQ_INPUT_QKV,  GPTVQ_INPUT_O,       GPTVQ_INPUT_Q_B,
                                             GPTVQ_INPUT_KV_B, GPTVQ_INPUT_GATE_UP, GPTVQ_INPUT_DOWN};
  return inputs[matrix < GPTVQ_FT_GATE_UP ? matrix : GPTVQ_FT_GATE_UP + (matrix - GPTVQ_FT_GATE_UP) % 2];
}

size_t gptvq_ft_mlp_width(const gptvq_ft_dims *d, size_t mlp) {
  return d->experts > 0 && mlp == d->experts ? d->shared_intermediate : d->intermediate;
}

static bool is_latent(const gptvq_ft_dims *d) { return d->latent.kv_rank > 0; }
static bool is_delta(const gptvq_ft_dims *d) { return d->delta.value_heads > 0; }

size_t gptvq_ft_core_width(const gptvq_ft_dims *d) {
  if (is_delta(d)) return gptvq_delta_columns(&d->delta) + gptvq_delta_outputs(&d->delta);
  return (d->heads + 2 * d->kv_heads) * d->head_dim;
}

static size_t first_rows(const gptvq_ft_dims *d) {
  const size_t queries = d->heads * d->head_dim;
  if (is_latent(d))
    return (d->latent.q_rank > 0 ? d->latent.q_rank : queries) + d->latent.kv_rank + d->latent.rotated;
  return gptvq_ft_core_width(d) + (d->output_gate ? queries : 0);
}

size_t gptvq_ft_rows(const gptvq_ft_dims *d, gptvq_ft_matrix matrix) {
  switch (gptvq_ft_input(matrix)) {
  case GPTVQ_INPUT_QKV: return first_rows(d);
  case GPTVQ_INPUT_Q_B: return d->latent.q_rank > 0 ? d->heads * d->head_dim : 0;
  case GPTVQ_INPUT_KV_B: return is_latent(d) ? d->heads * (d->latent.plain + d->latent.values) : 0;
  case GPTVQ_INPUT_GATE_UP: return 2 * gptvq_ft_mlp_width(d, gptvq_ft_mlp(matrix));
  default: return d->hidden;
  }
}

size_t gptvq_ft_cols(const gptvq_ft_dims *d, gptvq_ft_matrix matrix) {
  switch (gptvq_ft_input(matrix)) {
  case GPTVQ_INPUT_O:
    if (is_delta(d)) return gptvq_delta_outputs(&d->delta);
    return d->heads * (is_latent(d) ? d->latent.values : d->head_dim);
  case GPTVQ_INPUT_Q_B: return d->latent.q_rank;
  case GPTVQ_INPUT_KV_B: return d->latent.kv_rank;
  case GPTVQ_INPUT_DOWN: return gptvq_ft_mlp_width(d, gptvq_ft_mlp(matrix));
  default: return d->hidden;
  }
}

size_t gptvq_ft_norm_size(const gptvq_ft_dims *d, gptvq_norm_place norm) {
  switch (norm) {
  case GPTVQ_NORM_Q: return (d->attention.wide_norms ? d->heads : 1) * d->head_dim;
  case GPTVQ_NORM_K: return (d->attention.wide_norms ? d->kv_heads : 1) * d->head_dim;
  case GPTVQ_NORM_Q_LATENT: return d->latent.q_rank;
  case GPTVQ_NORM_KV_LATENT: return d->latent.kv_rank;
  default: return d->hidden;
  }
}

static float *take_floats(gptvq_arena *arena, size_t count) {
  return count > 0 ? gptvq_arena_take(arena, count, sizeof(float)) : NULL;
}

static float *take_zeros(gptvq_arena *arena, size_t count) {
  return count > 0 ? gptvq_arena_take_zero(arena, count, sizeof(float)) : NULL;
}

/* with_matrices false: only norms and biases. These are zeroed, matrices are not initialised. */
static void take_weights(gptvq_arena *arena, const gptvq_ft_dims *d, bool with_matrices,
                         gptvq_ft_weights *out) {
  const size_t matrices = gptvq_ft_matrices(d);
  *out = (gptvq_ft_weights){.matrices = matrices};
  out->matrix = gptvq_arena_take_zero(arena, matrices, sizeof *out->matrix);
  out->bias = gptvq_arena_take_zero(arena, matrices, sizeof *out->bias);
  for (gptvq_ft_matrix m = 0; m < matrices; m++) {
    const size_t rows = gptvq_ft_rows(d, m);
    float *matrix = with_matrices ? take_floats(arena, rows * gptvq_ft_cols(d, m)) : NULL,
          *bias = d->has_bias[gptvq_ft_input(m)] ? take_zeros(arena, rows) : NULL;
    if (out->matrix == NULL || out->bias == NULL) continue; /* only counted */
    out->matrix[m] = matrix;
    out->bias[m] = bias;
  }
  for (gptvq_norm_place n = 0; n < GPTVQ_NORMS; n++)
    if (d->has_norm[n]) out->norm[n] = take_zeros(arena, gptvq_ft_norm_size(d, n));
  if (!with_matrices) return;
  out->router = take_floats(arena, d->experts * d->hidden);
  out->router_bias = take_floats(arena, d->router_bias ? d->experts : 0);
  out->shared_gate = take_floats(arena, d->shared_gate ? d->hidden : 0);
  out->delta_gates = take_floats(arena, 2 * d->delta.value_heads * d->hidden);
}

void gptvq_ft_take_vectors(gptvq_arena *arena, const gptvq_ft_dims *dims, gptvq_ft_weights *out) {
  take_weights(arena, dims, false, out);
}

/* Are q and k needed as they were before their norms? */
static bool has_raw(const gptvq_ft_dims *d) { return d->has_norm[GPTVQ_NORM_Q] || d->has_norm[GPTVQ_NORM_K]; }
/* Does anything stand between the first matrix and rows q | k | v? */
static bool has_made(const gptvq_ft_dims *d) { return is_latent(d) || is_delta(d) || d->output_gate; }

/* Each array of a tape and how many floats it has: what is allocated, and what an estimate adds up. */
typedef struct tape_part {
  float **place;
  size_t floats;
} tape_part;
enum { TAPE_PARTS = 37 };

/* Of a block with experts: rows of all MLPs together. */
static size_t routed_rows(const gptvq_ft_dims *d, size_t max_tokens) {
  return max_tokens * (d->used + (d->mlp_count > d->experts ? 1 : 0));
}

static void list_parts(const gptvq_ft_dims *d, size_t max_tokens, bool with_backward, gptvq_ft_tape *tape,
                       tape_part parts[TAPE_PARTS]) {
  const size_t core = gptvq_ft_core_width(d), heads = is_delta(d) ? 0 : d->heads,
               attention = heads * d->head_dim, made = has_made(d) ? gptvq_ft_rows(d, GPTVQ_FT_QKV) : 0,
               inputs = gptvq_ft_cols(d, GPTVQ_FT_O), routed = d->experts > 0 ? max_tokens : 0,
               rows = d->experts > 0 ? routed_rows(d, max_tokens) : 0, back = with_backward ? max_tokens : 0;
  const size_t expanded = gptvq_max_size(gptvq_ft_rows(d, GPTVQ_FT_Q_B), gptvq_ft_rows(d, GPTVQ_FT_KV_B)),
               ranks = gptvq_max_size(d->latent.q_rank, d->latent.kv_rank);
  size_t wide = gptvq_max_size(core, attention), largest = 0, widest = 0;
  for (gptvq_ft_matrix m = 0; m < gptvq_ft_matrices(d); m++) {
    wide = gptvq_max_size(wide, gptvq_ft_rows(d, m));
    largest = gptvq_max_size(largest, gptvq_ft_rows(d, m) * gptvq_ft_cols(d, m));
  }
  for (size_t m = 0; m < d->mlp_count; m++) widest = gptvq_max_size(widest, gptvq_ft_mlp_width(d, m));
  const size_t products = d->experts > 0 ? max_tokens * (d->used * d->intermediate + d->shared_intermediate)
                                         : max_tokens * d->intermediate;
  const bool attention_out = d->has_norm[GPTVQ_NORM_ATTENTION_OUT], mlp_out = d->has_norm[GPTVQ_NORM_MLP_OUT];
  const tape_part list[TAPE_PARTS] = {
      {&tape->normed[0], d->has_norm[GPTVQ_NORM_ATTENTION] ? max_tokens * d->hidden : 0},
      {&tape->normed[1], d->has_norm[GPTVQ_NORM_MLP] ? max_tokens * d->hidden : 0},
      {&tape->inverse_rms[0], d->has_norm[GPTVQ_NORM_ATTENTION] ? max_tokens : 0},
      {&tape->inverse_rms[1], d->has_norm[GPTVQ_NORM_MLP] ? max_tokens : 0},
      {&tape->made, max_tokens * made},
      {&tape->raw, has_raw(d) ? max_tokens * core : 0},
      {&tape->qkv, max_tokens * core},
      {&tape->lse, max_tokens * heads},
      {&tape->attention, max_tokens * attention},
      {&tape->core, made > 0 ? max_tokens * inputs : 0},
      {&tape->latents[0], max_tokens * d->latent.q_rank},
      {&tape->latents[1], max_tokens * d->latent.kv_rank},
      {&tape->expanded, max_tokens * expanded},
      {&tape->delta_gates, max_tokens * 2 * d->delta.value_heads},
      {&tape->states, is_delta(d) && with_backward ? gptvq_ft_delta_states(d, max_tokens) : 0},
      {&tape->middle, max_tokens * d->hidden},
      {&tape->unnormed[0], attention_out ? max_tokens * d->hidden : 0},
      {&tape->unnormed[1], mlp_out ? max_tokens * d->hidden : 0},
      {&tape->out_inverse_rms[0], attention_out ? max_tokens : 0},
      {&tape->out_inverse_rms[1], mlp_out ? max_tokens : 0},
      {&tape->gate_up, 2 * products},
      {&tape->product, products},
      {&tape->out, max_tokens * d->hidden},
      {&tape->attention_scratch, is_delta(d) ? gptvq_ft_delta_scratch(d)
                                 : heads > 0 ? gptvq_ft_attention_scratch(d)
                                             : 0},
      {&tape->routes.shares, rows},
      {&tape->routes.out, routed * d->hidden},
      {&tape->routes.d_shares, with_backward ? routed * d->used : 0},
      {&tape->routes.d_logits, with_backward ? routed * d->experts : 0},
      {&tape->routes.d_product, with_backward ? routed * widest : 0},
      {&tape->d_hidden, back * d->hidden},
      {&tape->d_middle, back * d->hidden},
      {&tape->d_made, back * made},
      {&tape->d_gates, back * 2 * d->delta.value_heads},
      {&tape->d_core, made > 0 ? back * gptvq_max_size(gptvq_max_size(inputs, attention), expanded) : 0},
      {&tape->d_unnormed, attention_out || mlp_out || d->residual_scale != 1.0f ? back * d->hidden : 0},
      {&tape->d_wide, back * wide},
      {&tape->d_matrix,
       with_backward
           ? gptvq_max_size(largest, max_tokens * gptvq_max_size(gptvq_max_size(inputs, ranks), widest))
           : 0},
  };
  memcpy(parts, list, sizeof list);
}

static gptvq_routing routing_of(const gptvq_ft_dims *d, size_t max_tokens) {
  return (gptvq_routing){.max_rows = max_tokens,
                         .hidden = d->hidden,
                         .experts = d->experts,
                         .used = d->used,
                         .rule = d->router,
                         .correction = d->router_correction};
}

static void take_routes(gptvq_arena *arena, const gptvq_ft_dims *d, size_t max_tokens, gptvq_ft_routes *r) {
  if (d->experts == 0) return;
  r->routing = routing_of(d, max_tokens);
  char *memory = gptvq_arena_take(arena, gptvq_routing_bytes(&r->routing), 1);
  r->tokens = gptvq_arena_take(arena, routed_rows(d, max_tokens), sizeof *r->tokens);
  r->slots = gptvq_arena_take(arena, routed_rows(d, max_tokens), sizeof *r->slots);
  r->first = gptvq_arena_take_zero(arena, d->mlp_count + 1, sizeof *r->first);
  if (memory != NULL) gptvq_routing_place(&r->routing, memory);
}

/* Values of the widest norm of which partial sums are kept. */
static size_t widest_norm(const gptvq_ft_dims *d) {
  static const gptvq_norm_place places[] = {GPTVQ_NORM_Q, GPTVQ_NORM_K, GPTVQ_NORM_Q_LATENT,
                                            GPTVQ_NORM_KV_LATENT};
  size_t widest = 0;
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
    if (d->has_norm[places[i]]) widest = gptvq_max_size(widest, gptvq_ft_norm_size(d, places[i]));
  return widest;
}

static gptvq_ft_tape *take_tape(gptvq_arena *arena, const gptvq_ft_dims *d, size_t max_tokens,
                                bool with_backward) {
  gptvq_ft_tape counted = {0}, *made = gptvq_arena_take_zero(arena, 1, sizeof *made),
                *tape = made != NULL ? made : &counted;
  tape_part parts[TAPE_PARTS];
  list_parts(d, max_tokens, with_backward, tape, parts);
  for (size_t i = 0; i < TAPE_PARTS; i++) *parts[i].place = take_floats(arena, parts[i].floats);
  take_routes(arena, d, max_tokens, &tape->routes);
  const size_t norm = with_backward ? widest_norm(d) : 0;
  if (norm > 0)
    tape->partial =
        gptvq_arena_take(arena, gptvq_ceil_div(max_tokens, GPTVQ_FT_HEAD_CHUNK) * norm, sizeof(double));
  tape->max_tokens = max_tokens;
  return made;
}

static void take_workspace(gptvq_ft_workspace *workspace, const gptvq_ft_dims *dims) {
  size_t widest = 0;
  take_weights(&workspace->arena, dims, true, &workspace->weights);
  for (gptvq_ft_matrix m = 0; m < gptvq_ft_matrices(dims); m++)
    widest = gptvq_max_size(widest, gptvq_max_size(gptvq_ft_rows(dims, m), gptvq_ft_cols(dims, m)));
  for (size_t i = 0; i < 2 && workspace->rounds; i++)
    workspace->weights.rounded[i] =
        gptvq_arena_take(&workspace->arena, workspace->max_tokens * widest, sizeof(uint16_t));
  workspace->tape = take_tape(&workspace->arena, dims, workspace->max_tokens, workspace->with_backward);
}

bool gptvq_ft_rounds(gptvq_compute compute) {
  return compute == GPTVQ_COMPUTE_BF16 && gptvq_gemm_bf16_available();
}

static gptvq_ft_workspace workspace_of(size_t max_tokens, bool with_backward, gptvq_compute compute) {
  return (gptvq_ft_workspace){
      .max_tokens = max_tokens, .with_backward = with_backward, .rounds = gptvq_ft_rounds(compute)};
}

size_t gptvq_ft_workspace_bytes(const gptvq_ft_dims *dims, size_t max_tokens, bool with_backward,
                                gptvq_compute compute) {
  gptvq_ft_workspace workspace = workspace_of(max_tokens, with_backward, compute);
  take_workspace(&workspace, dims);
  return workspace.arena.peak;
}

gptvq_status gptvq_ft_workspace_set(gptvq_ft_workspace *workspace, const gptvq_ft_dims *dims,
                                    gptvq_error *err) {
  gptvq_arena_return(&workspace->arena, 0);
  take_workspace(workspace, dims);
  return gptvq_arena_check(&workspace->arena, "fine-tuning: the weights and activations of a block", err);
}

gptvq_status gptvq_ft_workspace_create(const gptvq_ft_dims *dims, size_t count, size_t max_tokens,
                                       bool with_backward, gptvq_compute compute,
                                       gptvq_ft_workspace *workspace, gptvq_error *err) {
  size_t most = 0;
  for (size_t i = 0; i < count; i++)
    most = gptvq_max_size(most, gptvq_ft_workspace_bytes(&dims[i], max_tokens, with_backward, compute));
  *workspace = workspace_of(max_tokens, with_backward, compute);
  GPTVQ_TRY(gptvq_arena_create(&workspace->arena, most, "fine-tuning: the weights and activations of a block",
                               err));
  gptvq_status status = gptvq_ft_workspace_set(workspace, &dims[0], err);
  if (status != GPTVQ_OK) gptvq_ft_workspace_destroy(workspace);
  return status;
}

void gptvq_ft_workspace_destroy(gptvq_ft_workspace *workspace) {
  gptvq_arena_destroy(&workspace->arena);
  *workspace = (gptvq_ft_workspace){0};
}
