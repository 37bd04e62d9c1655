"""Points of photos that COLMAP cannot read get the colors that COLMAP gives to the same pixels in another format."""

from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from lgbatch.reconstruction.colmap_worker import color_points

SIZE = (320, 240)


def write_photos(folder: Path, names: list[str]) -> None:
    folder.mkdir()
    for seed, name in enumerate(names):
        small = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), np.uint8)
        pixels = cv2.resize(small, SIZE, interpolation=cv2.INTER_LINEAR)
        flags = (cv2.IMWRITE_WEBP_QUALITY, 101) if name.endswith(".webp") else ()
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix, pixels, flags)[1].tobytes())


@pytest.fixture
def model() -> pycolmap.Reconstruction:
    options = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_frames_per_rig=4, num_points3D=60)
    options.num_cameras_per_rig, options.camera_width, options.camera_height = 1, *SIZE
    options.camera_params = [250.0, 160.0, 120.0, 0.0]
    return pycolmap.synthesize_dataset(options)


def renamed(model: pycolmap.Reconstruction, suffixes: list[str]) -> pycolmap.Reconstruction:
    copy = pycolmap.Reconstruction(model)
    for number, (_, image) in enumerate(sorted(copy.images.items())):
        image.name = f"{number}{suffixes[number]}"
    return copy


def colors(model: pycolmap.Reconstruction) -> dict[int, list[int]]:
    return {i: point.color.tolist() for i, point in model.points3D.items()}


def colored_by_colmap(model: pycolmap.Reconstruction, folder: Path) -> pycolmap.Reconstruction:
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    model.extract_colors_for_all_images(folder)
    return model


def test_colors_equal_colmaps_of_the_same_pixels(tmp_path: Path, model: pycolmap.Reconstruction) -> None:
    webp, png = renamed(model, [".webp"] * 4), renamed(model, [".png"] * 4)
    for kind, copy in (("webp", webp), ("png", png)):
        write_photos(tmp_path / kind, sorted(image.name for image in copy.images.values()))
        colored_by_colmap(copy, tmp_path / kind)
    assert set(map(tuple, colors(webp).values())) == {(0, 0, 0)}
    (tmp_path / "model").mkdir()
    color_points(webp, tmp_path / "webp", tmp_path / "model")
    assert np.std(list(colors(png).values())) > 20
    difference = np.array(list(colors(webp).values())) - np.array(list(colors(png).values()))
    assert list(colors(webp)) == list(colors(png))
    assert np.abs(difference).max() <= 1  # rounding of .5
    assert colors(pycolmap.Reconstruction(tmp_path / "model")) == colors(webp)


def test_points_with_an_image_that_colmap_reads_keep_its_color(tmp_path: Path, model: pycolmap.Reconstruction) -> None:
    mixed = renamed(model, [".webp", ".webp", ".png", ".webp"])
    write_photos(tmp_path / "photos", sorted(image.name for image in mixed.images.values()))
    before = colors(colored_by_colmap(mixed, tmp_path / "photos"))
    (tmp_path / "model").mkdir()
    color_points(mixed, tmp_path / "photos", tmp_path / "model")
    (png,) = (i for i, image in mixed.images.items() if image.name.endswith(".png"))
    seen = {i for i, p in mixed.points3D.items() if png in {e.image_id for e in p.track.elements}}
    assert {i: colors(mixed)[i] for i in seen} == {i: before[i] for i in seen}


@pytest.mark.parametrize("gone", [False, True])
def test_models_of_other_photos_are_not_written(tmp_path: Path, model: pycolmap.Reconstruction, gone: bool) -> None:
    plain = renamed(model, [".png"] * 4)
    write_photos(tmp_path / "photos", [] if gone else sorted(image.name for image in plain.images.values()))
    (tmp_path / "model").mkdir()
    color_points(plain, tmp_path / "photos", tmp_path / "model")
    assert not list((tmp_path / "model").iterdir())
