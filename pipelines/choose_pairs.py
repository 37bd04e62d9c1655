"""The pairs stage: choose the image pairs and write them to pairs.txt, unless the user has edited that file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lgbatch.colmap.sensors.rigs import read_rigs
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.pairing.candidates import exhaustive, make_pairs
from lgbatch.pairing.pairs_file import read_pairs, write_pairs
from lgbatch.types import Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.stage import Failures, StageResult, StageRun, run_stage
from lgbatch.workspace.stage_cache import StageCache, digest, signature


@dataclass(frozen=True, kw_only=True)
class ChosenPairs(StageResult):
    """What pairs.txt holds."""

    pairs: int


def choose_pairs(workspace: Workspace, names: Sequence[str], settings: Settings) -> ChosenPairs:
    """Write the pairs of these images to the pairs file of a workspace.

    Raises InputError if the file cannot be written, or differs from the pairs and is not as this stage left it, or if
    the settings' rig file is wrong.
    """
    stage = StageRun(
        name="pairs",
        folder=workspace.root,
        settings=settings,
        inputs={"names": digest(list(names))}
        | ({"rigs": signature(Path(settings.rig_config))} if settings.rig_config else {}),
        outputs=lambda: [workspace.pairs],
        result=ChosenPairs,
    )

    def choose(_: Failures) -> ChosenPairs:
        rigs = read_rigs(settings)
        pairs = make_pairs(names, settings, rigs.places(names) if rigs else {})
        if _is_edited(workspace, pairs):
            raise InputError(
                f"{workspace.pairs} was edited since lgbatch wrote it: match its pairs with `lgbatch match -w "
                f"{workspace.root}` or `lgbatch run --pairs {workspace.pairs}`, or delete it to choose the pairs again"
            )
        write_pairs(workspace.pairs, pairs)
        return ChosenPairs(pairs=len(pairs))

    return run_stage(stage, choose)


def _is_edited(workspace: Workspace, pairs: Sequence[Pair]) -> bool:
    """Whether the pairs file holds other pairs, and is not as this stage left it.

    A file of an earlier version, of which there is no record, counts as edited unless it holds all pairs of its images.
    """
    cache = StageCache(workspace.root, "pairs")
    if not workspace.pairs.exists() or "pairs" in cache.unchanged_stages():
        return False
    listed = read_pairs(workspace.pairs).pairs
    if listed == list(pairs):
        return False
    return cache.is_recorded() or listed != exhaustive(sorted({name for pair in listed for name in pair}))
