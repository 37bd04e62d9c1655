"""Entry points of the export: find the weights, write the ONNX models, compare them with the PyTorch reference.

Importing this module does not import torch; the functions that export do.
"""

import contextlib
import importlib.util
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lgbatch._version import __version__
from lgbatch.errors import ModelError, WorkspaceError
from lgbatch.export.extractors import EXTRACTORS, exported_kinds, role
from lgbatch.export.weights.catalog import WEIGHTS, Weights
from lgbatch.export.weights.find import find_weights
from lgbatch.export.weights.state import load_state
from lgbatch.runtime.packages import installation_command
from lgbatch.runtime.registry import FP32_ONLY, Kind, family, model_path, precision_of
from lgbatch.workspace.lock import locked

if TYPE_CHECKING:
    from lgbatch.export.build import Content
    from lgbatch.export.portable import PortableOptions
    from lgbatch.export.reference import State

PACKAGES = ("torch", "onnx", "onnxscript")
"""Packages that the export imports."""
Log = Callable[[str], None]
_DRAFT = ".draft-"
"""Prefix of the temporary folders of exports."""
_exporting = threading.RLock()


def print_to_stderr(line: str) -> None:
    """Print a line to standard error: standard output carries results."""
    print(line, file=sys.stderr)


@dataclass(frozen=True)
class ExportedModel:
    """A model that was written."""

    path: Path
    parity: dict[str, float]
    """Differences from the PyTorch reference, by name: see lgbatch.export.parity."""


def ensure_models(folder: Path, extractor: str, kinds: Sequence[Kind], log: Log = print_to_stderr) -> None:
    """Export an extractor's models if any of `kinds` is missing in `folder`.

    If another process is exporting to `folder`, log one line and wait for it; then export what is still missing. Kinds
    that do not exist for the extractor are ignored. Raises ModelError if matching is requested and no LightGlue is
    published for the extractor, if packages for the export are missing, and as `export`.
    """
    if "matcher" not in EXTRACTORS[extractor] and any(role(kind) == "matcher" for kind in kinds):
        raise ModelError(
            f"no LightGlue has been published for {extractor}: use it with `lgbatch extract` only, or choose another "
            "--extractor to match or reconstruct"
        )
    paths = [model_path(folder, extractor, kind) for kind in kinds if kind in exported_kinds(extractor)]
    missing = [path for path in paths if not path.exists()]
    if not missing:
        return
    if _missing_package():
        names = " and ".join(path.name for path in missing)
        raise ModelError(
            f"no {extractor} models yet: run `{installation_command()}` and `lgbatch export {extractor}`, "
            f"once per machine, or copy {names} from a machine that has them into {folder}"
        )
    with _locked(folder, log):
        if not all(path.exists() for path in missing):
            log(f"Exporting the {extractor} models to {folder}, once per machine")
            export(folder, extractor, overwrite=False, log=log)


def export(
    folder: Path,
    extractor: str,
    *,
    weights: Path | None = None,
    overwrite: bool = True,
    log: Log = print_to_stderr,
) -> list[ExportedModel]:
    """Write the ONNX models of an extractor and of its LightGlue to `folder`, and compare each with the reference.

    weights: a file or folder to read the weights from, instead of the cache and the download. overwrite: whether to
    replace existing models; extractors of one family share their LightGlue models. One process at a time exports to a
    folder; others log one line and wait.
    Raises ModelError if the weights are missing or wrong, a package is missing, `folder` cannot be written, or a model
    differs from the reference by more than rounding.
    """
    _check_packages()
    with _locked(folder, log):
        kinds = [k for k in exported_kinds(extractor) if overwrite or not model_path(folder, extractor, k).exists()]
        return [_export_kind(folder, extractor, kind, weights, log) for kind in kinds]


@contextlib.contextmanager
def _locked(folder: Path, log: Log) -> Iterator[None]:
    """Lock the model folder; wait if another process holds it. Remove the drafts of exports that were killed."""
    try:
        with _exporting, locked(folder, create=True, waiting=log):
            for draft in folder.glob(f"{_DRAFT}*"):
                shutil.rmtree(draft, ignore_errors=True)
            yield
    except WorkspaceError as error:
        reason = str(error).partition(";")[0].partition(": choose")[0]
        raise ModelError(f"cannot write models to {folder} ({reason}): choose another with --models") from None


def _export_kind(folder: Path, extractor: str, kind: Kind, weights: Path | None, log: Log) -> ExportedModel:
    file = WEIGHTS[EXTRACTORS[extractor][role(kind)]]
    owner = _owner(extractor, kind)
    log(f"{owner} {kind}: exporting {file.name} ({file.license})")  # show the licence before the download
    state = load_state(find_weights(file, path=weights, cache=folder / "weights"))
    try:
        exported = write(folder, extractor, kind, state, {"weights": file.name, "weights_sha256": file.sha256})
    except KeyError as error:
        raise ModelError(f"{file.name} has no entry {error}: it does not hold the weights of {extractor}") from None
    figures = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in exported.parity.items())
    log(f"{owner} {kind}: {exported.path}; against PyTorch: {figures}")
    return exported


def write(folder: Path, extractor: str, kind: Kind, state: "State", source: Mapping[str, str]) -> ExportedModel:
    """Export one model from a state dict, compare it with the reference, and move it into `folder`.

    source: "weights" (file name) and "weights_sha256", for the metadata. A folder of stages replaces the old one.
    Raises ModelError if the model differs from the reference, KeyError if the state dict belongs to another network.
    """
    from lgbatch.export.build import build, compare

    metadata = {
        "lgbatch.version": __version__,
        "lgbatch.extractor": _owner(extractor, kind),
        **{f"lgbatch.{key}": value for key, value in source.items()},
        "lgbatch.settings": json.dumps({"precision": precision_of(kind)}),
    }
    path = model_path(folder, extractor, kind)
    files = build(extractor, kind, state)
    with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=folder) as drafts:
        draft = Path(drafts) / path.name
        _save_files(draft, files, metadata)
        parity = compare(extractor, kind, draft, state)
        _save_files(draft, files, metadata, {"lgbatch.parity": json.dumps(parity)})
        if path.is_dir():
            path.replace(Path(drafts) / "old")
        draft.replace(path)
    return ExportedModel(path, parity)


def _save_files(
    path: Path,
    files: "Mapping[str, tuple[str, Content]]",
    metadata: Mapping[str, str],
    parity: Mapping[str, str] | None = None,
) -> None:
    from lgbatch.export.build import save

    for name, (graph, content) in files.items():
        save(content, path / name, {**metadata, "lgbatch.kind": graph, **(parity or {})})


def export_portable(
    output: Path,
    extractor: str,
    *,
    end2end: bool = False,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    max_keypoints: int | None = None,
    opset: int | None = None,
    weights: Path | None = None,
    models: Path,
    log: Log = print_to_stderr,
) -> list[Path]:
    """Write models for other programs to the folder `output`. Returns their paths.

    The options are those of portable.PortableOptions. weights: as for `export`. models: the model folder, whose
    subfolder `weights` caches the weights. These models are not compared with the reference.
    Raises ModelError as `export`, and if the extractor has no model with these options.
    """
    _check_packages()
    _check_portable(extractor, end2end, precision)
    from lgbatch.export.portable import PortableOptions

    options = PortableOptions(
        end2end=end2end, precision=precision, size=size, batch=batch, max_keypoints=max_keypoints, opset=opset
    )
    settings = {"precision": precision, "size": size, "batch": batch, "max_keypoints": max_keypoints, "opset": opset}
    files = {name: WEIGHTS[file] for name, file in EXTRACTORS[extractor].items()}
    states = {}
    for name, file in files.items():
        states[name] = load_state(find_weights(file, path=weights, cache=models / "weights"))
        log(f"{extractor} {name}: {file.name} ({file.license})")
    try:
        paths = _write_portable(output, extractor, options, states, files, json.dumps(settings))
    except KeyError as error:
        raise ModelError(f"the weights have no entry {error}: they are not the weights of {extractor}") from None
    except OSError as error:
        raise ModelError(f"cannot write models to {output} ({error.strerror}): choose another with --output") from None
    for path in paths:
        log(str(path))
    return paths


def _check_portable(extractor: str, end2end: bool, precision: str) -> None:
    roles = EXTRACTORS[extractor]
    if "matcher" not in roles and end2end:
        raise ModelError(f"no LightGlue has been published for {extractor}: export it without --end2end")
    if "extractor" not in roles and end2end:
        raise ModelError(f"{extractor} is not a network: export its LightGlue without --end2end")
    if precision == "int8" and ("matcher" not in roles or family(extractor) in FP32_ONLY):
        raise ModelError(
            f"int8 is not available for {extractor}: it needs a LightGlue of embedding dimension 256; export without "
            "--int8"
        )


def _write_portable(
    output: Path,
    extractor: str,
    options: "PortableOptions",
    states: Mapping[str, "State"],
    files: Mapping[str, Weights],
    settings: str,
) -> list[Path]:
    """Build and write the models; files and states are by role, settings is the JSON for the metadata."""
    from lgbatch.export.onnx_graph import save
    from lgbatch.export.portable import build

    written = []
    for name, kind, model in build(extractor, options, states.get("extractor"), states.get("matcher")):
        roles = ["extractor", "matcher"] if kind == "end2end" else ["extractor" if kind == "extractor" else "matcher"]
        sources = [files[name] for name in roles]
        metadata = {
            "lgbatch.version": __version__,
            "lgbatch.kind": kind,
            "lgbatch.extractor": extractor if kind in ("extractor", "end2end") else family(extractor),
            "lgbatch.weights": ", ".join(file.name for file in sources),
            "lgbatch.weights_sha256": ", ".join(file.sha256 for file in sources),
            "lgbatch.license": "; ".join(file.license for file in sources),
            "lgbatch.settings": settings,
        }
        path = output / f"{name}.onnx"
        draft = path.with_name(f".{path.name}.partial")
        save(model, draft, metadata)
        draft.replace(path)
        written.append(path)
    return written


def _owner(extractor: str, kind: Kind) -> str:
    """Return the extractor, or for LightGlue, which the extractors of a family share, the family."""
    return extractor if role(kind) == "extractor" else family(extractor)


def _check_packages() -> None:
    if package := _missing_package():
        raise ModelError(f"export needs {package}: run `{installation_command()}`")


def _missing_package() -> str | None:
    return next((package for package in PACKAGES if importlib.util.find_spec(package) is None), None)
