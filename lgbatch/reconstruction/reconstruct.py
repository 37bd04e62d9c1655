"""The reconstruct stage: verifies the matched pairs of a COLMAP database and maps them into sparse models.

COLMAP runs in a child process (colmap_worker.py), because it may abort. Verification writes two-view geometries into
the database and skips pairs that have one, so it resumes after an interruption. All random seeds are fixed.
Verification gives the same result with any number of threads, mapping only with one: with more, the models of a hard
scene can differ visibly between runs.
"""

import logging
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import numpy as np

from lgbatch.colmap.local_copy import lockable
from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sqlite import checkpoint, open_database
from lgbatch.config import Settings
from lgbatch.errors import ReconstructionError
from lgbatch.reconstruction.advice import colmap_error_hint
from lgbatch.reconstruction.model_folders import (
    draft_folder,
    finish_replacement,
    numbered_models,
    remove_draft,
    replace_models,
)
from lgbatch.reconstruction.progress import Log, Progress
from lgbatch.reconstruction.results import Doubtful, Model, Reconstruction, Unregistered, Warned
from lgbatch.reconstruction.subprocess_worker import Message, run_worker
from lgbatch.reconstruction.unregistered import explain, failed_photos, find_unregistered, weakly_joined
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.workspace.stage import Failures, StageRun, run_stage
from lgbatch.workspace.stage_cache import recorded_figures, recorded_paths

_ONE_THREAD_IMAGES = 100  # up to so many images are mapped on one thread: reproducible, and measured to be no slower
_MAX_KEYPOINTS = 2**31
Result = TypeVar("Result", bound=Reconstruction)


def reconstruct(
    database: Path, image_folder: Path, sparse: Path, *, settings: Settings | None = None, progress: bool = False
) -> Reconstruction:
    """Verify the matched pairs of `database` and map them into `sparse`/0, `sparse`/1, ..., largest model first.

    Replaces the numbered models in `sparse` if there is at least one new model. Uses the settings `mapper`,
    `fix_intrinsics` and `threads`; up to 100 images are mapped on one thread. The masks of the settings explain images
    with few keypoints. COLMAP reads the photos to colour the points. Ctrl-C cancels
    verification and incremental mapping and kills global mapping; the pairs verified so far are kept. The stage is
    skipped if database, mapper and models have not changed.

    Raises ReconstructionError if the database is missing, empty or damaged, or if COLMAP fails, DatabaseError if
    another program has it open, and LgbatchError without pycolmap.
    """
    if not database.is_file():
        raise ReconstructionError(f"there is no database {database}: run `lgbatch match` first")
    require_pycolmap()
    settings = settings or Settings()
    stage = StageRun(
        name="reconstruct",
        folder=database.parent,
        settings=settings,
        inputs={"images": str(image_folder.resolve()), "pycolmap": metadata.version("pycolmap")},
        outputs=lambda: [database, *numbered_models(sparse)],
        result=Reconstruction,
        parts={"models": Model, "unregistered": Unregistered, "doubtful": Doubtful, "warnings": Warned},
    )

    def work(_: Failures) -> Reconstruction:
        return verify_and_map(database, image_folder, sparse, settings, progress)

    # Outside the stage, which a photo that fails and a pairs file do not change.
    return with_causes(run_stage(stage, work), database.parent, image_folder)


def verify_and_map(
    database: Path, image_folder: Path, sparse: Path, settings: Settings, progress: bool
) -> Reconstruction:
    """Do the work of `reconstruct`. The result's `unregistered` are those of the database."""
    try:
        finish_replacement(sparse)
        with colmap_log_off(), lockable(database) as local:
            return _verify_and_map(local, image_folder, sparse, settings, progress)
    except OSError as error:
        raise ReconstructionError(f"cannot write {sparse}: {error}") from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        hint = colmap_error_hint(reason, database.parent)
        raise ReconstructionError(f"COLMAP failed: {reason}; {hint}") from error


def with_causes(result: Result, workspace: Path, image_folder: Path) -> Result:
    """Add the photos of the workspace that failed, and those that are in no pair, to the unregistered ones."""
    pairs_file = recorded_paths(workspace).get("pairs", Path())
    unpaired = recorded_figures(workspace, "import").get("unpaired", ())
    explained = explain(result.unregistered, unpaired, pairs_file.name)
    return replace(result, unregistered=failed_photos(workspace, image_folder) + explained)


def _verify_and_map(
    database: Path, image_folder: Path, sparse: Path, settings: Settings, progress: bool
) -> Reconstruction:
    checkpoint(database)
    keypoint_counts = _check_database(database)
    usable = sum(count > 0 for count in keypoint_counts.values())
    request: Message = {
        "database": str(database),
        "images": str(image_folder),
        "mapper": settings.mapper,
        "threads": settings.threads,
        "mapper_threads": 1 if usable <= _ONE_THREAD_IMAGES else settings.threads,
        "usable": usable,
        "fix_intrinsics": settings.fix_intrinsics,
        "log": logging.getLogger("lgbatch").isEnabledFor(logging.DEBUG),
    }
    bars, log = Progress(usable, progress), Log(request["log"])
    models, registered, doubtful = _run_colmap(request, sparse, bars, log)
    finished = time.perf_counter()
    with open_database(database) as db:
        inliers = db.read_two_view_geometry_num_inliers()[1]  # num_verified_image_pairs counts pairs that failed, too
        sizes = {(camera.width, camera.height) for camera in db.read_all_cameras()}
        return Reconstruction(
            images=len(keypoint_counts),
            images_with_keypoints=usable,
            matched_pairs=db.num_matched_image_pairs(),
            verified_pairs=len(inliers),
            most_inliers=max(inliers, default=0),
            most_keypoints=max(keypoint_counts.values()),
            longest_side=max(map(max, sizes), default=0),
            cameras=db.num_cameras(),
            one_size=len(sizes) == 1,
            models=models,
            unregistered=find_unregistered(db, keypoint_counts, registered, image_folder, settings),
            weakly_joined=weakly_joined(db, registered),
            doubtful=doubtful,
            warnings=log.warnings if usable > 1 else (),
            older_models=not models and any(numbered_models(sparse)),
            seconds_verification=bars.began["mapping"] - bars.began["verification"],
            seconds_mapping=finished - bars.began["mapping"],
        )


def _check_database(path: Path) -> dict[int, int]:
    """Return the number of keypoints by image id. Raises ReconstructionError on rows that would crash COLMAP."""
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
    return counts


def _run_colmap(
    request: Message, sparse: Path, progress: Progress, log: Log
) -> tuple[tuple[Model, ...], list[list[int]], tuple[Doubtful, ...]]:
    """Verify and map in a child process, and replace the models in `sparse` if there are new ones.

    Returns the models and the ids of their images, largest model first, and the doubtful parts of the models.
    """
    draft = draft_folder(sparse)
    try:
        remove_draft(sparse)
        draft.mkdir(parents=True)
        result = run_worker(
            "lgbatch.reconstruction.colmap_worker", request | {"out": str(draft)}, progress, on_stderr=log
        )
        models = result["models"]
        if models:
            replace_models([draft / name for name, *_ in models], sparse)
        doubtful = tuple(Doubtful(**part) for part in result["doubtful"])
        return tuple(Model(**statistics) for _, statistics, _ in models), [ids for *_, ids in models], doubtful
    finally:
        progress.close()
        remove_draft(sparse)
