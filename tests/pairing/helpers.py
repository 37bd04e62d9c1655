"""Sets of photos for the tests of pairing: only their features, and the headers of their files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, FloatArray

DIM = 32


def unit(values: FloatArray) -> FloatArray:
    rows: FloatArray = values / np.linalg.norm(values, axis=1, keepdims=True)
    return rows


def scene(seed: int, images: int, *, points: int = 120, noise: float = 0.04) -> list[FloatArray]:
    """Descriptors (points, DIM) of images of one scene, in the order of the points."""
    rng = np.random.default_rng(seed)
    seen = unit(rng.standard_normal((points, DIM)).astype(np.float32))
    return [unit(seen + noise * rng.standard_normal(seen.shape).astype(np.float32)) for _ in range(images)]


def write_features(
    path: Path, descriptors: dict[str, FloatArray], *, folder: Path | None = None, extractor: str = "made"
) -> None:
    """Add images with these descriptors to a store."""
    with FeatureStore(path, append={"extractor": extractor}) as store:
        if folder:
            store.set_image_folder(folder)
        for name, values in descriptors.items():
            count = len(values)
            points = np.zeros((count, 2), np.float32)
            store.write(name, Features(points, np.linspace(1, 0, count, dtype=np.float32), values, (8, 8)))


def two_scenes(images: int) -> dict[str, FloatArray]:
    """Descriptors by name of two scenes whose images take turns in the order of names."""
    first, second = scene(1, images), scene(2, images)
    return {f"{i:03}{'ab'[k]}.jpg": pair[k] for i, pair in enumerate(zip(first, second, strict=True)) for k in (0, 1)}


def across(pairs: Sequence[tuple[str, str]]) -> int:
    """The number of pairs with an image of either of two_scenes."""
    return sum(a[3] != b[3] for a, b in pairs)
