/* DeepSeek-V2 and V3: what both have in common. */
#include "model/arch/deepseek.h"

#include <string.h>

enum { MAX_RANK = 1 << 20, MAX_DIM = 1 << 14, MAX_COUNT = 1 << 12 };

static gptvq_status refuse(const gptvq_config_source *source, const char *key, const char *value,
                           gptvq_error *err) {
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s/%s: %s %s is not supported", source->folder,
                    source->file, key, value);
}

static gptvq_status read_latent(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  gptvq_latent *l = &c->latent;
  *l =
      (gptvq_latent){.kv_rank = 512, .q_rank = 1536, .plain = 128, .rotated = 64, .values = 128, .eps = 1e-6};
  if (json_is_null(json_object_get(source->object, "q_lora_rank"))) l->q_rank = 0;
  GPTVQ_TRY(gptvq_config_size(source, "q_lora_rank", 1, MAX_RANK, &l->q_rank, err));
  GPTVQ_TRY(gptvq_config_size(source, "kv_lora_rank", 1, MAX_RANK, &l->kv_rank, err));
  GPTVQ_TRY(gptvq_config_size(source, "qk_nope_head_dim", 1, MAX_DIM, &l->plain, err));
  GPTVQ_TRY(gptvq_config_size(source, "qk_rope_head_dim", 2, MAX_DIM, &l->rotated, err));
  GPTVQ_TRY(gptvq_config_size(source, "v_head_dim", 1, MAX_DIM, &l->values, err));
  c->head_dim = l->plain + l->rotated;
  if (l->rotated % 2 != 0 || l->values > c->head_dim || c->kv_heads != c->heads)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/%s: an odd qk_rope_head_dim, values (v_head_dim %zu) larger than keys (%zu), or "
                      "fewer key-value heads than heads are not supported",
                      source->folder, source->file, l->values, c->head_dim);
  c->query_scalar = (double)c->head_dim;
  return GPTVQ_OK;
}

static gptvq_status read_layers(const gptvq_config_source *source, gptvq_config *c, size_t dense,
                                size_t shared, gptvq_error *err) {
  size_t step = 1;
  GPTVQ_TRY(gptvq_config_need(source, "moe_intermediate_size", err));
  GPTVQ_TRY(gptvq_config_need(source, "num_experts_per_tok", err));
  GPTVQ_TRY(gptvq_config_size(source, "moe_intermediate_size", 1, 1 << 22, &c->expert_intermediate, err));
  GPTVQ_TRY(gptvq_config_size(source, "n_shared_experts", 1, MAX_COUNT, &shared, err));
  c->shared_intermediate = shared * c->expert_intermediate;
  GPTVQ_TRY(gptvq_config_size(source, "moe_layer_freq", 1, MAX_COUNT, &step, err));
  if (step != 1) return refuse(source, "moe_layer_freq", "other than 1", err);
  GPTVQ_TRY(gptvq_config_size(source, "first_k_dense_replace", 0, MAX_COUNT, &dense, err));
  for (size_t i = 0; i < c->layers; i++) c->layer_dense[i] = i < dense;
  GPTVQ_TRY(gptvq_config_size(source, "num_nextn_predict_layers", 0, MAX_COUNT, &c->further_layers, err));
  GPTVQ_TRY(gptvq_config_size(source, "num_mtp_layers", 0, MAX_COUNT, &c->further_layers, err));
  return GPTVQ_OK;
}

/* Experts stand in groups of equal size, of which a token takes some. */
static gptvq_status read_groups(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  gptvq_router_rule *r = &c->router;
  GPTVQ_TRY(gptvq_config_size(source, "n_group", 1, c->experts, &r->groups, err));
  GPTVQ_TRY(gptvq_config_size(source, "topk_group", 1, c->experts, &r->used_groups, err));
  if (r->groups > 0 && c->experts % r->groups == 0 && r->used_groups > 0 && r->used_groups <= r->groups &&
      c->experts_per_token <= r->used_groups * (c->experts / r->groups))
    return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                    "%s/%s: %zu experts do not fall into n_group %zu groups of which topk_group %zu hold "
                    "num_experts_per_tok %zu",
                    source->folder, source->file, c->experts, r->groups, r->used_groups,
                    c->experts_per_token);
}

gptvq_status gptvq_config_read_deepseek(const gptvq_config_source *source, bool third, gptvq_config *c,
                                        gptvq_error *err) {
  char method[32] = "greedy", scores[32] = "softmax";
  gptvq_router_rule *r = &c->router;
  bool normalised = third;
  if (third) {
    strcpy(method, "noaux_tc");
    strcpy(scores, "sigmoid");
  }
  r->scale = third ? 2.5 : 1.0;
  r->sigmoid = third;
  r->groups = third ? 8 : 1;
  r->used_groups = third ? 4 : 1;
  GPTVQ_TRY(read_latent(source, c, err));
  GPTVQ_TRY(read_layers(source, c, third ? 3 : 0, third ? 1 : 2, err));
  GPTVQ_TRY(gptvq_config_number(source, "routed_scaling_factor", 1e-6, 1e6, &r->scale, err));
  GPTVQ_TRY(gptvq_config_bool(source, "norm_topk_prob", &normalised, err));
  GPTVQ_TRY(gptvq_config_text(source, "topk_method", method, sizeof method, err));
  GPTVQ_TRY(gptvq_config_text(source, "scoring_func", scores, sizeof scores, err));
  r->keeps_sum = !normalised;
  if (strcmp(scores, third ? "sigmoid" : "softmax") != 0) return refuse(source, "scoring_func", scores, err);
  if (!third && normalised) return refuse(source, "norm_topk_prob", "true", err);
  bool neighbours = true;
  if (third) GPTVQ_TRY(gptvq_config_bool(source, "rope_interleave", &neighbours, err));
  c->latent.halves = !neighbours;
  const bool grouped = strcmp(method, third ? "noaux_tc" : "group_limited_greedy") == 0;
  if (!grouped && (third || strcmp(method, "greedy") != 0)) return refuse(source, "topk_method", method, err);
  return grouped ? read_groups(source, c, err) : GPTVQ_OK;
}
