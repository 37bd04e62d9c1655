"""The summary of a run as text for the terminal."""

from typing import TYPE_CHECKING, Any

from lgbatch.reconstruction.evaluation.evaluate import format_accuracy
from lgbatch.reconstruction.refinement.results import format_refinement
from lgbatch.reconstruction.results import Doubtful, format_table
from lgbatch.types import counted, escape

if TYPE_CHECKING:
    from lgbatch.pipelines.summary import Summary

_SHOWN_FAILURES = _SHOWN_PHOTOS = 10
_SHOWN_WARNINGS = 5


def format_lines(summary: "Summary") -> list[str]:
    """Return the lines that tell the result of a run on a terminal."""
    lines = [failure.format() for failure in summary.failures[:_SHOWN_FAILURES]]
    if len(summary.failures) > _SHOWN_FAILURES:
        more = counted(len(summary.failures) - _SHOWN_FAILURES, "more failure")
        lines.append(f"... and {more}: `lgbatch errors` lists all")
    if summary.images is not None:
        keypoints = counted(summary.keypoints or 0, "keypoint")
        lines.append(f"images      {summary.images}, of which {summary.failed_images} failed; {keypoints}")
    if summary.turned_images or summary.turned_otherwise:
        lines.append(f"turned      {_format_turned(summary.turned_images or {}, summary.turned_otherwise or 0)}")
    if summary.images_in_tiles:
        lines.append(f"in tiles    {counted(summary.images_in_tiles, 'photo')}: too large for the memory as a whole")
    if summary.pairs is not None:
        lines.append(f"pairs       {summary.pairs}" + _format_pair_details(summary))
    if summary.rounds:
        number, candidates = (
            counted(summary.rounds["rounds"], "round"),
            counted(summary.rounds["candidates"], "candidate"),
        )
        lines.append(f"chosen      in {number}, from {candidates}; {summary.rounds['verified']} are verified")
    if summary.absent_images:
        lines.append(f"left out    {counted(summary.absent_images, 'image')} without a photo in the folder")
    if summary.mirrored_images:
        lines.append(
            f"mirrored    {counted(summary.mirrored_images, 'photo')}, stored as mirror images: save upright before a "
            "dense reconstruction, which reads the pixels"
        )
    if summary.dropped_from_database:
        images, pairs = summary.dropped_from_database["images"], summary.dropped_from_database["pairs"]
        lines.append(f"database    built anew; dropped: {counted(images, 'image')}, {counted(pairs, 'pair')}")
    if summary.edited_cameras:
        cameras = counted(summary.edited_cameras, "edited camera")
        lines.append(f"database    {cameras} reset: keep known intrinsics in a cameras.txt, with --calibration")
    if summary.other_images:
        lines.append(f"database    keeps {counted(summary.other_images, 'image')} of another program")
    if summary.rigs:
        *counts, others = (counted(count, what.removesuffix("s")) for what, count in summary.rigs.items())
        lines.append(f"rigs        {', '.join(counts)}; {others} without a rig")
    if summary.second_try:
        lines.append(f"second try  {_format_second_try(summary.second_try, summary.seconds.get('second', 0.0))}")
    if summary.verified_pairs is not None:
        lines.append(f"verified    {counted(summary.verified_pairs, 'pair')}")
    lines += format_refinement(summary.refined) if summary.refined else []
    if summary.models:
        lines.append(format_table(summary.models))
    elif summary.models is not None:
        lines.append("models      none")
    lines += _format_unregistered(summary)
    lines += map(_format_doubtful, (summary.doubtful or [])[:_SHOWN_PHOTOS])
    for warning in (summary.warnings or [])[:_SHOWN_WARNINGS]:
        lines.append(f"COLMAP      {warning.text}" + f" ({warning.count} times)" * (warning.count > 1))
    if summary.advice:
        lines.append(summary.advice)
    if summary.accuracy:
        lines.append(format_accuracy(summary.accuracy))
    if summary.finished_already:
        lines.append("finished already: nothing has changed, the figures are those of the earlier run")
    if summary.seconds:
        lines.append("seconds     " + ", ".join(f"{stage} {value:.1f}" for stage, value in summary.seconds.items()))
    return lines


def _format_unregistered(summary: "Summary") -> list[str]:
    """A line for each photo that is not registered.

    Those that failed in this run have one already. Without two images the advice says it all.
    """
    told = {failure.name for failure in summary.failures}
    photos = [p for p in summary.unregistered or [] if p.name not in told and p.cause != "no other image"]
    lines = [f"not registered: {escape(photo.name)}: {photo.reason}" for photo in photos[:_SHOWN_PHOTOS]]
    more = len(photos) - _SHOWN_PHOTOS
    return lines + [f"... and {counted(more, 'more photo')} not registered: --json lists all"] * (more > 0)


def _format_pair_details(summary: "Summary") -> str:
    if summary.matched_pairs is None:
        return ""
    ignored = ", ".join(f"{count} {reason}" for reason, count in (summary.dropped_pairs or {}).items() if count)
    text = f", {summary.matched_pairs} with matches ({counted(summary.matches or 0, 'match', 'matches')})"
    text += f"; ignored lines: {ignored}" if ignored else ""
    return text + (f"; skipped: {summary.skipped_pairs} with a failed image" if summary.skipped_pairs else "")


def _format_doubtful(part: Doubtful) -> str:
    names = ", ".join(map(escape, part.names[:_SHOWN_PHOTOS])) + ", ..." * (len(part.names) > _SHOWN_PHOTOS)
    photos, matches = counted(len(part.names), "photo"), counted(part.matches, "match", "matches")
    text = f"{photos}, joined to each of the others by at most {matches}"
    return f"doubtful    model {part.model}: {text}, may be in a wrong place: {names}"


def _format_turned(turned: dict[str, int], otherwise: int) -> str:
    said = {"exif": "as their EXIF orientation says", "neighbours": "as similar photos show"}
    parts = [f"{counted(count, 'photo')} {said[by]}" for by, count in turned.items() if count]
    if otherwise:
        parts.append(f"{counted(otherwise, 'photo keeps', 'photos keep')} the features from before (--on-change keep)")
    return "; ".join(parts)


def _format_second_try(tried: dict[str, Any], seconds: float) -> str:
    if "left_out" in tried:
        return f"left out: {tried['left_out']}"
    failed = f", {counted(tried['failed'], 'photo')} failed" if tried["failed"] else ""
    text = f"{counted(tried['photos'], 'photo')} with SIFT at up to {tried['long_side']} px{failed}: "
    if tried["better"]:
        more, in_largest, pairs = (
            tried[what] - tried[f"{what}_before"] for what in ("in_models", "registered", "verified")
        )
        joined = f", {in_largest} more in the largest model" * (in_largest > more)
        text += f"{more} more registered{joined}, {counted(pairs, 'more verified pair')}"
    else:
        text += "no better model"
    return text + f", {seconds:.0f} s" * (seconds > 0)
