"""List the photos below a folder, and give each its image name."""

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
"""File name extensions of photos, matched case-insensitively."""


@dataclass(frozen=True)
class Crawl:
    """The photos below a folder."""

    images: list[ImageRef]
    """Sorted by name, in the order of the characters' code points ('B' before 'a', '10' before '9')."""
    failures: list[Failure]
    """Files with unusable names, broken links and unreadable folders, sorted by name."""


def crawl(folder: Path) -> Crawl:
    """List all photos below `folder`, at any depth. They are recognised by extension; files are not opened.

    Names are paths relative to `folder`, with forward slashes. Hidden files and folders (leading dot) are
    skipped. Symbolic links are followed, and each real file is listed once: under its path without links if
    there is one, otherwise under the name that sorts first.

    Raises InputError if `folder` is missing, is not a folder, cannot be read, or contains no usable photo.
    """
    _check_folder(folder)
    walk = _Walk(folder)
    walk.run()
    failures = list(walk.failures)
    images = []
    for (_, _, name), problem in walk.photos.values():
        if problem is None:
            images.append(ImageRef(name, folder / name))
        else:
            failures.append(_failure(name, problem))
    failures.sort(key=lambda failure: failure.name)
    if not images:
        first_failure = f": {failures[0].name}: {failures[0].reason}" if failures else ""
        extensions = ", ".join(SUFFIXES)
        raise InputError(f"no photos in {folder} or its subfolders (looked for {extensions}){first_failure}")
    return Crawl(sorted(images, key=lambda image: image.name), failures)


def name_problem(name: str) -> str | None:
    """Return why the stores, the pairs file or COLMAP cannot represent an image name, or None if they can."""
    if not name:
        return "the name is empty"
    categories = set() if name.isprintable() else {unicodedata.category(c) for c in name}
    if "Cs" in categories:  # Lone surrogates: Python decodes invalid UTF-8 in file names to these.
        return "the name is not valid UTF-8: rename the file"
    if "Cc" in categories:
        return "the name holds a control character: rename the file"
    return None


@dataclass
class _Walk:
    """Visits each real folder once: first the folders below `top`, then the targets of links in name order."""

    top: Path
    photos: dict[str, tuple[tuple[bool, bool, str], str | None]] = field(default_factory=dict)
    """Real path of a photo -> its best (unusable, reached through a link, name), and the problem with that name."""
    failures: list[Failure] = field(default_factory=list)
    _links: list[tuple[str, str]] = field(default_factory=list)
    """Heap of (name, path). Links below a linked folder sort after the link itself, so names are popped in order."""

    def run(self) -> None:
        """Fill `photos` and `failures`. Raises InputError if `top` cannot be read."""
        visited: set[str] = set()
        self._visit_folders("", os.path.realpath(self.top), visited, linked=False)
        while self._links:
            name, path = heapq.heappop(self._links)
            try:
                is_folder = stat.S_ISDIR(Path(path).stat().st_mode)
            except OSError as error:
                if _is_photo(name):
                    self.failures.append(_failure(name, f"broken link: {error.strerror}"))
                continue
            if is_folder:
                self._visit_folders(f"{name}/", os.path.realpath(path), visited, linked=True)
            elif _is_photo(name):
                self._add_photo(name, os.path.realpath(path), linked=True)

    def _visit_folders(self, prefix: str, real_path: str, visited: set[str], *, linked: bool) -> None:
        """Visit a folder and all folders below it. `prefix` is the folder's name with a trailing slash."""
        pending = [(prefix, real_path)]
        while pending:
            prefix, real_path = pending.pop()
            if real_path in visited:
                continue
            visited.add(real_path)
            for entry in self._entries(prefix, real_path):
                name = prefix + entry.name
                if entry.is_symlink():
                    heapq.heappush(self._links, (name, entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    pending.append((f"{name}/", entry.path))
                elif _is_photo(name):
                    self._add_photo(name, entry.path, linked=linked)

    def _entries(self, prefix: str, real_path: str) -> Iterator["os.DirEntry[str]"]:
        try:
            with os.scandir(real_path) as entries:
                yield from (entry for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            if not prefix:
                raise InputError(f"cannot read the folder {self.top}: {error.strerror}") from None
            self.failures.append(_failure(prefix, f"the folder cannot be read: {error.strerror}"))

    def _add_photo(self, name: str, real_path: str, *, linked: bool) -> None:
        problem = name_problem(name) or (None if Path(real_path).is_file() else "not a regular file")
        rank = (problem is not None, linked, name)
        if real_path not in self.photos or rank < self.photos[real_path][0]:
            self.photos[real_path] = (rank, problem)


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
