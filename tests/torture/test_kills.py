"""`lgbatch run`, killed with SIGKILL at random moments of every stage, and then finished."""

import contextlib
import itertools
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.torture.harness import budget, contents, scene, stand_in_models
from tests.torture.harness.process import COMMAND

STAGES = ("start", "extract", "match", "import", "reconstruct")
KILL_STAGES = (
    "extract",
    "match",
    "extract",
    "start",
    "match",
    "import",
    "match",
    "reconstruct",
    "import",
    "reconstruct",
)
"""Stages in which runs of one workspace are killed, one after the other, before a run finishes it."""
_FIRST_FILES = {"extract": "features.h5", "match": "pairs.txt", "import": "database.db", "reconstruct": "sparse"}
"""Stage: the file whose change shows that it has begun."""

Entries = dict[str, tuple[int, int]]
"""Inode or size, and modification time, of files by name."""


@dataclass
class Tally:
    """What a test did, and what went wrong."""

    kills: Counter[str] = field(default_factory=Counter)
    checked: int = 0
    lost: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    unreadable: int = 0
    """Files that plain h5py cannot open until the next run has restored them."""
    finished: int = 0
    wrong: list[str] = field(default_factory=list)

    def format(self, title: str) -> str:
        stages = ", ".join(f"{stage} {self.kills[stage]}" for stage in STAGES)
        return (
            f"{title}: {self.kills.total()} ({stages}), runs finished and compared {self.finished}, items checked "
            f"{self.checked}, lost {len(self.lost)}, corrupt {len(self.corrupt)}; "
            f"unreadable to plain h5py until the next run {self.unreadable}"
        )

    def assert_clean(self, kills: int) -> None:
        assert not self.wrong and not self.lost and not self.corrupt, (self.wrong, self.lost, self.corrupt)
        assert self.kills.total() >= kills


@dataclass
class Site:
    """A folder in which runs may change nothing but the workspace."""

    folder: Path
    models: Path
    photos: Path
    options: tuple[str, ...] = ("--threads", "1", "--precision", "fp32")  # the stand-in models are fp32

    def __post_init__(self) -> None:
        self.out = self.folder / "out"
        for name in "home", "tmp", "here":
            (self.folder / name).mkdir(exist_ok=True)

    @contextlib.contextmanager
    def start(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Start a run, which is killed at the end of the block."""
        command = [*COMMAND, "run", self.photos, "-o", self.out, "--models", self.models, *self.options]
        folders = {"HOME": "home", "XDG_CACHE_HOME": "home", "TMPDIR": "tmp"}
        environment = dict(os.environ) | {name: str(self.folder / folder) for name, folder in folders.items()}
        with (
            (self.folder / "err").open("wb") as err,
            subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=err, env=environment, cwd=self.folder / "here"
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    def finish(self) -> contents.Workspace:
        """Run to the end, and read the workspace."""
        with self.start() as process:
            status = process.wait(300)
        assert status == 0, (status, (self.folder / "err").read_text())
        return contents.read(self.out)

    def outside(self) -> Entries:
        """Size and time of all files that no run may change."""
        roots = [self.folder / name for name in ("home", "tmp", "here")] + [self.models, self.photos]
        files = [path for root in roots for path in root.rglob("*")]
        files += [path for path in self.folder.iterdir() if path.name not in ("out", "err", "home", "tmp", "here")]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()}


def stage_of(out: Path, before: Entries) -> str:
    """The stage that a run is in, by the files of its workspace that changed since `before`."""
    changed = [name for name, state in entries(out).items() if before.get(name) != state]
    begun = [
        stage for stage, file in _FIRST_FILES.items() if any(name.lstrip(".").startswith(file) for name in changed)
    ]
    return begun[-1] if begun else "start"


def entries(out: Path) -> Entries:
    """Inode and modification time of everything in a workspace."""
    states = {}
    for path in out.iterdir() if out.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            states[path.name] = (state.st_ino, state.st_mtime_ns)
    return states


def measure(site: Site) -> tuple[contents.Workspace, dict[str, float]]:
    """The workspace of an uninterrupted run, and the seconds of each stage."""
    seconds = dict.fromkeys(STAGES, 0.0)
    with site.start() as process:
        last = time.monotonic()
        while process.poll() is None:
            stage = stage_of(site.out, {})
            now = time.monotonic()
            seconds[stage] += now - last
            last = now
            time.sleep(0.002)
        assert process.returncode == 0, (site.folder / "err").read_text()
    return contents.read(site.out), seconds


def kill(site: Site, stage: str, delay: float, tally: Tally) -> set[str] | None:
    """Start a run, and kill it `delay` seconds after a stage began.

    Returns the items that a reader saw half-way through the delay, or None if the run ended before.
    """
    before, visible = entries(site.out), set[str]()
    with site.start() as process:
        while process.poll() is None and STAGES.index(stage_of(site.out, before)) < STAGES.index(stage):
            time.sleep(0.002)
        begun = time.monotonic()
        if delay > 0.2:
            time.sleep(delay / 2)
            visible = visible_items(site.out)
        time.sleep(max(0, begun + delay - time.monotonic()))
        if process.poll() is not None:
            return None
        process.kill()
        process.wait()
        tally.kills[stage_of(site.out, before)] += 1
    return visible


def visible_items(out: Path) -> set[str]:
    """Names of the items that another program can read during a run; those of a store amid a commit are left out."""
    visible = set()
    with tempfile.TemporaryDirectory() as scratch:
        for store in "features", "matches":
            try:
                copy = shutil.copyfile(out / f"{store}.h5", Path(scratch) / store)
                visible |= {f"{store}: {name}" for name in contents.read_store(copy)}
            except (OSError, RuntimeError, KeyError):
                continue
    return visible


def torture(site: Site, kills: int, rng: random.Random) -> Tally:
    """Kill runs until there are `kills`. Checks the workspace after each, and finishes it after KILL_STAGES."""
    tally = Tally()
    complete, seconds = measure(site)
    assert complete.features and complete.matches and complete.rows and not complete.problems
    outside = site.outside()
    while tally.kills.total() < kills:
        shutil.rmtree(site.out)
        committed: set[str] = set()
        for stage in itertools.islice(KILL_STAGES, kills - tally.kills.total()):
            visible = kill(site, stage, rng.uniform(0, seconds[stage]), tally)
            if visible is None:
                continue
            committed |= check(contents.read(site.out), complete, committed | visible, stage, tally)
            if site.outside() != outside:
                tally.wrong.append(f"{stage}: files outside the workspace changed")
                outside = site.outside()
        tally.wrong += contents.differences(site.finish(), complete)
        tally.finished += 1
    return tally


def check(
    workspace: contents.Workspace, complete: contents.Workspace, committed: set[str], stage: str, tally: Tally
) -> set[str]:
    """Compare the workspace of a killed run with that of an uninterrupted one, and with the items known as committed.

    Returns the names of its items. The items of an unreadable file are checked after the next run.
    """
    unreadable = {problem.partition(".")[0] for problem in workspace.problems}
    tally.unreadable += len(unreadable & {"features", "matches"})
    tally.wrong += [f"{stage}: {problem}" for problem in workspace.problems if problem.startswith("database")]
    items = workspace.items
    tally.checked += len(items)
    tally.corrupt += [name for name, item in items.items() if not contents.equal(item, complete.items[name])]
    tally.lost += [name for name in sorted(committed - items.keys()) if name.partition(":")[0] not in unreadable]
    return set(items)


@pytest.mark.slow
def test_kills_at_random_moments_lose_no_committed_item(tmp_path: Path) -> None:
    models = stand_in_models.write(tmp_path / "models", extractor_work=budget.WORK, matcher_work=budget.WORK)
    scene.render(tmp_path / "photos", 14)
    (tmp_path / "site").mkdir()
    tally = torture(Site(tmp_path / "site", models, tmp_path / "photos"), budget.KILLS, random.Random(budget.SEED))
    budget.report(tally.format("kills at random moments"))
    tally.assert_clean(budget.KILLS)


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.skipif(not budget.PHOTOS.is_dir(), reason="needs photos")
def test_kills_with_the_real_models_lose_no_committed_item(tmp_path: Path, models: Path) -> None:
    for path in sorted(budget.PHOTOS.iterdir())[:5]:
        (tmp_path / "photos").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "photos")
    (tmp_path / "site").mkdir()
    options = ("--threads", "1", "--max-keypoints", "512", "--resize", "640")
    tally = torture(Site(tmp_path / "site", models, tmp_path / "photos", options), 5, random.Random(budget.SEED))
    budget.report(tally.format("kills with the real models"))
    tally.assert_clean(5)
