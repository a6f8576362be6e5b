/* quant/options/options.h: what the library itself asks of the table of options. */
#ifndef GPTVQ_QUANT_OPTIONS_OPTIONS_H
#define GPTVQ_QUANT_OPTIONS_OPTIONS_H

#include "base/status.h"

#include <gptvq/quantize.h>
#include <jansson.h>
#include <stdbool.h>

/* Largest group: 4-D at 3.125 bits (k = 4096) needs 2^20 weights per codebook. */
#define GPTVQ_MAX_GROUP ((size_t)1 << 20)
enum { GPTVQ_BEAM_MAX = 64, GPTVQ_TRELLIS_LEAST_BITS = 2, GPTVQ_TRELLIS_MOST_BITS = 4 };

static inline bool gptvq_is_uniform(const gptvq_quantize_options *options) {
  return options->method == GPTVQ_METHOD_GPTQ || options->method == GPTVQ_METHOD_RTN;
}

/* "uniform", or the name of the code. */
static inline const char *gptvq_format_name(const gptvq_quantize_options *options) {
  return gptvq_is_uniform(options) ? "uniform" : gptvq_code_name(options->code);
}

/* Sizes layer by layer, which needs data: without, `allocate` changes nothing. */
static inline bool gptvq_allocates(const gptvq_quantize_options *options) {
  return options->allocate == GPTVQ_ALLOCATE_SENSITIVITY && options->method == GPTVQ_METHOD_GPTVQ;
}

/* Options that were checked and whose sizes are known: every member has its final value, but for those of
 * embedding and head that the model decides (0, until gptvq_budget_settle), and but for sizes beside a
 * ceiling, which are nominal until then. Only gptvq_resolve makes them
 * (and whoever changes a member resolves again), so that what takes them need not ask. */
typedef struct gptvq_resolved {
  gptvq_quantize_options options;
  bool code_open;     /* `code` was auto, and either is possible: the model's sizes ask again. VQ until then
                       * beside `model_bits` */
  bool allocate_open; /* `allocate` was auto: a budget's sizes ask again */
  double ceiling;     /* `bits`, where sizes are still to be kept within it (gptvq_ceiling_settle); 0: not */
  double shared;      /* bits per weight that layers of sizes of their own may take together; 0: as many as
                       * equal sizes take */
  bool index_given, group_given; /* what of the two `bits` has not chosen */
  bool scales_checked; /* fp16 scales are known to hold the weights: uniform codes are not refused. For parts
                          of a matrix; gptvq_resolve gives false */
} gptvq_resolved;

/* GPTVQ_ERROR_ARGUMENT, as gptvq_quantize_options_resolve, which is this in place. Options that are resolved
 * stay as they are. */
gptvq_status gptvq_resolve(const gptvq_quantize_options *options, gptvq_resolved *out, gptvq_error *err);

/* What `allocate` auto is beside a trellis of index_bits at most, where all layers together may take `bits`
 * and with the smallest size take `least`. */
gptvq_allocate_sizes gptvq_trellis_allocate(const gptvq_quantize_options *options, unsigned index_bits,
                                            double bits, double least);

/* The same with other sizes. */
gptvq_status gptvq_resolve_sizes(const gptvq_resolved *options, unsigned index_bits, size_t group_size,
                                 gptvq_resolved *out, gptvq_error *err);

/* The caller's options, those beyond its struct at their defaults; NULL: all at their defaults. */
gptvq_status gptvq_options_take(const gptvq_quantize_options *given, gptvq_quantize_options *own,
                                gptvq_error *err);
/* The rows of the table, one after the other. */
const gptvq_field *gptvq_fields(size_t *count);
/* The member of that name, or NULL. */
const gptvq_field *gptvq_field_find(const char *name);
/* Each member by itself: within its row's range, one of its choices. GPTVQ_ERROR_ARGUMENT naming the first
 * that is not. */
gptvq_status gptvq_fields_check(const gptvq_quantize_options *options, gptvq_error *err);

/* What `device` says. */
typedef enum gptvq_device_kind { GPTVQ_ON_CPU, GPTVQ_ON_CUDA, GPTVQ_ON_ANY, GPTVQ_ON_SHIM } gptvq_device_kind;
enum { GPTVQ_MAX_CARDS = 1024 };
typedef struct gptvq_device_choice {
  gptvq_device_kind kind;
  unsigned card; /* its number; of CUDA */
  bool numbered; /* given: else 0, of several processes on a machine that of the process */
} gptvq_device_choice;
/* "cuda:1"; NULL and "": the CPU. GPTVQ_ERROR_ARGUMENT: it is none of them. */
gptvq_status gptvq_device_parse(const char *text, gptvq_device_choice *out, gptvq_error *err);

/* The rows that belong to a run's identity and are not about its data (packed folders say them too), or those
 * that are, as a new object; NULL when out of memory. */
json_t *gptvq_options_json(const gptvq_resolved *options);
json_t *gptvq_options_data_json(const gptvq_resolved *options);

#endif
