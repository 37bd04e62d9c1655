/* The stem of LightGlue for one image, on one core: input projection in float, then the first self-attention as in the
   layers. */

/* Size of the scratch buffer of lgbatch_stem, which must be aligned to 64 bytes. */
EXPORT size_t EXPORTED(stem_scratch_bytes)(int64_t count) { return self_block_bytes(count); }

/* y (count, EMBED_DIM) = x W + b, for descriptors x (count, descriptor_dim). */
static void embed(const Stem *stem, const float *x, int64_t count, float *y) {
    const int64_t dim = stem->descriptor_dim;
    for (int64_t row = 0; row < count; row += 4) {
        /* the rows beyond the last are the last one */
        const int64_t r1 = min_i64(row + 1, count - 1), r2 = min_i64(row + 2, count - 1), r3 = min_i64(row + 3, count - 1);
        for (int64_t column = 0; column < EMBED_DIM; column += WIDTH) {
            vf bias = vf_load(stem->projection_bias + column), a0 = bias, a1 = bias, a2 = bias, a3 = bias;
            for (int64_t i = 0; i < dim; i++) {
                vf weight = vf_load(stem->projection_weight + i * EMBED_DIM + column);
                a0 = vf_fma(vf_set(x[row * dim + i]), weight, a0);
                a1 = vf_fma(vf_set(x[r1 * dim + i]), weight, a1);
                a2 = vf_fma(vf_set(x[r2 * dim + i]), weight, a2);
                a3 = vf_fma(vf_set(x[r3 * dim + i]), weight, a3);
            }
            vf_store(y + row * EMBED_DIM + column, a0);
            vf_store(y + r1 * EMBED_DIM + column, a1);
            vf_store(y + r2 * EMBED_DIM + column, a2);
            vf_store(y + r3 * EMBED_DIM + column, a3);
        }
    }
}

/* Encode the descriptors of an image with at least one keypoint, side->x, into side->y. */
EXPORT void EXPORTED(stem)(const Stem *stem, const Side *side, uint8_t *scratch) {
    if (stem->projection_weight)
        embed(stem, side->x, side->count, side->y);
    else
        memcpy(side->y, side->x, side->count * EMBED_DIM * sizeof *side->y);
    self_block(&stem->self_projection, &stem->self_ffn, side->y, side, scratch);
}
