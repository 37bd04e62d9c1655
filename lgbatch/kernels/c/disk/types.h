/* DISK (Tyszkiewicz, Fua and Trulls, NeurIPS 2020) with 16-bit convolutions. Where only bfloat16 has fast products,
   the int16 below are rounded to it just before them.

   Activations are symmetric int16, value = scale * int16, with one scale per convolution, computed at run time; weights
   have one scale per output and GEMM. Sums are int32: |inputs| are at most 4 LEVELS, and the sum of the absolute weights
   of an output is at most 2^31 / (4 LEVELS), so that none overflows. Normalization and statistics are float.

   Instance normalization follows all convolutions but the last. It subtracts the means, so biases would change nothing,
   and are left out: maps are nearly centred, which lets them be stored in half precision, half the memory traffic of
   float. The photo is centred, too.

   Maps are (height, width, channels); `Disk` has a U-Net's maps of 1, 1/2, ..., 1/16 of the size. */

#ifndef LGBATCH_DISK_TYPES_H
#define LGBATCH_DISK_TYPES_H

#include "../kernels.h"

enum {
    KERNEL = 5,            /* side of the convolutions' windows */
    MARGIN = KERNEL / 2,   /* pixels around an output that it depends on */
    ROWS = KERNEL + 1,     /* of the input that two rows of outputs depend on */
    FIRST_CHANNELS = 16,   /* of the first map */
    FIRST_PIXELS = PANEL / FIRST_CHANNELS,
    FIRST_STEPS = (KERNEL - 1 + FIRST_PIXELS) * 3 * ROWS / 2, /* of the first convolution, whose input is RGB */
    TERMS = 7,             /* products for two outputs in a row or column: see convolution.h */
    DOWN = 4,              /* times that the map is halved */
    UP = 3,                /* times that it is doubled before the last, which only the heatmap and the descriptors need */
    MAP_CHANNELS = 64,     /* of a map, at most */
    INPUT_CHANNELS = 128,  /* of a convolution's input, at most */
    LAST_CHANNELS = 80,    /* of the inputs of the heatmap and the descriptors: 64 upsampled, 16 of the first map */
    DESCRIPTOR_DIM = 128,
    LEVELS = 8191,         /* of quantized activations, on each side of 0 */
    STRIP = 60,            /* columns that are convolved at once: their rows and the weights stay in the L2 cache */
};

typedef int16_t Factor; /* or the bits of a bfloat16: see all.h */

/* A convolution to PANEL or NARROW_PANEL channels. */
typedef struct {
    const Factor *weight; /* by targets: (row terms, column terms, in / 2, out, 2) */
    const float *scale;    /* (TARGETS, TARGETS, out) */
    const float *slope;    /* (in,): of the PReLU before it */
    int64_t in, out;
} Convolution;

typedef struct {
    const Factor *first_weight; /* (2, FIRST_STEPS, PANEL, 2): for the first and the second of two rows of outputs */
    const float *first_scale;    /* (PANEL,) */
    Convolution down[DOWN], up[UP];
    const float *last_slope;          /* (LAST_CHANNELS,) */
    const Factor *heat_weight;       /* (LAST_CHANNELS / 2, NARROW_PANEL, 2): column KERNEL * y + x adds to the pixel at
                                         (x - MARGIN, y - MARGIN) from the input's; others are 0 */
    const float *heat_scale;          /* (NARROW_PANEL,) */
    const Factor *descriptor_weight; /* (KERNEL, DESCRIPTOR_DIM / PANEL, KERNEL * LAST_CHANNELS / 2, PANEL, 2) */
    const float *descriptor_scale;    /* (KERNEL, DESCRIPTOR_DIM) */
    const float *descriptor_bias;     /* (DESCRIPTOR_DIM,) */
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
} Map;

/* Instance normalization, then PReLU, then quantization: y = x scale + shift, times the slope if negative. */
typedef struct {
    float scale[MAP_CHANNELS], shift[MAP_CHANNELS], slope[MAP_CHANNELS];
} Gate;

/* The input of a convolution: the channels of `low`, upsampled to twice its size, unless it is NULL, then those of
   `same`. */
typedef struct {
    const Map *low, *same;
    Gate low_gate, same_gate;
    int64_t channels;
    float scale; /* of the quantized values */
} Source;

#endif
