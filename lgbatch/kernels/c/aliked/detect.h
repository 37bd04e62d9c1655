/* ALIKED's detector (export/networks/detect.py): local maxima of a score map, by three rounds of non-maximum suppression.

   The first round finds the scores that no other in the window around them exceeds. Each later round does the same among
   the pixels outside the windows of the maxima so far. A score can only be suppressed by one that is at least as large, so
   scores at or below the bound are left out from the start. */

enum { RADIUS = 2, ROUNDS = 3 }; /* windows are 5 x 5; maxima lie at least RADIUS from the edges */

/* Size of the scratch buffer of aliked_maxima. */
EXPORT size_t EXPORTED(aliked_maxima_scratch_bytes)(int64_t height, int64_t width) {
    return align_bytes(height * width) + 2 * height * width * 4;
}

/* Whether no score in the window around a pixel exceeds its own, suppressed pixels counting as 0. */
INLINE int is_maximum(const float *scores, int64_t stride, const uint8_t *suppressed, int64_t height, int64_t width,
                      int64_t y, int64_t x) {
    const float score = scores[y * stride + x];
    const int64_t bottom = min_i64(y + RADIUS, height - 1), right = min_i64(x + RADIUS, width - 1);
    for (int64_t row = y < RADIUS ? 0 : y - RADIUS; row <= bottom; row++)
        for (int64_t column = x < RADIUS ? 0 : x - RADIUS; column <= right; column++)
            if (scores[row * stride + column] > score && !suppressed[row * width + column]) return 0;
    return 1;
}

/* Mark the window around a pixel as suppressed. */
INLINE void suppress(uint8_t *suppressed, int64_t height, int64_t width, int64_t y, int64_t x) {
    const int64_t bottom = min_i64(y + RADIUS, height - 1), right = min_i64(x + RADIUS, width - 1);
    const int64_t left = x < RADIUS ? 0 : x - RADIUS;
    for (int64_t row = y < RADIUS ? 0 : y - RADIUS; row <= bottom; row++)
        memset(suppressed + row * width + left, 1, right - left + 1);
}

/* Write the raster indices, row * width + column, of the pixels whose score exceeds `bound`. Return their number. */
static int64_t list_above(const float *scores, int64_t stride, int64_t height, int64_t width, float bound,
                          int32_t *list) {
    int64_t count = 0;
    for (int64_t y = 0; y < height; y++) {
        for (int64_t x = 0; x < width; x += WIDTH) {
            const int64_t lanes = min_i64(WIDTH, width - x);
            const float *row = scores + y * stride + x;
            if (lanes == WIDTH && !vm_any(vf_greater(vf_load(row), vf_set(bound)))) continue;
            for (int64_t i = 0; i < lanes; i++)
                if (row[i] > bound) list[count++] = (int32_t)(y * width + x + i);
        }
    }
    return count;
}

/* Find the local maxima above `bound` of scores (height, width), not negative, whose rows are `stride` apart. Write their
   raster indices in no particular order to maxima (height * width,). Return their number. */
EXPORT int64_t EXPORTED(aliked_maxima)(const float *scores, int64_t stride, int64_t height, int64_t width, float bound,
                                       int32_t *maxima, uint8_t *scratch) {
    uint8_t *suppressed = scratch;
    int32_t *rest = (int32_t *)(scratch + align_bytes(height * width)), *found = rest + height * width;
    memset(suppressed, 0, height * width);
    int64_t count = 0, remaining = list_above(scores, stride, height, width, bound, rest);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t kept = 0, new_maxima = 0;
        for (int64_t i = 0; i < remaining; i++) {
            const int64_t y = rest[i] / width, x = rest[i] % width;
            if (suppressed[rest[i]]) continue;
            if (is_maximum(scores, stride, suppressed, height, width, y, x)) found[new_maxima++] = rest[i];
            else rest[kept++] = rest[i];
        }
        remaining = kept;
        for (int64_t i = 0; i < new_maxima; i++) { /* only now: all maxima of a round are found at once */
            const int64_t y = found[i] / width, x = found[i] % width;
            suppress(suppressed, height, width, y, x);
            if (y >= RADIUS && y < height - RADIUS && x >= RADIUS && x < width - RADIUS) maxima[count++] = found[i];
        }
    }
    return count;
}
