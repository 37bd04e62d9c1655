"""The observations of a model as arrays, and the maps of patches between views."""

import numpy as np
import pycolmap
import pytest

from lgbatch.reconstruction.refinement.adjust import filter_points
from lgbatch.reconstruction.refinement.tracks import Tracks, choose_references, patch_maps, reference_patches
from tests.reconstruction.refinement.helpers import Scene, make_scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("tracks") / "photos", noise=0.0, points=60)


def test_projections_are_those_of_colmap(scene: Scene) -> None:
    model, tracks = scene.model, Tracks.of(scene.model)
    assert len(tracks.image) == model.compute_num_observations() and tracks.lengths().min() >= 2
    projected = tracks.project(model, tracks.xyz(model)[tracks.point])
    for row in range(0, len(projected), 7):
        image = model.images[int(tracks.images[tracks.image[row]])]
        point = model.points3D[int(tracks.points[tracks.point[row]])]
        assert projected[row] == pytest.approx(image.project_point(point.xyz))
        assert image.points2D[int(tracks.feature[row])].point3D_id == tracks.points[tracks.point[row]]
    assert np.allclose(projected, tracks.positions(model), atol=0.02)
    behind = tracks.project(model, np.tile([0.0, 0, -50], (len(projected), 1)))
    assert np.isnan(behind).all()


def test_observations_are_deleted_added_and_moved(scene: Scene) -> None:
    model, tracks = pycolmap.Reconstruction(scene.model), Tracks.of(scene.model)
    positions, kept = tracks.positions(model) + 0.25, np.ones(len(tracks.image), bool)
    kept[::9] = False
    kept |= (tracks.lengths(kept) < 2)[tracks.point]
    tracks.apply(model, positions, kept)
    assert model.compute_num_observations() == kept.sum()
    assert np.array_equal(tracks.positions(model), positions)
    tracks.apply(model, positions - 0.25, np.ones(len(kept), bool))
    again = Tracks.of(model)
    assert np.array_equal(again.point, tracks.point) and np.array_equal(again.feature, tracks.feature)


def test_the_reference_is_the_middle_view_and_patches_face_it(scene: Scene) -> None:
    model, tracks = scene.model, Tracks.of(scene.model)
    references = choose_references(model, tracks)
    assert np.array_equal(tracks.point[references], np.arange(len(tracks.points)))
    everywhere = tracks.lengths() == 6
    assert set(tracks.image[references[everywhere]].tolist()) <= {1, 2, 3, 4}
    positions = tracks.positions(model)
    patches = reference_patches(model, tracks, positions, references)
    maps = patch_maps(model, tracks, patches)
    assert np.allclose(maps[references], np.eye(2), atol=0.01)
    assert np.allclose(tracks.project(model, patches[tracks.point, 0])[references], positions[references], atol=1e-6)
    assert (np.abs(np.linalg.det(maps) - 1) < 0.8).all()


def test_some_points_alone(scene: Scene) -> None:
    tracks = Tracks.of(scene.model)
    chosen = np.arange(len(tracks.points)) % 3 == 1
    part = tracks.of_points(chosen)
    assert np.array_equal(part.points, tracks.points[chosen])
    assert np.array_equal(part.lengths(), tracks.lengths()[chosen])
    assert np.array_equal(np.concatenate([part.feature[rows] for _, rows in part.by_image()]), part.feature)


def test_a_point_that_one_image_alone_observes_is_removed(scene: Scene) -> None:
    model = pycolmap.Reconstruction(scene.model)
    kept, other = sorted(model.points3D)[:2]
    (image, _), *rest = [(e.image_id, e.point2D_idx) for e in model.points3D[kept].track.elements]
    freed = next(e.point2D_idx for e in model.points3D[other].track.elements if e.image_id == image)
    model.delete_point3D(other)
    model.add_observation(kept, pycolmap.TrackElement(image, freed))
    for image_id, point2d in rest:
        model.delete_observation(image_id, point2d)
    before = len(model.points3D)
    filter_points(model)
    assert kept not in model.points3D and len(model.points3D) > 0.9 * before
    assert model.compute_mean_reprojection_error() < 4
