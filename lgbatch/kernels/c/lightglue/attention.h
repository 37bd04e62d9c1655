/* Attention with one pass over the keys (online softmax): similarities in int8, exponentials and values in bfloat16,
   accumulators in float.

   Queries and keys have one scale per keypoint and head. The exponents of a query are relative to its row maximum over
   the first PANEL keys, so that no pass over all keys is needed first; bfloat16 has the range for larger exponentials.
   If a sum of exponentials still exceeds SUM_LIMIT, the tile is computed again relative to the true row maximum. */

enum {
    QUERY_TILES = 4, /* query tiles that reuse one block of keys */
    KEY_BLOCK = 128, /* keys per block: their keys and values stay in the L1 cache */
};

#define SUM_LIMIT 1e30f /* largest accepted sum of exponentials */

/* Size of the memory that qkv_init lays out for `count` keypoints. */
static size_t qkv_bytes(int64_t count) {
    const size_t n = round_up_to_panel(count);
    return align_bytes(count * EMBED_DIM) + align_bytes(count * HEADS * 4) + n * EMBED_DIM +
           2 * align_bytes(HEADS * n * 4) + n * EMBED_DIM * 2;
}

/* Lay out the arrays in memory aligned to 64 bytes, and zero the padded keys and values. */
static void qkv_init(PackedQKV *qkv, uint8_t *memory, int64_t count) {
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
    vf maxima = vf_set(0.0f);
    for (int i = 0; i < HEAD_DIM; i += WIDTH) maxima = vf_max(maxima, vf_abs(vf_load(x + i)));
    float max_abs = vf_reduce_max(maxima);
    vf inverse_scale = vf_set(max_abs > 0 ? 127.0f / max_abs : 0.0f);
    for (int i = 0; i < HEAD_DIM; i += WIDTH) {
        vi rounded = vf_to_int(vf_mul(vf_load(x + i), inverse_scale));
        store_bytes((uint8_t *)q + i, rounded);
    }
    return max_abs / 127.0f;
}

/* Quantize and store query (HEAD_DIM,) and key (HEAD_DIM,) of one keypoint and head. Cross-attention shares one vector:
   if both pointers are equal, it is quantized once. */
static void qkv_set_query_key(PackedQKV *qkv, int64_t row, int64_t head, const float *query, const float *key) {
    int8_t q[HEAD_DIM];
    float scale = quantize_head(query, q);
    qkv->query_scale[row * HEADS + head] = scale * (LOG2_E / sqrtf(HEAD_DIM));
    uint8_t *stored = qkv->query + row * EMBED_DIM + head * HEAD_DIM;
    for (int i = 0; i < HEAD_DIM; i++) stored[i] = (uint8_t)(q[i] + ZERO_POINT);
    if (key != query) scale = quantize_head(key, q);
    int8_t *panel = qkv->key + (head * qkv->padded + row / PANEL * PANEL) * HEAD_DIM + row % PANEL * 4;
    for (int i = 0; i < HEAD_DIM; i += 4) memcpy(panel + i * PANEL, q + i, 4);
    int32_t sum = 0;
    for (int i = 0; i < HEAD_DIM; i++) sum += q[i];
    qkv->key_zero_point_sum[head * qkv->padded + row] = -ZERO_POINT * sum;
    qkv->key_scale[head * qkv->padded + row] = scale;
}

/* Store the values (HEAD_DIM,) of keypoints `row` (even) and `row` + 1. `odd` is NULL if `row` is the last keypoint. */
static void qkv_set_values(PackedQKV *qkv, int64_t row, int64_t head, const float *even, const float *odd) {
    uint16_t *value = qkv->value + (head * qkv->padded + row) * HEAD_DIM;
    for (int i = 0; i < HEAD_DIM; i += WIDTH) {
        store_pairs(value + 2 * i, vf_load(even + i), odd ? vf_load(odd + i) : vf_set(0.0f));
    }
}

/* Running softmax of up to TILE_ROWS queries of one head. */
typedef struct {
    const uint8_t *query;                /* first row */
    float context[TILE_ROWS * HEAD_DIM]; /* sum of exponential * value */
    float sum[TILE_ROWS * WIDTH];        /* sum of exponentials, as WIDTH partial sums per row */
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
            vf maxima = vf_set(tile->row_max[r]), query_scale = vf_set(tile->scale[r]);
            for (int i = 0; i < PANEL && start + i < count; i += WIDTH) {
                vf scale = vf_mul(query_scale, vf_load(keys->key_scale + first + i));
                vf exponent = vf_mul(vi_to_float(vi_load(acc + r * PANEL + i)), scale);
                maxima = vf_select(vm_first(count - start - i), vf_max(maxima, exponent), maxima);
            }
            tile->row_max[r] = vf_reduce_max(maxima);
        }
    }
}

/* Write the exponentials of the similarities to one panel of keys, and add them to the sums. The first `count` keys are
   valid; padding gets 0. */
static void exponentiate(QueryTile *tile, const int32_t *similarity, const float *key_scale, int64_t count,
                         uint16_t *weight) {
    vm valid[PANEL / WIDTH];
    for (int i = 0; i < PANEL; i += WIDTH) valid[i / WIDTH] = vm_first(count - i);
    for (int64_t r = 0; r < tile->rows; r++, similarity += PANEL, weight += KEY_BLOCK) {
        vf query_scale = vf_set(tile->scale[r]), row_max = vf_set(tile->row_max[r]);
        vf sum = vf_load(tile->sum + WIDTH * r), e[2];
        for (int i = 0; i < PANEL; i += 2 * WIDTH) {
            for (int half = 0; half < 2; half++) {
                vf scale = vf_mul(query_scale, vf_load(key_scale + i + WIDTH * half));
                vf product = vi_to_float(vi_load(similarity + i + WIDTH * half));
                e[half] = exp2_bf16(vf_fms(product, scale, row_max));
                e[half] = vf_select(valid[i / WIDTH + half], e[half], vf_set(0.0f));
                sum = vf_add(sum, e[half]);
            }
            store_bf16(weight + i, e[0], e[1]);
        }
        vf_store(tile->sum + WIDTH * r, sum);
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
        sum[r] = vf_reduce_add(vf_load(tile->sum + WIDTH * r));
        if (!(sum[r] <= largest)) largest = sum[r]; /* NaN too */
    }
    if (!(largest < SUM_LIMIT)) {
        memset(tile->context, 0, sizeof tile->context), memset(tile->sum, 0, sizeof tile->sum);
        compute_row_max(tile, keys, head, keys->count);
        for (int64_t start = 0; start < keys->count; start += KEY_BLOCK) accumulate_keys(tile, keys, head, start);
        for (int64_t r = 0; r < tile->rows; r++) sum[r] = vf_reduce_add(vf_load(tile->sum + WIDTH * r));
    }
    for (int64_t r = 0; r < tile->rows; r++, context += EMBED_DIM) {
        vf inverse = vf_set(1.0f / sum[r]);
        for (int i = 0; i < HEAD_DIM; i += WIDTH)
            vf_store(context + i, vf_mul(vf_load(tile->context + r * HEAD_DIM + i), inverse));
    }
}

/* Softmax attention of the queries of one image to the keys and values of an image: context (count, EMBED_DIM). */
static void attend(const PackedQKV *queries, const PackedQKV *keys, float *context) {
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
