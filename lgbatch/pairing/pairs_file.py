"""Read and write pairs files, in hloc's format: one image pair per line."""

import codecs
import csv
import io
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from lgbatch.errors import InputError
from lgbatch.storage.durable import replace_synced
from lgbatch.types import Failure, Pair, PairList, counted, name_problem

_BLOCK = 8192
"""Lines that are written at a time."""
_SEPARATORS = (" ", "\t")
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

    pairs: PairList
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
    pairs = PairList.of(pairs)
    for name in pairs.images():
        if problem := name_problem(name):
            raise InputError(f"cannot pair {name!a}: {problem}")
    if _has_content(path, _lines(pairs)):
        return
    try:
        replace_synced(path, _lines(pairs))
    except OSError as error:
        raise InputError(f"cannot write pairs to {path}: {error.strerror}") from None


def _lines(pairs: PairList) -> Iterator[bytes]:
    """Yield the content of a pairs file in parts."""
    names = pairs.names
    with_spaces = [name.split() != [name] for name in names]
    needs_tab = [spaces or name.startswith("#") for name, spaces in zip(names, with_spaces, strict=True)]
    for start in range(0, len(pairs), _BLOCK):
        block = pairs.ids[start : start + _BLOCK].tolist()
        text = "".join([f"{names[a]}{_SEPARATORS[needs_tab[a] or with_spaces[b]]}{names[b]}\n" for a, b in block])
        if not start and text.startswith(_BOM):  # part of a name; readers drop a leading one, so write one before it
            text = _BOM + text
        yield text.encode()


def _has_content(path: Path, parts: Iterable[bytes]) -> bool:
    """Whether a file has the content of these parts."""
    try:
        with path.open("rb") as file:
            return all(file.read(len(part)) == part for part in parts) and not file.read(1)
    except OSError:
        return False


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
    return distinct(parser.pairs(), parser.failures)


def check_pairs(path: Path) -> None:
    """Raise InputError if read_pairs would, and if no line is a pair of names.

    With the pairs of such a file, matching would drop all pairs from the database.
    """
    parser, number = _Parser(path.name), 0
    with _open_pairs(path) as file:
        for number, line in enumerate(file, 1):
            parser.add_line(number, line)
            if parser.has_pair:
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


def distinct(pairs: PairList, failures: list[Failure]) -> PairsFile:
    """Return the pairs without self-pairs and those that repeat an earlier one, with the failures of the lines."""
    listed = pairs.where(pairs.ids[:, 0] != pairs.ids[:, 1])
    rows, firsts = listed.repeats()
    is_first = np.ones(len(listed), np.bool_)
    is_first[rows] = False
    reverse = int(np.count_nonzero(listed.ids[rows, 0] != listed.ids[firsts, 0]))
    return PairsFile(listed.where(is_first), len(rows) - reverse, reverse, len(pairs) - len(listed), failures)


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
        self.failures: list[Failure] = []
        self.has_pair = False
        """Whether a line pairs two images."""
        self._ids: dict[str, int] = {}
        self._pairs = array("i")

    def add_line(self, number: int, line: str) -> None:
        try:
            if names := _split(line):
                a, b = self._id(names[0]), self._id(names[1])
                self._pairs.append(a)
                self._pairs.append(b)
                self.has_pair = self.has_pair or a != b
        except ValueError as error:
            self.failures.append(Failure("pairs", f"{self.file_name} line {number}", str(error)))

    def pairs(self) -> PairList:
        """All lines with two names."""
        return PairList(list(self._ids), np.asarray(self._pairs).reshape(-1, 2))

    def _id(self, name: str) -> int:
        """Return the position of a name in the list of names. Raises ValueError if the name is invalid."""
        found = self._ids.get(name)
        if found is None:
            if problem := name_problem(name):
                raise ValueError(problem)
            found = self._ids[name] = len(self._ids)
        return found


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
