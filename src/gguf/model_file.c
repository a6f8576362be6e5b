#include "gguf/model_file.h"
#include "base/memory.h"
#include "gguf/tokenizer.h"

#include <string.h>

static const char template_key[] = "tokenizer.chat_template";
static const char tokenizer_name[] = "tokenizer.json", config_name[] = "tokenizer_config.json",
                  template_name[] = "chat_template.jinja";
const char *const gptvq_gguf_side_names[] = {tokenizer_name, config_name, template_name, NULL};

/* The GGUF file that a path goes through, malloc'd; *name points into path. NULL: none, or out of memory. */
static char *file_of(const char *path, const char **name) {
  const char *slash = strrchr(path, '/');
  char *file = slash == NULL ? NULL : strndup(path, (size_t)(slash - path));
  if (file == NULL) return NULL;
  *name = slash + 1;
  if (gptvq_is_gguf(file)) return file;
  free(file);
  return NULL;
}

static gptvq_status copy_template(const gptvq_gguf_reader *reader, char **text, size_t *size,
                                  gptvq_error *err) {
  const char *source = NULL;
  GPTVQ_TRY(gptvq_gguf_get_text(reader, template_key, &source, size, err));
  if (source == NULL) return GPTVQ_OK;
  *text = gptvq_alloc(*size + 1, 1);
  if (*text == NULL) return gptvq_fail_memory(err, template_name, *size);
  memcpy(*text, source, *size);
  (*text)[*size] = '\0';
  return GPTVQ_OK;
}

/* *text stays NULL where the file has no such. */
static gptvq_status make(const char *file, const char *name, char **text, size_t *size, gptvq_error *err) {
  gptvq_gguf_reader reader;
  *text = NULL;
  GPTVQ_TRY(gptvq_gguf_open(file, &reader, err));
  gptvq_status status = GPTVQ_OK;
  if (strcmp(name, tokenizer_name) == 0) status = gptvq_gguf_tokenizer_json(&reader, text, size, err);
  else if (strcmp(name, config_name) == 0) status = gptvq_gguf_tokenizer_config(&reader, text, size, err);
  else if (strcmp(name, template_name) == 0) status = copy_template(&reader, text, size, err);
  gptvq_gguf_close(&reader);
  return status;
}

gptvq_status gptvq_model_file_read(const char *path, size_t max_size, char **text, size_t *size,
                                   gptvq_error *err) {
  const char *name;
  char *file = file_of(path, &name);
  if (file == NULL) return gptvq_read_file(path, max_size, text, size, err);
  gptvq_status status = make(file, name, text, size, err);
  if (status == GPTVQ_OK && *text == NULL)
    status = gptvq_fail(err, GPTVQ_ERROR_IO, "%s holds nothing like %s", file, name);
  else if (status == GPTVQ_OK && *size > max_size) {
    free(*text);
    *text = NULL;
    status = gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: %s would have %zu bytes, at most %zu are read", file,
                        name, *size, max_size);
  }
  free(file);
  return status;
}

static bool holds(const gptvq_gguf_reader *reader, const char *name) {
  if (strcmp(name, template_name) == 0) return gptvq_gguf_find(reader, template_key) != NULL;
  return (strcmp(name, tokenizer_name) == 0 || strcmp(name, config_name) == 0) &&
         gptvq_gguf_has_tokenizer(reader);
}

/* A file that cannot be read seems to hold all: who reads it says what is wrong. */
bool gptvq_model_file_exists(const char *path) {
  const char *name;
  char *file = file_of(path, &name);
  gptvq_gguf_reader reader;
  gptvq_error why;
  if (file == NULL) return gptvq_path_exists(path);
  bool there = true;
  if (gptvq_gguf_open(file, &reader, &why) == GPTVQ_OK) {
    there = holds(&reader, name);
    gptvq_gguf_close(&reader);
  }
  free(file);
  return there;
}
