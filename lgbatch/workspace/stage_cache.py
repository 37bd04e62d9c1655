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

from lgbatch._version import __version__
from lgbatch.photos.crawl import Crawl
from lgbatch.storage.durable import write_synced

T = TypeVar("T")
Signature = list[int] | None
"""Size in bytes and time of change in nanoseconds; None where there is no file."""


class StageCache:
    """The entry of one stage."""

    def __init__(self, folder: Path, stage: str, **made_from: Any) -> None:
        """Of the workspace `folder`. `made_from` are values that JSON keeps: Signatures, digests, settings."""
        self._path, self._stage = folder / "finished.json", stage
        self._made_from = json.loads(json.dumps(made_from))

    def result(self, kind: type[T], **parts: type) -> T | None:
        """The result of the stage, a dataclass; None if the stage has to run.

        `parts` names the fields of `kind` that are tuples of dataclasses, and the class of their items.
        """
        entry = self._read().get(self._stage)
        if entry is None or entry["made_from"] != self._made_from or not _unchanged(entry):
            return None
        figures: dict[str, Any] = entry["figures"]
        try:
            nested = {name: tuple(part(**values) for values in figures[name]) for name, part in parts.items()}
            return kind(**figures | nested)
        except (KeyError, TypeError):  # written by another version
            return None

    def unchanged_stages(self) -> list[str]:
        """The stages of this workspace whose files are as they left them."""
        return [stage for stage, entry in self._read().items() if _unchanged(entry)]

    def save(self, result: Any, outputs: Iterable[Path], unchanged: Iterable[str] = ()) -> None:
        """Record that the stage has finished, with its result and the files that it left.

        `unchanged` are the earlier stages whose files were as they left them before this stage ran. A file of theirs
        that this stage changed counts as theirs: mapping writes into the database of the import. An entry that cannot
        be written is left out; the stage then runs again.
        """
        entries, now = self._read(), signatures(outputs)
        for stage in unchanged:
            entries[stage]["left"] |= {path: now[path] for path in entries[stage]["left"] if path in now}
        figures = dataclasses.asdict(result, dict_factory=without_tracebacks)
        entries[self._stage] = {"made_from": self._made_from, "left": now, "figures": figures}
        partial = self._path.with_name(f".{self._path.name}.new")
        with contextlib.suppress(OSError):
            write_synced(partial, json.dumps({"lgbatch": __version__, "stages": entries}).encode())
            partial.replace(self._path)

    def _read(self) -> dict[str, Any]:
        """The entries that this version wrote; what is damaged counts as nothing."""
        try:
            kept = json.loads(self._path.read_bytes())
            return kept["stages"] if kept["lgbatch"] == __version__ else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _unchanged(entry: dict[str, Any]) -> bool:
    """Whether the files of an entry have the size and time of change that it records."""
    return bool(entry["left"] == signatures(map(Path, entry["left"])))


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
