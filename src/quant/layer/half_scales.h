/* quant/layer/half_scales.h: do the fp16 scales of a uniform layer hold its weights?
 *
 * Below 2^-14 fp16 has ever fewer bits and below 2^-25 none; above 65504 it has no numbers. The measure are
 * codes of 2 bits, three steps over the range, the coarsest of use: what is worse off than with these is
 * lost, whatever the bits. A group is lost when the rounding of its scale moves the end of its range by more
 * than half of such a step, 1/6 of the range (normal fp16 numbers: at most 2^-10 of it). The layer is lost
 * when lost groups have 1/9 of its sum of squares, which is what rounding to three steps costs weights that
 * are spread evenly: 1/12 of the squared step each, of a mean square of 1/12 of the squared range. So rows
 * that training left at 1e-20 in a layer of usual size do not matter. */
#ifndef GPTVQ_QUANT_LAYER_HALF_SCALES_H
#define GPTVQ_QUANT_LAYER_HALF_SCALES_H

#include "format/packed.h"

#include <stdbool.h>
#include <stddef.h>

/* Sums of squares of one row; added up in the order of the rows. */
typedef struct gptvq_row_energy {
  double all, lost; /* of the groups whose scale does not hold */
} gptvq_row_energy;

/* Adds a group of n weights that span `range`, for which there are `top` steps of the size `stored`. */
void gptvq_add_group(gptvq_row_energy *row, size_t n, const float *weights, float range, float stored,
                     unsigned top);

/* uniform.c: adds all groups of a row of a uniform layer. */
void gptvq_add_uniform_row(const gptvq_packed_shape *shape, const float *weights, gptvq_row_energy *row);

/* GPTVQ_ERROR_NUMERIC naming the layer and `instead`, what to do without such scales. */
gptvq_status gptvq_check_half_scales(const char *name, size_t rows, const gptvq_row_energy *energy,
                                     const char *instead, gptvq_error *err);
/* uniform.c: the same for a layer that is to become one, which says what other methods do. */
gptvq_status gptvq_check_uniform_rows(const char *name, size_t rows, const gptvq_row_energy *energy,
                                      gptvq_error *err);

#endif
