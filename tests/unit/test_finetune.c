/* Fine-tuning: the block's forward pass against a double-precision definition of its own, every gradient
 * against finite differences of that definition, and the training loop. */
#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "model/layer/vector.h"
#include "train/train.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { HIDDEN = 24, INTERMEDIATE = 20, LENGTH = 11, WINDOWS = 2, TOKENS = WINDOWS * LENGTH, LINEARS = 7 };

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
    CAPPED, /* and with norms behind o and down, GELU, norms stored as gain − 1 */
    JOINT,  /* norms of q and k over all heads, norms behind o and down, none before q and gate */
    SCALED, /* what either half adds is scaled */
    PAIRED, /* the same behind norms; neighbours are rotated, and queries grow */
    SINKS   /* and the clamped activation */
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
    {"uniform, dense output", 3, 3, 8, 8, 0, false, true, true, 1, 3, 0, 8, true, true, true, 1, 32, PLAIN},
};
enum { VARIANTS = sizeof variants / sizeof variants[0] };

typedef struct fixture {
  const variant *v;
  gptvq_ft_dims dims;
  gptvq_block block;
  gptvq_mlp mlp;
  gptvq_linear linears[LINEARS];
  float *rope;
  float *x;
  void *owned[128];
  size_t owned_count;
} fixture;

static void *keep(fixture *f, void *memory) {
  assert_non_null(memory);
  assert_true(f->owned_count < 128);
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
  p->shape = (gptvq_packed_shape){.kind = v->uniform ? GPTVQ_PACKED_UNIFORM : GPTVQ_PACKED_VQ,
                                  .rows = rows,
                                  .cols = cols,
                                  .dim = v->dim,
                                  .index_bits = v->index_bits,
                                  .group_rows = gptvq_min_size(v->group_rows, rows),
                                  .group_cols = v->uniform ? cols : v->group_cols,
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
  if (v->codebook_bits == 8) {
    int8_t *codes = keep(f, gptvq_alloc(sizes.codebook_values, 1));
    for (size_t i = 0; i < sizes.codebook_values; i++)
      codes[i] = (int8_t)((int)gptvq_random_below(&seed, 255) - 127);
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

static void make_fixture(fixture *f, const variant *v, size_t windows) {
  *f = (fixture){.v = v};
  size_t q = v->heads * v->head_dim, kv = v->kv_heads * v->head_dim, half = v->rotary / 2;
  f->rope = keep(f, gptvq_alloc(LENGTH * half + 1, 2 * sizeof(float)));
  for (size_t t = 0; t < LENGTH; t++)
    for (size_t i = 0; i < half; i++) {
      double angle = (double)t * pow(100.0, -(double)i / (double)half);
      f->rope[t * half + i] = (float)cos(angle);
      f->rope[(LENGTH + t) * half + i] = (float)sin(angle);
    }
  const bool before = v->kind != JOINT, behind = v->kind != PLAIN && v->kind != SCALED && v->kind != SINKS;
  f->dims =
      (gptvq_ft_dims){.hidden = HIDDEN,
                      .heads = v->heads,
                      .kv_heads = v->kv_heads,
                      .head_dim = v->head_dim,
                      .intermediate = INTERMEDIATE,
                      .length = LENGTH,
                      .attention = {.window = v->window != 0 ? v->window : SIZE_MAX,
                                    .scale = 1.0f / sqrtf((float)v->head_dim),
                                    .cap = v->kind == CAPPED ? 2.0f : 0.0f,
                                    .wide_norms = v->kind == JOINT,
                                    .sinks = v->kind == SINKS ? keep(f, random_vector(v->heads, 1, 1)) : NULL,
                                    .neighbours = v->kind == PAIRED,
                                    .query_growth = v->kind == PAIRED ? 0.5f : 0.0f,
                                    .query_period = 3},
                      .activation = v->kind == SINKS    ? GPTVQ_SWIGLU_CLAMPED
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
  b->mlp_count = 1;
  b->mlps = &f->mlp;
  for (gptvq_norm_place n = 0; n < GPTVQ_NORMS; n++) {
    /* gate and up have to meet the limits of a clamped activation */
    const float middle = v->kind == SINKS && n == GPTVQ_NORM_MLP ? 3 : 1;
    if (f->dims.has_norm[n])
      b->norms[n] = keep(f, random_vector(gptvq_ft_norm_size(&f->dims, n), middle, 0.3f));
  }
  size_t n = 0;
  if (v->fused) {
    make_linear(f, n, q + 2 * kv, HIDDEN, v->biases, false);
    b->qkv = (gptvq_linear_group){1, {n++}, {0}, q + 2 * kv};
  } else {
    for (size_t i = 0; i < 3; i++) make_linear(f, n + i, i == 0 ? q : kv, HIDDEN, v->biases, false);
    b->qkv = (gptvq_linear_group){3, {n, n + 1, n + 2}, {0, q, q + kv}, q + 2 * kv};
    n += 3;
  }
  make_linear(f, n, HIDDEN, q, v->biases, v->dense_o);
  b->o = n++;
  if (v->fused) {
    make_linear(f, n, 2 * INTERMEDIATE, HIDDEN, v->biases, false);
    f->mlp.input = (gptvq_linear_group){1, {n++}, {0}, 2 * INTERMEDIATE};
  } else {
    for (size_t i = 0; i < 2; i++) make_linear(f, n + i, INTERMEDIATE, HIDDEN, v->biases && i == 1, false);
    f->mlp.input = (gptvq_linear_group){2, {n, n + 1}, {0, INTERMEDIATE}, 2 * INTERMEDIATE};
    n += 2;
  }
  make_linear(f, n, HIDDEN, INTERMEDIATE, v->biases, false);
  f->mlp.down = n++;
  b->linear_count = n;
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

/* out[tokens × HIDDEN] */
static void ref_block(const gptvq_ft_dims *d, const gptvq_ft_weights *w, size_t tokens, const double *x,
                      double *out) {
  size_t hd = d->head_dim, width = (d->heads + 2 * d->kv_heads) * hd, half = d->rotary / 2;
  double *qkv = gptvq_alloc(LENGTH * width, sizeof *qkv), heads[128], normed[HIDDEN], gate[2 * INTERMEDIATE];
  assert_non_null(qkv);
  for (size_t start = 0; start < tokens; start += LENGTH) {
    for (size_t t = 0; t < LENGTH; t++) {
      double *row = qkv + t * width;
      ref_input(x + (start + t) * HIDDEN, w->norm[GPTVQ_NORM_ATTENTION], (double)d->eps, normed);
      ref_linear(d, w, GPTVQ_FT_QKV, normed, row);
      ref_heads(d, d->heads, w->norm[GPTVQ_NORM_Q], row);
      ref_heads(d, d->kv_heads, w->norm[GPTVQ_NORM_K], row + d->heads * hd);
      for (size_t h = 0; h < d->heads + d->kv_heads; h++) {
        double *head = row + h * hd;
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
    }
    for (size_t t = 0; t < LENGTH; t++) {
      const double *in = x + (start + t) * HIDDEN;
      double *y = out + (start + t) * HIDDEN, middle[HIDDEN], down[HIDDEN];
      for (size_t h = 0; h < d->heads; h++) {
        size_t key = (d->heads + h / (d->heads / d->kv_heads)) * hd, value = key + d->kv_heads * hd;
        double total = d->attention.sinks != NULL ? exp((double)d->attention.sinks[h]) : 0.0;
        memset(heads + h * hd, 0, hd * sizeof *heads);
        for (size_t j = 0; j <= t; j++) {
          if (t - j >= d->attention.window) continue;
          double score = 0;
          for (size_t i = 0; i < hd; i++) score += qkv[t * width + h * hd + i] * qkv[j * width + key + i];
          score *= (double)d->attention.scale;
          if (d->attention.cap > 0) score = (double)d->attention.cap * tanh(score / (double)d->attention.cap);
          double e = exp(score);
          total += e;
          for (size_t i = 0; i < hd; i++) heads[h * hd + i] += e * qkv[j * width + value + i];
        }
        for (size_t i = 0; i < hd; i++) heads[h * hd + i] /= total;
      }
      ref_linear(d, w, GPTVQ_FT_O, heads, middle);
      if (w->norm[GPTVQ_NORM_ATTENTION_OUT] != NULL)
        ref_norm(HIDDEN, middle, w->norm[GPTVQ_NORM_ATTENTION_OUT], (double)d->eps, middle);
      for (size_t i = 0; i < HIDDEN; i++) middle[i] = in[i] + (double)d->residual_scale * middle[i];
      ref_input(middle, w->norm[GPTVQ_NORM_MLP], (double)d->eps, normed);
      ref_linear(d, w, GPTVQ_FT_GATE_UP, normed, gate);
      for (size_t i = 0; i < INTERMEDIATE; i++)
        gate[i] = ref_gate(d->activation, gate[i], gate[INTERMEDIATE + i]);
      ref_linear(d, w, GPTVQ_FT_DOWN, gate, down);
      if (w->norm[GPTVQ_NORM_MLP_OUT] != NULL)
        ref_norm(HIDDEN, down, w->norm[GPTVQ_NORM_MLP_OUT], (double)d->eps, down);
      for (size_t i = 0; i < HIDDEN; i++) y[i] = middle[i] + (double)d->residual_scale * down[i];
    }
  }
  free(qkv);
}

/* ---- tests ---- */

/* Each output is a chain of a handful of sums of at most WIDTH products: c · WIDTH · ε of the largest value
 * around. */
enum { WIDTH = 64, CHAIN = 8 };

static void forward_is_the_definition(void **state) {
  (void)state;
  for (size_t i = 0; i < VARIANTS; i++) {
    fixture f;
    gptvq_error err;
    gptvq_ft_params params;
    gptvq_ft_tape *tape;
    seed = i;
    make_fixture(&f, &variants[i], WINDOWS);
    assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
    assert_int_equal(gptvq_ft_tape_create(&f.dims, TOKENS, false, &tape, &err), GPTVQ_OK);
    double x[TOKENS * HIDDEN], expected[TOKENS * HIDDEN], largest = 0;
    for (size_t j = 0; j < TOKENS * HIDDEN; j++) x[j] = (double)f.x[j];
    ref_block(&f.dims, &params.weights, TOKENS, x, expected);
    for (size_t j = 0; j < TOKENS * HIDDEN; j++) largest = fmax(largest, fabs(expected[j]));
    const float *y = gptvq_ft_forward(&f.dims, &params.weights, tape, TOKENS, f.x);
    for (size_t j = 0; j < TOKENS * HIDDEN; j++)
      if (!(fabs((double)y[j] - expected[j]) <= CHAIN * WIDTH * (double)FLT_EPSILON * largest))
        fail_msg("%s: output %zu is %.9g, not %.9g", variants[i].name, j, (double)y[j], expected[j]);
    gptvq_ft_tape_destroy(tape);
    gptvq_ft_params_release(&params);
    free_fixture(&f);
  }
}

/* Building the weights from theta gives the decoded packed weights exactly (no scale changes before a step).
 */
static void theta_starts_as_the_packed_weights(void **state) {
  (void)state;
  for (size_t i = 0; i < VARIANTS; i++) {
    fixture f;
    gptvq_error err;
    gptvq_ft_params params;
    seed = i;
    make_fixture(&f, &variants[i], WINDOWS);
    assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
    for (size_t t = 0; t < params.table_count; t++) {
      const gptvq_ft_table *table = &params.tables[t];
      const gptvq_packed_shape *shape = &table->packed->shape;
      float *expected = gptvq_alloc(shape->rows * shape->cols, sizeof *expected);
      float *built = params.weights.matrix[table->matrix] + table->row_offset * shape->cols;
      gptvq_packed_decode_ref(table->packed, 0, shape->rows, expected, shape->cols);
      memset(built, 0x7f, shape->rows * shape->cols * sizeof *built);
      gptvq_ft_params_build(&params, false);
      assert_memory_equal(built, expected, shape->rows * shape->cols * sizeof *built);
      free(expected);
    }
    gptvq_ft_params_release(&params);
    free_fixture(&f);
  }
}

static double functional(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights, const double *x,
                         const float *r) {
  double out[TOKENS * HIDDEN], sum = 0;
  ref_block(dims, weights, TOKENS, x, out);
  for (size_t i = 0; i < TOKENS * HIDDEN; i++) sum += (double)r[i] * out[i];
  return sum;
}

/* Steps of finite differences must not reach what a clamped activation holds: they move gate and up by some
 * hundredths. */
static bool limits_are_far(const fixture *f, const gptvq_ft_tape *tape) {
  for (size_t i = 0; f->v->kind == SINKS && i < TOKENS * 2 * INTERMEDIATE; i++)
    if (fabsf(fabsf(tape->gate_up[i]) - GPTVQ_SWIGLU_LIMIT) < 0.06f) return false;
  return true;
}

/* L = Σ r ∘ block(x). The four-point stencil's own error is h⁴/30 · L⁽⁵⁾: with h = 2⁻⁹ of values around one
 * (and of a few tenths in front of norms behind o and down), far below the rounding errors of the fp32
 * gradients, which are sums of at most TOKENS · WIDTH products behind a CHAIN of sums and whose rounding
 * errors add up like a random walk: CHAIN · √(TOKENS · WIDTH) · ε of the largest gradient of the same array.
 */
static void gradients_are_finite_differences(void **state) {
  (void)state;
  const double tolerance = CHAIN * sqrt((double)TOKENS * WIDTH) * (double)FLT_EPSILON;
  for (size_t v = 0; v < VARIANTS; v++) {
    fixture f;
    gptvq_error err;
    gptvq_ft_params params;
    gptvq_ft_tape *tape;
    for (uint64_t start = 100 + v;; start += VARIANTS) {
      seed = start;
      make_fixture(&f, &variants[v], WINDOWS);
      assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
      assert_int_equal(gptvq_ft_tape_create(&f.dims, TOKENS, true, &tape, &err), GPTVQ_OK);
      gptvq_ft_forward(&f.dims, &params.weights, tape, TOKENS, f.x);
      if (limits_are_far(&f, tape)) break;
      gptvq_ft_tape_destroy(tape);
      gptvq_ft_params_release(&params);
      free_fixture(&f);
    }
    float *r = random_vector(TOKENS * HIDDEN, 0, 1), gradient_in[TOKENS * HIDDEN];
    double x[TOKENS * HIDDEN];
    for (size_t i = 0; i < TOKENS * HIDDEN; i++) x[i] = (double)f.x[i];
    gptvq_ft_params_begin(&params);
    gptvq_ft_forward(&f.dims, &params.weights, tape, TOKENS, f.x);
    gptvq_ft_backward(&f.dims, &params.weights, tape, r, &params.vector_gradients, gptvq_ft_params_scatter,
                      &params, gradient_in);
    gptvq_ft_params_finish(&params);

    /* arrays of parameters, each with its own largest gradient */
    size_t starts[64], arrays = 0;
    for (size_t t = 0; t < params.table_count; t++) starts[arrays++] = params.tables[t].first;
    for (size_t t = 0; t < params.vector_count; t++) starts[arrays++] = params.vectors[t].first;
    starts[arrays] = params.count;
    for (size_t a = 0; a < arrays; a++) {
      double largest = 0;
      for (size_t i = starts[a]; i < starts[a + 1]; i++)
        largest = fmax(largest, fabs((double)params.gradient[i]));
      assert_true(largest > 0.0);
      for (size_t i = starts[a]; i < starts[a + 1]; i += 3) {
        float start = params.theta[i], h = 0x1p-9f;
        double value[4];
        for (int k = 0; k < 4; k++) {
          params.theta[i] = start + h * (float)(k < 2 ? k - 2 : k - 1);
          gptvq_ft_params_build(&params, false);
          value[k] = functional(&f.dims, &params.weights, x, r);
        }
        params.theta[i] = start;
        double expected = (8.0 * (value[2] - value[1]) - (value[3] - value[0])) / (12.0 * (double)h);
        if (!(fabs((double)params.gradient[i] - expected) <= tolerance * largest))
          fail_msg("%s: array %zu, parameter %zu: gradient %.9g, finite difference %.9g, largest %.9g",
                   variants[v].name, a, i - starts[a], (double)params.gradient[i], expected, largest);
      }
    }
    gptvq_ft_params_build(&params, false);
    double largest = 0;
    for (size_t i = 0; i < TOKENS * HIDDEN; i++) largest = fmax(largest, fabs((double)gradient_in[i]));
    for (size_t i = 0; i < TOKENS * HIDDEN; i += 5) {
      double start = x[i], h = 0x1p-9, value[4];
      for (int k = 0; k < 4; k++) {
        x[i] = start + h * (double)(k < 2 ? k - 2 : k - 1);
        value[k] = functional(&f.dims, &params.weights, x, r);
      }
      x[i] = start;
      double expected = (8.0 * (value[2] - value[1]) - (value[3] - value[0])) / (12.0 * h);
      if (!(fabs((double)gradient_in[i] - expected) <= tolerance * largest))
        fail_msg("%s: input %zu: gradient %.9g, finite difference %.9g", variants[v].name, i,
                 (double)gradient_in[i], expected);
    }
    free(r);
    gptvq_ft_tape_destroy(tape);
    gptvq_ft_params_release(&params);
    free_fixture(&f);
  }
}

/* ---- training ---- */

enum { MANY = 24 };

/* targets = outputs of the block as it is; then every codebook and norm is disturbed. */
static float *disturb(fixture *f) {
  gptvq_error err;
  gptvq_ft_params params;
  gptvq_ft_tape *tape;
  float *targets = gptvq_alloc(MANY * LENGTH * HIDDEN, sizeof *targets);
  assert_int_equal(gptvq_ft_params_create(&f->dims, &f->block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
  assert_int_equal(gptvq_ft_tape_create(&f->dims, MANY * LENGTH, false, &tape, &err), GPTVQ_OK);
  memcpy(targets, gptvq_ft_forward(&f->dims, &params.weights, tape, MANY * LENGTH, f->x),
         MANY * LENGTH * HIDDEN * sizeof *targets);
  gptvq_ft_tape_destroy(tape);
  for (size_t i = 0; i < params.count; i++) params.theta[i] += 0.15f * params.unit[i] * uniform(1.0f);
  gptvq_ft_params_store(&params);
  gptvq_ft_params_release(&params);
  return targets;
}

/* The relative error of the block as stored, over the held-out windows (the last third), by the definition.
 */
static double stored_error(fixture *f, const float *targets) {
  gptvq_error err;
  gptvq_ft_params params;
  assert_int_equal(gptvq_ft_params_create(&f->dims, &f->block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
  double *x = gptvq_alloc(MANY * LENGTH * HIDDEN, sizeof *x),
         *out = gptvq_alloc(MANY * LENGTH * HIDDEN, sizeof *out);
  for (size_t i = 0; i < MANY * LENGTH * HIDDEN; i++) x[i] = (double)f->x[i];
  ref_block(&f->dims, &params.weights, MANY * LENGTH, x, out);
  double errors = 0, deviation = 0;
  for (size_t j = 0; j < HIDDEN; j++) {
    double sum = 0, squares = 0;
    for (size_t t = 0; t < MANY * LENGTH; t++) {
      double y = (double)targets[t * HIDDEN + j], e = out[t * HIDDEN + j] - y;
      sum += y;
      squares += y * y;
      if (t / LENGTH >= MANY - MANY / 3) errors += e * e;
    }
    deviation += squares - sum * sum / (MANY * LENGTH);
  }
  free(x);
  free(out);
  gptvq_ft_params_release(&params);
  return errors / (MANY / 3) / (deviation / MANY);
}

static gptvq_finetune_options training_options(void) {
  gptvq_finetune_options options;
  gptvq_finetune_options_init(&options);
  options.steps = 60;
  options.batch = 5;
  options.holdout = MANY / 3;
  options.evaluate_every = 10;
  options.table_rate = options.vector_rate = 0.02;
  options.max_tokens = 3 * LENGTH; /* so that a batch takes two parts */
  return options;
}

static gptvq_status run_training(gptvq_ft_params *params, size_t windows, float *inputs, float *targets,
                                 const gptvq_finetune_options *options, const gptvq_callbacks *callbacks,
                                 gptvq_finetune_result *result, gptvq_error *err) {
  const gptvq_stream in = gptvq_stream_over(windows, LENGTH * HIDDEN, inputs),
                     out = gptvq_stream_over(windows, LENGTH * HIDDEN, targets);
  return gptvq_ft_train(params, windows, &in, &out, options, callbacks, result, err);
}

static void train(fixture *f, float *targets, const gptvq_finetune_options *options,
                  gptvq_finetune_result *result) {
  gptvq_error err;
  gptvq_ft_params params;
  assert_int_equal(gptvq_ft_params_create(&f->dims, &f->block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
  assert_int_equal(run_training(&params, MANY, f->x, targets, options, NULL, result, &err), GPTVQ_OK);
  gptvq_ft_params_release(&params);
}

static void training_lowers_the_stored_error(void **state) {
  (void)state;
  for (size_t v = 0; v < VARIANTS; v++) {
    fixture f;
    gptvq_finetune_result result;
    gptvq_finetune_options options = training_options();
    seed = 200 + v;
    make_fixture(&f, &variants[v], MANY);
    float *targets = disturb(&f);
    double before = stored_error(&f, targets);
    train(&f, targets, &options, &result);
    double after = stored_error(&f, targets);
    if (!(after < 0.5 * before)) fail_msg("%s: error %.6g became %.6g only", variants[v].name, before, after);
    assert_true(result.best_step > 0);
    /* what is reported is what is stored; squared errors carry twice the forward pass's relative rounding
     * error, seen through the ratio of the outputs to their error, at most 1 / sqrt(after) */
    double slack = 2.0 * CHAIN * WIDTH * (double)FLT_EPSILON / sqrt(after);
    assert_true(fabs(result.before - before) <= slack * before);
    assert_true(fabs(result.after - after) <= slack * after);
    free(targets);
    free_fixture(&f);
  }
}

/* Some indices are wrong: only training of the indices can repair that. */
static void training_of_indices_repairs_them(void **state) {
  (void)state;
  for (size_t v = 0; v + 1 < VARIANTS; v++) { /* the last one has no indices into codebooks */
    double after[2], before = 0;
    if (variants[v].kind == SINKS) continue; /* what its activation holds has no gradient */
    for (int indices = 0; indices < 2; indices++) {
      fixture f;
      gptvq_error err;
      gptvq_ft_params params;
      gptvq_finetune_result result;
      gptvq_finetune_options options = training_options();
      options.steps = 80;
      options.index_rate = indices ? 0.03 : 0;
      seed = 400 + v;
      make_fixture(&f, &variants[v], MANY);
      float *targets = disturb(&f);
      for (size_t i = 0; i < f.block.linear_count; i++) {
        gptvq_packed_sizes sizes;
        gptvq_packed_measure(&f.linears[i].packed.shape, &sizes);
        for (size_t j = 0; j < sizes.index_bytes; j += 16) ((uint8_t *)f.linears[i].packed.indices)[j] ^= 1;
      }
      before = stored_error(&f, targets);
      assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
      if (indices) assert_int_equal(gptvq_ft_indices_create(&params, &f.block, 0.5f, &err), GPTVQ_OK);
      assert_int_equal(run_training(&params, MANY, f.x, targets, &options, NULL, &result, &err), GPTVQ_OK);
      gptvq_ft_params_release(&params);
      after[indices] = stored_error(&f, targets);
      double slack = 2.0 * CHAIN * WIDTH * (double)FLT_EPSILON / sqrt(after[indices]);
      assert_true(fabs(result.after - after[indices]) <= slack * after[indices]);
      free(targets);
      free_fixture(&f);
    }
    if (!(after[1] < 0.9 * after[0]))
      fail_msg("%s: error %.6g became %.6g, with trained indices %.6g", variants[v].name, before, after[0],
               after[1]);
  }
}

static uint64_t fingerprint(const fixture *f) {
  uint64_t hash = 14695981039346656037u;
  const gptvq_norm_place norm = f->v->kind == JOINT ? GPTVQ_NORM_MLP_OUT : GPTVQ_NORM_ATTENTION;
  for (size_t i = 0; i < f->block.linear_count; i++) {
    const gptvq_packed *p = &f->linears[i].packed;
    gptvq_packed_sizes sizes;
    if (!f->linears[i].is_packed) continue;
    gptvq_packed_measure(&p->shape, &sizes);
    const uint8_t *parts[] = {p->codebooks, (const uint8_t *)p->codebook_scales, (const uint8_t *)p->scales,
                              (const uint8_t *)f->block.norms[norm]};
    size_t bytes[] = {sizes.codebook_bytes, 2 * sizes.codebook_scales, 2 * sizes.uniform_scales,
                      HIDDEN * sizeof(float)};
    for (size_t part = 0; part < 4; part++)
      for (size_t j = 0; j < bytes[part]; j++) hash = (hash ^ parts[part][j]) * 1099511628211u;
  }
  return hash;
}

static void same_bytes_for_any_threads(void **state) {
  (void)state;
  for (size_t v = 0; v < VARIANTS; v++) {
    uint64_t first = 0;
    for (int threads = 1; threads <= 3; threads++) {
      fixture f;
      gptvq_finetune_result result;
      gptvq_finetune_options options = training_options();
      options.steps = 10;
      gptvq_set_threads(threads);
      seed = 300 + v;
      make_fixture(&f, &variants[v], MANY);
      float *targets = disturb(&f);
      uint64_t before = fingerprint(&f);
      train(&f, targets, &options, &result);
      if (threads == 1) first = fingerprint(&f);
      assert_true(fingerprint(&f) == first && first != before);
      free(targets);
      free_fixture(&f);
    }
  }
  gptvq_set_threads(1);
}

static void a_useless_training_changes_nothing(void **state) {
  (void)state;
  fixture f;
  gptvq_finetune_result result;
  gptvq_finetune_options options = training_options();
  options.table_rate = options.vector_rate = 50.0;
  options.patience = 2;
  seed = 7;
  make_fixture(&f, &variants[0], MANY);
  float *targets = disturb(&f);
  uint64_t before = fingerprint(&f);
  train(&f, targets, &options, &result);
  assert_int_equal(result.best_step, 0);
  assert_int_equal(result.steps, 20); /* two looks at the held-out windows */
  assert_true(result.after == result.before);
  assert_true(fingerprint(&f) == before);
  free(targets);
  free_fixture(&f);
}

static void bad_input_is_refused(void **state) {
  (void)state;
  fixture f;
  gptvq_error err;
  gptvq_ft_params params;
  gptvq_finetune_result result;
  gptvq_finetune_options options = training_options();
  seed = 8;
  make_fixture(&f, &variants[0], MANY);
  float *targets = disturb(&f);
  uint64_t before = fingerprint(&f);
  assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err), GPTVQ_OK);
  assert_int_equal(run_training(&params, 0, f.x, targets, &options, NULL, &result, &err), GPTVQ_ERROR_DATA);
  targets[17] = NAN;
  assert_int_equal(run_training(&params, MANY, f.x, targets, &options, NULL, &result, &err),
                   GPTVQ_ERROR_NUMERIC);
  targets[17] = 0;
  f.x[(MANY - 1) * LENGTH * HIDDEN + 3] = INFINITY; /* in a held-out window */
  assert_int_equal(run_training(&params, MANY, f.x, targets, &options, NULL, &result, &err),
                   GPTVQ_ERROR_NUMERIC);
  gptvq_ft_params_release(&params);
  assert_true(fingerprint(&f) == before);
  f.block.mlp_count = 4;
  assert_int_equal(gptvq_ft_params_create(&f.dims, &f.block, GPTVQ_BF16, &params, &err),
                   GPTVQ_ERROR_UNSUPPORTED);
  free(targets);
  free_fixture(&f);
}

int main(void) {
  gptvq_set_threads(1); /* the work is too little to share out */
  const struct CMUnitTest tests[] = {cmocka_unit_test(forward_is_the_definition),
                                     cmocka_unit_test(theta_starts_as_the_packed_weights),
                                     cmocka_unit_test(gradients_are_finite_differences),
                                     cmocka_unit_test(training_lowers_the_stored_error),
                                     cmocka_unit_test(training_of_indices_repairs_them),
                                     cmocka_unit_test(same_bytes_for_any_threads),
                                     cmocka_unit_test(a_useless_training_changes_nothing),
                                     cmocka_unit_test(bad_input_is_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
