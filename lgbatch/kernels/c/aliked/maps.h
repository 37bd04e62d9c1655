/* ALIKED's maps: a photo to the feature pyramid and the scores. */

/* All scratch memory. H and W are the padded sides. */
typedef struct {
    int64_t height, width, top, left; /* of the padded photo; where the photo begins in it */
    RowBlock full, half;              /* blocks 1 and 2 */
    float *half_rows;                 /* (2, W / 2, c2): a pair of rows of block 2 */
    Map maps[4];                      /* the input of blocks 3 and 4, each before what is between their convolutions */
    float *rows;                      /* (max(W / 8, W / 32), widest) a row of block 3 or 4 */
    Taps taps;
    ScoreHead head;
} Work;

static Work take_work(Arena *arena, const AlikedNet *net, int64_t height, int64_t width) {
    const int64_t h = round_up(height, STRIDE), w = round_up(width, STRIDE);
    const AlikedBlock *blocks = net->blocks;
    const int64_t widest = blocks[3].conv[1].out;
    Work work = {h, w, (h - height) / 2, (w - width) / 2};
    work.full = take_row_block(arena, blocks, h, w);
    work.half = take_row_block(arena, blocks + 1, h / 2, w / 2);
    work.half_rows = take(arena, w * blocks[1].conv[1].out);
    for (int i = 0; i < 4; i++) {
        const int64_t factor = i < 2 ? 8 : 32;
        work.maps[i] = take_map(arena, h / factor, w / factor, blocks[2 + i / 2].conv[i % 2].in);
    }
    work.rows = take(arena, w / 8 * widest);
    work.taps = (Taps){take(arena, w / 8 * OFFSETS), take(arena, GATHERED_PIXELS * GATHERED),
                       take(arena, GATHERED_PIXELS * widest)};
    work.head = take_score_head(arena, net, h, w);
    return work;
}

/* Row y of the padded photo, which repeats its edges, in 0..1. */
static void load_pixels(const Work *work, const uint8_t *pixels, int64_t height, int64_t width, int64_t y, float *to) {
    const int64_t inside = y - work->top < 0 ? 0 : min_i64(y - work->top, height - 1);
    const uint8_t *row = pixels + inside * width * 3;
    for (int64_t x = 0; x < work->left; x++)
        for (int64_t c = 0; c < 3; c++) *to++ = (float)row[c] / 255.0f;
    for (int64_t i = 0; i < 3 * width; i++) to[i] = (float)row[i] / 255.0f;
    to += 3 * width;
    for (int64_t x = work->left + width; x < work->width; x++)
        for (int64_t c = 0; c < 3; c++) *to++ = (float)row[3 * (width - 1) + c] / 255.0f;
}

/* Aggregate `count` pixels of a level (1 to 3) of the pyramid, from `pixel` on, and keep their part in the head. */
static void aggregate(const AlikedNet *net, Work *work, const AlikedMaps *maps, int level, const float *x,
                      int64_t pixel, int64_t count) {
    const Conv *conv = net->aggregate + level;
    float *to = maps->levels[level - 1] + pixel * conv->out;
    pointwise(conv, x, count, 1, to, conv->out);
    pointwise(net->parts + level, to, count, 0, work->head.levels[level - 1].values + pixel * HEAT, HEAT);
}

/* Rows 2 pair and 2 pair + 1 of block 2. */
static void half_pair(const AlikedNet *net, Work *work, const AlikedMaps *maps, int64_t pair) {
    const int64_t width = work->width / 2, channels = net->blocks[1].conv[1].out;
    row_block(&work->half, pair, work->half_rows);
    if (pair < 0) return;
    aggregate(net, work, maps, 1, work->half_rows, 2 * pair * width, 2 * width);
    for (int64_t r = 0; r < 2; r++)
        add_pooled(work->half_rows + r * width * channels, width, channels, 4, 1 / 16.0f,
                   map_pixel(work->maps, pair / 2, 0));
}

/* Blocks 1 and 2, the second a few rows behind the first. */
static void run_row_blocks(const AlikedNet *net, Work *work, const uint8_t *pixels, int64_t height, int64_t width,
                           const AlikedMaps *maps) {
    const int64_t channels = work->half.input.channels;
    for (int64_t pair = -1; pair < work->height / 2; pair++) {
        for (int64_t y = 2 * pair + 2; y < 2 * pair + 4 && y < work->height; y++)
            load_pixels(work, pixels, height, width, y, ring_pixels(&work->full.input, y));
        float *first = maps->first + (pair < 0 ? 0 : 2 * pair * work->width * channels);
        row_block(&work->full, pair, first);
        if (pair < 0) continue;
        float *pooled = ring_pixels(&work->half.input, pair);
        memset(pooled, 0, work->width / 2 * channels * sizeof *pooled);
        for (int64_t r = 0; r < 2; r++)
            add_pooled(first + r * work->width * channels, work->width, channels, 2, 0.25f, pooled);
        if (pair % 2) half_pair(net, work, maps, (pair - 3) / 2);
    }
    half_pair(net, work, maps, work->height / 4 - 1);
}

/* Block 3 or 4, whose input is maps[0], its level of the pyramid, and the input of the next block, if it is not NULL. */
static void run_deformable_block(const AlikedNet *net, Work *work, const AlikedMaps *maps, int level, const Map *map,
                                 const Map *next) {
    const AlikedBlock *block = net->blocks + level;
    const Conv *around = block->around.weight ? &block->around : NULL;
    for (int64_t y = 0; y < map->height; y++)
        deformable_row(block->conv, block->offset, map, NULL, NULL, y, &work->taps, map_pixel(map + 1, y, 0));
    for (int64_t y = 0; y < map->height; y++) {
        deformable_row(block->conv + 1, block->offset + 1, map + 1, around, map, y, &work->taps, work->rows);
        aggregate(net, work, maps, level, work->rows, y * map->width, map->width);
        if (next) add_pooled(work->rows, map->width, next->channels, 4, 1 / 16.0f, map_pixel(next, y / 4, 0));
    }
}

EXPORT size_t EXPORTED(aliked_maps_scratch_bytes)(const AlikedNet *net, int64_t height, int64_t width);
EXPORT size_t EXPORTED(aliked_maps_scratch_bytes)(const AlikedNet *net, int64_t height, int64_t width) {
    Arena arena = {NULL, 0};
    take_work(&arena, net, height, width);
    return arena.used;
}

/* Compute the maps of a photo, pixels (height, width, 3) in RGB. `scratch` is aligned to 64 bytes. */
EXPORT void EXPORTED(aliked_maps)(const AlikedNet *net, const uint8_t *pixels, int64_t height, int64_t width,
                                  const AlikedMaps *maps, uint8_t *scratch);
EXPORT void EXPORTED(aliked_maps)(const AlikedNet *net, const uint8_t *pixels, int64_t height, int64_t width,
                                  const AlikedMaps *maps, uint8_t *scratch) {
    Arena arena = {scratch, 0};
    Work work = take_work(&arena, net, height, width);
    run_row_blocks(net, &work, pixels, height, width, maps);
    run_deformable_block(net, &work, maps, 2, work.maps, work.maps + 2);
    run_deformable_block(net, &work, maps, 3, work.maps + 2, NULL);
    score_head(&work.head, maps->first, maps->scores);
}
