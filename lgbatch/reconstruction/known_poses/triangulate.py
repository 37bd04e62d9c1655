"""The points of a workspace for known poses: `lgbatch triangulate`. Writes triangulated/0."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sensors.calibration import KnownCamera as Intrinsics
from lgbatch.colmap.sqlite import checkpoint, open_database
from lgbatch.errors import InputError, ReconstructionError
from lgbatch.reconstruction.evaluation.names import Matched, match
from lgbatch.reconstruction.evaluation.read_truth import read_truth
from lgbatch.reconstruction.evaluation.truth import Truth
from lgbatch.reconstruction.known_poses.posed_database import MatchedPair, PosedImage, write_posed_database
from lgbatch.reconstruction.known_poses.results import Triangulated
from lgbatch.reconstruction.model_folders import draft_folder, publish_folders, remove_draft
from lgbatch.reconstruction.progress import run_timed
from lgbatch.reconstruction.results import Model
from lgbatch.reconstruction.subprocess_worker import Message
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.types import Pair, escape
from lgbatch.workspace.folder import Workspace

if TYPE_CHECKING:
    import pycolmap

_WORKER = "lgbatch.reconstruction.known_poses.worker"
_DATABASE = "database.db"


def triangulate(workspace: Workspace, poses: Path, photos: Path, *, progress: bool = False) -> Triangulated:
    """Triangulate the matches of a workspace with the known cameras in `poses`, in a format that read_truth reads.

    Images without a known pose are left out. Poses stay as they are, and so do known intrinsics; if none are known, the
    cameras are those of the database, and their intrinsics are refined. Pairs that are not verified yet are, for this.

    Raises InputError if there is no database or no pose of an image, and ReconstructionError if no match fits the
    poses, or COLMAP fails.
    """
    require_pycolmap()
    known, database, folder = read_truth(poses), workspace.database, workspace.triangulated
    if not database.is_file():
        raise InputError(f"there is no {database}: run `lgbatch extract`, `lgbatch pairs` and `lgbatch match` first")
    draft = draft_folder(folder)
    try:
        remove_draft(folder)
        (draft / "0").mkdir(parents=True)
        with TemporaryDirectory() as temporary:
            prepared = _write_database(database, known, poses, Path(temporary))
            done = _run(prepared, known, Path(temporary, _DATABASE), draft / "0", photos, progress)
        if not done["model"]["points3D"]:
            raise ReconstructionError(f"no match agrees with the poses of {poses}: are they of these photos?")
        publish_folders([draft / "0"], folder)
    except OSError as error:
        raise ReconstructionError(f"cannot write {folder}: {error}") from error
    except (RuntimeError, ValueError) as error:
        raise ReconstructionError(f"COLMAP failed: {escape(str(error).partition(chr(10))[0])}") from error
    finally:
        remove_draft(folder)
    matched = prepared.matched
    return Triangulated(
        folder=folder / "0",
        poses=known.kind,
        images=len(prepared.names),
        model=Model(**done["model"]),
        given_intrinsics=prepared.given,
        without_pose=tuple(name for name in prepared.names.values() if name not in prepared.images),
        without_points=tuple(name for name, count in done["observations"].items() if not count),
        ambiguous=matched.ambiguous,
        absent=len(matched.absent),
        matches=done["matches"],
        confirmed=done["confirmed"],
    )


@dataclass(frozen=True)
class _Prepared:
    """The images of the database that have a pose."""

    names: Mapping[int, str]
    """Of all images of the database, by id."""
    matched: Matched
    cameras: "Mapping[int, pycolmap.Camera]"
    images: Mapping[str, PosedImage]
    given: int
    """Images whose intrinsics are known."""

    def pairs(self, db: "pycolmap.Database") -> Iterator[MatchedPair]:
        """Read the matches between them, and their geometries."""
        import pycolmap

        for a, b in map(pycolmap.pair_id_to_image_pair, sorted(db.read_num_matches()[0])):
            pair = Pair(self.names.get(a, ""), self.names.get(b, ""))
            if pair.a in self.images and pair.b in self.images:
                geometry = db.read_two_view_geometry(a, b) if db.exists_two_view_geometry(a, b) else None
                yield MatchedPair(pair, db.read_matches(a, b).astype(np.int32), geometry)


def _write_database(database: Path, known: Truth, poses: Path, folder: Path) -> _Prepared:
    """Write the database of the images with a pose to `folder`. The workspace's stays closed: opening writes it."""
    checkpoint(database)
    copy = Path(shutil.copyfile(database, folder / "copy.db"))
    with colmap_log_off(), open_database(copy, shared=False) as db:
        prepared = _prepare(db, known, poses)
        write_posed_database(folder / _DATABASE, prepared.cameras, prepared.images, prepared.pairs(db))
    copy.unlink()
    return prepared


def _prepare(db: "pycolmap.Database", known: Truth, poses: Path) -> _Prepared:
    ids = {image.name: image for image in db.read_all_images()}
    matched = match(known, ids)
    if not matched.camera_of:
        first, second = (escape(next(iter(names), "none")) for names in (known.cameras, ids))
        raise InputError(f"no pose of {poses} (such as {first}) is of an image (such as {second}): compare the names")
    own = {camera.camera_id: camera for camera in db.read_all_cameras()}
    cameras, images, given = dict(own), {}, 0
    keys: dict[tuple[Intrinsics, tuple[int, int]], int] = {}
    for name in (name for name in ids if name in matched.camera_of):
        key, intrinsics = ids[name].camera_id, known.cameras[matched.camera_of[name]].intrinsics
        if intrinsics:
            size, given = (own[key].width, own[key].height), given + 1
            key = keys.setdefault((intrinsics, size), max(own) + len(keys) + 1)
            cameras[key] = intrinsics.at(name, size)
        keypoints = np.asarray(db.read_keypoints(ids[name].image_id)[:, :2], np.float64)
        images[name] = PosedImage(key, keypoints)
    return _Prepared({image.image_id: name for name, image in ids.items()}, matched, cameras, images, given)


def _run(prepared: _Prepared, known: Truth, database: Path, out: Path, photos: Path, progress: bool) -> Message:
    """Triangulate in a child process."""
    camera_of = prepared.matched.camera_of
    request: Message = {
        "database": str(database),
        "poses": {name: known.cameras[camera_of[name]].camera_from_world.tolist() for name in prepared.images},
        "images": str(photos),
        "out": str(out),
        "refine": not prepared.given,
    }
    return run_timed(_WORKER, request, "triangulate", shown=progress)
