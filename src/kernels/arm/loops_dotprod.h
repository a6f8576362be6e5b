/* kernels/arm/loops_dotprod.h: the loops that decoding spends its time in, scheduled by hand. Little cores
 * issue in order, and compilers keep neither the distance between an instruction and its use nor
 * four-register tables in their registers. Included by i8_dotprod.c; what they compute is defined, like
 * everything here, by i8.h and uniform.h.
 *
 * SUM_START (i8_template.h) is where integer sums begin; loading it costs the vector units nothing, moving it
 * would. Comments in capitals mark what bench/arm-mca.sh analyses. */
#ifndef GPTVQ_KERNELS_LOOPS_DOTPROD_H
#define GPTVQ_KERNELS_LOOPS_DOTPROD_H

#include <stddef.h>
#include <stdint.h>

/* clang-format off: asm in columns */
/* ---- Units of 256 columns, d = 2 with k = 16, 32, 64 and d = 1 with k = 4 ----
 * v0 …: tables of component 0, then of component 1 (`zero`, `one`)
 * v8 – v11: integer sums of the four quarters   v12 – v19: indices   v20 – v27: centroids
 * v29: mask of an index   v30: scale   v31: SUM_START
 * The products of a row are added to its sums while the indices of the next are put
 * together; `last` is where they go. */
#define UNPACK_16 /* low, high nibbles */ \
  "ldp q12, q13, [%[unit]]\n" \
  "ldp q14, q15, [%[unit], #32]\n" \
  "fsub v20.4s, v8.4s, v31.4s\n" \
  "fsub v21.4s, v9.4s, v31.4s\n" \
  "fsub v22.4s, v10.4s, v31.4s\n" \
  "fsub v23.4s, v11.4s, v31.4s\n" \
  "ldp q24, q25, [%[last]]\n" \
  "ushr v16.16b, v12.16b, #4\n" \
  "and v12.16b, v12.16b, v29.16b\n" \
  "ushr v17.16b, v13.16b, #4\n" \
  "and v13.16b, v13.16b, v29.16b\n" \
  "ldp q26, q27, [%[last], #32]\n" \
  "ushr v18.16b, v14.16b, #4\n" \
  "and v14.16b, v14.16b, v29.16b\n" \
  "ldp q8, q9, [%[start]]\n" \
  "ushr v19.16b, v15.16b, #4\n" \
  "and v15.16b, v15.16b, v29.16b\n" \
  "ldp q10, q11, [%[start]]\n" \
  "add %[unit], %[unit], #64\n"
#define UNPACK_32 /* bit i of byte j is the top of index j + 16 i */ \
  "ldr q16, [%[unit], #64]\n" \
  "ldp q12, q13, [%[unit]]\n" \
  "ldp q14, q15, [%[unit], #32]\n" \
  "fsub v20.4s, v8.4s, v31.4s\n" \
  "ushr v17.16b, v16.16b, #1\n" \
  "fsub v21.4s, v9.4s, v31.4s\n" \
  "ushr v18.16b, v16.16b, #2\n" \
  "ldp q24, q25, [%[unit]]\n" \
  "ushr v19.16b, v16.16b, #3\n" \
  "sli v12.16b, v16.16b, #4\n" \
  "ldp q26, q27, [%[unit], #32]\n" \
  "sli v13.16b, v17.16b, #4\n" \
  "sli v14.16b, v18.16b, #4\n" \
  "sli v15.16b, v19.16b, #4\n" \
  "sri v16.16b, v24.16b, #4\n" \
  "sri v17.16b, v25.16b, #4\n" \
  "sri v18.16b, v26.16b, #4\n" \
  "sri v19.16b, v27.16b, #4\n" \
  "ldp q24, q25, [%[last]]\n" \
  "and v12.16b, v12.16b, v29.16b\n" \
  "and v13.16b, v13.16b, v29.16b\n" \
  "ldp q26, q27, [%[last], #32]\n" \
  "fsub v22.4s, v10.4s, v31.4s\n" \
  "fsub v23.4s, v11.4s, v31.4s\n" \
  "ldp q8, q9, [%[start]]\n" \
  "and v14.16b, v14.16b, v29.16b\n" \
  "and v15.16b, v15.16b, v29.16b\n" \
  "ldp q10, q11, [%[start]]\n" \
  "and v16.16b, v16.16b, v29.16b\n" \
  "and v17.16b, v17.16b, v29.16b\n" \
  "and v18.16b, v18.16b, v29.16b\n" \
  "add %[unit], %[unit], #80\n"
#define UNPACK_64 /* bits 2 i, 2 i + 1 of byte j are the top of index j + 32 i */ \
  "ldp q16, q17, [%[unit], #64]\n" \
  "ldp q12, q13, [%[unit]]\n" \
  "ldp q14, q15, [%[unit], #32]\n" \
  "fsub v20.4s, v8.4s, v31.4s\n" \
  "ushr v18.16b, v16.16b, #2\n" \
  "fsub v21.4s, v9.4s, v31.4s\n" \
  "ushr v19.16b, v17.16b, #2\n" \
  "ldp q24, q25, [%[unit]]\n" \
  "sli v12.16b, v16.16b, #4\n" \
  "sli v13.16b, v17.16b, #4\n" \
  "ldp q26, q27, [%[unit], #32]\n" \
  "sli v14.16b, v18.16b, #4\n" \
  "sli v15.16b, v19.16b, #4\n" \
  "sri v16.16b, v24.16b, #4\n" \
  "sri v17.16b, v25.16b, #4\n" \
  "ldp q24, q25, [%[last]]\n" \
  "sri v18.16b, v26.16b, #4\n" \
  "sri v19.16b, v27.16b, #4\n" \
  "ldp q26, q27, [%[last], #32]\n" \
  "and v12.16b, v12.16b, v29.16b\n" \
  "and v13.16b, v13.16b, v29.16b\n" \
  "fsub v22.4s, v10.4s, v31.4s\n" \
  "fsub v23.4s, v11.4s, v31.4s\n" \
  "ldp q8, q9, [%[start]]\n" \
  "and v14.16b, v14.16b, v29.16b\n" \
  "and v15.16b, v15.16b, v29.16b\n" \
  "ldp q10, q11, [%[start]]\n" \
  "and v16.16b, v16.16b, v29.16b\n" \
  "and v17.16b, v17.16b, v29.16b\n" \
  "add %[unit], %[unit], #96\n"

#define TBL(to, table, index) "tbl v" #to ".16b, {" table "}, v" #index ".16b\n"
#define DOT(sum, a, b) "sdot v" #sum ".4s, v" #a ".16b, v" #b ".16b\n"
#define ADD(sum, part) "fmla v" #sum ".4s, v" #part ".4s, v30.s[0]\n"
#define VQ_LOOP(name, load, unpack, zero, one, low_one, high_zero) \
  static __attribute__((noinline)) void vq_loop_##name( \
      const uint8_t *unit, const int8_t *tables, const int8_t *x, size_t rows, float scale, float *sums) { \
    static const int32_t start[8] = {SUM_START, SUM_START, SUM_START, SUM_START, \
                                     SUM_START, SUM_START, SUM_START, SUM_START}; \
    float unused[16] = {0}, *last = unused; \
    __asm__ volatile( \
        load \
        "movi v29.16b, #(" #unpack " - 1)\n" \
        "dup v30.4s, %w[scale]\n" \
        "ldr q31, [%[start]]\n" \
        "ldp q8, q9, [%[start]]\n" \
        "ldp q10, q11, [%[start]]\n" \
        "1:\n" \
        "// LLVM-MCA-BEGIN vq\n" UNPACK_##unpack TBL(28, zero, 12) ADD(24, 20) TBL(20, zero, 13) ADD( \
            25, 21) TBL(21, zero, 14) ADD(26, 22) TBL(22, zero, 15) \
            ADD(27, 23) "stp q24, q25, [%[last]]\n" TBL(23, one, 12) TBL( \
                24, one, \
                13) "ldp q12, q13, [%[x]]\n" \
                    "stp q26, q27, [%[last], #32]\n" TBL(25, one, 14) \
                        TBL(26, one, 15) "ldp q14, q15, [%[x], #32]\n" DOT(8, 28, 12) TBL(28, zero, 16) \
                            DOT(9, 20, 13) TBL(20, zero, 17) "ldp q12, q13, [%[x], #" #low_one "]\n" DOT( \
                                10, 21, 14) TBL(21, zero, 18) DOT(11, 22, 15) \
                                TBL(22, zero, \
                                    19) "ldp q14, q15, [%[x], #" #low_one " + 32]\n" \
                                        "mov %[last], %[sums]\n" DOT(8, 23, 12) TBL(23, one, 16) DOT(9, 24, \
                                                                                                     13) \
                                            TBL(24, one, 17) "ldp q12, q13, [%[x], #" #high_zero "]\n" DOT( \
                                                10, 25, 14) TBL(25, one, 18) DOT(11, 26, 15) \
                                                TBL(26, one, \
                                                    19) "ldp q14, q15, [%[x], #" #high_zero " + 32]\n" \
                                                        "add %[sums], %[sums], #64\n" DOT(8, 28, 12) DOT( \
                                                            9, 20, \
                                                            13) "ldp q16, q17, [%[x], #192]\n" DOT(10, 21, \
                                                                                                   14) \
                                                            DOT(11, 22, \
                                                                15) "ldp q18, q19, [%[x], #224]\n" DOT(8, \
                                                                                                       23, \
                                                                                                       16) \
                                                                DOT(9, 24, 17) DOT(10, 25, 18) DOT( \
                                                                    11, 26, \
                                                                    19) "subs %[rows], %[rows], #1\n" \
                                                                        "// LLVM-MCA-END vq\n" \
                                                                        "b.ne 1b\n" \
                                                                        "ldp q24, q25, [%[last]]\n" \
                                                                        "ldp q26, q27, [%[last], #32]\n" \
                                                                        "fsub v8.4s, v8.4s, v31.4s\n" \
                                                                        "fsub v9.4s, v9.4s, v31.4s\n" \
                                                                        "fsub v10.4s, v10.4s, v31.4s\n" \
                                                                        "fsub v11.4s, v11.4s, v31.4s\n" ADD( \
                                                                            24, 8) ADD(25, 9) ADD(26, 10) \
                                                                            ADD(27, 11) "stp q24, q25, " \
                                                                                        "[%[last]]\n" \
                                                                                        "stp q26, q27, " \
                                                                                        "[%[last], #32]\n" \
        : [unit] "+&r"(unit), [rows] "+&r"(rows), [sums] "+&r"(sums), [last] "+&r"(last) \
        : [tables] "r"(tables), [x] "r"(x), [start] "r"(start), [scale] "r"(scale) \
        : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", \
          "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", \
          "v27", "v28", "v29", "v30", "v31"); \
  }

/* tables: planes of component 0 and 1, 16 entries each; 32; 64 */
VQ_LOOP(16, "ldp q0, q1, [%[tables]]\n", 16, "v0.16b", "v1.16b", 128, 64)
VQ_LOOP(32, "ld1 {v0.16b - v3.16b}, [%[tables]]\n", 32, "v0.16b, v1.16b", "v2.16b, v3.16b", 128, 64)
VQ_LOOP(64,
        "ldp q0, q1, [%[tables]]\n"
        "ldp q2, q3, [%[tables], #32]\n"
        "ldp q4, q5, [%[tables], #64]\n"
        "ldp q6, q7, [%[tables], #96]\n",
        64, "v0.16b, v1.16b, v2.16b, v3.16b", "v4.16b, v5.16b, v6.16b, v7.16b", 128, 64)
/* d = 1, k = 4: a nibble is a pair of indices, the upper one 64 columns further; tables of the lower and of
 * the upper one */
VQ_LOOP(pairs, "ldp q0, q1, [%[tables]]\n", 16, "v0.16b", "v1.16b", 64, 128)

/* ---- 4-bit integers, 128 columns per scale ----
 * `blocks` times 128 bytes: low nibbles times x_low with scales_low, high nibbles times x_high with
 * scales_high, into sums[2][16]. v0 – v3: bytes, then high nibbles   v4 – v7: low nibbles   v8 – v11:
 * activations   v12, v13: scales of the block before v14: SUM_START   v15: mask   v16 – v23: fp32 sums   v24
 * – v31: integer sums */
#define SUB(sum) "fsub v" #sum ".4s, v" #sum ".4s, v14.4s\n"
#define ADD_LOW(to, from) "fmla v" #to ".4s, v" #from ".4s, v12.s[0]\n"
#define ADD_HIGH(to, from) "fmla v" #to ".4s, v" #from ".4s, v13.s[0]\n"
#define LOW(to, from) "and v" #to ".16b, v" #from ".16b, v15.16b\n"
#define HIGH(of) "ushr v" #of ".16b, v" #of ".16b, #4\n"
static __attribute__((noinline)) void int4_loop(const uint8_t *unit, const int8_t *x_low,
                                                const int8_t *x_high, const float *scales_low,
                                                const float *scales_high, size_t blocks, float *sums) {
  static const int32_t start[8] = {SUM_START, SUM_START, SUM_START, SUM_START,
                                   SUM_START, SUM_START, SUM_START, SUM_START};
  __asm__ volatile(
      "movi v12.16b, #0\n"
      "movi v13.16b, #0\n"
      "movi v15.16b, #15\n"
      "ldr q14, [%[start]]\n"
      "movi v16.16b, #0\n"
      "movi v17.16b, #0\n"
      "movi v18.16b, #0\n"
      "movi v19.16b, #0\n"
      "movi v20.16b, #0\n"
      "movi v21.16b, #0\n"
      "movi v22.16b, #0\n"
      "movi v23.16b, #0\n"
      "ldp q24, q25, [%[start]]\n"
      "ldp q26, q27, [%[start]]\n"
      "ldp q28, q29, [%[start]]\n"
      "ldp q30, q31, [%[start]]\n"
      "1:\n"
      "// LLVM-MCA-BEGIN int4\n"
      "ldp q0, q1, [%[unit]]\n"
      "ldp q2, q3, [%[unit], #32]\n" SUB(24) SUB(25) "ldp q8, q9, [%[low]]\n" SUB(26) SUB(
          27) "ldp q10, q11, [%[low], #32]\n" SUB(28) SUB(29) SUB(30) SUB(31) LOW(4, 0) LOW(5, 1) LOW(6, 2)
          LOW(7, 3) ADD_LOW(16, 24) ADD_LOW(17, 25) "ldp q24, q25, [%[start]]\n" ADD_LOW(18, 26)
              ADD_LOW(19, 27) "ldp q26, q27, [%[start]]\n" ADD_HIGH(20, 28)
                  ADD_HIGH(21, 29) "ldp q28, q29, [%[start]]\n" ADD_HIGH(22, 30) ADD_HIGH(
                      23, 31) "ldp q30, q31, [%[start]]\n" DOT(24, 4, 8) HIGH(0) DOT(25, 5, 9)
                      HIGH(1) "ldp q8, q9, [%[high]]\n" DOT(26, 6, 10) HIGH(2) DOT(27, 7, 11) HIGH(
                          3) "ldp q10, q11, [%[high], #32]\n"
                             "ldp q4, q5, [%[unit], #64]\n" DOT(28, 0, 8) DOT(
                                 29, 1,
                                 9) "ldp q6, q7, [%[unit], #96]\n"
                                    "ldr s12, [%[scales_low]], #4\n" DOT(30, 2, 10) DOT(
                                        31, 3,
                                        11) "ldp q8, q9, [%[low], #64]\n" LOW(0, 4)
                                        LOW(1, 5) "ldp q10, q11, [%[low], #96]\n" LOW(2, 6) LOW(
                                            3,
                                            7) "ldr s13, [%[scales_high]], #4\n"
                                               "add %[unit], %[unit], #128\n" DOT(24, 0, 8) HIGH(
                                                   4) DOT(25, 1, 9)
                                                   HIGH(5) "ldp q8, q9, [%[high], #64]\n" DOT(26, 2, 10) HIGH(
                                                       6) DOT(27, 3, 11)
                                                       HIGH(
                                                           7) "ldp q10, q11, [%[high], #96]\n"
                                                              "add %[low], %[low], #128\n" DOT(28, 4, 8) DOT(
                                                                  29, 5,
                                                                  9) "add %[high], %[high], #128\n" DOT(30, 6,
                                                                                                        10)
                                                                  DOT(31, 7,
                                                                      11) "subs %[blocks], %[blocks], #1\n"
                                                                          "// LLVM-MCA-END int4\n"
                                                                          "b.ne 1b\n" SUB(24) SUB(25) SUB(26)
                                                                              SUB(27) SUB(28) SUB(29) SUB(
                                                                                  30) SUB(31) ADD_LOW(16, 24)
                                                                                  ADD_LOW(17, 25) ADD_LOW(
                                                                                      18, 26) ADD_LOW(19, 27)
                                                                                      ADD_HIGH(
                                                                                          20,
                                                                                          28) ADD_HIGH(21, 29)
                                                                                          ADD_HIGH(22, 30)
                                                                                              ADD_HIGH(
                                                                                                  23,
                                                                                                  31) "stp "
                                                                                                      "q16, "
                                                                                                      "q17, "
                                                                                                      "[%["
                                                                                                      "sums]]"
                                                                                                      "\n"
                                                                                                      "stp "
                                                                                                      "q18, "
                                                                                                      "q19, "
                                                                                                      "[%["
                                                                                                      "sums],"
                                                                                                      " #32]"
                                                                                                      "\n"
                                                                                                      "stp "
                                                                                                      "q20, "
                                                                                                      "q21, "
                                                                                                      "[%["
                                                                                                      "sums],"
                                                                                                      " #64]"
                                                                                                      "\n"
                                                                                                      "stp "
                                                                                                      "q22, "
                                                                                                      "q23, "
                                                                                                      "[%["
                                                                                                      "sums],"
                                                                                                      " #96]"
                                                                                                      "\n"
      : [unit] "+&r"(unit), [low] "+&r"(x_low), [high] "+&r"(x_high), [scales_low] "+&r"(scales_low),
        [scales_high] "+&r"(scales_high), [blocks] "+&r"(blocks)
      : [start] "r"(start), [sums] "r"(sums)
      : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12",
        "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26",
        "v27", "v28", "v29", "v30", "v31");
}

#undef SUB
#undef ADD_LOW
#undef ADD_HIGH
#undef LOW
#undef HIGH
#undef TBL
#undef DOT
#undef ADD
/* clang-format on */
#endif
