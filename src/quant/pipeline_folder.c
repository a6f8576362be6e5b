#define _GNU_SOURCE
#include "quant/pipeline_folder.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const off_t max_side_file = (off_t)256 << 20;

static gptvq_status is_empty_folder(const char *path, bool *empty, gptvq_error *err) {
  *empty = false;
  DIR *folder = opendir(path);
  if (folder == NULL) return gptvq_fail_errno(err, "read the folder", path);
  *empty = true;
  for (struct dirent *entry; *empty && (entry = readdir(folder)) != NULL;)
    *empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
  closedir(folder);
  return GPTVQ_OK;
}

/* May `path` be replaced? Only a folder that holds a model, or nothing. */
static gptvq_status check_replaceable(const char *path, gptvq_error *err) {
  if (!gptvq_is_folder(path)) return gptvq_fail(err, GPTVQ_ERROR_IO, "%s exists and is not a folder", path);
  char *config = gptvq_join_path(path, "config.json");
  if (config == NULL) return gptvq_fail_memory(err, path, strlen(path));
  bool model = gptvq_path_exists(config), empty = false;
  free(config);
  if (!model) GPTVQ_TRY(is_empty_folder(path, &empty, err));
  if (!model && !empty)
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s exists and is not a model folder: it will not be replaced",
                      path);
  return GPTVQ_OK;
}

/* Is `inner` the folder `outer` or somewhere inside it? What does not exist is nowhere. */
static gptvq_status contains(const char *outer, const char *inner, bool *inside, gptvq_error *err) {
  char *a = realpath(outer, NULL), *b = a != NULL ? realpath(inner, NULL) : NULL;
  gptvq_status status = GPTVQ_OK;
  if (b == NULL && errno == ENOMEM) status = gptvq_fail_errno(err, "resolve", a == NULL ? outer : inner);
  size_t length = a != NULL ? strlen(a) : 0;
  *inside = b != NULL && strncmp(a, b, length) == 0 &&
            (b[length] == '\0' || b[length] == '/' || (length > 0 && a[length - 1] == '/'));
  free(a);
  free(b);
  return status;
}

/* A symbolic link to a folder? */
static bool is_link_to_folder(const char *path) {
  struct stat info;
  return lstat(path, &info) == 0 && S_ISLNK(info.st_mode) && gptvq_is_folder(path);
}

gptvq_status gptvq_output_check(const char *out_dir, const char *source_dir, int force, gptvq_output *out,
                                gptvq_error *err) {
  *out = (gptvq_output){.lock = -1};
  if (out_dir == NULL || out_dir[0] == '\0')
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "no output folder was given");
  size_t length = strlen(out_dir);
  while (length > 1 && out_dir[length - 1] == '/') length--;
  out->path = strndup(out_dir, length);
  if (out->path == NULL) return gptvq_fail_memory(err, "the output path", length);
  if (is_link_to_folder(out->path)) { /* it stays one: what it points to is replaced, on its own disk */
    char *target = realpath(out->path, NULL);
    if (target == NULL) return gptvq_fail_errno(err, "resolve", out->path);
    free(out->path);
    out->path = target;
  }
  length = strlen(out->path);
  out->work = malloc(length + sizeof ".partial");
  if (out->work == NULL) return gptvq_fail_memory(err, "the output path", length);
  (void)snprintf(out->work, length + sizeof ".partial", "%s.partial", out->path);
  const char *last = strrchr(out->path, '/');
  last = last != NULL ? last + 1 : out->path;
  if (last[0] == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "the output folder %s needs a name of its own", out_dir);
  if (gptvq_path_exists(out->path)) {
    bool inside;
    GPTVQ_TRY(contains(out->path, source_dir, &inside, err));
    if (inside)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                        "the output folder %s holds the input model %s: choose another", out->path,
                        source_dir);
    if (!force)
      return gptvq_fail(err, GPTVQ_ERROR_IO, "output folder %s exists; use --force to replace it", out->path);
    GPTVQ_TRY(check_replaceable(out->path, err));
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_output_open(gptvq_output *out, gptvq_error *err) {
  if (mkdir(out->work, 0777) != 0 && (errno != EEXIST || !gptvq_is_folder(out->work)))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "cannot create the output folder %s: %s", out->work,
                      strerror(errno));
  out->lock = open(out->work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (out->lock < 0) return gptvq_fail(err, GPTVQ_ERROR_IO, "cannot open %s: %s", out->work, strerror(errno));
  if (flock(out->lock, LOCK_EX | LOCK_NB) != 0 &&
      errno == EWOULDBLOCK) { /* no locks on this file system: go on */
    close(out->lock);
    out->lock = -1; /* not ours to discard */
    return gptvq_fail(err, GPTVQ_ERROR_IO, "another process is writing %s", out->work);
  }
  if (access(out->work, W_OK | X_OK) != 0)
    return gptvq_fail(err, GPTVQ_ERROR_IO, "cannot write into %s: %s", out->work, strerror(errno));
  return GPTVQ_OK;
}

void gptvq_output_clean(const gptvq_output *out) {
  DIR *folder = opendir(out->work);
  if (folder == NULL) return;
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
    if (strstr(entry->d_name, ".tmp.") != NULL) (void)unlinkat(dirfd(folder), entry->d_name, 0);
  closedir(folder);
}

gptvq_status gptvq_output_check_space(const gptvq_output *out, uint64_t bytes, gptvq_error *err) {
  struct statvfs info;
  if (statvfs(out->work, &info) != 0) return GPTVQ_OK; /* unknown: the writes will tell */
  uint64_t available = (uint64_t)info.f_bavail * info.f_frsize;
  if (available < bytes)
    return gptvq_fail(err, GPTVQ_ERROR_IO,
                      "not enough space for %s: about %llu bytes are needed, %llu are free", out->path,
                      (unsigned long long)bytes, (unsigned long long)available);
  return GPTVQ_OK;
}

gptvq_status gptvq_output_publish(gptvq_output *out, gptvq_error *err) {
  if (!gptvq_path_exists(out->path)) return gptvq_rename_path(out->work, out->path, err);
#ifdef RENAME_EXCHANGE
  if (renameat2(AT_FDCWD, out->work, AT_FDCWD, out->path, RENAME_EXCHANGE) == 0)
    return gptvq_remove_tree(out->work, err); /* what was OUT before */
#endif
  size_t length = strlen(out->path) + 32;
  char *old = malloc(length);
  if (old == NULL) return gptvq_fail_memory(err, out->path, length);
  (void)snprintf(old, length, "%s.old.%ld", out->path, (long)getpid());
  gptvq_status status = gptvq_rename_path(out->path, old, err);
  if (status == GPTVQ_OK) {
    status = gptvq_rename_path(out->work, out->path, err);
    if (status != GPTVQ_OK) (void)gptvq_rename_path(old, out->path, NULL);
    else status = gptvq_remove_tree(old, err);
  }
  free(old);
  return status;
}

void gptvq_output_discard(gptvq_output *out) {
  if (out->work != NULL && out->lock >= 0) (void)gptvq_remove_tree(out->work, NULL);
}

void gptvq_output_release(gptvq_output *out) {
  if (out->lock >= 0) close(out->lock); /* the lock goes with it */
  free(out->path);
  free(out->work);
  *out = (gptvq_output){.lock = -1};
}

gptvq_status gptvq_output_path(const gptvq_output *out, const char *name, char path[GPTVQ_PATH_MAX],
                               gptvq_error *err) {
  int length = snprintf(path, GPTVQ_PATH_MAX, "%s/%s", out->work, name);
  if (length < 0 || length >= GPTVQ_PATH_MAX)
    return gptvq_fail(err, GPTVQ_ERROR_IO, "the path %s/%s is too long", out->work, name);
  return GPTVQ_OK;
}

static bool ends_with(const char *name, const char *end) {
  size_t a = strlen(name), b = strlen(end);
  return a > b && strcmp(name + a - b, end) == 0;
}

static bool is_side_file(const char *name) {
  if (name[0] == '.' || strcmp(name, "config.json") == 0 || ends_with(name, ".index.json")) return false;
  return ends_with(name, ".json") || ends_with(name, ".model") || ends_with(name, ".txt") ||
         ends_with(name, ".jinja");
}

gptvq_status gptvq_copy_side_files(const char *from, const char *to, gptvq_error *err) {
  DIR *folder = opendir(from);
  if (folder == NULL) return gptvq_fail_errno(err, "read the folder", from);
  gptvq_status status = GPTVQ_OK;
  for (struct dirent *entry; status == GPTVQ_OK && (entry = readdir(folder)) != NULL;) {
    struct stat info;
    if (!is_side_file(entry->d_name)) continue;
    char *source = gptvq_join_path(from, entry->d_name), *target = gptvq_join_path(to, entry->d_name);
    if (source == NULL || target == NULL)
      status = gptvq_fail_memory(err, entry->d_name, strlen(entry->d_name));
    else if (stat(source, &info) == 0 && S_ISREG(info.st_mode) && info.st_size <= max_side_file)
      status = gptvq_copy_file(source, target, err);
    free(source);
    free(target);
  }
  closedir(folder);
  return status;
}

/* With the fewest digits that keep every number exactly: 1e-05 does not become 1.0000000000000001e-5. */
static char *dump_json(const json_t *json) {
  for (size_t digits = 15; digits <= 17; digits++) {
    char *text = gptvq_json_dump(json, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(digits));
    json_error_t where;
    json_t *again = text != NULL ? gptvq_json_parse(text, strlen(text), 0, &where) : NULL;
    bool same = json_equal(json, again) != 0;
    bool failed = again == NULL;
    json_decref(again);
    if (same) return text;
    free(text);
    if (failed) return NULL;
  }
  return NULL; /* 17 digits keep every number: what was read back is something else */
}

gptvq_status gptvq_write_json(const char *path, const json_t *json, gptvq_error *err) {
  char *text = dump_json(json);
  if (text == NULL) return gptvq_fail_memory(err, path, 0);
  size_t length = strlen(text);
  text[length] = '\n'; /* in the place of the NUL: the text is written by length */
  gptvq_status status = gptvq_write_file(path, text, length + 1, err);
  free(text);
  return status;
}

gptvq_status gptvq_declare_tensor(gptvq_st_writer *writer, const gptvq_tensor *tensor, gptvq_error *err) {
  return gptvq_st_writer_declare(writer, tensor->name, tensor->type, tensor->rank, tensor->dims, err);
}
