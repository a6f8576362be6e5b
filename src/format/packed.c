#include "format/packed.h"
#include "format/unpack.h"
#include "base/half.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

size_t gptvq_packed_width(const gptvq_packed_shape *shape, size_t g) {
  return gptvq_min_size(shape->group_cols, shape->cols - g * shape->group_cols);
}

size_t gptvq_unit_indices(const gptvq_packed_shape *shape, size_t g) {
  return gptvq_round_up(gptvq_ceil_div(gptvq_packed_width(shape, g), shape->dim), 8);
}

size_t gptvq_unit_bytes(const gptvq_packed_shape *shape, size_t g) {
  return gptvq_unit_indices(shape, g) / 8 * shape->index_bits;
}

static size_t stripe_rows(const gptvq_packed_shape *shape, size_t stripe) {
  return gptvq_min_size(shape->group_rows, shape->rows - stripe * shape->group_rows);
}

/* Units of all column groups but the last have the same size `each`; `row_total` is the sum over one row. */
static size_t unit_place(const gptvq_packed_shape *shape, size_t row, size_t g, size_t each, size_t row_total,
                         size_t this_unit) {
  size_t stripe = row / shape->group_rows, first = stripe * shape->group_rows;
  return first * row_total + stripe_rows(shape, stripe) * g * each + (row - first) * this_unit;
}

static size_t row_index_bytes(const gptvq_packed_shape *shape) {
  if (shape->kind == GPTVQ_PACKED_TRELLIS) return gptvq_trellis_row_bytes(shape);
  size_t groups = gptvq_ceil_div(shape->cols, shape->group_cols);
  return (groups - 1) * gptvq_unit_bytes(shape, 0) + gptvq_unit_bytes(shape, groups - 1);
}

static size_t unit_scale_bytes(const gptvq_packed_shape *shape, size_t g) {
  if (shape->scale_block == 0) return 0;
  return gptvq_ceil_div(gptvq_ceil_div(gptvq_packed_width(shape, g), shape->scale_block), 2);
}

static size_t row_scale_bytes(const gptvq_packed_shape *shape) {
  size_t groups = gptvq_ceil_div(shape->cols, shape->group_cols);
  return (groups - 1) * unit_scale_bytes(shape, 0) + unit_scale_bytes(shape, groups - 1);
}

size_t gptvq_unit_offset(const gptvq_packed_shape *shape, size_t row, size_t g) {
  return unit_place(shape, row, g, gptvq_unit_bytes(shape, 0), row_index_bytes(shape),
                    gptvq_unit_bytes(shape, g));
}

size_t gptvq_block_scale_offset(const gptvq_packed_shape *shape, size_t row, size_t g) {
  return unit_place(shape, row, g, unit_scale_bytes(shape, 0), row_scale_bytes(shape),
                    unit_scale_bytes(shape, g));
}

gptvq_status gptvq_packed_check(const gptvq_packed_shape *s, const char *name, gptvq_error *err) {
  const size_t limit =
      (size_t)1 << 40; /* values; far above any layer, far below overflow of the sums in this file */
  size_t values;
  if (s->rows == 0 || s->cols == 0 || !gptvq_mul(s->rows, s->cols, &values) || values > limit)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: impossible packed shape %zu x %zu", name, s->rows,
                      s->cols);
  if (s->kind == GPTVQ_PACKED_VQ) {
    if (s->dim != 1 && s->dim != 2 && s->dim != 4)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: VQ dimension %u is not 1, 2 or 4", name, s->dim);
    if (s->index_bits < 1 || s->index_bits > 12)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: %u index bits are not in 1 … 12", name, s->index_bits);
    if (s->codebook_bits != 8 && s->codebook_bits != 16)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: codebooks of %u bits are not 8 or 16", name,
                        s->codebook_bits);
    if (s->group_rows == 0 || s->group_rows > s->rows || s->group_cols == 0 ||
        (s->group_cols < s->cols && (s->group_cols % s->dim != 0 || s->group_cols % 8 != 0)) ||
        s->group_cols > limit)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: impossible groups of %zu rows x %zu columns", name,
                        s->group_rows, s->group_cols);
    if (s->scale_block != 0 &&
        (s->scale_block % s->dim != 0 || (s->group_cols < s->cols && s->group_cols % s->scale_block != 0)))
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: block scales every %u columns do not fit the groups",
                        name, s->scale_block);
    size_t codebooks = gptvq_ceil_div(s->rows, s->group_rows) * gptvq_ceil_div(s->cols, s->group_cols);
    if (codebooks > limit >> s->index_bits)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: impossible number of codebooks %zu", name, codebooks);
    if (s->svd_rank > 0 && (s->dim != 1 || s->index_bits > 8 || s->svd_rank > (size_t)1 << s->index_bits ||
                            s->svd_rank > codebooks))
      return gptvq_fail(
          err, GPTVQ_ERROR_FORMAT,
          "%s: codebooks of rank %u are not possible with %zu codebooks of %zu centroids of dimension %u",
          name, s->svd_rank, codebooks, (size_t)1 << s->index_bits, s->dim);
  } else if (s->kind == GPTVQ_PACKED_UNIFORM) {
    if (s->dim != 1 || s->index_bits < 1 || s->index_bits > 8 || s->group_rows != 1 ||
        s->group_cols < s->cols || s->group_cols > limit || s->scale_block == 0 || s->svd_rank != 0)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s: impossible uniform format (%u bits, scales every %u columns)", name,
                        s->index_bits, s->scale_block);
  } else if (s->kind == GPTVQ_PACKED_TRELLIS) {
    if (s->dim != 1 || s->index_bits < 2 || s->index_bits > 4)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s: a trellis of %u bits per weight and dimension %u is not possible (2 to 4, 1)",
                        name, s->index_bits, s->dim);
    if (s->group_rows != s->rows || s->codebook_bits != 8 || s->scale_block != 0 || s->svd_rank != 0 ||
        s->group_cols == 0 || (s->group_cols < s->cols && s->group_cols % 8 != 0) || s->group_cols > limit)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s: impossible trellis format (groups of %zu rows x %zu columns, tables of %u bits)",
                        name, s->group_rows, s->group_cols, s->codebook_bits);
  } else {
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: unknown packed format %d", name, (int)s->kind);
  }
  return GPTVQ_OK;
}

void gptvq_packed_measure(const gptvq_packed_shape *s, gptvq_packed_sizes *sizes) {
  memset(sizes, 0, sizeof *sizes);
  sizes->stripes = gptvq_ceil_div(s->rows, s->group_rows);
  sizes->column_groups = gptvq_ceil_div(s->cols, s->group_cols);
  sizes->index_bytes = s->rows * row_index_bytes(s);
  if (s->kind == GPTVQ_PACKED_VQ) {
    sizes->codebook_scales = sizes->stripes * sizes->column_groups;
    sizes->codebook_values = (sizes->codebook_scales << s->index_bits) * s->dim;
    sizes->codebook_bytes = sizes->codebook_values * s->codebook_bits / 8;
    sizes->block_scale_bytes = s->rows * row_scale_bytes(s);
    sizes->left_bytes = sizes->codebook_scales * s->svd_rank;
    sizes->right_bytes = (size_t)s->svd_rank << s->index_bits;
    sizes->stored_bytes = s->svd_rank > 0
                              ? sizes->left_bytes + sizes->right_bytes + s->svd_rank * sizeof(float)
                              : sizes->codebook_bytes + 2 * sizes->codebook_scales;
    sizes->stored_bytes += sizes->block_scale_bytes + (s->scale_block > 0 ? 2 * sizeof(float) : 0);
  } else if (s->kind == GPTVQ_PACKED_TRELLIS) {
    sizes->codebook_scales = sizes->column_groups;
    sizes->codebook_values = sizes->codebook_bytes = sizes->column_groups * GPTVQ_TRELLIS_TABLE;
    sizes->row_scale_bytes = s->rows * sizes->column_groups;
    sizes->stored_bytes = sizes->codebook_bytes + 2 * sizes->codebook_scales + sizes->row_scale_bytes;
  } else {
    sizes->uniform_scales = s->rows * gptvq_ceil_div(s->cols, s->scale_block);
    sizes->zero_bytes = gptvq_round_up(sizes->uniform_scales, 8) / 8 * s->index_bits;
    sizes->stored_bytes = 2 * sizes->uniform_scales + sizes->zero_bytes;
  }
  sizes->stored_bytes += sizes->index_bytes + (s->permuted ? s->cols * (s->cols <= 65536 ? 2u : 4u) : 0);
}

/* The widths 8, 4, 2, 1 that make up `bits`, in descending order (8 may come once: bits <= 12). */
static size_t split_fields(unsigned bits, unsigned fields[4]) {
  size_t count = 0;
  for (unsigned f = 8; f >= 1; f /= 2)
    if (bits & f) fields[count++] = f;
  return count;
}

void gptvq_pack_unit(const uint16_t *indices, size_t n, unsigned bits, uint8_t *bytes) {
  unsigned fields[4], shift = 0;
  size_t count = split_fields(bits, fields);
  for (size_t field = 0; field < count; field++) {
    unsigned f = fields[field], mask = (1u << f) - 1u;
    size_t size = n / 8 * f;
    for (size_t j = 0; j < size; j++) {
      unsigned byte = 0;
      for (unsigned i = 0; i < 8 / f; i++)
        byte |= ((unsigned)indices[j + i * size] >> shift & mask) << (f * i);
      bytes[j] = (uint8_t)byte;
    }
    bytes += size;
    shift += f;
  }
}

void gptvq_unpack_indices(const uint8_t *bytes, size_t n, unsigned bits, size_t first, size_t count,
                          uint16_t *indices) {
  unsigned fields[4], shift = 0;
  const size_t parts = split_fields(bits, fields);
  memset(indices, 0, count * sizeof *indices);
  for (size_t field = 0; field < parts; field++) {
    const unsigned f = fields[field], mask = (1u << f) - 1u;
    const size_t size = n / 8 * f;
    for (size_t at = 0, run; at < count; at += run) { /* indices at the same bits of bytes that follow */
      const unsigned place = f * (unsigned)((first + at) / size);
      const uint8_t *from = bytes + (first + at) % size;
      const size_t left = size - (first + at) % size;
      run = left < count - at ? left : count - at;
      for (size_t j = 0; j < run; j++)
        indices[at + j] = (uint16_t)(indices[at + j] | ((unsigned)from[j] >> place & mask) << shift);
    }
    bytes += size;
    shift += f;
  }
}

void gptvq_unpack_unit(const uint8_t *bytes, size_t n, unsigned bits, uint16_t *indices) {
  gptvq_unpack_indices(bytes, n, bits, 0, n, indices);
}

/* index of element `at` of a packed unit of n indices */
static unsigned unit_index(const uint8_t *bytes, size_t n, unsigned bits, size_t at) {
  unsigned fields[4], shift = 0, index = 0;
  size_t count = split_fields(bits, fields);
  for (size_t field = 0; field < count; field++) {
    unsigned f = fields[field];
    size_t size = n / 8 * f;
    index |= ((unsigned)bytes[at % size] >> (f * (unsigned)(at / size)) & ((1u << f) - 1u)) << shift;
    bytes += size;
    shift += f;
  }
  return index;
}

static void decode_row_vq(const gptvq_packed *p, size_t row, float *out) {
  const gptvq_packed_shape *s = &p->shape;
  size_t groups = gptvq_ceil_div(s->cols, s->group_cols), k = (size_t)1 << s->index_bits;
  for (size_t g = 0; g < groups; g++) {
    size_t tile = row / s->group_rows * groups + g, width = gptvq_packed_width(s, g),
           n = gptvq_unit_indices(s, g);
    const uint8_t *unit = p->indices + gptvq_unit_offset(s, row, g);
    float scale = gptvq_bf16_to_float(p->codebook_scales[tile]);
    const uint8_t *block_scales =
        s->scale_block ? p->block_scales + gptvq_block_scale_offset(s, row, g) : NULL;
    for (size_t c = 0; c < width; c++) {
      size_t at = (tile * k + unit_index(unit, n, s->index_bits, c / s->dim)) * s->dim + c % s->dim;
      float value = s->codebook_bits == 8 ? (float)((const int8_t *)p->codebooks)[at] * (scale / 127.0f)
                                          : gptvq_fp16_to_float(((const uint16_t *)p->codebooks)[at]) * scale;
      if (block_scales != NULL) {
        size_t block = c / s->scale_block;
        unsigned code = (unsigned)block_scales[block / 2] >> (block % 2 * 4) & 15u;
        value *= exp2f(p->block_scale_range[0] + p->block_scale_range[1] * (float)code);
      }
      size_t column = g * s->group_cols + c;
      out[p->permutation != NULL ? p->permutation[column] : column] = value;
    }
  }
}

static void decode_row_trellis(const gptvq_packed *p, size_t row, float *out) {
  const gptvq_packed_shape *s = &p->shape;
  size_t groups = gptvq_ceil_div(s->cols, s->group_cols);
  const uint8_t *stream = p->indices + row * gptvq_trellis_row_bytes(s);
  for (size_t c = 0; c < s->cols; c++) {
    size_t g = c / s->group_cols;
    uint8_t state;
    gptvq_trellis_states(stream, s->index_bits, c, 1, &state);
    float value = (float)gptvq_trellis_value((const int8_t *)p->codebooks + g * GPTVQ_TRELLIS_TABLE,
                                             s->index_bits, state) *
                  (gptvq_bf16_to_float(p->codebook_scales[g]) / 127.0f);
    out[p->permutation != NULL ? p->permutation[c] : c] =
        value * gptvq_row_scale(p->row_scales[row * groups + g]);
  }
}

static void decode_row_uniform(const gptvq_packed *p, size_t row, float *out) {
  const gptvq_packed_shape *s = &p->shape;
  size_t groups = gptvq_ceil_div(s->cols, s->scale_block), n = gptvq_unit_indices(s, 0);
  size_t zero_count = gptvq_round_up(s->rows * groups, 8);
  const uint8_t *unit = p->indices + gptvq_unit_offset(s, row, 0);
  for (size_t c = 0; c < s->cols; c++) {
    size_t at = row * groups + c / s->scale_block;
    int code = (int)unit_index(unit, n, s->index_bits, c),
        zero = (int)unit_index(p->zeros, zero_count, s->index_bits, at);
    out[p->permutation != NULL ? p->permutation[c] : c] =
        gptvq_fp16_to_float(p->scales[at]) * (float)(code - zero);
  }
}

void gptvq_packed_decode_ref(const gptvq_packed *packed, size_t begin, size_t end, float *out,
                             size_t stride) {
  for (size_t row = begin; row < end; row++, out += stride) {
    if (packed->shape.kind == GPTVQ_PACKED_VQ) decode_row_vq(packed, row, out);
    else if (packed->shape.kind == GPTVQ_PACKED_TRELLIS) decode_row_trellis(packed, row, out);
    else decode_row_uniform(packed, row, out);
  }
}
