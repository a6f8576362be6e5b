/* Threads of a block in turns. A block that is given up leaves its fibers where they are: kernels own
 * nothing that would have to be released. */
#include "cuda/shim/run.h"
#include "cuda/shim/cuda.h"
#include "cuda/shim/fiber.h"

#include <stdio.h>
#include <stdlib.h>
#ifdef GPTVQ_FIBER_ASAN
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#endif

namespace {

enum state { READY, AT_BARRIER, IN_EXCHANGE, ENDED };
enum { WARP = 32, MOST_THREADS = 1024, MOST_ARRAYS = 16 };

struct fiber {
  gptvq_fiber_place place;
  enum state state;
  const char *file; /* where it waits */
  int line;
  unsigned number, exchanges; /* of exchanges: so far */
};

struct warp {
  uint64_t value[2][WARP]; /* by turns: a lane may be one exchange ahead of the others */
  unsigned arrived;
};

struct array {
  const void *key;
  void *memory;
};

struct team { /* of one block */
  const gptvq_shim_launch *launch;
  gptvq_fiber_place scheduler;
  fiber *fibers; /* [launch->threads] */
  char *stacks;
  warp warps[MOST_THREADS / WARP];
  fiber *running;
  unsigned at_barrier, ended;
  void *dynamic;
  array arrays[MOST_ARRAYS];
  size_t array_count;
  bool failed, no_memory;
  char *message;
  size_t message_size;
};

thread_local team *now;

bool is_at(const fiber *f, const char *file, int line) {
  return f->line == line && (f->file == file || strcmp(f->file, file) == 0);
}

const char *base_name(const char *file) {
  const char *slash = strrchr(file, '/');
  return slash == nullptr ? file : slash + 1;
}

void set_place() {
  gptvq_shim_here.thread.x = now->running->number;
  gptvq_shim_here.thread.y = 0;
}

void wait_there(enum state why, const char *file, int line) {
  fiber *self = now->running;
  self->state = why;
  self->file = file;
  self->line = line;
  gptvq_fiber_change(&self->place, &now->scheduler, false);
}

/* Gives the block up; does not return. */
void give_up(const char *what, const fiber *a, const fiber *b) {
  team *t = now;
  if (!t->failed) {
    t->failed = true;
    if (b == nullptr)
      (void)snprintf(t->message, t->message_size, "%s: thread %u at %s:%d", what, a->number,
                     base_name(a->file), a->line);
    else if (b->state == ENDED)
      (void)snprintf(t->message, t->message_size, "%s: thread %u waits at %s:%d, thread %u has ended", what,
                     a->number, base_name(a->file), a->line, b->number);
    else
      (void)snprintf(t->message, t->message_size, "%s: thread %u waits at %s:%d, thread %u at %s:%d", what,
                     a->number, base_name(a->file), a->line, b->number, base_name(b->file), b->line);
  }
}

void fail_here(const char *what, const char *file, int line) {
  fiber *self = now->running;
  self->file = file;
  self->line = line;
  give_up(what, self, nullptr);
  for (;;) gptvq_fiber_change(&self->place, &now->scheduler, false);
}

void entry() {
  gptvq_fiber_entered(&now->scheduler);
  now->launch->kernel(now->launch->arguments);
  now->running->state = ENDED;
  now->ended++;
  gptvq_fiber_change(&now->running->place, &now->scheduler, true);
}

/* Nobody can go on: who waits for whom? */
void explain() {
  const fiber *first = nullptr, *other = nullptr;
  for (unsigned i = 0; i < now->launch->threads && other == nullptr; i++) {
    const fiber *f = &now->fibers[i];
    if (first == nullptr && f->state != ENDED) first = f;
  }
  for (unsigned i = 0; i < now->launch->threads && other == nullptr; i++) {
    const fiber *f = &now->fibers[i];
    if (f->state == ENDED || f->state != first->state || f->line != first->line || f->file != first->file)
      other = f;
  }
  give_up("threads do not meet", first, other == nullptr ? first : other);
}

/* Stacks of a block's threads. Not from ASan's heap, which would mark all of them, megabytes, at each launch;
 * what is left on those of a block that was given up is still marked. */
char *take_stacks(size_t bytes) {
#ifdef GPTVQ_FIBER_ASAN
  void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory != MAP_FAILED ? static_cast<char *>(memory) : nullptr;
#else
  return static_cast<char *>(malloc(bytes));
#endif
}

void release_stacks(char *stacks, size_t bytes, bool failed) {
#ifdef GPTVQ_FIBER_ASAN
  if (stacks == nullptr) return;
  if (failed) ASAN_UNPOISON_MEMORY_REGION(stacks, bytes);
  (void)munmap(stacks, bytes);
#else
  (void)bytes;
  (void)failed;
  free(stacks);
#endif
}

void run_block() {
  const unsigned n = now->launch->threads;
  memset(now->warps, 0, sizeof now->warps);
  now->at_barrier = now->ended = 0;
  for (unsigned i = 0; i < n; i++) {
    fiber *f = &now->fibers[i];
    *f = fiber();
    f->number = i;
    gptvq_fiber_start(&f->place, now->stacks + (size_t)i * GPTVQ_FIBER_STACK, entry);
  }
  while (now->ended < n && !now->failed) {
    bool progress = false;
    for (unsigned i = 0; i < n && !now->failed; i++) {
      fiber *f = &now->fibers[now->launch->reverse ? n - 1 - i : i];
      if (f->state != READY) continue;
      progress = true;
      now->running = f;
      set_place();
      gptvq_fiber_change(&now->scheduler, &f->place, false);
    }
    if (!progress) explain();
  }
  for (unsigned i = 0; i < n; i++) gptvq_fiber_release(&now->fibers[i].place);
  for (size_t i = 0; i < now->array_count; i++) free(now->arrays[i].memory);
  now->array_count = 0;
}

} // namespace

thread_local gptvq_shim_place gptvq_shim_here;

void gptvq_shim_barrier(const char *file, int line) {
  fiber *self = now->running;
  if (++now->at_barrier < now->launch->threads) {
    wait_there(AT_BARRIER, file, line);
    return;
  }
  self->file = file;
  self->line = line;
  for (unsigned i = 0; i < now->launch->threads; i++) {
    fiber *f = &now->fibers[i];
    if (f == self) continue;
    if (!is_at(f, file, line)) {
      self->state = AT_BARRIER;
      give_up("two barriers at once", self, f);
      gptvq_fiber_change(&self->place, &now->scheduler, false);
    }
    f->state = READY;
  }
  now->at_barrier = 0;
}

const uint64_t *gptvq_shim_exchange(unsigned mask, uint64_t value, const char *file, int line) {
  fiber *self = now->running;
  const unsigned thread = self->number, first = thread / WARP * WARP;
  warp *w = &now->warps[thread / WARP];
  uint64_t *values = w->value[self->exchanges++ % 2];
  if (mask != ~0u) fail_here("an exchange of some lanes only", file, line);
  values[thread % WARP] = value;
  if (++w->arrived < WARP) {
    wait_there(IN_EXCHANGE, file, line);
    return values;
  }
  self->file = file;
  self->line = line;
  for (unsigned i = first; i < first + WARP; i++) {
    fiber *f = &now->fibers[i];
    if (f == self) continue;
    if (!is_at(f, file, line)) {
      self->state = IN_EXCHANGE;
      give_up("two exchanges of a warp at once", self, f);
      gptvq_fiber_change(&self->place, &now->scheduler, false);
    }
    f->state = READY;
  }
  w->arrived = 0;
  return values;
}

void *gptvq_shim_dynamic() { return now->dynamic; }

void *gptvq_shim_static(const void *key, size_t bytes) {
  for (size_t i = 0; i < now->array_count; i++)
    if (now->arrays[i].key == key) return now->arrays[i].memory;
  void *memory = now->array_count < MOST_ARRAYS ? malloc(bytes) : nullptr;
  if (memory == nullptr) {
    now->no_memory = true;
    fail_here("no memory for a shared array", "shim", 0);
  }
  memset(memory, 0xff, bytes);
  now->arrays[now->array_count].key = key;
  now->arrays[now->array_count++].memory = memory;
  return memory;
}

gptvq_shim_end gptvq_shim_run(const gptvq_shim_launch *launch, size_t begin, size_t end, size_t *block,
                              char *message, size_t size) {
  team *t = static_cast<team *>(calloc(1, sizeof *t));
  gptvq_shim_end result = GPTVQ_SHIM_NO_MEMORY;
  if (t == nullptr) return result;
  t->launch = launch;
  t->message = message;
  t->message_size = size;
  t->fibers = static_cast<fiber *>(malloc(launch->threads * sizeof *t->fibers));
  t->stacks = take_stacks((size_t)launch->threads * GPTVQ_FIBER_STACK);
  t->dynamic = malloc(launch->shared_bytes > 0 ? launch->shared_bytes : 1);
  if (t->fibers != nullptr && t->stacks != nullptr && t->dynamic != nullptr) {
    team *before = now;
    now = t;
    gptvq_fiber_here(&t->scheduler);
    for (*block = begin; *block < end && !t->failed; ++*block) {
      memset(t->dynamic, 0xff, launch->shared_bytes);
      gptvq_shim_here = {{0, 0},
                         {(unsigned)(*block % launch->grid_x), (unsigned)(*block / launch->grid_x)},
                         {launch->threads, 1},
                         {launch->grid_x, launch->grid_y}};
      run_block();
      if (t->failed) break;
    }
    now = before;
    result = t->no_memory ? GPTVQ_SHIM_NO_MEMORY : t->failed ? GPTVQ_SHIM_FAILED : GPTVQ_SHIM_DONE;
  }
  free(t->fibers);
  release_stacks(t->stacks, (size_t)launch->threads * GPTVQ_FIBER_STACK, t->failed);
  free(t->dynamic);
  free(t);
  return result;
}
