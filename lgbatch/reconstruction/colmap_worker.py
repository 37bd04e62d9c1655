"""The child process that runs COLMAP's verification and mapping: `python -m lgbatch.reconstruction.colmap_worker`.

COLMAP aborts its process if it cannot write, or if another program locks the database. Started by reconstruct.py
through subprocess_worker.py.
"""

import os
import threading
import zlib  # noqa: F401  before pycolmap, whose symbols would shadow it
from pathlib import Path

import pycolmap

from lgbatch.reconstruction.subprocess_worker import Message, Report, serve

_BATCH_PAIRS = 100  # COLMAP checks its cancellation token between batches


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
        log                 whether to print COLMAP's log

    Progress messages: {"begun": step} and {"registered": number of images}.
    The result: {"models": [[name of the folder in `out`, fields of results.Model], ...]}, largest model first.
    """

    def __init__(self) -> None:
        self._token = pycolmap.CancellationToken()
        self._ignores_token = threading.Event()

    def __call__(self, request: Message, report: Report) -> Message:
        if not request["log"]:
            pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
        report({"begun": "verification"})
        self._verify(request)
        report({"begun": "mapping"})
        if self._token.is_cancelled:
            return {"models": []}
        if request["mapper"] == "global":
            models = self._map_globally(request)
        else:
            models = self._map_incrementally(request, report)
        order = sorted(models, key=lambda i: (-models[i].num_reg_images(), -models[i].num_points3D()))
        return {"models": [[str(i), _statistics(models[i])] for i in order]}

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

    def _map_incrementally(self, request: Message, report: Report) -> dict[int, pycolmap.Reconstruction]:
        options = pycolmap.IncrementalPipelineOptions(random_seed=0, num_threads=request["mapper_threads"] or -1)
        # COLMAP drops every model but the first if it has fewer than 10 images. In a small set it can be the largest.
        options.min_model_size = max(2, min(options.min_model_size, request["usable"] // 4))
        if request["usable"] == 2:  # all tracks have two views, and there is no better initial pair
            options.triangulation.ignore_two_view_tracks = False
            options.mapper.init_min_tri_angle = 4.0
        return pycolmap.incremental_mapping(
            Path(request["database"]),
            Path(request["images"]),
            Path(request["out"]),
            options,
            initial_image_pair_callback=lambda: report({"registered": 2}),
            next_image_callback=lambda: report({"registered": 1}),
            cancellation_token=self._token,
        )

    def _map_globally(self, request: Message) -> dict[int, pycolmap.Reconstruction]:
        self._ignores_token.set()
        options = pycolmap.GlobalPipelineOptions(random_seed=0, num_threads=request["mapper_threads"] or -1)
        return pycolmap.global_mapping(
            Path(request["database"]), Path(request["images"]), Path(request["out"]), options
        )


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
