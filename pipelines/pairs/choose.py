"""The pairs stage: choose the image pairs and write them to pairs.txt, unless the user has edited that file.

Pairing auto chooses those of more than a few photos in rounds, which match and verify them, too (rounds.py).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from lgbatch.colmap.sensors.rigs import read_rigs
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.pairing.candidates import exhaustive
from lgbatch.pairing.evidence.find import Photos, find_candidates
from lgbatch.pairing.evidence.lists import Candidates
from lgbatch.pairing.evidence.stored import stored_candidates
from lgbatch.pairing.methods import in_rounds, make_pairs, source_files, uses_features
from lgbatch.pairing.pairs_file import read_pairs, write_pairs
from lgbatch.pairing.tried_pairs import lists_tried_pairs
from lgbatch.pipelines.pairs.rounds import choose_in_rounds
from lgbatch.runtime.environment import available_cores
from lgbatch.types import Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.progress import track
from lgbatch.workspace.stage import Failures, StageResult, StageRun, is_finished, run_stage
from lgbatch.workspace.stage_cache import StageCache, digest, signatures


@dataclass(frozen=True, kw_only=True)
class ChosenPairs(StageResult):
    """What pairs.txt holds."""

    pairs: int
    verified: int = 0
    """Pairs that the rounds have verified."""
    rounds: int = 0
    """Rounds of matching and verification. The fields below are 0 if there was none."""
    candidates: int = 0
    """Pairs that the rounds chose from."""
    seconds_matching: float = 0.0
    """Seconds of matching and verification."""

    def as_repeated(self) -> Self:
        """The result for a run that skips the stage: it matches nothing."""
        return replace(super().as_repeated(), seconds_matching=0.0)


def choose_pairs(
    workspace: Workspace,
    names: Sequence[str],
    settings: Settings,
    *,
    image_folder: Path | None,
    models: Path,
    retry_failed: bool = False,
) -> ChosenPairs:
    """Write the pairs of these images to the pairs file of a workspace.

    In rounds, the pairs are matched into the matches store and verified. Rounds need `image_folder`, the folder of the
    photos, for their cameras, and the models of matching in the folder `models`.

    Raises InputError if the file cannot be written, or differs from the pairs and is not as this stage left it, or if
    a file that the settings name is wrong or rounds lack the folder, and what `match` and import_stores raise.
    """
    rounds = in_rounds(settings, len(names))

    def choose(failures: Failures) -> ChosenPairs:
        photos = photos_to_pair(workspace, names, settings, image_folder)
        if rounds:
            _check_unedited(workspace, None)
            return _choose_in_rounds(workspace, photos, settings, models, failures)
        pairs = make_pairs(photos, settings)
        if not pairs and len(names) > 1:
            raise InputError(f"pairing {settings.pairing} finds no pair of the {len(names)} photos: use another method")
        _check_unedited(workspace, pairs)
        write_pairs(workspace.pairs, pairs)
        workspace.tried_pairs.unlink(missing_ok=True)
        return ChosenPairs(pairs=len(pairs))

    return run_stage(_stage(workspace, names, settings), choose, retry_failed=retry_failed)


def are_chosen(workspace: Workspace, names: Sequence[str], settings: Settings) -> bool:
    """Whether choose_pairs has nothing to do. Raises WorkspaceError if the ledger cannot be read."""
    return is_finished(_stage(workspace, names, settings))


def _stage(workspace: Workspace, names: Sequence[str], settings: Settings) -> StageRun[ChosenPairs]:
    rounds = in_rounds(settings, len(names))
    return StageRun(
        name="pairs",
        folder=workspace.root,
        settings=settings,
        inputs=_inputs(workspace, names, settings, rounds),
        outputs=lambda: [workspace.pairs, *([workspace.tried_pairs] if rounds else [])],
        result=ChosenPairs,
        reports=frozenset({"match"}) if rounds else frozenset(),
    )


def photos_to_pair(workspace: Workspace, names: Sequence[str], settings: Settings, image_folder: Path | None) -> Photos:
    """What is known of the photos. Raises InputError if the settings' rig file is wrong."""
    rigs = read_rigs(settings)
    return Photos(
        names=names,
        features=workspace.features,
        folder=image_folder,
        vocabulary=workspace.vocabulary,
        rig=rigs.places(names) if rigs else {},
        threads=settings.threads or available_cores(),
        track=track,
    )


def _inputs(workspace: Workspace, names: Sequence[str], settings: Settings, rounds: bool) -> dict[str, Any]:
    """What the pairs depend on besides the settings of their choice."""
    read = [*source_files(settings), *([workspace.features] if uses_features(settings, len(names)) else [])]
    inputs: dict[str, Any] = {"names": digest(list(names)), "files": [*signatures(read).values()]}
    return inputs | ({"match": settings.affecting("match"), "import": settings.affecting("import")} if rounds else {})


def candidates_of(workspace: Workspace, photos: Photos, settings: Settings) -> Candidates:
    """Return the pairs that rounds choose from, from their file if it has those of these photos and settings.

    Raises InputError if the file cannot be written.
    """
    key = digest([settings.affecting("pairs"), _inputs(workspace, photos.names, settings, rounds=False)])
    return stored_candidates(workspace.candidates, photos.names, key, lambda: find_candidates(photos, settings))


def _choose_in_rounds(
    workspace: Workspace,
    photos: Photos,
    settings: Settings,
    models: Path,
    failures: Failures,
) -> ChosenPairs:
    if photos.folder is None:
        raise InputError(f"{workspace.features} does not record the folder of the photos: give it with --images")
    if not photos.folder.is_dir():  # cameras would be without EXIF
        raise InputError(f"the folder of the photos, {photos.folder}, does not exist: give their folder with --images")
    candidates = candidates_of(workspace, photos, settings)
    start = time.perf_counter()
    tried = choose_in_rounds(workspace, photos.folder, candidates, settings, models=models, failures=failures)
    return ChosenPairs(
        pairs=len(tried),
        verified=sum(pair.inliers > 0 for pair in tried),
        rounds=max((pair.round for pair in tried), default=0),
        candidates=len(candidates.pairs),
        seconds_matching=time.perf_counter() - start,
        failures=failures.as_tuple(),
    )


def _check_unedited(workspace: Workspace, pairs: Sequence[Pair] | None) -> None:
    """Raise InputError if the pairs file was edited, and holds other pairs than `pairs`; None for those of rounds."""
    if _is_edited(workspace, pairs):
        raise InputError(
            f"{workspace.pairs} was edited since lgbatch wrote it: match its pairs with `lgbatch match -w "
            f"{workspace.root}` or `lgbatch run --pairs {workspace.pairs}`, or delete it to choose the pairs again"
        )


def _is_edited(workspace: Workspace, pairs: Sequence[Pair] | None) -> bool:
    """Whether the pairs file holds other pairs, and is not as this stage left it.

    A file of an earlier version, of which there is no record, counts as edited unless it holds all pairs of its images.
    """
    cache = StageCache(workspace.root, "pairs")
    if not workspace.pairs.exists() or cache.has_left(workspace.pairs):
        return False
    if lists_tried_pairs(workspace.pairs, workspace.tried_pairs):
        return False
    listed = read_pairs(workspace.pairs).pairs
    if listed == pairs:
        return False
    return cache.is_recorded() or listed != exhaustive(sorted(listed.images()))
