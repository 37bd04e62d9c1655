"""Workers and merges of a large set on a failing disk: one line, nothing is lost, and the next run finishes."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.torture.harness import budget, contents, scene
from tests.torture.harness.faults import COUNT, DEATHS, ERRORS
from tests.torture.harness.process import Done, Server

STRIDE = max(1, budget.FAULTS // 10)
FAULTS = {name: ERRORS[name] for name in ("no space left", "input/output error, once", "read-only from now on")}


@dataclass
class Site:
    """A set in small."""

    server: Server
    folder: Path
    models: Path

    def __post_init__(self) -> None:
        self.out, self.log = self.folder / "out", self.folder / "log"

    def shard(self, *arguments: str | Path, fault: tuple[object, ...] | None = None) -> Done:
        return self.server.run("shard", *arguments, fault=fault)

    def good(self, *arguments: str | Path) -> None:
        done = self.shard(*arguments)
        assert done.status == 0, done.err

    def calls(self, command: tuple[str | Path, ...]) -> int:
        """How many calls of a command change a file."""
        self.log.unlink(missing_ok=True)
        assert self.shard(*command, fault=(str(self.out), str(self.log), COUNT, 0, 0)).status == 0
        return len(self.log.read_text().splitlines())


@pytest.fixture(scope="module")
def site(faulty_server: Server, stand_ins: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A plan of three photos in two units."""
    site = Site(faulty_server, tmp_path_factory.mktemp("shard-faults"), stand_ins)
    scene.render(site.folder / "photos", 3)
    options = ("--units", "2", "--models", stand_ins, "--precision", "fp32")
    site.good("plan", site.folder / "photos", "-o", site.out, *options)
    return site


def test_failing_disks_and_kills_lose_nothing(site: Site) -> None:
    """Each command starts from the folder that the commands before it have left, whole."""
    work = [("work", site.out, "--unit", number, "--threads", "1") for number in ("0", "1")]
    merge = ("merge", site.out)
    statuses: list[int] = []
    for command in (work[0], work[1], merge, work[0], work[1], merge):
        before = site.folder / "before"
        shutil.copytree(site.out, before)
        calls = site.calls(command)
        complete = snapshot(site.out)
        for number in range(1, calls + 1, STRIDE):
            faults = [*FAULTS.values(), *((mode, 0) for mode in DEATHS.values())]
            for mode, reason in faults:
                restore(site.out, before)
                done = site.shard(*command, fault=(str(site.out), str(site.log), mode, number, reason))
                statuses.append(done.status)
                assert done.status == -9 or not done.problem(), (command, mode, number, done.err)
                again = site.shard(*command)
                assert (again.status, again.problem()) == (0, None), (command, mode, number, again.err)
                assert snapshot(site.out) == complete, (command, mode, number)
        restore(site.out, before)
        site.good(*command)
        shutil.rmtree(before)
    assert len(contents.read(site.out).matches) == 3
    budget.report(f"faults of shards: {len(statuses)} failing calls, exit statuses {sorted(set(statuses))}")


def restore(out: Path, before: Path) -> None:
    """Put a folder back, with the times of its files."""
    shutil.rmtree(out)
    shutil.copytree(before, out)


def snapshot(out: Path) -> dict[str, bytes]:
    """The stores, steps and pairs of a set. Markers and leases have times; attempts that were killed stay a while."""
    names = [path for path in out.rglob("*") if path.suffix in (".h5", ".txt") and ".0" not in str(path)]
    names += out.glob("shards/*-*.json")
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in names if path.parent != out}
    items = contents.read(out)
    assert not items.problems
    return found | {
        name: repr(sorted((k, v.tobytes()) for k, v in item.items())).encode() for name, item in items.items.items()
    }
