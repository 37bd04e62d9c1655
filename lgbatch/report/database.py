"""What a COLMAP database holds, read without COLMAP, which writes to each database that it opens.

The methods named read_* are those of pycolmap.Database: the reasons of unregistered images are found in either.
"""

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lgbatch.colmap.sqlite import side_files, uri
from lgbatch.errors import DatabaseError
from lgbatch.types import FloatArray, IntArray

_PAIR_ID_BASE = 2**31 - 1
_WGS84 = 0
_CAMERA = 0


class DatabaseImage(NamedTuple):
    """An image of the database."""

    image_id: int
    name: str
    camera_id: int


class DatabaseView:
    """A COLMAP database, opened to read. A context manager."""

    def __init__(self, path: Path) -> None:
        """Open the database. Raises DatabaseError if it cannot be read."""
        self._path = path
        # immutable=1: no locks, and no files beside the database. Not while another program has it open.
        mode = "mode=ro" if side_files(path) else "immutable=1"
        try:
            self._connection = sqlite3.connect(f"{uri(path.absolute())}?{mode}", uri=True)
            self._connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            self.images = [DatabaseImage(*row) for row in self._rows("SELECT image_id, name, camera_id FROM images")]
        except sqlite3.Error as error:
            raise DatabaseError(f"cannot read {path}: {error}") from None

    def __enter__(self) -> "DatabaseView":
        """Return the database itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database."""
        self._connection.close()

    def read_all_images(self) -> Sequence[DatabaseImage]:
        """Return the images."""
        return self.images

    def read_num_matches(self) -> tuple[list[int], list[int]]:
        """Return the ids of the pairs with matches, and the number of matches of each."""
        return self._counts("matches")

    def read_two_view_geometry_num_inliers(self) -> tuple[list[int], list[int]]:
        """Return the ids of the verified pairs, and the number of inlier matches of each."""
        return self._counts("two_view_geometries")

    def keypoint_counts(self) -> dict[int, int]:
        """Return the number of keypoints by image id."""
        counts = dict(self._rows("SELECT image_id, rows FROM keypoints"))
        return {image.image_id: counts.get(image.image_id, 0) for image in self.images}

    def sizes(self) -> dict[int, tuple[int, int]]:
        """Return (width, height) by camera id."""
        return {row[0]: (row[1], row[2]) for row in self._rows("SELECT camera_id, width, height FROM cameras")}

    def keypoints(self, image_id: int) -> FloatArray:
        """Return the keypoints (N, 2) of an image: the centre of the top-left pixel is (0, 0), unlike in the file."""
        rows = self._rows("SELECT rows, cols, data FROM keypoints WHERE image_id = ?", image_id)
        if not rows:
            return np.empty((0, 2), np.float32)
        count, columns, data = rows[0]
        return np.frombuffer(data or b"", np.float32).reshape(count, columns)[:, :2] - np.float32(0.5)

    def matches(self, first: int, second: int) -> IntArray:
        """Return the matches (K, 2) of two images, given by their ids in ascending order."""
        return self._indices("matches", first, second)

    def inliers(self, first: int, second: int) -> IntArray:
        """Return the matches (K, 2) that agree with the two-view geometry of two images, ids in ascending order."""
        return self._indices("two_view_geometries", first, second)

    def gps(self) -> dict[int, tuple[float, float, float]]:
        """Return latitude and longitude in degrees and altitude in metres (NaN if unknown), by image id."""
        query = "SELECT corr_data_id, position FROM pose_priors WHERE corr_sensor_type = ? AND coordinate_system = ?"
        with contextlib.suppress(DatabaseError):  # databases of earlier versions of COLMAP have other columns
            found = {key: np.frombuffer(data, np.float64) for key, data in self._rows(query, _CAMERA, _WGS84) if data}
            return {key: tuple(v.tolist()) for key, v in found.items() if len(v) == 3 and np.isfinite(v[:2]).all()}
        return {}

    def _counts(self, table: str) -> tuple[list[int], list[int]]:
        rows = self._rows(f"SELECT pair_id, rows FROM {table} WHERE rows > 0")
        return [row[0] for row in rows], [row[1] for row in rows]

    def _indices(self, table: str, first: int, second: int) -> IntArray:
        rows = self._rows(f"SELECT data FROM {table} WHERE pair_id = ?", first * _PAIR_ID_BASE + second)
        data = rows[0][0] if rows else None
        return np.frombuffer(data or b"", np.uint32).reshape(-1, 2).astype(np.int32)

    def _rows(self, query: str, *values: int) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise DatabaseError(f"cannot read {self._path}: {error}") from None


def ids_of_pairs(pair_ids: Sequence[int]) -> IntArray:
    """Return the image ids (P, 2) of COLMAP's pair ids, the smaller one first."""
    ids = np.asarray(pair_ids, np.int64)
    return np.stack([ids // _PAIR_ID_BASE, ids % _PAIR_ID_BASE], axis=1).astype(np.int32)
