/* Dense layers with int8 weights. */

#include "kernels.h"

#ifdef HAS_KERNELS

#include "simd.h"

/* Quantize x (count,) to 8 bits with zero point 128 and one scale per GROUP; count is a multiple of GROUP. */
void quantize(const float *x, int64_t count, uint8_t *q, float *scale) {
    for (int64_t group = 0; group < count / GROUP; group++, x += GROUP, q += GROUP) {
        __m512 maxima = _mm512_setzero_ps();
        for (int i = 0; i < GROUP; i += 16) maxima = _mm512_max_ps(maxima, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
        float max_abs = _mm512_reduce_max_ps(maxima);
        scale[group] = max_abs / 127.0f;
        __m512 inverse_scale = _mm512_set1_ps(max_abs > 0 ? 127.0f / max_abs : 0.0f);
        for (int i = 0; i < GROUP; i += 16) {
            __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse_scale));
            rounded = _mm512_add_epi32(rounded, _mm512_set1_epi32(128));
            _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtepi32_epi8(rounded));
        }
    }
}

/* Dequantize the accumulators of one panel into y (rows, PANEL), whose rows are out_dim apart. The first group starts
   from the bias; later groups add to y. */
static void dequantize(const Dense *layer, int64_t column, int64_t group, const int32_t *acc, const float *x_scale,
                       int64_t rows, float *y) {
    const int64_t groups = layer->in_dim / GROUP;
    for (int64_t r = 0; r < rows; r++, acc += PANEL, y += layer->out_dim) {
        __m512 row_scale = _mm512_set1_ps(x_scale[r * groups + group]);
        for (int i = 0; i < PANEL; i += 16) {
            __m512 scale = _mm512_mul_ps(row_scale, _mm512_loadu_ps(layer->scale + column + i));
            __m512 previous = _mm512_loadu_ps(group ? y + i : layer->bias + column + i);
            _mm512_storeu_ps(y + i, _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(acc + i)), scale, previous));
        }
    }
}

/* y (rows, out_dim) = x W + b, from quantized x (rows, in_dim) with scales (rows, in_dim / GROUP). */
void dense(const Dense *layer, const uint8_t *x, const float *x_scale, int64_t rows, float *y) {
    const int64_t groups = layer->in_dim / GROUP;
    int32_t acc[TILE_ROWS * PANEL];
    for (int64_t column = 0; column < layer->out_dim; column += PANEL) {
        for (int64_t row = 0; row < rows; row += TILE_ROWS) {
            const int64_t count = min_i64(TILE_ROWS, rows - row);
            for (int64_t group = 0; group < groups; group++) {
                const int8_t *weight = layer->weight + column * layer->in_dim + group * GROUP * PANEL;
                gemm_int8(x + row * layer->in_dim + group * GROUP, layer->in_dim, weight, GROUP / 4,
                          layer->zero_point_sum + group * layer->out_dim + column, count, acc);
                dequantize(layer, column, group, acc, x_scale + row * groups, count, y + row * layer->out_dim + column);
            }
        }
    }
}

END_TARGET
#endif
