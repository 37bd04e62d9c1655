/* Compares DISK in the kernels of every instruction set that this machine runs with that in plain C, on random weights
   and photos, as compare.c the others, whose main calls it. Prints for each set the share of keypoints that differ, and
   the largest difference of a score, relative to the best one, and of a descriptor's value. */

#include "../../../lgbatch/kernels/c/disk/types.h"
#include "sets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SET(isa, name) \
    size_t lgbatch_disk_scratch_bytes_##isa(const Disk *, int64_t, int64_t); \
    int64_t lgbatch_disk_##isa(const Disk *, const uint8_t *, int64_t, int64_t, int64_t, uint8_t *, float *, float *, \
                               float *); \
    int64_t lgbatch_disk_factors_are_bf16_##isa(void);
#define KERNELS(isa) {lgbatch_disk_scratch_bytes_##isa, lgbatch_disk_##isa, lgbatch_disk_factors_are_bf16_##isa}
#define CASE(isa, name) if (!strcmp(wanted, name)) return (Kernels)KERNELS(isa);

typedef struct {
    size_t (*bytes)(const Disk *, int64_t, int64_t);
    int64_t (*extract)(const Disk *, const uint8_t *, int64_t, int64_t, int64_t, uint8_t *, float *, float *, float *);
    int64_t (*factors_are_bf16)(void);
} Kernels;

typedef struct {
    float *keypoints, *scores, *descriptors;
    int64_t count;
} Found;

EACH_SET(SET)

static Kernels kernels_of(const char *wanted) {
    EACH_SET(CASE)
    abort();
}

static uint64_t state = 1;

/* Uniform in -1..1. */
static float random_float(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(state >> 33) / 1073741824.0f - 1;
}

static void *memory(size_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }

static float *floats(int64_t count, float mean, float spread) {
    float *values = memory(count * sizeof *values);
    for (int64_t i = 0; i < count; i++) values[i] = mean + spread * random_float();
    return values;
}

/* Multiples of a power of two, which bfloat16 holds too. No sum of absolute values may exceed 2^31 / (4 LARGEST). */
static Factor *weights(int64_t count, int unit, int is_bf16) {
    Factor *values = memory(count * sizeof *values);
    for (int64_t i = 0; i < count; i++) {
        values[i] = (Factor)(unit * (int)(127 * random_float()));
        const float value = values[i];
        if (is_bf16) memcpy(values + i, (const uint8_t *)&value + 2, 2);
    }
    return values;
}

static Convolution convolution(int64_t in, int64_t out, int is_bf16) {
    const int targets = 16;
    return (Convolution){weights(TERMS * TERMS * in * out, 1, is_bf16), floats(targets * out, 0, 1e-3f),
                         floats(in, 0.25f, 0.1f), in, out};
}

/* The same network each time, except for the type of its weights. */
static Disk random_network(int is_bf16) {
    state = 1;
    static const int64_t down[DOWN][2] = {{16, 32}, {32, 64}, {64, 64}, {64, 64}}, up[UP] = {128, 128, 96};
    Disk disk = {weights(2 * FIRST_STEPS * PANEL * 2, 64, is_bf16), floats(PANEL, 0, 1e-4f)};
    for (int i = 0; i < DOWN; i++) disk.down[i] = convolution(down[i][0], down[i][1], is_bf16);
    for (int i = 0; i < UP; i++) disk.up[i] = convolution(up[i], PANEL, is_bf16);
    disk.last_slope = floats(LAST_CHANNELS, 0.25f, 0.1f);
    disk.heat_weight = weights(LAST_CHANNELS * NARROW_PANEL, 16, is_bf16);
    disk.heat_scale = floats(NARROW_PANEL, 1e-3f, 1e-4f);
    disk.descriptor_weight = weights(KERNEL * KERNEL * LAST_CHANNELS * DESCRIPTOR_DIM, 4, is_bf16);
    disk.descriptor_scale = floats(KERNEL * DESCRIPTOR_DIM, 1e-3f, 1e-4f);
    disk.descriptor_bias = floats(DESCRIPTOR_DIM, 0, 0.1f), disk.heat_bias = 0.1f;
    return disk;
}

static Found extract(Kernels kernels, const Disk *disk, const uint8_t *pixels, int64_t height, int64_t width) {
    const int64_t most = height * width;
    Found found = {memory(most * 8), memory(most * 4), memory(most * DESCRIPTOR_DIM * 4), 0};
    found.count = kernels.extract(disk, pixels, height, width, most, memory(kernels.bytes(disk, height, width)),
                                  found.keypoints, found.scores, found.descriptors);
    return found;
}

static void compare(const char *name, const Found *a, const Found *b) {
    int64_t equal = 0;
    float scores = 0, descriptors = 0;
    for (int64_t i = 0; i < a->count; i++) {
        for (int64_t j = 0; j < b->count; j++) {
            const float x = a->keypoints[2 * i] - b->keypoints[2 * j];
            const float y = a->keypoints[2 * i + 1] - b->keypoints[2 * j + 1];
            if (x * x + y * y > 0.01f) continue;
            equal++, scores = fmaxf(scores, fabsf(a->scores[i] - b->scores[j]));
            for (int64_t d = 0; d < DESCRIPTOR_DIM; d++) {
                const float other = b->descriptors[j * DESCRIPTOR_DIM + d];
                descriptors = fmaxf(descriptors, fabsf(a->descriptors[i * DESCRIPTOR_DIM + d] - other));
            }
        }
    }
    const int64_t longest = a->count > b->count ? a->count : b->count;
    printf("%s unequal_keypoints %.6f\n", name, longest ? 1 - (double)equal / (double)longest : 0.0);
    if (b->count) printf("%s disk_scores %.6f\n", name, scores / b->scores[0]);
    printf("%s disk_descriptors %.6f\n", name, descriptors);
    printf("%s keypoints %lld\n", name, (long long)b->count);
}

void compare_disk(void);
void compare_disk(void) {
    static const int64_t sizes[][2] = {{5, 5}, {50, 131}, {97, 64}};
    const Disk disks[2] = {random_network(0), random_network(1)};
    for (size_t size = 0; size < sizeof sizes / sizeof *sizes; size++) {
        const int64_t height = sizes[size][0], width = sizes[size][1];
        uint8_t *pixels = memory(height * width * 3);
        for (int64_t i = 0; i < height * width * 3; i++) pixels[i] = (uint8_t)(127.5f + 127 * random_float());
        const Found expected = extract(kernels_of("portable"), disks, pixels, height, width);
        for (int64_t i = 0; lgbatch_isa_name(i); i++) {
            if (!lgbatch_isa_runs(i)) continue;
            const Kernels kernels = kernels_of(lgbatch_isa_name(i));
            const Found found = extract(kernels, disks + kernels.factors_are_bf16(), pixels, height, width);
            compare(lgbatch_isa_name(i), &found, &expected);
        }
    }
}
