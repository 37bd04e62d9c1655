"""The child process that runs COLMAP's verification and mapping: `python -m lgbatch.reconstruction.colmap_worker`.

COLMAP aborts its process if it cannot write, or if another program locks the database. Started by reconstruct.py
through subprocess_worker.py.
"""

import os
import threading
import zlib  # noqa: F401  before pycolmap, whose symbols would shadow it
from contextlib import suppress
from pathlib import Path

import numpy as np
import pycolmap

from lgbatch.errors import ItemError
from lgbatch.photos.formats import read_by_colmap
from lgbatch.photos.resize import interpolate
from lgbatch.reconstruction.subprocess_worker import Message, Report, serve
from lgbatch.types import FloatArray, ImageRef
from lgbatch.workspace.prefetch import prefetch

_BATCH_PAIRS = 100  # COLMAP checks its cancellation token between batches
_DECODERS = 4  # threads, for photos that COLMAP cannot read
_MIN_IMAGES = 5  # to refine the distortion of a model that was mapped without


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
    The result: {"models": [[name of the folder in `out`, fields of results.Model, ids of its images], ...]}, largest
    model first. Standard error has COLMAP's warnings and errors, and with `log` its whole log.
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
            return {"models": []}
        fixed = request["fix_intrinsics"]
        held = fixed or _has_fisheye(Path(request["database"]))
        if request["mapper"] == "global":
            models = self._map_globally(request, fixed, held)
        else:
            models = self._map_incrementally(request, report, fixed, held)
        if held and not fixed:
            models = {i: _refine_extra_params(model, Path(request["out"], str(i))) for i, model in models.items()}
        for i, model in models.items():
            _color_points(model, Path(request["images"]), Path(request["out"], str(i)))
        order = sorted(models, key=lambda i: (-models[i].num_reg_images(), -models[i].num_points3D()))
        return {"models": [[str(i), _statistics(models[i]), models[i].reg_image_ids()] for i in order]}

    def stop(self) -> None:
        """Cancel the work. Global mapping cannot be cancelled: exits the process instead."""
        self._token.cancel()
        if self._ignores_token.is_set():
            os._exit(1)

    def _verify(self, request: Message) -> None:
        verifier = pycolmap.GeometricVerifierOptions(num_threads=request["threads"] or -1)
        pairing = pycolmap.ExistingMatchedPairingOptions(batch_size=_BATCH_PAIRS)
        geometry = pycolmap.TwoViewGeometryOptions()
        geometry.ransac.random_seed = 0
        pycolmap.geometric_verification(Path(request["database"]), verifier, pairing, geometry, self._token)

    def _map_incrementally(
        self, request: Message, report: Report, fixed: bool, held: bool
    ) -> dict[int, pycolmap.Reconstruction]:
        options = pycolmap.IncrementalPipelineOptions(random_seed=0, num_threads=request["mapper_threads"] or -1)
        # COLMAP drops every model but the first if it has fewer than 10 images. In a small set it can be the largest.
        options.min_model_size = max(2, min(options.min_model_size, request["usable"] // 4))
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


def _has_fisheye(database: Path) -> bool:
    """Whether a camera is a fisheye. Estimated from two or three images, its distortion makes the model fall apart."""
    with pycolmap.Database.open(database) as db:
        return any(camera.model_name.endswith("FISHEYE") for camera in db.read_all_cameras())


def _refine_extra_params(model: pycolmap.Reconstruction, folder: Path) -> pycolmap.Reconstruction:
    """Refine the distortion of a finished model, and write it to `folder`, unless the result is implausible."""
    if model.num_reg_images() < _MIN_IMAGES:
        return model
    refined = pycolmap.Reconstruction(model)
    pycolmap.bundle_adjustment(refined, pycolmap.BundleAdjustmentOptions())
    if any(camera.has_bogus_params(0.1, 10.0, 1.0) for camera in refined.cameras.values()):  # the mapper's limits
        return model
    refined.update_point_3d_errors()
    refined.write(folder)
    return refined


def _color_points(model: pycolmap.Reconstruction, photos: Path, folder: Path) -> None:
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


def _statistics(model: pycolmap.Reconstruction) -> Message:
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
