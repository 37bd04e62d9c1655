"""The orient stage: how each photo is turned upright for extraction and matching -> orientations.json.

The EXIF orientation is used where there is one. Cameras that point down, action cameras and stripped files do not tell;
with --rotation auto, the photos do. SIFT features of small copies give the relative turn of pairs of similar photos
(relative_turns.py), and each photo gets the quarter turn that agrees with its neighbours (turn_synchronization.py). A
photo without evidence stays as it is, and so does one that an earlier run has decided on.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lgbatch._version import __version__
from lgbatch.config import Settings
from lgbatch.errors import ItemError, WorkspaceError
from lgbatch.features.relative_turns import RelativeTurn, SmallSift, relative_turn, small_sift
from lgbatch.features.turn_synchronization import MIN_INLIERS, Turns, synchronize
from lgbatch.pairing.candidates import sequential
from lgbatch.pairing.retrieval import most_similar, train_vocabulary, vlad
from lgbatch.pairing.spatial import local_metres, nearest
from lgbatch.photos.coordinates import rotated, rotation_of
from lgbatch.photos.crawl import Crawl
from lgbatch.photos.decode import DecodedPhotos
from lgbatch.photos.formats import is_raw
from lgbatch.photos.metadata import Metadata, read_metadata
from lgbatch.runtime.environment import available_cores, available_memory
from lgbatch.storage.durable import replace_synced
from lgbatch.types import ORIENTATIONS, ImageRef
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.prefetch import prefetch
from lgbatch.workspace.progress import track
from lgbatch.workspace.stage import StageResult, StageRun, run_stage
from lgbatch.workspace.stage_cache import Signature, photos_digest, signature

_THREADS, _DEPTH = 8, 64  # reading headers waits for the disk or the network
_EXHAUSTIVE = 25
"""Up to this many photos, all pairs are compared; of more, those that look alike, follow each other or are near."""
_KEPT_BYTES = 512 << 20
"""Most memory for decoded photos that are kept for extraction: 250 photos of 1024 x 683 pixels."""
_ALIKE, _FOLLOWING, _NEAR = 8, 2, 4
_VOCABULARY_PHOTOS, _VOCABULARY_KEYPOINTS = 200, 100
_LOOKING_DOWN = -60.0
"""Pitch of a gimbal, in degrees, below which its yaw turns the photo."""

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Oriented(StageResult):
    """Result of the orient stage, for the photos of a folder."""

    turned_by_exif: int = 0
    """Photos that are turned as their EXIF orientation says."""
    turned_by_neighbours: int = 0
    """Photos that are turned otherwise, as similar photos show."""


class Decision(NamedTuple):
    """How a photo is turned, and what decided it."""

    orientation: int
    """EXIF code, 1 to 8."""
    by: str
    """"exif", "neighbours", or "none" where nothing tells."""
    neighbours: int
    """Pairs with other photos that had a say."""
    file: Signature
    """The file that it holds for."""


@dataclass(frozen=True)
class _Photos:
    """What is known of the photos whose turns are estimated."""

    refs: Sequence[ImageRef]
    """Turned by their EXIF orientation."""
    metadata: Sequence[Metadata | None]
    decoded: DecodedPhotos
    features: dict[int, SmallSift] = field(default_factory=dict)
    """Of the photos that could be decoded."""


def orient(crawled: Crawl, folder: Path, settings: Settings) -> tuple[Crawl, Oriented]:
    """Set the orientation of each photo as settings.rotation says. Photos that cannot be read stay as they are stored.

    `folder` is the workspace, which is created if it does not exist. Raises WorkspaceError if it cannot be written.
    """
    if settings.rotation == "none":
        return crawled, Oriented()
    path = Workspace(folder).orientations
    stage = StageRun(
        name="orient",
        folder=folder,
        settings=settings,
        inputs={"photos": photos_digest(crawled)},
        outputs=lambda: [path],
        result=Oriented,
    )
    result = run_stage(stage, lambda _: _orient(crawled, path, settings))
    decided = _read(path, settings.rotation)
    images = [
        replace(ref, orientation=decided[ref.name].orientation) if ref.name in decided else ref
        for ref in crawled.images
    ]
    return replace(crawled, images=images), result


def orient_pair(refs: tuple[ImageRef, ImageRef], settings: Settings) -> list[ImageRef]:
    """Set the orientation of two photos, as `orient` does for a folder."""
    if settings.rotation == "none":
        return list(refs)
    decisions = _decide(Crawl(list(refs), []), settings, {})
    return [replace(ref, orientation=decision.orientation) for ref, decision in zip(refs, decisions, strict=True)]


def _orient(crawled: Crawl, path: Path, settings: Settings) -> Oriented:
    earlier = {} if settings.on_change == "recompute" else _read(path, settings.rotation)
    decisions = _decide(crawled, settings, earlier)
    images = {ref.name: decision._asdict() for ref, decision in zip(crawled.images, decisions, strict=True)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_synced(
            path, json.dumps({"lgbatch": __version__, "rotation": settings.rotation, "images": images}).encode()
        )
    except OSError as error:
        raise WorkspaceError(f"cannot write {path}: {error.strerror}") from None
    return Oriented(
        turned_by_exif=sum(d.orientation != 1 and d.by == "exif" for d in decisions),
        turned_by_neighbours=sum(d.by == "neighbours" for d in decisions),
    )


def _read(path: Path, rotation: str) -> dict[str, Decision]:
    """The decisions of the last run; empty if there are none, it had another --rotation, or the file is damaged."""
    try:
        content = json.loads(path.read_bytes())
        decisions = {name: Decision(**values) for name, values in content["images"].items()}
        return decisions if content["rotation"] == rotation else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _decide(crawled: Crawl, settings: Settings, earlier: Mapping[str, Decision]) -> list[Decision]:
    refs = crawled.images
    with warnings.catch_warnings():  # Pillow warns of damaged EXIF
        warnings.simplefilter("ignore")
        metadata = [*prefetch(lambda ref: read_metadata(ref.path), refs, threads=_THREADS, depth=_DEPTH)]
    tags = [data.orientation if data and data.orientation in ORIENTATIONS else None for data in metadata]
    tagged = [replace(ref, orientation=tag or 1) for ref, tag in zip(refs, tags, strict=True)]
    turns = Turns([0] * len(refs), [0] * len(refs))
    if settings.rotation == "auto":
        turns = _estimate(_Photos(tagged, metadata, crawled.decoded), _decided(tagged, earlier), settings)
    return [
        Decision(
            orientation=rotated(ref.orientation, degrees),
            by="neighbours" if degrees else "exif" if tag else "none",
            neighbours=neighbours,
            file=signature(ref.path),
        )
        for ref, tag, degrees, neighbours in zip(tagged, tags, *turns, strict=True)
    ]


def _decided(tagged: Sequence[ImageRef], earlier: Mapping[str, Decision]) -> dict[int, Decision]:
    """The photos that neighbours decided on in an earlier run. The others are decided on when they get neighbours."""
    known = {row: earlier[ref.name] for row, ref in enumerate(tagged) if ref.name in earlier}
    return {
        row: decision
        for row, decision in known.items()
        if decision.neighbours and decision.file == signature(tagged[row].path)
    }


def _estimate(photos: _Photos, decided: Mapping[int, Decision], settings: Settings) -> Turns:
    """Estimate by how many degrees each photo is turned beyond its EXIF orientation."""
    fixed = {
        row: (rotation_of(decision.orientation) - rotation_of(photos.refs[row].orientation)) % 360
        for row, decision in decided.items()
    }
    if len(photos.refs) < 2 or len(decided) == len(photos.refs):
        known = [decided.get(row) for row in range(len(photos.refs))]
        return Turns([fixed.get(row, 0) for row in range(len(known))], [d.neighbours if d else 0 for d in known])
    threads = settings.threads or available_cores()
    most_bytes = min(_KEPT_BYTES, (available_memory() or _KEPT_BYTES) // 8)

    def detect(row: int) -> tuple[int, SmallSift | None]:
        ref = photos.refs[row]
        if is_raw(ref.path):  # takes a second to develop, and its camera knows
            return row, None
        try:  # at the size of extraction, which does not have to decode it again
            photo = photos.decoded.decode(ref, settings.resize, settings.max_megapixels, most_bytes)
            return row, small_sift(photo)
        except (ItemError, MemoryError):  # extraction reports it
            return row, None

    rows = prefetch(detect, range(len(photos.refs)), threads=threads, depth=2 * threads)
    for row, features in track(rows, "orient", total=len(photos.refs), unit="photo"):
        if features:
            photos.features[row] = features

    def compare(pair: tuple[int, int]) -> RelativeTurn | None:
        return relative_turn(photos.features[pair[0]], photos.features[pair[1]]) or _turn_by_gimbal(photos, pair)

    pairs = _candidates(photos)
    turns = zip(pairs, prefetch(compare, pairs, threads=threads, depth=16 * threads), strict=True)
    return synchronize(len(photos.refs), {pair: found for pair, found in turns if found}, fixed)


def _candidates(photos: _Photos) -> Pairs:
    """The pairs to compare, as ascending rows: few, but such that all photos of a scene are connected."""
    rows = sorted(photos.features)
    if len(rows) <= _EXHAUSTIVE:
        return list(combinations(rows, 2))
    by_name = {photos.refs[row].name: row for row in rows}
    pairs = {(by_name[a], by_name[b]) for a, b in sequential([*by_name], _FOLLOWING)}
    step = -(-len(rows) // _VOCABULARY_PHOTOS)
    sample = [photos.features[row].unit_descriptors(_VOCABULARY_KEYPOINTS) for row in rows[::step]]
    vocabulary = train_vocabulary(sample)
    vectors = np.stack([vlad(photos.features[row].unit_descriptors(), vocabulary) for row in rows])
    alike = most_similar(vectors, _ALIKE)
    pairs |= {(row, rows[other]) for row, others in zip(rows, alike, strict=True) for other in others}
    positions = {row: position for row in rows if (position := _position(photos.metadata[row]))}
    if len(positions) > _NEAR:
        located, degrees = [*positions], np.array([*positions.values()])
        near = nearest(local_metres(degrees[:, 0], degrees[:, 1]), _NEAR)
        pairs |= {(row, located[other]) for row, others in zip(located, near, strict=True) for other in others}
    return sorted({(min(pair), max(pair)) for pair in pairs})


def _position(data: Metadata | None) -> tuple[float, float] | None:
    """Latitude and longitude in degrees."""
    if data is None or data.latitude is None or data.longitude is None:
        return None
    return data.latitude, data.longitude


def _turn_by_gimbal(photos: _Photos, pair: tuple[int, int]) -> RelativeTurn | None:
    """The relative turn of two photos that look down, from the yaw of the gimbal: a hint where the pixels say nothing.

    If the camera turns clockwise, the ground in its photo turns the other way.
    """
    first, second = (_yaw(photos.metadata[row]) for row in pair)
    if first is None or second is None:
        return None
    return RelativeTurn((first - second + 180) % 360 - 180, 2 * MIN_INLIERS)


def _yaw(data: Metadata | None) -> float | None:
    """Heading of a camera that looks down; None for others, whose heading does not turn the photo."""
    looks_down = data is not None and data.gimbal_pitch is not None and data.gimbal_pitch < _LOOKING_DOWN
    return data.gimbal_yaw if data is not None and looks_down else None
