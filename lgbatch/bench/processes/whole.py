"""`lgbatch bench run`: photos to a model with `lgbatch run` and with COLMAP's SIFT pipeline, as whole processes."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lgbatch.bench.geometry import known_cameras
from lgbatch.bench.processes.commands import run_module, write_config
from lgbatch.bench.report import conditions
from lgbatch.config import Settings
from lgbatch.export.models import ensure_models
from lgbatch.photos.crawl import crawl
from lgbatch.reconstruction.evaluation.evaluate import AUC_THRESHOLDS, evaluate
from lgbatch.reconstruction.evaluation.truth import KnownCamera
from lgbatch.runtime.precision import extractor_kind, stages_kind
from lgbatch.types import counted

OURS, SIFT = "lgbatch run", "pycolmap, SIFT"
_AUC_LABELS = {f"{threshold:g}": f"AUC {threshold:g}°" for threshold in AUC_THRESHOLDS}

Runs = list[dict[str, Any]]
"""Summaries of the runs of one pipeline."""


@dataclass(frozen=True)
class RunReport:
    """Times and accuracy of both pipelines."""

    values: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        return self.values

    def format(self) -> str:
        """Return the report as text for the terminal."""
        v = self.values
        lines = [
            f"{v['machine']['cpu']}, {v['machine']['cores']} cores; {v['date']}",
            f"{counted(v['images'], 'photo')} to a model; whole processes, median of {counted(v['repeats'], 'run')}",
            "",
        ]
        for row in v["rows"]:
            stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in row["seconds_by_stage"].items())
            lines.append(
                f"{row['name']:15} {row['seconds']:7.1f} s  ({min(row['seconds_by_run']):.1f} - "
                f"{max(row['seconds_by_run']):.1f})  {row['registered_images']} of "
                f"{counted(v['images'], 'image')}  {stages}"
            )
            if row["auc"]:
                scores = ", ".join(f"{_AUC_LABELS[key]} {value:.1f}" for key, value in row["auc"].items())
                lines.append(f"{'':15} {scores}")
        return "\n".join([*lines, "", f"ratio {v['ratio']:.2f}: seconds of {SIFT} relative to {OURS}"])


def run(images: Path, truth: Path | None = None, *, models: Path, settings: Settings, repeats: int = 3) -> RunReport:
    """Reconstruct the photos with both pipelines in turn, each time from scratch and in a new process.

    `truth` is a folder of known cameras, as read_strecha reads it. The models are exported beforehand. Raises
    LgbatchError if there are no photos, models or known cameras, or if a process fails.
    """
    names = {ref.name for ref in crawl(images).images}
    cameras = known_cameras(truth, names) if truth else None
    ensure_models(models, settings.extractor, [extractor_kind(settings), stages_kind(settings)])
    commands: dict[str, Callable[[Path], list[str | Path]]] = {
        OURS: lambda out: _lgbatch_command(images, out, models, settings),
        SIFT: lambda out: ["lgbatch.bench.processes.sift", images.absolute(), out, settings.camera_mode],
    }
    runs: dict[str, Runs] = {name: [] for name in commands}
    with tqdm(total=repeats * len(commands), desc="bench", unit="run", disable=None) as bar:
        for _ in range(repeats):
            for name, command in commands.items():
                runs[name].append(_reconstruct(command, cameras))
                bar.update()
    rows = [_row(name, summaries) for name, summaries in runs.items()]
    ratio = float(np.median([sift["total"] / ours["total"] for ours, sift in zip(runs[OURS], runs[SIFT], strict=True)]))
    return RunReport({**conditions(settings), "images": len(names), "repeats": repeats, "rows": rows, "ratio": ratio})


def _lgbatch_command(images: Path, out: Path, models: Path, settings: Settings) -> list[str | Path]:
    config = write_config(out / "bench.toml", settings)
    options = ["--json", "--no-report"]
    return ["lgbatch", "run", images.absolute(), "-o", out, "--models", models.absolute(), "--config", config, *options]


def _reconstruct(
    command: Callable[[Path], Sequence[str | Path]], cameras: Mapping[str, KnownCamera] | None
) -> dict[str, Any]:
    """Run a module in a new folder. Returns its JSON summary, with its `total` seconds and its `accuracy` added."""
    with tempfile.TemporaryDirectory(prefix="lgbatch-bench-") as temporary:
        out = Path(temporary)
        arguments = [*map(str, command(out))]
        start = time.perf_counter()
        output = run_module(arguments)
        total = time.perf_counter() - start
        summary: dict[str, Any] = json.loads(output.splitlines()[-1])
        model = out / "sparse" / str(summary.get("model", 0))
        accuracy = evaluate(model, cameras).as_dict() if cameras and summary["registered_images"] else None
    return {**summary, "total": total, "accuracy": accuracy}


def _row(name: str, runs: Runs) -> dict[str, Any]:
    stages = {stage: _median(run["seconds"][stage] for run in runs) for stage in runs[0]["seconds"]}
    total = _median(run["total"] for run in runs)
    # Starting Python, opening the models, and exiting.
    stages["other"] = _median(run["total"] - sum(run["seconds"].values()) for run in runs)
    scores = [run["accuracy"]["relative_pose_auc"] for run in runs if run["accuracy"]]
    return {
        "name": name,
        "seconds": total,
        "seconds_by_run": [run["total"] for run in runs],
        "seconds_by_stage": stages,
        "registered_images": min(run["registered_images"] for run in runs),
        "auc": {key: _median(score[key] for score in scores) for key in _AUC_LABELS} if scores else None,
        "accuracy_by_run": [run["accuracy"] for run in runs],
    }


def _median(values: Any) -> float:
    return float(np.median(list(values)))
