"""COLMAP database -> verified pairs and sparse models, through pycolmap.

Verification writes its two-view geometries into the database and skips the pairs that have one, so it goes on
where it stopped. COLMAP does that and the mapping in a process of its own (mapping.py), which may abort. Every random
seed is fixed. Verification then gives the same result with any number of threads;
mapping only with one, and with more the models of a hard scene can differ visibly from run to run.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from lgbatch import apart
from lgbatch.apart import Message
from lgbatch.colmap import colmap_log_off, open_database, settle
from lgbatch.errors import ReconstructionError
from lgbatch.finished import Finished

_ONE_THREAD_IMAGES = 100  # sets up to this are mapped on one thread: repeatable, and measured to be no slower
_MOST_KEYPOINTS = 2**31
_INITIAL_INLIERS = 100  # what COLMAP asks of the first pair of a model, before it relaxes


@dataclass(frozen=True)
class Model:
    """One sparse model."""

    registered_images: int
    points3D: int
    observations: int
    mean_reprojection_error: float
    """Pixels of the original images."""
    mean_track_length: float
    """Images that see a point."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What the database held, and what came of it. `models` is empty when nothing could be registered."""

    images: int
    images_with_keypoints: int
    matched_pairs: int
    verified_pairs: int
    most_inliers: int
    """Inlier matches of the best verified pair."""
    models: tuple[Model, ...]
    """Largest first; number i lies in sparse/i."""
    older_models: bool = False
    """No model was made, and `sparse` still holds those of an earlier run."""
    seconds_verification: float
    seconds_mapping: float
    finished_already: bool = False
    """The database and `sparse` are as an earlier run left them, and these are its figures."""


def reconstruct(
    database: Path,
    image_folder: Path,
    sparse: Path,
    *,
    mapper: Literal["incremental", "global"] = "incremental",
    threads: int = 0,
    progress: bool = False,
) -> Reconstruction:
    """Verify the matched pairs of `database` and map them into `sparse`/0, `sparse`/1, ..., largest first.

    The numbered models that `sparse` held are replaced when there is at least one new model, and left alone
    otherwise. `threads` 0 takes all cores; up to 100 images are mapped on one all the same. The photos are
    opened to give the points their colours. Ctrl-C ends verification and incremental mapping and keeps the
    pairs verified so far; global mapping is left to die with the process. Where the database, the mapper and the
    models are as an earlier run left them, nothing is done.

    Raises ReconstructionError when the database is missing, empty or damaged, or when COLMAP fails, and
    DatabaseError when another program holds it.
    """
    if not database.is_file():
        raise ReconstructionError(f"there is no database {database}: run `lgbatch match` first")
    finished = Finished(
        database.parent,
        "reconstruct",
        mapper=mapper,
        images=str(image_folder.resolve()),
        pycolmap=metadata.version("pycolmap"),
    )
    if before := finished.result(Reconstruction, models=Model):
        return replace(before, seconds_verification=0.0, seconds_mapping=0.0)
    imported = finished.stands("import")
    try:
        with colmap_log_off():
            settle(database)
            lengths = _check_database(database)
            usable = sum(length > 0 for length in lengths)
            request = {
                "database": str(database),
                "images": str(image_folder),
                "mapper": mapper,
                "threads": threads,
                "mapper_threads": 1 if usable <= _ONE_THREAD_IMAGES else threads,
                "usable": usable,
                "log": logging.getLogger("lgbatch").isEnabledFor(logging.DEBUG),
            }
            bars = _Progress(usable, progress)
            models = _verify_and_map(request, sparse, bars)
            mapped = time.perf_counter()
            matched, inliers = _count_pairs(database)
    except OSError as error:
        raise ReconstructionError(f"cannot write {sparse}: {error}") from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ReconstructionError(f"COLMAP failed: {reason}; {_way_out(reason, database.parent)}") from error
    result = Reconstruction(
        images=len(lengths),
        images_with_keypoints=usable,
        matched_pairs=matched,
        verified_pairs=len(inliers),
        most_inliers=max(inliers, default=0),
        models=models,
        older_models=not models and any(_numbered(sparse)),
        seconds_verification=bars.began["mapping"] - bars.began["verification"],
        seconds_mapping=mapped - bars.began["mapping"],
    )
    finished.save(result, [database, *_numbered(sparse)], over="import" if imported else None)
    return result


def format_table(models: Sequence[Model]) -> str:
    """The models as text, one line each under a header."""
    lines = ["model  images   points  observations  reprojection error  track length"]
    for number, m in enumerate(models):
        lines.append(
            f"{number:5}  {m.registered_images:6}  {m.points3D:7}  {m.observations:12}  "
            f"{m.mean_reprojection_error:15.2f} px  {m.mean_track_length:12.2f}"
        )
    return "\n".join(lines)


def advice(result: Reconstruction, mapper: str = "incremental") -> str:
    """What to try, in one line, when an image could not be registered; empty when all are."""
    if not result.older_models:
        return _what_to_try(result, mapper)
    return f"{_what_to_try(result, mapper)}; the models in sparse/ are of an earlier run"


def _what_to_try(result: Reconstruction, mapper: str) -> str:
    more = "--max-keypoints 4096, --resize 1600"
    if result.models:
        registered = result.models[0].registered_images
        if registered == result.images:
            return ""
        return (
            f"{registered} of {result.images} images are in the largest model; for the others try "
            f"--pairing exhaustive, {more}, or photos that overlap more"
        )
    if result.images_with_keypoints < 2:
        return (
            f"{result.images_with_keypoints} of {result.images} images have keypoints, and a model needs two: "
            "try --resize 0, or add photos that are sharp and show texture"
        )
    if result.matched_pairs == 0:
        return f"no two images match: try --pairing exhaustive, {more}, or photos that overlap by half and more"
    if result.verified_pairs == 0:
        return (
            f"{result.matched_pairs} pairs match, but none has 15 matches that agree on one geometry: "
            f"try {more}, or photos that overlap more"
        )
    verified = f"verified pairs: {result.verified_pairs}, but "
    if mapper == "global":
        return verified + "the global mapper, which needs points seen by three images, failed: try --mapper incremental"
    if result.most_inliers < _INITIAL_INLIERS:
        return verified + (
            f"the best has {result.most_inliers} inlier matches and a model starts from about {_INITIAL_INLIERS}: "
            f"try {more}, or photos that overlap more"
        )
    return verified + (
        "no pair can start a model, as when the camera only turned or hardly moved, or its focal length is "
        "unknown: add photos from positions further apart, try --camera-mode single if all were taken with one "
        "zoom setting, or --mapper global"
    )


def _check_database(path: Path) -> list[int]:
    """The number of keypoints of each image. Raises ReconstructionError on matches that would crash COLMAP."""
    import pycolmap

    with open_database(path) as db:
        lengths = {i.image_id: db.num_keypoints_for_image(i.image_id) for i in db.read_all_images()}
        if not lengths:
            raise ReconstructionError(f"{path} holds no images: run `lgbatch match` first")
        if max(lengths.values()) > _MOST_KEYPOINTS:  # a negative number, as COLMAP reads it
            raise ReconstructionError(f"{path} is damaged: delete the database and run `lgbatch match` again")
        for image_id in lengths:
            db.read_keypoints(image_id)  # raises here what would abort the process in COLMAP's own thread
        for pair_id in db.read_num_matches()[0]:
            a, b = pycolmap.pair_id_to_image_pair(pair_id)
            matches = db.read_matches(a, b) if {a, b} <= lengths.keys() else ()
            if not len(matches) or (np.max(matches, axis=0) >= (lengths[a], lengths[b])).any():
                raise ReconstructionError(
                    f"{path}: the matches of images {a} and {b} point outside their keypoints: delete the "
                    "database and run `lgbatch match` again"
                )
    return list(lengths.values())


def _count_pairs(path: Path) -> tuple[int, list[int]]:
    """Number of pairs with matches; inlier matches of each verified pair."""
    with open_database(path) as db:  # num_verified_image_pairs counts pairs that failed, too
        return len(db.read_num_matches()[0]), db.read_two_view_geometry_num_inliers()[1]


class _Progress:
    """What COLMAP's process tells, as bars on a terminal."""

    def __init__(self, images: int, shown: bool) -> None:
        self._images, self._shown = images, shown
        self._bar: tqdm[Any] | None = None
        self.began: dict[str, float] = {}
        """When verification and mapping began, by time.perf_counter."""

    def __call__(self, message: Message | None) -> None:
        if message and "begun" in message:
            self._begin(message["begun"])
        elif self._bar is not None and message:  # models can share images, and can be given up
            self._bar.update(min(message["registered"], self._images - self._bar.n))
        elif self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _begin(self, what: str) -> None:
        self.close()
        self.began[what] = time.perf_counter()
        total = self._images if what == "mapping" else None
        form = None if total else "{desc}: {elapsed}"  # COLMAP does not tell how far verification is
        self._bar = tqdm(total=total, desc=what, unit="img", bar_format=form, disable=None if self._shown else True)


def _verify_and_map(request: Message, sparse: Path, progress: _Progress) -> tuple[Model, ...]:
    draft = sparse.with_name(sparse.name + ".partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        found = apart.run("lgbatch.mapping", request | {"out": str(draft)}, progress, show=request["log"])["models"]
        if found:
            _swap_in([draft / name for name, _ in found], sparse, draft / "old")
        return tuple(Model(**described) for _, described in found)
    finally:
        progress.close()
        shutil.rmtree(draft, ignore_errors=True)


def _way_out(reason: str, folder: Path) -> str:
    """What to do about what COLMAP said, as the end of a sentence."""
    if any(word in reason for word in ("locked", "busy", "factory")):  # the factory opens databases
        return "close other programs that use the database, and run again"
    if "SIGKILL" in reason:
        return "was memory short? The same command goes on from what is verified"
    if any(word in reason for word in ("disk", "full", "I/O", "SQLite", "open", "write")):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(folder).free
            return f"is the disk full ({free / 1e6:.0f} MB are free)? The same command goes on from what is verified"
    return "run with --debug to see its log"


def _numbered(sparse: Path) -> list[Path]:
    return [folder for folder in sparse.iterdir() if folder.name.isdecimal()] if sparse.is_dir() else []


def _swap_in(models: list[Path], sparse: Path, old: Path) -> None:
    """Put `models` in the place of sparse/0, sparse/1, ...; what else lies there is the user's and stays."""
    sparse.mkdir(parents=True, exist_ok=True)
    old.mkdir()
    moves = [(folder, old / folder.name) for folder in _numbered(sparse)]
    moves += [(folder, sparse / str(number)) for number, folder in enumerate(models)]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise
