/* Dense layers with int8 or bfloat16 weights. */

/* Quantize x (count,) to 8 bits with zero point ZERO_POINT and one scale per GROUP; count is a multiple of GROUP. */
static void quantize(const float *x, int64_t count, uint8_t *q, float *scale) {
    for (int64_t group = 0; group < count / GROUP; group++, x += GROUP, q += GROUP) {
        vf maxima = vf_set(0.0f);
        for (int i = 0; i < GROUP; i += WIDTH) maxima = vf_max(maxima, vf_abs(vf_load(x + i)));
        float max_abs = vf_reduce_max(maxima);
        scale[group] = max_abs / 127.0f;
        vf inverse_scale = vf_set(max_abs > 0 ? 127.0f / max_abs : 0.0f);
        for (int i = 0; i < GROUP; i += WIDTH) {
            vi rounded = vf_to_int(vf_mul(vf_load(x + i), inverse_scale));
            store_bytes(q + i, vi_add(rounded, vi_set(ZERO_POINT)));
        }
    }
}

/* Dequantize the accumulators of one panel into y (rows, PANEL), whose rows are out_dim apart. The first group starts
   from the bias; later groups add to y. */
static void dequantize(const Dense *layer, int64_t column, int64_t group, const int32_t *acc, const float *x_scale,
                       int64_t rows, float *y) {
    const int64_t groups = layer->in_dim / GROUP;
    for (int64_t r = 0; r < rows; r++, acc += PANEL, y += layer->out_dim) {
        vf row_scale = vf_set(x_scale[r * groups + group]);
        for (int i = 0; i < PANEL; i += WIDTH) {
            vf scale = vf_mul(row_scale, vf_load(layer->scale + column + i));
            vf previous = vf_load(group ? y + i : layer->bias + column + i);
            vf_store(y + i, vf_fma(vi_to_float(vi_load(acc + i)), scale, previous));
        }
    }
}

/* y (rows, out_dim) = x W + b, from quantized x (rows, in_dim) with scales (rows, in_dim / GROUP). */
static void dense(const Dense *layer, const uint8_t *x, const float *x_scale, int64_t rows, float *y) {
    const int64_t groups = layer->in_dim / GROUP;
    int32_t acc[TILE_ROWS * PANEL];
    const int32_t *start = zeros;
    for (int64_t column = 0; column < layer->out_dim; column += PANEL) {
        for (int64_t row = 0; row < rows; row += TILE_ROWS) {
            const int64_t count = min_i64(TILE_ROWS, rows - row);
            for (int64_t group = 0; group < groups; group++) {
                const int8_t *weight = layer->weight + column * layer->in_dim + group * GROUP * PANEL;
                if (ZERO_POINT) start = layer->zero_point_sum + group * layer->out_dim + column;
                gemm_int8(x + row * layer->in_dim + group * GROUP, layer->in_dim, weight, GROUP / 4,
                          start, count, acc);
                dequantize(layer, column, group, acc, x_scale + row * groups, count, y + row * layer->out_dim + column);
            }
        }
    }
}

/* Round x (rows, count) to bfloat16. */
static void round_to_bf16(const float *x, int64_t rows, int64_t count, uint16_t *y) {
    for (int64_t i = 0; i < rows * count; i += 2 * WIDTH) store_bf16(y + i, vf_load(x + i), vf_load(x + i + WIDTH));
}

/* y (rows, out_dim) = x W + b, from x (rows, in_dim) in bfloat16, as W. */
static void dense_bf16(const Dense *layer, const uint16_t *x, int64_t rows, float *y) {
    float acc[TILE_ROWS * PANEL];
    for (int64_t column = 0; column < layer->out_dim; column += PANEL) {
        for (int64_t row = 0; row < rows; row += TILE_ROWS) {
            const int64_t count = min_i64(TILE_ROWS, rows - row);
            for (int64_t r = 0; r < count; r++) memcpy(acc + r * PANEL, layer->bias + column, PANEL * 4);
            gemm_bf16(x + row * layer->in_dim, layer->in_dim, layer->weight_bf16 + column * layer->in_dim,
                      layer->in_dim / 2, count, acc);
            for (int64_t r = 0; r < count; r++)
                memcpy(y + (row + r) * layer->out_dim + column, acc + r * PANEL, PANEL * 4);
        }
    }
}
