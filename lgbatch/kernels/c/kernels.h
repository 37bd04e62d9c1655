/* What all kernels share. Arrays are row-major and owned by the caller. */

#ifndef LGBATCH_KERNELS_H
#define LGBATCH_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "target.h"

enum {
    PANEL = 64,        /* GEMM columns (outputs or keys) stored together */
    NARROW_PANEL = 32, /* the same for fewer outputs */
};

#endif
