/* Products in tiles with AMX-INT8: 32 rows × 32 tokens in four tiles of sums; each load of a tile serves two
 * products. */
#include "kernels/gemm_tiles.h"
#include "base/memory.h"
#include "base/x86/tiles_amx.h"
#include "base/x86/transpose_avx512.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum {
  SIDE = GPTVQ_TILE_SIDE,
  ROWS = GPTVQ_GEMM_ROWS,
  BYTES = GPTVQ_TILE_BYTES,
  /* Columns of 32 tokens that stay in the first-level cache, 24 KiB, while all rows pass. */
  NEAR = 768
};

/* Tiles 0 … 3 are sums, 4 and 5 weights, 6 and 7 activations. */
static void begin(void) { gptvq_tiles_begin(); }

static void end(void) { _tile_release(); }

/* The int32 products of 16 rows in one segment with 16 or, `wide`, 32 tokens to tiles 0 and 1, or, `odd`, 2
 * and 3. */
GPTVQ_INLINE void multiply_tiles(const int8_t *weights, size_t stride, const int8_t *x, const int8_t *x1,
                                 size_t steps, bool odd, bool wide) {
  if (odd) _tile_zero(2);
  else _tile_zero(0);
  if (wide && odd) _tile_zero(3);
  if (wide && !odd) _tile_zero(1);
  for (size_t i = 0; i < steps; i++) {
    _tile_loadd(4, weights + i * 64, stride);
    _tile_loadd(6, x + i * BYTES, 64);
    if (odd) _tile_dpbssd(2, 4, 6);
    else _tile_dpbssd(0, 4, 6);
    if (!wide) continue;
    _tile_loadd(7, x1 + i * BYTES, 64);
    if (odd) _tile_dpbssd(3, 4, 7);
    else _tile_dpbssd(1, 4, 7);
  }
}

/* sums[16 rows][16 tokens] = fma(products, weight scales · activation scales, sums, or 0 at first) */
GPTVQ_INLINE void add(const int32_t *tile, const float *weight_scales, __m512 x_scales, bool first,
                      float *sums) {
#pragma GCC unroll 16
  for (size_t r = 0; r < SIDE; r++) {
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(weight_scales[r]), x_scales),
                 before = first ? _mm512_setzero_ps() : _mm512_load_ps(sums + r * SIDE);
    _mm512_store_ps(sums + r * SIDE,
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(tile + r * SIDE)), scale, before));
  }
}

/* Adds what lies in tiles 0 and 1, or 2 and 3, to the sums of its rows. */
GPTVQ_INLINE void add_tiles(const float *weight_scales, const float *x_scales, const float *x1_scales,
                            bool first, bool odd, bool wide, float *sums) {
  _Alignas(64) int32_t made[2][SIDE * SIDE];
  if (odd) _tile_stored(2, made[0], 64);
  else _tile_stored(0, made[0], 64);
  if (wide && odd) _tile_stored(3, made[1], 64);
  if (wide && !odd) _tile_stored(1, made[1], 64);
  add(made[0], weight_scales, _mm512_load_ps(x_scales), first, sums);
  if (wide) add(made[1], weight_scales, _mm512_load_ps(x1_scales), first, sums + ROWS * SIDE);
}

/* Segments [from, to) of 16 or, `wide`, 32 tokens, with the 16 or, `tall`, 32 rows from `row` on; sums[16 or
 * 32 tokens / 16][ROWS][16]. The products of 16 rows are begun before those of the 16 rows before them are
 * added: tiles and vectors work at the same time.
 */
GPTVQ_INLINE void block(const gptvq_tiles *job, const int8_t *x, size_t from, size_t to, size_t row,
                        bool tall, bool wide, float *sums) {
  const float *x_scales = (const float *)(const void *)(x + job->x_scales),
              *x1_scales = (const float *)(const void *)(x + job->input_bytes + job->x_scales);
  for (size_t s = from; s < to; s++) {
    const int8_t *codes = x + s * job->steps * BYTES,
                 *weights = job->weights + row * job->stride + s * job->segment;
    const size_t steps = s + 1 < job->segments ? job->steps : job->last_steps;
    const float *scales = job->weight_scales + (row / ROWS * job->segments + s) * ROWS;
    multiply_tiles(weights, job->stride, codes, codes + job->input_bytes, steps, false, wide);
    if (tall && s > from)
      add_tiles(scales - ROWS + SIDE, x_scales + (s - 1) * SIDE, x1_scales + (s - 1) * SIDE, s == 1, true,
                wide, sums + SIDE * SIDE);
    if (tall)
      multiply_tiles(weights + SIDE * job->stride, job->stride, codes, codes + job->input_bytes, steps, true,
                     wide);
    add_tiles(scales, x_scales + s * SIDE, x1_scales + s * SIDE, s == 0, false, wide, sums);
  }
  if (tall)
    add_tiles(job->weight_scales + (row / ROWS * job->segments + to - 1) * ROWS + SIDE,
              x_scales + (to - 1) * SIDE, x1_scales + (to - 1) * SIDE, to == 1, true, wide,
              sums + SIDE * SIDE);
}

/* sums[rows <= 16][16 tokens] to y[tokens <= 16][ldy] */
static void turn(const float *sums, size_t rows, size_t tokens, float *y, size_t ldy) {
  __m512i a[SIDE];
  const __mmask16 mask = (__mmask16)((1u << rows) - 1u);
#pragma GCC unroll 16
  for (size_t r = 0; r < SIDE; r++) a[r] = _mm512_load_si512(sums + r * SIDE);
  gptvq_transpose_16(a);
  if (rows == SIDE && tokens == SIDE) {
#pragma GCC unroll 16
    for (size_t t = 0; t < SIDE; t++) _mm512_storeu_si512(y + t * ldy, a[t]);
    return;
  }
  for (size_t t = 0; t < tokens; t++) _mm512_mask_storeu_epi32(y + t * ldy, mask, a[t]);
}

/* The 32 rows from `row` on and 32 tokens from block b on, or what there is of them. */
static void multiply_block(const gptvq_tiles *job, size_t row, size_t b, size_t from, size_t to) {
  const size_t blocks = gptvq_ceil_div(job->tokens, SIDE), rows = job->rows - row;
  const int8_t *x = job->x + b * job->input_bytes;
  float *sums = job->sums + row * blocks * SIDE + b * ROWS * SIDE;
  const bool tall = rows > SIDE, wide = b + 1 < blocks;
  if (tall && wide) block(job, x, from, to, row, true, true, sums);
  else if (tall) block(job, x, from, to, row, true, false, sums);
  else if (wide) block(job, x, from, to, row, false, true, sums);
  else block(job, x, from, to, row, false, false, sums);
  for (size_t i = b; to == job->segments && i < gptvq_min_size(b + 2, blocks); i++, sums += ROWS * SIDE) {
    const size_t tokens = gptvq_min_size(SIDE, job->tokens - i * SIDE);
    float *y = job->y + i * SIDE * job->ldy + row;
    turn(sums, gptvq_min_size(SIDE, rows), tokens, y, job->ldy);
    if (tall) turn(sums + SIDE * SIDE, gptvq_min_size(SIDE, rows - SIDE), tokens, y + SIDE, job->ldy);
  }
}

static void multiply(const gptvq_tiles *job) {
  const size_t blocks = gptvq_ceil_div(job->tokens, SIDE),
               most = blocks <= 2 ? job->segments : gptvq_max_size(NEAR / job->segment, 1);
  __asm__ volatile("" ::: "memory"); /* gcc does not know that tiles are loaded from memory */
  for (size_t from = 0, to; from < job->segments; from = to) {
    to = gptvq_min_size(from + most, job->segments);
    for (size_t b = 0; b < blocks; b += 2)
      for (size_t row = 0; row < job->rows; row += ROWS) multiply_block(job, row, b, from, to);
  }
}

static uint64_t peak(uint64_t times) {
  begin(); /* all tiles are zero now */
  for (uint64_t i = 0; i < times; i++) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  end();
  return times * 4 * SIDE * SIDE * GPTVQ_TILE_COLUMNS;
}

static const gptvq_tiles_kernel kernel = {begin, end, multiply};

void gptvq_kernels_init_tiles_amx(gptvq_kernel_table *table) {
  table->tiles = &kernel;
  table->i8_peak = peak;
}
