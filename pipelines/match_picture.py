"""A picture of the matches of two photos, after the figures of LightGlue's paper: where each point stayed or left."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.matching.lightglue import MatchTrace
from lgbatch.types import ByteArray, Features, Photo

Colour = tuple[int, int, int]

_HEIGHT, _WIDTH = 900, 1800  # Most pixels of the photos, side by side.
_GAP, _BAR, _EDGE = 12, 56, 20
_GROUND, _INK, _FAINT = (24, 20, 18), (232, 226, 220), (160, 152, 146)  # BGR
_DIM = 0.62  # Of the photos' brightness, so that lines and points stand out.
_SHIFT = 4  # Fractional bits of coordinates in OpenCV's drawing functions.
_LOW, _MIDDLE, _HIGH = (70, 70, 250), (60, 210, 250), (110, 235, 90)  # Scores of 0, a half and 1.
_EARLY, _LATE, _KEPT = (190, 60, 160), (240, 190, 230), (250, 180, 90)  # Points that left, and that did not.
_FONT, _SIZE = cv2.FONT_HERSHEY_DUPLEX, 0.55
_CODES = {".png": (cv2.IMWRITE_PNG_COMPRESSION, 6), ".jpg": (cv2.IMWRITE_JPEG_QUALITY, 92)}


def draw_matches(
    photos: tuple[Photo, Photo], features: tuple[Features, Features], trace: MatchTrace, out: Path
) -> None:
    """Draw both photos side by side, their matches coloured by score, and the points by where they left.

    Raises OSError when `out` cannot be written; it is a PNG or a JPEG by its name.
    """
    scale = min(
        _HEIGHT / max(photo.pixels.shape[0] for photo in photos),
        (_WIDTH - _GAP) / sum(photo.pixels.shape[1] for photo in photos),
    )
    shown = [_scaled(photo.pixels, scale) for photo in photos]
    height = max(image.shape[0] for image in shown)
    lefts = [_EDGE, _EDGE + shown[0].shape[1] + _GAP]
    width = max(lefts[1] + shown[1].shape[1] + _EDGE, 1000)
    canvas = np.full((height + 2 * _BAR, width, 3), _GROUND, np.uint8)
    places = []
    for image, left, photo, of in zip(shown, lefts, photos, features, strict=True):
        canvas[_BAR : _BAR + image.shape[0], left : left + image.shape[1]] = image * _DIM
        ratio = np.array(image.shape[1::-1]) / np.array(photo.size)
        places.append((of.keypoints + 0.5) * ratio - 0.5 + (left, _BAR))
    matched = trace.matches.indices
    for side, (points, layers) in enumerate(zip(places, (trace.layers0, trace.layers1), strict=True)):
        single = np.setdiff1d(np.arange(len(points)), matched[:, side])
        for i in single[np.argsort(-layers[single], kind="stable")]:
            colour = _point_colour(int(layers[i]), trace.stop)
            cv2.circle(canvas, _fixed(points[i]), 2 << _SHIFT, colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    _draw_lines(canvas, places, trace)
    _write_above(canvas, photos, features, trace, lefts)
    _write_below(canvas, trace)
    suffix = ".png" if out.suffix.lower() == ".png" else ".jpg"
    out.write_bytes(cv2.imencode(suffix, canvas, _CODES[suffix])[1].tobytes())


def _scaled(pixels: ByteArray, scale: float) -> ByteArray:
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=way)
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_RGB2BGR), np.uint8)


def _draw_lines(canvas: ByteArray, places: Sequence[NDArray[np.float64]], trace: MatchTrace) -> None:
    """The surest matches on top of the others; the more there are, the more transparent their lines."""
    matches, over = trace.matches, canvas.copy()
    order = np.argsort(matches.scores, kind="stable")
    ends = [[_fixed(points[i]) for points, i in zip(places, row, strict=True)] for row in matches.indices[order]]
    colours = [_between(float(score), _LOW, _MIDDLE, _HIGH) for score in matches.scores[order]]
    for (first, second), colour in zip(ends, colours, strict=True):
        cv2.line(over, first, second, colour, 1, cv2.LINE_AA, _SHIFT)
    opaque = float(np.clip(200 / max(1, len(ends)), 0.2, 0.75))
    cv2.addWeighted(over, opaque, canvas, 1 - opaque, 0, dst=canvas)
    for pair, colour in zip(ends, colours, strict=True):
        for end in pair:
            cv2.circle(canvas, end, 2 << _SHIFT, colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _write_above(
    canvas: ByteArray,
    photos: Sequence[Photo],
    features: Sequence[Features],
    trace: MatchTrace,
    lefts: Sequence[int],
) -> None:
    matches = _counted(len(trace.matches.indices), "match", "matches")
    total = f"{matches}, after {trace.stop} of {trace.depth} layers"
    right = canvas.shape[1] - _EDGE - _width(total)
    for photo, of, left, limit in zip(photos, features, lefts, (lefts[1] - _GAP, right - _GAP), strict=True):
        text = f"{photo.name}, {_counted(len(of.keypoints), 'keypoint', 'keypoints')}"
        while len(text) > 4 and left + _width(text) > limit:
            text = text[:-4] + "..."
        _write(canvas, text, left, _BAR - 20, _INK)
    _write(canvas, total, right, _BAR - 20, _INK)


def _write_below(canvas: ByteArray, trace: MatchTrace) -> None:
    """What the colours mean."""
    base = canvas.shape[0] - 20
    x = _write(canvas, "score of a match  0", _EDGE, base, _FAINT)
    for step in range(100):
        colour = _between(step / 99, _LOW, _MIDDLE, _HIGH)
        cv2.rectangle(canvas, (x + step, base - 12), (x + step, base - 1), colour, cv2.FILLED)
    x = _write(canvas, "1", x + 110, base, _FAINT) + 30
    left = [n for n in range(1, trace.stop) if (trace.layers0 == n).any() or (trace.layers1 == n).any()]
    if left:
        x = _write(canvas, "without a match, left after layer", x, base, _FAINT)
        for n in left:
            x = _dot(canvas, x, base, _point_colour(n, trace.stop))
            x = _write(canvas, str(n), x, base, _FAINT)
        x += 20
    x = _dot(canvas, x, base, _KEPT)
    _write(canvas, "without a match at the end", x, base, _FAINT)


def _point_colour(layers: int, stop: int) -> Colour:
    if layers >= stop:
        return _KEPT
    return _between((layers - 1) / max(1, stop - 2), _EARLY, _LATE)


def _between(share: float, *colours: Colour) -> Colour:
    """A colour on the way through `colours`, 0 the first and 1 the last."""
    at = np.linspace(0, 1, len(colours))
    b, g, r = (round(float(np.interp(share, at, [colour[i] for colour in colours]))) for i in range(3))
    return b, g, r


def _dot(canvas: ByteArray, x: int, base: int, colour: Colour) -> int:
    cv2.circle(canvas, (x + 6, base - 6), 4, colour, cv2.FILLED, cv2.LINE_AA)
    return x + 16


def _write(canvas: ByteArray, text: str, x: int, base: int, colour: Colour) -> int:
    """Write a line of text, and return where the next may begin."""
    # OpenCV's own letters are those of ASCII.
    cv2.putText(canvas, _plain(text), (x, base), _FONT, _SIZE, colour, 1, cv2.LINE_AA)
    return x + _width(text) + 10


def _width(text: str) -> int:
    return cv2.getTextSize(_plain(text), _FONT, _SIZE, 1)[0][0]


def _plain(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _fixed(point: NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.rint(point * 2**_SHIFT).astype(int)
    return int(x), int(y)
