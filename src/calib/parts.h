/* calib/parts.h: where calibration windows come from. calib.c puts together what each source gives. */
#ifndef GPTVQ_CALIB_PARTS_H
#define GPTVQ_CALIB_PARTS_H

#include "calib/calib.h"

/* What the options `calib`, texts, a line each, and `calib_self` name. */
typedef struct gptvq_calibration_source {
  const char *path; /* into the list's memory, or static */
  bool self;        /* the model writes it */
  bool implied;     /* by calib_self: it may be left without windows */
  double weight;    /* above 0 */
} gptvq_calibration_source;
typedef struct gptvq_calibration_sources {
  size_t count;
  gptvq_calibration_source *items;
  char *memory;
} gptvq_calibration_sources;
/* NULL or no text: the model writes all. Texts without "self": the model writes the share self_share (0 to
 * below 1) of all. A path that is named again adds its weight. GPTVQ_ERROR_ARGUMENT: a weight that
 * is not above 0 and at most 1e6. Release *out on success. */
gptvq_status gptvq_calibration_sources_parse(const char *calib, double self_share,
                                             gptvq_calibration_sources *out, gptvq_error *err);
void gptvq_calibration_sources_release(gptvq_calibration_sources *sources);
/* shares[count]: `total` things handed out by weight, largest remainders first; sums to total. */
void gptvq_calibration_share(const gptvq_calibration_sources *sources, size_t total, size_t *shares);

/* Fill out->tokens (allocated, numbers set) from one source. A text may have no room for all held-out
 * windows: block_held and held become less, and then judged_text are windows that are seen. */
gptvq_status gptvq_calibration_cut(const gptvq_model *model, const char *model_dir, const char *path,
                                   uint64_t seed, const gptvq_callbacks *callbacks, gptvq_calibration *out,
                                   gptvq_error *err);
gptvq_status gptvq_calibration_sample(const gptvq_model *model, uint64_t seed, gptvq_text_room room,
                                      const gptvq_callbacks *callbacks, gptvq_calibration *out,
                                      gptvq_error *err);

#endif
