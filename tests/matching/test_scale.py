"""The cost of the stores per pair, and as they grow.

LGBATCH_COST_PAIRS sets the pairs of the first test, LGBATCH_SCALE the size of the second: 1 is 100,000 images and
1,000,000 pairs, which takes some minutes on an idle machine and 1 GB of disk:

    LGBATCH_SCALE=1 python -m pytest tests/matching/test_scale.py -s -k speed
"""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.matching import match as matching
from lgbatch.matching.backend import EncodedImage
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.registry import Shape
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, Matches, Pair
from lgbatch.workspace.folder import Workspace

pytestmark = pytest.mark.slow

SCALE = float(os.environ.get("LGBATCH_SCALE", "0.02"))
IMAGES, PAIRS = int(100_000 * SCALE), int(1_000_000 * SCALE)
MILLISECONDS_PER_PAIR = 0.4
KEYPOINTS, MATCHES = 2048, 350
COST_PAIRS = int(os.environ.get("LGBATCH_COST_PAIRS", "100000"))


class FreeMatcher:
    """A matcher that takes no time: an encoded image is one point, and each pair has the same matches."""

    stages = SimpleNamespace(weights="none", precision="fp32", device="cpu", shape=Shape())

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        first = np.sort(rng.choice(KEYPOINTS, MATCHES, replace=False))
        second = rng.permutation(KEYPOINTS)[:MATCHES]
        scores = rng.random(MATCHES, dtype=np.float32)
        self._matches = Matches(np.stack([first, second], axis=1).astype(np.int32), scores)

    def encode(self, features: Features) -> EncodedImage:
        point = features.keypoints[:1]
        return EncodedImage(point, point, point)

    def match(self, pairs: list[tuple[EncodedImage, EncodedImage]], tokens: int) -> list[Matches]:
        return [self._matches] * len(pairs)


def random_features() -> Features:
    rng = np.random.default_rng(0)
    descriptors = rng.standard_normal((KEYPOINTS, 128), dtype=np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    keypoints = rng.random((KEYPOINTS, 2), dtype=np.float32) * 1000
    return Features(keypoints, np.sort(rng.random(KEYPOINTS, dtype=np.float32))[::-1], descriptors, (1024, 768))


@pytest.mark.parametrize("pairing", ["exhaustive", "sequential"])
def test_a_pair_costs_little_time_besides_matching(
    pairing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    images = int((2 * COST_PAIRS) ** 0.5) + 1 if pairing == "exhaustive" else COST_PAIRS // 50
    names = [f"photo {i:06d}.jpg" for i in range(images)]
    with FeatureStore(workspace.features, append={"test": "scale"}) as store:
        for name in names:
            store.write(name, random_features())
    window = len(names) if pairing == "exhaustive" else 50
    pairs = [pair for i in range(images) for pair in map(Pair, [names[i]] * window, names[i + 1 : i + 1 + window])]
    write_pairs(workspace.pairs, pairs)
    monkeypatch.setattr(matching, "open_matchers", lambda *_: [FreeMatcher()] * available_cores())

    start, cpu_start = time.perf_counter(), time.process_time()
    first = matching.match(workspace.pairs, workspace.features, workspace.matches, models=tmp_path, settings=Settings())
    milliseconds = (time.perf_counter() - start) / len(pairs) * 1000
    cpu_milliseconds = (time.process_time() - cpu_start) / len(pairs) * 1000
    print(f"\n{pairing}: {milliseconds:.3f} ms per pair, {cpu_milliseconds:.3f} ms of CPU time, {len(pairs)} pairs")

    assert (first.new, first.matches) == (len(pairs), MATCHES * len(pairs))
    start = time.perf_counter()
    again = matching.match(workspace.pairs, workspace.features, workspace.matches, models=tmp_path, settings=Settings())
    print(f"second run: {(time.perf_counter() - start) / len(pairs) * 1000:.3f} ms per pair")
    assert (again.new, again.matches) == (0, first.matches)
    assert milliseconds <= MILLISECONDS_PER_PAIR


GROW = """
    import json, resource, sys, time
    from pathlib import Path
    import numpy as np
    from lgbatch.storage.features import FeatureStore
    from lgbatch.storage.matches import MatchStore
    from lgbatch.types import Features, Matches, Pair
    folder, kind, count, images = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    point = np.zeros((1, 2), np.float32), np.ones(1, np.float32), np.ones((1, 8), np.float32)
    features, matches = Features(*point, (8, 6)), Matches(np.zeros((1, 2), np.int32), np.ones(1, np.float32))
    names = [f"folder {i % 10}/photo {i:06d}.jpg" for i in range(images)]
    provenance = {"test": "scale"}
    rates, peaks = [], []
    with (FeatureStore if kind == "features" else MatchStore)(folder / f"{kind}.h5", append=provenance) as store:
        start, cpu = time.perf_counter(), time.process_time()
        for i in range(count):
            if kind == "features":
                store.write(names[i], features)
            else:  # in the order of the schedule: each image with the images after it
                store.write(Pair(names[i // 10], names[(i // 10 + 1 + i % 10) % images]), matches, 1, (1, 2))
            if i % 5000 == 4999:
                store.commit()
            if (i + 1) % (count // 10) == 0:
                rates.append((count // 10) / (time.process_time() - cpu))
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
                cpu = time.process_time()
        seconds = time.perf_counter() - start
    print(json.dumps({"rates": rates, "peaks": peaks, "seconds": seconds}))
"""
OPEN = """
    import json, resource, sys, time
    from pathlib import Path
    from lgbatch.storage.features import FeatureStore
    from lgbatch.storage.matches import MatchStore
    from lgbatch.types import Pair
    folder, kind, images = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    names = [f"folder {i % 10}/photo {i:06d}.jpg" for i in range(images)]
    start, cpu = time.perf_counter(), time.process_time()
    if kind == "features":
        with FeatureStore(folder / "features.h5", append={"test": "scale"}) as store:
            assert len(store.names()) == images == store.points
    else:
        with MatchStore(folder / "matches.h5", append={"test": "scale"}) as store:
            assert Pair(names[3], names[2]) in store and Pair(names[3], names[1000]) not in store
    opened, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"opened": opened, "opened_cpu": cpu, "peak": peak}))
"""


@pytest.mark.parametrize("kind", ["features", "matches"])
def test_stores_keep_their_speed_as_they_grow(kind: str, tmp_path: Path) -> None:
    count = IMAGES if kind == "features" else PAIRS

    def run_script(script: str, *arguments: object) -> dict[str, object]:
        command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    grown = run_script(GROW, tmp_path, kind, count, IMAGES)
    opened = run_script(OPEN, tmp_path, kind, IMAGES)
    size = (tmp_path / f"{kind}.h5").stat().st_size
    print(f"\n{count} {kind}: {size / count:.0f} bytes each, {grown}, {opened}")
    first, last = grown["rates"][1], grown["rates"][-1]
    assert last >= 0.8 * first
    assert opened["opened_cpu"] < 2  # CPU time: the machine may be busy
    assert grown["peaks"][-1] < grown["peaks"][1] + 200
