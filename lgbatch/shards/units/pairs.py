"""Units of matching: tiles of the graph of pairs, their matches and two-view geometries."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lgbatch.config import Settings
from lgbatch.errors import StoreError
from lgbatch.matching.lightglue import Matcher
from lgbatch.matching.match import open_pair_matcher
from lgbatch.pipelines.pairs.verifier import PairResult, Verifier
from lgbatch.runtime.environment import available_cores
from lgbatch.shards.units.canonical import write_matches
from lgbatch.shards.units.cut import cut_pairs
from lgbatch.storage.joining.join import join
from lgbatch.types import Pair, PairList
from lgbatch.workspace.ledger import Ledger
from lgbatch.workspace.stage import Failures

if TYPE_CHECKING:
    import pycolmap

OpenMatchers = Callable[[Path, Settings], Sequence[Matcher]]
CameraValues = tuple[int, str, int, int, bool, list[float]]
"""Id, model, width, height, whether the focal length is known, parameters: a camera in JSON."""


def pair_inputs(
    pairs: PairList,
    parts: int,
    *,
    settings: Settings,
    weights: Mapping[str, str],
    versions: Mapping[str, int],
    shards: Mapping[str, str],
    cameras: Mapping[str, CameraValues],
    twins: Sequence[str],
) -> tuple[list[dict[str, Any]], list[int]]:
    """The inputs of the units of pairs, and the number of pairs of each.

    `versions` are those of the features of the images, `shards` the files that have them, below the folder of shards.
    `twins` are the images of the set whose names differ in '/' and '-' only (see matches.py).
    """
    names = sorted(pairs.images())
    position = {name: row for row, name in enumerate(names)}
    by_name = PairList(names, pairs.lookup(_positions(pairs.names, position)))
    inputs, counts = [], []
    for rows in cut_pairs(by_name.ids, parts):
        part = PairList(names, by_name.ids[rows])
        own = part.images()
        row_of = {name: row for row, name in enumerate(own)}
        inputs.append(
            {
                "kind": "match",
                "settings": settings.affecting("match"),
                "weights": weights["matcher"],
                "images": [[name, versions[name], shards[name], cameras[name][0]] for name in own],
                "cameras": sorted({cameras[name][0]: list(cameras[name]) for name in own}.values()),
                "twins": list(twins),
                "pairs": [[row_of[a], row_of[b]] for a, b in part],
            }
        )
        counts.append(len(part))
    return inputs, counts


def pairs_of(inputs: Mapping[str, Any]) -> list[Pair]:
    """The pairs of a unit."""
    names = [image[0] for image in inputs["images"]]
    return [Pair(names[a], names[b]) for a, b in inputs["pairs"]]


def shards_of(inputs: Mapping[str, Any]) -> list[str]:
    """The files of the features that a unit needs, below the folder of shards."""
    return sorted({image[2] for image in inputs["images"]})


def match_unit(
    inputs: Mapping[str, Any],
    shards: Path,
    attempt: Path,
    *,
    models: Path,
    settings: Settings,
    open_matchers: OpenMatchers,
) -> tuple[int, list[PairResult]]:
    """Match and verify the pairs of a unit into `shard.h5` of the folder `attempt`.

    `shards` is the folder of shards. Returns the number of pairs that are stored, and the result of each pair. Failures
    are in the ledger of the attempt. Raises as `match`, and StoreError if the features are not those of the plan.
    """
    pairs, failures = pairs_of(inputs), Failures(Ledger(attempt))
    features = attempt / "features.h5"
    join(features, [shards / shard for shard in shards_of(inputs)], links=True)
    opened = open_matchers(models, settings)
    with open_pair_matcher(features, attempt / "matches.h5", settings, failures, models, opened) as matcher:
        for name, version, shard, _ in inputs["images"]:
            if name not in matcher.features or matcher.features.record(name).version != version:
                raise StoreError(f"{shards / shard} has other features of {name} than those that were planned")
        matcher.store.separate_twins(inputs["twins"])
        with Verifier(matcher, _cameras(inputs), failures, settings.threads or available_cores()) as verifier:
            matcher.match(pairs, on_match=verifier.submit)
            results = verifier.finish(pairs)
        keypoints = {name: matcher.features.record(name).keypoints for name, *_ in inputs["images"]}
        base = matcher.store.provenance
    target = attempt / "shard.h5"
    return write_matches(attempt / "matches.h5", target, base, pairs, keypoints, inputs["twins"]), results


def camera_values(camera: "pycolmap.Camera") -> CameraValues:
    """A camera as JSON values."""
    parameters = [float(value) for value in camera.params]
    return (
        camera.camera_id,
        camera.model_name,
        camera.width,
        camera.height,
        bool(camera.has_prior_focal_length),
        parameters,
    )


def _positions(names: Sequence[str], position: Mapping[str, int]) -> Any:
    import numpy as np

    return np.array([position.get(name, -1) for name in names], np.int32)


def _cameras(inputs: Mapping[str, Any]) -> dict[str, "pycolmap.Camera"]:
    import pycolmap

    cameras = {}
    for camera_id, model, width, height, known, parameters in inputs["cameras"]:
        camera = pycolmap.Camera(camera_id=camera_id, model=model, width=width, height=height, params=parameters)
        camera.has_prior_focal_length = known
        cameras[camera_id] = camera
    return {name: cameras[camera_id] for name, _, _, camera_id in inputs["images"]}
