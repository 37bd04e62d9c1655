"""Masks of photos, as COLMAP has them: keypoints on black pixels (0) are dropped.

A mask is an image of its photo's stored pixels: the EXIF orientation is not applied. One of another size is looked up
at the nearest pixel.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import InputError, ItemError
from lgbatch.photos.crawl import Crawl, crawl
from lgbatch.photos.formats import format_left_out
from lgbatch.types import BoolArray, Features, ImageRef, counted

_OVERSAMPLING = 4  # in photos with masks, to make up for the keypoints on black pixels


def crawl_with_masks(folder: Path, mask_folder: str, camera_mask: str) -> Crawl:
    """List the photos below `folder` as `crawl` does, with the files of their masks.

    The mask of a/b.jpg is a/b.jpg.png or a/b.png below `mask_folder`; a photo may have none. `camera_mask` is a mask
    for all photos. Empty strings mean no masks. Masks below `folder` are no photos. Prints the number of photos with a
    mask in `mask_folder`, and the images in formats that are not read.

    Raises InputError as `crawl`, and if the mask folder or file is missing, or no photo has a mask in the folder.
    """
    crawled = crawl(folder)
    if crawled.left_out:
        print(f"lgbatch: left out images: {format_left_out(crawled.left_out)}", file=sys.stderr)
    if camera_mask and not Path(camera_mask).is_file():
        raise InputError(f"there is no camera mask {camera_mask}: give the file of an image")
    if mask_folder and not Path(mask_folder).is_dir():
        raise InputError(f"there is no mask folder {mask_folder}: give the folder of the masks")
    own = {ref.name: _find_masks(ref, mask_folder) for ref in crawled.images} if mask_folder else {}
    shared = (Path(camera_mask),) if camera_mask else ()
    masks = {path.resolve() for path in (*shared, *(path for paths in own.values() for path in paths))}
    images = [ref for ref in crawled.images if not masks or not _is_mask(ref.path, folder, mask_folder, masks)]
    if not images:
        raise InputError(f"all photos in {folder} are masks: keep the masks in another folder")
    if mask_folder:
        _report(images, own, mask_folder)
    return replace(crawled, images=[replace(ref, masks=(*own.get(ref.name, ()), *shared)) for ref in images])


def read_masks(ref: ImageRef, size: tuple[int, int]) -> tuple[BoolArray, ...]:
    """Read the masks of a photo of `size` (width, height): True where keypoints are kept, (h, w) of any scale.

    Raises ItemError if a mask cannot be read or has another aspect ratio than the photo.
    """
    return tuple(_read_mask(path, size) for path in ref.masks)


def hidden_part(folder: Path, name: str, mask_folder: str, camera_mask: str) -> float:
    """Return the part of a photo below `folder` that is black in its masks, 0..1; of several, in the one with most."""
    masks = _find_masks(ImageRef(name, folder / name), mask_folder) if mask_folder else ()
    hidden = [0.0]
    for path in (*masks, Path(camera_mask)) if camera_mask else masks:
        with contextlib.suppress(ItemError):
            hidden.append(1.0 - float(_decode_mask(path).mean()))
    return max(hidden)


def visible(points: NDArray[np.floating], size: tuple[int, int], masks: Sequence[BoolArray]) -> BoolArray:
    """Tell which points (N, 2), in pixels of an image of `size` (width, height), no mask hides.

    The centre of the top-left pixel is (0, 0).
    """
    kept = np.ones(len(points), bool)
    for mask in masks:
        height, width = mask.shape
        cells = np.floor((points + 0.5) * (width / size[0], height / size[1])).astype(np.int64)
        columns, rows = np.clip(cells, 0, (width - 1, height - 1)).T
        kept &= mask[rows, columns]
    return kept


def drop_masked(features: Features, masks: Sequence[BoolArray], limit: int) -> Features:
    """Return the first `limit` keypoints that no mask hides."""
    rows = np.flatnonzero(visible(features.keypoints, features.image_size, masks))[:limit]
    return replace(
        features,
        keypoints=features.keypoints[rows],
        scores=features.scores[rows],
        descriptors=features.descriptors[rows],
        scales=None if features.scales is None else features.scales[rows],
        oris=None if features.oris is None else features.oris[rows],
    )


def keypoints_to_detect(limit: int, masks: Sequence[BoolArray]) -> int:
    """Return how many keypoints to detect in a photo to have up to `limit` of them outside its masks."""
    return _OVERSAMPLING * limit if masks else limit


def _find_masks(ref: ImageRef, mask_folder: str) -> tuple[Path, ...]:
    """Return the photo's mask, if there is one. No photo is its own mask."""
    return tuple(path for path in _candidates(ref.name, mask_folder) if path.is_file() and path != ref.path)[:1]


def _candidates(name: str, mask_folder: str) -> Iterator[Path]:
    yield Path(mask_folder, name + ".png")
    yield Path(mask_folder, PurePosixPath(name).with_suffix(".png"))


def _is_mask(photo: Path, folder: Path, mask_folder: str, masks: set[Path]) -> bool:
    """Whether a file among the photos is a mask, or lies in a mask folder inside the folder of photos."""
    inside = mask_folder and folder.resolve() in Path(mask_folder).resolve().parents
    return photo.resolve() in masks or bool(inside and photo.resolve().is_relative_to(Path(mask_folder).resolve()))


def _report(images: Sequence[ImageRef], own: dict[str, tuple[Path, ...]], mask_folder: str) -> None:
    count = sum(bool(own[ref.name]) for ref in images)
    if not count:
        expected = " or ".join(path.name for path in _candidates(images[0].name, mask_folder))
        raise InputError(f"no photo has a mask in {mask_folder}: the mask of {images[0].name} is {expected}")
    print(f"masks: {count} of {counted(len(images), 'photo has', 'photos have')} one in {mask_folder}", file=sys.stderr)


def _decode_mask(path: Path) -> BoolArray:
    """Read a mask as (h, w): True where it is not black. Raises ItemError if it cannot be read."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ItemError(f"its mask {path.name} cannot be read: {error.strerror}") from None
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(data, flags) if len(data) else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ItemError(f"its mask {path.name} is not an image")
    return np.asarray(pixels != 0)


def _read_mask(path: Path, size: tuple[int, int]) -> BoolArray:
    mask = _decode_mask(path)
    height, width = mask.shape
    if not _same_aspect((width, height), size):
        turned = _same_aspect((height, width), size)
        hint = "it is turned; make it of the pixels as stored" if turned else "make it of the photo's size"
        raise ItemError(f"its mask {path.name} is {width}x{height}, but the photo is {size[0]}x{size[1]}: {hint}")
    return mask


def _same_aspect(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether one (width, height) is the other one scaled, with sides rounded to pixels."""
    small, large = sorted((first, second))
    scale = small[0] / large[0]
    return abs(small[1] - large[1] * scale) <= 1 or abs(small[0] - large[0] * small[1] / large[1]) <= 1
