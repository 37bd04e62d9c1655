"""Read and write pairs files, in hloc's format: one image pair per line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lgbatch.errors import InputError
from lgbatch.photos.crawl import name_problem
from lgbatch.storage.durable import replace_synced
from lgbatch.types import Failure, Pair

_BOM = "\ufeff"


@dataclass(frozen=True)
class PairsFile:
    """The pairs of a pairs file, and counts of the lines that were dropped."""

    pairs: list[Pair]
    """Each pair once, with the order and direction of its first occurrence."""
    duplicates: int
    """Lines dropped because they repeat a pair in the same direction."""
    reversed: int
    """Lines dropped because they repeat a pair in the opposite direction."""
    self_pairs: int
    """Lines dropped because they pair an image with itself."""
    failures: list[Failure]
    """Lines that are not a pair of valid names, one failure each."""


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write a pairs file atomically and durably. A file with the same content is left untouched.

    The format is hloc's: UTF-8, two names per line, separated by a space. The separator is a tab if a name contains
    whitespace, or if the line starts with '#' and would be read as a comment.

    Raises InputError if a name is invalid or the file cannot be written.
    """
    names = {name for pair in pairs for name in pair}
    for name in names:
        if problem := name_problem(name):
            raise InputError(f"cannot pair {name!a}: {problem}")
    with_spaces = {name for name in names if name.split() != [name]}
    needs_tab = with_spaces | {name for name in names if name.startswith("#")}
    text = "".join([f"{a}\t{b}\n" if a in needs_tab or b in with_spaces else f"{a} {b}\n" for a, b in pairs])
    if text.startswith(_BOM):  # part of a name; readers drop a leading byte order mark, so write one before it
        text = _BOM + text
    with suppress(OSError):
        if path.read_bytes() == text.encode():
            return
    try:
        replace_synced(path, text.encode())
    except OSError as error:
        raise InputError(f"cannot write pairs to {path}: {error.strerror}") from None


def read_pairs(path: Path) -> PairsFile:
    """Read a pairs file that was written by lgbatch, by hloc or by hand. Invalid lines become failures.

    A line with a tab holds two names separated by that tab; any other line holds two names separated by whitespace.
    Blank lines, and lines that start with '#' and have no tab, are skipped. A byte order mark and Windows line
    endings are accepted. An empty file has no pairs. The existence of the images is not checked.

    Raises InputError if the file is missing, is a folder, or cannot be opened.
    """
    parser = _Parser(path.name)
    with _open_pairs(path) as file:
        for number, line in enumerate(file, 1):
            parser.add_line(number, line)
    return PairsFile(list(parser.pairs), parser.duplicates, parser.reversed, parser.self_pairs, parser.failures)


def check_pairs(path: Path) -> None:
    """Raise InputError if read_pairs would: if the file is missing, is a folder, or cannot be opened."""
    with _open_pairs(path):
        pass


@contextmanager
def _open_pairs(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        hint = "create one with `lgbatch pairs`" if isinstance(error, FileNotFoundError) else "give a pairs file"
        raise InputError(f"cannot read pairs from {path}: {error.strerror}; {hint}") from None


class _Parser:
    """Parses a pairs file line by line. Each name is checked, and held in memory, once."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self.pairs: dict[Pair, None] = {}
        self.duplicates = self.reversed = self.self_pairs = 0
        self.failures: list[Failure] = []
        self._names: dict[str, str] = {}

    def add_line(self, number: int, line: bytes) -> None:
        try:
            names = _split(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            if names:
                self._add_pair(self._intern(names[0]), self._intern(names[1]))
        except ValueError as error:
            reason = "not valid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            self.failures.append(Failure("pairs", f"{self.file_name} line {number}", reason))

    def _add_pair(self, a: str, b: str) -> None:
        pair = Pair(a, b)
        if a == b:
            self.self_pairs += 1
        elif pair in self.pairs:
            self.duplicates += 1
        elif (b, a) in self.pairs:
            self.reversed += 1
        else:
            self.pairs[pair] = None

    def _intern(self, name: str) -> str:
        """Return the one copy of a name that all pairs share. Raises ValueError if the name is invalid."""
        if name not in self._names:
            if problem := name_problem(name):
                raise ValueError(problem)
            self._names[name] = name
        return self._names[name]


def _split(line: str) -> list[str] | None:
    """Return the two names of a line, or None for a blank line or a comment. Raises ValueError for other lines."""
    if "\t" in line and not line.isspace():
        names = line.removesuffix("\n").removesuffix("\r").split("\t")
        if len(names) != 2:
            raise ValueError(f"{len(names)} names separated by tabs instead of 2")
        return names
    names = line.split()
    if not names or names[0].startswith("#"):
        return None
    if len(names) != 2:
        raise ValueError(f"{len(names)} words instead of 2 names; separate names with spaces by a tab")
    return names
