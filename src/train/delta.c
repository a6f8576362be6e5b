/* Gated delta nets, forward and backward. The state of every token would be the largest array by far: kept
 * are those at the beginnings of parts of a window, as many as a part has tokens, and a part's are made again
 * in the backward pass. */
#include "model/layer/delta.h"
#include "train/pieces.h"

#include "base/memory.h"
#include "base/threads.h"
#include "model/layer/vector.h"

#include <math.h>
#include <string.h>

static size_t part_tokens(size_t length) {
  size_t part = 1;
  while (part * part < length) part++;
  return part;
}
static size_t part_count(size_t length) { return gptvq_ceil_div(length, part_tokens(length)); }
static size_t state_size(const gptvq_ft_dims *d) { return d->delta.key_dim * d->delta.value_dim; }

size_t gptvq_ft_delta_states(const gptvq_ft_dims *d, size_t tokens) {
  return tokens / d->length * d->delta.value_heads * part_count(d->length) * state_size(d);
}

/* The states of a part, of its end too, and the gradient of one. */
static size_t scratch_floats(const gptvq_ft_dims *d) { return (part_tokens(d->length) + 2) * state_size(d); }
size_t gptvq_ft_delta_scratch(const gptvq_ft_dims *d) { return scratch_floats(d) * gptvq_thread_count(); }

typedef struct delta_job {
  const gptvq_ft_dims *dims;
  const gptvq_ft_tape *tape;
  const float *dy; /* of the outputs */
} delta_job;

/* What the convolution gives in one column, before silu. */
static float convolve(const gptvq_ft_dims *d, const gptvq_ft_tape *tape, size_t token, size_t column) {
  const size_t columns = gptvq_delta_columns(&d->delta), width = gptvq_ft_core_width(d),
               kernel = d->delta.kernel, at = token % d->length;
  float sum = 0;
  for (size_t k = at + 1 < kernel ? kernel - 1 - at : 0; k < kernel; k++)
    sum += d->net.taps[k * columns + column] * tape->made[(token + k + 1 - kernel) * width + column];
  return sum;
}

static float sigmoid(float x) { return 1.0f / (1.0f + gptvq_ft_exp(-x)); }

static void convolve_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const delta_job *job = context;
  const size_t columns = gptvq_delta_columns(&job->dims->delta), width = gptvq_ft_core_width(job->dims);
  for (size_t t = begin; t < end; t++) {
    float *row = job->tape->qkv + t * width;
    for (size_t c = 0; c < columns; c++) {
      const float x = convolve(job->dims, job->tape, t, c);
      row[c] = x * sigmoid(x);
    }
    memcpy(row + columns, job->tape->made + t * width + columns, (width - columns) * sizeof *row);
  }
}

/* One token in one value head. */
typedef struct token_view {
  float *q, *k, *v, *z;     /* in a row of tape->qkv, or of its gradient */
  float decay, beta, slope; /* slope: of the decay by its gate */
  float q_factor, k_factor, unit_q[GPTVQ_DELTA_DIM], unit_k[GPTVQ_DELTA_DIM];
} token_view;

static void place_row(const gptvq_ft_dims *d, float *row, size_t head, token_view *view) {
  const gptvq_delta_sizes *s = &d->delta;
  const size_t shared = head / (s->value_heads / s->key_heads), keys = s->key_heads * s->key_dim;
  view->q = row + shared * s->key_dim;
  view->k = row + keys + shared * s->key_dim;
  view->v = row + 2 * keys + head * s->value_dim;
  view->z = view->v + gptvq_delta_outputs(s);
}

/* y = x · factor; returns that */
static float unit(size_t n, const float *x, double scale, float *y) {
  double sum = 1e-6; /* gptvq_l2_norm */
  for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
  const float factor = (float)(scale / sqrt(sum));
  for (size_t i = 0; i < n; i++) y[i] = x[i] * factor;
  return factor;
}

/* dx += of that, from dy of y */
static void unit_backward(size_t n, const float *x, float factor, const float *dy, float *dx) {
  double squares = 1e-6, sum = 0;
  for (size_t i = 0; i < n; i++) {
    squares += (double)x[i] * (double)x[i];
    sum += (double)x[i] * (double)dy[i];
  }
  const float mean = (float)(sum / squares);
  for (size_t i = 0; i < n; i++) dx[i] += factor * (dy[i] - x[i] * mean);
}

static token_view view_token(const gptvq_ft_dims *d, const gptvq_ft_tape *tape, size_t token, size_t head) {
  const gptvq_delta_sizes *s = &d->delta;
  const float *gates = tape->delta_gates + token * 2 * s->value_heads;
  token_view view;
  place_row(d, tape->qkv + token * gptvq_ft_core_width(d), head, &view);
  const double x = (double)gates[head] + (double)d->net.time_bias[head], rate = (double)d->net.rate[head],
               decay = exp(rate * (x > 20.0 ? x : log1p(exp(x))));
  view.decay = (float)decay;
  view.slope = (float)(decay * rate / (1.0 + exp(-x)));
  view.beta = (float)(1.0 / (1.0 + exp(-(double)gates[s->value_heads + head])));
  view.q_factor = unit(s->key_dim, view.q, 1.0 / sqrt((double)s->key_dim), view.unit_q);
  view.k_factor = unit(s->key_dim, view.k, 1.0, view.unit_k);
  return view;
}

/* The state `from` becomes `to`, out[value_dim] what the query finds there. */
static void step(const gptvq_ft_dims *d, const token_view *view, const float *from, float *to, float *out) {
  const gptvq_delta_step rule = {.key_dim = d->delta.key_dim,
                                 .value_dim = d->delta.value_dim,
                                 .decay = view->decay,
                                 .beta = view->beta,
                                 .q = view->unit_q,
                                 .k = view->unit_k};
  GPTVQ_MULTI_PICK(gptvq_delta_rule)(&rule, from, view->v, to, out);
}

static float inverse_rms(const gptvq_ft_dims *d, const float *x) {
  double sum = 0;
  for (size_t i = 0; i < d->delta.value_dim; i++) sum += (double)x[i] * (double)x[i];
  return (float)(1.0 / sqrt(sum / (double)d->delta.value_dim + (double)d->eps));
}

static float *kept_state(const delta_job *job, size_t window, size_t head, size_t part) {
  const gptvq_ft_dims *d = job->dims;
  return job->tape->states +
         ((window * d->delta.value_heads + head) * part_count(d->length) + part) * state_size(d);
}

/* Items are (window, value head). */
static void forward_task(void *context, size_t begin, size_t end, size_t thread) {
  const delta_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  const size_t heads = d->delta.value_heads, size = state_size(d), dim = d->delta.value_dim;
  float *state = job->tape->attention_scratch + thread * scratch_floats(d), found[GPTVQ_DELTA_DIM];
  for (size_t item = begin; item < end; item++) {
    const size_t window = item / heads, head = item % heads;
    memset(state, 0, size * sizeof *state);
    for (size_t t = 0; t < d->length; t++) {
      const size_t token = window * d->length + t;
      if (job->tape->states != NULL && t % part_tokens(d->length) == 0)
        memcpy(kept_state(job, window, head, t / part_tokens(d->length)), state, size * sizeof *state);
      const token_view view = view_token(d, job->tape, token, head);
      step(d, &view, state, state, found);
      float *out = job->tape->core + token * heads * dim + head * dim, inverse = inverse_rms(d, found);
      for (size_t i = 0; i < dim; i++)
        out[i] = found[i] * inverse * d->net.norm[i] * (view.z[i] * sigmoid(view.z[i]));
    }
  }
}

void gptvq_ft_delta_forward(const gptvq_ft_dims *d, gptvq_ft_tape *tape) {
  delta_job job = {d, tape, NULL};
  gptvq_parallel_for(tape->tokens, 4, convolve_task, &job);
  gptvq_parallel_for(tape->tokens / d->length * d->delta.value_heads, 1, forward_task, &job);
}

/* From dy of a head's output: into dz, and d_found of what the query found. */
static void gate_backward(const gptvq_ft_dims *d, const float *found, const float *z, const float *dy,
                          float *dz, float *d_found) {
  const size_t n = d->delta.value_dim;
  const float inverse = inverse_rms(d, found), *gain = d->net.norm;
  double sum = 0;
  for (size_t i = 0; i < n; i++) {
    const float share = sigmoid(z[i]), silu = z[i] * share;
    dz[i] = dy[i] * found[i] * inverse * gain[i] * (share + silu * (1.0f - share));
    d_found[i] = dy[i] * silu * gain[i];
    sum += (double)d_found[i] * (double)found[i];
  }
  const float mean = (float)(sum * (double)inverse / (double)n);
  for (size_t i = 0; i < n; i++) d_found[i] = (d_found[i] - found[i] * inverse * mean) * inverse;
}

/* One step back. With P = decay · before, u = v − Pᵀ k and after = P + β k uᵀ: ds, the gradient of `after`
 * from later tokens, gains q doutᵀ, and becomes that of `before`. */
static void step_backward(const gptvq_ft_dims *d, const token_view *view, const float *before,
                          const float *after, const float *d_found, float *ds, float *d_gates,
                          const token_view *gradient) {
  const size_t keys = d->delta.key_dim, values = d->delta.value_dim;
  const float *q = view->unit_q, *k = view->unit_k;
  float u[GPTVQ_DELTA_DIM] = {0}, du[GPTVQ_DELTA_DIM] = {0}, dq[GPTVQ_DELTA_DIM], dk[GPTVQ_DELTA_DIM];
  for (size_t i = 0; i < keys; i++)
    for (size_t c = 0; c < values; c++) {
      ds[i * values + c] += q[i] * d_found[c];
      u[c] += k[i] * before[i * values + c];
      du[c] += k[i] * ds[i * values + c];
    }
  double d_beta = 0, d_decay = 0;
  for (size_t c = 0; c < values; c++) {
    u[c] = view->v[c] - view->decay * u[c];
    d_beta += (double)du[c] * (double)u[c];
    du[c] *= view->beta;
    gradient->v[c] = du[c];
  }
  for (size_t i = 0; i < keys; i++) {
    double query = 0, key = 0;
    for (size_t c = 0; c < values; c++) {
      const size_t at = i * values + c;
      query += (double)after[at] * (double)d_found[c];
      key += (double)view->beta * (double)ds[at] * (double)u[c] -
             (double)view->decay * (double)before[at] * (double)du[c];
      const float dp = ds[at] - k[i] * du[c];
      d_decay += (double)dp * (double)before[at];
      ds[at] = view->decay * dp;
    }
    dq[i] = (float)query;
    dk[i] = (float)key;
  }
  unit_backward(keys, view->q, view->q_factor, dq, gradient->q);
  unit_backward(keys, view->k, view->k_factor, dk, gradient->k);
  d_gates[0] = (float)(d_decay * (double)view->slope);
  d_gates[d->delta.value_heads] = (float)(d_beta * (double)view->beta * (1.0 - (double)view->beta));
}

static void head_backward(const delta_job *job, size_t window, size_t head, float *scratch) {
  const gptvq_ft_dims *d = job->dims;
  const gptvq_ft_tape *tape = job->tape;
  const size_t size = state_size(d), part = part_tokens(d->length), width = gptvq_ft_core_width(d),
               outputs = gptvq_delta_outputs(&d->delta), dim = d->delta.value_dim;
  float *states = scratch, *ds = scratch + (part + 1) * size, found[GPTVQ_DELTA_DIM],
        d_found[GPTVQ_DELTA_DIM];
  memset(ds, 0, size * sizeof *ds);
  for (size_t p = part_count(d->length); p-- > 0;) {
    const size_t first = p * part, count = gptvq_min_size(part, d->length - first);
    memcpy(states, kept_state(job, window, head, p), size * sizeof *states);
    for (size_t i = 0; i < count; i++) {
      const token_view view = view_token(d, tape, window * d->length + first + i, head);
      step(d, &view, states + i * size, states + (i + 1) * size, found);
    }
    for (size_t i = count; i-- > 0;) {
      const size_t token = window * d->length + first + i;
      const token_view view = view_token(d, tape, token, head);
      token_view gradient;
      place_row(d, tape->d_wide + token * width, head, &gradient);
      const float *after = states + (i + 1) * size;
      memset(found, 0, dim * sizeof *found);
      for (size_t k = 0; k < d->delta.key_dim; k++)
        for (size_t c = 0; c < dim; c++) found[c] += view.unit_q[k] * after[k * dim + c];
      gate_backward(d, found, view.z, job->dy + token * outputs + head * dim, gradient.z, d_found);
      step_backward(d, &view, states + i * size, after, d_found, ds,
                    tape->d_gates + token * 2 * d->delta.value_heads + head, &gradient);
    }
  }
}

/* Items are (window, key head): value heads that share it add to the gradients of its queries and keys. */
static void backward_task(void *context, size_t begin, size_t end, size_t thread) {
  const delta_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  const gptvq_delta_sizes *s = &d->delta;
  const size_t group = s->value_heads / s->key_heads, width = gptvq_ft_core_width(d);
  for (size_t item = begin; item < end; item++) {
    const size_t window = item / s->key_heads, key = item % s->key_heads;
    for (size_t t = 0; t < d->length; t++) {
      token_view row;
      place_row(d, job->tape->d_wide + (window * d->length + t) * width, key * group, &row);
      memset(row.q, 0, s->key_dim * sizeof *row.q);
      memset(row.k, 0, s->key_dim * sizeof *row.k);
    }
    for (size_t head = key * group; head < (key + 1) * group; head++)
      head_backward(job, window, head, job->tape->attention_scratch + thread * scratch_floats(d));
  }
}

/* d_wide, of what silu gives, becomes that of what the convolution gives. */
static void silu_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const delta_job *job = context;
  const size_t columns = gptvq_delta_columns(&job->dims->delta), width = gptvq_ft_core_width(job->dims);
  for (size_t t = begin; t < end; t++)
    for (size_t c = 0; c < columns; c++) {
      const float x = convolve(job->dims, job->tape, t, c), share = sigmoid(x);
      job->tape->d_wide[t * width + c] *= share + x * share * (1.0f - share);
    }
}

static void convolve_backward(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const delta_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  const size_t columns = gptvq_delta_columns(&d->delta), width = gptvq_ft_core_width(d),
               kernel = d->delta.kernel;
  for (size_t t = begin; t < end; t++) {
    const float *dy = job->tape->d_wide + t * width;
    float *dx = job->tape->d_made + t * width;
    const size_t later = gptvq_min_size(kernel, d->length - t % d->length);
    for (size_t c = 0; c < columns; c++) {
      float sum = 0;
      for (size_t i = 0; i < later; i++)
        sum += d->net.taps[(kernel - 1 - i) * columns + c] * dy[i * width + c];
      dx[c] = sum;
    }
    memcpy(dx + columns, dy + columns, (width - columns) * sizeof *dx);
  }
}

void gptvq_ft_delta_backward(const gptvq_ft_dims *d, gptvq_ft_tape *tape, const float *dy) {
  delta_job job = {d, tape, dy};
  gptvq_parallel_for(tape->tokens / d->length * d->delta.key_heads, 1, backward_task, &job);
  gptvq_parallel_for(tape->tokens, 4, silu_task, &job);
  gptvq_parallel_for(tape->tokens, 4, convolve_backward, &job);
}
