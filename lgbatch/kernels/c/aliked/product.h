/* Matrix products of the pixels of a row with a block of weights, for convolutions of channels-last maps: the three
   pixels under a row of a 3 x 3 kernel are contiguous, so a convolution is the sum of three products. As in gemm.h, a
   tile of accumulators stays in registers. */

#if WIDTH == 16
enum { TILE_PIXELS = 16, TILE_WIDTH = 1 }; /* pixels by vectors; half of the pixels if there are outputs for two */
#elif WIDTH == 8
enum { TILE_PIXELS = 6, TILE_WIDTH = 2 };
#elif WIDTH == 4
enum { TILE_PIXELS = 6, TILE_WIDTH = 4 };
#else
enum { TILE_PIXELS = 1, TILE_WIDTH = 1 };
#endif

enum { FEW_PIXELS = WIDTH == 1 ? 1 : 4 }; /* of a smaller tile */
enum { GATHERED = 1168 }; /* distance between the pixels whose taps are gathered: 9 x 128 values and a cache line */

/* What a row of pixels is multiplied by, and where the result goes. */
typedef struct {
    const float *x[3];   /* the first values of the first pixel, for each of the terms */
    int64_t terms;       /* 1 or 3 */
    int64_t steps;       /* values of a pixel that a term multiplies */
    const float *weight; /* (ceil(columns / OUTPUTS), terms, steps, OUTPUTS) */
    const float *start;  /* (count, >= columns): what the products are added to; NULL: zeros */
    int64_t start_stride; /* 0: the same for all pixels */
    float *to;           /* (count, columns) */
    int64_t to_stride, count, columns;
    int activate;        /* apply SELU */
} Product;

#define EACH_PIXEL(DO, v) \
    DO(0, v) DO(1, v) DO(2, v) DO(3, v) DO(4, v) DO(5, v) DO(6, v) DO(7, v) \
    DO(8, v) DO(9, v) DO(10, v) DO(11, v) DO(12, v) DO(13, v) DO(14, v) DO(15, v)
#if WIDTH == 4
#define EACH_COLUMN(DO, r) DO(r, 0) DO(r, 1) DO(r, 2) DO(r, 3)
#else
#define EACH_COLUMN(DO, r) DO(r, 0) DO(r, 1)
#endif
#define EACH_SUM_OF(r, DO) EACH_COLUMN(DO, r)
#define EACH_SUM(DO) \
    EACH_COLUMN(DO, 0) EACH_COLUMN(DO, 1) EACH_COLUMN(DO, 2) EACH_COLUMN(DO, 3) EACH_COLUMN(DO, 4) EACH_COLUMN(DO, 5) \
    EACH_COLUMN(DO, 6) EACH_COLUMN(DO, 7) EACH_COLUMN(DO, 8) EACH_COLUMN(DO, 9) EACH_COLUMN(DO, 10) \
    EACH_COLUMN(DO, 11) EACH_COLUMN(DO, 12) EACH_COLUMN(DO, 13) EACH_COLUMN(DO, 14) EACH_COLUMN(DO, 15)
#define IS_USED(r, v) (r < pixels && v < vectors)
#define LOAD_START(r, v) vf a##r##_##v = IS_USED(r, v) && p->start ? vf_load(p->start + row * p->start_stride + column + r * p->start_stride + v * WIDTH) : vf_set(0);
#define LOAD_WEIGHT(_, v) vf w##v = v < vectors ? vf_load(weight + v * step) : vf_set(0);
#define ADD_SUM(r, v) if (IS_USED(r, v)) a##r##_##v = vf_fma(value, w##v, a##r##_##v);
#define ADD_PIXEL(r, _) if (r < pixels) { vf value = vf_set(x[r * stride]); EACH_COLUMN(ADD_SUM, r) }
#define ACTIVATE(r, v) if (IS_USED(r, v)) a##r##_##v = selu(a##r##_##v);
#define STORE_ALL(r, v) if (IS_USED(r, v)) vf_store(to + r * p->to_stride + v * WIDTH, a##r##_##v);
#define STORE_SOME(r, v) \
    if (IS_USED(r, v) && v * WIDTH < columns) \
        vf_store_where(vm_first(columns - v * WIDTH), to + r * p->to_stride + v * WIDTH, a##r##_##v);

/* The product for `pixels` pixels from `row` on and `vectors` vectors from `column` on. */
INLINE void multiply_tile(const Product *p, const int64_t stride, const int pixels, const int vectors, int64_t row,
                          int64_t column) {
    const int64_t block = p->terms * p->steps * OUTPUTS, step = WIDTH == 16 ? block : WIDTH;
    const float *weight = p->weight + column / OUTPUTS * block + column % OUTPUTS;
    EACH_SUM(LOAD_START)
    for (int64_t term = 0; term < p->terms; term++) {
        const float *x = p->x[term] + row * stride;
        for (int64_t i = 0; i < p->steps; i++, x++, weight += OUTPUTS) {
            EACH_COLUMN(LOAD_WEIGHT, 0)
            EACH_PIXEL(ADD_PIXEL, 0)
        }
    }
    if (p->activate) { EACH_SUM(ACTIVATE) }
    float *to = p->to + row * p->to_stride + column;
    const int64_t columns = p->columns - column;
    if (columns >= vectors * WIDTH) { EACH_SUM(STORE_ALL) } else { EACH_SUM(STORE_SOME) }
}

/* All pixels, by tiles of `pixels` or fewer. The last tile overlaps the one before. */
INLINE void multiply_columns(const Product *p, const int64_t stride, const int pixels, const int vectors,
                             int64_t column) {
    const int64_t count = p->count;
    if (count >= pixels)
        for (int64_t row = 0; row < count; row += pixels)
            multiply_tile(p, stride, pixels, vectors, min_i64(row, count - pixels), column);
    else if (count >= FEW_PIXELS)
        for (int64_t row = 0; row < count; row += FEW_PIXELS)
            multiply_tile(p, stride, FEW_PIXELS, vectors, min_i64(row, count - FEW_PIXELS), column);
    else
        for (int64_t row = 0; row < count; row++) multiply_tile(p, stride, 1, vectors, row, column);
}

/* `stride` is the distance between pixels of x: a constant, so that their addresses need no registers. The last outputs
   may fill only half of the vectors. */
INLINE void multiply_by(const Product *p, const int64_t stride) {
    int64_t column = 0;
#if WIDTH == 16
    for (; column + WIDTH < p->columns; column += 2 * WIDTH) multiply_columns(p, stride, TILE_PIXELS / 2, 2, column);
#elif WIDTH == 8 || WIDTH == 4
    const int64_t half = TILE_WIDTH / 2 * WIDTH;
    for (; column + half < p->columns; column += 2 * half)
        multiply_columns(p, stride, TILE_PIXELS, TILE_WIDTH, column);
    if (column < p->columns) multiply_columns(p, stride, 2 * TILE_PIXELS, TILE_WIDTH / 2, column);
#endif
#if WIDTH != 8 && WIDTH != 4
    for (; column < p->columns; column += WIDTH) multiply_columns(p, stride, TILE_PIXELS, 1, column);
#endif
}

NOT_INLINE void multiply(const Product *p, int64_t stride) {
    switch (stride) {
    case 3: multiply_by(p, 3); break;
    case 8: multiply_by(p, 8); break;
    case 16: multiply_by(p, 16); break;
    case 32: multiply_by(p, 32); break;
    case 64: multiply_by(p, 64); break;
    case 128: multiply_by(p, 128); break;
    case GATHERED: multiply_by(p, GATHERED); break;
    }
}

#undef EACH_PIXEL
#undef EACH_COLUMN
#undef EACH_SUM_OF
#undef EACH_SUM
#undef IS_USED
#undef LOAD_START
#undef LOAD_WEIGHT
#undef ADD_SUM
#undef ADD_PIXEL
#undef ACTIVATE
#undef STORE_ALL
#undef STORE_SOME

/* `count` pixels through a 1 x 1 convolution in blocks. */
static void pointwise(const Conv *conv, const float *x, int64_t count, int activate, float *to, int64_t to_stride) {
    const Product product = {{x}, 1, conv->in, conv->weight, conv->bias ? conv->bias : no_bias, 0,
                             to, to_stride, count, conv->out, activate};
    multiply(&product, conv->in);
}

/* A row through a 3 x 3 convolution in blocks. `rows` are those above, at and below; each begins with a pixel on the
   left of the row, and ends with one on its right. start (count, start_stride), or the bias if NULL. */
static void convolve_row(const Conv *conv, const float *const *rows, const float *start, int64_t start_stride,
                         int64_t count, int activate, float *to, int64_t to_stride) {
    if (!start) start = conv->bias ? conv->bias : no_bias, start_stride = 0;
    const Product product = {{rows[0], rows[1], rows[2]}, 3, 3 * conv->in, conv->weight, start, start_stride,
                             to, to_stride, count, conv->out, activate};
    multiply(&product, conv->in);
}
