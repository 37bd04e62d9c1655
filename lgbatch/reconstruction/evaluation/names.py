"""Which image a known camera is of: by name, or by the time in the image's name."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import PurePosixPath

import numpy as np

from lgbatch.photos.formats import is_left_out, is_photo
from lgbatch.reconstruction.evaluation.truth import Array, Truth

MOST_SECONDS = 0.02
"""Largest difference between the times of an image and of its pose, as in the tools of the TUM RGB-D benchmark."""
_UNITS = (1.0, 1e-3, 1e-6, 1e-9)
"""Seconds, milliseconds, microseconds and nanoseconds."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
Key = Callable[[str], object]


@dataclass(frozen=True)
class Matched:
    """The images of known cameras."""

    camera_of: Mapping[str, str]
    """Known cameras, by the names of their images."""
    ambiguous: tuple[str, ...]
    """Cameras or images that are not matched because several have the same name or time."""
    absent: tuple[str, ...]
    """The other cameras, which no image belongs to."""


def match(truth: Truth, images: Collection[str]) -> Matched:
    """Find the images of the known cameras among `images`."""
    return match_names(truth.cameras, images) if truth.times is None else match_times(truth.times, images)


def match_names(cameras: Collection[str], images: Collection[str]) -> Matched:
    """Match cameras and images by name.

    Names are compared in several ways: as they are; without the extension of a photo and the folders that all cameras,
    or all images, are in; by the last folders and the file name; by the file name up to the first dot. The way that
    matches most cameras counts, the strictest of several. Cameras that share a name with others are ambiguous.
    """
    ways = [_match_by(cameras, images, *keys) for keys in _ways(cameras, images)]
    return max(ways, key=lambda matched: len(matched.camera_of))  # the first of equal ones


def _match_by(cameras: Collection[str], images: Collection[str], camera_key: Key, image_key: Key) -> Matched:
    of_cameras, of_images = _by_key(cameras, camera_key), _by_key(images, image_key)
    shared = of_cameras.keys() & of_images.keys()
    single = {value for value in shared if len(of_cameras[value]) == len(of_images[value]) == 1}
    found = {of_cameras[value][0]: of_images[value][0] for value in single}
    several = {name for value in shared - single for name in of_cameras[value]}
    return Matched(
        camera_of={found[name]: name for name in cameras if name in found},
        ambiguous=tuple(name for name in cameras if name in several),
        absent=tuple(name for name in cameras if name not in found and name not in several),
    )


def _ways(cameras: Collection[str], images: Collection[str]) -> list[tuple[Key, Key]]:
    depth = min(max((len(PurePosixPath(name).parts) for name in names), default=1) for names in (cameras, images))
    ends = [partial(_end, depth=depth) for depth in range(depth, 0, -1)]
    below = partial(_below, folder=_common_folder(cameras)), partial(_below, folder=_common_folder(images))
    return [(str, str), below, *((end, end) for end in ends), (_first_part, _first_part)]


def _common_folder(names: Collection[str]) -> tuple[str, ...]:
    levels = zip(*(PurePosixPath(name).parent.parts for name in names), strict=False)
    return tuple(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _below(name: str, folder: tuple[str, ...]) -> tuple[str, ...]:
    return _parts(name)[len(folder) :]


def _end(name: str, depth: int) -> tuple[str, ...] | None:
    """The last components of a path without extension; None if it has fewer."""
    parts = _parts(name)
    return parts[-depth:] if len(parts) >= depth else None


def _first_part(name: str) -> str:
    return PurePosixPath(name).name.partition(".")[0]


def _parts(name: str) -> tuple[str, ...]:
    """The components of a path, without the extension of a photo."""
    path = PurePosixPath(name)
    return (path.with_suffix("") if is_photo(path.name) or is_left_out(path.name) else path).parts


def _by_key(names: Collection[str], key: Key) -> dict[object, list[str]]:
    """The names by their key, those without one left out."""
    found: dict[object, list[str]] = {}
    for name in names:
        if (value := key(name)) is not None:
            found.setdefault(value, []).append(name)
    return found


def match_times(times: Mapping[str, float], images: Collection[str]) -> Matched:
    """Match poses and images by time.

    The last number in the file name of an image is its time, in the unit from seconds to nanoseconds by which most
    images have a pose. Images and poses that differ by MOST_SECONDS at most belong together, each once, the nearest
    first. Images with the same number are ambiguous.
    """
    numbers = {name: float(found[-1]) for name in images if (found := _NUMBER.findall(_parts(name)[-1]))}
    by_number = _by_key(numbers, numbers.__getitem__)
    single = [names[0] for names in by_number.values() if len(names) == 1]
    ambiguous = [name for names in by_number.values() if len(names) > 1 for name in names]
    poses = list(times)
    stamps, values = np.array([*times.values()]), np.array([numbers[name] for name in single])
    pairs = max((_assign(values * unit, stamps) for unit in _UNITS), key=len)
    camera_of = {single[image]: poses[pose] for image, pose in pairs}
    used = set(camera_of.values())
    return Matched(camera_of, tuple(sorted(ambiguous)), tuple(name for name in poses if name not in used))


def _assign(images: Array, poses: Array) -> list[tuple[int, int]]:
    """Pairs of an image and a pose whose times differ by MOST_SECONDS at most, each once, the nearest first."""
    order = np.argsort(poses)
    ranked = poses[order]
    begins, ends = (
        np.searchsorted(ranked, images - MOST_SECONDS),
        np.searchsorted(ranked, images + MOST_SECONDS, "right"),
    )
    near = [(i, k) for i, (begin, end) in enumerate(zip(begins, ends, strict=True)) for k in range(begin, end)]
    pose_of: dict[int, int] = {}
    taken: set[int] = set()
    for image, rank in sorted(near, key=lambda pair: abs(images[pair[0]] - ranked[pair[1]])):
        if image not in pose_of and rank not in taken:
            pose_of[image] = int(order[rank])
            taken.add(rank)
    return [*pose_of.items()]
