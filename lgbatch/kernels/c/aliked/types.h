/* ALIKED's network up to its maps, in fp32. lgbatch/kernels/convolutions.py packs the weights. */

#ifndef LGBATCH_ALIKED_TYPES_H
#define LGBATCH_ALIKED_TYPES_H

#include "../kernels.h"

enum {
    OUTPUTS = 16, /* outputs stored together: the widest vector */
    STRIDE = 32,  /* the maps' sides are multiples of this */
};

/* A convolution that keeps the size, 3 x 3 (9 taps, row by row) or 1 x 1 (1 tap). Its weight is in one of two layouts:

       blocks    (ceil(out / OUTPUTS), taps, in, OUTPUTS), zeros beyond the last output: pixels are multiplied one by one
       squares   (16, ceil(out / OUTPUTS), in, OUTPUTS): as blocks, but each 3 x 3 kernel g is transformed to 4 x 4 values
                 T g T', with T = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1]
       planes    (3, in, 3, out) or (in, out): rows of a channel are multiplied, for few outputs

   The bias has out values, rounded up to a multiple of OUTPUTS, or is NULL. A convolution without weight is absent. */
typedef struct {
    const float *weight, *bias;
    int64_t in, out;
} Conv;

/* Two 3 x 3 convolutions, in blocks. If offset is present (in both or none), they are deformable by the offsets that it
   predicts: (y, x) of each tap, in pixels. around is the 1 x 1 convolution of the skip connection, whose bias includes
   that of conv[1], or absent. */
typedef struct {
    Conv conv[2], offset[2], around;
} AlikedBlock;

typedef struct {
    AlikedBlock blocks[4];
    Conv aggregate[4]; /* to dim / 4 channels of each level; the first in planes, the others in blocks */
    Conv parts[4];     /* the part of each level in the score head's 8 channels; likewise */
    Conv head[3];      /* 3 x 3 convolutions to 4, 4 and 1 channels, in planes */
} AlikedNet;

/* Outputs, owned by the caller. H and W are the sides of the photo rounded up to multiples of STRIDE: half of the
   padding, rounded down, is above and on the left. */
typedef struct {
    float *first;     /* (H, W, c1): block 1, channels last */
    float *levels[3]; /* (H / 2, W / 2, dim / 4), / 8 and / 32: after aggregation and SELU, channels last */
    float *scores;    /* (H, W): after the sigmoid */
} AlikedMaps;

#endif
