/* The head of LightGlue: which points of two images match. Projections and similarities are products of bfloat16 with sums
   in single precision, in which everything else is.

   The assignment's logarithm is 2 s_ij - row_i - column_j + certain_i + certain_j, with s the similarities, row and column
   the logarithms of the sums of their exponentials along each, and certain that of how likely a point has a match. What is
   constant along an axis does not change where its maximum is, so that each axis looks at 2 s plus one vector. */

#include "kernels.h"

#ifdef HAS_KERNELS

#include <math.h>
#include <string.h>

#include "simd.h"

#define NEVER -1e30f

/* How many bytes of scratch memory, beginning at a multiple of 64, the head wants for such a pair. */
size_t lgbatch_head_scratch(int64_t count0, int64_t count1) {
    const size_t m = padded(count0), n = padded(count1);
    return (m + 2 * n) * WIDTH * 2 + 2 * m * 4 + 5 * n * 4 + m * n * 4;
}

/* Round `rows` rows of WIDTH numbers to bfloat16. */
static void shorten(const float *x, int64_t rows, uint16_t *to) {
    for (int64_t i = 0; i < rows * WIDTH; i += 32) {
        __m512bh two = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i));
        _mm512_storeu_si512(to + i, (__m512i)two);
    }
}

/* What similarities are products of, of rows of an image: (rows, WIDTH) bfloat16. */
static void project(const Head *by, const float *x, int64_t rows, uint16_t *to) {
    uint16_t short_x[ROWS * WIDTH];
    float y[ROWS * WIDTH], sum[ROWS * PANEL];
    for (int64_t row = 0; row < rows; row += ROWS) {
        int64_t count = least(ROWS, rows - row);
        shorten(x + row * WIDTH, count, short_x);
        for (int64_t first = 0; first < WIDTH; first += PANEL) {
            for (int64_t r = 0; r < count; r++) memcpy(sum + r * PANEL, by->bias + first, PANEL * 4);
            multiply_shorts(short_x, WIDTH, by->weight + first * WIDTH, WIDTH / 2, count, sum);
            for (int64_t r = 0; r < count; r++) memcpy(y + r * WIDTH + first, sum + r * PANEL, PANEL * 4);
        }
        shorten(y, count, to + row * WIDTH);
    }
}

/* Rows (count, WIDTH) as columns of a product: (padded / PANEL, WIDTH / 2, PANEL, 2), padding 0. */
static void turn_over(const uint16_t *rows, int64_t count, uint16_t *panels) {
    for (int64_t row = 0; row < padded(count); row++) {
        uint16_t *to = panels + row / PANEL * PANEL * WIDTH + row % PANEL * 2;
        for (int64_t i = 0; i < WIDTH; i += 2, to += 2 * PANEL) {
            if (row < count) memcpy(to, rows + row * WIDTH + i, 4);
            else memset(to, 0, 4);
        }
    }
}

/* log(sigmoid(w x + b)) of each row. */
static void certainty(const Head *by, const float *x, int64_t count, float *to) {
    for (int64_t row = 0; row < count; row++, x += WIDTH) {
        __m512 sum = _mm512_setzero_ps();
        for (int i = 0; i < WIDTH; i += 16)
            sum = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(by->certain + i), sum);
        to[row] = -log1pf(expf(-(_mm512_reduce_add_ps(sum) + by->certain_bias)));
    }
}

/* The similarities (count, n) of an image's points to those of the other, and the logarithms of the sums of their
   exponentials along rows; `most` becomes the greatest of each column. Padding is NEVER. */
static void similarities(const uint16_t *rows, int64_t count, const uint16_t *panels, int64_t columns, float *s,
                         float *row_sum, float *most) {
    const int64_t n = padded(columns);
    for (int64_t i = 0; i < n; i++) most[i] = NEVER;
    for (int64_t row = 0; row < count; row += ROWS) {
        const int64_t several = least(ROWS, count - row);
        for (int64_t first = 0; first < n; first += PANEL) {
            float sum[ROWS * PANEL] = {0};
            multiply_shorts(rows + row * WIDTH, WIDTH, panels + first * WIDTH, WIDTH / 2, several, sum);
            for (int64_t r = 0; r < several; r++)
                for (int64_t i = 0; i < PANEL; i += 16) {
                    const int64_t left = columns - first - i;
                    __mmask16 real = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
                    __m512 value = _mm512_mask_loadu_ps(_mm512_set1_ps(NEVER), real, sum + r * PANEL + i);
                    _mm512_storeu_ps(s + (row + r) * n + first + i, value);
                    _mm512_storeu_ps(most + first + i, _mm512_max_ps(value, _mm512_loadu_ps(most + first + i)));
                }
        }
        for (int64_t r = row; r < row + several; r++) {
            __m512 greatest = _mm512_set1_ps(NEVER), sum = _mm512_setzero_ps();
            for (int64_t i = 0; i < n; i += 16) greatest = _mm512_max_ps(greatest, _mm512_loadu_ps(s + r * n + i));
            const float base = _mm512_reduce_max_ps(greatest);
            for (int64_t i = 0; i < n; i += 16) {
                __m512 apart = _mm512_sub_ps(_mm512_loadu_ps(s + r * n + i), _mm512_set1_ps(base));
                sum = _mm512_add_ps(sum, exp2_fine(_mm512_mul_ps(apart, _mm512_set1_ps(LOG2_E))));
            }
            row_sum[r] = base + logf(_mm512_reduce_add_ps(sum));
        }
    }
}

/* Logarithms of the sums of exponentials along columns, given the greatest of each. */
static void column_sums(const float *s, int64_t count, int64_t n, const float *most, float *sum) {
    for (int64_t i = 0; i < n; i++) sum[i] = 0.0f;
    for (int64_t row = 0; row < count; row++, s += n)
        for (int64_t i = 0; i < n; i += 16) {
            __m512 apart = _mm512_sub_ps(_mm512_loadu_ps(s + i), _mm512_loadu_ps(most + i));
            __m512 e = exp2_fine(_mm512_mul_ps(apart, _mm512_set1_ps(LOG2_E)));
            _mm512_storeu_ps(sum + i, _mm512_add_ps(e, _mm512_loadu_ps(sum + i)));
        }
    for (int64_t i = 0; i < n; i++) sum[i] = most[i] + logf(sum[i]);
}

/* Where 2 s + add (n,) is greatest in a row of n. */
INLINE int64_t greatest_at(const float *s, const float *add, int64_t n) {
    __m512 best = _mm512_set1_ps(-INFINITY);
    __m512i at = _mm512_setzero_si512(), here = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t i = 0; i < n; i += 16, here = _mm512_add_epi32(here, _mm512_set1_epi32(16))) {
        __m512 value = _mm512_fmadd_ps(_mm512_loadu_ps(s + i), _mm512_set1_ps(2.0f), _mm512_loadu_ps(add + i));
        __mmask16 better = _mm512_cmp_ps_mask(value, best, _CMP_GT_OQ);
        best = _mm512_mask_mov_ps(best, better, value), at = _mm512_mask_mov_epi32(at, better, here);
    }
    __mmask16 equal = _mm512_cmp_ps_mask(best, _mm512_set1_ps(_mm512_reduce_max_ps(best)), _CMP_EQ_OQ);
    return _mm512_mask_reduce_min_epi32(equal, at);
}

/* Keep in `best` (n,) and `at` the greatest 2 s + add of each column so far, and its row. */
INLINE void greatest_of_columns(const float *s, float add, int32_t row, int64_t n, float *best, int32_t *at) {
    for (int64_t i = 0; i < n; i += 16) {
        __m512 value = _mm512_fmadd_ps(_mm512_loadu_ps(s + i), _mm512_set1_ps(2.0f), _mm512_set1_ps(add));
        __mmask16 better = _mm512_cmp_ps_mask(value, _mm512_loadu_ps(best + i), _CMP_GT_OQ);
        _mm512_mask_storeu_ps(best + i, better, value);
        _mm512_mask_storeu_epi32(at + i, better, _mm512_set1_epi32(row));
    }
}

/* Match two images, of one point at least each: matches0 (count0,), -1 for none, and scores (count0,), 0 for none. */
void lgbatch_head(const Head *by, const float *x0, const float *x1, int64_t count0, int64_t count1, float threshold,
                  uint8_t *scratch, int64_t *matches0, float *scores) {
    const int64_t m = padded(count0), n = padded(count1);
    uint16_t *rows = (uint16_t *)scratch, *panels = rows + m * WIDTH;
    uint16_t *rows1 = panels + n * WIDTH;
    float *row_add = (float *)(rows1 + n * WIDTH), *row_sum = row_add + m;
    float *column_add = row_sum + m, *column_sum = column_add + n, *most = column_sum + n, *best = most + n;
    int32_t *at = (int32_t *)(best + n);
    float *s = best + 2 * n;
    project(by, x0, count0, rows);
    project(by, x1, count1, rows1);
    turn_over(rows1, count1, panels);
    similarities(rows, count0, panels, count1, s, row_sum, most);
    column_sums(s, count0, n, most, column_sum);
    certainty(by, x0, count0, row_add);
    certainty(by, x1, count1, column_add);
    for (int64_t i = 0; i < count0; i++) row_add[i] -= row_sum[i];
    for (int64_t i = 0; i < n; i++) column_add[i] = i < count1 ? column_add[i] - column_sum[i] : NEVER;
    for (int64_t i = 0; i < n; i++) best[i] = -INFINITY, at[i] = 0;
    for (int64_t i = 0; i < count0; i++) {
        matches0[i] = greatest_at(s + i * n, column_add, n);
        greatest_of_columns(s + i * n, row_add[i], (int32_t)i, n, best, at);
    }
    for (int64_t i = 0; i < count0; i++) {
        const int64_t j = matches0[i];
        const float score = expf(2 * s[i * n + j] + row_add[i] + column_add[j]);
        if (at[j] != i || !(score > threshold)) matches0[i] = -1, scores[i] = 0.0f;
        else scores[i] = score;
    }
}

END_OF_KERNELS
#endif
