"""The photos to localize, and their names."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lgbatch.errors import InputError
from lgbatch.photos.crawl import crawl
from lgbatch.types import Failure, ImageRef, escape, name_problem


@dataclass(frozen=True)
class Queries:
    """Photos below one folder, from which they have their names."""

    folder: Path
    refs: Sequence[ImageRef]
    failures: Sequence[Failure]
    registered: Sequence[str]
    """Photos that are in the model already."""


def find_queries(paths: Sequence[Path], photos: Path | None, registered: Collection[str]) -> Queries:
    """List photos and folders of photos.

    Names of new photos are paths below `photos`, the folder of the model's photos, if all are there; else below the
    folder that all are in. Raises InputError if there is no photo, or one does not exist.
    """
    found: dict[Path, ImageRef] = {}
    failures: list[Failure] = []
    for path in (Path(os.path.abspath(path)) for path in paths):  # noqa: PTH100  links stay, as in crawl
        if path.is_dir():
            crawled = crawl(path)
            found |= {path / ref.name: ref for ref in crawled.images}
            failures += crawled.failures
        elif path.is_file():
            found[path] = ImageRef(path.name, path)
        else:
            raise InputError(f"there is no photo or folder {path}: give the photos to localize")
    root = Path(os.path.abspath(photos)) if photos else None  # noqa: PTH100
    names = {file: file.relative_to(root).as_posix() for file in found if root and file.is_relative_to(root)}
    known = {file: name for file, name in names.items() if name in registered}
    new = [file for file in found if file not in known]
    folder = root if root and all(file in names for file in new) else _common_folder(new)
    refs = [replace(found[file], name=file.relative_to(folder).as_posix()) for file in new]
    for ref in refs:
        if problem := name_problem(ref.name):
            raise InputError(f"{escape(ref.name)}: {problem}")
    return Queries(folder, sorted(refs, key=lambda ref: ref.name), failures, sorted(known.values()))


def _common_folder(files: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([file.parent for file in files]))
