"""The child process that triangulates: `python -m lgbatch.reconstruction.known_poses.worker`.

COLMAP aborts its process if it cannot write, or if the memory is short.
"""

import os
import zlib  # noqa: F401  before pycolmap, whose symbols would shadow it
from pathlib import Path

import numpy as np
import pycolmap

from lgbatch.colmap.verification import verify_pairs
from lgbatch.reconstruction.colmap_worker import color_points, statistics
from lgbatch.reconstruction.evidence import confirmed_matches
from lgbatch.reconstruction.known_poses.posed_database import add_points, posed_model
from lgbatch.reconstruction.subprocess_worker import Message, Report, serve
from lgbatch.runtime.environment import available_cores

_ONE_THREAD_IMAGES = 100  # up to so many, the result is the same in every run, as in mapping


def _work(request: Message, _: Report) -> Message:
    """Triangulate a model with fixed poses.

    Keys of the request:
        database    path of the database, as write_posed_database makes it
        poses       camera_from_world, 3 rows of 4, by image name
        points      folder of a model whose points to start from; absent if there is none
        images      path of the image folder
        out         folder of the model
        refine      whether to refine the cameras' intrinsics
        log         whether to print COLMAP's whole log

    The result: {"model": fields of results.Model, "observations": number by image name, "matches": verified matches,
    "confirmed": those whose keypoints observe one point}.
    """
    if not request["log"]:
        pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR)
    database, out = Path(request["database"]), Path(request["out"])
    with pycolmap.Database.open(database) as db:
        verify_pairs(db, threads=available_cores(), strict=True, stopped=lambda: False)
    model = posed_model(database, {name: np.array(pose) for name, pose in request["poses"].items()})
    base = pycolmap.Reconstruction(request["points"]) if "points" in request else None
    if base:
        add_points(model, base)
    one_thread = model.num_images() <= _ONE_THREAD_IMAGES
    options = pycolmap.IncrementalPipelineOptions(random_seed=0, num_threads=1 if one_thread else -1)
    options.extract_colors = not base
    options.triangulation.ignore_two_view_tracks = model.num_images() > 2  # else all tracks have two views
    refine, photos = request["refine"], Path(request["images"])
    model = pycolmap.triangulate_points(model, database, photos, out, not base, options, refine)
    if base:
        _restore_colors(model, base)
        _color_new_points(model, photos, out)
    else:
        color_points(model, photos, out)
    found = list(confirmed_matches(model, database))
    return {
        "model": statistics(model),
        "observations": {image.name: image.num_points3D for image in model.images.values()},
        "matches": sum(pair.matches for pair in found),
        "confirmed": sum(pair.confirmed for pair in found),
    }


def _restore_colors(model: pycolmap.Reconstruction, base: pycolmap.Reconstruction) -> None:
    """Give points the color of the point that one of their keypoints observed before: triangulation resets it."""
    before = {image.name: image for image in base.images.values()}
    for point in model.points3D.values():
        for element in point.track.elements:
            image = before.get(model.image(element.image_id).name)
            observed = image.point2D(element.point2D_idx) if image else None
            if observed is not None and observed.has_point3D():
                point.color = base.point3D(observed.point3D_id).color
                break


def _color_new_points(model: pycolmap.Reconstruction, photos: Path, out: Path) -> None:
    """Color the black points by the photos that are in the folder: those of the model may be in another one."""
    for image_id, image in model.images.items():
        if (photos / image.name).is_file():
            model.extract_colors_for_image(image_id, photos)
    model.write(out)


if __name__ == "__main__":
    serve(_work, lambda: os._exit(1))
