/* Layers of LightGlue in 8 bits, for processors with AVX-512 VNNI and BF16. See layer.c for what is computed how.

   Arrays are row-major and belong to the caller. A number in 8 bits stands for itself times a scale: activations have
   one scale for each row and group of GROUP columns, found as they come, weights one for each output. Activations are
   stored with 128 added, as the instruction that multiplies them (vpdpbusd) takes one factor without a sign; what that
   adds to a product is known beforehand, and is where the sum begins. */

#ifndef LGBATCH_KERNELS_H
#define LGBATCH_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_KERNELS /* elsewhere nothing but lgbatch_supported is compiled */
#endif

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum {
    WIDTH = 256,  /* numbers of a point between the layers */
    HEADS = 4,    /* of attention */
    HEAD = 64,    /* numbers of a point that one of them sees */
    GROUP = 256,  /* columns of activations that share a scale */
    PANEL = 64,   /* columns of a product, outputs or keys, that lie together */
    ROWS = 6,     /* rows that are multiplied with a panel at once */
    CHUNK = 48,   /* rows that go through a block of layers together: their hidden numbers stay in the L2 cache */
};

/* x W + b. */
typedef struct {
    const int8_t *weight;   /* (outs / PANEL, ins / 4, PANEL, 4) */
    const int32_t *begin;   /* (ins / GROUP, outs): -128 times the sum of a group's weights */
    const float *scale;     /* (outs,) */
    const float *bias;      /* (outs,) */
    int64_t ins, outs;
} Dense;

/* x + W2 gelu(norm(W1 [x; context])). */
typedef struct {
    Dense inside, outside;
    const float *gain, *shift;  /* (2 WIDTH,) of the normalisation */
} FeedForward;

/* A layer; the first has no self-attention (it is in the stem), the last does not decide. */
typedef struct {
    Dense self_project;   /* to queries, keys and values */
    FeedForward self_ffn;
    Dense cross_project;  /* to what is query and key, and to values */
    FeedForward cross_ffn;
    const float *decide;  /* (2, WIDTH): confidence, matchability; NULL in the last layer */
    float decide_bias[2];
    int64_t has_self;
} Layer;

/* What tells matches after a layer. */
typedef struct {
    const uint16_t *weight; /* (WIDTH / PANEL, WIDTH / 2, PANEL, 2) bfloat16, times WIDTH^-1/4 as is the bias */
    const float *bias;      /* (WIDTH,) */
    const float *certain;   /* (WIDTH,) */
    float certain_bias;
} Head;

/* One image of a pair. */
typedef struct {
    const float *x;               /* (count, WIDTH) */
    const float *cosines, *sines; /* (count, HEAD / 2); not read by the first layer */
    float *y;                     /* (count, WIDTH), what x becomes */
    float *confidence, *matchability; /* (count,) */
    int64_t count;
} Side;

/* What attention looks at, of one image. `padded` is count rounded up to PANEL. */
typedef struct {
    uint8_t *query;       /* (count, WIDTH), 128 added */
    float *query_scale;   /* (count, HEADS), times what makes exp(q k / sqrt(HEAD)) of exp2 */
    int8_t *key;          /* (HEADS, padded / PANEL, HEAD / 4, PANEL, 4) */
    int32_t *key_begin;   /* (HEADS, padded): -128 times the sum of a key's numbers */
    float *key_scale;     /* (HEADS, padded) */
    uint16_t *value;      /* (HEADS, padded / 2, HEAD, 2) bfloat16 */
    int64_t count, padded;
} Attended;

/* module.c */
EXPORT int64_t lgbatch_supported(void);

/* layer.c */
EXPORT size_t lgbatch_scratch(int64_t count0, int64_t count1);
EXPORT void lgbatch_layer(const Layer *by, const Side *side0, const Side *side1, uint8_t *scratch);

/* head.c */
EXPORT size_t lgbatch_head_scratch(int64_t count0, int64_t count1);
EXPORT void lgbatch_head(const Head *by, const float *x0, const float *x1, int64_t count0, int64_t count1,
                         float threshold, uint8_t *scratch, int64_t *matches0, float *scores);

/* tile.c */
void multiply_bytes(const uint8_t *x, int64_t stride, const int8_t *panel, int64_t steps, const int32_t *begin,
                    int64_t rows, int32_t *sum);
void multiply_shorts(const uint16_t *x, int64_t stride, const uint16_t *panel, int64_t steps, int64_t rows, float *sum);

/* dense.c */
void quantize(const float *x, int64_t count, uint8_t *q, float *scale);
void dense(const Dense *by, const uint8_t *x, const float *x_scale, int64_t rows, float *y);

/* attention.c */
size_t attended_bytes(int64_t count);
void attended_place(Attended *of, uint8_t *memory, int64_t count);
void attended_numbers(Attended *of, int64_t row, int64_t head, const float *query, const float *key);
void attended_values(Attended *of, int64_t row, int64_t head, const float *even, const float *odd);
void attend(const Attended *queries, const Attended *keys, float *context);

#endif
