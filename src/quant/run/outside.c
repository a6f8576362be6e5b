/* Embedding and output head from their rows to packed layers, a slab of rows at a time: the codes of a row
 * depend on that row and on the Hessian alone. */
#include "quant/run/outside.h"

#include "base/memory.h"
#include "checkpoint/names.h"
#include "linalg/gemm.h"
#include "quant/layer/half_scales.h"
#include "quant/layer/layer.h"
#include "quant/plan/memory.h"
#include "quant/run/head.h"
#include "quant/run/team.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void say_instead(bool head, char text[64]) {
  (void)snprintf(text, 64, "`%s` 16 keeps it as it is", head ? "head_bits" : "embedding_bits");
}

gptvq_status gptvq_outside_check(const gptvq_model *model, const gptvq_resolved *options,
                                 const gptvq_outside_bits *bits, gptvq_error *err) {
  const gptvq_linear *const matrices[2] = {&model->embedding, &model->head};
  const unsigned wanted[2] = {bits->embedding, bits->head};
  for (size_t i = 0; i < 2; i++) {
    char instead[64];
    say_instead(i == 1, instead);
    const gptvq_packed_shape shape =
        gptvq_outside_shape(&options->options, matrices[i]->rows, matrices[i]->cols, wanted[i]);
    if (wanted[i] < 8 && shape.kind == GPTVQ_PACKED_UNIFORM)
      GPTVQ_TRY(gptvq_check_linear(matrices[i], &shape, instead, err));
  }
  return GPTVQ_OK;
}

/* ---- the Hessian ---- */

static gptvq_status add_window(const gptvq_pipeline *p, size_t slot, float *x, float *norm,
                               gptvq_hessian *sum, gptvq_error *err) {
  const size_t hidden = p->model->config.hidden;
  GPTVQ_TRY(gptvq_stream_read(p->x, slot, x, err));
  GPTVQ_TRY(gptvq_final_norm(p->model, p->length, x, norm, err));
  return gptvq_hessian_add(sum, p->length, norm, hidden, err);
}

static gptvq_status add_windows(const gptvq_pipeline *p, float *x, float *norm, gptvq_hessian *sum,
                                gptvq_error *err) {
  size_t slot = 0, begin, end;
  for (size_t round = 0; round < gptvq_deal_rounds(&p->deal); round++) {
    gptvq_deal_round(&p->deal, round, &begin, &end);
    for (size_t w = begin; w < end; w++) GPTVQ_TRY(add_window(p, slot++, x, norm, sum, err));
    gptvq_stage_count(p->solver.stages, GPTVQ_IN_FP32,
                      (double)((end - begin) * p->length) * (double)sum->cols * (double)(sum->cols + 1));
    GPTVQ_TRY(gptvq_hessian_add_group(sum, p->dist, &p->deal, round, err));
  }
  return gptvq_hessian_gather(sum, p->dist, err);
}

/* A spread of the windows into x, and of them what this member has: as many groups as of all windows, so that
 * none of its streams is too short, nor any member without work. */
static gptvq_status embed_some(gptvq_pipeline *p, const gptvq_token_windows *windows, gptvq_error *err) {
  const size_t length = windows->length, count = gptvq_outside_windows(p->model, windows->count, length);
  int32_t *tokens = gptvq_alloc(count * length, sizeof *tokens);
  if (tokens == NULL) return gptvq_fail_memory(err, "calibration windows", count * length * sizeof *tokens);
  for (size_t i = 0; i < count; i++)
    memcpy(tokens + i * length, windows->tokens + gptvq_allocation_window(i, count, windows->count) * length,
           length * sizeof *tokens);
  const gptvq_token_windows some = {count, length, tokens};
  p->deal.windows = count;
  p->samples = gptvq_deal_count(&p->deal);
  const gptvq_status status = gptvq_embed_windows(p->model, &some, &p->deal, p->x, err);
  free(tokens);
  return status;
}

gptvq_status gptvq_outside_hessian(const gptvq_pipeline *pipeline, const gptvq_token_windows *windows,
                                   gptvq_hessian *hessian, gptvq_error *err) {
  const gptvq_model *model = pipeline->model;
  const size_t hidden = model->config.hidden, values = pipeline->length * hidden;
  gptvq_pipeline p = *pipeline;
  p.x_original = NULL;
  GPTVQ_TRY(embed_some(&p, windows, err));
  for (size_t b = 0; b < model->config.layers; b++) {
    GPTVQ_TRY(gptvq_pipeline_run(&p, &model->blocks[b], NULL, err));
    gptvq_block_rest(&model->blocks[b]);
  }
  GPTVQ_TRY(gptvq_hessian_init(hessian, gptvq_cpu_backend.linalg, hidden, model->head.name, err));
  float *x = gptvq_alloc(values, 2 * sizeof *x);
  if (x == NULL)
    return gptvq_fail_memory(err, "calibration activations", gptvq_saturated_size(values, 2 * sizeof *x));
  gptvq_stage before = gptvq_stage_enter(p.solver.stages, GPTVQ_STAGE_HESSIAN);
  gptvq_status status = add_windows(&p, x, x + values, hessian, err);
  if (status == GPTVQ_OK) status = gptvq_hessian_finish(hessian, model->head.name, err);
  (void)gptvq_stage_enter(p.solver.stages, before);
  free(x);
  return status;
}

/* ---- packing ---- */

typedef struct packing {
  const gptvq_linear *linear;
  gptvq_solver solver;
  gptvq_factor *factor;     /* or NULL */
  float *h;                 /* [cols × cols], with a factor */
  size_t slab;              /* rows */
  float *weights, *product; /* [slab × cols] */
  uint16_t *zeros;          /* of all rows, padded to a multiple of 8 */
  double lost, all;         /* sums of the error */
} packing;

/* tr(W H Wᵀ), or ‖W‖² */
static double power_of(const packing *p, size_t rows) {
  const size_t cols = p->linear->cols;
  const float *other = p->weights;
  double sum = 0.0;
  if (p->h != NULL) {
    gptvq_gemm_nn(rows, cols, cols, 1.0f, p->weights, cols, p->h, cols, 0.0f, p->product, cols);
    other = p->product;
  }
  for (size_t i = 0; i < rows * cols; i++) sum += (double)p->weights[i] * (double)other[i];
  return sum;
}

static gptvq_status pack_slab(packing *p, size_t first, size_t rows, gptvq_packed *packed, gptvq_error *err) {
  const size_t cols = p->linear->cols;
  gptvq_layer_result result;
  gptvq_packed_sizes sizes;
  gptvq_linear_decode_rows(p->linear, first, first + rows, p->weights);
  const gptvq_weights weights = {p->linear->name, rows, cols, p->weights};
  GPTVQ_TRY(gptvq_solve_layer(&p->solver, &weights, p->factor, &result, err));
  const gptvq_packed_shape *shape = &result.packed.shape;
  const size_t groups = gptvq_ceil_div(cols, shape->scale_block), unit = gptvq_unit_bytes(shape, 0);
  gptvq_packed_measure(shape, &sizes);
  memcpy((uint8_t *)(uintptr_t)packed->indices + first * unit, result.packed.indices, rows * unit);
  memcpy((uint16_t *)(uintptr_t)packed->scales + first * groups, result.packed.scales,
         rows * groups * sizeof(uint16_t));
  const size_t count = rows * groups, padded = gptvq_round_up(count, 8);
  uint16_t *zeros = gptvq_alloc(padded, sizeof *zeros);
  gptvq_status status =
      zeros == NULL ? gptvq_fail_memory(err, p->linear->name, padded * sizeof *zeros) : GPTVQ_OK;
  if (status == GPTVQ_OK) {
    gptvq_unpack_unit(result.packed.zeros, padded, shape->index_bits, zeros);
    memcpy(p->zeros + first * groups, zeros, count * sizeof *zeros);
    const double power = power_of(p, rows);
    p->lost += result.error * power;
    p->all += power;
  }
  free(zeros);
  gptvq_layer_result_release(&result);
  return status;
}

static void release_packing(packing *p) {
  gptvq_factor_destroy(p->factor);
  free(p->h);
  free(p->weights);
  free(p->product);
  free(p->zeros);
}

static gptvq_status prepare_packing(packing *p, const gptvq_packed_shape *shape, const double *hessian,
                                    gptvq_error *err) {
  const size_t cols = shape->cols, values = p->slab * cols,
               zeros = gptvq_round_up(shape->rows * gptvq_ceil_div(cols, shape->scale_block), 8);
  p->weights = gptvq_alloc(values, sizeof *p->weights);
  p->zeros = gptvq_alloc_zero(zeros, sizeof *p->zeros);
  if (p->weights == NULL || p->zeros == NULL)
    return gptvq_fail_memory(err, p->linear->name, gptvq_saturated_size(values, sizeof *p->weights));
  if (hessian == NULL) return GPTVQ_OK;
  p->product = gptvq_alloc(values, sizeof *p->product);
  p->h = gptvq_alloc(cols, cols * sizeof *p->h);
  if (p->product == NULL || p->h == NULL)
    return gptvq_fail_memory(err, p->linear->name, gptvq_saturated_size(values, sizeof *p->product));
  for (size_t i = 0; i < cols * cols; i++) p->h[i] = (float)hessian[i];
  return gptvq_factor_create(&p->solver, p->linear->name, cols, hessian, &p->factor, err);
}

static void take_result(const gptvq_layer_result *result, const gptvq_resolved *options, double error,
                        gptvq_outside_matrix *out) {
  out->packed = result->packed;
  out->memory = result->storage;
  out->error = error;
  (void)snprintf(out->method, sizeof out->method, "%s", gptvq_method_name(options->options.method));
}

/* A trellis code, whose tables serve all rows. */
static gptvq_status pack_whole(const gptvq_linear *linear, const gptvq_solver *solver, const double *hessian,
                               gptvq_outside_matrix *out, gptvq_error *err) {
  const size_t values = linear->rows * linear->cols;
  gptvq_layer_result result;
  gptvq_factor *factor = NULL;
  gptvq_status status = GPTVQ_OK;
  float *weights = gptvq_alloc(values, sizeof *weights);
  if (weights == NULL)
    return gptvq_fail_memory(err, linear->name, gptvq_saturated_size(values, sizeof *weights));
  gptvq_linear_decode(linear, weights);
  if (hessian != NULL)
    GPTVQ_TRY_GOTO(gptvq_factor_create(solver, linear->name, linear->cols, hessian, &factor, err));
  const gptvq_weights w = {linear->name, linear->rows, linear->cols, weights};
  GPTVQ_TRY_GOTO(gptvq_solve_layer(solver, &w, factor, &result, err));
  gptvq_linear_rest(linear);
  take_result(&result, solver->options, result.error, out);
done:
  gptvq_factor_destroy(factor);
  free(weights);
  return status;
}

/* Of less than 8 bits. layers: of the run, for its progress. */
static gptvq_status pack_rows(const gptvq_linear *linear, size_t layers, const gptvq_solver *run,
                              unsigned bits, const double *hessian, gptvq_outside_matrix *out,
                              gptvq_error *err) {
  gptvq_resolved options;
  gptvq_layer_result result = {.storage = NULL};
  const gptvq_packed_shape shape =
      gptvq_outside_shape(&run->options->options, linear->rows, linear->cols, bits);
  GPTVQ_TRY(gptvq_packed_check(&shape, linear->name, err));
  GPTVQ_TRY(gptvq_outside_options(&run->options->options, shape.kind, bits, hessian != NULL, &options, err));
  packing p = {.linear = linear,
               .slab = gptvq_outside_rows(linear->rows, linear->cols),
               .solver = {.options = &options,
                          .backend = &gptvq_cpu_backend,
                          .callbacks = run->callbacks,
                          .stages = run->stages}};
  gptvq_status status;
  if (shape.kind == GPTVQ_PACKED_TRELLIS) return pack_whole(linear, &p.solver, hessian, out, err);
  GPTVQ_TRY_GOTO(prepare_packing(&p, &shape, hessian, err));
  GPTVQ_TRY_GOTO(gptvq_packed_allocate(&shape, &result, err));
  for (size_t first = 0; first < linear->rows; first += p.slab) {
    GPTVQ_TRY_GOTO(pack_slab(&p, first, gptvq_min_size(p.slab, linear->rows - first), &result.packed, err));
    GPTVQ_TRY_GOTO(gptvq_report_progress(run->callbacks, "quantize", linear->name, 0, layers, NAN, err));
  }
  const size_t zeros = gptvq_round_up(linear->rows * gptvq_ceil_div(linear->cols, shape.scale_block), 8);
  gptvq_pack_unit(p.zeros, zeros, bits, (uint8_t *)(uintptr_t)result.packed.zeros);
  gptvq_linear_rest(linear);
  take_result(&result, &options, p.all > 0.0 ? p.lost / p.all : 0.0, out);
done:
  release_packing(&p);
  if (status != GPTVQ_OK) gptvq_layer_result_release(&result);
  return status;
}

static gptvq_status pack_matrix(const gptvq_model *model, bool head, const gptvq_solver *solver,
                                unsigned bits, const double *hessian, gptvq_outside_matrix *out,
                                gptvq_error *err) {
  const gptvq_linear *linear = head ? &model->head : &model->embedding;
  *out = (gptvq_outside_matrix){.is_packed = bits != 16, .error = NAN, .method = "rtn"};
  if (bits == 16) return GPTVQ_OK;
  if (bits < 8) return pack_rows(linear, gptvq_model_layer_count(model), solver, bits, hessian, out, err);
  char instead[64];
  say_instead(head, instead);
  const gptvq_status status = gptvq_pack_head(linear, instead, &out->packed, &out->memory, err);
  gptvq_linear_rest(linear);
  return status;
}

gptvq_status gptvq_outside_pack(const gptvq_model *model, const gptvq_solver *solver,
                                const gptvq_outside_bits *bits, const double *hessian, gptvq_outside *out,
                                gptvq_error *err) {
  gptvq_dist *dist = solver->dist;
  const bool own_head = bits->head != 16, leads = dist == NULL || gptvq_dist_leads(dist);
  *out = (gptvq_outside){.embedding = {.is_packed = bits->embedding != 16}, .head = {.is_packed = own_head}};
  if (leads) {
    GPTVQ_TRY(
        pack_matrix(model, false, solver, bits->embedding, own_head ? NULL : hessian, &out->embedding, err));
    GPTVQ_TRY(pack_matrix(model, true, solver, bits->head, hessian, &out->head, err));
  }
  if (dist == NULL || bits->embedding == 16) return GPTVQ_OK;
  return gptvq_team_send_packed(dist, &out->embedding.packed, &out->embedding.memory, err);
}

static gptvq_status read_matrix(const gptvq_checkpoint *packed, const char *name, gptvq_outside_matrix *out,
                                gptvq_error *err) {
  gptvq_packed_info info;
  *out = (gptvq_outside_matrix){.is_packed = gptvq_checkpoint_has_packed(packed, name)};
  if (!out->is_packed) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_checkpoint_get_packed(packed, name, &out->packed, &info, &out->memory, err));
  out->error = info.error;
  memcpy(out->method, info.method, sizeof out->method);
  return GPTVQ_OK;
}

gptvq_status gptvq_outside_read(const gptvq_checkpoint *packed, gptvq_outside *out, gptvq_error *err) {
  *out = (gptvq_outside){.head = {.is_packed = false}};
  GPTVQ_TRY(read_matrix(packed, GPTVQ_NAME_EMBEDDING, &out->embedding, err));
  return read_matrix(packed, GPTVQ_NAME_HEAD, &out->head, err);
}

void gptvq_outside_release(gptvq_outside *outside) {
  free(outside->embedding.memory);
  free(outside->head.memory);
  *outside = (gptvq_outside){.head = {.is_packed = false}};
}

gptvq_model gptvq_outside_embedded(const gptvq_model *model, const gptvq_outside *outside) {
  gptvq_model embedded = *model;
  if (outside->embedding.is_packed) gptvq_linear_set_packed(&embedded.embedding, &outside->embedding.packed);
  return embedded;
}
