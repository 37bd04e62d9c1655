"""Which stages are finished, and what from: a run that is repeated with nothing changed is told what came out.

`finished.json` in the workspace keeps, for each stage, what it was made from (settings, names, and of each file its
size and time of change), the files it left, and its figures. While all of that is as it was, the stage is not done
again, and no store, model or database is opened. An entry is written when its stage is over, in one step.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from lgbatch import __version__
from lgbatch.config import Settings
from lgbatch.crawl import Crawl
from lgbatch.journal import write_synced

T = TypeVar("T")

SETTINGS = {
    "extract": {"extractor", "max_keypoints", "resize", "max_megapixels", "on_change"},
    "pairs": {"pairing", "window"},
    "match": {
        "extractor",
        "precision",
        "depth_confidence",
        "width_confidence",
        "filter_threshold",
        "give_up",
        "on_change",
    },
    "import": {"camera_mode", "camera_model", "on_change"},
    "reconstruct": {"mapper"},
}
"""The settings that change what a stage leaves. One that is named nowhere here is taken to change all of them."""
NEUTRAL = {"device", "threads", "workers", "max_errors"}
"""Settings that change how a stage works, but not what it leaves."""

Signature = list[int] | None
"""Size in bytes and time of change in nanoseconds; None where there is no file."""


class Finished:
    """The entry of one stage."""

    def __init__(self, folder: Path, stage: str, **made_from: Any) -> None:
        """Of the workspace `folder`. `made_from` are values that JSON keeps: Signatures, digests, settings."""
        self._path, self._stage = folder / "finished.json", stage
        self._made_from = json.loads(json.dumps(made_from))

    def figures(self) -> dict[str, Any] | None:
        """What the stage gave, as plain values; None when it is to be done."""
        entry = self._read().get(self._stage)
        if entry is None or entry["made_from"] != self._made_from or not self.stands(self._stage):
            return None
        figures: dict[str, Any] = entry["figures"]
        return figures

    def result(self, kind: type[T], **parts: type) -> T | None:
        """What the stage gave, a dataclass marked `finished_already`; None when it is to be done.

        `parts` names the fields of `kind` that are tuples of dataclasses, and which.
        """
        figures = self.figures()
        if figures is None:
            return None
        try:
            nested = {name: tuple(part(**values) for values in figures[name]) for name, part in parts.items()}
            return kind(**figures | nested | {"finished_already": True})
        except (KeyError, TypeError):  # another version's
            return None

    def stands(self, stage: str) -> bool:
        """Whether the files that a stage of this workspace left are as it left them."""
        entry = self._read().get(stage)
        return entry is not None and entry["left"] == signatures(map(Path, entry["left"]))

    def save(self, result: Any, left: Iterable[Path], *, over: str | None = None) -> None:
        """The stage is over. It left these files, some of which were the stage `over`'s and count as its own still."""
        entries, now = self._read(), signatures(left)
        if over in entries:
            entries[over]["left"] |= {path: now[path] for path in entries[over]["left"] if path in now}
        figures = dataclasses.asdict(result, dict_factory=without_tracebacks)
        entries[self._stage] = {"made_from": self._made_from, "left": now, "figures": figures}
        partial = self._path.with_name(f".{self._path.name}.new")
        with contextlib.suppress(OSError):  # the stage is done again then, which does no harm
            write_synced(partial, json.dumps({"lgbatch": __version__, "stages": entries}).encode())
            partial.replace(self._path)

    def _read(self) -> dict[str, Any]:
        """The entries that this version wrote; what is damaged counts as nothing."""
        try:
            kept = json.loads(self._path.read_bytes())
            return kept["stages"] if kept["lgbatch"] == __version__ else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def relevant(stage: str, settings: Settings) -> dict[str, Any]:
    """The settings that change what the stage leaves."""
    known = NEUTRAL.union(*SETTINGS.values())
    return {k: v for k, v in settings.as_dict().items() if k in SETTINGS[stage] or k not in known}


def signature(path: Path) -> Signature:
    """Size and time of change of a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def signatures(paths: Iterable[Path]) -> dict[str, Signature]:
    """Signatures of files by absolute path; of a folder, those of all files in it."""
    files = (file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path]))
    return {os.path.abspath(file): signature(file) for file in files if not file.is_dir()}  # noqa: PTH100


def digest(values: Any) -> str:
    """A hash of plain values; names may hold any bytes."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def photos_digest(found: Crawl) -> str:
    """A hash of the photos of a folder: names, sizes, times of change, and what could not be used."""
    return digest(
        [
            [[ref.name, signature(ref.path)] for ref in found.images],
            [[failure.name, failure.reason] for failure in found.failures],
        ]
    )


def without_tracebacks(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """For dataclasses.asdict: what summaries keep of a Failure."""
    return {key: value for key, value in items if key != "traceback"}
