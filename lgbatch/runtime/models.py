"""Open models and check that they are the ones that the settings need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.kernels import aliked, disk, lightglue
from lgbatch.runtime.cuda import free_memory
from lgbatch.runtime.devices import Device, choose_device, extraction_device, matching_device
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.precision import extractor_kind, matching_precision, stages_kind
from lgbatch.runtime.registry import INTERFACE, PACK, Shape, family, model_path, shape, stage_file, stage_names
from lgbatch.runtime.session import Array, OnnxSession, Session

KERNEL_SESSIONS: dict[str, Callable[[Path], Session]] = {"aliked": aliked.Aliked, "disk": disk.Disk}
"""The networks of registry.KERNEL_EXTRACTORS, by family."""


@dataclass(frozen=True)
class Model:
    """An opened model."""

    session: Session
    path: Path

    @property
    def device(self) -> Device:
        """The device that runs the model."""
        return self.session.device

    @property
    def weights(self) -> str:
        """SHA-256 of the weights that the model was exported from."""
        return self.session.metadata["lgbatch.weights_sha256"]

    @property
    def family(self) -> str:
        """Family of extractors that the model belongs to; see registry.family."""
        return family(self.session.metadata["lgbatch.extractor"])

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Run the model on named arrays. Returns the outputs in the order of INTERFACE.

        Raises RuntimeError if the run fails.
        """
        return self.session.run(feed)


@dataclass(frozen=True)
class Stages:
    """The opened staged matcher: LightGlue with one model per layer, so that pairs can exit early."""

    models: Mapping[str, Model]
    """Models by the names of stage_names() and PACK."""
    precision: str
    """fp32, fp16 or int8."""
    shape: Shape
    memory: int = 0
    """Free GPU memory in bytes after opening; 0 on the CPU."""

    @property
    def device(self) -> Device:
        """The device of all stages; the CPU if any stage fell back to it, so that tensors stay on the host."""
        devices = {model.device for model in self.models.values()}
        return "cpu" if "cpu" in devices else self.models["stem"].device

    @property
    def weights(self) -> str:
        """SHA-256 of the weights that the models were exported from."""
        return self.models["stem"].weights

    def run(self, stage: str, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Run a stage; see Model.run. Entries of `feed` that are no inputs of the stage are ignored."""
        model = self.models[stage]
        return model.run({name: feed[name] for name in model.session.inputs})

    def shrink(self) -> None:
        """Return the memory that earlier, larger batches took to the device."""
        session = self.models["pack"].session if "pack" in self.models else None
        if isinstance(session, OnnxSession):
            widths = {"x": self.shape.width, "cosines": self.shape.head_dim // 2, "sines": self.shape.head_dim // 2}
            feed: dict[str, Array] = {name: np.zeros((1, 1, n), session.number(name)) for name, n in widths.items()}
            session.shrink(feed | {"rows": np.zeros((1, 1), np.int64)})


def open_extractor(folder: Path, settings: Settings, threads: int = 0) -> Model:
    """Open and check an extractor.

    On the CPU, networks that lgbatch.kernels has run there (precision.extractor_kind), each call on the core of the
    calling thread. ONNX Runtime always computes in single precision, to reproduce the keypoints of the reference. It
    has `threads` threads on the CPU, the calling one included; 0 means all of the settings, as on other devices.

    Raises ModelError if the model is missing, damaged, or of another extractor or kind.
    """
    kind, device = extractor_kind(settings), extraction_device(settings.device, settings.extractor)
    path = model_path(folder, settings.extractor, kind)
    most = settings.threads or available_cores()
    used = threads if threads and device == "cpu" else most
    model = _open(path, settings.extractor, kind, device, threads=used, max_side=settings.resize)
    if device != "cpu" and model.device == "cpu" and threads not in (0, most):
        return _open(path, settings.extractor, kind, "cpu", threads=threads, max_side=settings.resize)
    return model


def open_matcher(folder: Path, settings: Settings) -> Model:
    """Open and check the single-graph matcher of an extractor. Raises ModelError as open_extractor."""
    device = matching_device(choose_device(settings.device))
    path, threads = model_path(folder, settings.extractor, "matcher"), settings.threads or available_cores()
    return _open(path, settings.extractor, "matcher", device, threads=threads)


def open_file(path: Path, kind: Literal["extractor", "matcher", "end2end"], device: Device, *, threads: int) -> Model:
    """Open and check the model in a file, for any extractor. Raises ModelError as open_extractor."""
    return _open(path, None, kind, device, threads=threads)


def open_stages(folder: Path, settings: Settings, *, device_id: int = 0) -> Stages:
    """Open and check the staged matcher of an extractor. `device_id` selects the GPU.

    If an fp16 GPU session cannot be created, fall back to the CPU at its default precision.

    On the CPU each stage runs in the calling thread: many small sessions with their own thread pools compete for the
    cores, one worker per core does not (measured). In int8 all stages run in lgbatch.kernels.

    Raises ModelError as open_extractor and matching_precision.
    """
    device, precision = matching_device(choose_device(settings.device)), matching_precision(settings)
    path = model_path(folder, settings.extractor, stages_kind(settings))
    dimensions = shape(settings.extractor)
    kinds = stage_names(dimensions.layers) | ({} if precision == "int8" else PACK)
    models = {
        stage: _open(
            path / stage_file(stage, precision),
            settings.extractor,
            kind,
            device,
            shared_arena=True,
            device_id=device_id,
        )
        for stage, kind in kinds.items()
    }
    stages = Stages(models, precision, dimensions)
    if stages.device != "cpu":
        return replace(stages, memory=free_memory(device_id))
    if precision == "fp16":
        return open_stages(folder, replace(settings, device="cpu", precision="auto"))
    return stages


def _open(
    path: Path,
    extractor: str | None,
    kind: str,
    device: Device,
    *,
    threads: int = 1,
    max_side: int = 0,
    shared_arena: bool = False,
    device_id: int = 0,
) -> Model:
    """Open and check a file, of any extractor if `extractor` is None. Raises ModelError. See OnnxSession."""
    export_hint = f"run `lgbatch export {extractor or 'EXTRACTOR'}`"
    if not path.is_file():
        raise ModelError(f"no {path.name} in {path.parent}: {export_hint}")
    session: Session
    try:
        if path.suffix == ".npz":
            session = _open_in_kernels(path, extractor, kind)
        else:
            session = OnnxSession(
                path, device, threads=threads, shared_arena=shared_arena, max_side=max_side, device_id=device_id
            )
    except Exception as error:  # each runtime has its own exceptions
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} cannot be opened ({reason}): delete it and {export_hint}") from None
    _check(session, path, extractor, kind, f"delete it and {export_hint}")
    return Model(session, path)


def _open_in_kernels(path: Path, extractor: str | None, kind: str) -> Session:
    if kind == "extractor-kernels":
        return KERNEL_SESSIONS[family(str(extractor))](path)
    return lightglue.open_stage(path, kind)


def _check(session: Session, path: Path, extractor: str | None, kind: str, way_out: str) -> None:
    """Raise ModelError unless the model is of this kind and extractor, with the inputs and outputs of INTERFACE."""
    actual_kind = session.metadata.get("lgbatch.kind")
    actual_extractor = session.metadata.get("lgbatch.extractor")
    if actual_kind is None:
        raise ModelError(f"{path} was not made by lgbatch: {way_out}")
    actual = f"{path} is the {actual_kind} of {actual_extractor}"
    if extractor is None and actual_kind != kind:
        raise ModelError(f"{actual}, not a model of the kind {kind}: give another file")
    owner = extractor if extractor is None or kind.startswith("extractor") else family(extractor)
    if owner is not None and (actual_kind, actual_extractor) != (kind, owner):
        raise ModelError(f"{actual}, not the {kind} of {owner}: {way_out}")
    inputs, outputs = INTERFACE[kind]
    constants = {"max_keypoints"} if kind == "end2end" else set()  # an input unless `lgbatch export` fixed its value
    if {*session.inputs} | constants != {*inputs} or session.outputs != outputs:
        raise ModelError(f"{path} has inputs or outputs that do not fit its metadata: {way_out}")
