/* kernels/shapes.h: the shapes that kernels are made for, with constant index bits and dimension. A list
 * calls X(bits, dim) for each; tables of the functions made are [bits − 1][dim / 2]. */
#ifndef GPTVQ_KERNELS_SHAPES_H
#define GPTVQ_KERNELS_SHAPES_H

#define GPTVQ_DIMS(X, bits) X(bits, 1) X(bits, 2) X(bits, 4)
#define GPTVQ_BITS_8(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#define GPTVQ_SHAPES_4(X) GPTVQ_DIMS(X, 1) GPTVQ_DIMS(X, 2) GPTVQ_DIMS(X, 3) GPTVQ_DIMS(X, 4)
#define GPTVQ_SHAPES_6(X) GPTVQ_SHAPES_4(X) GPTVQ_DIMS(X, 5) GPTVQ_DIMS(X, 6)
#define GPTVQ_SHAPES_8(X) GPTVQ_SHAPES_6(X) GPTVQ_DIMS(X, 7) GPTVQ_DIMS(X, 8)

/* AVX2, NEON: codebooks that byte shuffles search, and those of four components that are read centroid by
 * centroid, X(bits). */
#define GPTVQ_SHAPES_SHUFFLE(X) GPTVQ_SHAPES_6(X) X(7, 1) X(7, 2) X(8, 1) X(8, 2)
#define GPTVQ_BITS_GATHER(X) X(7) X(8) X(9) X(10) X(11) X(12)

/* Entries of such a table: functions NAME_bits_dim. */
#define GPTVQ_ENTRY(name, bits, dim) [bits - 1][dim / 2] = name##_##bits##_##dim,

#endif
