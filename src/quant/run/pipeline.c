/* gptvq_quantize: from one model folder to a packed one, block after block. */
#define _GNU_SOURCE /* clock_gettime, sysconf */
#include "quant/run/pipeline.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/sized.h"
#include "dist/dist.h"
#include "gguf/reader.h"
#include "linalg/gemm.h"
#include "linalg/gemm_bf16.h"
#include "train/guide.h"
#include "quant/plan/memory.h"
#include "quant/plan/sensitivity.h"
#include "quant/plan/time.h"
#include "quant/run/budget.h"
#include "quant/run/outside.h"
#include "quant/run/resume.h"
#include "quant/run/team.h"
#include "quant/options/options.h"

#include <gptvq/tokenizer.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct run {
  gptvq_resolved resolved;               /* calib_length: the model's, once it is open */
  const gptvq_quantize_options *options; /* of these, but for their check those of the caller */
  const char *model_dir, *out_dir;
  const gptvq_callbacks *callbacks;
  gptvq_dist dist;
  bool leads;                   /* alone, or member 0 of a team: the one that writes */
  uint64_t sent, sent_in_block; /* bytes that all members have sent for blocks; the most for one */
  gptvq_model *model;
  gptvq_model calibrating; /* the same, with the calibration's precision */
  gptvq_place device;      /* products and solver */
  gptvq_output out;
  gptvq_tensor_plan plan;
  gptvq_outside outside;
  gptvq_run_state state;
  gptvq_calibration calibration;
  bool needs_data, resumed, keep; /* keep: the work folder is worth resuming */
  gptvq_memory_plan memory;
  gptvq_stream_place place; /* of activations */
  gptvq_stream x, x_original;
  gptvq_pipeline pipeline;
  gptvq_guide guide;
  gptvq_allocation allocation;
  gptvq_workspace *workspace;
  gptvq_stages stages;
  gptvq_stage_sum estimate[GPTVQ_STAGES]; /* seconds 0: none */
  double start, cpu_start;
} run;

static gptvq_status open_input(run *r, gptvq_error *err) {
  gptvq_model_options options = {
      .size = sizeof options, .compute = GPTVQ_COMPUTE_FP32, .callbacks = r->callbacks};
  GPTVQ_TRY(gptvq_model_open(r->model_dir, &options, &r->model, err));
  GPTVQ_TRY(gptvq_pipeline_check_original(r->model, r->model_dir, err));
  GPTVQ_TRY(gptvq_budget_settle(r->model, r->callbacks, &r->resolved, err));
  if (r->needs_data)
    GPTVQ_TRY(gptvq_calibration_length(r->model, r->options, &r->resolved.options.calib_length, err));
  GPTVQ_TRY(gptvq_run_identity(r->model, &r->resolved, &r->state.identity, err));
  return gptvq_plan_create(r->model, &r->resolved, &r->plan, err);
}

/* A budget has said it already. */
static gptvq_status say_sizes(const run *r, gptvq_error *err) {
  gptvq_quantize_plan plan;
  if (r->options->model_bits > 0.0) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_plan_sizes(r->model, &r->plan, &r->resolved, &plan, err));
  gptvq_log(r->callbacks, GPTVQ_LOG_INFO, "sizes: %s, %s%.4f bits per weight, embedding %u, output head %u",
            plan.format, plan.allocates ? "at most " : "", plan.bits, plan.embedding_bits, plan.head_bits);
  return GPTVQ_OK;
}

/* A run that was interrupted before, as its state says; r->resumed stays false when there is nothing to
 * resume. */
static gptvq_status take_up(run *r, const json_t *saved, gptvq_error *err) {
  gptvq_run_state before;
  bool found;
  GPTVQ_TRY(gptvq_run_state_parse(&r->out, saved, &found, &before, err));
  if (!found) return GPTVQ_OK;
  gptvq_status status = gptvq_run_identity_compare(&r->out, before.identity, r->state.identity, err);
  if (status == GPTVQ_OK && before.blocks > r->plan.blocks)
    status = gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/resume.json is damaged: %zu of %zu blocks are finished",
                        r->out.work, before.blocks, r->plan.blocks);
  if (status != GPTVQ_OK) {
    gptvq_run_state_release(&before);
    return status;
  }
  json_decref(before.identity);
  before.identity = r->state.identity;
  r->state = before;
  r->resumed = true;
  return GPTVQ_OK;
}

/* Opens OUT.partial: a new run, or an interrupted one to go on with. */
static gptvq_status open_output(run *r, gptvq_error *err) {
  json_t *saved;
  gptvq_output *out = &r->out;
  gptvq_status status;
  GPTVQ_TRY(gptvq_output_open(out, &saved, err));
  r->keep = saved != NULL; /* until we know what it is */
  if (r->options->resume) {
    GPTVQ_TRY_GOTO(take_up(r, saved, err));
    r->keep = r->state.blocks > 0;
    if (r->resumed) goto done;
    gptvq_log(r->callbacks, GPTVQ_LOG_INFO, "nothing to resume in %s: starting from the first block",
              out->work);
  }
  r->keep = json_integer_value(json_object_get(saved, "blocks")) > 0;
  GPTVQ_TRY_GOTO(gptvq_output_begin(out, saved, r->state.identity, r->options->force, err));
  r->keep = false;
  status = gptvq_run_state_write(out, &r->state, err);
done:
  json_decref(saved);
  return status;
}

/* What sums over windows take on their way between processes. */
static double sum_buffers(const run *r) {
  size_t widest = 0;
  for (size_t b = 0; b < r->model->config.layers && r->needs_data; b++)
    for (size_t i = 0; i < r->model->blocks[b].linear_count; i++)
      widest = gptvq_max_size(widest, r->model->blocks[b].linears[i].cols);
  return (double)gptvq_sum_bytes(r->dist.team.count, widest, widest);
}

/* Decides what lies where, and says before hours of work when memory will not do. */
static gptvq_status plan_memory(run *r, gptvq_error *err) {
  const double now = (double)gptvq_resident_memory(), resident = now + sum_buffers(r),
               free_bytes = (double)gptvq_available_memory(), own = (double)r->options->memory_limit,
               neighbours = (double)r->dist.team.neighbours,
               available = free_bytes > 0.0 ? free_bytes / neighbours + now : 0.0;
  gptvq_memory_plan *plan = &r->memory;
  const gptvq_deal deal = gptvq_deal_of(r->options->calib_samples, r->dist.team.rank, r->dist.team.count);
  const size_t windows = gptvq_deal_count(&deal);
  gptvq_memory_plan_make(r->model, &r->resolved, windows, resident, own > 0.0 ? own : available, own > 0.0,
                         plan);
  GPTVQ_TRY(gptvq_team_agree(&r->dist, plan, err));
  gptvq_resolved without = r->resolved;
  without.options.mismatch = without.options.mismatch_stream = 0.0; /* no other member depends on these */
  gptvq_memory_plan simple;
  gptvq_memory_plan_make(r->model, &without, windows, resident, available, false, &simple);
  if (own > 0.0 && plan->peak > own) {
    gptvq_resolved plain = r->resolved, equal = r->resolved, untuned = r->resolved;
    gptvq_memory_plan unpacked, uniform, quantized;
    untuned.options.finetune_steps = 0;
    gptvq_memory_plan_make(r->model, &untuned, windows, resident, own, true, &quantized);
    equal.options.allocate = GPTVQ_ALLOCATE_UNIFORM;
    gptvq_memory_plan_make(r->model, &equal, windows, resident, own, true, &uniform);
    plain.options.embedding_bits = plain.options.head_bits = 16;
    gptvq_memory_plan_make(r->model, &plain, windows, resident, own, true, &unpacked);
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "%.0f MB (`memory_limit`) are not enough: with activations on disk and one Hessian at a "
        "time this takes %.0f MB; give as many%s%s%s%s",
        own * 1e-6, ceil(plan->least * 1e-6),
        quantized.least < plan->least ? ", or leave out fine-tuning of the model (`finetune_steps` 0)" : "",
        uniform.least < plan->least ? ", or give all layers equal sizes (`allocate` uniform)" : "",
        simple.least < plan->least ? ", or turn off `mismatch` and `mismatch_stream`" : "",
        unpacked.least < plan->least
            ? ", or leave embedding and head as they are (`embedding_bits`, `head_bits` 16)"
            : "");
  }
  char text[256];
  if (gptvq_memory_warning(plan->peak, simple.peak, available, text, sizeof text))
    gptvq_log(r->callbacks, GPTVQ_LOG_WARNING, "%s", text);
  if (plan->scratch && r->leads)
    gptvq_log(r->callbacks, GPTVQ_LOG_INFO, "calibration activations lie in scratch files in %s (%.1f GB)",
              r->out.work, plan->scratch_bytes * 1e-9);
  return GPTVQ_OK;
}

/* How long it should take: of a whole run in one process on the CPU. A run does without. */
static void plan_time(run *r) {
  double seconds = 0.0;
  if (!r->needs_data || r->resumed || r->device.device != NULL || !gptvq_dist_alone(&r->dist) ||
      !gptvq_time_plan_pays(r->model, &r->resolved))
    return;
  if (gptvq_time_plan_make(r->model, &r->resolved, &r->device.backend, &r->memory, r->estimate, NULL) !=
      GPTVQ_OK) {
    memset(r->estimate, 0, sizeof r->estimate);
    return;
  }
  for (size_t i = 0; i < GPTVQ_STAGES; i++) seconds += r->estimate[i].seconds;
  gptvq_log(r->callbacks, GPTVQ_LOG_INFO, "this takes about %.0f minutes", ceil(seconds / 60.0));
}

/* Where streams lie; the work folder is there. */
static gptvq_status choose_place(run *r, gptvq_error *err) {
  r->place = (gptvq_stream_place){gptvq_run_keeps_half(&r->resolved), NULL};
  if (!r->memory.scratch) return GPTVQ_OK;
  if (!gptvq_is_folder(r->out.work))
    return gptvq_fail(
        err, GPTVQ_ERROR_IO,
        "calibration activations need a scratch file in %s, which this machine does not have: give "
        "an output folder that all machines share, or more memory (`memory_limit`)",
        r->out.work);
  r->place.folder = r->out.work;
  return GPTVQ_OK;
}

/* The gradients of the loss, on windows that the team deals out. */
static gptvq_status find_gradients(run *r, const gptvq_token_windows *windows, double power,
                                   const gptvq_standing *standing, gptvq_guide *guide, gptvq_error *err) {
  size_t begin, end;
  gptvq_dist_own(&r->dist, windows->count, &begin, &end);
  const gptvq_stage before = gptvq_stage_enter(&r->stages, GPTVQ_STAGE_GRADIENT);
  const gptvq_gradient_flop flop = gptvq_gradient_flop_of(r->model, end - begin, windows->length);
  gptvq_stage_count(&r->stages, gptvq_calibration_precision(&r->calibrating), flop.calibrated);
  gptvq_stage_count(&r->stages, GPTVQ_IN_FP32, flop.plain);
  GPTVQ_TRY(gptvq_guide_create(&r->calibrating, windows, power, r->memory.guide_budget, &r->dist, standing,
                               guide, err));
  (void)gptvq_stage_enter(&r->stages, before);
  return GPTVQ_OK;
}

/* Sizes layer by layer, from a spread of the calibration windows. */
static gptvq_status allocate_bits(run *r, gptvq_error *err) {
  const gptvq_calibration *c = &r->calibration;
  gptvq_pipeline *p = &r->pipeline;
  if (!gptvq_run_allocates(&r->resolved) || !gptvq_allocation_has_choice(r->model, &r->resolved))
    return GPTVQ_OK;
  const size_t count = gptvq_min_size(gptvq_allocation_windows(&r->resolved.options), c->samples);
  int32_t *tokens = gptvq_alloc(count * c->length, sizeof *tokens);
  if (tokens == NULL)
    return gptvq_fail_memory(err, "calibration windows", count * c->length * sizeof *tokens);
  for (size_t i = 0; i < count; i++)
    memcpy(tokens + i * c->length, c->tokens + gptvq_allocation_window(i, count, c->samples) * c->length,
           c->length * sizeof *tokens);
  const gptvq_token_windows windows = {count, c->length, tokens};
  const gptvq_standing standing = {r->callbacks, 0, p->layers_total};
  gptvq_guide guide = {0};
  gptvq_status status;
  GPTVQ_TRY_GOTO(find_gradients(r, &windows, 1.0, &standing, &guide, err));
  const gptvq_stage before = gptvq_stage_enter(&r->stages, GPTVQ_STAGE_SENSITIVITY);
  GPTVQ_TRY_GOTO(gptvq_pipeline_allocate(&p->solver, &r->calibrating, &windows, &guide,
                                         r->memory.hessian_budget, &standing, &r->allocation, err));
  (void)gptvq_stage_enter(&r->stages, before);
  p->allocation = &r->allocation;
  gptvq_log(r->callbacks, GPTVQ_LOG_INFO,
            "allocation: %.4f bits per value of at most %.4f, predicted increase of the loss %.4f (%.4f with "
            "equal sizes)",
            8.0 * (double)r->allocation.bytes / (double)r->model->info.linear_values,
            8.0 * (double)r->allocation.budget / (double)r->model->info.linear_values, r->allocation.loss,
            r->allocation.loss_uniform);
done:
  gptvq_guide_release(&guide);
  free(tokens);
  return status;
}

/* The calibration tokens and their hash. written: what the model wrote in the run before, or NULL. */
static gptvq_status make_calibration(run *r, const gptvq_token_windows *written, char *hash,
                                     gptvq_error *err) {
  gptvq_calibration_release(&r->calibration);
  gptvq_stage before = gptvq_stage_enter(&r->stages, GPTVQ_STAGE_SAMPLE);
  GPTVQ_TRY(gptvq_calibration_create(r->model, r->model_dir, r->options, written, r->memory.room,
                                     r->callbacks, &r->calibration, err));
  (void)gptvq_stage_enter(&r->stages, before);
  gptvq_hash_text(r->calibration.hash, hash);
  return GPTVQ_OK;
}

/* Calibration tokens, the same ones as before when a run is resumed. */
static gptvq_status load_calibration(run *r, gptvq_error *err) {
  char hash[sizeof r->state.calibration_hash];
  const char *before = r->state.calibration_hash;
  gptvq_mapping file = {0};
  gptvq_token_windows written = {0};
  if (!r->leads) return gptvq_team_send_calibration(&r->dist, &r->calibration, err);
  if (r->options->calib == NULL || r->options->calib[0] == '\0')
    gptvq_log(
        r->callbacks, GPTVQ_LOG_INFO,
        "no calibration text is given: the model writes it (a text like those that it will see is better, "
        "`calib`)");
  if (r->resumed && before[0] != '\0')
    GPTVQ_TRY(gptvq_saved_tokens_map(&r->out, r->options->calib_length, &file, &written, err));
  gptvq_status status = make_calibration(r, &written, hash, err);
  gptvq_unmap_file(&file);
  GPTVQ_TRY(status);
  if (written.count > 0 && strcmp(hash, before) != 0) { /* the file may be damaged */
    written.count = 0;
    GPTVQ_TRY(make_calibration(r, NULL, hash, err));
  }
  if (before[0] != '\0' && strcmp(hash, before) != 0)
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "%s cannot be resumed: the calibration text gives other tokens than in the first run; give the "
        "same text, or start over with `force`",
        r->out.work);
  gptvq_model_rest(r->model);
  if (written.count == 0) GPTVQ_TRY(gptvq_saved_tokens_write(&r->out, &r->calibration, err));
  memcpy(r->state.calibration_hash, hash, sizeof hash);
  return gptvq_team_send_calibration(&r->dist, &r->calibration, err);
}

/* Embedding and head are packed before the first block, so that the blocks make up for what the embedding has
 * lost: with what the original's last norm gives for the head, where there are windows. An interrupted run
 * makes them anew. */
static gptvq_status pack_outside(run *r, const gptvq_token_windows *windows, gptvq_error *err) {
  const gptvq_outside_bits *bits = &r->plan.bits;
  gptvq_hessian hessian = {.values = NULL};
  gptvq_status status = GPTVQ_OK;
  if (bits->embedding == 16 && bits->head == 16) return GPTVQ_OK;
  if (windows != NULL && gptvq_outside_uses_hessian(r->model, r->options, bits))
    GPTVQ_TRY_GOTO(gptvq_outside_hessian(&r->pipeline, windows, &hessian, err));
  gptvq_stage before = gptvq_stage_enter(&r->stages, GPTVQ_STAGE_LOOP);
  status = gptvq_outside_pack(r->model, &r->pipeline.solver, bits, hessian.values, &r->outside, err);
  (void)gptvq_stage_enter(&r->stages, before);
done:
  gptvq_hessian_release(&hessian);
  return status;
}

/* The windows' embeddings, and what else is known of them beforehand. */
static gptvq_status prepare_data(run *r, gptvq_error *err) {
  const gptvq_calibration *c = &r->calibration;
  gptvq_pipeline *p = &r->pipeline;
  const size_t values = c->length * r->model->config.hidden;
  const gptvq_token_windows all = {c->samples, c->length, c->tokens};
  p->dist = &r->dist;
  p->deal = gptvq_deal_of(c->samples, r->dist.team.rank, r->dist.team.count);
  p->samples = gptvq_deal_count(&p->deal);
  p->held = c->block_held;
  p->length = c->length;
  p->place = r->place;
  GPTVQ_TRY(gptvq_stream_create(p->samples, values, p->place, "calibration activations", &r->x, err));
  p->x = &r->x;
  if (gptvq_run_keeps_both(&r->resolved)) {
    GPTVQ_TRY(gptvq_stream_create(p->samples, values, p->place,
                                  "calibration activations of the original model", &r->x_original, err));
    p->x_original = &r->x_original;
  }
  GPTVQ_TRY(allocate_bits(r, err));
  if (gptvq_run_is_guided(&r->resolved)) {
    const gptvq_standing standing = {r->callbacks, p->layers_done, p->layers_total};
    GPTVQ_TRY(find_gradients(r, &all, r->options->guide, &standing, &r->guide, err));
    p->guide = &r->guide;
  }
  GPTVQ_TRY(gptvq_workspace_create(r->model, 1, c->length, c->length, &r->workspace, err));
  p->workspace = r->workspace;
  GPTVQ_TRY(pack_outside(r, &all, err));
  p->embedding_packed = r->outside.embedding.is_packed;
  const gptvq_model embedded = gptvq_outside_embedded(r->model, &r->outside);
  GPTVQ_TRY(gptvq_embed_windows(&embedded, &all, &p->deal, p->x, err));
  gptvq_status status = GPTVQ_OK;
  if (p->x_original != NULL)
    status = p->embedding_packed ? gptvq_embed_windows(r->model, &all, &p->deal, p->x_original, err)
                                 : gptvq_stream_copy(p->x, p->x_original, err);
  gptvq_model_rest(r->model);
  return status;
}

static size_t first_layer(const run *r, size_t block) {
  size_t n = 0;
  for (size_t b = 0; b < block; b++) n += r->model->blocks[b].linear_count;
  return n;
}

/* Activations through the blocks that are finished. */
static gptvq_status replay_finished(run *r, gptvq_error *err) {
  r->pipeline.layers_done = first_layer(r, r->state.blocks);
  if (r->state.blocks == 0) return GPTVQ_OK;
  gptvq_log(r->callbacks, GPTVQ_LOG_INFO, "resuming after %zu of %zu blocks", r->state.blocks,
            r->plan.blocks);
  if (r->pipeline.x == NULL || r->state.blocks == r->plan.blocks)
    return GPTVQ_OK; /* nobody needs the activations */
  if (r->leads) {
    GPTVQ_TRY(gptvq_write_packed_config(&r->out, r->model, &r->resolved, NULL, -1, err));
    GPTVQ_TRY(gptvq_write_shard_index(&r->out, &r->plan, r->state.blocks, err));
  }
  return gptvq_pipeline_replay(&r->pipeline, r->model, &r->out, r->state.blocks, err);
}

/* What all members have sent for a block; this one had sent `before` when it began. */
static gptvq_status count_sent(run *r, uint64_t before, gptvq_error *err) {
  uint64_t sent = r->dist.sent - before;
  GPTVQ_TRY(gptvq_dist_total(&r->dist, &sent, 1, err));
  r->sent += sent;
  if (sent > r->sent_in_block) r->sent_in_block = sent;
  return GPTVQ_OK;
}

static gptvq_status quantize_blocks(run *r, gptvq_error *err) {
  const char *method = gptvq_method_name(r->options->method);
  for (size_t b = r->state.blocks; b < r->plan.blocks; b++) {
    const gptvq_block *block = &r->model->blocks[b];
    const uint64_t sent = r->dist.sent;
    gptvq_layer_result *results = calloc(block->linear_count, sizeof *results);
    if (results == NULL) return gptvq_fail_memory(err, "a block", block->linear_count * sizeof *results);
    gptvq_tuned_block tuned = {0};
    bool tune = r->pipeline.x_original != NULL && gptvq_run_tunes_blocks(&r->resolved);
    gptvq_status status = tune ? gptvq_pipeline_block_tuned(&r->pipeline, block, results, &tuned, err)
                               : gptvq_pipeline_block(&r->pipeline, block, results, err);
    if (status == GPTVQ_OK) {
      gptvq_stage before = gptvq_stage_enter(&r->stages, GPTVQ_STAGE_WRITE);
      gptvq_tuned vectors = {.block = &tuned.block};
      if (r->leads)
        status =
            gptvq_write_shard(&r->out, r->model, &r->plan, b, results, method, tune ? &vectors : NULL, err);
      (void)gptvq_stage_enter(&r->stages, before);
      for (size_t i = 0; i < block->linear_count; i++) gptvq_layer_result_release(&results[i]);
      gptvq_copies_release(&tuned.copies);
    }
    free(results);
    gptvq_place_say_crowded(&r->device, r->callbacks);
    GPTVQ_TRY(status);
    gptvq_block_rest(block);
    r->state.blocks = b + 1;
    if (r->leads) GPTVQ_TRY(gptvq_run_state_write(&r->out, &r->state, err));
    r->keep = r->leads;
    GPTVQ_TRY(count_sent(r, sent, err));
  }
  return GPTVQ_OK;
}

/* What only the blocks needed. */
static void release_blocks(run *r) {
  gptvq_stream_release(&r->x);
  gptvq_stream_release(&r->x_original);
  gptvq_guide_release(&r->guide);
  gptvq_workspace_destroy(r->workspace);
  r->workspace = r->pipeline.workspace = NULL;
  r->pipeline.x = r->pipeline.x_original = NULL;
  r->pipeline.guide = NULL;
}

/* The folder is complete and readable; afterwards it is so with fine-tuned shards. */
static gptvq_status finetune(run *r, gptvq_quantize_report *report, gptvq_error *err) {
  if (!r->state.finetuned) {
    gptvq_finetune_result result;
    GPTVQ_TRY(gptvq_pipeline_finetune(r->model, &r->out, &r->plan, &r->pipeline.solver, &r->calibration,
                                      r->place, &result, err));
    r->state.finetune_before = result.before;
    r->state.finetune_after = result.after;
    r->state.finetuned = true;
    GPTVQ_TRY(gptvq_run_state_write(&r->out, &r->state, err));
  }
  report->finetune_before = r->state.finetune_before;
  report->finetune_after = r->state.finetune_after;
  return gptvq_pipeline_take_tuned(&r->out, &r->plan, err);
}

/* The interrupted run had reached its end: OUT is complete, and what a kill left of the run goes. */
static gptvq_status finish_published(run *r, gptvq_quantize_report *report, gptvq_error *err) {
  json_t *saved;
  GPTVQ_TRY(gptvq_output_read_state(r->out.path, &saved, err));
  gptvq_status status = take_up(r, saved, err);
  json_decref(saved);
  if (status == GPTVQ_OK && !r->resumed)
    status =
        gptvq_fail(err, GPTVQ_ERROR_IO, "output folder %s exists; use `force` to replace it", r->out.path);
  if (status == GPTVQ_OK) status = gptvq_report_folder(r->out.path, report, err);
  if (status != GPTVQ_OK) return status;
  report->blocks_resumed = r->state.blocks;
  if (r->state.finetuned) {
    report->finetune_before = r->state.finetune_before;
    report->finetune_after = r->state.finetune_after;
  }
  return gptvq_output_settle(&r->out, err);
}

/* Everything but the blocks; then the folder is opened as any reader will, and what it says is the report. */
static gptvq_status finish(run *r, gptvq_quantize_report *report, gptvq_error *err) {
  const gptvq_calibration *calibration = r->needs_data ? &r->calibration : NULL;
  release_blocks(r);
  if (!r->state.finetuned) GPTVQ_TRY(gptvq_write_rest(&r->out, r->model, &r->plan, &r->outside, NULL, err));
  GPTVQ_TRY(gptvq_write_shard_index(&r->out, &r->plan, r->plan.blocks + 1, err));
  GPTVQ_TRY(gptvq_copy_side_files(r->model_dir, r->out.work, err));
  GPTVQ_TRY(gptvq_write_packed_config(&r->out, r->model, &r->resolved, calibration, -1, err));
  if (r->options->finetune_steps > 0) GPTVQ_TRY(finetune(r, report, err));
  GPTVQ_TRY(gptvq_report_folder(r->out.work, report, err));
  GPTVQ_TRY(
      gptvq_write_packed_config(&r->out, r->model, &r->resolved, calibration, report->bits_per_value, err));
  gptvq_stage before = gptvq_stage_enter(&r->stages, GPTVQ_STAGE_JUDGE);
  if (calibration != NULL)
    GPTVQ_TRY(gptvq_pipeline_judge(&r->calibrating, r->out.work, gptvq_place_forward(&r->device), calibration,
                                   r->callbacks, report, err));
  (void)gptvq_stage_enter(&r->stages, before);
  GPTVQ_TRY(gptvq_write_card(&r->out, r->model_dir, &r->resolved, calibration, report, err));
  gptvq_report_cost(&r->stages, r->start, r->cpu_start, report);
  GPTVQ_TRY(gptvq_write_record(&r->out, gptvq_checkpoint_bytes(r->model->checkpoint), report, err));
  return gptvq_output_publish(&r->out, r->callbacks, err);
}

static void choose_precision(run *r) {
  r->calibrating = *r->model;
  if (r->options->calib_compute != GPTVQ_COMPUTE_BF16) return;
  r->calibrating.compute = GPTVQ_COMPUTE_BF16;
  r->calibrating.rounds_attention = true;
}

static gptvq_status quantize(run *r, gptvq_quantize_report *report, gptvq_error *err) {
  uint64_t bytes;

  r->needs_data = gptvq_run_uses_data(&r->resolved);
  GPTVQ_TRY(gptvq_pipeline_settle_options(&r->resolved, err));
  if (!gptvq_is_folder(r->model_dir) && !gptvq_is_gguf(r->model_dir))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s is not a model folder", r->model_dir);
  if (r->leads)
    GPTVQ_TRY(
        gptvq_output_check(r->out_dir, r->model_dir, r->options->force, r->options->resume, &r->out, err));
  GPTVQ_TRY(open_input(r, err));
  GPTVQ_TRY(gptvq_team_check(&r->dist, &r->resolved, r->state.identity, err));
  bool published = r->out.published;
  GPTVQ_TRY(gptvq_dist_broadcast(&r->dist, &published, sizeof published, err));
  if (published) {
    if (r->leads) GPTVQ_TRY(finish_published(r, report, err));
    return gptvq_dist_broadcast(&r->dist, &published, sizeof published, err); /* the others wait for it */
  }
  GPTVQ_TRY(gptvq_blas_init(err));
  GPTVQ_TRY(gptvq_estimate_bytes(r->model, &r->plan, &r->resolved, &bytes, err));
  GPTVQ_TRY(gptvq_pipeline_check_layers(r->model, &r->resolved, err));
  GPTVQ_TRY(gptvq_outside_check(r->model, &r->resolved, &r->plan.bits, err));
  GPTVQ_TRY(plan_memory(r, err));
  GPTVQ_TRY(
      gptvq_pipeline_place(r->model, &r->resolved, &r->stages, &r->dist.team, r->callbacks, &r->device, err));
  GPTVQ_TRY(gptvq_team_check_place(&r->dist, &r->device, err));
  if (r->leads) GPTVQ_TRY(open_output(r, err));
  GPTVQ_TRY(say_sizes(r, err));
  GPTVQ_TRY(gptvq_team_send_state(&r->dist, &r->out, &r->state, &r->resumed, err));
  GPTVQ_TRY(choose_place(r, err));
  plan_time(r);
  if (r->leads && !r->resumed) GPTVQ_TRY(gptvq_output_check_space(&r->out, bytes, err));
  if (r->needs_data) GPTVQ_TRY(load_calibration(r, err));
  choose_precision(r);
  r->pipeline =
      (gptvq_pipeline){.model = &r->calibrating,
                       .solver = {&r->resolved, &r->device.backend, r->callbacks, &r->stages, &r->dist},
                       .forward = gptvq_place_forward(&r->device),
                       .hessian_budget = r->memory.hessian_budget,
                       .kept_budget = r->memory.kept_budget,
                       .layers_total = gptvq_model_layer_count(r->model)};
  if (r->needs_data) {
    GPTVQ_TRY(prepare_data(r, err));
    if (r->leads) GPTVQ_TRY(gptvq_run_state_write(&r->out, &r->state, err));
  } else {
    GPTVQ_TRY(pack_outside(r, NULL, err));
  }
  if (r->needs_data && gptvq_model_routes(r->model)) {
    report->expert_blocks = r->model->config.layers;
    report->experts = r->model->config.experts;
    const size_t count = report->expert_blocks * report->experts;
    report->expert_tokens = gptvq_alloc(count, sizeof *report->expert_tokens);
    if (report->expert_tokens == NULL)
      return gptvq_fail_memory(err, "tokens of experts", count * sizeof *report->expert_tokens);
    memset(report->expert_tokens, 0xff, count * sizeof *report->expert_tokens);
    r->pipeline.expert_tokens = report->expert_tokens;
  }
  report->blocks_resumed = r->state.blocks;
  GPTVQ_TRY(replay_finished(r, err));
  GPTVQ_TRY(quantize_blocks(r, err));
  if (r->leads) GPTVQ_TRY(finish(r, report, err));
  else release_blocks(r);
  bool done = true; /* the others wait until all is written */
  return gptvq_dist_broadcast(&r->dist, &done, sizeof done, err);
}

gptvq_status gptvq_quantize(const char *model_dir, const char *out_dir, const gptvq_quantize_options *options,
                            const gptvq_callbacks *callbacks, gptvq_quantize_report *report,
                            gptvq_error *err) {
  return gptvq_quantize_team(model_dir, out_dir, options, callbacks, NULL, report, err);
}

gptvq_status gptvq_quantize_team(const char *model_dir, const char *out_dir,
                                 const gptvq_quantize_options *options, const gptvq_callbacks *callbacks,
                                 const gptvq_team *team, gptvq_quantize_report *report, gptvq_error *err) {
  if (model_dir == NULL || options == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "gptvq_quantize needs a model folder and options");
  gptvq_callbacks own_callbacks = {.size = sizeof own_callbacks};
  gptvq_quantize_options own;
  GPTVQ_TRY(gptvq_options_take(options, &own, err));
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_callbacks, callbacks, &own_callbacks, err));
  GPTVQ_TRY(gptvq_check_result("gptvq_quantize_report", report, err));
  gptvq_quantize_report result = {.finetune_before = NAN, .finetune_after = NAN};
  run r = {.model_dir = model_dir,
           .out_dir = out_dir,
           .callbacks = &own_callbacks,
           .out.lock = -1,
           .start = gptvq_clock(),
           .cpu_start = gptvq_cpu_seconds()};
  r.options = &r.resolved.options;
  GPTVQ_TRY(gptvq_dist_create(team, &r.dist, err));
  r.leads = gptvq_dist_leads(&r.dist);
  if (!r.leads) own_callbacks.log = NULL;
  gptvq_stages_start(&r.stages);
  gptvq_status status = gptvq_resolve(&own, &r.resolved, err);
  if (status == GPTVQ_OK) status = quantize(&r, &result, err);
  if (status != GPTVQ_OK && r.leads && !r.keep) gptvq_output_discard(&r.out);
  if (status == GPTVQ_ERROR_CANCELLED && r.keep && err != NULL)
    (void)gptvq_fail(err, status,
                     "%s; the same options with `resume` go on after the last finished block, from %s",
                     err->message, r.out.work);
  gptvq_stream_release(&r.x);
  gptvq_stream_release(&r.x_original);
  gptvq_guide_release(&r.guide);
  gptvq_allocation_release(&r.allocation);
  gptvq_workspace_destroy(r.workspace);
  (void)snprintf(result.device, sizeof result.device, "%s", r.device.device != NULL ? r.device.name : "cpu");
  gptvq_place_close(&r.device);
  gptvq_calibration_release(&r.calibration);
  gptvq_run_state_release(&r.state);
  gptvq_outside_release(&r.outside);
  gptvq_plan_release(&r.plan);
  gptvq_output_release(&r.out);
  gptvq_model_close(r.model);
  gptvq_dist_release(&r.dist);
  if (status == GPTVQ_OK) {
    gptvq_report_cost(&r.stages, r.start, r.cpu_start, &result);
    if (r.needs_data) {
      bool rounds = r.options->calib_compute == GPTVQ_COMPUTE_BF16;
      result.calib_compute = rounds ? GPTVQ_COMPUTE_BF16 : GPTVQ_COMPUTE_FP32;
    }
    result.ranks = r.dist.team.count;
    result.sent_bytes = r.sent;
    result.sent_bytes_block = r.sent_in_block;
    result.estimated_peak_bytes = (uint64_t)r.memory.peak;
    for (size_t i = 0; i < GPTVQ_STAGES; i++) {
      result.stage_estimated_seconds[i] = r.estimate[i].seconds;
      result.estimated_seconds += r.estimate[i].seconds;
    }
    const bool given = report != NULL && report->size >= offsetof(gptvq_quantize_report, expert_tokens) +
                                                             sizeof result.expert_tokens;
    if (!given) gptvq_free(result.expert_tokens);
    gptvq_give_struct(&result, sizeof result, report);
  } else {
    gptvq_free(result.expert_tokens);
  }
  return status;
}
