"""Helpers of the tests of extractors: a photo, a run of the model, and comparisons of features."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.export import parity
from lgbatch.runtime.models import Model
from lgbatch.types import Features

Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Keypoints (N, 2), scores (N,) and descriptors (N, D) of an image."""


def photo(folder: Path, size: tuple[int, int], number: int = 0) -> NDArray[np.float32]:
    """A photo of the folder, resized to (width, height): (3, H, W) RGB in 0..1."""
    image = cv2.imread(str(sorted(folder.glob("*.jpg"))[number]))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)[..., ::-1]
    return np.ascontiguousarray(resized.transpose(2, 0, 1), dtype=np.float32) / 255


def run(model: Model, images: NDArray[np.float32], max_keypoints: int) -> list[Found]:
    """Run an extractor on a batch (B, 3, H, W), and remove the padding of each image."""
    feed: dict[str, NDArray[Any]] = {"image": images}
    if "pixels" in model.session.inputs:
        feed = {"pixels": np.round(255 * images).astype(np.uint8).transpose(0, 2, 3, 1)}
    outputs = model.run(feed | {"max_keypoints": np.array(max_keypoints)})
    return [(k[:c], s[:c], d[:c]) for k, s, d, c in zip(*outputs, strict=True)]


def assert_same(actual: Found, expected: Found) -> None:
    """The number of keypoints is equal, and 99.5% of them have equal positions, scores and descriptors."""
    assert len(actual[0]) == len(expected[0]) > 0
    rows, expected_rows = parity.same_keypoints(actual[0], expected[0])
    assert len(rows) >= 0.995 * len(actual[0])
    assert (actual[2][rows] * expected[2][expected_rows]).sum(1).min() > 1 - 1e-3
    np.testing.assert_allclose(actual[1][rows], expected[1][expected_rows], atol=1e-3)


def at_whole_pixels(found: Found, published: NDArray[np.float32]) -> Found:
    """Features whose keypoints are moved back to the nearest published ones, (M, 2), if these are within half a pixel.

    At least half of the keypoints must have moved.
    """
    keypoints, scores, descriptors = found
    nearest = published[[np.linalg.norm(published - keypoint, axis=1).argmin() for keypoint in keypoints]]
    distance = np.abs(nearest - keypoints)
    assert (distance > 0).any(axis=1).mean() > 0.5
    return np.where(distance <= 0.5 + 1e-3, nearest, keypoints), scores, descriptors


def cut(features: Features, count: int) -> Features:
    """The `count` keypoints of highest score."""
    rows = slice(0, count)
    return Features(features.keypoints[rows], features.scores[rows], features.descriptors[rows], features.image_size)
