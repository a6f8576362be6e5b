#include "cuda/shim/fiber.h"

#include <stdint.h>
#include <string.h>

#ifdef GPTVQ_FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef GPTVQ_FIBER_TSAN
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
}
#endif

#ifndef GPTVQ_FIBER_UCONTEXT
/* Saves what a function has to preserve on the stack and the stack pointer in *from; then the reverse. */
extern "C" void gptvq_fiber_switch(void **from, void *to);
#if defined(__x86_64__)
asm(".text\n"
    ".p2align 4\n"
    ".globl gptvq_fiber_switch\n"
    ".hidden gptvq_fiber_switch\n"
    ".type gptvq_fiber_switch, @function\n"
    "gptvq_fiber_switch:\n"
    "  pushq %rbp\n"
    "  pushq %rbx\n"
    "  pushq %r12\n"
    "  pushq %r13\n"
    "  pushq %r14\n"
    "  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n"
    "  popq %r14\n"
    "  popq %r13\n"
    "  popq %r12\n"
    "  popq %rbx\n"
    "  popq %rbp\n"
    "  ret\n"
    ".size gptvq_fiber_switch, . - gptvq_fiber_switch\n");
enum { SAVED = 6, RETURN = 6 }; /* words: saved registers; where the return address is */
#else
asm(".text\n"
    ".p2align 4\n"
    ".globl gptvq_fiber_switch\n"
    ".hidden gptvq_fiber_switch\n"
    ".type gptvq_fiber_switch, %function\n"
    "gptvq_fiber_switch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n"
    "  stp x21, x22, [sp, #16]\n"
    "  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n"
    "  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n"
    "  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n"
    "  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n"
    "  str x9, [x0]\n"
    "  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n"
    "  ldp x21, x22, [sp, #16]\n"
    "  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n"
    "  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n"
    "  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n"
    "  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n"
    ".size gptvq_fiber_switch, . - gptvq_fiber_switch\n");
enum { SAVED = 20, RETURN = 11 };
#endif
#endif

void gptvq_fiber_here(gptvq_fiber_place *scheduler) {
  memset(scheduler, 0, sizeof *scheduler);
#ifdef GPTVQ_FIBER_TSAN
  scheduler->tsan = __tsan_get_current_fiber();
#endif
}

void gptvq_fiber_start(gptvq_fiber_place *fiber, char *stack, void (*entry)()) {
  memset(fiber, 0, sizeof *fiber);
  fiber->bottom = stack;
  fiber->size = GPTVQ_FIBER_STACK;
#ifdef GPTVQ_FIBER_TSAN
  fiber->tsan = __tsan_create_fiber(0);
#endif
#ifdef GPTVQ_FIBER_UCONTEXT
  (void)getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = stack;
  fiber->context.uc_stack.ss_size = GPTVQ_FIBER_STACK;
  makecontext(&fiber->context, entry, 0);
#else
  /* as if entry had been called: a word below a multiple of 16 on x86-64, where calls push their return */
  uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + GPTVQ_FIBER_STACK) / 16 * 16;
#if defined(__x86_64__)
  uint64_t *words = reinterpret_cast<uint64_t *>(top) - 2 - SAVED;
  memset(words, 0, (SAVED + 2) * sizeof *words);
#else
  uint64_t *words = reinterpret_cast<uint64_t *>(top) - SAVED;
  memset(words, 0, SAVED * sizeof *words);
#endif
  words[RETURN] = reinterpret_cast<uint64_t>(entry);
  fiber->stack_pointer = words;
#endif
}

void gptvq_fiber_change(gptvq_fiber_place *from, gptvq_fiber_place *to, bool ended) {
  (void)ended;
#ifdef GPTVQ_FIBER_ASAN
  __sanitizer_start_switch_fiber(ended ? nullptr : &from->fake, to->bottom, to->size);
#endif
#ifdef GPTVQ_FIBER_TSAN
  __tsan_switch_to_fiber(to->tsan, 0);
#endif
#ifdef GPTVQ_FIBER_UCONTEXT
  (void)swapcontext(&from->context, &to->context);
#else
  gptvq_fiber_switch(&from->stack_pointer, to->stack_pointer);
#endif
#ifdef GPTVQ_FIBER_ASAN
  __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}

void gptvq_fiber_entered(gptvq_fiber_place *from) {
  (void)from;
#ifdef GPTVQ_FIBER_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &from->bottom, &from->size);
#endif
}

void gptvq_fiber_release(gptvq_fiber_place *fiber) {
  (void)fiber;
#ifdef GPTVQ_FIBER_TSAN
  __tsan_destroy_fiber(fiber->tsan);
#endif
}
