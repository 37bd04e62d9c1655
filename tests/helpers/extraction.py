"""What the tests of extractors and matchers share: photos, runs of a model, and when features are the same."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.export import parity
from lgbatch.runtime.models import Model
from lgbatch.types import Features

Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def photo(folder: Path, size: tuple[int, int], number: int = 0) -> NDArray[np.float32]:
    image = cv2.imread(str(sorted(folder.glob("*.jpg"))[number]))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)[..., ::-1]
    return np.ascontiguousarray(resized.transpose(2, 0, 1), dtype=np.float32) / 255


def run(model: Model, images: NDArray[np.float32], most: int) -> list[Found]:
    outputs = model.run({"image": images, "max_keypoints": np.array(most)})
    return [(k[:c], s[:c], d[:c]) for k, s, d, c in zip(*outputs, strict=True)]


def assert_same(found: Found, expected: Found) -> None:
    """As many keypoints, 99.5% of them in the same places, with the same scores and descriptors."""
    assert len(found[0]) == len(expected[0]) > 0
    mine, theirs = parity.same_keypoints(found[0], expected[0])
    assert len(mine) >= 0.995 * len(found[0])
    assert (found[2][mine] * expected[2][theirs]).sum(1).min() > 1 - 1e-3
    np.testing.assert_allclose(found[1][mine], expected[1][theirs], atol=1e-3)


def cut(features: Features, count: int) -> Features:
    """The best `count` keypoints."""
    rows = slice(0, count)
    return Features(features.keypoints[rows], features.scores[rows], features.descriptors[rows], features.image_size)
