"""Peak memory of matching: independent of the number of pairs, and bounded at the default number of keypoints.

Slow, a quarter of an hour: python -m pytest tests/matching/test_memory.py -s
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, Pair
from lgbatch.workspace.folder import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.weights]

NEIGHBOURS = 10


def peak_mb(folder: Path, models: Path, images: int, keypoints: int, pairs: int) -> float:
    """Peak memory of a process that matches random features, each image with the next NEIGHBOURS images."""
    folder.mkdir()
    workspace = Workspace(folder)
    rng = np.random.default_rng(0)
    names = [f"{i:05d}.jpg" for i in range(images)]
    with FeatureStore(workspace.features, append={"extractor": "disk"}) as store:
        for name in names:
            descriptors = rng.standard_normal((keypoints, 128), dtype=np.float32)
            descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
            points = rng.random((keypoints, 2), dtype=np.float32) * np.array([1024, 768], np.float32)
            scores = np.sort(rng.random(keypoints, dtype=np.float32))[::-1]
            store.write(name, Features(points, scores, descriptors, (1024, 768)))
    neighbours = [
        Pair(names[i], names[(i + step) % images]) for i in range(images) for step in range(1, NEIGHBOURS + 1)
    ]
    write_pairs(workspace.pairs, neighbours[:pairs])
    script = """
import json, sys
from pathlib import Path
from lgbatch.config import Settings
from lgbatch.matching.match import match
from lgbatch.runtime.environment import peak_memory_mb
from lgbatch.workspace.folder import Workspace
workspace = Workspace(Path(sys.argv[1]))
stores = workspace.features, workspace.matches
done = match(workspace.pairs, *stores, models=Path(sys.argv[2]), settings=Settings())
print(json.dumps([done.new, peak_memory_mb()]))
"""
    output = subprocess.run([sys.executable, "-c", script, folder, models], check=True, capture_output=True, text=True)
    new, peak = json.loads(output.stdout)
    assert new == pairs
    return float(peak)


def test_ten_times_as_many_pairs_need_no_more_memory(tmp_path: Path, models: Path) -> None:
    few = peak_mb(tmp_path / "few", models, images=200, keypoints=64, pairs=2_000)
    many = peak_mb(tmp_path / "many", models, images=2_000, keypoints=64, pairs=20_000)
    print(f"\n2,000 pairs {few:.0f} MB, 20,000 pairs {many:.0f} MB")
    assert many <= 1.1 * few


def test_matching_2048_keypoints_fits_in_two_gigabytes(tmp_path: Path, models: Path) -> None:
    peak = peak_mb(tmp_path / "full", models, images=250, keypoints=2048, pairs=300)
    print(f"\n300 pairs of 2048 keypoints: {peak:.0f} MB")
    assert peak <= 2048
