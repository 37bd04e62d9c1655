"""What stores cost, and whether that stays so: 100,000 pairs, and by LGBATCH_SCALE=1 as much as is promised.

The long one by hand, about an hour and 2 GB: LGBATCH_SCALE=1 python -m pytest tests/test_scale.py -s -k hold
"""

import os
import resource
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from lgbatch import match as matching
from lgbatch.config import Settings
from lgbatch.matcher import Stem
from lgbatch.pairs import write_pairs
from lgbatch.store import FeatureStore, MatchStore
from lgbatch.types import Features, Matches, Pair, Workspace

pytestmark = pytest.mark.slow

SCALE = float(os.environ.get("LGBATCH_SCALE", "0.02"))
IMAGES, PAIRS = int(100_000 * SCALE), int(1_000_000 * SCALE)
MILLISECONDS_PER_PAIR = 0.3
KEYPOINTS, MATCHES = 2048, 350
COST_PAIRS = int(os.environ.get("LGBATCH_COST_PAIRS", "100000"))


class FreeMatcher:
    """Takes no time: each image is one number, and each pair has the same matches."""

    provider, weights = "CPUExecutionProvider", "none"

    def __init__(self, *_: object) -> None:
        rng = np.random.default_rng(0)
        first = np.sort(rng.choice(KEYPOINTS, MATCHES, replace=False))
        second = rng.permutation(KEYPOINTS)[:MATCHES]
        scores = rng.random(MATCHES, dtype=np.float32)
        self._matches = Matches(np.stack([first, second], axis=1).astype(np.int32), scores)

    def stem(self, features: Features) -> Stem:
        one = features.keypoints[:1]
        return Stem(one, one, one)

    def match(self, pairs: list[tuple[Stem, Stem]], tokens: int) -> list[Matches]:
        return [self._matches] * len(pairs)


def full_features() -> Features:
    rng = np.random.default_rng(0)
    descriptors = rng.standard_normal((KEYPOINTS, 128), dtype=np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    keypoints = rng.random((KEYPOINTS, 2), dtype=np.float32) * 1000
    return Features(keypoints, np.sort(rng.random(KEYPOINTS, dtype=np.float32))[::-1], descriptors, (1024, 768))


@pytest.mark.parametrize("pairing", ["exhaustive", "sequential"])
def test_a_pair_costs_little_besides_matching(
    pairing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    images = int((2 * COST_PAIRS) ** 0.5) + 1 if pairing == "exhaustive" else COST_PAIRS // 50
    names = [f"photo {i:06d}.jpg" for i in range(images)]
    with FeatureStore(workspace.features, append={"made for": "this"}) as store:
        for name in names:
            store.write(name, full_features())
    near = len(names) if pairing == "exhaustive" else 50
    pairs = [pair for i in range(images) for pair in map(Pair, [names[i]] * near, names[i + 1 : i + 1 + near])]
    write_pairs(workspace.pairs, pairs)
    monkeypatch.setattr(matching, "Matcher", FreeMatcher)

    start, cpu = time.perf_counter(), time.process_time()
    done = matching.match(workspace.pairs, workspace.features, workspace.matches, models=tmp_path, settings=Settings())
    each = (time.perf_counter() - start) / len(pairs) * 1000
    processor = (time.process_time() - cpu) / len(pairs) * 1000
    print(f"\n{pairing}: {each:.3f} ms a pair, {processor:.3f} ms of processor time, {len(pairs)} pairs")

    assert (done.new, done.matches) == (len(pairs), MATCHES * len(pairs))
    start = time.perf_counter()
    again = matching.match(workspace.pairs, workspace.features, workspace.matches, models=tmp_path, settings=Settings())
    print(f"again: {(time.perf_counter() - start) / len(pairs) * 1000:.3f} ms a pair")
    assert (again.new, again.matches) == (0, done.matches)
    assert each <= MILLISECONDS_PER_PAIR
