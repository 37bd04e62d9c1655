/* ALIKED's descriptors: sparse deformable descriptor heads (Zhao et al., IEEE TIM 2023).

   The features of a pixel are its four levels, upsampled with aligned corners and concatenated, divided by their length.
   The 3 x 3 pixels around a keypoint predict the offsets of sample positions; a linear map combines the features there.
   Features are computed where they are read, from the maps that maps.h writes. */

enum {
    LEVELS = 3,        /* maps of less than the full size */
    MOST_FEATURES = 128,
    MOST_SAMPLES = 32,
    PATCH = 9,         /* pixels that predict the offsets */
    DESCRIBED = 24,    /* keypoints described at once */
    AT_ONCE = 4,       /* pixels read at once */
};

/* Weights of the descriptors. Matrices are GEMM panels (outputs / PANEL, inputs, PANEL), padded with zeros. */
typedef struct {
    const float *first;                        /* (channels, dim / 4): the last layer of the full-size level */
    const float *inside, *inside_bias;         /* (PATCH * dim, PANEL), (PANEL,): patch to hidden */
    const float *outside, *outside_bias;       /* (PANEL, PANEL), (PANEL,): hidden to x, then y of the samples */
    const float *feature;                      /* (dim / PANEL, dim, PANEL) */
    const float *sum;                          /* (samples, dim / PANEL, dim, PANEL) */
    int64_t channels, dim, samples;
} AlikedHead;

/* A photo's maps, and where the photo lies in them. */
typedef struct {
    const float *first;          /* (full height * full width, channels) */
    const float *levels[LEVELS]; /* (height * width, dim / 4) each */
    int64_t heights[LEVELS], widths[LEVELS];
    float row_scale[LEVELS], column_scale[LEVELS]; /* (height - 1) / (full height - 1), the same of the widths */
    int64_t width_of_first;                        /* the full width */
    int64_t height, width, top, left;              /* of the photo in the full-size map */
} AlikedLevels;

typedef struct {
    float patches[DESCRIBED * PATCH * MOST_FEATURES];
    float offsets[DESCRIBED * PANEL];
    float samples[DESCRIBED * MOST_SAMPLES * MOST_FEATURES];
    float features[DESCRIBED * MOST_SAMPLES * MOST_FEATURES];
} DescribeBuffers;

EXPORT size_t EXPORTED(aliked_describe_scratch_bytes)(void) { return sizeof(DescribeBuffers); }

/* Where a level of `length` rows or columns is read for one of `full`, when it is upsampled with aligned corners. */
typedef struct {
    int64_t low, high; /* the nodes on both sides */
    float distance;    /* from the lower one */
} Nodes;

INLINE Nodes nodes_of(int64_t full_index, float scale, int64_t length) {
    const float position = full_index * scale;
    const int64_t low = min_i64((int64_t)position, length - 1);
    return (Nodes){low, min_i64(low + 1, length - 1), position - low};
}

/* to (dim / 4,) = a level, read at row y and column x of the full size. */
INLINE void read_upsampled(const AlikedLevels *maps, int level, int64_t y, int64_t x, int64_t length, float *to) {
    const Nodes row = nodes_of(y, maps->row_scale[level], maps->heights[level]);
    const Nodes column = nodes_of(x, maps->column_scale[level], maps->widths[level]);
    const float *above = maps->levels[level] + row.low * maps->widths[level] * length;
    const float *below = maps->levels[level] + row.high * maps->widths[level] * length;
    const vf down = vf_set(row.distance), up = vf_set(1 - row.distance);
    const vf right = vf_set(column.distance), left = vf_set(1 - column.distance);
    for (int64_t i = 0; i < length; i += WIDTH) {
        const vf left_sum = vf_fma(down, vf_load(below + column.low * length + i),
                                   vf_mul(up, vf_load(above + column.low * length + i)));
        const vf right_sum = vf_fma(down, vf_load(below + column.high * length + i),
                                    vf_mul(up, vf_load(above + column.high * length + i)));
        vf_store(to + i, vf_fma(right, right_sum, vf_mul(left, left_sum)));
    }
}

/* 1 / length of x (dim,), at most 1e12. */
INLINE float inverse_length(const float *x, int64_t dim) {
    vf squares = vf_set(0.0f);
    for (int64_t i = 0; i < dim; i += WIDTH) squares = vf_fma(vf_load(x + i), vf_load(x + i), squares);
    const float length = sqrtf(vf_reduce_add(squares));
    return 1.0f / (length > 1e-12f ? length : 1e-12f);
}

/* Write the features (AT_ONCE, dim) of pixels of the full-size level, which are not divided by their lengths. */
INLINE void read_pixels(const AlikedHead *head, const AlikedLevels *maps, const int64_t *y, const int64_t *x,
                        float *features) {
    const int64_t length = head->dim / 4, dim = head->dim;
    const float *pixels[AT_ONCE];
    for (int p = 0; p < AT_ONCE; p++) pixels[p] = maps->first + (y[p] * maps->width_of_first + x[p]) * head->channels;
    for (int64_t i = 0; i < length; i += WIDTH) {
        vf sum0 = vf_set(0.0f), sum1 = sum0, sum2 = sum0, sum3 = sum0; /* at once, for FMA's latency */
        for (int64_t c = 0; c < head->channels; c++) {
            const vf weight = vf_load(head->first + c * length + i);
            sum0 = vf_fma(vf_set(pixels[0][c]), weight, sum0), sum1 = vf_fma(vf_set(pixels[1][c]), weight, sum1);
            sum2 = vf_fma(vf_set(pixels[2][c]), weight, sum2), sum3 = vf_fma(vf_set(pixels[3][c]), weight, sum3);
        }
        vf_store(features + i, selu(sum0)), vf_store(features + dim + i, selu(sum1));
        vf_store(features + 2 * dim + i, selu(sum2)), vf_store(features + 3 * dim + i, selu(sum3));
    }
    for (int p = 0; p < AT_ONCE; p++)
        for (int level = 0; level < LEVELS; level++)
            read_upsampled(maps, level, y[p], x[p], length, features + p * dim + (1 + level) * length);
}

/* Write the features (PATCH, dim) of the pixels around a keypoint at x, y of the photo. As published, the patch ends at
   least one pixel before the right and bottom edges. */
static void read_patch(const AlikedHead *head, const AlikedLevels *maps, const float *keypoint, float *patch) {
    float features[AT_ONCE * MOST_FEATURES];
    const int64_t sides[2] = {maps->width, maps->height};
    int64_t first[2], y[AT_ONCE], x[AT_ONCE];
    for (int axis = 0; axis < 2; axis++) {
        first[axis] = min_i64((int64_t)keypoint[axis] - 1, sides[axis] - 4);
        if (first[axis] < 0) first[axis] = 0;
    }
    for (int64_t start = 0; start < PATCH; start += AT_ONCE) {
        for (int64_t p = 0; p < AT_ONCE; p++) {
            const int64_t i = min_i64(start + p, PATCH - 1);
            y[p] = maps->top + first[1] + i / 3, x[p] = maps->left + first[0] + i % 3;
        }
        read_pixels(head, maps, y, x, features);
        for (int64_t p = 0; p < min_i64(AT_ONCE, PATCH - start); p++, patch += head->dim) {
            const float *pixel = features + p * head->dim;
            const vf scale = vf_set(inverse_length(pixel, head->dim));
            for (int64_t c = 0; c < head->dim; c += WIDTH) vf_store(patch + c, vf_mul(vf_load(pixel + c), scale));
        }
    }
}

/* to (dim,) = the features at x, y of the photo: bilinear between pixels, 0 outside of the photo. */
static void read_sample(const AlikedHead *head, const AlikedLevels *maps, float x, float y, float *to) {
    float features[AT_ONCE * MOST_FEATURES], weights[AT_ONCE];
    int64_t rows[AT_ONCE], columns[AT_ONCE];
    const float low_x = floorf(x), low_y = floorf(y);
    for (int corner = 0; corner < AT_ONCE; corner++) {
        const float column = low_x + corner % 2, row = low_y + corner / 2;
        const int inside = column >= 0 && column < maps->width && row >= 0 && row < maps->height;
        weights[corner] = inside ? (1 - fabsf(x - column)) * (1 - fabsf(y - row)) : 0;
        rows[corner] = maps->top + (inside ? (int64_t)row : 0), columns[corner] = maps->left + (inside ? (int64_t)column : 0);
    }
    read_pixels(head, maps, rows, columns, features);
    vf scales[AT_ONCE];
    for (int corner = 0; corner < AT_ONCE; corner++)
        scales[corner] = vf_set(weights[corner] * inverse_length(features + corner * head->dim, head->dim));
    for (int64_t c = 0; c < head->dim; c += WIDTH) {
        vf sum = vf_mul(vf_load(features + c), scales[0]);
        for (int corner = 1; corner < AT_ONCE; corner++)
            sum = vf_fma(vf_load(features + corner * head->dim + c), scales[corner], sum);
        vf_store(to + c, sum);
    }
}

/* y (rows, out_dim), whose rows are y_stride apart, = x W, or y += x W. W is GEMM panels (out_dim / PANEL, in_dim, PANEL). */
static void multiply_panels(const float *x, int64_t stride, int64_t rows, const float *weight, int64_t in_dim, int64_t out_dim,
                     int adds, float *y, int64_t y_stride) {
    float acc[TILE_ROWS * PANEL];
    for (int64_t column = 0; column < out_dim; column += PANEL, weight += in_dim * PANEL) {
        for (int64_t row = 0; row < rows; row += TILE_ROWS) {
            const int64_t count = min_i64(TILE_ROWS, rows - row);
            float *to = y + row * y_stride + column;
            for (int64_t r = 0; r < count; r++) {
                if (adds) memcpy(acc + r * PANEL, to + r * y_stride, PANEL * 4);
                else memset(acc + r * PANEL, 0, PANEL * 4);
            }
            gemm_float(x + row * stride, stride, weight, in_dim, count, acc);
            for (int64_t r = 0; r < count; r++) memcpy(to + r * y_stride, acc + r * PANEL, PANEL * 4);
        }
    }
}

/* Predict the offsets (count, PANEL) in pixels, x then y of all samples, from patches (count, PATCH * dim). */
static void predict_offsets(const AlikedHead *head, const AlikedLevels *maps, const float *patches, int64_t count,
                            float *offsets) {
    float hidden[DESCRIBED * PANEL];
    const vf limit = vf_set((maps->height > maps->width ? maps->height : maps->width) / 4.0f);
    const vf lowest = vf_sub(vf_set(0.0f), limit);
    for (int64_t r = 0; r < count; r++) memcpy(hidden + r * PANEL, head->inside_bias, PANEL * 4);
    multiply_panels(patches, PATCH * head->dim, count, head->inside, PATCH * head->dim, PANEL, 1, hidden, PANEL);
    for (int64_t i = 0; i < count * PANEL; i += WIDTH) vf_store(hidden + i, selu(vf_load(hidden + i)));
    for (int64_t r = 0; r < count; r++) memcpy(offsets + r * PANEL, head->outside_bias, PANEL * 4);
    multiply_panels(hidden, PANEL, count, head->outside, PANEL, PANEL, 1, offsets, PANEL);
    for (int64_t i = 0; i < count * PANEL; i += WIDTH) {
        const vf offset = vf_max(vf_load(offsets + i), lowest);
        vf_store(offsets + i, vf_select(vf_greater(offset, limit), limit, offset));
    }
}

/* Describe keypoints (count, 2), x and y in pixels of the photo: descriptors (count, dim) of unit length. */
EXPORT void EXPORTED(aliked_describe)(const AlikedHead *head, const AlikedLevels *maps, const float *keypoints,
                                      int64_t count, float *descriptors, uint8_t *scratch) {
    DescribeBuffers *buffers = (DescribeBuffers *)scratch;
    const int64_t dim = head->dim, samples = head->samples;
    for (int64_t start = 0; start < count; start += DESCRIBED) {
        const int64_t rows = min_i64(DESCRIBED, count - start);
        const float *positions = keypoints + 2 * start;
        float *result = descriptors + start * dim;
        for (int64_t r = 0; r < rows; r++) read_patch(head, maps, positions + 2 * r, buffers->patches + r * PATCH * dim);
        predict_offsets(head, maps, buffers->patches, rows, buffers->offsets);
        for (int64_t r = 0; r < rows; r++) {
            const float *offset = buffers->offsets + r * PANEL;
            for (int64_t i = 0; i < samples; i++) {
                const float x = positions[2 * r] + offset[i], y = positions[2 * r + 1] + offset[samples + i];
                read_sample(head, maps, x, y, buffers->samples + (r * samples + i) * dim);
            }
        }
        multiply_panels(buffers->samples, dim, rows * samples, head->feature, dim, dim, 0, buffers->features, dim);
        for (int64_t i = 0; i < rows * samples * dim; i += WIDTH)
            vf_store(buffers->features + i, selu(vf_load(buffers->features + i)));
        for (int64_t i = 0; i < samples; i++)
            multiply_panels(buffers->features + i * dim, samples * dim, rows, head->sum + i * dim * dim, dim, dim, i > 0,
                     result, dim);
        for (int64_t r = 0; r < rows; r++, result += dim) {
            const vf scale = vf_set(inverse_length(result, dim));
            for (int64_t i = 0; i < dim; i += WIDTH) vf_store(result + i, vf_mul(vf_load(result + i), scale));
        }
    }
}
