/* Convolutions with few outputs: rows of channels (planes), so that vectors hold pixels. */

enum {
    MARGIN = 16, /* values before and after each plane of a row; zeros next to it */
#if WIDTH == 8
    PLANE_VECTORS = 2,
#else
    PLANE_VECTORS = 4,
#endif
};

/* A row of `count` pixels through a convolution in planes. The planes of input, start and output are `stride`,
   `start_stride` and `to_stride` apart. */
typedef struct {
    const Conv *conv;
    const float *rows[3]; /* the first pixel of the first plane, for each row under the kernel */
    int64_t height;       /* of the kernel: 1 or 3, and its width */
    int64_t stride;
    const float *start; /* NULL: zeros */
    int64_t start_stride;
    float *to;
    int64_t to_stride, count;
    int activate;
} Planes;

#define EACH_VECTOR_OF(o, DO) DO(o, 0) DO(o, 1) DO(o, 2) DO(o, 3)
#define EACH_SUM(DO) EACH_VECTOR_OF(0, DO) EACH_VECTOR_OF(1, DO) EACH_VECTOR_OF(2, DO) EACH_VECTOR_OF(3, DO)
#define IS_USED(o, v) (o < outputs && v < PLANE_VECTORS)
#define LOAD_START(o, v) \
    vf a##o##_##v = IS_USED(o, v) && p->start ? vf_load(p->start + (output + o) * p->start_stride + pixel + v * WIDTH) \
                                              : vf_set(0.0f);
#define LOAD_X(_, v) vf x##v = v < PLANE_VECTORS ? vf_load(x + v * WIDTH) : vf_set(0.0f);
#define ADD_SUM(o, v) if (IS_USED(o, v)) a##o##_##v = vf_fma(value, x##v, a##o##_##v);
#define ADD_OUTPUT(o) if (o < outputs) { vf value = vf_set(weight[o]); EACH_VECTOR_OF(o, ADD_SUM) }
#define ACTIVATE(o, v) if (IS_USED(o, v)) a##o##_##v = selu(a##o##_##v);
#define STORE_SUM(o, v) if (IS_USED(o, v)) vf_store(p->to + (output + o) * p->to_stride + pixel + v * WIDTH, a##o##_##v);

INLINE void planes_tile(const Planes *p, const int kernel, const int outputs, int64_t pixel, int64_t output) {
    const float *weight = p->conv->weight + output;
    EACH_SUM(LOAD_START)
    for (int64_t y = 0; y < kernel; y++) {
        const float *row = p->rows[y] + pixel - kernel / 2;
        for (int64_t c = 0; c < p->conv->in; c++, row += p->stride) {
            for (int64_t tap = 0; tap < kernel; tap++, weight += p->conv->out) {
                const float *x = row + tap;
                EACH_VECTOR_OF(0, LOAD_X)
                ADD_OUTPUT(0) ADD_OUTPUT(1) ADD_OUTPUT(2) ADD_OUTPUT(3)
            }
        }
    }
    if (p->activate) { EACH_SUM(ACTIVATE) }
    EACH_SUM(STORE_SUM)
}

#undef EACH_VECTOR_OF
#undef EACH_SUM
#undef IS_USED
#undef LOAD_START
#undef LOAD_X
#undef ADD_SUM
#undef ADD_OUTPUT
#undef ACTIVATE
#undef STORE_SUM

/* Up to PLANE_VECTORS vectors are computed beyond `count`. */
NOT_INLINE void convolve_planes(const Planes *p) {
    for (int64_t pixel = 0; pixel < p->count; pixel += PLANE_VECTORS * WIDTH) {
        for (int64_t output = 0; output < p->conv->out; output += 4) {
            if (p->conv->out == 1) planes_tile(p, 3, 1, pixel, 0);
            else if (p->height == 3) planes_tile(p, 3, 4, pixel, output);
            else planes_tile(p, 1, 4, pixel, output);
        }
    }
}

/* The last four rows of `channels` planes, and a row of zeros. */
typedef struct {
    float *rows[4], *zeros;
    int64_t height, width, stride, channels;
} PlaneRing;

/* Distance between the planes of a row. */
INLINE int64_t plane_stride(int64_t width) { return MARGIN + round_up_to_panel(width) + MARGIN; }

static PlaneRing take_plane_ring(Arena *arena, int64_t height, int64_t width, int64_t channels) {
    PlaneRing ring = {{0}, NULL, height, width, plane_stride(width), channels};
    for (int i = 0; i < 4; i++) ring.rows[i] = take_zeros(arena, ring.stride * channels);
    ring.zeros = take_zeros(arena, ring.stride * channels);
    return ring;
}

/* The first pixel of row y; zeros beyond the map. */
INLINE float *plane_row(const PlaneRing *ring, int64_t y) {
    return (y < 0 || y >= ring->height ? ring->zeros : ring->rows[y % 4]) + MARGIN;
}

/* Clear what was computed beyond the width of row y. */
static void end_plane_row(const PlaneRing *ring, int64_t y) {
    for (int64_t c = 0; c < ring->channels; c++)
        memset(plane_row(ring, y) + c * ring->stride + ring->width, 0, MARGIN * sizeof(float));
}

/* Row y of a 3 x 3 convolution in planes. */
static void convolve_plane_ring(const Conv *conv, const PlaneRing *from, int64_t y, int activate, float *to,
                                int64_t to_stride) {
    const Planes planes = {conv, {plane_row(from, y - 1), plane_row(from, y), plane_row(from, y + 1)}, 3,
                           from->stride, NULL, 0, to, to_stride, from->width, activate};
    convolve_planes(&planes);
}
