"""The baseline of `lgbatch bench run`: pycolmap with SIFT, exhaustive matching and incremental mapping, at defaults.

`python -m lgbatch.bench.processes.sift IMAGES OUT CAMERA_MODE` writes OUT/database.db and OUT/sparse/0, ..., and
prints a summary as JSON. CAMERA_MODE is a key of CAMERA_MODES. `lgbatch bench run` starts it as a process.
"""

import json
import sys
import time
import zlib  # noqa: F401  must be loaded before pycolmap, which exports zlib symbols of its own
from pathlib import Path
from typing import Any

CAMERA_MODES = {"auto": "AUTO", "image": "PER_IMAGE", "folder": "PER_FOLDER", "single": "SINGLE"}
"""COLMAP's name of each settings.camera_mode. COLMAP's AUTO gives each photo without EXIF its own camera."""


def run(images: Path, out: Path, camera_mode: str) -> dict[str, Any]:
    """Reconstruct the photos. Returns the seconds of each stage, and the size and index of the largest model.

    Without a model, the index is None.
    """
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
