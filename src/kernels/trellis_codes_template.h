/* kernels/trellis_codes_template.h: values of a row in column order, row_codes(stream, k, begin, count,
 * entries, codes) for GPTVQ_TRELLIS_CODES, included by kernels that look up a step at a time. They define
 * BYTES, the types step_vector, tables and thirds, and load_tables, make_thirds, step_values and order_codes.
 * k: a constant. Whole steps are read where they are, but with 3 bits for those that too little of the row is
 * before. */
#include "kernels/trellis_streams.h"

static inline __attribute__((always_inline)) void row_codes(const uint8_t *stream, unsigned k, size_t begin,
                                                            size_t count, const int8_t *entries,
                                                            int8_t *codes) {
  const tables table = load_tables(entries);
  const size_t columns = gptvq_step_columns(k, BYTES);
  thirds third;
  if (k == 3) make_thirds(&third);
  for (size_t c = 0; c < count; c += columns) {
    const size_t some = count - c < columns ? count - c : columns;
    const uint8_t *at = stream + (begin + c) * k / 8;
    step_vector weights[4];
    int8_t part[4 * BYTES];
    gptvq_padded room;
    if (some < columns || (k == 3 && (begin + c) * k / 8 < gptvq_step_before(k)))
      step_values(gptvq_pad(at, begin + c, k, (some * k + 7) / 8, &room), k, 0, &third, &table, weights);
    else if (begin + c == 0) step_values(at, k, 1, &third, &table, weights);
    else step_values(at, k, 0, &third, &table, weights);
    order_codes(weights, k, some == columns ? codes + c : part);
    if (some < columns) memcpy(codes + c, part, some);
  }
}
