/* gptvq/team.h: several processes that quantize one model together. A program that has a means of passing
 * bytes between them describes it here; the command gptvq does so with MPI. */
#ifndef GPTVQ_TEAM_H
#define GPTVQ_TEAM_H

#include <gptvq/quantize.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One member's view. All members call the functions in the same order and with the same sizes, from one
 * thread; a call returns when this member's part is done. An error ends the run here; the caller then sees to
 * it that the others end, too. Offsets are in bytes, ascend from 0, and have count + 1 entries. */
typedef struct gptvq_team {
  size_t size; /* of this struct */
  void *context;
  size_t rank, count; /* this member, of how many */
  size_t neighbours;  /* members on this machine, this one included: they share its memory */
  size_t neighbour;   /* this member's number among these: of the card that it takes */
  /* data[bytes] of member 0 becomes everyone's */
  gptvq_status (*broadcast)(void *context, void *data, size_t bytes, gptvq_error *err);
  /* everyone gets data[offsets[r] … offsets[r + 1]) of each member r */
  gptvq_status (*gather)(void *context, void *data, const size_t *offsets, gptvq_error *err);
  /* send[send_offsets[r] … ) goes to member r, which finds it at its receive[receive_offsets[this rank]] */
  gptvq_status (*exchange)(void *context, const void *send, const size_t *send_offsets, void *receive,
                           const size_t *receive_offsets, gptvq_error *err);
} gptvq_team;
static inline void gptvq_team_init(gptvq_team *team) { GPTVQ_INIT(team); }

/* gptvq_quantize by all members of a team: the bytes of the output are those of one process, unless they
 * run on cards. Every member opens the model; member 0 alone reads the calibration text and writes out_dir,
 * is called back and gets a whole report. GPTVQ_ERROR_ARGUMENT on all members: more of them than groups of
 * calibration windows, or members whose model, options, version, processor or device differ.
 * GPTVQ_ERROR_UNSUPPORTED: an option that one process alone can do. team NULL, or of one: gptvq_quantize. */
GPTVQ_API gptvq_status gptvq_quantize_team(const char *model_dir, const char *out_dir,
                                           const gptvq_quantize_options *options,
                                           const gptvq_callbacks *callbacks, const gptvq_team *team,
                                           gptvq_quantize_report *report, gptvq_error *err);

#ifdef __cplusplus
}
#endif

#endif
