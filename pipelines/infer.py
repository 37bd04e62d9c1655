"""Two photos to their matches: what `lgbatch infer` does."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lgbatch.config import Settings
from lgbatch.decode import decode
from lgbatch.errors import InputError, ItemError
from lgbatch.export import ensure_models
from lgbatch.extract import open_extraction
from lgbatch.matcher import Followed, Matcher, no_matches
from lgbatch.models import default_folder, stages_kind
from lgbatch.pipelines.match_picture import draw_matches
from lgbatch.types import Features, ImageRef, Photo

PICTURES = (".png", ".jpg", ".jpeg")
DATA = (".npz", ".json")


@dataclass(frozen=True)
class Inferred:
    """What two photos have in common."""

    photos: tuple[Photo, Photo]
    features: tuple[Features, Features]
    followed: Followed

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
            "matches": self.followed.matches.indices,
            "scores": self.followed.matches.scores,
            "layers0": self.followed.layers0,
            "layers1": self.followed.layers1,
            "stop": self.followed.stop,
        }

    def in_words(self) -> str:
        """One line."""
        (first, second), followed = self.photos, self.followed
        return (
            f"{first.name} and {second.name}: {len(self.features[0].keypoints)} and "
            f"{len(self.features[1].keypoints)} keypoints, {len(followed.matches.indices)} matches, "
            f"after {followed.stop} of {followed.depth} layers"
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
    extractor, matcher = open_extraction(models, settings), Matcher(models, settings)
    features = extractor.extract([photos[0]])[0], extractor.extract([photos[1]])[0]
    found = Inferred(photos, features, _follow(matcher, features))
    for file in files:
        _write(found, file)
    return found


def _decode(path: Path, settings: Settings) -> Photo:
    try:
        return decode(ImageRef(path.name, path), settings.resize, settings.max_megapixels)
    except ItemError as error:
        raise InputError(f"{path}: {error}") from None


def _follow(matcher: Matcher, features: tuple[Features, Features]) -> Followed:
    counts = [len(image.keypoints) for image in features]
    if 0 in counts:
        none = [np.zeros(count, dtype=np.int32) for count in counts]
        return Followed(no_matches(), 0, matcher.shape.layers, *none)
    return matcher.follow(*(matcher.stem(image) for image in features))


def _write(found: Inferred, file: Path) -> None:
    values = found.as_dict()
    try:
        if file.suffix.lower() in PICTURES:
            draw_matches(found.photos, found.features, found.followed, file)
        elif file.suffix.lower() == ".npz":
            np.savez_compressed(file, **values)
        else:
            plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values.items()}
            file.write_text(json.dumps(plain) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}; choose another place with --output") from None
