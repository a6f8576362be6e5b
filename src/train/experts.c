#include "train/pieces.h"

#include "base/memory.h"
#include "linalg/gemm.h"
#include "model/layer/vector.h"

#include <math.h>
#include <string.h>

/* The rows of one MLP. */
typedef struct members {
  size_t count;
  const uint32_t *tokens, *slots;
  float *shares, *gate_up, *product;
} members;

static members members_of(const gptvq_ft_dims *d, gptvq_ft_tape *tape, size_t mlp) {
  const gptvq_ft_routes *r = &tape->routes;
  const size_t first = r->first[mlp], values = first * d->intermediate; /* all before are experts */
  return (members){.count = r->first[mlp + 1] - first,
                   .tokens = r->tokens + first,
                   .slots = r->slots + first,
                   .shares = r->shares + first,
                   .gate_up = tape->gate_up + 2 * values,
                   .product = tape->product + values};
}

static void gather(const members *m, size_t hidden, const float *x, float *rows) {
  for (size_t i = 0; i < m->count; i++)
    memcpy(rows + i * hidden, x + m->tokens[i] * hidden, hidden * sizeof *x);
}

static void add_scaled(size_t n, float scale, const float *x, float *y) {
  GPTVQ_MULTI_PICK(gptvq_add_scaled)(n, scale, x, y);
}

static void scale_values(size_t n, float scale, float *x) {
  for (size_t i = 0; i < n; i++) x[i] *= scale;
}

static double dot(size_t n, const float *a, const float *b) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
  return sum;
}

/* Fills the lists of rows; false: the router's logits are not finite. */
static bool route(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                  const float *x) {
  gptvq_ft_routes *r = &tape->routes;
  const size_t tokens = tape->tokens, used = d->used, experts = d->experts;
  gptvq_gemm_nt(tokens, experts, d->hidden, 1.0f, x, d->hidden, weights->router, d->hidden, 0.0f,
                r->routing.logits, experts);
  for (size_t i = 0; weights->router_bias != NULL && i < tokens * experts; i++)
    r->routing.logits[i] += weights->router_bias[i % experts];
  memset(r->first, 0, (d->mlp_count + 1) * sizeof *r->first);
  for (size_t i = 0; i < tokens * experts; i++)
    if (!isfinite(r->routing.logits[i])) return false;
  if (!gptvq_route(&r->routing, tokens)) return false;
  for (size_t i = 0; i < tokens * used; i++) r->first[r->routing.chosen[i] + 1]++;
  for (size_t e = 0; e < experts; e++) r->first[e + 1] += r->first[e];
  for (size_t t = 0; t < tokens; t++)
    for (size_t slot = 0; slot < used; slot++) { /* first[e] moves to the end of its rows meanwhile */
      const size_t row = r->first[r->routing.chosen[t * used + slot]]++;
      r->tokens[row] = (uint32_t)t;
      r->slots[row] = (uint32_t)slot;
      r->shares[row] = r->routing.share[t * used + slot];
    }
  memmove(r->first + 1, r->first, experts * sizeof *r->first);
  r->first[0] = 0;
  if (d->mlp_count == experts) return true;
  r->first[experts + 1] = r->first[experts] + tokens;
  for (size_t t = 0; t < tokens; t++) {
    const size_t row = r->first[experts] + t;
    r->tokens[row] = (uint32_t)t;
    r->slots[row] = 0;
    r->shares[row] =
        weights->shared_gate != NULL
            ? (float)(1.0 / (1.0 + exp(-dot(d->hidden, weights->shared_gate, x + t * d->hidden))))
            : 1.0f;
  }
  return true;
}

void gptvq_ft_experts_forward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                              const float *x, float *y) {
  gptvq_ft_routes *r = &tape->routes;
  const size_t hidden = d->hidden;
  r->routed = route(d, weights, tape, x);
  for (size_t i = 0; i < tape->tokens * hidden; i++) y[i] = r->routed ? 0.0f : NAN;
  for (size_t e = 0; e < d->mlp_count && r->routed; e++) {
    const members m = members_of(d, tape, e);
    if (m.count == 0) continue;
    gather(&m, hidden, x, r->routing.gathered);
    gptvq_ft_linear_forward(d, weights, GPTVQ_FT_GATE_UP + 2 * e, m.count, r->routing.gathered, m.gate_up);
    gptvq_ft_gate_forward(d->activation, m.count, gptvq_ft_mlp_width(d, e), m.gate_up, m.product);
    gptvq_ft_linear_forward(d, weights, GPTVQ_FT_DOWN + 2 * e, m.count, m.product, r->out);
    for (size_t i = 0; i < m.count; i++)
      add_scaled(hidden, m.shares[i], r->out + i * hidden, y + m.tokens[i] * hidden);
  }
}

/* Of one MLP: dx gains the gradient of its inputs, d_shares[i] of each row's share. */
static void mlp_backward(const gptvq_ft_back *back, size_t mlp, const float *x, const float *dy, float *dx,
                         float *d_shares) {
  const gptvq_ft_dims *d = back->dims;
  gptvq_ft_tape *tape = back->tape;
  gptvq_ft_routes *r = &tape->routes;
  const members m = members_of(d, tape, mlp);
  const size_t hidden = d->hidden, width = gptvq_ft_mlp_width(d, mlp);
  const gptvq_ft_matrix down = GPTVQ_FT_DOWN + 2 * mlp, gate_up = GPTVQ_FT_GATE_UP + 2 * mlp;
  const float *bias = back->weights->bias[down];
  gather(&m, hidden, dy, r->out);
  gptvq_ft_linear_backward(d, back->weights, down, m.count, r->out, r->d_product);
  /* what the expert gives, times dy, is its product times this gradient: it need not be made again */
  for (size_t i = 0; i < m.count; i++) {
    float *row = r->out + i * hidden, *d_product = r->d_product + i * width;
    d_shares[i] =
        (float)(dot(width, m.product + i * width, d_product) + (bias != NULL ? dot(hidden, bias, row) : 0.0));
    scale_values(hidden, m.shares[i], row);
    scale_values(width, m.shares[i], d_product);
  }
  gptvq_ft_watched watched = {down, m.count, hidden, r->out, m.tokens, m.shares};
  gptvq_ft_give(back, &watched, m.product);
  gptvq_ft_gate_backward(d->activation, m.count, width, m.gate_up, r->d_product, tape->d_wide);
  gather(&m, hidden, x, r->routing.gathered);
  watched.matrix = gate_up;
  watched.width = 2 * width;
  watched.dy = tape->d_wide;
  gptvq_ft_matrix_backward(back, &watched, r->routing.gathered, r->out);
  for (size_t i = 0; i < m.count; i++)
    add_scaled(hidden, 1.0f, r->out + i * hidden, dx + m.tokens[i] * hidden);
}

/* d_logits of one token from the gradients g of its experts' shares. With p the probabilities and s the
 * shares before their scale: softmax, s of all those chosen sum to one: s_i (g_i − Σ g s); kept sums:
 * p_k (g_k − Σ g p); sigmoids: of p first, then p (1 − p). */
static void token_backward(const gptvq_ft_dims *d, const gptvq_routing *r, size_t token, float *g,
                           float *d_logits) {
  const float *p = r->logits + token * d->experts, *share = r->share + token * d->used;
  const uint32_t *chosen = r->chosen + token * d->used;
  const double scale = d->router.scale > 0.0 ? d->router.scale : 1.0;
  double all = 0, sum = d->router.sigmoid ? 1e-20 : 0.0, mean = 0;
  for (size_t e = 0; e < d->experts; e++) all += (double)p[e];
  for (size_t i = 0; i < d->used; i++) {
    sum += (double)p[chosen[i]];
    mean += (double)g[i] * (double)share[i]; /* the scale is of both */
  }
  memset(d_logits, 0, d->experts * sizeof *d_logits);
  for (size_t e = 0; e < d->experts && d->router.keeps_sum && !d->router.sigmoid; e++)
    d_logits[e] = (float)(-(double)p[e] / all * mean);
  for (size_t i = 0; i < d->used; i++) {
    const size_t e = chosen[i];
    const double probability = (double)p[e], gradient = (double)g[i] * scale;
    if (!d->router.sigmoid)
      d_logits[e] +=
          (float)(d->router.keeps_sum ? probability / all * gradient : probability / sum * (gradient - mean));
    else
      d_logits[e] = (float)((d->router.keeps_sum ? gradient : (gradient - mean) / sum) * probability *
                            (1.0 - probability));
  }
}

void gptvq_ft_experts_backward(const gptvq_ft_back *back, const float *x, const float *dy, float *dx) {
  const gptvq_ft_dims *d = back->dims;
  gptvq_ft_tape *tape = back->tape;
  gptvq_ft_routes *r = &tape->routes;
  const size_t tokens = tape->tokens, hidden = d->hidden;
  for (size_t i = 0; i < tokens * hidden; i++) dx[i] = r->routed ? 0.0f : NAN;
  if (!r->routed) return;
  for (size_t e = 0; e < d->experts; e++) {
    const members m = members_of(d, tape, e);
    if (m.count == 0) continue;
    float *d_shares = r->d_logits; /* of these rows; there is room, and it is free yet */
    mlp_backward(back, e, x, dy, dx, d_shares);
    for (size_t i = 0; i < m.count; i++) r->d_shares[m.tokens[i] * d->used + m.slots[i]] = d_shares[i];
  }
  for (size_t t = 0; t < tokens; t++)
    token_backward(d, &r->routing, t, r->d_shares + t * d->used, r->d_logits + t * d->experts);
  gptvq_gemm_nn(tokens, hidden, d->experts, 1.0f, r->d_logits, d->experts, back->weights->router, hidden,
                1.0f, dx, hidden);
  if (d->mlp_count == d->experts) return;
  const members m = members_of(d, tape, d->experts);
  float *d_shares = r->d_logits;
  mlp_backward(back, d->experts, x, dy, dx, d_shares);
  for (size_t t = 0; t < tokens && back->weights->shared_gate != NULL; t++)
    add_scaled(hidden, d_shares[t] * m.shares[t] * (1.0f - m.shares[t]), back->weights->shared_gate,
               dx + t * hidden);
}
