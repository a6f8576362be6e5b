/* calib/sweep.h: the one loop that takes windows of tokens through a block of a model, with observers at the
 * inputs of its linears. Hessians, mismatches, norms of columns, sensitivities and what a teacher says come
 * from here; a backend that runs blocks elsewhere, or shares windows out, has this to replace.
 *
 * Order: windows from the first to the last; of one window the passes as they are listed; of one pass its
 * inputs as a token meets them, experts from the first to the last. Observers are called on the caller's
 * thread, one at a time, and may use all threads themselves. Nothing depends on the number of threads. A
 * window sees no other one: those that only add up may be dealt out (dist/deal.h).
 *
 * Two loops are not this one: evaluation (eval/runner.c) cuts a window of any length into parts that see each
 * other's keys and values, and runs where there is no calibration; a text that a model writes (calib/self.c)
 * goes through all blocks token by token. */
#ifndef GPTVQ_CALIB_SWEEP_H
#define GPTVQ_CALIB_SWEEP_H

#include "base/stages.h"
#include "calib/stream.h"
#include "dist/deal.h"
#include "model/forward.h"
#include "model/model_internal.h"

/* Windows of tokens, one after the other, all of one length. */
typedef struct gptvq_token_windows {
  size_t count, length;
  const int32_t *tokens; /* [count × length] */
} gptvq_token_windows;

/* Whom a part of a longer run reports to, and how far the run is: `done` of `total`. */
typedef struct gptvq_standing {
  const gptvq_callbacks *callbacks; /* or NULL */
  size_t done, total;
} gptvq_standing;

/* What linears are about to be given, valid during the call. */
typedef struct gptvq_observed {
  size_t window, slot; /* of all windows, and of those in the streams */
  const float *x; /* [rows × ldx], `cols` values of each row: all tokens of the window, or those that chose
                     the expert, in their order; never none */
  size_t rows, cols, ldx;
  const float *stream; /* [length × hidden]: the window's residual stream, to which this half will add */
  const float
      *before; /* [length × hidden]: what the pass before this one has made of it; NULL in the first */
  const uint32_t *tokens; /* [rows]: which of the window's those are; NULL: all, in order */
  const float *shares;    /* [rows]: of what the MLP gives in what the half gives; NULL: 1 */
} gptvq_observed;

typedef struct gptvq_observer {
  size_t linear; /* the first of the linears whose inputs it wants, or GPTVQ_ROUTER_INPUT */
  gptvq_status (*on_input)(void *context, const gptvq_observed *in, gptvq_error *err);
  void *context;
  gptvq_stage stage; /* of its work, and how much of it there is for each row */
  double row_flop;
  bool passes_on; /* it does not read x, but gives it to the linalg of the run: forward.h */
} gptvq_observer;

/* Inputs of an output linear (o_proj, or down_proj of the block's only MLP) of the first windows, to go on
 * from. */
typedef struct gptvq_kept {
  size_t cols;
  gptvq_stream inputs; /* [length × cols] a window; none: windows 0 */
} gptvq_kept;
/* An observer's on_input (context: gptvq_kept) that fills it. */
gptvq_status gptvq_keep_input(void *kept, const gptvq_observed *in, gptvq_error *err);

/* One way through a block. */
typedef struct gptvq_pass {
  const gptvq_block *block; /* may be a copy whose linears were replaced */
  const gptvq_stream *x;    /* [length × hidden] a window */
  bool attention, mlp;      /* through which halves */
  gptvq_stop stop;          /* how far in the last of them; x moves on with GPTVQ_RUN_ALL, else it stays */
  const gptvq_observer *observers; /* experts without any are left out where x stays */
  size_t observer_count;
  const gptvq_kept *kept; /* windows that it holds only take the last step of the one half, unobserved; NULL:
                             none */
  gptvq_stage stage;      /* of the work that is not the observers' */
} gptvq_pass;
/* All of the block; x moves on. */
static inline gptvq_pass gptvq_whole_block(const gptvq_block *block, const gptvq_stream *x,
                                           const gptvq_observer *observers, size_t count) {
  return (gptvq_pass){.block = block,
                      .x = x,
                      .attention = true,
                      .mlp = true,
                      .stop = GPTVQ_RUN_ALL,
                      .observers = observers,
                      .observer_count = count};
}

typedef struct gptvq_sweep {
  const gptvq_model *model;
  gptvq_workspace *workspace;   /* for one block, `length` rows and positions */
  const gptvq_forward *forward; /* runs the halves that it takes; NULL: the CPU does all */
  size_t windows, length;       /* windows in the streams */
  /* the windows are those of this member of a team, group after group, each followed by on_round, which is
   * called in rounds without a group too; NULL: all, and no groups */
  const gptvq_deal *deal;
  gptvq_status (*on_round)(void *context, size_t round, gptvq_error *err); /* or NULL */
  void *round_context;
  /* progress after every window, which may stop the sweep: `done` grows by `step` each time; no value */
  const gptvq_callbacks *callbacks;
  const char *phase, *item;
  size_t done, step, total;
  gptvq_stages *stages; /* or NULL */
} gptvq_sweep;

/* Products of queries with keys, and with values, of all tokens of a window. */
double gptvq_attention_flop(const gptvq_config *config, const gptvq_attention *how, size_t length);
/* What the model's products are in, and those of what observers add up: rounded numbers go through those in
 * fp32 where there are no others. */
gptvq_precision gptvq_calibration_precision(const gptvq_model *model);
/* The embeddings of the windows into a stream of theirs; deal: of those that are this member's, NULL: all. */
gptvq_status gptvq_embed_windows(const gptvq_model *model, const gptvq_token_windows *windows,
                                 const gptvq_deal *deal, const gptvq_stream *x, gptvq_error *err);
/* Bytes that it takes while it runs, for so many passes; kept_cols: of a pass with `kept`, or 0. */
size_t gptvq_sweep_bytes(size_t length, size_t hidden, size_t passes, size_t kept_cols);
/* All windows, each through all passes. On failure every x is unspecified. GPTVQ_ERROR_CANCELLED,
 * GPTVQ_ERROR_MEMORY, and what observers and the block return. */
gptvq_status gptvq_sweep_block(const gptvq_sweep *sweep, const gptvq_pass *passes, size_t count,
                               gptvq_error *err);

#endif
