/* Means and variances of the channels of maps, accumulated where maps are written: float in a row, double beyond. */

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

/* Add `count` pixels of a map. */
static void add_statistics(Statistics *statistics, const uint16_t *x, int64_t count, int64_t channels) {
    for (int64_t c = 0; c < channels; c += WIDTH) {
        vf sum = vf_set(0.0f), squares = vf_set(0.0f);
        vf least = vf_load(statistics->least + c), most = vf_load(statistics->most + c);
        for (int64_t i = c; i < count * channels; i += channels) {
            vf value = load_half(x + i);
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

/* The squares of a map of twice the size, interpolated bilinearly; the mean and the bounds stay the same.

   Between two neighbours a and b the new values 3/4 a + 1/4 b and 1/4 a + 3/4 b have the sum of squares
   5/8 (a^2 + b^2) + 3/4 a b; the outermost values are kept. So the sum over a row x is the bilinear form Q(x, x) with

       Q(x, y) = 5/4 sum x[i] y[i] + 3/8 sum (x[i] y[i + 1] + x[i + 1] y[i]) + 3/8 (x[0] y[0] + x[last] y[last]),

   and over all rows it is the same with rows as values and Q as product.

   Add `weight` Q(rows a, b) of columns first to end, and of the pairs of neighbours that end there. */
static void add_upsampled_squares(const DiskMap *map, double *squares, int64_t a, int64_t b, float weight,
                                  int64_t first, int64_t end) {
    const int64_t channels = map->channels, row = map->width * channels;
    for (int64_t c = 0; c < channels; c += WIDTH) {
        const uint16_t *x = map->x + a * row + c, *y = map->x + b * row + c;
        const int64_t before = (first ? first - 1 : 0) * channels;
        vf products = vf_set(0.0f), pairs = vf_set(0.0f), x0 = load_half(x + before), y0 = load_half(y + before);
        vf edges = first ? vf_set(0.0f) : vf_mul(x0, y0);
        if (!first) products = edges;
        for (int64_t i = before + channels; i < end * channels; i += channels) {
            vf x1 = load_half(x + i), y1 = load_half(y + i);
            products = vf_fma(x1, y1, products);
            pairs = vf_fma(x0, y1, vf_fma(x1, y0, pairs));
            x0 = x1, y0 = y1;
        }
        if (end == map->width) edges = vf_fma(x0, y0, edges);
        vf sum = vf_fma(vf_add(pairs, edges), vf_set(0.375f), vf_mul(products, vf_set(1.25f)));
        add_lanes(squares + c, vf_mul(sum, vf_set(weight)));
    }
}

/* Add a new row of a map, columns first to end, whose rows before it are known. */
static void add_upsampled_row(const DiskMap *map, double *squares, int64_t y, int64_t first, int64_t end) {
    const float weight = 1.25f + 0.375f * (y == 0) + 0.375f * (y + 1 == map->height);
    add_upsampled_squares(map, squares, y, y, weight, first, end);
    if (y) add_upsampled_squares(map, squares, y - 1, y, 0.75f, first, end);
}

/* Set a gate from the statistics of `count` pixels and the means of squares, without quantization. Returns the largest
   absolute value after it. */
static float gate_init(Gate *gate, const Statistics *statistics, int64_t count, const double *squares,
                       int64_t square_count, const float *slope, int64_t channels) {
    float largest = 0;
    for (int64_t c = 0; c < channels; c++) {
        const double mean = statistics->sum[c] / count, variance = squares[c] / square_count - mean * mean;
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
static void source_init(Source *source, const DiskMap *low, const DiskMap *same, const float *slope) {
    float largest = 1e-20f, of_low = 0;
    const int64_t low_channels = low ? low->channels : 0;
    source->low = low, source->same = same, source->channels = low_channels + same->channels;
    if (low) {
        const int64_t count = low->height * low->width;
        of_low = gate_init(&source->low_gate, &low->statistics, count, low->upsampled, 4 * count, slope, low_channels);
    }
    slope += low_channels;
    const int64_t count = same->height * same->width;
    const float of_same = gate_init(&source->same_gate, &same->statistics, count, same->statistics.squares, count,
                                    slope, same->channels);
    largest = fmaxf(largest, fmaxf(of_low, of_same));
    source->scale = largest / LARGEST;
    if (low) gate_multiply(&source->low_gate, low_channels, 1 / source->scale);
    gate_multiply(&source->same_gate, same->channels, 1 / source->scale);
}
