/* The tile of gemm.h for instructions that multiply matrices: a vector of 4 sums is 2 rows by 2 columns. Each pair of
   rows r, r + 1 and vector v of columns has two: low##r##v for the first two columns, high##r##v for the others. Two
   steps of a panel are zipped, so that the 8 bytes of a column are adjacent; pack_pairs has put those of two rows side
   by side. */

#define EACH_PAIR(DO, arg) DO(arg, 0) DO(arg, 2) DO(arg, 4)
#define ROW(r) (r < rows ? r : rows - 1)
#define LOAD_SUMS(r, v) \
    vi first##r##v = vi_load(start + ROW(r) * start_stride + v * WIDTH); \
    vi second##r##v = vi_load(start + ROW(r + 1) * start_stride + v * WIDTH); \
    VECTOR low##r##v = (VECTOR)vi_low_halves(first##r##v, second##r##v); \
    VECTOR high##r##v = (VECTOR)vi_high_halves(first##r##v, second##r##v);
#define LOAD_PAIR(_, r) EACH_VECTOR(LOAD_SUMS, r)
#define ADD_PRODUCTS(v, r) \
    if (r < rows) low##r##v = MATRIX(low##r##v, x##r, low), high##r##v = MATRIX(high##r##v, x##r, high);
#define ADD_COLUMNS(both, v) { \
        vi first = vi_load(panel + v * 4 * WIDTH); \
        vi second = both ? vi_load(panel + 4 * PANEL + v * 4 * WIDTH) : vi_set(0); \
        vi low = vi_zip_low(first, second), high = vi_zip_high(first, second); \
        EACH_PAIR(ADD_PRODUCTS, v) \
    }
#define LOAD_X(_, r) vi x##r = vi_load(x + ROW(r) / 2 * stride);
#define ADD_STEPS(both) { \
        EACH_PAIR(LOAD_X, 0) \
        EACH_VECTOR(ADD_COLUMNS, both) \
    }
#define STORE_SUMS(r, v) \
    if (r < rows) STORE(acc + r * PANEL + v * WIDTH, (VECTOR)vi_low_halves((vi)low##r##v, (vi)high##r##v)); \
    if (r + 1 < rows) STORE(acc + (r + 1) * PANEL + v * WIDTH, (VECTOR)vi_high_halves((vi)low##r##v, (vi)high##r##v));
#define STORE_PAIR(_, r) EACH_VECTOR(STORE_SUMS, r)

INLINE void TILE(const uint8_t *x, int64_t stride, const uint8_t *panel, int64_t steps, const SCALAR *start,
                 int64_t start_stride, const int rows, SCALAR *acc) {
    EACH_PAIR(LOAD_PAIR, 0)
    const uint8_t *const last = panel + steps / 2 * 8 * PANEL;
    for (; panel < last; x += 16, panel += 8 * PANEL) ADD_STEPS(1)
    if (steps % 2) ADD_STEPS(0)
    EACH_PAIR(STORE_PAIR, 0)
}

#undef EACH_PAIR
#undef ROW
#undef LOAD_SUMS
#undef LOAD_PAIR
#undef ADD_PRODUCTS
#undef ADD_COLUMNS
#undef LOAD_X
#undef ADD_STEPS
#undef STORE_SUMS
#undef STORE_PAIR
