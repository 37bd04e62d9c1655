"""Advice in one line: what to try if images are not registered, or if COLMAP fails."""

import contextlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from lgbatch.reconstruction.results import Reconstruction
from lgbatch.workspace.rerun import Rerun

_INITIAL_INLIERS = 100  # COLMAP's minimum for the initial pair of a model, before it relaxes its thresholds
_MORE_KEYPOINTS, _LARGER = 4096, 1600
_EXHAUSTIVE_IMAGES = 200  # all pairs of so many are matched within an hour on a few cores
_OVERLAP = "add photos that overlap more"


def advice(result: Reconstruction, rerun: Rerun) -> str:
    """Suggest in one line what to try if images are not registered. Empty if all are.

    A command is suggested only if it changes something: each one leads away from the settings of the run, and none
    leads back. It is complete, and works in the workspace as it is.
    """
    text = _on_missing_images(result, rerun) if result.models else _on_no_model(result, rerun)
    return f"{text}; the models in sparse/ are from an earlier run" if result.older_models else text


def _on_no_model(result: Reconstruction, rerun: Rerun) -> str:
    failed = sum(photo.cause == "failed" for photo in result.unregistered)
    photos, usable = result.images + failed, result.images_with_keypoints
    if photos < 2:
        return "a model needs two photos: add photos of the same scene from other positions"
    if usable < 2:
        lacking = [f"{failed} failed"] * bool(failed)
        lacking += [f"{result.images - usable} have no keypoints"] * (usable < result.images)
        way_out = _try(rerun, _larger(result, rerun), "add sharp photos with texture")
        return f"a model needs two photos, but of {photos} photos {' and '.join(lacking)}: {way_out}"
    if result.matched_pairs == 0:
        changes = _more_pairs(result, rerun) or _more_detail(result, rerun)
        return f"no two images match: {_try(rerun, changes, 'add photos that overlap by at least half')}"
    if result.verified_pairs == 0:
        changes = _more_pairs(result, rerun) or _more_detail(result, rerun)
        cause = f"{result.matched_pairs} pairs match, but none has 15 matches consistent with one two-view geometry"
        return f"{cause}: {_try(rerun, changes, _OVERLAP)}"
    return f"verified pairs: {result.verified_pairs}, but {_on_no_start(result, rerun)}"


def _on_no_start(result: Reconstruction, rerun: Rerun) -> str:
    """Advice if there are verified pairs, but no model grew from them."""
    if rerun.settings.mapper == "global":
        cause = "the global mapper, which needs points seen in three images, made no model"
        return f"{cause}: {_try(rerun, {'mapper': 'incremental'}, _OVERLAP)}"
    if result.most_inliers < _INITIAL_INLIERS:
        cause = f"the best has {result.most_inliers} inlier matches and a model needs about {_INITIAL_INLIERS} to start"
        return f"{cause}: {_try(rerun, _more_pairs(result, rerun) or _more_detail(result, rerun), _OVERLAP)}"
    cause = "no pair can start a model; the camera may only have turned or hardly moved, or its focal length is unknown"
    way_out = "add photos from positions further apart"
    if result.cameras > 1 and result.one_size and rerun.settings.camera_mode != "single":
        way_out += f", or, if one camera took all with one zoom setting, try `{rerun.command(camera_mode='single')}`"
    return f"{cause}: {way_out}"


def _on_missing_images(result: Reconstruction, rerun: Rerun) -> str:
    causes = Counter(photo.cause for photo in result.unregistered if photo.cause != "failed")
    if not causes:
        return ""
    cause = f"the largest model has {result.models[0].registered_images} of {result.images} images"
    changes = _more_pairs(result, rerun) or _more_detail(result, rerun)
    photos = "add photos between the models" if causes.most_common(1)[0][0] == "other model" else _OVERLAP
    return f"{cause}: for the others, {_try(rerun, changes, photos)}"


def _try(rerun: Rerun, changes: dict[str, Any], photos: str) -> str:
    """The command with the changes, if there are any, or what to do about the photos."""
    return f"try `{rerun.command(**changes)}`, or {photos}" if changes else photos


def _more_pairs(result: Reconstruction, rerun: Rerun) -> dict[str, Any]:
    """The change of settings that matches more pairs; empty if all are matched, or the user chose them."""
    settings = rerun.settings
    if rerun.pairs or settings.pairing == "exhaustive":
        return {}
    if result.images <= _EXHAUSTIVE_IMAGES:
        return {"pairing": "exhaustive"}
    return {"window": 3 * settings.window} if 3 * settings.window < result.images else {}


def _more_detail(result: Reconstruction, rerun: Rerun) -> dict[str, Any]:
    """The changes of settings that give more keypoints; empty if the photos or the settings allow no more."""
    limit = rerun.settings.max_keypoints
    more = {"max_keypoints": _MORE_KEYPOINTS} if result.most_keypoints >= limit and limit < _MORE_KEYPOINTS else {}
    return more | _larger(result, rerun)


def _larger(result: Reconstruction, rerun: Rerun) -> dict[str, Any]:
    """The change of settings that extracts from larger photos; empty if they are used as large as they are."""
    side = rerun.settings.resize
    return {"resize": _LARGER} if 0 < side < min(_LARGER, result.longest_side) else {}


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
