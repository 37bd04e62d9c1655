"""COLMAP database -> verified pairs and sparse models, through pycolmap.

Verification writes its two-view geometries into the database and skips the pairs that have one, so it goes on
where it stopped. Every random seed is fixed. Verification then gives the same result with any number of threads;
mapping only with one, and with more the models of a hard scene can differ visibly from run to run.
"""

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from tqdm import tqdm

from lgbatch.colmap import colmap_log_off, open_database, settle
from lgbatch.errors import ReconstructionError
from lgbatch.finished import Finished
from lgbatch.interrupt import deferred

if TYPE_CHECKING:
    import pycolmap

T = TypeVar("T")

_TICK = 0.1  # seconds between two looks at a running COLMAP, so the longest that a Ctrl-C goes unnoticed
_PAIRS_AT_ONCE = 100  # COLMAP looks at its cancellation token between two batches
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
            start = time.perf_counter()
            _verify(database, threads, progress)
            verified = time.perf_counter()
            matched, inliers = _count_pairs(database)
            run = _map_globally if mapper == "global" else _map_incrementally
            usable = sum(length > 0 for length in lengths)
            mapper_threads = 1 if usable <= _ONE_THREAD_IMAGES else threads or -1
            models = _map(lambda out: run(database, image_folder, out, mapper_threads, usable, progress), sparse)
    except OSError as error:
        raise ReconstructionError(f"cannot write {sparse}: {error}") from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ReconstructionError(f"COLMAP failed: {reason}; run with --debug to see its log") from error
    result = Reconstruction(
        images=len(lengths),
        images_with_keypoints=usable,
        matched_pairs=matched,
        verified_pairs=len(inliers),
        most_inliers=max(inliers, default=0),
        models=models,
        older_models=not models and any(_numbered(sparse)),
        seconds_verification=verified - start,
        seconds_mapping=time.perf_counter() - verified,
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


def _verify(path: Path, threads: int, progress: bool) -> None:
    import pycolmap

    verifier = pycolmap.GeometricVerifierOptions(num_threads=threads or -1)
    pairing = pycolmap.ExistingMatchedPairingOptions(batch_size=_PAIRS_AT_ONCE)
    geometry = pycolmap.TwoViewGeometryOptions()
    geometry.ransac.random_seed = 0
    token = pycolmap.CancellationToken()
    with _bar("verification", progress) as bar:
        _run(lambda: pycolmap.geometric_verification(path, verifier, pairing, geometry, token), bar, token)


def _map_incrementally(
    database: Path, image_folder: Path, out: Path, threads: int, images: int, progress: bool
) -> "dict[int, pycolmap.Reconstruction]":
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions(random_seed=0, num_threads=threads)
    # Beyond the first model COLMAP drops those of under 10 images: in a small set that can be the larger one.
    options.min_model_size = max(2, min(options.min_model_size, images // 4))
    if images == 2:  # all tracks are of two views, and there is no better pair to start from
        options.triangulation.ignore_two_view_tracks = False
        options.mapper.init_min_tri_angle = 4.0
    token = pycolmap.CancellationToken()
    with _bar("mapping", progress, images) as bar:

        def registered(count: int) -> None:
            bar.update(min(count, images - bar.n))  # models can share images, and can be given up

        return _run(
            lambda: pycolmap.incremental_mapping(
                database,
                image_folder,
                out,
                options,
                initial_image_pair_callback=lambda: registered(2),
                next_image_callback=lambda: registered(1),
                cancellation_token=token,
            ),
            bar,
            token,
        )


def _map_globally(
    database: Path, image_folder: Path, out: Path, threads: int, images: int, progress: bool
) -> "dict[int, pycolmap.Reconstruction]":
    import pycolmap

    options = pycolmap.GlobalPipelineOptions(random_seed=0, num_threads=threads)
    with _bar("mapping", progress) as bar:
        return _run(lambda: pycolmap.global_mapping(database, image_folder, out, options), bar)


def _bar(what: str, progress: bool, total: int | None = None) -> "tqdm[Any]":
    """A bar on a terminal; one that shows the time alone where COLMAP does not tell how far it is."""
    form = None if total else "{desc}: {elapsed}"
    return tqdm(total=total, desc=what, unit="img", bar_format=form, disable=None if progress else True)


def _run(work: Callable[[], T], bar: "tqdm[Any]", token: "pycolmap.CancellationToken | None" = None) -> T:
    """Run `work` in a thread: the bar's clock goes on, and a Ctrl-C is heard, while COLMAP is busy."""
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()  # Thread.join, once interrupted, takes the thread for finished

    def target() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=target, daemon=True)
    try:
        with deferred(tell=False):  # COLMAP may keep `start` waiting; a thread that runs is always waited for
            thread.start()
        while not done.wait(_TICK):
            bar.refresh()
    except KeyboardInterrupt:
        if token and thread.ident is not None:  # it was started
            token.cancel()
            done.wait()
        raise
    if errors:
        raise errors[0]
    return results[0]


def _map(run: "Callable[[Path], dict[int, pycolmap.Reconstruction]]", sparse: Path) -> tuple[Model, ...]:
    draft = sparse.with_name(sparse.name + ".partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        found = run(draft)
        order = sorted(found, key=lambda i: (-found[i].num_reg_images(), -found[i].num_points3D()))
        if order:
            _swap_in([draft / str(i) for i in order], sparse, draft / "old")
        return tuple(_describe(found[i]) for i in order)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _numbered(sparse: Path) -> list[Path]:
    return [folder for folder in sparse.iterdir() if folder.name.isdecimal()] if sparse.is_dir() else []


def _describe(model: "pycolmap.Reconstruction") -> Model:
    return Model(
        registered_images=model.num_reg_images(),
        points3D=model.num_points3D(),
        observations=model.compute_num_observations(),
        mean_reprojection_error=model.compute_mean_reprojection_error(),
        mean_track_length=model.compute_mean_track_length(),
    )


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
