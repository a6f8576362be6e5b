#include "kernels/rows.h"
#include "base/half.h"
#include "base/memory.h"
#include "kernels/multi/row_values.h"
#include "kernels/ref/ref.h"

enum { ROWS = 8, MAX_TABLE = 1024 };

/* One pass: either out (decode) or x and y (matvec) is set. */
typedef struct pass {
  const gptvq_packed *packed;
  size_t begin;
  float *out, *y;
  const float *x;
  size_t stride;
  float block_table[16];
} pass;

static void add(pass *p, size_t row, size_t column, float sum) {
  float *y = p->y + (row - p->begin);
  *y = column == 0 ? sum : *y + sum;
}

/* values of `width` columns of a row, in packed order, to where they belong */
static void finish(pass *p, size_t row, size_t column, size_t width, const float *values) {
  if (p->out == NULL) {
    float sum;
    gptvq_kernels(gptvq_cpu())->dense_matvec[GPTVQ_F32](values, 1, width, p->x + column, &sum);
    add(p, row, column, sum);
    return;
  }
  float *out = p->out + (row - p->begin) * p->stride;
  const uint32_t *permutation = p->packed->permutation;
  if (permutation == NULL) {
    if (values != out + column) memcpy(out + column, values, width * sizeof *out);
  } else {
    for (size_t c = 0; c < width; c++) out[permutation[column + c]] = values[c];
  }
}

static void apply_block_scales(const pass *p, const gptvq_tile *tile, size_t r, float *values) {
  const uint8_t *codes = tile->block_codes + r * tile->block_bytes;
  size_t step = p->packed->shape.scale_block;
  for (size_t c = 0, block = 0; c < tile->width; c += step, block++) GPTVQ_MULTI_PICK(gptvq_multiply)
  (values + c, gptvq_min_size(step, tile->width - c), p->block_table[gptvq_block_code(codes, block)]);
}

static void codes_tile(void *context, const gptvq_tile *tile) {
  pass *p = context;
  int8_t codes[ROWS * GPTVQ_TILE_CODES];
  float values[GPTVQ_TILE_MAX_WIDTH];
  const gptvq_kernel_table *kernels = gptvq_kernels(gptvq_cpu());
  kernels->tile_codes(tile, codes, GPTVQ_TILE_CODES);
  float scale = tile->scale / 127.0f;
  bool in_place = p->out != NULL && p->packed->permutation == NULL;
  for (size_t r = 0; r < tile->rows; r++) {
    const int8_t *row_codes = codes + r * GPTVQ_TILE_CODES;
    size_t row = tile->row + r;
    if (p->out == NULL && tile->block_codes == NULL) {
      float sum;
      kernels->codes_matvec(row_codes, 1, tile->width, p->x + tile->column, &sum);
      add(p, row, tile->column, scale * sum);
      continue;
    }
    float *to = in_place ? p->out + (row - p->begin) * p->stride + tile->column : values;
    GPTVQ_MULTI_PICK(gptvq_scale_codes)(row_codes, tile->width, scale, to);
    if (tile->block_codes != NULL) apply_block_scales(p, tile, r, to);
    finish(p, row, tile->column, tile->width, to);
  }
}

/* inlined with constant dim */
static inline void look_up(const float *table, const uint16_t *indices, size_t n, size_t dim, float *out) {
  for (size_t i = 0; i < n; i++) memcpy(out + i * dim, table + indices[i] * dim, dim * sizeof *out);
}

/* fp16 codebooks: the table as fp32 once per tile, then copies of whole centroids. */
static void halves_tile(void *context, const gptvq_tile *tile) {
  pass *p = context;
  uint16_t indices[GPTVQ_TILE_MAX_WIDTH + 32];
  float values[GPTVQ_TILE_MAX_WIDTH + 32], table[MAX_TABLE];
  const size_t dim = tile->dim, entries = dim << tile->index_bits;
  gptvq_kernels(gptvq_cpu())->to_float[GPTVQ_F16](tile->codebook, entries, table);
  GPTVQ_MULTI_PICK(gptvq_multiply)(table, entries, tile->scale);
  for (size_t r = 0; r < tile->rows; r++) {
    GPTVQ_MULTI_PICK(gptvq_unpack_words)
    (tile->units + r * tile->unit_bytes, tile->indices, tile->index_bits, indices);
    if (dim == 1) look_up(table, indices, tile->indices, 1, values);
    else if (dim == 2) look_up(table, indices, tile->indices, 2, values);
    else look_up(table, indices, tile->indices, 4, values);
    if (tile->block_codes != NULL) apply_block_scales(p, tile, r, values);
    finish(p, tile->row + r, tile->column, tile->width, values);
  }
}

/* Uniform rows: the whole row is one unit, unpacked at once if it is not very long; its scale groups follow
 * each other. */
static void uniform_rows(pass *p, size_t begin, size_t end) {
  const gptvq_packed_shape *s = &p->packed->shape;
  enum { CHUNK = 512 };
  size_t groups = gptvq_ceil_div(s->cols, s->scale_block), n = gptvq_unit_indices(s, 0);
  size_t zero_count = gptvq_round_up(s->rows * groups, 8), unit_bytes = gptvq_unit_bytes(s, 0);
  const bool at_once = n <= GPTVQ_UNIFORM_MAX_COLS;
  uint16_t words[CHUNK], zero;
  uint8_t codes[GPTVQ_UNIFORM_MAX_COLS];
  float values[CHUNK];
  for (size_t row = begin; row < end; row++) {
    const uint8_t *unit = p->packed->indices + row * unit_bytes;
    if (at_once) gptvq_kernels(gptvq_cpu())->unpack_bytes(unit, n, s->index_bits, codes);
    for (size_t g = 0; g < groups; g++) {
      size_t first = g * s->scale_block, last = gptvq_min_size(s->cols, first + s->scale_block);
      gptvq_unpack_range(p->packed->zeros, zero_count, s->index_bits, row * groups + g, 1, &zero);
      float scale = gptvq_fp16_to_float(p->packed->scales[row * groups + g]);
      for (size_t c = first; c < last; c += CHUNK) {
        size_t count = gptvq_min_size(CHUNK, last - c);
        if (!at_once) {
          gptvq_unpack_range(unit, n, s->index_bits, c, count, words);
          for (size_t i = 0; i < count; i++) codes[i] = (uint8_t)words[i];
        }
        GPTVQ_MULTI_PICK(gptvq_scale_uniform)(at_once ? codes + c : codes, count, zero, scale, values);
        finish(p, row, c, count, values);
      }
    }
  }
}

/* The value is (code · table scale / 127) · row scale, each rounded, as the scalar kernels have it. */
static void trellis_rows(pass *p, size_t begin, size_t end) {
  const gptvq_packed_shape *s = &p->packed->shape;
  size_t groups = gptvq_ceil_div(s->cols, s->group_cols), row_bytes = gptvq_trellis_row_bytes(s);
  int8_t codes[GPTVQ_TILE_CODES + 64];
  float values[GPTVQ_TILE_MAX_WIDTH];
  for (size_t row = begin; row < end; row++)
    for (size_t g = 0; g < groups; g++) {
      size_t first = g * s->group_cols, width = gptvq_packed_width(s, g);
      gptvq_kernels(gptvq_cpu())
          ->trellis_codes(p->packed->indices + row * row_bytes, s->index_bits, first, width,
                          (const int8_t *)p->packed->codebooks + g * GPTVQ_TRELLIS_TABLE, codes);
      GPTVQ_MULTI_PICK(gptvq_scale_codes)
      (codes, width, gptvq_bf16_to_float(p->packed->codebook_scales[g]) / 127.0f, values);
      GPTVQ_MULTI_PICK(gptvq_multiply)
      (values, width, gptvq_row_scale(p->packed->row_scales[row * groups + g]));
      finish(p, row, first, width, values);
    }
}

/* false: not covered here */
static bool run(pass *p, size_t begin, size_t end) {
  const gptvq_packed_shape *s = &p->packed->shape;
  if (s->kind == GPTVQ_PACKED_UNIFORM) {
    uniform_rows(p, begin, end);
    return true;
  }
  if (gptvq_min_size(s->group_cols, s->cols) > GPTVQ_TILE_MAX_WIDTH) return false;
  if (s->kind == GPTVQ_PACKED_TRELLIS) {
    trellis_rows(p, begin, end);
    return true;
  }
  if (s->codebook_bits == 16 && (size_t)s->dim << s->index_bits > MAX_TABLE) return false;
  gptvq_block_scale_table(p->packed, p->block_table);
  gptvq_walk_tiles(p->packed, begin, end, ROWS, s->codebook_bits == 8 ? codes_tile : halves_tile, p);
  return true;
}

static void rows_decode(const gptvq_packed *packed, size_t begin, size_t end, float *out, size_t stride) {
  pass p = {.packed = packed, .begin = begin, .out = out, .stride = stride};
  if (!run(&p, begin, end)) gptvq_packed_decode_scalar(packed, begin, end, out, stride);
}

static void rows_matvec(const gptvq_packed *packed, size_t begin, size_t end, const float *x, float *y) {
  pass p = {.packed = packed, .begin = begin, .x = x, .y = y};
  if (!run(&p, begin, end)) gptvq_packed_matvec_scalar(packed, begin, end, x, y);
}

void gptvq_kernels_init_rows(gptvq_kernel_table *table) {
  table->packed_decode = rows_decode;
  table->packed_matvec = rows_matvec;
}
