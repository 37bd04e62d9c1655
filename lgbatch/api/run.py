"""A whole run and its report, as the commands run and report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lgbatch.config import Settings
from lgbatch.pipelines import sfm
from lgbatch.pipelines.settings import as_settings
from lgbatch.pipelines.summary import Summary

if TYPE_CHECKING:
    from lgbatch.report.make import WrittenReport


def run(
    photos: str | Path,
    out: str | Path,
    *,
    models: str | Path | None = None,
    settings: Settings | None = None,
    pairs: str | Path | None = None,
    retry_failed: bool = False,
    **changes: Any,
) -> Summary:
    """Reconstruct the photos below a folder into the workspace `out`, as `lgbatch run`.

    Writes features.h5, pairs.txt, matches.h5, database.db, sparse/0 and summary.json, second/ if there is a second try,
    and report.html and report.json unless the setting `report` is False. Finished stages are skipped as long as their
    input is unchanged. `models` is the folder of the ONNX models; missing ones are exported first. Pass either
    `settings`, or changes to the defaults by name, such as max_keypoints=1024. `pairs` is a pairs file to use instead
    of pairs.txt.

    Photos and pairs that cannot be used are in the summary's `failures`. Later runs skip them unless `retry_failed` is
    set. Raises LgbatchError if the run cannot start or continue, or if another command works in `out`.
    """
    from lgbatch.report.make import report_at_end  # late, as below: other commands do not need it

    settings = as_settings(settings, changes)
    return sfm.run(
        photos,
        out,
        models=models,
        settings=settings,
        pairs=pairs,
        retry_failed=retry_failed,
        at_end=report_at_end if settings.report else sfm.no_report,
    )


def write_report(
    workspace: str | Path, output: str | Path | None = None, *, photos: str | Path | None = None
) -> "WrittenReport":
    """Write the page that shows what came of a run, and why photos are not registered, as `lgbatch report`.

    The page is `output`, by default report.html in the workspace; a file .json beside it has the same facts. Both are
    made from the files that are there, also of an unfinished run. `photos` is the folder of the photos, by default that
    of the extraction. `run` writes the report unless the setting `report` is False.

    Raises LgbatchError if the folder holds nothing of a run, or a file cannot be written.
    """
    from lgbatch.report.make import write_report as write_workspace_report

    page, folder = (Path(path) if path else None for path in (output, photos))
    return write_workspace_report(Path(workspace), page, folder)
