/* Functions of vectors of floats, on the operations that the headers in isa/ define. */

#define LOG2_E 1.44269504f

INLINE int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE vf vf_min(vf a, vf b) { return vf_select(vf_greater(a, b), b, a); }

#ifndef BF16_FACTORS
INLINE vi dot_factors(vi sum, vi x, vi p) { return dot_int16(sum, x, p); }
INLINE vf sum_to_float(vi sum) { return vi_to_float(sum); }
INLINE float one_sum_to_float(int32_t sum) { return (float)sum; }
INLINE void store_factors(int16_t *to, vi x) { vi_store((int32_t *)to, x); }
#endif

/* Turn `count` int16 into factors, in place. */
INLINE void make_factors(int16_t *x, int64_t count) {
#ifdef BF16_FACTORS
    for (int64_t i = 0; i < count; i += 2 * WIDTH) store_factors(x + i, vi_load(x + i));
#else
    (void)x, (void)count;
#endif
}

/* Round a number of columns up to a multiple of PANEL. */
INLINE int64_t round_up_to_panel(int64_t count) { return (count + PANEL - 1) / PANEL * PANEL; }

/* Round a size up to a multiple of 64 bytes, to keep the next array aligned. */
INLINE size_t align_bytes(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* 2^x for results in bfloat16: a polynomial of degree 3, fitted on [-1/2, 1/2], times a power of two. The relative
   error is 8e-5, a fiftieth of bfloat16's. Underflows to 0. */
INLINE vf exp2_bf16(vf x) {
    vf integer = vf_round(x);
    vf fraction = vf_sub(x, integer);
    vf y = vf_set(0.05517167f);
    y = vf_fma(y, fraction, vf_set(0.24261113f));
    y = vf_fma(y, fraction, vf_set(0.69326099f));
    y = vf_fma(y, fraction, vf_set(0.99992807f));
    return vf_scale(y, integer);
}

/* 2^x for results in float: Taylor series of degree 6 on [-1/2, 1/2], times a power of two. The relative error is below
   2e-7. */
INLINE vf exp2_float(vf x) {
    vf integer = vf_round(x);
    vf fraction = vf_sub(x, integer);
    vf y = vf_set(1.540353e-4f);
    y = vf_fma(y, fraction, vf_set(1.33335581e-3f));
    y = vf_fma(y, fraction, vf_set(9.61812911e-3f));
    y = vf_fma(y, fraction, vf_set(5.55041087e-2f));
    y = vf_fma(y, fraction, vf_set(2.40226507e-1f));
    y = vf_fma(y, fraction, vf_set(6.93147181e-1f));
    y = vf_fma(y, fraction, vf_set(1.0f));
    return vf_scale(y, integer);
}

/* GELU, x (1 + erf(x / sqrt 2)) / 2, with erf by Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26
   (absolute error 1.5e-7). */
INLINE vf gelu(vf x) {
    const vf one = vf_set(1.0f);
    vf a = vf_mul(vf_abs(x), vf_set(0.707106781f));
    vf t = vf_div(one, vf_fma(a, vf_set(0.3275911f), one));
    vf y = vf_set(1.061405429f);
    y = vf_fma(y, t, vf_set(-1.453152027f));
    y = vf_fma(y, t, vf_set(1.421413741f));
    y = vf_fma(y, t, vf_set(-0.284496736f));
    y = vf_fma(y, t, vf_set(0.254829592f));
    vf gaussian = exp2_float(vf_mul(vf_mul(a, a), vf_set(-LOG2_E)));
    y = vf_mul(vf_mul(y, t), gaussian); /* 1 - erf(a) */
    vf half = vf_mul(x, vf_set(0.5f));
    vf upper = vf_sub(vf_set(2.0f), y);
    return vf_mul(half, vf_select(vf_greater(vf_set(0.0f), x), y, upper));
}
