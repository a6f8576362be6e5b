/* A random block of one kind, packed, and the definition of what it computes, in double: for
 * tests/unit/test_finetune.c. */
#ifndef FINETUNE_BLOCK_H
#define FINETUNE_BLOCK_H

#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "train/train.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { HIDDEN = 24, INTERMEDIATE = 20, LENGTH = 11, WINDOWS = 2, TOKENS = WINDOWS * LENGTH, LINEARS = 26 };
enum { EXPERTS = 6, SHARED = 12, CORE = 160 /* values of a row between the first matrix and o */ };

static uint64_t seed;
static float uniform(float scale) { return scale * (2.0f * (float)gptvq_random_unit(&seed) - 1.0f); }
static float *random_vector(size_t n, float middle, float scale) {
  float *x = gptvq_alloc(n, sizeof *x);
  for (size_t i = 0; i < n; i++) x[i] = gptvq_bf16_to_float(gptvq_float_to_bf16(middle + uniform(scale)));
  return x;
}
static void *random_bytes(size_t n) {
  uint8_t *x = gptvq_alloc(n, 1);
  for (size_t i = 0; i < n; i++) x[i] = (uint8_t)gptvq_random(&seed);
  return x;
}

/* ---- a random block with one of the features of the architecture table ---- */

typedef struct variant {
  const char *name;
  size_t heads, kv_heads, head_dim, rotary, window;
  bool fused, biases, head_norms;
  unsigned dim, index_bits, codebook_bits, scale_block;
  bool permuted, uniform, dense_o;
  size_t group_rows, group_cols;
  enum {
    PLAIN,
    CAPPED,   /* and with norms behind o and down, GELU, norms stored as gain − 1 */
    JOINT,    /* norms of q and k over all heads, norms behind o and down, none before q and gate */
    SCALED,   /* what either half adds is scaled */
    PAIRED,   /* the same behind norms; neighbours are rotated, and queries grow */
    SINKS,    /* and the clamped activation */
    ROUTED,   /* experts, their biases and the router's, clamped */
    BESIDE,   /* experts with shares that keep their sum, an MLP beside them with a gate */
    SIGMOIDS, /* experts in groups, chosen with a correction, scaled; an MLP beside them */
    LATENT,
    DIRECT, /* latent, queries made directly, rotated in halves */
    GATED,  /* heads' outputs */
    DELTA,
    TRELLIS /* layers, windows of six bits */
  } kind;
} variant;

static const variant variants[] = {
    {"llama", 4, 2, 8, 8, 0, false, false, false, 2, 3, 8, 0, false, false, false, 4, 8, PLAIN},
    {"mistral, sliding window, 1-D, ragged stripes", 4, 4, 6, 6, 4, false, false, false, 1, 2, 8, 0, false,
     false, false, 5, 16, PLAIN},
    {"qwen2, biases, fp16 codebooks, permuted", 4, 1, 8, 8, 0, false, true, false, 2, 4, 16, 0, true, false,
     false, 8, 24, PLAIN},
    {"qwen3, head norms, 4-D, block scales", 2, 1, 16, 16, 0, false, false, true, 4, 3, 8, 8, true, false,
     false, 20, 8, PLAIN},
    {"gemma2, capped, norms behind, sliding window", 4, 2, 8, 8, 5, false, false, false, 2, 3, 8, 0, false,
     false, false, 4, 8, CAPPED},
    {"phi3, fused, partial rotation", 4, 2, 8, 4, 5, true, false, false, 2, 5, 8, 0, false, false, false, 4,
     16, PLAIN},
    {"smollm3, not rotated", 4, 2, 6, 0, 0, false, false, false, 2, 3, 8, 0, false, false, false, 4, 8,
     PLAIN},
    {"olmo3, joint head norms, no norms before", 4, 2, 6, 6, 5, false, false, true, 2, 3, 8, 0, false, false,
     false, 4, 8, JOINT},
    {"granite, scaled halves", 4, 2, 8, 8, 0, false, false, false, 2, 3, 8, 0, false, false, false, 4, 8,
     SCALED},
    {"glm4, neighbours rotated in half a head", 4, 2, 8, 4, 0, true, false, false, 2, 3, 8, 0, false, false,
     false, 4, 8, PAIRED},
    {"gpt-oss, sinks, clamped, biases, sliding window", 4, 2, 8, 8, 4, false, true, false, 2, 4, 8, 0, false,
     false, false, 4, 8, SINKS},
    {"gpt-oss, experts with biases", 4, 2, 6, 6, 4, false, true, false, 2, 3, 8, 0, false, false, false, 4, 8,
     ROUTED},
    {"qwen2-moe, an MLP beside the experts", 2, 1, 8, 8, 0, false, false, true, 2, 3, 8, 0, false, false,
     false, 4, 8, BESIDE},
    {"deepseek's router", 2, 2, 8, 8, 0, false, false, false, 1, 3, 8, 0, false, false, false, 4, 8,
     SIGMOIDS},
    {"latent attention", 3, 3, 10, 4, 0, false, false, false, 2, 3, 8, 0, false, false, false, 4, 8, LATENT},
    {"latent attention, queries made directly", 2, 2, 10, 4, 0, false, false, false, 2, 3, 8, 0, false, false,
     false, 4, 8, DIRECT},
    {"gated attention", 4, 2, 8, 4, 0, false, false, true, 2, 3, 8, 0, false, false, false, 4, 8, GATED},
    {"gated delta net", 2, 2, 8, 0, 0, false, false, false, 2, 3, 8, 0, false, false, false, 4, 8, DELTA},
    {"trellis, permuted", 4, 2, 8, 8, 0, false, true, true, 1, 2, 8, 0, true, false, false, 0, 16, TRELLIS},
    {"uniform, dense output", 3, 3, 8, 8, 0, false, true, true, 1, 3, 0, 8, true, true, true, 1, 32, PLAIN},
};
enum { VARIANTS = sizeof variants / sizeof variants[0] };

typedef struct fixture {
  const variant *v;
  gptvq_ft_dims dims;
  gptvq_block block;
  gptvq_mlp mlps[EXPERTS + 1];
  gptvq_delta_net net;
  gptvq_linear linears[LINEARS];
  float *rope;
  float *x;
  void *owned[256];
  size_t owned_count;
} fixture;

static void *keep(fixture *f, void *memory) {
  assert_non_null(memory);
  assert_true(f->owned_count < 256);
  f->owned[f->owned_count++] = memory;
  return memory;
}

static void make_linear(fixture *f, size_t index, size_t rows, size_t cols, bool bias, bool dense) {
  const variant *v = f->v;
  gptvq_linear *linear = &f->linears[index];
  *linear = (gptvq_linear){.name = "test", .rows = rows, .cols = cols};
  if (bias) linear->bias = keep(f, random_vector(rows, 0, 0.5f));
  if (dense) {
    linear->dtype = GPTVQ_F32;
    linear->weights = keep(f, random_vector(rows * cols, 0, 0.4f));
    return;
  }
  linear->is_packed = true;
  gptvq_packed *p = &linear->packed;
  const bool trellis = v->kind == TRELLIS;
  p->shape = (gptvq_packed_shape){.kind = v->uniform ? GPTVQ_PACKED_UNIFORM
                                          : trellis  ? GPTVQ_PACKED_TRELLIS
                                                     : GPTVQ_PACKED_VQ,
                                  .rows = rows,
                                  .cols = cols,
                                  .dim = v->dim,
                                  .index_bits = v->index_bits,
                                  .group_rows = trellis ? rows : gptvq_min_size(v->group_rows, rows),
                                  .group_cols = v->uniform ? cols : gptvq_min_size(v->group_cols, cols),
                                  .codebook_bits = v->codebook_bits,
                                  .scale_block = v->scale_block,
                                  .permuted = v->permuted};
  gptvq_error err;
  assert_int_equal(gptvq_packed_check(&p->shape, "test", &err), GPTVQ_OK);
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(&p->shape, &sizes);
  p->indices = keep(f, random_bytes(sizes.index_bytes));
  if (v->permuted) {
    uint32_t *permutation = keep(f, gptvq_alloc(cols, sizeof *permutation));
    for (size_t i = 0; i < cols; i++) permutation[i] = (uint32_t)i;
    for (size_t i = cols; i > 1; i--) {
      size_t j = gptvq_random_below(&seed, i);
      uint32_t swap = permutation[i - 1];
      permutation[i - 1] = permutation[j];
      permutation[j] = swap;
    }
    p->permutation = permutation;
  }
  if (v->uniform) {
    uint16_t *scales = keep(f, gptvq_alloc(sizes.uniform_scales, sizeof *scales));
    for (size_t i = 0; i < sizes.uniform_scales; i++) scales[i] = gptvq_float_to_fp16(0.12f + uniform(0.04f));
    p->scales = scales;
    p->zeros = keep(f, random_bytes(sizes.zero_bytes));
    return;
  }
  uint16_t *scales = keep(f, gptvq_alloc(sizes.codebook_scales, sizeof *scales));
  for (size_t i = 0; i < sizes.codebook_scales; i++) scales[i] = gptvq_float_to_bf16(0.4f + uniform(0.1f));
  p->codebook_scales = scales;
  if (trellis) {
    uint8_t *row_scales = keep(f, gptvq_alloc(sizes.row_scale_bytes, 1));
    for (size_t i = 0; i < sizes.row_scale_bytes; i++)
      row_scales[i] = gptvq_row_scale_code(exp2((double)uniform(0.5f)));
    p->row_scales = row_scales;
  }
  if (v->codebook_bits == 8) {
    int8_t *codes = keep(f, gptvq_alloc(sizes.codebook_values, 1));
    for (size_t i = 0; i < sizes.codebook_values; i++)
      codes[i] = (int8_t)((int)gptvq_random_below(&seed, 255) - 127);
    for (size_t i = 0; trellis && i < sizes.codebook_values; i++) codes[i] /= 2; /* sums within ±127 */
    p->codebooks = codes;
  } else {
    uint16_t *values = keep(f, gptvq_alloc(sizes.codebook_values, sizeof *values));
    for (size_t i = 0; i < sizes.codebook_values; i++) values[i] = gptvq_float_to_fp16(uniform(1.0f));
    p->codebooks = values;
  }
  if (v->scale_block != 0) {
    p->block_scales = keep(f, random_bytes(sizes.block_scale_bytes));
    float *range = keep(f, gptvq_alloc(2, sizeof *range));
    range[0] = -1.0f;
    range[1] = 0.125f;
    p->block_scale_range = range;
  }
}

static gptvq_linear make_dense(fixture *f, size_t rows) {
  return (gptvq_linear){.name = "test",
                        .rows = rows,
                        .cols = HIDDEN,
                        .dtype = GPTVQ_F32,
                        .weights = keep(f, random_vector(rows * HIDDEN, 0, 0.4f))};
}

static bool routes(const variant *v) { return v->kind == ROUTED || v->kind == BESIDE || v->kind == SIGMOIDS; }
static bool clamps(const variant *v) { return v->kind == SINKS || v->kind == ROUTED; }

static void describe_experts(fixture *f) {
  const variant *v = f->v;
  gptvq_ft_dims *d = &f->dims;
  gptvq_block *b = &f->block;
  d->experts = EXPERTS;
  d->used = 2;
  d->router = (gptvq_router_rule){.keeps_sum = v->kind == BESIDE,
                                  .sigmoid = v->kind == SIGMOIDS,
                                  .scale = v->kind == SIGMOIDS ? 1.5 : 0.0,
                                  .groups = v->kind == SIGMOIDS ? 3 : 0,
                                  .used_groups = 2};
  d->mlp_count = EXPERTS + (v->kind == ROUTED ? 0 : 1);
  d->shared_intermediate = v->kind == ROUTED ? 0 : SHARED;
  d->router_bias = v->kind == ROUTED;
  d->shared_gate = v->kind == BESIDE;
  b->router = make_dense(f, EXPERTS);
  if (d->router_bias) b->router.bias = keep(f, random_vector(EXPERTS, 0, 0.5f));
  if (v->kind == SIGMOIDS)
    d->router_correction = b->router_correction = keep(f, random_vector(EXPERTS, 0, 0.2f));
  if (d->shared_gate) b->shared_gate = make_dense(f, 1);
}

static void describe_core(fixture *f) {
  const variant *v = f->v;
  gptvq_ft_dims *d = &f->dims;
  d->output_gate = v->kind == GATED;
  if (v->kind == LATENT || v->kind == DIRECT) {
    d->latent = (gptvq_latent){.kv_rank = 12,
                               .q_rank = v->kind == LATENT ? 14 : 0,
                               .plain = v->head_dim - v->rotary,
                               .rotated = v->rotary,
                               .values = 7,
                               .halves = v->kind == DIRECT,
                               .eps = 1e-4};
    d->has_norm[GPTVQ_NORM_KV_LATENT] = true;
    d->has_norm[GPTVQ_NORM_Q_LATENT] = v->kind == LATENT;
  }
  if (v->kind != DELTA) return;
  d->delta = (gptvq_delta_sizes){.key_heads = 2, .value_heads = 4, .key_dim = 5, .value_dim = 6, .kernel = 3};
  const size_t columns = gptvq_delta_columns(&d->delta), heads = d->delta.value_heads;
  f->net.decay = make_dense(f, heads);
  f->net.beta = make_dense(f, heads);
  f->net.weights = d->net =
      (gptvq_delta_weights){.taps = keep(f, random_vector(d->delta.kernel * columns, 0.2f, 0.8f)),
                            .rate = keep(f, random_vector(heads, -0.6f, 0.4f)),
                            .time_bias = keep(f, random_vector(heads, 0, 0.5f)),
                            .norm = keep(f, random_vector(d->delta.value_dim, 1, 0.3f))};
  f->block.delta = &f->net;
}

static gptvq_linear_group make_group(fixture *f, size_t count, const size_t *rows, size_t cols, bool biases) {
  gptvq_linear_group group = {.count = count};
  for (size_t i = 0; i < count; i++) {
    make_linear(f, f->block.linear_count, rows[i], cols, biases, false);
    group.linear[i] = f->block.linear_count++;
    group.offset[i] = group.width;
    group.width += rows[i];
  }
  return group;
}

static void make_attention(fixture *f) {
  const variant *v = f->v;
  const gptvq_ft_dims *d = &f->dims;
  gptvq_block *b = &f->block;
  const size_t q = v->heads * v->head_dim, kv = v->kv_heads * v->head_dim;
  if (v->kind == DELTA) {
    const size_t rows[2] = {gptvq_delta_columns(&d->delta), gptvq_delta_outputs(&d->delta)};
    b->qkv = make_group(f, 2, rows, HIDDEN, false);
  } else if (d->latent.kv_rank > 0) {
    const size_t rows[2] = {d->latent.q_rank > 0 ? d->latent.q_rank : q,
                            d->latent.kv_rank + d->latent.rotated},
                 made = v->heads * (d->latent.plain + d->latent.values);
    b->qkv = make_group(f, 2, rows, HIDDEN, false);
    if (d->latent.q_rank > 0) b->q_b = make_group(f, 1, &q, d->latent.q_rank, false);
    b->kv_b = make_group(f, 1, &made, d->latent.kv_rank, false);
  } else {
    const size_t fused = q + 2 * kv, rows[3] = {v->kind == GATED ? 2 * q : q, kv, kv};
    b->qkv = make_group(f, v->fused ? 1 : 3, v->fused ? &fused : rows, HIDDEN, v->biases);
  }
  b->o = b->linear_count++;
  make_linear(f, b->o, HIDDEN, gptvq_ft_cols(d, GPTVQ_FT_O), v->biases, v->dense_o);
}

static void make_mlp(fixture *f, size_t mlp) {
  const variant *v = f->v;
  gptvq_block *b = &f->block;
  const size_t width = gptvq_ft_mlp_width(&f->dims, mlp), fused = 2 * width, rows[2] = {width, width};
  const size_t first = b->linear_count;
  f->mlps[mlp].input = make_group(f, v->fused ? 1 : 2, v->fused ? &fused : rows, HIDDEN, v->biases);
  if (!v->fused && v->kind != ROUTED) f->linears[first].bias = NULL; /* of some of a group only */
  f->mlps[mlp].down = b->linear_count++;
  make_linear(f, f->mlps[mlp].down, HIDDEN, width, v->biases, false);
}

static void make_fixture(fixture *f, const variant *v, size_t windows) {
  *f = (fixture){.v = v};
  size_t half = v->rotary / 2;
  f->rope = keep(f, gptvq_alloc(LENGTH * half + 1, 2 * sizeof(float)));
  for (size_t t = 0; t < LENGTH; t++)
    for (size_t i = 0; i < half; i++) {
      double angle = (double)t * pow(100.0, -(double)i / (double)half);
      f->rope[t * half + i] = (float)cos(angle);
      f->rope[(LENGTH + t) * half + i] = (float)sin(angle);
    }
  const bool before = v->kind != JOINT, behind = v->kind == CAPPED || v->kind == JOINT || v->kind == PAIRED;
  f->dims =
      (gptvq_ft_dims){.hidden = HIDDEN,
                      .heads = v->heads,
                      .kv_heads = v->kv_heads,
                      .head_dim = v->head_dim,
                      .intermediate = INTERMEDIATE,
                      .mlp_count = 1,
                      .length = LENGTH,
                      .attention = {.window = v->window != 0 ? v->window : SIZE_MAX,
                                    .scale = 1.0f / sqrtf((float)v->head_dim),
                                    .cap = v->kind == CAPPED ? 2.0f : 0.0f,
                                    .wide_norms = v->kind == JOINT,
                                    .sinks = v->kind == SINKS ? keep(f, random_vector(v->heads, 1, 1)) : NULL,
                                    .neighbours = v->kind == PAIRED,
                                    .query_growth = v->kind == PAIRED ? 0.5f : 0.0f,
                                    .query_period = 3},
                      .activation = clamps(v)           ? GPTVQ_SWIGLU_CLAMPED
                                    : v->kind == CAPPED ? GPTVQ_GELU_TANH
                                                        : GPTVQ_SILU,
                      .residual_scale = v->kind == SCALED   ? 0.6f
                                        : v->kind == PAIRED ? 1.5f
                                                            : 1.0f,
                      .norm_offset = v->kind == CAPPED ? 1.0f : 0.0f,
                      .eps = 1e-5f,
                      .has_norm = {before, before, v->head_norms, v->head_norms, behind, behind},
                      .has_bias = {v->biases, v->biases, v->biases, v->biases},
                      .rotary = v->rotary,
                      .cosine = f->rope,
                      .sine = f->rope + LENGTH * half};
  gptvq_block *b = &f->block;
  b->linears = f->linears;
  b->mlps = f->mlps;
  if (routes(v)) describe_experts(f);
  describe_core(f);
  b->mlp_count = f->dims.mlp_count;
  for (gptvq_norm_place n = 0; n < GPTVQ_NORMS; n++) {
    /* gate and up have to meet the limits of a clamped activation */
    const float middle = clamps(v) && n == GPTVQ_NORM_MLP ? 3 : 1;
    if (f->dims.has_norm[n])
      b->norms[n] = keep(f, random_vector(gptvq_ft_norm_size(&f->dims, n), middle, 0.3f));
  }
  make_attention(f);
  for (size_t m = 0; m < b->mlp_count; m++) make_mlp(f, m);
  assert_true(b->linear_count <= LINEARS);
  f->x = keep(f, random_vector(windows * LENGTH * HIDDEN, 0, 1.5f));
}

static void free_fixture(fixture *f) {
  for (size_t i = 0; i < f->owned_count; i++) free(f->owned[i]);
}

/* ---- the definition, in double ---- */

static void ref_norm(size_t n, const double *x, const float *gain, double eps, double *y) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
  for (size_t i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / (double)n + eps) * (double)gain[i];
}

/* The same, or the values as they are where there is no norm. */
static void ref_input(const double *x, const float *gain, double eps, double *y) {
  if (gain != NULL) ref_norm(HIDDEN, x, gain, eps, y);
  else memcpy(y, x, HIDDEN * sizeof *y);
}

/* q or k of one token: `heads` heads, normalised one by one or together. */
static void ref_heads(const gptvq_ft_dims *d, size_t heads, const float *gain, double *x) {
  const size_t norms = d->attention.wide_norms ? 1 : heads, size = heads * d->head_dim / norms;
  for (size_t i = 0; gain != NULL && i < norms; i++)
    ref_norm(size, x + i * size, gain, (double)d->eps, x + i * size);
}

static void ref_linear(const gptvq_ft_dims *d, const gptvq_ft_weights *w, gptvq_ft_matrix m, const double *x,
                       double *y) {
  size_t rows = gptvq_ft_rows(d, m), cols = gptvq_ft_cols(d, m);
  for (size_t r = 0; r < rows; r++) {
    y[r] = w->bias[m] != NULL ? (double)w->bias[m][r] : 0.0;
    for (size_t c = 0; c < cols; c++) y[r] += (double)w->matrix[m][r * cols + c] * x[c];
  }
}

static double ref_gate(gptvq_activation activation, double x, double up) {
  if (activation == GPTVQ_SILU) return x / (1.0 + exp(-x)) * up;
  if (activation == GPTVQ_SWIGLU_CLAMPED) {
    double gate = fmin(x, 7.0), held = fmax(fmin(up, 7.0), -7.0);
    return gate / (1.0 + exp(-(double)1.702f * gate)) * (held + 1.0);
  }
  return up * 0.5 * x * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

/* The largest of `choice`, which is then out of it. */
static size_t ref_best(size_t n, double *choice) {
  size_t best = 0;
  for (size_t i = 1; i < n; i++)
    if (choice[i] > choice[best]) best = i;
  choice[best] = -INFINITY;
  return best;
}

static void ref_mlp(const gptvq_ft_dims *d, const gptvq_ft_weights *w, size_t mlp, const double *x,
                    double share, double *y) {
  double gate[2 * INTERMEDIATE], down[HIDDEN];
  const size_t width = gptvq_ft_mlp_width(d, mlp);
  ref_linear(d, w, GPTVQ_FT_GATE_UP + 2 * mlp, x, gate);
  for (size_t i = 0; i < width; i++) gate[i] = ref_gate(d->activation, gate[i], gate[width + i]);
  ref_linear(d, w, GPTVQ_FT_DOWN + 2 * mlp, gate, down);
  for (size_t i = 0; i < HIDDEN; i++) y[i] += share * down[i];
}

/* Also sets *margin to the smallest distance at which another expert would have been chosen, if it is less.
 */
static void ref_experts(const gptvq_ft_dims *d, const gptvq_ft_weights *w, const double *x, double *y,
                        double *margin) {
  double p[EXPERTS], choice[EXPERTS], groups[EXPERTS], sum = 0, all = 0;
  size_t chosen[EXPERTS], size = d->router.groups > 1 ? EXPERTS / d->router.groups : EXPERTS;
  for (size_t e = 0; e < EXPERTS; e++) {
    double logit = w->router_bias != NULL ? (double)w->router_bias[e] : 0.0;
    for (size_t i = 0; i < HIDDEN; i++) logit += (double)w->router[e * HIDDEN + i] * x[i];
    p[e] = d->router.sigmoid ? 1.0 / (1.0 + exp(-logit)) : exp(logit);
    all += p[e];
  }
  for (size_t e = 0; e < EXPERTS; e++)
    choice[e] = p[e] / (d->router.sigmoid ? 1.0 : all) +
                (d->router_correction != NULL ? (double)d->router_correction[e] : 0.0);
  if (size < EXPERTS) { /* of two each: their sum is what counts with sigmoids */
    for (size_t g = 0; g < d->router.groups; g++) groups[g] = choice[2 * g] + choice[2 * g + 1];
    double last = 0;
    for (size_t i = 0; i < d->router.used_groups; i++) {
      double before[EXPERTS];
      memcpy(before, groups, sizeof before);
      const size_t best = ref_best(d->router.groups, groups);
      last = before[best];
      chosen[i] = best;
    }
    for (size_t g = 0; g < d->router.groups; g++)
      if (groups[g] > -INFINITY) {
        *margin = fmin(*margin, last - groups[g]);
        choice[2 * g] = choice[2 * g + 1] = -INFINITY;
      }
  }
  double last = 0;
  for (size_t i = 0; i < d->used; i++) {
    double before[EXPERTS];
    memcpy(before, choice, sizeof before);
    chosen[i] = ref_best(EXPERTS, choice);
    last = before[chosen[i]];
    sum += p[chosen[i]];
  }
  for (size_t e = 0; e < EXPERTS; e++) *margin = fmin(*margin, last - choice[e]);
  memset(y, 0, HIDDEN * sizeof *y);
  for (size_t i = 0; i < d->used; i++) {
    const double whole = !d->router.keeps_sum ? sum : d->router.sigmoid ? 1.0 : all;
    ref_mlp(d, w, chosen[i], x, p[chosen[i]] / whole * (d->router.scale > 0 ? d->router.scale : 1.0), y);
  }
  if (d->mlp_count == EXPERTS) return;
  double gate = 0;
  for (size_t i = 0; w->shared_gate != NULL && i < HIDDEN; i++) gate += (double)w->shared_gate[i] * x[i];
  ref_mlp(d, w, EXPERTS, x, w->shared_gate != NULL ? 1.0 / (1.0 + exp(-gate)) : 1.0, y);
}

/* Rows q | k | v of latent attention from what the first matrix gives. */
static void ref_latent(const gptvq_ft_dims *d, const gptvq_ft_weights *w, const double *made, double *row) {
  const gptvq_latent *l = &d->latent;
  double normed[64], queries[64], expanded[64];
  const size_t half = l->rotated / 2, keys = l->q_rank > 0 ? l->q_rank : d->heads * d->head_dim;
  memcpy(queries, made, d->heads * d->head_dim * sizeof *made);
  if (l->q_rank > 0) {
    ref_norm(l->q_rank, made, w->norm[GPTVQ_NORM_Q_LATENT], (double)(float)l->eps, normed);
    ref_linear(d, w, GPTVQ_FT_Q_B, normed, queries);
  }
  ref_norm(l->kv_rank, made + keys, w->norm[GPTVQ_NORM_KV_LATENT], (double)(float)l->eps, normed);
  ref_linear(d, w, GPTVQ_FT_KV_B, normed, expanded);
  for (size_t h = 0; h < d->heads; h++) {
    double *q = row + h * d->head_dim, *k = q + d->heads * d->head_dim, *v = k + d->heads * d->head_dim;
    const double *from = expanded + h * (l->plain + l->values), *q_from = queries + h * d->head_dim;
    for (size_t i = 0; i < l->rotated; i++) {
      const size_t at = l->halves ? i : i < half ? 2 * i : 2 * (i - half) + 1;
      q[i] = q_from[l->plain + at];
      k[i] = made[keys + l->kv_rank + at];
    }
    for (size_t i = 0; i < l->plain; i++) {
      q[l->rotated + i] = q_from[i];
      k[l->rotated + i] = from[i];
    }
    for (size_t i = 0; i < d->head_dim; i++) v[i] = i < l->values ? from[l->plain + i] : 0.0;
  }
}

/* What o reads of a delta net, for one window; in: rows that the first matrix gives, x: what it reads. */
static void ref_delta(const gptvq_ft_dims *d, const gptvq_ft_weights *w, const double *in, const double *x,
                      double *out) {
  const gptvq_delta_sizes *s = &d->delta;
  const size_t columns = gptvq_delta_columns(s), keys = s->key_heads * s->key_dim, heads = s->value_heads;
  double state[4][5][6] = {{{0}}}, mixed[CORE];
  for (size_t t = 0; t < LENGTH; t++) {
    for (size_t c = 0; c < columns; c++) {
      double sum = 0;
      for (size_t k = 0; k < s->kernel; k++)
        if (t + k + 1 >= s->kernel)
          sum += (double)d->net.taps[k * columns + c] * in[(t + k + 1 - s->kernel) * CORE + c];
      mixed[c] = sum / (1.0 + exp(-sum));
    }
    for (size_t h = 0; h < heads; h++) {
      const double *q = mixed + h / 2 * s->key_dim, *k = q + keys, *v = mixed + 2 * keys + h * s->value_dim,
                   *z = in + t * CORE + columns + h * s->value_dim;
      double a = (double)d->net.time_bias[h], b = 0, squares[2] = {1e-6, 1e-6}, found[6] = {0}, total = 0;
      for (size_t i = 0; i < HIDDEN; i++) {
        a += (double)w->delta_gates[h * HIDDEN + i] * x[t * HIDDEN + i];
        b += (double)w->delta_gates[(heads + h) * HIDDEN + i] * x[t * HIDDEN + i];
      }
      const double decay = exp((double)d->net.rate[h] * log(1.0 + exp(a))), beta = 1.0 / (1.0 + exp(-b));
      for (size_t i = 0; i < s->key_dim; i++) {
        squares[0] += q[i] * q[i];
        squares[1] += k[i] * k[i];
      }
      for (size_t c = 0; c < s->value_dim; c++) {
        double memory = 0;
        for (size_t i = 0; i < s->key_dim; i++) memory += k[i] / sqrt(squares[1]) * decay * state[h][i][c];
        for (size_t i = 0; i < s->key_dim; i++) {
          state[h][i][c] = decay * state[h][i][c] + k[i] / sqrt(squares[1]) * beta * (v[c] - memory);
          found[c] += q[i] / sqrt(squares[0] * (double)s->key_dim) * state[h][i][c];
        }
        total += found[c] * found[c];
      }
      for (size_t c = 0; c < s->value_dim; c++)
        out[t * 128 + h * s->value_dim + c] = found[c] / sqrt(total / (double)s->value_dim + (double)d->eps) *
                                              (double)d->net.norm[c] * z[c] / (1.0 + exp(-z[c]));
    }
  }
}

/* What o reads of an attention, for one window of rows q | k | v. */
static void ref_attention(const gptvq_ft_dims *d, double *qkv, double *out) {
  const size_t hd = d->head_dim, half = d->rotary / 2;
  for (size_t t = 0; t < LENGTH; t++)
    for (size_t h = 0; h < d->heads + d->kv_heads; h++) {
      double *head = qkv + t * CORE + h * hd;
      for (size_t i = 0; i < half; i++) {
        const size_t first = d->attention.neighbours ? 2 * i : i,
                     second = d->attention.neighbours ? 2 * i + 1 : i + half;
        double a = head[first], b = head[second], c = (double)d->cosine[t * half + i],
               s = (double)d->sine[t * half + i];
        head[first] = a * c - b * s;
        head[second] = b * c + a * s;
      }
      if (h < d->heads && d->attention.query_growth > 0.0f)
        for (size_t i = 0; i < hd; i++)
          head[i] *= 1.0 + (double)d->attention.query_growth * log(1.0 + floor((double)t / 3.0));
    }
  for (size_t t = 0; t < LENGTH; t++)
    for (size_t h = 0; h < d->heads; h++) {
      size_t key = (d->heads + h / (d->heads / d->kv_heads)) * hd, value = key + d->kv_heads * hd;
      double total = d->attention.sinks != NULL ? exp((double)d->attention.sinks[h]) : 0.0, sums[64] = {0};
      for (size_t j = 0; j <= t; j++) {
        if (t - j >= d->attention.window) continue;
        double score = 0;
        for (size_t i = 0; i < hd; i++) score += qkv[t * CORE + h * hd + i] * qkv[j * CORE + key + i];
        score *= (double)d->attention.scale;
        if (d->attention.cap > 0) score = (double)d->attention.cap * tanh(score / (double)d->attention.cap);
        double e = exp(score);
        total += e;
        for (size_t i = 0; i < hd; i++) sums[i] += e * qkv[j * CORE + value + i];
      }
      const size_t width = d->latent.kv_rank > 0 ? d->latent.values : hd;
      for (size_t i = 0; i < width; i++) out[t * 128 + h * width + i] = sums[i] / total;
    }
}

/* What o reads, [LENGTH × 128], of one window of x. */
static void ref_core(const gptvq_ft_dims *d, const gptvq_ft_weights *w, const double *x, double *out) {
  static double made[LENGTH * CORE], rows[LENGTH * CORE], normed[LENGTH * HIDDEN];
  const size_t dim = d->head_dim, queries = d->heads * dim, core = (d->heads + 2 * d->kv_heads) * dim;
  assert_true(gptvq_ft_rows(d, GPTVQ_FT_QKV) <= CORE);
  for (size_t t = 0; t < LENGTH; t++) {
    double *row = rows + t * CORE, *in = made + t * CORE;
    ref_input(x + t * HIDDEN, w->norm[GPTVQ_NORM_ATTENTION], (double)d->eps, normed + t * HIDDEN);
    ref_linear(d, w, GPTVQ_FT_QKV, normed + t * HIDDEN, in);
    if (d->latent.kv_rank > 0) ref_latent(d, w, in, row);
    else if (d->output_gate) {
      for (size_t i = 0; i < queries; i++) row[i] = in[2 * (i / dim) * dim + i % dim];
      memcpy(row + queries, in + 2 * queries, (core - queries) * sizeof *row);
    } else memcpy(row, in, CORE * sizeof *row);
    if (d->delta.value_heads > 0) continue;
    ref_heads(d, d->heads, w->norm[GPTVQ_NORM_Q], row);
    ref_heads(d, d->kv_heads, w->norm[GPTVQ_NORM_K], row + queries);
  }
  if (d->delta.value_heads > 0) ref_delta(d, w, made, normed, out);
  else ref_attention(d, rows, out);
  for (size_t t = 0; t < LENGTH && d->output_gate; t++)
    for (size_t i = 0; i < queries; i++)
      out[t * 128 + i] /= 1.0 + exp(-made[t * CORE + (2 * (i / dim) + 1) * dim + i % dim]);
}

/* out[tokens × HIDDEN]; returns how far all choices of experts are from others. */
static double ref_block(const gptvq_ft_dims *d, const gptvq_ft_weights *w, size_t tokens, const double *x,
                        double *out) {
  static double heads[LENGTH * 128];
  double margin = INFINITY;
  assert_true(gptvq_ft_cols(d, GPTVQ_FT_O) <= 128);
  for (size_t start = 0; start < tokens; start += LENGTH) {
    ref_core(d, w, x + start * HIDDEN, heads);
    for (size_t t = 0; t < LENGTH; t++) {
      const double *in = x + (start + t) * HIDDEN;
      double *y = out + (start + t) * HIDDEN, middle[HIDDEN], down[HIDDEN], normed[HIDDEN];
      ref_linear(d, w, GPTVQ_FT_O, heads + t * 128, middle);
      if (w->norm[GPTVQ_NORM_ATTENTION_OUT] != NULL)
        ref_norm(HIDDEN, middle, w->norm[GPTVQ_NORM_ATTENTION_OUT], (double)d->eps, middle);
      for (size_t i = 0; i < HIDDEN; i++) middle[i] = in[i] + (double)d->residual_scale * middle[i];
      ref_input(middle, w->norm[GPTVQ_NORM_MLP], (double)d->eps, normed);
      memset(down, 0, sizeof down);
      if (d->experts > 0) ref_experts(d, w, normed, down, &margin);
      else ref_mlp(d, w, 0, normed, 1.0, down);
      if (w->norm[GPTVQ_NORM_MLP_OUT] != NULL)
        ref_norm(HIDDEN, down, w->norm[GPTVQ_NORM_MLP_OUT], (double)d->eps, down);
      for (size_t i = 0; i < HIDDEN; i++) y[i] = middle[i] + (double)d->residual_scale * down[i];
    }
  }
  return margin;
}

#endif
