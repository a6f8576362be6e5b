/* quant/run/pipeline.h: the parts of gptvq_quantize: one block (block.c), its files (write.c),
 * the whole (pipeline.c). */
#ifndef GPTVQ_QUANT_RUN_PIPELINE_H
#define GPTVQ_QUANT_RUN_PIPELINE_H

#include "model/model_internal.h"
#include "calib/calib.h"
#include "checkpoint/output.h"
#include "cuda/place.h"
#include "dist/dist.h"
#include "quant/layer/solver.h"
#include "quant/plan/outside.h"
#include "train/finetune.h"

/* What quantizing the blocks of one model takes. `x` holds the activations of all calibration windows as they
 * enter the current block, [length × hidden] a window. It and the workspace are NULL for the methods
 * without data. */
typedef struct gptvq_pipeline {
  const gptvq_model *model;
  gptvq_solver solver;    /* with the options of the run, and whom to report to */
  size_t samples, length; /* windows of x */
  gptvq_dist *dist;       /* those who work on the model together; NULL: one */
  gptvq_deal deal;        /* what of all windows x has; windows 0: all */
  size_t held;            /* the last of the samples: block-wise fine-tuning does not train on them */
  const gptvq_stream *x;
  const gptvq_stream
      *x_original; /* the same windows as the original model's blocks pass them on; NULL: not needed */
  gptvq_stream_place place;                  /* of further streams */
  const struct gptvq_allocation *allocation; /* sizes layer by layer; NULL: those of the options */
  const struct gptvq_guide *guide;           /* token weights of the Hessians; NULL: all 1 */
  gptvq_workspace *workspace;                /* one block, `length` positions */
  const gptvq_forward *forward;              /* of the place; NULL: the CPU */
  size_t hessian_budget; /* bytes of Hessians kept at a time (at least one is); more take further passes */
  size_t kept_budget; /* bytes of layer inputs kept to save forward passes; the results do not depend on it */
  size_t layers_done, layers_total;
  bool embedding_packed;   /* x begins with a packed embedding's rows, x_original with the original's */
  uint64_t *expert_tokens; /* [layers × experts] that each is calibrated with; NULL: not asked */
} gptvq_pipeline;

/* Quantizes all linears of `block` into results[block->linear_count] and, with data, moves x through the
 * quantized block. Every layer is reported as progress ("quantize", its relative error), every window of a
 * calibration pass too (value NaN). On success the caller releases all results; on failure there is nothing
 * to release and x is unspecified. */
gptvq_status gptvq_pipeline_block(gptvq_pipeline *pipeline, const gptvq_block *block,
                                  gptvq_layer_result *results, gptvq_error *err);
/* x moves through `block` and x_original through `original` (with data only). */
gptvq_status gptvq_pipeline_run(const gptvq_pipeline *pipeline, const gptvq_block *block,
                                const gptvq_block *original, gptvq_error *err);

/* x and x_original through the first `blocks` blocks, which out->work has packed; only member 0 of a team
 * reads there. */
gptvq_status gptvq_pipeline_replay(const gptvq_pipeline *pipeline, const gptvq_model *model,
                                   const gptvq_output *out, size_t blocks, gptvq_error *err);

/* A copy of `block` whose linears may be replaced; the rest is shared. GPTVQ_ERROR_MEMORY. Release with
 * free(copy->linears). */
gptvq_status gptvq_block_copy(const gptvq_block *block, gptvq_block *copy, gptvq_error *err);
void gptvq_linear_set_packed(gptvq_linear *linear, const gptvq_packed *packed);

/* ---- files (write.c) ---- */
/* Which tensors of the original folder go where. */
typedef struct gptvq_tensor_plan {
  size_t count, blocks;
  size_t *place; /* [count] by checkpoint order: block index, gptvq_place_rest, gptvq_place_packed or
                    gptvq_place_replaced */
  gptvq_outside_bits bits;
} gptvq_tensor_plan;
#define gptvq_place_rest SIZE_MAX           /* embeddings, head, final norm: the last shard */
#define gptvq_place_replaced (SIZE_MAX - 1) /* NAME.weight of a linear that is quantized */
#define gptvq_place_packed (SIZE_MAX - 2)   /* embedding or head that is packed, in the last shard */
gptvq_status gptvq_plan_create(const gptvq_model *model, const gptvq_resolved *options,
                               gptvq_tensor_plan *plan, gptvq_error *err);
void gptvq_plan_release(gptvq_tensor_plan *plan);

/* Fine-tuned vectors that take the place of the original's: norms and biases of a block, the final norm. */
typedef struct gptvq_tuned {
  const gptvq_block *block; /* or NULL */
  const float *final_norm;  /* or NULL */
} gptvq_tuned;
/* Packed layers of the block, then its other tensors in their original types. tuned NULL: all other tensors
 * as they were. */
gptvq_status gptvq_write_shard(const gptvq_output *out, const gptvq_model *model,
                               const gptvq_tensor_plan *plan, size_t shard, const gptvq_layer_result *results,
                               const char *method, const gptvq_tuned *tuned, gptvq_error *err);
/* The index over the first `shards` shards. */
gptvq_status gptvq_write_shard_index(const gptvq_output *out, const gptvq_tensor_plan *plan, size_t shards,
                                     gptvq_error *err);
/* README.md: a model card. model_dir names the original; of the report what stands in the folder. */
gptvq_status gptvq_write_card(const gptvq_output *out, const char *model_dir, const gptvq_resolved *options,
                              const gptvq_calibration *calibration, const gptvq_quantize_report *report,
                              gptvq_error *err);

/* GPTVQ_RECORD_NAME: times, memory, tokens of experts and what was lost, of the report. original_bytes: of
 * the input's tensors. */
gptvq_status gptvq_write_record(const gptvq_output *out, uint64_t original_bytes,
                                const gptvq_quantize_report *report, gptvq_error *err);

/* config.json: the original's plus "quantization_config". calibration NULL: none; bits_per_value < 0: not
 * known yet. */
gptvq_status gptvq_write_packed_config(const gptvq_output *out, const gptvq_model *model,
                                       const gptvq_resolved *options, const gptvq_calibration *calibration,
                                       double bits_per_value, gptvq_error *err);
/* Bytes that the packed layers will take; those that they may take at most where sizes are allocated. */
gptvq_status gptvq_estimate_layers(const gptvq_model *model, const gptvq_resolved *options, uint64_t *bytes,
                                   gptvq_error *err);
/* Bytes that the output will take, headers aside. */
gptvq_status gptvq_estimate_bytes(const gptvq_model *model, const gptvq_tensor_plan *plan,
                                  const gptvq_resolved *options, uint64_t *bytes, gptvq_error *err);

/* The members of a plan that say what sizes were chosen (dry.c): format, bits, embedding_bits, head_bits. */
gptvq_status gptvq_plan_sizes(const gptvq_model *model, const gptvq_tensor_plan *tensors,
                              const gptvq_resolved *options, gptvq_quantize_plan *out, gptvq_error *err);

/* ---- before the first block (check.c) ---- */
/* Refuses options that do not go together or not on this processor; calib_compute auto becomes what it is
 * here. */
gptvq_status gptvq_pipeline_settle_options(gptvq_resolved *options, gptvq_error *err);
/* GPTVQ_ERROR_UNSUPPORTED: the model is packed, whatever config.json says, or says to be. */
gptvq_status gptvq_pipeline_check_original(const gptvq_model *model, const char *model_dir, gptvq_error *err);
/* The device that the options ask for (place.c): its errors come before any work. The options are settled. On
 * success the caller closes *out. */
gptvq_status gptvq_pipeline_place(const gptvq_model *model, const gptvq_resolved *options,
                                  gptvq_stages *stages, const gptvq_team *team,
                                  const gptvq_callbacks *callbacks, gptvq_place *out, gptvq_error *err);
/* GPTVQ_ERROR_NUMERIC: fp16 scales do not hold the weights of a linear of this uniform shape; instead: what
 * to do then, NULL: what other methods do. */
gptvq_status gptvq_check_linear(const gptvq_linear *linear, const gptvq_packed_shape *shape,
                                const char *instead, gptvq_error *err);
/* The first such linear of the blocks, if the method is uniform. */
gptvq_status gptvq_pipeline_check_layers(const gptvq_model *model, const gptvq_resolved *options,
                                         gptvq_error *err);

/* ---- the honest end (judge.c) ---- */
/* What the packed model of `folder` has lost against the original on windows that calibration did not see,
 * into the report: of the texts, and of what the model writes. forward: as gptvq_compare_windows. Numbers
 * that are not finite there are a warning. */
gptvq_status gptvq_pipeline_judge(const gptvq_model *original, const char *folder,
                                  const gptvq_forward *forward, const gptvq_calibration *calibration,
                                  const gptvq_callbacks *callbacks, gptvq_quantize_report *report,
                                  gptvq_error *err);

/* ---- the report (report.c) ---- */
/* What the folder says of itself, opened as any reader will. */
gptvq_status gptvq_report_folder(const char *folder, gptvq_quantize_report *report, gptvq_error *err);
/* What the run took so far: stages, and times since `start` and `cpu_start` of base/clock.h. */
void gptvq_report_cost(gptvq_stages *stages, double start, double cpu_start, gptvq_quantize_report *report);

/* ---- fine-tuning (tune.c) ---- */
typedef struct gptvq_copies { /* memory that belongs together */
  void **items;
  size_t count, size;
} gptvq_copies;
void gptvq_copies_release(gptvq_copies *copies);
/* A block whose norms and biases are its own. */
typedef struct gptvq_tuned_block {
  gptvq_block block;
  gptvq_copies copies;
} gptvq_tuned_block;

/* As gptvq_pipeline_block, and then the block is fine-tuned for options->finetune_block_steps steps towards
 * x_original (needed), which changes the results' codebooks and scales in place. On success the caller also
 * releases tuned->copies. */
gptvq_status gptvq_pipeline_block_tuned(gptvq_pipeline *pipeline, const gptvq_block *block,
                                        gptvq_layer_result *results, gptvq_tuned_block *tuned,
                                        gptvq_error *err);
/* Norms and biases of `block` become copies, with the values that `shards` has for them if it is not NULL. */
gptvq_status gptvq_copy_vectors(const gptvq_model *model, const gptvq_checkpoint *shards, gptvq_block *block,
                                gptvq_copies *copies, gptvq_error *err);
/* Fine-tunes the finished packed model in out->work and writes all its shards anew into the folder
 * "finetuned" inside out->work. place: of activations. GPTVQ_ERROR_MEMORY before any work when it cannot fit.
 */
gptvq_status gptvq_pipeline_finetune(const gptvq_model *model, const gptvq_output *out,
                                     const gptvq_tensor_plan *plan, const gptvq_solver *solver,
                                     const gptvq_calibration *calibration, gptvq_stream_place place,
                                     gptvq_finetune_result *result, gptvq_error *err);
/* Moves those shards over the first ones. May be repeated after an interruption. */
gptvq_status gptvq_pipeline_take_tuned(const gptvq_output *out, const gptvq_tensor_plan *plan,
                                       gptvq_error *err);

#endif
