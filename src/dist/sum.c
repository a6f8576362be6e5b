/* Sums of matrices over the members of a team, in one order for any number of them. */
#include "dist/dist.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* Values that are on their way at a time, to and from one member: blocks of rows are as high as that lets
 * them be, and each member adds up an equal share of a block's rows. */
enum { BUFFER = 1 << 21 };

/* Rows [begin, end) of a block, and each member's share of them. */
typedef struct block {
  size_t begin, end;
} block;

static block next_block(const gptvq_sum *s, size_t begin) {
  size_t values = 0, end = begin;
  while (end < s->rows && (end == begin || values + gptvq_sum_length(s, end) <= BUFFER))
    values += gptvq_sum_length(s, end++);
  return (block){begin, end};
}
static size_t first_row(block b, const gptvq_dist *d, size_t rank) {
  return b.begin + (b.end - b.begin) * rank / d->team.count;
}

static size_t values_of(const gptvq_sum *s, size_t begin, size_t end) {
  size_t values = 0;
  for (size_t row = begin; row < end; row++) values += gptvq_sum_length(s, row);
  return values;
}

/* Values that are sent at a time: a block has one row at least. Received are at most twice those, as many as
 * a block's rows would have with the length of the first, and of the row that each member may have more. */
static size_t sent_values(size_t cols) { return gptvq_max_size(BUFFER, cols); }
static size_t received_values(size_t sent, size_t count, size_t cols) {
  return gptvq_saturated_sum(2 * sent, gptvq_saturated_size(count, cols));
}

size_t gptvq_sum_bytes(size_t count, size_t rows, size_t cols) {
  if (count == 1) return 0;
  const size_t sent = gptvq_min_size(gptvq_saturated_size(rows, cols), sent_values(cols));
  return gptvq_saturated_sum(sent * sizeof(double),
                             gptvq_saturated_size(received_values(sent, count, cols), sizeof(float)));
}

/* Memory for what is on its way, and where each member's part of it lies. */
static gptvq_status take_buffers(const gptvq_sum *s, gptvq_dist *d, size_t **offsets, gptvq_error *err) {
  const size_t count = d->team.count, values = sent_values(s->cols),
               received = received_values(values, count, s->cols);
  void *send = realloc(d->send, gptvq_saturated_size(values, sizeof(double)));
  if (send != NULL) d->send = send;
  void *receive = realloc(d->receive, gptvq_saturated_size(received, sizeof(float)));
  if (receive != NULL) d->receive = receive;
  *offsets = gptvq_alloc(2 * (count + 1), sizeof **offsets);
  if (send != NULL && receive != NULL && *offsets != NULL) return GPTVQ_OK;
  free(*offsets);
  *offsets = NULL;
  return gptvq_fail_memory(err, "sums on their way between processes",
                           gptvq_saturated_size(received, sizeof(float)));
}

static void pack_parts(const gptvq_sum *s, block b, float *to) {
  for (size_t row = b.begin; row < b.end; row++) {
    const size_t n = gptvq_sum_length(s, row);
    double *from = gptvq_sum_part(s, row);
    for (size_t i = 0; i < n; i++) to[i] = (float)from[i];
    memset(from, 0, n * sizeof *from);
    to += n;
  }
}

static gptvq_status add_block(const gptvq_sum *s, gptvq_dist *d, const gptvq_deal *deal, size_t round,
                              block b, size_t *offsets, gptvq_error *err) {
  const size_t count = d->team.count, own = d->team.rank;
  size_t *sent = offsets, *received = offsets + count + 1;
  const size_t begin = first_row(b, d, own), end = first_row(b, d, own + 1), slice = values_of(s, begin, end);
  const bool gives = gptvq_deal_has(deal, round, own);
  sent[0] = received[0] = 0;
  for (size_t r = 0; r < count; r++) {
    const size_t values = values_of(s, first_row(b, d, r), first_row(b, d, r + 1));
    sent[r + 1] = sent[r] + (gives ? values * sizeof(float) : 0);
    received[r + 1] = received[r] + (gptvq_deal_has(deal, round, r) ? slice * sizeof(float) : 0);
  }
  if (gives) pack_parts(s, b, d->send);
  d->sent += sent[count] - (sent[own + 1] - sent[own]);
  GPTVQ_TRY(d->team.exchange(d->team.context, d->send, sent, d->receive, received, err));
  for (size_t r = 0; r < count; r++) {
    if (received[r + 1] == received[r]) continue;
    const float *from = (const float *)d->receive + received[r] / sizeof *from;
    for (size_t row = begin; row < end; row++) {
      double *to = gptvq_sum_total(s, row);
      const size_t n = gptvq_sum_length(s, row);
      for (size_t i = 0; i < n; i++) to[i] += (double)from[i];
      from += n;
    }
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_sum_add(const gptvq_sum *s, const gptvq_linalg *linalg, gptvq_dist *d,
                           const gptvq_deal *deal, size_t round, gptvq_error *err) {
  if (d == NULL || gptvq_dist_alone(d)) return linalg->fold(linalg, s, err);
  size_t *offsets;
  GPTVQ_TRY(linalg->hand_over(linalg, s->part, err));
  GPTVQ_TRY(take_buffers(s, d, &offsets, err));
  gptvq_status status = GPTVQ_OK;
  for (block b = {0, 0}; b.end < s->rows && status == GPTVQ_OK;) {
    b = next_block(s, b.end);
    status = add_block(s, d, deal, round, b, offsets, err);
  }
  free(offsets);
  return status;
}

static gptvq_status gather_block(const gptvq_sum *s, gptvq_dist *d, block b, size_t *offsets,
                                 gptvq_error *err) {
  offsets[0] = 0;
  for (size_t r = 0; r < d->team.count; r++)
    offsets[r + 1] = offsets[r] + values_of(s, first_row(b, d, r), first_row(b, d, r + 1)) * sizeof(double);
  double *all = d->send, *own = all + offsets[d->team.rank] / sizeof *all;
  for (size_t row = first_row(b, d, d->team.rank); row < first_row(b, d, d->team.rank + 1); row++) {
    memcpy(own, gptvq_sum_total(s, row), gptvq_sum_length(s, row) * sizeof *own);
    own += gptvq_sum_length(s, row);
  }
  GPTVQ_TRY(gptvq_dist_gather_parts(d, all, offsets, err));
  const double *from = all;
  for (size_t row = b.begin; row < b.end; row++) {
    memcpy(gptvq_sum_total(s, row), from, gptvq_sum_length(s, row) * sizeof *from);
    from += gptvq_sum_length(s, row);
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_sum_gather(const gptvq_sum *s, gptvq_dist *d, gptvq_error *err) {
  if (d == NULL || gptvq_dist_alone(d)) return GPTVQ_OK;
  size_t *offsets;
  GPTVQ_TRY(take_buffers(s, d, &offsets, err));
  gptvq_status status = GPTVQ_OK;
  for (block b = {0, 0}; b.end < s->rows && status == GPTVQ_OK;) {
    b = next_block(s, b.end);
    status = gather_block(s, d, b, offsets, err);
  }
  free(offsets);
  return status;
}
