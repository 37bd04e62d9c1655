/* The similarities of nearest neighbours, in 8 bits. */

#include "kernels.h"

#ifdef HAS_KERNELS

#include "simd.h"

/* The largest and the second largest of the maxima of 16 lanes, given the second largest of each lane, too. */
static void reduce(__m512i most, __m512i next, int32_t *largest, int32_t *second) {
    int32_t first[16], others[16];
    _mm512_storeu_si512(first, most), _mm512_storeu_si512(others, next);
    *largest = *second = 0;
    for (int i = 0; i < 16; i++) {
        int32_t smaller = first[i] < *largest ? first[i] : *largest;
        if (first[i] > *largest) *largest = first[i];
        if (smaller > *second) *second = smaller;
        if (others[i] > *second) *second = others[i];
    }
}

/* For each row of x (rows, 4 steps), the largest and the second largest of its products with the columns of `panels`
   (columns / PANEL, steps, PANEL, 4). Columns of zeros may fill the last panel: no factor is negative. */
void lgbatch_two_largest(const uint8_t *x, int64_t rows, int64_t steps, const int8_t *panels, int64_t columns,
                         int32_t *largest, int32_t *second) {
    static const int32_t zeros[PANEL];
    int32_t acc[TILE_ROWS * PANEL];
    __m512i most[CHUNK_ROWS], next[CHUNK_ROWS];
    for (int64_t chunk = 0; chunk < rows; chunk += CHUNK_ROWS) {
        const int64_t count = min_i64(CHUNK_ROWS, rows - chunk);
        for (int64_t row = 0; row < count; row++) most[row] = next[row] = _mm512_setzero_si512();
        for (int64_t column = 0; column < columns; column += PANEL) {
            for (int64_t row = 0; row < count; row += TILE_ROWS) {
                const int64_t tile = min_i64(TILE_ROWS, count - row);
                gemm_int8(x + (chunk + row) * 4 * steps, 4 * steps, panels + column * 4 * steps, steps, zeros, tile,
                          acc);
                for (int64_t r = 0; r < tile; r++) {
                    for (int i = 0; i < PANEL; i += 16) {
                        __m512i product = _mm512_loadu_si512(acc + r * PANEL + i), smaller;
                        smaller = _mm512_min_epi32(product, most[row + r]);
                        most[row + r] = _mm512_max_epi32(product, most[row + r]);
                        next[row + r] = _mm512_max_epi32(smaller, next[row + r]);
                    }
                }
            }
        }
        for (int64_t row = 0; row < count; row++) {
            reduce(most[row], next[row], largest + chunk + row, second + chunk + row);
        }
    }
}

END_TARGET
#endif
