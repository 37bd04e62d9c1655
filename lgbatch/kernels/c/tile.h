/* Matrix products: the microkernels of gemm.h for int8, bfloat16 and float. */

enum {
    TILE_ROWS = 6, /* rows computed at once against a panel */
    LONGEST = 128, /* steps, at most, of rows that are packed first */
};

INLINE int32_t load_word(const uint8_t *bytes) {
    int32_t word;
    memcpy(&word, bytes, 4);
    return word;
}

#ifdef NATIVE_MATRIX
/* Pack rows (rows, 4 steps) for matrix.h: to (TILE_ROWS / 2, 2 LONGEST), with 8 bytes of row r and 8 of row r + 1 in
   turn. If the number of rows is odd, the last one is paired with itself; if that of steps is, 0 follows. */
INLINE void pack_pairs(const uint8_t *x, int64_t stride, int64_t steps, int64_t rows, int32_t *to) {
    for (int64_t r = 0; r < rows; r += 2, to += 2 * LONGEST) {
        const uint8_t *first = x + r * stride, *second = r + 1 < rows ? first + stride : first;
        for (int64_t i = 0; i < steps / 2; i++) vi_store(to + 4 * i, vi_load_halves(first + 8 * i, second + 8 * i));
        if (steps % 2) {
            int32_t *last = to + 2 * (steps - 1);
            last[0] = load_word(first + 4 * (steps - 1)), last[2] = load_word(second + 4 * (steps - 1));
            last[1] = last[3] = 0;
        }
    }
}
#endif

#define WHOLE(part, x) (x)
#define EVEN_OR_ODD_BYTES(part, word) ((int32_t)((uint32_t)(word) >> 8 * (part) & 0x00ff00ff))
#define BF16_TO_FLOAT(part, word) ((int32_t)((part) ? (uint32_t)(word) & 0xffff0000 : (uint32_t)(word) << 16))

#define TILE int8_tile
#define GEMM int8_gemm
#define SCALAR int32_t
#define VECTOR vi
#define LOAD vi_load
#define STORE vi_store
#ifdef NATIVE_MATRIX
#define MATRIX matrix_int8
#else
#define DOT dot_int8
#endif
#ifdef NATIVE_INT8
#define PARTS 1
#define PANEL_PART WHOLE
#else
#define PARTS 2
#define PANEL_PART int8_part
#define WORD_PART EVEN_OR_ODD_BYTES
#endif
#include "gemm.h"

#define TILE bf16_tile
#define GEMM bf16_gemm
#define SCALAR float
#define VECTOR vf
#define LOAD vf_load
#define STORE vf_store
#ifdef NATIVE_MATRIX
#define MATRIX matrix_bf16
#else
#define DOT dot_bf16
#endif
#ifdef NATIVE_BF16
#define PARTS 1
#define PANEL_PART WHOLE
#else
#define PARTS 2
#define PANEL_PART bf16_part
#define WORD_PART BF16_TO_FLOAT
#endif
#include "gemm.h"

#define TILE float_tile
#define GEMM float_gemm
#define SCALAR float
#define VECTOR vf
#define LOAD vf_load
#define STORE vf_store
#define DOT dot_float
#define PARTS 1
#define PANEL_PART WHOLE
#include "gemm.h"

/* acc (rows, PANEL) = start (PANEL,) + x (rows, 4 steps) panel (steps, PANEL, 4), for 1 to TILE_ROWS rows. x is
   unsigned if ZERO_POINT is not 0. `stride` is the distance between rows of x in bytes. */
INLINE void gemm_int8(const uint8_t *x, int64_t stride, const int8_t *panel, int64_t steps, const int32_t *start,
                      int64_t rows, int32_t *acc) {
    int8_gemm(x, stride, (const uint8_t *)panel, steps, start, 0, rows, acc);
}

#if ZERO_POINT
#define gemm_uint8 gemm_int8
#else
#define TILE uint8_tile
#define GEMM uint8_gemm
#define SCALAR int32_t
#define VECTOR vi
#define LOAD vi_load
#define STORE vi_store
#ifdef NATIVE_MATRIX
#define MATRIX matrix_uint8
#else
#define DOT dot_uint8
#endif
#define PARTS 1
#define PANEL_PART WHOLE
#include "gemm.h"

/* The same for unsigned x and columns without a negative value. */
INLINE void gemm_uint8(const uint8_t *x, int64_t stride, const int8_t *panel, int64_t steps, const int32_t *start,
                       int64_t rows, int32_t *acc) {
    uint8_gemm(x, stride, (const uint8_t *)panel, steps, start, 0, rows, acc);
}
#endif

/* acc (rows, PANEL) += x (rows, 2 steps) panel (steps, PANEL, 2), both bfloat16, for 1 to TILE_ROWS rows. `stride` is
   the distance between rows of x in elements. */
INLINE void gemm_bf16(const uint16_t *x, int64_t stride, const uint16_t *panel, int64_t steps, int64_t rows,
                      float *acc) {
    bf16_gemm((const uint8_t *)x, 2 * stride, (const uint8_t *)panel, steps, acc, PANEL, rows, acc);
}

/* acc (rows, PANEL) += x (rows, steps) panel (steps, PANEL), both float, for 1 to TILE_ROWS rows. `stride` is the
   distance between rows of x in elements. */
INLINE void gemm_float(const float *x, int64_t stride, const float *panel, int64_t steps, int64_t rows, float *acc) {
    float_gemm((const uint8_t *)x, 4 * stride, (const uint8_t *)panel, steps, acc, PANEL, rows, acc);
}

#define TILE factors_tile
#define GEMM factors_gemm
#define SCALAR int32_t
#define VECTOR vi
#define LOAD vi_load
#define STORE vi_store
#define DOT dot_factors
#define PARTS 1
#define PANEL_PART WHOLE
#include "gemm.h"

/* acc (rows, PANEL) = x (rows, 2 steps) panel (steps, PANEL, 2), both factors (all.h), for 1 to TILE_ROWS rows.
   `stride` is the distance between rows of x in elements. */
INLINE void gemm_factors(const int16_t *x, int64_t stride, const int16_t *panel, int64_t steps, int64_t rows,
                       int32_t *acc) {
    factors_gemm((const uint8_t *)x, 2 * stride, (const uint8_t *)panel, steps, zeros, 0, rows, acc);
}

#define COLUMNS NARROW_PANEL
#define VECTORS 2
#define TILE factors_narrow_tile
#define GEMM factors_narrow_gemm
#define SCALAR int32_t
#define VECTOR vi
#define LOAD vi_load
#define STORE vi_store
#define DOT dot_factors
#define PARTS 1
#define PANEL_PART WHOLE
#include "gemm.h"

/* The same for panels of NARROW_PANEL columns. */
INLINE void gemm_factors_narrow(const int16_t *x, int64_t stride, const int16_t *panel, int64_t steps, int64_t rows,
                              int32_t *acc) {
    factors_narrow_gemm((const uint8_t *)x, 2 * stride, (const uint8_t *)panel, steps, zeros, 0, rows, acc);
}
