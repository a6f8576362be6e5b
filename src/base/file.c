#define _GNU_SOURCE
#include "base/file.h"
#include "base/mappings.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

gptvq_status gptvq_fail_errno(gptvq_error *err, const char *verb, const char *path) {
  return gptvq_fail(err, errno == ENOMEM ? GPTVQ_ERROR_MEMORY : GPTVQ_ERROR_IO, "cannot %s %s: %s", verb,
                    path, strerror(errno));
}

static gptvq_status open_regular(const char *path, int *fd, size_t *size, gptvq_error *err) {
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO would wait for its writer */
  if (*fd < 0 && errno == ENOENT && gptvq_path_exists(path))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "cannot open %s: it is a link to a file that does not exist",
                      path);
  if (*fd < 0 && errno == ENXIO) return gptvq_fail(err, GPTVQ_ERROR_IO, "%s is not a regular file", path);
  if (*fd < 0) return gptvq_fail_errno(err, "open", path);
  struct stat info;
  gptvq_status status = GPTVQ_OK;
  if (fstat(*fd, &info) != 0) status = gptvq_fail_errno(err, "stat", path);
  else if (!S_ISREG(info.st_mode)) status = gptvq_fail(err, GPTVQ_ERROR_IO, "%s is not a regular file", path);
  else *size = (size_t)info.st_size;
  if (status != GPTVQ_OK) close(*fd);
  return status;
}

gptvq_status gptvq_map_file(const char *path, gptvq_mapping *out, gptvq_error *err) {
  int fd;
  *out = (gptvq_mapping){NULL, 0};
  GPTVQ_TRY(open_regular(path, &fd, &out->size, err));
  gptvq_status status = GPTVQ_OK;
  if (out->size > 0) {
    void *data = mmap(NULL, out->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      status = gptvq_fail_errno(err, "map", path);
      out->size = 0;
    } else {
      out->data = data;
      status = gptvq_mapping_register(out, path, err);
      if (status != GPTVQ_OK) gptvq_unmap_file(out);
    }
  }
  close(fd);
  return status;
}

void gptvq_unmap_file(gptvq_mapping *mapping) {
  if (mapping->data != NULL) {
    gptvq_mapping_forget(mapping);
    munmap((void *)(uintptr_t)mapping->data, mapping->size);
  }
  *mapping = (gptvq_mapping){NULL, 0};
}

void gptvq_mapping_rest(const void *data, size_t bytes) {
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)data;
  const uintptr_t begin = (at + page - 1) / page * page, end = (at + bytes) / page * page;
  if (data == NULL || bytes == 0 || end <= begin || gptvq_mapped_file(data) == NULL) return;
  (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}

gptvq_status gptvq_check_lfs(const char *path, const void *data, size_t size, gptvq_error *err) {
  static const char begin[] = "version https://git-lfs";
  if (size < sizeof begin - 1 || memcmp(data, begin, sizeof begin - 1) != 0) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                    "%s is a Git LFS pointer, not the file itself: run git lfs pull in its folder", path);
}

gptvq_status gptvq_read_file(const char *path, size_t max_size, char **data, size_t *size, gptvq_error *err) {
  int fd;
  size_t length = 0;
  *data = NULL;
  *size = 0;
  GPTVQ_TRY(open_regular(path, &fd, &length, err));
  gptvq_status status = GPTVQ_OK;
  char *buffer = NULL;
  if (length > max_size) {
    status = gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s is too large: %zu bytes, at most %zu are accepted", path,
                        length, max_size);
    goto done;
  }
  buffer = malloc(length + 1);
  if (buffer == NULL) {
    status = gptvq_fail_memory(err, path, length + 1);
    goto done;
  }
  for (size_t at = 0; at < length;) {
    ssize_t got = read(fd, buffer + at, length - at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      status = gptvq_fail_errno(err, "read", path);
      goto done;
    }
    if (got == 0) length = at; /* the file shrank while being read */
    else at += (size_t)got;
  }
  buffer[length] = '\0';
  status = gptvq_check_lfs(path, buffer, length, err);
  if (status != GPTVQ_OK) goto done;
  *data = buffer;
  *size = length;
  buffer = NULL;
done:
  free(buffer);
  close(fd);
  return status;
}

struct gptvq_writer {
  int fd;
  char *path, *temporary;
  size_t filled;
  uint8_t buffer[1 << 16];
};

gptvq_status gptvq_writer_open(const char *path, gptvq_writer **out, gptvq_error *err) {
  *out = NULL;
  gptvq_writer *writer = malloc(sizeof *writer);
  size_t length = strlen(path) + 32;
  char *temporary = malloc(length);
  char *copy = strdup(path);
  if (writer == NULL || temporary == NULL || copy == NULL) {
    free(writer);
    free(temporary);
    free(copy);
    return gptvq_fail_memory(err, path, sizeof *writer);
  }
  (void)snprintf(temporary, length, "%s.tmp.%ld", path, (long)getpid());
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) {
    gptvq_status status = gptvq_fail_errno(err, "create", path);
    free(writer);
    free(temporary);
    free(copy);
    return status;
  }
  writer->fd = fd;
  writer->path = copy;
  writer->temporary = temporary;
  writer->filled = 0;
  *out = writer;
  return GPTVQ_OK;
}

static gptvq_status write_all(gptvq_writer *writer, const uint8_t *data, size_t size, gptvq_error *err) {
  while (size > 0) {
    ssize_t written = write(writer->fd, data, size);
    if (written < 0 && errno == EINTR) continue;
    const char *source = written < 0 && errno == EFAULT ? gptvq_mapped_file(data) : NULL;
    if (source != NULL) /* where reading in the process itself would be a SIGBUS */
      return gptvq_fail(err, GPTVQ_ERROR_IO, "%s was cut short, or its disk failed, while it was read",
                        source);
    if (written < 0) return gptvq_fail_errno(err, "write", writer->path);
    data += written;
    size -= (size_t)written;
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_writer_write(gptvq_writer *writer, const void *data, size_t size, gptvq_error *err) {
  if (writer->filled + size > sizeof writer->buffer || size >= sizeof writer->buffer) {
    GPTVQ_TRY(write_all(writer, writer->buffer, writer->filled, err));
    writer->filled = 0;
    if (size >= sizeof writer->buffer) return write_all(writer, data, size, err);
  }
  if (size > 0) memcpy(writer->buffer + writer->filled, data, size);
  writer->filled += size;
  return GPTVQ_OK;
}

gptvq_status gptvq_sync_parent(const char *path, gptvq_error *err) {
  char parent[4096]; /* no allocation: what is done must not be reported as failed */
  if (strlen(path) >= sizeof parent) return gptvq_fail(err, GPTVQ_ERROR_IO, "the path %s is too long", path);
  strcpy(parent, path);
  char *slash = strrchr(parent, '/');
  if (slash == NULL) strcpy(parent, ".");
  else if (slash == parent) slash[1] = '\0';
  else *slash = '\0';
  gptvq_status status = GPTVQ_OK;
  int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  /* some file systems cannot sync a folder (EINVAL): nothing more can be done there */
  if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL))
    status = gptvq_fail_errno(err, "sync the folder of", path);
  if (fd >= 0) close(fd);
  return status;
}

static void release(gptvq_writer *writer) {
  free(writer->path);
  free(writer->temporary);
  free(writer);
}

gptvq_status gptvq_writer_commit(gptvq_writer *writer, gptvq_error *err) {
  gptvq_status status = write_all(writer, writer->buffer, writer->filled, err);
  if (status == GPTVQ_OK && fsync(writer->fd) != 0) status = gptvq_fail_errno(err, "sync", writer->path);
  if (close(writer->fd) != 0 && status == GPTVQ_OK) status = gptvq_fail_errno(err, "close", writer->path);
  if (status == GPTVQ_OK && rename(writer->temporary, writer->path) != 0)
    status = gptvq_fail_errno(err, "create", writer->path);
  if (status == GPTVQ_OK) status = gptvq_sync_parent(writer->path, err);
  else unlink(writer->temporary);
  release(writer);
  return status;
}

void gptvq_writer_abort(gptvq_writer *writer) {
  if (writer == NULL) return;
  close(writer->fd);
  unlink(writer->temporary);
  release(writer);
}

gptvq_status gptvq_write_file(const char *path, const void *data, size_t size, gptvq_error *err) {
  gptvq_writer *writer;
  GPTVQ_TRY(gptvq_writer_open(path, &writer, err));
  gptvq_status status = gptvq_writer_write(writer, data, size, err);
  if (status == GPTVQ_OK) return gptvq_writer_commit(writer, err);
  gptvq_writer_abort(writer);
  return status;
}

bool gptvq_path_exists(const char *path) {
  struct stat info;
  return lstat(path, &info) == 0;
}

uint64_t gptvq_file_size(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
}

bool gptvq_is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

gptvq_status gptvq_make_folder(const char *path, gptvq_error *err) {
  if (mkdir(path, 0777) == 0) return gptvq_sync_parent(path, err);
  if (errno == EEXIST && gptvq_is_folder(path)) return GPTVQ_OK;
  return gptvq_fail_errno(err, "create the folder", path);
}

bool gptvq_each_entry(int folder, gptvq_visit_entry visit, void *context) {
  enum { D_NAME = 19 }; /* getdents64(2): u64 inode, i64 offset, u16 length, u8 type, name */
  _Alignas(8) char entries[4096];
  if (lseek(folder, 0, SEEK_SET) != 0) return false;
  for (long size; (size = syscall(SYS_getdents64, folder, entries, sizeof entries)) != 0;) {
    if (size < 0) return false;
    uint16_t length;
    for (long at = 0; at < size; at += length) {
      const char *name = entries + at + D_NAME;
      memcpy(&length, entries + at + 16, sizeof length);
      if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
      if (!visit(context, folder, name)) return false;
    }
  }
  return true;
}

/* An entry of `folder`, with all that is in it. What is removed is often what a lack of memory leaves behind.
 */
static bool remove_entry(void *context, int folder, const char *name) {
  bool *removed = context;
  *removed = true;
  if (unlinkat(folder, name, 0) == 0) return true;
  if (errno != EISDIR && errno != EPERM) return false;
  int inner = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (inner < 0) return false;
  bool fine = true;
  for (bool more = true; fine && more;) { /* removing may disturb the reading: until nothing is left */
    more = false;
    fine = gptvq_each_entry(inner, remove_entry, &more);
  }
  int reason = errno;
  close(inner);
  errno = reason;
  return fine && unlinkat(folder, name, AT_REMOVEDIR) == 0;
}

gptvq_status gptvq_remove_tree(const char *path, gptvq_error *err) {
  if (!gptvq_path_exists(path)) return GPTVQ_OK;
  bool removed;
  return remove_entry(&removed, AT_FDCWD, path) ? GPTVQ_OK : gptvq_fail_errno(err, "remove", path);
}

gptvq_status gptvq_rename_path(const char *from, const char *to, gptvq_error *err) {
  if (rename(from, to) != 0) return gptvq_fail_errno(err, "create", to);
  return gptvq_sync_parent(to, err);
}

char *gptvq_join_path(const char *folder, const char *name) {
  size_t a = strlen(folder), b = strlen(name);
  char *path = malloc(a + b + 2);
  if (path == NULL) return NULL;
  memcpy(path, folder, a);
  if (a > 0 && folder[a - 1] != '/') path[a++] = '/';
  memcpy(path + a, name, b + 1);
  return path;
}
