/* One GEMM microkernel, included once for each kind of product: up to TILE_ROWS rows times VECTORS vectors of a
   panel. Everything stays in registers: the accumulators, the vectors of the panel and one broadcast of a row.
   Accumulators are named variables, because compilers keep arrays of vectors in memory.

   The file that includes this one defines

       TILE, GEMM        the names of the functions
       COLUMNS           of a panel; PANEL unless defined
       VECTORS           of a tile: 4 or 2; TILE_VECTORS unless defined
       SCALAR, VECTOR    the type of an accumulator
       LOAD, STORE       of such vectors
       DOT(sum, x, p)    sum plus the products of the 4 int8, 2 bfloat16 or 1 float in each lane of x and p
       PARTS             1; 2 if DOT takes half of these values at a time
       PANEL_PART(i, p)  the part i of a vector of the panel
       WORD_PART(i, w)   the same of 4 bytes of a row

   or, instead of DOT for instructions that multiply matrices (matrix.h),

       MATRIX(sum, x, p) sum, 2 x 2, plus the product of 2 rows x and 2 columns p, of 8 bytes each */

#ifndef COLUMNS
#define COLUMNS PANEL
#ifdef MATRIX
#define VECTORS 2 /* with 4 and what two steps load, compilers run out of 32 registers */
#else
#define VECTORS TILE_VECTORS
#endif
#endif
#define EACH_ROW(DO, arg) DO(arg, 0) DO(arg, 1) DO(arg, 2) DO(arg, 3) DO(arg, 4) DO(arg, 5)
#if VECTORS == 4
#define EACH_VECTOR(DO, arg) DO(arg, 0) DO(arg, 1) DO(arg, 2) DO(arg, 3)
#else
#define EACH_VECTOR(DO, arg) DO(arg, 0) DO(arg, 1)
#endif

#ifdef MATRIX
#include "matrix.h"
#else
#define LOAD_SUM(r, v) VECTOR a##r##v = LOAD(start + r * start_stride + v * WIDTH);
#define LOAD_ROW(_, r) EACH_VECTOR(LOAD_SUM, r)
#define LOAD_PANEL(part, v) vi p##v = PANEL_PART(part, vi_load(panel + v * 4 * WIDTH));
#define ADD_PRODUCT(r, v) a##r##v = DOT(a##r##v, word, p##v);
#define ADD_ROW(part, r) \
    if (r < rows) { \
        vi word = vi_set(load_word(x + r * stride)); \
        EACH_VECTOR(ADD_PRODUCT, r) \
    }
#define ADD_PART(part) \
    for (int64_t step = 0; step < steps; step++, x += 4, panel += 4 * COLUMNS) { \
        EACH_VECTOR(LOAD_PANEL, part) \
        EACH_ROW(ADD_ROW, part) \
    }
#define STORE_SUM(r, v) STORE(acc + r * COLUMNS + v * WIDTH, a##r##v);
#define STORE_ROW(_, r) if (r < rows) { EACH_VECTOR(STORE_SUM, r) }

INLINE void TILE(const uint8_t *x, int64_t stride, const uint8_t *panel, int64_t steps, const SCALAR *start,
                 int64_t start_stride, const int rows, SCALAR *acc) {
    EACH_ROW(LOAD_ROW, 0)
    ADD_PART(0)
#if PARTS == 2 /* in a loop of its own: its products would need more registers */
    x += 4 * (LONGEST - steps), panel -= 4 * COLUMNS * steps;
    ADD_PART(1)
#endif
    EACH_ROW(STORE_ROW, 0)
}
#endif

/* acc (rows, COLUMNS) = start + x (rows, 4 steps bytes) panel (steps, COLUMNS, 4 bytes), for 1 to TILE_ROWS rows.
   `stride` is the distance between rows of x in bytes, `start_stride` that of start (0: all rows are the same). */
NOT_INLINE void GEMM(const uint8_t *x, int64_t stride, const uint8_t *panel, int64_t steps, const SCALAR *start,
                     int64_t start_stride, int64_t rows, SCALAR *acc) {
#if PARTS == 2 || defined(MATRIX)
    int32_t words[TILE_ROWS * 2 * LONGEST];
    if (steps > LONGEST) {
        GEMM(x, stride, panel, LONGEST, start, start_stride, rows, acc);
        x += 4 * LONGEST, panel += 4 * LONGEST * COLUMNS, steps -= LONGEST;
        GEMM(x, stride, panel, steps, acc, COLUMNS, rows, acc);
        return;
    }
#ifdef MATRIX
    pack_pairs(x, stride, steps, rows, words);
#else
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < steps; i++) {
            const int32_t word = load_word(x + r * stride + 4 * i);
            words[r * 2 * LONGEST + i] = WORD_PART(0, word), words[r * 2 * LONGEST + LONGEST + i] = WORD_PART(1, word);
        }
    }
#endif
    x = (const uint8_t *)words, stride = 2 * LONGEST * 4;
#endif
    for (int column = 0; column < COLUMNS; column += VECTORS * WIDTH) {
        const uint8_t *columns = panel + 4 * column;
#define RUN(n) case n: TILE(x, stride, columns, steps, start + column, start_stride, n, acc + column); break;
        switch (rows) { RUN(6) RUN(5) RUN(4) RUN(3) RUN(2) RUN(1) } /* compile-time constants */
#undef RUN
    }
}

#undef EACH_ROW
#undef EACH_VECTOR
#undef LOAD_SUM
#undef LOAD_ROW
#undef LOAD_PANEL
#undef ADD_PRODUCT
#undef ADD_ROW
#undef ADD_PART
#undef STORE_SUM
#undef STORE_ROW
#undef COLUMNS
#undef VECTORS
#undef TILE
#undef GEMM
#undef SCALAR
#undef VECTOR
#undef LOAD
#undef STORE
#undef DOT
#undef MATRIX
#undef PARTS
#undef PANEL_PART
#undef WORD_PART
