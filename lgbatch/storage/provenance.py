"""What made an item, and whether it still fits: fingerprints, versions and the records that items carry.

made      what made an item, its settings and its model's weights, as a fingerprint; a store tells once what each means
photo     a hash of the photo file, its size and its time, so that a photo that was replaced under its name is noticed
version   a hash of an image's features themselves; a pair remembers the versions of both that it was matched from
"""

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import PhotoFile

Provenance = dict[str, Any]
UNKNOWN = 0
"""Instead of a fingerprint, a hash or a version: nobody has told."""
_SHOWN = 12  # characters of a hash that are told to a user


class ImageRecord(NamedTuple):
    """What an image's item says of itself."""

    made: int
    version: int
    keypoints: int
    photo: PhotoFile | None


class PairRecord(NamedTuple):
    """What a pair's item says of itself."""

    made: int
    versions: tuple[int, int]
    """Of the features of the first and the second image that it was matched from."""
    matches: int


def fingerprint(provenance: Provenance) -> int:
    """64 bits that stand for these settings and models."""
    return _digest(json.dumps(provenance, sort_keys=True).encode())


def differences(old: Provenance, new: Provenance) -> str:
    """What `old` has otherwise than `new`, for a user: 'max_keypoints 1024 (now 2048), ...'."""
    before, after = _leaves(old), _leaves(new)
    differing = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return ", ".join(f"{key} {_brief(before.get(key))} (now {_brief(after.get(key))})" for key in differing)


def format_provenance(provenance: Provenance) -> str:
    """What made something, for a user: 'extractor disk, max_keypoints 2048, ...'."""
    return ", ".join(f"{key} {_brief(value)}" for key, value in _leaves(provenance).items())


def version_of(*arrays: NDArray[Any]) -> int:
    """The version of features, from their arrays as they are stored: of all, or of the keypoints where others did."""
    return _digest(*(np.ascontiguousarray(array).data for array in arrays))


def _digest(*parts: bytes | memoryview) -> int:
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(part)
    return int.from_bytes(state.digest(), "little") or 1


def _leaves(provenance: Provenance, prefix: str = "") -> Provenance:
    """Nested settings as one level, called `outer.inner`."""
    flattened: Provenance = {}
    for key, value in provenance.items():
        flattened |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flattened


def _brief(value: Any) -> str:
    text = str(value)
    return text[:_SHOWN] if len(text) == 64 else text
