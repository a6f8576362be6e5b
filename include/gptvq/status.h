/* gptvq/status.h: error codes, error messages, log and progress callbacks.
 *
 * Every fallible function returns a gptvq_status and takes a caller-owned `gptvq_error *` (may be NULL) last.
 * On failure the error holds one line of text: what was wrong, in which file and tensor, what to do.
 * The library never exits, aborts or prints.
 *
 * Structs grow at their end, and a program goes on working with a library that has other sizes of them:
 * - A struct that the program provides, of options or for results, begins with `size`. Its _init function
 *   sets that to the size which the program knows, and all members to their defaults (in results: zero); an
 *   initialiser can do it too, {.size = sizeof x, …}, where zero is the default of the other members. The
 *   library takes members beyond `size` as their defaults and writes none of them. When `size` is larger than
 *   the library knows, the bytes beyond must be zero in options: GPTVQ_ERROR_ARGUMENT says that the program
 *   asks for something newer. A struct that was not initialised is GPTVQ_ERROR_ARGUMENT too.
 * - A struct that the library provides (gptvq_progress, gptvq_field) is reached by pointer only and says in
 *   `size` how much of it there is.
 * gptvq_error stays as it is, and no struct that grows is a member of another.
 *
 * Names of enums: gptvq_…_name(value), static storage, "unknown" beyond the last; values run from 0 without
 * gaps (but for gptvq_status). gptvq_quantize_options_set takes the names of those that are options.
 *
 * Every function that ends in _destroy, _close or _free takes NULL and then does nothing. */
#ifndef GPTVQ_STATUS_H
#define GPTVQ_STATUS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GPTVQ_API __attribute__((visibility("default")))
#else
#define GPTVQ_API
#endif

/* The command line tool exits with these numbers too (see README, "Exit codes"). */
typedef enum gptvq_status {
  GPTVQ_OK = 0,
  GPTVQ_ERROR_INTERNAL = 1, /* a bug in gptvq */
  GPTVQ_ERROR_ARGUMENT = 2, /* an option or argument that makes no sense */
  GPTVQ_ERROR_IO = 3,       /* cannot open, read, write, create; disk full; output exists */
  GPTVQ_ERROR_FORMAT = 4,   /* a file is malformed, truncated, or contradicts another */
  GPTVQ_ERROR_UNSUPPORTED =
      5,                      /* well-formed, but not something gptvq can do (architecture, dtype, version) */
  GPTVQ_ERROR_NUMERIC = 6,    /* NaN or infinity in weights or activations; a factorisation that failed */
  GPTVQ_ERROR_MEMORY = 7,     /* allocation failed, or a size overflowed */
  GPTVQ_ERROR_DATA = 8,       /* too little or unusable text, token ids out of range */
  GPTVQ_ERROR_CANCELLED = 130 /* the progress callback, or gptvq_session_cancel, asked to stop */
} gptvq_status;

typedef struct gptvq_error {
  gptvq_status status;
  char message[1024]; /* NUL-terminated, one line, no trailing newline */
} gptvq_error;

/* A constant name such as "GPTVQ_ERROR_IO"; never NULL. */
GPTVQ_API const char *gptvq_status_name(gptvq_status status);

/* What _init functions begin with: all zero but the size. */
#define GPTVQ_INIT(pointer) \
  (memset((pointer), 0, sizeof *(pointer)), (void)((pointer)->size = sizeof *(pointer)))

typedef enum gptvq_log_level { GPTVQ_LOG_INFO = 0, GPTVQ_LOG_WARNING = 1 } gptvq_log_level;
/* "info", "warning" */
GPTVQ_API const char *gptvq_log_level_name(gptvq_log_level level);

/* One step of long work. Strings live only for the duration of the call. */
typedef struct gptvq_progress {
  size_t size;
  const char *phase; /* "sample", "quantize", "evaluate", "export", … */
  const char *item;  /* layer or file just finished, or being worked on (value NaN, done unchanged), or "" */
  size_t done, total;
  double value; /* what the phase reports per item (relative layer error, running perplexity), or NaN */
} gptvq_progress;

/* Any member may be NULL. Callbacks are called on the thread that called the library. */
typedef struct gptvq_callbacks {
  size_t size;
  void *user;
  void (*log)(void *user, gptvq_log_level level, const char *line);
  int (*progress)(void *user, const gptvq_progress *progress); /* non-zero: stop with GPTVQ_ERROR_CANCELLED */
} gptvq_callbacks;
static inline void gptvq_callbacks_init(gptvq_callbacks *callbacks) { GPTVQ_INIT(callbacks); }

/* Of these headers; gptvq_version says that of the library that is running. */
#define GPTVQ_VERSION_MAJOR 0
#define GPTVQ_VERSION_MINOR 1
#define GPTVQ_VERSION_PATCH 0
/* To compare with: 1.2.3 is 10203. */
#define GPTVQ_VERSION_NUMBER (GPTVQ_VERSION_MAJOR * 10000 + GPTVQ_VERSION_MINOR * 100 + GPTVQ_VERSION_PATCH)

/* "1.0.0"; static storage. */
GPTVQ_API const char *gptvq_version(void);

/* What follows is of the default context, in which calls run unless the program has others
 * (gptvq/context.h); not to be called while another call runs in it.
 * Number of threads for all later calls; 0 = one per available core (the default). Results do not depend on
 * it. */
GPTVQ_API void gptvq_set_threads(int threads);
GPTVQ_API int gptvq_get_threads(void);
/* Binds threads to CPUs: LIST ("0-3,6") has one per thread, the calling thread's first; from now on as many
 * threads as CPUs are used, or as many as a later gptvq_set_threads says (its 0 means as many as CPUs). NULL:
 * no longer bound. GPTVQ_ERROR_ARGUMENT, and nothing changed, when it is not a list or names a CPU that this
 * process may not use. */
GPTVQ_API gptvq_status gptvq_set_affinity(const char *cpus, gptvq_error *err);

/* Highest CPU level that kernels may use: "ref", "avx2", "avx512", "amx", "neon", "dotprod" or NULL/"auto"
 * (default; also the environment variable GPTVQ_CPU). GPTVQ_ERROR_UNSUPPORTED when this machine lacks it. */
GPTVQ_API gptvq_status gptvq_set_cpu(const char *level, gptvq_error *err);
GPTVQ_API const char *gptvq_get_cpu(void);

/* The path of the file that the library has mapped where `address` points to, or NULL. Weights are read from
 * mapped files: when one is cut short meanwhile, or its disk fails, the process gets SIGBUS, whose handler
 * (the program's own) can call this to name the file. Async-signal-safe. */
GPTVQ_API const char *gptvq_mapped_file(const void *address);

#ifdef __cplusplus
}
#endif
#endif
