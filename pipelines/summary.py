"""The summary of a run: filled stage by stage, printed as text or JSON."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lgbatch.colmap.database import DatabaseCounts
from lgbatch.config import Settings
from lgbatch.errors import LgbatchError
from lgbatch.features.extract import Extracted
from lgbatch.matching.match import Matched
from lgbatch.reconstruction.advice import advice
from lgbatch.reconstruction.results import Model, Reconstruction, Unregistered, Warned, format_table
from lgbatch.runtime.environment import peak_memory_mb, versions
from lgbatch.storage.durable import replace_synced
from lgbatch.types import Failure, escape
from lgbatch.workspace.rerun import Rerun
from lgbatch.workspace.stage import StageResult
from lgbatch.workspace.stage_cache import without_tracebacks

_SHOWN_FAILURES = _SHOWN_PHOTOS = 10
_SHOWN_WARNINGS = 5


@dataclass
class Summary:
    """The figures of a run. A field is None, and absent from the JSON, until a stage fills it."""

    settings: Settings
    images: int | None = None
    """Photos in the folder, including the failed ones."""
    failed_images: int | None = None
    keypoints: int | None = None
    """Keypoints of all images."""
    pairs: int | None = None
    """Distinct pairs to match."""
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
    other_images: int | None = None
    """Images of the database that another program put there."""
    dropped_from_database: dict[str, int] | None = None
    """The database was built anew: images and pairs with matches that it no longer has."""
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
    warnings: list[Warned] | None = None
    """COLMAP's warnings."""
    advice: str | None = None
    """What to try if some images are not registered."""
    accuracy: dict[str, Any] | None = None
    """Accuracy.as_dict(), if the true cameras are known."""
    finished_already: bool | None = None
    """All stages were skipped because nothing changed: the figures are those of an earlier run."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    failures: list[Failure] = field(default_factory=list)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the duration of the block to the seconds of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - start, 3)

    def add_extracted(self, result: Extracted) -> None:
        """Add the result of extraction."""
        self.images, self.failed_images, self.keypoints = result.images, len(result.failures), result.keypoints
        self.failures += result.failures
        self._update_finished_already(result)

    def add_matched(self, result: Matched) -> None:
        """Add the result of matching."""
        self.pairs, self.matched_pairs, self.matches = result.pairs, result.matched_pairs, result.matches
        self.failed_pairs, self.skipped_pairs = len(result.failures), result.skipped_pairs
        self.dropped_pairs = {"duplicate": result.duplicates, "reversed": result.reversed, "self": result.self_pairs}
        self.failures += result.failures
        self._update_finished_already(result)

    def add_imported(self, result: DatabaseCounts) -> None:
        """Add what the import left out or dropped."""
        self.absent_images, self.other_images = result.absent_images or None, result.other_images or None
        self._update_finished_already(result)
        if result.rebuilt:
            self.dropped_from_database = {"images": result.dropped_images, "pairs": result.dropped_pairs}

    def add_reconstruction(self, result: Reconstruction, rerun: Rerun) -> None:
        """Add the result of verification and mapping, and what to try, given how it was made."""
        self.verified_pairs = result.verified_pairs
        self.models = list(result.models)
        self.registered_images = result.models[0].registered_images if result.models else 0
        self.points3D = result.models[0].points3D if result.models else 0
        self.unregistered, self.warnings = list(result.unregistered), list(result.warnings)
        self.advice = advice(result, rerun) or None
        self.seconds |= {"verify": round(result.seconds_verification, 3), "map": round(result.seconds_mapping, 3)}
        self._update_finished_already(result)

    def _update_finished_already(self, result: StageResult) -> None:
        self.finished_already = self.finished_already is not False and result.finished_already

    @property
    def exit_status(self) -> int:
        """0 if all went well; 1 if an item failed or was skipped, or a photo is not in the largest model."""
        return int(bool(self.failures or self.skipped_pairs or self.unregistered) or self.registered_images == 0)

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, plus peak memory and versions."""
        plain = asdict(self, dict_factory=without_tracebacks)
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
        lines = [failure.format() for failure in self.failures[:_SHOWN_FAILURES]]
        if len(self.failures) > _SHOWN_FAILURES:
            lines.append(f"... and {len(self.failures) - _SHOWN_FAILURES} more failures: `lgbatch errors` lists all")
        if self.images is not None:
            lines.append(f"images      {self.images}, of which {self.failed_images} failed; {self.keypoints} keypoints")
        if self.pairs is not None:
            lines.append(f"pairs       {self.pairs}" + self._pair_details())
        if self.absent_images:
            lines.append(f"left out    images {self.absent_images}: their photos are no longer in the folder")
        if self.dropped_from_database:
            dropped = ", ".join(f"{what} {count}" for what, count in self.dropped_from_database.items())
            lines.append(f"database    built anew; dropped: {dropped}")
        if self.other_images:
            lines.append(f"database    images {self.other_images} of another program stay in it")
        if self.verified_pairs is not None:
            lines.append(f"verified    {self.verified_pairs} pairs")
        if self.models:
            lines.append(format_table(self.models))
        elif self.models is not None:
            lines.append("models      none")
        lines += self._format_unregistered()
        for warning in (self.warnings or [])[:_SHOWN_WARNINGS]:
            lines.append(f"COLMAP      {warning.text}" + f" ({warning.count} times)" * (warning.count > 1))
        if self.advice:
            lines.append(self.advice)
        if self.accuracy:
            lines.append(_format_accuracy(self.accuracy))
        if self.finished_already:
            lines.append("finished already: nothing has changed, the figures are those of the earlier run")
        if self.seconds:
            lines.append("seconds     " + ", ".join(f"{stage} {value:.1f}" for stage, value in self.seconds.items()))
        return "\n".join(lines)

    def _format_unregistered(self) -> list[str]:
        """A line for each photo that is not registered; those that failed in this run have one already."""
        told = {failure.name for failure in self.failures}
        photos = [photo for photo in self.unregistered or [] if photo.name not in told]
        lines = [f"not registered: {escape(photo.name)}: {photo.reason}" for photo in photos[:_SHOWN_PHOTOS]]
        more = len(photos) - _SHOWN_PHOTOS
        return lines + [f"... and {more} more photos that are not registered: --json lists all"] * (more > 0)

    def _pair_details(self) -> str:
        if self.matched_pairs is None:
            return ""
        ignored = ", ".join(f"{count} {reason}" for reason, count in (self.dropped_pairs or {}).items() if count)
        text = f", {self.matched_pairs} with matches ({self.matches} matches)"
        text += f"; ignored lines: {ignored}" if ignored else ""
        return text + (f"; skipped: {self.skipped_pairs} with a failed image" if self.skipped_pairs else "")


def _format_accuracy(accuracy: dict[str, Any]) -> str:
    text = f"accuracy    {accuracy['registered_cameras']} of {accuracy['known_cameras']} known cameras registered"
    if accuracy["position_error_median"] is None:
        return text
    for noun, key, unit in (
        ("rotation", "rotation_error_deg", " degrees"),
        ("position", "position_error", " in units of the known positions"),
    ):
        median, maximum = accuracy[f"{key}_median"], accuracy[f"{key}_max"]
        text += f"; {noun} error: median {median:.2g}, maximum {maximum:.2g}{unit}"
    return text
