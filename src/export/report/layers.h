/* export/report/layers.h: figures of a model's layers by kind and block. */
#ifndef GPTVQ_EXPORT_REPORT_LAYERS_H
#define GPTVQ_EXPORT_REPORT_LAYERS_H

#include "export/report/charts.h"

#include <gptvq/model.h>
#include <stdbool.h>

/* kinds: layers of the same name but for their block's number, and their expert's, in the order of their
 * first mention. NaN: a block has none of them. */
typedef struct gptvq_layer_grid {
  size_t kinds, blocks;
  const char **names;    /* [kinds] "self_attn.q_proj" */
  double *errors, *bits; /* [kinds × blocks]: mean over experts; of all their bytes and values */
  double mean_error;     /* over layers, NaN if unknown */
  bool experts;          /* some of them stand for several layers */
} gptvq_layer_grid;
gptvq_status gptvq_layer_grid_create(const gptvq_model *model, gptvq_layer_grid *grid, gptvq_error *err);
void gptvq_layer_grid_release(gptvq_layer_grid *grid);

#endif
