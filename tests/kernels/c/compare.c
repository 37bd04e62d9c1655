/* Compares the kernels of every instruction set that this machine runs with those in plain C, on random inputs, so that
   processors without a Python of their own can be tested under an emulator. Prints a line for each set and comparison:
   its name, what was compared, and the difference, which test_instruction_sets.py judges. */

#include "../../../lgbatch/kernels/c/aliked/types.h"
#include "../../../lgbatch/kernels/c/lightglue/types.h"
#include "sets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SET(isa, name) \
    size_t lgbatch_layer_scratch_bytes_##isa(int64_t, int64_t); \
    void lgbatch_layer_##isa(const Layer *, const Side *, const Side *, uint8_t *); \
    size_t lgbatch_head_scratch_bytes_##isa(int64_t, int64_t, float); \
    void lgbatch_head_##isa(const Head *, const float *, const float *, int64_t, int64_t, float, uint8_t *, int64_t *, \
                            float *); \
    size_t lgbatch_stem_scratch_bytes_##isa(int64_t); \
    void lgbatch_stem_##isa(const Stem *, const Side *, uint8_t *); \
    void lgbatch_two_largest_##isa(const uint8_t *, int64_t, int64_t, const int8_t *, int64_t, int32_t *, int32_t *); \
    size_t lgbatch_aliked_maps_scratch_bytes_##isa(const AlikedNet *, int64_t, int64_t); \
    void lgbatch_aliked_maps_##isa(const AlikedNet *, const uint8_t *, int64_t, int64_t, const AlikedMaps *, uint8_t *); \
    static const Kernels isa = {lgbatch_layer_scratch_bytes_##isa, lgbatch_layer_##isa, \
                                lgbatch_head_scratch_bytes_##isa, lgbatch_head_##isa, \
                                lgbatch_stem_scratch_bytes_##isa, lgbatch_stem_##isa, lgbatch_two_largest_##isa, \
                                lgbatch_aliked_maps_scratch_bytes_##isa, lgbatch_aliked_maps_##isa};

#define CASE(isa, name) if (!strcmp(wanted, name)) return &isa;

typedef struct {
    size_t (*layer_bytes)(int64_t, int64_t);
    void (*layer)(const Layer *, const Side *, const Side *, uint8_t *);
    size_t (*head_bytes)(int64_t, int64_t, float);
    void (*head)(const Head *, const float *, const float *, int64_t, int64_t, float, uint8_t *, int64_t *, float *);
    size_t (*stem_bytes)(int64_t);
    void (*stem)(const Stem *, const Side *, uint8_t *);
    void (*two_largest)(const uint8_t *, int64_t, int64_t, const int8_t *, int64_t, int32_t *, int32_t *);
    size_t (*maps_bytes)(const AlikedNet *, int64_t, int64_t);
    void (*maps)(const AlikedNet *, const uint8_t *, int64_t, int64_t, const AlikedMaps *, uint8_t *);
} Kernels;

EACH_SET(SET)

static const Kernels *kernels_of(const char *wanted) {
    EACH_SET(CASE)
    abort();
}

static uint64_t state = 1;

static uint32_t random_bits(void) { return (uint32_t)((state = state * 6364136223846793005u + 1442695040888963407u) >> 33); }

/* Uniform, with standard deviation 1. */
static float random_float(void) { return (random_bits() / 2147483648.0f * 2 - 1) * 1.7320508f; }

static void *memory(size_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }

static float *random_floats(int64_t count, float scale, float mean) {
    float *values = memory(count * sizeof *values);
    for (int64_t i = 0; i < count; i++) values[i] = mean + scale * random_float();
    return values;
}

static Dense random_dense(int64_t in_dim, int64_t out_dim) {
    int8_t *weight = memory(in_dim * out_dim);
    int32_t *sums = memory(in_dim / GROUP * out_dim * sizeof *sums);
    memset(sums, 0, in_dim / GROUP * out_dim * sizeof *sums);
    for (int64_t i = 0; i < in_dim * out_dim; i++) {
        weight[i] = (int8_t)((int)(random_bits() % 255) - 127);
        const int64_t column = i / (in_dim * PANEL) * PANEL + i / 4 % PANEL, row = i / (4 * PANEL) * 4 % in_dim;
        sums[row / GROUP * out_dim + column] -= 128 * weight[i];
    }
    return (Dense){weight, sums, random_floats(out_dim, 0, 1.3f / 73 / sqrtf((float)in_dim)),
                   random_floats(out_dim, 0.1f, 0), in_dim, out_dim, NULL};
}

static Dense random_dense_bf16(int64_t in_dim, float scale, float bias_scale) {
    uint16_t *weight = memory(in_dim * EMBED_DIM * 2);
    for (int64_t i = 0; i < in_dim * EMBED_DIM; i++) {
        const float value = scale * random_float();
        memcpy(weight + i, (const uint8_t *)&value + 2, 2);
    }
    return (Dense){NULL, NULL, NULL, random_floats(EMBED_DIM, bias_scale, 0), in_dim, EMBED_DIM, weight};
}

static FeedForward random_feed_forward(void) {
    return (FeedForward){random_dense(2 * EMBED_DIM, 2 * EMBED_DIM), random_dense_bf16(2 * EMBED_DIM, 0.04f, 0.1f),
                         random_floats(2 * EMBED_DIM, 0.25f, 1), random_floats(2 * EMBED_DIM, 0.15f, 0)};
}

static Side random_side(int64_t count, float scale) {
    float *angles = random_floats(count * HEAD_DIM / 2, 3, 0), *sines = memory(count * HEAD_DIM / 2 * sizeof *sines);
    for (int64_t i = 0; i < count * HEAD_DIM / 2; i++) sines[i] = sinf(angles[i]), angles[i] = cosf(angles[i]);
    float *x = random_floats(count * EMBED_DIM, scale, 0);
    for (int64_t i = 0; scale > 1 && i < PANEL * EMBED_DIM && i < count * EMBED_DIM; i++) x[i] *= 1e-3f;
    return (Side){x, angles, sines, memory(count * EMBED_DIM * 4), memory(count * 4), memory(count * 4), count};
}

/* The root of the mean square of a - b, relative to that of b - base. */
static double relative_error(const float *a, const float *b, const float *base, int64_t count) {
    double error = 0, size = 0;
    for (int64_t i = 0; i < count; i++) {
        error += (double)(a[i] - b[i]) * (a[i] - b[i]);
        size += (double)(b[i] - base[i]) * (b[i] - base[i]);
    }
    return sqrt(error / size);
}

static double largest_difference(const float *a, const float *b, int64_t count) {
    double largest = 0;
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(a[i] - b[i]) <= largest)) largest = fabs(a[i] - b[i]); /* NaN too */
    return largest;
}

static void compare_layers(const char *name, const Kernels *kernels, const Layer *layer, const char *title,
                           int64_t count0, int64_t count1, float scale) {
    Side sides[2] = {random_side(count0, scale), random_side(count1, scale)}, expected[2];
    for (int i = 0; i < 2; i++) {
        expected[i] = sides[i];
        expected[i].y = memory(sides[i].count * EMBED_DIM * 4);
        expected[i].confidence = memory(sides[i].count * 4), expected[i].matchability = memory(sides[i].count * 4);
    }
    kernels->layer(layer, sides, sides + 1, memory(kernels->layer_bytes(count0, count1)));
    portable.layer(layer, expected, expected + 1, memory(portable.layer_bytes(count0, count1)));
    for (int i = 0; i < 2; i++) {
        const int64_t count = sides[i].count;
        printf("%s %s %.6f\n", name, title,
               relative_error(sides[i].y, expected[i].y, sides[i].x, count * EMBED_DIM));
        if (!layer->decision_weight || scale > 1) continue;
        printf("%s decisions %.6f\n", name, largest_difference(sides[i].confidence, expected[i].confidence, count));
        printf("%s decisions %.6f\n", name, largest_difference(sides[i].matchability, expected[i].matchability, count));
    }
}

static void compare_stems(const char *name, const Kernels *kernels, const Stem *stem, int64_t count) {
    Side side = random_side(count, 1), expected = side;
    expected.y = memory(count * EMBED_DIM * 4);
    float *zeros = memory(count * EMBED_DIM * 4);
    memset(zeros, 0, count * EMBED_DIM * 4);
    kernels->stem(stem, &side, memory(kernels->stem_bytes(count)));
    portable.stem(stem, &expected, memory(portable.stem_bytes(count)));
    printf("%s stem %.6f\n", name, relative_error(side.y, expected.y, zeros, count * EMBED_DIM));
}

static void compare_heads(const char *name, const Kernels *kernels, int64_t count0, int64_t count1, float threshold) {
    Head head = {random_dense_bf16(EMBED_DIM, 0.03f, 0.07f), random_floats(EMBED_DIM, 0.1f, 0), 1.0f};
    float *x0 = random_floats(count0 * EMBED_DIM, 1, 0), *x1 = random_floats(count1 * EMBED_DIM, 1, 0);
    for (int64_t i = 0; i < count1 && i < count0; i++) { /* keypoint i of image 1 is count0 - 1 - i of image 0, and noise */
        const float noise = 0.8f + 0.8f * random_float() / 1.7320508f;
        for (int64_t j = 0; j < EMBED_DIM; j++)
            x1[i * EMBED_DIM + j] = x0[(count0 - 1 - i) * EMBED_DIM + j] + noise * x1[i * EMBED_DIM + j];
    }
    int64_t *matches[2], equal = 0, found = 0;
    float *scores[2], largest = 0;
    for (int i = 0; i < 2; i++) {
        const Kernels *used = i ? &portable : kernels;
        matches[i] = memory(count0 * 8), scores[i] = memory(count0 * 4);
        used->head(&head, x0, x1, count0, count1, threshold, memory(used->head_bytes(count0, count1, threshold)),
                   matches[i], scores[i]);
    }
    for (int64_t i = 0; i < count0; i++) {
        if (matches[0][i] < 0 && matches[1][i] < 0) continue;
        found++;
        if (matches[0][i] != matches[1][i]) continue;
        equal++, largest = fmaxf(largest, fabsf(scores[0][i] - scores[1][i]));
    }
    printf("%s unequal_matches %.6f\n%s scores %.6f\n", name, (double)(found - equal), name, largest);
    printf("%s matches %.6f\n", name, (double)found);
}

static void compare_two_largest(const char *name, const Kernels *kernels, int64_t rows, int64_t steps, int64_t panels) {
    uint8_t *x = memory(rows * 4 * steps);
    int8_t *columns = memory(panels * PANEL * 4 * steps);
    for (int64_t i = 0; i < rows * 4 * steps; i++) x[i] = (uint8_t)random_bits();
    for (int64_t i = 0; i < panels * PANEL * 4 * steps; i++) columns[i] = (int8_t)(random_bits() % 128);
    int32_t *largest[2], *second[2], different = 0;
    for (int i = 0; i < 2; i++) {
        largest[i] = memory(rows * 4), second[i] = memory(rows * 4);
        (i ? &portable : kernels)->two_largest(x, rows, steps, columns, panels * PANEL, largest[i], second[i]);
    }
    for (int64_t i = 0; i < rows; i++) different += largest[0][i] != largest[1][i] || second[0][i] != second[1][i];
    printf("%s nearest %d\n", name, different);
}

static Conv random_conv(int64_t in, int64_t out, int64_t values) {
    const int64_t padded = (out + OUTPUTS - 1) / OUTPUTS * OUTPUTS;
    return (Conv){random_floats(padded * in * values, 1.3f / sqrtf((float)(in * values)), 0),
                  random_floats(padded, 0.2f, 0), in, out};
}

/* The weights are random in their packed layout: 16 values for each kernel of squares, otherwise 9. */
static AlikedNet random_net(int64_t first, int64_t dim) {
    AlikedNet net = {0};
    for (int64_t i = 0, in = 3, out = first; i < 4; i++, in = out, out *= 2) {
        for (int j = 0; j < 2; j++) {
            const int64_t inside = j ? out : in, squares = i < 2 && inside % OUTPUTS == 0 && out % OUTPUTS == 0;
            net.blocks[i].conv[j] = random_conv(inside, out, squares ? 16 : 9);
            if (i > 1) net.blocks[i].offset[j] = random_conv(inside, 18, 9);
        }
        if (i > 0) net.blocks[i].around = random_conv(in, out, 1);
        net.aggregate[i] = random_conv(out, dim / 4, 1), net.parts[i] = random_conv(dim / 4, 8, 1);
    }
    net.head[0] = random_conv(8, 4, 9), net.head[1] = random_conv(4, 4, 9), net.head[2] = random_conv(4, 1, 9);
    return net;
}

static void compare_maps(const char *name, const Kernels *kernels, int64_t first, int64_t dim, int64_t height,
                         int64_t width) {
    const AlikedNet net = random_net(first, dim);
    const int64_t padded_width = (width + STRIDE - 1) / STRIDE * STRIDE;
    const int64_t pixels = (height + STRIDE - 1) / STRIDE * STRIDE * padded_width;
    const int64_t counts[] = {pixels * first, pixels / 4 * dim / 4, pixels / 64 * dim / 4, pixels / 1024 * dim / 4, pixels};
    uint8_t *photo = memory(height * width * 3);
    for (int64_t i = 0; i < height * width * 3; i++) photo[i] = (uint8_t)random_bits();
    float *values[2][5];
    for (int i = 0; i < 2; i++) {
        const Kernels *used = i ? &portable : kernels;
        for (int j = 0; j < 5; j++) values[i][j] = random_floats(counts[j], 1, 0);
        const AlikedMaps maps = {values[i][0], {values[i][1], values[i][2], values[i][3]}, values[i][4]};
        used->maps(&net, photo, height, width, &maps, memory(used->maps_bytes(&net, height, width)));
    }
    for (int j = 0; j < 5; j++)
        printf("%s maps %.6f\n", name, largest_difference(values[0][j], values[1][j], counts[j]));
}

static void compare(const char *name, const Kernels *kernels) {
    Layer layer = {random_dense(EMBED_DIM, 3 * EMBED_DIM), random_feed_forward(), random_dense(EMBED_DIM, 2 * EMBED_DIM),
                   random_feed_forward(), random_floats(2 * EMBED_DIM, 0.1f, 0), {0.1f, -0.2f}, 1};
    static const int64_t counts[][2] = {{1, 1}, {1, 130}, {7, 64}, {65, 5}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        compare_layers(name, kernels, &layer, "layer", counts[i][0], counts[i][1], 1);
        compare_heads(name, kernels, counts[i][0], counts[i][1], 0.1f);
    }
    compare_layers(name, kernels, &layer, "overflow", 9, 130, 40);
    compare_heads(name, kernels, 70, 100, 0.1f), compare_heads(name, kernels, 30, 4500, 0.0f);
    layer.has_self_attention = 0, layer.decision_weight = NULL;
    compare_layers(name, kernels, &layer, "layer", 6, 13, 1);
    Stem stem = {random_floats(128 * EMBED_DIM, 0.1f, 0), random_floats(EMBED_DIM, 0.1f, 0), 128, layer.self_projection,
                 layer.self_ffn};
    compare_stems(name, kernels, &stem, 1), compare_stems(name, kernels, &stem, 131);
    stem.projection_weight = NULL, stem.descriptor_dim = EMBED_DIM;
    compare_stems(name, kernels, &stem, 6);
    static const int64_t sizes[][3] = {{0, 8, 1}, {1, 32, 0}, {1, 1, 1}, {50, 32, 3}, {7, 150, 2}};
    compare_maps(name, kernels, 8, 64, 5, 5), compare_maps(name, kernels, 8, 64, 33, 100);
    compare_maps(name, kernels, 16, 128, 1, 1), compare_maps(name, kernels, 16, 128, 65, 200);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        compare_two_largest(name, kernels, sizes[i][0], sizes[i][1], sizes[i][2]);
}

void compare_disk(void);

int main(void) {
    for (int64_t i = 0; lgbatch_isa_name(i); i++)
        if (lgbatch_isa_runs(i)) compare(lgbatch_isa_name(i), kernels_of(lgbatch_isa_name(i)));
    compare_disk();
    return 0;
}
