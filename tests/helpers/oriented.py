"""Photos whose stored pixels are turned, with the EXIF orientation that turns them upright."""

from pathlib import Path

import numpy as np
from PIL import Image

from lgbatch.types import ByteArray

TAG = 274
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # counter-clockwise: turned clockwise, it is upright
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What turns upright pixels into the stored ones, by orientation. Lossless, by Pillow."""


def save(path: Path, upright: ByteArray, orientation: int) -> None:
    """Write upright pixels (H, W, C) or (H, W) as they are stored for an EXIF orientation, with the tag."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image, exif = Image.fromarray(upright), Image.Exif()
    if orientation in STORED:
        image = image.transpose(STORED[orientation])
    exif[TAG] = orientation
    image.save(path, exif=exif)


def read(path: Path, size: tuple[int, int]) -> ByteArray:
    """Read a photo without a tag, resized to (width, height): RGB (H, W, 3)."""
    return np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.LANCZOS))
