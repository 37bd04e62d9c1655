"""Advice in one line: what to try if images are not registered, or if COLMAP fails."""

import contextlib
import shutil
from pathlib import Path

from lgbatch.reconstruction.results import Reconstruction

_INITIAL_INLIERS = 100  # COLMAP's minimum for the initial pair of a model, before it relaxes its thresholds
_MORE_KEYPOINTS = "--max-keypoints 4096, --resize 1600"


def advice(result: Reconstruction, mapper: str = "incremental") -> str:
    """Suggest in one line what to try if images are not registered. Empty if all are."""
    if not result.older_models:
        return _suggestion(result, mapper)
    return f"{_suggestion(result, mapper)}; the models in sparse/ are from an earlier run"


def _suggestion(result: Reconstruction, mapper: str) -> str:
    if result.models:
        return _advice_on_missing_images(result)
    if result.images_with_keypoints < 2:
        return (
            f"{result.images_with_keypoints} of {result.images} images have keypoints, but a model needs two: "
            "try --resize 0, or add sharp photos with more texture"
        )
    if result.matched_pairs == 0:
        return (
            f"no two images match: try --pairing exhaustive, {_MORE_KEYPOINTS}, or photos that overlap by at least half"
        )
    if result.verified_pairs == 0:
        return (
            f"{result.matched_pairs} pairs match, but none has 15 matches consistent with one two-view geometry: "
            f"try {_MORE_KEYPOINTS}, or photos that overlap more"
        )
    return f"verified pairs: {result.verified_pairs}, but {_advice_on_no_model(result, mapper)}"


def _advice_on_missing_images(result: Reconstruction) -> str:
    registered = result.models[0].registered_images
    if registered == result.images:
        return ""
    return (
        f"the largest model has {registered} of {result.images} images: for the others, try --pairing exhaustive, "
        f"{_MORE_KEYPOINTS}, or photos that overlap more"
    )


def _advice_on_no_model(result: Reconstruction, mapper: str) -> str:
    if mapper == "global":
        return "the global mapper failed; it needs points seen in three images: try --mapper incremental"
    if result.most_inliers < _INITIAL_INLIERS:
        return (
            f"the best has {result.most_inliers} inlier matches and a model needs about {_INITIAL_INLIERS} to start: "
            f"try {_MORE_KEYPOINTS}, or photos that overlap more"
        )
    return (
        "no pair can start a model; the camera may only have rotated or hardly moved, or its focal length is unknown: "
        "add photos from positions further apart, try --camera-mode single if all photos were taken with one zoom "
        "setting, or try --mapper global"
    )


def colmap_error_hint(reason: str, folder: Path) -> str:
    """Suggest what to do about COLMAP's error message `reason`; ends a sentence. `folder` is on the disk written to."""
    if any(word in reason for word in ("locked", "busy", "factory")):  # COLMAP opens databases through a factory
        return "close other programs that use the database, and run again"
    if "SIGKILL" in reason:
        return "memory may have run out. The same command continues from the verified pairs"
    if any(word in reason for word in ("disk", "full", "I/O", "SQLite", "open", "write")):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(folder).free
            return (
                f"the disk may be full ({free / 1e6:.0f} MB free). The same command continues from the verified pairs"
            )
    return "run with --debug to see COLMAP's log"
