/* DISK (Tyszkiewicz, Fua and Trulls, NeurIPS 2020) with 16-bit convolutions.

   Activations are symmetric int16, value = scale * int16, with one scale per convolution, computed at run time; weights
   have one scale per output and GEMM. Sums are int32. The inputs of a GEMM are at most 4 LARGEST, and the absolute
   weights of an output add up to at most 2^31 / (4 LARGEST): no sum overflows. Where only bfloat16 has fast products,
   the int16 are rounded to it just before them. Normalization and statistics are float.

   Instance normalization follows all convolutions but the last. It subtracts the means, so biases would change nothing,
   and are left out: maps are nearly centred, which lets them be stored in half precision, half the memory traffic of
   float. The photo is centred, too. */

#ifndef LGBATCH_DISK_TYPES_H
#define LGBATCH_DISK_TYPES_H

#include "../kernels.h"

enum {
    KERNEL = 5,           /* side of the convolutions' windows */
    REACH = KERNEL / 2,   /* pixels around an output that it depends on */
    ROWS = KERNEL + 1,    /* of the input that two rows of outputs depend on */
    TERMS = 7,            /* products for two outputs in a row or column: see convolution.h */
    DOWN = 4,             /* times that the map is halved */
    UP = 3,               /* times that it is doubled before the last, whose result is not stored */
    FIRST_CHANNELS = 16,  /* of the first map */
    MAP_CHANNELS = 64,    /* of a map, at most */
    INPUT_CHANNELS = 128, /* of a convolution's input, at most */
    LAST_CHANNELS = 80,   /* of the inputs of the heatmap and the descriptors: 64 upsampled, 16 of the first map */
    DESCRIPTOR_DIM = 128,
    LARGEST = 8191,       /* absolute value of activations */
    STRIP = 60,           /* columns that are convolved at once: what they need stays in the L2 cache */
    FIRST_PIXELS = PANEL / FIRST_CHANNELS,                    /* outputs of the first convolution at once */
    FIRST_STEPS = (KERNEL - 1 + FIRST_PIXELS) * 3 * ROWS / 2, /* pairs of its inputs, RGB of six rows */
};

typedef int16_t Factor; /* or the bits of a bfloat16: see all.h */

/* A convolution to PANEL or NARROW_PANEL channels. */
typedef struct {
    const Factor *weight; /* by targets: (row terms, column terms, in / 2, out, 2) */
    const float *scale;   /* (TARGETS, TARGETS, out) */
    const float *slope;   /* (in,): of the PReLU before it */
    int64_t in, out;
} Convolution;

typedef struct {
    const Factor *first_weight; /* (2, FIRST_STEPS, PANEL, 2): for the first and the second of two rows of outputs */
    const float *first_scale;   /* (PANEL,) */
    Convolution down[DOWN], up[UP];
    const float *last_slope;         /* (LAST_CHANNELS,) */
    const Factor *heat_weight;       /* (LAST_CHANNELS / 2, NARROW_PANEL, 2): column KERNEL * y + x adds to the pixel at
                                        (x - REACH, y - REACH) from the input's; others are 0 */
    const float *heat_scale;         /* (NARROW_PANEL,) */
    const Factor *descriptor_weight; /* (KERNEL, DESCRIPTOR_DIM / PANEL, KERNEL * LAST_CHANNELS / 2, PANEL, 2) */
    const float *descriptor_scale;   /* (KERNEL, DESCRIPTOR_DIM) */
    const float *descriptor_bias;    /* (DESCRIPTOR_DIM,) */
    float heat_bias;
} Disk;

/* Of the values of each channel. */
typedef struct {
    double sum[MAP_CHANNELS], squares[MAP_CHANNELS];
    float least[MAP_CHANNELS], most[MAP_CHANNELS];
} Statistics;

typedef struct {
    uint16_t *x; /* (height, width, channels), in half precision */
    int64_t height, width, channels;
    Statistics statistics;
    double upsampled[MAP_CHANNELS]; /* sums of squares at twice the size, of maps that are upsampled */
} DiskMap;

/* Instance normalization, then PReLU, then quantization: y = x scale + shift, times the slope if negative. */
typedef struct {
    float scale[MAP_CHANNELS], shift[MAP_CHANNELS], slope[MAP_CHANNELS];
} Gate;

/* The input of a convolution: the channels of `low`, upsampled to twice its size, unless it is NULL, then those of
   `same`. */
typedef struct {
    const DiskMap *low, *same;
    Gate low_gate, same_gate;
    int64_t channels;
    float scale; /* of the quantized values */
} Source;

#endif
