"""Features of other settings or of replaced photos: kept, computed again or refused."""

import os
import random
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import StoreError
from lgbatch.photos.file_hash import hash_photo
from lgbatch.storage.features import FeatureStore
from lgbatch.types import ImageRef
from lgbatch.workspace.staleness import drop_outdated, plan_extraction
from tests.workspace.helpers import NAMES, NEW, OLD, random_features, refusal


def test_valid_items_are_kept_and_no_photo_is_read(features_path: Path, photo_refs: list[ImageRef]) -> None:
    before = features_path.read_bytes()
    for ref in photo_refs:
        ref.path.chmod(0)
    new = ImageRef("new.jpg", features_path)
    for on_change in "refuse", "recompute", "keep":
        with FeatureStore(features_path, append=OLD) as store:
            assert plan_extraction(store, photo_refs, on_change) == []
            assert plan_extraction(store, [*photo_refs, new], on_change)[0].name == "new.jpg"
            drop_outdated(store, on_change)
    assert features_path.read_bytes() == before


def test_items_of_other_settings_are_refused_in_one_line_or_kept(
    features_path: Path, photo_refs: list[ImageRef]
) -> None:
    before = features_path.read_bytes()
    with FeatureStore(features_path, append=NEW) as store:
        with pytest.raises(StoreError) as error:
            plan_extraction(store, photo_refs, "refuse")
        assert refusal(error).startswith(
            f"{features_path}: 4 photos were extracted with max_keypoints 1024 (now 2048): --on-change recompute "
            "computes them "
        )
        assert plan_extraction(store, photo_refs, "keep") == []
        drop_outdated(store, "keep")
    assert features_path.read_bytes() == before


def test_items_of_other_settings_are_recomputed_one_by_one(features_path: Path, photo_refs: list[ImageRef]) -> None:
    with FeatureStore(features_path, append=NEW) as store:
        assert plan_extraction(store, photo_refs, "recompute") == photo_refs
        store.remove(NAMES[0])
        store.write(NAMES[0], random_features(20, 7), hash_photo(photo_refs[0]))
        store.commit()
    with FeatureStore(features_path) as store:  # the state that a killed run leaves
        assert store.names() == sorted([*NAMES, "gone.jpg"])
        entries = store.provenances.values()
        totals = {entry["by"]["max_keypoints"]: (entry["items"], entry["points"]) for entry in entries}
        assert totals == {1024: (3, 15), 2048: (1, 7)}
        np.testing.assert_array_equal(store.read(NAMES[0]).keypoints, random_features(20, 7).keypoints)
        np.testing.assert_array_equal(store.read(NAMES[1]).keypoints, random_features(1).keypoints)
    with FeatureStore(features_path, append=NEW) as store:
        assert plan_extraction(store, photo_refs, "recompute") == photo_refs[1:]
        for ref in photo_refs[1:]:
            store.remove(ref.name)
            store.write(ref.name, random_features(21), hash_photo(ref))
        drop_outdated(store, "recompute")  # removes the item of the deleted photo
    with FeatureStore(features_path, append=NEW) as store:
        assert store.names() == sorted(NAMES) and store.points == 7 + 5 + 5
        assert plan_extraction(store, photo_refs, "refuse") == []
        assert store.unused_bytes and store.unused_bytes > 3 * 5 * 128 * 2


def test_a_touched_photo_is_valid_and_its_new_time_is_recorded(features_path: Path, photo_refs: list[ImageRef]) -> None:
    os.utime(photo_refs[1].path, ns=(5, 5))
    with FeatureStore(features_path, append=OLD) as store:
        assert plan_extraction(store, photo_refs, "refuse") == []
    photo_refs[1].path.chmod(0)
    with FeatureStore(features_path, append=OLD) as store:
        assert store.record(NAMES[1]).photo == hash_photo(photo_refs[1])._replace(mtime_ns=5)
        version = store.record(NAMES[1]).version
        assert plan_extraction(store, photo_refs, "refuse") == []
        assert store.record(NAMES[1]).version == version and store.record(NAMES[1]).keypoints == 5


@pytest.mark.parametrize("size", [1000, 1001])
def test_a_replaced_photo_is_detected(features_path: Path, photo_refs: list[ImageRef], size: int) -> None:
    photo_refs[1].path.write_bytes(b"x" * size)
    os.utime(photo_refs[1].path, ns=(5, 5))
    with FeatureStore(features_path, append=OLD) as store:
        with pytest.raises(StoreError) as error:
            plan_extraction(store, photo_refs, "refuse")
        assert "1 photo has been replaced" in refusal(error) and "b c.jpg" in str(error.value)
        assert plan_extraction(store, photo_refs, "keep") == []
        assert plan_extraction(store, photo_refs, "recompute") == [photo_refs[1]]


def test_a_photo_that_is_turned_otherwise_is_stale(features_path: Path, photo_refs: list[ImageRef]) -> None:
    turned = [photo_refs[0], replace(photo_refs[1], orientation=6), photo_refs[2]]
    with FeatureStore(features_path, append=OLD) as store:
        with pytest.raises(StoreError) as error:
            plan_extraction(store, turned, "refuse")
        assert "1 photo was extracted with another orientation than --rotation gives" in refusal(error)
        assert "(b c.jpg: EXIF code 1, now 6)" in str(error.value)
        assert plan_extraction(store, turned, "refuse", lambda ref: ref == turned[1]) == []  # it has failed before
        assert plan_extraction(store, turned, "keep") == []
        assert plan_extraction(store, turned, "recompute") == [turned[1]]
        store.remove(NAMES[1])
        store.write(NAMES[1], replace(random_features(1), orientation=6), hash_photo(turned[1]))
        assert plan_extraction(store, turned, "refuse") == []
        assert plan_extraction(store, photo_refs, "recompute") == [photo_refs[1]]


def test_features_of_a_photo_that_is_mirrored_otherwise_are_not_kept(
    features_path: Path, photo_refs: list[ImageRef]
) -> None:
    mirrored = [photo_refs[0], replace(photo_refs[1], orientation=4), photo_refs[2]]
    for provenance in OLD, NEW:
        with FeatureStore(features_path, append=provenance) as store:
            assert plan_extraction(store, mirrored, "keep") == [mirrored[1]]
            assert plan_extraction(store, mirrored, "keep", lambda ref: ref == mirrored[1]) == []
    with FeatureStore(features_path, append=OLD) as store:
        store.remove(NAMES[1])
        store.write(NAMES[1], replace(random_features(1), orientation=2), hash_photo(mirrored[1]))
        assert plan_extraction(store, mirrored, "keep") == []  # turned otherwise, but mirrored as well
        assert plan_extraction(store, photo_refs, "keep") == [photo_refs[1]]


RECOMPUTE = """
    import sys
    from pathlib import Path
    from lgbatch.storage.features import FeatureStore
    from tests.workspace.helpers import NEW, random_features
    with FeatureStore(Path(sys.argv[1]), append=NEW) as store:
        names = [name for name in store.names() if store.record(name).fingerprint in store.outdated]
        for done, name in enumerate(names):
            store.remove(name)
            store.write(name, random_features(int(name) + 1000, 60))
            if done % 3 == 2:
                store.commit()
                print(name, flush=True)
"""


def recompute_and_kill(path: Path, seconds: float) -> str:
    """Recompute items in a subprocess, kill it, and return the name of the last item that it reported as committed."""
    command = [sys.executable, "-c", textwrap.dedent(RECOMPUTE), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(seconds)
        process.kill()
        lines += process.stdout.readlines()
    return max((line.strip() for line in lines if line.endswith("\n")), default="")


def test_each_item_is_the_old_or_the_new_one_after_kill_9(tmp_path: Path) -> None:
    path, rng, count, mixed = tmp_path / "features.h5", random.Random(time.time_ns()), 300, 0
    with FeatureStore(path, append=OLD) as store:
        for i in range(count):
            store.write(f"{i:04d}", random_features(i, 50))
    for _ in range(5):
        last_committed = recompute_and_kill(path, rng.uniform(0, 0.1))
        with FeatureStore(path) as store:
            assert store.names() == [f"{i:04d}" for i in range(count)]
            new_items = 0
            for i, name in enumerate(store.names()):
                is_new = store.provenances[store.record(name).fingerprint]["by"] == NEW
                new_items += is_new
                assert is_new or name > last_committed
                expected = random_features(i + 1000, 60) if is_new else random_features(i, 50)
                np.testing.assert_array_equal(store.read(name).keypoints, expected.keypoints)
            totals = {entry["by"]["max_keypoints"]: entry["items"] for entry in store.provenances.values()}
            expected_totals = {1024: count - new_items, 2048: new_items}
            assert totals == {limit: items for limit, items in expected_totals.items() if items}
            mixed += 0 < new_items < count
    assert mixed
