/* The similarities of nearest neighbours, in 8 bits. */

/* The largest and the second largest of the maxima of WIDTH lanes, given the second largest of each lane, too. */
static void reduce(vi most, vi next, int32_t *largest, int32_t *second) {
    int32_t first[WIDTH], others[WIDTH];
    vi_store(first, most), vi_store(others, next);
    *largest = *second = 0;
    for (int i = 0; i < WIDTH; i++) {
        int32_t smaller = first[i] < *largest ? first[i] : *largest;
        if (first[i] > *largest) *largest = first[i];
        if (smaller > *second) *second = smaller;
        if (others[i] > *second) *second = others[i];
    }
}

/* For each row of x (rows, 4 steps), the largest and the second largest of its products with the columns of `panels`
   (columns / PANEL, steps, PANEL, 4). Columns of zeros may fill the last panel: no factor is negative. */
EXPORT void EXPORTED(two_largest)(const uint8_t *x, int64_t rows, int64_t steps, const int8_t *panels, int64_t columns,
                         int32_t *largest, int32_t *second) {
    int32_t acc[TILE_ROWS * PANEL];
    vi most[CHUNK_ROWS], next[CHUNK_ROWS];
    for (int64_t chunk = 0; chunk < rows; chunk += CHUNK_ROWS) {
        const int64_t count = min_i64(CHUNK_ROWS, rows - chunk);
        for (int64_t row = 0; row < count; row++) most[row] = next[row] = vi_set(0);
        for (int64_t column = 0; column < columns; column += PANEL) {
            for (int64_t row = 0; row < count; row += TILE_ROWS) {
                const int64_t tile = min_i64(TILE_ROWS, count - row);
                gemm_uint8(x + (chunk + row) * 4 * steps, 4 * steps, panels + column * 4 * steps, steps, zeros, tile,
                           acc);
                for (int64_t r = 0; r < tile; r++) {
                    for (int i = 0; i < PANEL; i += WIDTH) {
                        vi product = vi_load(acc + r * PANEL + i), smaller;
                        smaller = vi_min(product, most[row + r]);
                        most[row + r] = vi_max(product, most[row + r]);
                        next[row + r] = vi_max(smaller, next[row + r]);
                    }
                }
            }
        }
        for (int64_t row = 0; row < count; row++) {
            reduce(most[row], next[row], largest + chunk + row, second + chunk + row);
        }
    }
}
