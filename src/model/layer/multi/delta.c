#include "model/layer/vector.h"

#include <string.h>

enum { COLUMNS = 64 };

/* `count` <= COLUMNS columns of the state, from column 0 of the pointers. Sums run over the rows in their
 * order. */
static inline void rule_columns(const gptvq_delta_step *s, size_t count, const float *from, const float *v,
                                float *to, float *out) {
  float memory[COLUMNS] = {0}, sums[COLUMNS] = {0}, change[COLUMNS];
  for (size_t i = 0; i < s->key_dim; i++)
    for (size_t c = 0; c < count; c++) memory[c] += s->k[i] * from[i * s->value_dim + c];
  for (size_t c = 0; c < count; c++) change[c] = s->beta * (v[c] - s->decay * memory[c]);
  for (size_t i = 0; i < s->key_dim; i++)
    for (size_t c = 0; c < count; c++) {
      float value = s->decay * from[i * s->value_dim + c] + s->k[i] * change[c];
      to[i * s->value_dim + c] = value;
      sums[c] += s->q[i] * value;
    }
  memcpy(out, sums, count * sizeof *out);
}

void GPTVQ_MULTI(gptvq_delta_rule)(const gptvq_delta_step *step, const float *from, const float *v, float *to,
                                   float *out) {
  size_t c = 0;
  for (; c + COLUMNS <= step->value_dim; c += COLUMNS)
    rule_columns(step, COLUMNS, from + c, v + c, to + c, out + c);
  if (c < step->value_dim) rule_columns(step, step->value_dim - c, from + c, v + c, to + c, out + c);
}
