"""Sizes of matching batches and of the cache of encoded images, from the device and the free memory of a GPU.

Half of a GPU's free memory is for the layer that runs, a quarter for cached images. The rest is for the tensors that
pass from layer to layer, and for memory that allocators lose.
"""

from lgbatch.runtime.devices import Device
from lgbatch.runtime.models import Stages
from lgbatch.runtime.registry import Shape

TOKENS: dict[Device, int] = {"cpu": 4096, "cuda": 131072}
"""Tokens of a batch, that is keypoints of both sides including padding: on a CPU always, on a GPU at most."""
INT8_TOKENS = 1
"""Makes each pair a batch of its own: the int8 kernels run one pair after the other, so that padding gains nothing."""
MIN_GPU_TOKENS = 4096
"""Even if little GPU memory seems to be free. The engine halves a batch that does not fit."""
CPU_CACHE_BYTES = 512 << 20
"""Memory of the cache of encoded images on a CPU."""


def batch_tokens(stages: Stages, keypoints: int) -> int:
    """Tokens of a batch of images with up to `keypoints` keypoints each: keypoints of both sides including padding."""
    if stages.precision == "int8":
        return INT8_TOKENS
    if stages.device == "cpu":
        return TOKENS["cpu"]
    fitting = stages.memory // 2 // _layer_bytes(stages.shape, keypoints)
    return min(max(fitting, MIN_GPU_TOKENS), TOKENS["cuda"])


def cached_images(stages: Stages, keypoints: int) -> int:
    """Number of encoded images, with up to `keypoints` keypoints each, that the cache may hold."""
    cache_bytes = CPU_CACHE_BYTES if stages.device == "cpu" else stages.memory // 4
    return cache_bytes // (keypoints * _point_bytes(stages.shape))


def _point_bytes(shape: Shape) -> int:
    """Bytes of one point of an encoded image: its embedding and its rotary position encoding, in float32."""
    return 4 * (shape.width + shape.head_dim)


def _layer_bytes(shape: Shape, keypoints: int) -> int:
    """Upper bound of the bytes that a layer needs per token, if images have up to `keypoints` keypoints.

    The largest intermediates are eight times the embedding in float32 and, if attention is not fused, for each head a
    row of similarities with the keypoints of the other side; in memory twice, but of one side at a time. Measured on a
    CPU with the published network at 256, 1024 and 4096 keypoints: 9, 18 and 68 kB, where this bound is 12, 25 and
    74 kB. Half precision needs less.
    """
    return 32 * shape.width + 4 * shape.heads * keypoints
