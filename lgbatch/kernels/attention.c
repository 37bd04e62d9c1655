/* Attention: similarities in 8 bits, their exponentials in bfloat16 times values in bfloat16, sums in single precision.

   Queries and keys have a scale for each point and head. A query's exponentials are taken relative to the greatest of
   its first PANEL similarities, instead of the greatest of all, which need then not be known beforehand: bfloat16 has the
   range for it. Where it has not, the query is done again relative to its greatest. */

#include "kernels.h"

#ifdef HAS_KERNELS

#include <math.h>
#include <string.h>

#include "simd.h"

enum {
    BLOCKS = 4, /* tiles of queries that one tile of keys serves */
    TILE = 128, /* keys whose numbers and values stay in the L1 cache meanwhile */
};

#define TOO_LARGE 1e30f /* for a sum of exponentials */

/* Memory that attended_place wants, for an image of so many points. */
size_t attended_bytes(int64_t count) {
    const size_t n = padded(count);
    return whole(count * WIDTH) + whole(count * HEADS * 4) + n * WIDTH + 2 * whole(HEADS * n * 4) + n * WIDTH * 2;
}

/* Lay out what attention looks at in memory that begins at a multiple of 64; padding is set to what changes nothing. */
void attended_place(Attended *of, uint8_t *memory, int64_t count) {
    const size_t n = padded(count);
    of->count = count, of->padded = n;
    of->query = memory, memory += whole(count * WIDTH);
    of->query_scale = (float *)memory, memory += whole(count * HEADS * 4);
    of->key = (int8_t *)memory, memory += n * WIDTH;
    of->key_begin = (int32_t *)memory, memory += whole(HEADS * n * 4);
    of->key_scale = (float *)memory, memory += whole(HEADS * n * 4);
    of->value = (uint16_t *)memory;
    for (size_t head = 0; head < HEADS; head++) {
        memset(of->key + (head * n + count / PANEL * PANEL) * HEAD, 0, (n - count / PANEL * PANEL) * HEAD);
        memset(of->key_begin + head * n + count, 0, (n - count) * 4);
        memset(of->key_scale + head * n + count, 0, (n - count) * 4);
        memset(of->value + (head * n + count / 2 * 2) * HEAD, 0, (n - count / 2 * 2) * HEAD * 2);
    }
}

/* Round the numbers of a head to 8 bits; returns their scale. */
INLINE float rounded(const float *numbers, int8_t *q) {
    __m512 most = _mm512_setzero_ps();
    for (int i = 0; i < HEAD; i += 16) most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(numbers + i)));
    float largest = _mm512_reduce_max_ps(most);
    __m512 by = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
    for (int i = 0; i < HEAD; i += 16) {
        __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(numbers + i), by));
        _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtepi32_epi8(whole));
    }
    return largest / 127.0f;
}

/* Keep the HEAD numbers of a point as a query, as a key, or as both where they are the same. */
void attended_numbers(Attended *of, int64_t row, int64_t head, const float *query, const float *key) {
    int8_t q[HEAD];
    float scale = rounded(query, q);
    of->query_scale[row * HEADS + head] = scale * (LOG2_E / sqrtf(HEAD));
    __m512i numbers = _mm512_loadu_si512(q);
    _mm512_storeu_si512(of->query + row * WIDTH + head * HEAD, _mm512_xor_si512(numbers, _mm512_set1_epi8(-128)));
    if (key != query) scale = rounded(key, q), numbers = _mm512_loadu_si512(q);
    int8_t *to = of->key + (head * of->padded + row / PANEL * PANEL) * HEAD + row % PANEL * 4;
    for (int i = 0; i < HEAD; i += 4) memcpy(to + i * PANEL, q + i, 4);
    __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), numbers);
    of->key_begin[head * of->padded + row] = -128 * _mm512_reduce_add_epi32(sum);
    of->key_scale[head * of->padded + row] = scale;
}

/* Keep the values of two points, an even row and the next; `odd` is NULL where there is no next. */
void attended_values(Attended *of, int64_t row, int64_t head, const float *even, const float *odd) {
    uint16_t *to = of->value + (head * of->padded + row) * HEAD;
    for (int i = 0; i < HEAD; i += 16) {
        __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(even + i)));
        __m512i high = _mm512_setzero_si512();
        if (odd) high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(odd + i)));
        _mm512_storeu_si512(to + 2 * i, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

/* Up to ROWS queries of a head, and what has come of them so far. */
typedef struct {
    const uint8_t *query;         /* of the first */
    float context[ROWS * HEAD];
    float sum[ROWS * 16];         /* of exponentials */
    float scale[ROWS], base[ROWS]; /* of exponents; what they are relative to */
    int64_t rows;
} Tile;

/* Make exponents relative to the greatest among `count` keys. */
static void set_base(Tile *of, const Attended *keys, int64_t head, int64_t count) {
    int32_t sum[ROWS * PANEL];
    for (int64_t r = 0; r < of->rows; r++) of->base[r] = -INFINITY;
    for (int64_t from = 0; from < count; from += PANEL) {
        const int64_t first = head * keys->padded + from;
        multiply_bytes(of->query, WIDTH, keys->key + first * HEAD, HEAD / 4, keys->key_begin + first, of->rows, sum);
        for (int64_t r = 0; r < of->rows; r++) {
            __m512 most = _mm512_set1_ps(of->base[r]), scale = _mm512_set1_ps(of->scale[r]);
            for (int i = 0; i < PANEL && from + i < count; i += 16) {
                __m512 by = _mm512_mul_ps(scale, _mm512_loadu_ps(keys->key_scale + first + i));
                __m512 exponent = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sum + r * PANEL + i)), by);
                __mmask16 real = (__mmask16)((1u << least(16, count - from - i)) - 1);
                most = _mm512_mask_max_ps(most, real, most, exponent);
            }
            of->base[r] = _mm512_reduce_max_ps(most);
        }
    }
}

/* Exponentials of the similarities to a panel of keys, of which `count` are real; they are summed too. */
static void exponentials(Tile *of, const int32_t *similarity, const float *key_scale, int64_t count, uint16_t *weight) {
    const uint64_t real = count >= PANEL ? ~0ull : (1ull << count) - 1;
    for (int64_t r = 0; r < of->rows; r++, similarity += PANEL, weight += TILE) {
        __m512 scale = _mm512_set1_ps(of->scale[r]), base = _mm512_set1_ps(of->base[r]);
        __m512 total = _mm512_loadu_ps(of->sum + 16 * r), e[2];
        for (int i = 0; i < PANEL; i += 32) {
            for (int v = 0; v < 2; v++) {
                __m512 by = _mm512_mul_ps(scale, _mm512_loadu_ps(key_scale + i + 16 * v));
                __m512 exact = _mm512_cvtepi32_ps(_mm512_loadu_si512(similarity + i + 16 * v));
                e[v] = exp2_rough(_mm512_fmsub_ps(exact, by, base));
                e[v] = _mm512_maskz_mov_ps((__mmask16)(real >> (i + 16 * v)), e[v]);
                total = _mm512_add_ps(total, e[v]);
            }
            _mm512_storeu_si512(weight + i, (__m512i)_mm512_cvtne2ps_pbh(e[1], e[0]));
        }
        _mm512_storeu_ps(of->sum + 16 * r, total);
    }
}

/* Add what a tile of queries takes from keys: TILE from `from`, or as many as there are. */
static void take(Tile *of, const Attended *keys, int64_t head, int64_t from) {
    uint16_t weight[ROWS * TILE];
    int32_t similarity[ROWS * PANEL];
    const int64_t base = head * keys->padded + from, end = least(TILE, keys->padded - from);
    for (int64_t panel = 0; panel < end; panel += PANEL) {
        const int64_t first = base + panel;
        multiply_bytes(of->query, WIDTH, keys->key + first * HEAD, HEAD / 4, keys->key_begin + first, of->rows,
                       similarity);
        exponentials(of, similarity, keys->key_scale + first, keys->count - from - panel, weight + panel);
    }
    multiply_shorts(weight, TILE, keys->value + base * HEAD, end / 2, of->rows, of->context);
}

/* The rows of `context` from those of a tile, divided by their sums. */
static void finish(Tile *of, const Attended *keys, int64_t head, float *context) {
    float sum[ROWS], largest = 0.0f;
    for (int64_t r = 0; r < of->rows; r++) {
        sum[r] = _mm512_reduce_add_ps(_mm512_loadu_ps(of->sum + 16 * r));
        if (!(sum[r] <= largest)) largest = sum[r];
    }
    if (!(largest < TOO_LARGE)) {
        memset(of->context, 0, sizeof of->context), memset(of->sum, 0, sizeof of->sum);
        set_base(of, keys, head, keys->count);
        for (int64_t from = 0; from < keys->count; from += TILE) take(of, keys, head, from);
        for (int64_t r = 0; r < of->rows; r++) sum[r] = _mm512_reduce_add_ps(_mm512_loadu_ps(of->sum + 16 * r));
    }
    for (int64_t r = 0; r < of->rows; r++, context += WIDTH) {
        __m512 by = _mm512_set1_ps(1.0f / sum[r]);
        for (int i = 0; i < HEAD; i += 16)
            _mm512_storeu_ps(context + i, _mm512_mul_ps(_mm512_loadu_ps(of->context + r * HEAD + i), by));
    }
}

/* Softmax attention of the queries of one image over the keys and values of an image: context (count, WIDTH). */
void attend(const Attended *queries, const Attended *keys, float *context) {
    for (int64_t head = 0; head < HEADS; head++) {
        for (int64_t start = 0; start < queries->count; start += ROWS * BLOCKS) {
            Tile tile[BLOCKS];
            int64_t blocks = 0;
            for (int64_t row = start; row < queries->count && blocks < BLOCKS; row += ROWS, blocks++) {
                Tile *of = tile + blocks;
                memset(of, 0, sizeof *of);
                of->query = queries->query + row * WIDTH + head * HEAD;
                of->rows = least(ROWS, queries->count - row);
                for (int64_t r = 0; r < of->rows; r++) of->scale[r] = queries->query_scale[(row + r) * HEADS + head];
                set_base(of, keys, head, least(PANEL, keys->count));
            }
            for (int64_t from = 0; from < keys->count; from += TILE)
                for (int64_t block = 0; block < blocks; block++) take(tile + block, keys, head, from);
            for (int64_t block = 0; block < blocks; block++)
                finish(tile + block, keys, head, context + (start + block * ROWS) * WIDTH + head * HEAD);
        }
    }
}

END_OF_KERNELS
#endif
