"""An evaluation as text for the terminal."""

from lgbatch.reconstruction.evaluation.evaluate import AUC_THRESHOLDS, Accuracy
from lgbatch.reconstruction.evaluation.run import Evaluation
from lgbatch.types import counted, escape

_SHOWN = 10
_LABEL = 18  # width of the first column of the table


def format_evaluation(evaluation: Evaluation) -> str:
    """Return the lines that tell the result on a terminal."""
    e = evaluation
    lines = [
        f"model       {escape(str(e.model))}",
        f"truth       {e.kind}, {counted(e.cameras, 'camera')}" + (f"; {e.skipped} without a pose" * bool(e.skipped)),
        f"known       {e.accuracy.registered} of {counted(e.accuracy.known, 'known camera')} registered{_others(e)}",
        *(f"not registered: {escape(name)}" for name in e.unregistered[:_SHOWN]),
    ]
    if len(e.unregistered) > _SHOWN:
        lines.append(f"... and {len(e.unregistered) - _SHOWN} more: --json lists all")
    if e.ambiguous:
        lines.append(
            f"ambiguous   {counted(len(e.ambiguous), 'name')}, such as {escape(e.ambiguous[0])}: not evaluated"
        )
    if e.without_truth:
        lines.append(f"no truth    {counted(e.without_truth, 'registered image')}: not evaluated")
    return "\n".join([*lines, *_table(e)])


def _others(e: Evaluation) -> str:
    text = f"; {counted(e.not_counted, 'camera')} of other photos left out" if e.not_counted else ""
    if e.counted == "registered":
        text += "; without --photos, only cameras of registered images count"
    elif e.counted == "truth" and e.unregistered:
        text += "; without --photos, all cameras of the truth count"
    return text


def _table(e: Evaluation) -> list[str]:
    thresholds = "".join(f"{f'{threshold:g}°':>7}" for threshold in AUC_THRESHOLDS)
    errors = f"{'median':>9}{'mean':>9}{'max':>9}"
    rows = [
        f"{'':{_LABEL}}{'relative-pose AUC in percent at':>{7 * len(AUC_THRESHOLDS)}}"
        f"{'position error':>27}{'rotation error in °':>27}{'reprojection':>14}",
        f"{'':{_LABEL}}{thresholds}{errors}{errors}",
        _row("model", e.accuracy, e.reprojection),
    ]
    if e.adjusted and e.adjusted_reprojection is not None:
        rows.append(_row("given intrinsics", e.adjusted, e.adjusted_reprojection))
    return rows


def _row(label: str, a: Accuracy, reprojection: float) -> str:
    auc = "".join(f"{value:7.1f}" for value in a.auc.values())
    values = (
        *(a.position_median, a.position_mean, a.position_max),
        *(a.rotation_median, a.rotation_mean, a.rotation_max),
    )
    errors = "".join(f"{'-' if value is None else f'{value:.3g}':>9}" for value in values)
    return f"{label:{_LABEL}}{auc}{errors}{reprojection:11.2f} px"
