"""COLMAP database -> verified pairs and sparse models, through pycolmap.

Verification writes its two-view geometries into the database and skips the pairs that have one, so it goes on
where it stopped. COLMAP does that and the mapping in a process of its own (mapping.py), which may abort. Every random
seed is fixed. Verification then gives the same result with any number of threads;
mapping only with one, and with more the models of a hard scene can differ visibly from run to run.
"""

import logging
import shutil
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sqlite import open_database, settle
from lgbatch.config import Settings
from lgbatch.errors import ReconstructionError
from lgbatch.reconstruction.advice import colmap_error_hint
from lgbatch.reconstruction.model_folders import numbered_models, replace_models
from lgbatch.reconstruction.progress import Progress
from lgbatch.reconstruction.results import Model, Reconstruction
from lgbatch.reconstruction.subprocess_worker import Message, run_worker
from lgbatch.workspace.stage import Failures, StageRun, run_stage

_ONE_THREAD_IMAGES = 100  # sets up to this are mapped on one thread: repeatable, and measured to be no slower
_MOST_KEYPOINTS = 2**31


def reconstruct(
    database: Path, image_folder: Path, sparse: Path, *, settings: Settings | None = None, progress: bool = False
) -> Reconstruction:
    """Verify the matched pairs of `database` and map them into `sparse`/0, `sparse`/1, ..., largest first.

    Replaces the numbered models in `sparse` if there is at least one new model, and leaves them alone otherwise.
    Of the settings, `mapper` and `threads` count; up to 100 images are mapped on one thread. The photos are opened to
    colour the points. Ctrl-C ends verification and incremental mapping and keeps the pairs verified so far; global
    mapping ends with its process. Nothing is done if database, mapper and models have not changed.

    Raises ReconstructionError if the database is missing, empty or damaged, or if COLMAP fails, and DatabaseError if
    another program holds it.
    """
    if not database.is_file():
        raise ReconstructionError(f"there is no database {database}: run `lgbatch match` first")
    settings = settings or Settings()
    stage = StageRun(
        name="reconstruct",
        folder=database.parent,
        settings=settings,
        inputs={"images": str(image_folder.resolve()), "pycolmap": metadata.version("pycolmap")},
        outputs=lambda: [database, *numbered_models(sparse)],
        result=Reconstruction,
        parts={"models": Model},
    )

    def verify_and_map(_: Failures) -> Reconstruction:
        try:
            with colmap_log_off():
                return _verify_and_map(database, image_folder, sparse, settings, progress)
        except OSError as error:
            raise ReconstructionError(f"cannot write {sparse}: {error}") from error
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            hint = colmap_error_hint(reason, database.parent)
            raise ReconstructionError(f"COLMAP failed: {reason}; {hint}") from error

    return run_stage(stage, verify_and_map)


def _verify_and_map(
    database: Path, image_folder: Path, sparse: Path, settings: Settings, progress: bool
) -> Reconstruction:
    settle(database)
    lengths = _check_database(database)
    usable = sum(length > 0 for length in lengths)
    request = {
        "database": str(database),
        "images": str(image_folder),
        "mapper": settings.mapper,
        "threads": settings.threads,
        "mapper_threads": 1 if usable <= _ONE_THREAD_IMAGES else settings.threads,
        "usable": usable,
        "log": logging.getLogger("lgbatch").isEnabledFor(logging.DEBUG),
    }
    bars = Progress(usable, progress)
    models = _run_colmap(request, sparse, bars)
    mapped = time.perf_counter()
    matched, inliers = _count_pairs(database)
    return Reconstruction(
        images=len(lengths),
        images_with_keypoints=usable,
        matched_pairs=matched,
        verified_pairs=len(inliers),
        most_inliers=max(inliers, default=0),
        models=models,
        older_models=not models and any(numbered_models(sparse)),
        seconds_verification=bars.began["mapping"] - bars.began["verification"],
        seconds_mapping=mapped - bars.began["mapping"],
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


def _run_colmap(request: Message, sparse: Path, progress: Progress) -> tuple[Model, ...]:
    draft = sparse.with_name(sparse.name + ".partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        found = run_worker(
            "lgbatch.reconstruction.colmap_worker", request | {"out": str(draft)}, progress, show=request["log"]
        )["models"]
        if found:
            replace_models([draft / name for name, _ in found], sparse, draft / "old")
        return tuple(Model(**described) for _, described in found)
    finally:
        progress.close()
        shutil.rmtree(draft, ignore_errors=True)
