/* kernels/x86/uniform_stripes.h: all rows of a uniform matrix as stripes of 8, for a level that multiplies
 * one: included once, after ROWS and multiply_stripe. */
#ifndef GPTVQ_KERNELS_X86_UNIFORM_STRIPES_H
#define GPTVQ_KERNELS_X86_UNIFORM_STRIPES_H

/* What does not fill the last stripe is multiplied twice, or one by one where there is no whole one. */
GPTVQ_INLINE void multiply_stripes(const gptvq_uniform_rows *job, unsigned bits, int narrow) {
  size_t row = 0;
  for (; row + ROWS <= job->rows; row += ROWS) multiply_stripe(job, row, bits, narrow, ROWS);
  if (row == job->rows) return;
  if (row > 0) multiply_stripe(job, job->rows - ROWS, bits, narrow, ROWS);
  else
    for (; row < job->rows; row++) multiply_stripe(job, row, bits, narrow, 1);
}

#define STRIPES(bits) \
  static void stripes_##bits(const gptvq_uniform_rows *job) { \
    if (job->row.block == 32 && job->row.blocks > 1) multiply_stripes(job, bits, 1); \
    else multiply_stripes(job, bits, 0); \
  }

#endif
