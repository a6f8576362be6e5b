/* base/sized.h: structs that the caller provides, which begin with `size` (see gptvq/status.h). `type` is the
 * struct's name in messages. */
#ifndef GPTVQ_BASE_SIZED_H
#define GPTVQ_BASE_SIZED_H

#include "base/status.h"

/* The caller's members over those of own[own_size], which holds the defaults and its own size; given may be
 * NULL. GPTVQ_ERROR_ARGUMENT: not initialised, or members that are set and not known here. */
gptvq_status gptvq_take_struct(const char *type, const void *given, void *own, size_t own_size,
                               gptvq_error *err);
/* GPTVQ_ERROR_ARGUMENT: the result, which may be NULL, was not initialised. */
gptvq_status gptvq_check_result(const char *type, const void *result, gptvq_error *err);
/* Members of own[own_size] as far as the result has them; its size stays. NULL, or one that was not
 * initialised: nothing. */
void gptvq_give_struct(const void *own, size_t own_size, void *result);

/* gptvq_take_struct by the type alone. */
#define GPTVQ_TAKE(type, given, own, err) gptvq_take_struct(#type, (given), (own), sizeof(type), (err))

#endif
