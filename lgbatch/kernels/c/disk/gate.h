/* Gates: from maps to the quantized rows that convolutions read. */

INLINE vf prelu(vf x, vf slope) { return vf_select(vf_greater(vf_set(0.0f), x), vf_mul(x, slope), x); }

/* Columns first to end of a row of a map through its gate, to `to` (end - first, stride). */
static void gate_row(const DiskMap *map, const Gate *gate, int64_t y, int64_t first, int64_t end, int16_t *to,
                     int64_t stride) {
    const int64_t channels = map->channels;
    const uint16_t *x = map->x + (y * map->width + first) * channels;
    for (int64_t i = first; i < end; i++, x += channels, to += stride) {
        for (int64_t c = 0; c < channels; c += WIDTH) {
            const vf normed = vf_fma(load_half(x + c), vf_load(gate->scale + c), vf_load(gate->shift + c));
            store_int16(to + c, prelu(normed, vf_load(gate->slope + c)));
        }
    }
}

/* The same of the map interpolated to twice its size; first and end are even and at most STRIP + 2 REACH apart. An
   upsampled pixel lies a quarter of a pixel beside one of the map's. */
static void gate_upsampled_row(const DiskMap *map, const Gate *gate, int64_t y, int64_t first, int64_t end, int16_t *to,
                               int64_t stride) {
    const int64_t channels = map->channels, row = map->width * channels, near = y / 2, last = map->width - 1;
    const int64_t far = y % 2 ? min_i64(near + 1, map->height - 1) : near - (near > 0);
    const int64_t left = first / 2 - 1, count = (end - first) / 2;
    const vf quarter = vf_set(0.25f), three_quarters = vf_set(0.75f);
    float normed[(STRIP / 2 + REACH + 2) * MAP_CHANNELS]; /* of that row, at the map's columns from `left` on */
    for (int64_t i = 0; i < count + 2; i++) {
        const int64_t x = min_i64(left + i < 0 ? 0 : left + i, last) * channels;
        for (int64_t c = 0; c < channels; c += WIDTH) {
            const vf a = load_half(map->x + near * row + x + c), b = load_half(map->x + far * row + x + c);
            const vf value = vf_fma(a, three_quarters, vf_mul(b, quarter));
            vf_store(normed + i * channels + c, vf_fma(value, vf_load(gate->scale + c), vf_load(gate->shift + c)));
        }
    }
    for (int64_t c = 0; c < channels; c += WIDTH) {
        const vf slope = vf_load(gate->slope + c);
        vf before = vf_load(normed + c), here = vf_load(normed + channels + c);
        int16_t *output = to + c;
        for (int64_t i = 2; i < count + 2; i++, output += 2 * stride) {
            const vf after = vf_load(normed + i * channels + c), most = vf_mul(here, three_quarters);
            store_int16(output, prelu(vf_fma(before, quarter, most), slope));
            store_int16(output + stride, prelu(vf_fma(after, quarter, most), slope));
            before = here, here = after;
        }
    }
}

/* Columns first to end of row y of a convolution's input, to `to` (end - first, channels); zeros outside the map.
   first and end are even. */
static void source_row(const Source *source, int64_t y, int64_t first, int64_t end, int16_t *to) {
    const DiskMap *same = source->same;
    const int64_t channels = source->channels, left = first < 0 ? 0 : first, right = min_i64(end, same->width);
    if (y < 0 || y >= same->height) {
        memset(to, 0, (size_t)((end - first) * channels) * sizeof *to);
        return;
    }
    memset(to, 0, (size_t)((left - first) * channels) * sizeof *to);
    memset(to + (right - first) * channels, 0, (size_t)((end - right) * channels) * sizeof *to);
    to += (left - first) * channels;
    if (source->low) {
        gate_upsampled_row(source->low, &source->low_gate, y, left, right, to, channels);
        to += source->low->channels;
    }
    gate_row(same, &source->same_gate, y, left, right, to, channels);
}
