"""Photos in a folder: which files there are, and what every later stage calls them."""

import heapq
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lgbatch.errors import InputError
from lgbatch.types import Failure, ImageRef, escape

SUFFIXES = ("jpg", "jpeg", "png", "tif", "tiff", "webp", "bmp", "jp2")
"""What a photo's file name may end with, in any case."""


@dataclass(frozen=True)
class Crawl:
    """What was found below a folder."""

    images: list[ImageRef]
    """Sorted by name, in the order of the characters' code points ('B' before 'a', '10' before '9')."""
    failures: list[Failure]
    """Files whose name cannot be stored, broken links, folders that cannot be read; sorted by name."""


def crawl(folder: Path) -> Crawl:
    """All photos below `folder`, at any depth, known by their suffix; their content is not looked at.

    Names are paths below `folder` with forward slashes. Hidden files and folders (leading dot) are skipped.
    Symbolic links to files and folders are followed, and each real file is listed once: under the name that
    reaches it without a link if there is one, otherwise under the name that sorts first.

    Raises InputError when `folder` is missing, is not a folder, cannot be read, or holds no photo.
    """
    _check_folder(folder)
    walk = _Walk(folder)
    walk.run()
    failures = list(walk.failures)
    images = []
    for (_, _, name), problem in walk.found.values():
        if problem is None:
            images.append(ImageRef(name, folder / name))
        else:
            failures.append(_failure(name, problem))
    failures.sort(key=lambda failure: failure.name)
    if not images:
        why = f": {failures[0].name}: {failures[0].reason}" if failures else ""
        looked_for = ", ".join(SUFFIXES)
        raise InputError(f"no photos in {folder} or its subfolders (looked for {looked_for}){why}")
    return Crawl(sorted(images, key=lambda image: image.name), failures)


def name_problem(name: str) -> str | None:
    """Why the stores, the pairs file or COLMAP could not carry an image's name; None when they can."""
    if not name:
        return "the name is empty"
    kinds = set() if name.isprintable() else {unicodedata.category(c) for c in name}
    if "Cs" in kinds:  # Lone surrogates: how Python spells bytes that are not UTF-8.
        return "the name is not valid UTF-8: rename the file"
    if "Cc" in kinds:
        return "the name holds a control character: rename the file"
    return None


@dataclass
class _Walk:
    """Visits each real folder once: first what lies below `top` itself, then what links lead to, by name."""

    top: Path
    found: dict[str, tuple[tuple[bool, bool, str], str | None]] = field(default_factory=dict)
    """Real path of a photo -> the best (unusable, through a link, name) for it, and what is wrong with it."""
    failures: list[Failure] = field(default_factory=list)
    _links: list[tuple[str, str]] = field(default_factory=list)
    """Heap of (name, path). What a link leads to sorts after the link, so links come in name order."""

    def run(self) -> None:
        """Fills `found` and `failures`. Raises InputError when `top` itself cannot be read."""
        visited: set[str] = set()
        self._folders("", os.path.realpath(self.top), visited, linked=False)
        while self._links:
            name, path = heapq.heappop(self._links)
            try:
                is_folder = stat.S_ISDIR(Path(path).stat().st_mode)
            except OSError as error:
                if _is_photo(name):
                    self.failures.append(_failure(name, f"the link leads nowhere: {error.strerror}"))
                continue
            if is_folder:
                self._folders(f"{name}/", os.path.realpath(path), visited, linked=True)
            elif _is_photo(name):
                self._photo(name, os.path.realpath(path), linked=True)

    def _folders(self, prefix: str, real: str, visited: set[str], *, linked: bool) -> None:
        """Visits a folder and all below it. `prefix` is its name with a slash, `real` its real path."""
        todo = [(prefix, real)]
        while todo:
            prefix, real = todo.pop()
            if real in visited:
                continue
            visited.add(real)
            for entry in self._entries(prefix, real):
                name = prefix + entry.name
                if entry.is_symlink():
                    heapq.heappush(self._links, (name, entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    todo.append((f"{name}/", entry.path))
                elif _is_photo(name):
                    self._photo(name, entry.path, linked=linked)

    def _entries(self, prefix: str, real: str) -> Iterator["os.DirEntry[str]"]:
        try:
            with os.scandir(real) as entries:
                yield from (entry for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            if not prefix:
                raise InputError(f"cannot read the folder {self.top}: {error.strerror}") from None
            self.failures.append(_failure(prefix, f"the folder cannot be read: {error.strerror}"))

    def _photo(self, name: str, real: str, *, linked: bool) -> None:
        problem = name_problem(name) or (None if Path(real).is_file() else "not a regular file")
        rank = (problem is not None, linked, name)
        if real not in self.found or rank < self.found[real][0]:
            self.found[real] = (rank, problem)


def _is_photo(name: str) -> bool:
    return PurePosixPath(name).suffix[1:].lower() in SUFFIXES


def _failure(name: str, reason: str) -> Failure:
    return Failure("crawl", escape(name), reason)


def _check_folder(folder: Path) -> None:
    try:
        mode = folder.stat().st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot open the photo folder {folder}: {reason}") from None
    if not stat.S_ISDIR(mode):
        hint = f": give its folder, {folder.parent}" if _is_photo(folder.name) else ", not a folder of photos"
        raise InputError(f"{folder} is a {'photo' if _is_photo(folder.name) else 'file'}{hint}")
