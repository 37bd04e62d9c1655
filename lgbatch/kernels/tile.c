/* GEMM microkernels: up to TILE_ROWS rows times a panel of PANEL columns. Everything stays in registers: TILE_ROWS x 4
   accumulators, 4 vectors of the panel and one broadcast of a row. Accumulators are named variables, because compilers
   keep arrays of vectors in memory. */

#include "kernels.h"

#ifdef HAS_KERNELS

#include "simd.h"

#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define DISPATCH_ROWS(DO) /* make the number of rows a compile-time constant */ \
    switch (rows) { \
        case 6: DO(6); break; \
        case 5: DO(5); break; \
        case 4: DO(4); break; \
        case 3: DO(3); break; \
        case 2: DO(2); break; \
        case 1: DO(1); break; \
    }

INLINE void int8_tile(const uint8_t *x, int64_t stride, const int8_t *panel, int64_t steps,
                      const int32_t *zero_point_sum, const int rows, int32_t *acc) {
#define LOAD(r) \
    __m512i a##r##0 = _mm512_loadu_si512(zero_point_sum), a##r##1 = _mm512_loadu_si512(zero_point_sum + 16), \
            a##r##2 = _mm512_loadu_si512(zero_point_sum + 32), a##r##3 = _mm512_loadu_si512(zero_point_sum + 48);
    EACH_ROW(LOAD)
    for (int64_t step = 0; step < steps; step++, x += 4, panel += 4 * PANEL) {
        __m512i p0 = _mm512_loadu_si512(panel), p1 = _mm512_loadu_si512(panel + 64),
                p2 = _mm512_loadu_si512(panel + 128), p3 = _mm512_loadu_si512(panel + 192);
#define MULTIPLY_ADD(r) \
    if (r < rows) { \
        __m512i x4 = _mm512_set1_epi32(*(const int32_t *)(x + r * stride)); \
        a##r##0 = _mm512_dpbusd_epi32(a##r##0, x4, p0), a##r##1 = _mm512_dpbusd_epi32(a##r##1, x4, p1); \
        a##r##2 = _mm512_dpbusd_epi32(a##r##2, x4, p2), a##r##3 = _mm512_dpbusd_epi32(a##r##3, x4, p3); \
    }
        EACH_ROW(MULTIPLY_ADD)
    }
#define STORE(r) \
    if (r < rows) { \
        _mm512_storeu_si512(acc + r * PANEL, a##r##0), _mm512_storeu_si512(acc + r * PANEL + 16, a##r##1); \
        _mm512_storeu_si512(acc + r * PANEL + 32, a##r##2), _mm512_storeu_si512(acc + r * PANEL + 48, a##r##3); \
    }
    EACH_ROW(STORE)
#undef LOAD
#undef MULTIPLY_ADD
#undef STORE
}

/* acc (rows, PANEL) = zero_point_sum (PANEL,) + x (rows, 4 steps) panel (steps, PANEL, 4), for 1 to TILE_ROWS rows.
   `stride` is the distance between rows of x in bytes. */
void gemm_int8(const uint8_t *x, int64_t stride, const int8_t *panel, int64_t steps, const int32_t *zero_point_sum,
               int64_t rows, int32_t *acc) {
#define INT8_TILE(n) int8_tile(x, stride, panel, steps, zero_point_sum, n, acc)
    DISPATCH_ROWS(INT8_TILE)
}

INLINE void bf16_tile(const uint16_t *x, int64_t stride, const uint16_t *panel, int64_t steps, const int rows,
                      float *acc) {
#define LOAD(r) \
    __m512 a##r##0, a##r##1, a##r##2, a##r##3; \
    a##r##0 = a##r##1 = a##r##2 = a##r##3 = _mm512_setzero_ps(); \
    if (r < rows) { \
        a##r##0 = _mm512_loadu_ps(acc + r * PANEL), a##r##1 = _mm512_loadu_ps(acc + r * PANEL + 16); \
        a##r##2 = _mm512_loadu_ps(acc + r * PANEL + 32), a##r##3 = _mm512_loadu_ps(acc + r * PANEL + 48); \
    }
    EACH_ROW(LOAD)
    for (int64_t step = 0; step < steps; step++, x += 2, panel += 2 * PANEL) {
        __m512bh p0 = (__m512bh)_mm512_loadu_si512(panel), p1 = (__m512bh)_mm512_loadu_si512(panel + 32),
                 p2 = (__m512bh)_mm512_loadu_si512(panel + 64), p3 = (__m512bh)_mm512_loadu_si512(panel + 96);
#define MULTIPLY_ADD(r) \
    if (r < rows) { \
        __m512bh x2 = (__m512bh)_mm512_set1_epi32(*(const int32_t *)(x + r * stride)); \
        a##r##0 = _mm512_dpbf16_ps(a##r##0, x2, p0), a##r##1 = _mm512_dpbf16_ps(a##r##1, x2, p1); \
        a##r##2 = _mm512_dpbf16_ps(a##r##2, x2, p2), a##r##3 = _mm512_dpbf16_ps(a##r##3, x2, p3); \
    }
        EACH_ROW(MULTIPLY_ADD)
    }
#define STORE(r) \
    if (r < rows) { \
        _mm512_storeu_ps(acc + r * PANEL, a##r##0), _mm512_storeu_ps(acc + r * PANEL + 16, a##r##1); \
        _mm512_storeu_ps(acc + r * PANEL + 32, a##r##2), _mm512_storeu_ps(acc + r * PANEL + 48, a##r##3); \
    }
    EACH_ROW(STORE)
#undef LOAD
#undef MULTIPLY_ADD
#undef STORE
}

/* acc (rows, PANEL) += x (rows, 2 steps) panel (steps, PANEL, 2), both bfloat16, for 1 to TILE_ROWS rows. `stride` is
   the distance between rows of x in elements. */
void gemm_bf16(const uint16_t *x, int64_t stride, const uint16_t *panel, int64_t steps, int64_t rows, float *acc) {
#define BF16_TILE(n) bf16_tile(x, stride, panel, steps, n, acc)
    DISPATCH_ROWS(BF16_TILE)
}

END_TARGET
#endif
