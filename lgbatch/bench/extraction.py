"""`lgbatch bench extract`: the extractors side by side, by the clock and by what their features are good for.

All see the same decoded photos and keep the same number of keypoints at most. The clock is of the models alone, which
take turns with the same networks in plain PyTorch (lgbatch.export.reference, which each export is compared with).
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lgbatch.bench import geometry
from lgbatch.bench.engines import Scene, Staged
from lgbatch.bench.operations import stops
from lgbatch.bench.report import circumstances
from lgbatch.config import Settings
from lgbatch.errors import InputError, ModelError
from lgbatch.export.models import EXTRACTORS, ensure_models
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.export.weights.find import find_weights
from lgbatch.export.weights.state import load_state
from lgbatch.features.extractors import open_feature_extractor
from lgbatch.pairing.candidates import exhaustive
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.pipelines import scene
from lgbatch.reconstruction.truth import KnownCamera, read_strecha
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.precision import stages_kind
from lgbatch.runtime.registry import family, shape
from lgbatch.types import Features, Photo

_COLUMNS = "photos/s   PyTorch  ratio  keypoints  repeated  pairs/s  layers  matches  right  pose AUC 5°"


@dataclass(frozen=True)
class ExtractReport:
    """Plain values."""

    values: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return self.values

    def format(self) -> str:
        """The table."""
        v = self.values
        width = max(len(row["name"]) for row in v["rows"])
        return "\n".join(
            [
                f"{v['machine']['cpu']}, {v['machine']['cores']} cores; {v['date']}",
                f"{v['photos']} photos, at most {v['settings']['max_keypoints']} keypoints, long side "
                f"{v['settings']['resize']}; median of {v['repeats']} rounds",
                "",
                f"{'':{width}}  {_COLUMNS}",
                *(f"{row['name']:{width}}  {_cells(row)}" for row in v["rows"]),
                "",
                "repeated: keypoints found again within 3 pixels in the photo seen from elsewhere; pairs/s and layers:",
                "of matching them; matches: a pair, of which `right` lie within a pixel of their true epipolar lines",
            ]
        )


def run(
    images: Path | None = None,
    truth: Path | None = None,
    *,
    models: Path,
    settings: Settings,
    extractors: Sequence[str] = (),
    repeats: int = 3,
) -> ExtractReport:
    """Measure the extractors, or all of them, on photos; `truth` is a folder of their known cameras.

    Without photos, on the demo's. An extractor whose models cannot be made is a row with the reason. Raises
    LgbatchError: no photos, an unknown extractor, no known cameras.
    """
    with tempfile.TemporaryDirectory(prefix="lgbatch-bench-") as temporary:
        cameras = read_strecha(truth) if truth else {} if images else scene.render(Path(temporary))
        refs = crawl(images or Path(temporary)).images
        photos = [decode(ref, settings.resize, settings.max_megapixels) for ref in refs]
    known = [photo for photo in photos if photo.name in cameras]
    if truth and len(known) < 2:
        raise InputError(f"{truth} has the cameras of {len(known)} of the photos: two and more are needed")
    rows = []
    for name in extractors or EXTRACTORS:
        chosen = Settings.load(**settings.as_dict() | {"extractor": name})
        rows.append(_Row(chosen, models, photos))
    with tqdm(total=len(rows) * (1 + repeats), desc="bench", unit="turn", disable=None) as bar:
        for row in rows:
            row.begin(known, cameras)
            bar.update()
        for _ in range(repeats):
            for row in rows:
                row.turn()
                bar.update()
    told = [row.result() for row in rows]
    return ExtractReport({**circumstances(settings), "photos": len(photos), "repeats": repeats, "rows": told})


class _Row:
    """An extractor that takes its turns."""

    def __init__(self, settings: Settings, models: Path, photos: Sequence[Photo]) -> None:
        self._settings, self._models, self._photos = settings, models, photos
        self._seconds: list[float] = []
        self._published: list[float] = []
        self._values: dict[str, Any] = {"name": settings.extractor}

    def begin(self, known: Sequence[Photo], cameras: dict[str, KnownCamera]) -> None:
        """Open the models, extract all photos once, and find out what their features are good for."""
        try:
            ensure_models(self._models, self._settings.extractor, ["extractor"])
            self._extractor = open_feature_extractor(self._models, self._settings)
        except ModelError as error:
            self._values["reason"] = str(error)
            return
        self._reference = _reference(self._settings, self._models)
        features = {photo.name: self._extract(photo) for photo in self._photos}
        self._values |= {
            "keypoints": float(np.mean([len(found.keypoints) for found in features.values()])),
            "repeatability": self._repeatability(),
        }
        if "matcher" in EXTRACTORS[self._settings.extractor] and len(known) > 1:
            ensure_models(self._models, self._settings.extractor, [stages_kind(self._settings)])
            self._values |= self._matched({photo.name: features[photo.name] for photo in known}, known[0], cameras)

    def _extract(self, photo: Photo) -> Features:
        return self._extractor.extract([photo])[0]

    def _repeatability(self) -> float:
        shares = []
        for number, photo in enumerate(self._photos):
            height, width = photo.pixels.shape[:2]
            elsewhere, homography = geometry.warped(photo.pixels, number)
            views = [Photo(photo.name, pixels, (width, height)) for pixels in (photo.pixels, elsewhere)]
            first, second = (self._extract(view).keypoints for view in views)
            shares.append(geometry.repeatability(first, second, homography, (width, height)))
        return float(np.mean(shares))

    def _matched(self, features: dict[str, Features], first: Photo, cameras: dict[str, KnownCamera]) -> dict[str, Any]:
        features = {name: found for name, found in features.items() if len(found.keypoints)}
        pairs = exhaustive(sorted(features))
        size = shape(self._settings.extractor)
        engine = Staged(Scene(features, pairs, size), self._models, self._settings)
        engine.match(pairs[:4])
        start = time.perf_counter()
        engine.match(pairs)
        seconds = time.perf_counter() - start
        done = stops(engine.trace() or [], size.layers)
        keypoints = {name: found.keypoints for name, found in features.items()}
        pixel = max(first.size) / max(first.pixels.shape)
        accuracy = geometry.two_view_accuracy(engine.found(), keypoints, cameras, pixel)
        return {
            "pairs_per_second": len(pairs) / seconds,
            "layers": sum(count * layer for layer, count in enumerate(done, start=1)) / len(pairs),
            "matches": float(np.mean([len(rows) for rows in engine.found().values()])),
            "precision": accuracy.precision,
            "pose_auc": accuracy.auc,
        }

    def turn(self) -> None:
        """Extract all photos by the clock, and one of them in PyTorch: a different one each time."""
        if "reason" in self._values:
            return
        start = time.perf_counter()
        for photo in self._photos:
            self._extract(photo)
        self._seconds.append((time.perf_counter() - start) / len(self._photos))
        if self._reference:
            photo = self._photos[len(self._published) % len(self._photos)]
            start = time.perf_counter()
            self._reference(photo)
            self._published.append(time.perf_counter() - start)

    def result(self) -> dict[str, Any]:
        """What the turns show, as plain values."""
        if self._seconds:
            self._values["photos_per_second"] = 1 / float(np.median(self._seconds))
        if self._published:
            self._values["pytorch_photos_per_second"] = 1 / float(np.median(self._published))
            ratios = np.array(self._published) / np.array(self._seconds)
            self._values["ratio"] = float(np.median(ratios))
        return self._values


def _reference(settings: Settings, models: Path) -> Callable[[Photo], object] | None:
    """The same network in plain PyTorch; None where torch is not installed, or the extractor is no network."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    from lgbatch.export import reference

    network = getattr(reference, family(settings.extractor), None)
    if network is None:
        return None
    file = WEIGHTS[EXTRACTORS[settings.extractor]["extractor"]]
    state = load_state(find_weights(file, cache=models / "weights"))
    torch.set_num_threads(settings.threads or available_cores())

    def extract(photo: Photo) -> None:
        image = torch.from_numpy(photo.pixels).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            network(state, image, settings.max_keypoints)

    return extract


def _cells(row: dict[str, Any]) -> str:
    if "reason" in row:
        return str(row["reason"])

    def cell(key: str, form: str, width: int) -> str:
        return f"{format(row[key], form) if key in row else '-':>{width}}"

    return "  ".join(
        [
            cell("photos_per_second", ".2f", 8),
            cell("pytorch_photos_per_second", ".2f", 8),
            cell("ratio", ".1f", 5),
            cell("keypoints", ".0f", 9),
            cell("repeatability", ".1%", 8),
            cell("pairs_per_second", ".2f", 7),
            cell("layers", ".1f", 6),
            cell("matches", ".0f", 7),
            cell("precision", ".1%", 5),
            cell("pose_auc", ".1f", 12),
        ]
    )
