"""features.h5 and matches.h5, in hloc's layout, each item with what made it.

features   one group per image, called by its name ('/' nests):
           keypoints (N, 2) float32, scores (N,) float32, descriptors (D, N) float16, image_size (2,) int64 (W, H);
           of SIFT also scales (N,) and oris (N,) float32;
           attribute lgbatch (6,) uint64: made, version, photo's hash, size and time, N; hash 0: no photo was given
matches    one group per pair, a.replace('/', '-') / b.replace('/', '-'):
           matches0 (N0,) int32, -1 for none; matching_scores0 (N0,) float32;
           attribute lgbatch (4,) uint64: made, version of a's features, version of b's, number of matches

What these numbers stand for is told in provenance.py, and where the meaning of `made` is kept in itemfile.py. Files
written by hloc are read as well (its keypoint_scores, its half precision, its pairs in either order).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence, Set
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from h5py import h5d, h5g, h5o

from lgbatch.errors import ItemError
from lgbatch.hdf5 import Array, link_names, open_group, own_names, read_array, read_record, write_number
from lgbatch.itemfile import DAMAGE, Store, reason
from lgbatch.provenance import UNKNOWN, ImageRecord, PairRecord, version_of
from lgbatch.types import Features, FloatArray, IntArray, Matches, Pair, PhotoFile

_IMAGES = "lgbatch_image_folder"
_LONGEST_SIDE = 1 << 31
_OPEN_GROUPS = 256  # of first images: pairs come in blocks of few images


class FeatureStore(Store):
    """Local features by image name."""

    kind = "features"
    room = 20
    words = 6
    _listed: set[str] | None = None

    def names(self) -> list[str]:
        """All images in it, sorted. Raises StoreError when the file is damaged."""
        return sorted(self._names())

    def __contains__(self, name: str) -> bool:
        """Whether the image is there."""
        return name in self._names()

    def record(self, name: str) -> ImageRecord:
        """What the item says of itself. Raises StoreError when it is damaged; the image is to be there."""
        words = self._record(self._root, name.encode())
        if words is None:  # written by others
            with self.undamaged():
                keypoints = self.keypoints(name)
            return ImageRecord(UNKNOWN, version_of(keypoints), len(keypoints), None)
        made, version, digest, size, mtime_ns, count = words
        return ImageRecord(made, version, count, PhotoFile(digest, size, mtime_ns) if digest else None)

    def count(self, name: str) -> int:
        """How many keypoints an image has; raises as `keypoints`."""
        return len(self.keypoints(name))

    def keypoints(self, name: str) -> FloatArray:
        """(N, 2) float32; raises KeyError when the image is not there, and StoreError when they are damaged."""
        node = self._node(name)
        with self.undamaged(name):
            return _keypoints(node)

    def image_size(self, name: str) -> tuple[int, int]:
        """(width, height) of the original image; raises as `keypoints`."""
        node = self._node(name)
        with self.undamaged(name):
            return _image_size(node)

    def read(self, name: str) -> Features:
        """Read an image's features. Raises ItemError when they are not there or damaged."""
        try:
            node = self._node(name)
            scores = b"scores" if node.links.exists(b"scores") else b"keypoint_scores"
            features = Features(
                keypoints=_keypoints(node),
                scores=_floats(read_array(node, scores, "f", 1)),
                descriptors=_floats(read_array(node, b"descriptors", "f", 2).T),
                image_size=_image_size(node),
                scales=_of_keypoints(node, b"scales"),
                oris=_of_keypoints(node, b"oris"),
            )
            record = read_record(self._root, name.encode(), self.words)
        except DAMAGE as error:
            raise ItemError(f"no features of {name} in {self.path.name} ({reason(error)})") from None
        rows = [len(features.keypoints), len(features.scores), len(features.descriptors)]
        more = [len(values) for values in (features.scales, features.oris) if values is not None]
        if len({*rows, *more, record[-1] if record else rows[0]}) != 1:
            counts = ", ".join(map(str, rows + more))
            raise ItemError(f"features of {name} do not fit together: {counts} keypoints, scores, descriptors")
        return features

    @property
    def image_folder(self) -> Path | None:
        """Where the images were when they were extracted; None when the file does not say."""
        text = self._file.attrs.get(_IMAGES)
        return Path(text) if text and isinstance(text, str) else None

    def set_image_folder(self, folder: Path) -> None:
        """Remember where the images are."""
        if self.image_folder != folder:
            self._file.attrs[_IMAGES] = str(folder)

    def write(self, name: str, features: Features, photo: PhotoFile | None = None) -> None:
        """Add an image; raises StoreError when it is there already or the disk is full."""
        arrays: dict[bytes, Array] = {
            b"keypoints": features.keypoints,
            b"scores": features.scores,
            b"descriptors": features.descriptors.T.astype(np.float16, order="C"),
            b"image_size": np.array(features.image_size, dtype=np.int64),
        }
        if features.scales is not None and features.oris is not None:
            arrays |= {b"scales": features.scales, b"oris": features.oris}
        record = (self.current, version_of(*arrays.values()), *_photo_words(photo), len(features.keypoints))
        self._write(name, self._root, name.encode(), arrays, record)
        keypoints = h5d.open(open_group(self._root, name.encode()), b"keypoints")
        write_number(keypoints, b"uncertainty", 1.0)  # hloc's: detection noise in pixels
        self._names().add(name)

    def remove(self, name: str) -> None:
        """Take an image out; it is gone at the next commit."""
        self._names().discard(name)
        self._unlink(name, self._root, name.encode())

    def remove_made(self, made: Set[int]) -> None:
        """Take out what was made by these."""
        for name in self.names():
            if self.record(name).made in made:
                self.remove(name)

    def set_photo(self, name: str, photo: PhotoFile) -> None:
        """Remember the photo's file as it is now; what it shows has not changed."""
        record = self.record(name)
        words = record.made, record.version, *_photo_words(photo), record.keypoints
        self._set_record(self._root, name.encode(), words)

    def _node(self, name: str) -> h5g.GroupID:
        if name not in self:
            raise KeyError(name)
        return open_group(self._root, name.encode())

    def _names(self) -> set[str]:
        if self._listed is None:
            with self.undamaged():
                self._listed = set(_images(self._root, b""))
        return self._listed


class MatchStore(Store):
    """Matches by pair, in the order in which the pair was matched."""

    kind = "matches"
    words = 4
    small = True
    _listed: set[bytes] | None = None

    def groups(self) -> Iterator[tuple[str, str]]:
        """The flattened names of all pairs in it."""
        for first in sorted(self._firsts()):
            group = self._group(first)
            with self.undamaged():
                seconds = link_names(group)
            for second in seconds:
                yield first.decode(), second.decode()

    def pairs(self, names: Sequence[str]) -> list[Pair]:
        """The pairs of these images that are in it, in the order in which they were matched."""
        by_flat = {name.replace("/", "-"): name for name in names}
        groups = self.groups()
        return [Pair(by_flat[a], by_flat[b]) for a, b in groups if a in by_flat and b in by_flat]

    def __contains__(self, pair: Pair) -> bool:
        """Whether the pair is there, in either order."""
        return self._find(pair) is not None

    def count(self, first: str, second: str) -> int:
        """How many matches a pair has, by its names in `groups`."""
        group = self._group(first.encode())
        with self.undamaged(f"{first} {second}"):
            return int(np.count_nonzero(_matches0(open_group(group, second.encode())) >= 0))

    def record(self, pair: Pair) -> PairRecord | None:
        """What a pair says of itself, versions in the order of `pair`; None when it is not there."""
        found = self._find(pair)
        if found is None:
            return None
        words = self._record(self._group(found[0]), found[1])
        if words is None:  # written by others
            return PairRecord(UNKNOWN, (UNKNOWN, UNKNOWN), self.count(found[0].decode(), found[1].decode()))
        made, first, second, count = words
        return PairRecord(made, (second, first) if found[2] else (first, second), count)

    def read(self, pair: Pair) -> Matches:
        """Read a pair; columns are in the order of `pair`.

        Raises KeyError when it is not there, and StoreError when it is damaged.
        """
        found = self._find(pair)
        if found is None:
            raise KeyError(pair)
        first_name, second_name, swapped = found
        with self.undamaged(" ".join(pair)):
            node = open_group(self._group(first_name), second_name)
            matches0, scores0 = _matches0(node), _floats(read_array(node, b"matching_scores0", "f", 1))
            if len(matches0) != len(scores0):
                raise ValueError(f"{len(matches0)} matches0 and {len(scores0)} matching_scores0")
        first = np.flatnonzero(matches0 >= 0).astype(np.int32)
        scores = scores0[first]
        columns = (matches0[first], first) if swapped else (first, matches0[first])
        indices = np.stack(columns, axis=1)
        order = np.argsort(indices[:, 0])
        return Matches(indices[order], scores[order])

    def indices(self, pair: Pair) -> IntArray:
        """(K, 2) int32; as `read`."""
        return self.read(pair).indices

    def write(self, pair: Pair, matches: Matches, count: int, versions: tuple[int, int] = (UNKNOWN, UNKNOWN)) -> None:
        """Add a pair whose first image has `count` keypoints; raises StoreError as FeatureStore.write.

        `versions` are those of the features that it was matched from.
        """
        matches0 = np.full(count, -1, dtype=np.int32)
        scores = np.zeros(count, dtype=np.float32)
        matches0[matches.indices[:, 0]] = matches.indices[:, 1]
        scores[matches.indices[:, 0]] = matches.scores
        arrays = {b"matches0": matches0, b"matching_scores0": scores}
        first, second = (name.encode() for name in flat(pair))
        parent = self._group(first, make=first not in self._firsts())
        self._write(" ".join(pair), parent, second, arrays, (self.current, *versions, len(matches.indices)))

    def remove(self, pair: Pair) -> None:
        """Take a pair out, whichever order it has; it is gone at the next commit."""
        found = self._find(pair)
        if found:
            self._unlink(" ".join(pair), self._group(found[0]), found[1])

    def remove_made(self, made: Set[int]) -> None:
        """Take out what was made by these."""
        for first in self._firsts():
            group = self._group(first)
            for second in link_names(group):
                words = self._record(group, second)
                if words and words[0] in made:
                    self._unlink(f"{first.decode()} {second.decode()}", group, second)

    def _firsts(self) -> set[bytes]:
        if self._listed is None:
            with self.undamaged():
                self._listed = set(link_names(self._root))
            self._opened: OrderedDict[bytes, h5g.GroupID] = OrderedDict()
        return self._listed

    def _find(self, pair: Pair) -> tuple[bytes, bytes, bool] | None:
        """Group names of a pair that is there, and whether it is there the other way round."""
        first, second = (name.encode() for name in flat(pair))
        for a, b, swapped in (first, second, False), (second, first, True):
            if a in self._firsts() and self._group(a).links.exists(b):
                return a, b, swapped
        return None

    def _group(self, first: bytes, make: bool = False) -> h5g.GroupID:
        """The group of the pairs of a first image; the last ones are kept open."""
        group = self._opened.get(first)
        if group is None:
            with nullcontext() if make else self.undamaged(first.decode(errors="replace")):
                group = open_group(self._root, first, make=make)
            self._opened[first] = group
            self._firsts().add(first)
            if len(self._opened) > _OPEN_GROUPS:
                self._opened.popitem(last=False)
        self._opened.move_to_end(first)
        return group

    def _forget(self) -> None:
        self._opened = OrderedDict()


def flat(pair: Pair) -> tuple[str, str]:
    """Group names of a pair in hloc's layout. 'a/b.jpg' and 'a-b.jpg' have the same one."""
    return pair.a.replace("/", "-"), pair.b.replace("/", "-")


def _floats(values: Array) -> FloatArray:
    return values.astype(np.float32, order="C", copy=False)  # HDF5's own conversion takes three times as long


def _keypoints(node: h5g.GroupID) -> FloatArray:
    keypoints = _floats(read_array(node, b"keypoints", "f", 2))
    if keypoints.shape[1] != 2 or not np.isfinite(keypoints).all():
        raise ValueError("its keypoints are not (N, 2) finite numbers")
    return keypoints


def _of_keypoints(node: h5g.GroupID, key: bytes) -> FloatArray | None:
    return _floats(read_array(node, key, "f", 1)) if node.links.exists(key) else None


def _image_size(node: h5g.GroupID) -> tuple[int, int]:
    size = read_array(node, b"image_size", "iuf", 1).tolist()
    if len(size) != 2 or not all(0 < side < _LONGEST_SIDE for side in size):
        raise ValueError(f"its image_size is {size[:3]}")
    return int(size[0]), int(size[1])


def _matches0(node: h5g.GroupID) -> IntArray:
    matches0 = read_array(node, b"matches0", "iu", 1)
    if matches0.size and matches0.max() > np.iinfo(np.int32).max:
        raise ValueError(f"its matches0 has the number {matches0.max()}")
    return matches0.astype(np.int32, copy=False)


def _photo_words(photo: PhotoFile | None) -> tuple[int, int, int]:
    return (photo.digest, photo.size, photo.mtime_ns) if photo else (UNKNOWN, 0, 0)


def _images(folder: h5g.GroupID, prefix: bytes) -> Iterator[str]:
    """Names of the groups below that have keypoints."""
    for name in own_names(folder):
        if folder.links.exists(name + b"/keypoints"):
            yield (prefix + name).decode()
        elif isinstance(node := h5o.open(folder, name), h5g.GroupID):
            yield from _images(node, prefix + name + b"/")
