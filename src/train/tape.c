/* The memory of a block that is trained: its weights, and what the forward pass leaves behind. */
#include "train/pieces.h"

#include "base/memory.h"

#include <string.h>

size_t gptvq_ft_rows(const gptvq_ft_dims *d, gptvq_ft_matrix matrix) {
  switch (matrix) {
  case GPTVQ_FT_QKV: return (d->heads + 2 * d->kv_heads) * d->head_dim;
  case GPTVQ_FT_GATE_UP: return 2 * d->intermediate;
  default: return d->hidden;
  }
}

size_t gptvq_ft_cols(const gptvq_ft_dims *d, gptvq_ft_matrix matrix) {
  switch (matrix) {
  case GPTVQ_FT_O: return d->heads * d->head_dim;
  case GPTVQ_FT_DOWN: return d->intermediate;
  default: return d->hidden;
  }
}

size_t gptvq_ft_norm_size(const gptvq_ft_dims *d, gptvq_norm_place norm) {
  if (norm != GPTVQ_NORM_Q && norm != GPTVQ_NORM_K) return d->hidden;
  if (!d->attention.wide_norms) return d->head_dim;
  return (norm == GPTVQ_NORM_Q ? d->heads : d->kv_heads) * d->head_dim;
}

gptvq_status gptvq_ft_weights_create(const gptvq_ft_dims *dims, bool with_matrices, gptvq_ft_weights *out,
                                     gptvq_error *err) {
  memset(out, 0, sizeof *out);
  size_t wanted = 0;
  bool failed = false;
  for (int m = 0; m < GPTVQ_FT_MATRICES; m++) {
    size_t rows = gptvq_ft_rows(dims, (gptvq_ft_matrix)m), cols = gptvq_ft_cols(dims, (gptvq_ft_matrix)m);
    if (with_matrices) {
      wanted += gptvq_saturated_size(rows * cols, sizeof(float));
      out->matrix[m] = gptvq_alloc_zero(rows * cols, sizeof(float));
      failed = failed || out->matrix[m] == NULL;
    }
    if (dims->has_bias[m]) {
      out->bias[m] = gptvq_alloc_zero(rows, sizeof(float));
      failed = failed || out->bias[m] == NULL;
    }
  }
  for (int n = 0; n < GPTVQ_NORMS; n++)
    if (dims->has_norm[n]) {
      out->norm[n] = gptvq_alloc_zero(gptvq_ft_norm_size(dims, (gptvq_norm_place)n), sizeof(float));
      failed = failed || out->norm[n] == NULL;
    }
  if (!failed) return GPTVQ_OK;
  gptvq_ft_weights_release(out);
  return gptvq_fail_memory(err, "fine-tuning: the weights of a block", wanted);
}

void gptvq_ft_weights_release(gptvq_ft_weights *weights) {
  for (int m = 0; m < GPTVQ_FT_MATRICES; m++) {
    free(weights->matrix[m]);
    free(weights->bias[m]);
  }
  for (int n = 0; n < GPTVQ_NORMS; n++) free(weights->norm[n]);
  memset(weights, 0, sizeof *weights);
}

/* Are q and k needed as they were before their norms? */
static bool has_raw(const gptvq_ft_dims *d) { return d->has_norm[GPTVQ_NORM_Q] || d->has_norm[GPTVQ_NORM_K]; }

/* Each array of a tape and how many floats it has: what is allocated, and what an estimate adds up. */
typedef struct tape_part {
  float **place;
  size_t floats;
} tape_part;
enum { TAPE_PARTS = 22 };

static void list_parts(const gptvq_ft_dims *d, size_t max_tokens, bool with_backward, gptvq_ft_tape *tape,
                       tape_part parts[TAPE_PARTS]) {
  size_t qkv = gptvq_ft_rows(d, GPTVQ_FT_QKV), attention = d->heads * d->head_dim, wide = 0, largest = 0;
  for (int m = 0; m < GPTVQ_FT_MATRICES; m++) {
    size_t rows = gptvq_ft_rows(d, (gptvq_ft_matrix)m), cols = gptvq_ft_cols(d, (gptvq_ft_matrix)m);
    wide = gptvq_max_size(wide, rows);
    largest = gptvq_max_size(largest, rows * cols);
  }
  wide = gptvq_max_size(wide, attention);
  const bool attention_out = d->has_norm[GPTVQ_NORM_ATTENTION_OUT], mlp_out = d->has_norm[GPTVQ_NORM_MLP_OUT];
  const tape_part list[TAPE_PARTS] = {
      {&tape->normed[0], d->has_norm[GPTVQ_NORM_ATTENTION] ? max_tokens * d->hidden : 0},
      {&tape->normed[1], d->has_norm[GPTVQ_NORM_MLP] ? max_tokens * d->hidden : 0},
      {&tape->inverse_rms[0], d->has_norm[GPTVQ_NORM_ATTENTION] ? max_tokens : 0},
      {&tape->inverse_rms[1], d->has_norm[GPTVQ_NORM_MLP] ? max_tokens : 0},
      {&tape->raw, has_raw(d) ? max_tokens * qkv : 0},
      {&tape->qkv, max_tokens * qkv},
      {&tape->lse, max_tokens * d->heads},
      {&tape->attention, max_tokens * attention},
      {&tape->middle, max_tokens * d->hidden},
      {&tape->unnormed[0], attention_out ? max_tokens * d->hidden : 0},
      {&tape->unnormed[1], mlp_out ? max_tokens * d->hidden : 0},
      {&tape->out_inverse_rms[0], attention_out ? max_tokens : 0},
      {&tape->out_inverse_rms[1], mlp_out ? max_tokens : 0},
      {&tape->gate_up, max_tokens * 2 * d->intermediate},
      {&tape->product, max_tokens * d->intermediate},
      {&tape->out, max_tokens * d->hidden},
      {&tape->attention_scratch, gptvq_ft_attention_scratch(d)},
      {&tape->d_hidden, with_backward ? max_tokens * d->hidden : 0},
      {&tape->d_middle, with_backward ? max_tokens * d->hidden : 0},
      {&tape->d_unnormed,
       with_backward && (attention_out || mlp_out || d->residual_scale != 1.0f) ? max_tokens * d->hidden : 0},
      {&tape->d_wide, with_backward ? max_tokens * wide : 0},
      {&tape->d_matrix,
       with_backward ? gptvq_max_size(largest, max_tokens * gptvq_max_size(attention, d->intermediate)) : 0},
  };
  memcpy(parts, list, sizeof list);
}

size_t gptvq_ft_tape_bytes(const gptvq_ft_dims *dims, size_t max_tokens, bool with_backward) {
  gptvq_ft_tape tape;
  tape_part parts[TAPE_PARTS];
  size_t total = sizeof tape;
  list_parts(dims, max_tokens, with_backward, &tape, parts);
  for (size_t i = 0; i < TAPE_PARTS; i++)
    if (!gptvq_add(total, gptvq_saturated_size(parts[i].floats, sizeof(float)), &total)) return SIZE_MAX;
  return total;
}

gptvq_status gptvq_ft_tape_create(const gptvq_ft_dims *d, size_t max_tokens, bool with_backward,
                                  gptvq_ft_tape **out, gptvq_error *err) {
  *out = NULL;
  gptvq_ft_tape *tape = calloc(1, sizeof *tape);
  if (tape == NULL) return gptvq_fail_memory(err, "fine-tuning", sizeof *tape);
  tape_part parts[TAPE_PARTS];
  list_parts(d, max_tokens, with_backward, tape, parts);
  bool failed = false;
  for (size_t i = 0; i < TAPE_PARTS; i++)
    if (parts[i].floats != 0 && (*parts[i].place = gptvq_alloc(parts[i].floats, sizeof(float))) == NULL)
      failed = true;
  if (has_raw(d) && with_backward) {
    tape->partial =
        gptvq_alloc(gptvq_ceil_div(max_tokens, GPTVQ_FT_HEAD_CHUNK) * gptvq_ft_norm_size(d, GPTVQ_NORM_Q),
                    sizeof(double));
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
  free(tape);
}
