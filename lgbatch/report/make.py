"""`lgbatch report`: report.html and report.json of a workspace."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from lgbatch.errors import InputError, LgbatchError
from lgbatch.report.contents import open_contents
from lgbatch.report.facts import Report, gather, headline
from lgbatch.report.page import render
from lgbatch.report.pairs import draw_matches
from lgbatch.report.thumbnails import has_photo, make_thumbnails
from lgbatch.runtime.environment import available_cores
from lgbatch.storage.durable import replace_synced
from lgbatch.types import escape
from lgbatch.workspace.folder import Workspace


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written."""

    page: Path
    facts: Path
    bytes: int
    """Size of the page."""
    headline: str
    notes: tuple[str, ...]
    """What could not be read."""


def write_report(workspace: Path, output: Path | None = None, photos: Path | None = None) -> WrittenReport:
    """Write the report of a workspace to `output`, by default its report.html, and the facts beside it as JSON.

    It is made from the files that are there, also of an unfinished run. `photos` is the folder of the photos if it is
    not that of the extraction. Raises InputError if the folder holds nothing of a run, and LgbatchError if a file
    cannot be written.
    """
    if not workspace.is_dir():
        cause = f"{workspace} is a file" if workspace.exists() else f"there is no folder {workspace}"
        raise InputError(f"{cause}: give the workspace of a run")
    page = output or Workspace(workspace).report
    with open_contents(workspace, photos) as found:
        if found.is_empty:
            raise InputError(f"{workspace} has no file of a run: give the folder that `lgbatch run` wrote to")
        report = gather(found)
        thumbnails = make_thumbnails(
            found.photos, report.rows, found.rerun().settings.max_megapixels, available_cores()
        )
        if report.rows and not any(has_photo(found.photos, row) for row in report.rows):
            place = f"the photos are not in {found.photos}" if found.photos else "no file tells where the photos are"
            found.notes.append(f"no thumbnails: {place}; `lgbatch report {workspace} --images FOLDER` adds them")
        html = render(report, draw_matches(found, report.rows, report.table), thumbnails)
    facts = page.with_suffix(".json")
    _write(page, html)
    _write(facts, _json(report))
    return WrittenReport(page, facts, len(html), escape(headline(report.facts)), tuple(report.facts["notes"]))


def report_at_end(workspace: Path, photos: Path, changed: bool, failed: bool) -> None:
    """Write the report at the end of a run, if anything has `changed` or it is older than the last stage.

    If that fails, one line on standard error tells why, unless the run has `failed` and tells its own reason.
    """
    if not changed and _is_current(workspace):
        return
    try:
        write_report(workspace, photos=photos)
    except Exception as error:
        if not failed:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            print(escape(f"lgbatch: no report: {reason}; `lgbatch report {workspace}` tries again"), file=sys.stderr)


def _is_current(workspace: Path) -> bool:
    """Whether the workspace has a report that was written after the last stage has finished."""
    try:
        written = Workspace(workspace).report.stat().st_mtime_ns
        return written >= (workspace / "finished.json").stat().st_mtime_ns
    except OSError:
        return False


def _json(report: Report) -> bytes:
    """report.json: names in any encoding survive, as escapes."""
    table = report.table
    pairs = report.facts["pairs"] | {
        "a": table.ids[:, 0].tolist(),
        "b": table.ids[:, 1].tolist(),
        "matches": table.matches.tolist(),
        "inliers": table.inliers.tolist(),
    }
    return json.dumps(report.facts | {"pairs": pairs}, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _write(path: Path, content: bytes) -> None:
    try:
        replace_synced(path, content)
    except OSError as error:
        raise LgbatchError(f"cannot write {path}: {error.strerror}; choose another file with --output") from None
