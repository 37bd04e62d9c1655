"""The summary of a run: filled stage by stage, printed as text or JSON."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lgbatch.config import Settings, Stage
from lgbatch.errors import LgbatchError
from lgbatch.pipelines.summary_text import format_lines
from lgbatch.reconstruction.results import Doubtful, Model, Reconstruction, Unregistered, Warned
from lgbatch.runtime.environment import peak_child_memory_mb, peak_memory_mb, versions
from lgbatch.storage.durable import replace_synced
from lgbatch.types import Failure
from lgbatch.workspace.rerun import Rerun
from lgbatch.workspace.stage import StageResult
from lgbatch.workspace.stage_cache import without_tracebacks

if TYPE_CHECKING:  # a command does without the stages that it does not run
    from lgbatch.colmap.database import DatabaseCounts
    from lgbatch.features.extract import Extracted
    from lgbatch.features.orient import Oriented
    from lgbatch.matching.match import Matched
    from lgbatch.pipelines.pairs.choose import ChosenPairs
    from lgbatch.pipelines.second_try import SecondTry
    from lgbatch.reconstruction.refinement.results import Refinement


@dataclass
class Summary:
    """The figures of a run. A field is None, and absent from the JSON, until a stage fills it."""

    settings: Settings
    stages: Sequence[str] = get_args(Stage)
    """The stages of the command. The JSON has the settings that they read."""
    images: int | None = None
    """Photos in the folder, including the failed ones."""
    failed_images: int | None = None
    turned_images: dict[str, int] | None = None
    """Photos that were turned upright, by what told: "exif", or "neighbours", that is similar photos."""
    turned_otherwise: int | None = None
    """Photos whose features --on-change keep has kept, although they are to be turned otherwise now."""
    keypoints: int | None = None
    """Keypoints of all images."""
    images_in_tiles: int | None = None
    """Photos that were extracted in tiles, because they did not fit in the memory."""
    pairs: int | None = None
    """Distinct pairs to match."""
    rounds: dict[str, int] | None = None
    """The rounds in which the pairs were chosen: their number, the candidates, and the pairs that they verified."""
    dropped_pairs: dict[str, int] | None = None
    """Ignored lines of the pairs file, by reason."""
    failed_pairs: int | None = None
    """Failures of matching: pairs, lines of the pairs file, and images."""
    skipped_pairs: int | None = None
    """Pairs that were not matched because one of their images failed."""
    matched_pairs: int | None = None
    """Pairs with at least one match."""
    matches: int | None = None
    """Matches of all pairs."""
    absent_images: int | None = None
    """Images with features whose photo is no longer in the folder. The database and the model do not have them."""
    mirrored_images: int | None = None
    """Images whose stored pixels are mirrored, by their EXIF orientation."""
    other_images: int | None = None
    """Images of the database that another program put there."""
    dropped_from_database: dict[str, int] | None = None
    """The database was built anew: images and pairs with matches that it no longer has."""
    edited_cameras: int | None = None
    """Cameras whose parameters the user had edited in the database, and that were reset when it was built anew."""
    rigs: dict[str, int] | None = None
    """With a rig file: rigs, their cameras, frames with several images, and other images."""
    second_try: dict[str, Any] | None = None
    """The second try of photos that are not in the model or hardly joined to it: photos, pairs, long side, whether it
    was better, and before and after it the images of the largest model (`registered`) and of all models, and the
    verified pairs; or the error that left it out. Absent if there was none."""
    verified_pairs: int | None = None
    """Pairs with a two-view geometry."""
    registered_images: int | None = None
    """Registered images of the largest model."""
    points3D: int | None = None
    """3D points of the largest model."""
    models: list[Model] | None = None
    """Largest first."""
    unregistered: list[Unregistered] | None = None
    """Photos that are not in the largest model, each with the reason."""
    doubtful: list[Doubtful] | None = None
    """Parts of the models that few matches join to the rest: they may be in a wrong place."""
    warnings: list[Warned] | None = None
    """COLMAP's warnings."""
    refined: list[dict[str, Any]] | dict[str, str] | None = None
    """What refinement changed in each model, or the error that left it out. Absent if it is off."""
    advice: str | None = None
    """What to try if some images are not registered."""
    accuracy: dict[str, Any] | None = None
    """Accuracy.as_dict(), if the true cameras are known."""
    finished_already: bool | None = None
    """All stages were skipped because nothing changed: the figures are those of an earlier run."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    memory_mb: dict[str, float | None] = field(default_factory=dict)
    """Peak memory by the end of each stage, in MiB; of verification, mapping and refinement that of their process."""
    failures: list[Failure] = field(default_factory=list)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the duration of the block to the seconds of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - start, 3)
            self.memory_mb[stage] = peak_memory_mb()

    def add_oriented(self, result: "Oriented") -> None:
        """Add how many photos were turned."""
        by = {"exif": result.turned_by_exif, "neighbours": result.turned_by_neighbours}
        self.turned_images = by if any(by.values()) else None

    def add_extracted(self, result: "Extracted") -> None:
        """Add the result of extraction."""
        self.images, self.failed_images, self.keypoints = result.images, len(result.failures), result.keypoints
        self.images_in_tiles, self.turned_otherwise = result.in_tiles or None, result.turned_otherwise or None
        self.failures += result.failures
        self._update_finished_already(result)

    def add_chosen(self, result: "ChosenPairs") -> None:
        """Add the rounds of the choice of pairs, and count the time of their matching as that of matching."""
        if result.rounds:
            self.rounds = {"rounds": result.rounds, "candidates": result.candidates, "verified": result.verified}
            seconds = round(result.seconds_matching, 3)
            self.seconds["pairs"] = round(self.seconds.get("pairs", 0.0) - seconds, 3)
            self.seconds["match"] = round(self.seconds.get("match", 0.0) + seconds, 3)
        self.failures += result.failures

    def add_matched(self, result: "Matched") -> None:
        """Add the result of matching."""
        self.pairs, self.matched_pairs, self.matches = result.pairs, result.matched_pairs, result.matches
        self.failed_pairs, self.skipped_pairs = len(result.failures), result.skipped_pairs
        self.dropped_pairs = {"duplicate": result.duplicates, "reversed": result.reversed, "self": result.self_pairs}
        self.failures += result.failures
        self._update_finished_already(result)

    def add_imported(self, result: "DatabaseCounts") -> None:
        """Add what the import left out or dropped."""
        self.absent_images, self.other_images = result.absent_images or None, result.other_images or None
        self.mirrored_images = result.mirrored_images or None
        self.rigs = result.rigs or None
        self._update_finished_already(result)
        if result.rebuilt:
            self.edited_cameras = result.edited_cameras or None
            self.dropped_from_database = {"images": result.dropped_images, "pairs": result.dropped_pairs}

    def add_reconstruction(self, result: Reconstruction, rerun: Rerun) -> None:
        """Add the result of verification and mapping, and what to try, given how it was made."""
        from lgbatch.reconstruction.advice import advice  # late, as above

        self.verified_pairs = result.verified_pairs
        self.models = list(result.models)
        self.registered_images = result.models[0].registered_images if result.models else 0
        self.points3D = result.models[0].points3D if result.models else 0
        self.unregistered, self.warnings = list(result.unregistered), list(result.warnings)
        self.doubtful = list(result.doubtful) or None
        self.advice = advice(result, rerun) or None
        self.seconds |= {"verify": round(result.seconds_verification, 3), "map": round(result.seconds_mapping, 3)}
        self._add_child_memory("verify", "map")
        self._update_finished_already(result)

    def add_second_try(self, result: "SecondTry", rerun: Rerun) -> None:
        """Add the result of the second try, if there was one."""
        self._update_finished_already(result)
        if result.problem:
            self.second_try = result.figures()
        elif result.tried_pairs:
            self.second_try = result.figures()
            first = {step: self.seconds[step] for step in ("verify", "map")}
            self.add_reconstruction(result, rerun)
            self.seconds |= first | {"second": round(result.seconds_second, 3)}
            self.memory_mb["second"] = peak_memory_mb()

    def add_refinement(self, result: "Refinement") -> None:
        """Add what refinement changed. The models are the refined ones from then on."""
        self._update_finished_already(result)
        self.refined = result.figures()
        if result.models:
            self.models, largest = list(result.models), result.models[0]
            self.registered_images, self.points3D = largest.registered_images, largest.points3D
        self.seconds["refine"] = round(result.seconds, 3)
        self._add_child_memory("refine")

    def _add_child_memory(self, *stages: str) -> None:
        for stage in stages:
            self.memory_mb.setdefault(stage, peak_child_memory_mb())

    def _update_finished_already(self, result: StageResult) -> None:
        self.finished_already = self.finished_already is not False and result.finished_already

    @property
    def exit_status(self) -> int:
        """0 if all went well; 1 if an item failed or was skipped, or a photo is not safely in the largest model."""
        told = self.failures or self.skipped_pairs or self.unregistered or self.doubtful
        told = told or isinstance(self.refined, dict)
        return int(bool(told) or self.registered_images == 0)

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, plus peak memory and versions."""
        plain = asdict(self, dict_factory=without_tracebacks) | {"settings": self.settings.used_by(*self.stages)}
        del plain["stages"]
        filled = {key: value for key, value in plain.items() if value is not None}
        return filled | {"peak_memory_mb": peak_memory_mb(), "versions": versions()}

    def write(self, path: Path) -> None:
        """Write the summary as JSON, atomically. Raises LgbatchError if the file cannot be written."""
        try:
            replace_synced(path, (json.dumps(self.as_dict(), indent=2) + "\n").encode())
        except OSError as error:
            raise LgbatchError(f"cannot write {path}: {error.strerror}") from None

    def format(self) -> str:
        """Format the summary as lines for the terminal."""
        return "\n".join(format_lines(self))
