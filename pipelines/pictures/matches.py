"""Draw two photos with their matches and the layers that pruned the other keypoints, as in LightGlue's paper."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.matching.lightglue import MatchTrace
from lgbatch.photos.coordinates import to_upright, upright_size
from lgbatch.types import ByteArray, Features, Photo

Colour = tuple[int, int, int]
"""BGR."""
Points = NDArray[np.float64]
"""(N, 2), x and y in pixels of the canvas."""

_HEIGHT, _WIDTH = 900, 1800  # Largest size of the photos side by side, in pixels.
_GAP, _BAR, _EDGE = 12, 56, 20  # Between the photos, above and below them, and left and right of them.
_MIN_WIDTH = 1000
_BACKGROUND, _TEXT, _LEGEND = (24, 20, 18), (232, 226, 220), (160, 152, 146)  # BGR
_BRIGHTNESS = 0.62  # Of the photos, so that lines and points stand out.
_SHIFT = 4  # Fractional bits of the coordinates that OpenCV draws at.
_LOW, _MIDDLE, _HIGH = (70, 70, 250), (60, 210, 250), (110, 235, 90)  # Scores 0, 0.5 and 1.
_EARLY, _LATE, _KEPT = (190, 60, 160), (240, 190, 230), (250, 180, 90)  # Pruned early, pruned late, not pruned.
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_DUPLEX, 0.55
_ENCODER_OPTIONS = {".png": (cv2.IMWRITE_PNG_COMPRESSION, 6), ".jpg": (cv2.IMWRITE_JPEG_QUALITY, 92)}


def draw_matches(
    photos: tuple[Photo, Photo], features: tuple[Features, Features], trace: MatchTrace, out: Path
) -> None:
    """Draw two photos, upright, with their matches and unmatched keypoints, as a PNG or a JPEG by the name of `out`.

    The colour of a match shows its score, the colour of an unmatched keypoint the layer that pruned it. Raises OSError
    if `out` cannot be written.
    """
    canvas, lefts, points = _side_by_side(photos, features)
    _draw_unmatched(canvas, points, trace)
    _draw_lines(canvas, points, trace)
    _write_header(canvas, photos, features, trace, lefts)
    _write_legend(canvas, trace)
    suffix = ".png" if out.suffix.lower() == ".png" else ".jpg"
    out.write_bytes(cv2.imencode(suffix, canvas, _ENCODER_OPTIONS[suffix])[1].tobytes())


def _side_by_side(
    photos: tuple[Photo, Photo], features: tuple[Features, Features]
) -> tuple[ByteArray, list[int], list[Points]]:
    """The canvas with both photos, the left edge of each, and the keypoints of each in pixels of the canvas."""
    scale = min(
        _HEIGHT / max(photo.pixels.shape[0] for photo in photos),
        (_WIDTH - _GAP) / sum(photo.pixels.shape[1] for photo in photos),
    )
    images = [_scaled(photo.pixels, scale) for photo in photos]
    height = max(image.shape[0] for image in images)
    lefts = [_EDGE, _EDGE + images[0].shape[1] + _GAP]
    width = max(lefts[1] + images[1].shape[1] + _EDGE, _MIN_WIDTH)
    canvas = np.full((height + 2 * _BAR, width, 3), _BACKGROUND, np.uint8)
    points: list[Points] = []
    for image, left, photo, image_features in zip(images, lefts, photos, features, strict=True):
        canvas[_BAR : _BAR + image.shape[0], left : left + image.shape[1]] = image * _BRIGHTNESS
        ratio = np.array(image.shape[1::-1]) / np.array(upright_size(photo.size, photo.orientation))
        keypoints = to_upright(image_features.keypoints, photo.size, photo.orientation)
        points.append((keypoints + 0.5) * ratio - 0.5 + (left, _BAR))
    return canvas, lefts, points


def _scaled(pixels: ByteArray, scale: float) -> ByteArray:
    """Resize an RGB image; returns BGR."""
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=interpolation)
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_RGB2BGR), np.uint8)


def _draw_unmatched(canvas: ByteArray, points: Sequence[Points], trace: MatchTrace) -> None:
    """Draw the keypoints without a match; those pruned early lie on top."""
    matched = trace.matches.indices
    for side, (side_points, layers) in enumerate(zip(points, (trace.layers0, trace.layers1), strict=True)):
        unmatched = np.setdiff1d(np.arange(len(side_points)), matched[:, side])
        for i in unmatched[np.argsort(-layers[unmatched], kind="stable")]:
            colour = _point_colour(int(layers[i]), trace.stop)
            cv2.circle(canvas, _fixed(side_points[i]), 2 << _SHIFT, colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _draw_lines(canvas: ByteArray, points: Sequence[Points], trace: MatchTrace) -> None:
    """Draw the matches; those of high score lie on top. More matches have more transparent lines."""
    matches, overlay = trace.matches, canvas.copy()
    order = np.argsort(matches.scores, kind="stable")
    ends = [[_fixed(side[i]) for side, i in zip(points, row, strict=True)] for row in matches.indices[order]]
    colours = [_interpolate(float(score), _LOW, _MIDDLE, _HIGH) for score in matches.scores[order]]
    for (first, second), colour in zip(ends, colours, strict=True):
        cv2.line(overlay, first, second, colour, 1, cv2.LINE_AA, _SHIFT)
    opacity = float(np.clip(200 / max(1, len(ends)), 0.2, 0.75))
    cv2.addWeighted(overlay, opacity, canvas, 1 - opacity, 0, dst=canvas)
    for pair, colour in zip(ends, colours, strict=True):
        for end in pair:
            cv2.circle(canvas, end, 2 << _SHIFT, colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _write_header(
    canvas: ByteArray,
    photos: Sequence[Photo],
    features: Sequence[Features],
    trace: MatchTrace,
    lefts: Sequence[int],
) -> None:
    """Write the name and number of keypoints of each photo on the left, and the number of matches on the right."""
    matches = _counted(len(trace.matches.indices), "match", "matches")
    total = f"{matches}, after {trace.stop} of {trace.depth} layers"
    right = canvas.shape[1] - _EDGE - _width(total)
    for photo, image, left, limit in zip(photos, features, lefts, (lefts[1] - _GAP, right - _GAP), strict=True):
        text = f"{photo.name}, {_counted(len(image.keypoints), 'keypoint', 'keypoints')}"
        while len(text) > 4 and left + _width(text) > limit:
            text = text[:-4] + "..."
        _write(canvas, text, left, _BAR - 20, _TEXT)
    _write(canvas, total, right, _BAR - 20, _TEXT)


def _write_legend(canvas: ByteArray, trace: MatchTrace) -> None:
    """Explain the colours of matches and keypoints below the photos."""
    base = canvas.shape[0] - 20
    x = _write(canvas, "score of a match  0", _EDGE, base, _LEGEND)
    for step in range(100):
        colour = _interpolate(step / 99, _LOW, _MIDDLE, _HIGH)
        cv2.rectangle(canvas, (x + step, base - 12), (x + step, base - 1), colour, cv2.FILLED)
    x = _write(canvas, "1", x + 110, base, _LEGEND) + 30
    pruning_layers = [n for n in range(1, trace.stop) if (trace.layers0 == n).any() or (trace.layers1 == n).any()]
    if pruning_layers:
        x = _write(canvas, "without a match, pruned after layer", x, base, _LEGEND)
        for n in pruning_layers:
            x = _dot(canvas, x, base, _point_colour(n, trace.stop))
            x = _write(canvas, str(n), x, base, _LEGEND)
        x += 20
    x = _dot(canvas, x, base, _KEPT)
    _write(canvas, "without a match at the end", x, base, _LEGEND)


def _point_colour(layers: int, stop: int) -> Colour:
    """The colour of an unmatched keypoint that went through `layers` of the pair's `stop` layers."""
    if layers >= stop:
        return _KEPT
    return _interpolate((layers - 1) / max(1, stop - 2), _EARLY, _LATE)


def _interpolate(position: float, *colours: Colour) -> Colour:
    """Interpolate between `colours`; position 0 is the first, 1 the last."""
    positions = np.linspace(0, 1, len(colours))
    b, g, r = (round(float(np.interp(position, positions, [colour[i] for colour in colours]))) for i in range(3))
    return b, g, r


def _dot(canvas: ByteArray, x: int, base: int, colour: Colour) -> int:
    """Draw a dot of the legend; returns the x of the text after it."""
    cv2.circle(canvas, (x + 6, base - 6), 4, colour, cv2.FILLED, cv2.LINE_AA)
    return x + 16


def _write(canvas: ByteArray, text: str, x: int, base: int, colour: Colour) -> int:
    """Write text on the baseline `base`; returns the x of the next text."""
    cv2.putText(canvas, _plain(text), (x, base), _FONT, _FONT_SCALE, colour, 1, cv2.LINE_AA)
    return x + _width(text) + 10


def _width(text: str) -> int:
    return cv2.getTextSize(_plain(text), _FONT, _FONT_SCALE, 1)[0][0]


def _plain(text: str) -> str:
    """Replace characters that OpenCV's fonts lack; they are ASCII only."""
    return text.encode("ascii", "replace").decode()


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _fixed(point: Points) -> tuple[int, int]:
    """The fixed-point coordinates of a point (2,), with _SHIFT fractional bits."""
    x, y = np.rint(point * 2**_SHIFT).astype(int)
    return int(x), int(y)
