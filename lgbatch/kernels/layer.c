/* A layer of LightGlue (Lindenberger, Sarlin and Pollefeys, ICCV 2023) for one pair, on one core.

   Products with weights are in 8 bits with sums in 32, attention as attention.c says; what goes from block to block, the
   normalisation and the decisions are in single precision. Nothing is padded that takes time. */

#include "kernels.h"

#ifdef HAS_KERNELS

#include <math.h>
#include <string.h>

#include "simd.h"

/* Numbers of CHUNK rows on their way through a block of layers. */
typedef struct {
    float wide[CHUNK * 3 * WIDTH], narrow[CHUNK * WIDTH], scale[CHUNK * 2];
    uint8_t rounded[CHUNK * 2 * WIDTH];
} Work;

/* How many bytes of scratch memory, beginning at a multiple of 64, a layer wants for a pair of such images. */
size_t lgbatch_scratch(int64_t count0, int64_t count1) {
    const int64_t most = count0 > count1 ? count0 : count1;
    return whole(sizeof(Work)) + attended_bytes(count0) + attended_bytes(count1) + most * WIDTH * 4;
}

/* The first 32 numbers of a head are turned with the second 32 by the angles of a row. */
INLINE void turn(float *numbers, const float *cosines, const float *sines) {
    for (int i = 0; i < HEAD / 2; i += 16) {
        __m512 first = _mm512_loadu_ps(numbers + i), second = _mm512_loadu_ps(numbers + HEAD / 2 + i);
        __m512 c = _mm512_loadu_ps(cosines + i), s = _mm512_loadu_ps(sines + i);
        _mm512_storeu_ps(numbers + i, _mm512_fmsub_ps(first, c, _mm512_mul_ps(second, s)));
        _mm512_storeu_ps(numbers + HEAD / 2 + i, _mm512_fmadd_ps(first, s, _mm512_mul_ps(second, c)));
    }
}

/* Queries, keys and values of an image: (query, key, value) of self-attention, (both, value) of cross-attention. */
static void project(const Dense *by, const float *x, const Side *side, Work *work, Attended *to) {
    const int64_t own = by->outs == 3 * WIDTH;
    for (int64_t start = 0; start < side->count; start += CHUNK) {
        const int64_t rows = least(CHUNK, side->count - start);
        for (int64_t r = 0; r < rows; r++)
            quantize(x + (start + r) * WIDTH, WIDTH, work->rounded + r * WIDTH, work->scale + r);
        dense(by, work->rounded, work->scale, rows, work->wide);
        for (int64_t r = 0; r < rows; r++) {
            float *made = work->wide + r * by->outs;
            for (int64_t head = 0; head < HEADS; head++) {
                float *query = made + head * HEAD, *key = own ? query + WIDTH : query;
                if (own) {
                    turn(query, side->cosines + (start + r) * HEAD / 2, side->sines + (start + r) * HEAD / 2);
                    turn(key, side->cosines + (start + r) * HEAD / 2, side->sines + (start + r) * HEAD / 2);
                }
                attended_numbers(to, start + r, head, query, key);
            }
        }
        for (int64_t r = 0; r < rows; r += 2) {
            const float *value = work->wide + r * by->outs + by->outs - WIDTH;
            for (int64_t head = 0; head < HEADS; head++, value += HEAD)
                attended_values(to, start + r, head, value, r + 1 < rows ? value + by->outs : NULL);
        }
    }
}

/* Normalise a row, and let it through the activation. */
INLINE void activate(float *row, int64_t count, const float *gain, const float *shift) {
    __m512 sum = _mm512_setzero_ps(), square = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += 16) sum = _mm512_add_ps(sum, _mm512_loadu_ps(row + i));
    __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / count);
    for (int64_t i = 0; i < count; i += 16) {
        __m512 apart = _mm512_sub_ps(_mm512_loadu_ps(row + i), mean);
        square = _mm512_fmadd_ps(apart, apart, square);
    }
    __m512 by = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(square) / count + 1e-5f));
    for (int64_t i = 0; i < count; i += 16) {
        __m512 apart = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(row + i), mean), by);
        apart = _mm512_fmadd_ps(apart, _mm512_loadu_ps(gain + i), _mm512_loadu_ps(shift + i));
        _mm512_storeu_ps(row + i, gelu(apart));
    }
}

/* y = x + W2 gelu(norm(W1 [x; context])); y may be x. */
static void feed_forward(const FeedForward *by, const float *x, const float *context, int64_t count, Work *work,
                         float *y) {
    const int64_t groups = 2 * WIDTH / GROUP, step = CHUNK * WIDTH;
    for (int64_t start = 0; start < count; start += CHUNK, x += step, context += step, y += step) {
        const int64_t rows = least(CHUNK, count - start);
        for (int64_t r = 0; r < rows; r++) {
            quantize(x + r * WIDTH, WIDTH, work->rounded + r * 2 * WIDTH, work->scale + r * groups);
            quantize(context + r * WIDTH, WIDTH, work->rounded + (2 * r + 1) * WIDTH, work->scale + r * groups + 1);
        }
        dense(&by->inside, work->rounded, work->scale, rows, work->wide);
        for (int64_t r = 0; r < rows; r++) {
            float *row = work->wide + r * 2 * WIDTH;
            activate(row, 2 * WIDTH, by->gain, by->shift);
            quantize(row, 2 * WIDTH, work->rounded + r * 2 * WIDTH, work->scale + r * groups);
        }
        dense(&by->outside, work->rounded, work->scale, rows, work->narrow);
        for (int64_t i = 0; i < rows * WIDTH; i += 16)
            _mm512_storeu_ps(y + i, _mm512_add_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(work->narrow + i)));
    }
}

/* How sure each point is of its match, and how likely it has one. */
static void decide(const Layer *by, const Side *side) {
    float *outputs[2] = {side->confidence, side->matchability};
    for (int64_t row = 0; row < side->count; row++) {
        for (int which = 0; which < 2; which++) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t i = 0; i < WIDTH; i += 16) {
                __m512 weight = _mm512_loadu_ps(by->decide + which * WIDTH + i);
                sum = _mm512_fmadd_ps(_mm512_loadu_ps(side->y + row * WIDTH + i), weight, sum);
            }
            outputs[which][row] = 1.0f / (1.0f + expf(-(_mm512_reduce_add_ps(sum) + by->decide_bias[which])));
        }
    }
}

/* Send a pair of images, each of one point or more, through a layer. */
void lgbatch_layer(const Layer *by, const Side *side0, const Side *side1, uint8_t *scratch) {
    const Side *sides[2] = {side0, side1};
    Work *work = (Work *)scratch;
    scratch += whole(sizeof(Work));
    Attended attended[2];
    for (int i = 0; i < 2; i++) {
        attended_place(attended + i, scratch, sides[i]->count);
        scratch += attended_bytes(sides[i]->count);
    }
    float *context = (float *)scratch;
    const float *x[2] = {side0->x, side1->x};
    for (int i = 0; by->has_self && i < 2; i++) {
        project(&by->self_project, x[i], sides[i], work, attended + i);
        attend(attended + i, attended + i, context);
        feed_forward(&by->self_ffn, x[i], context, sides[i]->count, work, sides[i]->y);
        x[i] = sides[i]->y;
    }
    for (int i = 0; i < 2; i++) project(&by->cross_project, x[i], sides[i], work, attended + i);
    for (int i = 0; i < 2; i++) {
        attend(attended + i, attended + 1 - i, context);
        feed_forward(&by->cross_ffn, x[i], context, sides[i]->count, work, sides[i]->y);
        if (by->decide) decide(by, sides[i]);
    }
}

END_OF_KERNELS
#endif
