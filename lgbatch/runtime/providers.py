"""Where models can run: the providers of ONNX Runtime, what each needs, and what is taken where it is not there.

The networks that find keypoints are mostly convolutions, which providers are made for. LightGlue is told the lengths
of what it attends to (the operator Attention of opset 24), which OpenVINO's provider refuses (1.24.1), and the others
have not been tried with: besides CUDA, matching runs on the CPU.
"""

from pathlib import Path
from typing import Any

from lgbatch.runtime.devices import BATCH, PROVIDERS, Device

_LEAST, _USUAL = (1, 32, 32), (BATCH["tensorrt"], 768, 1024)
"""Photos, height and width that TensorRT prepares for."""


def provider_options(
    device: Device, path: Path, *, threads: int, side: int, number: int = 0
) -> list[tuple[str, dict[str, Any]]]:
    """The providers of a session on a device other than the CPU, best first, with their options.

    `side` is the longest that photos have, 0 where nobody knows; `number` is the GPU's, where it is CUDA alone. What a
    provider makes of a model is kept in a folder beside it.
    """
    kept = str(path.parent / device)
    options: dict[Device, dict[str, Any]] = {
        "cuda": {"device_id": str(number)},
        "tensorrt": {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": kept,
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": kept,
            **_profiles(side),
        },
        "openvino": {"device_type": "AUTO", "num_of_threads": str(threads)},
        "coreml": {"ModelFormat": "MLProgram", "ModelCacheDirectory": kept},
    }
    chain: list[Device] = [device, "cuda", "cpu"] if device == "tensorrt" else [device, "cpu"]
    return [(PROVIDERS[one].name, options.get(one, {})) for one in chain]


def _profiles(side: int) -> dict[str, str]:
    """TensorRT's three options that say how large batches of photos become; without them, it sees when they come."""
    if not side:
        return {}
    most = (BATCH["tensorrt"], side, side)
    return {
        f"trt_profile_{end}_shapes": f"image:{photos}x3x{height}x{width}"
        for end, shape in (("min", _LEAST), ("opt", _USUAL), ("max", most))
        for photos, height, width in [map(min, shape, most)]
    }
