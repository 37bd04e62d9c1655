"""Where photos were taken: GPS positions of EXIF, or a file of positions; and which are near each other.

A file has a line NAME X Y [Z] for each photo, in metres, as COLMAP's model_aligner reads them. If the first line is
'name latitude longitude', lines have degrees instead, and metres above sea level if there is a column 'altitude'. These
columns may be in another order, and others between them. Columns are separated by white space, or by tabs, commas or
semicolons, as in the first line; names that contain spaces need one of these. Lines that start with # and blank lines
are skipped.
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
_NAME = re.compile(r"(image_?|file_?)?name")
_LATITUDE, _LONGITUDE, _ALTITUDE = (
    re.compile(word) for word in ("lat(itude)?", "lo?ng?(itude)?", "alt(itude)?|elevation")
)
MOST_DEGREES = 90, 360
_THREADS = 8
"""Threads that read headers: they wait for the disk."""


@dataclass(frozen=True)
class PositionFile:
    """The content of a file of positions."""

    is_degrees: bool
    """Positions are latitude, longitude [, altitude] instead of X Y [Z] in metres."""
    found: Mapping[str, tuple[float, ...]]
    """Two or three numbers by name."""

    def of(self, names: Sequence[str], width: int, missing: float) -> Positions:
        """The positions of photos, (N, width); NaN for photos without one. `missing` stands for a third number."""
        none = (np.nan,) * width
        return np.array([(*self.found.get(name, none), missing)[:width] for name in names], np.float64).reshape(
            -1, width
        )


def exif_degrees(paths: Sequence[Path]) -> Positions:
    """Return the GPS latitude, longitude (degrees) and altitude (metres) of photos, (N, 3); NaN where unknown."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(read_metadata, paths)
        rows = [(data.latitude, data.longitude, data.altitude) if data else (None,) * 3 for data in found]
    return np.array(rows, np.float64).reshape(-1, 3)


def exif_positions(paths: Sequence[Path]) -> Positions:
    """Return the GPS positions (N, 2) of photos, without the altitude, in metres from the first that has one."""
    return _in_metres(exif_degrees(paths)[:, :2])


def file_positions(path: Path, names: Sequence[str]) -> Positions:
    """Return the positions of photos from a file.

    Raises InputError if it cannot be read, if a line is no position, or if no line has a photo of `names`.
    """
    file = read_positions(path)
    positions = file.of(names, max((len(values) for values in file.found.values()), default=2), 0.0)
    if np.isnan(positions).any(1).all():
        raise InputError(f"{path} has no position of a photo: write lines NAME X Y, with names as in features.h5")
    return _in_metres(positions[:, :2]) if file.is_degrees else positions


def check_positions(path: Path) -> None:
    """Raise InputError if file_positions would for any photos."""
    if not read_positions(path).found:
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


def read_positions(path: Path) -> PositionFile:
    """Read a file of positions. Raises InputError if it cannot be read, or if a line is no position."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot read positions from {path}: {error.strerror}; give a file of positions") from None
    except UnicodeDecodeError:
        raise InputError(f"cannot read positions from {path}: it is not UTF-8 text; save it as UTF-8") from None
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    separator = next((mark for mark in "\t,;" if rows and mark in rows[0][1]), None)
    titles = [column.strip().lower() for column in rows[0][1].split(separator)] if rows else []
    degrees = _degree_columns(titles)
    has_titles = degrees or re.fullmatch(rf"{_NAME.pattern} x y( z)?", " ".join(titles))
    found = {}
    for number, line in rows[has_titles is not None :]:
        fields = [field.strip() for field in line.split(separator)]
        place = f"{path} line {number}"
        found[fields[0]] = numbers = _numbers([fields[i] for i in degrees or (1, 2, 3) if i < len(fields)], place)
        if degrees and (abs(numbers[0]) > MOST_DEGREES[0] or abs(numbers[1]) > MOST_DEGREES[1]):
            raise InputError(f"{place} is not a latitude and longitude: write NAME LATITUDE LONGITUDE")
    return PositionFile(degrees is not None, found)


def _degree_columns(titles: Sequence[str]) -> tuple[int, ...] | None:
    """The columns of latitude, longitude and, if there is one, altitude; None if the titles are not these."""
    places = [
        [i for i, title in enumerate(titles) if kind.fullmatch(title)] for kind in (_LATITUDE, _LONGITUDE, _ALTITUDE)
    ]
    if not titles or not _NAME.fullmatch(titles[0]) or not places[0] or not places[1]:
        return None
    return tuple(found[0] for found in places if found)


def _numbers(values: Sequence[str], place: str) -> tuple[float, ...]:
    """The two or three numbers of a line. The third may be empty."""
    try:
        numbers = tuple(map(float, values[:2] if values[2:] == [""] else values))
    except ValueError:
        numbers = ()
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        raise InputError(
            f"{place} is not a name and 2 or 3 numbers: write NAME X Y [Z], or degrees after a first line 'name "
            "latitude longitude altitude'; separate names with spaces by tabs"
        )
    return numbers
