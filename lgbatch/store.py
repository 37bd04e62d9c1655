"""features.h5 and matches.h5: HDF5 in hloc's layout, crash-safe. The only user of h5py.

features   one group per image, called by its name ('/' nests):
           keypoints (N, 2) float32, scores (N,) float32, descriptors (D, N) float16, image_size (2,) int64 (W, H)
matches    one group per pair, a.replace('/', '-') / b.replace('/', '-'):
           matches0 (N0,) int32, -1 for none; matching_scores0 (N0,) float32

Files written by hloc are read as well (its keypoint_scores, its half precision, its pairs in either order).
The root attribute `lgbatch` tells as JSON what made the file; another setting never mixes with what is there.
"""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from lgbatch.errors import ItemError, StoreError
from lgbatch.journal import JournaledFile, journal_path, recover, write_synced
from lgbatch.types import Features, FloatArray, IntArray, Matches, Pair

Provenance = dict[str, Any]
_MADE_BY = "lgbatch"
_IMAGES = "lgbatch_image_folder"
# Superblock version 2: new-style groups that stay fast as they grow, and no "open for writing" mark that would
# keep readers out after a crash.
_FORMAT = ("v108", "v108")


class Store:
    """An HDF5 file, opened for reading or, with `append`, for adding items that become lasting at `commit`."""

    def __init__(self, path: Path, *, append: Provenance | None = None) -> None:
        """Open; `append` says what will make new items. Raises StoreError: not there, damaged, made otherwise."""
        self.path = path
        self._journaled: JournaledFile | None = None
        try:
            if append is None:
                self._file = _open_to_read(path)
            else:
                if not path.exists():
                    _create(path, append)
                self._journaled = JournaledFile(path)
                self._file = h5py.File(self._journaled, "r+", libver=_FORMAT)
        except BlockingIOError:
            self._drop()
            raise StoreError(f"{path} is in use by another program: wait for it, or use another --workspace") from None
        except OSError as error:
            self._drop()
            raise StoreError(
                f"cannot open {path}: {_reason(error)}; move it away, or use another --workspace"
            ) from None
        if append is not None:
            try:
                self._refuse_others(append)
            except StoreError:
                self.close()
                raise

    @property
    def provenance(self) -> Provenance | None:
        """What made the file; None when it was not lgbatch. Raises StoreError when the file is damaged."""
        with self._undamaged():
            text = self._file.attrs.get(_MADE_BY)
            return json.loads(text) if text else None

    def commit(self) -> None:
        """Make what was written so far last. Raises StoreError, and then the file is as at the last commit."""
        assert self._journaled is not None, "opened for reading"
        try:
            self._file.flush()
            self._journaled.commit()
        except (OSError, RuntimeError) as error:
            raise StoreError(self._unwritten(str(self.path), error)) from None

    def close(self) -> None:
        """Close; what was written after the last commit is dropped."""
        self._file.close()
        self._drop()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what a finished block wrote; a block that raised keeps what it committed itself."""
        try:
            if self._journaled is not None and kind is None:
                self.commit()
        finally:
            self.close()

    def _drop(self) -> None:
        if self._journaled is not None:
            self._journaled.close()

    def _refuse_others(self, wanted: Provenance) -> None:
        found = self.provenance
        if found == wanted:
            return
        if found is None:
            raise StoreError(f"{self.path} was not made by lgbatch: use another --workspace, or move it away")
        old, new = _leaves(found), _leaves(wanted)
        differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        changes = ", ".join(f"{key} {old.get(key)} (now {new.get(key)})" for key in differing)
        raise StoreError(f"{self.path} was made with {changes}: use another --workspace, or delete it")

    @contextmanager
    def _undamaged(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            reason = f"{self.path} is damaged ({_reason(error)})"
            raise StoreError(f"{reason}: move it away, and run the step that makes it again") from None

    def _write(self, item: str, group: str, arrays: dict[str, Any]) -> h5py.Group:
        assert self._journaled is not None, "opened for reading"
        try:
            node = self._file.create_group(group)
            for name, array in arrays.items():
                node.create_dataset(name, data=array)
            if self._journaled.failure:
                raise self._journaled.failure
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(self._unwritten(f"{item} to {self.path}", error)) from None
        return node

    def _unwritten(self, what: str, error: Exception) -> str:
        assert self._journaled is not None
        reason = _reason(self._journaled.failure or error)  # what HDF5 says then is only what follows from it
        return f"cannot write {what}: {reason}; what was finished is kept"


class FeatureStore(Store):
    """Local features by image name."""

    def names(self) -> list[str]:
        """All images in it, sorted. Raises StoreError when the file is damaged."""
        found: list[str] = []

        def visit(name: str, node: h5py.HLObject) -> None:
            if name.endswith("/keypoints") and isinstance(node, h5py.Dataset):
                found.append(name.removesuffix("/keypoints"))

        with self._undamaged():
            self._file.visititems(visit)
        return sorted(found)

    def count(self, name: str) -> int:
        """How many keypoints an image has; raises KeyError when it is not there."""
        return int(self._file[name]["keypoints"].shape[0])

    def keypoints(self, name: str) -> FloatArray:
        """(N, 2) float32; raises KeyError when the image is not there."""
        return np.asarray(self._file[name]["keypoints"], dtype=np.float32)

    def image_size(self, name: str) -> tuple[int, int]:
        """(width, height) of the original image; raises KeyError when the image or its size is not there."""
        width, height = self._file[name]["image_size"][()]
        return int(width), int(height)

    def read(self, name: str) -> Features:
        """Read an image's features. Raises ItemError when they are not there or damaged."""
        try:
            group = self._file[name]
            scores = group["scores" if "scores" in group else "keypoint_scores"]
            features = Features(
                keypoints=self.keypoints(name),
                scores=np.asarray(scores, dtype=np.float32),
                descriptors=np.ascontiguousarray(np.asarray(group["descriptors"], dtype=np.float32).T),
                image_size=self.image_size(name),
            )
        except (KeyError, OSError, ValueError, TypeError) as error:
            raise ItemError(f"no features of {name} in {self.path.name} ({_reason(error)})") from None
        rows = len(features.keypoints), len(features.scores), len(features.descriptors)
        if len(set(rows)) != 1 or features.keypoints.shape[1:] != (2,):
            raise ItemError(f"features of {name} do not fit together: {rows} keypoints, scores and descriptors")
        return features

    @property
    def image_folder(self) -> Path | None:
        """Where the images were when they were extracted; None when the file does not say."""
        text = self._file.attrs.get(_IMAGES)
        return Path(text) if text else None

    def set_image_folder(self, folder: Path) -> None:
        """Remember where the images are."""
        if self.image_folder != folder:
            self._file.attrs[_IMAGES] = str(folder)

    def write(self, name: str, features: Features) -> None:
        """Add an image; raises StoreError when it is there already or the disk is full."""
        arrays = {
            "keypoints": features.keypoints,
            "scores": features.scores,
            "descriptors": features.descriptors.T.astype(np.float16),
            "image_size": np.array(features.image_size, dtype=np.int64),
        }
        node = self._write(name, name, arrays)
        node["keypoints"].attrs["uncertainty"] = 1.0  # hloc's: detection noise in pixels


class MatchStore(Store):
    """Matches by pair, in the order in which the pair was matched."""

    def groups(self) -> Iterator[tuple[str, str]]:
        """The flattened names of all pairs in it."""
        for first, group in self._file.items():
            for second in group:
                yield first, second

    def pairs(self, names: Sequence[str]) -> list[Pair]:
        """The pairs of these images that are in it, in the order in which they were matched."""
        by_flat = {name.replace("/", "-"): name for name in names}
        groups = self.groups()
        return [Pair(by_flat[a], by_flat[b]) for a, b in groups if a in by_flat and b in by_flat]

    def __contains__(self, pair: Pair) -> bool:
        """Whether the pair is there, in either order."""
        return "/".join(flat(pair)) in self._file or "/".join(flat(Pair(pair.b, pair.a))) in self._file

    def read(self, pair: Pair) -> Matches:
        """Read a pair; columns are in the order of `pair`. Raises KeyError when it is not there."""
        direct = "/".join(flat(pair))
        swapped = direct not in self._file
        group = self._file["/".join(flat(Pair(pair.b, pair.a))) if swapped else direct]
        matches0 = np.asarray(group["matches0"], dtype=np.int32)
        first = np.flatnonzero(matches0 >= 0).astype(np.int32)
        scores = np.asarray(group["matching_scores0"], dtype=np.float32)[first]
        columns = (matches0[first], first) if swapped else (first, matches0[first])
        indices = np.stack(columns, axis=1)
        order = np.argsort(indices[:, 0])
        return Matches(indices[order], scores[order])

    def indices(self, pair: Pair) -> IntArray:
        """(K, 2) int32; as `read`."""
        return self.read(pair).indices

    def write(self, pair: Pair, matches: Matches, count: int) -> None:
        """Add a pair whose first image has `count` keypoints; raises StoreError as FeatureStore.write."""
        matches0 = np.full(count, -1, dtype=np.int32)
        scores = np.zeros(count, dtype=np.float32)
        matches0[matches.indices[:, 0]] = matches.indices[:, 1]
        scores[matches.indices[:, 0]] = matches.scores
        arrays = {"matches0": matches0, "matching_scores0": scores}
        self._write(" ".join(pair), "/".join(flat(pair)), arrays)


def flat(pair: Pair) -> tuple[str, str]:
    """Group names of a pair in hloc's layout. 'a/b.jpg' and 'a-b.jpg' have the same one."""
    return pair.a.replace("/", "-"), pair.b.replace("/", "-")


def _open_to_read(path: Path) -> h5py.File:
    if not path.is_file():
        raise StoreError(f"no {path.name} in {path.parent}: run the step before this one, or choose its --workspace")
    if journal_path(path).exists():
        recover(path)
    return h5py.File(path, "r")


def _create(path: Path, provenance: Provenance) -> None:
    journal_path(path).unlink(missing_ok=True)  # of a file that was deleted: it must never meet this one
    image = io.BytesIO()
    with h5py.File(image, "w", libver=_FORMAT) as file:
        file.attrs[_MADE_BY] = json.dumps(provenance)
    partial = path.with_name(f".{path.name}.new")
    write_synced(partial, image.getvalue())
    partial.replace(path)


def _leaves(provenance: Provenance, prefix: str = "") -> Provenance:
    """Nested settings as one level, called `outer.inner`."""
    flattened: Provenance = {}
    for key, value in provenance.items():
        flattened |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flattened


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
