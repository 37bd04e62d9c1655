/* DISK for one photo, on one core. */

enum { SCALES = DOWN + 1 };

/* The memory of an extraction. `down` and `pooled` have the size of their level; pooled[0] is unused, and so is
   up[DOWN]. */
typedef struct {
    DiskMap down[SCALES], pooled[SCALES], up[UP];
    Heat heat;
    Strip *strip;
    int16_t *row; /* of the inputs of the first convolution */
    Peak *peaks, *spare;
    Source source;
} DiskWork;

INLINE int64_t padded_side(int64_t side) { return (side + (1 << DOWN) - 1) >> DOWN << DOWN; }

INLINE void *disk_take(uint8_t **memory, size_t bytes) {
    void *taken = *memory;
    *memory += align_bytes(bytes);
    return taken;
}

static void map_init(DiskMap *map, int64_t height, int64_t width, int64_t channels, uint8_t **memory) {
    map->height = height, map->width = width, map->channels = channels;
    map->x = disk_take(memory, (size_t)((height + height % 2) * width * channels) * sizeof *map->x);
    statistics_init(&map->statistics);
    memset(map->upsampled, 0, sizeof map->upsampled);
}

/* Lay out the memory. Returns its end. */
static uint8_t *work_init(DiskWork *work, const Disk *network, int64_t height, int64_t width, uint8_t *memory) {
    const int64_t h = padded_side(height), w = padded_side(width), peaks = most_peaks(height, width);
    int64_t channels = FIRST_CHANNELS;
    for (int i = 0; i < SCALES; i++) {
        if (i) {
            map_init(work->pooled + i, h >> i, w >> i, channels, &memory);
            channels = network->down[i - 1].out;
        }
        map_init(work->down + i, h >> i, w >> i, channels, &memory);
    }
    for (int i = 0; i < UP; i++) map_init(work->up + i, h >> (UP - i), w >> (UP - i), network->up[i].out, &memory);
    work->strip = disk_take(&memory, sizeof(Strip));
    work->row = disk_take(&memory, (size_t)((w + 2 * REACH) * ROWS * 3) * sizeof(int16_t));
    work->heat = (Heat){NULL, h, w, w + 2 * REACH + WIDTH};
    work->heat.x = disk_take(&memory, (size_t)((h + 2 * REACH) * work->heat.stride) * sizeof(float));
    work->peaks = disk_take(&memory, peaks * sizeof(Peak)), work->spare = disk_take(&memory, peaks * sizeof(Peak));
    return memory;
}

/* Whether weights must be bfloat16 instead of int16. */
EXPORT int64_t EXPORTED(disk_factors_are_bf16)(void) {
#ifdef BF16_FACTORS
    return 1;
#else
    return 0;
#endif
}

/* Size of the scratch buffer of lgbatch_disk, which must be aligned to 64 bytes. */
EXPORT size_t EXPORTED(disk_scratch_bytes)(const Disk *network, int64_t height, int64_t width) {
    DiskWork work;
    return (size_t)(work_init(&work, network, height, width, NULL) - (uint8_t *)NULL);
}

/* The mean of each channel of a photo (count, 3), rounded. */
static void mean_colour(const uint8_t *pixels, int64_t count, int16_t mean[3]) {
    int64_t sums[3] = {0};
    for (int64_t i = 0; i < count; i++)
        for (int c = 0; c < 3; c++) sums[c] += pixels[3 * i + c];
    for (int c = 0; c < 3; c++) mean[c] = (int16_t)((sums[c] + count / 2) / count);
}

/* Six rows of a photo from row y - REACH on, less the mean: (padded width + 2 REACH, ROWS, 3). Black surrounds the
   photo, REACH pixels on the left, and up to the padded width and REACH on the right. */
static void photo_rows(const uint8_t *pixels, int64_t height, int64_t width, int64_t y, int64_t padded,
                       const int16_t mean[3], int16_t *to) {
    for (int64_t row = 0; row < ROWS; row++) {
        const int64_t from = y - REACH + row;
        const uint8_t *x = pixels + from * width * 3;
        int16_t *output = to + row * 3;
        for (int64_t i = -REACH; i < padded + REACH; i++, output += ROWS * 3) {
            const int is_inside = from >= 0 && from < height && i >= 0 && i < width;
            for (int c = 0; c < 3; c++) output[c] = (int16_t)((is_inside ? x[3 * i + c] : 0) - mean[c]);
        }
    }
}

/* The first convolution, of the photo. */
static void convolve_photo(const Disk *network, const uint8_t *pixels, int64_t height, int64_t width, DiskWork *work) {
    DiskMap *map = work->down;
    const int64_t units = map->width / FIRST_PIXELS, stride = FIRST_PIXELS * ROWS * 3;
    int16_t mean[3];
    int32_t acc[TILE_ROWS * PANEL];
    mean_colour(pixels, height * width, mean);
    for (int64_t y = 0; y < map->height; y += 2) {
        photo_rows(pixels, height, width, y, map->width, mean, work->row);
        make_factors(work->row, (map->width + 2 * REACH) * ROWS * 3);
        for (int64_t unit = 0; unit < units; unit += TILE_ROWS) {
            const int64_t count = min_i64(TILE_ROWS, units - unit);
            for (int64_t row = 0; row < 2; row++) {
                const int16_t *weight = network->first_weight + row * FIRST_STEPS * PANEL * 2;
                gemm_factors(work->row + unit * stride, stride, weight, FIRST_STEPS, count, acc);
                uint16_t *output = map->x + (y + row) * map->width * map->channels + unit * PANEL;
                for (int64_t i = 0; i < count * PANEL; i += WIDTH) {
                    const vf scale = vf_load(network->first_scale + i % PANEL);
                    store_map(output + i, vf_mul(sum_to_float(vi_load(acc + i)), scale));
                }
            }
        }
        finish_rows(map, work->pooled + 1, y, 0, map->width);
    }
}

/* to (count, PANEL) = acc scale, or is increased by it. */
INLINE void add_scaled(const int32_t *acc, const float *scale, int64_t count, float *to, int is_sum) {
    for (int column = 0; column < PANEL; column += WIDTH) {
        const vf factor = vf_load(scale + column);
        for (int64_t i = column; i < count * PANEL; i += PANEL) {
            const vf value = sum_to_float(vi_load(acc + i));
            vf_store(to + i, is_sum ? vf_fma(value, factor, vf_load(to + i)) : vf_mul(value, factor));
        }
    }
}

/* Descriptors (count, DESCRIPTOR_DIM) of unit length, of up to TILE_ROWS keypoints at whole pixels. */
static void describe(const Disk *network, const Source *source, const Peak *peaks, int64_t count, float *descriptors) {
    enum { VALUES = KERNEL * LAST_CHANNELS };
    int16_t windows[KERNEL][TILE_ROWS * VALUES], row[(KERNEL + 1) * LAST_CHANNELS];
    int32_t acc[TILE_ROWS * PANEL];
    float sums[DESCRIPTOR_DIM / PANEL][TILE_ROWS * PANEL];
    for (int64_t i = 0; i < count; i++) {
        const int64_t left = peaks[i].x - REACH, even = left & -2;
        for (int64_t y = 0; y < KERNEL; y++) {
            source_row(source, peaks[i].y - REACH + y, even, even + KERNEL + 1, row);
            memcpy(windows[y] + i * VALUES, row + (left - even) * LAST_CHANNELS, VALUES * sizeof *row);
        }
    }
    for (int64_t y = 0; y < KERNEL; y++) {
        make_factors(windows[y], count * VALUES);
        for (int64_t part = 0; part < DESCRIPTOR_DIM / PANEL; part++) {
            const int64_t term = y * DESCRIPTOR_DIM / PANEL + part;
            const Factor *weight = network->descriptor_weight + term * VALUES * PANEL;
            gemm_factors(windows[y], VALUES, weight, VALUES / 2, count, acc);
            add_scaled(acc, network->descriptor_scale + term * PANEL, count, sums[part], y > 0);
        }
    }
    for (int64_t i = 0; i < count; i++, descriptors += DESCRIPTOR_DIM) {
        vf squares = vf_set(0.0f);
        for (int64_t c = 0; c < DESCRIPTOR_DIM; c += WIDTH) {
            vf value = vf_load(sums[c / PANEL] + i * PANEL + c % PANEL);
            value = vf_fma(value, vf_set(source->scale), vf_load(network->descriptor_bias + c));
            squares = vf_fma(value, value, squares);
            vf_store(descriptors + c, value);
        }
        const vf factor = vf_set(1 / fmaxf(sqrtf(vf_reduce_add(squares)), 1e-12f));
        for (int64_t c = 0; c < DESCRIPTOR_DIM; c += WIDTH)
            vf_store(descriptors + c, vf_mul(vf_load(descriptors + c), factor));
    }
}

/* Extract up to max_keypoints keypoints from pixels (height, width, 3), RGB: keypoints (max_keypoints, 2), scores
   (max_keypoints,) and descriptors (max_keypoints, DESCRIPTOR_DIM), best first. Returns their number; other rows are
   not written. */
EXPORT int64_t EXPORTED(disk)(const Disk *network, const uint8_t *pixels, int64_t height, int64_t width,
                              int64_t max_keypoints, uint8_t *scratch, float *keypoints, float *scores,
                              float *descriptors) {
    DiskWork work;
    Source *source = &work.source;
    work_init(&work, network, height, width, scratch);
    convolve_photo(network, pixels, height, width, &work);
    for (int i = 1; i <= DOWN; i++) {
        source_init(source, NULL, work.pooled + i, network->down[i - 1].slope);
        convolve(network->down + i - 1, source, work.strip, work.down + i, i < DOWN ? work.pooled + i + 1 : NULL);
    }
    const DiskMap *low = work.down + DOWN;
    for (int i = 0; i < UP; i++) {
        source_init(source, low, work.down + UP - i, network->up[i].slope);
        convolve(network->up + i, source, work.strip, work.up + i, NULL);
        low = work.up + i;
    }
    source_init(source, low, work.down, network->last_slope);
    heat_init(&work.heat, network, source);
    int64_t count = find_peaks(&work.heat, height, width, work.peaks);
    const Peak *peaks = sort_peaks(work.peaks, work.spare, count);
    count = min_i64(count, max_keypoints);
    for (int64_t i = 0; i < count; i++) {
        refine_peak(&work.heat, peaks + i, keypoints + 2 * i);
        scores[i] = peaks[i].score;
    }
    for (int64_t i = 0; i < count; i += TILE_ROWS)
        describe(network, source, peaks + i, min_i64(TILE_ROWS, count - i), descriptors + i * DESCRIPTOR_DIM);
    return count;
}
