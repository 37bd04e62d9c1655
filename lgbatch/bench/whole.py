"""`lgbatch bench run`: from photos to a model, whole processes by the clock, against COLMAP's own way with SIFT."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lgbatch.bench.report import circumstances
from lgbatch.config import Settings
from lgbatch.errors import InputError, LgbatchError
from lgbatch.export.models import ensure_models
from lgbatch.photos.crawl import crawl
from lgbatch.reconstruction.evaluate import AUC_THRESHOLDS, evaluate
from lgbatch.reconstruction.truth import KnownCamera, read_strecha
from lgbatch.runtime.precision import stages_kind

OURS, SIFT = "lgbatch run", "pycolmap, SIFT"
_SHOWN = {f"{threshold:g}": f"AUC {threshold:g}°" for threshold in AUC_THRESHOLDS}

Runs = list[dict[str, Any]]


@dataclass(frozen=True)
class RunReport:
    """Plain values."""

    values: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return self.values

    def format(self) -> str:
        """The table."""
        v = self.values
        lines = [
            f"{v['machine']['cpu']}, {v['machine']['cores']} cores; {v['date']}",
            f"{v['images']} photos to a model; whole processes, median of {v['repeats']}",
            "",
        ]
        for row in v["rows"]:
            stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in row["seconds_by_stage"].items())
            lines.append(
                f"{row['name']:15} {row['seconds']:7.1f} s  ({min(row['seconds_by_run']):.1f} - "
                f"{max(row['seconds_by_run']):.1f})  {row['registered_images']} of {v['images']} images  {stages}"
            )
            if row["auc"]:
                scores = ", ".join(f"{_SHOWN[key]} {value:.1f}" for key, value in row["auc"].items())
                lines.append(f"{'':15} {scores}")
        return "\n".join([*lines, "", f"ratio {v['ratio']:.2f}"])


def run(images: Path, truth: Path | None = None, *, models: Path, settings: Settings, repeats: int = 3) -> RunReport:
    """Reconstruct the photos with both, in turn, each time from nothing and in a process of its own.

    `truth` is a folder of known cameras, as evaluate.read_strecha takes it. The models are made beforehand.
    Raises LgbatchError: no photos, no models, no known cameras, or a process that failed.
    """
    names = {ref.name for ref in crawl(images).images}
    known = _known(truth, names) if truth else None
    ensure_models(models, settings.extractor, ["extractor", stages_kind(settings)])
    ways: dict[str, Callable[[Path], list[str | Path]]] = {
        OURS: lambda out: _lgbatch_command(images, out, models, settings),
        SIFT: lambda out: ["lgbatch.bench.sift", images.absolute(), out, settings.camera_mode],
    }
    runs: dict[str, Runs] = {name: [] for name in ways}
    with tqdm(total=repeats * len(ways), desc="bench", unit="run", disable=None) as bar:
        for _ in range(repeats):
            for name, command in ways.items():
                runs[name].append(_reconstruct(command, known))
                bar.update()
    rows = [_row(name, of) for name, of in runs.items()]
    ratio = float(np.median([b["total"] / a["total"] for a, b in zip(runs[OURS], runs[SIFT], strict=True)]))
    return RunReport(
        {**circumstances(settings), "images": len(names), "repeats": repeats, "rows": rows, "ratio": ratio}
    )


def _known(truth: Path, names: Set[str]) -> dict[str, KnownCamera]:
    """The known cameras of photos that are there."""
    known = {name: camera for name, camera in read_strecha(truth).items() if name in names}
    if len(known) < 2:
        raise InputError(f"{truth} has the cameras of {len(known)} of the photos: two and more are needed")
    return known


def _lgbatch_command(images: Path, out: Path, models: Path, settings: Settings) -> list[str | Path]:
    config = out / "bench.toml"
    # JSON's strings and numbers are TOML's.
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.as_dict().items()))
    return ["lgbatch", "run", images.absolute(), "-o", out, "--models", models.absolute(), "--config", config, "--json"]


def _reconstruct(
    command: Callable[[Path], Sequence[str | Path]], known: Mapping[str, KnownCamera] | None
) -> dict[str, Any]:
    """Run a module in a fresh folder; what it told, with its `total` seconds and its accuracy."""
    with tempfile.TemporaryDirectory(prefix="lgbatch-bench-") as temporary:
        out = Path(temporary)
        arguments = [sys.executable, "-m", *map(str, command(out))]
        start = time.perf_counter()
        done = subprocess.run(arguments, capture_output=True, text=True)
        total = time.perf_counter() - start
        if done.returncode not in (0, 1):  # 1: some photos failed, or there is no model
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise LgbatchError(f"{' '.join(arguments[2:4])} failed: {reason}; run it alone to see more")
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        model = out / "sparse" / str(told.get("model", 0))
        accuracy = evaluate(model, known).as_dict() if known and told["registered_images"] else None
    return {**told, "total": total, "accuracy": accuracy}


def _row(name: str, runs: Runs) -> dict[str, Any]:
    stages = {stage: _median(run["seconds"][stage] for run in runs) for stage in runs[0]["seconds"]}
    total = _median(run["total"] for run in runs)
    # Starting Python, opening models, and closing down.
    stages["other"] = _median(run["total"] - sum(run["seconds"].values()) for run in runs)
    scores = [run["accuracy"]["relative_pose_auc"] for run in runs if run["accuracy"]]
    return {
        "name": name,
        "seconds": total,
        "seconds_by_run": [run["total"] for run in runs],
        "seconds_by_stage": stages,
        "registered_images": min(run["registered_images"] for run in runs),
        "auc": {key: _median(score[key] for score in scores) for key in _SHOWN} if scores else None,
        "accuracy_by_run": [run["accuracy"] for run in runs],
    }


def _median(values: Any) -> float:
    return float(np.median(list(values)))
