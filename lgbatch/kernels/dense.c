/* Products with weights in 8 bits. */

#include "kernels.h"

#ifdef HAS_KERNELS

#include "simd.h"

/* Round `count` (a multiple of GROUP) numbers to 8 bits, 128 added, with a scale for each GROUP. */
void quantize(const float *x, int64_t count, uint8_t *q, float *scale) {
    for (int64_t group = 0; group < count / GROUP; group++, x += GROUP, q += GROUP) {
        __m512 most = _mm512_setzero_ps();
        for (int i = 0; i < GROUP; i += 16) most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
        float largest = _mm512_reduce_max_ps(most);
        scale[group] = largest / 127.0f;
        __m512 by = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
        for (int i = 0; i < GROUP; i += 16) {
            __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), by));
            rounded = _mm512_add_epi32(rounded, _mm512_set1_epi32(128));
            _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtepi32_epi8(rounded));
        }
    }
}

/* y (rows, PANEL) of a panel, `outs` numbers from row to row; a group after the first is added. */
static void scaled(const Dense *by, int64_t first, int64_t group, const int32_t *sum, const float *x_scale, int64_t rows,
                   float *y) {
    const int64_t groups = by->ins / GROUP;
    for (int64_t r = 0; r < rows; r++, sum += PANEL, y += by->outs) {
        __m512 scale = _mm512_set1_ps(x_scale[r * groups + group]);
        for (int i = 0; i < PANEL; i += 16) {
            __m512 both = _mm512_mul_ps(scale, _mm512_loadu_ps(by->scale + first + i));
            __m512 before = _mm512_loadu_ps(group ? y + i : by->bias + first + i);
            _mm512_storeu_ps(y + i, _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sum + i)), both, before));
        }
    }
}

/* x (rows, ins) with scales (rows, ins / GROUP) to y (rows, outs). */
void dense(const Dense *by, const uint8_t *x, const float *x_scale, int64_t rows, float *y) {
    const int64_t groups = by->ins / GROUP;
    int32_t sum[ROWS * PANEL];
    for (int64_t first = 0; first < by->outs; first += PANEL) {
        for (int64_t row = 0; row < rows; row += ROWS) {
            const int64_t count = least(ROWS, rows - row);
            for (int64_t group = 0; group < groups; group++) {
                const int8_t *weight = by->weight + first * by->ins + group * GROUP * PANEL;
                multiply_bytes(x + row * by->ins + group * GROUP, by->ins, weight, GROUP / 4,
                               by->begin + group * by->outs + first, count, sum);
                scaled(by, first, group, sum, x_scale + row * groups, count, y + row * by->outs + first);
            }
        }
    }
}

END_OF_KERNELS
#endif
