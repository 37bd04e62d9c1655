"""The next step of matching: the pairs that the settings want and no unit has matched, cut into units."""

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lgbatch.colmap.sensors.initial import initial_cameras
from lgbatch.errors import InputError, WorkspaceError
from lgbatch.matching.engine import open_matchers
from lgbatch.pairing.image_names import read_image_pairs
from lgbatch.pairing.methods import in_rounds
from lgbatch.pairing.pairs_file import PairsFile, read_pairs
from lgbatch.pipelines.pairs.choose import candidates_of, choose_pairs, photos_to_pair
from lgbatch.pipelines.pairs.estimate import seconds_per_pair
from lgbatch.pipelines.pairs.rounds import RoundsOfPairs
from lgbatch.shards.folder import ShardFolder
from lgbatch.shards.known import KnownPairs
from lgbatch.shards.markers import done_marker
from lgbatch.shards.plan import Plan, file_hash
from lgbatch.shards.steps import Step, add_step, count_units, read_inputs, read_steps
from lgbatch.shards.units.pairs import CameraValues, camera_values, pair_inputs, pairs_of
from lgbatch.shards.units.photos import photos_of
from lgbatch.storage.durable import replace_synced
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import twins_of
from lgbatch.types import IntArray, Pair, PairList
from lgbatch.workspace.forecast import BYTES_PER_PAIR
from lgbatch.workspace.stage_cache import digest

_SAMPLE = 4
"""Pairs that are matched to measure the time of one, before the first step of matching."""


class WantedPairs:
    """The pairs that the settings want, given the results so far."""

    def __init__(self, folder: ShardFolder, plan: Plan, names: Sequence[str], failed: set[str]) -> None:
        """`names` are the images with features, `failed` the photos without.

        Raises InputError as choose_pairs, and if the pairs file of the user has changed.
        """
        self._folder, self._plan = folder, plan
        known = KnownPairs(names, _results(folder))
        self.listed: PairsFile | None = None
        """The pairs file; None if the pairs are chosen in rounds."""
        self._rounds: RoundsOfPairs | None = None
        workspace, settings = folder.workspace, plan.settings
        if not plan.pairs and in_rounds(settings, len(names)):
            photos = photos_to_pair(workspace, names, settings, plan.photos)
            self._rounds = RoundsOfPairs(candidates_of(workspace, photos, settings))
            self.missing = _next_of_rounds(self._rounds, known)
            return
        if plan.pairs:
            if file_hash(plan.pairs) != plan.pairs_sha256:
                raise InputError(f"{plan.pairs} has changed since it was planned: restore it, or plan in a new folder")
            self.listed = read_image_pairs(plan.pairs, names, plan.photos, failed)
        else:
            choose_pairs(workspace, names, settings, image_folder=plan.photos, models=plan.models_folder)
            self.listed = read_pairs(workspace.pairs)
        self.missing = self.listed.pairs.where(known.missing(self.listed.pairs))

    missing: PairList
    """The pairs of the next step; none at the end."""

    def write(self) -> None:
        """Write pairs.txt and pairs.jsonl, if the pairs are chosen in rounds and they are at their end."""
        workspace = self._folder.workspace
        if self._rounds:
            self._rounds.write(workspace)


def add_matching(
    folder: ShardFolder, plan: Plan, names: Sequence[str], pairs: PairList, *, retry: bool = False
) -> Step:
    """Add a step that matches pairs. `names` are all images with features."""
    with FeatureStore(folder.workspace.features) as features:
        versions = {name: features.record(name).version for name in pairs.images()}
        cameras = _cameras(folder, plan, names, features)
    seconds = _measured(folder) or seconds_per_pair(
        pairs, folder.workspace.features, open_matchers(plan.models_folder, plan.settings), _SAMPLE
    )
    count = count_units(len(pairs), seconds * len(pairs), plan.units)
    inputs, items = pair_inputs(
        pairs,
        count,
        settings=plan.settings,
        weights=plan.weights,
        versions=versions,
        shards=_shard_of_images(folder),
        cameras=cameras,
        twins=sorted(twins_of(names)),
    )
    return add_step(folder, "match", inputs, items, (seconds, BYTES_PER_PAIR), retry=retry)


def planned_pairs(folder: ShardFolder) -> Iterator[Sequence[Pair]]:
    """Yield the pairs of each unit."""
    for step in read_steps(folder):
        for unit in step.units if step.kind == "match" else ():
            yield pairs_of(read_inputs(folder, step, unit))


def _next_of_rounds(choice: RoundsOfPairs, known: KnownPairs) -> PairList:
    """Repeat the rounds whose pairs are known. Returns the pairs of the next one that are not."""
    while pairs := choice.propose():
        missing = known.missing(pairs)
        if missing.any():
            return PairList.of(pairs).where(missing)
        choice.report(known.results(pairs))
    return PairList.of([])


def _results(folder: ShardFolder) -> Iterator[tuple[Sequence[Pair], IntArray]]:
    for step in read_steps(folder):
        for unit in step.units if step.kind == "match" else ():
            if marker := done_marker(folder, step, unit):
                yield pairs_of(read_inputs(folder, step, unit)), np.array(marker.results, np.int32).reshape(-1, 2)


def _measured(folder: ShardFolder) -> float:
    """Seconds of a pair in the last step of matching; 0 if there is none."""
    steps = [step for step in read_steps(folder) if step.kind == "match"]
    markers = [marker for step in steps[-1:] for unit in step.units if (marker := done_marker(folder, step, unit))]
    pairs = sum(len(marker.results) for marker in markers)
    return sum(marker.seconds for marker in markers) / pairs if pairs else 0.0


def _shard_of_images(folder: ShardFolder) -> dict[str, str]:
    """The shard that has the features of each image, below the folder of shards."""
    found = {}
    for step in read_steps(folder):
        for unit in step.units if step.kind == "extract" else ():
            marker = done_marker(folder, step, unit)
            failed = {entry["name"] for entry in marker.failures} if marker else set()
            shard = folder.shard(step.name, unit.name).relative_to(folder.root).as_posix()
            for photo in photos_of(read_inputs(folder, step, unit)):
                if photo.name not in failed:
                    found[photo.name] = shard
    return found


def _cameras(
    folder: ShardFolder, plan: Plan, names: Sequence[str], features: FeatureStore
) -> Mapping[str, CameraValues]:
    """The initial camera of each image, from their file if it has those of these images. Raises as initial_cameras."""
    key = digest([list(names), plan.settings.affecting("import")])
    try:
        content = json.loads(folder.cameras.read_bytes())
        if content["key"] == key:
            cameras = {values[0]: tuple(values) for values in content["cameras"]}
            return {name: cameras[number] for name, number in zip(names, content["camera_ids"], strict=True)}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it is only a copy
    found = initial_cameras(plan.photos, names, features, plan.settings)
    values = {name: camera_values(camera) for name, camera in found.items()}
    every = sorted({value[0]: value for value in values.values()}.values())
    content = {"key": key, "cameras": every, "camera_ids": [values[name][0] for name in names]}
    try:
        replace_synced(folder.cameras, json.dumps(content).encode())
    except OSError as error:
        raise WorkspaceError(f"cannot write {folder.cameras}: {error.strerror}") from None
    return values
