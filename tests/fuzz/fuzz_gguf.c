/* Any bytes as a GGUF file: opened as a model's tensors and configuration, and as its tokenizer. */
#include "fuzz.h"

#include "base/file.h"
#include "checkpoint/checkpoint.h"

#include <fcntl.h>
#include <gptvq/tokenizer.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "gptvq-fuzz-XXXXXX";
static bool ready;

static void remove_file(void) { (void)unlink(path); }

static void check_failure(const gptvq_error *err) { /* it names the file */
  if (err->status == GPTVQ_OK || strstr(err->message, path) == NULL) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!ready && (close(mkstemp(path)) != 0 || atexit(remove_file) != 0)) abort();
  ready = true;
  int file = open(path, O_WRONLY | O_TRUNC);
  if (file < 0 || write(file, data, size) != (ssize_t)size || close(file) != 0) abort();
  gptvq_error err = {GPTVQ_OK, ""};
  gptvq_checkpoint *checkpoint;
  gptvq_tokenizer *tokenizer;
  if (gptvq_checkpoint_open(path, NULL, &checkpoint, &err) != GPTVQ_OK) {
    check_failure(&err);
  } else {
    volatile uint8_t sink = 0;
    for (size_t i = 0; i < gptvq_checkpoint_tensor_count(checkpoint); i++) {
      const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(checkpoint, i);
      for (size_t j = 0; j < tensor->bytes; j++) sink = (uint8_t)(sink ^ tensor->data[j]);
    }
    gptvq_checkpoint_close(checkpoint);
  }
  if (gptvq_tokenizer_open(path, &tokenizer, &err) != GPTVQ_OK) check_failure(&err);
  else gptvq_tokenizer_close(tokenizer);
  return 0;
}
