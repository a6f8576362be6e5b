#include "quant/run/team.h"

#include "base/cpu.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/memory.h"
#include "checkpoint/packed_parts.h"
#include "linalg/gemm.h"
#include "quant/layer/layer.h"

#include <stdio.h>
#include <string.h>

/* ---- do the members belong together? ---- */

static gptvq_status hash_json(const json_t *json, uint64_t seed, uint64_t *hash, gptvq_error *err) {
  char *text = gptvq_json_dump(json, JSON_COMPACT | JSON_SORT_KEYS);
  if (text == NULL) return gptvq_fail_memory(err, "the description of the run", 0);
  *hash = gptvq_hash(seed, text, strlen(text));
  free(text);
  return GPTVQ_OK;
}

static gptvq_status fill(const gptvq_resolved *options, const json_t *identity, gptvq_passport *p,
                         gptvq_error *err) {
  const char *calib = options->options.calib != NULL ? options->options.calib : "";
  memset(p, 0, sizeof *p);
  (void)snprintf(p->version, sizeof p->version, "%s", gptvq_version());
  (void)snprintf(p->processor, sizeof p->processor, "%s, %s", gptvq_cpu_level_name(gptvq_cpu()),
                 gptvq_blas_core());
  GPTVQ_TRY(hash_json(json_object_get(identity, "model"), 0, &p->model, err));
  return hash_json(json_object_get(identity, "options"), gptvq_hash(0, calib, strlen(calib)), &p->options,
                   err);
}

static gptvq_status compare(const gptvq_passport *first, const gptvq_passport *other, size_t rank,
                            gptvq_error *err) {
  const char *what = NULL;
  if (strcmp(first->version, other->version) != 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "rank %zu is gptvq %s, rank 0 is %s: install the same on all machines", rank,
                      other->version, first->version);
  if (strcmp(first->processor, other->processor) != 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "rank %zu has another processor (%s) than rank 0 (%s), which rounds differently: take "
                      "machines of one kind, or give all of them GPTVQ_CPU and OPENBLAS_CORETYPE",
                      rank, other->processor, first->processor);
  if (first->model != other->model) what = "another model";
  else if (first->options != other->options) what = "other options";
  if (what == NULL) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "rank %zu has %s than rank 0: give all the same", rank, what);
}

static gptvq_status compare_all(gptvq_dist *dist, const gptvq_resolved *options, const json_t *identity,
                                gptvq_error *err) {
  gptvq_passport *all = gptvq_alloc(dist->team.count, sizeof *all);
  if (all == NULL) return gptvq_fail_memory(err, "a team", dist->team.count * sizeof *all);
  gptvq_status status = fill(options, identity, &all[dist->team.rank], err);
  if (status == GPTVQ_OK) status = gptvq_dist_gather(dist, all, sizeof *all, err);
  for (size_t r = 1; r < dist->team.count && status == GPTVQ_OK; r++)
    status = compare(&all[0], &all[r], r, err);
  free(all);
  return status;
}

gptvq_status gptvq_team_check(gptvq_dist *dist, const gptvq_resolved *options, const json_t *identity,
                              gptvq_error *err) {
  const gptvq_quantize_options *o = &options->options;
  if (gptvq_dist_alone(dist)) return GPTVQ_OK;
  if (gptvq_run_tunes_blocks(options))
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "`finetune_block_steps` needs all windows in one process: leave it out, or start gptvq "
                      "without mpirun");
  const gptvq_deal deal = gptvq_deal_of(o->calib_samples, 0, 1);
  if (gptvq_run_uses_data(options) && dist->team.count > deal.groups)
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "%zu ranks, but only %zu groups of the %zu calibration windows: start fewer, or give more windows "
        "(`calib_samples`; beyond %d four make a group, and there are %d at most)",
        dist->team.count, deal.groups, deal.windows, 4 * GPTVQ_FEW_GROUPS, GPTVQ_MAX_GROUPS);
  return compare_all(dist, options, identity, err);
}

gptvq_status gptvq_team_check_place(gptvq_dist *dist, const gptvq_place *place, gptvq_error *err) {
  typedef char kind[sizeof place->kind];
  if (gptvq_dist_alone(dist)) return GPTVQ_OK;
  kind *all = gptvq_alloc_zero(dist->team.count, sizeof *all);
  if (all == NULL) return gptvq_fail_memory(err, "a team", dist->team.count * sizeof *all);
  (void)snprintf(all[dist->team.rank], sizeof *all, "%s", place->kind);
  gptvq_status status = gptvq_dist_gather(dist, all, sizeof *all, err);
  for (size_t r = 1; r < dist->team.count && status == GPTVQ_OK; r++)
    if (strcmp(all[r], all[0]) != 0)
      status = gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                          "rank %zu computes on another `device` (%s) than rank 0 (%s), which rounds "
                          "differently: take cards of one kind for all, or cpu",
                          r, all[r], all[0]);
  free(all);
  return status;
}

/* ---- what member 0 tells ---- */

gptvq_status gptvq_team_agree(gptvq_dist *dist, gptvq_memory_plan *plan, gptvq_error *err) {
  if (gptvq_dist_alone(dist)) return GPTVQ_OK;
  size_t *all = gptvq_alloc(dist->team.count, 2 * sizeof *all);
  if (all == NULL) return gptvq_fail_memory(err, "a team", 2 * dist->team.count * sizeof *all);
  all[2 * dist->team.rank] = plan->hessian_budget;
  all[2 * dist->team.rank + 1] = plan->guide_budget;
  gptvq_status status = gptvq_dist_gather(dist, all, 2 * sizeof *all, err);
  for (size_t r = 0; r < dist->team.count && status == GPTVQ_OK; r++) {
    plan->hessian_budget = gptvq_min_size(plan->hessian_budget, all[2 * r]);
    plan->guide_budget = gptvq_min_size(plan->guide_budget, all[2 * r + 1]);
  }
  free(all);
  return status;
}

gptvq_status gptvq_team_send_state(gptvq_dist *dist, gptvq_output *out, gptvq_run_state *state, bool *resumed,
                                   gptvq_error *err) {
  struct {
    size_t blocks;
    double before, after;
    bool resumed, finetuned;
    char calibration_hash[sizeof state->calibration_hash], work[GPTVQ_PATH_MAX];
  } told;
  if (gptvq_dist_alone(dist)) return GPTVQ_OK;
  memset(&told, 0, sizeof told);
  if (gptvq_dist_leads(dist)) {
    told.blocks = state->blocks;
    told.before = state->finetune_before;
    told.after = state->finetune_after;
    told.resumed = *resumed;
    told.finetuned = state->finetuned;
    memcpy(told.calibration_hash, state->calibration_hash, sizeof told.calibration_hash);
    (void)snprintf(told.work, sizeof told.work, "%s", out->work);
  }
  GPTVQ_TRY(gptvq_dist_broadcast(dist, &told, sizeof told, err));
  if (gptvq_dist_leads(dist)) return GPTVQ_OK;
  state->blocks = told.blocks;
  state->finetune_before = told.before;
  state->finetune_after = told.after;
  state->finetuned = told.finetuned;
  memcpy(state->calibration_hash, told.calibration_hash, sizeof told.calibration_hash);
  *resumed = told.resumed;
  out->work = strdup(told.work);
  return out->work != NULL ? GPTVQ_OK : gptvq_fail_memory(err, "a path", strlen(told.work) + 1);
}

gptvq_status gptvq_team_send_calibration(gptvq_dist *dist, gptvq_calibration *c, gptvq_error *err) {
  if (gptvq_dist_alone(dist)) return GPTVQ_OK;
  gptvq_calibration told = *c;
  GPTVQ_TRY(gptvq_dist_broadcast(dist, &told, sizeof told, err));
  const size_t windows = told.samples + told.held + told.judged_text + told.judged_self,
               bytes = windows * told.length * sizeof *c->tokens;
  if (!gptvq_dist_leads(dist)) {
    told.tokens = gptvq_alloc(bytes, 1);
    told.written = NULL;
    told.written_count = 0;
    *c = told;
    if (c->tokens == NULL) return gptvq_fail_memory(err, "calibration windows", bytes);
  }
  return gptvq_dist_broadcast(dist, c->tokens, bytes, err);
}

gptvq_status gptvq_team_send_packed(gptvq_dist *dist, gptvq_packed *packed, void **owned, gptvq_error *err) {
  gptvq_packed_part parts[GPTVQ_PART_COUNT];
  if (gptvq_dist_alone(dist)) return GPTVQ_OK;
  gptvq_packed_shape shape = packed->shape;
  GPTVQ_TRY(gptvq_dist_broadcast(dist, &shape, sizeof shape, err));
  if (!gptvq_dist_leads(dist)) {
    gptvq_layer_result result = {.storage = NULL};
    GPTVQ_TRY(gptvq_packed_allocate(&shape, &result, err));
    *packed = result.packed;
    *owned = result.storage;
  }
  gptvq_packed_parts(&shape, parts);
  for (int i = 0; i < GPTVQ_PART_COUNT; i++) {
    if (!parts[i].present) continue;
    size_t bytes = gptvq_tensor_type_size(parts[i].type);
    for (size_t d = 0; d < parts[i].rank; d++) bytes *= parts[i].dims[d];
    void *data = (void *)(uintptr_t)gptvq_packed_part_data(packed, (enum gptvq_part)i); /* 0's is only read */
    GPTVQ_TRY(gptvq_dist_broadcast(dist, data, bytes, err));
  }
  return GPTVQ_OK;
}
