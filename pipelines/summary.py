"""What a run did: filled stage by stage, told in words or as JSON."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lgbatch.config import Settings
from lgbatch.errors import LgbatchError
from lgbatch.features.extract import Extracted
from lgbatch.matching.match import Matched
from lgbatch.reconstruction.advice import advice
from lgbatch.reconstruction.results import Model, Reconstruction, format_table
from lgbatch.runtime.environment import peak_memory_mb, versions
from lgbatch.types import Failure
from lgbatch.workspace.stage_cache import without_tracebacks

_SHOWN_FAILURES = 10


@dataclass
class Summary:
    """The figures of a run. What no stage has filled is None, and left out of the JSON."""

    settings: Settings
    images: int | None = None
    """Photos found, the failed ones among them."""
    failed_images: int | None = None
    keypoints: int | None = None
    pairs: int | None = None
    """Different pairs that were asked for."""
    dropped_pairs: dict[str, int] | None = None
    """Lines of the pairs file that were left out, by reason."""
    failed_pairs: int | None = None
    """Pairs, lines of the pairs file and images that matching could not use."""
    skipped_pairs: int | None = None
    """Pairs that were left out because an image of theirs had failed."""
    matched_pairs: int | None = None
    """Pairs with at least one match."""
    matches: int | None = None
    verified_pairs: int | None = None
    """Pairs with a two-view geometry."""
    registered_images: int | None = None
    """Images in the largest model."""
    points3D: int | None = None
    models: list[Model] | None = None
    advice: str | None = None
    """What to try when images could not be registered."""
    accuracy: dict[str, Any] | None = None
    """Against known cameras, where there are any."""
    finished_already: bool | None = None
    """Nothing has changed since an earlier run, of which all figures are."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""
    failures: list[Failure] = field(default_factory=list)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that a block takes to its stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - start, 3)

    def add_extracted(self, done: Extracted) -> None:
        """Take over what extraction did."""
        self.images, self.failed_images, self.keypoints = done.images, len(done.failures), done.keypoints
        self.failures += done.failures
        self._note(done)

    def add_matched(self, done: Matched) -> None:
        """Take over what matching did."""
        self.pairs, self.matched_pairs, self.matches = done.pairs, done.matched_pairs, done.matches
        self.failed_pairs, self.skipped_pairs = len(done.failures), done.skipped_pairs
        self.dropped_pairs = {"duplicate": done.duplicates, "reversed": done.reversed, "self": done.self_pairs}
        self.failures += done.failures
        self._note(done)

    def add_reconstruction(self, done: Reconstruction) -> None:
        """Take over what verification and mapping did."""
        self.verified_pairs = done.verified_pairs
        self.models = list(done.models)
        self.registered_images = done.models[0].registered_images if done.models else 0
        self.points3D = done.models[0].points3D if done.models else 0
        self.advice = advice(done, self.settings.mapper) or None
        self.seconds |= {"verify": round(done.seconds_verification, 3), "map": round(done.seconds_mapping, 3)}
        self._note(done)

    def _note(self, done: Extracted | Matched | Reconstruction) -> None:
        self.finished_already = self.finished_already is not False and done.finished_already

    @property
    def exit_status(self) -> int:
        """0 all done; 1 finished, but an item failed or was skipped, or no model came out."""
        return int(bool(self.failures or self.skipped_pairs) or self.registered_images == 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        plain = asdict(self, dict_factory=without_tracebacks)
        filled = {key: value for key, value in plain.items() if value is not None}
        return filled | {"peak_memory_mb": peak_memory_mb(), "versions": versions()}

    def write(self, path: Path) -> None:
        """Write the JSON file, under a temporary name first. Raises LgbatchError when it cannot be written."""
        partial = path.with_name(f".{path.name}.new")
        try:
            partial.write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise LgbatchError(f"cannot write {path}: {error.strerror}") from None

    def format(self) -> str:
        """A few lines for the terminal."""
        lines = [f.format() for f in self.failures[:_SHOWN_FAILURES]]
        if len(self.failures) > _SHOWN_FAILURES:
            lines.append(f"... and {len(self.failures) - _SHOWN_FAILURES} more failures: `lgbatch errors` lists all")
        if self.images is not None:
            lines.append(f"images      {self.images}, of which {self.failed_images} failed; {self.keypoints} keypoints")
        if self.pairs is not None:
            lines.append(f"pairs       {self.pairs}" + self._pair_details())
        if self.verified_pairs is not None:
            lines.append(f"verified    {self.verified_pairs} pairs")
        if self.models:
            lines.append(format_table(self.models))
        elif self.models is not None:
            lines.append("no model could be made")
        if self.advice:
            lines.append(self.advice)
        if self.accuracy:
            lines.append(_format_accuracy(self.accuracy))
        if self.finished_already:
            lines.append("finished already: nothing has changed since, and these are its figures")
        if self.seconds:
            lines.append("seconds     " + ", ".join(f"{stage} {value:.1f}" for stage, value in self.seconds.items()))
        return "\n".join(lines)

    def _pair_details(self) -> str:
        if self.matched_pairs is None:
            return ""
        dropped = ", ".join(f"{count} {why}" for why, count in (self.dropped_pairs or {}).items() if count)
        text = f", {self.matched_pairs} with matches ({self.matches} matches)"
        text += f"; dropped: {dropped}" if dropped else ""
        return text + (f"; skipped: {self.skipped_pairs} of failed images" if self.skipped_pairs else "")


def _format_accuracy(accuracy: dict[str, Any]) -> str:
    text = f"accuracy    {accuracy['registered_cameras']} of {accuracy['known_cameras']} known cameras found"
    if accuracy["position_error_median"] is None:
        return text
    errors = [
        f"{what} {accuracy[f'{key}_median']:.2g}{unit} in the median, {accuracy[f'{key}_max']:.2g}{unit} at most"
        for what, key, unit in (("rotation", "rotation_error_deg", " degrees"), ("position", "position_error", ""))
    ]
    return f"{text}; off by: {'; '.join(errors)} (in units of the known positions)"
