"""How much is matched at once, and kept of images: by the kind of device, and on a GPU by its free memory.

Of that, half is for the layer that runs and a quarter for images between their pairs; the rest is for what goes from
layer to layer, and for what allocators lose.
"""

from lgbatch.runtime.devices import Device
from lgbatch.runtime.models import Stages
from lgbatch.runtime.registry import Shape

TOKENS: dict[Device, int] = {"cpu": 4096, "cuda": 131072}
"""Padded keypoints, of both sides together, in one batch of the matcher; on a GPU at most."""
INT8_TOKENS = 1
"""Each pair is a batch of its own there: kernels.py takes one after the other, and nothing is padded."""
LEAST_TOKENS = 4096
"""On a GPU, however little memory seems to be free: what does not fit is halved."""
STEM_BYTES = 512 << 20
"""Memory for what is kept of images between their pairs, on a CPU."""


def tokens(stages: Stages, keypoints: int) -> int:
    """Padded keypoints, of both sides together, that a batch of images of up to so many keypoints best holds."""
    if stages.precision == "int8":
        return INT8_TOKENS
    if stages.device == "cpu":
        return TOKENS["cpu"]
    fitting = stages.memory // 2 // layer_bytes(stages.shape, keypoints)
    return min(max(fitting, LEAST_TOKENS), TOKENS["cuda"])


def images(stages: Stages, keypoints: int) -> int:
    """Of how many images, of up to so many keypoints each, is kept what all of their pairs need."""
    room = STEM_BYTES if stages.device == "cpu" else stages.memory // 4
    return room // (keypoints * point_bytes(stages.shape))


def point_bytes(shape: Shape) -> int:
    """What is kept of a point between the layers."""
    return 4 * (shape.width + shape.head_dim)


def layer_bytes(shape: Shape, keypoints: int) -> int:
    """What a layer takes for a point, at most, in a batch of images of so many keypoints.

    Its largest intermediates: eight times `width` floats, and where attention is not fused, twice a row of similarities
    with the keypoints of the other side for each head, of one side at a time. On a CPU 9, 18 and 68 kB were measured at
    256, 1024 and 4096 keypoints and published size, where this says 12, 25 and 74; in half precision it was less.
    """
    return 32 * shape.width + 4 * shape.heads * keypoints
