"""The child process that runs COLMAP's verification and mapping: `python -m lgbatch.reconstruction.colmap_worker`.

COLMAP aborts its process if it cannot write, or if another program locks the database. Started by reconstruct.py
through subprocess_worker.py.
"""

import os
import shutil
import threading
import zlib  # noqa: F401  before pycolmap, whose symbols would shadow it
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pycolmap

from lgbatch.colmap.ownership import is_marked
from lgbatch.colmap.sensors.simplify import (
    extend,
    has_default_distortion,
    has_simple_model,
    is_plausible,
    simplify,
)
from lgbatch.colmap.verification import verify_pairs
from lgbatch.errors import ItemError
from lgbatch.photos.coordinates import interpolate
from lgbatch.photos.formats import read_by_colmap
from lgbatch.reconstruction.bundle_adjustment import adjustment_of
from lgbatch.reconstruction.evidence import doubtful_parts
from lgbatch.reconstruction.subprocess_worker import Message, Report, serve
from lgbatch.runtime.environment import available_cores
from lgbatch.types import FloatArray, ImageRef
from lgbatch.workspace.prefetch import prefetch

_DECODERS = 4  # threads, for photos that COLMAP cannot read
_MIN_IMAGES = 5  # of a camera, to refine its distortion in a model that was mapped without


class _Work:
    """Verifies the matched pairs of a database and maps them.

    Keys of the request:
        database            path of the database
        images              path of the image folder
        out                 folder to which the models are written
        mapper              "incremental" or "global"
        threads             of verification; 0: all cores
        mapper_threads      of mapping; 0: all cores
        usable              number of images with keypoints
        fix_intrinsics      whether to keep the cameras' intrinsics
        log                 whether to print COLMAP's whole log

    Progress messages: {"begun": step} and {"registered": number of images}.
    The result: {"models": [[name of the folder in `out`, fields of results.Model, ids of its images], ...], "doubtful":
    [fields of results.Doubtful, ...]}, largest model first. Standard error has COLMAP's warnings and errors, and with
    `log` its whole log.
    """

    def __init__(self) -> None:
        self._token = pycolmap.CancellationToken()
        self._ignores_token = threading.Event()

    def __call__(self, request: Message, report: Report) -> Message:
        if not request["log"]:
            pycolmap.logging.minloglevel = int(pycolmap.logging.WARNING)
        report({"begun": "verification"})
        self._verify(request)
        report({"begun": "mapping"})
        if self._token.is_cancelled:
            return {"models": [], "doubtful": []}
        out, fixed = Path(request["out"]), request["fix_intrinsics"]
        cameras = {} if fixed else _complex_cameras(Path(request["database"]))
        simple = {i: simplify(camera) for i, camera in cameras.items() if has_default_distortion(camera)}
        with _with_cameras(Path(request["database"]), simple, out) as database:
            held = fixed or len(simple) < len(cameras)
            if request["mapper"] == "global":
                models = self._map_globally(request | {"database": database}, fixed, held)
            else:
                models = self._map_incrementally(request | {"database": database}, report, fixed, held)
        if cameras:
            models = {i: _refine_extra_params(model, cameras, out / str(i)) for i, model in models.items()}
        for i, model in models.items():
            color_points(model, Path(request["images"]), Path(request["out"], str(i)))
        order = sorted(models, key=lambda i: (-models[i].num_reg_images(), -models[i].num_points3D()))
        return {
            "models": [[str(i), statistics(models[i]), models[i].reg_image_ids()] for i in order],
            "doubtful": [
                {"model": number, "names": names, "matches": most}
                for number, i in enumerate(order)
                for names, most in doubtful_parts(models[i], Path(request["database"]))
            ],
        }

    def stop(self) -> None:
        """Cancel the work. Global mapping cannot be cancelled: exits the process instead."""
        self._token.cancel()
        if self._ignores_token.is_set():
            os._exit(1)

    def _verify(self, request: Message) -> None:
        database = Path(request["database"])
        strict = is_marked(database)  # another database is the user's
        with pycolmap.Database.open(database) as db:
            verify_pairs(
                db,
                threads=request["threads"] or available_cores(),
                strict=strict,
                stopped=lambda: self._token.is_cancelled,
            )

    def _map_incrementally(
        self, request: Message, report: Report, fixed: bool, held: bool
    ) -> dict[int, pycolmap.Reconstruction]:
        options = pycolmap.IncrementalPipelineOptions(random_seed=0, num_threads=request["mapper_threads"] or -1)
        # COLMAP drops every model but the first if it has fewer than 10 images. In a small set it can be the largest.
        options.min_model_size = max(2, min(options.min_model_size, request["usable"] // 4))
        # It registers images by matches alone, without 3D points: on too little evidence (docs/reliability.md).
        options.structure_less_registration_fallback = False
        if request["usable"] == 2:  # all tracks have two views, and there is no better initial pair
            options.triangulation.ignore_two_view_tracks = False
            options.mapper.init_min_tri_angle = 4.0
        options.ba_refine_focal_length = options.mapper.abs_pose_refine_focal_length = not fixed
        options.ba_refine_extra_params = options.mapper.abs_pose_refine_extra_params = not held
        return pycolmap.incremental_mapping(
            Path(request["database"]),
            Path(request["images"]),
            Path(request["out"]),
            options,
            initial_image_pair_callback=lambda: report({"registered": 2}),
            next_image_callback=lambda: report({"registered": 1}),
            cancellation_token=self._token,
        )

    def _map_globally(self, request: Message, fixed: bool, held: bool) -> dict[int, pycolmap.Reconstruction]:
        self._ignores_token.set()
        options = pycolmap.GlobalPipelineOptions(random_seed=0, num_threads=request["mapper_threads"] or -1)
        if not pycolmap.has_cuda:  # COLMAP would warn that it does without
            options.mapper.global_positioning.use_gpu = options.mapper.bundle_adjustment.ceres.use_gpu = False
        options.mapper.bundle_adjustment.refine_focal_length = not fixed
        options.mapper.bundle_adjustment.refine_extra_params = not held
        return pycolmap.global_mapping(
            Path(request["database"]), Path(request["images"]), Path(request["out"]), options
        )


def _complex_cameras(database: Path) -> dict[int, pycolmap.Camera]:
    """Return the cameras with several distortion coefficients, by id."""
    with pycolmap.Database.open(database) as db:
        return {camera.camera_id: camera for camera in db.read_all_cameras() if has_simple_model(camera)}


@contextmanager
def _with_cameras(database: Path, cameras: dict[int, pycolmap.Camera], folder: Path) -> Iterator[str]:
    """Yield a database with these cameras: a copy in `folder`, or the database itself if there are none."""
    if not cameras:
        yield str(database)
        return
    copy = Path(shutil.copyfile(database, folder / "database.db"))
    with pycolmap.Database.open(copy) as db:
        for camera in cameras.values():
            db.update_camera(camera)
    yield str(copy)
    copy.unlink()


def _restore(model: pycolmap.Reconstruction, cameras: dict[int, pycolmap.Camera]) -> None:
    """Give the cameras of a model that were simplified their own camera models again."""
    for camera_id, simple in model.cameras.items():
        camera = cameras.get(camera_id)
        if camera and simple.model != camera.model:
            params = extend(simple, camera).params
            simple.model, simple.params = camera.model, params


def _refine_extra_params(
    model: pycolmap.Reconstruction, cameras: dict[int, pycolmap.Camera], folder: Path
) -> pycolmap.Reconstruction:
    """Refine the distortion of the `cameras` of a finished model, and write it to `folder`.

    Cameras with few images, and those whose distortion would be implausible, keep the intrinsics of the mapping.
    """
    _restore(model, cameras)
    images = Counter(model.images[i].camera_id for i in model.reg_image_ids())
    kept = {camera for camera in model.cameras if images[camera] < _MIN_IMAGES}
    while any(camera in cameras and camera not in kept for camera in model.cameras):
        refined = pycolmap.Reconstruction(model)
        _adjust(refined, kept)
        bogus = {i for i, camera in refined.cameras.items() if i not in kept and not is_plausible(camera)}
        if not bogus:
            refined.update_point_3d_errors()
            refined.write(folder)
            return refined
        kept |= bogus
    model.update_point_3d_errors()
    model.write(folder)
    return model


def _adjust(model: pycolmap.Reconstruction, kept: set[int]) -> None:
    """Adjust poses, points and the intrinsics of the cameras that are not in `kept`."""
    options = pycolmap.BundleAdjustmentOptions(print_summary=False)
    pycolmap.create_default_bundle_adjuster(options, adjustment_of(model, kept), model).solve()


def color_points(model: pycolmap.Reconstruction, photos: Path, folder: Path) -> None:
    """Color the points that COLMAP left black because it cannot read their photos, and write the model to `folder`.

    As in COLMAP, the color is the mean over the track of the pixels, interpolated bilinearly. Points with an image that
    COLMAP can read, and models without other images, are left as they are.
    """
    unread = [i for i in sorted(model.reg_image_ids()) if not _read_by_colmap(photos / model.images[i].name)]
    black = {i for i, p in model.points3D.items() if unread and {e.image_id for e in p.track.elements}.issubset(unread)}
    if not black:
        return
    from lgbatch.photos.decode import decode  # takes a while, and few models need it

    def sample(image_id: int) -> dict[int, FloatArray]:
        image = model.images[image_id]
        observed = {p.point3D_id: p.xy for p in image.points2D if p.has_point3D() and p.point3D_id in black}
        with suppress(ItemError):
            pixels = decode(ImageRef(image.name, photos / image.name), 0).pixels
            colors = interpolate(pixels, np.array([*observed.values()]).reshape(-1, 2) - 0.5)
            return {i: color for i, color in zip(observed, colors, strict=True) if not np.isnan(color[0])}
        return {}

    samples: dict[int, list[FloatArray]] = {}
    for colors in prefetch(sample, unread, threads=_DECODERS, depth=_DECODERS):
        for point_id, color in colors.items():
            samples.setdefault(point_id, []).append(color)
    for point_id, values in samples.items():
        model.points3D[point_id].color = np.rint(np.mean(values, axis=0)).astype(np.uint8)
    model.write(folder)


def _read_by_colmap(photo: Path) -> bool:
    try:
        return read_by_colmap(photo)
    except OSError:  # the photo is gone: its color is not to be had
        return True


def statistics(model: pycolmap.Reconstruction) -> Message:
    """The fields of results.Model."""
    return {
        "registered_images": model.num_reg_images(),
        "points3D": model.num_points3D(),
        "observations": model.compute_num_observations(),
        "mean_reprojection_error": model.compute_mean_reprojection_error(),
        "mean_track_length": model.compute_mean_track_length(),
    }


if __name__ == "__main__":
    work = _Work()
    serve(work, work.stop)
