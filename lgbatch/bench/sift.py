"""What anyone has with `pip install pycolmap`: SIFT, all pairs, incremental mapping, everything at its defaults.

`python -m lgbatch.bench.sift IMAGES OUT CAMERAS` makes OUT/database.db and OUT/sparse/0, ..., and prints what it did
as JSON; CAMERAS is one of CAMERA_MODES. `lgbatch bench run` starts it in a process of its own.
"""

import json
import sys
import time
import zlib  # noqa: F401  before pycolmap, whose own symbols would stand in its way
from pathlib import Path
from typing import Any

CAMERA_MODES = {"auto": "AUTO", "image": "PER_IMAGE", "folder": "PER_FOLDER", "single": "SINGLE"}
"""COLMAP's names for settings.camera_mode. Its AUTO gives photos without EXIF a camera each."""


def run(images: Path, out: Path, camera_mode: str) -> dict[str, Any]:
    """Reconstruct; seconds by stage, and the size and the number of the largest model (None without one)."""
    import pycolmap

    database, sparse = out / "database.db", out / "sparse"
    sparse.mkdir(parents=True)
    clock = [time.perf_counter()]
    pycolmap.extract_features(database, images, camera_mode=pycolmap.CameraMode(CAMERA_MODES[camera_mode]))
    clock.append(time.perf_counter())
    pycolmap.match_exhaustive(database)
    clock.append(time.perf_counter())
    models = pycolmap.incremental_mapping(database, images, sparse)
    clock.append(time.perf_counter())
    stages = zip(("extract", "match", "map"), clock, clock[1:], strict=False)
    largest = max(models, key=lambda i: models[i].num_reg_images(), default=None)
    return {
        "seconds": {stage: round(end - start, 3) for stage, start, end in stages},
        "registered_images": 0 if largest is None else models[largest].num_reg_images(),
        "points3D": 0 if largest is None else models[largest].num_points3D(),
        "model": largest,
    }


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
