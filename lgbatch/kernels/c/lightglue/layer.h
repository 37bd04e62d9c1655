/* A layer of LightGlue (Lindenberger, Sarlin and Pollefeys, ICCV 2023) for one pair, on one core.

   GEMMs with weights are int8 with int32 accumulators, but for linear2, which is bfloat16; attention.h describes
   attention. Layer normalization, the residual stream and the confidences are float. Queries are not padded; keys are
   padded to a multiple of PANEL. */

/* Buffers for CHUNK_ROWS rows. */
typedef struct {
    float wide[CHUNK_ROWS * 3 * EMBED_DIM];        /* output of a projection or of linear1 */
    float narrow[CHUNK_ROWS * EMBED_DIM];          /* output of linear2 */
    float scale[CHUNK_ROWS * 2];                   /* of the quantized rows */
    uint8_t quantized[CHUNK_ROWS * 2 * EMBED_DIM]; /* input of a projection or of linear1 */
    uint16_t rounded[CHUNK_ROWS * 2 * EMBED_DIM];  /* input of linear2 in bfloat16 */
} Buffers;

/* Size of the scratch buffer of lgbatch_layer, which must be aligned to 64 bytes. */
EXPORT size_t EXPORTED(layer_scratch_bytes)(int64_t count0, int64_t count1) {
    const int64_t longest = count0 > count1 ? count0 : count1;
    return align_bytes(sizeof(Buffers)) + qkv_bytes(count0) + qkv_bytes(count1) + longest * EMBED_DIM * 4;
}

/* The same of self_block. */
static size_t self_block_bytes(int64_t count) {
    return align_bytes(sizeof(Buffers)) + qkv_bytes(count) + count * EMBED_DIM * 4;
}

/* Rotary embedding of x (HEAD_DIM,): rotate the pairs (x[i], x[i + HEAD_DIM / 2]). */
INLINE void rotate(float *x, const float *cosines, const float *sines) {
    for (int i = 0; i < HEAD_DIM / 2; i += WIDTH) {
        vf first = vf_load(x + i), second = vf_load(x + HEAD_DIM / 2 + i);
        vf c = vf_load(cosines + i), s = vf_load(sines + i);
        vf_store(x + i, vf_fms(first, c, vf_mul(second, s)));
        vf_store(x + HEAD_DIM / 2 + i, vf_fma(first, s, vf_mul(second, c)));
    }
}

/* Project x (count, EMBED_DIM) and pack it for attention. Self-attention projects to (query, key, value) and rotates
   queries and keys; cross-attention projects to (shared query and key, value). */
static void project(const Dense *layer, const float *x, const Side *side, Buffers *buffers, PackedQKV *qkv) {
    const int64_t is_self = layer->out_dim == 3 * EMBED_DIM;
    for (int64_t start = 0; start < side->count; start += CHUNK_ROWS) {
        const int64_t rows = min_i64(CHUNK_ROWS, side->count - start);
        for (int64_t r = 0; r < rows; r++)
            quantize(x + (start + r) * EMBED_DIM, EMBED_DIM, buffers->quantized + r * EMBED_DIM, buffers->scale + r);
        dense(layer, buffers->quantized, buffers->scale, rows, buffers->wide);
        for (int64_t r = 0; r < rows; r++) {
            float *projected = buffers->wide + r * layer->out_dim;
            for (int64_t head = 0; head < HEADS; head++) {
                float *query = projected + head * HEAD_DIM, *key = is_self ? query + EMBED_DIM : query;
                if (is_self) {
                    rotate(query, side->cosines + (start + r) * HEAD_DIM / 2, side->sines + (start + r) * HEAD_DIM / 2);
                    rotate(key, side->cosines + (start + r) * HEAD_DIM / 2, side->sines + (start + r) * HEAD_DIM / 2);
                }
                qkv_set_query_key(qkv, start + r, head, query, key);
            }
        }
        for (int64_t r = 0; r < rows; r += 2) {
            const float *value = buffers->wide + r * layer->out_dim + layer->out_dim - EMBED_DIM;
            for (int64_t head = 0; head < HEADS; head++, value += HEAD_DIM)
                qkv_set_values(qkv, start + r, head, value, r + 1 < rows ? value + layer->out_dim : NULL);
        }
    }
}

/* Layer normalization, then GELU, of one row in place. */
INLINE void norm_gelu(float *row, int64_t count, const float *weight, const float *bias) {
    vf sum = vf_set(0.0f), squares = vf_set(0.0f);
    for (int64_t i = 0; i < count; i += WIDTH) sum = vf_add(sum, vf_load(row + i));
    vf mean = vf_set(vf_reduce_add(sum) / count);
    for (int64_t i = 0; i < count; i += WIDTH) {
        vf centred = vf_sub(vf_load(row + i), mean);
        squares = vf_fma(centred, centred, squares);
    }
    vf inverse_std = vf_set(1.0f / sqrtf(vf_reduce_add(squares) / count + 1e-5f));
    for (int64_t i = 0; i < count; i += WIDTH) {
        vf normed = vf_mul(vf_sub(vf_load(row + i), mean), inverse_std);
        normed = vf_fma(normed, vf_load(weight + i), vf_load(bias + i));
        vf_store(row + i, gelu(normed));
    }
}

/* y = x + linear2(gelu(layer_norm(linear1([x; context])))), each (count, EMBED_DIM). y may be x. */
static void feed_forward(const FeedForward *ffn, const float *x, const float *context, int64_t count, Buffers *buffers,
                         float *y) {
    const int64_t step = CHUNK_ROWS * EMBED_DIM;
    for (int64_t start = 0; start < count; start += CHUNK_ROWS, x += step, context += step, y += step) {
        const int64_t rows = min_i64(CHUNK_ROWS, count - start);
        for (int64_t r = 0; r < rows; r++) {
            uint8_t *quantized = buffers->quantized + r * 2 * EMBED_DIM;
            float *scale = buffers->scale + r * 2;
            quantize(x + r * EMBED_DIM, EMBED_DIM, quantized, scale);
            quantize(context + r * EMBED_DIM, EMBED_DIM, quantized + EMBED_DIM, scale + 1);
        }
        dense(&ffn->linear1, buffers->quantized, buffers->scale, rows, buffers->wide);
        for (int64_t r = 0; r < rows; r++)
            norm_gelu(buffers->wide + r * 2 * EMBED_DIM, 2 * EMBED_DIM, ffn->norm_weight, ffn->norm_bias);
        round_to_bf16(buffers->wide, rows, 2 * EMBED_DIM, buffers->rounded);
        dense_bf16(&ffn->linear2, buffers->rounded, rows, buffers->narrow);
        for (int64_t i = 0; i < rows * EMBED_DIM; i += WIDTH)
            vf_store(y + i, vf_add(vf_load(x + i), vf_load(buffers->narrow + i)));
    }
}

/* Predict the confidence and the matchability of each keypoint from y. */
static void predict_decisions(const Layer *layer, const Side *side) {
    float *outputs[2] = {side->confidence, side->matchability};
    for (int64_t row = 0; row < side->count; row++) {
        for (int output = 0; output < 2; output++) {
            vf sum = vf_set(0.0f);
            for (int64_t i = 0; i < EMBED_DIM; i += WIDTH) {
                vf weight = vf_load(layer->decision_weight + output * EMBED_DIM + i);
                sum = vf_fma(vf_load(side->y + row * EMBED_DIM + i), weight, sum);
            }
            outputs[output][row] = 1.0f / (1.0f + expf(-(vf_reduce_add(sum) + layer->decision_bias[output])));
        }
    }
}

/* Self-attention of x (count, EMBED_DIM) and the feed-forward network after it, into side->y, which may be x. */
static void self_block(const Dense *projection, const FeedForward *ffn, const float *x, const Side *side,
                       uint8_t *scratch) {
    Buffers *buffers = (Buffers *)scratch;
    scratch += align_bytes(sizeof(Buffers));
    PackedQKV qkv;
    qkv_init(&qkv, scratch, side->count);
    float *context = (float *)(scratch + qkv_bytes(side->count));
    project(projection, x, side, buffers, &qkv);
    attend(&qkv, &qkv, context);
    feed_forward(ffn, x, context, side->count, buffers, side->y);
}

/* Run a layer on a pair of images with at least one keypoint each. */
EXPORT void EXPORTED(layer)(const Layer *layer, const Side *side0, const Side *side1, uint8_t *scratch) {
    const Side *sides[2] = {side0, side1};
    const float *x[2] = {side0->x, side1->x};
    for (int i = 0; layer->has_self_attention && i < 2; i++) {
        self_block(&layer->self_projection, &layer->self_ffn, x[i], sides[i], scratch);
        x[i] = sides[i]->y;
    }
    Buffers *buffers = (Buffers *)scratch;
    scratch += align_bytes(sizeof(Buffers));
    PackedQKV qkv[2];
    for (int i = 0; i < 2; i++) {
        qkv_init(qkv + i, scratch, sides[i]->count);
        scratch += qkv_bytes(sides[i]->count);
    }
    float *context = (float *)scratch;
    for (int i = 0; i < 2; i++) project(&layer->cross_projection, x[i], sides[i], buffers, qkv + i);
    for (int i = 0; i < 2; i++) {
        attend(qkv + i, qkv + 1 - i, context);
        feed_forward(&layer->cross_ffn, x[i], context, sides[i]->count, buffers, sides[i]->y);
        if (layer->decision_weight) predict_decisions(layer, sides[i]);
    }
}
