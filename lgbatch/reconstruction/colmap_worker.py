"""Verification and mapping by COLMAP, as a process of their own: `python -m lgbatch.mapping`, called by apart.py.

COLMAP ends its process where it cannot write, or where another program locks the database.
"""

import os
import threading
import zlib  # noqa: F401  before pycolmap, whose symbols would shadow it
from pathlib import Path

import pycolmap

from lgbatch.reconstruction.subprocess_worker import Message, Tell, serve

_PAIRS_AT_ONCE = 100  # COLMAP looks at its cancellation token between two batches


class _Work:
    """Verifies the pairs of a database and maps them.

    The request: `database`, `images` (folder), `out` (folder), `mapper`, `threads`, `mapper_threads` (0: all cores),
    `usable` (images with keypoints), `log` (whether COLMAP's is wanted). Tells what has begun, and images as they are
    registered. Returns the models, largest first: their folder's name in `out`, and the fields of a Model.
    """

    def __init__(self) -> None:
        self._token = pycolmap.CancellationToken()
        self._hears_no_token = threading.Event()

    def __call__(self, request: Message, tell: Tell) -> Message:
        if not request["log"]:
            pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
        tell({"begun": "verification"})
        self._verify(request)
        tell({"begun": "mapping"})
        if self._token.is_cancelled:
            return {"models": []}
        found = self._map_globally(request) if request["mapper"] == "global" else self._map_incrementally(request, tell)
        order = sorted(found, key=lambda i: (-found[i].num_reg_images(), -found[i].num_points3D()))
        return {"models": [[str(i), _described(found[i])] for i in order]}

    def stop(self) -> None:
        self._token.cancel()
        if self._hears_no_token.is_set():
            os._exit(1)

    def _verify(self, request: Message) -> None:
        verifier = pycolmap.GeometricVerifierOptions(num_threads=request["threads"] or -1)
        pairing = pycolmap.ExistingMatchedPairingOptions(batch_size=_PAIRS_AT_ONCE)
        geometry = pycolmap.TwoViewGeometryOptions()
        geometry.ransac.random_seed = 0
        pycolmap.geometric_verification(Path(request["database"]), verifier, pairing, geometry, self._token)

    def _map_incrementally(self, request: Message, tell: Tell) -> dict[int, pycolmap.Reconstruction]:
        options = pycolmap.IncrementalPipelineOptions(random_seed=0, num_threads=request["mapper_threads"] or -1)
        # Beyond the first model COLMAP drops those of under 10 images: in a small set that can be the larger one.
        options.min_model_size = max(2, min(options.min_model_size, request["usable"] // 4))
        if request["usable"] == 2:  # all tracks are of two views, and there is no better pair to start from
            options.triangulation.ignore_two_view_tracks = False
            options.mapper.init_min_tri_angle = 4.0
        return pycolmap.incremental_mapping(
            Path(request["database"]),
            Path(request["images"]),
            Path(request["out"]),
            options,
            initial_image_pair_callback=lambda: tell({"registered": 2}),
            next_image_callback=lambda: tell({"registered": 1}),
            cancellation_token=self._token,
        )

    def _map_globally(self, request: Message) -> dict[int, pycolmap.Reconstruction]:
        self._hears_no_token.set()
        options = pycolmap.GlobalPipelineOptions(random_seed=0, num_threads=request["mapper_threads"] or -1)
        return pycolmap.global_mapping(
            Path(request["database"]), Path(request["images"]), Path(request["out"]), options
        )


def _described(model: pycolmap.Reconstruction) -> Message:
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
