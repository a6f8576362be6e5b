/* cuda/kernels.h: the kernels by name, and their arguments; the files of kernels/ have their ways of
 * working.
 * Read by C, by C++ and by nvcc: addresses are the device's, all structs have the same layout there (64-bit
 * addresses, natural alignment). Arrays are row-major, strides in elements, names as in quant/layer/. */
#ifndef GPTVQ_CUDA_KERNELS_H
#define GPTVQ_CUDA_KERNELS_H

#include <stdint.h>

/* sums[rows × ld, the first `cols` columns] += product[rows × cols], in double; upper: from the diagonal on
 */
typedef struct gptvq_kernel_add_sums_arguments {
  uint64_t rows, cols, ld;
  uint32_t upper;
  const float *product;
  double *sums;
} gptvq_kernel_add_sums_arguments;

/* A group ends (gptvq_sum_fold, linalg/solve/sum.h): the part, rows `ld` apart, `cols` columns, with `upper`
 * from the diagonal on, is rounded to fp32 and added to the total, of all its rows and columns, or written to
 * rounded[rows × cols], in place; then it is zeros. Grid: as take_rows'. */
typedef struct gptvq_kernel_fold_sums_arguments {
  uint64_t rows, cols, ld;
  uint32_t upper;
  double *part, *total; /* as in gptvq_sum: with `upper` total is part, whose rest it is; or NULL: */
  float *rounded;
} gptvq_kernel_fold_sums_arguments;

/* The fp32 numbers of these bits rounded to the nearest bf16, ties to even; NaN stays NaN. */
typedef struct gptvq_kernel_round_bf16_arguments {
  uint64_t count;
  uint32_t *bits;
} gptvq_kernel_round_bf16_arguments;

/* y[rows × cols] = x[rows × x_stride], or other[rows × cols] − x, and with `rounds` that rounded to bf16.
 * Grid: x over columns, y over rows, both strided; 256 threads at most; no shared memory. */
typedef struct gptvq_kernel_take_rows_arguments {
  uint64_t rows, cols;
  const float *x;
  uint64_t x_stride;
  const float *other; /* or NULL */
  uint32_t rounds;
  float *y;
} gptvq_kernel_take_rows_arguments;

/* y[rows × y_cols] = scale · x[rows × x_cols], of column c that number at[c]; 0 where x has none of that
 * number. Grid: as take_rows'. */
typedef struct gptvq_kernel_pick_columns_arguments {
  uint64_t rows, x_cols, y_cols;
  float scale;
  const float *x;
  const uint32_t *at; /* [y_cols] */
  float *y;
} gptvq_kernel_pick_columns_arguments;

/* Scales of sub-vectors: row r's sub-vector b has value[r · stride + of[b]]; value NULL: all have 1. */
typedef struct gptvq_kernel_scales {
  const float *value;
  uint64_t stride;
  const uint32_t *of;
} gptvq_kernel_scales;

/* X(name): entry gptvq_kernel_NAME, which takes one struct gptvq_kernel_NAME_arguments by value. */
/* clang-format off */
#define GPTVQ_CUDA_KERNELS(X) \
  X(add_ridge) X(assign) X(decode) X(dots) X(em) X(gather) X(reassign) X(search_prepare) X(search_accept) \
  GPTVQ_PATH_KERNELS(X) X(viterbi) X(add_states) X(add_sums) X(fold_sums) X(round_bf16) X(take_rows) \
  X(pick_columns) X(norm_rows) X(add_rows) X(gate_rows) X(rotate_rows) X(rows_to_bf16) X(attend)

/* path_K_W for k bits and W partial paths of a prefix: one kernel of all took a compiler minutes. */
#define GPTVQ_PATH_KERNELS(X) \
  X(path_2_1) X(path_2_2) X(path_2_3) X(path_2_4) X(path_3_1) X(path_3_2) X(path_3_3) X(path_3_4) \
  X(path_4_1) X(path_4_2) X(path_4_3) X(path_4_4)
/* clang-format on */
enum { GPTVQ_PATH_WIDTHS = 4 };

typedef enum gptvq_kernel {
#define GPTVQ_KERNEL_ID(name) GPTVQ_KERNEL_##name,
  GPTVQ_CUDA_KERNELS(GPTVQ_KERNEL_ID)
#undef GPTVQ_KERNEL_ID
      GPTVQ_KERNEL_COUNT
} gptvq_kernel;

/* y[rows × y_stride] += ridge · x[rows × x_stride], n columns. Grid: any; 256 threads at most; no shared
 * memory. */
typedef struct gptvq_kernel_add_ridge_arguments {
  uint64_t rows, n, x_stride, y_stride;
  const float *ridge, *x;
  float *y;
} gptvq_kernel_add_ridge_arguments;

/* gptvq_batch_assign (quant/layer/beam.h) of all rows, the same bits. Grid: x stripes, y warps of a block at
 * a time over the rows of a stripe, a row per warp; GPTVQ_ASSIGN_WARPS warps at most. Shared memory: dim · k
 * floats, and of each warp columns floats, or with width > 1 and u 2 · width · columns floats and width ·
 * blocks uint32_t, where columns = blocks · dim. */
enum { GPTVQ_ASSIGN_WARPS = 8, GPTVQ_ASSIGN_COLUMNS = 128, GPTVQ_ASSIGN_WIDTH = 32 /* at most */ };
typedef struct gptvq_kernel_assign_arguments {
  uint64_t rows, stripe_rows;
  uint32_t dim, k, blocks, width;
  const float *w; /* [rows × w_stride] the batch's columns; not changed */
  uint64_t w_stride;
  gptvq_kernel_scales scale;
  const float *books; /* [stripes × book_stride] the k × dim centroids of each stripe */
  uint64_t book_stride;
  const float *lookup, *metric; /* [blocks][dim²] */
  const float *u;               /* [columns × u_stride], NULL: no feedback, neither error nor loss */
  uint64_t u_stride;
  uint16_t *index; /* [rows × index_stride] */
  uint64_t index_stride;
  float *error; /* [rows × error_stride] or NULL */
  uint64_t error_stride;
  double *loss; /* [rows] or NULL */
} gptvq_kernel_assign_arguments;

/* gptvq_find_path (quant/layer/trellis.h) of all rows, the same bits. Grid: any number of blocks, each with
 * one row at a time; 32 threads. Shared memory: GPTVQ_PATH_SHARED bytes. */
enum { GPTVQ_PATH_BLOCK = 8 /* columns that a path has at hand */, GPTVQ_PATH_COLUMNS = 128 /* at most */ };
#define GPTVQ_PATH_PATHS(step_bits, width) ((width) * (256u >> (step_bits)))
#define GPTVQ_PATH_SHARED(step_bits, width) \
  (GPTVQ_PATH_PATHS(step_bits, width) * (4u * (3 * GPTVQ_PATH_BLOCK + 1) + 6) + \
   GPTVQ_PATH_COLUMNS * (32u * ((width) > 2 ? 4 : 2) + 4 + 1) + \
   4u * (256 + GPTVQ_PATH_BLOCK * (2 * GPTVQ_PATH_BLOCK + 4)))
typedef struct gptvq_kernel_path_arguments {
  uint64_t rows;
  uint32_t columns;
  const float *w; /* [rows × w_stride] the batch's columns; not changed */
  uint64_t w_stride;
  gptvq_kernel_scales scale;
  const float *books;           /* values of the states */
  const uint32_t *book_of;      /* [columns] where a column's 256 begin; NULL: all have the first ones */
  const float *lookup, *metric; /* [columns] */
  const float *u;               /* [columns × u_stride], NULL: no feedback, neither error nor loss */
  uint64_t u_stride;
  /* [rows × bound_stride] states of the columns before the batch's first one and of its last one, which
   * prefixes at both ends are of; before NULL: prefix 0; last NULL: any prefix */
  const uint16_t *before, *last;
  uint64_t bound_stride;
  uint16_t *state; /* [rows × state_stride]; zeros where `last` cannot be reached */
  uint64_t state_stride;
  float *error; /* [rows × error_stride] or NULL */
  uint64_t error_stride;
  double *loss; /* [rows] or NULL; infinite where `last` cannot be reached */
  float *tails; /* [blocks of the grid][2][paths][GPTVQ_PATH_COLUMNS] scratch; only with u */
} gptvq_kernel_path_arguments;
#define GPTVQ_PATH_ARGUMENTS(name) typedef gptvq_kernel_path_arguments gptvq_kernel_##name##_arguments;
GPTVQ_PATH_KERNELS(GPTVQ_PATH_ARGUMENTS)
#undef GPTVQ_PATH_ARGUMENTS

/* gptvq_viterbi (quant/layer/trellis.h) of all rows, the same paths, and sums of each row as
 * gptvq_state_sums has them. Grid: x rows; 32 threads. Shared memory: GPTVQ_VITERBI_SHARED bytes. */
#define GPTVQ_VITERBI_SHARED(columns) (8u * 512 + 4u * 128 + 41u * (columns))
enum { GPTVQ_STATE_SUMS = 513 };
typedef struct gptvq_kernel_viterbi_arguments {
  uint32_t step_bits, columns;
  const float *x;                   /* [rows / 16][columns][16] */
  const float *weight, *row_weight; /* [columns], [rows] */
  const float *values;              /* [256] of the states */
  double *sums;                     /* [rows × GPTVQ_STATE_SUMS] */
} gptvq_kernel_viterbi_arguments;

/* out[GPTVQ_STATE_SUMS] = those of all rows, added up in sets of 16. Grid: x over numbers; 32 threads; no
 * shared memory. */
typedef struct gptvq_kernel_add_states_arguments {
  uint64_t rows; /* a multiple of 16 */
  const double *sums;
  double *out;
} gptvq_kernel_add_states_arguments;

/* gptvq_em (quant/layer/layer.h) of one group in each stripe, the same bits. The points are sub-vectors of w
 * / scale, n = rows of the stripe · blocks. Grid: x stripes; GPTVQ_EM_THREADS threads. Shared memory: dim · k
 * floats and k bytes. */
enum { GPTVQ_EM_THREADS = 256 };
typedef struct gptvq_kernel_em_arguments {
  uint64_t rows, stripe_rows;
  uint32_t dim, k, blocks, iterations;
  uint32_t cdf;   /* start from quantiles of the coordinates, not of Mahalanobis distances */
  const float *w; /* [rows × w_stride] */
  uint64_t w_stride;
  gptvq_kernel_scales scale;
  const uint32_t *column; /* [blocks · dim] of w; UINT32_MAX: dead, the coordinate is 0 */
  const float *t;         /* [blocks][dim²] upper triangular, rows and columns of dead ones 0 */
  float *centroids;       /* [stripes × book_stride] */
  uint64_t book_stride;
  /* scratch, per stripe: [most], most = the least power of 2 >= stripe_rows · blocks */
  uint64_t most;
  float *x, *xt;   /* [stripes × dim × most] */
  float *distance; /* [stripes × most], likewise what follows */
  uint16_t *index, *previous;
  double *keys;
  uint32_t *sorted;
} gptvq_kernel_em_arguments;

/* out[rows × padded] = the values of the assignment: gptvq_vq_decode, or target minus these
 * (gptvq_vq_residual). stripes (NULL: as they are): the rows are those of stripes[0 …] side by side, where
 * index, scale and books are of all; only the last of all may be lower. book_of[blocks]: where a sub-vector's
 * centroids begin in its stripe's. Grid: x over blocks of 256 sub-vectors, y over rows; GPTVQ_ROWS_THREADS
 * threads; no shared memory. */
enum { GPTVQ_ROWS_THREADS = 256 };
typedef struct gptvq_kernel_decode_arguments {
  uint64_t rows, stripe_rows;
  uint32_t dim, blocks;
  const uint32_t *stripes;
  const uint16_t *index; /* [rows × blocks] */
  gptvq_kernel_scales scale;
  const float *books; /* [stripes × book_stride] */
  uint64_t book_stride;
  const uint32_t *book_of; /* [blocks] */
  const float *target;     /* [rows × blocks · dim] or NULL */
  float *out;              /* likewise */
} gptvq_kernel_decode_arguments;

/* out[rows × out_stride], `count` of a row: Σ x y over columns [start[i], start[i + 1]) in double, of which
 * `ways` (1, or 4: quant/layer/row_scales.c) are added up side by side; the last one and Σ ridge x², if there
 * is a ridge. Grid: x over rows · count · ways; GPTVQ_ROWS_THREADS threads; no shared memory. */
typedef struct gptvq_kernel_dots_arguments {
  uint64_t rows, stride; /* of x and y */
  uint32_t count, ways;
  const float *x, *y;
  const uint32_t *start; /* [count + 1] */
  const double *ridge;   /* [columns] or NULL */
  double *out;
  uint64_t out_stride;
} gptvq_kernel_dots_arguments;

/* gptvq_vq_gather: sums[stripes × sums_stride] = the transpose of decode, applied to y; the same bits. Grid:
 * x groups, y stripes; GPTVQ_ROWS_THREADS threads; no shared memory. */
typedef struct gptvq_kernel_gather_arguments {
  uint64_t rows, stripe_rows; /* of y */
  uint32_t dim, k, blocks;
  const uint32_t *stripes;     /* as for decode */
  const uint32_t *group_first; /* [groups + 1] first sub-vector of each, and the end */
  const uint16_t *index;
  gptvq_kernel_scales scale;
  const float *y; /* [rows × blocks · dim] */
  double *sums;
  uint64_t sums_stride;
} gptvq_kernel_gather_arguments;

/* One sweep of re-assignment over the single sub-vectors of a batch (quant/layer/reassign.c), a row per warp.
 * Grid and shared memory: as `assign`, with columns floats of each warp. */
typedef struct gptvq_kernel_reassign_arguments {
  uint64_t rows, stripe_rows;
  uint32_t dim, k, blocks;
  gptvq_kernel_scales scale;
  const float *books; /* [stripes × book_stride] */
  uint64_t book_stride;
  const double *metric_h; /* [blocks][dim²] R */
  const float *h;         /* [columns × h_stride] H of the batch */
  uint64_t h_stride;
  const float *ridge;    /* [columns] */
  const float *gradient; /* [rows × columns] E H of the batch's columns */
  float *work;           /* [rows × work_stride] E of the batch's columns; kept up to date */
  uint64_t work_stride;
  uint16_t *index; /* [rows × index_stride] likewise */
  uint64_t index_stride;
  double *gain; /* [rows] is added to */
} gptvq_kernel_reassign_arguments;

/* Re-assignment of a batch as a whole (quant/layer/search.c), around kernel `assign` or `path`: step = step +
 * present values, where the batch would be best, and loss = what the present assignment loses there; then the
 * assignments of less loss are taken over. Grid: x over rows, a row per warp; GPTVQ_ROWS_THREADS threads; no
 * shared memory. */
typedef struct gptvq_kernel_search_arguments {
  uint64_t rows, stripe_rows;
  uint32_t dim, blocks;
  gptvq_kernel_scales scale;
  const float *books; /* [stripes × book_stride] */
  uint64_t book_stride;
  const uint32_t *book_of; /* [blocks], as for decode */
  const float *gradient;   /* [rows × columns] E (H + ridge) */
  float *step;             /* [rows × columns] */
  const uint16_t *found;   /* [rows × blocks] */
  const double *least;     /* [rows] loss of `found` */
  double *loss;            /* [rows] */
  float *work;             /* [rows × work_stride] */
  uint64_t work_stride;
  uint16_t *index; /* [rows × index_stride] */
  uint64_t index_stride;
  double *gain; /* [rows] is added to */
} gptvq_kernel_search_arguments;
typedef gptvq_kernel_search_arguments gptvq_kernel_search_prepare_arguments;
typedef gptvq_kernel_search_arguments gptvq_kernel_search_accept_arguments;

/* ---- forward passes (cuda/forward.c): rows are tokens, the definitions model/layer/'s ---- */

/* gptvq_rms_norm of `parts` vectors of `size` values, side by side in each row of x, into y, which may be x;
 * the same bits. *bad = 1 where the squares of one, or without gain its values, are not finite; else it
 * stays. Grid: x over vectors, 16 lanes each; GPTVQ_ROWS_THREADS threads; no shared memory. */
typedef struct gptvq_kernel_norm_rows_arguments {
  uint64_t rows, parts, size;
  const float *x; /* [rows × x_stride] */
  uint64_t x_stride;
  const float *gain; /* [size]; NULL: y = x */
  float eps;
  float *y; /* [rows × y_stride] */
  uint64_t y_stride;
  uint32_t *bad;
} gptvq_kernel_norm_rows_arguments;

/* y[rows × y_stride] += scale · x[rows × x_stride], `cols` columns; x_stride 0: x is one row, a bias. The
 * same bits. Grid of this and the next three: x over columns, y over rows; GPTVQ_ROWS_THREADS threads; no
 * shared memory. */
typedef struct gptvq_kernel_add_rows_arguments {
  uint64_t rows, cols;
  float scale;
  const float *x;
  uint64_t x_stride;
  float *y;
  uint64_t y_stride;
} gptvq_kernel_add_rows_arguments;

/* gate | up in each row of wide[rows × 2 · cols]: gate = silu(gate) · up (gptvq_silu_mul), the same bits. */
typedef struct gptvq_kernel_gate_rows_arguments {
  uint64_t rows, cols;
  float *wide;
} gptvq_kernel_gate_rows_arguments;

/* gptvq_rotate_heads of x[rows × stride], row r by the cosines and sines [rows × half] of its own; the same
 * bits. Columns of the grid: heads · half. */
typedef struct gptvq_kernel_rotate_rows_arguments {
  uint64_t rows, stride;
  uint32_t heads, dim, half, neighbours;
  const float *cosines, *sines;
  float *x;
} gptvq_kernel_rotate_rows_arguments;

/* bits[rows × cols] = x[rows × x_stride] as gptvq_float_to_bf16 rounds. */
typedef struct gptvq_kernel_rows_to_bf16_arguments {
  uint64_t rows, cols;
  const float *x;
  uint64_t x_stride;
  uint16_t *bits;
} gptvq_kernel_rows_to_bf16_arguments;

/* Causal attention of n tokens, a text from its beginning: out[n × heads · dim] = softmax(scale · Q Kᵀ) V of
 * each query head and the key head that it shares, each token seeing the last `window` up to itself. Products
 * and sums in fp32, fused; a softmax over GPTVQ_ATTEND_ROWS keys at a time. Grid: x over GPTVQ_ATTEND_ROWS
 * tokens, y heads; GPTVQ_ATTEND_THREADS threads; shared memory: GPTVQ_ATTEND_BYTES. */
enum { GPTVQ_ATTEND_ROWS = 64, GPTVQ_ATTEND_THREADS = 256, GPTVQ_ATTEND_DIM = 128 /* at most */ };
typedef struct gptvq_kernel_attend_arguments {
  uint64_t n, window;
  uint32_t heads, kv_heads, dim;
  float scale;
  const float *qkv; /* [n × stride] q | k | v, rotated */
  uint64_t stride;
  float *out;
} gptvq_kernel_attend_arguments;
/* Values of a head that a thread has are every 16th: so many. */
#define GPTVQ_ATTEND_COLS(dim) ((dim) <= 64 ? 4u : 8u)
#define GPTVQ_ATTEND_BYTES(dim) \
  (sizeof(float) * GPTVQ_ATTEND_ROWS * (2u * (16u * GPTVQ_ATTEND_COLS(dim) + 1u) + GPTVQ_ATTEND_ROWS + 1u))

#endif
