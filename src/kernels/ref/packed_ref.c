/* Packed rows: scalar kernels. Same values, bit for bit, as gptvq_packed_decode_ref (packed.c), which defines
 * the format element by element; here a run of indices is unpacked at a time. */
#include "base/half.h"
#include "base/memory.h"
#include "kernels/ref/ref.h"

enum { CHUNK = 256 }; /* indices unpacked at a time */

void gptvq_unpack_range(const uint8_t *unit, size_t n, unsigned bits, size_t begin, size_t count,
                        uint16_t *indices) {
  memset(indices, 0, count * sizeof *indices);
  unsigned shift = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    size_t size = n / 8 * f, at = begin % size, part = begin / size;
    unsigned mask = (1u << f) - 1u;
    for (size_t i = 0; i < count; part++, at = 0) {
      size_t run = gptvq_min_size(size - at, count - i);
      for (size_t j = 0; j < run; j++)
        indices[i + j] =
            (uint16_t)(indices[i + j] | ((unsigned)unit[at + j] >> (f * (unsigned)part) & mask) << shift);
      i += run;
    }
    unit += size;
    shift += f;
  }
}

/* A part of one unit: `count` values from column `column` of the packed row on. */
typedef void (*emit_fn)(void *context, const gptvq_packed *packed, size_t column, size_t count,
                        const float *values);

static void vq_values(const gptvq_packed *p, const uint16_t *indices, size_t tile, size_t count, float *out) {
  const size_t dim = p->shape.dim, base = (tile << p->shape.index_bits) * dim;
  float scale = gptvq_bf16_to_float(p->codebook_scales[tile]);
  if (p->shape.codebook_bits == 8) {
    const int8_t *codes = (const int8_t *)p->codebooks + base;
    float unit_scale = scale / 127.0f;
    for (size_t i = 0; i < count; i++)
      for (size_t e = 0; e < dim; e++) out[i * dim + e] = (float)codes[indices[i] * dim + e] * unit_scale;
  } else {
    const char *numbers = (const char *)p->codebooks + base * 2;
    for (size_t i = 0; i < count; i++)
      for (size_t e = 0; e < dim; e++) {
        uint16_t h;
        memcpy(&h, numbers + (indices[i] * dim + e) * 2, 2);
        out[i * dim + e] = gptvq_fp16_to_float(h) * scale;
      }
  }
}

static void vq_row(const gptvq_packed *p, size_t row, const float *block_table, emit_fn emit, void *context) {
  const gptvq_packed_shape *s = &p->shape;
  size_t groups = gptvq_ceil_div(s->cols, s->group_cols);
  uint16_t indices[CHUNK];
  float values[CHUNK * 4];
  for (size_t g = 0; g < groups; g++) {
    size_t tile = row / s->group_rows * groups + g, width = gptvq_packed_width(s, g),
           n = gptvq_unit_indices(s, g);
    const uint8_t *unit = p->indices + gptvq_unit_offset(s, row, g);
    const uint8_t *codes = s->scale_block ? p->block_scales + gptvq_block_scale_offset(s, row, g) : NULL;
    for (size_t first = 0; first * s->dim < width; first += CHUNK) {
      size_t column = first * s->dim, count = gptvq_min_size(width - column, CHUNK * s->dim);
      size_t vectors = gptvq_ceil_div(count, s->dim);
      gptvq_unpack_range(unit, n, s->index_bits, first, vectors, indices);
      vq_values(p, indices, tile, vectors, values);
      for (size_t i = 0; codes != NULL && i < count; i++) {
        size_t block = (column + i) / s->scale_block;
        values[i] *= block_table[codes[block / 2] >> (block % 2 * 4) & 15];
      }
      emit(context, p, g * s->group_cols + column, count, values);
    }
  }
}

static void uniform_row(const gptvq_packed *p, size_t row, emit_fn emit, void *context) {
  const gptvq_packed_shape *s = &p->shape;
  size_t groups = gptvq_ceil_div(s->cols, s->scale_block), n = gptvq_unit_indices(s, 0);
  size_t zero_count = gptvq_round_up(s->rows * groups, 8);
  const uint8_t *unit = p->indices + gptvq_unit_offset(s, row, 0);
  uint16_t indices[CHUNK];
  float values[CHUNK];
  for (size_t g = 0; g < groups; g++) {
    size_t begin = g * s->scale_block, end = gptvq_min_size(s->cols, begin + s->scale_block);
    uint16_t zero;
    gptvq_unpack_range(p->zeros, zero_count, s->index_bits, row * groups + g, 1, &zero);
    float scale = gptvq_fp16_to_float(p->scales[row * groups + g]);
    for (size_t c = begin; c < end; c += CHUNK) {
      size_t count = gptvq_min_size(CHUNK, end - c);
      gptvq_unpack_range(unit, n, s->index_bits, c, count, indices);
      for (size_t i = 0; i < count; i++) values[i] = scale * (float)((int)indices[i] - (int)zero);
      emit(context, p, c, count, values);
    }
  }
}

static void trellis_row(const gptvq_packed *p, size_t row, emit_fn emit, void *context) {
  const gptvq_packed_shape *s = &p->shape;
  size_t groups = gptvq_ceil_div(s->cols, s->group_cols);
  const uint8_t *stream = p->indices + row * gptvq_trellis_row_bytes(s);
  int8_t codes[CHUNK];
  float values[CHUNK];
  for (size_t g = 0; g < groups; g++) {
    size_t begin = g * s->group_cols, end = begin + gptvq_packed_width(s, g);
    float scale = gptvq_bf16_to_float(p->codebook_scales[g]) / 127.0f,
          row_scale = gptvq_row_scale(p->row_scales[row * groups + g]);
    for (size_t c = begin; c < end; c += CHUNK) {
      size_t count = gptvq_min_size(CHUNK, end - c);
      gptvq_trellis_codes_ref(stream, s->index_bits, c, count,
                              (const int8_t *)p->codebooks + g * GPTVQ_TRELLIS_TABLE, codes);
      for (size_t i = 0; i < count; i++) values[i] = (float)codes[i] * scale * row_scale;
      emit(context, p, c, count, values);
    }
  }
}

static void each_row(const gptvq_packed *p, size_t row, const float *block_table, emit_fn emit,
                     void *context) {
  if (p->shape.kind == GPTVQ_PACKED_VQ) vq_row(p, row, block_table, emit, context);
  else if (p->shape.kind == GPTVQ_PACKED_TRELLIS) trellis_row(p, row, emit, context);
  else uniform_row(p, row, emit, context);
}

static void emit_decoded(void *context, const gptvq_packed *p, size_t column, size_t count,
                         const float *values) {
  float *out = context;
  if (p->permutation == NULL) memcpy(out + column, values, count * sizeof *out);
  else
    for (size_t i = 0; i < count; i++) out[p->permutation[column + i]] = values[i];
}

void gptvq_packed_decode_scalar(const gptvq_packed *packed, size_t begin, size_t end, float *out,
                                size_t stride) {
  float block_table[16];
  gptvq_block_scale_table(packed, block_table);
  for (size_t row = begin; row < end; row++, out += stride)
    each_row(packed, row, block_table, emit_decoded, out);
}

typedef struct product {
  const float *x;
  double sum;
} product;

static void emit_product(void *context, const gptvq_packed *p, size_t column, size_t count,
                         const float *values) {
  (void)p;
  product *dot = context;
  for (size_t i = 0; i < count; i++) dot->sum += (double)values[i] * (double)dot->x[column + i];
}

void gptvq_packed_matvec_scalar(const gptvq_packed *packed, size_t begin, size_t end, const float *x,
                                float *y) {
  float block_table[16];
  gptvq_block_scale_table(packed, block_table);
  for (size_t row = begin; row < end; row++) {
    product dot = {x, 0.0};
    each_row(packed, row, block_table, emit_product, &dot);
    y[row - begin] = (float)dot.sum;
  }
}
