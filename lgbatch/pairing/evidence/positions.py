"""Where photos were taken: GPS positions of EXIF, or a file of positions; and which are near each other.

A file has a line NAME X Y [Z] for each photo, in metres, as COLMAP's model_aligner reads them. If the first line is
'name latitude longitude', lines have degrees instead. Columns are separated by white space, or by tabs or commas, as
in the first line; names that contain spaces need tabs or commas. Lines that start with # and blank lines are skipped.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import InputError
from lgbatch.pairing.evidence.lists import Ranked, Source
from lgbatch.pairing.spatial import local_metres, nearest
from lgbatch.photos.metadata import read_metadata
from lgbatch.types import LongArray

Positions = NDArray[np.float64]
"""(N, 2) or (N, 3) in metres; rows of NaN for photos without a position."""
_DEGREES = re.compile(r"(image_?|file_?)?name lat(itude)?( lon(gitude)?| lng)( .*)?")
_MOST_DEGREES = 90, 360
_THREADS = 8
"""Threads that read headers: they wait for the disk."""


def exif_positions(paths: Sequence[Path]) -> Positions:
    """Return the GPS positions (N, 2) of photos, without the altitude, in metres from the first that has one."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(read_metadata, paths)
        degrees = [(data.latitude, data.longitude) if data else (None, None) for data in found]
    return _in_metres(np.array(degrees, np.float64).reshape(-1, 2))


def file_positions(path: Path, names: Sequence[str]) -> Positions:
    """Return the positions of photos from a file.

    Raises InputError if it cannot be read, if a line is no position, or if no line has a photo of `names`.
    """
    is_degrees, found = _read(path)
    width = max((len(values) for values in found.values()), default=2)
    missing = (np.nan,) * width
    positions = np.array([(*found.get(name, missing), 0.0)[:width] for name in names], np.float64).reshape(-1, width)
    if np.isnan(positions).any(1).all():
        raise InputError(f"{path} has no position of a photo: write lines NAME X Y, with names as in features.h5")
    return _in_metres(positions[:, :2]) if is_degrees else positions


def check_positions(path: Path) -> None:
    """Raise InputError if file_positions would for any photos."""
    if not _read(path)[1]:
        raise InputError(f"{path} has no position: write lines NAME X Y [Z], in metres")


def near(positions: Positions, count: int, max_distance: float) -> Ranked:
    """Rank for each photo the `count` nearest others, up to `max_distance` metres away; 0: no limit."""
    located = np.flatnonzero(~np.isnan(positions).any(1))
    if len(located) < 2:
        return Ranked.from_table(Source.NEAR, np.zeros(0, np.int64), np.zeros((0, 0), np.int64))
    found = nearest(positions[located], min(count, len(located) - 1))
    others: LongArray = located[found]
    if max_distance:
        distances = np.linalg.norm(positions[located][:, None] - positions[others], axis=2)
        others = np.where(distances <= max_distance, others, -1)
    return Ranked.from_table(Source.NEAR, located, others)


def _in_metres(degrees: Positions) -> Positions:
    positions = np.full(degrees.shape, np.nan)
    located = ~np.isnan(degrees).any(1)
    if located.any():
        positions[located] = local_metres(degrees[located, 0], degrees[located, 1])
    return positions


def _read(path: Path) -> tuple[bool, Mapping[str, tuple[float, ...]]]:
    """Return whether the numbers are degrees, and those of each name."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot read positions from {path}: {error.strerror}; give a file of positions") from None
    except UnicodeDecodeError:
        raise InputError(f"cannot read positions from {path}: it is not UTF-8 text; save it as UTF-8") from None
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    separator = next((mark for mark in "\t," if rows and mark in rows[0][1]), None)
    is_degrees, has_titles = _titles(rows[0][1].split(separator) if rows else [])
    found = {}
    for number, line in rows[has_titles:]:
        name, *values = (field.strip() for field in line.split(separator))
        found[name] = numbers = _numbers(values, 3 - is_degrees, f"{path} line {number}")
        if is_degrees and (abs(numbers[0]) > _MOST_DEGREES[0] or abs(numbers[1]) > _MOST_DEGREES[1]):
            raise InputError(f"{path} line {number} is not a latitude and longitude: write NAME LATITUDE LONGITUDE")
    return is_degrees, found


def _titles(columns: Iterable[str]) -> tuple[bool, bool]:
    """Whether these are the titles of columns with degrees, and whether they are titles at all."""
    text = " ".join(column.strip().lower() for column in columns)
    is_degrees = _DEGREES.fullmatch(text) is not None
    return is_degrees, is_degrees or re.fullmatch(r"(image_?|file_?)?name x y( z)?", text) is not None


def _numbers(values: Sequence[str], most: int, place: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, values))[:most]
    except ValueError:
        numbers = ()
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        raise InputError(
            f"{place} is not a name and 2 or 3 numbers: write NAME X Y [Z]; separate names with spaces by tabs"
        )
    return numbers
