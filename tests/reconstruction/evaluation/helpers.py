"""A synthetic model, and its true cameras written in each format of ground truth."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from lgbatch.reconstruction.evaluation.truth import Array

SIZE, FOCAL, CENTRE = (640, 480), (500.0, 510.0), (330.0, 235.0)
PARAMS = (*FOCAL, *CENTRE)
"""Of COLMAP's PINHOLE."""


@dataclass(frozen=True)
class Scene:
    """A model without noise, and its poses world_from_camera (4, 4) by image name."""

    model: pycolmap.Reconstruction
    poses: dict[str, Array]


def scene(name: str = "{:04}.jpg", images: int = 6, rigs: int = 1) -> Scene:
    """A model whose images have numbers from 0 in their names."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=rigs,
        num_frames_per_rig=images // rigs,
        num_points3D=100,
        camera_width=SIZE[0],
        camera_height=SIZE[1],
        camera_model_id=pycolmap.CameraModelId.PINHOLE,
        camera_params=list(PARAMS),
    )
    model = pycolmap.synthesize_dataset(options)
    for number, image_id in enumerate(sorted(model.images)):
        model.images[image_id].name = name.format(number)
    poses = {image.name: _world_from_camera(image) for image in model.images.values()}
    return Scene(model, dict(sorted(poses.items())))


def _world_from_camera(image: pycolmap.Image) -> Array:
    return np.vstack([np.asarray(image.cam_from_world().inverse().matrix()), [0, 0, 0, 1]])


def write_strecha(folder: Path, poses: dict[str, Array]) -> Path:
    folder.mkdir()
    k = [[FOCAL[0], 0, CENTRE[0] - 0.5], [0, FOCAL[1], CENTRE[1] - 0.5], [0, 0, 1]]
    for name, pose in poses.items():
        values = [*np.ravel(k), 0, 0, 0, *pose[:3, :3].ravel(), *pose[:3, 3], *SIZE]
        (folder / f"{name}.camera").write_text("\n".join(map(str, values)))
    return folder


def write_colmap(folder: Path, model: pycolmap.Reconstruction, text: bool) -> Path:
    folder.mkdir()
    (model.write_text if text else model.write_binary)(folder)
    return folder


def write_poses(folder: Path, poses: dict[str, Array], ending: str = ".txt") -> Path:
    folder.mkdir()
    for name, pose in poses.items():
        np.savetxt(folder / (name.partition(".")[0] + ending), pose)
    return folder


def write_trajectory(path: Path, poses: dict[str, Array], times: list[float]) -> Path:
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for time, pose in zip(times, poses.values(), strict=True):
        quaternion = pycolmap.Rotation3d(pose[:3, :3]).quat
        lines.append(" ".join(map(str, [time, *pose[:3, 3], *quaternion])))
    path.write_text("\n".join(lines))
    return path


def write_nerfstudio(path: Path, poses: dict[str, Array], **intrinsics: object) -> Path:
    """Write a transforms.json, with OpenGL's axes."""
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": (pose @ np.diag([1, -1, -1, 1])).tolist()}
        for name, pose in poses.items()
    ]
    path.write_text(json.dumps({"camera_model": "OPENCV", **intrinsics, "frames": frames}))
    return path


NERFSTUDIO_CAMERA = {
    "w": SIZE[0],
    "h": SIZE[1],
    "fl_x": FOCAL[0],
    "fl_y": FOCAL[1],
    "cx": CENTRE[0],
    "cy": CENTRE[1],
}
