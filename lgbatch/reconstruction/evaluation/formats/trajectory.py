"""Trajectories in the format of the TUM RGB-D benchmark (Sturm et al., IROS 2012)."""

from pathlib import Path

import numpy as np

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.truth import Array, KnownPose

_EXPECTED = "expected lines of timestamp tx ty tz qx qy qz qw"


def is_trajectory(path: Path) -> bool:
    """Whether the first line of a text file that is no comment has 8 numbers."""
    try:
        with path.open(encoding="utf-8") as file:
            words = next((line.split() for line in file if line.strip() and not line.startswith("#")), [])
        return len([*map(float, words)]) == 8
    except (OSError, ValueError):  # ValueError: not a number, or not UTF-8
        return False


def read_trajectory(path: Path) -> tuple[dict[str, KnownPose], dict[str, float], int]:
    """Read lines of timestamp, position and unit quaternion (x, y, z, w) of world_from_camera.

    Returns the cameras and the times, both by timestamp as it is written, and the number of lines that were skipped
    because they are infinite or not a number. Raises InputError if the file cannot be read.
    """
    cameras: dict[str, KnownPose] = {}
    times: dict[str, float] = {}
    skipped = 0
    for number, line in enumerate(_read_lines(path), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            values = np.array(words, dtype=np.float64)
            time, position, quaternion = values[0], values[1:4], values[4:]
        except ValueError:
            values = np.empty(0)
        if len(values) != 8:
            raise InputError(f"{path}, line {number}: {_EXPECTED}")
        if not np.isfinite(values).all():
            skipped += 1
            continue
        if not 0.9 < np.linalg.norm(quaternion) < 1.1:
            raise InputError(f"{path}, line {number}: the last four numbers are not a unit quaternion; {_EXPECTED}")
        rotation = _matrix(quaternion).T
        cameras[words[0]] = KnownPose(np.column_stack([rotation, -rotation @ position]))
        times[words[0]] = float(time)
    return cameras, times, skipped


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"cannot read {path}: {_EXPECTED}") from None


def _matrix(quaternion: Array) -> Array:
    """The rotation matrix (3, 3) of a quaternion (x, y, z, w)."""
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
