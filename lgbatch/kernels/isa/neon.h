/* Vectors of 128 bits, with dot products of int8. */

#define WIDTH 4
#define ZERO_POINT 0
#define TILE_VECTORS 4
#define NATIVE_INT8
typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t vm; /* all bits of a lane are set, or none */

INLINE vf vf_load(const float *x) { return vld1q_f32(x); }
INLINE void vf_store(float *to, vf x) { vst1q_f32(to, x); }
INLINE vf vf_set(float x) { return vdupq_n_f32(x); }
INLINE vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
INLINE vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
INLINE vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
INLINE vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
INLINE vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); }
INLINE vf vf_abs(vf x) { return vabsq_f32(x); }
INLINE vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
INLINE vf vf_fms(vf a, vf b, vf c) { return vfmaq_f32(vnegq_f32(c), a, b); }
INLINE vf vf_round(vf x) { return vrndnq_f32(x); }
INLINE float vf_reduce_add(vf x) { return vaddvq_f32(x); }
INLINE float vf_reduce_max(vf x) { return vmaxvq_f32(x); }
INLINE vi vf_to_int(vf x) { return vcvtnq_s32_f32(x); }

INLINE vf load_half(const uint16_t *x) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x))); }
INLINE void store_half(uint16_t *to, vf x) { vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(x))); }

INLINE vi vi_load(const void *x) { return vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)x)); }
INLINE void vi_store(int32_t *to, vi x) { vst1q_s32(to, x); }
INLINE void vi_store_half(int32_t *to, vi x) { vst1_s32(to, vget_low_s32(x)); }
INLINE vi vi_set(int32_t x) { return vdupq_n_s32(x); }
INLINE vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
INLINE vi vi_min(vi a, vi b) { return vminq_s32(a, b); }
INLINE vi vi_max(vi a, vi b) { return vmaxq_s32(a, b); }
INLINE vf vi_to_float(vi x) { return vcvtq_f32_s32(x); }
INLINE vf dot_float(vf sum, vi x, vi p) { return vfmaq_f32(sum, vreinterpretq_f32_s32(x), vreinterpretq_f32_s32(p)); }

INLINE void vf_transpose(vf *rows) {
    float32x4x2_t first = vtrnq_f32(rows[0], rows[1]), second = vtrnq_f32(rows[2], rows[3]);
    for (int i = 0; i < 2; i++) {
        rows[i] = vcombine_f32(vget_low_f32(first.val[i]), vget_low_f32(second.val[i]));
        rows[i + 2] = vcombine_f32(vget_high_f32(first.val[i]), vget_high_f32(second.val[i]));
    }
}

INLINE vm vm_first(int64_t n) {
    static const int32_t lanes[WIDTH] = {0, 1, 2, 3};
    return vcgtq_s32(vi_set(n > WIDTH ? WIDTH : n < 0 ? 0 : (int32_t)n), vld1q_s32(lanes));
}
INLINE int vm_any(vm m) { return vmaxvq_u32(m) != 0; }
INLINE vm vf_greater(vf a, vf b) { return vcgtq_f32(a, b); }
INLINE vf vf_select(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }
INLINE void vf_store_where(vm m, float *to, vf x) { vst1q_f32(to, vbslq_f32(m, x, vld1q_f32(to))); }
INLINE void vi_store_where(vm m, int32_t *to, vi x) { vst1q_s32(to, vbslq_s32(m, x, vld1q_s32(to))); }

/* Exponents from -127, which is 0, to 128, which is infinite. */
INLINE vf vf_scale(vf x, vf n) {
    vi exponent = vf_to_int(vminq_f32(vmaxq_f32(n, vf_set(-127.0f)), vf_set(128.0f)));
    return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(vi_add(exponent, vi_set(127)), 23)));
}

INLINE void store_bytes(uint8_t *to, vi x) {
    uint16x4_t half = vmovn_u32(vreinterpretq_u32_s32(x));
    const uint32_t bytes = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(half, half))), 0);
    memcpy(to, &bytes, 4);
}

/* x rounded to bfloat16, in the upper half of each lane; the lower half is noise. */
INLINE uint32x4_t rounded_bf16(vf x) {
    uint32x4_t bits = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    return vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
}
INLINE void store_bf16(uint16_t *to, vf x, vf y) {
    vst1q_u16(to, vcombine_u16(vshrn_n_u32(rounded_bf16(x), 16), vshrn_n_u32(rounded_bf16(y), 16)));
}
INLINE void store_pairs(uint16_t *to, vf x, vf y) {
    vst1q_u16(to, vreinterpretq_u16_u32(vsriq_n_u32(rounded_bf16(y), rounded_bf16(x), 16)));
}

INLINE vi dot_int8(vi sum, vi x, vi p) { return vdotq_s32(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(p)); }
INLINE vi dot_uint8(vi sum, vi x, vi p) {
    uint32x4_t unsigned_sum = vreinterpretq_u32_s32(sum);
    return vreinterpretq_s32_u32(vdotq_u32(unsigned_sum, vreinterpretq_u8_s32(x), vreinterpretq_u8_s32(p)));
}

INLINE vi vi_add_int16(vi a, vi b) {
    return vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}
INLINE vi vi_sub_int16(vi a, vi b) {
    return vreinterpretq_s32_s16(vsubq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}
INLINE void store_int16(int16_t *to, vf x) { vst1_s16(to, vqmovn_s32(vf_to_int(x))); }

#ifdef NATIVE_BF16
INLINE vf dot_bf16(vf sum, vi x, vi p) {
    return vbfdotq_f32(sum, vreinterpretq_bf16_s32(x), vreinterpretq_bf16_s32(p));
}
#define BF16_FACTORS /* there are no dot products of int16 */
INLINE vi dot_factors(vi sum, vi x, vi p) {
    return vreinterpretq_s32_f32(dot_bf16(vreinterpretq_f32_s32(sum), x, p));
}
INLINE vf sum_to_float(vi sum) { return vreinterpretq_f32_s32(sum); }
INLINE float one_sum_to_float(int32_t sum) { return vgetq_lane_f32(sum_to_float(vi_set(sum)), 0); }
INLINE void store_factors(int16_t *to, vi x) {
    store_pairs((uint16_t *)to, vi_to_float(vshrq_n_s32(vshlq_n_s32(x, 16), 16)), vi_to_float(vshrq_n_s32(x, 16)));
}
#else
INLINE vi dot_int16(vi sum, vi x, vi p) {
    int16x8_t a = vreinterpretq_s16_s32(x), b = vreinterpretq_s16_s32(p);
    int32x4_t low = vmull_s16(vget_low_s16(a), vget_low_s16(b)), high = vmull_high_s16(a, b);
    return vaddq_s32(sum, vpaddq_s32(low, high));
}
INLINE vi bf16_part(int part, vi p) {
    return part ? vandq_s32(p, vi_set((int32_t)0xffff0000)) : vshlq_n_s32(p, 16);
}
INLINE vf dot_bf16(vf sum, vi x, vi p) {
    return vfmaq_f32(sum, vreinterpretq_f32_s32(x), vreinterpretq_f32_s32(p));
}
#endif

#ifdef NATIVE_MATRIX
INLINE vi vi_load_halves(const uint8_t *low, const uint8_t *high) {
    return vreinterpretq_s32_u8(vcombine_u8(vld1_u8(low), vld1_u8(high)));
}
INLINE vi vi_zip_low(vi a, vi b) { return vzip1q_s32(a, b); }
INLINE vi vi_zip_high(vi a, vi b) { return vzip2q_s32(a, b); }
INLINE vi vi_low_halves(vi a, vi b) {
    return vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}
INLINE vi vi_high_halves(vi a, vi b) {
    return vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

INLINE vi matrix_int8(vi sum, vi x, vi p) {
    return vmmlaq_s32(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(p));
}
INLINE vi matrix_uint8(vi sum, vi x, vi p) {
    uint32x4_t unsigned_sum = vreinterpretq_u32_s32(sum);
    return vreinterpretq_s32_u32(vmmlaq_u32(unsigned_sum, vreinterpretq_u8_s32(x), vreinterpretq_u8_s32(p)));
}
INLINE vf matrix_bf16(vf sum, vi x, vi p) {
    return vbfmmlaq_f32(sum, vreinterpretq_bf16_s32(x), vreinterpretq_bf16_s32(p));
}
#endif
