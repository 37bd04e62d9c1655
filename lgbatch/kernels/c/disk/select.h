/* Keypoints: strict maxima of windows of 5 x 5, the best first, ties in raster order. */

typedef struct {
    uint32_t key; /* ascending with falling scores */
    int32_t x, y;
    float score;
} Peak;

/* Maxima are at least REACH + 1 pixels apart. */
static int64_t most_peaks(int64_t height, int64_t width) {
    return ((height + REACH) / (REACH + 1)) * ((width + REACH) / (REACH + 1));
}

/* Find the maxima above 0 whose windows lie in the upper left (height, width) of the heatmap, in raster order. Returns
   their number. */
static int64_t find_peaks(const Heat *heat, int64_t height, int64_t width, Peak *peaks) {
    int64_t found = 0;
    const int64_t stride = heat->stride;
    float others[WIDTH];
    for (int64_t y = REACH; y < height - REACH; y++) {
        for (int64_t x = REACH; x < width - REACH; x += WIDTH) {
            const float *centre = heat->x + (y + REACH) * stride + x + REACH;
            vf most = vf_set(0.0f);
            for (int64_t shift = -REACH; shift <= REACH; shift++) {
                for (int64_t row = -REACH; row <= REACH; row++)
                    if (shift || row) most = vf_max(most, vf_load(centre + row * stride + shift));
            }
            if (!vm_any(vf_greater(vf_load(centre), most))) continue;
            vf_store(others, most);
            for (int64_t i = 0; i < WIDTH && x + i < width - REACH; i++) {
                if (!(centre[i] > others[i])) continue;
                uint32_t bits;
                memcpy(&bits, centre + i, sizeof bits);
                peaks[found++] = (Peak){~bits, (int32_t)(x + i), (int32_t)y, centre[i]};
            }
        }
    }
    return found;
}

/* Sort by key, stable: a radix sort of 11 bits a pass. `spare` is as long as peaks. Returns which of the two holds the
   result. */
static Peak *sort_peaks(Peak *peaks, Peak *spare, int64_t count) {
    for (int shift = 0; shift < 32; shift += 11) {
        int64_t starts[1 << 11] = {0}, total = 0;
        for (int64_t i = 0; i < count; i++) starts[peaks[i].key >> shift & 0x7ff]++;
        for (int64_t i = 0; i < 1 << 11; i++) {
            const int64_t size = starts[i];
            starts[i] = total, total += size;
        }
        for (int64_t i = 0; i < count; i++) spare[starts[peaks[i].key >> shift & 0x7ff]++] = peaks[i];
        Peak *sorted = spare;
        spare = peaks, peaks = sorted;
    }
    return peaks;
}

/* Move a keypoint to the maximum of the quadratic function that fits the nine values around it by least squares
   (Haralick's facet model), at most half a pixel along each axis; not at all if it has no maximum. */
static void refine_peak(const Heat *heat, const Peak *peak, float *keypoint) {
    const float *centre = heat->x + (peak->y + REACH) * heat->stride + peak->x + REACH;
    float dx = 0, dy = 0, dxx = 0, dyy = 0, dxy = 0;
    for (int64_t y = -1; y <= 1; y++) {
        for (int64_t x = -1; x <= 1; x++) {
            const float value = centre[y * heat->stride + x] - *centre;
            dx += value * x / 6, dy += value * y / 6, dxy += value * (x * y) / 4;
            dxx += value * (x * x - 2.0f / 3), dyy += value * (y * y - 2.0f / 3);
        }
    }
    const float determinant = dxx * dyy - dxy * dxy;
    keypoint[0] = (float)peak->x, keypoint[1] = (float)peak->y;
    if (!(dxx < 0) || !(determinant > 0)) return;
    keypoint[0] += fminf(fmaxf((dxy * dy - dyy * dx) / determinant, -0.5f), 0.5f);
    keypoint[1] += fminf(fmaxf((dxy * dx - dxx * dy) / determinant, -0.5f), 0.5f);
}
