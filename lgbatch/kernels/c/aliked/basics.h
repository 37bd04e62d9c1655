/* Functions of vectors that ALIKED needs. */

#define SELU_SCALE 1.0507009873554805f
#define SELU_ALPHA_SCALE 1.7580993408473766f /* alpha = 1.6732632423543772, times the scale */

static const float no_bias[8 * OUTPUTS];

INLINE int64_t round_up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

/* SELU, scale x for positive x, otherwise alpha scale (e^x - 1). A polynomial gives 2^f - 1 for f in [-1/2, 1/2]; the rest
   of the exponent is exact, so that small x lose no precision. The absolute error is below 3e-7. */
INLINE vf selu(vf x) {
    vf exponent = vf_mul(x, vf_set(LOG2_E));
    vf integer = vf_round(exponent);
    vf f = vf_sub(exponent, integer);
    vf y = vf_set(0.0013407259f);
    y = vf_fma(y, f, vf_set(0.0096718751f));
    y = vf_fma(y, f, vf_set(0.0555030836f));
    y = vf_fma(y, f, vf_set(0.240222346f));
    y = vf_fma(y, f, vf_set(0.693147215f));
    y = vf_mul(y, f);
    vf power = vf_scale(vf_set(SELU_ALPHA_SCALE), integer);
    y = vf_fma(y, power, vf_sub(power, vf_set(SELU_ALPHA_SCALE)));
    return vf_select(vf_greater(x, vf_set(0.0f)), vf_mul(x, vf_set(SELU_SCALE)), y);
}

/* 1 / (1 + e^-x) */
INLINE vf sigmoid(vf x) {
    const vf one = vf_set(1.0f);
    return vf_div(one, vf_add(one, exp2_float(vf_mul(x, vf_set(-LOG2_E)))));
}

/* Scratch memory that is handed out piece by piece; without a base it is only counted. */
typedef struct {
    uint8_t *base;
    size_t used;
} Arena;

static float *take(Arena *arena, int64_t count) {
    float *array = arena->base ? (float *)(arena->base + arena->used) : NULL;
    arena->used += align_bytes(count * sizeof *array);
    return array;
}

static float *take_zeros(Arena *arena, int64_t count) {
    float *array = take(arena, count);
    if (array) memset(array, 0, count * sizeof *array);
    return array;
}
