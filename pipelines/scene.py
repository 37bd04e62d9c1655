"""A small gallery with known cameras: the scene that `lgbatch demo` and the tests reconstruct.

World units are metres; x points right, y DOWN, z into the room; the origin is on the floor. In images and textures the
centre of the top-left pixel is (0, 0). The pictures on the walls are sample images in scikit-image's wheel.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import cv2
import numpy as np

from lgbatch.errors import InputError
from lgbatch.pipelines.render import Quad, view
from lgbatch.reconstruction.evaluation.truth import Array, KnownCamera
from lgbatch.types import ByteArray, FloatArray

SIZE = (1024, 768)
"""(width, height) of a photo."""
FOCAL = 1050.0
"""Focal length in pixels."""
CAMERAS = 12

_NOISE = 2.0  # Standard deviation of the sensor noise, in grey levels.
_QUALITY = 92  # Of the JPEG files.
_WIDTH, _HEIGHT, _NEAR, _FAR = 7.0, 3.0, -1.0, 5.5  # Extent of the room, open behind the cameras.


@dataclass(frozen=True)
class _Finish:
    """The material of a surface: a tiled texture in one colour."""

    file: str
    contrast: float
    colour: tuple[int, int, int]  # BGR
    density: float = 400  # Texture pixels per metre.
    scale: float = 1  # Scale of the tiled image.


@dataclass(frozen=True)
class _Picture:
    """A picture on a surface: its centre (x, y) from the top-left corner, and its width, in metres."""

    file: str
    x: float
    y: float
    width: float


def render(folder: Path, *, seed: int = 0) -> dict[str, KnownCamera]:
    """Write the photos view_00.jpg ... into `folder`, which is created if missing. Returns the cameras by photo name.

    The seed drives the sensor noise; the same seed gives the same files. Raises InputError if scikit-image is not
    installed or `folder` cannot be written.
    """
    quads, known = gallery(), cameras()
    rng = np.random.default_rng(seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, camera in known.items():
            image = view(camera, quads)
            image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(_NOISE)
            pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
            encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
            data = encoded.tobytes()
            # An unchanged file keeps its modification time, by which later runs recognise it.
            if not (folder / name).is_file() or (folder / name).read_bytes() != data:
                (folder / name).write_bytes(data)
    except OSError as error:
        raise InputError(f"cannot write photos to {folder}: {error.strerror}; choose another folder") from None
    return known


def cameras() -> dict[str, KnownCamera]:
    """The cameras by photo name, on an arc around the middle of the room."""
    calibration = np.array([[FOCAL, 0, (SIZE[0] - 1) / 2], [0, FOCAL, (SIZE[1] - 1) / 2], [0, 0, 1]])
    known = {}
    for i, angle in enumerate(np.radians(np.linspace(-38, 38, CAMERAS))):
        # Height, distance and roll vary as with a hand-held camera: a pure arc constrains the focal length poorly.
        distance = 4.4 + 0.35 * np.cos(2.1 * i)
        eye = np.array([distance * np.sin(angle), -1.55 - 0.4 * np.sin(1.7 * i), 3.9 - distance * np.cos(angle)])
        target = np.array([0.5 * np.sin(2.6 * i), -1.3 + 0.15 * np.cos(i), 3.9])
        pose = _look_at(eye, target, roll=np.radians(3 * np.sin(2.3 * i)))
        known[f"view_{i:02d}.jpg"] = KnownCamera(pose, calibration, SIZE)
    return known


def gallery() -> list[Quad]:
    """The surfaces of the scene: floor, ceiling, three walls with pictures, and three plinths with pictures.

    Raises InputError if scikit-image is not installed.
    """
    back = _row(("hubble_deep_field.jpg", 1.3, 1.5), ("astronaut.png", 3.25, 1.25), ("rocket.jpg", 5.4, 1.9))
    left = _row(("retina.jpg", 3.6, 1.2), ("chelsea.png", 5.4, 1.5))
    right = _row(("coffee.png", 1.1, 1.5), ("ihc.png", 2.9, 1.2))
    width, depth, height = np.array([_WIDTH, 0, 0]), np.array([0, 0, _FAR - _NEAR]), np.array([0, _HEIGHT, 0])
    origin = np.array([-_WIDTH / 2, -_HEIGHT, _NEAR])
    floor = _quad(origin + depth + height, width, -depth, _Finish("gravel.png", 0.17, (88, 110, 132), 220, 0.5))
    plinths = [
        _plinth(-1.35, 3.7, 0.85, 1.0, -62, "moon.png", "coins.png"),
        _plinth(0.3, 3.1, 0.7, 0.75, -20, "color.png", "logo.png"),
        _plinth(1.75, 4.1, 0.85, 1.25, -40, "motorcycle_left.png", "camera.png"),
    ]
    _shade(floor, [sides[-1] for sides in plinths])
    return [
        floor,
        _quad(origin, width, depth, _Finish("grass.png", 0.03, (192, 198, 200), 220)),
        _quad(origin + depth, width, height, _Finish("gravel.png", 0.06, (104, 76, 46)), back),
        _quad(origin, depth, height, _Finish("brick.png", 0.13, (112, 134, 168)), left),
        _quad(origin + width + depth, -depth, height, _Finish("grass.png", 0.05, (140, 172, 184)), right),
        *(side for sides in plinths for side in sides),
    ]


def _row(*pictures: tuple[str, float, float]) -> list[_Picture]:
    """Pictures at eye level, given as (file, x of the centre, width)."""
    return [_Picture(file, x, 1.35, width) for file, x, width in pictures]


def _plinth(x: float, z: float, side: float, height: float, degrees: float, *files: str) -> list[Quad]:
    """A box on the floor, turned by `degrees`, with pictures on two sides. The last quad is the top."""
    c, s = np.cos(np.radians(degrees)) * side, np.sin(np.radians(degrees)) * side
    right, back, tall = np.array([c, 0, s]), np.array([-s, 0, c]), np.array([0, height, 0])
    corner = np.array([x, -height, z]) - (right + back) / 2
    paint = _Finish("grass.png", 0.04, (158, 166, 172), 450)
    middle = min(side, height) / 2
    first, second = ([_Picture(file, side / 2, middle, 1.55 * middle)] for file in files)
    return [
        _quad(corner, right, tall, paint, first),
        _quad(corner + right, back, tall, paint, second),
        _quad(corner + right + back, -right, tall, paint),
        _quad(corner + back, -back, tall, paint),
        _quad(corner + back, right, -back, paint),
    ]


def _shade(floor: Quad, tops: Sequence[Quad]) -> None:
    """Darken the floor around the plinths with these tops."""
    pixels_per_metre = floor.texture.shape[1] / _WIDTH
    shadow = np.zeros(floor.texture.shape[:2], np.float32)
    for top in tops:
        ring = np.array([0 * top.right, top.right, top.right + top.down, top.down])
        base = (top.corner - floor.corner + ring)[:, [0, 2]] * (1, -1) * pixels_per_metre
        cv2.fillConvexPoly(shadow, np.rint(base).astype(np.int32), 0.9)
    soft = cv2.GaussianBlur(shadow, (0, 0), 0.15 * pixels_per_metre)
    floor.texture[:] = floor.texture * (1 - soft[..., None])


def _quad(corner: Array, right: Array, down: Array, finish: _Finish, pictures: Sequence[_Picture] = ()) -> Quad:
    """A surface with pictures on it."""
    width, height = (round(float(np.linalg.norm(edge)) * finish.density) for edge in (right, down))
    # Seed by position: the noise of each surface differs from the others, and is the same in every run.
    rng = np.random.default_rng(zlib.crc32(np.concatenate([corner, right]).round(6).tobytes()))
    material = _sample_image(finish.file)
    material = np.asarray(cv2.resize(material, None, fx=finish.scale, fy=finish.scale, interpolation=cv2.INTER_AREA))
    tile = np.ascontiguousarray(material.mean(axis=2, dtype=np.float32).T)  # Transposed: the bricks lie level.
    tile = (tile - tile.mean()) / tile.std()
    pad_rows, pad_columns = max(0, height - tile.shape[0]), max(0, width - tile.shape[1])
    detail = cv2.copyMakeBorder(tile, 0, pad_rows, 0, pad_columns, cv2.BORDER_REFLECT)[:height, :width]
    shade = 1 + finish.contrast * detail + 0.035 * _mottle((width, height), rng)
    canvas = shade[..., None] * np.array(finish.colour, np.float32)
    for picture in pictures:
        _hang(canvas, picture, finish.density)
    return Quad(corner, right, down, np.clip(canvas, 0, 255).astype(np.uint8))


def _mottle(size: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Smooth noise at several scales, (H, W); makes repeated tiles distinguishable. `size` is (width, height)."""
    total = np.zeros(size[::-1], np.float32)
    for cell in (16, 64, 256, 700):
        grid = rng.standard_normal((size[1] // cell + 2, size[0] // cell + 2), dtype=np.float32)
        np.add(total, cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC), out=total)
    return total


def _hang(canvas: FloatArray, picture: _Picture, density: float) -> None:
    """Paint a picture with frame, mat, light and shadow onto the canvas (H, W, 3), in place."""
    image = _sample_image(picture.file)
    width = round(picture.width * density)
    height = round(width * image.shape[0] / image.shape[1])
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    mat, frame = round(0.05 * width), round(0.025 * width)
    framed = cv2.copyMakeBorder(resized, mat, mat, mat, mat, cv2.BORDER_CONSTANT, value=(226, 234, 238))
    framed = cv2.copyMakeBorder(framed, frame, frame, frame, frame, cv2.BORDER_CONSTANT, value=(28, 36, 46))
    height, width = framed.shape[:2]
    x, y = round(picture.x * density - width / 2), round(picture.y * density - height / 2)
    canvas *= _lamp(canvas.shape[:2], x + width / 2, y + height / 3, 0.8 * width)[..., None]
    shadow = np.zeros(canvas.shape[:2], np.float32)
    shadow[y + frame : y + height + 2 * frame, x : x + width + frame] = 0.55
    canvas *= 1 - cv2.GaussianBlur(shadow, (0, 0), frame)[..., None]
    canvas[y : y + height, x : x + width] = framed


def _lamp(shape: tuple[int, int], x: float, y: float, spread: float) -> FloatArray:
    """The brightness factor (H, W) of a lamp that points at pixel (x, y)."""
    rows, columns = (np.arange(n, dtype=np.float32) for n in shape)
    row, column = (np.exp(-(((v - m) / spread) ** 2) / 2) for v, m in ((rows, y), (columns, x)))
    return (0.92 + 0.45 * row[:, None] * column).astype(np.float32)


def _sample_image(file: str) -> ByteArray:
    """Read a sample image of scikit-image, (H, W, 3) BGR, without importing scikit-image, which may download it."""
    package = util.find_spec("skimage")
    path = Path(package.origin).parent / "data" / file if package and package.origin else None
    if not path or not path.is_file():
        raise InputError("the demo needs the sample images of scikit-image: pip install 'lgbatch[demo]'")
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(pixels, np.uint8)


def _look_at(eye: Array, target: Array, *, roll: float) -> Array:
    """Pose camera_from_world (3, 4) of a camera at `eye` that looks at `target`, rolled clockwise by `roll` radians."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.stack([c * right + s * down, c * down - s * right, forward])
    return np.column_stack([rotation, -rotation @ eye])
