#include "checkpoint/output_files.h"
#include "base/file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool ends_with(const char *name, const char *end) {
  size_t a = strlen(name), b = strlen(end);
  return a > b && strcmp(name + a - b, end) == 0;
}

bool gptvq_is_side_file(const char *name) {
  if (name[0] == '.' || strcmp(name, "config.json") == 0 || strcmp(name, GPTVQ_STATE_NAME) == 0 ||
      strcmp(name, GPTVQ_RECORD_NAME) == 0 || ends_with(name, ".index.json"))
    return false;
  return ends_with(name, ".json") || ends_with(name, ".model") || ends_with(name, ".txt") ||
         ends_with(name, ".jinja");
}

/* Does `name` match, where '#' stands for one or more digits? */
static bool matches(const char *name, const char *pattern) {
  for (; *pattern != '\0'; pattern++) {
    if (*pattern != '#') {
      if (*name++ != *pattern) return false;
      continue;
    }
    if (!isdigit((unsigned char)*name)) return false;
    while (isdigit((unsigned char)*name)) name++;
  }
  return *name == '\0';
}

static bool is_in(const char *const *list, const char *name) {
  while (*list != NULL && !matches(name, *list)) list++;
  return *list != NULL;
}

static const char *const model_names[] = {"config.json",
                                          "generation_config.json",
                                          "model.safetensors",
                                          "model.safetensors.index.json",
                                          "model-#-of-#.safetensors",
                                          "model-block-#.safetensors",
                                          "model-rest.safetensors",
                                          "tokenizer.json",
                                          "tokenizer_config.json",
                                          "special_tokens_map.json",
                                          "added_tokens.json",
                                          "tokenizer.model",
                                          "vocab.json",
                                          "vocab.txt",
                                          "merges.txt",
                                          "chat_template.json",
                                          "chat_template.jinja",
                                          GPTVQ_CARD_NAME,
                                          GPTVQ_RECORD_NAME,
                                          NULL};
static const char *const work_names[] = {GPTVQ_STATE_NAME, GPTVQ_TOKENS_NAME, NULL};
static const char *const work_folders[] = {GPTVQ_FINETUNED_NAME, "transformed" /* of older runs */, NULL};

static bool is_regular(const char *folder, const char *name) {
  struct stat info;
  char path[PATH_MAX]; /* no allocation: "not there" must not mean "no memory" */
  int length = snprintf(path, sizeof path, "%s/%s", folder, name);
  return length > 0 && length < PATH_MAX && stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

typedef enum entry_kind { FOREIGN, PART, TEMPORARY, SUBFOLDER } entry_kind;

static entry_kind classify(int folder, const char *entry, const char *source, bool work) {
  struct stat info;
  if (fstatat(folder, entry, &info, AT_SYMLINK_NOFOLLOW) != 0) return PART; /* gone already */
  if (S_ISDIR(info.st_mode)) return work && is_in(work_folders, entry) ? SUBFOLDER : FOREIGN;
  if (!S_ISREG(info.st_mode) && !S_ISLNK(info.st_mode)) return FOREIGN;
  char name[NAME_MAX + 1];
  size_t length = strlen(entry);
  if (length > NAME_MAX) return FOREIGN;
  memcpy(name, entry, length + 1);
  char *suffix = work ? strstr(name, ".tmp.") : NULL;
  bool temporary = suffix != NULL && matches(suffix, ".tmp.#");
  if (temporary) *suffix = '\0';
  bool ours = is_in(model_names, name) || (work && is_in(work_names, name)) ||
              (source != NULL && gptvq_is_side_file(name) && is_regular(source, name));
  return !ours ? FOREIGN : temporary ? TEMPORARY : PART;
}

/* Calls visit(context, path, entry, kind) for every entry, those of subfolders of a work folder before the
 * subfolder. Without any allocation: it also removes what a lack of memory leaves behind. */
typedef gptvq_status (*visitor)(void *context, const char *path, const char *entry, entry_kind kind,
                                gptvq_error *err);

typedef struct walk_job {
  const char *path, *source;
  bool work;
  visitor visit;
  void *context;
  gptvq_status status; /* of the visitor */
  gptvq_error *err;
} walk_job;

static gptvq_status walk(const walk_job *job);

static bool walk_entry(void *context, int folder, const char *name) {
  walk_job *job = context;
  char path[PATH_MAX];
  int length = snprintf(path, sizeof path, "%s/%s", job->path, name);
  if (length < 0 || length >= PATH_MAX) {
    errno = ENAMETOOLONG;
    return false;
  }
  entry_kind kind = classify(folder, name, job->source, job->work);
  if (kind == SUBFOLDER) {
    walk_job inner = *job;
    inner.path = path;
    inner.source = NULL;
    job->status = walk(&inner);
  }
  if (job->status == GPTVQ_OK) job->status = job->visit(job->context, path, name, kind, job->err);
  return job->status == GPTVQ_OK;
}

static gptvq_status walk(const walk_job *job) {
  walk_job running = *job;
  running.status = GPTVQ_OK;
  int folder = open(job->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool fine = folder >= 0 && gptvq_each_entry(folder, walk_entry, &running);
  gptvq_status status = running.status;
  if (!fine && status == GPTVQ_OK) status = gptvq_fail_errno(job->err, "read the folder", job->path);
  if (folder >= 0) close(folder);
  return status;
}

static gptvq_status note_foreign(void *context, const char *path, const char *entry, entry_kind kind,
                                 gptvq_error *err) {
  char **first = context;
  if (kind != FOREIGN || (*first != NULL && strcmp(path, *first) >= 0)) return GPTVQ_OK;
  free(*first);
  *first = strdup(path);
  return *first != NULL ? GPTVQ_OK : gptvq_fail_memory(err, entry, strlen(path));
}

gptvq_status gptvq_find_foreign(const char *folder, const char *source, bool work, char **foreign,
                                gptvq_error *err) {
  *foreign = NULL;
  gptvq_status status = walk(&(walk_job){folder, source, work, note_foreign, foreign, GPTVQ_OK, err});
  if (status != GPTVQ_OK) {
    free(*foreign);
    *foreign = NULL;
  }
  return status;
}

typedef struct removal {
  bool only_temporary, removed;
} removal;

static gptvq_status remove_one(void *context, const char *path, const char *entry, entry_kind kind,
                               gptvq_error *err) {
  removal *job = context;
  if (kind == FOREIGN || strcmp(entry, GPTVQ_STATE_NAME) == 0 || (job->only_temporary && kind != TEMPORARY))
    return GPTVQ_OK;
  int result = kind == SUBFOLDER ? rmdir(path) : unlink(path);
  if (result != 0 && errno != ENOENT) return gptvq_fail_errno(err, "remove", path);
  job->removed = result == 0;
  return GPTVQ_OK;
}

gptvq_status gptvq_remove_work(const char *folder, const char *source, bool only_temporary,
                               gptvq_error *err) {
  removal job = {.only_temporary = only_temporary};
  do { /* removing may disturb the reading */
    job.removed = false;
    GPTVQ_TRY(walk(&(walk_job){folder, source, true, remove_one, &job, GPTVQ_OK, err}));
  } while (job.removed);
  return GPTVQ_OK;
}

gptvq_status gptvq_remove_subfolder(const char *folder, gptvq_error *err) {
  if (!gptvq_path_exists(folder)) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_remove_work(folder, NULL, false, err));
  if (rmdir(folder) == 0) return GPTVQ_OK;
  return gptvq_fail_errno(err, "remove", folder);
}

static gptvq_status note_use(void *context, const char *path, const char *entry, entry_kind kind,
                             gptvq_error *err) {
  (void)path;
  (void)kind;
  (void)err;
  if (!matches(entry, GPTVQ_STATE_NAME ".tmp.#")) *(bool *)context = true;
  return GPTVQ_OK;
}

bool gptvq_is_unused_work(const char *folder) {
  bool used = false;
  return walk(&(walk_job){folder, NULL, false, note_use, &used, GPTVQ_OK, NULL}) == GPTVQ_OK && !used;
}
