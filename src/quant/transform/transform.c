/* Which tensors of a model change, and how. */
#include "base/memory.h"
#include "checkpoint/names.h"
#include "quant/transform/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { VALUES_SALT = 0x76616c75, STREAM_SALT = 0x73747265 };

static bool heads_are_gated(const gptvq_model *model) {
  return model->arch->output_gate || gptvq_model_has_state(model);
}

bool gptvq_transform_wanted(const gptvq_resolved *resolved) {
  return resolved->options.rotate != GPTVQ_ROTATE_NONE;
}

gptvq_status gptvq_transform_check(const gptvq_model *model, const gptvq_resolved *resolved,
                                   gptvq_error *err) {
  if (model->config.latent.kv_rank > 0 && (resolved->options.rotate & GPTVQ_ROTATE_HEADS) != 0)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "the heads of a %s cannot be rotated (`rotate` heads): keys and values are made by one "
                      "linear layer; its residual stream can be (`rotate` residual)",
                      model->config.architecture);
  if ((resolved->options.rotate & GPTVQ_ROTATE_HEADS) != 0 && heads_are_gated(model))
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "the heads of a %s cannot be rotated (`rotate` heads): what they give is gated value by value; the "
        "residual stream can be (`rotate` residual)",
        model->config.architecture);
  if ((resolved->options.rotate & GPTVQ_ROTATE_RESIDUAL) == 0 ||
      (gptvq_writes_stream(&model->blocks[0], GPTVQ_INPUT_O) &&
       gptvq_writes_stream(&model->blocks[0], GPTVQ_INPUT_DOWN)))
    return GPTVQ_OK;
  return gptvq_fail(
      err, GPTVQ_ERROR_UNSUPPORTED,
      "the residual stream of a %s cannot be rotated (`rotate` residual): the norms behind o_proj and "
      "down_proj have gains that no linear layer can take up; its heads can be (`rotate` heads)",
      model->config.architecture);
}

gptvq_status gptvq_transform_create(const gptvq_model *model, const gptvq_resolved *resolved,
                                    gptvq_transform *out, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const gptvq_quantize_options *options = &resolved->options;
  *out = (gptvq_transform){.model = model, .rotate = options->rotate};
  GPTVQ_TRY(gptvq_transform_check(model, resolved, err));
  if (out->rotate & GPTVQ_ROTATE_RESIDUAL)
    GPTVQ_TRY(
        gptvq_rotation_init(&out->residual, c->hidden, options->seed ^ STREAM_SALT, "a hidden size", err));
  if (out->rotate & GPTVQ_ROTATE_HEADS) {
    out->heads = gptvq_alloc_zero(c->layers, sizeof *out->heads);
    if (out->heads == NULL)
      return gptvq_fail_memory(err, "rotations", gptvq_saturated_size(c->layers, sizeof *out->heads));
    for (size_t b = 0; b < c->layers; b++)
      GPTVQ_TRY(gptvq_rotation_init(&out->heads[b], c->head_dim,
                                    (options->seed ^ VALUES_SALT) + ((uint64_t)b << 32), "a head size", err));
  }
  return GPTVQ_OK;
}

void gptvq_transform_release(gptvq_transform *transform) {
  gptvq_rotation_release(&transform->residual);
  if (transform->heads != NULL)
    for (size_t b = 0; b < transform->model->config.layers; b++) gptvq_rotation_release(&transform->heads[b]);
  free(transform->heads);
  *transform = (gptvq_transform){0};
}

/* ---- edits ---- */

static int compare_edits(const void *a, const void *b) {
  return strcmp(((const gptvq_edit *)a)->name, ((const gptvq_edit *)b)->name);
}

const gptvq_edit *gptvq_edits_find(const gptvq_edits *edits, const char *name) {
  const gptvq_edit key = {.name = (char *)name};
  return edits->count == 0 ? NULL
                           : bsearch(&key, edits->items, edits->count, sizeof *edits->items, compare_edits);
}

void gptvq_edits_release(gptvq_edits *edits) {
  for (size_t i = 0; i < edits->count; i++) free(edits->items[i].name);
  free(edits->items);
  *edits = (gptvq_edits){0};
}

typedef struct builder {
  const gptvq_transform *transform;
  gptvq_edits *edits;
} builder;

/* An edit of `change`'s kind for the tensor of that name, made from the tensor `source` (NULL: the same
 * name); does nothing when the model has no such tensor. */
static gptvq_status add(const builder *b, gptvq_edit change, const char *source, gptvq_error *err,
                        const char *format, ...) __attribute__((format(printf, 5, 6)));
static gptvq_status add(const builder *b, gptvq_edit change, const char *source, gptvq_error *err,
                        const char *format, ...) {
  char name[512];
  va_list args;
  va_start(args, format);
  int length = vsnprintf(name, sizeof name, format, args);
  va_end(args);
  if (length < 0 || (size_t)length >= sizeof name)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "the tensor name %s… is too long", name);
  const gptvq_tensor *tensor =
      gptvq_checkpoint_find(b->transform->model->checkpoint, source != NULL ? source : name);
  if (tensor == NULL) return GPTVQ_OK;
  gptvq_edits *edits = b->edits;
  if (edits->count == edits->room) {
    size_t room = edits->room == 0 ? 64 : 2 * edits->room;
    gptvq_edit *items = realloc(edits->items, room * sizeof *items);
    if (items == NULL)
      return gptvq_fail_memory(err, "the list of tensors", gptvq_saturated_size(room, sizeof *items));
    edits->items = items;
    edits->room = room;
  }
  change.name = strdup(name);
  if (change.name == NULL) return gptvq_fail_memory(err, name, (size_t)length);
  change.source = tensor;
  change.type = change.type == GPTVQ_T_OTHER ? tensor->type : change.type;
  change.rows = tensor->rank > 0 ? tensor->dims[0] : 1;
  change.cols = tensor->rank > 1 ? tensor->dims[1] : 1;
  edits->items[edits->count++] = change;
  return GPTVQ_OK;
}

/* weight and bias of a linear; the bias knows only of rows */
static gptvq_status add_linear(const builder *b, const gptvq_linear *linear, gptvq_edit change,
                               gptvq_error *err) {
  GPTVQ_TRY(add(b, change, NULL, err, "%s.weight", linear->name));
  if (linear->bias == NULL || change.down == NULL) return GPTVQ_OK;
  change.gain = NULL;
  change.across = NULL;
  return add(b, change, NULL, err, "%s.bias", linear->name);
}

static gptvq_status add_attention(const builder *b, const gptvq_block *block, gptvq_edit plain,
                                  gptvq_error *err) {
  const gptvq_transform *t = b->transform;
  const gptvq_config *c = &t->model->config;
  size_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
  const gptvq_rotation *residual = t->residual.n > 0 ? &t->residual : NULL;
  const gptvq_rotation *values = t->heads != NULL ? &t->heads[block->index] : NULL;
  for (size_t i = 0; i < block->qkv.count; i++) {
    gptvq_edit change = plain;
    if (residual != NULL) {
      change.across = residual;
      change.gain = block->norms[GPTVQ_NORM_ATTENTION];
    }
    if (i + 1 == block->qkv.count) { /* v, or the end of q | k | v */
      size_t first = block->qkv.count == 1 ? q + kv : 0;
      if (values != NULL) {
        change.down = values;
        change.down_begin = first;
        change.down_end = first + kv;
      }
    }
    if (change.across != NULL || change.down != NULL)
      GPTVQ_TRY(add_linear(b, &block->linears[block->qkv.linear[i]], change, err));
  }
  gptvq_edit change = plain;
  change.across = values;
  change.down = residual;
  change.down_end = c->hidden;
  return add_linear(b, &block->linears[block->o], change, err);
}

static gptvq_status add_mlp(const builder *b, const gptvq_block *block, const gptvq_mlp *mlp,
                            gptvq_edit plain, gptvq_error *err) {
  const gptvq_transform *t = b->transform;
  gptvq_edit change = plain;
  change.across = &t->residual;
  change.gain = block->norms[GPTVQ_NORM_MLP];
  for (size_t i = 0; i < mlp->input.count; i++)
    GPTVQ_TRY(add_linear(b, &block->linears[mlp->input.linear[i]], change, err));
  change = plain;
  change.down = &t->residual;
  change.down_end = t->model->config.hidden;
  return add_linear(b, &block->linears[mlp->down], change, err);
}

static gptvq_status add_all(const builder *b, gptvq_error *err) {
  const gptvq_transform *t = b->transform;
  const gptvq_model *model = t->model;
  /* what is quantized is kept in fp32 until then */
  const gptvq_edit same = {.type = GPTVQ_T_OTHER}, ones = {.type = GPTVQ_T_OTHER, .unit_gain = true},
                   plain = {.type = GPTVQ_T_F32};
  for (size_t i = 0; i < model->config.layers; i++) {
    const gptvq_block *block = &model->blocks[i];
    GPTVQ_TRY(add_attention(b, block, plain, err));
    if (t->residual.n == 0) continue;
    for (size_t e = 0; e < block->mlp_count; e++) GPTVQ_TRY(add_mlp(b, block, &block->mlps[e], plain, err));
    gptvq_edit small = plain;
    small.across = &t->residual;
    small.gain = block->norms[GPTVQ_NORM_ATTENTION];
    if (block->delta != NULL) {
      GPTVQ_TRY(add(b, small, NULL, err, "%s.weight", block->delta->decay.name));
      GPTVQ_TRY(add(b, small, NULL, err, "%s.weight", block->delta->beta.name));
    }
    gptvq_edit router = plain;
    router.across = &t->residual;
    router.gain = block->norms[GPTVQ_NORM_MLP];
    if (block->router.weights != NULL) GPTVQ_TRY(add(b, router, NULL, err, "%s.weight", block->router.name));
    if (block->shared_gate.weights != NULL)
      GPTVQ_TRY(add(b, router, NULL, err, "%s.weight", block->shared_gate.name));
    static const gptvq_norm_place folded[] = {GPTVQ_NORM_ATTENTION, GPTVQ_NORM_MLP};
    for (size_t n = 0; n < sizeof folded / sizeof folded[0]; n++) {
      char name[GPTVQ_TENSOR_NAME];
      gptvq_block_name(i, model->arch->norms[folded[n]], ".weight", name);
      GPTVQ_TRY(add(b, ones, NULL, err, "%s", name));
    }
  }
  if (t->residual.n == 0) return GPTVQ_OK;
  static const char embedding[] = GPTVQ_NAME_EMBEDDING ".weight";
  gptvq_edit table = same;
  table.across = &t->residual;
  GPTVQ_TRY(add(b, table, NULL, err, "%s", embedding));
  table.gain = model->final_norm;
  GPTVQ_TRY(add(b, table, model->config.tie_embeddings ? embedding : NULL, err, GPTVQ_NAME_HEAD ".weight"));
  return add(b, ones, NULL, err, GPTVQ_NAME_FINAL_NORM ".weight");
}

gptvq_status gptvq_edits_create(const gptvq_transform *transform, gptvq_edits *edits, gptvq_error *err) {
  *edits = (gptvq_edits){0};
  const builder b = {transform, edits};
  gptvq_status status = add_all(&b, err);
  if (status == GPTVQ_OK && edits->count > 0)
    qsort(edits->items, edits->count, sizeof *edits->items, compare_edits);
  if (status != GPTVQ_OK) gptvq_edits_release(edits);
  return status;
}
