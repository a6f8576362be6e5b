/* What a run has finished before it was interrupted, read back. */
#include "quant/run/pipeline.h"
#include "base/memory.h"
#include "quant/run/team.h"

/* The packed layers of a finished block, and what they lie in. */
typedef struct finished {
  gptvq_block copy;
  gptvq_copies copies;
  void **owned; /* [count] */
  size_t count;
} finished;

static void release(finished *f) {
  for (size_t i = 0; f->owned != NULL && i < f->count; i++) free(f->owned[i]);
  free(f->owned);
  free(f->copy.linears);
  gptvq_copies_release(&f->copies);
  *f = (finished){.count = 0};
}

/* Of member 0, which alone has the shards. */
static gptvq_status read_layer(const gptvq_checkpoint *shards, const gptvq_output *out,
                               const gptvq_linear *linear, gptvq_packed *packed, void **owned,
                               gptvq_error *err) {
  gptvq_packed_info info;
  GPTVQ_TRY(gptvq_checkpoint_get_packed(shards, linear->name, packed, &info, owned, err));
  if (packed->shape.rows == linear->rows && packed->shape.cols == linear->cols) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                    "%s: %s has another shape than the model's; start over with `force`", out->work,
                    linear->name);
}

static gptvq_status read_block(const gptvq_pipeline *p, const gptvq_checkpoint *shards,
                               const gptvq_output *out, const gptvq_block *block, finished *f,
                               gptvq_error *err) {
  GPTVQ_TRY(gptvq_block_copy(block, &f->copy, err));
  f->owned = calloc(block->linear_count, sizeof *f->owned);
  if (f->owned == NULL) return gptvq_fail_memory(err, "a block", block->linear_count * sizeof *f->owned);
  f->count = block->linear_count;
  for (size_t i = 0; i < block->linear_count; i++) {
    gptvq_packed packed;
    if (shards != NULL) GPTVQ_TRY(read_layer(shards, out, &block->linears[i], &packed, &f->owned[i], err));
    if (p->dist != NULL) GPTVQ_TRY(gptvq_team_send_packed(p->dist, &packed, &f->owned[i], err));
    gptvq_linear_set_packed(&f->copy.linears[i], &packed);
  }
  if (p->solver.options->options.finetune_block_steps == 0) return GPTVQ_OK;
  return gptvq_copy_vectors(p->model, shards, &f->copy, &f->copies, err);
}

gptvq_status gptvq_pipeline_replay(const gptvq_pipeline *p, const gptvq_model *model, const gptvq_output *out,
                                   size_t blocks, gptvq_error *err) {
  gptvq_checkpoint *shards = NULL;
  const bool leads = p->dist == NULL || gptvq_dist_leads(p->dist);
  if (leads) GPTVQ_TRY(gptvq_checkpoint_open(out->work, NULL, &shards, err));
  gptvq_status status = GPTVQ_OK;
  for (size_t b = 0; b < blocks && status == GPTVQ_OK; b++) {
    const gptvq_block *block = &model->blocks[b];
    finished f = {.count = 0};
    status = read_block(p, shards, out, block, &f, err);
    if (status == GPTVQ_OK) status = gptvq_pipeline_run(p, &f.copy, block, err);
    gptvq_block_rest(block);
    release(&f);
  }
  gptvq_checkpoint_close(shards);
  return status;
}
