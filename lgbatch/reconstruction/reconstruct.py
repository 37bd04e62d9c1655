"""The reconstruct stage: verifies the matched pairs of a COLMAP database and maps them into sparse models.

COLMAP runs in a child process (colmap_worker.py), because it may abort. Verification writes two-view geometries into
the database and skips pairs that have one, so it resumes after an interruption. All random seeds are fixed.
Verification gives the same result with any number of threads, mapping only with one: with more, the models of a hard
scene can differ visibly between runs.
"""

import logging
import shutil
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sqlite import checkpoint, open_database
from lgbatch.config import Settings
from lgbatch.errors import ReconstructionError
from lgbatch.reconstruction.advice import colmap_error_hint
from lgbatch.reconstruction.model_folders import numbered_models, replace_models
from lgbatch.reconstruction.progress import Progress
from lgbatch.reconstruction.results import Model, Reconstruction
from lgbatch.reconstruction.subprocess_worker import Message, run_worker
from lgbatch.workspace.stage import Failures, StageRun, run_stage

_ONE_THREAD_IMAGES = 100  # up to so many images are mapped on one thread: reproducible, and measured to be no slower
_MAX_KEYPOINTS = 2**31


def reconstruct(
    database: Path, image_folder: Path, sparse: Path, *, settings: Settings | None = None, progress: bool = False
) -> Reconstruction:
    """Verify the matched pairs of `database` and map them into `sparse`/0, `sparse`/1, ..., largest model first.

    Replaces the numbered models in `sparse` if there is at least one new model. Uses the settings `mapper` and
    `threads`; up to 100 images are mapped on one thread. COLMAP reads the photos to colour the points. Ctrl-C cancels
    verification and incremental mapping and kills global mapping; the pairs verified so far are kept. The stage is
    skipped if database, mapper and models have not changed.

    Raises ReconstructionError if the database is missing, empty or damaged, or if COLMAP fails, and DatabaseError if
    another program has it open.
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
    checkpoint(database)
    keypoint_counts = _check_database(database)
    usable = sum(count > 0 for count in keypoint_counts)
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
    finished = time.perf_counter()
    matched_pairs, inliers = _count_pairs(database)
    return Reconstruction(
        images=len(keypoint_counts),
        images_with_keypoints=usable,
        matched_pairs=matched_pairs,
        verified_pairs=len(inliers),
        most_inliers=max(inliers, default=0),
        models=models,
        older_models=not models and any(numbered_models(sparse)),
        seconds_verification=bars.began["mapping"] - bars.began["verification"],
        seconds_mapping=finished - bars.began["mapping"],
    )


def _check_database(path: Path) -> list[int]:
    """Return the number of keypoints of each image. Raises ReconstructionError on rows that would crash COLMAP."""
    import pycolmap

    with open_database(path) as db:
        counts = {i.image_id: db.num_keypoints_for_image(i.image_id) for i in db.read_all_images()}
        if not counts:
            raise ReconstructionError(f"{path} contains no images: run `lgbatch match` first")
        if max(counts.values()) > _MAX_KEYPOINTS:  # COLMAP reads a negative count as unsigned
            raise ReconstructionError(f"{path} is damaged: delete the database and run `lgbatch match` again")
        for image_id in counts:
            db.read_keypoints(image_id)  # raises an error that would abort the process in a thread of COLMAP
        for pair_id in db.read_num_matches()[0]:
            a, b = pycolmap.pair_id_to_image_pair(pair_id)
            matches = db.read_matches(a, b) if {a, b} <= counts.keys() else ()
            if not len(matches) or (np.max(matches, axis=0) >= (counts[a], counts[b])).any():
                raise ReconstructionError(
                    f"{path}: the matches of images {a} and {b} refer to keypoints that do not exist: delete "
                    "the database and run `lgbatch match` again"
                )
    return list(counts.values())


def _count_pairs(path: Path) -> tuple[int, list[int]]:
    """The number of pairs with matches, and the number of inlier matches of each verified pair."""
    with open_database(path) as db:  # num_verified_image_pairs would also count pairs that failed verification
        return len(db.read_num_matches()[0]), db.read_two_view_geometry_num_inliers()[1]


def _run_colmap(request: Message, sparse: Path, progress: Progress) -> tuple[Model, ...]:
    """Verify and map in a child process, and replace the models in `sparse` if there are new ones."""
    draft = sparse.with_name(sparse.name + ".partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        models = run_worker(
            "lgbatch.reconstruction.colmap_worker", request | {"out": str(draft)}, progress, echo_stderr=request["log"]
        )["models"]
        if models:
            replace_models([draft / name for name, _ in models], sparse, draft / "old")
        return tuple(Model(**statistics) for _, statistics in models)
    finally:
        progress.close()
        shutil.rmtree(draft, ignore_errors=True)
