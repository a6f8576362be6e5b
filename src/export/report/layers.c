#include "export/report/layers.h"
#include "base/memory.h"
#include "base/status.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { KIND = 128 };

/* "model.layers.3.mlp.experts.7.up_proj" -> 3, "mlp.experts.up_proj" */
static size_t split(const char *name, char kind[KIND]) {
  static const char prefix[] = "model.layers.";
  const char *at = strncmp(name, prefix, sizeof prefix - 1) == 0 ? name + sizeof prefix - 1 : name;
  char *end;
  size_t block = isdigit((unsigned char)*at) ? strtoul(at, &end, 10) : 0, used = 0;
  if (isdigit((unsigned char)*at)) at = *end == '.' ? end + 1 : end;
  while (*at != '\0' && used + 1 < KIND) {
    if (*at == '.' && isdigit((unsigned char)at[1])) {
      at++;
      while (isdigit((unsigned char)*at)) at++;
      continue;
    }
    kind[used++] = *at++;
  }
  kind[used] = '\0';
  return block;
}

static gptvq_status add_kind(gptvq_layer_grid *grid, const char *kind, size_t *index, gptvq_error *err) {
  for (*index = 0; *index < grid->kinds; (*index)++)
    if (strcmp(grid->names[*index], kind) == 0) return GPTVQ_OK;
  const char **names = realloc((void *)grid->names, (grid->kinds + 1) * sizeof *names);
  if (names == NULL) return gptvq_fail_memory(err, "the report", (grid->kinds + 1) * sizeof *names);
  grid->names = names;
  names[grid->kinds] = strdup(kind);
  if (names[grid->kinds] == NULL) return gptvq_fail_memory(err, "the report", strlen(kind));
  grid->kinds++;
  return GPTVQ_OK;
}

/* The kinds, and how many blocks there are. */
static gptvq_status list_kinds(const gptvq_model *model, gptvq_layer_grid *grid, gptvq_error *err) {
  for (size_t i = 0; i < gptvq_model_layer_count(model); i++) {
    gptvq_layer_info layer = {.size = sizeof layer};
    char kind[KIND];
    size_t index;
    gptvq_model_get_layer(model, i, &layer);
    grid->blocks = gptvq_max_size(grid->blocks, split(layer.name, kind) + 1);
    GPTVQ_TRY(add_kind(grid, kind, &index, err));
  }
  return GPTVQ_OK;
}

static gptvq_status fill(const gptvq_model *model, gptvq_layer_grid *grid, double *values, gptvq_error *err) {
  const size_t cells = grid->kinds * grid->blocks, layers = gptvq_model_layer_count(model);
  double *counts = values + cells;
  double sum = 0;
  for (size_t i = 0; i < layers; i++) {
    gptvq_layer_info layer = {.size = sizeof layer};
    char kind[KIND];
    size_t index;
    gptvq_model_get_layer(model, i, &layer);
    const size_t block = split(layer.name, kind);
    GPTVQ_TRY(add_kind(grid, kind, &index, err));
    const size_t cell = index * grid->blocks + block;
    grid->errors[cell] += layer.error;
    grid->bits[cell] += 8 * (double)layer.bytes;
    values[cell] += (double)layer.rows * (double)layer.cols;
    counts[cell]++;
    sum += layer.error;
  }
  for (size_t cell = 0; cell < cells; cell++) {
    grid->errors[cell] = counts[cell] > 0 ? grid->errors[cell] / counts[cell] : (double)NAN;
    grid->bits[cell] = counts[cell] > 0 ? grid->bits[cell] / values[cell] : (double)NAN;
    grid->experts = grid->experts || counts[cell] > 1;
  }
  grid->mean_error = layers > 0 ? sum / (double)layers : (double)NAN;
  return GPTVQ_OK;
}

gptvq_status gptvq_layer_grid_create(const gptvq_model *model, gptvq_layer_grid *grid, gptvq_error *err) {
  *grid = (gptvq_layer_grid){0};
  gptvq_status status = list_kinds(model, grid, err);
  size_t cells = 0;
  if (status == GPTVQ_OK && !gptvq_mul(grid->kinds, grid->blocks, &cells)) cells = SIZE_MAX;
  double *values = gptvq_alloc_zero(gptvq_saturated_size(cells, 2), sizeof *values);
  grid->errors = gptvq_alloc_zero(cells, sizeof *grid->errors);
  grid->bits = gptvq_alloc_zero(cells, sizeof *grid->bits);
  if (status == GPTVQ_OK)
    status = values == NULL || grid->errors == NULL || grid->bits == NULL
                 ? gptvq_fail_memory(err, "the report", gptvq_saturated_size(cells, 4 * sizeof *values))
                 : fill(model, grid, values, err);
  free(values);
  if (status != GPTVQ_OK) gptvq_layer_grid_release(grid);
  return status;
}

void gptvq_layer_grid_release(gptvq_layer_grid *grid) {
  for (size_t i = 0; i < grid->kinds; i++) free((void *)(uintptr_t)grid->names[i]);
  free((void *)grid->names);
  free(grid->errors);
  free(grid->bits);
  *grid = (gptvq_layer_grid){0};
}
