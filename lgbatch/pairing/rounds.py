"""Choose pairs in rounds: try the most promising ones, and go on along those that are verified.

Each image has a list of candidates, best first. A round tries the next ones of every list, and pairs of images that
have verified neighbours in common. A list ends after some failures in a row. At the end, images and groups that are
not joined yet try the rest of their candidates. The number of pairs per image does not grow with the number of images.

The idea is that of query expansion (Chum et al., ICCV 2007, "Total recall") on the graph of verified pairs, as in
"Building Rome in a day" (Agarwal et al., ICCV 2009). There is no clock, no random number and no file here: the same
candidates and results give the same pairs, so a run that was killed repeats its decisions from what it has stored.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import IntArray


class Proposal(NamedTuple):
    """A pair to try."""

    a: int
    b: int
    """Rows of the images, a < b."""
    why: str
    """Why it is tried: "candidate", "neighbours" or "join"."""


@dataclass(frozen=True)
class Limits:
    """How many pairs the rounds try. The values are measured (docs/pairs.md)."""

    first: int = 4
    """Candidates of each image in the first round."""
    step: int = 2
    """Pairs of each image and kind in a later round. Twice as many as before, up to `most`, if all were verified."""
    most: int = 8
    patience: int = 3
    """Failures in a row that end the list of an image."""
    patience_beyond: int = 2
    """Failures in a row that end the pairs of an image with the neighbours of its neighbours."""
    links: int = 28
    """Verified pairs of an image at which it needs no more."""
    joins: int = 12
    """Pairs that a group tries to join the others, and one more for each ten of its images."""


class _Queue:
    """How one image goes on with one kind of pairs."""

    def __init__(self, width: int, limits: Limits, patience: int) -> None:
        self.width, self._limits, self._patience = width, limits, patience
        self._misses = 0

    @property
    def is_open(self) -> bool:
        return self._misses < self._patience

    def report(self, verified: Sequence[bool]) -> None:
        """Count the failures in a row of the pairs of a round, in their order, and set the width of the next one."""
        for success in verified:
            self._misses = 0 if success else self._misses + 1
        if verified:
            self.width = min(2 * self.width, self._limits.most) if all(verified) else self._limits.step


class Rounds:
    """The rounds of one set of images.

    `pairs` are the candidates, (P, 2) rows of images, each pair once, and `ranks` their ranks, (P,): the smaller, the
    more promising. Call `propose` and `report` in turn until there are no proposals.
    """

    def __init__(self, images: int, pairs: IntArray, ranks: NDArray[np.floating], limits: Limits = Limits()) -> None:
        """Begin with the first round."""
        self._limits = limits
        self._lists = _candidate_lists(images, pairs, ranks)
        self._positions = [0] * images
        self._queues = {
            "candidate": [_Queue(limits.first, limits, limits.patience) for _ in range(images)],
            "neighbours": [_Queue(limits.step, limits, limits.patience_beyond) for _ in range(images)],
        }
        self._links: list[dict[int, int]] = [{} for _ in range(images)]
        """Verified neighbours of each image, with the inliers."""
        self._failed_joins = [0] * images
        """Pairs of an image that have not joined its group to another, since the last success."""
        self._tried: set[tuple[int, int]] = set()
        self._proposed: list[tuple[int, Proposal]] = []
        self._active = set(range(images))
        """Images whose neighbours have changed since their last expansion."""
        self.round = 0

    def propose(self) -> list[Proposal]:
        """The pairs of the next round; none at the end."""
        self._proposed = []
        for image in range(len(self._links)):
            self._propose_candidates(image)
        for image in sorted(self._active):
            self._propose_expansions(image)
        self._active.clear()
        if not self._proposed:
            self._propose_joins()
        self.round += 1
        return [proposal for _, proposal in self._proposed]

    def report(self, inliers: Sequence[int]) -> None:
        """Tell the inliers of the pairs proposed last, in their order; 0 for those that are not verified."""
        outcomes: dict[tuple[str, int], list[bool]] = {}
        for (image, (a, b, why)), count in zip(self._proposed, inliers, strict=True):
            outcomes.setdefault((why, image), []).append(count > 0)
            if count:
                self._links[a][b] = self._links[b][a] = count
                self._active |= {a, b, *self._links[a], *self._links[b]}
        for (why, image), verified in outcomes.items():
            if why in self._queues:
                self._queues[why][image].report(verified)
            else:
                self._failed_joins[image] = 0 if any(verified) else self._failed_joins[image] + len(verified)

    def groups(self) -> list[list[int]]:
        """The images of each group that verified pairs connect, largest group first."""
        seen: set[int] = set()
        groups = []
        for start in range(len(self._links)):
            if start not in seen:
                group, reached = [], [start]
                seen.add(start)
                while reached:
                    group.append(image := reached.pop())
                    reached += (new := self._links[image].keys() - seen)
                    seen |= new
                groups.append(sorted(group))
        return sorted(groups, key=lambda group: (-len(group), group))

    def _try(self, image: int, other: int, why: str) -> bool:
        pair = (image, other) if image < other else (other, image)
        if pair in self._tried:
            return False
        self._tried.add(pair)
        self._proposed.append((image, Proposal(*pair, why)))
        return True

    def _needs_more(self, image: int, why: str) -> bool:
        return self._queues[why][image].is_open and len(self._links[image]) < self._limits.links

    def _propose_candidates(self, image: int) -> None:
        left = self._queues["candidate"][image].width if self._needs_more(image, "candidate") else 0
        listed = self._lists[image]
        while left and self._positions[image] < len(listed):
            left -= self._try(image, int(listed[self._positions[image]]), "candidate")
            self._positions[image] += 1

    def _propose_expansions(self, image: int) -> None:
        if self._needs_more(image, "neighbours"):
            for other in self._expansions(image)[: self._queues["neighbours"][image].width]:
                self._try(image, other, "neighbours")

    def _expansions(self, image: int) -> list[int]:
        """Untried images that share verified neighbours with an image, those with most shared evidence first.

        Two shared neighbours are needed, or one if one of the two images has few.
        """
        shared: Counter[int] = Counter()
        evidence: Counter[int] = Counter()
        own = self._links[image]
        for between, inliers in own.items():
            for other, others in self._links[between].items():
                if other != image and other not in own:
                    shared[other] += 1
                    evidence[other] += min(inliers, others)
        found = [
            other
            for other, count in shared.items()
            if (count > 1 or min(len(own), len(self._links[other])) < 3)
            and (min(image, other), max(image, other)) not in self._tried
        ]
        return sorted(found, key=lambda other: (-evidence[other], other))

    def _propose_joins(self) -> None:
        """Let each group but the largest try its most promising candidates that lead out of it."""
        groups = self.groups()
        group_of = {image: number for number, group in enumerate(groups) for image in group}
        for group in groups[1:]:
            failed = sum(self._failed_joins[image] for image in group)
            left = self._limits.joins + len(group) // 10 - failed
            for image, other in self._ways_out(group, group_of):
                if left <= 0:
                    break
                left -= self._try(image, other, "join")

    def _ways_out(self, group: Sequence[int], group_of: dict[int, int]) -> Iterator[tuple[int, int]]:
        """The untried candidates of a group's images with other groups: the first of each image, the second, ..."""
        ways = [
            [other for other in map(int, self._lists[image]) if group_of[other] != group_of[image]] for image in group
        ]
        for rank in range(max(map(len, ways), default=0)):
            for image, others in zip(group, ways, strict=True):
                if rank < len(others):
                    yield image, others[rank]


def _candidate_lists(images: int, pairs: IntArray, ranks: NDArray[np.floating]) -> list[NDArray[np.int32]]:
    """The candidates of each image, best first."""
    both = np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int32)
    order = np.lexsort((both[:, 1], np.tile(ranks, 2), both[:, 0]))
    starts = np.searchsorted(both[order, 0], np.arange(1, images))
    return np.split(both[order, 1], starts)
