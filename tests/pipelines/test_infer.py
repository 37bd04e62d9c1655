"""Matching two photos: arrays, text, pictures and errors."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.features.network import Extractor
from lgbatch.matching.lightglue import Matcher
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.pipelines import infer
from tests.helpers.oriented import read, save

FEW = Settings(max_keypoints=300, threads=1, precision="fp32")


@pytest.mark.weights
def test_outputs_agree_with_the_matcher(models: Path, gallery: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("m.png", "m.jpg", "m.npz", "m.json")]
    photos = [gallery / name for name in ("view_00.jpg", "view_03.jpg")]
    result = infer.run(*photos, files, models=models, settings=FEW)

    extractor, matcher = Extractor(models, FEW), Matcher(models, FEW)
    encoded = [matcher.encode(extractor.extract([decode(ref, 1024)])[0]) for ref in crawl(gallery).images[0:4:3]]
    ((matches, stop),) = matcher.match_and_stop([(encoded[0], encoded[1])], 4096)
    np.testing.assert_array_equal(result.trace.matches.indices, matches.indices)
    assert result.trace.stop == stop and len(matches.indices) > 30
    for side, layers in enumerate((result.trace.layers0, result.trace.layers1)):
        assert layers.min() >= 1 and layers.max() == stop
        assert (layers[matches.indices[:, side]] == stop).all()

    with np.load(files[2]) as arrays:
        text = json.loads(files[3].read_text())
        assert text.keys() == set(arrays.files) and text["stop"] == stop and text["image1"] == "view_03.jpg"
        for name, values in result.as_dict().items():
            np.testing.assert_array_equal(arrays[name], values)
            np.testing.assert_array_equal(np.array(text[name]).ravel(), np.ravel(values))
    for file in files[:2]:
        picture = cv2.imread(str(file))
        assert picture.shape[1] >= 1000 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 5000


@pytest.mark.weights
def test_a_photo_without_keypoints_is_drawn(models: Path, gallery: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grün.png"), np.full((4, 90, 3), 120, np.uint8))
    result = infer.run(
        gallery / "view_00.jpg", tmp_path / "grün.png", [tmp_path / "m.png"], models=models, settings=FEW
    )
    assert result.format().endswith("300 and 0 keypoints, 0 matches, after 0 of 9 layers")
    assert cv2.imread(str(tmp_path / "m.png")) is not None


@pytest.mark.weights
def test_photos_are_turned_by_their_tag_and_keypoints_are_in_pixels_of_the_file(
    models: Path, gallery: Path, tmp_path: Path
) -> None:
    views = [read(gallery / name, (320, 240)) for name in ("view_00.jpg", "view_01.jpg")]
    for orientation in 1, 6, 8:
        for side, view in enumerate(views):
            save(tmp_path / f"{orientation}_{side}.png", view, orientation)
    upright = infer.run(tmp_path / "1_0.png", tmp_path / "1_1.png", [tmp_path / "u.png"], models=models, settings=FEW)
    files = [tmp_path / "m.png", tmp_path / "m.json"]
    turned = infer.run(tmp_path / "6_0.png", tmp_path / "8_1.png", files, models=models, settings=FEW)
    assert len(upright.trace.matches.indices) > 50
    np.testing.assert_array_equal(turned.trace.matches.indices, upright.trace.matches.indices)
    text = json.loads(files[1].read_text())
    assert (text["orientation0"], text["orientation1"], text["image_size0"]) == (6, 8, [240, 320])
    x, y = np.array(text["keypoints0"]).T  # the file's pixels, turned clockwise, are upright
    np.testing.assert_allclose(np.stack([319 - y, x], axis=1), upright.features[0].keypoints, atol=1e-3)
    pictures = [cv2.imread(str(tmp_path / name)) for name in ("u.png", "m.png")]
    np.testing.assert_array_equal(pictures[0][100:-100], pictures[1][100:-100])  # below the names, above the legend
    as_stored = infer.run(tmp_path / "6_0.png", tmp_path / "8_1.png", models=models, settings=FEW, rotation="none")
    assert as_stored.as_dict()["orientation0"] == 1
    assert len(as_stored.trace.matches.indices) < len(upright.trace.matches.indices) / 2


def test_unusable_files_are_reported_in_one_line(tmp_path: Path, gallery: Path) -> None:
    photo, text = gallery / "view_00.jpg", tmp_path / "text.jpg"
    text.write_text("no photo")
    for first, output, message in (
        (tmp_path / "none.jpg", "m.png", "none.jpg: cannot be read"),
        (text, "m.png", "text.jpg: not a photo"),
        (photo, "m.gif", "m.gif: give the output a name that ends in .png"),
    ):
        with pytest.raises(InputError, match=message):
            infer.run(first, photo, [output], models=tmp_path, settings=FEW)
    result = CliRunner().invoke(cli.app, ["infer", str(text), str(photo)])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
