/* Any bytes as the model.safetensors of a packed folder: opened, every tensor read, every packed layer
 * validated and decoded. */
#include "fuzz.h"

#include "base/file.h"
#include "checkpoint/checkpoint.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "gptvq-fuzz-XXXXXX", path[64];

static void remove_folder(void) { (void)gptvq_remove_tree(folder, NULL); }

static void prepare(void) {
  static const char config[] = "{\"quantization_config\": {\"quant_method\": \"gptvq\", \"version\": 1}}";
  if (mkdtemp(folder) == NULL) abort();
  (void)atexit(remove_folder);
  (void)snprintf(path, sizeof path, "%s/config.json", folder);
  if (gptvq_write_file(path, config, sizeof config - 1, NULL) != GPTVQ_OK) abort();
  (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
}

static void decode(const gptvq_checkpoint *checkpoint, const char *name) {
  gptvq_error err;
  gptvq_packed packed;
  gptvq_packed_info info;
  void *owned;
  if (gptvq_checkpoint_get_packed(checkpoint, name, &packed, &info, &owned, &err) != GPTVQ_OK) return;
  if (packed.shape.cols < (1u << 20)) {
    float *row = malloc(packed.shape.cols * sizeof *row);
    if (row == NULL) abort();
    gptvq_packed_decode_ref(&packed, 0, 1, row, packed.shape.cols);
    gptvq_packed_decode_ref(&packed, packed.shape.rows - 1, packed.shape.rows, row, packed.shape.cols);
    free(row);
  }
  free(owned);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (path[0] == '\0') prepare();
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (file < 0 || write(file, data, size) != (ssize_t)size || close(file) != 0) abort();
  gptvq_error err = {GPTVQ_OK, ""};
  gptvq_checkpoint *checkpoint;
  if (gptvq_checkpoint_open(folder, NULL, &checkpoint, &err) != GPTVQ_OK) {
    if (err.status == GPTVQ_OK || strstr(err.message, folder) == NULL) abort(); /* a failure names the file */
    return 0;
  }
  volatile uint8_t sink = 0;
  for (size_t i = 0; i < gptvq_checkpoint_tensor_count(checkpoint); i++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(checkpoint, i);
    for (size_t j = 0; j < tensor->bytes; j++) sink = (uint8_t)(sink ^ tensor->data[j]);
    (void)gptvq_tensor_check_finite(tensor, &err);
    size_t length = strlen(tensor->name), suffix = strlen(".indices");
    if (length < suffix || strcmp(tensor->name + length - suffix, ".indices") != 0) continue;
    char *name = strdup(tensor->name);
    if (name == NULL) abort();
    name[length - suffix] = '\0';
    decode(checkpoint, name);
    free(name);
  }
  gptvq_checkpoint_close(checkpoint);
  return 0;
}
