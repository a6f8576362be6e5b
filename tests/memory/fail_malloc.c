/* Preloaded into gptvq by tests/cli/memory.sh and interrupt.sh: the allocation with number $FAIL_AT, counted
 * from the start of main, fails, and with $FAIL_ON=1 all after it; with $FAIL_ON=never it does not come back,
 * as in a library that tries for ever. The number of allocations goes to the file $FAIL_COUNT, at the end or
 * before one does not come back. Alarms are a hundred times as early, and nobody waits for the disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static _Atomic size_t count;
static size_t fail_at;
static bool counting, for_good, never_back;
static const char *count_file;

/* Libraries whose own allocations are left alone: there is nothing that a caller could do. */
static const char *const hopeless[] = {
    "libopenblas", /* its kernels for small products write to what malloc returns without a look at it */
    "libgomp",     /* ends the process itself, with code 1 */
};
enum { HOPELESS = sizeof hopeless / sizeof hopeless[0] };
static struct { uintptr_t begin, end; } areas[HOPELESS];

static int find_areas(struct dl_phdr_info *info, size_t size, void *context) {
  (void)size;
  (void)context;
  for (size_t i = 0; i < HOPELESS; i++) {
    if (strstr(info->dlpi_name, hopeless[i]) == NULL) continue;
    for (int p = 0; p < info->dlpi_phnum; p++) {
      if (info->dlpi_phdr[p].p_type != PT_LOAD || !(info->dlpi_phdr[p].p_flags & PF_X)) continue;
      areas[i].begin = info->dlpi_addr + info->dlpi_phdr[p].p_vaddr;
      areas[i].end = areas[i].begin + info->dlpi_phdr[p].p_memsz;
    }
  }
  return 0;
}

static void write_count(void) {
  if (count_file == NULL) return;
  char text[32];
  int length = snprintf(text, sizeof text, "%zu\n", atomic_load(&count)),
      fd = open(count_file, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (fd < 0) return;
  if (write(fd, text, (size_t)length) != length) _exit(99);
  close(fd);
}

static bool fails(const void *caller) {
  if (!counting) return false;
  for (size_t i = 0; i < HOPELESS; i++)
    if ((uintptr_t)caller >= areas[i].begin && (uintptr_t)caller < areas[i].end) return false;
  size_t number = atomic_fetch_add(&count, 1) + 1;
  if (number != fail_at && !(for_good && fail_at > 0 && number > fail_at)) return false;
  if (never_back) {
    counting = false;
    write_count();
    for (;;) pause();
  }
  errno = ENOMEM;
  return true;
}

int fsync(int fd) { return fcntl(fd, F_GETFD) < 0 ? -1 : 0; }

unsigned alarm(unsigned seconds) {
  struct itimerval timer = {.it_value = {seconds / 100, seconds % 100 * 10000}};
  (void)setitimer(ITIMER_REAL, &timer, NULL);
  return 0;
}

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) { return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size); }
void *calloc(size_t n, size_t size) {
  return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}
void *realloc(void *memory, size_t size) {
  return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
  return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
  void *memory = fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
  if (memory == NULL) return ENOMEM;
  *out = memory;
  return 0;
}

static int (*real_main)(int, char **, char **);

static int counted_main(int argc, char **argv, char **env) {
  const char *at = getenv("FAIL_AT"), *on = getenv("FAIL_ON");
  fail_at = at != NULL ? strtoul(at, NULL, 10) : 0;
  for_good = on != NULL && strcmp(on, "1") == 0;
  never_back = on != NULL && strcmp(on, "never") == 0;
  count_file = getenv("FAIL_COUNT");
  dl_iterate_phdr(find_areas, NULL);
  counting = true;
  int code = real_main(argc, argv, env);
  counting = false;
  write_count();
  return code;
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end);

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end) {
  int (*start)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void), void (*)(void),
               void *) = NULL;
  void *symbol = dlsym(RTLD_NEXT, "__libc_start_main");
  memcpy(&start, &symbol, sizeof start);
  real_main = main;
  return start(counted_main, argc, argv, init, fini, rtld_fini, stack_end);
}
