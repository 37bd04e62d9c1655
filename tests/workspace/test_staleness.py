"""Other settings, replaced photos, features made again: what is kept, made again, refused and left out."""

import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from lgbatch.errors import DatabaseError, StoreError
from lgbatch.photos.file_hash import hash_photo
from lgbatch.pipelines import sfm
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.provenance import differences, fingerprint
from lgbatch.types import Features, ImageRef, Matches, Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.staleness import drop_others, plan_extraction, plan_matching, usable_pairs
from tests.helpers.synthetic import content

OLD, NEW = {"max_keypoints": 1024, "resize": 1024}, {"max_keypoints": 2048, "resize": 1024}
NAMES = ["a.jpg", "b c.jpg", "day 1/a.jpg"]


def features(seed: int, count: int = 5) -> Features:
    rng = np.random.default_rng(seed)
    descriptors = rng.standard_normal((count, 128), dtype=np.float32)
    return Features(rng.random((count, 2), dtype=np.float32), rng.random(count, dtype=np.float32), descriptors, (8, 6))


def some_matches(count: int) -> Matches:
    indices = np.stack([np.arange(count), np.arange(count)], axis=1).astype(np.int32)
    return Matches(indices, np.ones(count, np.float32))


def refused(error: pytest.ExceptionInfo[StoreError | DatabaseError]) -> str:
    text = str(error.value)
    assert "\n" not in text and "--on-change recompute" in text
    return text


@pytest.fixture
def photos(tmp_path: Path) -> list[ImageRef]:
    refs = [ImageRef(name, tmp_path / "photos" / name) for name in NAMES]
    for number, ref in enumerate(refs):
        ref.path.parent.mkdir(parents=True, exist_ok=True)
        ref.path.write_bytes(bytes([number]) * 1000)
    return refs


@pytest.fixture
def path(tmp_path: Path, photos: list[ImageRef]) -> Path:
    """Features of the photos, made with the old settings, and of one that has gone."""
    path = tmp_path / "features.h5"
    with FeatureStore(path, append=OLD) as store:
        for number, ref in enumerate(photos):
            store.write(ref.name, features(number), hash_photo(ref))
        store.write("gone.jpg", features(9))
    return path


def test_what_fits_is_kept_and_no_photo_is_read(path: Path, photos: list[ImageRef]) -> None:
    before = path.read_bytes()
    for ref in photos:
        ref.path.chmod(0)
    for on_change in "refuse", "recompute", "keep":
        with FeatureStore(path, append=OLD) as store:
            assert plan_extraction(store, photos, on_change) == []
            assert plan_extraction(store, [*photos, ImageRef("new.jpg", path)], on_change)[0].name == "new.jpg"
            drop_others(store, on_change)
    assert path.read_bytes() == before


def test_other_settings_are_refused_in_one_line_or_kept(path: Path, photos: list[ImageRef]) -> None:
    before = path.read_bytes()
    with FeatureStore(path, append=NEW) as store:
        with pytest.raises(StoreError) as error:
            plan_extraction(store, photos, "refuse")
        assert refused(error).startswith(
            f"{path}: 4 photos were extracted with max_keypoints 1024 (now 2048): --on-change recompute makes them "
        )
        assert plan_extraction(store, photos, "keep") == []
        drop_others(store, "keep")
    assert path.read_bytes() == before


def test_other_settings_are_recomputed_item_by_item(path: Path, photos: list[ImageRef]) -> None:
    with FeatureStore(path, append=NEW) as store:
        again = plan_extraction(store, photos, "recompute")
        assert again == photos
        store.remove(NAMES[0])
        store.write(NAMES[0], features(20, 7), hash_photo(photos[0]))
        store.commit()
    with FeatureStore(path) as store:  # as a run that was killed then leaves it
        assert store.names() == sorted([*NAMES, "gone.jpg"])
        assert {entry["by"]["max_keypoints"]: (entry["items"], entry["points"]) for entry in store.made.values()} == {
            1024: (3, 15),
            2048: (1, 7),
        }
        np.testing.assert_array_equal(store.read(NAMES[0]).keypoints, features(20, 7).keypoints)
        np.testing.assert_array_equal(store.read(NAMES[1]).keypoints, features(1).keypoints)
    with FeatureStore(path, append=NEW) as store:
        assert plan_extraction(store, photos, "recompute") == photos[1:]
        for ref in photos[1:]:
            store.remove(ref.name)
            store.write(ref.name, features(21), hash_photo(ref))
        drop_others(store, "recompute")  # the photo has gone: there is nothing to make it from
    with FeatureStore(path, append=NEW) as store:
        assert store.names() == sorted(NAMES) and store.points == 7 + 5 + 5
        assert plan_extraction(store, photos, "refuse") == []
        assert store.unused and store.unused > 3 * 5 * 128 * 2


def test_a_photo_that_was_only_touched_is_known_again(path: Path, photos: list[ImageRef]) -> None:
    os.utime(photos[1].path, ns=(5, 5))
    with FeatureStore(path, append=OLD) as store:
        assert plan_extraction(store, photos, "refuse") == []
    photos[1].path.chmod(0)
    with FeatureStore(path, append=OLD) as store:
        assert store.record(NAMES[1]).photo == hash_photo(photos[1])._replace(mtime_ns=5)
        version = store.record(NAMES[1]).version
        assert plan_extraction(store, photos, "refuse") == []
        assert store.record(NAMES[1]).version == version and store.record(NAMES[1]).keypoints == 5


@pytest.mark.parametrize("size", [1000, 1001])
def test_a_replaced_photo_is_noticed(path: Path, photos: list[ImageRef], size: int) -> None:
    photos[1].path.write_bytes(b"x" * size)
    os.utime(photos[1].path, ns=(5, 5))
    with FeatureStore(path, append=OLD) as store:
        with pytest.raises(StoreError) as error:
            plan_extraction(store, photos, "refuse")
        assert "1 photo has been replaced" in refused(error) and "b c.jpg" in str(error.value)
        assert plan_extraction(store, photos, "keep") == []
        assert plan_extraction(store, photos, "recompute") == [photos[1]]


def images(path: Path) -> dict[str, object]:
    with FeatureStore(path) as store:
        return {name: store.record(name) for name in store.names()}


@pytest.fixture
def matches(tmp_path: Path, path: Path) -> Path:
    """Two pairs, one of them the other way round than it will be asked for."""
    found = tmp_path / "matches.h5"
    records = images(path)
    with MatchStore(found, append={"threshold": 0.1}) as store:
        for pair, count in {Pair("a.jpg", "b c.jpg"): 3, Pair("day 1/a.jpg", "a.jpg"): 0}.items():
            store.write(pair, some_matches(count), 5, (records[pair.a].version, records[pair.b].version))
    return found


ASKED = [Pair("a.jpg", "b c.jpg"), Pair("a.jpg", "day 1/a.jpg"), Pair("b c.jpg", "day 1/a.jpg")]


def test_pairs_that_fit_are_kept(path: Path, matches: Path) -> None:
    before = matches.read_bytes()
    for on_change in "refuse", "recompute", "keep":
        with MatchStore(matches, append={"threshold": 0.1}) as store:
            standing = plan_matching(store, ASKED, images(path), on_change)
            assert (standing.missing, standing.matched_pairs, standing.matches) == (ASKED[2:], 1, 3)
            assert standing.failures == ()
    assert matches.read_bytes() == before


def test_pairs_of_other_settings(path: Path, matches: Path) -> None:
    with MatchStore(matches, append={"threshold": 0.2}) as store:
        with pytest.raises(StoreError) as error:
            plan_matching(store, ASKED, images(path), "refuse")
        assert "2 pairs were matched with threshold 0.1 (now 0.2): " in refused(error)
        assert plan_matching(store, ASKED, images(path), "keep").missing == ASKED[2:]
        standing = plan_matching(store, ASKED[:1], images(path), "recompute")
        assert (standing.missing, standing.matches) == (ASKED[:1], 0)
        store.remove(ASKED[0])
        store.write(ASKED[0], some_matches(2), 5)
        drop_others(store, "recompute")
    with MatchStore(matches) as store:
        assert store.pairs(NAMES) == ASKED[:1] and store.points == 2


def test_matches_of_features_that_have_changed_are_never_used(path: Path, matches: Path) -> None:
    with FeatureStore(path, append=OLD) as store:
        store.remove("b c.jpg")
        store.write("b c.jpg", features(50))
    with MatchStore(matches, append={"threshold": 0.1}) as store:
        with pytest.raises(StoreError) as error:
            plan_matching(store, ASKED, images(path), "refuse")
        assert "1 pair was matched with features that have changed since (a.jpg b c.jpg)" in refused(error)
        assert set(plan_matching(store, ASKED, images(path), "recompute").missing) == {ASKED[0], ASKED[2]}
        kept = plan_matching(store, ASKED, images(path), "keep")
        assert (kept.missing, kept.matches) == (ASKED[2:], 0)
        assert [(failure.name, failure.stage) for failure in kept.failures] == [("1 pair", "match")]
        versions = {name: record.version for name, record in images(path).items()}
        assert usable_pairs(store, versions) == [Pair("day 1/a.jpg", "a.jpg")]


def test_the_same_features_made_again_keep_their_matches(path: Path, matches: Path) -> None:
    with FeatureStore(path, append=NEW) as store:
        store.remove("b c.jpg")
        store.write("b c.jpg", features(1))
    with MatchStore(matches, append={"threshold": 0.1}) as store:
        assert plan_matching(store, ASKED, images(path), "refuse").missing == ASKED[2:]


def test_items_of_others_have_a_version_too(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a.jpg/keypoints"] = np.zeros((3, 2), np.float16)
        file["b.jpg/keypoints"] = np.ones((4, 2), np.float16)
    found = images(tmp_path / "f.h5")
    assert [(record.made, record.keypoints, record.photo) for record in found.values()] == [(0, 3, None), (0, 4, None)]
    assert found["a.jpg"].version != found["b.jpg"].version
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a.jpg/b.jpg/matches0"] = np.array([2, -1, 0])
        file["a.jpg/b.jpg/matching_scores0"] = np.ones(3)
    with MatchStore(tmp_path / "m.h5") as store:
        record = store.record(Pair("b.jpg", "a.jpg"))
        assert record is not None and record.matches == 2
        assert usable_pairs(store, {"a.jpg": 1, "b.jpg": 2}) == [Pair("a.jpg", "b.jpg")]


def test_differences_name_what_changed_and_only_that() -> None:
    old = {"model": {"weights": "a" * 64, "kind": "x"}, "size": 5}
    new = {"model": {"weights": "b" * 64, "kind": "x"}, "resize": 7, "size": 5}
    assert differences(old, new) == f"model.weights {'a' * 12} (now {'b' * 12}), resize None (now 7)"
    assert fingerprint(old) == fingerprint(dict(reversed(old.items()))) != fingerprint(new)


REMAKER = """
    import sys
    from pathlib import Path
    from lgbatch.storage.features import FeatureStore
    from tests.workspace.test_staleness import NEW, features
    with FeatureStore(Path(sys.argv[1]), append=NEW) as store:
        todo = [name for name in store.names() if store.record(name).made in store.others]
        for done, name in enumerate(todo):
            store.remove(name)
            store.write(name, features(int(name) + 1000, 60))
            if done % 3 == 2:
                store.commit()
                print(name, flush=True)
"""


def test_killed_while_items_are_made_again_each_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    path, rng, count, mixed = tmp_path / "features.h5", random.Random(time.time_ns()), 300, 0
    with FeatureStore(path, append=OLD) as store:
        for i in range(count):
            store.write(f"{i:04d}", features(i, 50))
    for _ in range(5):
        command = [sys.executable, "-c", textwrap.dedent(REMAKER), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as remaker:
            assert remaker.stdout is not None
            said = [remaker.stdout.readline()]
            time.sleep(rng.uniform(0, 0.1))
            remaker.kill()
            said += remaker.stdout.readlines()
        last = max((line.strip() for line in said if line.endswith("\n")), default="")
        with FeatureStore(path) as store:
            assert store.names() == [f"{i:04d}" for i in range(count)]
            new = 0
            for i, name in enumerate(store.names()):
                record = store.record(name)
                again = store.made[record.made]["by"] == NEW
                new += again
                assert again or name > last
                expected = features(i + 1000, 60) if again else features(i, 50)
                np.testing.assert_array_equal(store.read(name).keypoints, expected.keypoints)
            assert {entry["by"]["max_keypoints"]: entry["items"] for entry in store.made.values()} == {
                limit: items for limit, items in {1024: count - new, 2048: new}.items() if items
            }
            mixed += 0 < new < count
    assert mixed


def small(gallery: Path, folder: Path, views: Sequence[int]) -> Path:
    folder.mkdir(exist_ok=True)
    for i in views:
        view = cv2.imread(str(gallery / f"view_{i:02d}.jpg"))
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(view, (512, 384), interpolation=cv2.INTER_AREA))
    return folder


def everything(workspace: Workspace) -> dict[str, object]:
    """What a workspace's stores and database hold, but for where it is kept and when it was made."""
    found: dict[str, object] = {}

    def visit(name: str, node: h5py.HLObject) -> None:
        if isinstance(node, h5py.Dataset):
            found[f"{node.file.filename[-10:]} {name}"] = node[()].tolist()

    for path in workspace.features, workspace.matches:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    return found | {f"database {key}": value for key, value in content(workspace.database).items()}


@pytest.mark.weights
def test_a_run_with_other_settings_ends_as_a_fresh_one(models: Path, gallery: Path, tmp_path: Path) -> None:
    photos = small(gallery, tmp_path / "photos", range(3, 8))
    first, fresh = Workspace(tmp_path / "first"), Workspace(tmp_path / "fresh")
    sfm.run(photos, first.root, models=models, max_keypoints=600)
    with pytest.raises(StoreError) as error:
        sfm.run(photos, first.root, models=models, max_keypoints=400)
    assert "5 photos were extracted with max_keypoints 600 (now 400)" in refused(error)
    again = sfm.run(photos, first.root, models=models, max_keypoints=400, on_change="recompute")
    expected = sfm.run(photos, fresh.root, models=models, max_keypoints=400)
    assert everything(first) == everything(fresh)
    assert (again.registered_images, again.points3D) == (expected.registered_images, expected.points3D)
    assert again.registered_images == 5
    # And it stays so, without being asked.
    before = [first.features.read_bytes(), first.matches.read_bytes()]
    sfm.run(photos, first.root, models=models, max_keypoints=400)
    assert [first.features.read_bytes(), first.matches.read_bytes()] == before
    # The matcher's settings alone, too.
    sfm.run(photos, first.root, models=models, max_keypoints=400, filter_threshold=0.3, on_change="recompute")
    assert first.features.read_bytes() == before[0]
    sfm.run(photos, fresh.root / "3", models=models, max_keypoints=400, filter_threshold=0.3)
    assert everything(first) == everything(Workspace(fresh.root / "3"))


@pytest.mark.weights
def test_a_photo_replaced_between_runs(models: Path, gallery: Path, tmp_path: Path) -> None:
    photos = small(gallery, tmp_path / "photos", range(3, 8))
    out, fresh = Workspace(tmp_path / "out"), Workspace(tmp_path / "fresh")
    sfm.run(photos, out.root, models=models, max_keypoints=400)
    small(gallery, photos, [9])
    (photos / "9.png").replace(photos / "7.png")
    with pytest.raises(StoreError) as error:
        sfm.run(photos, out.root, models=models, max_keypoints=400)
    assert "1 photo has been replaced" in refused(error)
    kept = sfm.run(photos, out.root, models=models, max_keypoints=400, on_change="keep")
    assert (kept.registered_images, kept.failures) == (5, [])
    sfm.run(photos, out.root, models=models, max_keypoints=400, on_change="recompute")
    sfm.run(photos, fresh.root, models=models, max_keypoints=400)
    assert everything(out) == everything(fresh)
