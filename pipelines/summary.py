"""The summary of a run: filled stage by stage, printed as text or JSON."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from lgbatch.colmap.database import DatabaseCounts
from lgbatch.config import Settings, Stage
from lgbatch.errors import LgbatchError
from lgbatch.features.extract import Extracted
from lgbatch.features.orient import Oriented
from lgbatch.matching.match import Matched
from lgbatch.pipelines.second_try import SecondTry
from lgbatch.reconstruction.advice import advice
from lgbatch.reconstruction.results import Doubtful, Model, Reconstruction, Unregistered, Warned, format_table
from lgbatch.runtime.environment import peak_memory_mb, versions
from lgbatch.storage.durable import replace_synced
from lgbatch.types import Failure, counted, escape
from lgbatch.workspace.rerun import Rerun
from lgbatch.workspace.stage import StageResult
from lgbatch.workspace.stage_cache import without_tracebacks

_SHOWN_FAILURES = _SHOWN_PHOTOS = 10
_SHOWN_WARNINGS = 5


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
    keypoints: int | None = None
    """Keypoints of all images."""
    images_in_tiles: int | None = None
    """Photos that were extracted in tiles, because they did not fit in the memory."""
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
    was better, and the registered images and verified pairs before; or the error that left it out. Absent if there was
    none."""
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

    def add_oriented(self, result: Oriented) -> None:
        """Add how many photos were turned."""
        by = {"exif": result.turned_by_exif, "neighbours": result.turned_by_neighbours}
        self.turned_images = by if any(by.values()) else None

    def add_extracted(self, result: Extracted) -> None:
        """Add the result of extraction."""
        self.images, self.failed_images, self.keypoints = result.images, len(result.failures), result.keypoints
        self.images_in_tiles = result.in_tiles or None
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
        self.mirrored_images = result.mirrored_images or None
        self.rigs = result.rigs or None
        self._update_finished_already(result)
        if result.rebuilt:
            self.edited_cameras = result.edited_cameras or None
            self.dropped_from_database = {"images": result.dropped_images, "pairs": result.dropped_pairs}

    def add_reconstruction(self, result: Reconstruction, rerun: Rerun) -> None:
        """Add the result of verification and mapping, and what to try, given how it was made."""
        self.verified_pairs = result.verified_pairs
        self.models = list(result.models)
        self.registered_images = result.models[0].registered_images if result.models else 0
        self.points3D = result.models[0].points3D if result.models else 0
        self.unregistered, self.warnings = list(result.unregistered), list(result.warnings)
        self.doubtful = list(result.doubtful) or None
        self.advice = advice(result, rerun) or None
        self.seconds |= {"verify": round(result.seconds_verification, 3), "map": round(result.seconds_mapping, 3)}
        self._update_finished_already(result)

    def add_second_try(self, result: SecondTry, rerun: Rerun) -> None:
        """Add the result of the second try, if there was one."""
        self._update_finished_already(result)
        if result.problem:
            self.second_try = result.figures()
        elif result.tried_pairs:
            self.second_try = result.figures()
            first = {step: self.seconds[step] for step in ("verify", "map")}
            self.add_reconstruction(result, rerun)
            self.seconds |= first | {"second": round(result.seconds_second, 3)}

    def _update_finished_already(self, result: StageResult) -> None:
        self.finished_already = self.finished_already is not False and result.finished_already

    @property
    def exit_status(self) -> int:
        """0 if all went well; 1 if an item failed or was skipped, or a photo is not safely in the largest model."""
        told = self.failures or self.skipped_pairs or self.unregistered or self.doubtful
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
        lines = [failure.format() for failure in self.failures[:_SHOWN_FAILURES]]
        if len(self.failures) > _SHOWN_FAILURES:
            more = counted(len(self.failures) - _SHOWN_FAILURES, "more failure")
            lines.append(f"... and {more}: `lgbatch errors` lists all")
        if self.images is not None:
            keypoints = counted(self.keypoints or 0, "keypoint")
            lines.append(f"images      {self.images}, of which {self.failed_images} failed; {keypoints}")
        if self.turned_images:
            lines.append(f"turned      {_format_turned(self.turned_images)}")
        if self.images_in_tiles:
            lines.append(f"in tiles    {counted(self.images_in_tiles, 'photo')}: too large for the memory as a whole")
        if self.pairs is not None:
            lines.append(f"pairs       {self.pairs}" + self._pair_details())
        if self.absent_images:
            lines.append(f"left out    {counted(self.absent_images, 'image')} without a photo in the folder")
        if self.mirrored_images:
            lines.append(
                f"mirrored    {counted(self.mirrored_images, 'photo')}, stored as mirror images: save upright before a "
                "dense reconstruction, which reads the pixels"
            )
        if self.dropped_from_database:
            images, pairs = self.dropped_from_database["images"], self.dropped_from_database["pairs"]
            lines.append(f"database    built anew; dropped: {counted(images, 'image')}, {counted(pairs, 'pair')}")
        if self.edited_cameras:
            cameras = counted(self.edited_cameras, "edited camera")
            lines.append(f"database    {cameras} reset: keep known intrinsics in a cameras.txt, with --calibration")
        if self.other_images:
            lines.append(f"database    keeps {counted(self.other_images, 'image')} of another program")
        if self.rigs:
            *counts, others = (counted(count, what.removesuffix("s")) for what, count in self.rigs.items())
            lines.append(f"rigs        {', '.join(counts)}; {others} without a rig")
        if self.second_try:
            lines.append(f"second try  {_format_second_try(self.second_try, self.seconds.get('second', 0.0))}")
        if self.verified_pairs is not None:
            lines.append(f"verified    {counted(self.verified_pairs, 'pair')}")
        if self.models:
            lines.append(format_table(self.models))
        elif self.models is not None:
            lines.append("models      none")
        lines += self._format_unregistered()
        lines += map(_format_doubtful, (self.doubtful or [])[:_SHOWN_PHOTOS])
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
        """A line for each photo that is not registered.

        Those that failed in this run have one already. Without two images the advice says it all.
        """
        told = {failure.name for failure in self.failures}
        photos = [p for p in self.unregistered or [] if p.name not in told and p.cause != "no other image"]
        lines = [f"not registered: {escape(photo.name)}: {photo.reason}" for photo in photos[:_SHOWN_PHOTOS]]
        more = len(photos) - _SHOWN_PHOTOS
        return lines + [f"... and {counted(more, 'more photo')} not registered: --json lists all"] * (more > 0)

    def _pair_details(self) -> str:
        if self.matched_pairs is None:
            return ""
        ignored = ", ".join(f"{count} {reason}" for reason, count in (self.dropped_pairs or {}).items() if count)
        text = f", {self.matched_pairs} with matches ({counted(self.matches or 0, 'match', 'matches')})"
        text += f"; ignored lines: {ignored}" if ignored else ""
        return text + (f"; skipped: {self.skipped_pairs} with a failed image" if self.skipped_pairs else "")


def _format_doubtful(part: Doubtful) -> str:
    names = ", ".join(map(escape, part.names[:_SHOWN_PHOTOS])) + ", ..." * (len(part.names) > _SHOWN_PHOTOS)
    photos, matches = counted(len(part.names), "photo"), counted(part.matches, "match", "matches")
    text = f"{photos}, joined to each of the others by at most {matches}"
    return f"doubtful    model {part.model}: {text}, may be in a wrong place: {names}"


def _format_turned(turned: dict[str, int]) -> str:
    said = {"exif": "as their EXIF orientation says", "neighbours": "as similar photos show"}
    return "; ".join(f"{counted(count, 'photo')} {said[by]}" for by, count in turned.items() if count)


def _format_second_try(tried: dict[str, Any], seconds: float) -> str:
    if "left_out" in tried:
        return f"left out: {tried['left_out']}"
    failed = f", {counted(tried['failed'], 'photo')} failed" if tried["failed"] else ""
    text = f"{counted(tried['photos'], 'photo')} with SIFT at up to {tried['long_side']} px{failed}: "
    if tried["better"]:
        more = tried["registered"] - tried["registered_before"], tried["verified"] - tried["verified_before"]
        text += f"{more[0]} more registered, {counted(more[1], 'more verified pair')}"
    else:
        text += "no better model"
    return text + f", {seconds:.0f} s" * (seconds > 0)


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
