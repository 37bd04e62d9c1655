"""The vocabulary of a workspace: visual words that are trained on its images, stored, and frozen.

New images are compared by the words of the first ones. The words are trained again if the features are others, or if
the images have become four times as many.
"""

import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lgbatch.errors import InputError, ItemError
from lgbatch.pairing.retrieval import train_vocabulary
from lgbatch.storage.durable import replace_synced
from lgbatch.storage.features import FeatureStore
from lgbatch.types import FloatArray

_IMAGES = 200
"""Images that the words are trained on, spread evenly over all."""
_GROWTH = 4


@dataclass(frozen=True)
class _Vocabulary:
    words: FloatArray
    """(W, D) float32."""
    fingerprint: int
    """Fingerprint of most of the features (storage/provenance.py)."""
    images: int
    """Number of images of the set when it was trained."""


def read_vocabulary(names: Sequence[str], features: FeatureStore, path: Path | None) -> FloatArray:
    """Return the words (W, D) for these images; W is 0 if none has features.

    They are those of the file `path` if it fits, else they are trained and written there. None: they are not stored.
    Raises InputError if the file cannot be written.
    """
    fingerprint = _most_common_fingerprint(names, features)
    stored = _load(path) if path else None
    if stored and stored.fingerprint == fingerprint and len(names) <= _GROWTH * stored.images:
        return stored.words
    trained = _Vocabulary(_train(names, features), fingerprint, len(names))
    if path and len(trained.words):
        _save(path, trained)
    return trained.words


def _most_common_fingerprint(names: Sequence[str], features: FeatureStore) -> int:
    counts = Counter(features.record(name).fingerprint for name in names if name in features)
    return min(counts, key=lambda fingerprint: (-counts[fingerprint], fingerprint), default=0)


def _train(names: Sequence[str], features: FeatureStore) -> FloatArray:
    step = max(1, -(-len(names) // _IMAGES))
    sample = [values for name in names[::step] if (values := read_descriptors(name, features)) is not None]
    dims = Counter(values.shape[1] for values in sample)
    usual = max(dims, key=lambda dim: (dims[dim], dim), default=0)
    return train_vocabulary([values for values in sample if values.shape[1] == usual])


def read_descriptors(name: str, features: FeatureStore) -> FloatArray | None:
    """Return the descriptors (N, D) of an image, N > 0; None if there are none, or they are damaged."""
    try:
        values = features.read(name).descriptors
    except ItemError:
        return None
    return values if len(values) and np.isfinite(values).all() else None


def _load(path: Path) -> _Vocabulary | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return _Vocabulary(np.asarray(file["words"], np.float32), int(file["fingerprint"]), int(file["images"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _save(path: Path, vocabulary: _Vocabulary) -> None:
    content = io.BytesIO()
    np.savez(
        content,
        words=vocabulary.words,
        fingerprint=np.uint64(vocabulary.fingerprint),
        images=np.int64(vocabulary.images),
    )
    try:
        replace_synced(path, content.getvalue())
    except OSError as error:
        raise InputError(f"cannot write the vocabulary to {path}: {error.strerror}") from None
