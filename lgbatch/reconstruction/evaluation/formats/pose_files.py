"""Pose files of 7-Scenes, ScanNet and RGB-D reconstruction: a 4 x 4 matrix world_from_camera for each image."""

from pathlib import Path

import numpy as np

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.truth import Array, KnownPose, camera_from_matrix

_ENDING, _POSE = ".txt", ".pose"


def pose_files(folder: Path) -> list[Path]:
    """The pose files in a folder: NAME.pose.txt, or else NAME.txt. Empty if none of them has 4 rows of 4 words."""
    files = sorted(folder.glob(f"*{_POSE}{_ENDING}")) or sorted(folder.glob(f"*{_ENDING}"))
    return files if any(_read_rows(path) for path in files) else []


def read_pose_files(files: list[Path]) -> tuple[dict[str, KnownPose], int]:
    """Read pose files. Returns the cameras by image name without extension, and the number of files without a pose.

    These have other content, or a pose that is infinite or not a number, which marks images whose pose is unknown.
    Raises InputError if a 4 x 4 matrix is not a camera pose.
    """
    cameras, skipped = {}, 0
    for path in files:
        matrix = _read_matrix(path)
        if matrix is None or not np.isfinite(matrix).all():
            skipped += 1
            continue
        pose = camera_from_matrix(matrix)
        if pose is None or not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-3):
            raise InputError(f"{path} is not a camera pose: expected a rotation, a position, and a last row 0 0 0 1")
        cameras[path.name.removesuffix(_ENDING).removesuffix(_POSE)] = KnownPose(pose)
    return cameras, skipped


def _read_matrix(path: Path) -> Array | None:
    try:
        rows = _read_rows(path)
        return np.array([[_number(word) for word in row] for row in rows]) if rows else None
    except ValueError:
        raise InputError(f"cannot read {path}: expected the 4 x 4 numbers of a camera pose") from None


def _read_rows(path: Path) -> list[list[str]]:
    """The words of a text file with 4 rows of 4 words. Empty for other files."""
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").strip().splitlines()]
    except (OSError, UnicodeDecodeError):
        return []
    return rows if [len(row) for row in rows] == [4] * 4 else []


def _number(word: str) -> float:
    return np.nan if "#" in word else float(word)  # -1.#IND and 1.#INF are those of Microsoft's C library
