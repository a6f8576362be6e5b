/* The memory of a block that is trained: its weights, and what the forward pass leaves behind. */
#include "train/pieces.h"

#include "base/memory.h"

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

/* Zeros; `wanted` adds up what was asked for. NULL: out of memory, or none were asked for. */
static float *zeros(size_t count, size_t *wanted, bool *failed) {
  if (count == 0) return NULL;
  float *values = gptvq_alloc_zero(count, sizeof *values);
  *wanted = gptvq_saturated_sum(*wanted, gptvq_saturated_size(count, sizeof *values));
  if (values == NULL) *failed = true;
  return values;
}

gptvq_status gptvq_ft_weights_create(const gptvq_ft_dims *d, bool with_matrices, gptvq_ft_weights *out,
                                     gptvq_error *err) {
  const size_t matrices = gptvq_ft_matrices(d);
  *out = (gptvq_ft_weights){.matrices = matrices};
  out->matrix = calloc(matrices, sizeof *out->matrix);
  out->bias = calloc(matrices, sizeof *out->bias);
  bool failed = out->matrix == NULL || out->bias == NULL;
  size_t wanted = 2 * matrices * sizeof *out->matrix;
  for (gptvq_ft_matrix m = 0; m < matrices && !failed; m++) {
    const size_t rows = gptvq_ft_rows(d, m);
    if (with_matrices) out->matrix[m] = zeros(rows * gptvq_ft_cols(d, m), &wanted, &failed);
    if (d->has_bias[gptvq_ft_input(m)]) out->bias[m] = zeros(rows, &wanted, &failed);
  }
  for (gptvq_norm_place n = 0; n < GPTVQ_NORMS; n++)
    if (d->has_norm[n]) out->norm[n] = zeros(gptvq_ft_norm_size(d, n), &wanted, &failed);
  if (with_matrices) {
    out->router = zeros(d->experts * d->hidden, &wanted, &failed);
    out->router_bias = zeros(d->router_bias ? d->experts : 0, &wanted, &failed);
    out->shared_gate = zeros(d->shared_gate ? d->hidden : 0, &wanted, &failed);
    out->delta_gates = zeros(2 * d->delta.value_heads * d->hidden, &wanted, &failed);
  }
  if (!failed) return GPTVQ_OK;
  gptvq_ft_weights_release(out);
  return gptvq_fail_memory(err, "fine-tuning: the weights of a block", wanted);
}

void gptvq_ft_weights_release(gptvq_ft_weights *weights) {
  for (size_t m = 0; m < weights->matrices; m++) {
    if (weights->matrix != NULL) free(weights->matrix[m]);
    if (weights->bias != NULL) free(weights->bias[m]);
  }
  free((void *)weights->matrix);
  free((void *)weights->bias);
  for (int n = 0; n < GPTVQ_NORMS; n++) free(weights->norm[n]);
  free(weights->router);
  free(weights->router_bias);
  free(weights->shared_gate);
  free(weights->delta_gates);
  *weights = (gptvq_ft_weights){0};
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

/* What of routes is no floats. */
static size_t route_bytes(const gptvq_ft_dims *d, size_t max_tokens) {
  const gptvq_routing routing = routing_of(d, max_tokens);
  if (d->experts == 0) return 0;
  return gptvq_saturated_sum(
      gptvq_routing_bytes(&routing),
      gptvq_saturated_sum(gptvq_saturated_size(routed_rows(d, max_tokens), 2 * sizeof(uint32_t)),
                          (d->mlp_count + 1) * sizeof(size_t)));
}

static bool create_routes(const gptvq_ft_dims *d, size_t max_tokens, gptvq_ft_routes *r) {
  if (d->experts == 0) return true;
  r->routing = routing_of(d, max_tokens);
  r->memory = gptvq_alloc(gptvq_routing_bytes(&r->routing), 1);
  r->tokens = gptvq_alloc(routed_rows(d, max_tokens), sizeof *r->tokens);
  r->slots = gptvq_alloc(routed_rows(d, max_tokens), sizeof *r->slots);
  r->first = calloc(d->mlp_count + 1, sizeof *r->first);
  if (r->memory == NULL || r->tokens == NULL || r->slots == NULL || r->first == NULL) return false;
  gptvq_routing_place(&r->routing, r->memory);
  return true;
}

size_t gptvq_ft_tape_bytes(const gptvq_ft_dims *dims, size_t max_tokens, bool with_backward) {
  gptvq_ft_tape tape;
  tape_part parts[TAPE_PARTS];
  size_t total = gptvq_saturated_sum(sizeof tape, route_bytes(dims, max_tokens));
  list_parts(dims, max_tokens, with_backward, &tape, parts);
  for (size_t i = 0; i < TAPE_PARTS; i++)
    total = gptvq_saturated_sum(total, gptvq_saturated_size(parts[i].floats, sizeof(float)));
  return total;
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

gptvq_status gptvq_ft_tape_create(const gptvq_ft_dims *d, size_t max_tokens, bool with_backward,
                                  gptvq_ft_tape **out, gptvq_error *err) {
  *out = NULL;
  gptvq_ft_tape *tape = calloc(1, sizeof *tape);
  if (tape == NULL) return gptvq_fail_memory(err, "fine-tuning", sizeof *tape);
  tape_part parts[TAPE_PARTS];
  list_parts(d, max_tokens, with_backward, tape, parts);
  bool failed = !create_routes(d, max_tokens, &tape->routes);
  for (size_t i = 0; i < TAPE_PARTS; i++)
    if (parts[i].floats != 0 && (*parts[i].place = gptvq_alloc(parts[i].floats, sizeof(float))) == NULL)
      failed = true;
  const size_t norm = with_backward ? widest_norm(d) : 0;
  if (norm > 0) {
    tape->partial = gptvq_alloc(gptvq_ceil_div(max_tokens, GPTVQ_FT_HEAD_CHUNK) * norm, sizeof(double));
    failed = failed || tape->partial == NULL;
  }
  if (failed) {
    gptvq_ft_tape_destroy(tape);
    return gptvq_fail_memory(err, "fine-tuning: the activations of a block",
                             gptvq_ft_tape_bytes(d, max_tokens, with_backward));
  }
  tape->max_tokens = max_tokens;
  *out = tape;
  return GPTVQ_OK;
}

void gptvq_ft_tape_destroy(gptvq_ft_tape *tape) {
  static const gptvq_ft_dims none;
  tape_part parts[TAPE_PARTS];
  if (tape == NULL) return;
  list_parts(&none, 0, false, tape, parts);
  for (size_t i = 0; i < TAPE_PARTS; i++) free(*parts[i].place);
  free(tape->partial);
  free(tape->routes.memory);
  free(tape->routes.tokens);
  free(tape->routes.slots);
  free(tape->routes.first);
  free(tape);
}
