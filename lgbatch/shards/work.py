"""Do a unit: in a folder of its own, then rename its store to its final name, then write its marker.

An attempt that is killed leaves its folder, which the next one removes. Two attempts at one unit write the same bytes.
"""

import hashlib
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from lgbatch.config import Settings
from lgbatch.errors import InputError, ModelError, StoreError
from lgbatch.export.models import ensure_models
from lgbatch.features.extractors import open_feature_extractor
from lgbatch.features.network import Extractor
from lgbatch.features.sift import SiftExtractor
from lgbatch.matching.engine import open_matchers
from lgbatch.matching.lightglue import Matcher
from lgbatch.runtime.precision import extractor_kind, stages_kind
from lgbatch.shards.folder import ShardFolder
from lgbatch.shards.leases import Holder, claim, file_time, kept, read_holder, release
from lgbatch.shards.markers import Marker, done_marker
from lgbatch.shards.plan import read_plan, unit_settings
from lgbatch.shards.steps import Step, Unit, read_inputs, read_steps
from lgbatch.shards.units.pairs import match_unit
from lgbatch.shards.units.photos import extract_unit
from lgbatch.storage.durable import sync_folder
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Ledger


class Worker:
    """Does units. It opens the models once, for all its units."""

    def __init__(self, out: Path, machine: Settings, models: Path | None = None, photos: Path | None = None) -> None:
        """Work for the plan of a workspace. `machine` has the settings device, threads and workers.

        `models` is the folder of the models, `photos` that of copies of the photos, if they are not those of the plan.
        Raises InputError if there is no plan.
        """
        self.folder = ShardFolder(Workspace(out))
        self._plan = read_plan(self.folder)
        self._settings = unit_settings(self._plan, machine)
        self._models = models or self._plan.models_folder
        self._photos = photos or self._plan.photos
        self._extractor: Extractor | SiftExtractor | None = None
        self._matchers: Sequence[Matcher] = ()

    def do_unit(self, step: Step, unit: Unit) -> Marker:
        """Do a unit, unless it is done already. Returns its marker.

        Raises LgbatchError if it cannot be done: a missing model, a full disk.
        """
        if marker := done_marker(self.folder, step, unit):
            return marker
        inputs = read_inputs(self.folder, step, unit)
        began = time.time()
        try:
            with attempt_folder(self.folder, step, unit) as attempt:
                results: list[tuple[int, int]] = []
                if step.kind == "extract":
                    stored = extract_unit(
                        inputs,
                        self._photos,
                        attempt,
                        image_folder=self._plan.photos,
                        models=self._models,
                        settings=self._settings,
                        open_extractor=self._open_extractor,
                    )
                else:
                    stored, pair_results = match_unit(
                        inputs,
                        self.folder.root,
                        attempt,
                        models=self._models,
                        settings=self._settings,
                        open_matchers=self._open_matchers,
                    )
                    results = [(result.matches, result.inliers) for result in pair_results]
                return self._publish(step, unit, attempt, stored, results, began)
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(f"cannot write unit {unit.name} in {self.folder.results(step.name)}: {reason}") from error

    def _publish(
        self, step: Step, unit: Unit, attempt: Path, stored: int, results: Sequence[tuple[int, int]], began: float
    ) -> Marker:
        """Rename the store of an attempt, and write the marker. A unit that another attempt has done stays as it is."""
        draft = attempt / "shard.h5"
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
            size, digest = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
        marker = Marker(
            unit=unit.name,
            sha256=digest,
            size=size,
            items=stored,
            failures=tuple(asdict(entry) for entry in Ledger(attempt).entries()),
            results=tuple(results),
            began=round(began, 3),
            seconds=round(time.time() - began, 3),
            machine=socket.gethostname(),
        )
        if other := done_marker(self.folder, step, unit):
            return other
        draft.replace(self.folder.shard(step.name, unit.name))
        sync_folder(self.folder.results(step.name))
        path = attempt / "marker.json"  # of this attempt: two attempts never write to one file
        with path.open("wb") as file:
            file.write(marker.as_bytes())
            file.flush()
            os.fsync(file.fileno())
        path.replace(self.folder.marker(step.name, unit.name))
        sync_folder(self.folder.results(step.name))
        return marker

    def _open_extractor(self, models: Path, settings: Settings, at_once: int) -> Extractor | SiftExtractor:
        if self._extractor is None:
            ensure_models(models, settings.extractor, [extractor_kind(settings)])
            self._extractor = open_feature_extractor(models, settings, at_once)
            weights = str(self._extractor.provenance.get("weights", ""))
            self._check_weights("extractor", weights)
        return self._extractor

    def _open_matchers(self, models: Path, settings: Settings) -> Sequence[Matcher]:
        if not self._matchers:
            ensure_models(models, settings.extractor, [stages_kind(settings)])
            self._matchers = open_matchers(models, settings)
            self._check_weights("matcher", self._matchers[0].stages.weights)
        return self._matchers

    def _check_weights(self, model: str, weights: str) -> None:
        if weights != self._plan.weights[model]:
            raise ModelError(
                f"the {model} in {self._models} has other weights ({weights[:12]}) than the plan "
                f"({self._plan.weights[model][:12]}): copy the models of the machine that planned"
            )


def current_step(folder: ShardFolder) -> Step:
    """Return the first step with a unit that is not done, or else the last one. Raises InputError if there is none."""
    steps = read_steps(folder)
    if not steps:
        raise InputError(f"{folder.root} has no step: run `lgbatch shard plan` again")
    return next((step for step in steps if any(not done_marker(folder, step, unit) for unit in step.units)), steps[-1])


def unit_by_number(step: Step, number: int) -> Unit:
    """Return a unit of a step. Raises InputError if there is none of that number."""
    if not 0 <= number < len(step.units):
        raise InputError(f"{step.name} has units 0 to {len(step.units) - 1}: there is no unit {number}")
    return step.units[number]


def claim_units(worker: Worker) -> Iterator[tuple[Unit, Marker]]:
    """Do open units of the current step, one after the other, until each is done or another worker has it."""
    folder = worker.folder
    step, was_busy = current_step(folder), True
    while was_busy:  # once more: a worker that had a unit may have ended meanwhile
        was_busy = False
        for unit in step.units:
            if done_marker(folder, step, unit):
                continue
            with leased(folder, step, unit) as held:
                if held:
                    was_busy = True
                    remove_abandoned(folder, step)
                    yield unit, worker.do_unit(step, unit)


@contextmanager
def leased(folder: ShardFolder, step: Step, unit: Unit) -> Iterator[bool]:
    """Hold the lease of a unit while the block runs. Yields whether it is held: another worker may hold it."""
    lease, holder = folder.lease(step.name, unit.name), Holder.new()
    if not claim(lease, holder):
        yield False
        return
    try:
        with kept([lease], holder):
            yield True
    finally:
        release(lease, holder)


@contextmanager
def attempt_folder(folder: ShardFolder, step: Step, unit: Unit) -> Iterator[Path]:
    """A folder for one attempt at a unit, with a lease of its own. It is removed at the end."""
    holder = Holder.new()
    path = folder.results(step.name) / f".{unit.name}-{holder.host}-{holder.pid}-{holder.token}"
    path.mkdir(parents=True)
    try:
        lease = path / "lease.json"
        claim(lease, holder)
        with kept([lease], holder):
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def remove_abandoned(folder: ShardFolder, step: Step) -> int:
    """Remove the folders of attempts that were killed. Returns their number."""
    removed, now = 0, file_time(folder.results(step.name))
    for path in folder.results(step.name).glob(".*-*"):
        with suppress(OSError):
            holder = read_holder(path / "lease.json") if path.is_dir() else None
            fresh = holder is None and path.stat().st_mtime + 60 > now  # it is being made
            if path.is_dir() and not fresh and not (holder and holder.is_alive(now)):
                shutil.rmtree(path)
                removed += 1
    return removed
