"""Exchange with hloc: its readers on the files of a run, and files in its layout as the input of a run."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.torture.harness import contents, hloc_reader
from tests.torture.harness.process import Server


@pytest.fixture(scope="module")
def out(server: Server, stand_ins: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hloc") / "out"
    assert server.run("run", photos, "-o", folder, "--models", stand_ins).status == 0
    return folder


def test_hloc_reads_the_files_of_a_run(out: Path) -> None:
    rows = contents.read(out).rows
    names = hloc_reader.list_images(out / "features.h5")
    assert len(names) == len(rows["images"]) == 4
    for name in names:
        keypoints, uncertainty = hloc_reader.get_keypoints(out / "features.h5", name)
        features = hloc_reader.get_features(out / "features.h5", name)
        assert uncertainty == 1.0
        assert keypoints.shape == (len(keypoints), 2) and features["descriptors"].shape == (16, len(keypoints))
        assert features["scores"].shape == (len(keypoints),) and features["image_size"].tolist() == [320, 240]
    pairs = [(a, b) for a in names for b in names if a < b]
    for a, b in pairs:
        matches, scores = hloc_reader.get_matches(out / "matches.h5", a, b)
        reversed_matches, _ = hloc_reader.get_matches(out / "matches.h5", b, a)
        assert len(matches) == len(scores) > 100
        assert sorted(map(tuple, matches)) == sorted((b, a) for a, b in reversed_matches)
        left, right = (hloc_reader.get_features(out / "features.h5", name)["descriptors"].T for name in (a, b))
        assert (left[matches[:, 0]] == right[matches[:, 1]]).all()


def test_a_run_continues_from_the_features_of_hloc(
    out: Path, tmp_path: Path, server: Server, stand_ins: Path, photos: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    names = hloc_reader.list_images(out / "features.h5")
    with h5py.File(work / "features.h5", "w", libver="latest") as file:
        for name in names:
            features = hloc_reader.get_features(out / "features.h5", name)
            group = file.create_group(name)
            for key, data in features.items():
                group.create_dataset(key, data=data.astype(np.float16) if data.dtype == np.float32 else data)
            group["keypoints"].attrs["uncertainty"] = 1.0
    shutil.copy(out / "pairs.txt", work)
    done = server.run("match", "-w", work, "--images", photos, "--models", stand_ins)
    assert done.status == 0, done.err
    done = server.run("reconstruct", "-w", work, "--images", photos)
    assert done.status == 0, done.err
    ours, theirs = contents.read(out), contents.read(work)
    assert ours.matches.keys() == theirs.matches.keys()
    for pair, item in ours.matches.items():
        np.testing.assert_array_equal(item["matches0"], theirs.matches[pair]["matches0"])
    for table in "images", "keypoints", "matches", "two_view_geometries":
        assert ours.rows[table] == theirs.rows[table]
