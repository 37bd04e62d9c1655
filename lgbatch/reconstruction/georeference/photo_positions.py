"""Where the photos of a model were taken: by the EXIF of the photos, or by a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lgbatch.errors import InputError
from lgbatch.pairing.evidence.positions import MOST_DEGREES, exif_degrees, read_positions
from lgbatch.reconstruction.evaluation.names import match_names
from lgbatch.reconstruction.georeference.frame import Array
from lgbatch.types import escape


@dataclass(frozen=True)
class PhotoPositions:
    """Positions of N photos."""

    names: Sequence[str]
    positions: Array
    """(N, 3), NaN for photos without one: latitude and longitude in degrees and altitude, or coordinates, in metres."""
    is_degrees: bool
    source: str
    """Where they are from, in words."""
    no_altitude: tuple[str, ...] = ()
    """Photos whose position lacks the altitude. They are without a position, unless no photo has three coordinates:
    then all have altitude 0."""
    implausible: tuple[str, ...] = ()
    """Photos at latitude and longitude 0, which cameras write that have no position. They count as without one."""


def from_exif(folder: Path, names: Sequence[str]) -> PhotoPositions:
    """Read the EXIF of the photos below `folder`. Raises InputError if none is there, or has a position."""
    paths = [folder / name for name in names]
    if not any(path.is_file() for path in paths):
        raise InputError(f"no photo of the model is in {folder}: give their folder with --images")
    return _located(names, exif_degrees(paths), True, "EXIF")


def from_file(path: Path, names: Sequence[str]) -> PhotoPositions:
    """Read a file of positions. Names match as those of known cameras do (evaluation/names.py).

    Raises InputError if it cannot be read, or has no position of a photo.
    """
    file = read_positions(path)
    camera_of = match_names(list(file.found), names).camera_of
    if not camera_of:
        first = escape(next(iter(file.found), "none"))
        raise InputError(f"{path} has no position of a photo of the model: its names (such as {first}) differ")
    positions = file.of([camera_of.get(name, "") for name in names], 3, np.nan)
    return _located(names, positions, file.is_degrees, path.name)


def _located(names: Sequence[str], positions: Array, is_degrees: bool, source: str) -> PhotoPositions:
    """Leave out positions that are none, or lack the altitude that others have. Raises InputError if all are."""
    found, beyond = positions[:, :2], np.abs(positions[:, :2]) > MOST_DEGREES
    zero = is_degrees & ((found == 0).all(1) | beyond.any(1))
    positions[zero] = np.nan
    located = ~np.isnan(found).any(1)
    if not located.any():
        raise InputError(f"no photo of the model has a position in {source}: give a file with --positions, or --gcp")
    flat = located & np.isnan(positions[:, 2])
    if (located & ~flat).any():
        positions[flat] = np.nan
    else:
        positions[flat, 2] = 0.0
    no_altitude, implausible = (tuple(np.array(names, object)[rows].tolist()) for rows in (flat, zero))
    return PhotoPositions(names, positions, is_degrees, source, no_altitude, implausible)
