"""Draw a COLMAP model: coloured points and camera frustums, seen from above and behind the cameras."""

from pathlib import Path

import cv2
import numpy as np

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.truth import Array
from lgbatch.types import ByteArray, IntArray

ACCENT = (66, 172, 255)
"""Colour of the cameras, BGR."""
_TOP, _BOTTOM = np.array([[46, 36, 30], [20, 15, 12]])  # Gradient of the background, BGR.
_TEXT = (190, 180, 172)  # BGR
_YAW, _PITCH, _FIELD = np.radians([20, 27, 30])  # Yaw to the left, pitch down, vertical field of view.
_MARGIN = 0.88  # Central part of the frame that the model fills.
_FOG = 0.3  # Opacity of the background colour over the farthest points.
_GAIN = 1.4  # Largest factor that brightens the colours.
_TINT = 0.2  # Opacity of a camera's image plane.
_SAMPLES = 2  # Supersampling per axis.
_SHIFT = 4  # Fractional bits of the coordinates that OpenCV draws at.


def draw_model(model: Path, out: Path, *, size: tuple[int, int] = (1600, 900)) -> None:
    """Draw the COLMAP model in the folder `model` as a PNG of `size`, (width, height) in pixels.

    The frame shows all cameras and all points except outliers: distant outliers do not shrink the rest. Raises
    InputError if the folder holds no model or `out` cannot be written.
    """
    points, colours, poses, tangents = _read(model)
    rows = np.rint(np.linspace(_TOP, _BOTTOM, size[1] * _SAMPLES)).astype(np.uint8)
    canvas = np.repeat(rows[:, None], size[0] * _SAMPLES, axis=1)
    if len(poses):
        inliers = _without_outliers(points)
        frustums = _frustums(poses, tangents, inliers)
        view = _viewpoint(poses[:, :, :3])
        eye = _fit(np.concatenate([inliers, frustums.reshape(-1, 3)]) @ view.T, size)
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
        raise InputError(f"cannot write the picture to {out}: {error.strerror}; choose another file") from None


def _read(model: Path) -> tuple[Array, ByteArray, Array, Array]:
    """Read points (N, 3), colours (N, 3) BGR, poses camera_from_world (C, 3, 4), and tangents (C, 2).

    The tangents are those of half the horizontal and vertical field of view. Raises InputError if there is no model.
    """
    import pycolmap

    try:
        reconstruction = pycolmap.Reconstruction(str(model))
    except (OSError, ValueError, RuntimeError):
        raise InputError(f"no COLMAP model in {model}: give the folder with cameras.bin, such as sparse/0") from None
    points = list(reconstruction.points3D.values())
    images = [image for image in reconstruction.images.values() if image.has_pose]
    cameras = [reconstruction.cameras[image.camera_id] for image in images]
    # The focal length of a panorama is 0.
    tangents = [(c.width / 2 / f, c.height / 2 / f) for c in cameras for f in [c.mean_focal_length() or c.width]]
    return (
        np.array([point.xyz for point in points]).reshape(-1, 3),
        np.array([point.color[::-1] for point in points], np.uint8).reshape(-1, 3),
        np.array([image.cam_from_world().matrix() for image in images]).reshape(-1, 3, 4),
        np.array(tangents).reshape(-1, 2),
    )


def _without_outliers(points: Array) -> Array:
    """Drop points farther from the median point than three times the median distance."""
    if not len(points):
        return points
    distance = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    inliers: Array = points[distance <= 3 * np.median(distance)]
    return inliers


def _frustums(poses: Array, tangents: Array, points: Array) -> Array:
    """Pyramids (C, 5, 3) in world coordinates: the centre of each camera and the corners of its image, clockwise."""
    rotations = poses[:, :, :3]
    centres = -np.einsum("nji,nj->ni", rotations, poses[:, :, 3])
    # The length keeps neighbouring frustums apart, and small compared with the scene.
    gaps = [np.sort(np.linalg.norm(centres - centre, axis=1))[1] for centre in centres] if len(centres) > 1 else [0]
    extent = np.linalg.norm(np.ptp(points, axis=0)) if len(points) else 0
    length = min((value for value in (0.5 * np.median(gaps), 0.25 * extent) if value > 0), default=1.0)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * tangents[:, None]
    rays = length * np.concatenate([corners, np.ones((len(poses), 4, 1))], axis=2)
    return np.concatenate([centres[:, None], centres[:, None] + rays @ rotations], axis=1)


def _viewpoint(rotations: Array) -> Array:
    """Rotation view_from_world (3, 3): the mean direction of the cameras (C, 3, 3), turned by _YAW and _PITCH."""
    _, down, ahead = rotations.mean(axis=0)
    # Cameras all around a scene, or in all headings above it, have no mean direction: use the next candidate.
    up = _first_significant(-down, -ahead, -rotations[0, 1])
    ahead = _first_significant(*(axis - (axis @ up) * up for axis in (ahead, rotations[0, 2], rotations[0, 1])))
    aside = np.cos(_YAW) * ahead + np.sin(_YAW) * np.cross(up, ahead)
    forward = np.cos(_PITCH) * aside - np.sin(_PITCH) * up
    right = np.cross(aside, up)
    return np.stack([right, np.cross(forward, right), forward])


def _first_significant(*candidates: Array) -> Array:
    """The first vector that is longer than 0.3, normalised."""
    length, vector = next((n, v) for v in candidates if (n := np.linalg.norm(v)) > 0.3)
    unit: Array = vector / length
    return unit


def _fit(points: Array, size: tuple[int, int]) -> Array:
    """The nearest viewpoint (3,) whose frame contains all points (N, 3), in the view's axes right, down, forward."""
    slopes = _MARGIN * np.tan(_FIELD / 2) * np.array([size[0] / size[1], 1])
    offsets, depth = points[:, :2], points[:, 2:] * slopes
    # Push the four side planes of the frame against the points. The viewpoint is where opposite planes meet.
    low, high = (offsets - depth).max(axis=0), (offsets + depth).min(axis=0)
    return np.append((low + high) / 2, ((high - low) / 2 / slopes).min())


def _draw_points(canvas: ByteArray, points: Array, colours: ByteArray) -> None:
    """Draw discs, far ones first; points (N, 3) relative to the viewpoint in the view's axes, colours (N, 3) BGR."""
    height, width = canvas.shape[:2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = _project(points, canvas)
    visible = (points[:, 2] > 0) & ((pixels > 0) & (pixels < (width, height))).all(axis=1)
    if not visible.any():
        return
    order = np.flatnonzero(visible)[np.argsort(-points[visible, 2])]
    depth, lit = points[order, 2], colours[order].astype(np.float64)
    near, middle, far = np.percentile(depth, [1, 50, 99])
    # Brighten a dark scene, but not into saturation.
    lit *= min(_GAIN, 245 / max(np.percentile(lit.max(axis=1), 95), 1))
    fog = _FOG * np.clip((depth - near) / max(far - near, 1e-9 * far), 0, 1)[:, None]
    lit = np.minimum(lit, 255) * (1 - fog) + (_TOP + _BOTTOM) / 2 * fog
    radii = height * np.clip(0.2 / np.sqrt(len(points)), 0.0014, 0.005) * np.minimum(middle / depth, 3)
    for centre, radius, colour in zip(_fixed(pixels[order]), _fixed(radii), lit, strict=True):
        cv2.circle(canvas, centre.tolist(), int(radius), colour.tolist(), cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _draw_frustums(canvas: ByteArray, frustums: Array) -> None:
    """Draw wireframe pyramids with a tinted image plane; frustums (C, 5, 3) relative to the viewpoint."""
    pyramids, tinted = _fixed(_project(frustums, canvas)), canvas.copy()
    for pyramid in pyramids:
        cv2.fillConvexPoly(tinted, pyramid[1:], ACCENT, cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(tinted, _TINT, canvas, 1 - _TINT, 0, dst=canvas)
    for pyramid in pyramids:
        lines = [pyramid[1:], *(pyramid[[0, i]] for i in range(1, 5))]
        cv2.polylines(canvas, lines, True, ACCENT, max(_SAMPLES, round(canvas.shape[0] / 600)), cv2.LINE_AA, _SHIFT)


def _project(points: Array, canvas: ByteArray) -> Array:
    """Project points (..., 3), relative to the viewpoint in the view's axes, to pixels (..., 2) of the canvas."""
    height, width = canvas.shape[:2]
    pixels: Array = height / 2 / np.tan(_FIELD / 2) * points[..., :2] / points[..., 2:] + (width / 2, height / 2)
    return pixels


def _fixed(values: Array) -> IntArray:
    """Fixed-point numbers with _SHIFT fractional bits."""
    fixed: IntArray = np.rint(values * 2**_SHIFT).astype(np.int32)
    return fixed
