"""The graph of a report: which photos verified pairs connect, by how much, and where it is drawn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lgbatch.report.pairs import PairTable
from lgbatch.types import LongArray

STRONG = 50
"""Verified matches of a pair that join two photos safely: that many place one against the other (evidence.py)."""
_LISTED = 50
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bridge:
    """Two groups of photos that only weak pairs join."""

    groups: tuple[int, int]
    pairs: int
    """Number of verified pairs between the groups."""
    best: tuple[int, int]
    """Photos of the best of them."""
    inliers: int
    """Its verified matches."""


@dataclass(frozen=True, eq=False)
class Graph:
    """The graph of verified pairs of N photos."""

    group: LongArray
    """(N,) number of the group of each photo, largest group first: photos that strong pairs connect."""
    component: LongArray
    """(N,) number of the component of each photo, largest first: photos that verified pairs connect."""
    bridges: list[Bridge]
    """Weak joins between groups, best first."""
    positions: Array
    """(N, 2) where each photo is drawn, 0 to 1 in x and y up to `height`; NaN for a photo without a verified pair."""
    height: float


def connect(table: PairTable, photos: int) -> Graph:
    """Return the graph of the verified pairs of a report."""
    verified = table.inliers > 0
    ids, inliers = table.ids[verified], table.inliers[verified]
    group = _components(photos, ids[inliers >= STRONG])
    component = _components(photos, ids)
    positions, height = _layout(component, ids, inliers)
    return Graph(group, component, _bridges(group, ids, inliers), positions, height)


def _components(count: int, ids: NDArray[np.int32]) -> LongArray:
    """Number the components of a graph with the edges `ids` (E, 2), largest first."""
    labels = np.arange(count)
    while True:
        least = labels.copy()
        for end, other in ((0, 1), (1, 0)):
            np.minimum.at(least, ids[:, end], labels[ids[:, other]])
        least = np.minimum(least, least[least])
        if (least == labels).all():
            break
        labels = least
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    number = np.empty(len(sizes), np.int64)
    number[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    numbers: LongArray = number[inverse]
    return numbers


def _bridges(group: LongArray, ids: NDArray[np.int32], inliers: NDArray[np.int32]) -> list[Bridge]:
    between: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for (a, b), count in zip(ids.tolist(), inliers.tolist(), strict=True):
        if group[a] != group[b]:
            low, high = sorted((int(group[a]), int(group[b])))
            between.setdefault((low, high), []).append((count, a, b))
    found = [Bridge(key, len(pairs), max(pairs)[1:], max(pairs)[0]) for key, pairs in between.items()]
    return sorted(found, key=lambda bridge: -bridge.inliers)[:_LISTED]


def _layout(component: LongArray, ids: NDArray[np.int32], inliers: NDArray[np.int32]) -> tuple[Array, float]:
    """Lay out each component by itself, and put them in rows of width 1, largest first."""
    positions = np.full((len(component), 2), np.nan)
    linked = np.bincount(ids.ravel(), minlength=len(component)) > 0
    total = max(int(linked.sum()), 1)
    x = y = row = 0.0
    for number in range(int(component.max(initial=-1)) + 1):
        nodes = np.flatnonzero((component == number) & linked)
        if not len(nodes):
            continue
        side = float(np.clip(np.sqrt(len(nodes) / total), 0.12, 1))
        if x + side > 1 + 1e-9:
            x, y, row = 0.0, y + row, 0.0
        local = np.full(len(component), -1)
        local[nodes] = np.arange(len(nodes))
        edges = component[ids[:, 0]] == number
        placed = _forces(len(nodes), local[ids[edges]], np.log1p(inliers[edges]))
        margin = min(0.03, side / 4)
        positions[nodes] = placed * (side - 2 * margin) + (x + margin, y + margin)
        x, row = x + side, max(row, side)
    return positions, max(y + row, 0.2)


def _forces(count: int, ids: NDArray[np.int64], weights: Array) -> Array:
    """Positions (N, 2) in 0..1 of the nodes of a connected graph with the edges `ids` (E, 2).

    Fruchterman and Reingold, Graph drawing by force-directed placement (1991), with edges weighed. Deterministic.
    """
    if count == 1:
        return np.full((1, 2), 0.5)
    angle = np.arange(count) * 2 * np.pi / count
    positions = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (
        1 + 0.01 * np.random.default_rng(0).random((count, 1))
    )
    ideal, weight = np.sqrt(4 / count), weights / weights.mean() * min(1.0, 4 * count / len(ids))
    for temperature in np.geomspace(0.3, 0.005, 60 if count > 300 else 200):
        apart = positions[:, None] - positions[None]
        square = (apart**2).sum(axis=2) + 1e-9
        move = (apart * (ideal**2 / square)[..., None]).sum(axis=1)
        along = positions[ids[:, 0]] - positions[ids[:, 1]]
        pull = along * (np.linalg.norm(along, axis=1) / ideal * weight)[:, None]
        np.subtract.at(move, ids[:, 0], pull)
        np.add.at(move, ids[:, 1], pull)
        length = np.linalg.norm(move, axis=1, keepdims=True) + 1e-9
        positions += move / length * np.minimum(length, temperature)
    low, high = positions.min(axis=0), positions.max(axis=0)
    size = float((high - low).max()) or 1.0
    placed: Array = (positions - (low + high) / 2) / size + 0.5
    return placed
