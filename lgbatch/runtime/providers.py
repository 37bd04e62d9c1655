"""Options of the ONNX Runtime providers."""

from pathlib import Path
from typing import Any

from lgbatch.runtime.devices import BATCH_SIZES, PROVIDERS, Device

_MIN_SHAPE, _OPT_SHAPE = (1, 32, 32), (BATCH_SIZES["tensorrt"], 768, 1024)
"""(photos, height, width) of the smallest and the typical batch, for TensorRT's optimisation profile."""


def provider_options(
    device: Device, path: Path, *, threads: int, max_side: int, device_id: int = 0
) -> list[tuple[str, dict[str, Any]]]:
    """Return the providers of a session on a device other than the CPU, in order of preference, with their options.

    `max_side` is the maximum long side of photos in pixels, 0 if unknown. `device_id` selects the GPU; CUDA only.
    Providers cache compiled models in a folder next to the model at `path`.
    """
    cache = str(path.parent / device)
    options: dict[Device, dict[str, Any]] = {
        "cuda": {
            "device_id": str(device_id),
            "use_tf32": "0",  # by default, products in fp32 are rounded to 10 bits on Ampere and later
            "cudnn_conv_algo_search": "HEURISTIC",  # by default, each new size of photos starts an exhaustive search
        },
        "tensorrt": {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": cache,
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": cache,
            **_tensorrt_profile(max_side),
        },
        "openvino": {"device_type": "AUTO", "num_of_threads": str(threads)},
        "coreml": {"ModelFormat": "MLProgram", "ModelCacheDirectory": cache},
    }
    chain: list[Device] = [device, "cuda", "cpu"] if device == "tensorrt" else [device, "cpu"]
    return [(PROVIDERS[entry].name, options.get(entry, {})) for entry in chain]


def _tensorrt_profile(max_side: int) -> dict[str, str]:
    """Return the optimisation profile: minimum, typical and maximum shape of `image`, (photos, 3, height, width).

    Empty if `max_side` is 0: TensorRT then rebuilds its engine when a larger batch comes.
    """
    if not max_side:
        return {}
    max_shape = (BATCH_SIZES["tensorrt"], max_side, max_side)
    return {
        f"trt_profile_{bound}_shapes": f"image:{photos}x3x{height}x{width}"
        for bound, shape in (("min", _MIN_SHAPE), ("opt", _OPT_SHAPE), ("max", max_shape))
        for photos, height, width in [map(min, shape, max_shape)]
    }
