"""COLMAP database -> verified pairs and sparse models, through pycolmap.

Verification writes its two-view geometries into the database and skips the pairs that have one, so it goes on
where it stopped. COLMAP does that and the mapping in a process of its own (mapping.py), which may abort. Every random
seed is fixed. Verification then gives the same result with any number of threads;
mapping only with one, and with more the models of a hard scene can differ visibly from run to run.
"""

import contextlib
import shutil
from pathlib import Path

from lgbatch.reconstruction.results import Reconstruction

_INITIAL_INLIERS = 100  # what COLMAP asks of the first pair of a model, before it relaxes


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


def colmap_error_hint(reason: str, folder: Path) -> str:
    """What to do about what COLMAP said, as the end of a sentence."""
    if any(word in reason for word in ("locked", "busy", "factory")):  # the factory opens databases
        return "close other programs that use the database, and run again"
    if "SIGKILL" in reason:
        return "was memory short? The same command goes on from what is verified"
    if any(word in reason for word in ("disk", "full", "I/O", "SQLite", "open", "write")):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(folder).free
            return f"is the disk full ({free / 1e6:.0f} MB are free)? The same command goes on from what is verified"
    return "run with --debug to see its log"
