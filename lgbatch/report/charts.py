"""Figures of a report as plain numbers, which the page draws: histograms, and the plan of GPS positions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgbatch.report.gps import GpsFit

_BINS = 24
_LONGEST_TRACK = 20


def histogram(values: NDArray[Any], name: str, unit: str) -> dict[str, Any]:
    """Count values in bins of equal width; the last one has all that are larger. `bins` are [from, to, count]."""
    top = float(np.percentile(values, 99)) or 1.0
    edges = np.linspace(0, top, _BINS + 1)
    counts = np.histogram(np.minimum(values, top), edges)[0]
    ends = edges.round(2).tolist()
    bins = [[low, high, count] for low, high, count in zip(ends, ends[1:], counts.tolist(), strict=False)]
    return _chart(name, unit, values, bins)


def track_histogram(lengths: NDArray[Any]) -> dict[str, Any]:
    """Count the lengths of tracks; the last bin has all that are longer."""
    top = int(min(max(lengths.max(initial=2), 3), _LONGEST_TRACK))
    counts = np.bincount(np.minimum(lengths, top), minlength=top + 1)
    bins = [[n, n + 1, int(counts[n])] for n in range(2, top + 1)]
    return _chart("Track length", "photos", lengths, bins)


def _chart(name: str, unit: str, values: NDArray[Any], bins: list[list[Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "unit": unit,
        "bins": bins,
        "count": len(values),
        "mean": round(float(values.mean()), 3),
        "median": round(float(np.median(values)), 3),
        "largest": round(float(values.max()), 3),
    }


def gps_figures(fit: GpsFit, names: Sequence[str]) -> dict[str, Any]:
    """The residuals of the GPS positions, in metres."""
    figures: dict[str, Any] = {
        "photos": len(fit.photos),
        "horizontal": {"median": _round(np.median(fit.horizontal)), "largest": _round(fit.horizontal.max())},
        "plan": [
            {"name": names[photo], "photo": photo, "gps": gps, "camera": camera}
            for photo, gps, camera in zip(
                fit.photos, fit.measured[:, :2].round(3).tolist(), fit.cameras[:, :2].round(3).tolist(), strict=True
            )
        ],
    }
    if fit.has_altitude:
        figures["vertical"] = {"median": _round(np.median(fit.vertical)), "largest": _round(fit.vertical.max())}
    return figures


def _round(value: Any) -> float:
    return round(float(value), 3)
