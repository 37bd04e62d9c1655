"""Which images look alike, from their local features: VLAD vectors, compared by blocks.

VLAD: Jegou et al., CVPR 2010, "Aggregating local descriptors into a compact image representation", with the residuals
of each word normalized (Arandjelovic and Zisserman, CVPR 2013, "All about VLAD").
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.pairing.nearest_descriptors import similarities
from lgbatch.types import FloatArray

WORDS = 64
_SAMPLE = 20_000
"""Descriptors that the vocabulary is trained on."""
_ITERATIONS = 12
_BLOCK = 512
"""Images that are compared with all others at a time: the N x N matrix is never in memory."""
_CONVERTED = 2048
Vectors = FloatArray | NDArray[np.float16]


def train_vocabulary(descriptors: Sequence[FloatArray], words: int = WORDS) -> FloatArray:
    """Cluster the descriptors (N, D) of images into at most `words` centres, (W, D); none without descriptors.

    Every image gives the same number of its first descriptors, which are its best. Deterministic.
    """
    if not descriptors:
        return np.zeros((0, 0), np.float32)
    each = max(1, _SAMPLE // max(1, len(descriptors)))
    sample = np.concatenate([values[:each] for values in descriptors]).astype(np.float32)
    if len(sample) <= words:
        return sample
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_MAX_ITER, _ITERATIONS, 0.0)
    _, _, centres = cv2.kmeans(sample, words, None, criteria, 1, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    return np.asarray(centres, np.float32)


def vlad(descriptors: FloatArray, vocabulary: FloatArray) -> FloatArray:
    """Aggregate the descriptors (N, D) of an image into one vector (W * D,) of norm 1, or 0 if N is 0, float32.

    Thread-safe.
    """
    words, dim = vocabulary.shape
    sums = np.zeros((words, dim), np.float32)
    if len(descriptors) and words:
        nearest = ((vocabulary**2).sum(1) - 2 * similarities(descriptors, vocabulary)).argmin(1)
        used, counts = np.unique(nearest, return_counts=True)
        starts = np.cumsum(counts) - counts
        in_order = descriptors[np.argsort(nearest, kind="stable")]
        sums[used] = np.add.reduceat(in_order, starts) - counts[:, None].astype(np.float32) * vocabulary[used]
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    vector = sums.ravel()
    unit: FloatArray = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return unit


def most_similar(vectors: Vectors, count: int, queries: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Return for vectors of norm 1 the rows of the most similar others, best first.

    The vectors are (N, V); `queries` are the rows that are asked for, (Q,), by default all. The result is (Q, count).
    `count` must be less than N.
    """
    rows = np.arange(len(vectors)) if queries is None else queries
    best = np.empty((len(rows), count), np.intp)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        similarity = _compare(vectors[block].astype(np.float32), vectors)
        every = np.arange(len(block))
        similarity[every, block] = -np.inf
        candidates = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(similarity, candidates, axis=1), axis=1, kind="stable")
        best[start : start + _BLOCK] = np.take_along_axis(candidates, order, axis=1)
    return best


def similarities_of_pairs(
    vectors: Vectors, first: NDArray[np.integer], second: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return the products (P,) of the vectors of pairs, by blocks: those of all pairs would not fit in the memory."""
    products = np.empty(len(first))
    for start in range(0, len(first), _BLOCK):
        rows = slice(start, start + _BLOCK)
        a, b = (vectors[side[rows]].astype(np.float32) for side in (first, second))
        products[rows] = np.einsum("pv,pv->p", a, b)
    return products


def _compare(block: FloatArray, vectors: Vectors) -> FloatArray:
    """The products (B, N) of vectors (B, V) and (N, V): half precision is converted by parts."""
    products = np.empty((len(block), len(vectors)), np.float32)
    for start in range(0, len(vectors), _CONVERTED):
        part = vectors[start : start + _CONVERTED].astype(np.float32, copy=False)
        np.matmul(block, part.T, out=products[:, start : start + _CONVERTED])
    return products
