#include "quant/plan/outside.h"

#include "base/memory.h"
#include "calib/hessian.h"
#include "quant/layer/solver.h"

#include <math.h>

enum {
  GROUP = 64,
  SLAB_VALUES = 1 << 22,
  SLAB_ROWS = 256,
  TRELLIS_BITS = 4,
  TRELLIS_VALUES = 1 << 28,
  TOKENS_A_COLUMN = 28
};

gptvq_status gptvq_outside_bits_of(const gptvq_model *model, const gptvq_quantize_options *options,
                                   gptvq_outside_bits *bits, gptvq_error *err) {
  const unsigned embedding = options->embedding_bits != 0 ? options->embedding_bits : 16,
                 head = options->head_bits != 0 ? options->head_bits : 16;
  *bits = (gptvq_outside_bits){embedding, head};
  if (!model->config.tie_embeddings) return GPTVQ_OK;
  if (embedding != head && embedding != 16 && head != 16)
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "`embedding_bits` %u and `head_bits` %u: embedding and output head of this model are one "
        "matrix: give the same for both, or one of the two",
        embedding, head);
  *bits = (gptvq_outside_bits){embedding != 16 ? embedding : head, 16};
  return GPTVQ_OK;
}

/* A head of its own, or the matrix that is both. */
static unsigned head_bits(const gptvq_model *model, const gptvq_outside_bits *bits) {
  return model->config.tie_embeddings ? bits->embedding : bits->head;
}

bool gptvq_outside_packs_head(const gptvq_model *model, const gptvq_outside_bits *bits) {
  return head_bits(model, bits) != 16;
}

bool gptvq_outside_uses_hessian(const gptvq_model *model, const gptvq_quantize_options *options,
                                const gptvq_outside_bits *bits) {
  const bool data = options->method == GPTVQ_METHOD_GPTVQ || options->method == GPTVQ_METHOD_GPTQ;
  return data && head_bits(model, bits) < 8;
}

size_t gptvq_outside_windows(const gptvq_model *model, size_t windows, size_t length) {
  const size_t wanted = gptvq_ceil_div(TOKENS_A_COLUMN * model->config.hidden, gptvq_max_size(1, length)),
               groups = gptvq_max_size(windows / 4, 8), /* at least those of dist/deal.h */
      some = gptvq_max_size(wanted, groups);
  return some <= windows / 2 ? some : windows;
}

gptvq_packed_shape gptvq_outside_shape(const gptvq_quantize_options *options, size_t rows, size_t cols,
                                       unsigned bits) {
  const size_t group = bits == 8 ? GPTVQ_ROWS_GROUP : gptvq_min_size(GROUP, cols);
  const gptvq_packed_shape uniform = {.kind = GPTVQ_PACKED_UNIFORM,
                                      .rows = rows,
                                      .cols = cols,
                                      .dim = 1,
                                      .index_bits = bits,
                                      .group_rows = 1,
                                      .group_cols = cols,
                                      .scale_block = (unsigned)group};
  gptvq_packed_shape trellis;
  gptvq_resolved own;
  if (options == NULL || options->code != GPTVQ_CODE_TRELLIS || bits > TRELLIS_BITS ||
      rows > TRELLIS_VALUES / cols ||
      gptvq_outside_options(options, GPTVQ_PACKED_TRELLIS, bits, false, &own, NULL) != GPTVQ_OK ||
      gptvq_layer_shape(rows, cols, &own, &trellis, NULL) != GPTVQ_OK)
    return uniform;
  return trellis;
}

gptvq_status gptvq_outside_options(const gptvq_quantize_options *options, gptvq_packed_kind kind,
                                   unsigned bits, bool hessian, gptvq_resolved *out, gptvq_error *err) {
  gptvq_quantize_options own;
  if (kind == GPTVQ_PACKED_TRELLIS) {
    own = *options;
    own.method = hessian ? GPTVQ_METHOD_GPTVQ : GPTVQ_METHOD_KMEANS;
    own.bits = bits;
    own.group_size = 0;
    own.beam = 1; /* the rows are many, and more paths are worth little */
  } else {
    gptvq_quantize_options_recipe(&own, GPTVQ_RECIPE_PAPER);
    own.method = hessian ? GPTVQ_METHOD_GPTQ : GPTVQ_METHOD_RTN;
    own.bits = 0.0;
    own.group_size = GROUP;
    own.damping = options->damping;
  }
  own.index_bits = bits;
  own.act_order = 0;
  GPTVQ_TRY(gptvq_resolve(&own, out, err));
  out->scales_checked = true; /* of the whole matrix, before any work */
  return GPTVQ_OK;
}

size_t gptvq_outside_rows(size_t rows, size_t cols) {
  return gptvq_min_size(rows, gptvq_max_size(SLAB_ROWS, SLAB_VALUES / cols));
}

static gptvq_packed_shape shape_of(const gptvq_model *model, const gptvq_resolved *options, unsigned bits) {
  return gptvq_outside_shape(&options->options, model->config.vocab, model->config.hidden, bits);
}

static double kept_bytes(const gptvq_model *model, const gptvq_resolved *options, unsigned bits) {
  if (bits == 16) return 0.0;
  const gptvq_packed_shape shape = shape_of(model, options, bits);
  return (double)gptvq_packed_bytes(&shape);
}

double gptvq_outside_kept(const gptvq_model *model, const gptvq_resolved *options) {
  gptvq_outside_bits bits;
  if (gptvq_outside_bits_of(model, &options->options, &bits, NULL) != GPTVQ_OK) return 0.0;
  return kept_bytes(model, options, bits.embedding) + kept_bytes(model, options, bits.head);
}

/* Beside what is kept: rows in fp32 (a slab, or all) and the solver's work on them, its factor; of slabs what
 * they become, and zero points that are not packed yet. */
static double work_bytes(const gptvq_model *model, const gptvq_resolved *options, unsigned bits,
                         bool hessian) {
  const size_t vocab = model->config.vocab, hidden = model->config.hidden;
  if (bits >= 8) return 0.0;
  gptvq_packed_shape shape = shape_of(model, options, bits);
  gptvq_resolved own;
  if (gptvq_outside_options(&options->options, shape.kind, bits, hessian, &own, NULL) != GPTVQ_OK) return 0.0;
  double bytes = hessian ? (double)gptvq_factor_peak_bytes(hidden, &own) : 0.0;
  if (shape.kind == GPTVQ_PACKED_UNIFORM) {
    shape.rows = gptvq_outside_rows(vocab, hidden);
    bytes += 2.0 * (double)vocab * (double)gptvq_ceil_div(hidden, shape.scale_block) +
             (double)gptvq_packed_bytes(&shape) +
             (hessian ? sizeof(float) * (double)hidden * (double)(hidden + shape.rows) : 0.0);
  }
  return bytes + sizeof(float) * (double)shape.rows * (double)hidden +
         (double)gptvq_solve_bytes(&(gptvq_solver){.options = &own}, &shape, hessian);
}

static double pages(const gptvq_linear *linear, unsigned bits) {
  return bits == 16 ? 0.0
                    : (double)linear->rows * (double)linear->cols * (double)gptvq_dtype_size(linear->dtype);
}

double gptvq_outside_peak(const gptvq_model *model, const gptvq_resolved *options) {
  gptvq_outside_bits bits;
  if (gptvq_outside_bits_of(model, &options->options, &bits, NULL) != GPTVQ_OK) return 0.0;
  const bool hessian = gptvq_outside_uses_hessian(model, &options->options, &bits),
             own_head = bits.head != 16;
  return gptvq_outside_kept(model, options) +
         fmax(pages(&model->embedding, bits.embedding), pages(&model->head, bits.head)) +
         (hessian ? (double)gptvq_hessian_bytes(model->config.hidden) : 0.0) +
         fmax(work_bytes(model, options, bits.embedding, hessian && !own_head),
              work_bytes(model, options, bits.head, hessian));
}
