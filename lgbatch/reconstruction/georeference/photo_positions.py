"""Where the photos of a model were taken: by the EXIF of the photos, or by a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lgbatch.errors import InputError
from lgbatch.pairing.evidence.positions import exif_degrees, read_positions
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
    """Read the EXIF of the photos below `folder`. Raises InputError if none has a position."""
    degrees = exif_degrees([folder / name for name in names])
    zero = (degrees[:, :2] == 0).all(1) | (np.abs(degrees[:, 0]) > 90) | (np.abs(degrees[:, 1]) > 360)
    degrees[zero] = np.nan
    found = _with_altitudes(names, degrees, True, "EXIF")
    return PhotoPositions(*found, tuple(name for name, bad in zip(names, zero.tolist(), strict=True) if bad))


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
    return PhotoPositions(*_with_altitudes(names, positions, file.is_degrees, path.name))


def _with_altitudes(
    names: Sequence[str], positions: Array, is_degrees: bool, source: str
) -> tuple[Sequence[str], Array, bool, str, tuple[str, ...]]:
    located = ~np.isnan(positions[:, :2]).any(1)
    if not located.any():
        raise InputError("no photo of the model has a GPS position in its EXIF: give a file with --positions, or --gcp")
    flat = located & np.isnan(positions[:, 2])
    if (located & ~flat).any():
        positions[flat] = np.nan
    else:
        positions[flat, 2] = 0.0
    return names, positions, is_degrees, source, tuple(name for name, x in zip(names, flat.tolist(), strict=True) if x)
