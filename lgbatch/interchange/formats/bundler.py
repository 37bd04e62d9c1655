"""Bundler's bundle.out and list.txt (v0.3).

Cameras look along -z, with y up. A point P in the camera's frame is at f (1 + k1 r^2 + k2 r^4) (-x / z, -y / z) from
the centre of the image, y up. Format: https://www.cs.cornell.edu/~snavely/bundler/bundler-v0.4-manual.html
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.errors import InputError
from lgbatch.interchange.formats.lens import Lens
from lgbatch.interchange.formats.scene import Scene
from lgbatch.storage.durable import replace_synced

if TYPE_CHECKING:
    import pycolmap

_BUNDLER_FROM_COLMAP = np.diag([1.0, -1.0, -1.0])
_MOST_OFFSET = 1.0  # pixels of the principal point from the centre; undistortion rounds sides to whole pixels


def write_bundler(scene: Scene, folder: Path) -> list[Path]:
    """Write bundle.out and list.txt. Returns their paths.

    Raises InputError if a camera has more than the format holds: another centre than that of the image, two focal
    lengths, or distortion besides k1 and k2.
    """
    used = {image.camera_id for image in scene.images()}
    lenses = {camera_id: _checked(scene.model.cameras[camera_id]) for camera_id in sorted(used)}
    names = "".join(f"{scene.path(image.name, folder)}\n" for image in scene.images())
    replace_synced(folder / "list.txt", names.encode())
    replace_synced(folder / "bundle.out", (f"{line}\n".encode() for line in _lines(scene, lenses)))
    return [folder / "bundle.out", folder / "list.txt"]


def _checked(camera: "pycolmap.Camera") -> Lens:
    lens = Lens.of(camera, "Bundler")
    offset = max(abs(c - side / 2) for c, side in zip(lens.centre, lens.size, strict=True))
    way_out = "use --to metashape, or `lgbatch undistort` and its folder"
    if offset > _MOST_OFFSET:
        raise InputError(
            f"the principal point of camera {camera.camera_id} is {offset:.1f} pixels off the centre, which Bundler's "
            "format does not hold: use --to metashape"
        )
    if abs(lens.focal[0] / lens.focal[1] - 1) > 1e-3 or any(lens.radial[2:]) or any(lens.tangential) or lens.fisheye:
        raise InputError(f"Bundler's format does not hold the {camera.model_name} camera {camera.camera_id}: {way_out}")
    return lens


def _lines(scene: Scene, lenses: dict[int, Lens]) -> Iterator[str]:
    images = scene.images()
    numbers = {image.image_id: number for number, image in enumerate(images)}
    yield "# Bundle file v0.3"
    yield f"{len(images)} {scene.model.num_points3D()}"
    for image in images:
        lens = lenses[image.camera_id]
        pose = _BUNDLER_FROM_COLMAP @ image.cam_from_world().matrix()
        yield _row([sum(lens.focal) / 2, *lens.radial[:2]])
        for values in (*pose[:, :3], pose[:, 3]):
            yield _row(values)
    for _, point in scene.points():
        yield _row(point.xyz)
        yield " ".join(str(int(c)) for c in point.color)
        views = []
        for element in point.track.elements:
            image = scene.model.images[element.image_id]
            width, height = lenses[image.camera_id].size
            x, y = image.points2D[element.point2D_idx].xy
            key = f"{numbers[element.image_id]} {element.point2D_idx}"
            views.append(f"{key} {_row([x - width / 2, height / 2 - y])}")
        yield f"{len(views)} {' '.join(views)}"


def _row(values: "np.ndarray | list[float]") -> str:
    return " ".join(repr(float(value)) for value in values)
