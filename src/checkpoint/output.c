#define _GNU_SOURCE
#include "checkpoint/output.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/memory.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/output_files.h"
#include "gguf/model_file.h"
#include "gguf/reader.h"

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

/* Is `source` in `place`, or one of the files that its links point to, as in the hub's cache? */
typedef struct link_job {
  const char *place, *source;
  bool *inside;
  gptvq_status status;
  gptvq_error *err;
} link_job;

static bool entry_outside(void *context, int folder, const char *name) {
  struct stat info;
  link_job *job = context;
  if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISLNK(info.st_mode) ||
      fstatat(folder, name, &info, 0) != 0 || !S_ISREG(info.st_mode))
    return true;
  char *path = gptvq_join_path(job->source, name);
  if (path == NULL) job->status = gptvq_fail_memory(job->err, name, strlen(name));
  else job->status = contains(job->place, path, job->inside, job->err);
  free(path);
  return job->status == GPTVQ_OK && !*job->inside;
}

static gptvq_status needs(const char *source, const char *place, bool *inside, gptvq_error *err) {
  GPTVQ_TRY(contains(place, source, inside, err));
  int folder = *inside || !gptvq_path_exists(place) ? -1 : open(source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return GPTVQ_OK; /* who reads `source` will say what is wrong with it */
  link_job job = {place, source, inside, GPTVQ_OK, err};
  (void)gptvq_each_entry(folder, entry_outside, &job);
  close(folder);
  return job.status;
}

/* A symbolic link to a folder? */
static bool is_link_to_folder(const char *path) {
  struct stat info;
  return lstat(path, &info) == 0 && S_ISLNK(info.st_mode) && gptvq_is_folder(path);
}

static char *append(const char *path, const char *suffix) {
  size_t length = strlen(path) + strlen(suffix) + 1;
  char *text = malloc(length);
  if (text != NULL) (void)snprintf(text, length, "%s%s", path, suffix);
  return text;
}

static gptvq_status make_paths(const char *out_dir, gptvq_output *out, gptvq_error *err) {
  static const char suffix[] = ".partial";
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
    length = strlen(out->path);
  }
  out->work = append(out->path, suffix);
  out->aside = append(out->path, ".replaced");
  if (out->work == NULL || out->aside == NULL) return gptvq_fail_memory(err, "the output path", length);
  const char *last = strrchr(out->path, '/');
  last = last != NULL ? last + 1 : out->path;
  if (last[0] == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "the output folder %s needs a name of its own", out_dir);
  size_t name = strlen(last), end = strlen(suffix);
  if (name >= end && strcmp(last + name - end, suffix) == 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "the output folder %s needs another name: %s is what runs in progress are called",
                      out_dir, suffix);
  return GPTVQ_OK;
}

/* Holds `folder` for this process, as out->lock. */
static gptvq_status lock_folder(const char *folder, gptvq_output *out, gptvq_error *err) {
  struct stat held, named;
  int lock = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (lock < 0 && (errno == ENOTDIR || errno == ELOOP))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s exists and is not a folder: move it elsewhere", folder);
  if (lock < 0) return gptvq_fail_errno(err, "open", folder);
  /* no locks on this file system: go on. Renamed before the lock was ours: another process has finished. */
  bool busy = flock(lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  if (busy || fstat(lock, &held) != 0 || lstat(folder, &named) != 0 || held.st_ino != named.st_ino) {
    close(lock);
    return gptvq_fail(err, GPTVQ_ERROR_IO, "another process is writing %s", folder);
  }
  out->lock = lock;
  return GPTVQ_OK;
}

static void unlock(gptvq_output *out) {
  if (out->lock >= 0) close(out->lock); /* the lock goes with it */
  out->lock = -1;
}

/* ---- the state, which marks a folder as gptvq's ---- */

gptvq_status gptvq_output_write_state(const gptvq_output *out, const json_t *state, gptvq_error *err) {
  char path[GPTVQ_PATH_MAX];
  GPTVQ_TRY(gptvq_output_path(out, GPTVQ_STATE_NAME, path, err));
  return gptvq_write_json(path, state, err);
}

gptvq_status gptvq_output_read_state(const char *folder, json_t **state, gptvq_error *err) {
  char *path = gptvq_join_path(folder, GPTVQ_STATE_NAME);
  *state = NULL;
  if (path == NULL) return gptvq_fail_memory(err, folder, strlen(folder));
  gptvq_status status = GPTVQ_OK;
  if (gptvq_path_exists(path)) {
    status = gptvq_load_json(path, 1 << 20, state, err);
    const json_t *run = json_object_get(*state, "run");
    if (status == GPTVQ_ERROR_FORMAT ||
        (status == GPTVQ_OK && (!json_is_integer(json_object_get(run, "format")) ||
                                !json_is_string(json_object_get(run, "gptvq_version"))))) {
      status = gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                          "%s is damaged or not gptvq's: the run cannot be resumed; remove %s", path, folder);
      json_decref(*state);
      *state = NULL;
    }
  }
  free(path);
  return status;
}

json_t *gptvq_output_run(const char *command) {
  return json_pack("{s:i, s:s, s:s}", "format", GPTVQ_STATE_FORMAT, "gptvq_version", gptvq_version(),
                   "command", command);
}

/* ---- replacing ---- */

/* What a folder is, wherever it is moved to, into text; "" when it is absent. Its time of birth tells it from
 * one that took over its inode. */
enum { FOLDER_ID = 64 };
static void folder_id(const char *path, char text[FOLDER_ID]) {
  struct statx info;
  text[0] = '\0';
  if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &info) != 0) return;
  bool born = (info.stx_mask & STATX_BTIME) != 0;
  (void)snprintf(text, FOLDER_ID, "%llu born %lld.%09u", (unsigned long long)info.stx_ino,
                 born ? (long long)info.stx_btime.tv_sec : 0, born ? info.stx_btime.tv_nsec : 0);
}

/* A disk mounted there, as a container's volume? Such a folder can be filled, but not exchanged. */
static bool is_mount_point(const char *path) {
  struct statx info;
  return statx(AT_FDCWD, path, 0, 0, &info) == 0 && (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

/* May OUT, which is there, be replaced? Only with `force`, and only a folder that holds a model and nothing
 * else, or nothing at all. */
static gptvq_status check_replaceable(const gptvq_output *out, gptvq_error *err) {
  const char *path = out->path;
  char *foreign;
  if (!out->force)
    return gptvq_fail(err, GPTVQ_ERROR_IO, "output folder %s exists; use `force` to replace it", path);
  if (!gptvq_is_folder(path)) return gptvq_fail(err, GPTVQ_ERROR_IO, "%s exists and is not a folder", path);
  if (is_mount_point(path))
    return gptvq_fail(err, GPTVQ_ERROR_IO,
                      "%s is where a disk is mounted, which cannot be replaced: choose a folder inside it, "
                      "such as %s/model",
                      path, path);
  char *config_path = gptvq_join_path(path, "config.json");
  if (config_path == NULL) return gptvq_fail_memory(err, path, strlen(path));
  json_t *config = NULL;
  bool there = gptvq_path_exists(config_path);
  gptvq_status status = there ? gptvq_load_json(config_path, 64 << 20, &config, err) : GPTVQ_OK;
  bool model = json_is_string(json_object_get(config, "model_type")) ||
               json_is_array(json_object_get(config, "architectures"));
  json_decref(config);
  free(config_path);
  if (status == GPTVQ_ERROR_MEMORY) return status;
  GPTVQ_TRY(gptvq_find_foreign(path, out->source, false, &foreign, err));
  status = GPTVQ_OK;
  if (!model && (there || foreign != NULL || !gptvq_is_unused_work(path)))
    status =
        gptvq_fail(err, GPTVQ_ERROR_IO, "%s exists and is not a model folder: it will not be replaced", path);
  else if (foreign != NULL)
    status = gptvq_fail(err, GPTVQ_ERROR_IO,
                        "%s is not part of a model: %s will not be replaced; move it elsewhere, or choose "
                        "another output folder",
                        foreign, path);
  free(foreign);
  return status;
}

/* The last steps of a publication, all of which may be repeated: what OUT was before goes, and then the
 * state. */
static gptvq_status settle(const gptvq_output *out, const json_t *state, gptvq_error *err) {
  const char *replaces = json_string_value(json_object_get(state, "replaces"));
  const char *const places[] = {out->work, out->aside}, *const names[] = {GPTVQ_TOKENS_NAME,
                                                                          GPTVQ_STATE_NAME};
  char id[FOLDER_ID];
  for (size_t i = 0; replaces != NULL && i < 2; i++) {
    folder_id(places[i], id);
    if (strcmp(id, replaces) == 0) GPTVQ_TRY(gptvq_remove_tree(places[i], err));
  }
  for (size_t i = 0; i < 2; i++) {
    char path[GPTVQ_PATH_MAX]; /* no allocation: the output is complete */
    int length = snprintf(path, sizeof path, "%s/%s", out->path, names[i]);
    if (length < 0 || length >= GPTVQ_PATH_MAX)
      return gptvq_fail(err, GPTVQ_ERROR_IO, "the path %s is too long", out->path);
    if (unlink(path) != 0 && errno != ENOENT) return gptvq_fail_errno(err, "remove", path);
  }
  return GPTVQ_OK;
}

/* Where a publication was interrupted: behind its renaming it has happened, and what was left to do is done
 * (or *published is set, where the caller wants to see the state first); between the two renamings of a
 * system without an exchange it has not, and OUT comes back. */
static gptvq_status recover(gptvq_output *out, bool keep_state, gptvq_error *err) {
  bool there = gptvq_path_exists(out->path);
  json_t *state = NULL;
  char id[FOLDER_ID];
  if (!there && !gptvq_path_exists(out->aside)) return GPTVQ_OK;
  if (gptvq_output_read_state(there ? out->path : out->work, &state, NULL) != GPTVQ_OK ||
      !json_is_true(json_object_get(state, "complete"))) {
    json_decref(state);
    return GPTVQ_OK;
  }
  gptvq_status status = lock_folder(there ? out->path : out->work, out, err);
  if (status == GPTVQ_OK && there) {
    if (keep_state) {
      out->published = true;
      json_decref(state);
      return GPTVQ_OK;
    }
    status = settle(out, state, err);
  } else if (status == GPTVQ_OK) {
    const char *replaces = json_string_value(json_object_get(state, "replaces"));
    folder_id(out->aside, id);
    if (replaces != NULL && strcmp(id, replaces) == 0) status = gptvq_rename_path(out->aside, out->path, err);
  }
  unlock(out);
  json_decref(state);
  return status;
}

gptvq_status gptvq_output_check(const char *out_dir, const char *source_dir, int force, int resume,
                                gptvq_output *out, gptvq_error *err) {
  *out = (gptvq_output){.lock = -1, .source = source_dir, .force = force != 0};
  GPTVQ_TRY(make_paths(out_dir, out, err));
  const char *const places[] = {out->path, out->work};
  for (size_t i = 0; i < 2 && source_dir != NULL; i++) {
    bool inside;
    GPTVQ_TRY(needs(source_dir, places[i], &inside, err));
    if (inside)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                        "the output folder %s holds the input model %s: choose another", places[i],
                        source_dir);
  }
  GPTVQ_TRY(recover(out, resume != 0, err));
  if (out->published || !gptvq_path_exists(out->path)) return GPTVQ_OK;
  return check_replaceable(out, err);
}

gptvq_status gptvq_output_settle(gptvq_output *out, gptvq_error *err) {
  json_t *state;
  GPTVQ_TRY(gptvq_output_read_state(out->path, &state, err));
  gptvq_status status = settle(out, state, err);
  json_decref(state);
  return status;
}

/* ---- the work folder ---- */

static gptvq_status no_foreigners(const gptvq_output *out, gptvq_error *err) {
  char *foreign;
  GPTVQ_TRY(gptvq_find_foreign(out->work, out->source, true, &foreign, err));
  if (foreign == NULL) return GPTVQ_OK;
  gptvq_status status = gptvq_fail(
      err, GPTVQ_ERROR_IO,
      "%s was not written by gptvq: move it elsewhere, as %s will be published or removed as a whole",
      foreign, out->work);
  free(foreign);
  return status;
}

/* What an existing work folder holds must be a run's: its state or nothing at all, and nobody else's files.
 */
static gptvq_status check_work(const gptvq_output *out, json_t **state, gptvq_error *err) {
  if (access(out->work, W_OK | X_OK) != 0) return gptvq_fail_errno(err, "write into", out->work);
  GPTVQ_TRY(gptvq_output_read_state(out->work, state, err));
  if (*state == NULL && !gptvq_is_unused_work(out->work))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s exists and is not an interrupted run: move it elsewhere",
                      out->work);
  GPTVQ_TRY(no_foreigners(out, err));
  return gptvq_remove_work(out->work, out->source, true, err);
}

gptvq_status gptvq_output_open(gptvq_output *out, json_t **state, gptvq_error *err) {
  *state = NULL;
  bool made = mkdir(out->work, 0777) == 0;
  if (!made && errno != EEXIST) return gptvq_fail_errno(err, "create the output folder", out->work);
  GPTVQ_TRY(lock_folder(out->work, out, err));
  gptvq_status status = check_work(out, state, err);
  if (status == GPTVQ_OK) return GPTVQ_OK;
  unlock(out); /* not ours to discard */
  if (made) (void)rmdir(out->work);
  json_decref(*state);
  *state = NULL;
  return status;
}

gptvq_status gptvq_output_begin(const gptvq_output *out, const json_t *before, json_t *run, int force,
                                gptvq_error *err) {
  json_int_t blocks = json_integer_value(json_object_get(before, "blocks"));
  if (blocks > 0 && !force)
    return gptvq_fail(
        err, GPTVQ_ERROR_IO,
        "%s holds %" JSON_INTEGER_FORMAT
        " finished blocks of an interrupted run: continue it with `resume` or start over with `force`",
        out->work, blocks);
  json_t *state = json_pack("{s:O}", "run", run);
  if (state == NULL) return gptvq_fail_memory(err, "the description of the run", 0);
  gptvq_status status = gptvq_output_write_state(out, state, err); /* first: a kill leaves a marked folder */
  json_decref(state);
  return status == GPTVQ_OK ? gptvq_remove_work(out->work, out->source, false, err) : status;
}

gptvq_status gptvq_output_start(gptvq_output *out, const char *command, int force, gptvq_error *err) {
  json_t *before, *run = gptvq_output_run(command);
  if (run == NULL) return gptvq_fail_memory(err, "the description of the run", 0);
  gptvq_status status = gptvq_output_open(out, &before, err);
  if (status == GPTVQ_OK) status = gptvq_output_begin(out, before, run, force, err);
  if (status != GPTVQ_OK && json_integer_value(json_object_get(before, "blocks")) > 0)
    unlock(out); /* worth more than this run: not to be discarded */
  json_decref(before);
  json_decref(run);
  return status;
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

/* The state says that the folder is complete, and which folder (or none) it is going to replace. */
static gptvq_status mark_complete(const gptvq_output *out, json_t **state, gptvq_error *err) {
  char replaced[FOLDER_ID];
  GPTVQ_TRY(gptvq_output_read_state(out->work, state, err));
  folder_id(out->path, replaced);
  if (json_object_set_new(*state, "complete", json_true()) != 0 ||
      json_object_set_new(*state, "replaces", replaced[0] != '\0' ? json_string(replaced) : json_null()) != 0)
    return gptvq_fail_memory(err, "the state of the run", 0);
  return gptvq_output_write_state(out, *state, err);
}

static gptvq_status move_to_place(const gptvq_output *out, gptvq_error *err) {
  bool replaces = out->force && gptvq_path_exists(out->path);
#ifdef RENAME_EXCHANGE
  if (replaces && renameat2(AT_FDCWD, out->work, AT_FDCWD, out->path, RENAME_EXCHANGE) == 0) return GPTVQ_OK;
#endif
  if (replaces) GPTVQ_TRY(gptvq_rename_path(out->path, out->aside, err));
  if (rename(out->work, out->path) == 0) return GPTVQ_OK;
  gptvq_status status = gptvq_fail_errno(err, "create", out->path);
  if (replaces) (void)gptvq_rename_path(out->aside, out->path, NULL);
  return status;
}

gptvq_status gptvq_output_publish(gptvq_output *out, const gptvq_callbacks *callbacks, gptvq_error *err) {
  json_t *state = NULL;
  gptvq_status status;
  gptvq_error reason;
  GPTVQ_TRY(no_foreigners(out, err)); /* the run may have taken hours */
  if (gptvq_path_exists(out->path)) GPTVQ_TRY(check_replaceable(out, err));
  GPTVQ_TRY_GOTO(mark_complete(out, &state, err));
  GPTVQ_TRY_GOTO(move_to_place(out, err));
  out->published = true; /* whatever fails from here on */
  if (gptvq_sync_parent(out->path, &reason) != GPTVQ_OK || settle(out, state, &reason) != GPTVQ_OK)
    gptvq_log(callbacks, GPTVQ_LOG_WARNING, "%s is complete, but tidying up failed: %s", out->path,
              reason.message);
done:
  json_decref(state);
  return status;
}

void gptvq_output_discard(gptvq_output *out) {
  char path[GPTVQ_PATH_MAX];
  if (out->work == NULL || out->lock < 0 || out->published) return;
  if (gptvq_remove_work(out->work, out->source, false, NULL) != GPTVQ_OK) return;
  if (gptvq_output_path(out, GPTVQ_STATE_NAME, path, NULL) == GPTVQ_OK)
    (void)unlink(path); /* the mark: last */
  (void)rmdir(out->work);
}

void gptvq_output_release(gptvq_output *out) {
  unlock(out);
  free(out->path);
  free(out->work);
  free(out->aside);
  *out = (gptvq_output){.lock = -1};
}

gptvq_status gptvq_output_path(const gptvq_output *out, const char *name, char path[GPTVQ_PATH_MAX],
                               gptvq_error *err) {
  int length = snprintf(path, GPTVQ_PATH_MAX, "%s/%s", out->work, name);
  if (length < 0 || length >= GPTVQ_PATH_MAX)
    return gptvq_fail(err, GPTVQ_ERROR_IO, "the path %s/%s is too long", out->work, name);
  return GPTVQ_OK;
}

typedef gptvq_status (*side_task)(void *context, const char *path, const char *name, gptvq_error *err);

/* What a GGUF file holds in their place. */
static gptvq_status each_made_file(const char *from, side_task task, void *context, gptvq_error *err) {
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; status == GPTVQ_OK && gptvq_gguf_side_names[i] != NULL; i++) {
    char *path = gptvq_join_path(from, gptvq_gguf_side_names[i]);
    if (path == NULL) status = gptvq_fail_memory(err, gptvq_gguf_side_names[i], strlen(from));
    else if (gptvq_model_file_exists(path)) status = task(context, path, gptvq_gguf_side_names[i], err);
    free(path);
  }
  return status;
}

static gptvq_status each_side_file(const char *from, side_task task, void *context, gptvq_error *err) {
  if (gptvq_is_gguf(from)) return each_made_file(from, task, context, err);
  DIR *folder = opendir(from);
  if (folder == NULL) return gptvq_fail_errno(err, "read the folder", from);
  gptvq_status status = GPTVQ_OK;
  for (struct dirent *entry; status == GPTVQ_OK && (entry = readdir(folder)) != NULL;) {
    struct stat info;
    if (!gptvq_is_side_file(entry->d_name)) continue;
    char *path = gptvq_join_path(from, entry->d_name);
    if (path == NULL) status = gptvq_fail_memory(err, entry->d_name, strlen(entry->d_name));
    else if (stat(path, &info) != 0 || (!S_ISDIR(info.st_mode) && info.st_size <= max_side_file))
      status = task(context, path, entry->d_name, err); /* says it of a broken link, or of what is no file */
    free(path);
  }
  closedir(folder);
  return status;
}

static gptvq_status copy_one(void *context, const char *path, const char *name, gptvq_error *err) {
  char *target = gptvq_join_path(context, name), *text = NULL;
  size_t size;
  gptvq_status status = target != NULL ? gptvq_model_file_read(path, (size_t)max_side_file, &text, &size, err)
                                       : gptvq_fail_memory(err, name, strlen(name));
  if (status == GPTVQ_OK) status = gptvq_write_file(target, text, size, err);
  free(text);
  free(target);
  return status;
}

gptvq_status gptvq_copy_side_files(const char *from, const char *to, gptvq_error *err) {
  return each_side_file(from, copy_one, (void *)(uintptr_t)to, err);
}

static gptvq_status hash_one(void *context, const char *path, const char *name, gptvq_error *err) {
  char *text;
  size_t size;
  GPTVQ_TRY(gptvq_model_file_read(path, (size_t)max_side_file, &text, &size, err));
  uint64_t *sum = context, hash = gptvq_hash(0, name, strlen(name));
  *sum += gptvq_hash(hash, text, size); /* in any order */
  free(text);
  return GPTVQ_OK;
}

gptvq_status gptvq_hash_side_files(const char *folder, uint64_t *hash, gptvq_error *err) {
  *hash = 0;
  return each_side_file(folder, hash_one, hash, err);
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
