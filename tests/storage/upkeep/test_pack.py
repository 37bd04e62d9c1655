"""`lgbatch pack` and `lgbatch info`."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.cli.info import describe
from lgbatch.errors import InputError, StoreError
from lgbatch.storage.commit_journal import journal_path
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.journal import JournaledFile
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.store import Store
from lgbatch.storage.upkeep import pack
from lgbatch.types import Pair, PhotoFile
from tests.helpers.synthetic import import_source, scene
from tests.storage.test_store import NAMES, PROVENANCE, assert_equal, features, matches

OTHER_PROVENANCE = PROVENANCE | {"max_keypoints": 512}
PHOTO = PhotoFile(2**64 - 1, 5, 7)


def call(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, [*map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with unused space, from removed items."""
    path = tmp_path / "features.h5"
    with FeatureStore(path, append=OTHER_PROVENANCE) as store:
        store.set_image_folder(tmp_path / "my photos")
        for i in range(40):
            store.write(f"{i % 3}/{i}.jpg", features(i), PHOTO)
        for i, name in enumerate(NAMES):
            store.write(name, features(i), PHOTO)
    with FeatureStore(path, append=PROVENANCE) as store:
        for i in range(40):
            store.remove(f"{i % 3}/{i}.jpg")
        store.write("new.jpg", features(7))
    return path


def content_of(path: Path) -> dict[str, object]:
    """All datasets and attributes, read with plain h5py."""
    content: dict[str, object] = {}

    def visit(name: str, node: h5py.HLObject) -> None:
        value = (node.dtype, node[()].tolist()) if isinstance(node, h5py.Dataset) else None
        content[name] = value, {key: np.asarray(attribute).tolist() for key, attribute in node.attrs.items()}

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return content


def test_a_packed_store_is_smaller_and_has_the_same_content(path: Path, tmp_path: Path) -> None:
    before, data = content_of(path), path.read_bytes()
    unused = Store(path).unused_bytes
    assert unused and unused > 100_000
    done = pack.pack(path, tmp_path / "packed.h5")
    assert path.read_bytes() == data
    assert content_of(done.path) == before
    assert done.bytes_after == done.path.stat().st_size < len(data) - 0.9 * unused
    with FeatureStore(done.path) as packed:
        assert (packed.unused_bytes or 0) < 5000
        assert packed.image_folder == tmp_path / "my photos"
        assert [entry["items"] for entry in packed.provenances.values()] == [5, 1]
        assert packed.record(NAMES[2]).photo == PHOTO
        for i, name in enumerate(NAMES):
            assert_equal(packed.read(name), features(i))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="lists open files in /proc")
def test_no_file_is_open_when_it_is_replaced_where_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "features.h5"
    with FeatureStore(path, append=PROVENANCE) as store:
        store.write("a.jpg", features(1))
    replace = Path.replace

    def replace_closed(source: Path, target: Path) -> Path:
        opened = {link.resolve() for link in Path("/proc/self/fd").iterdir()}
        if opened & {source, target}:
            raise PermissionError(13, "used by another process")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", replace_closed)
    monkeypatch.setattr(pack, "_CLOSE_FIRST", True)
    pack.pack(path)
    with FeatureStore(path) as store:
        assert_equal(store.read("a.jpg"), features(1))


def test_a_store_packed_in_place_can_be_appended_to(path: Path) -> None:
    before = content_of(path)
    done = pack.pack(path)
    assert done.path == path and done.bytes_after < done.bytes_before / 2
    assert content_of(path) == before
    with FeatureStore(path, append=PROVENANCE) as store:
        store.write("later.jpg", features(8))
    assert_equal(FeatureStore(path).read("later.jpg"), features(8))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_files_of_other_programs_are_packed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w", libver="earliest") as file:
        file["a-b.jpg/c.jpg/matches0"] = np.array([1, -1], np.int16)
        file["a-b.jpg/c.jpg/matching_scores0"] = np.array([0.5, np.nan], np.float16)
    pack.pack(tmp_path / "m.h5", tmp_path / "out.h5")
    assert repr(content_of(tmp_path / "out.h5")) == repr(content_of(tmp_path / "m.h5"))
    with MatchStore(tmp_path / "out.h5") as store:
        assert store.provenances == {} and store.unused_bytes is None


def test_a_failed_pack_leaves_the_store_unchanged(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = path.read_bytes()
    existing = tmp_path / "existing.h5"
    existing.write_text("no HDF5")
    with pytest.raises(InputError, match="already exists"):
        pack.pack(path, existing)
    with pytest.raises(StoreError, match=r"no none\.h5"):
        pack.pack(tmp_path / "none.h5")
    with pytest.raises(StoreError, match="cannot pack"):
        pack.pack(existing)
    other_program = JournaledFile(path)
    with pytest.raises(StoreError, match="in use"):
        pack.pack(path)
    other_program.close()

    def copy_badly(source: h5py.File, draft: Path) -> None:
        copy(source, draft)
        with h5py.File(draft, "r+") as file:
            file["new.jpg/scores"][0] += 1

    copy = pack._copy
    monkeypatch.setattr(pack, "_copy", copy_badly)
    for out in None, tmp_path / "out.h5":
        with pytest.raises(StoreError, match=r"the copy of /new\.jpg/scores in .* differs"):
            pack.pack(path, out)
    assert path.read_bytes() == data
    assert {file.name for file in tmp_path.iterdir()} == {"features.h5", "existing.h5"}


def test_info_lists_contents_and_provenance(path: Path, tmp_path: Path) -> None:
    with MatchStore(tmp_path / "matches.h5", append={"threshold": 0.1}) as store:
        for i in range(3):
            store.write(Pair(NAMES[0], NAMES[i + 1]), *matches(i))
    count = sum(len(matches(i)[0].indices) for i in range(3))
    import_source(tmp_path / "database.db", scene(tmp_path / "images"))
    status, output, _ = call("info", tmp_path, "--json")
    assert status == 0
    stored, matched, database = json.loads(output)["files"]
    assert stored["kind"] == "features" and stored["image_folder"] == str(tmp_path / "my photos")
    assert [(entry["by"], entry["items"]) for entry in stored["made"]] == [(OTHER_PROVENANCE, 5), (PROVENANCE, 1)]
    assert (stored["items"], stored["keypoints"]) == (6, 170 + 59)
    assert (stored["bytes"], stored["journal"]) == (path.stat().st_size, False)
    assert 100_000 < stored["unused_bytes"] < stored["bytes"]
    assert (matched["kind"], matched["items"], matched["matches"]) == ("matches", 3, count)
    assert [entry["by"] for entry in matched["made"]] == [{"threshold": 0.1}]
    assert {key: database[key] for key in ("items", "keypoints", "pairs", "matches", "verified_pairs")} == {
        "items": 3,
        "keypoints": 60,
        "pairs": 2,
        "matches": 20,
        "verified_pairs": 0,
    }
    text = call("info", tmp_path)[1]
    assert "extractor disk, max_keypoints 512: 5 images" in text and f"3 pairs, {count} matches" in text
    assert "unused" in text and "COLMAP database" in text
    assert call("info", path)[1].count("\n") == len([line for line in text.splitlines()][:6])


def test_info_on_files_of_other_programs_and_on_an_empty_path(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a.jpg/c.jpg/matches0"] = np.array([1, -1, 0])
    (info,) = describe(tmp_path / "m.h5")
    assert (info["kind"], info["items"], info["matches"], info["unused_bytes"]) == ("matches", 1, 2, None)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x/a.jpg/keypoints"] = np.zeros((4, 2))
    (info,) = describe(tmp_path / "f.h5")
    assert (info["kind"], info["items"], info["keypoints"]) == ("features", 1, 4)
    status, output, error = call("info", tmp_path / "missing")
    assert (status, output, error.count("\n")) == (2, "", 1) and "give a workspace" in error


def test_info_reports_an_unfinished_commit(path: Path) -> None:
    journal_path(path).write_bytes(b"torn")
    assert "left unfinished" in call("info", path)[1]
    assert not describe(path)[0]["journal"]


def test_the_pack_command_prints_both_sizes(path: Path, tmp_path: Path) -> None:
    status, output, _ = call("pack", path, "-o", tmp_path / "out.h5", "--json")
    done = json.loads(output)
    assert (status, done["bytes"]) == (0, (tmp_path / "out.h5").stat().st_size)
    assert done["bytes_before"] == path.stat().st_size
    status, output, error = call("pack", tmp_path / "none.h5")
    assert (status, output, error.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("link", [h5py.SoftLink("/new.jpg"), h5py.ExternalLink("other.h5", "/")])
def test_links_are_rejected(path: Path, link: h5py.SoftLink | h5py.ExternalLink) -> None:
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["secret"] = 1
    with h5py.File(path, "r+") as file:
        file["linked"] = link
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"linked in .* is a link, and links are not followed"):
        pack.pack(path)
    assert path.read_bytes() == before and sorted(p.name for p in path.parent.glob("*.h5*")) == [
        "features.h5",
        "other.h5",
    ]
