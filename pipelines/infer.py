"""Two photos to their matches: what `lgbatch infer` does."""

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
from lgbatch.matching.lightglue import Matcher, MatchTrace, no_matches
from lgbatch.photos.decode import decode
from lgbatch.pipelines.match_picture import draw_matches
from lgbatch.runtime.precision import stages_kind
from lgbatch.runtime.registry import default_folder
from lgbatch.types import Features, ImageRef, Photo

PICTURES = (".png", ".jpg", ".jpeg")
DATA = (".npz", ".json")


@dataclass(frozen=True)
class Inferred:
    """What two photos have in common."""

    photos: tuple[Photo, Photo]
    features: tuple[Features, Features]
    trace: MatchTrace

    def as_dict(self) -> dict[str, Any]:
        """Arrays and numbers, by the names they have in files; keypoints are in pixels of the original photos."""
        first, second = self.features
        return {
            "image0": self.photos[0].name,
            "image1": self.photos[1].name,
            "image_size0": np.array(first.image_size),
            "image_size1": np.array(second.image_size),
            "keypoints0": first.keypoints,
            "keypoints1": second.keypoints,
            "matches": self.trace.matches.indices,
            "scores": self.trace.matches.scores,
            "layers0": self.trace.layers0,
            "layers1": self.trace.layers1,
            "stop": self.trace.stop,
        }

    def format(self) -> str:
        """One line."""
        (first, second), trace = self.photos, self.trace
        return (
            f"{first.name} and {second.name}: {len(self.features[0].keypoints)} and "
            f"{len(self.features[1].keypoints)} keypoints, {len(trace.matches.indices)} matches, "
            f"after {trace.stop} of {trace.depth} layers"
        )


def run(
    first: str | Path,
    second: str | Path,
    outputs: Sequence[str | Path] = (),
    *,
    models: Path | None = None,
    settings: Settings | None = None,
    **changes: Any,
) -> Inferred:
    """Match two photos, and write the matches to files: a picture (.png, .jpg), arrays (.npz), or text (.json).

    The models are made if need be. `changes` are settings by name. Raises LgbatchError: a photo or a file name that
    cannot be used, no models.
    """
    settings = Settings.load(**(settings or Settings()).as_dict() | changes)
    files = [Path(output) for output in outputs]
    for file in files:
        if file.suffix.lower() not in PICTURES + DATA:
            raise InputError(f"{file}: give the output a name that ends in {', '.join(PICTURES + DATA)}")
    photos = _decode(Path(first), settings), _decode(Path(second), settings)
    models = models or default_folder()
    ensure_models(models, settings.extractor, ["extractor", stages_kind(settings)])
    extractor, matcher = open_feature_extractor(models, settings), Matcher(models, settings)
    features = extractor.extract([photos[0]])[0], extractor.extract([photos[1]])[0]
    found = Inferred(photos, features, _match_tracing(matcher, features))
    for file in files:
        _write(found, file)
    return found


def _decode(path: Path, settings: Settings) -> Photo:
    try:
        return decode(ImageRef(path.name, path), settings.resize, settings.max_megapixels)
    except ItemError as error:
        raise InputError(f"{path}: {error}") from None


def _match_tracing(matcher: Matcher, features: tuple[Features, Features]) -> MatchTrace:
    counts = [len(image.keypoints) for image in features]
    if 0 in counts:
        none = [np.zeros(count, dtype=np.int32) for count in counts]
        return MatchTrace(no_matches(), 0, matcher.shape.layers, *none)
    return matcher.follow(*(matcher.encode(image) for image in features))


def _write(found: Inferred, file: Path) -> None:
    values = found.as_dict()
    try:
        if file.suffix.lower() in PICTURES:
            draw_matches(found.photos, found.features, found.trace, file)
        elif file.suffix.lower() == ".npz":
            np.savez_compressed(file, **values)
        else:
            plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values.items()}
            file.write_text(json.dumps(plain) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}; choose another place with --output") from None
