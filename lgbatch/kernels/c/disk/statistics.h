/* Means and variances of the channels of maps, accumulated where maps are written. Float within a row, double beyond. */

static void statistics_init(Statistics *statistics) {
    memset(statistics, 0, sizeof *statistics);
    for (int i = 0; i < MAP_CHANNELS; i++) statistics->least[i] = INFINITY, statistics->most[i] = -INFINITY;
}

/* Add WIDTH lanes to doubles. */
INLINE void add_lanes(double *to, vf x) {
    float lanes[WIDTH];
    vf_store(lanes, x);
    for (int i = 0; i < WIDTH; i++) to[i] += lanes[i];
}

/* Add x (count, channels). */
static void add_statistics(Statistics *statistics, const float *x, int64_t count, int64_t channels) {
    for (int64_t c = 0; c < channels; c += WIDTH) {
        vf sum = vf_set(0.0f), squares = vf_set(0.0f);
        vf least = vf_load(statistics->least + c), most = vf_load(statistics->most + c);
        for (int64_t i = c; i < count * channels; i += channels) {
            vf value = vf_load(x + i);
            sum = vf_add(sum, value);
            squares = vf_fma(value, value, squares);
            least = vf_min(least, value);
            most = vf_max(most, value);
        }
        add_lanes(statistics->sum + c, sum);
        add_lanes(statistics->squares + c, squares);
        vf_store(statistics->least + c, least);
        vf_store(statistics->most + c, most);
    }
}

/* The statistics of a map of twice the size, interpolated bilinearly: those of the map except for the squares.

   Between two neighbours a and b the new values 3/4 a + 1/4 b and 1/4 a + 3/4 b have the sum of squares
   5/8 (a^2 + b^2) + 3/4 a b; the outermost values are kept. Q below is this sum over a row, as a bilinear form of two
   rows; over the columns it holds again, with rows as values and Q as product. */
static void upsampled_statistics(const Map *map, Statistics *statistics) {
    const int64_t last = map->width - 1, channels = map->channels, row = map->width * channels;
    *statistics = map->statistics;
    for (int64_t c = 0; c < channels; c++) statistics->sum[c] *= 4, statistics->squares[c] = 0;
    for (int64_t y = 0; y < map->height; y++) {
        const int64_t is_last = y + 1 == map->height;
        const float weight = 1.25f + 0.375f * (y == 0) + 0.375f * is_last;
        for (int64_t c = 0; c < channels; c += WIDTH) {
            const float *a = map->x + y * row + c, *b = is_last ? a : a + row;
            vf squares = vf_set(0.0f), across = vf_set(0.0f), down = vf_set(0.0f), oblique = vf_set(0.0f);
            vf a0 = vf_load(a), b0 = vf_load(b);
            const vf a_end = vf_load(a + last * channels), b_end = vf_load(b + last * channels);
            vf edge = vf_fma(a0, a0, vf_mul(a_end, a_end)), edge_down = vf_fma(a0, b0, vf_mul(a_end, b_end));
            for (int64_t i = channels; i < row; i += channels) {
                vf a1 = vf_load(a + i), b1 = vf_load(b + i);
                squares = vf_fma(a0, a0, squares), across = vf_fma(a0, a1, across);
                down = vf_fma(a0, b0, down), oblique = vf_fma(a0, b1, vf_fma(a1, b0, oblique));
                a0 = a1, b0 = b1;
            }
            squares = vf_fma(a0, a0, squares), down = vf_fma(a0, b0, down);
            vf same = vf_fma(squares, vf_set(1.25f), vf_mul(edge, vf_set(0.375f)));
            same = vf_fma(across, vf_set(0.75f), same);
            vf next = vf_fma(down, vf_set(1.25f), vf_mul(edge_down, vf_set(0.375f)));
            next = vf_fma(oblique, vf_set(0.375f), next);
            vf total = vf_mul(same, vf_set(weight));
            if (!is_last) total = vf_fma(next, vf_set(0.75f), total);
            add_lanes(statistics->squares + c, total);
        }
    }
}

/* Set a gate of `count` values to a channel, without quantization. Returns the largest absolute value after it. */
static float gate_init(Gate *gate, const Statistics *statistics, int64_t count, int64_t channels, const float *slope) {
    float largest = 0;
    for (int64_t c = 0; c < channels; c++) {
        const double mean = statistics->sum[c] / count, variance = statistics->squares[c] / count - mean * mean;
        const double scale = 1 / sqrt((variance > 0 ? variance : 0) + 1e-5);
        gate->scale[c] = (float)scale, gate->shift[c] = (float)(-mean * scale), gate->slope[c] = slope[c];
        for (int end = 0; end < 2; end++) {
            float value = fabsf((end ? statistics->most : statistics->least)[c] * gate->scale[c] + gate->shift[c]);
            value *= end ? 1 : fabsf(slope[c]);
            if (value > largest) largest = value;
        }
    }
    return largest;
}

/* Multiply what a gate returns. */
static void gate_multiply(Gate *gate, int64_t channels, float factor) {
    for (int64_t c = 0; c < channels; c++) gate->scale[c] *= factor, gate->shift[c] *= factor;
}

/* Set up the input of a convolution, whose PReLUs have these slopes. `low` may be NULL. */
static void source_init(Source *source, const Map *low, const Map *same, const float *slope) {
    float largest = 1e-20f, of_low = 0;
    const int64_t low_channels = low ? low->channels : 0;
    source->low = low, source->same = same, source->channels = low_channels + same->channels;
    if (low) {
        Statistics statistics;
        upsampled_statistics(low, &statistics);
        of_low = gate_init(&source->low_gate, &statistics, 4 * low->height * low->width, low_channels, slope);
    }
    slope += low_channels;
    const int64_t count = same->height * same->width;
    largest = fmaxf(largest, gate_init(&source->same_gate, &same->statistics, count, same->channels, slope));
    largest = fmaxf(largest, of_low);
    source->scale = largest / LEVELS;
    if (low) gate_multiply(&source->low_gate, low_channels, 1 / source->scale);
    gate_multiply(&source->same_gate, same->channels, 1 / source->scale);
}
