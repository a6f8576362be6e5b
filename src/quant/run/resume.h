/* quant/run/resume.h: resume.json in the work folder: what a run is, and how many of its blocks are finished.
 */
#ifndef GPTVQ_QUANT_RUN_RESUME_H
#define GPTVQ_QUANT_RUN_RESUME_H

#include <gptvq/quantize.h>

#include "base/file.h"
#include "model/model_internal.h"
#include "calib/calib.h"
#include "checkpoint/output.h"
#include "quant/options/options.h"

/* {"source", "samples", "length", "seed", "tokens"} (new reference); '?' for what is not ASCII in a source
 * that is not UTF-8. */
json_t *gptvq_calibration_json(const gptvq_calibration *calibration, uint64_t seed);

/* gptvq_output_run and {"options" (with "shared_bits" where layers share others than `bits`), "model":
 * {hashes of config, side files, and all bytes of all tensors}}: two runs with equal identity and equal
 * calibration tokens give equal bytes (new reference). Reads the whole model once; GPTVQ_ERROR_NUMERIC naming
 * the first NaN or infinity (gptvq_tensor_check_finite). */
gptvq_status gptvq_run_identity(const gptvq_model *model, const gptvq_resolved *options, json_t **identity,
                                gptvq_error *err);

typedef struct gptvq_run_state {
  json_t *identity;
  char calibration_hash[17]; /* hex; "" when not known yet or not needed */
  size_t blocks;             /* finished, each in a shard of its own */
  bool finetuned; /* all shards are there a second time, fine-tuned, or have taken the place of the first ones
                   */
  double finetune_before, finetune_after;
} gptvq_run_state;

/* What `root` (resume.json, or NULL) says. *found is false when it knows of no run of gptvq_quantize.
 * GPTVQ_ERROR_FORMAT when it is damaged. The caller releases. */
gptvq_status gptvq_run_state_parse(const gptvq_output *out, const json_t *root, bool *found,
                                   gptvq_run_state *state, gptvq_error *err);
gptvq_status gptvq_run_state_write(const gptvq_output *out, const gptvq_run_state *state, gptvq_error *err);
void gptvq_run_state_release(gptvq_run_state *state);

/* GPTVQ_ERROR_ARGUMENT naming up to three members that differ, with both values; GPTVQ_ERROR_UNSUPPORTED for
 * a state of another format. */
gptvq_status gptvq_run_identity_compare(const gptvq_output *out, const json_t *saved, const json_t *now,
                                        gptvq_error *err);

/* Windows that the model wrote are kept in the work folder, so that a resumed run need not write them again.
 * written->count 0: there are none, or other bytes than windows of that length. The caller unmaps *file. */
gptvq_status gptvq_saved_tokens_write(const gptvq_output *out, const gptvq_calibration *calibration,
                                      gptvq_error *err);
gptvq_status gptvq_saved_tokens_map(const gptvq_output *out, size_t length, gptvq_mapping *file,
                                    gptvq_token_windows *written, gptvq_error *err);

#endif
