/* The heatmap: a convolution of LAST_CHANNELS to one, as one product for each place in the window, which are shifted
   and added. */

/* A heatmap with REACH pixels around it: (height + 2 REACH, stride). */
typedef struct {
    float *x;
    int64_t height, width, stride;
} Heat;

/* Add what `count` pixels of a row contribute, from acc (count, NARROW_PANEL). `to` is the upper left corner of the
   window around the first. */
INLINE void add_windows(const int32_t *acc, const float *scale, int64_t count, float *to, int64_t stride) {
    for (int64_t pixel = 0; pixel < count; pixel++, acc += NARROW_PANEL, to++)
        for (int64_t y = 0; y < KERNEL; y++)
            for (int64_t x = 0; x < KERNEL; x++)
                to[y * stride + x] += one_sum_to_float(acc[KERNEL * y + x]) * scale[KERNEL * y + x];
}

/* Compute the heatmap from the inputs of the last convolution. */
static void heat_init(Heat *heat, const Disk *network, const Source *source) {
    int16_t row[STRIP * LAST_CHANNELS];
    int32_t acc[TILE_ROWS * NARROW_PANEL];
    float scale[NARROW_PANEL];
    for (int i = 0; i < NARROW_PANEL; i++) scale[i] = network->heat_scale[i] * source->scale;
    for (int64_t i = 0; i < (heat->height + 2 * REACH) * heat->stride; i++) heat->x[i] = network->heat_bias;
    for (int64_t y = 0; y < heat->height; y++) {
        for (int64_t first = 0; first < heat->width; first += STRIP) {
            const int64_t width = min_i64(STRIP, heat->width - first);
            source_row(source, y, first, first + width, row);
            make_factors(row, width * LAST_CHANNELS);
            for (int64_t x = 0; x < width; x += TILE_ROWS) {
                const int64_t count = min_i64(TILE_ROWS, width - x);
                gemm_factors_narrow(row + x * LAST_CHANNELS, LAST_CHANNELS, network->heat_weight, LAST_CHANNELS / 2,
                                  count, acc);
                add_windows(acc, scale, count, heat->x + y * heat->stride + first + x, heat->stride);
            }
        }
    }
}
