/* gptvq.json of a packed folder: how it was made, and what was lost. */
#include "quant/run/pipeline.h"
#include "checkpoint/record.h"

#include <math.h>

static bool set(json_t *object, const char *key, json_t *value) {
  return json_object_set_new(object, key, value) == 0;
}

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

static json_t *stages_of(const gptvq_quantize_report *report) {
  json_t *list = json_array();
  bool fine = list != NULL;
  for (size_t i = 0; i < report->stage_count && fine; i++) {
    const gptvq_stage_time *s = &report->stages[i];
    fine = json_array_append_new(list, json_pack("{s:s, s:f, s:f}", "name", s->name, "seconds", s->seconds,
                                                 "cpu_seconds", s->cpu_seconds)) == 0;
  }
  if (fine) return list;
  json_decref(list);
  return NULL;
}

/* A list for each block, null for one that has no experts, or none that were counted in this run. */
static json_t *experts_of(const gptvq_quantize_report *report) {
  json_t *blocks = json_array();
  bool fine = blocks != NULL;
  for (size_t b = 0; b < report->expert_blocks && fine; b++) {
    const uint64_t *tokens = report->expert_tokens + b * report->experts;
    json_t *list = tokens[0] == UINT64_MAX ? json_null() : json_array();
    for (size_t e = 0; e < report->experts && tokens[0] != UINT64_MAX && fine; e++)
      fine = json_array_append_new(list, json_integer((json_int_t)tokens[e])) == 0;
    fine = json_array_append_new(blocks, list) == 0 && fine;
  }
  if (fine) return blocks;
  json_decref(blocks);
  return NULL;
}

static gptvq_status add_loss(json_t *record, const char *text, const gptvq_quantize_loss *loss,
                             gptvq_error *err) {
  if (loss->tokens == 0) return GPTVQ_OK;
  return gptvq_record_add(record,
                          json_pack("{s:s, s:o, s:o, s:o, s:o, s:I, s:b}", "text", text, "kl_mean",
                                    number(loss->kl), "kl_stderr", number(loss->kl_stderr), "perplexity_a",
                                    number(loss->perplexity_before), "perplexity_b", number(loss->perplexity),
                                    "tokens", (json_int_t)loss->tokens, "seen", loss->seen),
                          err);
}

gptvq_status gptvq_write_record(const gptvq_output *out, uint64_t original_bytes,
                                const gptvq_quantize_report *report, gptvq_error *err) {
  json_t *record = gptvq_record_new(), *run = json_object();
  bool fine =
      record != NULL && run != NULL && set(run, "original_bytes", json_integer((json_int_t)original_bytes)) &&
      set(run, "seconds", number(report->seconds)) && set(run, "cpu_seconds", number(report->cpu_seconds)) &&
      set(run, "peak_bytes", json_integer((json_int_t)report->peak_bytes)) &&
      set(run, "blocks_resumed", json_integer((json_int_t)report->blocks_resumed)) &&
      set(run, "stages", stages_of(report));
  if (fine && report->expert_tokens != NULL) fine = set(run, "expert_tokens", experts_of(report));
  fine = fine && json_object_set(record, "run", run) == 0;
  gptvq_status status = fine ? GPTVQ_OK : gptvq_fail_memory(err, "the record of the run", 0);
  if (status == GPTVQ_OK) status = add_loss(record, "held-out calibration text", &report->loss_text, err);
  if (status == GPTVQ_OK) status = add_loss(record, "what the model writes itself", &report->loss_self, err);
  if (status == GPTVQ_OK) status = gptvq_record_save(out->work, record, err);
  json_decref(run);
  json_decref(record);
  return status;
}
