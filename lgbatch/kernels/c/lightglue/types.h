/* LightGlue in 8 bits and bfloat16. layer.h describes the numerics.

   Quantization is symmetric: value = scale * int8. Activations have one scale per row and group of GROUP columns,
   computed at run time; weights have one scale per output. The instructions of x86 multiply uint8 by int8, so activations
   are stored with zero point 128 there. Accumulators start at -128 * (sum of the int8 factors), which removes the zero
   point from the product. */

#ifndef LGBATCH_LIGHTGLUE_TYPES_H
#define LGBATCH_LIGHTGLUE_TYPES_H

#include "../kernels.h"

enum {
    EMBED_DIM = 256, /* embedding dimension */
    HEADS = 4,       /* attention heads */
    HEAD_DIM = 64,   /* head dimension */
    GROUP = 256,     /* activation columns that share a scale */
    CHUNK_ROWS = 48, /* rows per pass through a block: their hidden activations stay in the L2 cache */
};

/* x W + b, W in int8 or bfloat16. */
typedef struct {
    const int8_t *weight;          /* (out_dim / PANEL, in_dim / 4, PANEL, 4) */
    const int32_t *zero_point_sum; /* (in_dim / GROUP, out_dim): -128 * sum of the weights of a group */
    const float *scale;            /* (out_dim,) */
    const float *bias;             /* (out_dim,) */
    int64_t in_dim, out_dim;
    const uint16_t *weight_bf16; /* (out_dim / PANEL, in_dim / 2, PANEL, 2), then there are no int8 weights; or NULL */
} Dense;

/* x + linear2(gelu(layer_norm(linear1([x; context])))). linear2 is bfloat16: 8 bits suit its input least, because few large
   values set the scale of a row (1.5% error; 0.8% in the inputs of others). Up to a quarter of the matches that 8 bits
   lose come from it (measured). */
typedef struct {
    Dense linear1, linear2;
    const float *norm_weight, *norm_bias; /* (2 EMBED_DIM,) */
} FeedForward;

/* The part that depends on one image only. */
typedef struct {
    const float *projection_weight; /* (descriptor_dim, EMBED_DIM); NULL if descriptors are embeddings */
    const float *projection_bias;   /* (EMBED_DIM,) */
    int64_t descriptor_dim;
    Dense self_projection; /* to (query, key, value) */
    FeedForward self_ffn;
} Stem;

/* One LightGlue layer. The first has no self-attention (the stem computes it); the last predicts no confidence. */
typedef struct {
    Dense self_projection; /* to (query, key, value) */
    FeedForward self_ffn;
    Dense cross_projection; /* to (shared query and key, value) */
    FeedForward cross_ffn;
    const float *decision_weight; /* (2, EMBED_DIM): confidence, matchability; NULL in the last layer */
    float decision_bias[2];
    int64_t has_self_attention;
} Layer;

/* The matching head after a layer. */
typedef struct {
    Dense projection;                 /* bfloat16; weights and bias include the factor EMBED_DIM^-1/4 */
    const float *matchability_weight; /* (EMBED_DIM,) */
    float matchability_bias;
} Head;

/* Inputs and outputs of a layer for one image of a pair, and of the stem. */
typedef struct {
    const float *x;                   /* (count, EMBED_DIM) input; of the stem descriptors (count, descriptor_dim) */
    const float *cosines, *sines;     /* (count, HEAD_DIM / 2) rotary embedding; the first layer does not read them */
    float *y;                         /* (count, EMBED_DIM) output */
    float *confidence, *matchability; /* (count,) output */
    int64_t count;                    /* keypoints */
} Side;

/* Queries, keys and values of one image, packed for attention. `padded` is count rounded up to a multiple of PANEL. */
typedef struct {
    uint8_t *query;              /* (count, EMBED_DIM), zero point ZERO_POINT */
    float *query_scale;          /* (count, HEADS), includes log2(e) / sqrt(HEAD_DIM): softmax uses exp2 */
    int8_t *key;                 /* (HEADS, padded / PANEL, HEAD_DIM / 4, PANEL, 4) */
    int32_t *key_zero_point_sum; /* (HEADS, padded): -ZERO_POINT * sum of a key's int8 values */
    float *key_scale;            /* (HEADS, padded) */
    uint16_t *value;             /* (HEADS, padded / 2, HEAD_DIM, 2) bfloat16 */
    int64_t count, padded;
} PackedQKV;

#endif
