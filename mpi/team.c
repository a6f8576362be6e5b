/* The team over Open MPI. Every wait asks whether to stop and whether another member has failed: a member
 * that waits for one that is gone neither hangs nor dies without a word. */
#define _POSIX_C_SOURCE 200809L
#include "mpi/mpi.h"

#include "base/status.h"

#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TAG_FAILED = 7, SPINS = 200 };
static const size_t piece = (size_t)1 << 30; /* counts of MPI are int */
static const double patience = 10.0;         /* seconds for the others to hear of a failure */

static struct {
  int joined, heard; /* heard: another member has failed and says so */
  int abandoned; /* an operation was left unfinished: its memory may be gone, and no call must move it on */
  int rank, count;
  int (*stop)(void);
  MPI_Request *told; /* [count] of the others, that this member has failed */
} state;

const char *gptvq_mpi_version(void) {
  static char text[48];
  (void)snprintf(text, sizeof text, "Open MPI %d.%d.%d", OMPI_MAJOR_VERSION, OMPI_MINOR_VERSION,
                 OMPI_RELEASE_VERSION);
  return text;
}

static void pause_briefly(long nanoseconds) {
  const struct timespec time = {0, nanoseconds};
  (void)nanosleep(&time, NULL);
}

static double now(void) {
  struct timespec time;
  (void)clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Has another member said that it has failed? Of the lower ones only, or of any. */
static int failure_heard(int below) {
  for (int r = 0; r < (below ? state.rank : state.count) && !state.heard; r++) {
    int there = 0;
    char word;
    if (r == state.rank ||
        MPI_Iprobe(r, TAG_FAILED, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE) != MPI_SUCCESS || !there)
      continue;
    (void)MPI_Recv(&word, 1, MPI_BYTE, r, TAG_FAILED, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    state.heard = 1;
  }
  return state.heard;
}
static int failure_heard_within(double seconds, int below) {
  for (const double begin = now(); !failure_heard(below); pause_briefly(1000000))
    if (now() - begin >= seconds) return 0;
  return 1;
}

static gptvq_status fail_mpi(int code, gptvq_error *err) {
  char text[MPI_MAX_ERROR_STRING + 1] = "";
  int length = 0;
  (void)MPI_Error_string(code, text, &length);
  return gptvq_fail(
      err, GPTVQ_ERROR_IO,
      "rank %d cannot reach the others (%.200s): look at the machines and their network; the same "
      "options with `resume` go on after the last finished block",
      state.rank, text);
}

/* Until the operation is done here. */
static gptvq_status wait_for(MPI_Request *request, gptvq_error *err) {
  for (unsigned turn = 0;; turn++) {
    int done = 0;
    const int code = MPI_Test(request, &done, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) return fail_mpi(code, err);
    if (done) return GPTVQ_OK;
    if (turn < SPINS) {
      (void)sched_yield();
      continue;
    }
    const int stopped = state.stop != NULL && state.stop();
    if (stopped ? failure_heard_within(state.rank == 0 ? 0.2 : 0.0, 0) : turn % 16 == 0 && failure_heard(0)) {
      state.abandoned = 1;
      return gptvq_fail(err, GPTVQ_ERROR_CANCELLED, "another rank has failed");
    }
    if (stopped) {
      state.abandoned = 1;
      return gptvq_fail(err, GPTVQ_ERROR_CANCELLED, "stopped on request, or as another rank has died");
    }
    pause_briefly(50000);
  }
}

static gptvq_status broadcast_from(int root, void *data, size_t bytes, gptvq_error *err) {
  for (size_t at = 0; at < bytes; at += piece) {
    const size_t some = bytes - at < piece ? bytes - at : piece;
    MPI_Request request;
    const int code = MPI_Ibcast((char *)data + at, (int)some, MPI_BYTE, root, MPI_COMM_WORLD, &request);
    if (code != MPI_SUCCESS) return fail_mpi(code, err);
    GPTVQ_TRY(wait_for(&request, err));
  }
  return GPTVQ_OK;
}

static gptvq_status broadcast(void *context, void *data, size_t bytes, gptvq_error *err) {
  (void)context;
  return broadcast_from(0, data, bytes, err);
}

/* counts[n], places[n] of offsets[n + 1] */
static void split(const size_t *offsets, int *counts, int *places) {
  for (int r = 0; r < state.count; r++) {
    places[r] = (int)offsets[r];
    counts[r] = (int)(offsets[r + 1] - offsets[r]);
  }
}

static gptvq_status gather(void *context, void *data, const size_t *offsets, gptvq_error *err) {
  (void)context;
  const size_t n = (size_t)state.count;
  if (offsets[n] > piece) { /* one after the other */
    for (size_t r = 0; r < n; r++)
      GPTVQ_TRY(broadcast_from((int)r, (char *)data + offsets[r], offsets[r + 1] - offsets[r], err));
    return GPTVQ_OK;
  }
  int *counts = malloc(2 * n * sizeof *counts);
  if (counts == NULL) return gptvq_fail_memory(err, "a team", 2 * n * sizeof *counts);
  split(offsets, counts, counts + n);
  MPI_Request request;
  const int code = MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_BYTE, data, counts, counts + n, MPI_BYTE,
                                   MPI_COMM_WORLD, &request);
  gptvq_status status = code == MPI_SUCCESS ? wait_for(&request, err) : fail_mpi(code, err);
  if (!state.abandoned) free(counts);
  return status;
}

static gptvq_status exchange(void *context, const void *send, const size_t *send_offsets, void *receive,
                             const size_t *receive_offsets, gptvq_error *err) {
  (void)context;
  const size_t n = (size_t)state.count;
  if (send_offsets[n] > INT_MAX || receive_offsets[n] > INT_MAX)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "an exchange of %zu bytes is too much at once",
                      send_offsets[n]);
  int *counts = malloc(4 * n * sizeof *counts);
  if (counts == NULL) return gptvq_fail_memory(err, "a team", 4 * n * sizeof *counts);
  split(send_offsets, counts, counts + n);
  split(receive_offsets, counts + 2 * n, counts + 3 * n);
  MPI_Request request;
  const int code = MPI_Ialltoallv(send, counts, counts + n, MPI_BYTE, receive, counts + 2 * n, counts + 3 * n,
                                  MPI_BYTE, MPI_COMM_WORLD, &request);
  gptvq_status status = code == MPI_SUCCESS ? wait_for(&request, err) : fail_mpi(code, err);
  if (!state.abandoned) free(counts);
  return status;
}

/* Processes that share this one's memory, and its number among them. */
static void count_neighbours(gptvq_team *team) {
  MPI_Comm here;
  int count = 1, number = 0;
  if (MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here) != MPI_SUCCESS)
    return;
  (void)MPI_Comm_size(here, &count);
  (void)MPI_Comm_rank(here, &number);
  (void)MPI_Comm_free(&here);
  team->neighbours = (size_t)count;
  team->neighbour = (size_t)number;
}

gptvq_status gptvq_mpi_join(int (*stop)(void), gptvq_team *team, gptvq_error *err) {
  *team = (gptvq_team){.size = sizeof *team, .count = 1, .neighbours = 1};
  size_t rank;
  const size_t launched = gptvq_mpi_launched(&rank);
  int given = MPI_THREAD_SINGLE;
  if (launched == 1) return GPTVQ_OK; /* alone: MPI is not started */
  if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given) != MPI_SUCCESS)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s cannot be started", gptvq_mpi_version());
  state.joined = 1;
  state.stop = stop;
  (void)MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  (void)MPI_Comm_size(MPI_COMM_WORLD, &state.count);
  (void)MPI_Comm_rank(MPI_COMM_WORLD, &state.rank);
  if (state.count == 1)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "started as one of %zu processes by the mpirun of another MPI: use that of %s",
                      launched, gptvq_mpi_version());
  team->rank = (size_t)state.rank;
  team->count = (size_t)state.count;
  count_neighbours(team);
  team->broadcast = broadcast;
  team->gather = gather;
  team->exchange = exchange;
  return GPTVQ_OK;
}

void gptvq_mpi_leave(void) {
  if (state.joined) (void)MPI_Finalize();
  state.joined = 0;
}

int gptvq_mpi_speaks(gptvq_status status) {
  static char word;
  if (!state.joined || state.count == 1) {
    size_t rank;
    (void)gptvq_mpi_launched(&rank);
    return rank == 0;
  }
  if (state.heard) return 0;
  if (status == GPTVQ_ERROR_CANCELLED)
    return state.rank == 0 && (state.abandoned || !failure_heard_within(0.2, 0));
  /* all may have failed in the same way: the lowest speaks */
  if (state.rank > 0 && failure_heard_within(1.0, 1)) return 0;
  state.told = malloc((size_t)state.count * sizeof(MPI_Request));
  for (int r = 0; r < state.count && state.told != NULL; r++) { /* done when they have heard it */
    state.told[r] = MPI_REQUEST_NULL;
    if (r != state.rank) (void)MPI_Issend(&word, 1, MPI_BYTE, r, TAG_FAILED, MPI_COMM_WORLD, &state.told[r]);
  }
  return 1;
}

void gptvq_mpi_abort(int spoke, int code) {
  if (!state.joined || state.count == 1) return;
  int done = 0;
  for (const double begin = now(); !done && now() - begin < (spoke ? patience : 2.0 * patience);
       pause_briefly(1000000))
    if (spoke && state.told != NULL) (void)MPI_Testall(state.count, state.told, &done, MPI_STATUSES_IGNORE);
    else done = spoke;
  (void)MPI_Abort(MPI_COMM_WORLD, code);
}
