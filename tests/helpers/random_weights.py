"""Seeded random weights for networks without downloadable weights, and models exported from them.

The weights are scaled so that score maps have maxima and assignments are confident.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lgbatch.bench import published
from lgbatch.export.models import write
from lgbatch.export.weights.state import load_state
from lgbatch.runtime.registry import Kind

SOURCE = {"weights": "random", "weights_sha256": "0" * 64}
STOP = 5
"""Early exit of the random LightGlue: it stops every pair after this many layers."""


def superpoint() -> dict[str, Tensor]:
    """Random weights of SuperPoint, with the names in the published file."""
    random, state = torch.Generator().manual_seed(0), {}
    widths = {"conv1": (1, 64), "conv2": (64, 64), "conv3": (64, 128), "conv4": (128, 128)}
    shapes = {f"{name}a": (outputs, inputs, 3) for name, (inputs, outputs) in widths.items()}
    shapes |= {f"{name}b": (outputs, outputs, 3) for name, (_, outputs) in widths.items()}
    shapes |= {"convPa": (256, 128, 3), "convPb": (65, 256, 1), "convDa": (256, 128, 3), "convDb": (256, 256, 1)}
    for name, (outputs, inputs, side) in shapes.items():
        scale = ((20 if name == "convPb" else 2) / (inputs * side * side)) ** 0.5
        state[f"{name}.weight"] = scale * torch.randn(outputs, inputs, side, side, generator=random)
        state[f"{name}.bias"] = 0.05 * torch.randn(outputs, generator=random)
    return state


def lightglue(extractor: str, **settings: float) -> Any:
    """The published LightGlue for an extractor, with random weights."""
    shape = {"sift": {"input_dim": 128, "add_scale_ori": True}, "superpoint": {"input_dim": 256}}[extractor]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = published.module("lightglue").LightGlue(None, **shape, **settings).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():  # all ones as initialised: the exporter would merge them
            if ".ffn.1." in name:
                value += 0.1 * torch.randn(len(value), generator=torch.Generator().manual_seed(len(name)))
        for head in network.log_assignment:
            head.final_proj.weight *= 2
            head.matchability.bias += 2
        for layer, token in enumerate(network.token_confidence):
            token.token[0].bias += -5 if layer < STOP - 1 else 5
    return network


def models(folder: Path, extractor: str, *kinds: Kind) -> None:
    """Export models with random weights into `folder`, under the names that lgbatch expects."""
    for kind in kinds:
        if kind == "extractor":
            state = superpoint()
        else:
            file = folder / f"{extractor}.pth"
            torch.save(lightglue(extractor).state_dict(), file)
            state = load_state(file)
        write(folder, extractor, kind, state, SOURCE)
