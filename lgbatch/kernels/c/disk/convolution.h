/* Convolutions with windows of 5 x 5, two rows of outputs at once from six of inputs.

   Minimal filtering (Winograd, Arithmetic Complexity of Computations, 1980) over the rows: F(2, 3) for the first three
   of the window and F(2, 2) for the others need seven products of rows instead of ten. With inputs r and weights g,

       r0 - r2   g0                   to the first output
       r3 - r4   g3                   to the first output
       r1 - r3   -g2                  to the second
       r4 - r5   -g4                  to the second
       r1 + r2   (g0 + g1 + g2) / 2   to both
       r4        g3 + g4              to both
       r2 - r1   (g0 - g1 + g2) / 2   to the first, and negated to the second

   The columns of a window are contiguous in a row, so that a product is one GEMM. */

enum { FIRST, SECOND, BOTH, OPPOSITE, TARGETS };

/* Rows of a strip. Each begins MARGIN pixels left of it. Row y of the inputs is at y modulo ROWS, counted from -MARGIN. */
typedef struct {
    int16_t inputs[ROWS][(STRIP + 2 * MARGIN) * INPUT_CHANNELS];
    int16_t terms[TERMS][(STRIP + 2 * MARGIN) * INPUT_CHANNELS];
} Strip;

/* The inputs of the products, from `count` values of each row. */
static void form_terms(const int16_t *const rows[ROWS], int64_t count, Strip *strip) {
    for (int64_t i = 0; i < count; i += 2 * WIDTH) {
        vi r0 = vi_load(rows[0] + i), r1 = vi_load(rows[1] + i), r2 = vi_load(rows[2] + i);
        vi r3 = vi_load(rows[3] + i), r4 = vi_load(rows[4] + i), r5 = vi_load(rows[5] + i);
        vi terms[TERMS] = {vi_sub_int16(r0, r2), vi_sub_int16(r3, r4), vi_sub_int16(r1, r3), vi_sub_int16(r4, r5),
                           vi_add_int16(r1, r2), r4,                   vi_sub_int16(r2, r1)};
        for (int term = 0; term < TERMS; term++) vi_store((int32_t *)(strip->terms[term] + i), terms[term]);
    }
}

/* to (count, PANEL) = acc scale, or is increased by it. */
INLINE void add_scaled(const int32_t *acc, const float *scale, int64_t count, float *to, int is_sum) {
    for (int column = 0; column < PANEL; column += WIDTH) {
        const vf factor = vf_load(scale + column);
        for (int64_t i = column; i < count * PANEL; i += PANEL) {
            const vf value = vi_to_float(vi_load(acc + i));
            vf_store(to + i, is_sum ? vf_fma(value, factor, vf_load(to + i)) : vf_mul(value, factor));
        }
    }
}

/* Two rows of outputs (count, PANEL) from their sums. */
INLINE void combine(float sums[TARGETS][TILE_ROWS * PANEL], float scale, const float *bias, int64_t count,
                    float *first, float *second) {
    const vf factor = vf_set(scale);
    for (int column = 0; column < PANEL; column += WIDTH) {
        const vf start = vf_load(bias + column);
        for (int64_t i = column; i < count * PANEL; i += PANEL) {
            const vf both = vf_load(sums[BOTH] + i), opposite = vf_load(sums[OPPOSITE] + i);
            const vf upper = vf_add(vf_add(both, opposite), vf_load(sums[FIRST] + i));
            const vf lower = vf_add(vf_sub(both, opposite), vf_load(sums[SECOND] + i));
            vf_store(first + i, vf_fma(upper, factor, start));
            vf_store(second + i, vf_fma(lower, factor, start));
        }
    }
}

/* Outputs `first` and `second` (width, out) from the terms. */
static void convolve_rows(const Convolution *layer, const Strip *strip, float scale, int64_t width, float *first,
                          float *second) {
    static const int targets[TERMS] = {FIRST, FIRST, SECOND, SECOND, BOTH, BOTH, OPPOSITE};
    const int64_t pixels = PANEL / layer->out, steps = (KERNEL - 1 + pixels) * layer->in / 2;
    int32_t acc[TILE_ROWS * PANEL];
    float sums[TARGETS][TILE_ROWS * PANEL];
    for (int64_t unit = 0; unit < width / pixels; unit += TILE_ROWS) {
        const int64_t count = min_i64(TILE_ROWS, width / pixels - unit);
        for (int term = 0; term < TERMS; term++) {
            gemm_int16(strip->terms[term] + unit * pixels * layer->in, pixels * layer->in,
                       layer->weight + term * steps * PANEL * 2, steps, count, acc);
            const int is_sum = term > 0 && targets[term] == targets[term - 1];
            add_scaled(acc, layer->scale + term * PANEL, count, sums[targets[term]], is_sum);
        }
        combine(sums, scale, layer->bias, count, first + unit * PANEL, second + unit * PANEL);
    }
}

/* Pool two rows (count, channels) by averages of 2 x 2, and add the result's statistics. */
static void pool_rows(const float *upper, const float *lower, int64_t count, int64_t channels, float *to,
                      Statistics *statistics) {
    for (int64_t x = 0; x < count / 2; x++) {
        for (int64_t c = 0; c < channels; c += WIDTH) {
            const int64_t left = 2 * x * channels + c, right = left + channels;
            vf sum = vf_add(vf_add(vf_load(upper + left), vf_load(upper + right)),
                            vf_add(vf_load(lower + left), vf_load(lower + right)));
            vf_store(to + x * channels + c, vf_mul(sum, vf_set(0.25f)));
        }
    }
    add_statistics(statistics, to, count / 2, channels);
}

/* Add the statistics of two new rows of a map, columns first to first + count, and pool them unless `pooled` is NULL. */
static void finish_rows(Map *map, Map *pooled, int64_t y, int64_t first, int64_t count) {
    const int64_t channels = map->channels;
    const float *upper = map->x + (y * map->width + first) * channels, *lower = upper + map->width * channels;
    add_statistics(&map->statistics, upper, count, channels);
    if (y + 1 < map->height) add_statistics(&map->statistics, lower, count, channels);
    if (pooled)
        pool_rows(upper, lower, count, channels, pooled->x + (y / 2 * pooled->width + first / 2) * channels,
                  &pooled->statistics);
}

/* Convolve a source to a map with its statistics, and pool it to half the size unless `pooled` is NULL. A map with an
   odd number of rows needs memory for one more. */
static void convolve(const Convolution *layer, const Source *source, Strip *strip, Map *map, Map *pooled) {
    for (int64_t first = 0; first < map->width; first += STRIP) {
        const int64_t width = min_i64(STRIP, map->width - first), end = first + width + MARGIN;
        const int64_t count = (width + 2 * MARGIN) * source->channels;
        for (int64_t y = 0; y < map->height; y += 2) {
            const int16_t *rows[ROWS];
            for (int64_t row = 0; row < ROWS; row++) {
                int16_t *input = strip->inputs[(y + row) % ROWS];
                if (!y || row >= ROWS - 2) source_row(source, y - MARGIN + row, first - MARGIN, end, input);
                rows[row] = input;
            }
            form_terms(rows, count, strip);
            float *output = map->x + (y * map->width + first) * map->channels;
            convolve_rows(layer, strip, source->scale, width, output, output + map->width * map->channels);
            finish_rows(map, pooled, y, first, width);
        }
    }
}
