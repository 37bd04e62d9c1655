"""transforms.json of nerfstudio, with the points in sparse_pc.ply.

The world stays that of the model. Format: https://docs.nerf.studio/quickstart/data_conventions.html
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lgbatch.errors import InputError
from lgbatch.interchange.formats.lens import Lens
from lgbatch.interchange.formats.scene import Scene, relative_path
from lgbatch.storage.durable import replace_synced

_POINTS = "sparse_pc.ply"
_OPENGL_FROM_COLMAP = np.diag([1.0, -1.0, -1.0, 1.0])


def write_nerfstudio(scene: Scene, folder: Path) -> list[Path]:
    """Write transforms.json and sparse_pc.ply. Returns their paths.

    Intrinsics are those of the file if all images share a camera, and else of each frame. Raises InputError if
    nerfstudio has no such cameras.
    """
    used = sorted({image.camera_id for image in scene.images()})
    lenses = {camera_id: Lens.of(scene.model.cameras[camera_id], "nerfstudio") for camera_id in used}
    if len({lens.fisheye for lens in lenses.values()}) > 1:
        raise InputError("nerfstudio takes no fisheye cameras beside others: run `lgbatch undistort` before")
    shared = len(used) == 1
    masks, frames = scene.masks(), []
    for image in scene.images():
        world_from_camera = np.eye(4)
        world_from_camera[:3] = image.cam_from_world().inverse().matrix()
        frame: dict[str, Any] = {
            "file_path": scene.path(image.name, folder),
            "transform_matrix": (world_from_camera @ _OPENGL_FROM_COLMAP).tolist(),
            "colmap_im_id": image.image_id,
        }
        if masks:
            frame["mask_path"] = relative_path(masks[image.name], folder)
        frames.append(frame if shared else frame | _intrinsics(lenses[image.camera_id]))
    lens = lenses[used[0]]
    head = {"camera_model": "OPENCV_FISHEYE" if lens.fisheye else "OPENCV"} | (_intrinsics(lens) if shared else {})
    scene.model.export_PLY(folder / _POINTS)
    data = head | {"ply_file_path": _POINTS, "frames": frames}
    replace_synced(folder / "transforms.json", json.dumps(data, indent=1).encode())
    return [folder / "transforms.json", folder / _POINTS]


def _intrinsics(lens: Lens) -> dict[str, float]:
    (width, height), (fx, fy), (cx, cy) = lens.size, lens.focal, lens.centre
    distortion = dict(zip(("k1", "k2", "k3", "k4"), lens.radial, strict=True))
    distortion |= dict(zip(("p1", "p2"), lens.tangential, strict=True))
    return {"w": width, "h": height, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy} | distortion
