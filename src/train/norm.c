#include "train/pieces.h"

#include "base/memory.h"
#include "base/threads.h"

#include <math.h>
#include <string.h>

static float inverse_rms(const float *x, size_t n, float eps) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
  return (float)(1.0 / sqrt(sum / (double)n + (double)eps));
}

/* y = x · g / rms(x) over rows of `size` values, `heads` of them side by side in each token's row */
typedef struct forward_job {
  size_t size, heads, ldx, ldy;
  const float *x, *gain;
  float *y, *inverse_rms; /* inverse_rms may be NULL */
  float eps;
} forward_job;

static void forward_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const forward_job *job = context;
  for (size_t t = begin; t < end; t++)
    for (size_t h = 0; h < job->heads; h++) {
      const float *x = job->x + t * job->ldx + h * job->size;
      float *y = job->y + t * job->ldy + h * job->size, inverse = inverse_rms(x, job->size, job->eps);
      for (size_t i = 0; i < job->size; i++) y[i] = x[i] * inverse * job->gain[i];
      if (job->inverse_rms != NULL) job->inverse_rms[t] = inverse;
    }
}

void gptvq_ft_norm_forward(const gptvq_ft_dims *d, size_t tokens, const float *x, const float *gain, float *y,
                           float *scale) {
  forward_job job = {d->hidden, 1, d->hidden, d->hidden, x, gain, y, scale, d->eps};
  gptvq_parallel_for(tokens, 16, forward_task, &job);
}

static bool of_latent(gptvq_norm_place place) {
  return place == GPTVQ_NORM_Q_LATENT || place == GPTVQ_NORM_KV_LATENT;
}

/* How many norms stand side by side. */
static size_t norm_count(const gptvq_ft_dims *d, gptvq_norm_place place) {
  const size_t heads = place == GPTVQ_NORM_Q ? d->heads : d->kv_heads;
  return of_latent(place) ? 1 : heads * d->head_dim / gptvq_ft_norm_size(d, place);
}

static float epsilon(const gptvq_ft_dims *d, gptvq_norm_place place) {
  return of_latent(place) ? (float)d->latent.eps : d->eps;
}

void gptvq_ft_heads_forward(const gptvq_ft_dims *d, gptvq_norm_place place, size_t tokens, const float *x,
                            size_t ldx, const float *gain, float *y, size_t ldy) {
  forward_job job = {
      gptvq_ft_norm_size(d, place), norm_count(d, place), ldx, ldy, x, gain, y, NULL, epsilon(d, place)};
  gptvq_parallel_for(tokens, 16, forward_task, &job);
}

/* y = g ∘ x / rms(x): with n = x / rms and e = g ∘ dy, dx = (e − n · mean(e ∘ n)) / rms. Written to out =
 * base + dx. */
typedef struct norm_job {
  size_t size;
  const float *x, *gain, *dy, *scale, *base;
  float *out;
} norm_job;

static void norm_row(size_t size, const float *x, const float *gain, const float *dy, float scale,
                     const float *base, float *out) {
  double sum = 0;
  for (size_t i = 0; i < size; i++) sum += (double)(gain[i] * dy[i]) * (double)x[i];
  float mean = (float)(sum * (double)scale / (double)size);
  for (size_t i = 0; i < size; i++) {
    float dx = (gain[i] * dy[i] - x[i] * scale * mean) * scale;
    out[i] = base != NULL ? base[i] + dx : dx;
  }
}

static void norm_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const norm_job *job = context;
  for (size_t t = begin; t < end; t++) {
    size_t at = t * job->size;
    norm_row(job->size, job->x + at, job->gain, job->dy + at, job->scale[t],
             job->base != NULL ? job->base + at : NULL, job->out + at);
  }
}

void gptvq_ft_norm_backward(const gptvq_ft_dims *d, size_t tokens, const float *x, const float *gain,
                            const float *scale, const float *dy, const float *base, float *gain_gradient,
                            float *out) {
  gptvq_ft_add_columns(tokens, d->hidden, dy, x, scale, gain_gradient);
  norm_job job = {d->hidden, x, gain, dy, scale, base, out};
  gptvq_parallel_for(tokens, 16, norm_task, &job);
}

/* The norms of query and key heads, in place on the gradient; the gains' gradients first, token ranges of
 * fixed size each giving a partial sum that is added in order. */
typedef struct head_norm_job {
  size_t size, heads, ldx, ldg, tokens;
  const float *x, *gain;
  float *gradient, eps;
  double *partial; /* [chunks × size] */
} head_norm_job;

static void head_norm_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const head_norm_job *job = context;
  for (size_t chunk = begin; chunk < end; chunk++) {
    double *partial = job->partial + chunk * job->size;
    memset(partial, 0, job->size * sizeof *partial);
    size_t last = gptvq_min_size((chunk + 1) * GPTVQ_FT_HEAD_CHUNK, job->tokens);
    for (size_t t = chunk * GPTVQ_FT_HEAD_CHUNK; t < last; t++)
      for (size_t h = 0; h < job->heads; h++) {
        const float *x = job->x + t * job->ldx + h * job->size;
        float *dy = job->gradient + t * job->ldg + h * job->size, scale = inverse_rms(x, job->size, job->eps);
        for (size_t i = 0; i < job->size; i++) partial[i] += (double)dy[i] * (double)x[i] * (double)scale;
        norm_row(job->size, x, job->gain, dy, scale, NULL, dy);
      }
  }
}

void gptvq_ft_heads_backward(const gptvq_ft_dims *d, gptvq_norm_place place, size_t tokens, const float *x,
                             size_t ldx, const float *gain, double *partial, float *gain_gradient,
                             float *gradient, size_t ldg) {
  const size_t chunks = gptvq_ceil_div(tokens, GPTVQ_FT_HEAD_CHUNK), size = gptvq_ft_norm_size(d, place);
  head_norm_job job = {size,     norm_count(d, place), ldx,    ldg, tokens, x, gain,
                       gradient, epsilon(d, place),    partial};
  gptvq_parallel_for(chunks, 1, head_norm_task, &job);
  for (size_t i = 0; i < size; i++) {
    double sum = 0;
    for (size_t chunk = 0; chunk < chunks; chunk++) sum += partial[chunk * size + i];
    gain_gradient[i] += (float)sum;
  }
}
