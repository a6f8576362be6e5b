/* Makes src/quant/layer/gaussian_tables.c: the pairs of tables that the trellis code's EM starts from,
 * trained on normal numbers from many random starts (EM ends in what the start leads to, some 3 % apart).
 *
 *   cc -O3 -march=native -ffast-math -o trellis_tables bench/trellis_tables.c -lm && ./trellis_tables >
 * gaussian_tables.c
 *
 * States as in src/quant/layer/trellis.h. Distortions on numbers that were not trained on go to stderr. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATES = 256, HALF = 16, TABLE = 32, STARTS = 200, KEPT = 8, FEW = 1 << 14, MANY = 1 << 17 };

static float normal(void) {
  double u = drand48(), v = drand48();
  return (float)(sqrt(-2.0 * log(1.0 - u)) * cos(6.283185307179586 * v));
}

static unsigned entry(unsigned k, unsigned s, unsigned member) { /* gptvq_trellis_entry */
  if (k == 2) return member == 0 ? (s & 3) | (s >> 4 & 12) : s >> 2 & 15;
  return member == 0 ? s & 15 : s >> 4;
}

static void sums(unsigned k, const double *tables, float *values) {
  for (unsigned s = 0; s < STATES; s++)
    values[s] = (float)(tables[entry(k, s, 0)] + tables[HALF + entry(k, s, 1)]);
}

static uint8_t from[MANY][STATES / 4], state[MANY];

/* Best path; returns the mean squared error. */
static double viterbi(unsigned k, const float *values, const float *x, size_t n) {
  const unsigned prefixes = STATES >> k, symbols = 1u << k;
  float costs[2][STATES / 4] = {{0}};
  for (size_t t = 0; t < n; t++) {
    const float *before = costs[t & 1];
    float *after = costs[~t & 1], least = INFINITY;
    for (unsigned p = 0; p < prefixes; p++) {
      float best = INFINITY;
      unsigned symbol = 0;
      for (unsigned h = 0; h < symbols; h++) {
        const unsigned s = h * prefixes + p;
        const float delta = x[t] - values[s], cost = before[s >> k] + delta * delta;
        if (cost < best) best = cost, symbol = h;
      }
      after[p] = best;
      from[t][p] = (uint8_t)symbol;
      least = fminf(least, best);
    }
    for (unsigned p = 0; t % 64 == 0 && p < prefixes; p++) after[p] -= least;
  }
  unsigned last = 0;
  for (unsigned p = 1; p < prefixes; p++)
    if (costs[n & 1][p] < costs[n & 1][last]) last = p;
  double error = 0.0;
  for (size_t t = n; t-- > 0;) {
    const unsigned s = from[t][last] * prefixes + last;
    state[t] = (uint8_t)s;
    error += ((double)x[t] - values[s]) * ((double)x[t] - values[s]);
    last = s >> k;
  }
  return error / (double)n;
}

static double train(unsigned k, double *tables, const float *x, size_t n, int rounds) {
  float values[STATES];
  for (int round = 0; round < rounds; round++) {
    double sum[STATES] = {0}, count[STATES] = {0};
    sums(k, tables, values);
    viterbi(k, values, x, n);
    for (size_t t = 0; t < n; t++) sum[state[t]] += x[t], count[state[t]] += 1.0;
    for (unsigned sweep = 0; sweep < 16; sweep++) {
      double total[HALF] = {0}, mass[HALF] = {0};
      const unsigned own = sweep % 2, other = 1 - own;
      for (unsigned s = 0; s < STATES; s++) {
        total[entry(k, s, own)] += sum[s] - count[s] * tables[other * HALF + entry(k, s, other)];
        mass[entry(k, s, own)] += count[s];
      }
      for (unsigned i = 0; i < HALF; i++)
        if (mass[i] > 0.0) tables[own * HALF + i] = total[i] / mass[i];
    }
  }
  sums(k, tables, values);
  return viterbi(k, values, x, n);
}

typedef struct start {
  double loss, tables[TABLE];
} start;

static int compare(const void *a, const void *b) {
  const double x = ((const start *)a)->loss, y = ((const start *)b)->loss;
  return x < y ? -1 : x > y;
}

int main(void) {
  static float x[MANY], unseen[MANY];
  static start starts[STARTS];
  srand48(1);
  for (size_t i = 0; i < MANY; i++) x[i] = normal(), unseen[i] = normal();
  printf("/* Made by bench/trellis_tables.c. */\n#include \"quant/layer/trellis.h\"\n\n"
         "const float gptvq_gaussian_tables[3][GPTVQ_TRELLIS_TABLE] = {\n");
  for (unsigned k = 2; k <= 4; k++) {
    for (int i = 0; i < STARTS; i++) {
      for (int j = 0; j < TABLE; j++) starts[i].tables[j] = 0.7 * normal();
      starts[i].loss = train(k, starts[i].tables, x, FEW, 25);
    }
    qsort(starts, STARTS, sizeof *starts, compare);
    for (int i = 0; i < KEPT; i++) {
      float values[STATES];
      train(k, starts[i].tables, x, MANY, 100);
      sums(k, starts[i].tables, values);
      starts[i].loss = viterbi(k, values, unseen, MANY);
    }
    qsort(starts, KEPT, sizeof *starts, compare);
    fprintf(stderr, "%u bits: %.5f, of others %.5f to %.5f\n", k, starts[0].loss, starts[1].loss,
            starts[KEPT - 1].loss);
    printf("    {");
    for (int j = 0; j < TABLE; j++)
      printf("%.6ff%s", starts[0].tables[j], j + 1 == TABLE ? "},\n" : j % 8 == 7 ? ",\n     " : ", ");
  }
  printf("};\n");
  return 0;
}
