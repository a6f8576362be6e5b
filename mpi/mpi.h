/* mpi/mpi.h: the processes that mpirun has started, as a team (gptvq/team.h). Part of the command, not of the
 * library; without Open MPI it says so. */
#ifndef GPTVQ_MPI_MPI_H
#define GPTVQ_MPI_MPI_H

#include <gptvq/team.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "Open MPI 4.1.4", or NULL: the program is built without. Static storage. */
const char *gptvq_mpi_version(void);
/* In how many processes mpirun says that it has started this program, and the number of this one: 1 and 0
 * without it. From the environment; nothing is initialised. */
size_t gptvq_mpi_launched(size_t *rank);
/* Joins the others, if there are any. stop: asked while others are waited for; true ends the wait with
 * GPTVQ_ERROR_CANCELLED. Once, from the main thread. GPTVQ_ERROR_UNSUPPORTED: there are others, but this
 * program has no MPI, or another one than mpirun. */
gptvq_status gptvq_mpi_join(int (*stop)(void), gptvq_team *team, gptvq_error *err);
/* Leaves in order: all members call it. */
void gptvq_mpi_leave(void);
/* This member has failed. True: it is to say why; false: another one does. Of a job that is ended from
 * outside member 0 speaks. Waits a moment for word of the others. gptvq_mpi_abort comes next. */
int gptvq_mpi_speaks(gptvq_status status);
/* Ends all members with that exit code; spoke: what gptvq_mpi_speaks was. Returns where there is no team. */
void gptvq_mpi_abort(int spoke, int code);

#ifdef __cplusplus
}
#endif

#endif
