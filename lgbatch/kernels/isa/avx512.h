/* Vectors of 512 bits. */

#include <immintrin.h>

#define WIDTH 16
#define ZERO_POINT 128
#define TILE_VECTORS 4
#define NATIVE_INT8
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

INLINE vf vf_load(const float *x) { return _mm512_loadu_ps(x); }
INLINE void vf_store(float *to, vf x) { _mm512_storeu_ps(to, x); }
INLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vf_abs(vf x) { return _mm512_abs_ps(x); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf vf_fms(vf a, vf b, vf c) { return _mm512_fmsub_ps(a, b, c); }
INLINE vf vf_round(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf vf_scale(vf x, vf n) { return _mm512_scalef_ps(x, n); }
INLINE float vf_reduce_add(vf x) { return _mm512_reduce_add_ps(x); }
INLINE float vf_reduce_max(vf x) { return _mm512_reduce_max_ps(x); }
INLINE vi vf_to_int(vf x) { return _mm512_cvtps_epi32(x); }

INLINE vf load_half(const uint16_t *x) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x)); }
INLINE void store_half(uint16_t *to, vf x) {
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

INLINE vi vi_load(const void *x) { return _mm512_loadu_si512(x); }
INLINE void vi_store(int32_t *to, vi x) { _mm512_storeu_si512(to, x); }
INLINE void vi_store_half(int32_t *to, vi x) { _mm256_storeu_si256((__m256i *)to, _mm512_castsi512_si256(x)); }
INLINE vi vi_set(int32_t x) { return _mm512_set1_epi32(x); }
INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
INLINE vi vi_min(vi a, vi b) { return _mm512_min_epi32(a, b); }
INLINE vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
INLINE vf vi_to_float(vi x) { return _mm512_cvtepi32_ps(x); }
INLINE vf dot_float(vf sum, vi x, vi p) { return vf_fma(_mm512_castsi512_ps(x), _mm512_castsi512_ps(p), sum); }

/* Interleave pairs of values, then of pairs, in parts of 128 bits; then of parts. */
INLINE void vf_transpose(vf *rows) {
    vf pairs[WIDTH], parts[WIDTH];
    for (int i = 0; i < WIDTH; i += 4) {
        for (int j = 0; j < 2; j++) {
            pairs[i + j] = _mm512_unpacklo_ps(rows[i + 2 * j], rows[i + 2 * j + 1]);
            pairs[i + j + 2] = _mm512_unpackhi_ps(rows[i + 2 * j], rows[i + 2 * j + 1]);
        }
        for (int j = 0; j < 2; j++) {
            parts[i + 2 * j] = _mm512_shuffle_ps(pairs[i + 2 * j], pairs[i + 2 * j + 1], 0x44);
            parts[i + 2 * j + 1] = _mm512_shuffle_ps(pairs[i + 2 * j], pairs[i + 2 * j + 1], 0xee);
        }
    }
    for (int i = 0; i < 4; i++) {
        vf even0 = _mm512_shuffle_f32x4(parts[i], parts[i + 4], 0x88);
        vf odd0 = _mm512_shuffle_f32x4(parts[i], parts[i + 4], 0xdd);
        vf even1 = _mm512_shuffle_f32x4(parts[i + 8], parts[i + 12], 0x88);
        vf odd1 = _mm512_shuffle_f32x4(parts[i + 8], parts[i + 12], 0xdd);
        rows[i] = _mm512_shuffle_f32x4(even0, even1, 0x88), rows[i + 8] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
        rows[i + 4] = _mm512_shuffle_f32x4(odd0, odd1, 0x88), rows[i + 12] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
    }
}

INLINE vm vm_first(int64_t n) { return n >= WIDTH ? 0xffff : n <= 0 ? 0 : (vm)((1u << n) - 1); }
INLINE int vm_any(vm m) { return m != 0; }
INLINE vm vf_greater(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
INLINE vf vf_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
INLINE void vf_store_where(vm m, float *to, vf x) { _mm512_mask_storeu_ps(to, m, x); }
INLINE void vi_store_where(vm m, int32_t *to, vi x) { _mm512_mask_storeu_epi32(to, m, x); }

INLINE void store_bytes(uint8_t *to, vi x) { _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(x)); }
INLINE vi dot_int8(vi sum, vi x, vi p) { return _mm512_dpbusd_epi32(sum, x, p); }

INLINE vi vi_add_int16(vi a, vi b) { return _mm512_add_epi16(a, b); }
INLINE vi vi_sub_int16(vi a, vi b) { return _mm512_sub_epi16(a, b); }
INLINE void store_int16(int16_t *to, vf x) {
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtsepi32_epi16(vf_to_int(x)));
}
INLINE vi dot_int16(vi sum, vi x, vi p) { return _mm512_dpwssd_epi32(sum, x, p); }

#ifdef NATIVE_BF16
INLINE void store_bf16(uint16_t *to, vf x, vf y) { _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(y, x)); }
INLINE void store_pairs(uint16_t *to, vf x, vf y) {
    vi low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x));
    vi high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(y));
    _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
INLINE vf dot_bf16(vf sum, vi x, vi p) { return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)p); }
#else
/* x rounded to bfloat16, in the upper half of each lane; the lower half is noise. */
INLINE vi rounded_bf16(vf x) {
    vi bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), vi_set(1));
    return vi_add(vi_add(bits, vi_set(0x7fff)), odd);
}
INLINE void store_bf16(uint16_t *to, vf x, vf y) {
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded_bf16(x), 16)));
    _mm256_storeu_si256((__m256i *)(to + 16), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded_bf16(y), 16)));
}
INLINE void store_pairs(uint16_t *to, vf x, vf y) {
    vi high = _mm512_and_si512(rounded_bf16(y), vi_set((int32_t)0xffff0000));
    _mm512_storeu_si512(to, _mm512_or_si512(_mm512_srli_epi32(rounded_bf16(x), 16), high));
}
INLINE vi bf16_part(int part, vi p) {
    return part ? _mm512_and_si512(p, vi_set((int32_t)0xffff0000)) : _mm512_slli_epi32(p, 16);
}
INLINE vf dot_bf16(vf sum, vi x, vi p) { return vf_fma(_mm512_castsi512_ps(x), _mm512_castsi512_ps(p), sum); }
#endif
