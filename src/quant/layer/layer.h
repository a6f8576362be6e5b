/* quant/layer/layer.h: what the parts of the layer solver share. Column spaces:
 *   input      columns of the layer as the model has them;
 *   processing columns in the order in which the loop visits them, padded with phantom columns to a multiple
 * of dim; storage    columns as packed: input order, or processing order where a permutation is stored.
 * Sub-vectors (blocks of dim columns) are the same sets in processing and in storage space. */
#ifndef GPTVQ_QUANT_LAYER_LAYER_H
#define GPTVQ_QUANT_LAYER_LAYER_H

#include "base/arena.h"
#include "quant/layer/solver.h"

#define GPTVQ_NO_COLUMN UINT32_MAX

/* All arrays in processing order, scaled such that the mean diagonal of H is 1. */
struct gptvq_factor {
  uint64_t id;         /* no other factor of this process has it, for whoever keeps copies of its arrays */
  gptvq_arena arena;   /* its arrays but for u */
  size_t cols, padded; /* input columns; processing columns: cols rounded up to dim */
  unsigned dim;
  size_t group_cols;       /* 0: uniform, no groups of its own */
  bool stored_permutation; /* storage = processing order */
  uint32_t *order;         /* [padded] input column of each processing column, GPTVQ_NO_COLUMN for phantoms */
  float *h;                /* [padded²] undamped */
  float *u;                /* [padded²] H⁻¹ = Uᵀ U of the damped H, upper triangular; owned */
  double *metric;          /* [padded / dim][dim²] T = U_BB⁻¹ per block, row-major upper triangular */
  double *metric_h;        /* [padded / dim][dim²] R upper triangular with H_BB (lightly damped) = R Rᵀ */
  double scale;            /* h is the Hessian times this */
  double damping;          /* what was added to the diagonal of h for U */
  double ridge;            /* what update and reassignment add to it */
  bool diagonal;           /* the factorisation failed: U is diagonal */
  bool *dead; /* [padded] inputs that are always zero, or NULL: none. Their weights get the nearest centroids
               * but have no say in what these are */
};

static inline bool gptvq_factor_is_dead(const gptvq_factor *f, size_t c) {
  return f != NULL && f->dead != NULL && f->dead[c];
}

/* What codebook update and reassignment add to H_cc (phantoms and dead columns have an empty row in h). */
static inline double gptvq_factor_ridge(const gptvq_factor *f, size_t c) {
  if (gptvq_factor_is_dead(f, c)) return 0.0;
  return f->order[c] == GPTVQ_NO_COLUMN ? 1e-6 : f->ridge;
}

/* Order in which the groups of a layer are visited: group `id` (storage) starts at processing column `start`.
 */
typedef struct gptvq_group {
  size_t id, start, width; /* width in processing columns, phantoms included */
} gptvq_group;

/* Matrices of the codebook update that are kept from one to the next (system.h). */
typedef struct gptvq_kept_systems {
  size_t count;    /* of the whole layer's stripes; 0: none are kept */
  bool there;      /* an update has made them */
  float *matrices; /* [kept stripes of the part][numbers of a matrix] */
  float *largest;  /* [kept stripes][values of a stripe] what their diagonals were at most */
  uint16_t *index; /* [kept stripes][rows × blocks] the assignment that they are of */
} gptvq_kept_systems;

/* A VQ layer at work. factor NULL: identity Hessian, processing = storage = input order. */
typedef struct gptvq_vq {
  const char *name;
  const gptvq_quantize_options *options; /* resolved */
  const gptvq_backend *backend;
  gptvq_stages *stages; /* or NULL */
  const gptvq_factor *factor;
  bool has_factor; /* factor is not NULL, or will not be */
  gptvq_packed_shape shape;
  gptvq_arena *arena; /* all arrays, and scratch */
  size_t rows, padded, blocks, groups, stripes, k;
  /* Rows that depend on each other, from the first row on, are a unit: stripes; of a trellis each row. */
  size_t unit_rows, units;
  /* rows, units and stripes may be a part of the layer's, which others work on as well (deal.c): where it
   * begins */
  size_t first_row, all_rows;
  gptvq_dist *dist;    /* these; NULL: the part is the whole */
  double *unit_values; /* [units], and those of all if there are others: of gptvq_vq_total */
  size_t beam;         /* partial assignments kept per row, of a trellis per prefix; 1 = greedy */
  unsigned dim;
  gptvq_group *group; /* [groups] in processing order */
  float *target, *work,
      *error; /* [rows × padded] weights; compensated weights, then scratch; scaled errors, then scratch */
  float *target_product; /* [rows × padded] target (H + ridge), for the row scales of a trellis; or NULL */
  bool has_product;      /* it is there */
  bool has_gradient;   /* work is E = target − decoded, error E (H + ridge), of the present values: whoever
                          changes these or destroys the arrays keeps them or says so */
  float *lookup;       /* [blocks][dim²] T as the k-means and the look-ups use it */
  float *metric;       /* [blocks][dim²] T as the feedback uses it */
  uint16_t *index;     /* [rows × blocks] */
  float *centroids;    /* [stripes][groups, processing order][k][dim]: as stored, decoded; of a trellis
                          the group's two tables, as trellis.h has them */
  float *state_values; /* of a trellis [groups][256]: their sums, gptvq_trellis_expand */
  void *codes;         /* int8_t or fp16 bits, same layout */
  uint16_t *codebook_scales; /* bf16 bits [stripes][groups] */
  int exponent; /* target = weights · 2^−exponent; 0 but for weights whose squares leave the range of fp32 */
  unsigned scale_block;                   /* N_s in columns, 0 = none */
  size_t scale_blocks;                    /* scale codes per row */
  uint32_t *block_scale_of;               /* [blocks] which scale code of its row a block uses */
  uint8_t *scale_codes;                   /* [rows × scale_blocks] 0 … 15, a trellis's to 255 */
  float scale_range[2], scale_table[256]; /* the first 16 of block scales; all of a trellis's row scales */
  unsigned step_bits;   /* k of a trellis, whose states are `index`, whose row scales are scale codes; 0: a
                           vector code */
  unsigned searches;    /* how often batches of a trellis were re-assigned: boundaries alternate */
  size_t rank;          /* > 0: codebooks are the product of the factors below (compress.c); 0: not (yet) */
  int8_t *left, *right; /* [stripes × groups, processing order][rank], [rank][k] */
  float *factor_scales; /* [rank] */
  gptvq_kept_systems kept;
} gptvq_vq;

/* Columns per VQ group of a layer with `cols` inputs. */
size_t gptvq_group_columns(size_t cols, const gptvq_resolved *options);

/* scale of a row's sub-vector (1 without block scales) */
static inline float gptvq_vq_scale(const gptvq_vq *q, size_t row, size_t block) {
  return q->scale_block == 0
             ? 1.0f
             : q->scale_table[q->scale_codes[row * q->scale_blocks + q->block_scale_of[block]]];
}
/* The rows of a stripe, [begin, end): only the last stripe may be lower. */
static inline size_t gptvq_stripe_begin(const gptvq_vq *q, size_t stripe) {
  return stripe * q->shape.group_rows;
}
static inline size_t gptvq_stripe_end(const gptvq_vq *q, size_t stripe) {
  const size_t end = (stripe + 1) * q->shape.group_rows;
  return end < q->rows ? end : q->rows;
}
static inline float *gptvq_vq_codebook(const gptvq_vq *q, size_t stripe, size_t group) {
  return q->centroids + (stripe * q->groups + group) * q->k * q->dim;
}

static inline float *gptvq_vq_state_values(const gptvq_vq *q, size_t group) {
  return q->state_values + (group << GPTVQ_TRELLIS_STATE_BITS);
}

/* Functions with an entry in the table of backends are described there (quant/layer/backend.h) and called
 * through q->backend. gptvq_vq_…_bytes: what the function takes of the arena; of *q only the sizes count. */

/* interleave.c: codebooks and assignments by the GPTVQ loop: fills index, codes, codebook_scales, centroids.
 */
gptvq_status gptvq_vq_interleave(gptvq_vq *q, gptvq_error *err);
size_t gptvq_vq_interleave_bytes(const gptvq_vq *q);
gptvq_status gptvq_vq_codebooks(gptvq_vq *q, size_t group, gptvq_error *err);
/* live[blocks of the group]: those of its sub-vectors that its codebooks are made from, in order: all but
 * those of dead columns only (unless there are no others). Returns how many. */
size_t gptvq_vq_live_blocks(const gptvq_vq *q, const gptvq_group *group, uint32_t *live);
gptvq_status gptvq_vq_assign(gptvq_vq *q, size_t group, gptvq_span batch, gptvq_error *err);
gptvq_status gptvq_feed_back(const gptvq_backend *backend, const gptvq_factor *factor, size_t rows,
                             gptvq_span from, gptvq_span to, const float *error, float *work,
                             gptvq_error *err);

/* codebook.c: stores the k × dim centroids of tile (stripe · groups + group) and replaces them by what the
 * stored codes decode to. */
void gptvq_vq_store_codebook(gptvq_vq *q, size_t tile, const float *centroids);
/* Copies of the codebooks, codes and scales of some stripes, and back again. */
typedef struct gptvq_saved_codebooks {
  float *centroids; /* [stripes][values of a stripe], likewise what follows */
  char *codes;
  uint16_t *scales;
} gptvq_saved_codebooks;
void gptvq_saved_codebooks_take(gptvq_arena *arena, const gptvq_vq *q, size_t stripes,
                                gptvq_saved_codebooks *out);
/* place: of the stripe among the copies */
void gptvq_vq_save_codebooks(const gptvq_vq *q, size_t stripe, const gptvq_saved_codebooks *to, size_t place);
void gptvq_vq_restore_codebooks(gptvq_vq *q, size_t stripe, const gptvq_saved_codebooks *from, size_t place);
/* out[rows × padded] = values that these centroids (layout of q->centroids; of a trellis they are those) give
 * with the present assignment. */
void gptvq_vq_decode(const gptvq_vq *q, const float *centroids, float *out);
/* The same for rows [begin, end) only, into out[end − begin × padded]. */
void gptvq_vq_decode_rows(const gptvq_vq *q, const float *centroids, size_t begin, size_t end, float *out);
gptvq_status gptvq_vq_times_hessian(const gptvq_vq *q, size_t rows, const float *x, float *y,
                                    gptvq_error *err);
/* Makes work E = target − decoded and error E (H + ridge), unless has_gradient. */
gptvq_status gptvq_vq_gradient(gptvq_vq *q, gptvq_error *err);
/* What a change of a row's values, change[columns], makes of its work and error, which stay the gradient. */
void gptvq_vq_follow(const gptvq_vq *q, size_t row, gptvq_span columns, const float *change);
/* tr(E (H + ridge) Eᵀ) of the whole layer (loss NULL: not asked) and its terms row_loss[rows], of the
 * gradient, which is there afterwards. */
gptvq_status gptvq_vq_loss(gptvq_vq *q, double *row_loss, double *loss, gptvq_error *err);

/* deal.c: Σ of a value of each unit, values[units], over those of the whole layer, in their order. */
gptvq_status gptvq_vq_total(const gptvq_vq *q, const double *values, double *total, gptvq_error *err);
/* The first row of a member's part, of the layer's; of member `count` their number. */
size_t gptvq_vq_first_row(const gptvq_vq *part, size_t member);
/* all[…][bytes]: what each member has from its first(part, member) on, for all. Of a whole layer it is there.
 */
gptvq_status gptvq_vq_collect(const gptvq_vq *part, void *all, size_t bytes,
                              size_t (*first)(const gptvq_vq *part, size_t member), gptvq_error *err);
/* Is this layer worked on in parts, with the same result? Then *part is this member's of it, *q the whole. */
bool gptvq_vq_deal(const gptvq_solver *solver, const gptvq_vq *q, gptvq_vq *part);
/* Indices, codebooks and row scales of all parts, solved, into the whole, whose arrays are taken from the
 * part's arena, or are the part's. Fills what packing needs. */
gptvq_status gptvq_vq_assemble(const gptvq_vq *part, gptvq_vq *q, gptvq_error *err);
size_t gptvq_vq_assemble_bytes(const gptvq_vq *part);

/* update.c, direct.c. A stripe is finished after so many steps, or when the preconditioned residual says that
 * what can still be gained is such a fraction of its loss: storing the codebooks in 8 bits costs more. */
#define GPTVQ_UPDATE_REMAINING 3e-4
enum { GPTVQ_UPDATE_STEPS = 60 };
gptvq_status gptvq_vq_times_system(const gptvq_vq *q, size_t count, const uint32_t *stripes,
                                   const float *directions, double *products, gptvq_error *err);
gptvq_status gptvq_vq_update(gptvq_vq *q, double *loss, gptvq_error *err);
gptvq_status gptvq_vq_update_gradients(gptvq_vq *q, double *loss, gptvq_error *err);
size_t gptvq_vq_update_bytes(const gptvq_vq *q);
/* update.c, for one stripe: out[groups × k × dim] = the transpose of decode applied to y[rows of the stripe ×
 * padded]; blocks[groups × k][dim²] = Σ s² H_BB over the sub-vectors of each centroid, lower triangles. */
void gptvq_vq_gather(const gptvq_vq *q, size_t stripe, const float *y, double *out);
void gptvq_vq_curvature(const gptvq_vq *q, size_t stripe, double *blocks);

/* direct.c: are the systems of the update small enough to be formed? */
bool gptvq_vq_is_direct(const gptvq_vq *q);
/* Then: the update. */
gptvq_status gptvq_vq_update_direct(gptvq_vq *q, double *loss, gptvq_error *err);
size_t gptvq_vq_direct_bytes(const gptvq_vq *q);
/* kept.c: room in q->kept for the matrices of such updates to come, in no more than so many bytes of the
 * whole layer's: by shape alone, as a matrix that is followed is rounded otherwise than one formed anew. */
enum { GPTVQ_KEPT_BYTES = 1 << 30 };
void gptvq_vq_keep_systems(gptvq_arena *arena, gptvq_vq *q, size_t bytes);

/* compress.c (dim 1). Sorts each codebook in ascending order and relabels the indices: no value changes. */
gptvq_status gptvq_vq_sort(gptvq_vq *q, gptvq_error *err);
/* Sorts, and replaces the codebooks by the product of int8 factors of rank q->shape.svd_rank, from the
 * singular value decomposition. */
gptvq_status gptvq_vq_compress(gptvq_vq *q, gptvq_error *err);
size_t gptvq_vq_compress_bytes(const gptvq_vq *q);
/* Then: minimises the layer loss over the factors, assignments fixed, and stores them when the result is
 * better. *loss: afterwards. */
gptvq_status gptvq_vq_update_factors(gptvq_vq *q, double *loss, gptvq_error *err);
size_t gptvq_vq_update_factors_bytes(const gptvq_vq *q);
/* The continuous part of it: alternates between left[tiles × rank] and right[rank × k], at most `rounds`
 * times, each by conjugate gradients; half a round that would raise the loss is the last and is undone. trace
 * (may be NULL): the loss before and after each half, 2 · rounds + 1 numbers, rest NaN. Leaves q->centroids
 * undefined. */
gptvq_status gptvq_vq_fit_factors(gptvq_vq *q, double *left, double *right, unsigned rounds, double *trace,
                                  gptvq_error *err);

/* reassign.c, search.c */
gptvq_status gptvq_vq_reassign(gptvq_vq *q, double *gain, gptvq_error *err);
size_t gptvq_vq_reassign_bytes(const gptvq_vq *q);
gptvq_status gptvq_vq_search(gptvq_vq *q, double *gain, gptvq_error *err);
size_t gptvq_vq_search_bytes(const gptvq_vq *q);
/* Where the batch that begins at a column ends in the present search of a trellis: boundaries alternate. */
size_t gptvq_trellis_search_end(const gptvq_vq *q, size_t begin);
/* What a search needs of the columns of a batch, at most GPTVQ_BATCH; the first of what gptvq_vq_search takes
 * of the arena. */
typedef struct gptvq_batch_factor {
  float *metric;       /* [blocks of a batch][dim²] T of H_BB */
  float *u, *inverse;  /* [columns²] H_BB⁻¹ = Uᵀ U, and H_BB⁻¹ */
  double *a, *scratch; /* [columns²] work, Cholesky scratch */
} gptvq_batch_factor;
void gptvq_batch_factor_take(gptvq_arena *arena, const gptvq_vq *q, gptvq_batch_factor *out);
/* false when H_BB + ridge is not positive definite in double (the batch is then left alone) */
bool gptvq_batch_factor_make(const gptvq_vq *q, gptvq_span batch, const gptvq_batch_factor *out);

/* trellis.c: codebooks and assign of a trellis, a group's tables and row scales, a batch's states; the values
 * of a group's states, whose tables have changed. */
gptvq_status gptvq_trellis_tables(gptvq_vq *q, size_t group, gptvq_error *err);
void gptvq_trellis_expand(gptvq_vq *q, size_t group);
/* The same with EM on the points (trellis.h) from elsewhere. */
struct gptvq_trellis_points;
typedef gptvq_status (*gptvq_trellis_tables_em)(gptvq_vq *q, const struct gptvq_trellis_points *points,
                                                unsigned iterations, float *tables, double *loss,
                                                gptvq_error *err);
gptvq_status gptvq_trellis_tables_by(gptvq_vq *q, size_t group, gptvq_trellis_tables_em em, gptvq_error *err);
gptvq_status gptvq_trellis_assign(gptvq_vq *q, gptvq_span batch, gptvq_error *err);
size_t gptvq_trellis_loop_bytes(const gptvq_vq *q);
/* The tables of columns, at most GPTVQ_BATCH; scratch of a path; prefix that a row has before a column. */
typedef struct gptvq_trellis_columns {
  const float *table[128];
} gptvq_trellis_columns;
void gptvq_trellis_set_columns(const gptvq_vq *q, gptvq_span columns, gptvq_trellis_columns *out);
size_t gptvq_trellis_path_bytes(const gptvq_vq *q);
int gptvq_trellis_prefix(const gptvq_vq *q, size_t row, size_t column);
/* tables, streams and row scales; states: scratch, [cols] */
void gptvq_trellis_pack_layer(const gptvq_vq *q, gptvq_packed *packed, uint8_t *states);
/* row_scales.c: update of a trellis, of the row scales; a row that is not better keeps what it had. */
gptvq_status gptvq_trellis_update_scales(gptvq_vq *q, double *loss, gptvq_error *err);
/* What it solves for rows w of weights [first, first + count): constant[count], wᵀ (H + ridge) w; with
 * tables' values t_g of each row in group g matrix[count][groups²], t_gᵀ (H + ridge)_gf t_f for f <= g, and
 * side[count][groups], t_gᵀ (H + ridge) w. Makes these rows of q->target_product unless it is there. Destroys
 * work and error of these rows. */
typedef gptvq_status (*gptvq_scale_systems)(gptvq_vq *q, size_t first, size_t count, double *constant,
                                            double *matrix, double *side, gptvq_error *err);
/* The same with systems from elsewhere. */
gptvq_status gptvq_trellis_update_scales_by(gptvq_vq *q, gptvq_scale_systems make, double *loss,
                                            gptvq_error *err);
size_t gptvq_trellis_scales_bytes(const gptvq_vq *q);

/* factor.c: t = u⁻¹, d × d upper triangular with a positive diagonal, row-major. */
void gptvq_invert_upper(size_t d, const double *u, double *t);

/* scales.c: range of the 4-bit codes from the weights, codes of one group's blocks from the compensated
 * weights. */
void gptvq_vq_scale_range(gptvq_vq *q);
void gptvq_vq_scale_group(gptvq_vq *q, const gptvq_group *group, size_t row_begin, size_t row_end);

/* Points of one codebook: `rows` × `blocks` sub-vectors. Lanes: blocks rounded up to 16; phantom lanes have
 * zero T. */
typedef struct gptvq_em_points {
  size_t rows, blocks, lanes;
  unsigned dim;
  const float *x; /* [rows][dim][lanes] */
  const float *t; /* [dim²][lanes] T, upper triangular: loss of a point = ‖(x − c) T‖² · weight */
  const float *weight; /* [rows][lanes] or NULL = 1 */
} gptvq_em_points;
/* em.c. What gptvq_em takes of the arena; of the points only the sizes count. */
size_t gptvq_em_bytes(const gptvq_em_points *points, size_t k);
/* centroids[k × dim]: init and at most `iterations` EM rounds. trace (may be NULL): objective before each
 * round and at the end, iterations + 1 numbers, rest NaN. */
void gptvq_em(const gptvq_em_points *points, size_t k, gptvq_em_init init, unsigned iterations, uint64_t seed,
              float *centroids, double *trace, gptvq_arena *arena);

/* solver.c: a layer of that shape as the solver sees it, its arrays not there yet: sizes are known. factor
 * NULL: none, or none yet (has_factor). */
gptvq_vq gptvq_vq_of(const gptvq_solver *solver, const char *name, const gptvq_packed_shape *shape,
                     const gptvq_factor *factor, bool has_factor);
/* The arrays of *q from its arena: 3 floats per weight, 2 / dim bytes of index, the codebooks. */
gptvq_status gptvq_vq_set_up(gptvq_vq *q, const float *weights, gptvq_error *err);
/* All that a solve takes of the arena until the layer is packed; of a part likewise. */
size_t gptvq_vq_bytes(const gptvq_vq *q);
/* gptvq_solve_layer with its scratch, gptvq_solve_bytes of it, from a given arena, into the storage of a
 * result that is there. What a failure leaves in the arena is unspecified, here and in all that follows. */
gptvq_status gptvq_solve_layer_in(gptvq_arena *arena, const gptvq_solver *solver,
                                  const gptvq_weights *weights, const gptvq_factor *factor,
                                  gptvq_layer_result *result, gptvq_error *err);

/* uniform.c: RTN and GPTQ. */
gptvq_status gptvq_solve_uniform(gptvq_arena *arena, const gptvq_solver *solver, const gptvq_weights *weights,
                                 const gptvq_factor *factor, gptvq_layer_result *result, gptvq_error *err);
size_t gptvq_solve_uniform_bytes(const gptvq_packed_shape *shape, bool feedback);
/* solver.c: storage for the packed arrays of a shape, zeroed; result->packed points into it (mutable copies
 * through casts are the solver's). */
gptvq_status gptvq_packed_allocate(const gptvq_packed_shape *shape, gptvq_layer_result *result,
                                   gptvq_error *err);
/* Relative error of the packed arrays against the weights; with a factor the solver's team shares the work,
 * and its backend may do it. */
gptvq_status gptvq_packed_error(gptvq_arena *arena, const gptvq_solver *solver, const gptvq_packed *packed,
                                const float *weights, const gptvq_factor *factor, double *error,
                                gptvq_error *err);
size_t gptvq_packed_error_bytes(const gptvq_packed_shape *shape, bool with_factor);

#endif
