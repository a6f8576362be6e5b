/* The public face of the layer solver: one matrix, no model. */
#include <gptvq/layer.h>

#include "base/memory.h"
#include "base/sized.h"
#include "checkpoint/packed_parts.h"
#include "calib/hessian.h"
#include "linalg/gemm.h"
#include "model/model_internal.h"
#include "quant/layer/solver.h"
#include "quant/options/options.h"
#include "quant/run/pipeline.h"

#include <string.h>

struct gptvq_packed_layer {
  gptvq_layer_result result;
  gptvq_linear linear; /* its arrays */
  gptvq_layer_info info;
  char name[256];
  char method[16]; /* of one that was opened */
};

gptvq_status gptvq_input_hessian(size_t n, size_t cols, const float *x, double *hessian, gptvq_error *err) {
  gptvq_hessian sum;
  if (n == 0 || cols == 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "no Hessian of %zu inputs of %zu values", n, cols);
  GPTVQ_TRY(gptvq_blas_init(err));
  GPTVQ_TRY(gptvq_hessian_init(&sum, gptvq_cpu_backend.linalg, cols, "the inputs", err));
  gptvq_status status = gptvq_hessian_add(&sum, n, x, cols, err);
  if (status == GPTVQ_OK) status = gptvq_hessian_finish(&sum, "the inputs", err);
  if (status == GPTVQ_OK) memcpy(hessian, sum.values, cols * cols * sizeof *hessian);
  gptvq_hessian_release(&sum);
  return status;
}

static gptvq_status pack(gptvq_packed_layer *layer, size_t rows, size_t cols, const float *weights,
                         const double *hessian, const gptvq_quantize_options *options,
                         const gptvq_callbacks *callbacks, gptvq_error *err) {
  gptvq_quantize_options given;
  gptvq_callbacks own = {.size = sizeof own};
  gptvq_resolved resolved;
  const gptvq_solver solver = {&resolved, &gptvq_cpu_backend, &own, NULL, NULL};
  gptvq_packed_sizes sizes;
  gptvq_packed_shape shape;
  gptvq_factor *factor = NULL;
  GPTVQ_TRY(gptvq_options_take(options, &given, err));
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_callbacks, callbacks, &own, err));
  given.allocate = GPTVQ_ALLOCATE_UNIFORM; /* a layer alone has none to share with */
  given.nominal = 1;
  GPTVQ_TRY(gptvq_resolve(&given, &resolved, err));
  GPTVQ_TRY(gptvq_layer_shape(rows, cols, &resolved, &shape, err)); /* sizes are checked before any work */
  GPTVQ_TRY(gptvq_blas_init(err));
  if (hessian != NULL) GPTVQ_TRY(gptvq_factor_create(&solver, layer->name, cols, hessian, &factor, err));
  const gptvq_weights w = {layer->name, rows, cols, weights};
  gptvq_status status = gptvq_solve_layer(&solver, &w, factor, &layer->result, err);
  gptvq_factor_destroy(factor);
  if (status != GPTVQ_OK) return status;
  layer->linear = (gptvq_linear){.name = layer->name, .rows = rows, .cols = cols};
  gptvq_linear_set_packed(&layer->linear, &layer->result.packed);
  gptvq_packed_measure(&layer->result.packed.shape, &sizes);
  gptvq_linear_info(&layer->linear, gptvq_method_name(resolved.options.method), sizes.stored_bytes,
                    layer->result.error, &layer->info);
  return GPTVQ_OK;
}

gptvq_status gptvq_pack_layer(const char *name, size_t rows, size_t cols, const float *weights,
                              const double *hessian, const gptvq_quantize_options *options,
                              const gptvq_callbacks *callbacks, gptvq_packed_layer **out, gptvq_error *err) {
  *out = NULL;
  gptvq_packed_layer *layer = calloc(1, sizeof *layer);
  if (layer == NULL) return gptvq_fail_memory(err, name, sizeof *layer);
  (void)snprintf(layer->name, sizeof layer->name, "%s", name);
  gptvq_status status = pack(layer, rows, cols, weights, hessian, options, callbacks, err);
  if (status != GPTVQ_OK) gptvq_packed_layer_destroy(layer);
  else *out = layer;
  return status;
}

static gptvq_status open_arrays(gptvq_packed_layer *layer, const char *description, size_t size,
                                const gptvq_array *arrays, size_t count, gptvq_error *err) {
  gptvq_packed_array own[GPTVQ_PART_COUNT];
  gptvq_array taken[GPTVQ_PART_COUNT];
  if (count > GPTVQ_PART_COUNT)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%s: %zu arrays, more than any packed layer has",
                      layer->name, count);
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; i < count && status == GPTVQ_OK; i++) { /* perhaps of another version's size */
    const gptvq_array *given = (const void *)((const char *)arrays + i * arrays->size);
    status = given->size != arrays->size
                 ? gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%s: array %zu has another size", layer->name, i)
                 : GPTVQ_TAKE(gptvq_array, given, &taken[i], err);
    own[i] = (gptvq_packed_array){taken[i].name, taken[i].type, taken[i].rank, taken[i].dims, taken[i].data};
    if (status == GPTVQ_OK && taken[i].rank > sizeof taken[i].dims / sizeof taken[i].dims[0])
      status =
          gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%s: an array of %zu dimensions", layer->name, taken[i].rank);
  }
  gptvq_packed packed;
  gptvq_packed_info info;
  if (status == GPTVQ_OK)
    status = gptvq_packed_from_arrays(layer->name, description, size, own, count, &packed, &info,
                                      &layer->result.storage, err);
  if (status != GPTVQ_OK) return status;
  layer->result.packed = packed;
  layer->result.error = info.error;
  (void)snprintf(layer->method, sizeof layer->method, "%s", info.method);
  layer->linear = (gptvq_linear){.name = layer->name, .rows = packed.shape.rows, .cols = packed.shape.cols};
  gptvq_linear_set_packed(&layer->linear, &layer->result.packed);
  gptvq_linear_info(&layer->linear, layer->method, info.bytes, info.error, &layer->info);
  return GPTVQ_OK;
}

gptvq_status gptvq_packed_layer_open(const char *name, const char *description, size_t description_size,
                                     const gptvq_array *arrays, size_t count, gptvq_packed_layer **out,
                                     gptvq_error *err) {
  *out = NULL;
  if (name == NULL || description == NULL || arrays == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "a packed layer needs a name, its description and arrays");
  gptvq_packed_layer *layer = calloc(1, sizeof *layer);
  if (layer == NULL) return gptvq_fail_memory(err, name, sizeof *layer);
  (void)snprintf(layer->name, sizeof layer->name, "%s", name);
  gptvq_status status = open_arrays(layer, description, description_size, arrays, count, err);
  if (status != GPTVQ_OK) gptvq_packed_layer_destroy(layer);
  else *out = layer;
  return status;
}

void gptvq_packed_layer_destroy(gptvq_packed_layer *layer) {
  if (layer == NULL) return;
  gptvq_layer_result_release(&layer->result);
  free(layer);
}

void gptvq_packed_layer_get_info(const gptvq_packed_layer *layer, gptvq_layer_info *info) {
  gptvq_give_struct(&layer->info, sizeof layer->info, info);
}

int gptvq_packed_layer_get_array(const gptvq_packed_layer *layer, size_t index, gptvq_array *array) {
  gptvq_packed_part parts[GPTVQ_PART_COUNT];
  gptvq_packed_parts(&layer->result.packed.shape, parts);
  for (int i = 0; i < GPTVQ_PART_COUNT; i++) {
    if (!parts[i].present || index-- > 0) continue;
    const bool wide = i == GPTVQ_PART_PERMUTATION; /* in files perhaps U16 */
    gptvq_array out = {.name = parts[i].suffix + 1,
                       .type = wide ? "U32" : gptvq_tensor_type_name(parts[i].type),
                       .rank = parts[i].rank,
                       .data = gptvq_packed_part_data(&layer->result.packed, (enum gptvq_part)i)};
    memcpy(out.dims, parts[i].dims, sizeof out.dims);
    gptvq_give_struct(&out, sizeof out, array);
    return 1;
  }
  return 0;
}

void gptvq_packed_layer_decode(const gptvq_packed_layer *layer, float *weights) {
  gptvq_linear_decode(&layer->linear, weights);
}

gptvq_status gptvq_packed_layer_rows(const gptvq_packed_layer *layer, size_t n, const int64_t *rows,
                                     float *out, gptvq_error *err) {
  const gptvq_linear *linear = &layer->linear;
  for (size_t i = 0; i < n; i++)
    if (rows[i] < 0 || (uint64_t)rows[i] >= linear->rows)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%s has %zu rows: there is no row %lld", layer->name,
                        linear->rows, (long long)rows[i]);
  for (size_t i = 0; i < n; i++)
    gptvq_linear_decode_rows(linear, (size_t)rows[i], (size_t)rows[i] + 1, out + i * linear->cols);
  return GPTVQ_OK;
}

gptvq_status gptvq_packed_layer_multiply(const gptvq_packed_layer *layer, gptvq_compute compute, size_t n,
                                         const float *x, float *y, gptvq_error *err) {
  if ((unsigned)compute > GPTVQ_COMPUTE_INT8)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "unknown compute precision %d", (int)compute);
  if (compute == GPTVQ_COMPUTE_AUTO) compute = GPTVQ_COMPUTE_INT8;
  GPTVQ_TRY(gptvq_blas_init(err));
  return gptvq_linear_forward(&layer->linear, compute, n, x, layer->linear.cols, y, layer->linear.rows, err);
}
