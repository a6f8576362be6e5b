/* quant/run/team.h: what the members of a team tell each other of a run. Member 0 knows, or has read; the
 * others get. Alone all of it is nothing. */
#ifndef GPTVQ_QUANT_RUN_TEAM_H
#define GPTVQ_QUANT_RUN_TEAM_H

#include "calib/calib.h"
#include "cuda/place.h"
#include "dist/dist.h"
#include "format/packed.h"
#include "quant/plan/memory.h"
#include "quant/run/resume.h"

/* What has to be the same of all members. The processor, as products round differently on another. */
typedef struct gptvq_passport {
  char version[32], processor[64];
  uint64_t model, options; /* hashes */
} gptvq_passport;

/* Before any work: GPTVQ_ERROR_UNSUPPORTED: an option that one process alone can do; GPTVQ_ERROR_ARGUMENT:
 * more members than groups of windows, or members whose model, options, version or processor differ. The same
 * on all members. */
gptvq_status gptvq_team_check(gptvq_dist *dist, const gptvq_resolved *options, const json_t *identity,
                              gptvq_error *err);
/* GPTVQ_ERROR_ARGUMENT: members are at work on devices of different kinds. The same on all members. */
gptvq_status gptvq_team_check_place(gptvq_dist *dist, const gptvq_place *place, gptvq_error *err);
/* The smallest budgets of all members, so that all make the same passes. What may differ stays. */
gptvq_status gptvq_team_agree(gptvq_dist *dist, gptvq_memory_plan *plan, gptvq_error *err);
/* OUT.partial as member 0 names it, and what is finished there; *resumed likewise. */
gptvq_status gptvq_team_send_state(gptvq_dist *dist, gptvq_output *out, gptvq_run_state *state, bool *resumed,
                                   gptvq_error *err);
gptvq_status gptvq_team_send_calibration(gptvq_dist *dist, gptvq_calibration *calibration, gptvq_error *err);
/* On the others *packed comes to lie in *owned, which the caller frees. */
gptvq_status gptvq_team_send_packed(gptvq_dist *dist, gptvq_packed *packed, void **owned, gptvq_error *err);

#endif
