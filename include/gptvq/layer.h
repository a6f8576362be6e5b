/* gptvq/layer.h: the method on one matrix, for programs that have models and files of their own. */
#ifndef GPTVQ_LAYER_H
#define GPTVQ_LAYER_H

#include <gptvq/model.h>
#include <gptvq/quantize.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A packed matrix in memory; immutable, may be shared between threads. */
typedef struct gptvq_packed_layer gptvq_packed_layer;

/* hessian[cols × cols] = the mean of x xᵀ over the rows of x[n × cols], what gptvq_pack_layer takes. More
 * inputs than fit at a time: take the mean of the results, weighted by n. GPTVQ_ERROR_NUMERIC: an input is
 * NaN or too large. */
GPTVQ_API gptvq_status gptvq_input_hessian(size_t n, size_t cols, const float *x, double *hessian,
                                           gptvq_error *err);

/* Packs weights[rows × cols], row-major; y = W x. `name` stands in messages. hessian[cols × cols]: symmetric,
 * of the layer's inputs; NULL: none, which is an identity to GPTVQ and GPTQ and all the same to RTN and
 * k-means. options: NULL for those of gptvq_quantize_options_init; members about whole models (calibration,
 * fine-tuning, allocation, the head) mean nothing here. Same bytes whatever the number of threads.
 * callbacks (may be NULL): log hears of damping that had to be raised. On success the caller owns *out; on
 * failure it is NULL. GPTVQ_ERROR_NUMERIC: NaN or infinity in the weights or the Hessian. */
GPTVQ_API gptvq_status gptvq_pack_layer(const char *name, size_t rows, size_t cols, const float *weights,
                                        const double *hessian, const gptvq_quantize_options *options,
                                        const gptvq_callbacks *callbacks, gptvq_packed_layer **out,
                                        gptvq_error *err);
GPTVQ_API void gptvq_packed_layer_destroy(gptvq_packed_layer *layer); /* NULL is fine */

/* As for a layer of a model: `bytes` are exact, `error` is tr(E H Eᵀ) / tr(W H Wᵀ) with E = W − packed W and
 * the Hessian as it was given (without one ‖E‖² / ‖W‖²). Strings live as long as the layer. */
GPTVQ_API void gptvq_packed_layer_get_info(const gptvq_packed_layer *layer, gptvq_layer_info *info);
/* One of the arrays that docs/FORMAT.md, section 4, describes; in memory as there, but for permutations,
 * which are U32. Owned by the layer. */
typedef struct gptvq_array {
  size_t size;
  const char *name; /* "indices", "codebooks" */
  const char *type; /* "U8", "I8", "F16", "BF16", "F32", "U32" */
  size_t rank, dims[4];
  const void *data; /* row-major */
} gptvq_array;
static inline void gptvq_array_init(gptvq_array *array) { GPTVQ_INIT(array); }
/* Array number `index` of those that the layer has, from 0; 0: there are not so many, else 1. */
GPTVQ_API int gptvq_packed_layer_get_array(const gptvq_packed_layer *layer, size_t index, gptvq_array *array);
/* A layer from the arrays of a packed folder (docs/FORMAT.md, section 4), for programs that read them
 * themselves. description[description_size]: the text under "gptvq.NAME" in the file's metadata; arrays in
 * any order, types and shapes as in the file. They are used where they lie: they have to outlive the layer,
 * and stay as they are. Everything is checked as if it came from a file; `name` stands in messages. On
 * success the caller owns *out; its get_array gives the arrays back (permutations as U32, which open takes of
 * more than 65,536 columns only, as files have them). GPTVQ_ERROR_FORMAT, GPTVQ_ERROR_UNSUPPORTED: as of a
 * folder. */
GPTVQ_API gptvq_status gptvq_packed_layer_open(const char *name, const char *description,
                                               size_t description_size, const gptvq_array *arrays,
                                               size_t count, gptvq_packed_layer **out, gptvq_error *err);
/* weights[rows × cols] as the packed arrays decode, columns in their original order. */
GPTVQ_API void gptvq_packed_layer_decode(const gptvq_packed_layer *layer, float *weights);
/* The rows of these numbers, out[n × cols], columns in their original order: what an embedding looks up.
 * GPTVQ_ERROR_ARGUMENT: there is no such row. */
GPTVQ_API gptvq_status gptvq_packed_layer_rows(const gptvq_packed_layer *layer, size_t n, const int64_t *rows,
                                               float *out, gptvq_error *err);
/* y[n × rows] = x[n × cols] times the packed weights, transposed. compute: FP32, or INT8 (AUTO: INT8) as
 * gptvq_session_forward does it. */
GPTVQ_API gptvq_status gptvq_packed_layer_multiply(const gptvq_packed_layer *layer, gptvq_compute compute,
                                                   size_t n, const float *x, float *y, gptvq_error *err);

#ifdef __cplusplus
}
#endif
#endif
