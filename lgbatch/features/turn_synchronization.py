"""Quarter turns of all photos of a set that agree with the relative turns of pairs.

This is rotation synchronization (Singer, 2011) with four values: each photo gets the multiple of 90 degrees that
leaves its neighbours turned against it by little. Learned features are not harmed by up to TOLERATED degrees.
The energy, a truncated linear loss over the pairs plus a cost for each photo that is turned, is minimized by iterated
conditional modes (Besag, 1986) from several starts: nothing turned, and the angles along a maximum spanning tree,
rounded to quarters at different offsets.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lgbatch.features.relative_turns import RelativeTurn

TOLERATED, LOST = 45.0, 75.0
"""A pair whose photos differ by less than TOLERATED degrees costs nothing, by more than LOST all its inliers."""
MIN_INLIERS = 10
"""A pair with fewer inliers is not used."""
_MAX_INLIERS = 60
"""Weight of a pair is its inliers, up to this: many inliers are no more certain."""
_COST_OF_TURNING = 15.0
"""A photo is turned only if this many inliers gain."""
_OFFSETS = range(-45, 45, 15)
"""Degrees that the tree's root is off its quarter turn."""
_SWEEPS = 20

Neighbours = Sequence[tuple[int, float, float]]
"""The pairs of a photo: the other photo, the degrees by which that is turned against it, and the weight."""


class Turns(NamedTuple):
    """The turns of the photos of a set."""

    degrees: list[int]
    """Degrees clockwise by which each photo has to be turned: 0, 90, 180 or 270."""
    neighbours: list[int]
    """Pairs of each photo that had a say."""


def synchronize(
    photos: int, turns: Mapping[tuple[int, int], RelativeTurn], fixed: Mapping[int, int] | None = None
) -> Turns:
    """Return the quarter turns of the photos 0 .. photos - 1 from the relative turns of pairs of them.

    A photo without evidence is not turned, and neither is a set that nothing contradicts. `fixed` photos have the given
    turns. Of the solutions that fit equally, the one that turns fewest photos is returned. Deterministic.
    """
    graph: dict[int, list[tuple[int, float, float]]] = defaultdict(list)
    for (a, b), turn in sorted(turns.items()):
        if turn.inliers >= MIN_INLIERS:
            weight = float(min(turn.inliers, _MAX_INLIERS))
            graph[a].append((b, turn.degrees, weight))
            graph[b].append((a, -turn.degrees, weight))
    degrees = [0] * photos
    for members, angles in _components(graph):
        best = _best_labels(graph, members, angles, fixed or {})
        for photo in members:
            degrees[photo] = best[photo]
    for photo, turn_of_photo in (fixed or {}).items():
        degrees[photo] = turn_of_photo
    return Turns(degrees, [len(graph[photo]) if photo in graph else 0 for photo in range(photos)])


def _components(graph: Mapping[int, Neighbours]) -> list[tuple[list[int], dict[int, float]]]:
    """The connected photos, each component with the angle of each photo along its maximum spanning tree."""
    components: list[tuple[list[int], dict[int, float]]] = []
    seen: set[int] = set()
    for root in sorted(graph):
        if root in seen:
            continue
        angles: dict[int, float] = {}
        heap = [(0.0, root, 0.0)]
        while heap:
            _, photo, angle = heapq.heappop(heap)
            if photo in angles:
                continue
            angles[photo] = angle
            for other, degrees, weight in graph[photo]:
                if other not in angles:
                    heapq.heappush(heap, (-weight, other, angle + degrees))
        seen |= angles.keys()
        components.append((sorted(angles), angles))
    return components


def _best_labels(
    graph: Mapping[int, Neighbours], members: Sequence[int], angles: Mapping[int, float], fixed: Mapping[int, int]
) -> dict[int, int]:
    unturned = {photo: fixed.get(photo, 0) for photo in members}
    best, least = unturned, _energy(graph, unturned)
    if least == _turning_cost(unturned):  # no pair is lost
        return unturned
    starts = []
    for offset in _OFFSETS:
        rounded = {photo: round((offset - angles[photo]) / 90) % 4 * 90 for photo in members}
        starts.append(_fewest_turned(rounded, fixed))
    for start in [*starts, unturned]:  # of equal solutions, the first one keeps the first photo
        labels = _descend(graph, start, fixed)
        energy = _energy(graph, labels)
        if energy < least - 1e-6:
            best, least = labels, energy
    return best


def _fewest_turned(labels: Mapping[int, int], fixed: Mapping[int, int]) -> dict[int, int]:
    """Turn all photos together so that most of them have their fixed turn, or else none."""
    together = Counter((fixed.get(photo, 0) - turn) % 360 for photo, turn in labels.items() if photo in fixed)
    together = together or Counter(-turn % 360 for turn in labels.values())
    ((added, _),) = together.most_common(1)
    return {photo: fixed.get(photo, (turn + added) % 360) for photo, turn in labels.items()}


def _descend(graph: Mapping[int, Neighbours], start: Mapping[int, int], fixed: Mapping[int, int]) -> dict[int, int]:
    """Give each photo in turn the label of least energy, until nothing changes."""
    labels = dict(start)
    for _ in range(_SWEEPS):
        before = dict(labels)
        for photo in labels:
            if photo not in fixed:
                costs = {turn: _cost(graph[photo], turn, labels) for turn in (labels[photo], 0, 90, 180, 270)}
                labels[photo] = min(costs, key=costs.__getitem__)
        if labels == before:
            break
    return labels


def _cost(neighbours: Neighbours, turn: int, labels: Mapping[int, int]) -> float:
    lost = sum(weight * _loss(degrees + labels[other] - turn) for other, degrees, weight in neighbours)
    return lost + _COST_OF_TURNING * (turn != 0)


def _energy(graph: Mapping[int, Neighbours], labels: Mapping[int, int]) -> float:
    lost = sum(
        weight * _loss(degrees + labels[other] - turn)
        for photo, turn in labels.items()
        for other, degrees, weight in graph[photo]
    )
    return lost / 2 + _turning_cost(labels)


def _turning_cost(labels: Mapping[int, int]) -> float:
    return _COST_OF_TURNING * sum(turn != 0 for turn in labels.values())


def _loss(degrees: float) -> float:
    """The part of a pair's inliers that is lost if its photos differ by an angle after their turns."""
    difference = abs((degrees + 180) % 360 - 180)
    return min(max((difference - TOLERATED) / (LOST - TOLERATED), 0.0), 1.0)
