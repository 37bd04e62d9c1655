/* Vectors of 256 bits. Products of bfloat16 are products of floats. */

#define WIDTH 8
#define ZERO_POINT 128
#define TILE_VECTORS 2
typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm; /* all bits of a lane are set, or none */

INLINE vf vf_load(const float *x) { return _mm256_loadu_ps(x); }
INLINE void vf_store(float *to, vf x) { _mm256_storeu_ps(to, x); }
INLINE vf vf_set(float x) { return _mm256_set1_ps(x); }
INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf vf_abs(vf x) { return _mm256_andnot_ps(vf_set(-0.0f), x); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf vf_fms(vf a, vf b, vf c) { return _mm256_fmsub_ps(a, b, c); }
INLINE vf vf_round(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vi vf_to_int(vf x) { return _mm256_cvtps_epi32(x); }

INLINE vf load_half(const uint16_t *x) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x)); }
INLINE void store_half(uint16_t *to, vf x) {
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

INLINE vi vi_load(const void *x) { return _mm256_loadu_si256((const __m256i *)x); }
INLINE void vi_store(int32_t *to, vi x) { _mm256_storeu_si256((__m256i *)to, x); }
INLINE void vi_store_half(int32_t *to, vi x) { _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(x)); }
INLINE vi vi_set(int32_t x) { return _mm256_set1_epi32(x); }
INLINE vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
INLINE vi vi_min(vi a, vi b) { return _mm256_min_epi32(a, b); }
INLINE vi vi_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
INLINE vf vi_to_float(vi x) { return _mm256_cvtepi32_ps(x); }
INLINE vf dot_float(vf sum, vi x, vi p) { return vf_fma(_mm256_castsi256_ps(x), _mm256_castsi256_ps(p), sum); }

/* Interleave pairs of values, then of pairs, in halves; then exchange halves. */
INLINE void vf_transpose(vf *rows) {
    vf halves[WIDTH];
    for (int i = 0; i < WIDTH; i += 4) {
        vf low0 = _mm256_unpacklo_ps(rows[i], rows[i + 1]), high0 = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
        vf low1 = _mm256_unpacklo_ps(rows[i + 2], rows[i + 3]), high1 = _mm256_unpackhi_ps(rows[i + 2], rows[i + 3]);
        halves[i] = _mm256_shuffle_ps(low0, low1, 0x44), halves[i + 1] = _mm256_shuffle_ps(low0, low1, 0xee);
        halves[i + 2] = _mm256_shuffle_ps(high0, high1, 0x44), halves[i + 3] = _mm256_shuffle_ps(high0, high1, 0xee);
    }
    for (int i = 0; i < 4; i++) {
        rows[i] = _mm256_permute2f128_ps(halves[i], halves[i + 4], 0x20);
        rows[i + 4] = _mm256_permute2f128_ps(halves[i], halves[i + 4], 0x31);
    }
}

INLINE vm vm_first(int64_t n) {
    const int32_t count = n > WIDTH ? WIDTH : n < 0 ? 0 : (int32_t)n;
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(vi_set(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
}
INLINE int vm_any(vm m) { return _mm256_movemask_ps(m) != 0; }
INLINE vm vf_greater(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
INLINE vf vf_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
INLINE void vf_store_where(vm m, float *to, vf x) { vf_store(to, vf_select(m, x, vf_load(to))); }
INLINE void vi_store_where(vm m, int32_t *to, vi x) {
    vi_store(to, _mm256_castps_si256(vf_select(m, _mm256_castsi256_ps(x), _mm256_castsi256_ps(vi_load(to)))));
}

/* Exponents from -127, which is 0, to 128, which is infinite. */
INLINE vf vf_scale(vf x, vf n) {
    vi exponent = vf_to_int(_mm256_min_ps(_mm256_max_ps(n, vf_set(-127.0f)), vf_set(128.0f)));
    return vf_mul(x, _mm256_castsi256_ps(_mm256_slli_epi32(vi_add(exponent, vi_set(127)), 23)));
}
INLINE float vf_reduce_add(vf x) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
INLINE float vf_reduce_max(vf x) {
    __m128 most = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    most = _mm_max_ps(most, _mm_movehl_ps(most, most));
    return _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)));
}

INLINE void store_bytes(uint8_t *to, vi x) {
    const __m256i low_bytes = _mm256_set1_epi32(0x0c080400);
    __m256i packed = _mm256_shuffle_epi8(x, low_bytes);
    __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1));
    _mm_storel_epi64((__m128i *)to, both);
}

/* x rounded to bfloat16, in the upper half of each lane; the lower half is noise. */
INLINE vi rounded_bf16(vf x) {
    vi bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), vi_set(1));
    return vi_add(vi_add(bits, vi_set(0x7fff)), odd);
}
INLINE void store_bf16(uint16_t *to, vf x, vf y) {
    vi low = _mm256_srli_epi32(rounded_bf16(x), 16), high = _mm256_srli_epi32(rounded_bf16(y), 16);
    vi packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
    _mm256_storeu_si256((__m256i *)to, packed);
}
INLINE void store_pairs(uint16_t *to, vf x, vf y) {
    vi low = _mm256_srli_epi32(rounded_bf16(x), 16);
    _mm256_storeu_si256((__m256i *)to, _mm256_blend_epi16(low, rounded_bf16(y), 0xaa));
}
INLINE vi bf16_part(int part, vi p) {
    return part ? _mm256_and_si256(p, vi_set((int32_t)0xffff0000)) : _mm256_slli_epi32(p, 16);
}
INLINE vf dot_bf16(vf sum, vi x, vi p) { return vf_fma(_mm256_castsi256_ps(x), _mm256_castsi256_ps(p), sum); }

INLINE vi vi_add_int16(vi a, vi b) { return _mm256_add_epi16(a, b); }
INLINE vi vi_sub_int16(vi a, vi b) { return _mm256_sub_epi16(a, b); }
INLINE void store_int16(int16_t *to, vf x) {
    vi integer = vf_to_int(x);
    __m128i low = _mm256_castsi256_si128(integer), high = _mm256_extracti128_si256(integer, 1);
    _mm_storeu_si128((__m128i *)to, _mm_packs_epi32(low, high));
}

#ifdef NATIVE_INT8
INLINE vi dot_int8(vi sum, vi x, vi p) { return _mm256_dpbusd_avx_epi32(sum, x, p); }
INLINE vi dot_int16(vi sum, vi x, vi p) { return _mm256_dpwssd_avx_epi32(sum, x, p); }
#else
/* Without VNNI: the even or the odd bytes as int16, whose products in pairs are exact. */
INLINE vi int8_part(int part, vi p) { return _mm256_srai_epi16(part ? p : _mm256_slli_epi16(p, 8), 8); }
INLINE vi dot_int8(vi sum, vi x, vi p) { return vi_add(sum, _mm256_madd_epi16(x, p)); }
INLINE vi dot_int16(vi sum, vi x, vi p) { return vi_add(sum, _mm256_madd_epi16(x, p)); }
#endif
