"""Match two photos: the pipeline of `lgbatch infer`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lgbatch.config import Settings
from lgbatch.errors import InputError, ItemError
from lgbatch.export.models import ensure_models
from lgbatch.features.extractors import open_feature_extractor
from lgbatch.features.orient import orient_pair
from lgbatch.matching.lightglue import Matcher, MatchTrace, no_matches
from lgbatch.photos.decode import decode
from lgbatch.pipelines.pictures.matches import draw_matches
from lgbatch.runtime.precision import extractor_kind, stages_kind
from lgbatch.runtime.registry import default_folder
from lgbatch.types import Features, ImageRef, Photo, counted

PICTURES = (".png", ".jpg", ".jpeg")
DATA = (".npz", ".json")


@dataclass(frozen=True)
class InferResult:
    """Two photos, their features, and their matches."""

    photos: tuple[Photo, Photo]
    features: tuple[Features, Features]
    trace: MatchTrace

    def as_dict(self) -> dict[str, Any]:
        """The content of the .npz and .json files.

        keypoints0, keypoints1    (N, 2) float32, pixels of the original photos, top-left pixel centre (0, 0)
        orientation0, orientation1  EXIF codes by which the photos were turned upright; keypoints are not turned
        matches, scores           (K, 2) int32 and (K,) float32, as in Matches
        layers0, layers1          (N,) int32, layers that each keypoint went through
        stop                      layers that the pair went through
        """
        first, second = self.features
        return {
            "image0": self.photos[0].name,
            "image1": self.photos[1].name,
            "image_size0": np.array(first.image_size),
            "image_size1": np.array(second.image_size),
            "orientation0": first.orientation,
            "orientation1": second.orientation,
            "keypoints0": first.keypoints,
            "keypoints1": second.keypoints,
            "matches": self.trace.matches.indices,
            "scores": self.trace.matches.scores,
            "layers0": self.trace.layers0,
            "layers1": self.trace.layers1,
            "stop": self.trace.stop,
        }

    def format(self) -> str:
        """Format the result as one line."""
        (first, second), trace = self.photos, self.trace
        return (
            f"{first.name} and {second.name}: {len(self.features[0].keypoints)} and "
            f"{counted(len(self.features[1].keypoints), 'keypoint')}, "
            f"{counted(len(trace.matches.indices), 'match', 'matches')}, "
            f"after {trace.stop} of {trace.depth} layers"
        )


def run(
    first: str | Path,
    second: str | Path,
    outputs: Sequence[str | Path] = (),
    *,
    models: str | Path | None = None,
    settings: Settings | None = None,
    **changes: Any,
) -> InferResult:
    """Match two photos, and write the result to files: a picture (.png, .jpg), arrays (.npz), or text (.json).

    Exports missing models first. `changes` override single settings by name. Raises InputError if a photo cannot be
    read or an output cannot be written, ModelError if a model or its weights are missing.
    """
    settings = Settings.load(**(settings or Settings()).as_dict() | changes)
    files = [Path(output) for output in outputs]
    for file in files:
        if file.suffix.lower() not in PICTURES + DATA:
            raise InputError(f"{file}: give the output a name that ends in {', '.join(PICTURES + DATA)}")
    first, second = Path(first), Path(second)
    refs = orient_pair((ImageRef(first.name, first), ImageRef(second.name, second)), settings)
    photos = _decode(refs[0], settings), _decode(refs[1], settings)
    models = Path(models) if models else default_folder()
    ensure_models(models, settings.extractor, [extractor_kind(settings), stages_kind(settings)])
    extractor, matcher = open_feature_extractor(models, settings), Matcher(models, settings)
    features = extractor.extract([photos[0]])[0], extractor.extract([photos[1]])[0]
    result = InferResult(photos, features, _match(matcher, features))
    for file in files:
        _write(result, file)
    return result


def _decode(ref: ImageRef, settings: Settings) -> Photo:
    try:
        return decode(ref, settings.resize, settings.max_megapixels)
    except ItemError as error:
        raise InputError(f"{ref.path}: {error}") from None


def _match(matcher: Matcher, features: tuple[Features, Features]) -> MatchTrace:
    counts = [len(image.keypoints) for image in features]
    if 0 in counts:
        layers = [np.zeros(count, dtype=np.int32) for count in counts]
        return MatchTrace(no_matches(), 0, matcher.shape.layers, *layers)
    return matcher.match_with_trace(*(matcher.encode(image) for image in features))


def _write(result: InferResult, file: Path) -> None:
    values = result.as_dict()
    try:
        if file.suffix.lower() in PICTURES:
            draw_matches(result.photos, result.features, result.trace, file)
        elif file.suffix.lower() == ".npz":
            np.savez_compressed(file, **values)
        else:
            plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values.items()}
            file.write_text(json.dumps(plain) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}; choose another file with --output") from None
