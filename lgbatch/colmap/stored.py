"""The sources of an import: what the stores of a workspace hold, and two of them together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from lgbatch.colmap.sources import FeatureSource, MatchSource
from lgbatch.photos.coordinates import MIRROR, is_mirrored, to_upright
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import FloatArray, IntArray, Pair, PairList
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
        """The pairs in the order of the pairs file, each with its images in the order in which it is stored."""
        usable = usable_pairs(self.store, self.listed, self.versions)
        swapped = np.fromiter((self.store.stored_order(pair) != pair for pair in usable), np.bool_, len(usable))
        return PairList(usable.names, np.where(swapped[:, None], usable.ids[:, ::-1], usable.ids))

    def indices(self, pair: Pair) -> IntArray:
        """(K, 2) int32, rows into the keypoints of the pair's first and second image."""
        return self.store.read(pair).indices

    def geometry(self, pair: Pair) -> bytes | None:
        """The stored geometry."""
        return self.store.geometry(pair)


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

    def orientation(self, name: str) -> int:
        """EXIF code, 1 to 8."""
        return self.store.orientation(name)


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

    def orientation(self, name: str) -> int:
        """EXIF code in the first source."""
        return self._first.orientation(name)


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
        listed, found = first.pairs(), {frozenset(pair): pair for pair in second.pairs()}
        in_both = found.keys() & map(frozenset, listed)
        self._in_second, self._in_second_only = found.keys(), found.keys() - in_both
        self._pairs = PairList.of(chain(listed, (found[key] for key in found if key in self._in_second_only)))

    def pairs(self) -> Sequence[Pair]:
        """The pairs of the first source, then the others of the second."""
        return self._pairs

    def indices(self, pair: Pair) -> IntArray:
        """(K, 2) int32, rows into the keypoints of JoinedFeatures."""
        key, offsets = frozenset(pair), np.array([(0, 0), [self._keypoints[name] for name in pair]], np.int32)
        is_in = key not in self._in_second_only, key in self._in_second
        parts = [
            source.indices(pair) + offset
            for source, offset, has_pair in zip(self._sources, offsets, is_in, strict=True)
            if has_pair
        ]
        return parts[-1] if key in self._replaced and len(parts[-1]) else np.concatenate(parts)

    def geometry(self, pair: Pair) -> bytes | None:
        """None: the geometries of pairs whose matches stay are in the database already."""
        return None
