"""Features and matches in the files of hloc (Hierarchical-Localization), written and read.

lgbatch's own stores have hloc's layout, with more in it. A file that is written here has what hloc writes and no more:
scores and descriptors in half precision, no records, no compression, no groups of twins.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore, index_type
from lgbatch.types import FloatArray, IntArray, Matches, Pair

_HALF = ("scores", "descriptors", "scales", "oris")


def write_features(features: FeatureStore, path: Path) -> int:
    """Write all features to a new file. Returns the number of images. Raises ItemError if one is damaged.

    Keypoints keep single precision: half precision is 2 pixels off at 4000.
    """
    names = features.names()
    with h5py.File(path, "w", libver="latest") as file:
        for name in names:
            item = features.read(name)
            group = file.create_group(name)
            arrays = {"keypoints": item.keypoints, "scores": item.scores, "descriptors": item.descriptors.T}
            arrays |= {key: values for key in ("scales", "oris") if (values := getattr(item, key)) is not None}
            for key, values in arrays.items():
                group.create_dataset(key, data=values.astype(np.float16 if key in _HALF else np.float32))
            group.create_dataset("image_size", data=np.array(item.image_size))
            group["keypoints"].attrs["uncertainty"] = 1.0
    return len(names)


def write_matches(matches: MatchStore, features: FeatureStore, path: Path) -> list[Pair]:
    """Write the matches of the pairs to a new file, and return these pairs.

    Leaves out pairs whose name in the layout is also that of other images: `a/b.jpg` and `a-b.jpg`.
    """
    names = features.names()
    shared = Counter(map(_group, names))
    unique = {name for name in names if shared[_group(name)] == 1}
    pairs = [pair for pair in matches.pairs(names) if unique.issuperset(pair)]
    with h5py.File(path, "w", libver="latest") as file:
        for pair in pairs:
            found = matches.read(pair)
            first, second = found.indices.T
            matches0 = np.full(features.count(pair.a), -1, index_type(second))
            scores = np.zeros(len(matches0), np.float16)
            matches0[first], scores[first] = second, found.scores
            group = file.create_group(f"{_group(pair.a)}/{_group(pair.b)}")
            group.create_dataset("matches0", data=matches0)
            group.create_dataset("matching_scores0", data=scores)
    return pairs


def read_matches(path: Path, names: list[str]) -> Iterator[tuple[Pair, Matches]]:
    """Yield the pairs of a file that hloc wrote, of old versions too, and their matches.

    Pairs of other images than these have the names of their groups. Matches without scores get 1. Raises OSError,
    KeyError and RuntimeError if the file is damaged.
    """
    by_group: dict[str, list[str]] = {}
    for name in names:
        by_group.setdefault(_group(name), []).append(name)
    known = {group: same[0] for group, same in by_group.items() if len(same) == 1}
    with h5py.File(path, "r") as file:
        for first, node in file.items():
            if not isinstance(node, h5py.Group):
                continue
            items = [(first, node)] if isinstance(node.get("matches0"), h5py.Dataset) else _children(first, node)
            for key, item in items:
                yield _pair(key, known), _matches(item)


def _children(first: str, node: Any) -> list[tuple[str, Any]]:
    return [(f"{first}/{second}", item) for second, item in node.items() if isinstance(item, h5py.Group)]


def _pair(key: str, known: dict[str, str]) -> Pair:
    """The images of a group a/b or, of old versions, a_b. Unknown ones have the names of the groups."""
    separator = "/" if "/" in key else "_"
    for position in (i for i, character in enumerate(key) if character == separator):
        first, second = key[:position], key[position + 1 :]
        if first in known and second in known:
            return Pair(known[first], known[second])
    return Pair(*key.split(separator, 1))


def _matches(item: Any) -> Matches:
    matches0: IntArray = item["matches0"][()].astype(np.int32)
    first = np.flatnonzero(matches0 >= 0)
    scores: FloatArray = np.ones(len(first), np.float32)
    if "matching_scores0" in item:
        scores = item["matching_scores0"][()].astype(np.float32)[first]
    return Matches(np.stack([first.astype(np.int32), matches0[first]], axis=1), scores)


def _group(name: str) -> str:
    return name.replace("/", "-")
