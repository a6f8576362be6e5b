#include "quant/run/budget.h"

#include "base/memory.h"
#include "checkpoint/names.h"
#include "checkpoint/packed_parts.h"
#include "quant/plan/ceiling.h"
#include "quant/plan/sensitivity.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The layers' sizes that are tried: bits per value in steps of 1 / STEPS. Codebooks of less than
 * LEAST_CODEBOOK bits per value serve too many weights, indices of more than FAST_BITS bits decode slowly. */
enum { STEPS = 64, MOST_BITS = 8, FAST_BITS = 8 };
/* Embedding and head of less than LEAST_OUTSIDE bits only where a budget leaves no more, or they are given.
 */
enum { LEAST_OUTSIDE = 4 };
static const unsigned outside_sizes[] = {16, 8, 7, 6, 5, 4, 3};
enum { SIZES = sizeof outside_sizes / sizeof outside_sizes[0], MOST_CHOICES = SIZES * SIZES };
#define LEAST_CODEBOOK (1.0 / 32.0)

/* ---- bytes of files ---- */

static size_t digits(uint64_t value) {
  size_t n = 1;
  for (; value >= 10; value /= 10) n++;
  return n;
}

/* Of the entry of a tensor in a header, with offsets of so many digits. */
static uint64_t entry_bytes(size_t name, const char *type, size_t rank, const size_t *dims, size_t offset) {
  static const char text[] = "\"\":{\"dtype\":\"\",\"shape\":[],\"data_offsets\":[,]},";
  uint64_t bytes = sizeof text + name + strlen(type) + 2 * offset;
  for (size_t i = 0; i < rank; i++) bytes += digits(dims[i]) + 1;
  return bytes;
}

/* Of a packed layer: tensors, their entries, the description, in which quotes are escaped and `error` has at
 * most 24 characters. */
static uint64_t layer_bytes(const char *name, const gptvq_packed_shape *s, size_t offset) {
  static const char text[] =
      "\"gptvq.\":\"\",{'format':'trellis','version':3,'rows':,'cols':,'dim':4,'index_bits':12,"
      "'group_rows':,'group_cols':,'codebook_bits':16,'scale_block':,'permuted':false,"
      "'method':'kmeans','error':,'svd_rank':256}";
  enum { QUOTES = 34, ERROR = 24 };
  gptvq_packed_sizes sizes;
  gptvq_packed_part parts[GPTVQ_PART_COUNT];
  const size_t length = strlen(name);
  gptvq_packed_measure(s, &sizes);
  gptvq_packed_parts(s, parts);
  uint64_t bytes = sizes.stored_bytes + sizeof text + QUOTES + ERROR + length + digits(s->rows) +
                   digits(s->cols) + digits(s->group_rows) + digits(s->group_cols) + digits(s->scale_block);
  for (int i = 0; i < GPTVQ_PART_COUNT; i++)
    if (parts[i].present)
      bytes += entry_bytes(length + strlen(parts[i].suffix), gptvq_tensor_type_name(parts[i].type),
                           parts[i].rank, parts[i].dims, offset);
  return bytes;
}

/* All that is not packed, and what every shard has: the length of its header, its end, padding. */
static uint64_t other_bytes(const gptvq_model *model, const gptvq_tensor_plan *plan, size_t offset) {
  enum { SHARD = 8 + 64 + 64 /* {"__metadata__":{"format":"pt"},…} */ };
  uint64_t bytes = (plan->blocks + 1) * SHARD;
  for (size_t t = 0; t < plan->count; t++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(model->checkpoint, t);
    if (plan->place[t] == gptvq_place_replaced || plan->place[t] == gptvq_place_packed) continue;
    bytes += tensor->bytes + entry_bytes(strlen(tensor->name), gptvq_tensor_type_name(tensor->type),
                                         tensor->rank, tensor->dims, offset);
  }
  return bytes;
}

/* ---- what is chosen from ---- */

typedef struct choice {
  gptvq_outside_bits bits;
  uint64_t bytes; /* of everything but the layers */
  double loss;
} choice;

/* Measured on SmolLM2-135M, KL in nats a token, the mean of three kinds of text: all layers at b bits
 * lose 0.68 · 3.45^(2.28 − b), of a trellis 0.6 of it; codes of 4 bits of the matrix that is embedding and
 * head 0.047, of an embedding 0.011, of a head 0.034, and of b bits 4.4^(4 − b) times that; a trellis code
 * 0.55 of it. */
#define PER_BIT 3.45
typedef enum matrix_role { BOTH, EMBEDDING, HEAD } matrix_role;
static double layers_loss(const gptvq_quantize_options *o) {
  return (o->code == GPTVQ_CODE_TRELLIS ? 0.6 : 1.0) * 0.68 * pow(PER_BIT, 2.28 - o->bits);
}
static double matrix_loss(matrix_role role, const gptvq_packed_shape *shape, unsigned bits) {
  static const double of_4_bits[] = {[BOTH] = 0.047, [EMBEDDING] = 0.011, [HEAD] = 0.034};
  const double code = shape->kind == GPTVQ_PACKED_TRELLIS ? 0.55 : 1.0;
  return bits == 16 ? 0.0 : code * of_4_bits[role] * pow(4.4, 4.0 - (double)bits);
}

/* The layers with options of a size, and what an allocation may add; UINT64_MAX: a layer cannot have it. */
static uint64_t layers_bytes(const gptvq_model *model, const gptvq_resolved *options, size_t offset) {
  uint64_t total = gptvq_allocation_spare(model, options);
  for (size_t b = 0; b < model->config.layers; b++)
    for (size_t i = 0; i < model->blocks[b].linear_count; i++) {
      const gptvq_linear *linear = &model->blocks[b].linears[i];
      gptvq_packed_shape shape;
      if (gptvq_layer_shape(linear->rows, linear->cols, options, &shape, NULL) != GPTVQ_OK) return UINT64_MAX;
      total += layer_bytes(linear->name, &shape, offset);
    }
  return total;
}

/* Options of so many bits, unless they are none of usual use, or the same as those of fewer bits. */
static bool size_of(const gptvq_resolved *options, double bits, double before, gptvq_resolved *out) {
  gptvq_quantize_options o = options->options;
  o.bits = bits;
  if (options->allocate_open) o.allocate = GPTVQ_ALLOCATE_AUTO;
  o.index_bits = 0;
  o.group_size = 0;
  if (gptvq_resolve(&o, out, NULL) != GPTVQ_OK) return false;
  const gptvq_quantize_options *r = &out->options;
  if (fabs(r->bits - before) < 1e-9) return false;
  if (gptvq_is_uniform(r) || r->code == GPTVQ_CODE_TRELLIS) return true;
  return r->index_bits <= FAST_BITS && r->bits - (double)r->index_bits / r->dim >= LEAST_CODEBOOK - 1e-9;
}

typedef struct best {
  double loss;
  gptvq_resolved options;
  gptvq_outside_bits bits;
  uint64_t bytes, least; /* least: of all choices */
} best;

/* The choices of embedding and head beside layers of one size. */
static void try_size(const gptvq_resolved *size, uint64_t layers, const choice *choices, size_t count,
                     uint64_t budget, best *b) {
  for (size_t i = 0; i < count; i++) {
    const uint64_t bytes = layers + choices[i].bytes;
    const double loss = layers_loss(&size->options) + choices[i].loss;
    if (bytes < b->least) b->least = bytes;
    if (bytes > budget || !(loss < b->loss)) continue;
    *b = (best){loss, *size, choices[i].bits, bytes, b->least};
  }
}

/* Bits of the two that are not given are all that there are. */
static gptvq_status list_choices(const gptvq_model *model, const gptvq_resolved *options, size_t offset,
                                 choice *choices, size_t *count, gptvq_error *err) {
  const gptvq_quantize_options *o = &options->options;
  const bool tied = model->config.tie_embeddings, embedding_given = o->embedding_bits != 0,
             head_given = o->head_bits != 0;
  const size_t vocab = model->config.vocab, hidden = model->config.hidden;
  *count = 0;
  for (size_t e = 0; e < SIZES; e++)
    for (size_t h = 0; h < SIZES; h++) {
      gptvq_resolved own = *options;
      gptvq_tensor_plan plan;
      if (tied ? h > 0 || ((embedding_given || head_given) && e > 0)
               : (embedding_given && e > 0) || (head_given && h > 0))
        continue;
      if (!embedding_given && !(tied && head_given)) own.options.embedding_bits = outside_sizes[e];
      if (!head_given) own.options.head_bits = tied ? 16 : outside_sizes[h];
      GPTVQ_TRY(gptvq_plan_create(model, &own, &plan, err));
      choice *c = &choices[(*count)++];
      *c = (choice){plan.bits, other_bytes(model, &plan, offset), 0.0};
      gptvq_plan_release(&plan);
      const gptvq_packed_shape embedding = gptvq_outside_shape(o, vocab, hidden, c->bits.embedding),
                               head = gptvq_outside_shape(o, vocab, hidden, c->bits.head);
      c->loss = matrix_loss(tied ? BOTH : EMBEDDING, &embedding, c->bits.embedding) +
                matrix_loss(HEAD, &head, c->bits.head);
      if (c->bits.embedding != 16) c->bytes += layer_bytes(GPTVQ_NAME_EMBEDDING, &embedding, offset);
      if (c->bits.head != 16) c->bytes += layer_bytes(GPTVQ_NAME_HEAD, &head, offset);
    }
  return GPTVQ_OK;
}

/* All sizes that the code of the options has. */
static gptvq_status try_code(const gptvq_model *model, const gptvq_resolved *options, uint64_t budget,
                             best *b, gptvq_error *err) {
  const size_t offset = digits(gptvq_checkpoint_bytes(model->checkpoint));
  choice choices[MOST_CHOICES];
  size_t count;
  GPTVQ_TRY(list_choices(model, options, offset, choices, &count, err));
  double before = 0.0;
  for (size_t step = STEPS; step <= (size_t)MOST_BITS * STEPS; step++) {
    gptvq_resolved size;
    if (!size_of(options, (double)step / STEPS, before, &size)) continue;
    before = size.options.bits;
    const uint64_t layers = layers_bytes(model, &size, offset);
    if (layers != UINT64_MAX) try_size(&size, layers, choices, count, budget, b);
  }
  return GPTVQ_OK;
}

/* The same options with a trellis. */
static gptvq_status with_trellis(const gptvq_resolved *options, gptvq_resolved *out, gptvq_error *err) {
  gptvq_quantize_options o = options->options;
  o.code = GPTVQ_CODE_TRELLIS;
  o.bits = 2.0;
  o.dim = o.index_bits = 0;
  o.group_size = 0;
  if (options->allocate_open) o.allocate = GPTVQ_ALLOCATE_AUTO;
  return gptvq_resolve(&o, out, err);
}

/* Where a byte more of them would gain as much as one of the layers, by the slope of their curve. */
static gptvq_status settle_outside(const gptvq_model *model, gptvq_resolved *options, gptvq_error *err) {
  gptvq_quantize_options *o = &options->options;
  const double slope =
      layers_loss(o) * log(PER_BIT) * 8.0 / (double)gptvq_max_size(1, model->info.linear_values);
  choice choices[MOST_CHOICES];
  size_t count;
  double least = INFINITY;
  gptvq_outside_bits bits = {16, 16};
  GPTVQ_TRY(list_choices(model, options, 0, choices, &count, err));
  for (size_t i = 0; i < count; i++) {
    const choice *c = &choices[i];
    const double loss = c->loss + slope * (double)c->bytes;
    const bool short_ones = (o->embedding_bits == 0 && c->bits.embedding < LEAST_OUTSIDE) ||
                            (o->head_bits == 0 && c->bits.head < LEAST_OUTSIDE);
    if (!(loss < least) || (short_ones && count > 1)) continue;
    least = loss;
    bits = c->bits;
  }
  o->embedding_bits = bits.embedding;
  o->head_bits = bits.head;
  return GPTVQ_OK;
}

gptvq_status gptvq_budget_settle(const gptvq_model *model, const gptvq_callbacks *callbacks,
                                 gptvq_resolved *options, gptvq_error *err) {
  const gptvq_quantize_options *o = &options->options;
  const double wanted = o->model_bits, parameters = (double)model->info.parameters;
  GPTVQ_TRY(gptvq_ceiling_settle(model, options, err));
  if (wanted == 0.0)
    return o->embedding_bits == 0 || o->head_bits == 0 ? settle_outside(model, options, err) : GPTVQ_OK;
  const uint64_t budget = (uint64_t)floor(wanted * parameters / 8.0);
  best b = {.loss = INFINITY, .least = UINT64_MAX};
  GPTVQ_TRY(try_code(model, options, budget, &b, err));
  if (options->code_open) {
    gptvq_resolved trellis;
    GPTVQ_TRY(with_trellis(options, &trellis, err));
    GPTVQ_TRY(try_code(model, &trellis, budget, &b, err));
  }
  if (!isfinite(b.loss))
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT, "`model_bits` %g is not possible for this model%s: the least is %.4f",
        wanted, o->embedding_bits != 0 || o->head_bits != 0 ? " with these bits of embedding and head" : "",
        ceil(8e4 * (double)b.least / parameters) / 1e4);
  *options = b.options;
  options->options.embedding_bits = b.bits.embedding;
  options->options.head_bits = b.bits.head;
  gptvq_log(callbacks, GPTVQ_LOG_INFO,
            "sizes: %s, layers %.4f bits per value, embedding %u, %s: at most %.4f of %g bits per parameter",
            gptvq_format_name(&b.options.options), b.options.options.bits, b.bits.embedding,
            model->config.tie_embeddings ? "head the same matrix" : "head apart",
            8.0 * (double)b.bytes / parameters, wanted);
  return GPTVQ_OK;
}
