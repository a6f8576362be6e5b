#include "quant/output_files.h"
#include "base/file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool ends_with(const char *name, const char *end) {
  size_t a = strlen(name), b = strlen(end);
  return a > b && strcmp(name + a - b, end) == 0;
}

bool gptvq_is_side_file(const char *name) {
  if (name[0] == '.' || strcmp(name, "config.json") == 0 || strcmp(name, GPTVQ_STATE_NAME) == 0 ||
      ends_with(name, ".index.json"))
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
                                          NULL};
static const char *const work_names[] = {GPTVQ_STATE_NAME, GPTVQ_TOKENS_NAME, NULL};
static const char *const work_folders[] = {GPTVQ_TRANSFORMED_NAME, GPTVQ_FINETUNED_NAME, NULL};

static bool is_regular(const char *folder, const char *name) {
  struct stat info;
  char *path = gptvq_join_path(folder, name);
  bool regular = path != NULL && stat(path, &info) == 0 && S_ISREG(info.st_mode);
  free(path);
  return regular;
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
 * subfolder. */
typedef gptvq_status (*visitor)(void *context, const char *path, const char *entry, entry_kind kind,
                                gptvq_error *err);

static gptvq_status walk(const char *folder, const char *source, bool work, visitor visit, void *context,
                         gptvq_error *err) {
  DIR *entries = opendir(folder);
  gptvq_status status = GPTVQ_OK;
  if (entries == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_IO, "cannot read the folder %s: %s", folder, strerror(errno));
  for (struct dirent *entry; status == GPTVQ_OK && (entry = readdir(entries)) != NULL;) {
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
    char *path = gptvq_join_path(folder, name);
    if (path == NULL) {
      status = gptvq_fail_memory(err, name, strlen(folder) + strlen(name) + 2);
      break;
    }
    entry_kind kind = classify(dirfd(entries), name, source, work);
    if (kind == SUBFOLDER) status = walk(path, NULL, work, visit, context, err);
    if (status == GPTVQ_OK) status = visit(context, path, name, kind, err);
    free(path);
  }
  closedir(entries);
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
  gptvq_status status = walk(folder, source, work, note_foreign, foreign, err);
  if (status != GPTVQ_OK) {
    free(*foreign);
    *foreign = NULL;
  }
  return status;
}

static gptvq_status remove_one(void *context, const char *path, const char *entry, entry_kind kind,
                               gptvq_error *err) {
  const bool *only_temporary = context;
  if (kind == FOREIGN || strcmp(entry, GPTVQ_STATE_NAME) == 0 || (*only_temporary && kind != TEMPORARY))
    return GPTVQ_OK;
  int result = kind == SUBFOLDER ? rmdir(path) : unlink(path);
  if (result != 0 && errno != ENOENT)
    return gptvq_fail(err, GPTVQ_ERROR_IO, "cannot remove %s: %s", path, strerror(errno));
  return GPTVQ_OK;
}

gptvq_status gptvq_remove_work(const char *folder, const char *source, bool only_temporary,
                               gptvq_error *err) {
  return walk(folder, source, true, remove_one, &only_temporary, err);
}

gptvq_status gptvq_remove_subfolder(const char *folder, gptvq_error *err) {
  if (!gptvq_path_exists(folder)) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_remove_work(folder, NULL, false, err));
  if (rmdir(folder) == 0) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_IO, "cannot remove %s: %s", folder, strerror(errno));
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
  return walk(folder, NULL, false, note_use, &used, NULL) == GPTVQ_OK && !used;
}
