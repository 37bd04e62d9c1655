/* Blocks 1 and 2, a pair of rows at a time: the rows that a pair needs stay in the L2 cache. */

/* The last four rows of a map (height, width, channels), with a pixel of zeros at both ends of each row. */
typedef struct {
    float *rows[4], *zeros, *spare; /* spare: for a row beyond the map */
    int64_t height, width, channels;
} Ring;

static Ring take_ring(Arena *arena, int64_t height, int64_t width, int64_t channels) {
    Ring ring = {{0}, NULL, NULL, height, width, channels};
    for (int i = 0; i < 4; i++) ring.rows[i] = take_zeros(arena, (width + 2) * channels);
    ring.zeros = take_zeros(arena, (width + 2) * channels);
    ring.spare = take(arena, (width + 2) * channels);
    return ring;
}

INLINE int is_inside(const Ring *ring, int64_t y) { return y >= 0 && y < ring->height; }

/* Row y with the pixel of zeros on its left; zeros beyond the map. */
INLINE const float *ring_row(const Ring *ring, int64_t y) {
    return is_inside(ring, y) ? ring->rows[y % 4] : ring->zeros;
}

/* The first pixel of row y, to write to. */
INLINE float *ring_pixels(const Ring *ring, int64_t y) {
    return (is_inside(ring, y) ? ring->rows[y % 4] : ring->spare) + ring->channels;
}

/* A block whose convolutions are not deformable. */
typedef struct {
    const AlikedBlock *block;
    Ring input, inside; /* inside: between both convolutions */
    float *around;      /* (2, width, out): the skip connection; NULL if there is none */
    Squares squares;
} RowBlock;

static RowBlock take_row_block(Arena *arena, const AlikedBlock *block, int64_t height, int64_t width) {
    const int64_t inside = block->conv[0].out, outside = block->conv[1].out;
    RowBlock rows = {block};
    rows.input = take_ring(arena, height, width, block->conv[0].in);
    rows.inside = take_ring(arena, height, width, inside);
    if (block->around.weight) rows.around = take(arena, 2 * width * outside);
    rows.squares = take_squares(arena, inside, outside);
    return rows;
}

/* Rows y and y + 1 of a convolution and SELU. start (2, width, out), or the bias if NULL. */
static void convolve_pair(const Conv *conv, const Ring *ring, const Squares *squares, int64_t y, const float *start,
                          float *to0, float *to1) {
    const float *rows[4];
    for (int i = 0; i < 4; i++) rows[i] = ring_row(ring, y - 1 + i);
    if (is_transformed(conv)) {
        convolve_squares(conv, rows, start, ring->width, squares, (float *const[]){to0, to1});
        return;
    }
    convolve_row(conv, rows, start, conv->out, ring->width, 1, to0, conv->out);
    convolve_row(conv, rows + 1, start ? start + ring->width * conv->out : NULL, conv->out, ring->width, 1, to1,
                 conv->out);
}

/* Compute rows 2 pair and 2 pair + 1 of a block's output, to (2, width, out). Calls begin with pair -1, which computes
   none; rows 2 pair + 2 and 2 pair + 3 of the input have been written before. */
static void row_block(RowBlock *rows, int64_t pair, float *to) {
    const AlikedBlock *block = rows->block;
    const int64_t width = rows->input.width, y = 2 * pair, row = width * block->conv[1].out;
    convolve_pair(block->conv, &rows->input, &rows->squares, y + 1, NULL, ring_pixels(&rows->inside, y + 1),
                  ring_pixels(&rows->inside, y + 2));
    if (pair < 0) return;
    for (int r = 0; r < 2 && rows->around; r++)
        pointwise(&block->around, ring_row(&rows->input, y + r) + rows->input.channels, width, 0,
                  rows->around + r * row, block->around.out);
    convolve_pair(block->conv + 1, &rows->inside, &rows->squares, y, rows->around, to, to + row);
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
