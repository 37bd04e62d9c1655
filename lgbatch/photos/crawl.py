"""List the photos below a folder, and give each its image name."""

import heapq
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lgbatch.errors import InputError
from lgbatch.photos.decode import DecodedPhotos
from lgbatch.photos.formats import SUFFIXES, format_left_out, holds_no_photos, is_left_out, is_photo, is_raw, suffix
from lgbatch.types import Failure, ImageRef, escape, name_problem


@dataclass(frozen=True)
class Crawl:
    """The photos below a folder."""

    images: list[ImageRef]
    """Sorted by name, in the order of the characters' code points ('B' before 'a', '10' before '9')."""
    failures: list[Failure]
    """Files with unusable names, broken links and unreadable folders, sorted by name."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Number of images in formats that lgbatch or the installed packages do not read, by extension."""
    decoded: DecodedPhotos = field(default_factory=DecodedPhotos, compare=False, repr=False)
    """Photos that are decoded already."""


def crawl(folder: Path) -> Crawl:
    """List all photos below `folder`, at any depth. They are recognised by extension; files are not opened.

    Names are paths relative to `folder`, with forward slashes. Hidden files and folders (leading dot), folders of
    thumbnails, and raw photos beside a photo of the same name are skipped. Symbolic links are followed, and each real
    file is listed once: under its path without links if there is one, otherwise under the name that sorts first.

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
        details = [f"left out {format_left_out(walk.left_out)}"] if walk.left_out else []
        details += [f"{failure.name}: {failure.reason}" for failure in failures[:1]]
        extensions = ", ".join(SUFFIXES)
        raise InputError(": ".join([f"no photos in {folder} or its subfolders (looked for {extensions})", *details]))
    images = _without_raw_copies(images)
    return Crawl(sorted(images, key=lambda image: image.name), failures, walk.left_out)


@dataclass
class _Walk:
    """Visits each real folder once: first the folders below `top`, then the targets of links in name order."""

    top: Path
    photos: dict[str, tuple[tuple[bool, bool, str], str | None]] = field(default_factory=dict)
    """Real path of a photo -> its best (unusable, reached through a link, name), and the problem with that name."""
    failures: list[Failure] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
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
                if is_photo(name):
                    self.failures.append(_failure(name, f"broken link: {error.strerror}"))
                continue
            if is_folder:
                self._visit_folders(f"{name}/", os.path.realpath(path), visited, linked=True)
            elif is_photo(name):
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
                    if not holds_no_photos(entry.name):
                        pending.append((f"{name}/", entry.path))
                elif is_photo(name):
                    self._add_photo(name, entry.path, linked=linked)
                elif is_left_out(name):
                    self.left_out[suffix(name)] = self.left_out.get(suffix(name), 0) + 1

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


def _without_raw_copies(images: list[ImageRef]) -> list[ImageRef]:
    """Drop the raw photos that a camera has also written in another format."""
    others = {PurePosixPath(image.name).with_suffix("") for image in images if not is_raw(image.name)}
    return [
        image for image in images if not is_raw(image.name) or PurePosixPath(image.name).with_suffix("") not in others
    ]


def _failure(name: str, reason: str) -> Failure:
    return Failure("crawl", escape(name), reason)


def _check_folder(folder: Path) -> None:
    try:
        mode = folder.stat().st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot open the photo folder {folder}: {reason}; check its path and permissions") from None
    if not stat.S_ISDIR(mode):
        hint = f": give its folder, {folder.parent}" if is_photo(folder.name) else ": give the folder of the photos"
        raise InputError(f"{folder} is a {'photo' if is_photo(folder.name) else 'file'}{hint}")
