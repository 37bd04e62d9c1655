/* Attention with one pass over the keys (online softmax): similarities in int8, exponentials and values in bfloat16,
   accumulators in float.

   Queries and keys have one scale per keypoint and head. The exponents of a query are relative to its row maximum over
   the first PANEL keys, so that no pass over all keys is needed first; bfloat16 has the range for larger exponentials.
   If a sum of exponentials still exceeds SUM_LIMIT, the tile is computed again relative to the true row maximum. */

#include "kernels.h"

#ifdef HAS_KERNELS

#include <math.h>
#include <string.h>

#include "simd.h"

enum {
    QUERY_TILES = 4, /* query tiles that reuse one block of keys */
    KEY_BLOCK = 128, /* keys per block: their keys and values stay in the L1 cache */
};

#define SUM_LIMIT 1e30f /* largest accepted sum of exponentials */

/* Size of the memory that qkv_init lays out for `count` keypoints. */
size_t qkv_bytes(int64_t count) {
    const size_t n = round_up_to_panel(count);
    return align_bytes(count * EMBED_DIM) + align_bytes(count * HEADS * 4) + n * EMBED_DIM +
           2 * align_bytes(HEADS * n * 4) + n * EMBED_DIM * 2;
}

/* Lay out the arrays in memory aligned to 64 bytes, and zero the padded keys and values. */
void qkv_init(PackedQKV *qkv, uint8_t *memory, int64_t count) {
    const size_t n = round_up_to_panel(count);
    qkv->count = count, qkv->padded = n;
    qkv->query = memory, memory += align_bytes(count * EMBED_DIM);
    qkv->query_scale = (float *)memory, memory += align_bytes(count * HEADS * 4);
    qkv->key = (int8_t *)memory, memory += n * EMBED_DIM;
    qkv->key_zero_point_sum = (int32_t *)memory, memory += align_bytes(HEADS * n * 4);
    qkv->key_scale = (float *)memory, memory += align_bytes(HEADS * n * 4);
    qkv->value = (uint16_t *)memory;
    for (size_t head = 0; head < HEADS; head++) {
        memset(qkv->key + (head * n + count / PANEL * PANEL) * HEAD_DIM, 0, (n - count / PANEL * PANEL) * HEAD_DIM);
        memset(qkv->key_zero_point_sum + head * n + count, 0, (n - count) * 4);
        memset(qkv->key_scale + head * n + count, 0, (n - count) * 4);
        memset(qkv->value + (head * n + count / 2 * 2) * HEAD_DIM, 0, (n - count / 2 * 2) * HEAD_DIM * 2);
    }
}

/* Quantize x (HEAD_DIM,) to int8 and return its scale. */
INLINE float quantize_head(const float *x, int8_t *q) {
    __m512 maxima = _mm512_setzero_ps();
    for (int i = 0; i < HEAD_DIM; i += 16) maxima = _mm512_max_ps(maxima, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
    float max_abs = _mm512_reduce_max_ps(maxima);
    __m512 inverse_scale = _mm512_set1_ps(max_abs > 0 ? 127.0f / max_abs : 0.0f);
    for (int i = 0; i < HEAD_DIM; i += 16) {
        __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse_scale));
        _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtepi32_epi8(rounded));
    }
    return max_abs / 127.0f;
}

/* Quantize and store query (HEAD_DIM,) and key (HEAD_DIM,) of one keypoint and head. Cross-attention shares one vector:
   if both pointers are equal, it is quantized once. */
void qkv_set_query_key(PackedQKV *qkv, int64_t row, int64_t head, const float *query, const float *key) {
    int8_t q[HEAD_DIM];
    float scale = quantize_head(query, q);
    qkv->query_scale[row * HEADS + head] = scale * (LOG2_E / sqrtf(HEAD_DIM));
    __m512i packed = _mm512_loadu_si512(q);
    uint8_t *stored = qkv->query + row * EMBED_DIM + head * HEAD_DIM;
    _mm512_storeu_si512(stored, _mm512_xor_si512(packed, _mm512_set1_epi8(-128))); /* adds the zero point 128 */
    if (key != query) scale = quantize_head(key, q), packed = _mm512_loadu_si512(q);
    int8_t *panel = qkv->key + (head * qkv->padded + row / PANEL * PANEL) * HEAD_DIM + row % PANEL * 4;
    for (int i = 0; i < HEAD_DIM; i += 4) memcpy(panel + i * PANEL, q + i, 4);
    __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), packed);
    qkv->key_zero_point_sum[head * qkv->padded + row] = -128 * _mm512_reduce_add_epi32(sums);
    qkv->key_scale[head * qkv->padded + row] = scale;
}

/* Store the values (HEAD_DIM,) of keypoints `row` (even) and `row` + 1. `odd` is NULL if `row` is the last keypoint. */
void qkv_set_values(PackedQKV *qkv, int64_t row, int64_t head, const float *even, const float *odd) {
    uint16_t *value = qkv->value + (head * qkv->padded + row) * HEAD_DIM;
    for (int i = 0; i < HEAD_DIM; i += 16) {
        __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(even + i)));
        __m512i high = _mm512_setzero_si512();
        if (odd) high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(odd + i)));
        _mm512_storeu_si512(value + 2 * i, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

/* Running softmax of up to TILE_ROWS queries of one head. */
typedef struct {
    const uint8_t *query;                /* first row */
    float context[TILE_ROWS * HEAD_DIM]; /* sum of exponential * value */
    float sum[TILE_ROWS * 16];           /* sum of exponentials, as 16 partial sums per row */
    float scale[TILE_ROWS];              /* query scale */
    float row_max[TILE_ROWS];            /* exponents are relative to it */
    int64_t rows;
} QueryTile;

/* Set row_max to the maximum exponent over the first `count` keys. */
static void compute_row_max(QueryTile *tile, const PackedQKV *keys, int64_t head, int64_t count) {
    int32_t acc[TILE_ROWS * PANEL];
    for (int64_t r = 0; r < tile->rows; r++) tile->row_max[r] = -INFINITY;
    for (int64_t start = 0; start < count; start += PANEL) {
        const int64_t first = head * keys->padded + start;
        gemm_int8(tile->query, EMBED_DIM, keys->key + first * HEAD_DIM, HEAD_DIM / 4, keys->key_zero_point_sum + first,
                  tile->rows, acc);
        for (int64_t r = 0; r < tile->rows; r++) {
            __m512 maxima = _mm512_set1_ps(tile->row_max[r]), query_scale = _mm512_set1_ps(tile->scale[r]);
            for (int i = 0; i < PANEL && start + i < count; i += 16) {
                __m512 scale = _mm512_mul_ps(query_scale, _mm512_loadu_ps(keys->key_scale + first + i));
                __m512 exponent = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(acc + r * PANEL + i)), scale);
                __mmask16 valid = (__mmask16)((1u << min_i64(16, count - start - i)) - 1);
                maxima = _mm512_mask_max_ps(maxima, valid, maxima, exponent);
            }
            tile->row_max[r] = _mm512_reduce_max_ps(maxima);
        }
    }
}

/* Write the exponentials of the similarities to one panel of keys, and add them to the sums. The first `count` keys are
   valid; padding gets 0. */
static void exponentiate(QueryTile *tile, const int32_t *similarity, const float *key_scale, int64_t count,
                         uint16_t *weight) {
    const uint64_t valid = count >= PANEL ? ~0ull : (1ull << count) - 1;
    for (int64_t r = 0; r < tile->rows; r++, similarity += PANEL, weight += KEY_BLOCK) {
        __m512 query_scale = _mm512_set1_ps(tile->scale[r]), row_max = _mm512_set1_ps(tile->row_max[r]);
        __m512 sum = _mm512_loadu_ps(tile->sum + 16 * r), e[2];
        for (int i = 0; i < PANEL; i += 32) {
            for (int half = 0; half < 2; half++) {
                __m512 scale = _mm512_mul_ps(query_scale, _mm512_loadu_ps(key_scale + i + 16 * half));
                __m512 product = _mm512_cvtepi32_ps(_mm512_loadu_si512(similarity + i + 16 * half));
                e[half] = exp2_bf16(_mm512_fmsub_ps(product, scale, row_max));
                e[half] = _mm512_maskz_mov_ps((__mmask16)(valid >> (i + 16 * half)), e[half]);
                sum = _mm512_add_ps(sum, e[half]);
            }
            _mm512_storeu_si512(weight + i, (__m512i)_mm512_cvtne2ps_pbh(e[1], e[0]));
        }
        _mm512_storeu_ps(tile->sum + 16 * r, sum);
    }
}

/* Add the contribution of the key block that begins at key `start` (KEY_BLOCK keys, or the rest) to a tile. */
static void accumulate_keys(QueryTile *tile, const PackedQKV *keys, int64_t head, int64_t start) {
    uint16_t weight[TILE_ROWS * KEY_BLOCK];
    int32_t similarity[TILE_ROWS * PANEL];
    const int64_t block = head * keys->padded + start, size = min_i64(KEY_BLOCK, keys->padded - start);
    for (int64_t panel = 0; panel < size; panel += PANEL) {
        const int64_t first = block + panel;
        gemm_int8(tile->query, EMBED_DIM, keys->key + first * HEAD_DIM, HEAD_DIM / 4, keys->key_zero_point_sum + first,
                  tile->rows, similarity);
        exponentiate(tile, similarity, keys->key_scale + first, keys->count - start - panel, weight + panel);
    }
    gemm_bf16(weight, KEY_BLOCK, keys->value + block * HEAD_DIM, size / 2, tile->rows, tile->context);
}

/* Divide the accumulated rows by their sums of exponentials and write them to `context`, rows EMBED_DIM apart. */
static void normalize(QueryTile *tile, const PackedQKV *keys, int64_t head, float *context) {
    float sum[TILE_ROWS], largest = 0.0f;
    for (int64_t r = 0; r < tile->rows; r++) {
        sum[r] = _mm512_reduce_add_ps(_mm512_loadu_ps(tile->sum + 16 * r));
        if (!(sum[r] <= largest)) largest = sum[r]; /* NaN too */
    }
    if (!(largest < SUM_LIMIT)) {
        memset(tile->context, 0, sizeof tile->context), memset(tile->sum, 0, sizeof tile->sum);
        compute_row_max(tile, keys, head, keys->count);
        for (int64_t start = 0; start < keys->count; start += KEY_BLOCK) accumulate_keys(tile, keys, head, start);
        for (int64_t r = 0; r < tile->rows; r++) sum[r] = _mm512_reduce_add_ps(_mm512_loadu_ps(tile->sum + 16 * r));
    }
    for (int64_t r = 0; r < tile->rows; r++, context += EMBED_DIM) {
        __m512 inverse = _mm512_set1_ps(1.0f / sum[r]);
        for (int i = 0; i < HEAD_DIM; i += 16)
            _mm512_storeu_ps(context + i, _mm512_mul_ps(_mm512_loadu_ps(tile->context + r * HEAD_DIM + i), inverse));
    }
}

/* Softmax attention of the queries of one image to the keys and values of an image: context (count, EMBED_DIM). */
void attend(const PackedQKV *queries, const PackedQKV *keys, float *context) {
    for (int64_t head = 0; head < HEADS; head++) {
        for (int64_t first = 0; first < queries->count; first += TILE_ROWS * QUERY_TILES) {
            QueryTile tiles[QUERY_TILES];
            int64_t count = 0;
            for (int64_t row = first; row < queries->count && count < QUERY_TILES; row += TILE_ROWS, count++) {
                QueryTile *tile = tiles + count;
                memset(tile, 0, sizeof *tile);
                tile->query = queries->query + row * EMBED_DIM + head * HEAD_DIM;
                tile->rows = min_i64(TILE_ROWS, queries->count - row);
                for (int64_t r = 0; r < tile->rows; r++)
                    tile->scale[r] = queries->query_scale[(row + r) * HEADS + head];
                compute_row_max(tile, keys, head, min_i64(PANEL, keys->count));
            }
            for (int64_t start = 0; start < keys->count; start += KEY_BLOCK)
                for (int64_t i = 0; i < count; i++) accumulate_keys(tiles + i, keys, head, start);
            for (int64_t i = 0; i < count; i++)
                normalize(tiles + i, keys, head, context + (first + i * TILE_ROWS) * EMBED_DIM + head * HEAD_DIM);
        }
    }
}

END_TARGET
#endif
