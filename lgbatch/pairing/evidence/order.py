"""Which images follow each other in the order of their names."""

from collections.abc import Mapping, Sequence

import numpy as np

from lgbatch.pairing.candidates import NO_RIG, RigPlace, followers
from lgbatch.pairing.evidence.lists import Ranked, Source


def order_of_names(names: Sequence[str], count: int, rig: Mapping[str, RigPlace] = NO_RIG) -> Ranked:
    """Rank about `count` images for each: half of them before it and half after it in its folder, the next ones first.

    The other images of its frame of a rig come first of all.
    """
    rows = {name: row for row, name in enumerate(names)}
    found = [
        (rows[a], rows[b], max(0, 2 * (distance - 1)))
        for a, b, distance in followers(names, range(1, -(-count // 2) + 1), rig)
    ]
    entries = np.array(found, np.int64).reshape(-1, 3)
    return Ranked(Source.ORDER, entries[:, :2], entries[:, 2].astype(np.float32))
