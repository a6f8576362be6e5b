#include "model/workspace.h"
#include "base/memory.h"
#include "linalg/gemm.h"
#include "model/layer/rope.h"
#include "model/layer/vector.h"

#include <stdio.h>
#include <string.h>

enum { AREAS = 13 };

typedef struct layout {
  size_t bytes[AREAS], total;
  bool fits;
} layout;

/* Do sessions' caches hold latent vectors? Those of single blocks do not: what they compute is calibrated on.
 */
static bool keeps_latents(const gptvq_model *model, size_t layers) {
  return model->config.latent.kv_rank > 0 && layers >= model->config.layers;
}

/* Floats of keys at a position of one layer. */
static size_t key_floats(const gptvq_model *model, size_t layers) {
  const gptvq_config *c = &model->config;
  return keeps_latents(model, layers) ? gptvq_latent_key(&c->latent) : c->kv_heads * c->head_dim;
}

/* Of latent attention the attention itself, whose values are as wide as its keys, is wider than its linears.
 */
static size_t widest_group(const gptvq_model *model) {
  const gptvq_config *c = &model->config;
  size_t widest =
      gptvq_max_size(2 * gptvq_model_mlp_width(model), (c->heads + 2 * c->kv_heads) * c->head_dim);
  for (size_t i = 0; i < model->config.layers; i++)
    widest = gptvq_max_size(widest, model->blocks[i].qkv.width);
  if (c->latent.kv_rank > 0) widest = gptvq_max_size(widest, gptvq_latent_width(c, true));
  return widest;
}

/* What a half's first part gives its last linear. */
static size_t widest_heads(const gptvq_model *model) {
  const gptvq_config *c = &model->config;
  const size_t key = c->latent.kv_rank > 0 ? gptvq_latent_key(&c->latent) : 0;
  size_t widest = c->heads * gptvq_max_size(c->head_dim, key);
  for (size_t i = 0; i < model->config.layers; i++) {
    const gptvq_block *block = &model->blocks[i];
    widest = gptvq_max_size(widest, block->linears[block->o].cols);
  }
  return widest;
}

static size_t widest_input(const gptvq_model *model) {
  const gptvq_config *c = &model->config;
  const size_t ranks = gptvq_max_size(c->latent.q_rank, c->latent.kv_rank);
  return gptvq_max_size(gptvq_max_size(c->hidden, ranks),
                        gptvq_max_size(widest_heads(model), gptvq_model_mlp_width(model)));
}

/* Places in a workspace of so many layers, for blocks with a delta net or for those without: all layers of
 * some texts have one each, single blocks share. */
static size_t places(const gptvq_model *model, size_t layers, bool delta) {
  size_t count = 0, texts = layers / model->config.layers;
  for (size_t i = 0; i < model->config.layers; i++) count += (model->blocks[i].delta != NULL) == delta;
  if (texts == 0) return count > 0 ? layers : 0;
  return count * texts;
}

size_t gptvq_workspace_states(const gptvq_model *model, size_t layers) {
  return places(model, layers, true) * gptvq_delta_state(&model->config.delta);
}

size_t gptvq_workspace_text_bytes(const gptvq_model *model, size_t max_positions) {
  const gptvq_config *c = &model->config;
  size_t number = gptvq_workspace_keeps_half(model) ? sizeof(uint16_t) : sizeof(float);
  const size_t both = keeps_latents(model, c->layers) ? 1 : 2;
  size_t caches = both * places(model, c->layers, false) * key_floats(model, c->layers);
  return gptvq_saturated_sum(gptvq_saturated_size(caches, gptvq_saturated_size(max_positions, number)),
                             gptvq_saturated_size(gptvq_workspace_states(model, c->layers), sizeof(float)));
}

/* Sizes of what routes tokens to experts; used by no other block. */
static gptvq_routing routing_of(const gptvq_model *model, size_t max_rows) {
  const gptvq_config *c = &model->config;
  return (gptvq_routing){.max_rows = max_rows,
                         .hidden = c->hidden,
                         .experts = c->experts,
                         .used = c->experts_per_token,
                         .rule = c->router};
}

static void put(layout *l, size_t area, size_t a, size_t b, size_t size) {
  size_t bytes;
  if (!gptvq_mul(a, b, &bytes) || !gptvq_mul(bytes, size, &bytes) || bytes > SIZE_MAX / 4 ||
      !gptvq_add(l->total, gptvq_round_up(bytes, 64), &l->total)) {
    l->fits = false;
    return;
  }
  l->bytes[area] = gptvq_round_up(bytes, 64);
}

bool gptvq_workspace_keeps_half(const gptvq_model *model) {
  return model->compute == GPTVQ_COMPUTE_INT8 && model->config.head_dim <= GPTVQ_HALF_DIM &&
         model->config.latent.kv_rank == 0;
}

/* Rotated dimensions of a head, halved, in the layers that use a rope so. */
static size_t rope_half(const gptvq_config *c, gptvq_rope_use use) {
  const gptvq_rope *rope = gptvq_config_rope(c, use);
  return rope != NULL ? gptvq_rope_half(c, rope) : 0;
}

/* Sizes of the areas in the order of the pointers in `place`. */
static layout measure(const gptvq_model *model, size_t layers, size_t max_rows, size_t max_positions) {
  const gptvq_config *c = &model->config;
  layout l = {.fits = true};
  size_t cache = places(model, layers, false);
  l.fits = gptvq_mul(cache, key_floats(model, layers), &cache);
  if (!l.fits) return l;
  put(&l, 0, max_positions, 2 * rope_half(c, GPTVQ_USE_ROPE), sizeof(float));
  put(&l, 1, max_positions, 2 * rope_half(c, GPTVQ_USE_LOCAL_ROPE), sizeof(float));
  put(&l, 2, cache, max_positions, gptvq_workspace_keeps_half(model) ? sizeof(uint16_t) : sizeof(float));
  if (!keeps_latents(model, layers))
    put(&l, 3, cache, max_positions, gptvq_workspace_keeps_half(model) ? sizeof(uint16_t) : sizeof(float));
  put(&l, 4, max_rows, c->hidden, sizeof(float));
  put(&l, 5, max_rows, widest_group(model), sizeof(float));
  put(&l, 6, max_rows, widest_heads(model), sizeof(float));
  put(&l, 7, max_rows, c->hidden, sizeof(float));
  if (gptvq_model_routes(model)) {
    const gptvq_routing routing = routing_of(model, max_rows);
    put(&l, 8, gptvq_routing_bytes(&routing), 1, 1);
  }
  if (places(model, layers, true) > 0) {
    put(&l, 9, places(model, layers, true), gptvq_delta_state(&c->delta), sizeof(float));
    put(&l, 10, max_rows, 2 * c->delta.value_heads, sizeof(float));
  }
  put(&l, 11, max_rows, gptvq_latent_floats(c), sizeof(float));
  put(&l, 12, c->heads * (c->latent.plain + c->latent.values), c->latent.kv_rank, sizeof(float));
  return l;
}

/* Of the workspace's own texts, a few rows at a time. */
static size_t part_bytes(const gptvq_model *model, size_t max_rows, size_t max_positions) {
  size_t queries = gptvq_min_size(max_rows, GPTVQ_ATTENTION_FEW) * model->config.heads;
  return gptvq_attention_part_bytes(queries, widest_heads(model) / model->config.heads, max_positions);
}

size_t gptvq_workspace_bytes(const gptvq_model *model, size_t layers, size_t max_rows, size_t max_positions) {
  layout l = measure(model, layers, max_rows, max_positions);
  size_t scratch = gptvq_linears_scratch(GPTVQ_MAX_PARTS, widest_input(model), max_rows, model->compute);
  size_t total;
  if (!l.fits || !gptvq_add(l.total, scratch, &total) || !gptvq_add(total, sizeof(gptvq_workspace), &total) ||
      !gptvq_add(total, part_bytes(model, max_rows, max_positions), &total))
    return SIZE_MAX;
  return total;
}

static void place(gptvq_workspace *w, const layout *l, char *memory) {
  char *area[AREAS];
  for (size_t i = 0; i < AREAS; i++) {
    area[i] = l->bytes[i] == 0 ? NULL : memory;
    memory += l->bytes[i];
  }
  w->rope[GPTVQ_USE_ROPE].cosines = (float *)(void *)area[0];
  w->rope[GPTVQ_USE_LOCAL_ROPE].cosines = (float *)(void *)area[1];
  w->keys = area[2];
  w->values = area[3];
  w->norm = (float *)(void *)area[4];
  w->wide = (float *)(void *)area[5];
  w->heads = (float *)(void *)area[6];
  w->sum = (float *)(void *)area[7];
  w->latent = (float *)(void *)area[11];
  w->kv_b = (float *)(void *)area[12];
  if (area[8] != NULL) gptvq_routing_place(&w->routing, area[8]);
  w->own_states = w->state = w->next_state = (float *)(void *)area[9];
  w->gates = (float *)(void *)area[10];
}

static void fill_tables(const gptvq_config *c, gptvq_workspace *w) {
  for (gptvq_rope_use use = 0; use < GPTVQ_ROPE_USES; use++) {
    gptvq_rotation_tables *tables = &w->rope[use];
    tables->half = rope_half(c, use);
    if (tables->half == 0) continue;
    tables->sines = tables->cosines + w->max_positions * tables->half;
    gptvq_rope_tables(c, gptvq_config_rope(c, use), w->max_positions, tables->cosines, tables->sines);
  }
}

gptvq_status gptvq_workspace_create(const gptvq_model *model, size_t layers, size_t max_rows,
                                    size_t max_positions, gptvq_workspace **out, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  *out = NULL;
  if (layers == 0 || max_rows == 0 || max_positions == 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "a session needs room for at least one token");
  GPTVQ_TRY(gptvq_blas_init(err));
  layout l = measure(model, layers, max_rows, max_positions);
  size_t scratch = gptvq_linears_scratch(GPTVQ_MAX_PARTS, widest_input(model), max_rows, model->compute);
  size_t head = gptvq_round_up(sizeof(gptvq_workspace), 64),
         parts = part_bytes(model, max_rows, max_positions);
  size_t bytes;
  char *memory = l.fits && gptvq_add(head, l.total, &bytes) ? gptvq_alloc(bytes, 1) : NULL;
  void *panels = memory != NULL ? gptvq_alloc(scratch, 1) : NULL;
  float *part_sums = panels != NULL && parts > 0 ? gptvq_alloc(parts, 1) : NULL;
  if (panels == NULL || (parts > 0 && part_sums == NULL)) {
    free(panels);
    free(memory);
    char context[64];
    snprintf(context, sizeof context, "a session of %zu positions", max_positions);
    return gptvq_fail_memory(err, context, gptvq_workspace_bytes(model, layers, max_rows, max_positions));
  }
  gptvq_workspace *w = (gptvq_workspace *)(void *)memory;
  *w = (gptvq_workspace){.layers = layers,
                         .max_rows = max_rows,
                         .max_positions = max_positions,
                         .caches = places(model, layers, false),
                         .states = places(model, layers, true),
                         .half = gptvq_workspace_keeps_half(model),
                         .latents = keeps_latents(model, layers),
                         .parts = part_sums,
                         .part_bytes = parts,
                         .scratch = {.data = panels, .bytes = scratch}};
  w->routing = routing_of(model, max_rows);
  place(w, &l, memory + head);
  fill_tables(c, w);
  *out = w;
  return GPTVQ_OK;
}

void gptvq_workspace_destroy(gptvq_workspace *workspace) {
  if (workspace == NULL) return;
  free(workspace->scratch.data);
  free(workspace->parts);
  free(workspace);
}

void gptvq_workspace_copy_cache(const gptvq_model *model, const gptvq_workspace *from, size_t positions,
                                gptvq_workspace *to) {
  const size_t heads = from->latents ? 1 : model->config.kv_heads,
               token =
                   key_floats(model, from->layers) / heads * (from->half ? sizeof(uint16_t) : sizeof(float));
  size_t stride = from->max_positions * token;
  for (size_t head = 0; head < from->caches * heads; head++) {
    memcpy((char *)to->keys + head * stride, (const char *)from->keys + head * stride, positions * token);
    if (from->latents) continue;
    memcpy((char *)to->values + head * stride, (const char *)from->values + head * stride, positions * token);
  }
}

gptvq_status gptvq_group_forward(const gptvq_model *model, const gptvq_block *block,
                                 const gptvq_linear_group *group, gptvq_workspace *workspace, size_t n,
                                 const float *x, size_t ldx, float *y, size_t ldy, gptvq_error *err) {
  const gptvq_linear *linears[GPTVQ_MAX_PARTS];
  for (size_t i = 0; i < group->count; i++) linears[i] = &block->linears[group->linear[i]];
  return gptvq_linears_forward(linears, group->offset, group->count, model->compute, n, x, ldx, y, ldy,
                               &workspace->scratch, err);
}
