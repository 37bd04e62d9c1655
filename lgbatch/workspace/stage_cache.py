"""The stage cache: results of finished stages, so that a repeated run skips the stages that have not changed.

`finished.json` in the workspace has one entry per stage: its inputs ("made_from": settings, names, file signatures),
the signatures of its output files ("left"), its result ("figures"), and what else the run was given ("given"). While
inputs and outputs are unchanged, the stage is skipped without opening a store, a model or a database. The file is
replaced atomically.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from lgbatch._version import __version__
from lgbatch.storage.durable import replace_synced
from lgbatch.types import ImageRef

if TYPE_CHECKING:
    from lgbatch.photos.crawl import Crawl

T = TypeVar("T")
Signature = list[int] | None
"""[size in bytes, modification time in nanoseconds since 1970]; None if the file does not exist."""

_OUTDATED = [-1, -1]
"""The signature of no file."""


class StageCache:
    """The cached result of one stage."""

    def __init__(
        self,
        folder: Path,
        stage: str,
        *,
        paths: Mapping[str, Path] = MappingProxyType({}),
        other_settings: Mapping[str, Any] = MappingProxyType({}),
        **made_from: Any,
    ) -> None:
        """`made_from` are the inputs of the stage as JSON values: signatures, digests, settings.

        `paths` and `other_settings` do not change the result: they are recorded for the command that repeats the run.
        """
        self._path, self._stage = folder / "finished.json", stage
        self._made_from = json.loads(json.dumps(made_from))
        self._given = {
            "paths": {name: self._relative(os.path.abspath(path)) for name, path in paths.items()},  # noqa: PTH100
            "settings": dict(other_settings),
        }

    def result(self, kind: type[T], **parts: type) -> T | None:
        """Return the cached result as a dataclass of type `kind`, or None if the stage has to run.

        `parts` names the fields of `kind` that are tuples of dataclasses, with the class of their items.
        """
        entry = self._read().get(self._stage)
        if entry is None or entry["made_from"] != self._made_from or not self._unchanged(entry):
            return None
        figures = {name: tuple(value) if isinstance(value, list) else value for name, value in entry["figures"].items()}
        try:
            nested = {name: tuple(part(**values) for values in figures[name]) for name, part in parts.items()}
            return kind(**figures | nested)
        except (KeyError, TypeError):  # written by another version
            return None

    def is_recorded(self) -> bool:
        """Whether this version has finished the stage in this workspace before."""
        return self._stage in self._read()

    def has_left(self, path: Path) -> bool:
        """Whether an output file is as the finished stage left it."""
        left: dict[str, Signature] = self._read().get(self._stage, {}).get("left", {})
        return signature(path) == left.get(self._relative(os.path.abspath(path)), _OUTDATED)  # noqa: PTH100

    def unchanged_stages(self) -> list[str]:
        """Return the stages of this workspace whose output files are unchanged."""
        return [stage for stage, entry in self._read().items() if self._unchanged(entry)]

    def save(self, result: Any, outputs: Iterable[Path], unchanged: Iterable[str] = ()) -> None:
        """Record the result of the finished stage and the signatures of its output files.

        `unchanged` are the earlier stages whose output files were unchanged before this stage ran. If this stage
        changed such a file, its new signature is recorded for them: mapping writes into the database of the import.
        Write errors are ignored; the stage then runs again.
        """
        entries, now = self._read(), {self._relative(path): value for path, value in signatures(outputs).items()}
        for stage in unchanged:
            entries[stage]["left"] |= {path: now[path] for path in entries[stage]["left"] if path in now}
        figures = dataclasses.asdict(result, dict_factory=without_tracebacks)
        entries[self._stage] = {"made_from": self._made_from, "left": now, "figures": figures, "given": self._given}
        self._write(entries)

    def outdate(self, stages: Iterable[str]) -> None:
        """Let finished stages run again, although their inputs and outputs are unchanged. Write errors are ignored."""
        entries = self._read()
        for stage in entries.keys() & set(stages):
            entries[stage]["left"] = dict.fromkeys(entries[stage]["left"], _OUTDATED)
        self._write(entries)

    def forget(self) -> None:
        """Drop the cached result. Write errors are ignored."""
        entries = self._read()
        if entries.pop(self._stage, None):
            self._write(entries)

    def record_given(self) -> None:
        """Record the paths and other settings of a run that skipped the stage, if it had other paths.

        Write errors are ignored.
        """
        entries = self._read()
        if entries[self._stage].get("given", {}).get("paths") != self._given["paths"]:
            entries[self._stage]["given"] = self._given
            self._write(entries)

    def _write(self, entries: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            replace_synced(self._path, json.dumps({"lgbatch": __version__, "stages": entries}).encode())

    def _unchanged(self, entry: dict[str, Any]) -> bool:
        """Whether the output files of an entry have the recorded signatures."""
        return all(signature(self._path.parent / path) == value for path, value in entry["left"].items())

    def _relative(self, path: str) -> str:
        """Return the path of an output relative to the workspace: a copied or moved workspace stays finished."""
        folder = self._path.parent.absolute()
        return Path(path).relative_to(folder).as_posix() if Path(path).is_relative_to(folder) else path

    def _read(self) -> dict[str, Any]:
        """Return the entries; empty if the file is damaged or another version wrote it."""
        try:
            content = json.loads(self._path.read_bytes())
            return content["stages"] if content["lgbatch"] == __version__ else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def was_imported_by_0_1(folder: Path) -> bool:
    """Whether version 0.1.0 recorded an import in this workspace. It did not mark the databases that it wrote."""
    try:
        figures = json.loads((folder / "finished.json").read_bytes())["stages"]["import"]["figures"]
        return "rebuilt" not in figures
    except (OSError, ValueError, KeyError, TypeError):
        return False


def recorded_settings(folder: Path) -> dict[str, Any]:
    """Return the settings that the finished stages of a workspace were run with, by name."""
    used = [
        entry["made_from"]["settings"] | entry.get("given", {}).get("settings", {})
        for entry in StageCache(folder, "")._read().values()
    ]
    return {name: value for settings in used for name, value in settings.items()}


def recorded_paths(folder: Path) -> dict[str, Path]:
    """Return the paths that the finished stages of a workspace were given, by name: see StageRun.paths."""
    entries = StageCache(folder, "")._read().values()
    return {name: folder / path for entry in entries for name, path in entry.get("given", {}).get("paths", {}).items()}


def recorded_figures(folder: Path, stage: str) -> dict[str, Any]:
    """Return the fields of the result of a finished stage; empty if there is none."""
    figures: dict[str, Any] = StageCache(folder, "")._read().get(stage, {}).get("figures", {})
    return figures


def has_second_try(folder: Path) -> bool:
    """Whether database and models of a workspace are those of a second try."""
    unchanged = "second" in StageCache(folder, "").unchanged_stages()
    return unchanged and bool(recorded_figures(folder, "second").get("accepted"))


def recorded_stages(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the fields of the results of all finished stages, by stage."""
    return {stage: entry["figures"] for stage, entry in StageCache(folder, "")._read().items()}


def signature(path: Path) -> Signature:
    """Return the size and modification time of a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def signatures(paths: Iterable[Path]) -> dict[str, Signature]:
    """Return the signatures of files, and of all files below folders, by absolute path."""
    files = (file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path]))
    return {os.path.abspath(file): signature(file) for file in files if not file.is_dir()}  # noqa: PTH100


def digest(values: Any) -> str:
    """Return the SHA-256 of JSON values. Strings may hold surrogate escapes."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def photos_digest(photos: "Crawl") -> str:
    """Return a digest of the photos of a folder: names, sizes, times, masks, orientations, and unusable files."""
    return digest(
        [
            [[ref.name, *map(signature, (ref.path, *ref.masks)), *_turns(ref)] for ref in photos.images],
            [[failure.name, failure.reason] for failure in photos.failures],
        ]
    )


def _turns(ref: ImageRef) -> list[int]:
    return [ref.orientation] if ref.orientation != 1 else []


def without_tracebacks(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Dict factory for dataclasses.asdict that omits the tracebacks of failures."""
    return {key: value for key, value in items if key != "traceback"}
