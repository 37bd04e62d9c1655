"""Find the images that a pairs file means. Lists of other programs write the same names in other ways.

An exact name always wins. Otherwise a name may differ from the image's in Unicode normalisation (macOS decomposes
accented letters), have '\\' for '/', start with './', or be an absolute path below the photo folder.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Set
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from lgbatch.pairing.pairs_file import PairsFile, distinct, read_pairs, split_columns
from lgbatch.types import Failure, Pair, PairList

_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")


def read_image_pairs(
    path: Path, images: Collection[str], image_folder: Path | None, failed: Collection[str] = ()
) -> PairsFile:
    """Read a pairs file as pairs of these images. Raises InputError as read_pairs does.

    `image_folder` is the folder of the images, which absolute paths are below; None if it is unknown. Pairs with an
    image that is among `failed` and not among `images` are skipped.
    """
    return resolve_pairs(read_pairs(path), images, image_folder, failed, _real_folder)


def resolve_pairs(
    pairs_file: PairsFile,
    images: Collection[str],
    image_folder: Path | None,
    failed: Collection[str] = (),
    real_folder: Callable[[str], str] = str,
) -> PairsFile:
    """Replace the names of a pairs file by those of the images. Arguments are those of read_image_pairs.

    Pairs with a name of no image become `unknown`. Pairs that are the same now are dropped and counted as duplicates,
    reversed or self-pairs. `real_folder` returns the path of a folder without symbolic links, for absolute paths that
    lead to the photo folder by another way.
    """
    images, pairs = frozenset(images), pairs_file.pairs
    if images.issuperset(pairs.images()):
        return pairs_file
    resolver, positions = _Resolver(images.union(failed), image_folder, real_folder), _Positions()
    failed = frozenset(failed) - images
    ids = pairs.lookup(np.array([positions.of(resolver.find(name)) for name in pairs.names], np.int32))
    unknown = []
    for row in np.flatnonzero(ids.min(1) < 0).tolist():
        names, missing = resolver.find_pair(pairs[row])
        if not missing:
            ids[row] = [positions.of(name) for name in names]
        elif failed.isdisjoint(names):
            reason = f"no features of {' and '.join(map(resolver.describe, missing))}"
            unknown.append(Failure("match", " ".join(pairs[row]), reason))
    known = PairList(list(positions), ids).where(ids.min(1) >= 0)
    matchable = known.where(known.between(images))
    resolved = distinct(matchable, pairs_file.failures)
    return replace(
        resolved,
        duplicates=resolved.duplicates + pairs_file.duplicates,
        reversed=resolved.reversed + pairs_file.reversed,
        self_pairs=resolved.self_pairs + pairs_file.self_pairs,
        unknown=unknown,
        skipped=len(pairs) - len(unknown) - len(matchable),
    )


class _Positions(dict[str, int]):
    """The positions of images in a list, in the order in which they are asked for."""

    def of(self, name: str | None) -> int:
        """Return the position of an image, or -1 for none."""
        return -1 if name is None else self.setdefault(name, len(self))


class _Resolver:
    """Finds the image of a name."""

    def __init__(self, images: Set[str], image_folder: Path | None, real_folder: Callable[[str], str]) -> None:
        self._images = images
        self._real_folder = real_folder
        self._folder = image_folder
        self._folder_parts = _parts(image_folder.as_posix()) if image_folder else None
        self._found: dict[str, str | None] = {}
        self._by_form: dict[str, list[str]] = defaultdict(list)
        for name in images:
            self._by_form[_nfc(name)].append(name)

    def find_pair(self, pair: Pair) -> tuple[list[str], list[str]]:
        """Return the images of a pair, and its names that are of no image.

        If the two words of the line are not two names, they may be one row of a table: 'a, b'.
        """
        missing = self._missing(pair)
        for row in split_columns(" ".join(pair)) if missing else ():
            if len(missing_of_row := self._missing(row)) < len(missing):
                pair, missing = Pair(*row), missing_of_row
        return [image for name in pair if (image := self.find(name)) is not None], missing

    def describe(self, name: str) -> str:
        """Return a name that is of no image, with the reason if it is known."""
        path = name.replace("\\", "/")
        if same := self._same(name):
            return f"{name} ({len(same)} images have this name, in different Unicode normalisations)"
        if _ABSOLUTE.match(path) and not self._below_folder(path) and not self._below_folder(self._real(path)):
            where = f"the photo folder, {self._folder}" if self._folder else "the photo folder, which is unknown"
            return f"{name} (not below {where})"
        parts = _parts(path)
        endings = ("/".join(parts[i:]).casefold() for i in range(len(parts)))
        similar = next((self._ignoring_case[ending] for ending in endings if ending in self._ignoring_case), None)
        return f"{name} (there is {similar})" if similar else name

    @cached_property
    def _ignoring_case(self) -> dict[str, str]:
        return {_nfc(name).casefold(): name for name in sorted(self._images, reverse=True)}

    def _missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self.find(name) is None]

    def find(self, name: str) -> str | None:
        """Return the image of a name; None if there is none, or more than one."""
        if name in self._images:
            return name
        if name not in self._found:
            same = self._same(name)
            self._found[name] = same[0] if len(same) == 1 else None
        return self._found[name]

    def _same(self, name: str) -> list[str]:
        """Return the images of the first spelling of a name that has any."""
        path = name.replace("\\", "/")
        spellings = _nfc(name), self._below_folder(name), self._below_folder(path), self._below_folder(self._real(path))
        return next((self._by_form[spelling] for spelling in spellings if spelling in self._by_form), [])

    def _real(self, path: str) -> str:
        folder, _, file = path.rpartition("/")
        return f"{self._real_folder(folder)}/{file}" if folder and _ABSOLUTE.match(path) else path

    def _below_folder(self, path: str) -> str:
        """Return a path relative to the photo folder; an empty text if it is not below it or not of a file."""
        parts = _parts(path)
        if ".." in parts or path.endswith(("/", "/.")):
            return ""
        if _ABSOLUTE.match(path):
            depth = len(self._folder_parts or ())
            if parts[:depth] != self._folder_parts:
                return ""
            parts = parts[depth:]
        return "/".join(parts)


@lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    return Path(os.path.realpath(folder)).as_posix()


def _nfc(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _parts(path: str) -> list[str]:
    """Return the folders and the file of a path with '/', in the composed form, without '.'."""
    return [part for part in _nfc(path).split("/") if part not in ("", ".")]
