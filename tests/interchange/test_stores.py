"""Features and matches of hloc and of COLMAP's text files, in both directions."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.errors import InputError
from lgbatch.interchange.stores import export_stores, import_stores
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Matches, Pair
from lgbatch.workspace.folder import Workspace
from tests.interchange import helpers
from tests.torture.harness import hloc_reader

NAMES = ("a.png", "x/b.png", "x-c.png")
PAIRS = (Pair("x/b.png", "a.png"), Pair("a.png", "x-c.png"))


def found(seed: int, count: int = 20) -> Matches:
    rng = np.random.default_rng(seed)
    first, second = np.sort(rng.permutation(count)[:8]), rng.permutation(count)[:8]
    return Matches(np.stack([first, second], 1).astype(np.int32), rng.random(8).astype(np.float16).astype(np.float32))


def make(folder: Path, names: tuple[str, ...] = NAMES, pairs: tuple[Pair, ...] = PAIRS) -> Workspace:
    for name in names:
        helpers.photo(folder / "photos" / name)
    helpers.workspace(folder, names)
    with MatchStore(folder / "matches.h5", append={"matcher": "test"}) as store:
        store.separate_twins(names)
        for number, pair in enumerate(pairs):
            store.write(pair, found(number), 20)
    return Workspace(folder)


def same_matches(first: Path, second: Path, pairs: tuple[Pair, ...] = PAIRS, scores: bool = True) -> None:
    with MatchStore(first) as ours, MatchStore(second) as theirs:
        for pair in pairs:
            np.testing.assert_array_equal(ours.read(pair).indices, theirs.read(pair).indices)
            if scores:
                np.testing.assert_array_equal(ours.read(pair).scores, theirs.read(pair).scores)


def test_hloc_reads_what_is_written_for_it(tmp_path: Path) -> None:
    files, out = make(tmp_path), tmp_path / "hloc"
    done = export_stores(files, out, "hloc")
    assert (done.images, done.pairs, done.left_out_pairs) == (3, 2, 0)
    assert hloc_reader.list_images(out / "features.h5") == sorted(NAMES)
    with FeatureStore(files.features) as store:
        for name in NAMES:
            ours, theirs = store.read(name), hloc_reader.get_features(out / "features.h5", name)
            assert {key: values.dtype for key, values in theirs.items()} == {
                "keypoints": np.float32,
                "scores": np.float16,
                "descriptors": np.float16,
                "image_size": np.int64,
            }
            np.testing.assert_array_equal(theirs["descriptors"].T, ours.descriptors)
            keypoints, uncertainty = hloc_reader.get_keypoints(out / "features.h5", name)
            np.testing.assert_array_equal(keypoints, ours.keypoints)
            assert uncertainty == 1.0
    for number, pair in enumerate(PAIRS):
        indices, scores = hloc_reader.get_matches(out / "matches.h5", *pair)
        np.testing.assert_array_equal(indices, found(number).indices)
        np.testing.assert_array_equal(scores, found(number).scores)
    assert (out / "pairs.txt").read_text().split() == [name for pair in sorted(PAIRS) for name in pair]
    with h5py.File(out / "matches.h5") as file:
        assert not file.attrs and not file["a.png/x-c.png"].attrs
        assert file["a.png/x-c.png/matches0"].dtype == np.int16
        assert file["a.png/x-c.png/matches0"].compression is None


def test_a_workspace_of_hlocs_files_has_the_same_arrays(tmp_path: Path) -> None:
    files, new = make(tmp_path), Workspace(tmp_path / "new")
    export_stores(files, tmp_path / "hloc", "hloc")
    done = import_stores(
        tmp_path / "hloc" / "features.h5",
        new,
        "hloc",
        photos=tmp_path / "photos",
        matches=tmp_path / "hloc" / "matches.h5",
        extractor="disk",
    )
    assert (done.images, done.pairs, done.failures) == (3, 2, ())
    with FeatureStore(files.features) as ours, FeatureStore(new.features) as theirs:
        for name in NAMES:
            for a, b in zip(vars(ours.read(name)).values(), vars(theirs.read(name)).values(), strict=True):
                np.testing.assert_array_equal(a, b)
        assert [entry["by"] for entry in theirs.provenances.values()] == [{"made_by": "hloc", "extractor": "disk"}]
    same_matches(files.matches, new.matches)


def test_twins_have_no_place_in_hlocs_files(tmp_path: Path) -> None:
    names = ("x/b.png", "x-b.png", "c.png", "d.png")
    pairs = (Pair("x/b.png", "c.png"), Pair("x-b.png", "c.png"), Pair("c.png", "d.png"))
    done = export_stores(make(tmp_path, names, pairs), tmp_path / "hloc", "hloc")
    assert (done.pairs, done.left_out_pairs) == (1, 2)
    assert (tmp_path / "hloc" / "pairs.txt").read_text().split() == ["c.png", "d.png"]


def test_old_files_of_hloc_and_matches_without_scores_are_read(tmp_path: Path) -> None:
    files, new, old = make(tmp_path), Workspace(tmp_path / "new"), tmp_path / "old.h5"
    with h5py.File(old, "w") as file:
        for number, key in enumerate(("x-b.png_a.png", "a.png_x-c.png", "a.png_gone.png")):
            matches0 = np.full(20, -1, np.int16)
            first, second = found(number).indices.T
            matches0[first] = second
            file.create_dataset(f"{key}/matches0", data=matches0)
    done = import_stores(files.features, new, "hloc", photos=tmp_path / "photos", matches=old, extractor=None)
    assert (done.pairs, done.left_out_pairs) == (2, 1)
    same_matches(files.matches, new.matches, scores=False)
    with MatchStore(new.matches) as store:
        assert (store.read(PAIRS[0]).scores == 1).all()


def test_the_text_is_as_colmap_imports_it(tmp_path: Path) -> None:
    files, out = make(tmp_path), tmp_path / "text"
    done = export_stores(files, out, "colmap")
    assert (done.images, done.pairs) == (3, 2)
    with FeatureStore(files.features) as store:
        for name in NAMES:
            head, *rows = (out / f"{name}.txt").read_text().splitlines()
            assert head == "20 128"
            values = np.array([row.split() for row in rows], float)
            assert values.shape == (20, 132) and (values[:, 4:] >= 0).all() and (values[:, 4:] <= 255).all()
            np.testing.assert_array_equal(values[:, :2].astype(np.float32), store.keypoints(name) + np.float32(0.5))
    blocks = (out / "matches.txt").read_text().split("\n\n")[:-1]
    assert sorted(block.splitlines()[0] for block in blocks) == ["a.png x-c.png", "x/b.png a.png"]
    rows = np.array([row.split() for row in blocks[0].splitlines()[1:]], int)
    np.testing.assert_array_equal(rows, found(1).indices)


def test_sift_keeps_its_descriptors_through_the_text(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 90, (5, 128))
    text = "5 128\n" + "".join(
        f"{i + 0.5} {2 * i + 0.5} 2.5 0.25 {' '.join(map(str, row))}\n" for i, row in enumerate(values)
    )
    helpers.photo(tmp_path / "photos" / "a.png")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.png.txt").write_text(text)
    new = Workspace(tmp_path / "new")
    import_stores(tmp_path / "text", new, "colmap", photos=tmp_path / "photos", matches=None, extractor=None)
    with FeatureStore(new.features) as store:
        item = store.read("a.png")
        np.testing.assert_array_equal(item.keypoints, [[i, 2 * i] for i in range(5)])
        assert item.image_size == helpers.SIZE and item.scales is not None and (item.scales == 2.5).all()
        expected = values / np.linalg.norm(values, axis=1, keepdims=True)
        np.testing.assert_allclose(item.descriptors, expected, atol=1e-3)
        assert [entry["by"] for entry in store.provenances.values()] == [{"made_by": "colmap", "extractor": "sift"}]
    export_stores(new, tmp_path / "again", "colmap")
    again = np.loadtxt(tmp_path / "again" / "a.png.txt", skiprows=1)[:, 4:]
    np.testing.assert_allclose(again, expected * 512, atol=1)


def test_matches_come_back_from_the_text(tmp_path: Path) -> None:
    files, new = make(tmp_path), Workspace(tmp_path / "new")
    export_stores(files, tmp_path / "text", "colmap")
    import_stores(tmp_path / "text", new, "colmap", photos=tmp_path / "photos", matches=None, extractor=None)
    same_matches(files.matches, new.matches, scores=False)


def test_an_import_that_fails_leaves_nothing(tmp_path: Path) -> None:
    files, new = make(tmp_path), Workspace(tmp_path / "new")
    (tmp_path / "list.txt").write_text("a.png x-c.png\n0 99\n")
    export_stores(files, tmp_path / "text", "colmap")
    with pytest.raises(InputError, match="are of other features"):
        import_stores(
            tmp_path / "text", new, "colmap", photos=tmp_path / "photos", matches=tmp_path / "list.txt", extractor=None
        )
    assert not new.features.exists() and not new.matches.exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["out", "-o", "new"], "give one of --to and --from"),
        (["gone.h5", "-o", "new", "--from", "hloc", "--images", "out/photos"], "there is no file gone.h5"),
        (["out/features.h5", "-o", "new", "--from", "hloc"], "--images"),
        (["out/features.h5", "-o", "out", "--from", "hloc", "--images", "out/photos"], "has features or matches"),
        (["out", "-o", "out", "--to", "hloc"], "is the workspace itself"),
        (["out", "-o", "new", "--to", "hloc", "--matches", "x"], "no effect without --from"),
        (["out", "-o", "new", "--to", "nerfstudio"], "no COLMAP model in out"),
        (["out/photos/a.png", "-o", "new", "--from", "hloc", "--images", "out/photos"], "not an HDF5 file"),
        (["out/photos", "-o", "new", "--from", "colmap", "--images", "out/photos"], "no features in"),
        (
            ["out/features.h5", "-o", "new", "--from", "hloc", "--images", "out/photos", "--matches", "out/pairs"],
            "pairs",
        ),
    ],
)
def test_errors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "pairs").write_text("no HDF5")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["convert", *arguments])
    assert done.exit_code == 2, done.output
    assert line in done.stderr and done.stderr.count("\n") == 1
