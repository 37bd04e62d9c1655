/* Prints matrix products of one instruction set, whose file is SOURCE. All factors and sums are integers that bfloat16
   and float hold exactly, so that every set must print the same: each kind of product, and every number of rows and of
   steps up to beyond what a tile takes at once. */

#include SOURCE

#include <stdio.h>

enum { STEPS = 133, MOST_ROWS = 8 };

static uint64_t state = 1;

/* From 0 to count - 1. */
static int random_below(int count) {
    return (int)((state = state * 6364136223846793005u + 1442695040888963407u) >> 33) % count;
}

static uint16_t bf16(int integer) {
    const float value = (float)integer;
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)(bits >> 16);
}

/* By pointers, since Clang inlines no function of a target in one that lacks it. */
static void (*volatile const int8_product)(const uint8_t *, int64_t, const int8_t *, int64_t, const int32_t *, int64_t,
                                           int32_t *) = gemm_int8;
static void (*volatile const uint8_product)(const uint8_t *, int64_t, const int8_t *, int64_t, const int32_t *, int64_t,
                                            int32_t *) = gemm_uint8;
static void (*volatile const bf16_product)(const uint16_t *, int64_t, const uint16_t *, int64_t, int64_t,
                                           float *) = gemm_bf16;
static void (*volatile const float_product)(const float *, int64_t, const float *, int64_t, int64_t,
                                            float *) = gemm_float;

/* A number that depends on every sum and its place. */
static void print(const char *name, int64_t rows, int64_t steps, const float *floats, const int32_t *integers) {
    uint32_t hash = 0;
    for (int64_t i = 0; i < rows * PANEL; i++) hash = hash * 31 + (uint32_t)(floats ? (int32_t)floats[i] : integers[i]);
    printf("%s %d %d %u\n", name, (int)rows, (int)steps, hash);
}

/* The products of `all` rows, TILE_ROWS at once. */
static void multiply_all(int64_t all, int64_t steps) {
    static uint8_t x[MOST_ROWS * STEPS * 4], positive[MOST_ROWS * STEPS * 4];
    static int8_t panel[STEPS * PANEL * 4], not_negative[STEPS * PANEL * 4];
    static uint16_t x_bf16[MOST_ROWS * STEPS * 2], panel_bf16[STEPS * PANEL * 2];
    static float x_float[MOST_ROWS * STEPS], panel_float[STEPS * PANEL];
    int32_t start[PANEL], sums[MOST_ROWS * PANEL], positive_sums[MOST_ROWS * PANEL];
    float float_sums[MOST_ROWS * PANEL], bf16_sums[MOST_ROWS * PANEL];
    for (int i = 0; i < all * STEPS * 4; i++)
        x[i] = (uint8_t)(random_below(255) - 127 + ZERO_POINT), positive[i] = (uint8_t)random_below(256);
    for (int i = 0; i < STEPS * PANEL * 4; i++)
        panel[i] = (int8_t)(random_below(255) - 127), not_negative[i] = (int8_t)random_below(128);
    for (int i = 0; i < all * STEPS * 2; i++) x_bf16[i] = bf16(random_below(33) - 16);
    for (int i = 0; i < STEPS * PANEL * 2; i++) panel_bf16[i] = bf16(random_below(33) - 16);
    for (int i = 0; i < all * STEPS; i++) x_float[i] = (float)(random_below(33) - 16);
    for (int i = 0; i < STEPS * PANEL; i++) panel_float[i] = (float)(random_below(33) - 16);
    for (int i = 0; i < PANEL; i++) start[i] = 1000 * i;
    for (int i = 0; i < steps * PANEL * 4; i++) start[i / 4 % PANEL] -= ZERO_POINT * panel[i];
    for (int i = 0; i < all * PANEL; i++) float_sums[i] = bf16_sums[i] = (float)i;
    for (int64_t row = 0; row < all; row += TILE_ROWS) {
        const int64_t rows = all - row < TILE_ROWS ? all - row : TILE_ROWS, first = row * PANEL;
        int8_product(x + row * STEPS * 4, STEPS * 4, panel, steps, start, rows, sums + first);
        uint8_product(positive + row * STEPS * 4, STEPS * 4, not_negative, steps, zeros, rows, positive_sums + first);
        bf16_product(x_bf16 + row * STEPS * 2, STEPS * 2, panel_bf16, steps, rows, bf16_sums + first);
        float_product(x_float + row * STEPS, STEPS, panel_float, steps, rows, float_sums + first);
    }
    print("int8", all, steps, NULL, sums), print("uint8", all, steps, NULL, positive_sums);
    print("bf16", all, steps, bf16_sums, NULL), print("float", all, steps, float_sums, NULL);
}

int main(void) {
    static const int64_t steps[] = {0, 1, 2, 15, 16, 64, 128, 129, STEPS};
    for (int64_t rows = 1; rows <= MOST_ROWS; rows++)
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) multiply_all(rows, steps[i]);
    return 0;
}
