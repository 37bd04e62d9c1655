"""Synthetic photos, features and matches for the tests of COLMAP databases, and a reader of databases."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from lgbatch.colmap.database import DatabaseCounts, import_database
from lgbatch.colmap.sensors.calibration import Calibration
from lgbatch.colmap.sensors.rigs import Rigs
from lgbatch.types import FloatArray, IntArray, Pair

if TYPE_CHECKING:
    import pycolmap

NAMES = ("a.jpg", "b.jpg", "c.jpg")
SIZE = (64, 48)
SYNTHETIC_SIZE = (512, 384)


@dataclass
class Source:
    """Features and matches in memory, for both protocols of import_database."""

    points: dict[str, FloatArray] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    matches: dict[Pair, IntArray] = field(default_factory=dict)
    geometries: dict[Pair, bytes] = field(default_factory=dict)
    orientations: dict[str, int] = field(default_factory=dict)

    def names(self) -> list[str]:
        return list(self.points)

    def keypoints(self, name: str) -> FloatArray:
        return self.points[name]

    def image_size(self, name: str) -> tuple[int, int]:
        return self.sizes[name]

    def orientation(self, name: str) -> int:
        return self.orientations.get(name, 1)

    def pairs(self) -> list[Pair]:
        return list(self.matches)

    def indices(self, pair: Pair) -> IntArray:
        return self.matches[pair]

    def geometry(self, pair: Pair) -> bytes | None:
        return self.geometries.get(pair)


def photo(folder: Path, name: str, size: tuple[int, int]) -> None:
    """Write a grey photo of (width, height) in the format of its suffix."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(file.suffix, np.full((size[1], size[0], 3), 128, np.uint8))
    assert done
    file.write_bytes(data.tobytes())


def scene(folder: Path, names: tuple[str, ...] = NAMES, count: int = 20) -> Source:
    """Write blank photos with random keypoints; consecutive photos have 10 matches."""
    rng = np.random.default_rng(0)
    source = Source()
    for name in names:
        photo(folder, name, SIZE)
        source.points[name] = (rng.random((count, 2)) * SIZE).astype(np.float32)
        source.sizes[name] = SIZE
    for a, b in itertools.pairwise(names):
        left, right = np.sort(rng.permutation(count)[:10]), rng.permutation(count)[:10]
        source.matches[Pair(a, b)] = np.stack([left, right], axis=1).astype(np.int32)
    return source


def import_source(
    path: Path,
    source: Source,
    mode: str = "image",
    model: str = "SIMPLE_RADIAL",
    view: bool = False,
    calibration: Calibration | None = None,
    rigs: Rigs | None = None,
) -> DatabaseCounts:
    """Import a source into the database at `path`, with the photos in the folder `images` beside it."""
    return import_database(
        path,
        path.parent / "images",
        source,
        source,
        camera_mode=mode,
        camera_model=model,
        calibration=calibration,
        rigs=rigs,
        view=view,
    )


def part(source: Source, names: list[str]) -> Source:
    """Some images of a source, without matches."""
    return Source({name: source.points[name] for name in names}, source.sizes)


def exif_photo(
    folder: Path,
    name: str,
    size: tuple[int, int],
    camera: str | None = None,
    focal: int | None = None,
    gps: tuple[float, float, float] | None = None,
    orientation: int | None = None,
) -> None:
    """Write a photo with EXIF: model, 35 mm equivalent focal length, GPS (degrees north, east; metres), orientation."""
    pil = pytest.importorskip("PIL.Image")
    exif = pil.Exif()
    if camera:
        exif[0x10F], exif[0x110] = "Maker", camera
    if focal:
        exif.get_ifd(0x8769)[0xA405] = focal
    if orientation:
        exif[0x112] = orientation
    if gps:
        north, east, height = gps
        exif.get_ifd(0x8825).update({1: "N", 2: (north, 0, 0), 3: "E", 4: (east, 0, 0), 5: b"\0", 6: height})
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pil.new("RGB", size).save(file, exif=exif)


def content(path: Path) -> dict[str, object]:
    """All rows of a database, read with pycolmap."""
    import pycolmap

    with pycolmap.Database.open(path) as db:
        images = {i.name: i for i in db.read_all_images()}
        pair_ids, matches = db.read_all_matches()
        verified_ids, geometries = db.read_two_view_geometries()
        return {
            "cameras": {c.camera_id: (c.model_name, c.width, c.height, *c.params) for c in db.read_all_cameras()},
            "images": {n: (i.image_id, i.camera_id, i.frame_id) for n, i in images.items()},
            "frames": {f.frame_id: f.rig_id for f in db.read_all_frames()},
            "rigs": [r.rig_id for r in db.read_all_rigs()],
            "keypoints": {n: db.read_keypoints(i.image_id).tolist() for n, i in images.items()},
            "matches": {p: m.tolist() for p, m in zip(pair_ids, matches, strict=True)},
            "verified": {p: g.inlier_matches.tolist() for p, g in zip(verified_ids, geometries, strict=True)},
        }


def synthetic(
    folder: Path,
    images: int,
    prefix: str = "",
    seed: int = 0,
    suffix: str = ".jpg",
    model: str = "SIMPLE_RADIAL",
    params: tuple[float, ...] = (640, SYNTHETIC_SIZE[0] / 2, SYNTHETIC_SIZE[1] / 2, 0.02),
) -> Source:
    """Keypoints and matches of cameras around random points, with half a pixel of noise, and blank photos.

    `model` and `params` are the intrinsics of the cameras.
    """
    import pycolmap

    pycolmap.set_random_seed(seed)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=images,
        num_frames_per_rig=1,
        num_points3D=200,
        camera_width=SYNTHETIC_SIZE[0],
        camera_height=SYNTHETIC_SIZE[1],
        camera_model_id=pycolmap.CameraModelId.__members__[model],
        camera_params=list(params),
    )
    source = Source()
    with pycolmap.Database.open(folder / f"{prefix}synthetic.db") as db:
        truth = pycolmap.synthesize_dataset(options, db)
        pycolmap.synthesize_noise(pycolmap.SyntheticNoiseOptions(point2D_stddev=0.5), truth, db)
        names = {i.image_id: f"{prefix}{i.image_id}{suffix}" for i in db.read_all_images()}
        take(db, names, source, folder)
    return source


def take(db: "pycolmap.Database", names: Mapping[int, str], source: Source, folder: Path) -> None:
    """Put the keypoints and matches of a database into `source`, by names of image ids, and write blank photos."""
    for image_id, name in names.items():
        photo(folder / "images", name, SYNTHETIC_SIZE)
        source.points[name] = db.read_keypoints(image_id)[:, :2] - np.float32(0.5)
        source.sizes[name] = SYNTHETIC_SIZE
    for a, b in itertools.combinations(names, 2):
        source.matches[Pair(names[a], names[b])] = db.read_matches(a, b).astype(np.int32)
