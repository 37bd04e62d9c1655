"""The backend that keeps the points on a device: only decisions and matches are copied to the host.

A stage leaves its outputs on the device, as a DeviceBatch. A DeviceView is one image of such a batch and lists the rows
of its remaining points. When points or pairs leave, the stage `pack` gathers the rest into a new batch on the device;
the host sends it the rows. An unchanged batch goes on without a copy.

All of this is ONNX Runtime's I/O binding, which works alike on a GPU and on the CPU. A run returns once the device has
finished, so that another session may read its outputs at once.

Several threads keep a device busy: while one runs a stage, the others read images, decide on the points of their own
batches and prepare the next run. Stages run one at a time, so that the device holds the intermediate tensors of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from threading import Lock
from typing import Any

import numpy as np

from lgbatch.matching.backend import POINT_TENSORS, BoolArray
from lgbatch.matching.schedule import GPU_PADDING
from lgbatch.runtime.models import Stages
from lgbatch.runtime.registry import INTERFACE
from lgbatch.runtime.session import OnnxSession, Tensor
from lgbatch.types import LongArray

DEVICE_OUTPUTS = frozenset([*POINT_TENSORS, "y0", "y1"])
"""Outputs of stages that stay on the device."""


@dataclass(frozen=True)
class DeviceBatch:
    """The points of a padded batch of images, on the device. Padding is finite, and its values are never used.

    All tensors are float32, or float16 if the stages compute in fp16.
    """

    x: Tensor
    """(B, L, W), embeddings."""
    cosines: Tensor
    sines: Tensor
    """(B, L, D / 2), rotary position encoding."""


@dataclass(frozen=True)
class DeviceView:
    """The points of one image, as rows of a batch on the device. Implements Points."""

    batch: DeviceBatch
    rows: LongArray
    """(N,) int64, rows of the batch's tensors flattened to (B * L, C)."""

    def __len__(self) -> int:
        """Return the number of points, N."""
        return len(self.rows)

    def keep(self, mask: BoolArray) -> "DeviceView":
        """Return the points whose entry in the mask (N,) is true. The device does nothing."""
        return DeviceView(self.batch, self.rows[mask])


class DeviceBackend:
    """Backend[DeviceView]: tensors stay on the device that runs the stages."""

    padding = GPU_PADDING

    def __init__(self, stages: Stages) -> None:
        """Use the sessions of `stages`, which ONNX Runtime must run and which must include `pack`."""
        self._sessions = {
            name: model.session for name, model in stages.models.items() if isinstance(model.session, OnnxSession)
        }
        self._device = Lock()

    def run(self, stage: str, feed: Mapping[str, Any]) -> Sequence[Any]:
        """Run a stage and leave DEVICE_OUTPUTS on the device; see Backend.run."""
        with self._device:
            return self._sessions[stage].run_bound(feed, DEVICE_OUTPUTS)

    def join(self, images: Sequence[DeviceView]) -> list[DeviceView]:
        """Copy the images into one batch, so that `pad` runs `pack` once; see Backend.join."""
        if len({id(image.batch) for image in images}) == 1:
            return list(images)
        return self.split([len(image) for image in images], **self.pad(images, POINT_TENSORS))

    def pad(self, images: Sequence[DeviceView], tensors: Sequence[str]) -> dict[str, Any]:
        """Return the named tensors of the images as device tensors (B, L, C).

        Runs `pack` once for each group of consecutive images that come from one batch.
        """
        if _is_whole_batch(images):
            return {name: getattr(images[0].batch, name) for name in tensors}
        session, length, start = self._sessions["pack"], max(map(len, images)), 0
        outputs = [output for name, output in zip(POINT_TENSORS, INTERFACE["pack"][1], strict=True) if name in tensors]
        widths = [getattr(images[0].batch, name).shape()[2] for name in tensors]
        shapes = zip(outputs, widths, strict=True)
        packed = [session.empty(output, (len(images), length, width)) for output, width in shapes]
        for _, group in groupby(images, key=lambda image: id(image.batch)):
            views = list(group)
            feed = {name: getattr(views[0].batch, name) for name in POINT_TENSORS} | {"rows": _pad(views, length)}
            with self._device:
                session.run_into(feed, dict(zip(outputs, packed, strict=True)), start, len(views))
            start += len(views)
        return dict(zip(tensors, packed, strict=True))

    def split(self, lengths: Sequence[int], x: Tensor, cosines: Tensor, sines: Tensor) -> list[DeviceView]:
        """Split device tensors (B, L, C) into images, which are views of them; see Backend.split."""
        batch, length = DeviceBatch(x, cosines, sines), x.shape()[1]
        return [DeviceView(batch, np.arange(row * length, row * length + n)) for row, n in enumerate(lengths)]


def _pad(views: Sequence[DeviceView], length: int) -> LongArray:
    """Rows of the views as (B, length) int64. Padding is row 0, the first point of their batch."""
    rows = np.zeros((len(views), length), dtype=np.int64)
    for padded, view in zip(rows, views, strict=True):
        padded[: len(view)] = view.rows
    return rows


def _is_whole_batch(views: Sequence[DeviceView]) -> bool:
    """Whether the views are all images of one batch, in order and from their first rows on: it needs no packing."""
    batch = views[0].batch
    count, length, _ = batch.x.shape()
    return (
        len(views) == count
        and max(map(len, views)) == length
        and all(view.batch is batch and _is_contiguous(view, row * length) for row, view in enumerate(views))
    )


def _is_contiguous(view: DeviceView, start: int) -> bool:
    """Whether the rows, which ascend, are start, start + 1, ..."""
    return bool(view.rows[0] == start and view.rows[-1] == start + len(view) - 1)
