/* The backend on the shim or a card (device_fixture.h), and layers to try it on. */
#ifndef CUDA_FIXTURE_H
#define CUDA_FIXTURE_H

#include "cuda/backend.h"
#include "cuda/shim/shim.h"
#include "device_fixture.h"
#include "host_products.h"
#include "solver_fixture.h"

typedef struct fixture {
  gptvq_device *device;
  gptvq_cuda *cuda;
} fixture;

static inline fixture open_fixture(void) {
  fixture f;
  gptvq_error err = {.message = ""};
  if (open_test_device(&f.device, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  if (gptvq_cuda_create(f.device, NULL, &f.cuda, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  return f;
}
static inline void close_fixture(fixture *f) {
  gptvq_cuda_destroy(f->cuda);
  size_t free_bytes, total;
  assert_int_equal(f->device->memory(f->device, &free_bytes, &total, NULL), GPTVQ_OK);
  if (!on_test_card()) assert_int_equal(free_bytes, total); /* all is given back */
  f->device->close(f->device);
}

static inline void take_cpu_products(const fixture *f) {
  if (on_test_card()) f->device->product = product_on_host;
}

/* One kind of layer. */
typedef struct layer_case {
  unsigned dim, index_bits, beam, scale_block;
  size_t rows, cols, group_size, group_cols;
  gptvq_em_init init;
  bool diagonal_metric, no_feedback, no_data, dead, trellis;
} layer_case;

static const layer_case layer_cases[] = {
    {.dim = 2, .index_bits = 4, .beam = 1, .rows = 24, .cols = 64, .group_size = 512, .group_cols = 64},
    {.dim = 2, .index_bits = 4, .beam = 4, .rows = 24, .cols = 64, .group_size = 512, .group_cols = 64},
    {.dim = 1, .index_bits = 4, .beam = 3, .rows = 9, .cols = 150, .group_size = 300, .group_cols = 256},
    {.dim = 1, .index_bits = 2, .beam = 8, .rows = 11, .cols = 40, .group_size = 160, .group_cols = 16},
    {.dim = 4, .index_bits = 8, .beam = 1, .rows = 20, .cols = 96, .group_size = 2048, .group_cols = 96},
    {.dim = 4, .index_bits = 7, .beam = 5, .rows = 17, .cols = 70, .group_size = 1024, .group_cols = 256},
    {.dim = 2, .index_bits = 6, .beam = 32, .rows = 10, .cols = 32, .group_size = 320, .group_cols = 32},
    {.dim = 2,
     .index_bits = 4,
     .beam = 4,
     .scale_block = 16,
     .rows = 12,
     .cols = 64,
     .group_size = 256,
     .group_cols = 32},
    {.dim = 2,
     .index_bits = 4,
     .beam = 2,
     .rows = 16,
     .cols = 48,
     .group_size = 256,
     .group_cols = 48,
     .init = GPTVQ_INIT_CDF},
    {.dim = 4,
     .index_bits = 4,
     .beam = 1,
     .rows = 12,
     .cols = 48,
     .group_size = 512,
     .group_cols = 48,
     .init = GPTVQ_INIT_CDF},
    {.dim = 2,
     .index_bits = 3,
     .beam = 1,
     .rows = 12,
     .cols = 40,
     .group_size = 256,
     .group_cols = 40,
     .diagonal_metric = true},
    {.dim = 2,
     .index_bits = 4,
     .beam = 4,
     .rows = 12,
     .cols = 40,
     .group_size = 256,
     .group_cols = 40,
     .no_feedback = true},
    {.dim = 2,
     .index_bits = 4,
     .beam = 4,
     .rows = 12,
     .cols = 40,
     .group_size = 256,
     .group_cols = 40,
     .no_data = true},
    {.dim = 2,
     .index_bits = 4,
     .beam = 4,
     .rows = 12,
     .cols = 41,
     .group_size = 256,
     .group_cols = 24,
     .dead = true},
    {.dim = 2,
     .index_bits = 7,
     .beam = 2,
     .rows = 3,
     .cols = 32,
     .group_size = 96,
     .group_cols = 32}, /* empty centroids */
    {.trellis = true, .index_bits = 2, .beam = 4, .rows = 9, .cols = 150, .group_cols = 64},
    {.trellis = true, .index_bits = 2, .beam = 2, .rows = 5, .cols = 260, .group_cols = 160},
    {.trellis = true, .index_bits = 2, .beam = 6, .rows = 3, .cols = 130, .group_cols = 40},
    {.trellis = true, .index_bits = 2, .beam = 8, .rows = 3, .cols = 70, .group_cols = 40, .dead = true},
    {.trellis = true, .index_bits = 3, .beam = 4, .rows = 7, .cols = 150, .group_cols = 72, .dead = true},
    {.trellis = true, .index_bits = 3, .beam = 1, .rows = 4, .cols = 90, .group_cols = 256},
    {.trellis = true, .index_bits = 3, .beam = 8, .rows = 3, .cols = 140, .group_cols = 64},
    {.trellis = true, .index_bits = 3, .beam = 6, .rows = 3, .cols = 50, .group_cols = 64},
    {.trellis = true, .index_bits = 4, .beam = 6, .rows = 3, .cols = 50, .group_cols = 64},
    {.trellis = true, .index_bits = 4, .beam = 4, .rows = 6, .cols = 133, .group_cols = 64},
    {.trellis = true, .index_bits = 4, .beam = 1, .rows = 4, .cols = 40, .group_cols = 24},
    {.trellis = true, .index_bits = 4, .beam = 8, .rows = 3, .cols = 60, .group_cols = 64},
    {.trellis = true,
     .index_bits = 2,
     .beam = 4,
     .rows = 5,
     .cols = 50,
     .group_cols = 24,
     .diagonal_metric = true},
    {.trellis = true,
     .index_bits = 2,
     .beam = 4,
     .rows = 5,
     .cols = 50,
     .group_cols = 24,
     .no_feedback = true},
    {.trellis = true, .index_bits = 3, .beam = 4, .rows = 5, .cols = 50, .group_cols = 24, .no_data = true},
};
enum { LAYER_CASES = sizeof layer_cases / sizeof layer_cases[0] };

/* Options, weights and factor (NULL: none) of a case. */
typedef struct layer_input {
  gptvq_resolved options;
  float *w;
  double *h;
  gptvq_factor *factor;
} layer_input;

static inline layer_input make_input(const layer_case *c) {
  gptvq_quantize_options o = small_options(c->dim, c->index_bits, c->group_size);
  gptvq_error err = {.message = ""};
  layer_input in = {0};
  if (c->trellis) {
    gptvq_quantize_options_init(&o);
    o.code = GPTVQ_CODE_TRELLIS;
    o.allocate = GPTVQ_ALLOCATE_UNIFORM;
    o.bits = c->index_bits + 0.5;
  }
  o.group_cols = c->group_cols;
  o.beam = c->beam;
  o.scale_block = c->scale_block;
  if (!c->trellis) o.em_init = c->init;
  o.em_iterations = c->trellis ? 5 : 20;
  o.exact_metric = !c->diagonal_metric;
  o.feedback = !c->no_feedback;
  in.options = resolved(&o);
  in.w = random_weights(c->rows, c->cols, 17 + c->dim);
  for (size_t i = 0; c->trellis && i < c->cols; i++) in.w[i] = 0.0f; /* a row of nothing */
  in.h = random_hessian(c->cols, 3 * c->cols, 23 + c->index_bits);
  if (c->dead)
    for (size_t i = 0; i < c->cols; i++) in.h[3 * c->cols + i] = in.h[i * c->cols + 3] = 0.0;
  if (!c->no_data && make_factor("test", c->cols, in.h, &o, NULL, &in.factor, &err) != GPTVQ_OK)
    fail_msg("%s", err.message);
  return in;
}
static inline void release_input(layer_input *in) {
  gptvq_factor_destroy(in->factor);
  free(in->w);
  free(in->h);
}

#endif
