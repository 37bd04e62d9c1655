"""Sizes of matching batches and of the cache of encoded images, from the device and the free memory of a GPU.

Half of a GPU's free memory is for the layer that runs, a quarter for cached images, an eighth for the points that pass
from layer to layer. The rest is for memory that allocators lose.
"""

from lgbatch.runtime.devices import Device
from lgbatch.runtime.environment import available_cores, available_memory
from lgbatch.runtime.models import Stages
from lgbatch.runtime.registry import Shape

TOKENS: dict[Device, int] = {"cpu": 4096, "cuda": 131072}
"""Tokens of a batch, that is keypoints of both sides including padding: on a CPU always, on a GPU at most."""
INT8_TOKENS = 1
"""Makes each pair a batch of its own: the int8 kernels run one pair after the other, so that padding gains nothing."""
GPU_THREADS = 2
"""Threads of a GPU: one runs a stage while the other reads and decides."""
REFILL = 4
"""Batches whose pairs a thread of a GPU matches together, at most. Those that early exit leaves fill fewer batches, so
that deep layers run full batches too."""
_POINT_COPIES = 3
"""Copies of the points of pairs between two layers: joined, packed, and those that the layer returns."""
MIN_GPU_TOKENS = 4096
"""Even if little GPU memory seems to be free. The engine halves a batch that does not fit."""
CPU_CACHE_BYTES = 384 << 20
"""Memory of the cache of encoded images on a CPU."""
CPU_STEM_BYTES = 512 << 20
"""Memory of the stems that run at once on a CPU. In fp32, at 4096 keypoints, one needs 0.3 GB."""
_LAYER_WIDTHS = 32
"""Bytes that a layer needs per token, as a multiple of the width of the embedding: eight times its float32. The int8
kernels need no more, since they hold no similarities."""


def batch_tokens(stages: Stages, keypoints: int) -> int:
    """Tokens of a batch of images with up to `keypoints` keypoints each: keypoints of both sides including padding."""
    if stages.precision == "int8":
        return INT8_TOKENS
    if stages.device == "cpu":
        return TOKENS["cpu"]
    fitting = stages.memory // 2 // _layer_bytes(stages.shape, keypoints)
    return min(max(fitting, MIN_GPU_TOKENS), TOKENS["cuda"])


def group_tokens(stages: Stages, keypoints: int) -> int:
    """Tokens of the pairs that a thread matches together; see batch_tokens. On a CPU they are one batch."""
    tokens = batch_tokens(stages, keypoints)
    if stages.device == "cpu":
        return tokens
    fitting = stages.memory // 8 // (GPU_THREADS * _POINT_COPIES * _point_bytes(stages))
    return max(tokens, min(fitting, REFILL * tokens))


def cached_images(stages: Stages, keypoints: int) -> int:
    """Number of encoded images, with up to `keypoints` keypoints each, that the cache may hold."""
    cache_bytes = CPU_CACHE_BYTES if stages.device == "cpu" else stages.memory // 4
    return cache_bytes // (keypoints * _point_bytes(stages))


def cpu_workers(stages: Stages, keypoints: int) -> int:
    """Number of threads on a CPU: one per core, or fewer if their layers would not fit in the memory.

    It is for images with up to `keypoints` keypoints each.
    """
    cores, available = available_cores(), available_memory()
    if available is None:
        return cores
    worker_bytes = max(2 * keypoints, batch_tokens(stages, keypoints)) * _cpu_token_bytes(stages, keypoints)
    return max(1, min(cores, (available - CPU_CACHE_BYTES - CPU_STEM_BYTES) // worker_bytes))


def concurrent_stems(stages: Stages, keypoints: int) -> int:
    """Number of images, with up to `keypoints` keypoints each, that the threads of a CPU may encode at once."""
    return max(1, CPU_STEM_BYTES // (keypoints * _cpu_token_bytes(stages, keypoints)))


def _cpu_token_bytes(stages: Stages, keypoints: int) -> int:
    """Upper bound of the bytes that a layer or the stem needs per token on a CPU."""
    kernels_bytes = _LAYER_WIDTHS * stages.shape.width
    return kernels_bytes if stages.precision == "int8" else _layer_bytes(stages.shape, keypoints)


def _point_bytes(stages: Stages) -> int:
    """Bytes of one point of an encoded image: its embedding and its rotary position encoding, in float32 or float16."""
    return (2 if stages.precision == "fp16" else 4) * (stages.shape.width + stages.shape.head_dim)


def _layer_bytes(shape: Shape, keypoints: int) -> int:
    """Upper bound of the bytes that a layer needs per token, if images have up to `keypoints` keypoints.

    The largest intermediates are eight times the embedding in float32 and, if attention is not fused, for each head a
    row of similarities with the keypoints of the other side; in memory twice, but of one side at a time. Measured on a
    CPU with the published network at 256, 1024 and 4096 keypoints: 9, 18 and 68 kB, where this bound is 12, 25 and
    74 kB. Half precision needs less.
    """
    return _LAYER_WIDTHS * shape.width + 4 * shape.heads * keypoints
