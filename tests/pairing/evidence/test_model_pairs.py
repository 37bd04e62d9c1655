"""Pairs from a COLMAP model."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import InputError
from lgbatch.pairing.evidence.lists import Source, union
from lgbatch.pairing.evidence.model import model_pairs

pycolmap = pytest.importorskip("pycolmap")


@pytest.fixture
def model() -> "pycolmap.Reconstruction":
    """9 photos of a synthetic scene; each point is in 3 of them."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 3, 1, 3
    options.num_points3D, options.track_length = 400, 3
    pycolmap.set_random_seed(0)
    return pycolmap.synthesize_dataset(options)


def write(model: "pycolmap.Reconstruction", folder: Path) -> Path:
    folder.mkdir()
    model.write(str(folder))
    return folder


def test_images_with_most_common_points_come_first(model: "pycolmap.Reconstruction", tmp_path: Path) -> None:
    names = sorted(image.name for image in model.images.values())
    seen = {
        image.name: {point.point3D_id for point in image.get_observation_points2D()} for image in model.images.values()
    }
    shared = {pair: len(seen[pair[0]] & seen[pair[1]]) for pair in combinations(names, 2)}
    found = model_pairs(write(model, tmp_path / "0"), ["new.jpg", *names], 3)
    assert found.source == Source.MODEL and (found.pairs > 0).all()  # the model lacks the first photo
    for row, name in enumerate(names, 1):
        own = found.pairs[:, 0] == row
        counts = [shared[min(name, names[b - 1]), max(name, names[b - 1])] for b in found.pairs[own, 1]]
        best = sorted((count for pair, count in shared.items() if name in pair), reverse=True)
        assert counts == [count for count in best[:3] if count] and found.rank[own].tolist() == [*range(len(counts))]
    everything = union(["new.jpg", *names], [model_pairs(tmp_path / "0", ["new.jpg", *names], 99)])
    assert {*everything.as_pairs()} == {pair for pair, count in shared.items() if count}


def test_without_points_the_nearest_similar_views_are_paired(model: "pycolmap.Reconstruction", tmp_path: Path) -> None:
    for point in list(model.points3D):
        model.delete_point3D(point)
    images = sorted(model.images.values(), key=lambda image: image.name)
    centres = np.array([image.projection_center() for image in images])
    directions = np.array([image.viewing_direction() for image in images])
    found = model_pairs(write(model, tmp_path / "0"), [image.name for image in images], 2)
    assert len(found.pairs)
    for a in range(len(images)):
        similar = np.flatnonzero(directions @ directions[a] >= np.cos(np.radians(45)))
        expected = sorted(similar[similar != a], key=lambda b: float(np.linalg.norm(centres[b] - centres[a])))[:2]
        assert found.pairs[found.pairs[:, 0] == a, 1].tolist() == expected


def test_a_model_without_the_images_is_reported(model: "pycolmap.Reconstruction", tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no COLMAP model in .*none: give the folder with cameras\.bin"):
        model_pairs(tmp_path / "none", ["a"], 3)
    with pytest.raises(InputError, match="has no pose of an image: give a model with the same image names"):
        model_pairs(write(model, tmp_path / "0"), ["a", "b"], 3)
