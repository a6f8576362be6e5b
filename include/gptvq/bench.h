/* gptvq/bench.h: models of random weights in the shapes of well-known ones, to measure speed without
 * their files; and the machine's read bandwidth, the ceiling of decoding. */
#ifndef GPTVQ_BENCH_H
#define GPTVQ_BENCH_H

#include <gptvq/quantize.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gptvq_random_model {
  const char *shape; /* one of gptvq_random_shapes */
  size_t layers;     /* blocks; 0 = as many as the real model has */
  int dense;         /* 1: bf16 weights as in an original folder; 0: packed as `format` says */
  gptvq_quantize_options format; /* of packed layers; only what decides their shape is used */
  uint64_t seed;
  int force;         /* replace an existing model folder */
} gptvq_random_model;

/* Names for `shape`, NULL-terminated. */
GPTVQ_API const char *const *gptvq_random_shapes(void);
/* Llama-2-7B's figures, 2.25 bits in pairs of weights. */
GPTVQ_API void gptvq_random_model_init(gptvq_random_model *model);
/* A model folder without a tokenizer, written without running the quantizer: indices, codebooks and dense weights are random, small
 * enough for activations to stay finite. OUT_DIR appears whole or not at all. GPTVQ_ERROR_ARGUMENT for an unknown shape or an
 * impossible format. */
GPTVQ_API gptvq_status gptvq_write_random_model(const gptvq_random_model *model, const char *out_dir, gptvq_error *err);

/* Bytes per second that this machine's threads read from memory: the fastest of `rounds` passes over 256 MiB. 0: out of memory. */
GPTVQ_API double gptvq_measure_bandwidth(size_t rounds);

#ifdef __cplusplus
}
#endif
#endif
