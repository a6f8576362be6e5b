/* Preloaded by kill_points.sh: what a program changes on disk, counted, and cut off at a chosen step.
 *
 *   FAULT_COUNT=FILE      at the end: the number of steps (writes to files, creations, renamings, removals,
 * syncs) FAULT_KILL=N          SIGKILL instead of the N-th step, from 1 FAULT_NO_EXCHANGE=1   the system
 * cannot exchange two folders FAULT_UNREADABLE=NAME once something was renamed to NAME, nothing below it can
 * be opened any more */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long steps;
static atomic_int unreadable;

static long number(const char *name) {
  const char *text = getenv(name);
  return text != NULL ? strtol(text, NULL, 10) : 0;
}

static void step(void) {
  if (atomic_fetch_add(&steps, 1) + 1 == number("FAULT_KILL")) (void)kill(getpid(), SIGKILL);
}

__attribute__((destructor)) static void report(void) {
  const char *path = getenv("FAULT_COUNT");
  FILE *file = path != NULL ? fopen(path, "w") : NULL;
  if (file == NULL) return;
  (void)fprintf(file, "%ld\n", atomic_load(&steps));
  (void)fclose(file);
}

/* The next definition of the function that is being replaced. */
#define NEXT(type, name) ((type)(uintptr_t)dlsym(RTLD_NEXT, name))

static int open_file(const char *name, const char *path, int flags, unsigned mode) {
  const char *shut = getenv("FAULT_UNREADABLE");
  size_t length = shut != NULL ? strlen(shut) : 0;
  if (atomic_load(&unreadable) != 0 && strncmp(path, shut, length) == 0 && path[length] == '/') {
    errno = EIO;
    return -1;
  }
  if ((flags & O_CREAT) != 0) step();
  return NEXT(int (*)(const char *, int, unsigned), name)(path, flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list args;
  va_start(args, flags);
  unsigned mode = (flags & O_CREAT) != 0 ? va_arg(args, unsigned) : 0;
  va_end(args);
  return open_file("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list args;
  va_start(args, flags);
  unsigned mode = (flags & O_CREAT) != 0 ? va_arg(args, unsigned) : 0;
  va_end(args);
  return open_file("open64", path, flags, mode);
}

ssize_t write(int fd, const void *data, size_t size) {
  if (fd > STDERR_FILENO) step();
  return NEXT(ssize_t(*)(int, const void *, size_t), "write")(fd, data, size);
}

int fsync(int fd) {
  step();
  return NEXT(int (*)(int), "fsync")(fd);
}

static void renamed(const char *to) {
  const char *shut = getenv("FAULT_UNREADABLE");
  if (shut != NULL && strcmp(to, shut) == 0) atomic_store(&unreadable, 1);
}

int rename(const char *from, const char *to) {
  step();
  int result = NEXT(int (*)(const char *, const char *), "rename")(from, to);
  if (result == 0) renamed(to);
  return result;
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
  if (number("FAULT_NO_EXCHANGE") != 0) {
    errno = EINVAL;
    return -1;
  }
  step();
  int result = NEXT(int (*)(int, const char *, int, const char *, unsigned),
                    "renameat2")(from_folder, from, to_folder, to, flags);
  if (result == 0) renamed(to);
  return result;
}

int mkdir(const char *path, mode_t mode) {
  step();
  return NEXT(int (*)(const char *, mode_t), "mkdir")(path, mode);
}

int unlink(const char *path) {
  step();
  return NEXT(int (*)(const char *), "unlink")(path);
}

int rmdir(const char *path) {
  step();
  return NEXT(int (*)(const char *), "rmdir")(path);
}

int remove(const char *path) {
  step();
  return NEXT(int (*)(const char *), "remove")(path);
}
