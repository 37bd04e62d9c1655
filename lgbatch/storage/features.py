"""features.h5, in hloc's layout, with a record in each item.

One group per image, at the image's name ('/' nests groups):

    keypoints     (N, 2) float32
    scores        (N,) float32
    descriptors   (D, N) float16
    image_size    (2,) int64, width and height
    orientation   (1,) int64, EXIF code 2 to 8; absent if the pixels are upright as stored
    scales, oris  (N,) float32, SIFT only

    attribute lgbatch (6,) uint64: fingerprint, version, the photo's hash, size and modification time, N
    (hash 0: no photo known; for fingerprint and version see provenance.py)

Files written by hloc can be read as well: scores as keypoint_scores, any float precision, no record.
"""

from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np
from h5py import h5d, h5g, h5o

from lgbatch.errors import ItemError
from lgbatch.storage.hdf5 import (
    DAMAGE,
    Array,
    hard_link_names,
    is_group,
    open_group,
    read_array,
    read_record,
    short_reason,
    write_number,
)
from lgbatch.storage.provenance import UNKNOWN, ImageRecord, version_of
from lgbatch.storage.store import Store
from lgbatch.types import ORIENTATIONS, Features, FloatArray, PhotoFile

IMAGE_FOLDER = "lgbatch_image_folder"
_MAX_SIDE = 1 << 31


class FeatureStore(Store):
    """Local features of images, by image name."""

    kind = "features"
    header_reserve = 20
    record_words = 6
    _cached_names: set[str] | None = None

    def names(self) -> list[str]:
        """Return the names of all images, sorted. Raises StoreError if the file is damaged."""
        return sorted(self._names())

    def __contains__(self, name: str) -> bool:
        """Whether the store contains the image."""
        return name in self._names()

    def record(self, name: str) -> ImageRecord:
        """Return the record of an image, which the store must contain. Raises StoreError if it is damaged."""
        words = self._record(self._root, name.encode())
        if words is None:  # written by another program
            with self.damage_as_store_error():
                keypoints = self.keypoints(name)
            return ImageRecord(UNKNOWN, version_of(keypoints), len(keypoints), None)
        item_fingerprint, version, digest, size, mtime_ns, count = words
        return ImageRecord(item_fingerprint, version, count, PhotoFile(digest, size, mtime_ns) if digest else None)

    def count(self, name: str) -> int:
        """Return the number of keypoints of an image. Raises as `keypoints`."""
        return len(self.keypoints(name))

    def keypoints(self, name: str) -> FloatArray:
        """Return an image's keypoints, (N, 2) float32, in pixels, top-left pixel centre (0, 0).

        Raises KeyError if the store lacks the image, and StoreError if the item is damaged.
        """
        node = self._node(name)
        with self.damage_as_store_error(name):
            return _keypoints(node)

    def image_size(self, name: str) -> tuple[int, int]:
        """Return (width, height) of the original image. Raises as `keypoints`."""
        node = self._node(name)
        with self.damage_as_store_error(name):
            return _image_size(node)

    def orientation(self, name: str) -> int:
        """Return the EXIF code, 1 to 8, by which the photo was turned upright. Raises as `keypoints`."""
        node = self._node(name)
        with self.damage_as_store_error(name):
            return _orientation(node)

    def read(self, name: str) -> Features:
        """Read an image's features. Raises ItemError if they are missing or damaged."""
        try:
            node = self._node(name)
            scores_key = b"scores" if node.links.exists(b"scores") else b"keypoint_scores"
            features = Features(
                keypoints=_keypoints(node),
                scores=as_float32(read_array(node, scores_key, "f", 1)),
                descriptors=as_float32(read_array(node, b"descriptors", "f", 2).T),
                image_size=_image_size(node),
                scales=_optional_array(node, b"scales"),
                oris=_optional_array(node, b"oris"),
                orientation=_orientation(node),
            )
            record = read_record(*self._place(self._root, name.encode()), self.record_words)
        except DAMAGE as error:
            raise ItemError(f"no features of {name} in {self.path.name} ({short_reason(error)})") from None
        lengths = [len(features.keypoints), len(features.scores), len(features.descriptors)]
        lengths += [len(values) for values in (features.scales, features.oris) if values is not None]
        if len({*lengths, record[-1] if record else lengths[0]}) != 1:
            counts = ", ".join(map(str, lengths))
            raise ItemError(f"inconsistent features of {name}: {counts} keypoints, scores, descriptors")
        return features

    @property
    def image_folder(self) -> Path | None:
        """Folder that the images were extracted from; None if the file does not record it."""
        text = self._file.attrs.get(IMAGE_FOLDER)
        return Path(text) if text and isinstance(text, str) else None

    def set_image_folder(self, folder: Path) -> None:
        """Record the folder of the images."""
        if self.image_folder != folder:
            self._file.attrs[IMAGE_FOLDER] = str(folder)

    def write(self, name: str, features: Features, photo: PhotoFile | None = None) -> None:
        """Add an image. Raises StoreError if the store contains it already or the disk is full."""
        arrays: dict[bytes, Array] = {
            b"keypoints": features.keypoints,
            b"scores": features.scores,
            b"descriptors": features.descriptors.T.astype(np.float16, order="C"),
            b"image_size": np.array(features.image_size, dtype=np.int64),
        }
        if features.orientation != 1:
            arrays[b"orientation"] = np.array([features.orientation], dtype=np.int64)
        if features.scales is not None and features.oris is not None:
            arrays |= {b"scales": features.scales, b"oris": features.oris}
        record = (self.current_fingerprint, version_of(*arrays.values()), *_photo_words(photo), len(features.keypoints))
        self._write(name, self._root, name.encode(), arrays, record)
        keypoints = h5d.open(open_group(self._root, name.encode()), b"keypoints")
        write_number(keypoints, b"uncertainty", 1.0)  # read by hloc: detection noise in pixels
        self._names().add(name)

    def remove(self, name: str) -> None:
        """Remove an image, with effect from the next commit."""
        self._names().discard(name)
        self._unlink(name, self._root, name.encode())

    def remove_by_fingerprint(self, fingerprints: Set[int], keep: Set[str] = frozenset()) -> None:
        """Remove all images with one of these fingerprints, except the images to `keep`."""
        for name in self.names():
            if name not in keep and self.record(name).fingerprint in fingerprints:
                self.remove(name)

    def set_photo(self, name: str, photo: PhotoFile) -> None:
        """Update the record of the photo's file, for a file that was touched but has the same content."""
        record = self.record(name)
        words = record.fingerprint, record.version, *_photo_words(photo), record.keypoints
        self._set_record(self._root, name.encode(), words)

    def _node(self, name: str) -> h5g.GroupID:
        if name not in self:
            raise KeyError(name)
        return open_group(*self._place(self._root, name.encode()))

    def _names(self) -> set[str]:
        if self._cached_names is None:
            with self.damage_as_store_error():
                names = self.shards.links(self._root) if self.shards else image_names(self._root)
                self._cached_names = set(names)
        return self._cached_names


def as_float32(values: Array) -> FloatArray:
    """Convert an array to contiguous float32."""
    return values.astype(np.float32, order="C", copy=False)  # conversion by HDF5 takes three times as long


def _keypoints(node: h5g.GroupID) -> FloatArray:
    keypoints = as_float32(read_array(node, b"keypoints", "f", 2))
    if keypoints.shape[1] != 2 or not np.isfinite(keypoints).all():
        raise ValueError("its keypoints are not finite numbers of shape (N, 2)")
    return keypoints


def _optional_array(node: h5g.GroupID, key: bytes) -> FloatArray | None:
    return as_float32(read_array(node, key, "f", 1)) if node.links.exists(key) else None


def _image_size(node: h5g.GroupID) -> tuple[int, int]:
    size = read_array(node, b"image_size", "iuf", 1).tolist()
    if len(size) != 2 or not all(0 < side < _MAX_SIDE for side in size):
        raise ValueError(f"its image_size is {size[:3]}")
    return int(size[0]), int(size[1])


def _orientation(node: h5g.GroupID) -> int:
    if not node.links.exists(b"orientation"):
        return 1
    values = read_array(node, b"orientation", "iu", 1).tolist()
    if len(values) != 1 or values[0] not in ORIENTATIONS:
        raise ValueError(f"its orientation is {values[:3]}")
    return int(values[0])


def _photo_words(photo: PhotoFile | None) -> tuple[int, int, int]:
    return (photo.digest, photo.size, photo.mtime_ns) if photo else (UNKNOWN, 0, 0)


def image_names(parent: h5g.GroupID, prefix: bytes = b"") -> Iterator[str]:
    """Yield the paths of all groups below `parent` that contain the dataset keypoints.

    A group of that name is a folder of photos.
    """
    for name in hard_link_names(parent):
        if parent.links.exists(name + b"/keypoints") and not is_group(parent, name + b"/keypoints"):
            yield (prefix + name).decode()
        elif isinstance(node := h5o.open(parent, name), h5g.GroupID):
            yield from image_names(node, prefix + name + b"/")
