/* A program without MPI: alone, and not to be started several times over. */
#include "mpi/mpi.h"

#include "base/status.h"

const char *gptvq_mpi_version(void) { return NULL; }

gptvq_status gptvq_mpi_join(int (*stop)(void), gptvq_team *team, gptvq_error *err) {
  (void)stop;
  *team = (gptvq_team){.size = sizeof *team, .count = 1, .neighbours = 1};
  size_t rank;
  const size_t count = gptvq_mpi_launched(&rank);
  if (count == 1) return GPTVQ_OK;
  return gptvq_fail(
      err, GPTVQ_ERROR_UNSUPPORTED,
      "started as one of %zu processes, but this gptvq is built without MPI: they would all do the "
      "same; start it alone, or build it with -DGPTVQ_MPI=ON",
      count);
}

void gptvq_mpi_leave(void) {}
int gptvq_mpi_speaks(gptvq_status status) {
  size_t rank;
  (void)status;
  (void)gptvq_mpi_launched(&rank);
  return rank == 0;
}
void gptvq_mpi_abort(int spoke, int code) { (void)spoke, (void)code; }
