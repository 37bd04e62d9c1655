"""The backends that run the stages of LightGlue and hold the tensors of its points between the stages.

Matcher (lightglue.py) decides which points and pairs go on; it never reads the tensors. A Backend batches them, splits
the batches, and runs the stages. HostBackend holds NumPy arrays; device_backend.py keeps the tensors on a GPU.

B is the number of images in a batch, L its padded length, N the number of points of an image, W the embedding
dimension, D the head dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lgbatch.matching.schedule import MAX_PADDING
from lgbatch.runtime.models import Stages
from lgbatch.types import FloatArray

BoolArray = NDArray[np.bool_]
POINT_TENSORS = ("x", "cosines", "sines")
"""The tensors of a point, by the names of the stages' inputs: its embedding (W), and the cosines and sines of its
rotary position encoding (D / 2 each)."""


class Points(Protocol):
    """The points of one image between two stages."""

    def __len__(self) -> int:
        """Return the number of points, N."""

    def keep(self, mask: BoolArray) -> Self:
        """Return the points whose entry in the mask (N,) is true."""


PointsT = TypeVar("PointsT")


class Backend(Protocol[PointsT]):
    """Runs stages, and holds the points of an image as a PointsT.

    The tensors of POINT_TENSORS and the embeddings that a layer returns are arrays or tensors of the backend. All other
    inputs and outputs of a stage are NumPy arrays.
    """

    padding: float
    """Largest fraction of a batch that may be padding."""

    def run(self, stage: str, feed: Mapping[str, Any]) -> Sequence[Any]:
        """Run a stage and return its outputs in the order of registry.INTERFACE.

        Ignores entries of `feed` that the stage does not take. Raises RuntimeError if the run fails.
        """

    def join(self, images: Sequence[PointsT]) -> list[PointsT]:
        """Return the images as one batch, if `pad` is faster then for any choice of them."""

    def pad(self, images: Sequence[PointsT], tensors: Sequence[str]) -> dict[str, Any]:
        """Batch images: return each of the named tensors as (B, L, C), padded to the longest image.

        C is W for the embedding and D / 2 for cosines and sines.
        """

    def split(self, lengths: Sequence[int], x: Any, cosines: Any, sines: Any) -> list[PointsT]:
        """Split a batch, tensors of shape (B, L, C), into its images: image b has the first lengths[b] points."""


@dataclass(frozen=True)
class EncodedImage:
    """The points of one image in NumPy arrays, as the stage `stem` or a layer returned them.

    All arrays are float32, or float16 if the stages compute in fp16.
    """

    x: FloatArray
    """(N, W), embeddings."""
    cosines: FloatArray
    sines: FloatArray
    """(N, D / 2), rotary position encoding."""

    def __len__(self) -> int:
        """Return the number of points, N."""
        return len(self.x)

    def keep(self, mask: BoolArray) -> "EncodedImage":
        """Return a copy of the points whose entry in the mask (N,) is true."""
        return EncodedImage(self.x[mask], self.cosines[mask], self.sines[mask])


class HostBackend:
    """Backend[EncodedImage]: all tensors are NumPy arrays."""

    padding = MAX_PADDING

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    def run(self, stage: str, feed: Mapping[str, Any]) -> Sequence[Any]:
        """Run a stage on arrays; see Backend.run."""
        return self._stages.run(stage, feed)

    def join(self, images: Sequence[EncodedImage]) -> list[EncodedImage]:
        """Return the images; see Backend.join."""
        return list(images)

    def pad(self, images: Sequence[EncodedImage], tensors: Sequence[str]) -> dict[str, Any]:
        """Return the named tensors of the images as arrays (B, L, C), padded with zeros."""
        return {name: pad_rows([getattr(image, name) for image in images]) for name in tensors}

    def split(
        self, lengths: Sequence[int], x: FloatArray, cosines: FloatArray, sines: FloatArray
    ) -> list[EncodedImage]:
        """Split arrays (B, L, C) into images, which are views of them; see Backend.split."""
        return [EncodedImage(x[row, :n], cosines[row, :n], sines[row, :n]) for row, n in enumerate(lengths)]


def pad_rows(arrays: Sequence[FloatArray]) -> FloatArray:
    """Stack B arrays (N, C) into one (B, L, C), padded with zeros to the longest. A single array is not copied."""
    if len(arrays) == 1:
        return arrays[0][None]
    padded = np.zeros((len(arrays), max(map(len, arrays)), arrays[0].shape[1]), dtype=arrays[0].dtype)
    for row, values in enumerate(arrays):
        padded[row, : len(values)] = values
    return padded
