"""Synthetic models and their positions."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

if TYPE_CHECKING:
    import pycolmap

Array = NDArray[np.float64]


def synthetic_model(
    workspace: Path, *, frames: int = 5, number: int = 0, prefix: str = ""
) -> "pycolmap.Reconstruction":
    """Write a model of 2 cameras with several frames each to sparse/N, with exact observations."""
    import pycolmap

    pycolmap.set_random_seed(number)
    options = pycolmap.SyntheticDatasetOptions(num_rigs=2, num_frames_per_rig=frames, num_points3D=60)
    model = pycolmap.synthesize_dataset(options)
    for image in model.images.values():
        image.name = f"{prefix}{image.name.replace('/', '_')}".removesuffix(".png").removesuffix(".jpg") + ".jpg"
    folder = workspace / "sparse" / str(number)
    folder.mkdir(parents=True)
    model.write(folder)
    return model


def centres(folder: Path) -> dict[str, Array]:
    import pycolmap

    return {image.name: image.projection_center() for image in pycolmap.Reconstruction(folder).images.values()}


def write_positions(
    path: Path, model: "pycolmap.Reconstruction", *, scale: float, offset: tuple[float, float, float] = (0, 0, 0)
) -> dict[str, Array]:
    """Write the camera centres, turned, scaled and moved, as a file of positions in metres."""
    c, s = np.cos(0.5), np.sin(0.5)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    known = {image.name: scale * turn @ image.projection_center() + np.array(offset) for image in model.images.values()}
    path.write_text("\n".join(f"{name} {' '.join(map(repr, xyz.tolist()))}" for name, xyz in known.items()))
    return known


def write_photo(path: Path, gps: dict[str, float]) -> None:
    """Write a small photo with these latitude, longitude and altitude in EXIF; without, if there are none."""
    exif = Image.Exif()
    directory = exif.get_ifd(ExifTags.IFD.GPSInfo)
    if gps:
        for tag, key in (ExifTags.GPS.GPSLatitude, "latitude"), (ExifTags.GPS.GPSLongitude, "longitude"):
            degrees, minutes = divmod(gps[key], 1)
            minutes, seconds = divmod(minutes * 60, 1)
            directory[tag] = (degrees, minutes, seconds * 60)
        directory[ExifTags.GPS.GPSLatitudeRef], directory[ExifTags.GPS.GPSLongitudeRef] = "N", "E"
        if "altitude" in gps:
            directory[ExifTags.GPS.GPSAltitude] = gps["altitude"]
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (8, 6)).save(path, exif=exif)
