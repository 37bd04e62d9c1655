"""A large set in small: its plan, its units in this process, and the comparison with one run."""

from dataclasses import dataclass
from pathlib import Path

from lgbatch.config import Settings
from lgbatch.shards.folder import ShardFolder
from lgbatch.shards.markers import Marker
from lgbatch.shards.merge import Merged, merge
from lgbatch.shards.plan import make_plan
from lgbatch.shards.steps import Step
from lgbatch.shards.work import Worker, current_step
from lgbatch.workspace.folder import Workspace
from tests.torture.harness import contents

SETTINGS = Settings(precision="fp32", second_try=0, refine=False, threads=1)


@dataclass
class Set:
    """Photos, their workspace and their models."""

    photos: Path
    out: Path
    models: Path

    @property
    def folder(self) -> ShardFolder:
        return ShardFolder(Workspace(self.out))

    def plan(self, units: int = 7, settings: Settings = SETTINGS, pairs: Path | None = None) -> Step:
        return make_plan(self.photos, self.out, models=self.models, settings=settings, pairs=pairs, units=units)[1]

    def worker(self) -> Worker:
        return Worker(self.out, Settings(threads=1))

    def do_step(self) -> list[Marker]:
        """Do all units of the current step."""
        worker, step = self.worker(), current_step(self.folder)
        return [worker.do_unit(step, unit) for unit in step.units]

    def finish(self) -> Merged:
        """Do all units of all steps, one after the other."""
        while True:
            self.do_step()
            merged = merge(self.out)
            if merged.finished or merged.missing:
                return merged


def differences(out: Path, single: Path) -> list[str]:
    """What differs between a merged workspace and that of one run."""
    found = contents.differences(contents.read(out), contents.read(single))
    lists = [name for name in ("pairs.txt", "pairs.jsonl") if _read(out / name) != _read(single / name)]
    return [*found, *lists]


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size and time of all files below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    stats = {str(path.relative_to(folder)): path.stat() for path in files}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
