/* Blocks 1 and 2, a pair of rows at a time: the rows that a pair needs stay in the L2 cache. */

/* Scratch memory that is handed out piece by piece; without a base it is only counted. */
typedef struct {
    uint8_t *base;
    size_t used;
} Arena;

static float *take(Arena *arena, int64_t count) {
    float *array = arena->base ? (float *)(arena->base + arena->used) : NULL;
    arena->used += align_bytes(count * sizeof *array);
    return array;
}

static float *take_zeros(Arena *arena, int64_t count) {
    float *array = take(arena, count);
    if (array) memset(array, 0, count * sizeof *array);
    return array;
}

/* The last four rows of a map (height, width, channels), with a pixel of zeros at both ends of each row. */
typedef struct {
    float *rows[4], *zeros;
    int64_t height, width, channels;
} Ring;

static Ring take_ring(Arena *arena, int64_t height, int64_t width, int64_t channels) {
    Ring ring = {{0}, NULL, height, width, channels};
    for (int i = 0; i < 4; i++) ring.rows[i] = take_zeros(arena, (width + 2) * channels);
    ring.zeros = take_zeros(arena, (width + 2) * channels);
    return ring;
}

/* Row y with the pixel of zeros on its left; zeros beyond the map. */
INLINE float *ring_row(const Ring *ring, int64_t y) {
    return y < 0 || y >= ring->height ? ring->zeros : ring->rows[y % 4];
}

/* The first pixel of row y. */
INLINE float *ring_pixels(const Ring *ring, int64_t y) { return ring_row(ring, y) + ring->channels; }

static void convolve_ring(const Conv *conv, const Ring *ring, int64_t y, const float *start, float *to) {
    const float *rows[3] = {ring_row(ring, y - 1), ring_row(ring, y), ring_row(ring, y + 1)};
    convolve_row(conv, rows, start, conv->out, ring->width, 1, to, conv->out);
}

/* A block whose convolutions are not deformable. */
typedef struct {
    const AlikedBlock *block;
    Ring input, inside; /* inside: between both convolutions */
    float *around;      /* (width, out): the skip connection; NULL if there is none */
} RowBlock;

static RowBlock take_row_block(Arena *arena, const AlikedBlock *block, int64_t height, int64_t width) {
    RowBlock rows = {block};
    rows.input = take_ring(arena, height, width, block->conv[0].in);
    rows.inside = take_ring(arena, height, width, block->conv[0].out);
    if (block->around.weight) rows.around = take(arena, width * block->around.out);
    return rows;
}

/* Compute rows 2 pair and 2 pair + 1 of a block's output, to (2, width, out). Calls begin with pair -1, which computes
   none; rows 2 pair + 2 and 2 pair + 3 of the input have been written before. */
static void row_block(RowBlock *rows, int64_t pair, float *to) {
    const AlikedBlock *block = rows->block;
    const int64_t height = rows->input.height, width = rows->input.width;
    for (int64_t y = 2 * pair + 1; y <= 2 * pair + 2; y++)
        if (y >= 0 && y < height)
            convolve_ring(block->conv, &rows->input, y, NULL, ring_pixels(&rows->inside, y));
    for (int64_t y = 2 * pair; pair >= 0 && y < 2 * pair + 2; y++, to += width * block->conv[1].out) {
        if (rows->around)
            pointwise(&block->around, ring_pixels(&rows->input, y), width, 0, rows->around, block->around.out);
        convolve_ring(block->conv + 1, &rows->inside, y, rows->around, to);
    }
}

/* to (width / size, channels) += the sums of `size` pixels of a row, times scale. */
static void add_pooled(const float *x, int64_t width, int64_t channels, int64_t size, float scale, float *to) {
    const int step = channels % WIDTH ? 1 : WIDTH;
    for (int64_t pixel = 0; pixel < width / size; pixel++, x += size * channels, to += channels) {
        for (int64_t c = 0; c < channels; c += step) {
            if (step == 1) {
                float sum = 0;
                for (int64_t i = 0; i < size; i++) sum += x[i * channels + c];
                to[c] += scale * sum;
            } else {
                vf sum = vf_load(x + c);
                for (int64_t i = 1; i < size; i++) sum = vf_add(sum, vf_load(x + i * channels + c));
                vf_store(to + c, vf_fma(sum, vf_set(scale), vf_load(to + c)));
            }
        }
    }
}
