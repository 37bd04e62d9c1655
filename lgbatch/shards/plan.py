"""The plan: photos, settings and weights of a large set, in plan.json, and its first step."""

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from lgbatch.colmap.sensors.calibration import read_calibration
from lgbatch.colmap.sensors.rigs import check_rigs
from lgbatch.config import Settings
from lgbatch.errors import InputError, LgbatchError
from lgbatch.export.models import ensure_models
from lgbatch.features.extractors import open_feature_extractor
from lgbatch.features.network import Extractor
from lgbatch.features.orient import orient
from lgbatch.features.sift import SiftExtractor
from lgbatch.matching.lightglue import Matcher
from lgbatch.pairing.methods import check_sources
from lgbatch.pairing.pairs_file import check_pairs
from lgbatch.photos.decode import decode
from lgbatch.photos.masks import crawl_with_masks
from lgbatch.runtime.environment import versions
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.runtime.precision import extractor_kind, stages_kind
from lgbatch.runtime.registry import default_folder
from lgbatch.shards.folder import ShardFolder, read_json, write_once
from lgbatch.shards.steps import Step, add_step, count_units, read_inputs, read_steps
from lgbatch.shards.units.photos import PlannedPhoto, photo_inputs, photos_of, planned
from lgbatch.types import ImageRef, counted
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.lock import locked

MACHINE = ("device", "threads", "workers")
"""Settings of the machine that does a unit: the plan does not fix them."""
PATHS = ("masks", "camera_mask", "calibration", "rig_config", "positions", "global_descriptors", "pairs_from")
"""Settings that are paths. The plan has absolute ones: workers and merges may run in any folder."""


@dataclass(frozen=True)
class Plan:
    """What plan.json says."""

    photos: Path
    """Folder of the photos."""
    settings: Settings
    weights: dict[str, str]
    """SHA-256 of the weights of the extractor, if it is a network, and of the matcher."""
    models: Path | None
    """Folder of the models; None for the default of each machine."""
    pairs: Path | None
    """Pairs file of the user; None if the pairs are chosen by the settings."""
    pairs_sha256: str
    units: int
    """Units of each step; 0: as many as take about ten minutes each."""
    made_with: dict[str, str]
    """Versions of packages."""

    @property
    def models_folder(self) -> Path:
        """Folder of the models on this machine."""
        return self.models or default_folder()


def make_plan(
    photos: Path,
    out: Path,
    *,
    models: Path | None = None,
    settings: Settings,
    pairs: Path | None = None,
    units: int = 0,
) -> tuple[Plan, Step]:
    """Plan the photos below a folder, turn them upright, and cut their extraction into units.

    The same plan again changes nothing. Raises LgbatchError as `lgbatch run`, and InputError if there is another plan,
    or the workspace has features already.
    """
    folder = ShardFolder(Workspace(out))
    _check_new(folder)
    require_pycolmap()
    read_calibration(settings)
    crawled = crawl_with_masks(photos, settings.masks, settings.camera_mask)
    check_rigs(settings, [ref.name for ref in crawled.images], mapper=settings.mapper)
    if pairs:
        check_pairs(pairs)
    else:
        check_sources(settings)
    with locked(out, create=True):
        ensure_models(models or default_folder(), settings.extractor, [extractor_kind(settings), stages_kind(settings)])
        extractor = open_feature_extractor(models or default_folder(), settings)
        plan = _plan(photos, models, settings, pairs, units, extractor)
        existed = folder.plan.exists()
        if existed:
            _check_same(folder, plan)
        if existed and (steps := read_steps(folder)):
            _tell_other_photos(folder, steps[0], [ref.name for ref in crawled.images])
            return plan, steps[0]
        write_once(folder.plan, _content(plan))
        crawled, _ = orient(crawled, out, settings)
        crawled.decoded.clear()
        refs = [planned(ref) for ref in crawled.images]
        failures = [(failure.stage, failure.name, failure.reason) for failure in crawled.failures]
        per_photo = _seconds_per_photo(crawled.images, extractor, settings), _photo_bytes(settings)
        return plan, add_extraction(folder, plan, refs, per_photo, failures=failures)


def add_extraction(
    folder: ShardFolder,
    plan: Plan,
    photos: Sequence[PlannedPhoto],
    per_photo: tuple[float, int],
    *,
    retry: bool = False,
    failures: Sequence[tuple[str, str, str]] = (),
) -> Step:
    """Add a step that extracts photos, in blocks of photos that follow each other."""
    count = count_units(len(photos), per_photo[0] * len(photos), plan.units)
    ends = [len(photos) * number // count for number in range(count + 1)]
    blocks = [photos[start:end] for start, end in pairwise(ends)]
    inputs = [photo_inputs(block, plan.settings, plan.weights) for block in blocks]
    return add_step(folder, "extract", inputs, [*map(len, blocks)], per_photo, retry=retry, failures=failures)


def read_plan(folder: ShardFolder) -> Plan:
    """Read the plan of a workspace. Raises InputError if there is none, or it is damaged."""
    content = read_json(folder.plan, "plan")
    try:
        models, pairs = (Path(content[key]) if content[key] else None for key in ("models", "pairs"))
        settings = Settings.load(**content["settings"])
        values = {key: content[key] for key in ("weights", "pairs_sha256", "units", "made_with")}
        return Plan(photos=Path(content["photos"]), settings=settings, models=models, pairs=pairs, **values)
    except (KeyError, TypeError):
        raise InputError(f"{folder.plan} is of another version of lgbatch: use that one, or plan again") from None


def unit_settings(plan: Plan, machine: Settings) -> Settings:
    """Return the settings of a unit on a machine. The merge counts its failures."""
    return replace(plan.settings, max_errors=0, **{name: getattr(machine, name) for name in MACHINE})


def file_hash(path: Path) -> str:
    """SHA-256 of a file. Raises InputError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _plan(
    photos: Path,
    models: Path | None,
    settings: Settings,
    pairs: Path | None,
    units: int,
    extractor: Extractor | SiftExtractor,
) -> Plan:
    matcher = Matcher(models or default_folder(), settings).stages
    return Plan(
        photos=photos.resolve(),
        settings=replace(settings, **{name: getattr(Settings(), name) for name in MACHINE}, **_absolute(settings)),
        weights={"extractor": str(extractor.provenance.get("weights", "")), "matcher": matcher.weights},
        models=models.resolve() if models else None,
        pairs=pairs.resolve() if pairs else None,
        pairs_sha256=file_hash(pairs) if pairs else "",
        units=units,
        made_with=versions(),
    )


def _absolute(settings: Settings) -> dict[str, Any]:
    paths = {name: getattr(settings, name) for name in PATHS}
    return {name: str(Path(path).resolve()) for name, path in paths.items() if path}


def _content(plan: Plan) -> dict[str, object]:
    return {
        "photos": str(plan.photos),
        "settings": plan.settings.as_dict(),
        "weights": plan.weights,
        "models": str(plan.models) if plan.models else None,
        "pairs": str(plan.pairs) if plan.pairs else None,
        "pairs_sha256": plan.pairs_sha256,
        "units": plan.units,
        "made_with": plan.made_with,
    }


def _check_new(folder: ShardFolder) -> None:
    """Raise InputError if the workspace has results that do not come from a plan."""
    workspace = folder.workspace
    for path in (workspace.features, workspace.matches, workspace.pairs):
        if path.exists() and not folder.plan.exists():
            raise InputError(f"{path} exists already: plan in a new folder, or continue with `lgbatch run`")


def _check_same(folder: ShardFolder, plan: Plan) -> None:
    before, now = _content(read_plan(folder)), _content(plan)
    for key in before:
        if key != "made_with" and before[key] != now[key]:
            changed = f"its {key} are others" if key.endswith("s") else f"its {key} is another"
            raise InputError(f"{folder.plan} is a plan already, and {changed}: plan in a new folder")


def _tell_other_photos(folder: ShardFolder, first: Step, names: Sequence[str]) -> None:
    """Tell which photos have come or gone since the plan. It stays as it is."""
    before = {photo.name for unit in first.units for photo in photos_of(read_inputs(folder, first, unit))}
    new, gone = set(names) - before, before.difference(names)
    if new:
        advice = "when the plan is done, `lgbatch run` adds them"
        print(
            f"lgbatch: not in the plan: {counted(len(new), 'new photo')}, such as {min(new)}; {advice}", file=sys.stderr
        )
    if gone:
        print(f"lgbatch: gone since the plan: {counted(len(gone), 'photo')}, such as {min(gone)}", file=sys.stderr)


def _seconds_per_photo(refs: Sequence[ImageRef], extractor: Extractor | SiftExtractor, settings: Settings) -> float:
    """Measure the extraction of one photo; 1 if none of the first ones can be extracted."""
    for ref in refs[:8]:
        try:
            extractor.extract([decode(ref, settings.resize, settings.max_megapixels)])  # to warm up
            start = time.perf_counter()
            extractor.extract([decode(ref, settings.resize, settings.max_megapixels)])
            return time.perf_counter() - start
        except LgbatchError:
            raise
        except Exception as error:  # as in extraction: the next photo may be good
            print(f"lgbatch: {ref.name} could not be extracted to measure the time: {error}", file=sys.stderr)
    return 1.0


def _photo_bytes(settings: Settings) -> int:
    """About the size of the features of a photo: keypoints, scores, and 128 half-precision descriptors."""
    return settings.max_keypoints * (8 + 4 + 2 * 128) + 4000
