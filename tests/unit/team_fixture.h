/* A team whose members are threads. */
#ifndef TEAM_FIXTURE_H
#define TEAM_FIXTURE_H

#include "dist/dist.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_MEMBERS = 5 };

/* Everyone leaves what it has where all see it, between two barriers. */
typedef struct member_table {
  pthread_barrier_t barrier;
  size_t count;
  const void *data[MOST_MEMBERS];
  const size_t *offsets[MOST_MEMBERS];
} member_table;
typedef struct member {
  member_table *table;
  size_t rank;
} member;

static inline void meet(const member *m, const void *data, const size_t *offsets) {
  m->table->data[m->rank] = data;
  m->table->offsets[m->rank] = offsets;
  (void)pthread_barrier_wait(&m->table->barrier);
}
static inline void part(const member *m) { (void)pthread_barrier_wait(&m->table->barrier); }

static inline gptvq_status broadcast(void *context, void *data, size_t bytes, gptvq_error *err) {
  const member *m = context;
  (void)err;
  meet(m, data, NULL);
  if (m->rank > 0) memcpy(data, m->table->data[0], bytes);
  part(m);
  return GPTVQ_OK;
}
static inline gptvq_status gather(void *context, void *data, const size_t *offsets, gptvq_error *err) {
  const member *m = context;
  (void)err;
  meet(m, data, offsets);
  for (size_t r = 0; r < m->table->count; r++) {
    assert_memory_equal(offsets, m->table->offsets[r], (m->table->count + 1) * sizeof *offsets);
    if (r != m->rank)
      memcpy((char *)data + offsets[r], (const char *)m->table->data[r] + offsets[r],
             offsets[r + 1] - offsets[r]);
  }
  part(m);
  return GPTVQ_OK;
}
static inline gptvq_status exchange(void *context, const void *send, const size_t *send_offsets,
                                    void *receive, const size_t *receive_offsets, gptvq_error *err) {
  const member *m = context;
  (void)err;
  meet(m, send, send_offsets);
  for (size_t r = 0; r < m->table->count; r++) {
    const size_t *theirs = m->table->offsets[r], bytes = theirs[m->rank + 1] - theirs[m->rank];
    assert_int_equal(bytes, receive_offsets[r + 1] - receive_offsets[r]);
    if (bytes > 0)
      memcpy((char *)receive + receive_offsets[r], (const char *)m->table->data[r] + theirs[m->rank], bytes);
  }
  part(m);
  return GPTVQ_OK;
}

static inline gptvq_team team_of(member *m) {
  return (gptvq_team){.size = sizeof(gptvq_team),
                      .context = m,
                      .rank = m->rank,
                      .count = m->table->count,
                      .neighbours = 1,
                      .broadcast = broadcast,
                      .gather = gather,
                      .exchange = exchange};
}

/* work(&jobs[r]) of all members r < count at once; each job, `bytes` apart, begins with its member. */
static inline void run_members(size_t count, void *(*work)(void *job), void *jobs, size_t bytes) {
  member_table table = {.count = count};
  pthread_t threads[MOST_MEMBERS];
  assert_int_equal(pthread_barrier_init(&table.barrier, NULL, (unsigned)count), 0);
  for (size_t r = 0; r < count; r++) {
    void *job = (char *)jobs + r * bytes;
    *(member *)job = (member){&table, r};
    assert_int_equal(pthread_create(&threads[r], NULL, work, job), 0);
  }
  for (size_t r = 0; r < count; r++) assert_int_equal(pthread_join(threads[r], NULL), 0);
  (void)pthread_barrier_destroy(&table.barrier);
}

#endif
