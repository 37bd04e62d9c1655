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

INLINE vi vi_load(const int32_t *x) { return *x; }
INLINE void vi_store(int32_t *to, vi x) { *to = x; }
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
INLINE void store_bf16(uint16_t *to, vf x, vf y) { to[0] = to_bf16(x), to[1] = to_bf16(y); }
INLINE void store_pairs(uint16_t *to, vf x, vf y) { store_bf16(to, x, y); }

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
