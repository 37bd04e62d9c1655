"""Peak memory of matching: independent of the number of pairs, and bounded at the default number of keypoints.

Slow, a quarter of an hour: python -m pytest tests/matching/test_memory.py -s
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.kernels import library
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, Pair
from lgbatch.workspace.folder import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.weights]

NEIGHBOURS = range(1, 11)


def peak_mb(
    folder: Path,
    models: Path,
    images: int,
    keypoints: int,
    pairs: int,
    steps: Sequence[int] = NEIGHBOURS,
    **settings: object,
) -> float:
    """Peak memory of a process that matches random features, each image with those `steps` after it."""
    folder.mkdir()
    workspace = Workspace(folder)
    rng = np.random.default_rng(0)
    names = [f"{i:05d}.jpg" for i in range(images)]
    with FeatureStore(workspace.features, append={"extractor": Settings().extractor}) as store:
        for name in names:
            descriptors = rng.standard_normal((keypoints, 128), dtype=np.float32)
            descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
            points = rng.random((keypoints, 2), dtype=np.float32) * np.array([1024, 768], np.float32)
            scores = np.sort(rng.random(keypoints, dtype=np.float32))[::-1]
            store.write(name, Features(points, scores, descriptors, (1024, 768)))
    neighbours = [Pair(names[i], names[(i + step) % images]) for i in range(images) for step in steps]
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
done = match(workspace.pairs, *stores, models=Path(sys.argv[2]), settings=Settings.load(**json.loads(sys.argv[3])))
print(json.dumps([done.new, peak_memory_mb()]))
"""
    command = [sys.executable, "-c", script, folder, models, json.dumps(settings)]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
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


@pytest.mark.skipif(library.int8_unavailable_reason() is not None, reason=str(library.int8_unavailable_reason()))
def test_matching_4096_keypoints_in_16_threads_fits_in_one_and_a_half_gigabytes(tmp_path: Path, models: Path) -> None:
    """With distant pairs, so that the cache fills, that are given up after two layers and a head to save time."""
    limits = {"threads": 16, "max_keypoints": 4096, "give_up": 4096, "precision": "int8"}
    peak = peak_mb(tmp_path / "wide", models, 150, 4096, 300, (1, 70), **limits)
    print(f"\n300 pairs of 4096 keypoints in 16 threads: {peak:.0f} MB")
    assert peak <= 1536
