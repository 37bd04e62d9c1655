/* The score head, a pair of rows at a time. */

enum { HEAT = 8 /* channels of the score head */ };

/* The head's part of a level of the pyramid, upsampled bilinearly so that the corners' pixel centres coincide. */
typedef struct {
    float *values;              /* (height, width, HEAT) */
    int64_t height, width;
    float *rows;                /* (width, 2, HEAT): a pair of upsampled rows, not yet along x */
    int32_t *left;              /* (W,) the pixel on the left of each upsampled pixel */
    float *right_weight;        /* (W,) */
    float row_scale;
} Upsampled;

/* As PyTorch, in float: a position of the large map in the small one. */
INLINE float upsample_scale(int64_t small, int64_t large) {
    return large > 1 ? (float)(small - 1) / (float)(large - 1) : 0.0f;
}

static Upsampled take_upsampled(Arena *arena, int64_t factor, int64_t height, int64_t width) {
    Upsampled level = {NULL, height / factor, width / factor};
    level.values = take(arena, level.height * level.width * HEAT);
    level.rows = take(arena, (level.width + 1) * 2 * HEAT); /* the last pixel twice */
    level.left = (int32_t *)take(arena, width);
    level.right_weight = take(arena, width);
    level.row_scale = upsample_scale(level.height, height);
    if (!arena->base) return level;
    const float scale = upsample_scale(level.width, width);
    for (int64_t x = 0; x < width; x++) {
        level.left[x] = (int32_t)((float)x * scale);
        level.right_weight[x] = (float)x * scale - (float)level.left[x];
    }
    return level;
}

/* Interpolate rows y and y + 1 along y. */
static void upsample_rows(Upsampled *level, int64_t y) {
    for (int64_t r = 0; r < 2; r++) {
        const float position = (float)(y + r) * level->row_scale;
        const int64_t top = min_i64((int64_t)position, level->height - 1);
        const float down = position - (float)top, up = 1 - down;
        const float *above = level->values + top * level->width * HEAT;
        const float *below = above + (top + 1 < level->height) * level->width * HEAT;
        float *to = level->rows + r * HEAT;
        for (int64_t x = 0; x < level->width; x++, above += HEAT, below += HEAT, to += 2 * HEAT)
            for (int64_t c = 0; c < HEAT; c++) to[c] = up * above[c] + down * below[c];
    }
    memcpy(level->rows + level->width * 2 * HEAT, level->rows + (level->width - 1) * 2 * HEAT,
           2 * HEAT * sizeof(float));
}

/* The sum of the levels, for `count` pixels of the pair of rows from x on: planes (2, HEAT, PANEL). */
static void add_upsampled(const Upsampled *levels, int64_t x, int64_t count, float *planes) {
    for (int64_t i = 0; i < count; i += WIDTH) {
        for (int64_t part = 0; part < 2 * HEAT; part += WIDTH) {
            vf block[WIDTH];
            for (int64_t j = 0; j < WIDTH; j++) {
                block[j] = vf_set(0.0f);
                for (const Upsampled *level = levels; level < levels + 3; level++) {
                    const float *left = level->rows + level->left[x + i + j] * 2 * HEAT + part;
                    const float right = level->right_weight[x + i + j];
                    block[j] = vf_fma(vf_set(1 - right), vf_load(left), block[j]);
                    block[j] = vf_fma(vf_set(right), vf_load(left + 2 * HEAT), block[j]);
                }
            }
            vf_transpose(block);
            for (int64_t j = 0; j < WIDTH; j++) vf_store(planes + (part + j) * PANEL + i, block[j]);
        }
    }
}

/* Pixels (count, channels) to planes (channels, PANEL). count is a multiple of WIDTH. */
static void to_planes(const float *x, int64_t count, int64_t channels, float *planes) {
    if (channels % WIDTH) {
        for (int64_t i = 0; i < count; i++)
            for (int64_t c = 0; c < channels; c++) planes[c * PANEL + i] = x[i * channels + c];
        return;
    }
    for (int64_t i = 0; i < count; i += WIDTH) {
        for (int64_t c = 0; c < channels; c += WIDTH) {
            vf block[WIDTH];
            for (int64_t j = 0; j < WIDTH; j++) {
                block[j] = vf_load(x + (i + j) * channels + c);
                PREFETCH(x + (PANEL + i + j) * channels + c);
            }
            vf_transpose(block);
            for (int64_t j = 0; j < WIDTH; j++) vf_store(planes + (c + j) * PANEL + i, block[j]);
        }
    }
}

typedef struct {
    const AlikedNet *net;
    Upsampled levels[3];
    PlaneRing rings[3]; /* the inputs of the three convolutions, after SELU */
    float *score;       /* (1, W) */
    float *upsampled;   /* (2, HEAT, PANEL) */
    float *planes;      /* (c1, PANEL) */
    float *aggregated;  /* (dim / 4, PANEL) */
} ScoreHead;

static ScoreHead take_score_head(Arena *arena, const AlikedNet *net, int64_t height, int64_t width) {
    static const int64_t factors[] = {2, 8, 32};
    ScoreHead head = {net};
    for (int i = 0; i < 3; i++) head.levels[i] = take_upsampled(arena, factors[i], height, width);
    for (int i = 0; i < 3; i++) head.rings[i] = take_plane_ring(arena, height, width, net->head[i].in);
    head.score = take(arena, round_up_to_panel(width));
    head.upsampled = take_zeros(arena, 2 * HEAT * PANEL);
    head.planes = take_zeros(arena, net->aggregate[0].in * PANEL);
    head.aggregated = take(arena, net->aggregate[0].out * PANEL);
    return head;
}

/* Compute rows y and y + 1 of the input of the head's convolutions. first: (H, W, c1) */
static void heat_rows(ScoreHead *head, const float *first, int64_t y) {
    const Conv *aggregate = head->net->aggregate, *part = head->net->parts;
    const PlaneRing *ring = head->rings;
    for (int i = 0; i < 3; i++) upsample_rows(head->levels + i, y);
    for (int64_t x = 0; x < ring->width; x += PANEL) {
        const int64_t count = min_i64(PANEL, ring->width - x);
        add_upsampled(head->levels, x, count, head->upsampled);
        for (int64_t r = 0; r < 2; r++) {
            to_planes(first + ((y + r) * ring->width + x) * aggregate->in, count, aggregate->in, head->planes);
            const Planes inside = {aggregate, {head->planes}, 1, PANEL, NULL, 0, head->aggregated, PANEL, count, 1};
            convolve_planes(&inside);
            const Planes outside = {part, {head->aggregated}, 1, PANEL, head->upsampled + r * HEAT * PANEL, PANEL,
                                    plane_row(ring, y + r) + x, ring->stride, count, 1};
            convolve_planes(&outside);
        }
    }
    for (int64_t r = 0; r < 2; r++) end_plane_row(ring, y + r);
}

/* Row y of the input of convolution i + 1, unless it is beyond the map. */
static void head_row(const ScoreHead *head, int i, int64_t y) {
    const PlaneRing *from = head->rings + i, *to = from + 1;
    if (y < 0 || y >= from->height) return;
    convolve_plane_ring(head->net->head + i, from, y, 1, plane_row(to, y), to->stride);
    end_plane_row(to, y);
}

static void score_row(const ScoreHead *head, int64_t y, float *scores) {
    const PlaneRing *from = head->rings + 2;
    if (y < 0 || y >= from->height) return;
    convolve_plane_ring(head->net->head + 2, from, y, 0, head->score, 0);
    for (int64_t x = 0; x < from->width; x += WIDTH)
        vf_store(scores + y * from->width + x, sigmoid(vf_load(head->score + x)));
}

/* Each convolution is a row behind the one before. */
static void score_head(ScoreHead *head, const float *first, float *scores) {
    const int64_t height = head->rings->height;
    for (int64_t y = 0; y < height + 4; y += 2) {
        if (y < height) heat_rows(head, first, y);
        for (int64_t r = 0; r < 2; r++) head_row(head, 0, y - 1 + r);
        for (int64_t r = 0; r < 2; r++) head_row(head, 1, y - 2 + r);
        for (int64_t r = 0; r < 2; r++) score_row(head, y - 3 + r, scores);
    }
}
