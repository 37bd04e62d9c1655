"""ALIKED up to its maps in the compiled kernels: the structs of c/aliked/types.h, field by field, and its weights."""

import ctypes
from collections.abc import Callable, Mapping
from ctypes import POINTER, byref, c_int64, c_size_t, c_void_p
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgbatch.kernels.library import load_function
from lgbatch.kernels.session import address, scratch_address

Array = NDArray[Any]
Keep = Callable[[Array], int]
"""Returns the address of an array, which it keeps alive."""
Pack = Callable[[Array], Array]
"""Rearranges a weight (out, in, k, k)."""
OUTPUTS, STRIDE = 16, 32
"""Constants of c/aliked/types.h."""
POOLED = (2, 8, 32)
"""How much smaller each level of the pyramid is than the padded photo. The first level has its size."""


class ConvStruct(ctypes.Structure):
    """A convolution. Without a weight it is absent."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("inside", c_int64), ("outside", c_int64))


class BlockStruct(ctypes.Structure):
    """Two convolutions, those that predict their offsets if they are deformable, and the skip connection."""

    _fields_ = (("conv", ConvStruct * 2), ("offset", ConvStruct * 2), ("around", ConvStruct))


class NetStruct(ctypes.Structure):
    """The network up to its maps."""

    _fields_ = (
        ("blocks", BlockStruct * 4),
        ("aggregate", ConvStruct * 4),
        ("parts", ConvStruct * 4),
        ("head", ConvStruct * 3),
    )


class MapsStruct(ctypes.Structure):
    """Addresses of the maps of a photo."""

    _fields_ = (("first", c_void_p), ("levels", c_void_p * 3), ("scores", c_void_p))


class Maps(NamedTuple):
    """Maps of a photo, float32. H and W are its sides rounded up to multiples of STRIDE.

    Half of the padding, rounded down, is above and on the left.
    """

    first: Array
    """(H, W, C): block 1."""
    levels: list[Array]
    """(H / 2, W / 2, D / 4), / 8 and / 32: after aggregation and SELU."""
    scores: Array
    """(H, W): after the sigmoid."""

    def corner(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return where the top-left pixel of a photo of `shape` (height, width) lies: (row, column)."""
        top, left = ((full - side) // 2 for full, side in zip(self.scores.shape, shape, strict=True))
        return top, left

    def struct(self) -> MapsStruct:
        """Return the addresses of the maps."""
        levels = (c_void_p * 3)(*map(address, self.levels))
        return MapsStruct(address(self.first), levels, address(self.scores))


class MapNetwork:
    """Computes the maps of photos, each on the core of the calling thread."""

    def __init__(self, arrays: Mapping[str, Array], keep: Keep) -> None:
        """Pack the weights, which have the names of lgbatch.export.networks.aliked.AlikedExtractor.

        `keep` must keep the packed weights as long as this object. Raises KeyError if the weights are incomplete, and
        RuntimeError as library.require_kernels.
        """
        self._net = net_struct(arrays, keep)
        net, sizes = POINTER(NetStruct), (c_int64, c_int64)
        self._run = load_function("aliked_maps", None, net, c_void_p, *sizes, POINTER(MapsStruct), c_void_p)
        self._scratch_bytes = load_function("aliked_maps_scratch_bytes", c_size_t, net, *sizes)

    def empty_maps(self, height: int, width: int) -> Maps:
        """Allocate maps for photos of this size."""
        height, width = (-(-side // STRIDE) * STRIDE for side in (height, width))
        channels = self._net.aggregate[1].outside
        return Maps(
            np.empty((height, width, self._net.aggregate[0].inside), np.float32),
            [np.empty((height // factor, width // factor, channels), np.float32) for factor in POOLED],
            np.empty((height, width), np.float32),
        )

    def run(self, pixels: Array, maps: Maps) -> None:
        """Compute the maps of a photo, pixels (H, W, 3) uint8 in RGB, into `maps` of its size."""
        pixels = np.ascontiguousarray(pixels, np.uint8)
        scratch = scratch_address(self._scratch_bytes(byref(self._net), *pixels.shape[:2]))
        self._run(byref(self._net), address(pixels), *pixels.shape[:2], byref(maps.struct()), scratch)


def net_struct(arrays: Mapping[str, Array], keep: Keep) -> NetStruct:
    """Pack the weights of the network up to its maps. Raises KeyError if they are incomplete."""
    net = NetStruct()
    for i in range(4):
        net.blocks[i] = _block(arrays, f"blocks.{i}", _pack_rows if i < 2 else pack_blocks, keep)
        pack = pack_blocks if i else pack_planes
        net.aggregate[i] = _conv(arrays[f"aggregate.{i}"].T[:, :, None, None], None, pack, keep)
        net.parts[i] = _conv(arrays[f"parts.{i}"][:, :, None, None], None, pack, keep)
    for i in range(3):
        net.head[i] = _conv(arrays[f"head.{i}.weight"], None, pack_planes, keep)
    return net


def pack_blocks(weight: Array) -> Array:
    """Rearrange a weight (out, in, k, k) to blocks of outputs (ceil(out / OUTPUTS), k, k, in, OUTPUTS)."""
    outside, inside, *kernel = weight.shape
    padded = _pad(weight, -outside % OUTPUTS).reshape(-1, OUTPUTS, inside, *kernel)
    return padded.transpose(0, 3, 4, 2, 1)


def pack_squares(weight: Array) -> Array:
    """Transform a weight (out, in, 3, 3) to (4, 4, ceil(out / OUTPUTS), in, OUTPUTS) for products of squares."""
    transform = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    blocks = pack_blocks(transform @ weight.astype(np.float64) @ transform.T)
    return blocks.transpose(1, 2, 0, 3, 4)


def pack_planes(weight: Array) -> Array:
    """Rearrange a weight (out, in, k, k) to (k, in, k, out)."""
    return weight.transpose(2, 1, 3, 0)


def _pack_rows(weight: Array) -> Array:
    """Pack a weight of blocks 1 and 2."""
    return pack_blocks(weight) if any(channels % OUTPUTS for channels in weight.shape[:2]) else pack_squares(weight)


def _block(arrays: Mapping[str, Array], name: str, pack: Pack, keep: Keep) -> BlockStruct:
    block = BlockStruct()
    for i, conv in enumerate((f"{name}.first", f"{name}.second")):
        block.conv[i] = _conv(arrays[f"{conv}.weight"], arrays[f"{conv}.bias"], pack, keep)
        if f"{conv}.offset.weight" in arrays:
            weight, bias = arrays[f"{conv}.offset.weight"], arrays[f"{conv}.offset.bias"]
            block.offset[i] = _conv(weight, bias, pack_blocks, keep)
    if f"{name}.around.weight" in arrays:
        bias = arrays[f"{name}.around.bias"] + arrays[f"{name}.second.bias"]
        block.around = _conv(arrays[f"{name}.around.weight"], bias, pack_blocks, keep)
    return block


def _conv(weight: Array, bias: Array | None, pack: Pack, keep: Keep) -> ConvStruct:
    outside, inside = weight.shape[:2]
    weight = np.ascontiguousarray(pack(weight), np.float32)
    start = None if bias is None else keep(np.ascontiguousarray(_pad(bias, -outside % OUTPUTS), np.float32))
    return ConvStruct(keep(weight), start, inside, outside)


def _pad(values: Array, count: int) -> Array:
    """Append `count` zeros along the first axis."""
    return np.pad(values, [(0, count)] + [(0, 0)] * (values.ndim - 1))
