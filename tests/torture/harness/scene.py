"""Photos of painted points. The stand-in models detect the points and match them exactly, so COLMAP can map them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lgbatch.types import ByteArray

SIZE = (320, 240)
"""(width, height)."""
NAMES = ("a.png", "day 1/my photo 2.PNG", "day 1/b.bmp", "day 2/über 写真.tif", "day-3/c.png")
"""Names of the first photos; the others are numbered. All formats are lossless, because a point is one pixel."""
_FOCAL = 1.2 * max(SIZE)  # COLMAP's initial guess
_UNMATCHED = 1 << 15  # first bit in the code of a point that only one photo shows


def names(count: int) -> list[str]:
    return [NAMES[i] if i < len(NAMES) else f"more/{i:03}.png" for i in range(count)]


def render(folder: Path, count: int, *, points: int = 250) -> list[str]:
    """Write `count` photos, taken on an arc around a cloud of points; returns their names, sorted."""
    rng = np.random.default_rng(0)
    world = rng.uniform(-1, 1, (points, 3))
    for i, name in enumerate(names(count)):
        angle = np.radians(-30 + 60 * i / max(1, count - 1))
        rotation = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
        in_camera = world @ rotation.T + [0, 0.2 * np.sin(3 * i), 4]
        pixels = np.rint(in_camera[:, :2] / in_camera[:, 2:] * _FOCAL + np.array(SIZE) / 2 - 0.5).astype(int)
        unmatched = rng.integers((0, 0), SIZE, (20, 2))
        codes = [*range(1, points + 1), *(_UNMATCHED + 32 * i + j for j in range(len(unmatched)))]
        photo = paint(np.concatenate([pixels, unmatched]), codes, rng)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix.lower(), photo)[1].tobytes())
    return sorted(names(count))


def paint(pixels: np.ndarray, codes: Sequence[int], rng: np.random.Generator) -> ByteArray:
    """Paint points with 16-bit `codes` at `pixels` (N, 2) onto a dark noisy photo, (H, W, 3) BGR.

    Skips points outside the photo and on an occupied pixel.
    """
    photo = rng.integers(0, 100, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    for (x, y), code in zip(pixels.tolist(), codes, strict=True):
        if 0 <= x < SIZE[0] and 0 <= y < SIZE[1] and photo[y, x, 2] < 255:
            photo[y, x] = (code & 255, code >> 8, 255)
    return photo
