/* Plain C, for any processor: vectors of one element. The tests compare all others with it; it is slower than fp32. */

#include "../c/kernels.h"

#include <math.h>
#include <string.h>

#define ISA portable
#define PORTABLE
enum { WIDTH = 1, ZERO_POINT = 128 };
typedef float vf;
typedef int32_t vi;
typedef int vm;

INLINE vf vf_load(const float *x) { return *x; }
INLINE void vf_store(float *to, vf x) { *to = x; }
INLINE vf vf_set(float x) { return x; }
INLINE vf vf_add(vf a, vf b) { return a + b; }
INLINE vf vf_sub(vf a, vf b) { return a - b; }
INLINE vf vf_mul(vf a, vf b) { return a * b; }
INLINE vf vf_div(vf a, vf b) { return a / b; }
INLINE vf vf_max(vf a, vf b) { return a > b ? a : b; }
INLINE vf vf_abs(vf x) { return fabsf(x); }
INLINE vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf vf_fms(vf a, vf b, vf c) { return a * b - c; }
INLINE vf vf_round(vf x) { return rintf(x); }
INLINE vf vf_scale(vf x, vf n) { return ldexpf(x, n < -200 ? -200 : n > 200 ? 200 : (int)n); }
INLINE float vf_reduce_add(vf x) { return x; }
INLINE float vf_reduce_max(vf x) { return x; }
INLINE vi vf_to_int(vf x) { return (int32_t)rintf(x); }

/* By moving between the ranges of exponents with a factor. */
INLINE vf load_half(const uint16_t *x) {
    const uint32_t bits = (uint32_t)(*x & 0x7fff) << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;
    return *x >> 15 ? -value : value;
}
INLINE void store_half(uint16_t *to, vf x) {
    const float value = fabsf(x) * 0x1p-112f;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    *to = (uint16_t)((bits + 0xfff + (bits >> 13 & 1)) >> 13 | (x < 0 ? 0x8000u : 0));
}

INLINE vi vi_load(const void *x) {
    vi value;
    memcpy(&value, x, sizeof value);
    return value;
}
INLINE void vi_store(int32_t *to, vi x) { *to = x; }
INLINE void vi_store_half(int32_t *to, vi x) { memcpy(to, &x, sizeof x / 2); }
INLINE vi vi_set(int32_t x) { return x; }
INLINE vi vi_add(vi a, vi b) { return a + b; }
INLINE vi vi_min(vi a, vi b) { return a < b ? a : b; }
INLINE vi vi_max(vi a, vi b) { return a > b ? a : b; }
INLINE vf vi_to_float(vi x) { return (float)x; }

INLINE void vf_transpose(vf *rows) { (void)rows; }

INLINE vm vm_first(int64_t n) { return n > 0; }
INLINE vm vm_any(vm m) { return m; }
INLINE vm vf_greater(vf a, vf b) { return a > b; }
INLINE vf vf_select(vm m, vf a, vf b) { return m ? a : b; }
INLINE void vf_store_where(vm m, float *to, vf x) { if (m) *to = x; }
INLINE void vi_store_where(vm m, int32_t *to, vi x) { if (m) *to = x; }

INLINE uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
INLINE void store_bytes(uint8_t *to, vi x) { *to = (uint8_t)x; }
INLINE int32_t int16_pair(int32_t low, int32_t high) {
    return (int32_t)((uint32_t)low & 0xffff) | (int32_t)((uint32_t)high << 16);
}
INLINE int32_t low_int16(int32_t pair) { return (int16_t)(pair & 0xffff); }
INLINE vi vi_add_int16(vi a, vi b) { return int16_pair(low_int16(a) + low_int16(b), (a >> 16) + (b >> 16)); }
INLINE vi vi_sub_int16(vi a, vi b) { return int16_pair(low_int16(a) - low_int16(b), (a >> 16) - (b >> 16)); }
INLINE void store_int16(int16_t *to, vf x) { *to = (int16_t)rintf(x); }
INLINE void store_bf16(uint16_t *to, vf x, vf y) { to[0] = to_bf16(x), to[1] = to_bf16(y); }
INLINE void store_pairs(uint16_t *to, vf x, vf y) { store_bf16(to, x, y); }

INLINE vi dot_int16(vi sum, vi x, vi p) {
    return sum + low_int16(x) * low_int16(p) + (x >> 16) * (p >> 16);
}

/* The matrix products of tile.h. */
enum { TILE_ROWS = 4 };

static void gemm_int8(const uint8_t *x, int64_t stride, const int8_t *panel, int64_t steps, const int32_t *start,
                      int64_t rows, int32_t *acc) {
    for (int64_t r = 0; r < rows; r++, x += stride, acc += PANEL) {
        memcpy(acc, start, PANEL * sizeof *acc);
        for (int64_t step = 0; step < steps; step++)
            for (int64_t column = 0; column < PANEL; column++)
                for (int64_t i = 0; i < 4; i++)
                    acc[column] += x[4 * step + i] * panel[(step * PANEL + column) * 4 + i];
    }
}

#define gemm_uint8 gemm_int8

INLINE void factors_gemm(const int16_t *x, int64_t stride, const int16_t *panel, int64_t steps, int64_t rows,
                       int64_t columns, int32_t *acc) {
    for (int64_t r = 0; r < rows; r++, x += stride, acc += columns) {
        memset(acc, 0, (size_t)columns * sizeof *acc);
        for (int64_t i = 0; i < 2 * steps; i++)
            for (int64_t column = 0; column < columns; column++)
                acc[column] += x[i] * panel[(i / 2 * columns + column) * 2 + i % 2];
    }
}

static void gemm_factors(const int16_t *x, int64_t stride, const int16_t *panel, int64_t steps, int64_t rows,
                       int32_t *acc) {
    factors_gemm(x, stride, panel, steps, rows, PANEL, acc);
}

static void gemm_factors_narrow(const int16_t *x, int64_t stride, const int16_t *panel, int64_t steps, int64_t rows,
                              int32_t *acc) {
    factors_gemm(x, stride, panel, steps, rows, NARROW_PANEL, acc);
}

INLINE float from_bf16(uint16_t bits) {
    const uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

static void gemm_bf16(const uint16_t *x, int64_t stride, const uint16_t *panel, int64_t steps, int64_t rows,
                      float *acc) {
    for (int64_t r = 0; r < rows; r++, x += stride, acc += PANEL)
        for (int64_t i = 0; i < 2 * steps; i++)
            for (int64_t column = 0; column < PANEL; column++)
                acc[column] += from_bf16(x[i]) * from_bf16(panel[(i / 2 * PANEL + column) * 2 + i % 2]);
}

static void gemm_float(const float *x, int64_t stride, const float *panel, int64_t steps, int64_t rows, float *acc) {
    for (int64_t r = 0; r < rows; r++, x += stride, acc += PANEL)
        for (int64_t step = 0; step < steps; step++)
            for (int64_t column = 0; column < PANEL; column++) acc[column] += x[step] * panel[step * PANEL + column];
}

#include "../c/all.h"
