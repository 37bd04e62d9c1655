/* Blocks 3 and 4, whose 3 x 3 convolutions are deformable: each tap samples the map bilinearly, with zeros outside, at its
   pixel plus an offset. Maps have a border of one pixel of zeros. */

enum {
    GATHERED_PIXELS = 16, /* output pixels whose taps are gathered at once */
    OFFSETS = 32,         /* distance between the offsets of pixels: 18, rounded up */
};

typedef struct {
    float *values; /* (height + 2, width + 2, channels) */
    int64_t height, width, channels;
} Map;

static Map take_map(Arena *arena, int64_t height, int64_t width, int64_t channels) {
    return (Map){take_zeros(arena, (height + 2) * (width + 2) * channels), height, width, channels};
}

/* Pixel (y, x), which may be on the border. */
INLINE float *map_pixel(const Map *map, int64_t y, int64_t x) {
    return map->values + ((y + 1) * (map->width + 2) + x + 1) * map->channels;
}

/* The integer below `position`, and what is above it. Positions outside are moved onto the border. */
INLINE int64_t split_position(float position, int64_t size, float *fraction) {
    const float inside = position < -1 ? -1 : position > (float)size ? (float)size : position;
    int64_t low = (int64_t)(inside + 1) - 1;
    low = min_i64(low, size - 1);
    *fraction = inside - (float)low;
    return low;
}

/* Sample all channels of a map at (y, x). */
INLINE void sample(const Map *map, float y, float x, float *to) {
    float down, right;
    const int64_t top = split_position(y, map->height, &down), left = split_position(x, map->width, &right);
    const float *above = map_pixel(map, top, left), *below = map_pixel(map, top + 1, left);
    const int64_t next = map->channels;
    const vf w00 = vf_set((1 - down) * (1 - right)), w01 = vf_set((1 - down) * right);
    const vf w10 = vf_set(down * (1 - right)), w11 = vf_set(down * right);
    for (int64_t c = 0; c < next; c += WIDTH) {
        vf sum = vf_mul(w00, vf_load(above + c));
        sum = vf_fma(w01, vf_load(above + next + c), sum);
        sum = vf_fma(w10, vf_load(below + c), sum);
        vf_store(to + c, vf_fma(w11, vf_load(below + next + c), sum));
    }
}

/* Sample the taps of `count` pixels of row y from x on, whose offsets are (count, OFFSETS): to (count, GATHERED). */
static void gather(const Map *map, int64_t y, int64_t x, int64_t count, const float *offsets, float *to) {
    const float most = (float)(map->height > map->width ? map->height : map->width) / 4;
    for (int64_t i = 0; i < count; i++, offsets += OFFSETS, to += GATHERED) {
        for (int64_t tap = 0; tap < 9; tap++) {
            const float down = offsets[2 * tap], right = offsets[2 * tap + 1];
            sample(map, (float)(y + tap / 3 - 1) + (down < -most ? -most : down > most ? most : down),
                   (float)(x + i + tap % 3 - 1) + (right < -most ? -most : right > most ? most : right),
                   to + tap * map->channels);
        }
    }
}

/* Scratch memory of deformable convolutions. */
typedef struct {
    float *offsets;  /* (width, OFFSETS) */
    float *gathered; /* (GATHERED_PIXELS, GATHERED) */
    float *around;   /* (GATHERED_PIXELS, out) */
} Taps;

/* Row y of a deformable convolution of `map`, plus the skip connection `around` of `x` if there is one, and SELU. */
static void deformable_row(const Conv *conv, const Conv *offset, const Map *map, const Conv *around, const Map *x,
                           int64_t y, const Taps *taps, float *to) {
    const float *rows[3] = {map_pixel(map, y - 1, -1), map_pixel(map, y, -1), map_pixel(map, y + 1, -1)};
    convolve_row(offset, rows, NULL, 0, map->width, 0, taps->offsets, OFFSETS);
    const float *start = around ? taps->around : conv->bias;
    for (int64_t left = 0; left < map->width; left += GATHERED_PIXELS, to += GATHERED_PIXELS * conv->out) {
        const int64_t count = min_i64(GATHERED_PIXELS, map->width - left);
        gather(map, y, left, count, taps->offsets + left * OFFSETS, taps->gathered);
        if (around) pointwise(around, map_pixel(x, y, left), count, 0, taps->around, conv->out);
        const Product product = {{taps->gathered}, 1, 9 * conv->in, conv->weight, start, around ? conv->out : 0,
                                 to, conv->out, count, conv->out, 1};
        multiply(&product, GATHERED);
    }
}
