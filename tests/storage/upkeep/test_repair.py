"""`lgbatch repair`: damaged items are left out, all others stay as they were, and the damaged file stays."""

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from lgbatch.errors import StoreError
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.upkeep.repair import repair
from lgbatch.types import Pair
from tests.storage.test_store import PROVENANCE, assert_equal, features, matches
from tests.storage.upkeep.test_pack import call

NAMES = [f"day {i % 2}/{i}.jpg" for i in range(12)]
PAIRS = [Pair(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :]]


def change(path: Path, dataset: str) -> None:
    """Change some bytes of a dataset in the file."""
    with h5py.File(path, "r") as file:
        data = file[dataset].id
        offset = data.get_chunk_info(0).byte_offset if data.get_create_plist().get_layout() == 2 else data.get_offset()
    content = bytearray(path.read_bytes())
    content[offset + 2 : offset + 6] = (byte ^ 1 for byte in content[offset + 2 : offset + 6])
    path.write_bytes(content)


def damage_header(path: Path, group: str) -> None:
    """Change a byte of a group's header, which HDF5 checksums."""
    with h5py.File(path, "r") as file:
        address = h5py.h5o.get_info(file[group].id).addr
    content = bytearray(path.read_bytes())
    content[address + 30] ^= 255
    path.write_bytes(content)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "features.h5"
    with FeatureStore(path, append=PROVENANCE) as store:
        store.set_image_folder(tmp_path / "photos")
        for i, name in enumerate(NAMES):
            store.write(name, features(i))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "matches.h5"
    with MatchStore(path, append=PROVENANCE) as store:
        for i, pair in enumerate(PAIRS):
            store.write(pair, *matches(i), versions=(i, i + 1))
            store.set_geometry(pair, bytes([i] * 100))
    return path


def test_features_that_can_be_read_are_kept(images: Path, tmp_path: Path) -> None:
    damage_header(images, NAMES[3])
    with (
        pytest.raises(StoreError, match=f"is damaged .*: `lgbatch repair {images}` keeps"),
        FeatureStore(images) as store,
    ):
        store.names()
    change(images, f"{NAMES[5]}/descriptors")  # HDF5 does not notice it
    changed = images.read_bytes()
    code, out, _ = call("repair", images)
    assert code == 0 and out == (
        f"{images}: 10 images kept, 2 lost ({NAMES[3]}, {NAMES[5]}); the damaged file is {images}.damaged; "
        "the command that failed computes them again\n"
    )
    assert Path(f"{images}.damaged").read_bytes() == changed
    with FeatureStore(images, append=PROVENANCE) as store:
        assert store.names() == sorted(set(NAMES) - {NAMES[3], NAMES[5]})
        assert store.image_folder == tmp_path / "photos" and not store.outdated
        assert [entry["items"] for entry in store.provenances.values()] == [10]
        for i in (3, 5):
            store.write(NAMES[i], features(i))
    with FeatureStore(images) as store:
        assert store.points == sum(len(features(i).keypoints) for i in range(12))
        for i, name in enumerate(NAMES):
            assert_equal(store.read(name), features(i))
    assert call("repair", images)[1] == f"{images}: all 12 images can be read, nothing is changed\n"


def group(pair: Sequence[str]) -> str:
    return "/".join(name.replace("/", "-") for name in pair)


def test_matches_that_can_be_read_are_kept(pairs: Path) -> None:
    damage_header(pairs, group(PAIRS[7]))
    change(pairs, f"{group(PAIRS[20])}/matches0")
    with pytest.raises(StoreError, match=f"is damaged .*: `lgbatch repair {pairs}` keeps"), MatchStore(pairs) as store:
        store.read(PAIRS[7])
    first = NAMES[2].replace("/", "-")
    damage_header(pairs, first)  # nine pairs in one group
    code, out, _ = call("repair", pairs, "--json")
    done = json.loads(out)
    assert code == 0 and done["kept"] == 66 - 1 - 1 - 9 + (PAIRS[20].a == NAMES[2])
    assert done["kept"] + done["lost"] == 66 and first in done["damaged"]
    assert {group(PAIRS[7])} <= set(done["damaged"]) and done["aside"] == f"{pairs}.damaged"
    lost = {pair for i, pair in enumerate(PAIRS) if i in (7, 20) or pair.a == NAMES[2]}
    with MatchStore(pairs, append=PROVENANCE) as store:
        assert not store.outdated and set(store.pairs(NAMES)) == set(PAIRS) - lost
        for i, pair in enumerate(PAIRS):
            if pair in lost:
                store.write(pair, *matches(i))
                continue
            assert np.array_equal(store.read(pair).indices, matches(i)[0].indices)
            assert store.geometry(pair) == bytes([i] * 100)
            record = store.record(pair)
            assert record and record.versions == (i, i + 1)
    assert repair(pairs).aside is None


def test_a_second_damaged_file_has_another_name(images: Path) -> None:
    for number, name in enumerate((NAMES[0], NAMES[1])):
        damage_header(images, name)
        aside = repair(images).aside
        assert aside and aside.name == "features.h5.damaged" + "-2" * number
    assert sorted(path.name for path in images.parent.iterdir()) == [
        "features.h5",
        "features.h5.damaged",
        "features.h5.damaged-2",
    ]


@pytest.mark.parametrize("content", ["missing", "text", "truncated", "foreign", "table", "list"])
def test_what_cannot_be_repaired_is_left_as_it_is(images: Path, content: str) -> None:
    data, expected = images.read_bytes(), "move it away, and run the stage"
    if content == "missing":
        images.unlink()
        expected = "there is no file"
    elif content == "foreign":
        with h5py.File(images, "w") as file:
            file["a.jpg/keypoints"] = np.zeros((3, 2))
        expected = "not made by lgbatch"
    else:
        damaged = {
            "text": b"not HDF5",
            "truncated": data[:-1000],
            "table": data.replace(b'{"', b'"{'),
            "list": data.replace(b"day 1", b"yad 1").replace(b"day 0", b"yad 0"),
        }
        images.write_bytes(damaged[content])
    before = images.read_bytes() if images.exists() else None
    code, _, err = call("repair", images)
    assert code == 2 and err.count("\n") == 1 and expected in err
    assert (images.read_bytes() if images.exists() else None) == before
    assert [path for path in images.parent.iterdir() if path != images] == []


def test_a_store_in_use_is_not_repaired(images: Path) -> None:
    with FeatureStore(images, append=PROVENANCE), pytest.raises(StoreError, match="in use"):
        repair(images)
