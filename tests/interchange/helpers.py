"""Models with photos, made by COLMAP's synthetic scenes."""

from pathlib import Path

import cv2
import numpy as np
import pycolmap

from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, FloatArray

SIZE = (160, 120)
PARAMS = (170.0, 83.0, 58.5, 0.06)


def scene(
    folder: Path,
    names: tuple[str, ...],
    *,
    model: str = "SIMPLE_RADIAL",
    params: tuple[float, ...] = PARAMS,
    cameras_per_rig: int = 1,
) -> pycolmap.Reconstruction:
    """Write a model to sparse/0 below `folder`, and a smooth photo for each of its images to photos/."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1,
        num_cameras_per_rig=cameras_per_rig,
        num_frames_per_rig=len(names) // cameras_per_rig,
        num_points3D=50,
        camera_width=SIZE[0],
        camera_height=SIZE[1],
        camera_model_id=pycolmap.CameraModelId.__members__[model],
        camera_params=list(params),
    )
    made = pycolmap.synthesize_dataset(options)
    for image_id, name in zip(sorted(made.images), names, strict=True):
        made.images[image_id].name = name
    (folder / "sparse" / "0").mkdir(parents=True)
    made.write(folder / "sparse" / "0")
    for number, name in enumerate(names):
        photo(folder / "photos" / name, number)
    return made


def photo(path: Path, seed: int = 0) -> None:
    """Write a smooth photo in the format of its name."""
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    pixels = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if path.suffix == ".webp" else []
    done, data = cv2.imencode(path.suffix, pixels, options)
    assert done
    path.write_bytes(data.tobytes())


def features(count: int, seed: int = 0, dimension: int = 16, orientation: int = 1) -> Features:
    """Random features of a photo of SIZE, as they are stored."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> FloatArray:
        return rng.random(shape).astype(np.float16).astype(np.float32)

    return Features(
        keypoints=(rng.random((count, 2)) * (np.array(SIZE) - 1)).astype(np.float32),
        scores=numbers(count),
        descriptors=numbers(count, dimension),
        image_size=SIZE,
        orientation=orientation,
    )


def workspace(folder: Path, names: tuple[str, ...], orientations: dict[str, int] | None = None) -> None:
    """Write a features.h5 with some keypoints of each image, whose photos are in photos/."""
    with FeatureStore(folder / "features.h5", append={"extractor": "disk"}) as store:
        for number, name in enumerate(names):
            store.write(name, features(20, number, orientation=(orientations or {}).get(name, 1)))
        store.set_image_folder((folder / "photos").resolve())
