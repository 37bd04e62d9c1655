"""Read and write pairs files, in hloc's format: one image pair per line."""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from lgbatch.errors import InputError
from lgbatch.photos.crawl import name_problem
from lgbatch.storage.durable import replace_synced
from lgbatch.types import Failure, Pair, counted

_BOM = "\ufeff"
_WIDE_BOMS = {  # UTF-32 first: its little-endian mark starts with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


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
    unknown: list[Failure] = field(default_factory=list)
    """Pairs with a name of no image, one failure each."""
    skipped: int = 0
    """Pairs with an image that failed. They and unknown pairs are counted when names are resolved (image_names.py)."""


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

    A line with a tab holds two names separated by that tab; any other line holds two names separated by whitespace, or
    by a comma or semicolon, with or without quotes. Blank lines, and lines that start with '#' and have no tab, are
    skipped. The file is UTF-8, or UTF-16 or UTF-32 with a byte order mark, with any line endings but '\\r' alone. An
    empty file has no pairs. The names are as in the file: read_image_pairs (image_names.py) finds their images.

    Raises InputError if the file is missing, is a folder, or cannot be opened.
    """
    parser = _Parser(path.name)
    with _open_pairs(path) as file:
        for number, line in enumerate(file, 1):
            parser.add_line(number, line)
    return parser.pairs.finish(parser.failures)


def check_pairs(path: Path) -> None:
    """Raise InputError if read_pairs would, and if no line is a pair of names.

    With the pairs of such a file, matching would drop all pairs from the database.
    """
    parser, number = _Parser(path.name), 0
    with _open_pairs(path) as file:
        for number, line in enumerate(file, 1):
            parser.add_line(number, line)
            if parser.pairs:
                return
    reason = parser.failures[0].reason if parser.failures else "no line has two" if number else "the file is empty"
    raise InputError(f"{path} lists no pairs ({reason}): write the names of two images per line")


def split_columns(line: str) -> Iterator[list[str]]:
    """Yield the two columns of a line as in tables: split at commas, at semicolons, and at spaces outside quotes."""
    for delimiter in ",; ":
        try:
            fields = next(csv.reader([line.strip()], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            continue
        columns = [field.strip() for field in fields]
        if len(columns) == 2 and all(columns):
            yield columns


class PairList:
    """Collects pairs, each once, and counts those that are dropped."""

    def __init__(self) -> None:
        self._pairs: dict[Pair, None] = {}
        self._duplicates = self._reversed = self._self_pairs = 0

    def add(self, a: str, b: str) -> None:
        """Add a pair, unless it repeats one in either direction or pairs an image with itself."""
        pair = Pair(a, b)
        if a == b:
            self._self_pairs += 1
        elif pair in self._pairs:
            self._duplicates += 1
        elif (b, a) in self._pairs:
            self._reversed += 1
        else:
            self._pairs[pair] = None

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self._pairs)

    def finish(self, failures: list[Failure]) -> PairsFile:
        """Return the pairs, with the failures of the lines."""
        return PairsFile(list(self._pairs), self._duplicates, self._reversed, self._self_pairs, failures)


@contextmanager
def _open_pairs(path: Path) -> Iterator[TextIO]:
    """Open a pairs file. Bytes that are not UTF-8 become lone surrogates."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            encoding = next((name for bom, name in _WIDE_BOMS.items() if start.startswith(bom)), "utf-8-sig")
            errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
            with io.TextIOWrapper(file, encoding, errors, newline="\n") as text:
                yield text
    except OSError as error:
        hint = "create one with `lgbatch pairs`" if isinstance(error, FileNotFoundError) else "give a pairs file"
        raise InputError(f"cannot read pairs from {path}: {error.strerror}; {hint}") from None


class _Parser:
    """Parses a pairs file line by line. Each name is checked, and held in memory, once."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self.pairs = PairList()
        self.failures: list[Failure] = []
        self._names: dict[str, str] = {}

    def add_line(self, number: int, line: str) -> None:
        try:
            if names := _split(line):
                self.pairs.add(self._intern(names[0]), self._intern(names[1]))
        except ValueError as error:
            self.failures.append(Failure("pairs", f"{self.file_name} line {number}", str(error)))

    def _intern(self, name: str) -> str:
        """Return the one copy of a name that all pairs share. Raises ValueError if the name is invalid."""
        if name not in self._names:
            if problem := name_problem(name):
                raise ValueError(problem)
            self._names[name] = name
        return self._names[name]


def _split(line: str) -> list[str] | None:
    """Return the two names of a line, or None for a blank line or a comment. Raises ValueError for other lines."""
    _check_encoding(line)
    if "\t" in line and not line.isspace():
        names = line.removesuffix("\n").removesuffix("\r").split("\t")
        if len(names) != 2:
            raise ValueError(f"{counted(len(names), 'name')} separated by tabs instead of 2")
        return names
    names = line.split()
    if not names or names[0].startswith("#"):
        return None
    if len(names) != 2:
        names = next(split_columns(line), names)
    if len(names) != 2:
        raise ValueError(f"{counted(len(names), 'word')} instead of 2 names; separate names with spaces by a tab")
    return names


def _check_encoding(line: str) -> None:
    """Raise ValueError if the line was not read as it was written."""
    if "\0" in line:
        raise ValueError("NUL characters, as in UTF-16 without a byte order mark: save the file as UTF-8")
    if not line.isascii():
        try:
            line.encode()
        except UnicodeEncodeError:
            raise ValueError("not valid UTF-8: save the file as UTF-8") from None
