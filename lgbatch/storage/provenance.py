"""Provenance of items: which settings, weights, photo and features an item was computed from.

fingerprint   64-bit hash of the provenance (settings and the hashes of the model's weights); the file's provenance
              table maps it to the provenance in full
photo         hash, size and modification time of the photo's file, to detect a replaced photo
version       64-bit hash of an image's features; a pair records the versions that it was matched from
"""

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import PhotoFile

Provenance = dict[str, Any]
"""Settings and weights' hashes by name; values are plain JSON values or nested dicts."""
UNKNOWN = 0
"""An unknown fingerprint, hash or version."""
_HASH_CHARACTERS = 12  # of a SHA-256 in messages


class ImageRecord(NamedTuple):
    """The record of an image's item."""

    fingerprint: int
    version: int
    keypoints: int
    """Number of keypoints."""
    photo: PhotoFile | None


class PairRecord(NamedTuple):
    """The record of a pair's item."""

    fingerprint: int
    versions: tuple[int, int]
    """Versions of the features of the first and the second image."""
    matches: int
    """Number of matches."""


def fingerprint(provenance: Provenance) -> int:
    """Return a 64-bit hash of the provenance."""
    return _hash(json.dumps(provenance, sort_keys=True).encode())


def differences(old: Provenance, new: Provenance) -> str:
    """List the changed values, for messages: 'max_keypoints 1024 (now 2048), ...'."""
    before, after = _flatten(old), _flatten(new)
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return ", ".join(f"{key} {_shorten(before.get(key))} (now {_shorten(after.get(key))})" for key in changed)


def format_provenance(provenance: Provenance) -> str:
    """List all values, for messages: 'extractor disk, max_keypoints 2048, ...'."""
    return ", ".join(f"{key} {_shorten(value)}" for key, value in _flatten(provenance).items())


def version_of(*arrays: NDArray[Any]) -> int:
    """Return the version of features: a hash of their arrays as stored.

    lgbatch hashes all arrays; for files of other programs, the keypoints stand for all.
    """
    return _hash(*(np.ascontiguousarray(array).data for array in arrays))


def _hash(*parts: bytes | memoryview) -> int:
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(part)
    return int.from_bytes(state.digest(), "little") or 1  # 0 is UNKNOWN


def _flatten(provenance: Provenance, prefix: str = "") -> Provenance:
    """Flatten nested settings to keys such as `outer.inner`."""
    flat: Provenance = {}
    for key, value in provenance.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _shorten(value: Any) -> str:
    text = str(value)
    return text[:_HASH_CHARACTERS] if len(text) == 64 else text
