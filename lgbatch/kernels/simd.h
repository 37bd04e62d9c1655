/* Vector helpers on sixteen floats. Include after kernels.h. */

#ifndef LGBATCH_SIMD_H
#define LGBATCH_SIMD_H

/* Enable the instruction sets that lgbatch_supported checks, without compiler flags. */
#ifdef __clang__
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,fma"))), \
                             apply_to = function)
#define END_TARGET _Pragma("clang attribute pop")
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,fma")
#include <immintrin.h>
#define END_TARGET
#endif

#define INLINE static inline __attribute__((always_inline))
#define LOG2_E 1.44269504f

INLINE int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

/* Round a number of columns up to a multiple of PANEL. */
INLINE int64_t round_up_to_panel(int64_t count) { return (count + PANEL - 1) / PANEL * PANEL; }

/* Round a size up to a multiple of 64 bytes, to keep the next array aligned. */
INLINE size_t align_bytes(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* 2^x for results in bfloat16: a polynomial of degree 3, fitted on [-1/2, 1/2], times a power of two. The relative
   error is 8e-5, a fiftieth of bfloat16's. Underflows to 0. */
INLINE __m512 exp2_bf16(__m512 x) {
    __m512 integer = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 fraction = _mm512_sub_ps(x, integer);
    __m512 y = _mm512_set1_ps(0.05517167f);
    y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(0.24261113f));
    y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(0.69326099f));
    y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(0.99992807f));
    return _mm512_scalef_ps(y, integer);
}

/* 2^x for results in float: Taylor series of degree 6 on [-1/2, 1/2], times a power of two. The relative error is below
   2e-7. */
INLINE __m512 exp2_float(__m512 x) {
    __m512 integer = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 fraction = _mm512_sub_ps(x, integer);
    __m512 y = _mm512_set1_ps(1.540353e-4f);
    y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(1.33335581e-3f));
    y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(9.61812911e-3f));
    y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(5.55041087e-2f));
    y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(2.40226507e-1f));
    y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(6.93147181e-1f));
    y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, integer);
}

/* GELU, x (1 + erf(x / sqrt 2)) / 2, with erf by Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26
   (absolute error 1.5e-7). */
INLINE __m512 gelu(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 a = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.707106781f));
    __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(a, _mm512_set1_ps(0.3275911f), one));
    __m512 y = _mm512_set1_ps(1.061405429f);
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-1.453152027f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(1.421413741f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-0.284496736f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.254829592f));
    __m512 gaussian = exp2_float(_mm512_mul_ps(_mm512_mul_ps(a, a), _mm512_set1_ps(-LOG2_E)));
    y = _mm512_mul_ps(_mm512_mul_ps(y, t), gaussian); /* 1 - erf(a) */
    __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
    __m512 upper = _mm512_sub_ps(_mm512_set1_ps(2.0f), y);
    return _mm512_mul_ps(half, _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x)), upper, y));
}

#endif
