/* What of the machine's memory is left for us: /proc/meminfo, and the control groups that we are in. */
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PATH = 1024 };

/* The first line of the file ROOT/FOLDER/NAME that the format fits; false: there is none. */
static bool number_in(const char *root, const char *folder, const char *name, const char *format,
                      uint64_t *number) {
  char path[PATH], line[256];
  int length = snprintf(path, sizeof path, "%s%s%s", root, folder, name);
  FILE *file = length > 0 && (size_t)length < sizeof path ? fopen(path, "re") : NULL;
  bool found = false;
  if (file == NULL) return false;
  while (!found && fgets(line, sizeof line, file) != NULL) found = sscanf(line, format, number) == 1;
  (void)fclose(file);
  return found;
}

typedef struct group_files {
  const char *limit, *used, *cache; /* cache: a line of memory.stat */
} group_files;
static const group_files version1 = {"/memory.limit_in_bytes", "/memory.usage_in_bytes",
                                     "total_cache %" SCNu64},
                         version2 = {"/memory.max", "/memory.current", "file %" SCNu64};

/* What is left in one group, or *left as it was: "max", and what version 1 has for it, is no number or huge.
 * The cache of files can be had back. */
static void look_at(const char *root, const char *folder, const group_files *files, uint64_t *left) {
  uint64_t limit, used = 0, cache = 0;
  if (!number_in(root, folder, files->limit, "%" SCNu64, &limit) || limit >= (uint64_t)1 << 60) return;
  (void)number_in(root, folder, files->used, "%" SCNu64, &used);
  (void)number_in(root, folder, "/memory.stat", files->cache, &cache);
  used = used > cache ? used - cache : 0;
  limit = limit > used ? limit - used : 1;
  if (limit < *left) *left = limit;
}

/* The group `path` of a hierarchy mounted at `mount`, and those around it. Where the mount is the group's
 * own, as in a container, the path may not be there. */
static void look_up(const char *root, const char *mount, const char *path, const group_files *files,
                    uint64_t *left) {
  char folder[PATH];
  int length = snprintf(folder, sizeof folder, "%s%s", mount, path);
  if (length < 0 || (size_t)length >= sizeof folder) return;
  for (char *end; strlen(folder) > strlen(mount); *end = '\0') {
    look_at(root, folder, files, left);
    end = strrchr(folder, '/');
  }
  look_at(root, mount, files, left);
}

uint64_t gptvq_available_memory_in(const char *root) {
  uint64_t kilobytes = 0, left = UINT64_MAX;
  if (number_in(root, "/proc", "/meminfo", "MemAvailable: %" SCNu64 " kB", &kilobytes))
    left = 1024u * kilobytes;
  char path[PATH], line[PATH];
  int length = snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
  FILE *file = length > 0 && (size_t)length < sizeof path ? fopen(path, "re") : NULL;
  while (file != NULL && fgets(line, sizeof line, file) != NULL) { /* "4:memory:/a/b", or "0::/a/b" */
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':'), *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
    if (group == NULL) continue;
    *group++ = '\0';
    if (controllers[1] == '\0') look_up(root, "/sys/fs/cgroup", group, &version2, &left);
    for (char *name = strtok(controllers + 1, ","); name != NULL; name = strtok(NULL, ","))
      if (strcmp(name, "memory") == 0) look_up(root, "/sys/fs/cgroup/memory", group, &version1, &left);
  }
  if (file != NULL) (void)fclose(file);
  return left == UINT64_MAX ? 0 : left;
}

uint64_t gptvq_available_memory(void) { return gptvq_available_memory_in(""); }

uint64_t gptvq_resident_memory(void) {
  uint64_t kilobytes = 0;
  return number_in("", "/proc/self", "/status", "VmRSS: %" SCNu64 " kB", &kilobytes) ? 1024u * kilobytes : 0;
}
