/* Gates: from maps to the quantized rows that convolutions read. */

INLINE vf prelu(vf x, vf slope) { return vf_select(vf_greater(vf_set(0.0f), x), vf_mul(x, slope), x); }

/* Columns first to end of a row of a map through its gate, to `to` (end - first, stride). */
static void gate_row(const Map *map, const Gate *gate, int64_t y, int64_t first, int64_t end, int16_t *to,
                     int64_t stride) {
    const int64_t channels = map->channels;
    const float *x = map->x + (y * map->width + first) * channels;
    for (int64_t c = 0; c < channels; c += WIDTH) {
        const vf scale = vf_load(gate->scale + c), shift = vf_load(gate->shift + c), slope = vf_load(gate->slope + c);
        for (int64_t i = 0; i < end - first; i++)
            store_int16(to + i * stride + c, prelu(vf_fma(vf_load(x + i * channels + c), scale, shift), slope));
    }
}

/* The same of the map interpolated to twice its size; first and end are even. An upsampled pixel lies a quarter of a
   pixel beside one of the map's. */
static void gate_upsampled_row(const Map *map, const Gate *gate, int64_t y, int64_t first, int64_t end, int16_t *to,
                               int64_t stride) {
    const int64_t channels = map->channels, row = map->width * channels, near = y / 2, last = map->width - 1;
    const int64_t far = y % 2 ? min_i64(near + 1, map->height - 1) : near - (near > 0);
    const vf quarter = vf_set(0.25f), three_quarters = vf_set(0.75f);
    for (int64_t c = 0; c < channels; c += WIDTH) {
        const float *a = map->x + near * row + c, *b = map->x + far * row + c;
        const vf shift = vf_load(gate->shift + c), slope = vf_load(gate->slope + c), scale = vf_load(gate->scale + c);
        const vf a_scale = vf_mul(scale, three_quarters), b_scale = vf_mul(scale, quarter);
#define NORMED(x) vf_fma(vf_load(a + (x) * channels), a_scale, vf_fma(vf_load(b + (x) * channels), b_scale, shift))
        vf before = NORMED(first > 0 ? first / 2 - 1 : 0), here = NORMED(first / 2);
        int16_t *output = to + c;
        for (int64_t x = first / 2; x < end / 2; x++, output += 2 * stride) {
            const vf after = NORMED(min_i64(x + 1, last)), most = vf_mul(here, three_quarters);
            store_int16(output, prelu(vf_fma(before, quarter, most), slope));
            store_int16(output + stride, prelu(vf_fma(after, quarter, most), slope));
            before = here, here = after;
        }
#undef NORMED
    }
}

/* Columns first to end of row y of a convolution's input, to `to` (end - first, channels); zeros outside the map.
   first and end are even. */
static void source_row(const Source *source, int64_t y, int64_t first, int64_t end, int16_t *to) {
    const Map *same = source->same;
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
