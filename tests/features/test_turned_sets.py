"""Photos that are stored turned give the model of the upright photos."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from lgbatch.config import Settings
from lgbatch.errors import StoreError
from lgbatch.pipelines import sfm
from lgbatch.pipelines.summary import Summary
from lgbatch.types import ORIENTATIONS
from tests.helpers.oriented import read, save

pytestmark = pytest.mark.weights
SETTINGS = Settings(max_keypoints=600, pairing="sequential", window=3, precision="fp32", rotation="exif", refine=False)
VIEWS = 8
SIDE = 384


def photos(gallery: Path, folder: Path, orientations: list[int]) -> Path:
    """Write square photos, so that they can share a camera however they are turned."""
    for number, orientation in enumerate(orientations):
        view = read(gallery / f"view_{number:02d}.jpg", (SIDE * 4 // 3, SIDE))
        save(folder / f"{number}.png", np.ascontiguousarray(view[:, SIDE // 6 : SIDE // 6 + SIDE]), orientation)
    return folder


def distances(model: Path) -> np.ndarray:
    """The distances between all cameras by their mean, in the order of their names."""
    reconstruction = pycolmap.Reconstruction(model)
    images = sorted((reconstruction.images[i] for i in reconstruction.reg_image_ids()), key=lambda image: image.name)
    centers = np.array([image.projection_center() for image in images])
    between: np.ndarray = np.linalg.norm(centers[:, None] - centers, axis=2)
    return between / between.mean()


def run(images: Path, out: Path, models: Path, settings: Settings = SETTINGS) -> Summary:
    return sfm.run(images, out, models=models, settings=settings)


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_all_orientations_in_one_set_give_the_model_of_the_upright_set(
    models: Path, gallery: Path, tmp_path: Path, mapper: str
) -> None:
    settings = Settings.load(**SETTINGS.as_dict() | {"mapper": mapper})
    upright = run(photos(gallery, tmp_path / "upright", [1] * VIEWS), tmp_path / "a", models, settings)
    turned = run(photos(gallery, tmp_path / "turned", list(ORIENTATIONS)), tmp_path / "b", models, settings)
    assert upright.registered_images == turned.registered_images == VIEWS
    assert (turned.matched_pairs, turned.matches) == (upright.matched_pairs, upright.matches)
    assert turned.mirrored_images == 4 and upright.mirrored_images is None
    expected = distances(tmp_path / "a" / "sparse" / "0")
    np.testing.assert_allclose(distances(tmp_path / "b" / "sparse" / "0"), expected, atol=5e-3)


def test_other_orientations_are_refused_or_computed_again(models: Path, gallery: Path, tmp_path: Path) -> None:
    folder, out = photos(gallery, tmp_path / "photos", [1, 6, 8, 3]), tmp_path / "out"
    first = run(folder, out, models)
    before = (out / "features.h5").read_bytes()
    as_stored = SETTINGS.as_dict() | {"rotation": "none"}
    with pytest.raises(StoreError, match="3 photos were extracted with another orientation than --rotation gives now"):
        run(folder, out, models, Settings.load(**as_stored))
    assert (out / "features.h5").read_bytes() == before
    second = run(folder, out, models, Settings.load(**as_stored | {"on_change": "recompute"}))
    assert first.matches and second.matches and second.matches < first.matches / 2


def test_untagged_photos_have_the_features_of_every_rotation(models: Path, gallery: Path, tmp_path: Path) -> None:
    folder, out = photos(gallery, tmp_path / "photos", [1] * 3), tmp_path / "out"
    first = run(folder, out, models, Settings.load(**SETTINGS.as_dict() | {"rotation": "none"}))
    before = (out / "features.h5").read_bytes()
    assert run(folder, out, models).matches == first.matches
    assert (out / "features.h5").read_bytes() == before
