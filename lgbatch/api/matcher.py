"""LightGlue for many pairs of images whose features are at hand: in memory, or in a store."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lgbatch.api.matching import models_folder
from lgbatch.config import Settings
from lgbatch.errors import InputError, ItemError
from lgbatch.export.models import ensure_models
from lgbatch.matching.engine import match_pairs, open_matchers
from lgbatch.pipelines.settings import as_settings
from lgbatch.runtime.precision import stages_kind
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Failure, Features, Matches, Pair


class BatchMatcher:
    """LightGlue in batches of pairs, with early exit and point pruning for each pair, on ONNX Runtime.

    A pair has the same matches in a batch as alone. Each image is encoded once for all its pairs, as long as the cache
    of encoded images holds it; pairs are matched in an order that needs few images at once. All cores or GPUs work.
    The matcher may be used for any number of calls, and from several threads.
    """

    def __init__(self, *, models: str | Path | None = None, settings: Settings | None = None, **changes: Any) -> None:
        """Open the models of the setting `extractor`, which must be that of the features.

        `models` is the folder of the ONNX models, by default that of the command line; missing ones are exported first.
        Pass either `settings`, or changes to the defaults by name: extractor, device, precision, depth_confidence,
        width_confidence, filter_threshold, give_up, workers and threads have an effect.

        Raises ModelError if no LightGlue is published for the extractor, or a model cannot be made or opened.
        """
        self.settings = as_settings(settings, changes)
        folder = models_folder(models)
        ensure_models(folder, self.settings.extractor, [stages_kind(self.settings)])
        self._matchers = open_matchers(folder, self.settings)

    @property
    def device(self) -> str:
        """The device that matches: "cpu" or "cuda"."""
        return self._matchers[0].stages.device

    @property
    def precision(self) -> str:
        """The precision of the network: "fp32", "fp16" or "int8"."""
        return self._matchers[0].stages.precision

    def match(
        self, features: Mapping[str, Features] | FeatureStore, pairs: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[Pair, Matches | Failure]]:
        """Match pairs of images, by name. Yields each pair with its result as soon as it is there, in no fixed order.

        `features` maps the names to features; a mapping that reads them when it is asked needs the least memory. It is
        asked for each image once for its number of keypoints, and again, in other threads, when the image is matched.

        The result is a Failure if the features of an image cannot be read or do not fit the network: the other pairs
        are matched nevertheless. A pair with an image without keypoints has no matches. Raises InputError, before
        anything is matched, if a name is not among the features.
        """
        listed = [Pair(*pair) for pair in pairs]
        names = dict.fromkeys(name for pair in listed for name in pair)
        if missing := next((name for name in names if name not in features), None):
            raise InputError(f"there are no features of {missing}: extract it, or leave its pairs out")
        counts = {name: _count(features, name) for name in names}
        return match_pairs(listed, counts, lambda name: _read(features, name), self._matchers)


def _count(features: Mapping[str, Features] | FeatureStore, name: str) -> int:
    if isinstance(features, FeatureStore):
        return features.record(name).keypoints
    return len(features[name].keypoints)


def _read(features: Mapping[str, Features] | FeatureStore, name: str) -> Features:
    """The features of an image. Raises ItemError if their arrays are not as Features says."""
    if isinstance(features, FeatureStore):
        return features.read(name)
    found = features[name]
    keypoints, descriptors = found.keypoints, found.descriptors
    if keypoints.shape != (len(keypoints), 2) or descriptors.shape[:-1] != (len(keypoints),):
        shapes = f"{keypoints.shape} and {descriptors.shape}"
        raise ItemError(f"keypoints and descriptors of {name} have the shapes {shapes}, not (N, 2) and (N, D)")
    for array in (keypoints, descriptors):
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ItemError(f"keypoints and descriptors of {name} must be finite numbers of type float32")
    return found
