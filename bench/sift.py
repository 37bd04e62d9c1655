"""What anyone has with `pip install pycolmap`: SIFT, all pairs, incremental mapping, everything at its defaults.

`python -m lgbatch.bench.sift IMAGES OUT` makes OUT/database.db and OUT/sparse/0, ..., and prints what it did as
JSON. `lgbatch bench run` starts it in a process of its own.
"""

import json
import sys
import time
import zlib  # noqa: F401  before pycolmap, whose own symbols would stand in its way
from pathlib import Path
from typing import Any


def run(images: Path, out: Path) -> dict[str, Any]:
    """Reconstruct; seconds by stage, and the size and the number of the largest model (None without one)."""
    import pycolmap

    database, sparse = out / "database.db", out / "sparse"
    sparse.mkdir(parents=True)
    clock = [time.perf_counter()]
    pycolmap.extract_features(database, images)
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
    print(json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]))))
