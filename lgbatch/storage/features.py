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

from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np
from h5py import h5d, h5g, h5o

from lgbatch.errors import ItemError
from lgbatch.storage.hdf5 import Array, open_group, own_names, read_array, read_record, write_number
from lgbatch.storage.provenance import UNKNOWN, ImageRecord, version_of
from lgbatch.storage.store import DAMAGE, Store, reason
from lgbatch.types import Features, FloatArray, PhotoFile

_IMAGES = "lgbatch_image_folder"
_LONGEST_SIDE = 1 << 31


class FeatureStore(Store):
    """Local features by image name."""

    kind = "features"
    header_reserve = 20
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
                scores=floats(read_array(node, scores, "f", 1)),
                descriptors=floats(read_array(node, b"descriptors", "f", 2).T),
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


def floats(values: Array) -> FloatArray:
    return values.astype(np.float32, order="C", copy=False)  # HDF5's own conversion takes three times as long


def _keypoints(node: h5g.GroupID) -> FloatArray:
    keypoints = floats(read_array(node, b"keypoints", "f", 2))
    if keypoints.shape[1] != 2 or not np.isfinite(keypoints).all():
        raise ValueError("its keypoints are not (N, 2) finite numbers")
    return keypoints


def _of_keypoints(node: h5g.GroupID, key: bytes) -> FloatArray | None:
    return floats(read_array(node, key, "f", 1)) if node.links.exists(key) else None


def _image_size(node: h5g.GroupID) -> tuple[int, int]:
    size = read_array(node, b"image_size", "iuf", 1).tolist()
    if len(size) != 2 or not all(0 < side < _LONGEST_SIDE for side in size):
        raise ValueError(f"its image_size is {size[:3]}")
    return int(size[0]), int(size[1])


def _photo_words(photo: PhotoFile | None) -> tuple[int, int, int]:
    return (photo.digest, photo.size, photo.mtime_ns) if photo else (UNKNOWN, 0, 0)


def _images(folder: h5g.GroupID, prefix: bytes) -> Iterator[str]:
    """Names of the groups below that have keypoints."""
    for name in own_names(folder):
        if folder.links.exists(name + b"/keypoints"):
            yield (prefix + name).decode()
        elif isinstance(node := h5o.open(folder, name), h5g.GroupID):
            yield from _images(node, prefix + name + b"/")
