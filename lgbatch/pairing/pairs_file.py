"""Which images to match with each other, and the file that says so."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lgbatch.errors import InputError
from lgbatch.photos.crawl import name_problem
from lgbatch.types import Failure, Pair

_BOM = "\ufeff"


@dataclass(frozen=True)
class PairsFile:
    """What a pairs file says, and what was left out of it."""

    pairs: list[Pair]
    """Each pair once, in the order and the direction in which the file first names it."""
    duplicates: int
    """Lines dropped since they name a pair again, in the same direction."""
    reversed: int
    """Lines dropped since they name a pair again, the other way round."""
    self_pairs: int
    """Lines dropped since they pair an image with itself."""
    failures: list[Failure]
    """Lines that cannot be read."""


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write a pairs file, whole or not at all (temporary file, then rename). One that says the same is left alone.

    The format is hloc's: UTF-8, two names a line, one space between. It is a tab where a name of the line
    holds whitespace, or where the line starts with '#' and would be taken for a comment.

    Raises InputError when a name cannot be stored or the file cannot be written.
    """
    names = {name for pair in pairs for name in pair}
    for name in names:
        if problem := name_problem(name):
            raise InputError(f"cannot pair {name!a}: {problem}")
    spaced = {name for name in names if name.split() != [name]}
    text = "".join(
        [f"{a}\t{b}\n" if a in spaced or b in spaced or a.startswith("#") else f"{a} {b}\n" for a, b in pairs]
    )
    if text.startswith(_BOM):  # Readers take a leading one for a byte order mark: give them one to take.
        text = _BOM + text
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with suppress(OSError):
        if path.read_bytes() == text.encode():
            return
    try:
        with part.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # what keeps it from being written may keep it from being removed
            part.unlink()
        raise InputError(f"cannot write pairs to {path}: {error.strerror}") from None


def read_pairs(path: Path) -> PairsFile:
    """Reads a pairs file, made here, by hloc, or by hand. No bytes in it end the run.

    A line with a tab is two names with that tab between; any other line is two names with any whitespace
    between. Blank lines, and lines that start with '#' and have no tab, are skipped. A byte order mark and
    Windows line ends are fine. An empty file is no pairs. Whether the images exist is not looked at.

    Raises InputError when the file is missing, is a folder, or cannot be opened.
    """
    reader = _Reader(path.name)
    with _open_pairs(path) as file:
        for number, line in enumerate(file, 1):
            reader.take(number, line)
    return PairsFile(list(reader.pairs), reader.duplicates, reader.reversed, reader.self_pairs, reader.failures)


def check_pairs(path: Path) -> None:
    """Raise InputError where read_pairs would."""
    with _open_pairs(path):
        pass


@contextmanager
def _open_pairs(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        hint = "make one with `lgbatch pairs`" if isinstance(error, FileNotFoundError) else "give a pairs file"
        raise InputError(f"cannot read pairs from {path}: {error.strerror}; {hint}") from None


class _Reader:
    """Takes the lines one by one. Each name is kept, and checked, once."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self.pairs: dict[Pair, None] = {}
        self.duplicates = self.reversed = self.self_pairs = 0
        self.failures: list[Failure] = []
        self._names: dict[str, str] = {}

    def take(self, number: int, line: bytes) -> None:
        try:
            names = _split(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            if names:
                self._add(self._known(names[0]), self._known(names[1]))
        except ValueError as error:
            reason = "not valid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            self.failures.append(Failure("pairs", f"{self.file_name} line {number}", reason))

    def _add(self, a: str, b: str) -> None:
        pair = Pair(a, b)
        if a == b:
            self.self_pairs += 1
        elif pair in self.pairs:
            self.duplicates += 1
        elif (b, a) in self.pairs:
            self.reversed += 1
        else:
            self.pairs[pair] = None

    def _known(self, name: str) -> str:
        known = self._names.get(name)
        if known is None:
            if problem := name_problem(name):
                raise ValueError(problem)
            known = self._names[name] = name
        return known


def _split(line: str) -> list[str] | None:
    """The two names of a line, or None for a line that names none. Raises ValueError."""
    if "\t" in line and not line.isspace():
        names = line.removesuffix("\n").removesuffix("\r").split("\t")
        if len(names) != 2:
            raise ValueError(f"{len(names)} names with tabs between instead of 2")
        return names
    names = line.split()
    if not names or names[0].startswith("#"):
        return None
    if len(names) != 2:
        raise ValueError(f"{len(names)} words instead of 2 names; names with spaces need a tab between them")
    return names
