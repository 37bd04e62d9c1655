/* The matching head of LightGlue. Projections and similarities are bfloat16 GEMMs with float accumulators; everything
   else is float.

   With similarities s and log matchabilities z, the log assignment matrix is

       2 s_ij - row_logsumexp_i - column_logsumexp_j + z_i + z_j

   A term that is constant along an axis does not change the argmax along it: each argmax reads 2 s plus one vector.

   s is computed a block of rows at a time and never held as a whole. Of each row, a list keeps the entries whose
   softmax along the row exceeds the threshold: a score is at most that softmax, so only they can be matches. The sum of
   exponentials of a column is relative to its maximum over the blocks so far. */

#define MASKED -1e30f /* similarity of padding: its exponential is 0 */

enum { BLOCK_SIMILARITIES = 1 << 17 }; /* similarities in a block: they stay in the L2 cache */

#define ROUNDING 1e-3f /* lists also keep entries that are below the threshold by this factor */

/* Rows of a block of similarities to n keypoints, padded. */
static int64_t block_rows(int64_t n) {
    const int64_t rows = BLOCK_SIMILARITIES / n / TILE_ROWS * TILE_ROWS;
    return rows > TILE_ROWS ? rows : TILE_ROWS;
}

/* Length of the list of a row of n similarities: softmaxes above a threshold are at most 1 / threshold. */
static int64_t list_length(int64_t n, float threshold) {
    const float most = 1.0f / (threshold * (1.0f - 2.0f * ROUNDING));
    return most < n ? (int64_t)most + 1 : n;
}

/* Size of the scratch buffer of lgbatch_head, which must be aligned to 64 bytes. */
EXPORT size_t EXPORTED(head_scratch_bytes)(int64_t count0, int64_t count1, float threshold) {
    const size_t m = round_up_to_panel(count0), n = round_up_to_panel(count1);
    return (m + 2 * n) * EMBED_DIM * 2 + 2 * m * 4 + 6 * n * 4 + block_rows(n) * n * 4 +
           2 * m * list_length(n, threshold) * 4;
}

/* Project x (rows, EMBED_DIM) to y (rows, EMBED_DIM) in bfloat16. */
static void project_descriptors(const Head *head, const float *x, int64_t rows, uint16_t *y) {
    uint16_t x_bf16[TILE_ROWS * EMBED_DIM];
    float projected[TILE_ROWS * EMBED_DIM];
    for (int64_t row = 0; row < rows; row += TILE_ROWS) {
        int64_t count = min_i64(TILE_ROWS, rows - row);
        round_to_bf16(x + row * EMBED_DIM, count, EMBED_DIM, x_bf16);
        dense_bf16(&head->projection, x_bf16, count, projected);
        round_to_bf16(projected, count, EMBED_DIM, y + row * EMBED_DIM);
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
        vf sum = vf_set(0.0f);
        for (int i = 0; i < EMBED_DIM; i += WIDTH)
            sum = vf_fma(vf_load(x + i), vf_load(head->matchability_weight + i), sum);
        z[row] = -log1pf(expf(-(vf_reduce_add(sum) + head->matchability_bias)));
    }
}

/* Compute the similarities s (count, n) of `count` keypoints of image 0 to the `columns` keypoints of image 1, with n =
   round_up_to_panel(columns) and padding MASKED. Also raises column_max (n,) to them. */
static void compute_similarities(const uint16_t *rows, int64_t count, const uint16_t *panels, int64_t columns, float *s,
                                 float *column_max) {
    const int64_t n = round_up_to_panel(columns);
    for (int64_t first = 0; first < n; first += PANEL) {
        for (int64_t row = 0; row < count; row += TILE_ROWS) {
            const int64_t tile_rows = min_i64(TILE_ROWS, count - row);
            float acc[TILE_ROWS * PANEL] = {0};
            gemm_bf16(rows + row * EMBED_DIM, EMBED_DIM, panels + first * EMBED_DIM, EMBED_DIM / 2, tile_rows, acc);
            for (int64_t r = 0; r < tile_rows; r++)
                for (int64_t i = 0; i < PANEL; i += WIDTH) {
                    vf value = vf_load(acc + r * PANEL + i);
                    if (columns < first + PANEL)
                        value = vf_select(vm_first(columns - first - i), value, vf_set(MASKED));
                    vf_store(s + (row + r) * n + first + i, value);
                    vf_store(column_max + first + i,
                                     vf_max(value, vf_load(column_max + first + i)));
                }
        }
    }
}

/* Log-sum-exp of one row of s (n,). */
static float row_logsumexp(const float *s, int64_t n) {
    vf maxima = vf_set(MASKED), sum = vf_set(0.0f);
    for (int64_t i = 0; i < n; i += WIDTH) maxima = vf_max(maxima, vf_load(s + i));
    const float row_max = vf_reduce_max(maxima);
    for (int64_t i = 0; i < n; i += WIDTH) {
        vf difference = vf_sub(vf_load(s + i), vf_set(row_max));
        sum = vf_add(sum, exp2_float(vf_mul(difference, vf_set(LOG2_E))));
    }
    return row_max + logf(vf_reduce_add(sum));
}

/* exp(x - maximum), WIDTH at once. */
INLINE vf relative_exp(const float *x, const float *maximum) {
    vf difference = vf_sub(vf_load(x), vf_load(maximum));
    return exp2_float(vf_mul(difference, vf_set(LOG2_E)));
}

/* Add the rows of s (count, n) to the sums of exponentials of the columns (n,). The sums so far are relative to
   previous_max (n,), which becomes column_max (n,). */
static void add_to_column_sums(const float *s, int64_t count, int64_t n, const float *column_max, float *previous_max,
                               float *sum) {
    for (int64_t i = 0; i < n; i += WIDTH) {
        vf factor = relative_exp(previous_max + i, column_max + i);
        vf_store(sum + i, vf_mul(factor, vf_load(sum + i)));
    }
    for (int64_t row = 0; row < count; row++, s += n)
        for (int64_t i = 0; i < n; i += WIDTH)
            vf_store(sum + i, vf_add(relative_exp(s + i, column_max + i), vf_load(sum + i)));
    memcpy(previous_max, column_max, n * sizeof(float));
}

/* List the entries of one row of s (n,) that exceed `bound`, in ascending order: their values and columns. Returns
   their number. */
INLINE int32_t list_entries(const float *s, int64_t n, float bound, float *values, int32_t *columns) {
    int32_t length = 0;
    for (int64_t i = 0; i < n; i += WIDTH) {
        if (!vm_any(vf_greater(vf_load(s + i), vf_set(bound)))) continue;
        for (int64_t j = i; j < i + WIDTH; j++)
            if (s[j] > bound) values[length] = s[j], columns[length++] = (int32_t)j;
    }
    return length;
}

/* Update the running maximum `best` (n,) of 2 s + term in each column, and its row `argmax` (n,), with one more row. */
INLINE void update_column_argmax(const float *s, float term, int32_t row, int64_t n, float *best, int32_t *argmax) {
    for (int64_t i = 0; i < n; i += WIDTH) {
        vf value = vf_fma(vf_load(s + i), vf_set(2.0f), vf_set(term));
        vm better = vf_greater(value, vf_load(best + i));
        vf_store_where(better, best + i, value);
        vi_store_where(better, argmax + i, vi_set(row));
    }
}

/* The arrays of lgbatch_head in its scratch buffer. */
typedef struct {
    uint16_t *rows0, *panels1;                            /* projected keypoints: image 0; image 1 as GEMM panels */
    float *row_term, *column_term;                        /* (m,) and (n,): log matchability minus log-sum-exp */
    float *column_max, *previous_max, *column_sum, *best; /* (n,) */
    int32_t *argmax;                                      /* (n,) row of the best entry of each column */
    float *s;                                             /* (block_rows, n) */
    float *values;                                        /* (m, list_length) the list of each row */
    int32_t *columns, *lengths;                           /* (m, list_length), (m,) */
    int64_t n, list_length;
} HeadBuffers;

/* Lay out the scratch buffer. */
static HeadBuffers lay_out(int64_t count0, int64_t count1, float threshold, uint8_t *scratch) {
    const int64_t m = round_up_to_panel(count0), n = round_up_to_panel(count1);
    HeadBuffers b = {.n = n, .list_length = list_length(n, threshold)};
    b.rows0 = (uint16_t *)scratch, b.panels1 = b.rows0 + m * EMBED_DIM;
    b.row_term = (float *)(b.panels1 + 2 * n * EMBED_DIM), b.column_term = b.row_term + m;
    b.column_max = b.column_term + n, b.previous_max = b.column_max + n, b.column_sum = b.previous_max + n;
    b.best = b.column_sum + n, b.argmax = (int32_t *)(b.best + n), b.lengths = b.argmax + n;
    b.s = (float *)(b.lengths + m), b.values = b.s + block_rows(n) * n;
    b.columns = (int32_t *)(b.values + m * b.list_length);
    for (int64_t i = 0; i < n; i++) {
        b.column_max[i] = b.previous_max[i] = MASKED, b.column_sum[i] = 0.0f;
        b.best[i] = -INFINITY, b.argmax[i] = 0;
    }
    return b;
}

/* Go through all similarities: subtract the log-sum-exps from row_term and column_term, find the best row of each
   column, and list the entries of each row. */
static void go_through(HeadBuffers *b, int64_t count0, int64_t count1, float threshold) {
    const float log_threshold = logf(threshold) - ROUNDING;
    for (int64_t start = 0; start < count0; start += block_rows(b->n)) {
        const int64_t rows = min_i64(block_rows(b->n), count0 - start);
        compute_similarities(b->rows0 + start * EMBED_DIM, rows, b->panels1, count1, b->s, b->column_max);
        for (int64_t r = 0; r < rows; r++) {
            const float *s = b->s + r * b->n, logsumexp = row_logsumexp(s, b->n);
            const int64_t row = start + r, list = row * b->list_length;
            b->row_term[row] -= logsumexp;
            b->lengths[row] = list_entries(s, b->n, logsumexp + log_threshold, b->values + list, b->columns + list);
            update_column_argmax(s, b->row_term[row], (int32_t)row, b->n, b->best, b->argmax);
        }
        add_to_column_sums(b->s, rows, b->n, b->column_max, b->previous_max, b->column_sum);
    }
    for (int64_t i = 0; i < count1; i++) b->column_term[i] -= b->column_max[i] + logf(b->column_sum[i]);
}

/* Match two images with at least one keypoint each: mutual best matches whose score exceeds the threshold. Writes
   matches0 (count0,), -1 if unmatched, and scores (count0,), 0 if unmatched. */
EXPORT void EXPORTED(head)(const Head *head, const float *x0, const float *x1, int64_t count0, int64_t count1, float threshold,
                  uint8_t *scratch, int64_t *matches0, float *scores) {
    HeadBuffers b = lay_out(count0, count1, threshold, scratch);
    uint16_t *rows1 = b.panels1 + b.n * EMBED_DIM;
    project_descriptors(head, x0, count0, b.rows0);
    project_descriptors(head, x1, count1, rows1);
    transpose_to_panels(rows1, count1, b.panels1);
    log_matchability(head, x0, count0, b.row_term);
    log_matchability(head, x1, count1, b.column_term);
    go_through(&b, count0, count1, threshold);
    for (int64_t i = 0; i < count0; i++) {
        const float *values = b.values + i * b.list_length;
        const int32_t *columns = b.columns + i * b.list_length;
        float best = -INFINITY, similarity = 0.0f;
        int32_t j = -1;
        for (int32_t k = 0; k < b.lengths[i] && columns[k] < count1; k++) { /* the lowest column wins a tie */
            const float value = 2 * values[k] + b.column_term[columns[k]];
            if (value > best) best = value, similarity = values[k], j = columns[k];
        }
        const float score = j < 0 ? 0.0f : expf(2 * similarity + b.row_term[i] + b.column_term[j]);
        const int is_match = j >= 0 && b.argmax[j] == i && score > threshold;
        matches0[i] = is_match ? j : -1, scores[i] = is_match ? score : 0.0f;
    }
}
