"""ALIKED in the compiled kernels, in single precision. Its network is described in lgbatch.export.networks.aliked."""

from collections.abc import Mapping, Sequence

import numpy as np

from lgbatch.kernels.aliked_keypoints import Descriptor, Detector, refine
from lgbatch.kernels.aliked_maps import MapNetwork
from lgbatch.kernels.session import Array, KernelSession

THRESHOLD = 0.2
"""Exclusive lower bound of the scores of keypoints. If no score of a photo exceeds it, the bound is the mean score."""


class Aliked(KernelSession):
    """The extractor. Photos are extracted one after another, on the core of the calling thread."""

    inputs: list[str] = ["pixels", "max_keypoints"]  # noqa: RUF012
    outputs: list[str] = ["keypoints", "scores", "descriptors", "counts"]  # noqa: RUF012

    def _read(self, arrays: Mapping[str, Array]) -> None:
        self._maps = MapNetwork(arrays, self._keep)
        self._detector = Detector()
        self._descriptor = Descriptor(arrays, self._keep)
        self.widths = [2, None, self._descriptor.dim, None]

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Extract a batch of photos of one size.

        Inputs: pixels (B, H, W, 3) uint8, RGB, and max_keypoints () int64. Outputs: keypoints (B, K, 2) float32 in
        pixels of the input, top-left pixel centre (0, 0), sorted by the score before the refinement, best first; scores
        (B, K) after it; descriptors (B, K, D) of unit length; counts (B,) int64. Rows from a photo's count on are 0.
        """
        most = int(feed["max_keypoints"])
        found = [self._extract(pixels, most) for pixels in feed["pixels"]]
        counts = np.array([len(features[0]) for features in found])
        outputs = [np.zeros((len(found), counts.max(), *values.shape[1:]), np.float32) for values in found[0]]
        for row, features in enumerate(found):
            for output, values in zip(outputs, features, strict=True):
                output[row, : len(values)] = values
        return [*outputs, counts]

    def _extract(self, pixels: Array, most: int) -> tuple[Array, Array, Array]:
        """Return the keypoints, scores and descriptors of a photo (H, W, 3)."""
        height, width = shape = pixels.shape[:2]
        maps = self._maps.empty_maps(height, width)
        self._maps.run(pixels, maps)
        top, left = maps.corner(shape)
        scores = maps.scores[top : top + height, left : left + width]
        keypoints, values = refine(scores, self._detector.detect(scores, THRESHOLD, most))
        return keypoints, values, self._descriptor.describe(maps, keypoints, shape)
