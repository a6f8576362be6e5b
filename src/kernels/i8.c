#include "kernels/i8.h"
#include "base/memory.h"
#include "kernels/multi/quantize_input.h"
#include "kernels/ref/ref.h"

#include <string.h>

enum { MAX_ROWS = 256, SUMS = 256 * GPTVQ_I8_LANES }; /* 16 KiB of sums stay in the first-level cache */

bool gptvq_packed_has_i8(const gptvq_packed_shape *s) {
  if (s->kind == GPTVQ_PACKED_UNIFORM) return gptvq_uniform_has_i8(s);
  if (s->codebook_bits != 8) return false;
  if (gptvq_min_size(s->group_cols, s->cols) > GPTVQ_I8_MAX_WIDTH) return false;
  return s->scale_block == 0 || s->scale_block / s->dim % 4 == 0;
}

/* Columns of one group are those of components 0 … dim − 1 of its vectors. */
static size_t input_dim(const gptvq_packed_shape *s) {
  return s->kind == GPTVQ_PACKED_TRELLIS ? gptvq_trellis_planes(s->index_bits) : s->dim;
}

void gptvq_input_measure(const gptvq_packed_shape *s, gptvq_input_layout *layout) {
  const bool uniform = s->kind == GPTVQ_PACKED_UNIFORM;
  layout->width = gptvq_min_size(uniform ? s->scale_block : s->group_cols, s->cols);
  layout->groups = gptvq_ceil_div(s->cols, layout->width);
  const size_t dim = input_dim(s);
  layout->group_codes = uniform ? layout->width : dim * gptvq_input_plane(layout->width, dim);
  layout->corrections = gptvq_round_up(layout->groups * layout->group_codes, 64);
  layout->scales =
      layout->corrections + layout->groups * (uniform ? sizeof(float) : GPTVQ_I8_LANES * sizeof(int32_t));
  layout->bytes = gptvq_round_up(layout->scales + layout->groups * sizeof(float), 64);
}

size_t gptvq_packed_input_bytes(const gptvq_packed_shape *shape) {
  gptvq_input_layout layout;
  gptvq_input_measure(shape, &layout);
  return layout.bytes;
}

bool gptvq_packed_same_input(const gptvq_packed *a, const gptvq_packed *b) {
  return a->shape.kind == b->shape.kind && a->shape.cols == b->shape.cols &&
         input_dim(&a->shape) == input_dim(&b->shape) && a->permutation == b->permutation &&
         (a->shape.kind == GPTVQ_PACKED_UNIFORM ? a->shape.scale_block == b->shape.scale_block
                                                : gptvq_min_size(a->shape.group_cols, a->shape.cols) ==
                                                      gptvq_min_size(b->shape.group_cols, b->shape.cols));
}

void gptvq_packed_prepare(const gptvq_packed *packed, const float *x, void *input) {
  const gptvq_packed_shape *s = &packed->shape;
  gptvq_input_layout layout;
  gptvq_input_measure(s, &layout);
  const size_t dim = input_dim(s);
  int8_t *codes = input;
  void *corrections = codes + layout.corrections;
  float *scales = (float *)(void *)(codes + layout.scales);
  float gathered[GPTVQ_I8_MAX_WIDTH];
  if (s->kind == GPTVQ_PACKED_UNIFORM) memset(codes + s->cols, 0, layout.corrections - s->cols);
  for (size_t g = 0; g < layout.groups; g++, codes += layout.group_codes) {
    size_t first = g * layout.width, width = gptvq_min_size(layout.width, s->cols - first);
    const float *from = x + first;
    if (packed->permutation != NULL) {
      for (size_t c = 0; c < width; c++) gathered[c] = x[packed->permutation[first + c]];
      from = gathered;
    }
    if (s->kind == GPTVQ_PACKED_UNIFORM) {
      scales[g] = GPTVQ_MULTI_PICK(gptvq_quantize_group)(from, width, 1, width, codes);
      ((float *)corrections)[g] = (float)GPTVQ_MULTI_PICK(gptvq_sum_codes)(codes, width);
    } else {
      size_t plane = gptvq_input_plane(width, dim);
      scales[g] = GPTVQ_MULTI_PICK(gptvq_quantize_group)(from, width, dim, plane, codes);
      GPTVQ_MULTI_PICK(gptvq_correct_lanes)
      (codes, dim * plane, (int32_t *)corrections + g * GPTVQ_I8_LANES);
    }
  }
}

/* Of units of a full column group, and of the last one. */
typedef struct plan {
  _Alignas(64) unsigned char bytes[GPTVQ_I8_PLAN_BYTES];
} plan;

static void make_plans(const gptvq_packed_shape *s, size_t groups, plan plans[2]) {
  void (*make)(unsigned, size_t, void *) = gptvq_kernels(gptvq_cpu())->i8_plan;
  if (make == NULL) return;
  make(s->index_bits, gptvq_unit_indices(s, 0), &plans[0]);
  make(s->index_bits, gptvq_unit_indices(s, groups - 1), &plans[1]);
}

typedef struct product {
  const gptvq_input_layout *layout;
  void (*run)(const gptvq_i8_tile *);
  void (*fold)(const float *sums, size_t n, float *out);
  gptvq_i8_tile job;
  const plan *plans;
  const int8_t *input; /* of the first token of this pass */
  float *sums, *y;     /* y of the first token of this pass */
  size_t begin, ldy;
} product;

static void multiply_tile(void *context, const gptvq_tile *tile) {
  product *p = context;
  const gptvq_input_layout *layout = p->layout;
  gptvq_i8_tile *job = &p->job;
  float scales[GPTVQ_I8_MAX_TOKENS];
  size_t values = tile->rows * job->tokens;
  if (tile->group == 0) memset(p->sums, 0, values * GPTVQ_I8_LANES * sizeof *p->sums);
  float scale = tile->scale / 127.0f;
  const int8_t *x_scales = p->input + layout->scales + tile->group * sizeof(float);
  for (size_t t = 0; t < job->tokens; t++)
    scales[t] = scale * *(const float *)(const void *)(x_scales + t * job->input_stride);
  job->tile = tile;
  job->plan = &p->plans[tile->is_last];
  job->sets = gptvq_ceil_div(tile->indices, GPTVQ_I8_SET);
  job->scales = scales;
  job->sums = p->sums;
  job->x = p->input + tile->group * layout->group_codes;
  job->correction =
      (const int32_t *)(const void *)(p->input + layout->corrections) + tile->group * GPTVQ_I8_LANES;
  p->run(job);
  if (!tile->is_last) return;
  float *y = p->y + (tile->row - p->begin);
  if (job->tokens == 1) {
    p->fold(p->sums, tile->rows, y);
    return;
  }
  float folded[MAX_ROWS];
  p->fold(p->sums, values, folded);
  for (size_t r = 0; r < tile->rows; r++)
    for (size_t t = 0; t < job->tokens; t++) y[t * p->ldy + r] = folded[r * job->tokens + t];
}

/* The rows [begin, end) of one token by whole stripes, each by `run`. */
static void multiply_token_stripes(gptvq_i8_stripe_fn run, const gptvq_packed *packed,
                                   const gptvq_input_layout *layout, const plan plans[2], const int8_t *input,
                                   size_t begin, size_t end, float *y) {
  const gptvq_packed_shape *s = &packed->shape;
  const size_t unit_bytes = gptvq_unit_bytes(s, 0), last_bytes = gptvq_unit_bytes(s, layout->groups - 1),
               row_bytes = (layout->groups - 1) * unit_bytes + last_bytes,
               codebook_bytes = layout->groups * s->dim << s->index_bits;
  gptvq_i8_stripe job = {.groups = layout->groups,
                         .width = layout->width,
                         .last_width = gptvq_packed_width(s, layout->groups - 1),
                         .plan = plans,
                         .last_plan = plans + 1,
                         .x = input,
                         .group_codes = layout->group_codes};
  job.corrections = (const int32_t *)(const void *)(input + layout->corrections);
  job.x_scales = (const float *)(const void *)(input + layout->scales);
  size_t stripe = begin / s->group_rows, first = stripe * s->group_rows;
  const uint8_t *units = packed->indices + first * row_bytes;
  job.codebook = (const int8_t *)packed->codebooks + stripe * codebook_bytes;
  job.codebook_scales = packed->codebook_scales + stripe * layout->groups;
  for (size_t row = begin; row < end; row += job.rows) {
    if (row - first >= s->group_rows) {
      first += s->group_rows;
      units += s->group_rows * row_bytes;
      job.codebook += codebook_bytes;
      job.codebook_scales += layout->groups;
    }
    const size_t height = gptvq_min_size(s->group_rows, s->rows - first);
    job.rows = gptvq_min_size(GPTVQ_I8_STRIPE_ROWS, gptvq_min_size(first + height, end) - row);
    job.unit_step = height * unit_bytes;
    job.units = units + (row - first) * unit_bytes;
    job.last_units = units + (layout->groups - 1) * job.unit_step + (row - first) * last_bytes;
    job.y = y + (row - begin);
    run(&job);
  }
}

/* false: this level has no such kernel for the shape */
static bool multiply_stripes(const gptvq_packed *packed, const gptvq_input_layout *layout,
                             const plan plans[2], const int8_t *inputs, size_t count, size_t begin,
                             size_t end, float *y, size_t ldy) {
  gptvq_i8_stripe_fn (*const choose)(const gptvq_packed_shape *) = gptvq_kernels(gptvq_cpu())->i8_stripe;
  const gptvq_i8_stripe_fn run = choose == NULL ? NULL : choose(&packed->shape);
  if (run == NULL) return false;
  for (size_t t = 0; t < count; t++)
    multiply_token_stripes(run, packed, layout, plans, inputs + t * layout->bytes, begin, end, y + t * ldy);
  return true;
}

static void point_at_token(gptvq_uniform_row *row, const gptvq_input_layout *layout, const int8_t *input) {
  row->x = input;
  row->x_sums = (const float *)(const void *)(input + layout->corrections);
  row->x_scales = (const float *)(const void *)(input + layout->scales);
}

static void multiply_uniform(const gptvq_packed *packed, const gptvq_input_layout *layout,
                             const int8_t *inputs, size_t count, size_t begin, size_t end, float *y,
                             size_t ldy) {
  const gptvq_packed_shape *s = &packed->shape;
  const gptvq_kernel_table *table = gptvq_kernels(gptvq_cpu());
  const bool in_parts = gptvq_uniform_in_parts(s);
  const size_t unit_bytes = gptvq_unit_bytes(s, 0), padded = gptvq_round_up(s->cols, GPTVQ_I8_SET);
  gptvq_uniform_rows all = {.row = {.bits = s->index_bits,
                                    .field = in_parts ? s->index_bits : 8,
                                    .bytes = in_parts ? unit_bytes : padded,
                                    .block = s->scale_block,
                                    .blocks = layout->groups,
                                    .unit = packed->indices + begin * unit_bytes,
                                    .scales = packed->scales + begin * layout->groups,
                                    .zeros = packed->zeros,
                                    .zero_count = gptvq_round_up(s->rows * layout->groups, 8),
                                    .zero_at = begin * layout->groups},
                            .rows = end - begin,
                            .indices = gptvq_unit_indices(s, 0),
                            .unit_bytes = unit_bytes};
  size_t token = 0;
  for (; token < count && table->uniform_rows != NULL; token++) {
    point_at_token(&all.row, layout, inputs + token * layout->bytes);
    all.y = y + token * ldy;
    if (!table->uniform_rows(&all)) break;
  }
  if (token == count) return;
  gptvq_uniform_row job = all.row;
  uint8_t codes[GPTVQ_UNIFORM_MAX_COLS];
  if (!in_parts) memset(codes + padded - GPTVQ_I8_SET, 0, GPTVQ_I8_SET); /* what is not unpacked */
  for (size_t row = begin; row < end; row++) {
    job.unit = packed->indices + row * unit_bytes;
    if (!in_parts) {
      table->unpack_bytes(job.unit, all.indices, s->index_bits, codes);
      job.unit = codes;
    }
    job.scales = packed->scales + row * layout->groups;
    job.zero_at = row * layout->groups;
    for (size_t t = 0; t < count; t++) {
      point_at_token(&job, layout, inputs + t * layout->bytes);
      y[t * ldy + row - begin] = table->uniform_row(&job);
    }
  }
}

static void multiply_trellis(const gptvq_packed *packed, const gptvq_input_layout *layout,
                             const int8_t *inputs, size_t count, size_t begin, size_t end, float *y,
                             size_t ldy) {
  const gptvq_packed_shape *s = &packed->shape;
  gptvq_trellis_rows job = {.index_bits = s->index_bits,
                            .rows = end - begin,
                            .row_bytes = gptvq_trellis_row_bytes(s),
                            .groups = layout->groups,
                            .width = layout->width,
                            .last_width = gptvq_packed_width(s, layout->groups - 1),
                            .tables = packed->codebooks,
                            .table_scales = packed->codebook_scales,
                            .row_scales = packed->row_scales + begin * layout->groups,
                            .input_stride = layout->bytes,
                            .group_codes = layout->group_codes,
                            .ldy = ldy};
  job.streams = packed->indices + begin * job.row_bytes;
  job.end = packed->indices + s->rows * job.row_bytes;
  for (size_t token = 0; token < count; token += job.tokens) {
    job.tokens = gptvq_min_size(GPTVQ_I8_MAX_TOKENS, count - token);
    job.x = inputs + token * layout->bytes;
    job.corrections = (const int32_t *)(const void *)(job.x + layout->corrections);
    job.x_scales = (const float *)(const void *)(job.x + layout->scales);
    job.y = y + token * ldy;
    gptvq_kernels(gptvq_cpu())->trellis_rows(&job);
  }
}

void gptvq_packed_matmul_i8(const gptvq_packed *packed, const void *inputs, size_t count, size_t begin,
                            size_t end, float *y, size_t ldy) {
  const gptvq_packed_shape *s = &packed->shape;
  _Alignas(64) float sums[SUMS];
  float block_table[16];
  gptvq_input_layout layout;
  gptvq_input_measure(s, &layout);
  if (s->kind == GPTVQ_PACKED_UNIFORM) {
    multiply_uniform(packed, &layout, inputs, count, begin, end, y, ldy);
    return;
  }
  if (s->kind == GPTVQ_PACKED_TRELLIS) {
    multiply_trellis(packed, &layout, inputs, count, begin, end, y, ldy);
    return;
  }
  plan plans[2];
  make_plans(s, layout.groups, plans);
  const bool alone =
      count == 1 ||
      (count <= 4 && s->group_rows == 1); /* tiles of one row are too small to be shared by few tokens */
  if (alone && s->group_rows <= 16 &&
      multiply_stripes(packed, &layout, plans, inputs, count, begin, end, y, ldy))
    return;
  gptvq_block_scale_table(packed, block_table);
  product p = {.layout = &layout,
               .plans = plans,
               .run = gptvq_kernels(gptvq_cpu())->i8_tile,
               .fold = gptvq_kernels(gptvq_cpu())->i8_fold,
               .sums = sums,
               .begin = begin,
               .ldy = ldy,
               .job = {.input_stride = layout.bytes,
                       .block_vectors = s->scale_block / s->dim,
                       .block_table = block_table}};
  for (size_t token = 0; token < count; token += p.job.tokens) {
    p.job.tokens = gptvq_min_size(GPTVQ_I8_MAX_TOKENS, count - token);
    p.input = (const int8_t *)inputs + token * layout.bytes;
    p.y = y + token * ldy;
    gptvq_walk_tiles(packed, begin, end, MAX_ROWS / p.job.tokens, multiply_tile, &p);
  }
}

void gptvq_packed_matvec_i8(const gptvq_packed *packed, const void *input, size_t begin, size_t end,
                            float *y) {
  gptvq_packed_matmul_i8(packed, input, 1, begin, end, y, 0);
}
