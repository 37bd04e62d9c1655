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

from tests.torture import contents, figures, scene, standin
from tests.torture.process import COMMAND

STAGES = ("start", "extract", "match", "import", "reconstruct")
# One workspace is killed in these, one after the other, before its run is left to end.
COURSE = ("extract", "match", "extract", "start", "match", "import", "match", "reconstruct", "import", "reconstruct")
_SIGNS = {"extract": "features.h5", "match": "pairs.txt", "import": "database.db", "reconstruct": "sparse"}


@dataclass
class Tally:
    """What was done, and what went wrong."""

    kills: Counter[str] = field(default_factory=Counter)
    checked: int = 0
    lost: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    unreadable: int = 0
    """Files that plain h5py could not open until the next run had restored them."""
    finished: int = 0
    wrong: list[str] = field(default_factory=list)

    def format(self, what: str) -> str:
        stages = ", ".join(f"{stage} {self.kills[stage]}" for stage in STAGES)
        return (
            f"{what}: {self.kills.total()} ({stages}), runs finished and compared {self.finished}, items checked "
            f"{self.checked}, lost {len(self.lost)}, corrupt {len(self.corrupt)}; "
            f"unreadable to plain h5py until the next run {self.unreadable}"
        )


@dataclass
class Site:
    """A folder in which nothing but the workspace may change."""

    folder: Path
    models: Path
    photos: Path
    options: tuple[str, ...] = ("--threads", "1", "--precision", "fp32")  # of which stand-ins have models

    def __post_init__(self) -> None:
        self.out = self.folder / "out"
        for name in "home", "tmp", "here":
            (self.folder / name).mkdir(exist_ok=True)

    @contextlib.contextmanager
    def start(self) -> Iterator["subprocess.Popen[bytes]"]:
        """A run, killed at the end of the block if it is not done."""
        command = [*COMMAND, "run", self.photos, "-o", self.out, "--models", self.models, *self.options]
        folders = {"HOME": "home", "XDG_CACHE_HOME": "home", "TMPDIR": "tmp"}
        environment = dict(os.environ) | {name: str(self.folder / at) for name, at in folders.items()}
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
        with self.start() as process:
            status = process.wait(300)
        assert status == 0, (status, (self.folder / "err").read_text())
        return contents.read(self.out)

    def outside(self) -> dict[str, tuple[int, int]]:
        """Size and time of all files that no run may touch."""
        roots = [self.folder / name for name in ("home", "tmp", "here")] + [self.models, self.photos]
        files = [path for root in roots for path in root.rglob("*")]
        files += [path for path in self.folder.iterdir() if path.name not in ("out", "err", "home", "tmp", "here")]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()}


def stage_of(out: Path, before: dict[str, tuple[int, int]]) -> str:
    """How far a run has come, told by what changed in its workspace since `before`."""
    now = entries(out)
    changed = [name for name, state in now.items() if before.get(name) != state]
    begun = [stage for stage, sign in _SIGNS.items() if any(name.lstrip(".").startswith(sign) for name in changed)]
    return begun[-1] if begun else "start"


def entries(out: Path) -> dict[str, tuple[int, int]]:
    """What lies in a workspace: which file it is, and when it was changed."""
    found = {}
    for path in out.iterdir() if out.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            found[path.name] = (state.st_ino, state.st_mtime_ns)
    return found


def measure(site: Site) -> tuple[contents.Workspace, dict[str, float]]:
    """An uninterrupted run: what it leaves, and how many seconds each stage takes."""
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


def kill(site: Site, stage: str, after: float, tally: Tally) -> set[str] | None:
    """Start a run, and kill it `after` seconds in a stage. The items that were seen in it; None when it had ended."""
    before, seen = entries(site.out), set[str]()
    with site.start() as process:
        while process.poll() is None and STAGES.index(stage_of(site.out, before)) < STAGES.index(stage):
            time.sleep(0.002)
        reached = time.monotonic()
        if after > 0.2:
            time.sleep(after / 2)
            seen = glance(site.out)
        time.sleep(max(0, reached + after - time.monotonic()))
        if process.poll() is not None:
            return None
        process.kill()
        process.wait()
        tally.kills[stage_of(site.out, before)] += 1
    return seen


def glance(out: Path) -> set[str]:
    """Names of the items that another program can see while the run goes on; none where it is amid a commit."""
    seen = set()
    with tempfile.TemporaryDirectory() as scratch:
        for store in "features", "matches":
            try:
                copy = shutil.copyfile(out / f"{store}.h5", Path(scratch) / store)
                seen |= {f"{store}: {name}" for name in contents.read_store(copy)}
            except (OSError, RuntimeError, KeyError):
                continue
    return seen


def torture(site: Site, kills: int, rng: random.Random) -> Tally:
    """Kill runs until there were so many kills; what each left is checked, and each workspace finished in the end."""
    tally = Tally()
    whole, seconds = measure(site)
    assert whole.features and whole.matches and whole.rows and not whole.problems
    outside = site.outside()
    while tally.kills.total() < kills:
        shutil.rmtree(site.out)
        known: set[str] = set()
        for stage in itertools.islice(COURSE, kills - tally.kills.total()):
            seen = kill(site, stage, rng.uniform(0, seconds[stage]), tally)
            if seen is None:
                continue
            known |= check(contents.read(site.out), whole, known | seen, stage, tally)
            if site.outside() != outside:
                tally.wrong.append(f"{stage}: files outside the workspace changed")
                outside = site.outside()
        tally.wrong += contents.differences(site.finish(), whole)
        tally.finished += 1
    return tally


def check(left: contents.Workspace, whole: contents.Workspace, known: set[str], stage: str, tally: Tally) -> set[str]:
    """Compare what a kill left with the uninterrupted run, and with what is `known` to be committed."""
    damaged = {problem.partition(".")[0] for problem in left.problems}
    tally.unreadable += len(damaged & {"features", "matches"})
    tally.wrong += [f"{stage}: {problem}" for problem in left.problems if problem.startswith("database")]
    tally.checked += len(left.items)
    tally.corrupt += [name for name, item in left.items.items() if not contents.equal(item, whole.items[name])]
    tally.lost += [
        name for name in sorted(known - left.items.keys()) if name.partition(":")[0] not in damaged
    ]  # what is in a file that cannot be read is looked for after the next run
    return set(left.items)


def clean(tally: Tally, kills: int) -> None:
    assert not tally.wrong and not tally.lost and not tally.corrupt, (tally.wrong, tally.lost, tally.corrupt)
    assert tally.kills.total() >= kills


@pytest.mark.slow
def test_killed_at_random_moments_nothing_committed_is_lost(tmp_path: Path) -> None:
    models = standin.write(tmp_path / "models", extractor_work=figures.WORK, matcher_work=figures.WORK)
    scene.render(tmp_path / "photos", 14)
    (tmp_path / "site").mkdir()
    tally = torture(Site(tmp_path / "site", models, tmp_path / "photos"), figures.KILLS, random.Random(figures.SEED))
    figures.tell(tally.format("kills at random moments"))
    clean(tally, figures.KILLS)


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.skipif(not figures.PHOTOS.is_dir(), reason="needs photos")
def test_killed_with_the_real_models(tmp_path: Path, models: Path) -> None:
    for path in sorted(figures.PHOTOS.iterdir())[:5]:
        (tmp_path / "photos").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "photos")
    (tmp_path / "site").mkdir()
    options = ("--threads", "1", "--max-keypoints", "512", "--resize", "640")
    tally = torture(Site(tmp_path / "site", models, tmp_path / "photos", options), 5, random.Random(figures.SEED))
    figures.tell(tally.format("kills with the real models"))
    clean(tally, 5)
