/* Convolutions with windows of 5 x 5, four outputs of 2 x 2 pixels at once from 6 x 6 inputs.

   Minimal filtering (Winograd, Arithmetic Complexity of Computations, 1980) along rows and columns: F(2, 3) for the
   first three of the window and F(2, 2) for the others need seven products instead of ten. With inputs r and weights g,

       r0 - r2   g0                   to the first output
       r3 - r4   g3                   to the first output
       r1 - r3   -g2                  to the second
       r4 - r5   -g4                  to the second
       r1 + r2   (g0 + g1 + g2) / 2   to both
       r4        g3 + g4              to both
       r2 - r1   (g0 - g1 + g2) / 2   to the first, and negated to the second

   Products over rows and columns that go to the same outputs are one GEMM. The inputs are integers: these differences
   and sums are exact. */

enum { FIRST, SECOND, BOTH, OPPOSITE, TARGETS };

/* The number of terms that go to a target, and of those that go to the ones before. */
INLINE int64_t term_count(int64_t target) { return target == OPPOSITE ? 1 : 2; }
INLINE int64_t terms_before(int64_t row_target, int64_t column_target) {
    return 2 * row_target * TERMS + term_count(row_target) * 2 * column_target;
}

/* What a strip of two rows is computed from. Rows of inputs begin REACH pixels left of it; row y is at y modulo ROWS,
   counted from -REACH. */
typedef struct {
    int16_t inputs[ROWS][(STRIP + 2 * REACH) * INPUT_CHANNELS];
    int16_t terms[TERMS * TERMS * STRIP / 2 * INPUT_CHANNELS]; /* by targets: (units, row, column terms, channels) */
    int32_t sums[TARGETS * TARGETS][STRIP / 2 * PANEL];        /* (units, outputs) */
} Strip;

/* The terms along the columns of one along the rows: x = a - b, a + b or a. `to` gives the place of each in a unit, and
   `strides` the distance of the next unit's. */
#define FORM_TERMS(name, LOAD_TERM) \
    static void name(const int16_t *a, const int16_t *b, int64_t units, int64_t channels, int16_t *const to[TERMS], \
                     const int64_t strides[TERMS]) { \
        (void)b; \
        const int is_whole = channels >= 2 * WIDTH; /* the first map has 16 channels, 512 bits hold 32 */ \
        for (int64_t c = 0; c < channels; c += 2 * WIDTH) { \
            int64_t i = c; \
            vi r0 = LOAD_TERM(i), r1 = LOAD_TERM(i + channels); \
            vi r2 = LOAD_TERM(i + 2 * channels), r3 = LOAD_TERM(i + 3 * channels); \
            for (int64_t unit = 0; unit < units; unit++, i += 2 * channels) { \
                vi r4 = LOAD_TERM(i + 4 * channels), r5 = LOAD_TERM(i + 5 * channels); \
                store_term(is_whole, to[0] + unit * strides[0] + c, vi_sub_int16(r0, r2)); \
                store_term(is_whole, to[1] + unit * strides[1] + c, vi_sub_int16(r3, r4)); \
                store_term(is_whole, to[2] + unit * strides[2] + c, vi_sub_int16(r1, r3)); \
                store_term(is_whole, to[3] + unit * strides[3] + c, vi_sub_int16(r4, r5)); \
                store_term(is_whole, to[4] + unit * strides[4] + c, vi_add_int16(r1, r2)); \
                store_term(is_whole, to[5] + unit * strides[5] + c, r4); \
                store_term(is_whole, to[6] + unit * strides[6] + c, vi_sub_int16(r2, r1)); \
                r0 = r2, r1 = r3, r2 = r4, r3 = r5; \
            } \
        } \
    }
#define DIFFERENCE(i) vi_sub_int16(vi_load(a + (i)), vi_load(b + (i)))
#define SUM(i) vi_add_int16(vi_load(a + (i)), vi_load(b + (i)))
#define SAME(i) vi_load(a + (i))
INLINE void store_term(int is_whole, int16_t *to, vi x) {
    if (is_whole) store_factors(to, x);
    else vi_store_half((int32_t *)to, x);
}
FORM_TERMS(form_terms_of_difference, DIFFERENCE)
FORM_TERMS(form_terms_of_sum, SUM)
FORM_TERMS(form_terms_of_row, SAME)
#undef DIFFERENCE
#undef SUM
#undef SAME
#undef FORM_TERMS

/* All terms of the units of a strip, from six rows. */
static void form_terms(const int16_t *const rows[ROWS], int64_t units, int64_t channels, int16_t *terms) {
    static const int first[TERMS] = {0, 3, 1, 4, 1, 4, 2}, second[TERMS] = {2, 4, 3, 5, 2, 4, 1};
    for (int64_t row = 0; row < TERMS; row++) {
        const int16_t *a = rows[first[row]], *b = rows[second[row]];
        int16_t *to[TERMS];
        int64_t strides[TERMS];
        for (int64_t column = 0; column < TERMS; column++) {
            const int64_t counts[] = {term_count(row / 2), term_count(column / 2)};
            const int64_t place = row % 2 * counts[1] + column % 2;
            strides[column] = counts[0] * counts[1] * channels;
            to[column] = terms + (terms_before(row / 2, column / 2) * units + place) * channels;
        }
        if (row / 2 != BOTH) form_terms_of_difference(a, b, units, channels, to, strides);
        else if (a != b) form_terms_of_sum(a, b, units, channels, to, strides);
        else form_terms_of_row(a, b, units, channels, to, strides);
    }
}

/* The products of all terms: one sum for each pair of targets. */
static void multiply_terms(const Convolution *layer, int64_t units, Strip *strip) {
    for (int64_t target = 0; target < TARGETS * TARGETS; target++) {
        const int64_t rows = target / TARGETS, columns = target % TARGETS, before = terms_before(rows, columns);
        const int64_t values = term_count(rows) * term_count(columns) * layer->in;
        const int16_t *weight = layer->weight + before * layer->in * layer->out;
        const int16_t *terms = strip->terms + before * layer->in * units;
        int32_t *sums = strip->sums[target];
        for (int64_t unit = 0; unit < units; unit += TILE_ROWS, terms += TILE_ROWS * values) {
            const int64_t count = min_i64(TILE_ROWS, units - unit);
            if (layer->out == PANEL) gemm_factors(terms, values, weight, values / 2, count, sums + unit * PANEL);
            else gemm_factors_narrow(terms, values, weight, values / 2, count, sums + unit * NARROW_PANEL);
        }
    }
}

INLINE void store_map(uint16_t *to, vf x) {
    store_half(to, vf_max(vf_min(x, vf_set(65504.0f)), vf_set(-65504.0f)));
}

/* Two outputs from the sums of a row's or column's targets. */
INLINE void combine(const vf sums[TARGETS], vf *first, vf *second) {
    *first = vf_add(sums[FIRST], vf_add(sums[BOTH], sums[OPPOSITE]));
    *second = vf_add(sums[SECOND], vf_sub(sums[BOTH], sums[OPPOSITE]));
}

/* Two rows of outputs (width, out) from their sums. Those of the second begin `stride` after those of the first. */
static void write_outputs(const Convolution *layer, const Strip *strip, float scale, int64_t width, int64_t stride,
                          uint16_t *to) {
    for (int64_t c = 0; c < layer->out; c += WIDTH) {
        vf factors[TARGETS * TARGETS];
        for (int i = 0; i < TARGETS * TARGETS; i++)
            factors[i] = vf_mul(vf_load(layer->scale + i * layer->out + c), vf_set(scale));
        for (int64_t x = 0; x < width; x += 2) {
            vf left[TARGETS], right[TARGETS], outputs[4];
            for (int row = 0; row < TARGETS; row++) {
                vf sums[TARGETS];
                for (int i = 0; i < TARGETS; i++) {
                    const int32_t *sum = strip->sums[row * TARGETS + i] + x / 2 * layer->out + c;
                    sums[i] = vf_mul(sum_to_float(vi_load(sum)), factors[row * TARGETS + i]);
                }
                combine(sums, left + row, right + row);
            }
            combine(left, outputs, outputs + 2);
            combine(right, outputs + 1, outputs + 3);
            uint16_t *output = to + x * layer->out + c;
            store_map(output, outputs[0]);
            store_map(output + stride, outputs[2]);
            if (x + 1 == width) continue;
            store_map(output + layer->out, outputs[1]);
            store_map(output + stride + layer->out, outputs[3]);
        }
    }
}

/* Pool two rows (count, channels) by averages of 2 x 2, and add the result's statistics. */
static void pool_rows(const uint16_t *upper, const uint16_t *lower, int64_t count, int64_t channels, uint16_t *to,
                      Statistics *statistics) {
    for (int64_t x = 0; x < count / 2; x++) {
        for (int64_t c = 0; c < channels; c += WIDTH) {
            const int64_t left = 2 * x * channels + c, right = left + channels;
            vf sum = vf_add(vf_add(load_half(upper + left), load_half(upper + right)),
                            vf_add(load_half(lower + left), load_half(lower + right)));
            store_map(to + x * channels + c, vf_mul(sum, vf_set(0.25f)));
        }
    }
    add_statistics(statistics, to, count / 2, channels);
}

/* After two new rows of a map, columns first to end: add their statistics, and pool them, or prepare to upsample them
   if `pooled` is NULL. */
static void finish_rows(DiskMap *map, DiskMap *pooled, int64_t y, int64_t first, int64_t end) {
    const int64_t channels = map->channels, count = end - first;
    const uint16_t *upper = map->x + (y * map->width + first) * channels, *lower = upper + map->width * channels;
    add_statistics(&map->statistics, upper, count, channels);
    if (y + 1 < map->height) add_statistics(&map->statistics, lower, count, channels);
    if (pooled) {
        pool_rows(upper, lower, count, channels, pooled->x + (y / 2 * pooled->width + first / 2) * channels,
                  &pooled->statistics);
        return;
    }
    add_upsampled_row(map, map->upsampled, y, first, end);
    if (y + 1 < map->height) add_upsampled_row(map, map->upsampled, y + 1, first, end);
}

/* Convolve a source to a map with its statistics, and pool it to half the size, or prepare to upsample it if `pooled`
   is NULL. A map with an
   odd number of rows needs memory for one more. */
static void convolve(const Convolution *layer, const Source *source, Strip *strip, DiskMap *map, DiskMap *pooled) {
    for (int64_t first = 0; first < map->width; first += STRIP) {
        const int64_t width = min_i64(STRIP, map->width - first), units = (width + 1) / 2;
        const int64_t end = first + 2 * units + REACH;
        for (int64_t y = 0; y < map->height; y += 2) {
            const int16_t *rows[ROWS];
            for (int64_t row = 0; row < ROWS; row++) {
                int16_t *input = strip->inputs[(y + row) % ROWS];
                if (!y || row >= ROWS - 2) source_row(source, y - REACH + row, first - REACH, end, input);
                rows[row] = input;
            }
            form_terms(rows, units, source->channels, strip->terms);
            multiply_terms(layer, units, strip);
            uint16_t *output = map->x + (y * map->width + first) * map->channels;
            write_outputs(layer, strip, source->scale, width, map->width * map->channels, output);
            finish_rows(map, pooled, y, first, first + width);
        }
    }
}
