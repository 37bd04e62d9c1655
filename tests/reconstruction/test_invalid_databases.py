"""Databases that are missing, empty, damaged, or would crash COLMAP."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import DatabaseError, ReconstructionError
from lgbatch.types import Pair
from tests.helpers.synthetic import synthetic
from tests.reconstruction.helpers import fill, run


def test_missing_and_empty_databases_and_other_files_are_rejected(tmp_path: Path) -> None:
    import pycolmap

    database = tmp_path / "database.db"
    with pytest.raises(ReconstructionError, match=r"no database .*lgbatch match"):
        run(tmp_path)
    assert not database.exists()
    pycolmap.Database.open(database).close()
    with pytest.raises(ReconstructionError, match=r"contains no images"):
        run(tmp_path)
    database.write_text("hello" * 1000)
    with pytest.raises(DatabaseError, match=r"not a COLMAP database"):
        run(tmp_path)


def test_matches_beyond_the_keypoints_are_rejected(tmp_path: Path) -> None:
    import pycolmap

    source = synthetic(tmp_path, 3)
    matches = source.matches.pop(Pair("1.jpg", "3.jpg"))
    database = fill(tmp_path, source)
    matches[0, 1] = 100_000
    with pycolmap.Database.open(database) as db:
        db.write_matches(1, 3, matches.astype(np.uint32))
    with pytest.raises(ReconstructionError, match=r"images 1 and 3 refer to keypoints that do not exist"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE keypoints SET rows = -1 WHERE image_id = 1", "is damaged"),
        ("UPDATE keypoints SET data = x'00' WHERE image_id = 1", "COLMAP failed"),
        ("UPDATE matches SET pair_id = -1 WHERE pair_id = 2147483649", "refer to keypoints that do not exist"),
        (
            "UPDATE matches SET pair_id = 2147483647 * 7 + 9 WHERE pair_id = 2147483649",
            "images 7 and 9 refer to keypoints",
        ),
    ],
)
def test_rows_that_would_crash_colmap_are_rejected(tmp_path: Path, change: str, reason: str) -> None:
    database = fill(tmp_path, synthetic(tmp_path, 3))
    script = "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as c: c.execute(sys.argv[2])"
    subprocess.run([sys.executable, "-c", script, database, change], check=True)
    with pytest.raises(ReconstructionError, match=reason):
        run(tmp_path)
