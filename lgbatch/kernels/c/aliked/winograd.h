/* 3 x 3 convolutions with 2.25 times fewer products (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
   CVPR 2016, F(2 x 2, 3 x 3)): squares of 4 x 4 pixels, which overlap by two, are transformed by sums and differences,
   multiplied by a transformed weight for each of the 16 values, and transformed back to squares of 2 x 2. */

enum {
    CACHE_LINE = 16,                 /* floats */
    VALUES = 16,                     /* of a transformed square */
    SQUARES = WIDTH == 16 ? 16 : 12, /* transformed at once: as the tiles of products, and few for the L1 cache */
};

/* Whether the weight is transformed. */
INLINE int is_transformed(const Conv *conv) { return conv->in % OUTPUTS == 0 && conv->out % OUTPUTS == 0; }

/* Transformed squares. */
typedef struct {
    float *x; /* (VALUES, SQUARES, in) */
    float *y; /* (VALUES, SQUARES, out) */
} Squares;

typedef struct {
    vf a, b, c, d;
} Four;

static Squares take_squares(Arena *arena, int64_t in, int64_t out) {
    return (Squares){take_zeros(arena, VALUES * SQUARES * in), take(arena, VALUES * SQUARES * out)};
}

/* Four pixels along an axis to four values. */
INLINE Four transform(vf a, vf b, vf c, vf d) {
    return (Four){vf_sub(a, c), vf_add(b, c), vf_sub(c, b), vf_sub(b, d)};
}

/* A column of four rows, transformed along y. */
INLINE Four transform_column(const float *const *rows, int64_t at) {
    return transform(vf_load(rows[0] + at), vf_load(rows[1] + at), vf_load(rows[2] + at), vf_load(rows[3] + at));
}

INLINE void store_values(float *to, int64_t step, Four values) {
    vf_store(to, values.a), vf_store(to + step, values.b);
    vf_store(to + 2 * step, values.c), vf_store(to + 3 * step, values.d);
}

/* Transform `count` squares of four rows, which begin with the pixel on the left of the output. */
static void transform_squares(const float *const *rows, int64_t count, int64_t channels, float *to) {
    const int64_t step = SQUARES * channels;
    for (int64_t c = 0; c < channels; c += WIDTH) {
        Four left = transform_column(rows, c), middle = transform_column(rows, channels + c);
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = (2 * i + 2) * channels + c;
            Four right = transform_column(rows, at), last = transform_column(rows, at + channels);
            float *values = to + i * channels + c;
            store_values(values, step, transform(left.a, middle.a, right.a, last.a));
            store_values(values + 4 * step, step, transform(left.b, middle.b, right.b, last.b));
            store_values(values + 8 * step, step, transform(left.c, middle.c, right.c, last.c));
            store_values(values + 12 * step, step, transform(left.d, middle.d, right.d, last.d));
            left = right, middle = last;
        }
    }
}

/* Row y (0 or 1) of a square from column `at` of transformed values. */
INLINE vf column_of_pixels(const float *values, int64_t step, int y) {
    vf b = vf_load(values + 4 * step), c = vf_load(values + 8 * step);
    return y ? vf_sub(vf_sub(b, c), vf_load(values + 12 * step)) : vf_add(vf_add(vf_load(values), b), c);
}

/* Row y (0 or 1) of `count` squares of products, plus start, and SELU: to (2 count, channels). */
static void finish_row(const float *values, int64_t count, int64_t channels, int y, const float *start,
                       int64_t start_stride, float *to) {
    const int64_t step = SQUARES * channels;
    for (int64_t i = 0; i < count; i++, values += channels, start += 2 * start_stride, to += 2 * channels) {
        for (int64_t c = 0; c < channels; c += WIDTH) {
            vf a0 = column_of_pixels(values + c, step, y), a1 = column_of_pixels(values + step + c, step, y);
            vf a2 = column_of_pixels(values + 2 * step + c, step, y);
            vf a3 = column_of_pixels(values + 3 * step + c, step, y);
            vf even = vf_add(vf_add(a0, a1), vf_add(a2, vf_load(start + c)));
            vf odd = vf_add(vf_sub(a1, a2), vf_sub(vf_load(start + start_stride + c), a3));
            vf_store(to + c, selu(even));
            vf_store(to + channels + c, selu(odd));
        }
    }
}

/* The products of all squares with the weight. `in` and `out` are constants, as the products are short. */
INLINE void multiply_values(const float *weight, const int64_t in, const int64_t out, const Squares *squares) {
    for (int64_t i = 0; i < VALUES; i++) {
        const Product product = {{squares->x + i * SQUARES * in}, 1, in, weight + i * in * out, NULL, 0,
                                 squares->y + i * SQUARES * out, out, SQUARES, out, 0};
        multiply_by(&product, in);
    }
}

NOT_INLINE void multiply_squares(const Conv *conv, const Squares *squares) {
    if (conv->in == 32) multiply_values(conv->weight, 32, 32, squares);
    else if (conv->out == 32) multiply_values(conv->weight, 16, 32, squares);
    else multiply_values(conv->weight, 16, 16, squares);
}

/* Two rows (width,) of a 3 x 3 convolution with a transformed weight, and SELU. rows: the four rows around, each from the
   pixel on the left; start (2, width, out), or the bias if NULL. in and out are multiples of OUTPUTS. */
static void convolve_squares(const Conv *conv, const float *const *rows, const float *start, int64_t width,
                             const Squares *squares, float *const *to) {
    const int64_t start_stride = start ? conv->out : 0;
    for (int64_t x = 0; x < width; x += 2 * SQUARES) {
        const int64_t count = min_i64(SQUARES, (width - x) / 2), at = x * conv->in;
        const float *from[4] = {rows[0] + at, rows[1] + at, rows[2] + at, rows[3] + at};
        transform_squares(from, count, conv->in, squares->x);
        for (int y = 0; y < 2; y++)
            for (int64_t i = 0; i < 2 * count * conv->out; i += CACHE_LINE)
                PREFETCH(to[y] + x * conv->out + i);
        multiply_squares(conv, squares);
        for (int y = 0; y < 2; y++)
            finish_row(squares->y, count, conv->out, y,
                       start ? start + (y * width + x) * conv->out : conv->bias, start_stride,
                       to[y] + x * conv->out);
    }
}
