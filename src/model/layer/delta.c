#include "model/layer/delta.h"
#include "base/memory.h"
#include "base/threads.h"
#include "model/layer/vector.h"

#include <math.h>
#include <string.h>

enum { COLUMNS = 64 /* of the convolution, one task's */ };

/* Rows of a text before its first one here; zero where the text begins. */
static void earlier_rows(const gptvq_delta_sizes *s, const gptvq_attention_text *text, size_t first,
                         size_t count, float *rows) {
  size_t columns = gptvq_delta_columns(s);
  for (size_t k = 0; k + 1 < s->kernel; k++) {
    if (text->position == 0) memset(rows + k * COLUMNS, 0, count * sizeof *rows);
    else memcpy(rows + k * COLUMNS, text->state + k * columns + first, count * sizeof *rows);
  }
}

/* Columns [first, first + count) of one text. The last row is made first: each replaces a row that only later
 * ones still need. */
static void convolve_columns(const gptvq_delta_rows *job, const gptvq_attention_text *text, size_t first,
                             size_t count) {
  const gptvq_delta_sizes *s = job->sizes;
  size_t columns = gptvq_delta_columns(s), before = s->kernel - 1;
  float earlier[(GPTVQ_DELTA_KERNEL - 1) * COLUMNS], sums[COLUMNS];
  float *rows = job->mixed + text->first * job->ldm + first;
  earlier_rows(s, text, first, count, earlier);
#define ROW(t) ((t) < before ? earlier + (t)*COLUMNS : rows + ((t)-before) * job->ldm)
  for (size_t k = 0; k < before; k++)
    memcpy(text->next_state + k * columns + first, ROW(text->n + k), count * sizeof *rows);
  for (size_t t = text->n; t-- > 0;) {
    memset(sums, 0, sizeof sums);
    for (size_t k = 0; k < s->kernel; k++) {
      const float *taps = job->weights->taps + k * columns + first, *x = ROW(t + k);
      for (size_t c = 0; c < count; c++) sums[c] += taps[c] * x[c];
    }
    GPTVQ_MULTI_PICK(gptvq_silu)(count, sums);
    memcpy(rows + t * job->ldm, sums, count * sizeof *rows);
  }
#undef ROW
}

/* Items are (text, COLUMNS columns). */
static void convolve(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gptvq_delta_rows *job = context;
  size_t columns = gptvq_delta_columns(job->sizes), parts = gptvq_ceil_div(columns, COLUMNS);
  for (size_t item = begin; item < end; item++) {
    size_t first = item % parts * COLUMNS;
    convolve_columns(job, &job->texts[item / parts], first, gptvq_min_size(COLUMNS, columns - first));
  }
}

/* exp(rate · softplus(a + bias)): what is left of the state */
static float decay_of(const gptvq_delta_weights *w, size_t head, float a) {
  double x = (double)a + (double)w->time_bias[head];
  return (float)exp((double)w->rate[head] * (x > 20.0 ? x : log1p(exp(x))));
}

/* All tokens of one text in one value head. */
static void run_head(const gptvq_delta_rows *job, const gptvq_attention_text *text, size_t head) {
  const gptvq_delta_sizes *s = job->sizes;
  size_t shared = head / (s->value_heads / s->key_heads), keys = s->key_heads * s->key_dim;
  size_t size = s->key_dim * s->value_dim, at = (s->kernel - 1) * gptvq_delta_columns(s) + head * size;
  const float scale = 1.0f / sqrtf((float)s->key_dim), *from = text->state + at;
  float *to = text->next_state + at, q[GPTVQ_DELTA_DIM], k[GPTVQ_DELTA_DIM];
  if (text->position == 0) from = memset(to, 0, size * sizeof *to);
  for (size_t row = text->first; row < text->first + text->n; row++, from = to) {
    float *mixed = job->mixed + row * job->ldm;
    const float *gates = job->gates + row * 2 * s->value_heads;
    float *v = mixed + 2 * keys + head * s->value_dim, *z = v + gptvq_delta_outputs(s);
    float *out = job->out + row * gptvq_delta_outputs(s) + head * s->value_dim;
    const gptvq_delta_step step = {.key_dim = s->key_dim,
                                   .value_dim = s->value_dim,
                                   .decay = decay_of(job->weights, head, gates[head]),
                                   .beta = (float)(1.0 / (1.0 + exp(-(double)gates[s->value_heads + head]))),
                                   .q = q,
                                   .k = k};
    GPTVQ_MULTI_PICK(gptvq_l2_norm)(s->key_dim, mixed + shared * s->key_dim, scale, q);
    GPTVQ_MULTI_PICK(gptvq_l2_norm)(s->key_dim, mixed + keys + shared * s->key_dim, 1.0f, k);
    GPTVQ_MULTI_PICK(gptvq_delta_rule)(&step, from, v, to, out);
    /* the gate as the norm's other factor: z becomes silu(z) · norm(out) */
    (void)GPTVQ_MULTI_PICK(gptvq_rms_norm)(s->value_dim, out, job->weights->norm, job->eps, out);
    GPTVQ_MULTI_PICK(gptvq_silu_mul)(s->value_dim, z, out);
    memcpy(out, z, s->value_dim * sizeof *out);
  }
}

/* Items are (text, value head). */
static void run_heads(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gptvq_delta_rows *job = context;
  for (size_t item = begin; item < end; item++)
    run_head(job, &job->texts[item / job->sizes->value_heads], item % job->sizes->value_heads);
}

void gptvq_delta_net_rows(const gptvq_delta_rows *rows) {
  gptvq_delta_rows job = *rows;
  size_t parts = gptvq_ceil_div(gptvq_delta_columns(job.sizes), COLUMNS);
  gptvq_parallel_for(job.count * parts, gptvq_ceil_div(64, gptvq_max_size(job.n / job.count, 1)), convolve,
                     &job);
  gptvq_parallel_for(job.count * job.sizes->value_heads, 1, run_heads, &job);
}
