"""The matching engines that `lgbatch bench match` compares. All match the same pairs of the same features in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lgbatch.bench.operations import DEFAULT_SHAPE
from lgbatch.bench.processes.commands import run_module, write_config
from lgbatch.config import Settings
from lgbatch.matching import single_graph as single
from lgbatch.matching.capacity import TOKENS
from lgbatch.matching.engine import Outcome, match_pairs, open_matchers
from lgbatch.matching.lightglue import StageTrace
from lgbatch.matching.match import match
from lgbatch.matching.schedule import plan
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.models import open_matcher
from lgbatch.runtime.registry import Shape
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Features, IntArray, Matches, Pair


@dataclass(frozen=True)
class Scene:
    """The features and pairs to match."""

    features: Mapping[str, Features]
    """By image name; each has at least one keypoint."""
    pairs: Sequence[Pair]
    shape: Shape = DEFAULT_SHAPE
    """Size of the LightGlue that matches them."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of keypoints of each image."""
        return {name: len(features.keypoints) for name, features in self.features.items()}

    @property
    def descriptor_dim(self) -> int:
        """Descriptor dimension."""
        return int(next(iter(self.features.values())).descriptors.shape[1])


class Engine(Protocol):
    """Matches pairs. `matches` and `trace` read the results afterwards, so that they are not timed."""

    once_per_image: bool
    """Whether the stem runs once per image, or again for each of its pairs."""

    def match(self, pairs: Sequence[Pair]) -> None:
        """Match pairs; nothing is reused from earlier calls."""

    def matches(self) -> dict[Pair, IntArray]:
        """Return the matches of the last call: rows (K, 2) into the keypoints of both images, for each pair."""

    def trace(self) -> StageTrace | None:
        """Return the stages and batches of the last call, or None if the engine does not record them."""


class Staged:
    """lgbatch's own engine as `lgbatch match` runs it, without reading and writing files."""

    once_per_image = True

    def __init__(self, scene: Scene, models: Path, settings: Settings) -> None:
        """Open the models. Raises ModelError."""
        self._scene, self._matchers = scene, open_matchers(models, settings)
        self._outcomes: list[Outcome] = []

    def match(self, pairs: Sequence[Pair]) -> None:
        """See Engine."""
        trace: StageTrace = []
        for matcher in self._matchers:
            matcher.stage_trace = trace
        read = self._scene.features.__getitem__
        self._outcomes = list(match_pairs(pairs, self._scene.counts, read, self._matchers))

    def matches(self) -> dict[Pair, IntArray]:
        """See Engine."""
        return {pair: outcome.indices for pair, outcome in self._outcomes if isinstance(outcome, Matches)}

    def trace(self) -> StageTrace | None:
        """See Engine."""
        return self._matchers[0].stage_trace


class WholeMatch:
    """The whole match stage: also opens the models, reads the features and writes the matches."""

    once_per_image = True

    def __init__(self, scene: Scene, models: Path, settings: Settings, folder: Path) -> None:
        """Create the folder and write the features to a store in it."""
        self._models, self._settings, self._folder = models, settings, folder
        folder.mkdir()
        self._features = folder / "features.h5"
        with FeatureStore(self._features, append={"extractor": settings.extractor}) as store:
            for name, features in scene.features.items():
                store.write(name, features)
        self._runs, self._pairs = 0, list(scene.pairs)

    @property
    def _store(self) -> Path:
        return self._folder / f"matches{self._runs}.h5"

    def match(self, pairs: Sequence[Pair]) -> None:
        """See Engine."""
        self._store.unlink(missing_ok=True)
        self._runs, self._pairs = self._runs + 1, list(pairs)
        write_pairs(self._folder / "pairs.txt", pairs)
        match(self._folder / "pairs.txt", self._features, self._store, models=self._models, settings=self._settings)

    def matches(self) -> dict[Pair, IntArray]:
        """See Engine."""
        with MatchStore(self._store) as store:
            return {pair: store.indices(pair) for pair in self._pairs}

    def trace(self) -> StageTrace | None:
        """See Engine."""
        return None


class MatchProcess(WholeMatch):
    """The command `lgbatch match` in a new process: also starts Python and writes the database."""

    def __init__(
        self, scene: Scene, models: Path, settings: Settings, folder: Path, photos: Mapping[str, Path]
    ) -> None:
        """Create the folder as a workspace. `photos` are the folders of the photos, by the prefix of their names."""
        super().__init__(scene, models, settings, folder)
        self._images = folder / "images"
        self._images.mkdir()
        for prefix, path in photos.items():
            (self._images / prefix).symlink_to(path.resolve(), target_is_directory=True)
        self._config = write_config(folder / "bench.toml", settings)

    @property
    def _store(self) -> Path:
        return self._folder / "matches.h5"

    def match(self, pairs: Sequence[Pair]) -> None:
        """See Engine. Raises LgbatchError if the command fails."""
        for file in (self._store, self._folder / "database.db"):
            file.unlink(missing_ok=True)
        self._pairs = list(pairs)
        write_pairs(self._folder / "pairs.txt", pairs)
        options = {
            "--workspace": self._folder,
            "--images": self._images,
            "--models": self._models.absolute(),
            "--config": self._config,
        }
        run_module(["lgbatch", "match", *map(str, chain.from_iterable(options.items()))])


class SingleGraph:
    """The single ONNX graph, which other programs can run: fixed depth, padded batches, one session on all cores."""

    once_per_image = False

    def __init__(self, scene: Scene, models: Path, settings: Settings) -> None:
        """Open the model. Raises ModelError."""
        self._scene = scene
        self._graph = single.SingleGraph(open_matcher(models, settings), settings.filter_threshold)
        self._matches: dict[Pair, IntArray] = {}
        self._trace: StageTrace = []

    def match(self, pairs: Sequence[Pair]) -> None:
        """See Engine."""
        self._matches, self._trace = {}, []
        counts, features = self._scene.counts, self._scene.features
        names = list(counts)
        ids = [(names.index(a), names.index(b)) for a, b in pairs]
        tokens = TOKENS[self._graph.model.device]
        for batch in plan(list(counts.values()), ids, images=len(names), tokens=tokens):
            batch_pairs = [pairs[i] for i in batch]
            matches = self._graph.match([(features[a], features[b]) for a, b in batch_pairs])
            self._matches |= {pair: match.indices for pair, match in zip(batch_pairs, matches, strict=True)}
            lengths = np.array([counts[a] for a, _ in batch_pairs]), np.array([counts[b] for _, b in batch_pairs])
            self._trace += [("stem", lengths[:1]), ("stem", lengths[1:])]
            layers = self._scene.shape.layers
            self._trace += [(f"layer{i}", lengths) for i in range(layers)] + [(f"head{layers - 1}", lengths)]

    def matches(self) -> dict[Pair, IntArray]:
        """See Engine."""
        return self._matches

    def trace(self) -> StageTrace | None:
        """See Engine."""
        return self._trace


class Published:
    """PyTorch LightGlue, one pair at a time, as hloc and others run it. Features are on its device beforehand."""

    once_per_image = False

    def __init__(self, scene: Scene, settings: Settings) -> None:
        """Load the network. Raises ImportError if PyTorch or the network's package is not installed."""
        import torch

        from lgbatch.bench import published

        self._scene, self._published = scene, published
        device = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
        torch.set_num_threads(settings.threads or available_cores())
        names = "depth_confidence", "width_confidence", "filter_threshold"
        thresholds = {name: getattr(settings, name) for name in names}
        self._network = published.lightglue(settings.extractor, device=device, **thresholds)
        self._images = {name: published.tensors(features, device) for name, features in scene.features.items()}
        self._matches: dict[Pair, IntArray] = {}
        self._trace: StageTrace = []
        for i, layer in enumerate(self._network.transformers):
            layer.register_forward_pre_hook(lambda _, inputs, stage=f"layer{i}": self._record(stage, inputs))

    def _record(self, stage: str, inputs: Sequence[Any]) -> None:
        x0, x1 = inputs[:2]
        self._trace.append((stage, (np.array([x0.shape[1]]), np.array([x1.shape[1]]))))

    def match(self, pairs: Sequence[Pair]) -> None:
        """See Engine."""
        self._matches, self._trace = {}, []
        for pair in pairs:
            self._matches[pair], layers = self._published.match(self._network, *(self._images[name] for name in pair))
            self._trace.append((f"head{layers - 1}", self._trace[-1][1]))

    def matches(self) -> dict[Pair, IntArray]:
        """See Engine."""
        return self._matches

    def trace(self) -> StageTrace | None:
        """See Engine."""
        stems: StageTrace = [("stem", (side,)) for stage, sides in self._trace if stage == "layer0" for side in sides]
        return stems + self._trace


def at_fixed_depth(settings: Settings) -> Settings:
    """Disable early exit and point pruning: every pair goes through all layers with all its points."""
    return replace(settings, depth_confidence=-1, width_confidence=-1)
