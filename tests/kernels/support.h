/* Shared by the kernel tests: CPU levels of this machine, guard-paged buffers, random packed layers. */
#ifndef TESTS_KERNELS_SUPPORT_H
#define TESTS_KERNELS_SUPPORT_H

#include "base/cpu.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "kernels/table.h"
#include "packed_fixture.h"

#include <float.h>
#include <gptvq/gptvq.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

static const char *const level_names[] = {"ref", "avx2", "avx512", "amx", "neon", "dotprod"};
enum { LEVELS = sizeof level_names / sizeof level_names[0] };

/* Runs the body once per CPU level of this machine. */
#define FOR_EACH_LEVEL(level) \
  for (int level = 0; level < LEVELS; level++) \
    if (gptvq_set_cpu(level_names[level], NULL) == GPTVQ_OK)

/* `bytes` bytes that end exactly before an unreadable page. */
typedef struct guarded {
  unsigned char *data, *map;
  size_t map_bytes;
} guarded;

static inline guarded guarded_new(size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  guarded g;
  g.map_bytes = gptvq_round_up(bytes, page) + 2 * page;
  g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (g.map == MAP_FAILED) {
    fail_msg("no memory for a test buffer");
    abort();
  }
  mprotect(g.map, page, PROT_NONE);
  mprotect(g.map + g.map_bytes - page, page, PROT_NONE);
  g.data = g.map + g.map_bytes - page - bytes;
  return g;
}
static inline void guarded_free(guarded *g) { munmap(g->map, g->map_bytes); }

static inline guarded guarded_copy(const void *data, size_t bytes) {
  guarded g = guarded_new(bytes);
  if (bytes > 0) memcpy(g.data, data, bytes);
  return g;
}

static inline float random_normal(uint64_t *state) { /* sum of uniforms: near enough to a normal number */
  double sum = -6.0;
  for (int i = 0; i < 12; i++) sum += gptvq_random_unit(state);
  return (float)sum;
}

static inline void fill_random(uint64_t *state, void *data, size_t bytes) {
  unsigned char *p = data;
  for (size_t i = 0; i < bytes; i++) p[i] = (unsigned char)gptvq_random(state);
}

/* A packed layer of random content; every array ends before an unreadable page. */
typedef struct random_layer {
  gptvq_packed packed;
  gptvq_packed_sizes sizes;
  guarded memory[8];
  float range[2];
} random_layer;

static inline void random_layer_new(random_layer *layer, const gptvq_packed_shape *shape, uint64_t *state) {
  gptvq_error err;
  if (gptvq_packed_check(shape, "test", &err) != GPTVQ_OK) fail_msg("%s", err.message);
  memset(layer, 0, sizeof *layer);
  gptvq_packed *p = &layer->packed;
  gptvq_packed_sizes *sizes = &layer->sizes;
  p->shape = *shape;
  gptvq_packed_measure(shape, sizes);
  layer->memory[0] = guarded_new(sizes->index_bytes);
  fill_random(state, layer->memory[0].data, sizes->index_bytes);
  p->indices = layer->memory[0].data;
  if (shape->kind != GPTVQ_PACKED_UNIFORM) {
    layer->memory[1] = guarded_new(sizes->codebook_bytes);
    p->codebooks = layer->memory[1].data;
    for (size_t i = 0; i < sizes->codebook_values; i++) {
      if (shape->codebook_bits == 8) {
        int code = (int)gptvq_random_below(state, 256) - 128; /* both extremes occur */
        ((int8_t *)layer->memory[1].data)[i] = (int8_t)code;
      } else {
        uint16_t h = gptvq_float_to_fp16(random_normal(state) * 0.3f);
        memcpy(layer->memory[1].data + 2 * i, &h, 2);
      }
    }
    if (shape->kind == GPTVQ_PACKED_TRELLIS)
      fixture_trellis_tables((int8_t *)layer->memory[1].data, sizes->column_groups, state);
    layer->memory[2] = guarded_new(sizes->codebook_scales * 2);
    p->codebook_scales = (const uint16_t *)layer->memory[2].data;
    for (size_t i = 0; i < sizes->codebook_scales; i++)
      ((uint16_t *)layer->memory[2].data)[i] = gptvq_float_to_bf16(0.01f + (float)gptvq_random_unit(state));
    if (shape->kind == GPTVQ_PACKED_TRELLIS) {
      layer->memory[3] = guarded_new(sizes->row_scale_bytes);
      for (size_t i = 0; i < sizes->row_scale_bytes; i++)
        layer->memory[3].data[i] =
            gptvq_random_below(state, 16) == 0 ? 0 : (uint8_t)(96 + gptvq_random_below(state, 64));
      p->row_scales = layer->memory[3].data;
    }
    if (shape->scale_block != 0) {
      layer->memory[3] = guarded_new(sizes->block_scale_bytes);
      fill_random(state, layer->memory[3].data, sizes->block_scale_bytes);
      p->block_scales = layer->memory[3].data;
      layer->range[0] = -3.5f + random_normal(state);
      layer->range[1] = 0.1f + 0.3f * (float)gptvq_random_unit(state);
      layer->memory[4] = guarded_copy(layer->range, sizeof layer->range);
      p->block_scale_range = (const float *)layer->memory[4].data;
    }
  } else {
    layer->memory[1] = guarded_new(sizes->uniform_scales * 2);
    for (size_t i = 0; i < sizes->uniform_scales; i++)
      ((uint16_t *)layer->memory[1].data)[i] = gptvq_float_to_fp16(0.01f + (float)gptvq_random_unit(state));
    p->scales = (const uint16_t *)layer->memory[1].data;
    layer->memory[2] = guarded_new(sizes->zero_bytes);
    fill_random(state, layer->memory[2].data, sizes->zero_bytes);
    p->zeros = layer->memory[2].data;
  }
  if (shape->permuted) {
    layer->memory[5] = guarded_new(shape->cols * 4);
    uint32_t *permutation = (uint32_t *)layer->memory[5].data;
    for (size_t i = 0; i < shape->cols; i++) permutation[i] = (uint32_t)i;
    for (size_t i = shape->cols; i > 1; i--) {
      size_t j = gptvq_random_below(state, i);
      uint32_t swap = permutation[i - 1];
      permutation[i - 1] = permutation[j];
      permutation[j] = swap;
    }
    p->permutation = permutation;
  }
}

static inline void random_layer_free(random_layer *layer) {
  for (int i = 0; i < 8; i++)
    if (layer->memory[i].map != NULL) guarded_free(&layer->memory[i]);
}

static inline void print_shape(const gptvq_packed_shape *s, const char *level) {
  print_error("level %s: kind %d, %zu x %zu, dim %u, %u index bits, groups %zu x %zu, codebooks of %u bits, "
              "scales every %u, "
              "permuted %d\n",
              level, (int)s->kind, s->rows, s->cols, s->dim, s->index_bits, s->group_rows, s->group_cols,
              s->codebook_bits, s->scale_block, s->permuted);
}

/* Inputs of layers of known models, and widths that no model has. */
static const size_t model_widths[] = {576,  896,  960,  1024, 1152, 1536, 2048,  2304, 2560,
                                      2880, 3072, 3584, 4864, 5120, 8960, 18944, 40,   1003};
enum { MODEL_WIDTHS = sizeof model_widths / sizeof model_widths[0] };

/* A few rows of such a layer, cut into column groups of at most 256 columns: whole ones and what remains, as
 * the quantizer does it where that is whole sets of 64 columns, or `even`: equally wide but for the last one,
 * as other widths have them, and all widths in older folders. */
static inline gptvq_packed_shape model_vq_shape(size_t cols, unsigned dim, unsigned bits,
                                                unsigned scale_block, bool even) {
  const size_t multiple = scale_block != 0 ? scale_block : 8, groups = gptvq_ceil_div(cols, 256);
  return (gptvq_packed_shape){.kind = GPTVQ_PACKED_VQ,
                              .rows = 11,
                              .cols = cols,
                              .dim = dim,
                              .index_bits = bits,
                              .group_rows = bits % 2 == 0 ? 8 : 4,
                              .group_cols =
                                  even ? gptvq_round_up(gptvq_ceil_div(cols, groups), multiple) : 256,
                              .codebook_bits = 8,
                              .scale_block = scale_block};
}
static inline gptvq_packed_shape model_uniform_shape(size_t cols, unsigned bits, unsigned scale_block) {
  return (gptvq_packed_shape){.kind = GPTVQ_PACKED_UNIFORM,
                              .rows = 11,
                              .cols = cols,
                              .dim = 1,
                              .index_bits = bits,
                              .group_rows = 1,
                              .group_cols = cols,
                              .scale_block = scale_block};
}

/* A random valid shape of up to max_rows x max_cols. */
static inline gptvq_packed_shape random_shape(uint64_t *state, size_t max_rows, size_t max_cols) {
  gptvq_packed_shape s = {.rows = 1 + gptvq_random_below(state, max_rows),
                          .cols = 1 + gptvq_random_below(state, max_cols)};
  s.permuted = gptvq_random_below(state, 3) == 0;
  if (gptvq_random_below(state, 5) == 0) {
    s.kind = GPTVQ_PACKED_UNIFORM;
    s.dim = 1;
    s.index_bits = 1 + (unsigned)gptvq_random_below(state, 8);
    s.group_rows = 1;
    s.group_cols = s.cols;
    s.scale_block = gptvq_random_below(state, 2) ? 128 : 1 + (unsigned)gptvq_random_below(state, 300);
    return s;
  }
  if (gptvq_random_below(state, 4) == 0) {
    static const size_t groups[] = {8, 24, 64, 128, 256, 256, 320, 512, 1024};
    s.kind = GPTVQ_PACKED_TRELLIS;
    s.dim = 1;
    s.index_bits = 2 + (unsigned)gptvq_random_below(state, 3);
    s.group_rows = s.rows;
    s.group_cols = groups[gptvq_random_below(state, 9)];
    s.codebook_bits = 8;
    return s;
  }
  s.kind = GPTVQ_PACKED_VQ;
  s.dim = 1u << gptvq_random_below(state, 3);
  s.index_bits = 1 + (unsigned)gptvq_random_below(state, 12);
  s.codebook_bits = gptvq_random_below(state, 3) ? 8 : 16;
  s.group_rows = 1 + gptvq_random_below(state, s.rows);
  static const size_t widths[] = {8, 16, 24, 64, 128, 256, 256, 256, 512};
  s.group_cols = widths[gptvq_random_below(state, 9)];
  if (gptvq_random_below(state, 8) == 0) s.group_cols = gptvq_round_up(s.cols, 8);
  if (gptvq_random_below(state, 3) == 0) {
    static const unsigned blocks[] = {4, 8, 16, 32, 64, 128};
    unsigned n = blocks[gptvq_random_below(state, 6)];
    if (s.group_cols >= s.cols || s.group_cols % n == 0) s.scale_block = n;
  }
  return s;
}

#endif
