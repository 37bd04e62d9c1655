"""Two-view geometries: as COLMAP verifies them, and packed for matches.h5."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from lgbatch.colmap.two_view import (
    camera_digest,
    colmap_options,
    estimate,
    has_enough_evidence,
    pack_geometry,
    unpack_geometry,
    verify,
)
from lgbatch.colmap.verification import verify_pairs
from lgbatch.types import Pair
from tests.helpers.synthetic import import_source, scene, synthetic
from tests.reconstruction.helpers import fill


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    source = synthetic(folder, 5)
    pair = next(iter(source.matches))
    source.matches[pair][:, 1] = np.random.default_rng(0).permutation(source.matches[pair][:, 1])  # all wrong
    return fill(folder, source)


def geometries(path: Path) -> dict[int, pycolmap.TwoViewGeometry]:
    with pycolmap.Database.open(path) as db:
        pairs = sorted(db.read_num_matches()[0])
        return {pair: db.read_two_view_geometry(*pycolmap.pair_id_to_image_pair(pair)) for pair in pairs}


def copy(database: Path, folder: Path) -> Path:
    path = folder / "database.db"
    path.write_bytes(database.read_bytes())
    return path


def equal(a: pycolmap.TwoViewGeometry, b: pycolmap.TwoViewGeometry) -> bool:
    matrices = all(np.array_equal(x, y) for x, y in ((a.E, b.E), (a.F, b.F), (a.H, b.H)) if x is not None)
    return a.config == b.config and np.array_equal(a.inlier_matches, b.inlier_matches) and matrices


@pytest.mark.parametrize("threads", [1, 3])
def test_pairs_are_verified_as_colmap_does(database: Path, tmp_path: Path, threads: int) -> None:
    own, colmap = copy(database, tmp_path), tmp_path / "colmap.db"
    colmap.write_bytes(database.read_bytes())
    pycolmap.geometric_verification(
        colmap, pycolmap.GeometricVerifierOptions(), pycolmap.ExistingMatchedPairingOptions(), colmap_options()
    )
    with pycolmap.Database.open(own) as db:
        verify_pairs(db, threads=threads, strict=False, stopped=lambda: False)
    expected, found = geometries(colmap), geometries(own)
    assert expected.keys() == found.keys() and len(found) == 10
    assert all(equal(expected[pair], found[pair]) for pair in expected)


def test_verified_pairs_are_not_verified_again_and_a_stop_ends(database: Path, tmp_path: Path) -> None:
    path = copy(database, tmp_path)
    marked = pycolmap.TwoViewGeometry(config=pycolmap.TwoViewGeometryConfiguration.WATERMARK)
    with pycolmap.Database.open(path) as db:
        pair = pycolmap.pair_id_to_image_pair(db.read_num_matches()[0][0])
        db.write_two_view_geometry(*pair, marked)
        verify_pairs(db, threads=1, strict=True, stopped=lambda: True)
        assert db.num_verified_image_pairs() == 1
        verify_pairs(db, threads=1, strict=True, stopped=lambda: False)
        assert db.read_two_view_geometry(*pair).config == marked.config
        assert db.num_verified_image_pairs() == 10


def test_too_little_evidence_is_degenerate(database: Path) -> None:
    with pycolmap.Database.open(database) as db:
        cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
        images = sorted(db.read_all_images(), key=lambda image: image.image_id)
        wrong, right = (
            verify(
                [cameras[image.camera_id] for image in pair],
                [db.read_keypoints(image.image_id) for image in pair],
                db.read_matches(*(image.image_id for image in pair)),
            )
            for pair in (images[:2], images[1:3])
        )
    assert wrong.config == pycolmap.TwoViewGeometryConfiguration.DEGENERATE and not len(wrong.inlier_matches)
    assert len(right.inlier_matches) > 50
    assert has_enough_evidence(15, 18) and not has_enough_evidence(15, 19) and not has_enough_evidence(0, 0)


def test_packed_geometries_are_of_their_cameras_and_matches(database: Path) -> None:
    with pycolmap.Database.open(database) as db:
        cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
        pair = sorted(db.read_all_images(), key=lambda image: image.image_id)[1:3]
        matches = db.read_matches(*(image.image_id for image in pair))
        of_pair = [cameras[image.camera_id] for image in pair]
        geometry = estimate(of_pair, [db.read_keypoints(image.image_id) for image in pair], matches, colmap_options())
    digest = camera_digest(of_pair[0])
    other = pycolmap.Camera(of_pair[0].todict())
    other.params = other.params * 1.01
    assert camera_digest(other) != digest
    packed = pack_geometry(geometry, matches, (digest, digest))
    assert len(packed) <= 9 + 27 * 8 + -(-len(matches) // 8)
    unpacked = unpack_geometry(packed, matches, (digest, digest), of_pair)
    assert unpacked is not None and equal(geometry, unpacked.geometry)
    assert unpack_geometry(packed, matches, (digest, camera_digest(other)), of_pair) is None
    assert unpack_geometry(packed, matches[:-9], (digest, digest), of_pair) is None
    assert unpack_geometry(packed[:5], matches, (digest, digest), of_pair) is None
    rejected = pack_geometry(pycolmap.TwoViewGeometry(), matches, (digest, digest))
    again = unpack_geometry(rejected, matches, (digest, digest), of_pair)
    assert again is not None and not len(again.geometry.inlier_matches)
    swapped = pack_geometry(geometry, matches, (digest, digest), swapped=True)
    unpacked = unpack_geometry(swapped, matches[:, ::-1], (digest, digest), of_pair[::-1])
    assert unpacked is not None and unpacked.swapped and equal(geometry, unpacked.geometry)
    geometry.camera1, geometry.camera2 = of_pair[0], other  # with focal lengths that COLMAP has estimated
    packed = pack_geometry(geometry, matches, (digest, digest))
    unpacked = unpack_geometry(packed, matches, (digest, digest), of_pair)
    assert unpacked is not None and equal(geometry, unpacked.geometry)
    assert [*unpacked.geometry.camera2.params] == [*other.params] and camera_digest(unpacked.geometry.camera1) == digest


def test_a_rebuilt_database_takes_the_given_geometries(tmp_path: Path) -> None:
    """Further photos or fewer pairs after rounds: the old database and the stored matches both have geometries."""
    source, path = scene(tmp_path / "images"), tmp_path / "database.db"
    import_source(path, source)
    with pycolmap.Database.open(path) as db:
        digest = {image.name: camera_digest(db.read_camera(image.camera_id)) for image in db.read_all_images()}
    for pair, matches in source.matches.items():
        source.geometries[pair] = pack_geometry(pycolmap.TwoViewGeometry(), matches, (digest[pair.a], digest[pair.b]))
    path.unlink()
    import_source(path, source, view=True)
    assert len(geometries(path)) == 2
    del source.points["c.jpg"], source.sizes["c.jpg"], source.matches[Pair("b.jpg", "c.jpg")]
    assert import_source(path, source, view=True).rebuilt
    with pycolmap.Database.open(path) as db:
        assert db.num_images() == 2 and db.num_verified_image_pairs() == 1
