/* Products of a few rows with a panel of columns, of which everything stays in registers: ROWS x 4 sums, 4 vectors of the
   panel, and a number of a row. The sums have names, as compilers keep arrays of vectors in memory. */

#include "kernels.h"

#ifdef HAS_KERNELS

#include "simd.h"

#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define WITH_ROWS(DO) /* known when compiled */ \
    switch (rows) { \
        case 6: DO(6); break; \
        case 5: DO(5); break; \
        case 4: DO(4); break; \
        case 3: DO(3); break; \
        case 2: DO(2); break; \
        case 1: DO(1); break; \
    }

INLINE void bytes(const uint8_t *x, int64_t stride, const int8_t *panel, int64_t steps, const int32_t *begin,
                  const int rows, int32_t *sum) {
#define BEGIN(r) \
    __m512i s##r##0 = _mm512_loadu_si512(begin), s##r##1 = _mm512_loadu_si512(begin + 16), \
            s##r##2 = _mm512_loadu_si512(begin + 32), s##r##3 = _mm512_loadu_si512(begin + 48);
    EACH_ROW(BEGIN)
    for (int64_t step = 0; step < steps; step++, x += 4, panel += 4 * PANEL) {
        __m512i p0 = _mm512_loadu_si512(panel), p1 = _mm512_loadu_si512(panel + 64),
                p2 = _mm512_loadu_si512(panel + 128), p3 = _mm512_loadu_si512(panel + 192);
#define ADD(r) \
    if (r < rows) { \
        __m512i four = _mm512_set1_epi32(*(const int32_t *)(x + r * stride)); \
        s##r##0 = _mm512_dpbusd_epi32(s##r##0, four, p0), s##r##1 = _mm512_dpbusd_epi32(s##r##1, four, p1); \
        s##r##2 = _mm512_dpbusd_epi32(s##r##2, four, p2), s##r##3 = _mm512_dpbusd_epi32(s##r##3, four, p3); \
    }
        EACH_ROW(ADD)
    }
#define KEEP(r) \
    if (r < rows) { \
        _mm512_storeu_si512(sum + r * PANEL, s##r##0), _mm512_storeu_si512(sum + r * PANEL + 16, s##r##1); \
        _mm512_storeu_si512(sum + r * PANEL + 32, s##r##2), _mm512_storeu_si512(sum + r * PANEL + 48, s##r##3); \
    }
    EACH_ROW(KEEP)
#undef BEGIN
#undef ADD
#undef KEEP
}

/* sum (rows, PANEL) = begin (PANEL,) + x (rows, 4 steps) panel (steps, PANEL, 4); `stride` bytes from row to row. */
void multiply_bytes(const uint8_t *x, int64_t stride, const int8_t *panel, int64_t steps, const int32_t *begin,
                    int64_t rows, int32_t *sum) {
#define BYTES(n) bytes(x, stride, panel, steps, begin, n, sum)
    WITH_ROWS(BYTES)
}

INLINE void shorts(const uint16_t *x, int64_t stride, const uint16_t *panel, int64_t steps, const int rows, float *sum) {
#define BEGIN(r) \
    __m512 s##r##0, s##r##1, s##r##2, s##r##3; \
    s##r##0 = s##r##1 = s##r##2 = s##r##3 = _mm512_setzero_ps(); \
    if (r < rows) { \
        s##r##0 = _mm512_loadu_ps(sum + r * PANEL), s##r##1 = _mm512_loadu_ps(sum + r * PANEL + 16); \
        s##r##2 = _mm512_loadu_ps(sum + r * PANEL + 32), s##r##3 = _mm512_loadu_ps(sum + r * PANEL + 48); \
    }
    EACH_ROW(BEGIN)
    for (int64_t step = 0; step < steps; step++, x += 2, panel += 2 * PANEL) {
        __m512bh p0 = (__m512bh)_mm512_loadu_si512(panel), p1 = (__m512bh)_mm512_loadu_si512(panel + 32),
                 p2 = (__m512bh)_mm512_loadu_si512(panel + 64), p3 = (__m512bh)_mm512_loadu_si512(panel + 96);
#define ADD(r) \
    if (r < rows) { \
        __m512bh two = (__m512bh)_mm512_set1_epi32(*(const int32_t *)(x + r * stride)); \
        s##r##0 = _mm512_dpbf16_ps(s##r##0, two, p0), s##r##1 = _mm512_dpbf16_ps(s##r##1, two, p1); \
        s##r##2 = _mm512_dpbf16_ps(s##r##2, two, p2), s##r##3 = _mm512_dpbf16_ps(s##r##3, two, p3); \
    }
        EACH_ROW(ADD)
    }
#define KEEP(r) \
    if (r < rows) { \
        _mm512_storeu_ps(sum + r * PANEL, s##r##0), _mm512_storeu_ps(sum + r * PANEL + 16, s##r##1); \
        _mm512_storeu_ps(sum + r * PANEL + 32, s##r##2), _mm512_storeu_ps(sum + r * PANEL + 48, s##r##3); \
    }
    EACH_ROW(KEEP)
#undef BEGIN
#undef ADD
#undef KEEP
}

/* sum (rows, PANEL) += x (rows, 2 steps) panel (steps, PANEL, 2), both bfloat16; `stride` numbers from row to row. */
void multiply_shorts(const uint16_t *x, int64_t stride, const uint16_t *panel, int64_t steps, int64_t rows, float *sum) {
#define SHORTS(n) shorts(x, stride, panel, steps, n, sum)
    WITH_ROWS(SHORTS)
}

END_OF_KERNELS
#endif
