/* format/unpack.h: some of the indices of a packed unit (format/packed.h). */
#ifndef GPTVQ_FORMAT_UNPACK_H
#define GPTVQ_FORMAT_UNPACK_H

#include <stddef.h>
#include <stdint.h>

/* Indices [first, first + count) of the n (a multiple of 8) of a unit, of `bits` bits each. */
void gptvq_unpack_indices(const uint8_t *bytes, size_t n, unsigned bits, size_t first, size_t count,
                          uint16_t *indices);

#endif
