/* What the launcher has left in the environment. */
#include "mpi/mpi.h"

#include <stdlib.h>

static size_t number(const char *name) {
  const char *value = getenv(name);
  const long n = value != NULL ? strtol(value, NULL, 10) : 0;
  return n > 0 ? (size_t)n : 0;
}

size_t gptvq_mpi_launched(size_t *rank) {
  /* Open MPI; MPICH and its kin, whose mpirun starts a program of Open MPI as so many single ones */
  static const char *const names[][2] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                                         {"PMI_SIZE", "PMI_RANK"}};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const size_t count = number(names[i][0]);
    *rank = number(names[i][1]);
    if (count > 1) return count;
  }
  *rank = 0;
  return 1;
}
