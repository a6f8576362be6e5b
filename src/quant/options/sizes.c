/* Sizes from bits. docs/METHOD.md, "Sizes". */
#include "base/memory.h"
#include "base/sized.h"
#include "quant/options/options.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_CODEBOOK_COST 2.0 /* bits per value; more would be better spent on indices */
enum {
  UNIFORM_GROUP_BITS = 16,
  BLOCK_SCALE_BITS = 4,
  TRELLIS_SCALE_BITS = 8,
  LEAST = GPTVQ_TRELLIS_LEAST_BITS,
  MOST = GPTVQ_TRELLIS_MOST_BITS
};

/* Ranges of single members are the table's (gptvq_fields_check); here is what members ask of each other. */

/* Bits of one stored codebook; with factors of rank R its row of the left one (the right one is shared by the
 * layer). */
static double codebook_cost(const gptvq_quantize_options *o, unsigned index_bits) {
  return o->svd_rank > 0 ? 8.0 * o->svd_rank : (double)((size_t)1 << index_bits) * o->dim * o->codebook_bits;
}

/* Bits per value of a VQ setting, as the paper counts them (codebook scales, 16 / l, are left to the exact
 * report). */
static double vq_bits(const gptvq_quantize_options *o, unsigned index_bits, double group) {
  double codebook = codebook_cost(o, index_bits);
  return (double)index_bits / o->dim + codebook / group +
         (o->scale_block ? (double)BLOCK_SCALE_BITS / o->scale_block : 0.0);
}

/* Group size that makes the setting cost `bits` (0: not possible). */
static size_t vq_group(const gptvq_quantize_options *o, unsigned index_bits, double bits) {
  double spare = bits - vq_bits(o, index_bits, INFINITY);
  if (!(spare > 1e-9) || spare > MAX_CODEBOOK_COST) return 0;
  double group = floor(codebook_cost(o, index_bits) / spare + 0.5);
  if (group > (double)GPTVQ_MAX_GROUP || group < 8.0) return 0;
  return (size_t)group;
}

/* The message names the nearest sizes that usual groups (powers of two, codebooks of 0.03 to 1 bit per value)
 * give. */
static gptvq_status no_such_size(const gptvq_quantize_options *o, gptvq_error *err) {
  double below = 0.0, above = INFINITY;
  for (unsigned b = 1; b <= 12; b++)
    for (unsigned e = 3; e <= 20; e++) {
      double size = vq_bits(o, b, (double)((size_t)1 << e)), overhead = size - vq_bits(o, b, INFINITY);
      if (overhead > 1.0 || overhead < 0.03) continue;
      if (size <= o->bits && size > below) below = size;
      if (size >= o->bits && size < above) above = size;
    }
  char nearest[96];
  if (below > 0.0 && isfinite(above)) (void)snprintf(nearest, sizeof nearest, "%g or %g", below, above);
  else (void)snprintf(nearest, sizeof nearest, "%g", below > 0.0 ? below : above);
  return gptvq_fail(
      err, GPTVQ_ERROR_ARGUMENT,
      "`bits` %g is not possible with `dim` %u, codebooks of %u bits%s%s%s; the nearest possible size is %s",
      o->bits, o->dim, o->codebook_bits, o->svd_rank ? ", this `svd_rank`" : "",
      o->index_bits ? " and this `index_bits`" : "", o->group_size ? " and this `group_size`" : "", nearest);
}

/* Is anything given that only vectors have? */
static bool asks_for_vectors(const gptvq_quantize_options *o) {
  return o->dim != 0 || o->index_bits != 0 || o->group_size != 0 || o->scale_block != 0 || o->svd_rank != 0 ||
         o->codebook_bits != 8 || o->em_init != GPTVQ_INIT_MAHALANOBIS || o->finetune_index_rate > 0.0;
}

/* Bits per value beyond the stream's: a scale per row and group of columns (the tables are left to the exact
 * report). */
static double trellis_bits(const gptvq_quantize_options *o, unsigned index_bits) {
  return index_bits + (double)TRELLIS_SCALE_BITS / (double)o->group_cols;
}

/* A trellis has 2, 3 or 4 bits and some 0.04: what `bits` is above that it leaves unused, but where layers
 * have sizes of their own, as they have with calibration unless told otherwise. With a budget of the whole
 * model gptvq_budget_settle chooses. */
static gptvq_code resolve_code(const gptvq_quantize_options *o) {
  if (o->code != GPTVQ_CODE_AUTO) return o->code;
  if (gptvq_is_uniform(o) || o->model_bits != 0.0 || asks_for_vectors(o)) return GPTVQ_CODE_VQ;
  const double whole = floor(o->bits + 1e-9), margin = 0.05; /* of scales */
  if (whole < 2.0 || trellis_bits(o, 2) > o->bits + margin) return GPTVQ_CODE_VQ;
  /* 2 bits without room for scales are a trellis, too: that its smallest size is said to be a little more is
   * more use than vectors of 2 bits */
  const double room = o->nominal || whole == 2.0 ? margin : 0.0;
  const bool close = whole <= 4.0 && trellis_bits(o, (unsigned)whole) <= o->bits + room &&
                     o->bits - whole <= 0.45 + 1e-9,
             between =
                 o->allocate != GPTVQ_ALLOCATE_UNIFORM && o->method == GPTVQ_METHOD_GPTVQ && o->bits < 4.05;
  return close || between ? GPTVQ_CODE_TRELLIS : GPTVQ_CODE_VQ;
}

/* The most that nominal `bits` can be. A ceiling may be more: its sizes are chosen from what is stored. */
static double most_bits(const gptvq_quantize_options *o) {
  if (o->code == GPTVQ_CODE_TRELLIS) return trellis_bits(o, MOST);
  if (gptvq_is_uniform(o)) {
    const double b = o->index_bits != 0 ? o->index_bits : 8.0;
    return b + (o->group_size != 0 ? (double)UNIFORM_GROUP_BITS / (double)o->group_size : 1.0);
  }
  if (o->group_size != 0) return INFINITY;
  const unsigned b = o->index_bits != 0 ? o->index_bits : o->svd_rank > 0 ? 8 : 12;
  return vq_bits(o, b, INFINITY) + fmin(MAX_CODEBOOK_COST, codebook_cost(o, b) / 8.0);
}

gptvq_allocate_sizes gptvq_trellis_allocate(const gptvq_quantize_options *options, unsigned index_bits,
                                            double bits, double least) {
  static const double choice = 0.02; /* bits beyond the smallest size that are worth looking for layers */
  return index_bits < MOST && options->method == GPTVQ_METHOD_GPTVQ && bits > least + choice
             ? GPTVQ_ALLOCATE_SENSITIVITY
             : GPTVQ_ALLOCATE_UNIFORM;
}

/* Before any size is known. */
static gptvq_status check_svd(const gptvq_quantize_options *o, gptvq_error *err) {
  if (o->svd_rank == 0) return GPTVQ_OK;
  if (gptvq_is_uniform(o))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "`svd_rank` %u is not possible: uniform methods have no codebooks", o->svd_rank);
  if (o->dim != 1)
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "`svd_rank` %u is not possible with `dim` %u: only codebooks of `dim` 1 can be sorted and stacked",
        o->svd_rank, o->dim);
  if (o->finetune_steps > 0 || o->finetune_block_steps > 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "`svd_rank` %u is not possible with fine-tuning, which moves every centroid by itself: "
                      "give one of the two",
                      o->svd_rank);
  return GPTVQ_OK;
}

static gptvq_status resolve_vq(gptvq_quantize_options *o, gptvq_error *err) {
  if (o->dim != 1 && o->dim != 2 && o->dim != 4)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "`dim` %u is not possible: choose 1, 2 or 4", o->dim);
  if (o->codebook_bits != 8 && o->codebook_bits != 16)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "`codebook_bits` %u is not possible: choose 8 or 16",
                      o->codebook_bits);
  if (o->group_cols % 8 != 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "`group_cols` %zu is not possible: choose a multiple of 8, such as %zu", o->group_cols,
                      gptvq_round_up(o->group_cols, 8));
  if (o->group_size != 0 && o->group_size < 8)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "`group_size` %zu is not possible: choose 8 to %zu",
                      o->group_size, GPTVQ_MAX_GROUP);
  if (o->scale_block != 0 &&
      ((o->scale_block & (o->scale_block - 1)) != 0 || o->group_cols % o->scale_block != 0))
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "`scale_block` %u is not possible: choose 0 (none), 8, 16, 32, 64 … such that it divides "
        "`group_cols` %zu",
        o->scale_block, o->group_cols);
  if (o->bits == 0.0 && (o->index_bits == 0 || o->group_size == 0))
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "neither `bits` nor both of `index_bits` and `group_size` are given: set `bits`, such as 2.25");
  if (o->index_bits == 0 && o->group_size == 0) {
    for (unsigned b = 12; b >= 1 && o->group_size == 0; b--) {
      o->group_size = vq_group(o, b, o->bits);
      if (o->group_size != 0) o->index_bits = b;
    }
    if (o->group_size == 0) return no_such_size(o, err);
  } else if (o->group_size == 0) {
    o->group_size = vq_group(o, o->index_bits, o->bits);
    if (o->group_size == 0) return no_such_size(o, err);
  } else if (o->index_bits == 0) {
    for (unsigned b = 12; b >= 1 && o->index_bits == 0; b--)
      if (vq_bits(o, b, (double)o->group_size) <= o->bits + 1e-9) o->index_bits = b;
    if (o->index_bits == 0) return no_such_size(o, err);
  }
  if (o->svd_rank > 0 && (o->index_bits > 8 || o->svd_rank > 1u << o->index_bits))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "`svd_rank` %u is not possible with %u centroids: %s",
                      o->svd_rank, 1u << o->index_bits,
                      o->index_bits > 8 ? "factored codebooks have at most 256"
                                        : "the rank is at most their number");
  o->bits = vq_bits(o, o->index_bits, (double)o->group_size);
  return GPTVQ_OK;
}

static gptvq_status resolve_trellis(gptvq_quantize_options *o, gptvq_error *err) {
  const char *what = o->dim > 1                   ? "`dim` other than 1"
                     : o->scale_block != 0        ? "`scale_block`"
                     : o->svd_rank != 0           ? "`svd_rank`"
                     : o->group_size != 0         ? "`group_size`"
                     : o->finetune_index_rate > 0 ? "`finetune_index_rate`"
                     : o->codebook_bits != 8      ? "`codebook_bits` other than 8"
                                                  : NULL;
  if (what != NULL)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "%s is not possible with `code` trellis: leave it out, or use `code` vq", what);
  if (o->group_cols % 8 != 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "`group_cols` %zu is not possible: choose a multiple of 8, such as %zu", o->group_cols,
                      gptvq_round_up(o->group_cols, 8));
  if (o->bits == 0.0 && o->index_bits == 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "neither `bits` nor `index_bits` are given: set `bits`, such as 2.25");
  unsigned b = o->index_bits != 0 ? o->index_bits : (unsigned)floor(o->bits + 1e-9);
  if (b < LEAST || b > MOST)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "`%s` %g is not possible with `code` trellis; the nearest possible size is %.4g",
                      o->index_bits != 0 ? "index_bits" : "bits", o->index_bits != 0 ? (double)b : o->bits,
                      o->index_bits != 0 ? (double)(b < LEAST ? LEAST : MOST)
                                         : trellis_bits(o, b < LEAST ? LEAST : MOST));
  if (o->bits != 0.0 && o->bits + 1e-9 < b)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "`bits` %g is not possible with `index_bits` %u: leave one of them out", o->bits, b);
  if (o->allocate == GPTVQ_ALLOCATE_AUTO)
    o->allocate = o->index_bits == 0 ? gptvq_trellis_allocate(o, b, o->bits, trellis_bits(o, LEAST))
                                     : GPTVQ_ALLOCATE_UNIFORM;
  o->index_bits = b;
  o->dim = 1;
  /* with layers of different sizes `bits` is what all of them together may take */
  o->bits = gptvq_allocates(o) ? fmin(fmax(o->bits, trellis_bits(o, b)), trellis_bits(o, MOST))
                               : trellis_bits(o, b);
  return GPTVQ_OK;
}

static gptvq_status resolve_uniform(gptvq_quantize_options *o, gptvq_error *err) {
  o->dim = 1;
  o->scale_block = 0;
  if (o->index_bits > 8)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "`index_bits` %u is not possible with uniform methods: choose 1 to 8", o->index_bits);
  if (o->bits == 0.0 && (o->index_bits == 0 || o->group_size == 0))
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "neither `bits` nor both of `index_bits` and `group_size` are given: set `bits`, such as 2.125");
  if (o->bits != 0.0 && o->index_bits == 0) {
    double spare = o->group_size ? (double)UNIFORM_GROUP_BITS / (double)o->group_size : 0.0;
    double b = o->group_size ? floor(o->bits - spare + 1e-9) : ceil(o->bits - 1e-9) - 1.0;
    if (b < 1.0 || b > 8.0)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                        "`bits` %g is not possible with uniform methods%s; the nearest possible size is %g",
                        o->bits, o->group_size ? " and this `group_size`" : "",
                        b < 1.0 ? 1.0 + (spare > 0.0 ? spare : 0.125) : 8.0 + (spare > 0.0 ? spare : 0.125));
    o->index_bits = (unsigned)b;
  }
  if (o->group_size == 0) {
    double spare = o->bits - o->index_bits,
           group = spare > 0.0 ? floor(UNIFORM_GROUP_BITS / spare + 0.5) : 0.0;
    if (group < 1.0 || group > (double)GPTVQ_MAX_GROUP)
      return gptvq_fail(
          err, GPTVQ_ERROR_ARGUMENT,
          "`bits` %g is not possible with `index_bits` %u: the nearest usual sizes are %g and %g", o->bits,
          o->index_bits, o->index_bits + 0.125, o->index_bits + 0.25);
    o->group_size = (size_t)group;
  }
  o->bits = o->index_bits + (double)UNIFORM_GROUP_BITS / (double)o->group_size;
  return GPTVQ_OK;
}

/* Of embedding and head. */
static gptvq_status check_outside(const char *name, unsigned bits, gptvq_error *err) {
  if ((bits >= 3 && bits <= 8) || bits == 16) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "`%s` %u is not possible: choose 3 to 8, or 16", name, bits);
}

/* Of embedding and head. What is not given beside a trellis, or with a budget, waits for the model:
 * gptvq_budget_settle. */
static void resolve_outside(gptvq_quantize_options *o) {
  if (o->model_bits != 0.0 || o->code == GPTVQ_CODE_TRELLIS) return;
  if (o->embedding_bits == 0) o->embedding_bits = 16;
  if (o->head_bits == 0) o->head_bits = 16;
}

gptvq_status gptvq_resolve(const gptvq_quantize_options *options, gptvq_resolved *out, gptvq_error *err) {
  gptvq_quantize_options *o = &out->options;
  *o = *options;
  out->scales_checked = false;
  out->ceiling = out->shared = 0.0;
  GPTVQ_TRY(gptvq_fields_check(o, err));
  if (o->head_bits != 0) GPTVQ_TRY(check_outside("head_bits", o->head_bits, err));
  if (o->embedding_bits != 0) GPTVQ_TRY(check_outside("embedding_bits", o->embedding_bits, err));
  out->allocate_open = o->allocate == GPTVQ_ALLOCATE_AUTO;
  out->index_given = o->index_bits != 0;
  out->group_given = o->group_size != 0;
  out->code_open = o->code == GPTVQ_CODE_AUTO && !gptvq_is_uniform(o) && !asks_for_vectors(o);
  o->code = resolve_code(o);
  if (!o->nominal && o->model_bits == 0.0 &&
      !(out->index_given && (out->group_given || o->code == GPTVQ_CODE_TRELLIS)))
    out->ceiling = o->bits;
  resolve_outside(o);
  if (o->code == GPTVQ_CODE_TRELLIS && gptvq_is_uniform(o))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "`code` trellis is not possible with uniform methods: choose `method` gptvq or kmeans");
  if (o->dim == 0 && o->code != GPTVQ_CODE_TRELLIS) o->dim = gptvq_is_uniform(o) ? 1 : 2;
  if (out->ceiling != 0.0) o->bits = fmin(o->bits, most_bits(o));
  if (o->code == GPTVQ_CODE_TRELLIS) {
    GPTVQ_TRY(resolve_trellis(o, err));
    if (gptvq_allocates(o)) out->shared = o->bits;
    return GPTVQ_OK;
  }
  if (o->allocate == GPTVQ_ALLOCATE_AUTO) o->allocate = GPTVQ_ALLOCATE_UNIFORM;
  GPTVQ_TRY(check_svd(o, err));
  return gptvq_is_uniform(o) ? resolve_uniform(o, err) : resolve_vq(o, err);
}

gptvq_status gptvq_resolve_sizes(const gptvq_resolved *options, unsigned index_bits, size_t group_size,
                                 gptvq_resolved *out, gptvq_error *err) {
  gptvq_quantize_options changed = options->options;
  changed.bits = 0.0; /* follow from these */
  changed.index_bits = index_bits;
  changed.group_size = group_size;
  return gptvq_resolve(&changed, out, err);
}

gptvq_status gptvq_quantize_options_resolve(gptvq_quantize_options *options, gptvq_error *err) {
  gptvq_quantize_options own;
  gptvq_resolved resolved;
  GPTVQ_TRY(gptvq_options_take(options, &own, err));
  GPTVQ_TRY(gptvq_resolve(&own, &resolved, err));
  if (resolved.code_open && own.model_bits != 0.0) { /* waits for the model, as sizes do */
    resolved.options.code = GPTVQ_CODE_AUTO;
    resolved.options.dim = resolved.options.index_bits = 0;
    resolved.options.group_size = 0;
  }
  if (own.model_bits != 0.0) resolved.options.allocate = own.allocate;
  gptvq_give_struct(&resolved.options, sizeof resolved.options, options);
  return GPTVQ_OK;
}
