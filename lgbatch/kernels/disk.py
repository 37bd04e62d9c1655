"""DISK in the compiled kernels: photos to local features, with 16-bit convolutions.

The .npz file holds the parameters of lgbatch.export.networks.disk.DiskExtractor, in fp32. They are rounded and packed
here. The kernels extract one photo after another, each on the core of the calling thread.
"""

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, byref, c_float, c_int64, c_size_t, c_void_p

import numpy as np

from lgbatch.kernels.library import PANEL, load_function
from lgbatch.kernels.session import Array, KernelSession, address, bfloat16, scratch_address

KERNEL, DOWN, UP, LARGEST, DESCRIPTOR_DIM, NARROW_PANEL = 5, 4, 3, 8191, 128, 32
"""Constants of c/disk/types.h and c/kernels.h. The structs must match it too, field by field."""
_TARGETS = slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)
"""The terms that go to each target: see c/disk/convolution.h."""
_LARGEST_SUM = 2**31 - 1


class ConvolutionStruct(ctypes.Structure):
    """Weights of a convolution and the slopes of the PReLU before it."""

    _fields_ = (
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("slope", c_void_p),
        ("inputs", c_int64),
        ("outputs", c_int64),
    )


class DiskStruct(ctypes.Structure):
    """Weights of the network."""

    _fields_ = (
        ("first_weight", c_void_p),
        ("first_scale", c_void_p),
        ("down", ConvolutionStruct * DOWN),
        ("up", ConvolutionStruct * UP),
        ("last_slope", c_void_p),
        ("heat_weight", c_void_p),
        ("heat_scale", c_void_p),
        ("descriptor_weight", c_void_p),
        ("descriptor_scale", c_void_p),
        ("descriptor_bias", c_void_p),
        ("heat_bias", c_float),
    )


class Disk(KernelSession):
    """DISK's extractor."""

    inputs: list[str] = ["pixels", "max_keypoints"]  # noqa: RUF012
    outputs: list[str] = ["keypoints", "scores", "descriptors", "counts"]  # noqa: RUF012
    widths: list[int | None] = [2, None, DESCRIPTOR_DIM, None]  # noqa: RUF012

    def _read(self, arrays: Mapping[str, Array]) -> None:
        self._bf16 = bool(load_function("disk_factors_are_bf16", c_int64)())
        self._disk = DiskStruct()
        self._set_first(arrays["unet.first.weight"])
        for level in range(DOWN):
            slope = arrays[f"unet.down.{level}.gate.slope.weight"]
            self._disk.down[level] = self._convolution(arrays, f"unet.down.{level}", slope)
        for level in range(UP):
            self._disk.up[level] = self._convolution(arrays, f"unet.up.{level}", _slopes(arrays, f"unet.up.{level}"))
        self._set_last(arrays)
        sizes = [c_int64] * 2
        pointers = [POINTER(DiskStruct), c_void_p, *sizes, c_int64, *[c_void_p] * 4]
        self._run = load_function("disk", c_int64, *pointers)
        self._scratch_bytes = load_function("disk_scratch_bytes", c_size_t, POINTER(DiskStruct), *sizes)

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Extract the local features of a batch of photos of one size, at least 5 x 5.

        Inputs: pixels (B, H, W, 3) uint8, RGB; max_keypoints () int64. Outputs as DiskExtractor's, K being the largest
        count: keypoints (B, K, 2), scores (B, K), descriptors (B, K, 128), counts (B,) int64. Rows from a photo's count
        on are zeros.
        """
        pixels = np.ascontiguousarray(feed["pixels"], np.uint8)
        batch, height, width, _ = pixels.shape
        most = min(int(feed["max_keypoints"]), height * width)
        shapes = (batch, most, 2), (batch, most), (batch, most, DESCRIPTOR_DIM)
        outputs = [np.zeros(shape, np.float32) for shape in shapes]
        counts = np.zeros(batch, np.int64)
        scratch = scratch_address(self._scratch_bytes(byref(self._disk), height, width))
        for item, photo in enumerate(pixels):
            pointers = [address(output[item]) for output in outputs]
            counts[item] = self._run(byref(self._disk), address(photo), height, width, most, scratch, *pointers)
        longest = int(counts.max(initial=0))
        return [*(output[:, :longest] for output in outputs), counts]

    def _set_first(self, weight: Array) -> None:
        """Set the first convolution: weight (out, 3, 5, 5). It reads bytes: the scale includes 1 / 255."""
        pixels = PANEL // weight.shape[0]
        rows = [np.pad(weight, ((0, 0), (0, 0), (row, 1 - row), (0, 0))) for row in (0, 1)]
        # (2, out, 3, rows, taps) to (2, out, rows * 3, taps)
        terms = np.stack([row.transpose(0, 2, 1, 3).reshape(weight.shape[0], -1, KERNEL) for row in rows])
        panels, scale = _quantize(_panels(terms, pixels), 255)
        self._disk.first_weight = self._packed(panels)
        self._disk.first_scale = self._packed(scale[0] / np.float32(255))

    def _convolution(self, arrays: Mapping[str, Array], name: str, slope: Array) -> ConvolutionStruct:
        """A convolution of weight (out, in, 5, 5), for the products of c/disk/convolution.h."""
        weight = arrays[f"{name}.conv.weight"]
        outputs, inputs = weight.shape[:2]
        rows = _terms(weight.transpose(2, 3, 1, 0))
        panels, scales = [], []
        for terms in (rows[target] for target in _TARGETS):
            columns = _terms(terms.swapaxes(0, 1))  # (column terms, row terms, in, out)
            for target in _TARGETS:
                panel = columns[target].swapaxes(0, 1).reshape(1, -1, outputs)
                rounded, scale = _quantize(_interleave(panel), 4 * LARGEST)
                panels.append(rounded.ravel())
                scales.append(scale)
        return ConvolutionStruct(
            self._packed(np.concatenate(panels)),
            self._packed(np.stack(scales)),
            self._reference(slope, (inputs,), np.float32),
            inputs,
            outputs,
        )

    def _set_last(self, arrays: Mapping[str, Array]) -> None:
        self._disk.last_slope = self._packed(_slopes(arrays, "unet.last"))
        taps = np.concatenate([arrays["low_taps"], arrays["skip_taps"]], 1)[:, :, 0, 0]  # (25, 80)
        columns = np.pad(taps.T, ((0, 0), (0, NARROW_PANEL - len(taps))))
        panels, scale = _quantize(_interleave(columns[None]), LARGEST)
        self._disk.heat_weight, self._disk.heat_scale = self._packed(panels), self._packed(scale)
        self._disk.heat_bias = float(arrays["heat_bias"])
        projection = arrays["projection"]  # (channel, row, column; descriptor)
        rows = projection.reshape(-1, KERNEL, KERNEL, DESCRIPTOR_DIM // PANEL, PANEL).transpose(1, 3, 2, 0, 4)
        panels, scale = _quantize(_interleave(rows.reshape(KERNEL * DESCRIPTOR_DIM // PANEL, -1, PANEL)), LARGEST)
        self._disk.descriptor_weight, self._disk.descriptor_scale = self._packed(panels), self._packed(scale)
        self._disk.descriptor_bias = self._reference(arrays["bias"], (DESCRIPTOR_DIM,), np.float32)

    def _packed(self, values: Array) -> int:
        """Address of a contiguous copy, kept alive with the session: int16 as factors of the products, or float32."""
        if values.dtype != np.int16:
            return self._reference(values, values.shape, np.float32)
        factors = bfloat16(values).view(np.int16) if self._bf16 else values
        return self._reference(factors, values.shape, np.int16)


def _slopes(arrays: Mapping[str, Array], name: str) -> Array:
    """The slopes of an upward step, of the upsampled channels and then of the skipped ones."""
    return np.concatenate([arrays[f"{name}.{part}_gate.slope.weight"] for part in ("low", "skip")])


def _terms(weight: Array) -> Array:
    """The weights of the products for two outputs along the first axis: (5, ...) to (7, ...)."""
    both, opposite = (weight[0] + weight[1] + weight[2]) / 2, (weight[0] - weight[1] + weight[2]) / 2
    return np.stack([weight[0], weight[3], -weight[2], -weight[4], both, weight[3] + weight[4], opposite])


def _panels(terms: Array, pixels: int) -> Array:
    """Panels of terms (T, out, in, 5) for neighbouring pixels at once: (T, (4 + pixels) * in / 2, PANEL, 2).

    The rows of a panel are taps of the window around all pixels, each with its inputs; its columns are pixels, each
    with its outputs.
    """
    count, outputs, inputs, _ = terms.shape
    columns = np.zeros((count, KERNEL - 1 + pixels, inputs, pixels, outputs), np.float32)
    for pixel in range(pixels):
        columns[:, pixel : pixel + KERNEL, :, pixel] = terms.transpose(0, 3, 2, 1)
    return _interleave(columns.reshape(count, -1, PANEL))


def _interleave(columns: Array) -> Array:
    """Rearrange matrices (T, in, out) to (T, in / 2, out, 2)."""
    count, rows, outputs = columns.shape
    return columns.reshape(count, rows // 2, 2, outputs).swapaxes(2, 3)


def _quantize(panels: Array, largest: int) -> tuple[Array, Array]:
    """Round panels (T, S, out, 2) to int16 with one scale per column, (T, out).

    The scales are such that no product with int16 values of absolute values up to `largest` overflows int32.
    """
    steps = panels.shape[1]
    most = _LARGEST_SUM // largest - steps  # rounding adds at most half of the number of values, 2 S
    scale = np.maximum(np.abs(panels).max((1, 3)) / 32767, np.abs(panels).sum((1, 3), dtype=np.float64) / most)
    scale = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
    return np.round(panels / scale[:, None, :, None]).astype(np.int16), scale
