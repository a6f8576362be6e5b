/* What the files of a model folder weigh, read from their own headers: an account independent of the
 * library's. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static gptvq_status fail(gptvq_error *err, gptvq_status status, const char *path, const char *reason) {
  err->status = status;
  (void)snprintf(err->message, sizeof err->message, "%.700s: %.300s", path, reason);
  return status;
}

/* One safetensors file: an 8-byte little-endian header length, the header, then nothing but tensors. */
static gptvq_status weigh(const char *folder, const char *name, gptvq_cli_files *files, gptvq_error *err) {
  char path[4096];
  if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
    return fail(err, GPTVQ_ERROR_IO, name, "the path is too long");
  FILE *file = fopen(path, "rb");
  struct stat info;
  unsigned char length[8];
  if (file == NULL) return fail(err, gptvq_cli_errno_status(), path, strerror(errno));
  bool read = fread(length, 1, sizeof length, file) == sizeof length && fstat(fileno(file), &info) == 0;
  (void)fclose(file);
  if (!read) return fail(err, GPTVQ_ERROR_FORMAT, path, "shorter than a safetensors header");
  uint64_t header = 0, size = (uint64_t)info.st_size;
  for (size_t i = 0; i < 8; i++) header |= (uint64_t)length[i] << (8 * i);
  if (header > size - 8) return fail(err, GPTVQ_ERROR_FORMAT, path, "the header is longer than the file");
  files->count++;
  files->bytes += size;
  files->header_bytes += 8 + header;
  return GPTVQ_OK;
}

gptvq_status gptvq_cli_weigh_folder(const char *folder, bool packed, gptvq_cli_files *files,
                                    gptvq_error *err) {
  memset(files, 0, sizeof *files);
  struct stat gguf;
  if (stat(folder, &gguf) == 0 && S_ISREG(gguf.st_mode)) {
    *files = (gptvq_cli_files){.count = 1, .bytes = (uint64_t)gguf.st_size};
    return GPTVQ_OK;
  }
  static const char single[] = "model.safetensors";
  char path[4096], file[4096];
  if ((size_t)snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder) >= sizeof path ||
      (size_t)snprintf(file, sizeof file, "%s/%s", folder, single) >= sizeof file)
    return fail(err, GPTVQ_ERROR_IO, folder, "the path is too long");
  struct stat info;
  if (stat(path, &info) != 0 || (!packed && stat(file, &info) == 0)) return weigh(folder, single, files, err);
  json_error_t why;
  char *text;
  size_t size;
  gptvq_status status = gptvq_cli_read_file(path, &text, &size, err);
  if (status != GPTVQ_OK) return status;
  json_t *index = gptvq_cli_parse_json(text, size, &why), *shards = json_object();
  free(text);
  const char *tensor, *shard;
  json_t *value;
  if (index == NULL) status = fail(err, GPTVQ_ERROR_FORMAT, path, why.text);
  else if (shards == NULL) status = fail(err, GPTVQ_ERROR_MEMORY, path, "out of memory");
  if (status == GPTVQ_OK) { /* each shard once */
    json_object_foreach(json_object_get(index, "weight_map"), tensor, value) {
      if (json_is_string(value) && json_object_set_new(shards, json_string_value(value), json_true()) != 0)
        status = fail(err, GPTVQ_ERROR_MEMORY, path, "out of memory");
    }
    json_object_foreach(shards, shard, value) {
      if (status == GPTVQ_OK) status = weigh(folder, shard, files, err);
    }
  }
  json_decref(shards);
  json_decref(index);
  return status;
}
