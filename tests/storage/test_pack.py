"""`lgbatch pack` and `lgbatch info`."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.cli.info import gather
from lgbatch.errors import InputError, StoreError
from lgbatch.storage import pack
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.journal import JournaledFile, journal_path
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.store import Store
from lgbatch.types import Pair, PhotoFile
from tests.helpers.synthetic import import_source, scene
from tests.storage.test_store import MADE, NAMES, assert_equal, features, matches

OTHER = MADE | {"max_keypoints": 512}
PHOTO = PhotoFile(2**64 - 1, 5, 7)


def call(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, [*map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Features of which some were made again, so that there is unused space."""
    path = tmp_path / "features.h5"
    with FeatureStore(path, append=OTHER) as store:
        store.set_image_folder(tmp_path / "my photos")
        for i in range(40):
            store.write(f"{i % 3}/{i}.jpg", features(i), PHOTO)
        for i, name in enumerate(NAMES):
            store.write(name, features(i), PHOTO)
    with FeatureStore(path, append=MADE) as store:
        for i in range(40):
            store.remove(f"{i % 3}/{i}.jpg")
        store.write("new.jpg", features(7))
    return path


def stored(path: Path) -> dict[str, object]:
    """All that plain h5py finds, with attributes."""
    found: dict[str, object] = {}

    def visit(name: str, node: h5py.HLObject) -> None:
        value = (node.dtype, node[()].tolist()) if isinstance(node, h5py.Dataset) else None
        found[name] = value, {key: np.asarray(attribute).tolist() for key, attribute in node.attrs.items()}

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def test_a_packed_store_holds_the_same_in_less(path: Path, tmp_path: Path) -> None:
    before, whole = stored(path), path.read_bytes()
    unused = Store(path).unused
    assert unused and unused > 100_000
    done = pack.pack(path, tmp_path / "packed.h5")
    assert path.read_bytes() == whole
    assert stored(done.path) == before
    assert done.after == done.path.stat().st_size < len(whole) - 0.9 * unused
    with FeatureStore(done.path) as packed:
        assert (packed.unused or 0) < 5000
        assert packed.image_folder == tmp_path / "my photos"
        assert [entry["items"] for entry in packed.made.values()] == [5, 1]
        assert packed.record(NAMES[2]).photo == PHOTO
        for i, name in enumerate(NAMES):
            assert_equal(packed.read(name), features(i))


def test_a_store_packed_in_place_is_gone_on_with(path: Path) -> None:
    before = stored(path)
    done = pack.pack(path)
    assert done.path == path and done.after < done.before / 2
    assert stored(path) == before
    with FeatureStore(path, append=MADE) as store:
        store.write("later.jpg", features(8))
    assert_equal(FeatureStore(path).read("later.jpg"), features(8))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_files_of_others_are_packed_as_they_are(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w", libver="earliest") as file:
        file["a-b.jpg/c.jpg/matches0"] = np.array([1, -1], np.int16)
        file["a-b.jpg/c.jpg/matching_scores0"] = np.array([0.5, np.nan], np.float16)
    pack.pack(tmp_path / "m.h5", tmp_path / "out.h5")
    assert repr(stored(tmp_path / "out.h5")) == repr(stored(tmp_path / "m.h5"))
    with MatchStore(tmp_path / "out.h5") as store:
        assert store.made == {} and store.unused is None


def test_what_cannot_be_packed_is_left_as_it_is(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = path.read_bytes()
    taken = tmp_path / "taken.h5"
    taken.write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        pack.pack(path, taken)
    with pytest.raises(StoreError, match=r"no none\.h5"):
        pack.pack(tmp_path / "none.h5")
    with pytest.raises(StoreError, match="cannot pack"):
        pack.pack(taken)
    other = JournaledFile(path)
    with pytest.raises(StoreError, match="in use"):
        pack.pack(path)
    other.close()

    def copy_badly(source: h5py.File, draft: Path) -> None:
        copy(source, draft)
        with h5py.File(draft, "r+") as file:
            file["new.jpg/scores"][0] += 1

    copy = pack._copy
    monkeypatch.setattr(pack, "_copy", copy_badly)
    for out in None, tmp_path / "out.h5":
        with pytest.raises(StoreError, match=r"/new\.jpg/scores of .* was not copied as it is"):
            pack.pack(path, out)
    assert path.read_bytes() == whole
    assert {file.name for file in tmp_path.iterdir()} == {"features.h5", "taken.h5"}


def test_info_tells_what_there_is_and_what_made_it(path: Path, tmp_path: Path) -> None:
    with MatchStore(tmp_path / "matches.h5", append={"threshold": 0.1}) as store:
        for i in range(3):
            store.write(Pair(NAMES[0], NAMES[i + 1]), *matches(i))
    count = sum(len(matches(i)[0].indices) for i in range(3))
    import_source(tmp_path / "database.db", scene(tmp_path / "images"))
    status, told, _ = call("info", tmp_path, "--json")
    assert status == 0
    kept, matched, database = json.loads(told)["files"]
    assert kept["kind"] == "features" and kept["image_folder"] == str(tmp_path / "my photos")
    assert [(entry["by"], entry["items"]) for entry in kept["made"]] == [(OTHER, 5), (MADE, 1)]
    assert (kept["items"], kept["keypoints"]) == (6, 170 + 59)
    assert (kept["bytes"], kept["journal"]) == (path.stat().st_size, False)
    assert 100_000 < kept["unused_bytes"] < kept["bytes"]
    assert (matched["kind"], matched["items"], matched["matches"]) == ("matches", 3, count)
    assert [entry["by"] for entry in matched["made"]] == [{"threshold": 0.1}]
    assert {key: database[key] for key in ("items", "keypoints", "pairs", "matches", "verified_pairs")} == {
        "items": 3,
        "keypoints": 60,
        "pairs": 2,
        "matches": 20,
        "verified_pairs": 0,
    }
    words = call("info", tmp_path)[1]
    assert "extractor disk, max_keypoints 512: 5 images" in words and f"3 pairs, {count} matches" in words
    assert "unused" in words and "COLMAP database" in words
    assert call("info", path)[1].count("\n") == len([line for line in words.splitlines()][:6])


def test_info_on_others_files_and_on_nothing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a.jpg/c.jpg/matches0"] = np.array([1, -1, 0])
    (found,) = gather(tmp_path / "m.h5")
    assert (found["kind"], found["items"], found["matches"], found["unused_bytes"]) == ("matches", 1, 2, None)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x/a.jpg/keypoints"] = np.zeros((4, 2))
    (found,) = gather(tmp_path / "f.h5")
    assert (found["kind"], found["items"], found["keypoints"]) == ("features", 1, 4)
    status, told, line = call("info", tmp_path / "nowhere")
    assert (status, told, line.count("\n")) == (2, "", 1) and "give a workspace" in line


def test_info_says_that_a_commit_was_unfinished(path: Path) -> None:
    journal_path(path).write_bytes(b"torn")
    assert "commit unfinished" in call("info", path)[1]
    assert not gather(path)[0]["journal"]


def test_pack_is_a_command(path: Path, tmp_path: Path) -> None:
    status, told, _ = call("pack", path, "-o", tmp_path / "out.h5", "--json")
    done = json.loads(told)
    assert (status, done["bytes"]) == (0, (tmp_path / "out.h5").stat().st_size)
    assert done["bytes_before"] == path.stat().st_size
    status, told, line = call("pack", tmp_path / "none.h5")
    assert (status, told, line.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("link", [h5py.SoftLink("/new.jpg"), h5py.ExternalLink("other.h5", "/")])
def test_a_link_is_not_followed(path: Path, link: h5py.SoftLink | h5py.ExternalLink) -> None:
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["secret"] = 1
    with h5py.File(path, "r+") as file:
        file["linked"] = link
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"linked in .* is a link to elsewhere"):
        pack.pack(path)
    assert path.read_bytes() == before and sorted(p.name for p in path.parent.glob("*.h5*")) == [
        "features.h5",
        "other.h5",
    ]
