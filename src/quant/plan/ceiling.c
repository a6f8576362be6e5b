#include "quant/plan/ceiling.h"

#include "base/memory.h"
#include "quant/layer/solver.h"

#include <math.h>
#include <stdio.h>

/* Linears of one shape; a model has few of these. */
typedef struct kind {
  size_t rows, cols, count;
} kind;

typedef struct model_kinds {
  kind *kinds;
  size_t count;
  double values; /* of all linears */
} model_kinds;

static gptvq_status list_kinds(const gptvq_model *model, model_kinds *out, gptvq_error *err) {
  const size_t most = gptvq_model_layer_count(model);
  *out = (model_kinds){.kinds = gptvq_alloc(most, sizeof *out->kinds)};
  if (out->kinds == NULL) return gptvq_fail_memory(err, "sizes of layers", most * sizeof *out->kinds);
  for (size_t b = 0; b < model->config.layers; b++)
    for (size_t i = 0; i < model->blocks[b].linear_count; i++) {
      const gptvq_linear *linear = &model->blocks[b].linears[i];
      size_t k = 0;
      while (k < out->count && (out->kinds[k].rows != linear->rows || out->kinds[k].cols != linear->cols))
        k++;
      if (k == out->count) out->kinds[out->count++] = (kind){linear->rows, linear->cols, 0};
      out->kinds[k].count++;
      out->values += (double)linear->rows * (double)linear->cols;
    }
  return GPTVQ_OK;
}

/* Stored bits per weight with these options; INFINITY: a layer cannot have them. */
static double stored_bits(const model_kinds *m, const gptvq_resolved *options) {
  double bytes = 0.0;
  for (size_t k = 0; k < m->count; k++) {
    gptvq_packed_shape shape;
    gptvq_packed_sizes sizes;
    if (gptvq_layer_shape(m->kinds[k].rows, m->kinds[k].cols, options, &shape, NULL) != GPTVQ_OK)
      return INFINITY;
    gptvq_packed_measure(&shape, &sizes);
    bytes += (double)m->kinds[k].count * (double)sizes.stored_bytes;
  }
  return 8.0 * bytes / m->values;
}

/* The next larger group that is worth a try: kernels of uniform layers are made for sets of 64 columns;
 * stripes of vectors are whole rows, so that steps of a 64th miss none that matters. */
static size_t next_group(size_t group, bool uniform) {
  if (!uniform) return group + gptvq_max_size(1, group / 64);
  return group < 32 ? group + 8 : gptvq_round_up(group + 1, 64);
}

/* The smallest group beside index bits of one size; true: with it they fit, in *out. */
static bool fits(const model_kinds *m, const gptvq_resolved *options, unsigned index_bits, double *least,
                 gptvq_resolved *out) {
  const gptvq_quantize_options *o = &options->options;
  const bool uniform = gptvq_is_uniform(o);
  size_t group = options->group_given ? o->group_size : 8;
  for (; group <= GPTVQ_MAX_GROUP; group = next_group(group, uniform)) {
    if (gptvq_resolve_sizes(options, index_bits, group, out, NULL) != GPTVQ_OK) continue;
    const double bits = stored_bits(m, out);
    *least = fmin(*least, bits);
    if (bits <= options->ceiling) return true;
    if (options->group_given) break;
  }
  return false;
}

static bool settle_groups(const model_kinds *m, gptvq_resolved *options, double *least) {
  enum { MOST = 12 };
  const gptvq_resolved own = *options;
  const unsigned given = own.index_given ? own.options.index_bits : 0;
  for (unsigned b = given != 0 ? given : MOST; b >= 1; b--) {
    if (fits(m, &own, b, least, options)) {
      if (gptvq_allocates(&own.options)) options->shared = own.ceiling;
      return true;
    }
    if (given != 0) break;
  }
  *options = own;
  return false;
}

/* Sizes of a trellis are those of its streams. Where the choice was ours, and scales leave no room for as
 * many bits as were asked for, vectors lose less than a stream of a bit less. */
static bool settle_trellis(const model_kinds *m, gptvq_resolved *options, double *least) {
  const gptvq_resolved own = *options;
  unsigned best = 0;
  for (unsigned b = GPTVQ_TRELLIS_LEAST_BITS; b <= GPTVQ_TRELLIS_MOST_BITS; b++) {
    if (gptvq_resolve_sizes(&own, b, 0, options, NULL) != GPTVQ_OK) continue;
    const double bits = stored_bits(m, options);
    *least = fmin(*least, bits);
    if (bits <= own.ceiling) best = b;
  }
  *options = own;
  if (best == 0) return false;
  gptvq_quantize_options o = own.options;
  o.bits = own.ceiling;
  o.index_bits = best;
  if (own.allocate_open) o.allocate = gptvq_trellis_allocate(&o, best, own.ceiling, *least);
  if (own.code_open && !gptvq_allocates(&o) && best < floor(own.ceiling)) {
    o.code = GPTVQ_CODE_VQ;
    o.dim = o.index_bits = 0;
    return gptvq_resolve(&o, options, NULL) == GPTVQ_OK && settle_groups(m, options, least);
  }
  return gptvq_resolve(&o, options, NULL) == GPTVQ_OK;
}

gptvq_status gptvq_ceiling_settle(const gptvq_model *model, gptvq_resolved *options, gptvq_error *err) {
  model_kinds m;
  double least = INFINITY;
  if (options->ceiling == 0.0) return GPTVQ_OK;
  GPTVQ_TRY(list_kinds(model, &m, err));
  const bool trellis = options->options.code == GPTVQ_CODE_TRELLIS,
             possible = trellis ? settle_trellis(&m, options, &least) : settle_groups(&m, options, &least);
  free(m.kinds);
  if (possible) return GPTVQ_OK;
  char smallest[64] = "";
  if (isfinite(least))
    (void)snprintf(smallest, sizeof smallest, ": the smallest is %.4f", ceil(1e4 * least) / 1e4);
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                    "`bits` %g is less than the layers of this model can have with %s%s", options->ceiling,
                    trellis ? "`code` trellis" : "these options", smallest);
}
