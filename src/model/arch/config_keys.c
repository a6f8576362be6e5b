/* Which keys of a config.json are understood. A key that nothing here knows may change what the model
 * computes: it is refused by name. */
#include "model/arch/arch.h"

#include <string.h>

/* Read for every family (config.c, config_rope.c, and by whoever loads the model). */
static const char *const common[] = {"architectures",
                                     "attention_bias",
                                     "bos_token_id",
                                     "dtype",
                                     "eos_token_id",
                                     "head_dim",
                                     "hidden_act",
                                     "hidden_size",
                                     "intermediate_size",
                                     "layer_types",
                                     "max_position_embeddings",
                                     "max_window_layers",
                                     "mlp_bias",
                                     "model_type",
                                     "num_attention_heads",
                                     "num_experts_per_tok",
                                     "num_hidden_layers",
                                     "num_key_value_heads",
                                     "num_local_experts",
                                     "original_max_position_embeddings",
                                     "partial_rotary_factor",
                                     "quantization_config",
                                     "rms_norm_eps",
                                     "rope_parameters",
                                     "rope_scaling",
                                     "rope_theta",
                                     "sliding_window",
                                     "tie_word_embeddings",
                                     "torch_dtype",
                                     "use_sliding_window",
                                     "vocab_size"};

/* These change nothing of what a model computes when it is used: training, generation (which has a file and
 * options of its own), other tasks, how the weights were made or are to be run. From transformers'
 * PreTrainedConfig of all its versions, its configs' own such keys, and what the hub's tools add. */
static const char *const harmless[] = {"_attn_implementation",
                                       "_attn_implementation_autoset",
                                       "_attn_implementation_internal",
                                       "_commit_hash",
                                       "_experts_implementation",
                                       "_flash_attn_2_enabled",
                                       "_name_or_path",
                                       "_output_attentions",
                                       "attention_dropout",
                                       "attention_probs_dropout_prob",
                                       "attn_implementation",
                                       "attn_pdrop",
                                       "auto_map",
                                       "aux_loss_alpha",
                                       "bad_words_ids",
                                       "base_model_pp_plan",
                                       "base_model_tp_plan",
                                       "begin_suppress_tokens",
                                       "bos_token",
                                       "cache_implementation",
                                       "classifier_dropout",
                                       "cls_token_id",
                                       "decoder_start_token_id",
                                       "diversity_penalty",
                                       "do_sample",
                                       "dropout",
                                       "early_stopping",
                                       "embd_pdrop",
                                       "embedding_dropout",
                                       "encoder_no_repeat_ngram_size",
                                       "eos_token",
                                       "exponential_decay_length_penalty",
                                       "ffn_dropout",
                                       "finetuning_task",
                                       "forced_bos_token_id",
                                       "forced_eos_token_id",
                                       "gradient_checkpointing",
                                       "hidden_dropout",
                                       "hidden_dropout_prob",
                                       "id2label",
                                       "initializer_factor",
                                       "initializer_range",
                                       "is_decoder",
                                       "is_llama_config",
                                       "label2id",
                                       "layerdrop",
                                       "length_penalty",
                                       "mask_token_id",
                                       "max_length",
                                       "max_sequence_length",
                                       "min_length",
                                       "model_max_length",
                                       "neftune_noise_alpha",
                                       "no_repeat_ngram_size",
                                       "num_beam_groups",
                                       "num_beams",
                                       "num_labels",
                                       "num_return_sequences",
                                       "output_attentions",
                                       "output_hidden_states",
                                       "output_router_logits",
                                       "output_scores",
                                       "pad_token",
                                       "pad_token_id",
                                       "prefix",
                                       "pretraining_tp",
                                       "problem_type",
                                       "remove_invalid_values",
                                       "repetition_penalty",
                                       "resid_pdrop",
                                       "residual_dropout",
                                       "return_dict",
                                       "return_dict_in_generate",
                                       "router_aux_loss_coef",
                                       "router_jitter_noise",
                                       "sep_token_id",
                                       "suppress_tokens",
                                       "task_specific_params",
                                       "temperature",
                                       "tf_legacy_loss",
                                       "tie_encoder_decoder",
                                       "tokenizer_class",
                                       "tokenizer_model_max_length",
                                       "tokenizer_padding_side",
                                       "top_k",
                                       "top_p",
                                       "torchscript",
                                       "training",
                                       "transformers.js_config",
                                       "transformers_version",
                                       "typical_p",
                                       "unk_token_id",
                                       "unsloth_fixed",
                                       "unsloth_training_dtype",
                                       "unsloth_version",
                                       "use_bfloat16",
                                       "use_cache",
                                       "use_flash_attn",
                                       "use_return_dict"};

/* Switches that no family here knows but that configs carry turned off: false, or empty. */
static const char *const off[] = {"add_cross_attention",
                                  "alibi",
                                  "cross_attention_hidden_size",
                                  "is_encoder_decoder",
                                  "pruned_heads",
                                  "chunk_size_feed_forward",
                                  "lm_head_bias",
                                  "qk_layernorm",
                                  "rope_interleaved",
                                  "use_mrope"};

/* Inside of rope_scaling and rope_parameters, for whatever type. */
static const char *const rope_keys[] = {"attention_factor",
                                        "beta_fast",
                                        "beta_slow",
                                        "factor",
                                        "finetuned", /* said of a checkpoint, read by nobody */
                                        "high_freq_factor",
                                        "long_factor",
                                        "low_freq_factor",
                                        "mscale",
                                        "mscale_all_dim",
                                        "original_max_position_embeddings",
                                        "partial_rotary_factor",
                                        "rope_theta",
                                        "rope_type",
                                        "short_factor",
                                        "truncate",
                                        "type"};

/* With rules->query_growth; the length is that of config.json again. */
static const char *const growth_keys[] = {"llama_4_scaling_beta", "max_position_embeddings"};

static bool is_listed(const char *const *list, size_t count, const char *key) {
  for (size_t i = 0; i < count; i++)
    if (list[i] != NULL && strcmp(list[i], key) == 0) return true;
  return false;
}
#define IS_LISTED(list, key) is_listed(list, sizeof(list) / sizeof *(list), key)

static bool is_own(const gptvq_config_rules *rules, const char *key) {
  for (const char *const *own = rules->own_keys; own != NULL && *own != NULL; own++)
    if (strcmp(*own, key) == 0) return true;
  return false;
}

static bool is_off(const json_t *value) {
  return json_is_false(value) || (json_is_number(value) && json_number_value(value) == 0.0) ||
         (json_is_object(value) && json_object_size(value) == 0) ||
         (json_is_array(value) && json_array_size(value) == 0);
}

gptvq_status gptvq_config_check_keys(const gptvq_config_source *source, const char *architecture,
                                     const gptvq_config_rules *rules, gptvq_error *err) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)source->object, key, value) {
    if (json_is_null(value) || IS_LISTED(common, key) || IS_LISTED(harmless, key) || is_own(rules, key))
      continue;
    if (IS_LISTED(off, key) && is_off(value)) continue;
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/%s: %s%s is not a key that is known for %s, and may change what the model "
                      "computes: if it does not, remove it from the file",
                      source->folder, source->file, source->prefix, key, architecture);
  }
  return GPTVQ_OK;
}

static gptvq_status fail_rope_key(const gptvq_config_source *source, const char *key, gptvq_error *err) {
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                    "%s/%s: %s%s is not a known key of rotary embeddings, and may change what the model "
                    "computes: if it does not, remove it from the file",
                    source->folder, source->file, source->prefix, key);
}

gptvq_status gptvq_config_check_rope_keys(const gptvq_config_source *source, const gptvq_config_rules *rules,
                                          gptvq_error *err) {
  static const char *const shared[] = {"mrope_interleaved", "mrope_section"};
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)source->object, key, value) {
    if (json_is_null(value) || IS_LISTED(rope_keys, key)) continue;
    if (rules->mrope && IS_LISTED(shared, key)) continue;
    if (!rules->query_growth || !IS_LISTED(growth_keys, key)) return fail_rope_key(source, key, err);
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_config_check_rope_kinds(const gptvq_config_source *source, const char *first,
                                           const char *second, gptvq_error *err) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)source->object, key, value) {
    if (!json_is_null(value) && strcmp(key, first) != 0 && strcmp(key, second) != 0)
      return fail_rope_key(source, key, err);
  }
  return GPTVQ_OK;
}
