"""The database of a second try: the keypoints and matches of both, and the geometries of unchanged pairs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from lgbatch.colmap.import_stores import import_joined, import_stores
from lgbatch.colmap.ownership import is_marked
from lgbatch.config import Settings
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import FloatArray, IntArray, Matches, Pair
from lgbatch.workspace.folder import Workspace
from tests.helpers.synthetic import NAMES, SIZE, content, photo
from tests.workspace.helpers import random_features

A, B, C = NAMES
FIRST = {Pair(A, B): [(0, 3), (2, 1)], Pair(B, C): [(1, 1)], Pair(A, C): []}
SECOND = {Pair(C, B): [(2, 0)], Pair(A, C): [(1, 2)]}
"""The second try matches these pairs, the first of them in the other order, and not the pair of A and B."""


def fill(files: Workspace, names: list[str], matches: dict[Pair, list[tuple[int, int]]], seed: int) -> None:
    files.root.mkdir(exist_ok=True)
    versions = {}
    with FeatureStore(files.features, append={}) as store:
        for number, name in enumerate(names):
            store.write(name, replace(random_features(seed + number), image_size=SIZE))
            versions[name] = store.record(name).version, store.count(name)
    with MatchStore(files.matches, append={}) as store:
        for pair, found in matches.items():
            indices = np.array(found, np.int32).reshape(-1, 2)
            (first, count), (second, _) = versions[pair.a], versions[pair.b]
            store.write(pair, Matches(indices, np.ones(len(found), np.float32)), count, (first, second))


@pytest.fixture
def files(tmp_path: Path) -> Workspace:
    """A workspace with a database, two-view geometries of its pairs, and the stores of a second try."""
    files = Workspace(tmp_path / "out")
    for name in NAMES:
        photo(tmp_path / "images", name, SIZE)
    fill(files, [*NAMES], FIRST, 0)
    fill(files.second, [A, B, C], SECOND, 10)
    files.pairs.write_text(f"{A} {B}\n{B} {C}\n{A} {C}\n")
    files.second.pairs.write_text(f"{A} {C}\n{B} {C}\n")
    import_stores(files, tmp_path / "images", NAMES, files.pairs, Settings())
    with pycolmap.Database.open(files.database) as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        for pair, found in FIRST.items():
            if found:
                geometry = pycolmap.TwoViewGeometry(inlier_matches=np.array(found, np.uint32))
                db.write_two_view_geometry(ids[pair.a], ids[pair.b], geometry)
    return files


def join(files: Workspace, pairs: list[Pair] | None = None, replaced: tuple[Pair, ...] = ()) -> None:
    if pairs is not None:
        files.pairs.write_text("".join(f"{a} {b}\n" for a, b in pairs))
    import_joined(files, files.root.parent / "images", NAMES, files.pairs, Settings(), replaced)


def keypoints(files: Workspace, name: str) -> FloatArray:
    with FeatureStore(files.features) as store:
        return store.keypoints(name)


def matches(database: Path, pair: Pair) -> IntArray:
    with pycolmap.Database.open(database) as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        return db.read_matches(ids[pair.a], ids[pair.b]).astype(np.int32)


def test_keypoints_and_matches_of_the_second_try_follow_those_of_the_first(files: Workspace) -> None:
    before = content(files.database)
    join(files)
    assert content(files.database) == before
    joined, counts = content(files.second.database), {name: len(keypoints(files, name)) for name in NAMES}
    for name in NAMES:
        both = np.concatenate([keypoints(files, name), keypoints(files.second, name)]) + np.float32(0.5)
        assert np.array_equal(joined["keypoints"][name], both)
    assert matches(files.second.database, Pair(A, B)).tolist() == [[0, 3], [2, 1]]
    assert matches(files.second.database, Pair(B, C)).tolist() == [[1, 1], [0 + counts[B], 2 + counts[C]]]
    assert matches(files.second.database, Pair(A, C)).tolist() == [[1 + counts[A], 2 + counts[C]]]
    assert is_marked(files.second.database)


def test_matches_of_replaced_pairs_are_those_of_the_second_try_if_it_has_some(files: Workspace) -> None:
    join(files, replaced=(Pair(B, A), Pair(C, B)))
    counts = {name: len(keypoints(files, name)) for name in NAMES}
    assert matches(files.second.database, Pair(A, B)).tolist() == [[0, 3], [2, 1]]
    assert matches(files.second.database, Pair(B, C)).tolist() == [[0 + counts[B], 2 + counts[C]]]


def test_pairs_that_only_the_second_try_matched_are_added(files: Workspace) -> None:
    with MatchStore(files.matches, append={}) as store:
        store.remove(Pair(A, C))
    join(files)
    counts = {name: len(keypoints(files, name)) for name in NAMES}
    assert len(content(files.second.database)["matches"]) == 3
    assert matches(files.second.database, Pair(A, C)).tolist() == [[1 + counts[A], 2 + counts[C]]]


def test_geometries_of_pairs_with_the_same_matches_are_kept(files: Workspace) -> None:
    join(files)
    with pycolmap.Database.open(files.second.database) as db:
        kept = [pycolmap.pair_id_to_image_pair(pair) for pair in db.read_two_view_geometry_num_inliers()[0]]
        names = {image.image_id: image.name for image in db.read_all_images()}
    assert [(names[a], names[b]) for a, b in kept] == [(A, B)]


def test_a_repeated_import_changes_nothing(files: Workspace) -> None:
    join(files)
    before = files.second.database.read_bytes()
    join(files)
    assert files.second.database.read_bytes() == before


def test_only_pairs_that_are_listed_and_images_that_are_present_are_joined(files: Workspace) -> None:
    join(files, [Pair(B, C)])
    assert len(content(files.second.database)["matches"]) == 1
    import_joined(files, files.root.parent / "images", [B, C], files.pairs, Settings(), ())
    assert set(content(files.second.database)["keypoints"]) == {B, C}


def test_features_and_matches_of_earlier_second_tries_are_left_out(files: Workspace) -> None:
    files.second.pairs.write_text(f"{A} {C}\n")
    join(files)
    counts = {name: len(keypoints(files, name)) for name in NAMES}
    assert len(content(files.second.database)["keypoints"][B]) == counts[B]
    assert matches(files.second.database, Pair(B, C)).tolist() == [[1, 1]]
    assert matches(files.second.database, Pair(A, C)).tolist() == [[1 + counts[A], 2 + counts[C]]]


def test_the_next_import_of_the_first_try_takes_the_second_one_out(files: Workspace, tmp_path: Path) -> None:
    before = content(files.database)
    join(files)
    files.second.database.replace(files.database)
    import_stores(files, tmp_path / "images", NAMES, files.pairs, Settings())
    after = content(files.database)
    assert {k: v for k, v in after.items() if k != "verified"} == {k: v for k, v in before.items() if k != "verified"}
    assert len(after["verified"]) == 1
