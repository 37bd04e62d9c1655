"""Which images look alike, from their local features: VLAD vectors, compared by blocks.

VLAD: Jegou et al., CVPR 2010, "Aggregating local descriptors into a compact image representation", with the residuals
of each word normalized (Arandjelovic and Zisserman, CVPR 2013, "All about VLAD").
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.types import FloatArray

WORDS = 64
_SAMPLE = 20_000
"""Descriptors that the vocabulary is trained on."""
_ITERATIONS = 12
_BLOCK = 512
"""Images that are compared with all others at a time: the N x N matrix is never in memory."""


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
    """Aggregate the descriptors (N, D) of an image into one vector (W * D,) of norm 1, or 0 if N is 0, float32."""
    words, dim = vocabulary.shape
    sums = np.zeros((words, dim), np.float32)
    if len(descriptors) and words:
        distances = (vocabulary**2).sum(1) - 2 * (descriptors @ vocabulary.T)
        belongs = np.zeros((len(descriptors), words), np.float32)
        belongs[np.arange(len(descriptors)), distances.argmin(1)] = 1
        sums = belongs.T @ descriptors - belongs.sum(0)[:, None] * vocabulary
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    vector = sums.ravel()
    unit: FloatArray = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return unit


def most_similar(vectors: FloatArray, count: int) -> NDArray[np.intp]:
    """Return for each of N vectors (N, V) of norm 1 the rows of the most similar others, (N, count), best first.

    `count` must be less than N.
    """
    best = np.empty((len(vectors), count), np.intp)
    for start in range(0, len(vectors), _BLOCK):
        similarity = vectors[start : start + _BLOCK] @ vectors.T
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -np.inf
        candidates = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(similarity, candidates, axis=1), axis=1, kind="stable")
        best[start : start + _BLOCK] = np.take_along_axis(candidates, order, axis=1)
    return best
