"""The sources of an import: what the stores of a workspace hold, and two of them together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lgbatch.colmap.sources import FeatureSource, MatchSource
from lgbatch.photos.coordinates import MIRROR, is_mirrored, to_upright
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import FloatArray, IntArray, Pair
from lgbatch.workspace.staleness import usable_pairs


@dataclass(frozen=True)
class StoredMatches:
    """MatchSource over matches.h5, limited to the pairs of a pairs file and to matches of the current features.

    `versions` maps each image name to the version of its features.
    """

    store: MatchStore
    listed: Sequence[Pair]
    versions: Mapping[str, int]

    def pairs(self) -> Sequence[Pair]:
        """The pairs, in the order of the pairs file."""
        return usable_pairs(self.store, self.listed, self.versions)

    def indices(self, pair: Pair) -> IntArray:
        """(K, 2) int32, rows into the keypoints of the pair's first and second image."""
        return self.store.read(pair).indices


@dataclass(frozen=True)
class StoredFeatures:
    """FeatureSource over features.h5, limited to the images `image_names`.

    No camera of COLMAP sees a mirror image: the keypoints of mirrored photos are mirrored left and right.
    """

    store: FeatureStore
    image_names: Sequence[str]

    def names(self) -> Sequence[str]:
        """The images."""
        return self.image_names

    def keypoints(self, name: str) -> FloatArray:
        """(N, 2) float32, x and y in pixels of the original image."""
        keypoints = self.store.keypoints(name)
        if is_mirrored(self.store.orientation(name)):
            keypoints = to_upright(keypoints, self.image_size(name), MIRROR)
        return keypoints

    def image_size(self, name: str) -> tuple[int, int]:
        """(width, height) of the original image."""
        return self.store.image_size(name)


class JoinedFeatures:
    """FeatureSource of two sources: the keypoints of the second, of some of the images, follow those of the first."""

    def __init__(self, first: FeatureSource, second: FeatureSource) -> None:
        """Join the sources. All images of the second must be in the first."""
        self._first, self._second = first, second
        self._in_second = frozenset(second.names())

    def names(self) -> Sequence[str]:
        """The images of the first source."""
        return self._first.names()

    def keypoints(self, name: str) -> FloatArray:
        """The keypoints of both sources, (N, 2) float32."""
        keypoints = self._first.keypoints(name)
        return np.concatenate([keypoints, self._second.keypoints(name)]) if name in self._in_second else keypoints

    def image_size(self, name: str) -> tuple[int, int]:
        """(width, height) of the original image."""
        return self._first.image_size(name)


class JoinedMatches:
    """MatchSource of two sources, for the keypoints of JoinedFeatures: the matches of the second follow."""

    def __init__(
        self, first: MatchSource, second: MatchSource, keypoints: Mapping[str, int], replaced: Collection[Pair]
    ) -> None:
        """Join the sources. `keypoints` is the number of keypoints of each image in the first one.

        Of the `replaced` pairs, the matches of the first source are left out if there are some of the second: those
        that are not consistent with one two-view geometry would only hide the others.
        """
        self._sources, self._keypoints, self._replaced = (first, second), keypoints, set(map(frozenset, replaced))
        self._pairs = tuple({frozenset(pair): pair for pair in source.pairs()} for source in self._sources)

    def pairs(self) -> Sequence[Pair]:
        """The pairs of the first source, then the others of the second."""
        first, second = self._pairs
        return [*first.values(), *(pair for key, pair in second.items() if key not in first)]

    def indices(self, pair: Pair) -> IntArray:
        """(K, 2) int32, rows into the keypoints of JoinedFeatures."""
        key, offsets = frozenset(pair), np.array([(0, 0), [self._keypoints[name] for name in pair]], np.int32)
        parts = [
            source.indices(pair) + offset
            for source, pairs, offset in zip(self._sources, self._pairs, offsets, strict=True)
            if key in pairs
        ]
        return parts[-1] if key in self._replaced and len(parts[-1]) else np.concatenate(parts)
