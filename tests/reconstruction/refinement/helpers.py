"""A scene of two textured walls, its photos, and a COLMAP model of it whose observations are noisy."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pycolmap

from lgbatch.pipelines.render import Quad, view
from lgbatch.reconstruction.evaluation.truth import Array, KnownCamera
from lgbatch.types import ByteArray, FloatArray

SIZE, FOCAL = (400, 300), 420.0
Change = Callable[[ByteArray, np.random.Generator], ByteArray]


@dataclass(frozen=True, eq=False)
class Scene:
    """Photos in a folder, their true cameras by name, and the model of noisy observations."""

    photos: Path
    truth: dict[str, KnownCamera]
    model: pycolmap.Reconstruction
    points: Array
    """(P, 3) true positions of the points, in the order of their ids."""


def walls(seed: int) -> list[Quad]:
    """Two walls that meet in a corner."""
    rng, quads = np.random.default_rng(seed), []
    for corner, right in (([-3.0, -1.6, 5.0], [3.0, 0, 1.0]), ([0.0, -1.6, 6.0], [3.0, 0, -1.0])):
        texture = np.zeros((480, 480, 3), np.float32)
        for cells in (15, 40, 120):
            noise = rng.random((cells, cells, 3), dtype=np.float32) * np.float32(60)
            texture += cv2.resize(noise, (480, 480), interpolation=cv2.INTER_CUBIC)
        pixels = np.clip(texture + 40, 0, 255).astype(np.uint8)
        quads.append(Quad(np.array(corner), np.array(right), np.array([0, 3.2, 0]), pixels))
    return quads


def cameras(count: int, centre: tuple[float, float]) -> dict[str, KnownCamera]:
    """Cameras in a row that look at the corner, turned a little; `centre` is the principal point."""
    calibration = np.array([[FOCAL, 0, centre[0]], [0, FOCAL, centre[1]], [0, 0, 1]])
    known = {}
    for i, x in enumerate(np.linspace(-2, 2, count)):
        eye = np.array([x, 0.5 * np.sin(2 * i), 0.4 * np.cos(3 * i)])
        forward = np.array([0.3 * np.sin(i), 0.2 * np.cos(i), 5.5]) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross([np.sin(0.3 * i - 0.7), 1, 0], forward)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        pose = np.column_stack([rotation, -rotation @ eye])
        known[f"{i:02d}.png"] = KnownCamera(pose, calibration, SIZE)
    return known


def make_scene(
    folder: Path,
    *,
    count: int = 6,
    noise: float = 0.8,
    centre: tuple[float, float] = (199.5, 149.5),
    change: Change = lambda photo, _: photo,
    shared: bool = True,
    points: int = 300,
    distortion: tuple[float, float] = (0.0, 0.0),
) -> Scene:
    """Write photos, changed by `change`, into `folder`, and map observations with Gaussian `noise` in pixels.

    The lens has these coefficients of COLMAP's RADIAL model.
    """
    folder.mkdir()
    rng, truth, quads = np.random.default_rng(0), cameras(count, centre), walls(1)
    for name, camera in truth.items():
        photo = np.clip(np.rint(_distort(view(camera, quads), camera, distortion)), 0, 255).astype(np.uint8)
        assert cv2.imwrite(str(folder / name), change(photo, rng))
    where = rng.uniform(0.03, 0.97, (points, 2))
    sides = [quads[i % 2] for i in range(points)]
    xyz = np.array([q.corner + u * q.right + v * q.down for q, (u, v) in zip(sides, where, strict=True)])
    return Scene(folder, truth, _model(truth, xyz, noise, shared, rng, distortion), xyz)


def _lens(known: KnownCamera, distortion: tuple[float, float]) -> pycolmap.Camera:
    (x, y), (width, height) = known.calibration[:2, 2] + 0.5, known.size
    return pycolmap.Camera(model="RADIAL", width=width, height=height, params=[FOCAL, x, y, *distortion])


def _from_camera(known: KnownCamera, xyz: Array) -> Array:
    transformed: Array = xyz @ known.camera_from_world[:, :3].T + known.camera_from_world[:, 3]
    return transformed


def _distort(photo: FloatArray, known: KnownCamera, distortion: tuple[float, float]) -> FloatArray:
    """Move the pixels of a photo to where a lens with these coefficients shows them."""
    if not any(distortion):
        return photo
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]]
    pixels = np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5
    rays = _lens(known, distortion).cam_from_img(pixels)
    source = (rays * FOCAL + known.calibration[:2, 2]).astype(np.float32).reshape(*photo.shape[:2], 2)
    return np.asarray(cv2.remap(photo, source, None, cv2.INTER_CUBIC), np.float32)


def _model(
    truth: dict[str, KnownCamera],
    xyz: Array,
    noise: float,
    shared: bool,
    rng: np.random.Generator,
    distortion: tuple[float, float],
) -> pycolmap.Reconstruction:
    model, seen = pycolmap.Reconstruction(), {}
    for i, (name, known) in enumerate(truth.items(), 1):
        camera_id = 1 if shared else i
        if camera_id not in model.cameras:
            camera = pycolmap.Camera.create_from_model_name(camera_id, "SIMPLE_RADIAL", FOCAL, *SIZE)
            model.add_camera_with_trivial_rig(camera)
        pixels = _lens(known, distortion).img_from_cam(_from_camera(known, xyz)) - 0.5
        inside = ((pixels > 3) & (pixels < np.array(SIZE) - 4)).all(axis=1)
        positions = pixels[inside] + rng.normal(0, noise, (int(inside.sum()), 2)) + 0.5
        image = pycolmap.Image(name=name, keypoints=positions, camera_id=camera_id, image_id=i)
        pose = pycolmap.Rigid3d(known.camera_from_world)
        model.add_image_with_trivial_frame(image, pose)
        seen[i] = dict(zip(np.flatnonzero(inside).tolist(), range(len(positions)), strict=True))
    for row, point in enumerate(xyz):
        elements = [pycolmap.TrackElement(i, index[row]) for i, index in seen.items() if row in index]
        if len(elements) > 1:
            model.add_point3D_with_id(row + 1, pycolmap.Point3D(xyz=point, track=pycolmap.Track(elements)))
            for element in elements:
                model.images[element.image_id].set_point3D_for_point2D(element.point2D_idx, row + 1)
    options = pycolmap.BundleAdjustmentOptions(print_summary=False)
    options.ceres.solver_options.num_threads = 1
    pycolmap.bundle_adjustment(model, options)
    model.update_point_3d_errors()
    return model


def write_workspace(scene: Scene, folder: Path) -> Path:
    """Write the model to `folder`/sparse/0. Returns `folder`."""
    (folder / "sparse" / "0").mkdir(parents=True)
    scene.model.write(folder / "sparse" / "0")
    return folder
