#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool is_quiet, is_mute;

void gptvq_cli_set_quiet(bool quiet) { is_quiet = quiet; }
bool gptvq_cli_quiet(void) { return is_quiet; }
void gptvq_cli_set_mute(bool mute) { is_mute = mute; }

/* One line, whatever the arguments hold. */
static void print_line(const char *prefix, const char *format, va_list args) {
  char line[1400];
  if (is_mute) return;
  (void)vsnprintf(line, sizeof line, format, args);
  for (char *c = line; *c != '\0'; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
  (void)fflush(stdout);
  (void)fprintf(stderr, "%s%s\n", prefix, line);
}

int gptvq_cli_error(gptvq_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  print_line("gptvq: error: ", format, args);
  va_end(args);
  return (int)status;
}

int gptvq_cli_fail(const gptvq_error *err) {
  char message[sizeof err->message + 128]; /* flags may be longer than the names of members */
  gptvq_cli_name_flags(err->message, message, sizeof message);
  return gptvq_cli_error(err->status, "%s", message);
}

void gptvq_cli_warn(const char *format, ...) {
  va_list args;
  va_start(args, format);
  print_line("gptvq: warning: ", format, args);
  va_end(args);
}

void gptvq_cli_note(const char *format, ...) {
  if (is_quiet) return;
  va_list args;
  va_start(args, format);
  print_line("", format, args);
  va_end(args);
}

json_t *gptvq_cli_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

int gptvq_cli_flush(void) {
  if (fflush(stdout) != 0 || ferror(stdout))
    return gptvq_cli_error(GPTVQ_ERROR_IO, "cannot write to standard output: %s", strerror(errno));
  return 0;
}

json_t *gptvq_cli_text(const char *text) {
  json_t *string = json_string(text);
  char *copy = string == NULL ? malloc(strlen(text) + 1) : NULL;
  if (copy == NULL) return string;
  for (size_t i = 0; i <= strlen(text); i++) copy[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
  string = json_string(copy);
  free(copy);
  return string;
}

static bool json_incomplete;

void gptvq_cli_json_set(json_t *object, const char *key, json_t *value) {
  if (json_object_set_new(object, key, value) != 0) json_incomplete = true;
}

void gptvq_cli_json_append(json_t *array, json_t *value) {
  if (json_array_append_new(array, value) != 0) json_incomplete = true;
}

static void *allocate_or_exit(size_t size) {
  void *memory = malloc(size);
  if (memory != NULL) return memory;
  int code = gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: reading JSON needs %zu bytes", size);
  _exit(code);
}

json_t *gptvq_cli_parse_json(const char *text, size_t size, json_error_t *where) {
  json_malloc_t usual_malloc;
  json_free_t usual_free;
  json_get_alloc_funcs(&usual_malloc, &usual_free);
  json_set_alloc_funcs(allocate_or_exit, usual_free);
  json_t *json = json_loadb(text, size, 0, where);
  json_set_alloc_funcs(usual_malloc, usual_free);
  return json;
}

/* The text in pieces, as jansson makes it: json_dumps does not look at what happens to keys. */
typedef struct json_text {
  char *data;
  size_t size, room;
  bool failed;
} json_text;

static int add_piece(const char *piece, size_t size, void *context) {
  json_text *text = context;
  if (text->room - text->size < size) {
    size_t room = 2 * (text->room + size);
    char *larger = text->failed ? NULL : realloc(text->data, room);
    if (larger == NULL) {
      text->failed = true;
      return -1;
    }
    text->data = larger;
    text->room = room;
  }
  memcpy(text->data + text->size, piece, size);
  text->size += size;
  return 0;
}

char *gptvq_cli_json_text(const json_t *value, size_t flags, size_t *size) {
  json_text text = {NULL, 0, 0, false};
  *size = 0;
  if (value != NULL && !json_incomplete && json_dump_callback(value, add_piece, &text, flags) == 0 &&
      !text.failed) {
    *size = text.size;
    return text.data;
  }
  free(text.data);
  return NULL;
}

int gptvq_cli_print_json(json_t *value) {
  size_t size;
  char *text = gptvq_cli_json_text(value, JSON_INDENT(2) | JSON_REAL_PRECISION(10) | JSON_ENCODE_ANY, &size);
  json_decref(value);
  if (text != NULL) {
    (void)fwrite(text, 1, size, stdout);
    (void)putchar('\n');
  }
  bool failed = text == NULL;
  free(text);
  if (failed) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: cannot make the JSON output");
  return gptvq_cli_flush();
}

const char *gptvq_cli_size_text(uint64_t bytes, char buffer[GPTVQ_CLI_SIZE_TEXT]) {
  static const char *const units[] = {"kB", "MB", "GB", "TB"};
  if (bytes < 1000) {
    (void)snprintf(buffer, GPTVQ_CLI_SIZE_TEXT, "%llu bytes", (unsigned long long)bytes);
    return buffer;
  }
  double value = (double)bytes / 1e3;
  size_t unit = 0;
  while (value >= 999.995 && unit < 3) {
    value /= 1e3;
    unit++;
  }
  (void)snprintf(buffer, GPTVQ_CLI_SIZE_TEXT, "%.2f %s", value, units[unit]);
  return buffer;
}

const char *gptvq_cli_time_text(double seconds, char buffer[GPTVQ_CLI_SIZE_TEXT]) {
  if (seconds < 60) {
    (void)snprintf(buffer, GPTVQ_CLI_SIZE_TEXT, "%.1f s", seconds);
    return buffer;
  }
  unsigned long whole = seconds < 3.6e8 ? (unsigned long)(seconds + 0.5) : 360000000ul;
  if (whole < 3600) (void)snprintf(buffer, GPTVQ_CLI_SIZE_TEXT, "%lu:%02lu", whole / 60, whole % 60);
  else
    (void)snprintf(buffer, GPTVQ_CLI_SIZE_TEXT, "%lu:%02lu:%02lu", whole / 3600, whole / 60 % 60, whole % 60);
  return buffer;
}

static gptvq_status fail(gptvq_error *err, gptvq_status status, const char *path, const char *reason) {
  err->status = status;
  (void)snprintf(err->message, sizeof err->message, "cannot read %.700s: %.300s", path, reason);
  return status;
}

static const size_t max_text_bytes = (size_t)1 << 32; /* as of calibration texts */
static const char too_long[] = "a text has at most 4 GiB";

/* Terminals end, and so does /dev/null; of other devices nobody knows. */
static bool is_endless(int fd, const struct stat *info) {
  struct stat null;
  if (!S_ISCHR(info->st_mode)) return S_ISBLK(info->st_mode);
  return isatty(fd) != 1 && !(stat("/dev/null", &null) == 0 && info->st_rdev == null.st_rdev);
}

gptvq_status gptvq_cli_errno_status(void) { return errno == ENOMEM ? GPTVQ_ERROR_MEMORY : GPTVQ_ERROR_IO; }

static gptvq_status read_all(FILE *file, const char *path, char **data, size_t *size, gptvq_error *err) {
  struct stat info;
  if (fstat(fileno(file), &info) != 0) return fail(err, gptvq_cli_errno_status(), path, strerror(errno));
  if (is_endless(fileno(file), &info)) return fail(err, GPTVQ_ERROR_IO, path, "it is a device, not a text");
  if (S_ISREG(info.st_mode) && (uint64_t)info.st_size > max_text_bytes)
    return fail(err, GPTVQ_ERROR_DATA, path, too_long);
  size_t capacity = (size_t)1 << 16, used = 0;
  char *buffer = malloc(capacity);
  gptvq_status status = GPTVQ_OK;
  while (buffer != NULL) {
    errno = 0;
    used += fread(buffer + used, 1, capacity - 1 - used, file);
    if (ferror(file)) status = fail(err, gptvq_cli_errno_status(), path, strerror(errno));
    else if (used > max_text_bytes) status = fail(err, GPTVQ_ERROR_DATA, path, too_long);
    if (status != GPTVQ_OK || feof(file)) break;
    char *larger = capacity <= SIZE_MAX / 2 ? realloc(buffer, capacity * 2) : NULL;
    if (larger == NULL) free(buffer);
    buffer = larger;
    capacity *= 2;
  }
  if (buffer == NULL) return fail(err, GPTVQ_ERROR_MEMORY, path, "out of memory");
  if (status != GPTVQ_OK) {
    free(buffer);
    return status;
  }
  buffer[used] = '\0';
  *data = buffer;
  *size = used;
  return GPTVQ_OK;
}

const char *gptvq_cli_file_name(const char *path) { return strcmp(path, "-") == 0 ? "standard input" : path; }

void gptvq_cli_warn_encoding(const char *path, const char *data, size_t size) {
  char line[1024];
  if (gptvq_text_judge(gptvq_cli_file_name(path), data, size, NULL, 0, line, sizeof line) ==
      GPTVQ_TEXT_FOREIGN)
    gptvq_cli_warn("%s", line);
}

gptvq_status gptvq_cli_read_file(const char *path, char **data, size_t *size, gptvq_error *err) {
  bool standard = strcmp(path, "-") == 0;
  FILE *file = standard ? stdin : fopen(path, "rb");
  gptvq_status status = file == NULL ? fail(err, gptvq_cli_errno_status(), path, strerror(errno))
                                     : read_all(file, path, data, size, err);
  if (file != NULL && !standard) (void)fclose(file);
  if (status != GPTVQ_OK && gptvq_cli_interrupted())
    return fail(err, GPTVQ_ERROR_CANCELLED, path, "stopped on request");
  return status;
}

double gptvq_cli_clock(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
