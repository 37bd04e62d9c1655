"""`lgbatch bench extract`: the extractors side by side, by speed and by the quality of their features.

All get the same decoded photos and the same maximum number of keypoints. Only the models are timed, in turn with the
same networks in plain PyTorch (lgbatch.export.reference, which each export is checked against).
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lgbatch.bench import geometry
from lgbatch.bench.engines import Scene, Staged
from lgbatch.bench.operations import exits_per_layer
from lgbatch.bench.report import conditions
from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.export.extractors import EXTRACTORS
from lgbatch.export.models import ensure_models
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.export.weights.find import find_weights
from lgbatch.export.weights.state import load_state
from lgbatch.features.extractors import open_feature_extractor
from lgbatch.pairing.candidates import exhaustive
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.pipelines import scene
from lgbatch.reconstruction.evaluation.truth import KnownCamera
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.precision import extractor_kind, stages_kind
from lgbatch.runtime.registry import family, shape
from lgbatch.types import Features, Photo, counted

_COLUMNS = {
    "photos/s": ("photos_per_second", ".2f"),
    "PyTorch": ("pytorch_photos_per_second", ".2f"),
    "ratio": ("ratio", ".1f"),
    "keypoints": ("keypoints", ".0f"),
    "repeatability": ("repeatability", ".1%"),
    "pairs/s": ("pairs_per_second", ".2f"),
    "layers": ("layers", ".1f"),
    "matches": ("matches", ".0f"),
    "precision": ("precision", ".1%"),
    "pose AUC 5°": ("pose_auc", ".1f"),
}
"""Headings of the table, and the key and format of each value."""
_WIDTHS = [max(len(heading), 7) for heading in _COLUMNS]


@dataclass(frozen=True)
class ExtractReport:
    """Figures of the extractors, side by side."""

    values: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        return self.values

    def format(self) -> str:
        """Return the report as text for the terminal."""
        v = self.values
        width = max(len(row["name"]) for row in v["rows"])
        lines = [
            f"{v['machine']['cpu']}, {v['machine']['cores']} cores; {v['date']}",
            f"{counted(v['photos'], 'photo')}, at most {counted(v['settings']['max_keypoints'], 'keypoint')}, "
            f"long side {v['settings']['resize']}; median of {counted(v['repeats'], 'round')}",
            "",
            f"{'':{width}}  {_aligned(_COLUMNS)}",
            *(f"{row['name']:{width}}  {_cells(row)}" for row in v["rows"]),
            "",
            "ratio: speed relative to PyTorch; repeatability: keypoints within 3 pixels of one in the warped photo;",
            "pairs/s, layers: of matching; matches: per pair; precision: matches within 1 pixel of the epipolar lines",
        ]
        return "\n".join(lines)


def run(
    images: Path | None = None,
    truth: Path | None = None,
    *,
    models: Path,
    settings: Settings,
    extractors: Sequence[str] = (),
    repeats: int = 3,
) -> ExtractReport:
    """Compare extractors, by default all, on a folder of photos, by default those of the demo.

    `truth` is a folder of their known cameras. If the models of an extractor cannot be exported, its row has the
    reason. Raises LgbatchError if there are no photos or known cameras, or if an extractor is unknown.
    """
    with tempfile.TemporaryDirectory(prefix="lgbatch-bench-") as temporary:
        rendered = {} if images else scene.render(Path(temporary))
        refs = crawl(images or Path(temporary)).images
        cameras = geometry.known_cameras(truth, {ref.name for ref in refs}) if truth else rendered
        photos = [decode(ref, settings.resize, settings.max_megapixels) for ref in refs]
    known = [photo for photo in photos if photo.name in cameras]
    rows = []
    for name in extractors or EXTRACTORS:
        row_settings = Settings.load(**settings.as_dict() | {"extractor": name})
        rows.append(_Row(row_settings, models, photos))
    with tqdm(total=len(rows) * (1 + repeats), desc="bench", unit="turn", disable=None) as bar:
        for row in rows:
            row.prepare(known, cameras)
            bar.update()
        for _ in range(repeats):
            for row in rows:
                row.run_turn()
                bar.update()
    results = [row.result() for row in rows]
    return ExtractReport({**conditions(settings), "photos": len(photos), "repeats": repeats, "rows": results})


class _Row:
    """An extractor with the durations of its turns."""

    def __init__(self, settings: Settings, models: Path, photos: Sequence[Photo]) -> None:
        self._settings, self._models, self._photos = settings, models, photos
        self._seconds: list[float] = []
        self._pytorch_seconds: list[float] = []
        self._values: dict[str, Any] = {"name": settings.extractor}

    def prepare(self, known: Sequence[Photo], cameras: dict[str, KnownCamera]) -> None:
        """Open the models, extract all photos once, and evaluate the features."""
        try:
            ensure_models(self._models, self._settings.extractor, [extractor_kind(self._settings)])
            self._extractor = open_feature_extractor(self._models, self._settings)
        except ModelError as error:
            self._values["reason"] = str(error)
            return
        self._reference = _reference(self._settings, self._models)
        features = {photo.name: self._extract(photo) for photo in self._photos}
        self._values |= {
            "keypoints": float(np.mean([len(image.keypoints) for image in features.values()])),
            "repeatability": self._repeatability(),
        }
        if "matcher" in EXTRACTORS[self._settings.extractor] and len(known) > 1:
            ensure_models(self._models, self._settings.extractor, [stages_kind(self._settings)])
            known_features = {photo.name: features[photo.name] for photo in known}
            self._values |= self._evaluate_matching(known_features, known[0], cameras)

    def _extract(self, photo: Photo) -> Features:
        return self._extractor.extract([photo])[0]

    def _repeatability(self) -> float:
        repeatabilities = []
        for number, photo in enumerate(self._photos):
            height, width = photo.pixels.shape[:2]
            warped, homography = geometry.warp_photo(photo.pixels, number)
            views = [Photo(photo.name, pixels, (width, height)) for pixels in (photo.pixels, warped)]
            first, second = (self._extract(view).keypoints for view in views)
            repeatabilities.append(geometry.repeatability(first, second, homography, (width, height)))
        return float(np.mean(repeatabilities))

    def _evaluate_matching(
        self, features: dict[str, Features], photo: Photo, cameras: dict[str, KnownCamera]
    ) -> dict[str, Any]:
        """Match all pairs of photos with known cameras. `photo` is one of them: it gives the resize factor."""
        features = {name: image for name, image in features.items() if len(image.keypoints)}
        pairs = exhaustive(sorted(features))
        size = shape(self._settings.extractor)
        engine = Staged(Scene(features, pairs, size), self._models, self._settings)
        engine.match(pairs[:4])
        start = time.perf_counter()
        engine.match(pairs)
        seconds = time.perf_counter() - start
        exits = exits_per_layer(engine.trace() or [], size.layers)
        keypoints = {name: image.keypoints for name, image in features.items()}
        pixel = max(photo.size) / max(photo.pixels.shape)
        accuracy = geometry.two_view_accuracy(engine.matches(), keypoints, cameras, pixel)
        return {
            "pairs_per_second": len(pairs) / seconds,
            "layers": sum(count * layer for layer, count in enumerate(exits, start=1)) / len(pairs),
            "matches": float(np.mean([len(rows) for rows in engine.matches().values()])),
            "precision": accuracy.precision,
            "pose_auc": accuracy.auc,
        }

    def run_turn(self) -> None:
        """Time the extraction of all photos, and of one of them in PyTorch, a different one each turn."""
        if "reason" in self._values:
            return
        start = time.perf_counter()
        for photo in self._photos:
            self._extract(photo)
        self._seconds.append((time.perf_counter() - start) / len(self._photos))
        if self._reference:
            photo = self._photos[len(self._pytorch_seconds) % len(self._photos)]
            start = time.perf_counter()
            self._reference(photo)
            self._pytorch_seconds.append(time.perf_counter() - start)

    def result(self) -> dict[str, Any]:
        """Return the figures of the row, ready for JSON."""
        if self._seconds:
            self._values["photos_per_second"] = 1 / float(np.median(self._seconds))
        if self._pytorch_seconds:
            self._values["pytorch_photos_per_second"] = 1 / float(np.median(self._pytorch_seconds))
            ratios = np.array(self._pytorch_seconds) / np.array(self._seconds)
            self._values["ratio"] = float(np.median(ratios))
        return self._values


def _reference(settings: Settings, models: Path) -> Callable[[Photo], object] | None:
    """The same network in plain PyTorch, or None if torch is not installed or the extractor is not a network."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    from lgbatch.export import reference

    network = getattr(reference, family(settings.extractor), None)
    if network is None:
        return None
    weights = WEIGHTS[EXTRACTORS[settings.extractor]["extractor"]]
    state = load_state(find_weights(weights, cache=models / "weights"))
    torch.set_num_threads(settings.threads or available_cores())

    def extract(photo: Photo) -> None:
        image = torch.from_numpy(photo.pixels).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            network(state, image, settings.max_keypoints)

    return extract


def _cells(row: dict[str, Any]) -> str:
    if "reason" in row:
        return str(row["reason"])

    return _aligned(format(row[key], form) if key in row else "-" for key, form in _COLUMNS.values())


def _aligned(cells: Iterable[str]) -> str:
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))
