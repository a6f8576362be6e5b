/* Codebook update: matrices of stripes that are kept between the updates of a layer. Few sub-vectors move in
 * between. One that goes from centroid a to c changes N by (e_c − e_a) rᵀ and the transpose of that, with r
 * its rows of H + ridge times the row's decoding, the sub-vector itself half at a, half at c: one addition
 * per entry of these rows of H. The sub-vectors of a row move one after the other.
 *
 * Rounding: a number of N is then the sum of the terms that forming it anew would add up and of those that
 * came and went, each twice; where a diagonal number falls to a small part of what it was at most, the matrix
 * is formed anew, so that nothing is left over from much larger numbers. */
#include "base/memory.h"
#include "quant/layer/normal.h"
#include "quant/layer/system.h"

#include <string.h>

/* Following takes less than forming anew where no more than one in MOVED sub-vectors moved. A diagonal number
 * may fall to 1 / FALLEN. */
enum { MOVED = 16, FALLEN = 16 };

size_t gptvq_system_floats(const gptvq_vq *q) {
  const size_t values = q->k * q->dim;
  return gptvq_saturated_size(q->groups * (q->groups + 1) / 2, gptvq_saturated_size(values, values));
}

static size_t stripe_values(const gptvq_vq *q) { return q->groups * q->k * q->dim; }
static size_t stripe_indices(const gptvq_vq *q) {
  return gptvq_min_size(q->shape.group_rows, q->all_rows) * q->blocks;
}

/* Kept stripes before one of the part's: they are spread over the whole layer. */
static size_t kept_before(const gptvq_vq *q, size_t stripe) {
  const size_t all = gptvq_ceil_div(q->all_rows, q->shape.group_rows);
  return (q->first_row / q->shape.group_rows + stripe) * q->kept.count / all;
}
static size_t slot_of(const gptvq_vq *q, size_t stripe) { return kept_before(q, stripe) - kept_before(q, 0); }

void gptvq_vq_keep_systems(gptvq_arena *arena, gptvq_vq *q, size_t bytes) {
  const size_t floats = gptvq_system_floats(q), all = gptvq_ceil_div(q->all_rows, q->shape.group_rows),
               one = gptvq_saturated_sum(gptvq_saturated_size(floats, sizeof(float)),
                                         stripe_values(q) * sizeof(float) +
                                             stripe_indices(q) * sizeof(uint16_t));
  q->kept = (gptvq_kept_systems){.count = gptvq_min_size(all, bytes / one)};
  const size_t here = slot_of(q, q->stripes);
  q->kept.matrices = gptvq_arena_take(arena, here, gptvq_saturated_size(floats, sizeof(float)));
  q->kept.largest = gptvq_arena_take(arena, here, stripe_values(q) * sizeof(float));
  q->kept.index = gptvq_arena_take(arena, here, stripe_indices(q) * sizeof(uint16_t));
}

float *gptvq_kept_system(const gptvq_vq *q, size_t stripe) {
  if (kept_before(q, stripe) == kept_before(q, stripe + 1)) return NULL;
  return q->kept.matrices + slot_of(q, stripe) * gptvq_system_floats(q);
}

/* The assignment of a kept matrix, from the stripe's first row on. */
static uint16_t *kept_index(const gptvq_vq *q, size_t stripe) {
  return q->kept.index + slot_of(q, stripe) * stripe_indices(q);
}

/* Notes what the diagonal is at most. false: a number of it has fallen too far. */
static bool check_diagonal(const gptvq_vq *q, size_t stripe) {
  const size_t values = q->k * q->dim;
  float *matrix = gptvq_kept_system(q, stripe),
        *largest = q->kept.largest + slot_of(q, stripe) * stripe_values(q);
  for (size_t g = 0; g < q->groups; g++, largest += values) {
    const float *block = gptvq_system_block(q, matrix, g, g);
    for (size_t v = 0; v < values; v++) {
      const float now = block[v * values + v];
      if (now < largest[v] / FALLEN) return false;
      if (now > largest[v]) largest[v] = now;
    }
  }
  return true;
}

void gptvq_system_formed(const gptvq_vq *q, size_t stripe) {
  const size_t first = gptvq_stripe_begin(q, stripe), rows = gptvq_stripe_end(q, stripe) - first;
  memcpy(kept_index(q, stripe), q->index + first * q->blocks, rows * q->blocks * sizeof *q->index);
  memset(q->kept.largest + slot_of(q, stripe) * stripe_values(q), 0, stripe_values(q) * sizeof(float));
  (void)check_diagonal(q, stripe);
}

typedef struct move {
  size_t group, block;
  size_t from, to;    /* the first of the dim values of these centroids in their codebook */
  const float *scale; /* [blocks] of the row */
  const uint16_t *index;
  float *r; /* [groups][k][dim of the sub-vector][dim] */
} move;

/* m->r, above */
static void make_rows(const gptvq_vq *q, const move *m) {
  const size_t d = q->dim, n = q->padded, floats = q->k * d * d;
  const float *h = q->factor->h + m->block * d * n, own = m->scale[m->block];
  memset(m->r, 0, q->groups * floats * sizeof *m->r);
  for (size_t g = 0; g < q->groups; g++) {
    const size_t start = q->group[g].start, first = start / d;
    GPTVQ_MULTI_PICK(gptvq_normal_row)
    (d, q->group[g].width / d, m->index + first, m->scale + first, h + start, n, m->r + g * floats);
  }
  for (size_t v = 0; v < q->groups * floats; v++) m->r[v] *= own;
  float *to = m->r + m->group * floats + m->to * d, *from = m->r + m->group * floats + m->from * d;
  for (size_t i = 0; i < d; i++)
    for (size_t j = 0; j < d; j++) {
      const float ridge = i == j ? (float)gptvq_factor_ridge(q->factor, m->block * d + i) : 0.0f,
                  half = 0.5f * (h[i * n + m->block * d + j] + ridge);
      from[i * d + j] += own * own * (ridge - half);
      to[i * d + j] += own * own * half;
    }
}

static inline __attribute__((always_inline)) void add_rows(size_t d, const gptvq_vq *q, const move *m,
                                                           float *matrix) {
  const size_t values = q->k * d;
  const float *r = m->r;
  for (size_t g = 0; g < q->groups; g++, r += values * d) {
    if (g >= m->group) {
      float *block = gptvq_system_block(q, matrix, m->group, g), *to = block + m->to * values,
            *from = block + m->from * values;
      for (size_t c = 0; c < q->k; c++)
        for (size_t i = 0; i < d; i++)
          for (size_t j = 0; j < d; j++) {
            to[i * values + c * d + j] += r[(c * d + i) * d + j];
            from[i * values + c * d + j] -= r[(c * d + i) * d + j];
          }
    }
    if (g <= m->group) {
      float *block = gptvq_system_block(q, matrix, g, m->group);
      for (size_t c = 0; c < q->k; c++)
        for (size_t j = 0; j < d; j++, block += values)
          for (size_t i = 0; i < d; i++) {
            block[m->to + i] += r[(c * d + i) * d + j];
            block[m->from + i] -= r[(c * d + i) * d + j];
          }
    }
  }
}

size_t gptvq_follow_floats(const gptvq_vq *q) { return q->blocks + q->dim * stripe_values(q); }

static void follow_row(const gptvq_vq *q, size_t row, uint16_t *index, float *scratch, float *matrix) {
  const uint16_t *now = q->index + row * q->blocks;
  const size_t d = q->dim;
  if (memcmp(index, now, q->blocks * sizeof *now) == 0) return;
  for (size_t b = 0; b < q->blocks; b++) scratch[b] = gptvq_vq_scale(q, row, b);
  move m = {.scale = scratch, .index = index, .r = scratch + q->blocks};
  for (m.group = 0; m.group < q->groups; m.group++) {
    const gptvq_group *group = &q->group[m.group];
    for (m.block = group->start / d; m.block < (group->start + group->width) / d; m.block++) {
      if (index[m.block] == now[m.block]) continue;
      m.from = index[m.block] * d;
      m.to = now[m.block] * d;
      make_rows(q, &m);
      if (d == 1) add_rows(1, q, &m, matrix);
      else if (d == 2) add_rows(2, q, &m, matrix);
      else add_rows(4, q, &m, matrix);
      index[m.block] = now[m.block];
    }
  }
}

bool gptvq_system_follow(const gptvq_vq *q, size_t stripe, float *scratch) {
  const size_t first = gptvq_stripe_begin(q, stripe), rows = gptvq_stripe_end(q, stripe) - first;
  uint16_t *index = kept_index(q, stripe);
  const uint16_t *now = q->index + first * q->blocks;
  size_t moved = 0;
  for (size_t i = 0; i < rows * q->blocks; i++) moved += index[i] != now[i];
  if (moved * MOVED > rows * q->blocks) return false;
  float *matrix = gptvq_kept_system(q, stripe);
  for (size_t row = 0; row < rows; row++)
    follow_row(q, first + row, index + row * q->blocks, scratch, matrix);
  return check_diagonal(q, stripe);
}
