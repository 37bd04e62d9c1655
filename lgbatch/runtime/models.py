"""Finds, checks and opens the models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.kernels import stages as kernels
from lgbatch.runtime.cuda import free_memory
from lgbatch.runtime.devices import UNFIT, Device, choose, fall_back, for_matching
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.precision import matching_precision, stages_kind
from lgbatch.runtime.registry import INTERFACE, PACK, Shape, family, model_path, shape, stage_file, stage_names
from lgbatch.runtime.session import Array, OnnxSession, Session


@dataclass(frozen=True)
class Model:
    """An opened model: named arrays in, arrays out."""

    session: Session
    path: Path

    @property
    def device(self) -> Device:
        """Where it runs."""
        return self.session.device

    @property
    def weights(self) -> str:
        """sha256 of the weights that it was made from."""
        return self.session.metadata["lgbatch.weights_sha256"]

    @property
    def family(self) -> str:
        """Whose features it makes or takes, as `family` tells."""
        return family(self.session.metadata["lgbatch.extractor"])

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Outputs in the order of INTERFACE; raises RuntimeError when the run fails."""
        return self.session.run(feed)


@dataclass(frozen=True)
class Stages:
    """LightGlue in stages, opened."""

    models: Mapping[str, Model]
    """By stage_names() and PACK."""
    precision: str
    """fp32, fp16 or int8."""
    shape: Shape
    memory: int = 0
    """Bytes that were free on the GPU when they had been opened; 0 on a CPU."""

    @property
    def device(self) -> Device:
        """Where they run; the CPU where one of them has to, so that what goes between them comes to the host."""
        devices = {model.device for model in self.models.values()}
        return "cpu" if "cpu" in devices else self.models["stem"].device

    @property
    def weights(self) -> str:
        """sha256 of the weights that they were made from."""
        return self.models["stem"].weights

    def run(self, stage: str, feed: Mapping[str, Array]) -> Sequence[Array]:
        """As Model.run; what the stage does not take is left."""
        model = self.models[stage]
        return model.run({name: feed[name] for name in model.session.inputs})

    def shrink(self) -> None:
        """Give the device back what batches have taken that were larger."""
        session = self.models["pack"].session if "pack" in self.models else None
        if isinstance(session, OnnxSession):
            widths = {"x": self.shape.width, "cosines": self.shape.head_dim // 2, "sines": self.shape.head_dim // 2}
            feed: dict[str, Array] = {name: np.zeros((1, 1, width), np.float32) for name, width in widths.items()}
            session.shrink(feed | {"rows": np.zeros((1, 1), np.int64)})


def open_extractor(folder: Path, settings: Settings) -> Model:
    """Open and check an extractor. Raises ModelError: missing, damaged, another's.

    It computes in single precision always: keypoints are to be the reference's.
    """
    path, device = model_path(folder, settings.extractor, "extractor"), choose(settings.device)
    if family(settings.extractor) in UNFIT.get(device, ()):
        fall_back(path, device, "its keypoints would come out wrong")
        device = "cpu"
    threads = settings.threads or available_cores()
    return _open(path, settings.extractor, "extractor", device, threads=threads, side=settings.resize)


def open_matcher(folder: Path, settings: Settings) -> Model:
    """Open and check the single-graph matcher of an extractor. Raises ModelError as open_extractor."""
    path, device = model_path(folder, settings.extractor, "matcher"), for_matching(choose(settings.device))
    return _open(path, settings.extractor, "matcher", device, threads=settings.threads or available_cores())


def open_file(path: Path, kind: Literal["extractor", "matcher", "end2end"], device: Device, *, threads: int) -> Model:
    """Open and check a model wherever it lies, of whatever extractor. Raises ModelError as open_extractor."""
    return _open(path, None, kind, device, threads=threads)


def open_stages(folder: Path, settings: Settings, *, number: int = 0) -> Stages:
    """Open and check the staged matcher of an extractor. Raises ModelError as open_extractor and matching_precision.

    `number` is the GPU's. Where half precision was meant for one that does not start, the CPU takes what it is best in.

    On CPU each stage runs in the thread that calls it: many small sessions with thread pools of their own fight for
    the cores, while one worker per core does not (measured). In int8 all but the stem is run by kernels.py.
    """
    device, precision = for_matching(choose(settings.device)), matching_precision(settings)
    path = model_path(folder, settings.extractor, stages_kind(settings))
    size = shape(settings.extractor)
    stages = stage_names(size.layers) | ({} if precision == "int8" else PACK)
    models = {
        stage: _open(
            path / stage_file(stage, kind, precision), settings.extractor, kind, device, stage=True, number=number
        )
        for stage, kind in stages.items()
    }
    opened = Stages(models, precision, size)
    if opened.device == "cpu":
        cpu = replace(settings, device="cpu", precision="auto")
        return opened if precision != "fp16" else open_stages(folder, cpu)
    return replace(opened, memory=free_memory(number))


def _open(
    path: Path,
    extractor: str | None,
    kind: str,
    device: Device,
    *,
    threads: int = 1,
    side: int = 0,
    stage: bool = False,
    number: int = 0,
) -> Model:
    """Open and check a file; a stage shares its memory with the others on the device of that number.

    Without an extractor it may be of any.
    """
    again = f"run `lgbatch export {extractor or 'EXTRACTOR'}`"
    if not path.is_file():
        raise ModelError(f"no {path.name} in {path.parent}: {again}")
    session: Session
    try:
        if path.suffix == ".npz":
            session = kernels.Head(path) if kind == "head" else kernels.Layer(path)
        else:
            session = OnnxSession(path, device, threads=threads, shared=stage, side=side, number=number)
    except Exception as error:  # each runtime has exceptions of its own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} cannot be opened ({reason}): delete it and {again}") from None
    found = session.metadata.get("lgbatch.kind"), session.metadata.get("lgbatch.extractor")
    if found[0] is None:
        raise ModelError(f"{path} was not made by lgbatch: delete it and {again}")
    if extractor is None and found[0] != kind:
        raise ModelError(f"{path} is a {found[1]} {found[0]}, not a model of the kind {kind}: give another file")
    owner = extractor if extractor is None or kind == "extractor" else family(extractor)
    if owner is not None and found != (kind, owner):
        raise ModelError(f"{path} is a {found[1]} {found[0]}, not a {owner} {kind}: delete it and {again}")
    inputs, outputs = INTERFACE[kind]
    constant = {"max_keypoints"} if kind == "end2end" else set()  # where `lgbatch export --max-keypoints` made it one
    if {*session.inputs} | constant != {*inputs} or session.outputs != outputs:
        raise ModelError(f"{path} has other inputs or outputs than its metadata says: delete it and {again}")
    return Model(session, path)
