"""Stores for the tests of staleness."""

from pathlib import Path

import pytest

from lgbatch.photos.file_hash import hash_photo
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import ImageRef, Pair
from tests.workspace.helpers import NAMES, OLD, identity_matches, image_records, random_features


@pytest.fixture
def photo_refs(tmp_path: Path) -> list[ImageRef]:
    """Photo files with arbitrary content, one for each of NAMES."""
    refs = [ImageRef(name, tmp_path / "photos" / name) for name in NAMES]
    for number, ref in enumerate(refs):
        ref.path.parent.mkdir(parents=True, exist_ok=True)
        ref.path.write_bytes(bytes([number]) * 1000)
    return refs


@pytest.fixture
def features_path(tmp_path: Path, photo_refs: list[ImageRef]) -> Path:
    """Features of the photos and of a deleted one, extracted with the settings OLD."""
    path = tmp_path / "features.h5"
    with FeatureStore(path, append=OLD) as store:
        for number, ref in enumerate(photo_refs):
            store.write(ref.name, random_features(number), hash_photo(ref))
        store.write("gone.jpg", random_features(9))
    return path


@pytest.fixture
def matches_path(tmp_path: Path, features_path: Path) -> Path:
    """Matches of two pairs, (a.jpg, b c.jpg) and (day 1/a.jpg, a.jpg), with the threshold 0.1."""
    path = tmp_path / "matches.h5"
    records = image_records(features_path)
    with MatchStore(path, append={"threshold": 0.1}) as store:
        for pair, count in {Pair("a.jpg", "b c.jpg"): 3, Pair("day 1/a.jpg", "a.jpg"): 0}.items():
            store.write(pair, identity_matches(count), 5, (records[pair.a].version, records[pair.b].version))
    return path
