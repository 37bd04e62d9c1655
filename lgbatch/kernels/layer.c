/* A layer of LightGlue (Lindenberger, Sarlin and Pollefeys, ICCV 2023) for one pair, on one core.

   GEMMs with weights are int8 with int32 accumulators; attention.c describes attention. Layer normalization, the
   residual stream and the confidences are float. Queries are not padded; keys are padded to a multiple of PANEL. */

#include "kernels.h"

#ifdef HAS_KERNELS

#include <math.h>
#include <string.h>

#include "simd.h"

/* Buffers for CHUNK_ROWS rows. */
typedef struct {
    float wide[CHUNK_ROWS * 3 * EMBED_DIM];        /* output of a projection or of linear1 */
    float narrow[CHUNK_ROWS * EMBED_DIM];          /* output of linear2 */
    float scale[CHUNK_ROWS * 2];                   /* of the quantized rows */
    uint8_t quantized[CHUNK_ROWS * 2 * EMBED_DIM]; /* input of the next dense layer */
} Buffers;

/* Size of the scratch buffer of lgbatch_layer, which must be aligned to 64 bytes. */
size_t lgbatch_layer_scratch_bytes(int64_t count0, int64_t count1) {
    const int64_t longest = count0 > count1 ? count0 : count1;
    return align_bytes(sizeof(Buffers)) + qkv_bytes(count0) + qkv_bytes(count1) + longest * EMBED_DIM * 4;
}

/* Rotary embedding of x (HEAD_DIM,): rotate the pairs (x[i], x[i + HEAD_DIM / 2]). */
INLINE void rotate(float *x, const float *cosines, const float *sines) {
    for (int i = 0; i < HEAD_DIM / 2; i += 16) {
        __m512 first = _mm512_loadu_ps(x + i), second = _mm512_loadu_ps(x + HEAD_DIM / 2 + i);
        __m512 c = _mm512_loadu_ps(cosines + i), s = _mm512_loadu_ps(sines + i);
        _mm512_storeu_ps(x + i, _mm512_fmsub_ps(first, c, _mm512_mul_ps(second, s)));
        _mm512_storeu_ps(x + HEAD_DIM / 2 + i, _mm512_fmadd_ps(first, s, _mm512_mul_ps(second, c)));
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
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += 16) sum = _mm512_add_ps(sum, _mm512_loadu_ps(row + i));
    __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / count);
    for (int64_t i = 0; i < count; i += 16) {
        __m512 centred = _mm512_sub_ps(_mm512_loadu_ps(row + i), mean);
        squares = _mm512_fmadd_ps(centred, centred, squares);
    }
    __m512 inverse_std = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / count + 1e-5f));
    for (int64_t i = 0; i < count; i += 16) {
        __m512 normed = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(row + i), mean), inverse_std);
        normed = _mm512_fmadd_ps(normed, _mm512_loadu_ps(weight + i), _mm512_loadu_ps(bias + i));
        _mm512_storeu_ps(row + i, gelu(normed));
    }
}

/* y = x + linear2(gelu(layer_norm(linear1([x; context])))), each (count, EMBED_DIM). y may be x. */
static void feed_forward(const FeedForward *ffn, const float *x, const float *context, int64_t count, Buffers *buffers,
                         float *y) {
    const int64_t groups = 2 * EMBED_DIM / GROUP, step = CHUNK_ROWS * EMBED_DIM;
    for (int64_t start = 0; start < count; start += CHUNK_ROWS, x += step, context += step, y += step) {
        const int64_t rows = min_i64(CHUNK_ROWS, count - start);
        for (int64_t r = 0; r < rows; r++) {
            uint8_t *quantized = buffers->quantized + r * 2 * EMBED_DIM;
            float *scale = buffers->scale + r * groups;
            quantize(x + r * EMBED_DIM, EMBED_DIM, quantized, scale);
            quantize(context + r * EMBED_DIM, EMBED_DIM, quantized + EMBED_DIM, scale + 1);
        }
        dense(&ffn->linear1, buffers->quantized, buffers->scale, rows, buffers->wide);
        for (int64_t r = 0; r < rows; r++) {
            float *row = buffers->wide + r * 2 * EMBED_DIM;
            norm_gelu(row, 2 * EMBED_DIM, ffn->norm_weight, ffn->norm_bias);
            quantize(row, 2 * EMBED_DIM, buffers->quantized + r * 2 * EMBED_DIM, buffers->scale + r * groups);
        }
        dense(&ffn->linear2, buffers->quantized, buffers->scale, rows, buffers->narrow);
        for (int64_t i = 0; i < rows * EMBED_DIM; i += 16)
            _mm512_storeu_ps(y + i, _mm512_add_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(buffers->narrow + i)));
    }
}

/* Predict the confidence and the matchability of each keypoint from y. */
static void predict_decisions(const Layer *layer, const Side *side) {
    float *outputs[2] = {side->confidence, side->matchability};
    for (int64_t row = 0; row < side->count; row++) {
        for (int output = 0; output < 2; output++) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t i = 0; i < EMBED_DIM; i += 16) {
                __m512 weight = _mm512_loadu_ps(layer->decision_weight + output * EMBED_DIM + i);
                sum = _mm512_fmadd_ps(_mm512_loadu_ps(side->y + row * EMBED_DIM + i), weight, sum);
            }
            outputs[output][row] = 1.0f / (1.0f + expf(-(_mm512_reduce_add_ps(sum) + layer->decision_bias[output])));
        }
    }
}

/* Run a layer on a pair of images with at least one keypoint each. */
void lgbatch_layer(const Layer *layer, const Side *side0, const Side *side1, uint8_t *scratch) {
    const Side *sides[2] = {side0, side1};
    Buffers *buffers = (Buffers *)scratch;
    scratch += align_bytes(sizeof(Buffers));
    PackedQKV qkv[2];
    for (int i = 0; i < 2; i++) {
        qkv_init(qkv + i, scratch, sides[i]->count);
        scratch += qkv_bytes(sides[i]->count);
    }
    float *context = (float *)scratch;
    const float *x[2] = {side0->x, side1->x};
    for (int i = 0; layer->has_self_attention && i < 2; i++) {
        project(&layer->self_projection, x[i], sides[i], buffers, qkv + i);
        attend(qkv + i, qkv + i, context);
        feed_forward(&layer->self_ffn, x[i], context, sides[i]->count, buffers, sides[i]->y);
        x[i] = sides[i]->y;
    }
    for (int i = 0; i < 2; i++) project(&layer->cross_projection, x[i], sides[i], buffers, qkv + i);
    for (int i = 0; i < 2; i++) {
        attend(qkv + i, qkv + 1 - i, context);
        feed_forward(&layer->cross_ffn, x[i], context, sides[i]->count, buffers, sides[i]->y);
        if (layer->decision_weight) predict_decisions(layer, sides[i]);
    }
}

END_TARGET
#endif
