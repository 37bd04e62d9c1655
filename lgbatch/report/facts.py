"""The facts of a report, which report.json holds and the page shows; docs/report.md lists the keys."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lgbatch._version import __version__
from lgbatch.config import Settings, Stage
from lgbatch.report.connections import STRONG, Graph, connect
from lgbatch.report.contents import Contents
from lgbatch.report.gps import fit_gps, gps_figures
from lgbatch.report.models import ModelView, read_models
from lgbatch.report.pairs import PairTable, read_pair_table
from lgbatch.report.photos import PhotoRow, as_values, explain_photos, list_photos, overall_advice
from lgbatch.types import counted
from lgbatch.workspace.stage_cache import recorded_settings

Values = dict[str, Any]
_BINS = 24
_LONGEST_TRACK = 20


@dataclass(frozen=True, eq=False)
class Report:
    """All that a page is made of."""

    facts: Values
    rows: Sequence[PhotoRow]
    table: PairTable
    models: Sequence[ModelView]
    graph: Graph


def gather(found: Contents) -> Report:
    """Collect the facts of a workspace. What cannot be read is in the facts' `notes`."""
    rows = list_photos(found)
    models = read_models(found, rows)
    figures = [model.figures for model in models]
    explain_photos(found, rows, figures)
    table = read_pair_table(found, rows)
    graph = connect(table, len(rows))
    fit = fit_gps(found, rows, models)
    facts: Values = {
        "lgbatch": __version__,
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "workspace": str(found.files.root.absolute()),
        "photo_folder": str(found.photos) if found.photos else None,
        "state": _state(found, models),
        "command": found.rerun().command(),
        "registered": sum(row.model is not None for row in rows),
        "photos": _photo_values(rows, table, graph),
        "missing": _missing(rows),
        "advice": None if _state(found, models) == "unread" else overall_advice(found, rows, figures),
        "models": [asdict(model) for model in figures],
        "pairs": _pair_totals(table),
        "graph": _graph_values(graph),
        "histograms": _histograms(models),
        "gps": gps_figures(fit, [row.name for row in rows]) if fit else None,
    }
    return Report(facts | _run_values(found), rows, table, models, graph)


def _state(found: Contents, models: Sequence[ModelView]) -> str:
    if models:
        return "mapped"
    return "unread" if found.models else "no model" if found.is_mapped else "unfinished"


def _photo_values(rows: Sequence[PhotoRow], table: PairTable, graph: Graph) -> list[Values]:
    tried = table.by_photo(np.ones(len(table), np.bool_), len(rows)).tolist()
    matched = table.by_photo(table.matches > 0, len(rows)).tolist()
    verified = table.by_photo(table.inliers > 0, len(rows)).tolist()
    return [
        as_values(row)
        | {"error": _rounded(row.error)}
        | {"pairs": tried[i], "matched": matched[i], "verified": verified[i], "group": int(graph.group[i])}
        for i, row in enumerate(rows)
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 3)


def _missing(rows: Sequence[PhotoRow]) -> list[Values]:
    """The photos that are not in the largest model, together where cause and advice are the same; most photos first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        if row.cause:
            groups.setdefault((row.cause, row.advice or ""), []).append(i)
    in_order = sorted(groups.items(), key=lambda item: (item[0][0] == "other model", -len(item[1])))
    return [{"cause": cause, "advice": advice, "photos": photos} for (cause, advice), photos in in_order]


def _pair_totals(table: PairTable) -> Values:
    return {
        "tried": len(table),
        "matched": int((table.matches > 0).sum()),
        "verified": int((table.inliers > 0).sum()),
        "most_inliers": int(table.inliers.max(initial=0)),
        "most_matches": int(table.matches.max(initial=0)),
    }


def _graph_values(graph: Graph) -> Values:
    linked = np.isfinite(graph.positions[:, 0])
    return {
        "strong": STRONG,
        "components": len(np.unique(graph.component[linked])),
        "groups": len(np.unique(graph.group[linked])),
        "alone": int((~linked).sum()),
        "bridges": [asdict(bridge) for bridge in graph.bridges],
    }


def _histograms(models: Sequence[ModelView]) -> list[Values]:
    errors = np.concatenate([model.errors for model in models]) if models else np.empty(0)
    lengths = np.concatenate([model.lengths for model in models]) if models else np.empty(0, np.int64)
    charts = [_histogram(errors, "Reprojection error", "px")] if len(errors) else []
    return charts + ([_track_histogram(lengths)] if len(lengths) else [])


def _histogram(values: NDArray[Any], name: str, unit: str) -> Values:
    """Count values in bins of equal width; the last one has all that are larger. `bins` are [from, to, count]."""
    top = float(np.percentile(values, 99)) or 1.0
    edges = np.linspace(0, top, _BINS + 1)
    counts = np.histogram(np.minimum(values, top), edges)[0]
    ends = edges.round(2).tolist()
    bins = [[low, high, count] for low, high, count in zip(ends, ends[1:], counts.tolist(), strict=False)]
    return _chart(name, unit, values, bins)


def _track_histogram(lengths: NDArray[Any]) -> Values:
    """Count the lengths of tracks; the last bin has all that are longer."""
    top = int(min(max(lengths.max(initial=2), 3), _LONGEST_TRACK))
    counts = np.bincount(np.minimum(lengths, top), minlength=top + 1)
    bins = [[n, n + 1, int(counts[n])] for n in range(2, top + 1)]
    return _chart("Track length", "photos", lengths, bins)


def _chart(name: str, unit: str, values: NDArray[Any], bins: list[list[Any]]) -> Values:
    return {
        "name": name,
        "unit": unit,
        "bins": bins,
        "count": len(values),
        "mean": round(float(values.mean()), 3),
        "median": round(float(np.median(values)), 3),
        "largest": round(float(values.max()), 3),
    }


def _run_values(found: Contents) -> Values:
    """What is known of the run: its stages, settings, provenance and errors."""
    refined = found.stages.get("refine", {})
    mapped = found.stages.get("second", {}) or found.stages.get("reconstruct", {})
    values: Values = {
        "refinement": {"models": refined.get("refined", []), "problem": refined.get("problem", "")}
        if refined
        else None,
        "second_try": found.summary.get("second_try"),
        "doubtful": mapped.get("doubtful", []),
        "warnings": mapped.get("warnings", []),
        "stages": _stages(found),
        "peak_memory_mb": found.summary.get("peak_memory_mb"),
        "settings": _settings(found),
        "provenance": [],
        "versions": found.summary.get("versions", {}),
        "errors": [asdict(entry) for entry in found.errors],
    }
    for store in found.features, found.matches:
        if store:
            with found.noting():
                values["provenance"] += [
                    {"file": store.path.name, "by": entry["by"], "items": entry["items"]}
                    for entry in store.provenances.values()
                ]
    return values | {"notes": found.notes}


def _stages(found: Contents) -> list[Values]:
    seconds, memory = found.summary.get("seconds", {}), found.summary.get("memory_mb", {})
    finished = {"reconstruct": ("verify", "map")}
    rows = []
    for stage in get_args(Stage):
        for step in finished.get(stage, (stage,)):
            state = "finished" if stage in found.stages else "not finished"
            if stage == "pairs" and stage not in found.stages and len(found.tried):
                state = "given"
            rows.append({"stage": step, "state": state, "seconds": seconds.get(step), "memory_mb": memory.get(step)})
    return rows


def _settings(found: Contents) -> list[Values]:
    used = found.summary.get("settings", {}) | recorded_settings(found.files.root)
    return [
        {"name": f.name, "value": used[f.name], "default": used[f.name] == f.default}
        for f in fields(Settings)
        if f.name in used
    ]


def headline(facts: Values) -> str:
    """Say in one line what came of the run."""
    photos, models = len(facts["photos"]), facts["models"]
    if models:
        return f"{facts['registered']} of {counted(photos, 'photo')} registered in {counted(len(models), 'model')}"
    if facts["state"] == "unread":
        return f"Unknown how many of {counted(photos, 'photo')} are registered: the models cannot be read"
    if facts["state"] == "no model":
        return f"0 of {counted(photos, 'photo')} registered: there is no model"
    extracted = sum(photo["keypoints"] is not None for photo in facts["photos"])
    return f"Unfinished: {extracted} of {counted(photos, 'photo')} extracted, no model yet"


def workspace_name(facts: Values) -> str:
    """The name of the folder, for the title."""
    return Path(facts["workspace"]).name or facts["workspace"]
