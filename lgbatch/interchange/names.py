"""File names of images in folders for other programs."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from lgbatch.photos.formats import suffix

RECORD = "undistorted.json"
"""The file in a folder of `lgbatch undistort` that records what was written there."""
_KEPT = ("jpg", "jpeg", "png")
_LOSSLESS = ("tif", "tiff", "bmp")
_NOT_IN_FLAT = re.compile(r"[\s./\\]+")


def written_names(names: Iterable[str], *, flat: bool = False) -> dict[str, str]:
    """Return the names, with forward slashes, under which images are written, by their own names.

    JPEG and PNG keep theirs. TIFF and BMP get the ending .png, all other formats .jpg, which every program reads. With
    `flat`, folders become part of the name, and white space and dots in it become `_`: for programs that look for all
    images in one folder, and split lines at spaces. No two names are equal, in capitals or not.
    """
    written: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names, key=lambda name: (suffix(name) not in _KEPT, name)):
        candidates = _candidates(name, flat)
        written[name] = next(candidate for candidate in candidates if candidate.casefold() not in taken)
        taken.add(written[name].casefold())
    return written


def _candidates(name: str, flat: bool) -> Iterable[str]:
    own = suffix(name)
    ending = PurePosixPath(name).suffix if own in _KEPT else ".png" if own in _LOSSLESS else ".jpg"
    stem = str(PurePosixPath(name).with_suffix("")) if own else name
    if flat:
        stem = _NOT_IN_FLAT.sub("_", stem)
    yield stem + ending
    yield f"{stem}_{own}{ending}"
    yield from (f"{stem}_{own}_{number}{ending}" for number in range(2, 1 << 62))
