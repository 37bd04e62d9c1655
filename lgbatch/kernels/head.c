/* The matching head of LightGlue. Projections and similarities are bfloat16 GEMMs with float accumulators; everything
   else is float.

   With similarities s and log matchabilities z, the log assignment matrix is

       2 s_ij - row_logsumexp_i - column_logsumexp_j + z_i + z_j

   A term that is constant along an axis does not change the argmax along it: each argmax reads 2 s plus one vector. */

#include "kernels.h"

#ifdef HAS_KERNELS

#include <math.h>
#include <string.h>

#include "simd.h"

#define MASKED -1e30f /* similarity of padding: its exponential is 0 */

/* Size of the scratch buffer of lgbatch_head, which must be aligned to 64 bytes. */
size_t lgbatch_head_scratch_bytes(int64_t count0, int64_t count1) {
    const size_t m = round_up_to_panel(count0), n = round_up_to_panel(count1);
    return (m + 2 * n) * EMBED_DIM * 2 + 2 * m * 4 + 5 * n * 4 + m * n * 4;
}

/* Round x (rows, EMBED_DIM) to bfloat16. */
static void to_bf16(const float *x, int64_t rows, uint16_t *y) {
    for (int64_t i = 0; i < rows * EMBED_DIM; i += 32) {
        __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i));
        _mm512_storeu_si512(y + i, (__m512i)rounded);
    }
}

/* Project x (rows, EMBED_DIM) to y (rows, EMBED_DIM) in bfloat16. */
static void project(const Head *head, const float *x, int64_t rows, uint16_t *y) {
    uint16_t x_bf16[TILE_ROWS * EMBED_DIM];
    float projected[TILE_ROWS * EMBED_DIM], acc[TILE_ROWS * PANEL];
    for (int64_t row = 0; row < rows; row += TILE_ROWS) {
        int64_t count = min_i64(TILE_ROWS, rows - row);
        to_bf16(x + row * EMBED_DIM, count, x_bf16);
        for (int64_t column = 0; column < EMBED_DIM; column += PANEL) {
            for (int64_t r = 0; r < count; r++) memcpy(acc + r * PANEL, head->projection_bias + column, PANEL * 4);
            gemm_bf16(x_bf16, EMBED_DIM, head->projection_weight + column * EMBED_DIM, EMBED_DIM / 2, count, acc);
            for (int64_t r = 0; r < count; r++) memcpy(projected + r * EMBED_DIM + column, acc + r * PANEL, PANEL * 4);
        }
        to_bf16(projected, count, y + row * EMBED_DIM);
    }
}

/* Transpose rows (count, EMBED_DIM) to GEMM panels (padded / PANEL, EMBED_DIM / 2, PANEL, 2), padded with 0. */
static void transpose_to_panels(const uint16_t *rows, int64_t count, uint16_t *panels) {
    for (int64_t row = 0; row < round_up_to_panel(count); row++) {
        uint16_t *column = panels + row / PANEL * PANEL * EMBED_DIM + row % PANEL * 2;
        for (int64_t i = 0; i < EMBED_DIM; i += 2, column += 2 * PANEL) {
            if (row < count) memcpy(column, rows + row * EMBED_DIM + i, 4);
            else memset(column, 0, 4);
        }
    }
}

/* z (count,) = log(sigmoid(w x + b)) of each row of x (count, EMBED_DIM). */
static void log_matchability(const Head *head, const float *x, int64_t count, float *z) {
    for (int64_t row = 0; row < count; row++, x += EMBED_DIM) {
        __m512 sum = _mm512_setzero_ps();
        for (int i = 0; i < EMBED_DIM; i += 16)
            sum = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(head->matchability_weight + i), sum);
        z[row] = -log1pf(expf(-(_mm512_reduce_add_ps(sum) + head->matchability_bias)));
    }
}

/* Compute the similarities s (count, n) of the keypoints of image 0 to the `columns` keypoints of image 1, with n =
   round_up_to_panel(columns) and padding MASKED. Also computes row_logsumexp (count,) and column_max (n,). */
static void compute_similarities(const uint16_t *rows, int64_t count, const uint16_t *panels, int64_t columns, float *s,
                                 float *row_logsumexp, float *column_max) {
    const int64_t n = round_up_to_panel(columns);
    for (int64_t i = 0; i < n; i++) column_max[i] = MASKED;
    for (int64_t row = 0; row < count; row += TILE_ROWS) {
        const int64_t tile_rows = min_i64(TILE_ROWS, count - row);
        for (int64_t first = 0; first < n; first += PANEL) {
            float acc[TILE_ROWS * PANEL] = {0};
            gemm_bf16(rows + row * EMBED_DIM, EMBED_DIM, panels + first * EMBED_DIM, EMBED_DIM / 2, tile_rows, acc);
            for (int64_t r = 0; r < tile_rows; r++)
                for (int64_t i = 0; i < PANEL; i += 16) {
                    const int64_t left = columns - first - i;
                    __mmask16 valid = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
                    __m512 value = _mm512_mask_loadu_ps(_mm512_set1_ps(MASKED), valid, acc + r * PANEL + i);
                    _mm512_storeu_ps(s + (row + r) * n + first + i, value);
                    _mm512_storeu_ps(column_max + first + i,
                                     _mm512_max_ps(value, _mm512_loadu_ps(column_max + first + i)));
                }
        }
        for (int64_t r = row; r < row + tile_rows; r++) {
            __m512 maxima = _mm512_set1_ps(MASKED), sum = _mm512_setzero_ps();
            for (int64_t i = 0; i < n; i += 16) maxima = _mm512_max_ps(maxima, _mm512_loadu_ps(s + r * n + i));
            const float row_max = _mm512_reduce_max_ps(maxima);
            for (int64_t i = 0; i < n; i += 16) {
                __m512 difference = _mm512_sub_ps(_mm512_loadu_ps(s + r * n + i), _mm512_set1_ps(row_max));
                sum = _mm512_add_ps(sum, exp2_float(_mm512_mul_ps(difference, _mm512_set1_ps(LOG2_E))));
            }
            row_logsumexp[r] = row_max + logf(_mm512_reduce_add_ps(sum));
        }
    }
}

/* Log-sum-exp (n,) of the columns of s (count, n), given their maxima. */
static void compute_column_logsumexp(const float *s, int64_t count, int64_t n, const float *column_max,
                                     float *column_logsumexp) {
    float *sum = column_logsumexp;
    for (int64_t i = 0; i < n; i++) sum[i] = 0.0f;
    for (int64_t row = 0; row < count; row++, s += n)
        for (int64_t i = 0; i < n; i += 16) {
            __m512 difference = _mm512_sub_ps(_mm512_loadu_ps(s + i), _mm512_loadu_ps(column_max + i));
            __m512 e = exp2_float(_mm512_mul_ps(difference, _mm512_set1_ps(LOG2_E)));
            _mm512_storeu_ps(sum + i, _mm512_add_ps(e, _mm512_loadu_ps(sum + i)));
        }
    for (int64_t i = 0; i < n; i++) column_logsumexp[i] = column_max[i] + logf(sum[i]);
}

/* Argmax of 2 s + term over one row of s (n,); the lowest index wins a tie. */
INLINE int64_t row_argmax(const float *s, const float *term, int64_t n) {
    __m512 best = _mm512_set1_ps(-INFINITY);
    __m512i argmax = _mm512_setzero_si512();
    __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t i = 0; i < n; i += 16, index = _mm512_add_epi32(index, _mm512_set1_epi32(16))) {
        __m512 value = _mm512_fmadd_ps(_mm512_loadu_ps(s + i), _mm512_set1_ps(2.0f), _mm512_loadu_ps(term + i));
        __mmask16 better = _mm512_cmp_ps_mask(value, best, _CMP_GT_OQ);
        best = _mm512_mask_mov_ps(best, better, value), argmax = _mm512_mask_mov_epi32(argmax, better, index);
    }
    __mmask16 equal = _mm512_cmp_ps_mask(best, _mm512_set1_ps(_mm512_reduce_max_ps(best)), _CMP_EQ_OQ);
    return _mm512_mask_reduce_min_epi32(equal, argmax);
}

/* Update the running maximum `best` (n,) of 2 s + term in each column, and its row `argmax` (n,), with one more row. */
INLINE void update_column_argmax(const float *s, float term, int32_t row, int64_t n, float *best, int32_t *argmax) {
    for (int64_t i = 0; i < n; i += 16) {
        __m512 value = _mm512_fmadd_ps(_mm512_loadu_ps(s + i), _mm512_set1_ps(2.0f), _mm512_set1_ps(term));
        __mmask16 better = _mm512_cmp_ps_mask(value, _mm512_loadu_ps(best + i), _CMP_GT_OQ);
        _mm512_mask_storeu_ps(best + i, better, value);
        _mm512_mask_storeu_epi32(argmax + i, better, _mm512_set1_epi32(row));
    }
}

/* Match two images with at least one keypoint each: mutual best matches whose score exceeds the threshold. Writes
   matches0 (count0,), -1 if unmatched, and scores (count0,), 0 if unmatched. */
void lgbatch_head(const Head *head, const float *x0, const float *x1, int64_t count0, int64_t count1, float threshold,
                  uint8_t *scratch, int64_t *matches0, float *scores) {
    const int64_t m = round_up_to_panel(count0), n = round_up_to_panel(count1);
    uint16_t *rows0 = (uint16_t *)scratch, *panels1 = rows0 + m * EMBED_DIM;
    uint16_t *rows1 = panels1 + n * EMBED_DIM;
    float *row_term = (float *)(rows1 + n * EMBED_DIM), *row_logsumexp = row_term + m;
    float *column_term = row_logsumexp + m, *column_logsumexp = column_term + n;
    float *column_max = column_logsumexp + n, *best = column_max + n;
    int32_t *argmax = (int32_t *)(best + n);
    float *s = best + 2 * n;
    project(head, x0, count0, rows0);
    project(head, x1, count1, rows1);
    transpose_to_panels(rows1, count1, panels1);
    compute_similarities(rows0, count0, panels1, count1, s, row_logsumexp, column_max);
    compute_column_logsumexp(s, count0, n, column_max, column_logsumexp);
    log_matchability(head, x0, count0, row_term);
    log_matchability(head, x1, count1, column_term);
    for (int64_t i = 0; i < count0; i++) row_term[i] -= row_logsumexp[i];
    for (int64_t i = 0; i < n; i++) column_term[i] = i < count1 ? column_term[i] - column_logsumexp[i] : MASKED;
    for (int64_t i = 0; i < n; i++) best[i] = -INFINITY, argmax[i] = 0;
    for (int64_t i = 0; i < count0; i++) {
        matches0[i] = row_argmax(s + i * n, column_term, n);
        update_column_argmax(s + i * n, row_term[i], (int32_t)i, n, best, argmax);
    }
    for (int64_t i = 0; i < count0; i++) {
        const int64_t j = matches0[i];
        const float score = expf(2 * s[i * n + j] + row_term[i] + column_term[j]);
        if (argmax[j] != i || !(score > threshold)) matches0[i] = -1, scores[i] = 0.0f;
        else scores[i] = score;
    }
}

END_TARGET
#endif
