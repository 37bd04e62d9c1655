"""Advice in one line: what to try if images are not registered, or if COLMAP fails."""

import contextlib
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from lgbatch.pairing.methods import pairs_all
from lgbatch.reconstruction.results import Cause, Reconstruction, Unregistered
from lgbatch.types import counted
from lgbatch.workspace.rerun import Rerun

_INITIAL_INLIERS = 100  # COLMAP's minimum for the initial pair of a model, before it relaxes its thresholds
_MORE_KEYPOINTS, _LARGER = 4096, 1600
_EXHAUSTIVE_IMAGES = 200  # all pairs of so many are matched within an hour on a few cores
_OVERLAP = "add photos that overlap more"
_MASKS = "give masks that hide less of them: black is ignored, so invert masks that are white there"


def advice(result: Reconstruction, rerun: Rerun) -> str:
    """Suggest in one line what to try if images are not registered, or doubtful. Empty if there are none.

    A command is suggested only if it changes something: each one leads away from the settings of the run, and none
    leads back. It is complete, and works in the workspace as it is.
    """
    text = _on_missing_images(result, rerun) if result.models else _on_no_model(result, rerun)
    text = "; ".join(filter(None, [text, _on_doubtful_images(result, rerun)]))
    return f"{text}; the models in sparse/ are from an earlier run" if result.older_models else text


def advice_on(photo: Unregistered, result: Reconstruction, rerun: Rerun) -> str:
    """Say in one line what to do about one photo that is not registered. Commands stand between backticks."""
    if photo.cause == "failed":
        return f"replace the photo, and run `{rerun.command()}`: a photo that has changed is read again"
    if photo.cause == "no other image":
        return "add photos of the same scene from other positions"
    photos = "add photos between the models" if photo.cause == "other model" else _OVERLAP
    return _way_out(replace(result, unregistered=(photo,)), rerun, photos)


def _on_no_model(result: Reconstruction, rerun: Rerun) -> str:
    failed = _causes(result)["failed"]
    photos, usable = result.images + failed, result.images_with_keypoints
    if photos < 2:
        return "a model needs two photos: add photos of the same scene from other positions"
    if usable < 2:
        return _on_no_keypoints(result, rerun, photos, failed)
    if _most(result) == "no pair":
        unpaired = f"{_causes(result)['no pair']} of {counted(result.images, 'image')}"
        return f"no pair names {unpaired}: {_way_out(result, rerun, _OVERLAP)}"
    if result.matched_pairs == 0:
        return f"no two images match: {_way_out(result, rerun, 'add photos that overlap by at least half')}"
    if result.verified_pairs == 0:
        pairs = f"{counted(result.matched_pairs, 'pair')} {'matches' if result.matched_pairs == 1 else 'match'}"
        cause = f"{pairs}, but none has enough matches consistent with one two-view geometry"
        return f"{cause}: {_way_out(result, rerun, _OVERLAP)}"
    return f"verified pairs: {result.verified_pairs}, but {_on_no_start(result, rerun)}"


def _on_no_keypoints(result: Reconstruction, rerun: Rerun, photos: int, failed: int) -> str:
    """Advice if fewer than two images have keypoints."""
    empty = result.images - result.images_with_keypoints
    lacking = [f"{failed} failed"] * bool(failed)
    lacking += [f"{empty} {'has' if empty == 1 else 'have'} no keypoints"] * bool(empty)
    cause = f"a model needs two photos, but of {photos} photos {' and '.join(lacking)}"
    if _causes(result)["masked"] > empty / 2:
        return f"{cause}: {_MASKS}"
    if not empty:
        return f"{cause}: replace the photos that failed, or add others"
    return f"{cause}: {_try(rerun, _larger(result, rerun), 'add sharp photos with texture')}"


def _on_no_start(result: Reconstruction, rerun: Rerun) -> str:
    """Advice if there are verified pairs, but no model grew from them."""
    if rerun.settings.mapper == "global":
        cause = "the global mapper, which needs points seen in three images, made no model"
        return f"{cause}: {_try(rerun, {'mapper': 'incremental'}, _OVERLAP)}"
    if result.most_inliers < _INITIAL_INLIERS:
        inliers = counted(result.most_inliers, "inlier match", "inlier matches")
        cause = f"the best has {inliers} and a model needs about {_INITIAL_INLIERS} to start"
        return f"{cause}: {_way_out(result, rerun, _OVERLAP)}"
    cause = "no pair can start a model; the camera may only have turned or hardly moved, or its focal length is unknown"
    way_out = "add photos from positions further apart"
    if result.cameras > 1 and result.one_size and rerun.settings.camera_mode != "single":
        way_out += f", or, if one camera took all with one zoom setting, try `{rerun.command(camera_mode='single')}`"
    return f"{cause}: {way_out}"


def _on_missing_images(result: Reconstruction, rerun: Rerun) -> str:
    causes = _causes(result)
    if causes.total() == causes["failed"]:
        return ""
    cause = f"the largest model has {result.models[0].registered_images} of {counted(result.images, 'image')}"
    photos = "add photos between the models" if _most(result) == "other model" else _OVERLAP
    return f"{cause}: for the others, {_way_out(result, rerun, photos)}"


def _on_doubtful_images(result: Reconstruction, rerun: Rerun) -> str:
    if not result.doubtful:
        return ""
    changes = {} if rerun.settings.rotation == "auto" else {"rotation": "auto", "on_change": "recompute"}
    return f"for the doubtful photos, {_try(rerun, changes, 'add photos between them and the others')}"


def _causes(result: Reconstruction) -> Counter[Cause]:
    """The number of photos that are not registered, by cause."""
    return Counter(photo.cause for photo in result.unregistered)


def _most(result: Reconstruction) -> Cause | None:
    """The cause of most photos that did not fail."""
    causes = _causes(result)
    del causes["failed"]
    return causes.most_common(1)[0][0] if causes else None


def _way_out(result: Reconstruction, rerun: Rerun, photos: str) -> str:
    """What helps most of the photos: other masks, more pairs, or more keypoints, or what to do about the photos."""
    most = _most(result)
    if most == "masked":
        return _MASKS
    if most == "no pair" and rerun.pairs:
        return f"add pairs of them to {rerun.pairs} and run `{rerun.command(match_again=True)}`"
    return _try(rerun, _more_pairs(result, rerun) or _more_detail(result, rerun), photos)


def _try(rerun: Rerun, changes: dict[str, Any], photos: str) -> str:
    """The command with the changes, if there are any, or what to do about the photos."""
    return f"try `{rerun.command(**changes)}`, or {photos}" if changes else photos


def _more_pairs(result: Reconstruction, rerun: Rerun) -> dict[str, Any]:
    """The change of settings that matches more pairs; empty if all are matched, or the user chose them."""
    settings = rerun.settings
    if rerun.pairs or pairs_all(settings, result.images):
        return {}
    if result.images <= _EXHAUSTIVE_IMAGES:
        return {"pairing": "exhaustive"}
    more = "window" if settings.pairing == "sequential" else "neighbours"
    count = 3 * getattr(settings, more)
    return {more: count} if count < result.images else {}


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
