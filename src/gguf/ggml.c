#include "gguf/ggml.h"
#include "base/half.h"

enum { SMALL = 32, LARGE = 256 }; /* values of a block */

static const struct kind {
  const char *name;
  size_t values, bytes; /* 0: known, but not read */
} kinds[] = {
    [0] = {"F32", 1, 4},           [1] = {"F16", 1, 2},         [2] = {"Q4_0", SMALL, 18},
    [3] = {"Q4_1", SMALL, 20},     [6] = {"Q5_0", SMALL, 22},   [7] = {"Q5_1", SMALL, 24},
    [8] = {"Q8_0", SMALL, 34},     [9] = {"Q8_1", 0, 0},        [10] = {"Q2_K", LARGE, 84},
    [11] = {"Q3_K", LARGE, 110},   [12] = {"Q4_K", LARGE, 144}, [13] = {"Q5_K", LARGE, 176},
    [14] = {"Q6_K", LARGE, 210},   [15] = {"Q8_K", 0, 0},       [16] = {"IQ2_XXS", 0, 0},
    [17] = {"IQ2_XS", 0, 0},       [18] = {"IQ3_XXS", 0, 0},    [19] = {"IQ1_S", 0, 0},
    [20] = {"IQ4_NL", SMALL, 18},  [21] = {"IQ3_S", 0, 0},      [22] = {"IQ2_S", 0, 0},
    [23] = {"IQ4_XS", LARGE, 136}, [24] = {"I8", 0, 0},         [25] = {"I16", 0, 0},
    [26] = {"I32", 0, 0},          [27] = {"I64", 0, 0},        [28] = {"F64", 0, 0},
    [29] = {"IQ1_M", 0, 0},        [30] = {"BF16", 1, 2},       [34] = {"TQ1_0", 0, 0},
    [35] = {"TQ2_0", 0, 0},        [39] = {"MXFP4", 0, 0},      [40] = {"NVFP4", 0, 0},
};

static const struct kind *find(uint32_t type) {
  return type < sizeof kinds / sizeof *kinds && kinds[type].name != NULL ? &kinds[type] : NULL;
}

const char *gptvq_ggml_name(uint32_t type) {
  const struct kind *kind = find(type);
  return kind == NULL ? NULL : kind->name;
}

bool gptvq_ggml_block(uint32_t type, size_t *values, size_t *bytes) {
  const struct kind *kind = find(type);
  if (kind == NULL || kind->values == 0) return false;
  *values = kind->values;
  *bytes = kind->bytes;
  return true;
}

size_t gptvq_ggml_row_bytes(gptvq_ggml_type type, size_t n) {
  return n / kinds[type].values * kinds[type].bytes;
}

static float half_at(const uint8_t *at) { return gptvq_fp16_to_float((uint16_t)(at[0] | at[1] << 8)); }

/* ---- blocks of 32 ---- */

/* 16 bytes hold values 0 … 15 in their low halves, 16 … 31 in their high ones. */
static unsigned low_or_high(const uint8_t *codes, size_t i) {
  return i < 16 ? codes[i] & 15u : codes[i - 16] >> 4;
}

static void decode_q4_0(const uint8_t *b, float *out) {
  const float scale = half_at(b);
  for (size_t i = 0; i < SMALL; i++) out[i] = scale * (float)((int)low_or_high(b + 2, i) - 8);
}

static void decode_q4_1(const uint8_t *b, float *out) {
  const float scale = half_at(b), least = half_at(b + 2);
  for (size_t i = 0; i < SMALL; i++) out[i] = scale * (float)low_or_high(b + 4, i) + least;
}

/* Four bytes before the 16 hold the fifth bits, one a value. */
static unsigned five_bits(const uint8_t *fifths, size_t i) {
  return low_or_high(fifths + 4, i) | (fifths[i / 8] >> (i % 8) & 1u) << 4;
}

static void decode_q5_0(const uint8_t *b, float *out) {
  const float scale = half_at(b);
  for (size_t i = 0; i < SMALL; i++) out[i] = scale * (float)((int)five_bits(b + 2, i) - 16);
}

static void decode_q5_1(const uint8_t *b, float *out) {
  const float scale = half_at(b), least = half_at(b + 2);
  for (size_t i = 0; i < SMALL; i++) out[i] = scale * (float)five_bits(b + 4, i) + least;
}

static void decode_q8_0(const uint8_t *b, float *out) {
  const float scale = half_at(b);
  for (size_t i = 0; i < SMALL; i++) out[i] = scale * (float)(int8_t)b[2 + i];
}

/* The codes of IQ4_NL and IQ4_XS stand for these. */
static const float uneven[16] = {-127.0f, -104.0f, -83.0f, -65.0f, -49.0f, -35.0f, -22.0f, -10.0f,
                                 1.0f,    13.0f,   25.0f,  38.0f,  53.0f,  69.0f,  89.0f,  113.0f};

static void decode_uneven(float scale, const uint8_t *codes, float *out) {
  for (size_t i = 0; i < SMALL; i++) out[i] = scale * uneven[low_or_high(codes, i)];
}

static void decode_iq4_nl(const uint8_t *b, float *out) { decode_uneven(half_at(b), b + 2, out); }

/* ---- blocks of 256 ---- */

/* Two-bit codes, 64 bytes: value i of a half of 128 is in byte i % 32 of that half, at bits 2 · (i / 32). */
static unsigned two_bits(const uint8_t *codes, size_t i) {
  return codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3u;
}

/* 16 scales (low halves) and minima (high), of 16 values each; codes; the scales of both */
static void decode_q2_k(const uint8_t *b, float *out) {
  const float scale = half_at(b + 80), least = half_at(b + 82);
  for (size_t i = 0; i < LARGE; i++) {
    const float step = scale * (float)(b[i / 16] & 15), low = least * (float)(b[i / 16] >> 4);
    out[i] = step * (float)two_bits(b + 16, i) - low;
  }
}

/* 32 bytes of third bits, one row of bits for 32 values; two-bit codes; 16 scales of six bits: low halves in
 * eight bytes, upper bits in four; their scale. A third bit that is not set takes 4 away. */
static void decode_q3_k(const uint8_t *b, float *out) {
  const uint8_t *scales = b + 96;
  const float scale = half_at(b + 108);
  for (size_t i = 0; i < LARGE; i++) {
    const size_t k = i / 16;
    const unsigned low = k < 8 ? scales[k] & 15u : scales[k - 8] >> 4;
    const unsigned high = scales[8 + k % 4] >> (2 * (k / 4)) & 3u;
    const float step = scale * (float)((int)(low | high << 4) - 32);
    const int third = b[i % 32] >> (i / 32) & 1;
    out[i] = step * (float)((int)two_bits(b + 32, i) - (third ? 0 : 4));
  }
}

/* Eight scales and eight minima of six bits in 12 bytes, for 32 values each. */
static void six_bits(const uint8_t *s, size_t k, float *scale, float *least) {
  const unsigned a = k < 4 ? s[k] & 63u : (s[k + 4] & 15u) | (unsigned)(s[k - 4] >> 6) << 4;
  const unsigned m = k < 4 ? s[k + 4] & 63u : (unsigned)(s[k + 4] >> 4) | (unsigned)(s[k] >> 6) << 4;
  *scale *= (float)a;
  *least *= (float)m;
}

/* Four-bit codes: 32 bytes hold 32 values in their low halves and the next 32 in their high ones. */
static unsigned four_bits(const uint8_t *codes, size_t i) {
  const unsigned byte = codes[i / 64 * 32 + i % 32];
  return i % 64 < 32 ? byte & 15u : byte >> 4;
}

/* fifths: NULL in Q4_K, else 32 bytes, bit k of each belonging to the k-th 32 values */
static void decode_k(const uint8_t *b, const uint8_t *fifths, const uint8_t *codes, float *out) {
  for (size_t k = 0; k < LARGE / 32; k++) {
    float step = half_at(b), low = half_at(b + 2);
    six_bits(b + 4, k, &step, &low);
    for (size_t i = 32 * k; i < 32 * k + 32; i++) {
      const unsigned fifth = fifths == NULL ? 0 : fifths[i % 32] >> k & 1u;
      out[i] = step * (float)(four_bits(codes, i) | fifth << 4) - low;
    }
  }
}
static void decode_q4_k(const uint8_t *b, float *out) { decode_k(b, NULL, b + 16, out); }
static void decode_q5_k(const uint8_t *b, float *out) { decode_k(b, b + 16, b + 48, out); }

/* Low four bits: of each half of 128 values 64 bytes, as low_or_high of 64; upper two as two_bits; 16 int8
 * scales; their scale. */
static void decode_q6_k(const uint8_t *b, float *out) {
  const float scale = half_at(b + 208);
  for (size_t i = 0; i < LARGE; i++) {
    const unsigned byte = b[i / 128 * 64 + i % 64];
    const unsigned low = i % 128 < 64 ? byte & 15u : byte >> 4;
    const float step = scale * (float)(int8_t)b[192 + i / 16];
    out[i] = step * (float)((int)(low | two_bits(b + 128, i) << 4) - 32);
  }
}

/* Eight scales of six bits: upper two bits in two bytes, low four in four. */
static void decode_iq4_xs(const uint8_t *b, float *out) {
  for (size_t k = 0; k < LARGE / 32; k++) {
    const unsigned high = (unsigned)(b[2] | b[3] << 8) >> (2 * k) & 3u;
    const unsigned low = b[4 + k / 2] >> (4 * (k % 2)) & 15u;
    decode_uneven(half_at(b) * (float)((int)(low | high << 4) - 32), b + 8 + 16 * k, out + 32 * k);
  }
}

static void decode_f32(const uint8_t *b, float *out) { memcpy(out, b, sizeof *out); }
static void decode_f16(const uint8_t *b, float *out) { *out = half_at(b); }
static void decode_bf16(const uint8_t *b, float *out) {
  *out = gptvq_bf16_to_float((uint16_t)(b[0] | b[1] << 8));
}

void gptvq_ggml_decode(gptvq_ggml_type type, const uint8_t *data, size_t n, float *out) {
  static void (*const decode[])(const uint8_t *, float *) = {
      [GPTVQ_GGML_F32] = decode_f32,       [GPTVQ_GGML_F16] = decode_f16,
      [GPTVQ_GGML_Q4_0] = decode_q4_0,     [GPTVQ_GGML_Q4_1] = decode_q4_1,
      [GPTVQ_GGML_Q5_0] = decode_q5_0,     [GPTVQ_GGML_Q5_1] = decode_q5_1,
      [GPTVQ_GGML_Q8_0] = decode_q8_0,     [GPTVQ_GGML_Q2_K] = decode_q2_k,
      [GPTVQ_GGML_Q3_K] = decode_q3_k,     [GPTVQ_GGML_Q4_K] = decode_q4_k,
      [GPTVQ_GGML_Q5_K] = decode_q5_k,     [GPTVQ_GGML_Q6_K] = decode_q6_k,
      [GPTVQ_GGML_IQ4_NL] = decode_iq4_nl, [GPTVQ_GGML_IQ4_XS] = decode_iq4_xs,
      [GPTVQ_GGML_BF16] = decode_bf16,
  };
  for (size_t i = 0; i < n; i += kinds[type].values, data += kinds[type].bytes) decode[type](data, out + i);
}
