#include "base/sized.h"
#include "base/memory.h"

#include <string.h>

/* Larger than any struct will be: what is not the size of one, but of what lay on the stack. */
static const size_t largest = 65536;

static size_t size_of(const void *given) {
  size_t size;
  memcpy(&size, given, sizeof size);
  return size;
}

static gptvq_status check(const char *type, const void *given, gptvq_error *err) {
  size_t size = size_of(given);
  if (size > sizeof size && size <= largest) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                    "%s of size %zu was not initialised: call %s_init first, or set its size", type, size,
                    type);
}

gptvq_status gptvq_take_struct(const char *type, const void *given, void *own, size_t own_size,
                               gptvq_error *err) {
  if (given == NULL) return GPTVQ_OK;
  GPTVQ_TRY(check(type, given, err));
  const unsigned char *bytes = given;
  size_t size = size_of(given);
  for (size_t i = own_size; i < size; i++)
    if (bytes[i] != 0)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                        "%s: the program sets a member that gptvq %s does not know; it was compiled for a "
                        "newer version",
                        type, gptvq_version());
  memcpy(own, given, gptvq_min_size(size, own_size));
  memcpy(own, &own_size, sizeof own_size);
  return GPTVQ_OK;
}

gptvq_status gptvq_check_result(const char *type, const void *result, gptvq_error *err) {
  return result == NULL ? GPTVQ_OK : check(type, result, err);
}

void gptvq_give_struct(const void *own, size_t own_size, void *result) {
  if (result == NULL || check("", result, NULL) != GPTVQ_OK) return;
  size_t size = size_of(result);
  memcpy((char *)result + sizeof size, (const char *)own + sizeof size,
         gptvq_min_size(size, own_size) - sizeof size);
}
