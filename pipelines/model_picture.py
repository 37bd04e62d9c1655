"""A picture of a COLMAP model: its points in their colours and its cameras, from above and behind the cameras."""

from pathlib import Path

import cv2
import numpy as np

from lgbatch.errors import InputError
from lgbatch.reconstruction.truth import Array
from lgbatch.types import ByteArray, IntArray

ACCENT = (66, 172, 255)
"""BGR of the cameras."""
_TOP, _BOTTOM = np.array([[46, 36, 30], [20, 15, 12]])  # BGR of the background.
_TEXT = (190, 180, 172)
_YAW, _PITCH, _FIELD = np.radians([20, 27, 30])  # Turned to the left, turned down, height of the field of view.
_MARGIN = 0.88  # The part of the frame, from its middle, that is used.
_FOG = 0.3  # How much of the background the farthest points take on.
_GAIN = 1.4  # The most that colours are brightened.
_TINT = 0.2  # Opacity of a camera's image plane.
_SAMPLES = 2  # Pixels drawn per pixel, per axis.
_SHIFT = 4  # Fractional bits of coordinates in OpenCV's drawing functions.


def draw_model(model: Path, out: Path, *, size: tuple[int, int] = (1600, 900)) -> None:
    """Draw the COLMAP model in the folder `model` as a PNG of `size`, (width, height) in pixels.

    All cameras are in the frame, and all points but outliers: a few points far off do not shrink the rest.
    Raises InputError when the folder holds no model, or `out` cannot be written.
    """
    points, colours, poses, tangents = _read(model)
    rows = np.rint(np.linspace(_TOP, _BOTTOM, size[1] * _SAMPLES)).astype(np.uint8)
    canvas = np.repeat(rows[:, None], size[0] * _SAMPLES, axis=1)
    if len(poses):
        near = _without_outliers(points)
        frustums = _frustums(poses, tangents, near)
        view = _viewpoint(poses[:, :, :3])
        eye = _fit(np.concatenate([near, frustums.reshape(-1, 3)]) @ view.T, size)
        _draw_points(canvas, points @ view.T - eye, colours)
        _draw_frustums(canvas, frustums @ view.T - eye)
    picture = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)
    caption = ", ".join(f"{n:,} {noun}{'s' * (n != 1)}" for n, noun in ((len(poses), "camera"), (len(points), "point")))
    corner, scale = (round(0.03 * size[1]), round(0.97 * size[1])), size[1] / 1450
    cv2.putText(picture, caption, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, _TEXT, 1, cv2.LINE_AA)
    encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    try:
        out.write_bytes(encoded.tobytes())
    except OSError as error:
        raise InputError(f"cannot write the picture to {out}: {error.strerror}; choose another place") from None


def _read(model: Path) -> tuple[Array, ByteArray, Array, Array]:
    """Points (N, 3), colours (N, 3) BGR, poses camera_from_world (C, 3, 4), half width and height over focal (C, 2)."""
    import pycolmap

    try:
        reconstruction = pycolmap.Reconstruction(str(model))
    except (OSError, ValueError, RuntimeError):
        raise InputError(f"no COLMAP model in {model}: give the folder with cameras.bin, such as sparse/0") from None
    points = list(reconstruction.points3D.values())
    images = [image for image in reconstruction.images.values() if image.has_pose]
    cameras = [reconstruction.cameras[image.camera_id] for image in images]
    # A panorama has no focal length.
    tangents = [(c.width / 2 / f, c.height / 2 / f) for c in cameras for f in [c.mean_focal_length() or c.width]]
    return (
        np.array([point.xyz for point in points]).reshape(-1, 3),
        np.array([point.color[::-1] for point in points], np.uint8).reshape(-1, 3),
        np.array([image.cam_from_world().matrix() for image in images]).reshape(-1, 3, 4),
        np.array(tangents).reshape(-1, 2),
    )


def _without_outliers(points: Array) -> Array:
    if not len(points):
        return points
    distance = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    near: Array = points[distance <= 3 * np.median(distance)]
    return near


def _frustums(poses: Array, tangents: Array, points: Array) -> Array:
    """Pyramids (C, 5, 3) in the world: each camera's centre and the corners of its image, clockwise."""
    rotations = poses[:, :, :3]
    centres = -np.einsum("nji,nj->ni", rotations, poses[:, :, 3])
    # Neighbours stay apart, and small next to the scene.
    gaps = [np.sort(np.linalg.norm(centres - centre, axis=1))[1] for centre in centres] if len(centres) > 1 else [0]
    extent = np.linalg.norm(np.ptp(points, axis=0)) if len(points) else 0
    length = min((value for value in (0.5 * np.median(gaps), 0.25 * extent) if value > 0), default=1.0)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * tangents[:, None]
    rays = length * np.concatenate([corners, np.ones((len(poses), 4, 1))], axis=2)
    return np.concatenate([centres[:, None], centres[:, None] + rays @ rotations], axis=1)


def _viewpoint(rotations: Array) -> Array:
    """Rotation view_from_world (3, 3) that looks the way that the cameras (C, 3, 3) do, a little down and aside."""
    _, down, ahead = rotations.mean(axis=0)
    # Photos that look straight down, or all around, have no mean direction: what comes next takes its place.
    up = _first_long(-down, -ahead, -rotations[0, 1])
    ahead = _first_long(*(axis - (axis @ up) * up for axis in (ahead, rotations[0, 2], rotations[0, 1])))
    aside = np.cos(_YAW) * ahead + np.sin(_YAW) * np.cross(up, ahead)
    forward = np.cos(_PITCH) * aside - np.sin(_PITCH) * up
    right = np.cross(aside, up)
    return np.stack([right, np.cross(forward, right), forward])


def _first_long(*candidates: Array) -> Array:
    length, vector = next((n, v) for v in candidates if (n := np.linalg.norm(v)) > 0.3)
    unit: Array = vector / length
    return unit


def _fit(points: Array, size: tuple[int, int]) -> Array:
    """The nearest eye (3,) that has all points (N, 3) in its frame; both in axes right, down, forward of the view."""
    slopes = _MARGIN * np.tan(_FIELD / 2) * np.array([size[0] / size[1], 1])
    across, depth = points[:, :2], points[:, 2:] * slopes
    # Four planes, as steep as the sides of the frame, touch the points: the eye is where opposite ones meet.
    first, second = (across - depth).max(axis=0), (across + depth).min(axis=0)
    return np.append((first + second) / 2, ((second - first) / 2 / slopes).min())


def _draw_points(canvas: ByteArray, points: Array, colours: ByteArray) -> None:
    """Discs, the far ones first; points (N, 3) in the eye's axes, colours (N, 3) BGR."""
    height, width = canvas.shape[:2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = _project(points, canvas)
    shown = (points[:, 2] > 0) & ((pixels > 0) & (pixels < (width, height))).all(axis=1)
    if not shown.any():
        return
    order = np.flatnonzero(shown)[np.argsort(-points[shown, 2])]
    depth, lit = points[order, 2], colours[order].astype(np.float64)
    near, middle, far = np.percentile(depth, [1, 50, 99])
    # A dim scene gets more light, as much as leaves its colours its own.
    lit *= min(_GAIN, 245 / max(np.percentile(lit.max(axis=1), 95), 1))
    fog = _FOG * np.clip((depth - near) / max(far - near, 1e-9 * far), 0, 1)[:, None]
    lit = np.minimum(lit, 255) * (1 - fog) + (_TOP + _BOTTOM) / 2 * fog
    radii = height * np.clip(0.2 / np.sqrt(len(points)), 0.0014, 0.005) * np.minimum(middle / depth, 3)
    for centre, radius, colour in zip(_fixed(pixels[order]), _fixed(radii), lit, strict=True):
        cv2.circle(canvas, centre.tolist(), int(radius), colour.tolist(), cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _draw_frustums(canvas: ByteArray, frustums: Array) -> None:
    """Wire pyramids with a tinted image plane; frustums (C, 5, 3) in the eye's axes."""
    pyramids, tinted = _fixed(_project(frustums, canvas)), canvas.copy()
    for pyramid in pyramids:
        cv2.fillConvexPoly(tinted, pyramid[1:], ACCENT, cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(tinted, _TINT, canvas, 1 - _TINT, 0, dst=canvas)
    for pyramid in pyramids:
        lines = [pyramid[1:], *(pyramid[[0, i]] for i in range(1, 5))]
        cv2.polylines(canvas, lines, True, ACCENT, max(_SAMPLES, round(canvas.shape[0] / 600)), cv2.LINE_AA, _SHIFT)


def _project(points: Array, canvas: ByteArray) -> Array:
    """Pixels (..., 2) of the canvas, from points (..., 3) in the eye's axes."""
    height, width = canvas.shape[:2]
    pixels: Array = height / 2 / np.tan(_FIELD / 2) * points[..., :2] / points[..., 2:] + (width / 2, height / 2)
    return pixels


def _fixed(values: Array) -> IntArray:
    fixed: IntArray = np.rint(values * 2**_SHIFT).astype(np.int32)
    return fixed
