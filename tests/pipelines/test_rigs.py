"""A run follows its rig_config.json: the pairs, the database, and a changed or a left-out file."""

import json
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from lgbatch.errors import InputError
from lgbatch.pairing.pairs_file import read_pairs
from lgbatch.pipelines import sfm
from lgbatch.pipelines.summary import Summary
from lgbatch.workspace.folder import Workspace
from tests.helpers.stand_in import StandIn


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Blank photos of two cameras and of another one; stand-ins replace the networks."""
    StandIn.use(monkeypatch)
    monkeypatch.setattr(sfm, "ensure_models", lambda *_: None)
    folder = tmp_path / "photos"
    for i, name in enumerate(["left/0", "left/1", "left/2", "right/0", "right/1", "right/2", "other/0"]):
        file = folder / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((48, 64, 3), 30 * i, np.uint8))
    return folder


@pytest.fixture
def rig_config(tmp_path: Path) -> Path:
    return write(tmp_path / "rig_config.json", 0.1)


def write(path: Path, distance: float) -> Path:
    pose = {"cam_from_rig_rotation": [1, 0, 0, 0], "cam_from_rig_translation": [distance, 0, 0]}
    cameras = [{"image_prefix": "left/", "ref_sensor": True}, {"image_prefix": "right/"} | pose]
    path.write_text(json.dumps([{"cameras": cameras}]))
    return path


def run(photos: Path, rig_config: Path | str) -> Summary:
    changes = {"pairing": "sequential", "window": 1, "rig_config": str(rig_config)}
    return sfm.run(photos, photos.with_name("out"), models=photos.parent, **changes)


def distances(photos: Path) -> list[float]:
    """The distance of the cameras of each rig with several."""
    with pycolmap.Database.open(Workspace(photos.with_name("out")).database) as db:
        return [pose.translation[0] for rig in db.read_all_rigs() for pose in rig.non_ref_sensors.values()]


def test_a_run_follows_the_rig_file(photos: Path, rig_config: Path) -> None:
    summary = run(photos, rig_config)
    assert summary.rigs == {"rigs": 1, "cameras": 2, "frames": 3, "other images": 1}
    assert "rigs        1 rig, 2 cameras, 3 frames; 1 other image without a rig" in summary.format()
    pairs = read_pairs(Workspace(photos.with_name("out")).pairs).pairs
    assert ("left/0.png", "right/0.png") in pairs and ("right/1.png", "left/2.png") in pairs
    assert len(pairs) == 3 + 2 * 4
    repeated = run(photos, rig_config)
    assert repeated.finished_already and repeated.rigs == summary.rigs
    assert distances(photos) == [0.1]
    write(rig_config, 0.25)
    assert not run(photos, rig_config).finished_already
    assert distances(photos) == [0.25]
    assert run(photos, "").rigs is None
    assert distances(photos) == []
    assert len(read_pairs(Workspace(photos.with_name("out")).pairs).pairs) == 4


def test_a_wrong_rig_file_is_told_before_the_extraction(photos: Path, rig_config: Path) -> None:
    rig_config.write_text("[]")
    with pytest.raises(InputError, match="expected a list of rigs"):
        run(photos, rig_config)
    with pytest.raises(InputError, match=r"cannot read missing\.json"):
        run(photos, "missing.json")
    assert not photos.with_name("out").exists()
