"""Limits of containers, from files as Linux writes them."""

import math
from pathlib import Path

import pytest

from lgbatch.runtime import cgroup, environment
from lgbatch.runtime.cgroup import cpu_limit, memory_left, memory_limit, parse_bytes, parse_cpu, parse_inactive_file

GB = 1 << 30


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000", None),
        ("200000 100000", 2.0),
        ("50000 100000", 0.5),
        ("-1 100000", None),
        ("150000 100000\n", 1.5),
        ("", None),
        ("0 100000", None),
        ("100000 0", None),
    ],
)
def test_the_quota_of_cpu_time_is_a_number_of_cores(text: str, cores: float | None) -> None:
    assert parse_cpu(text) == cores


@pytest.mark.parametrize(
    ("text", "value"), [("max\n", None), ("1073741824\n", GB), ("9223372036854771712", None), ("", None)]
)
def test_a_memory_limit_is_a_number_of_bytes(text: str, value: int | None) -> None:
    assert parse_bytes(text) == value


def test_cached_files_that_can_be_dropped_are_read_from_memory_stat() -> None:
    assert parse_inactive_file("anon 5\ninactive_file 7\n") == 7
    assert parse_inactive_file("inactive_file 7\ntotal_inactive_file 9") == 9
    assert parse_inactive_file("") == 0


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def member_of(tmp_path: Path, text: str) -> Path:
    membership = tmp_path / "membership"
    membership.write_text(text)
    return membership


def test_version_2_limits_a_group_and_all_below_it(tmp_path: Path) -> None:
    root, membership = tmp_path / "root", member_of(tmp_path, "0::/pod/container\n")
    group(root / "pod", cpu__max="300000 100000", memory__max=f"{4 * GB}", memory__current=f"{3 * GB}")
    stat = f"anon 1\ninactive_file {GB}\n"
    group(root / "pod", memory__stat=stat)
    group(root / "pod/container", cpu__max="max 100000", memory__max="max", memory__current="1")
    assert cpu_limit(root, membership) == 3
    assert memory_limit(root, membership) == 4 * GB and memory_left(root, membership) == 2 * GB


def test_version_1_in_a_container_shows_the_group_as_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    membership = member_of(tmp_path, "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n2:pids:/docker/abc\n0::/\n")
    group(root / "cpu", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    group(root / "memory", memory__limit_in_bytes=f"{2 * GB}", memory__usage_in_bytes=f"{GB}")
    assert cpu_limit(root, membership) == 1.5
    assert memory_limit(root, membership) == 2 * GB and memory_left(root, membership) == GB


def test_no_group_is_no_limit(tmp_path: Path) -> None:
    membership = member_of(tmp_path, "0::/../other\n")
    for path in (membership, tmp_path / "missing"):
        assert cpu_limit(tmp_path / "root", path) is memory_limit(tmp_path / "root", path) is None
        assert memory_left(tmp_path / "root", path) is None


@pytest.mark.parametrize(("limit", "most"), [(0.5, 1), (1.0, 1), (1.5, 2), (math.inf, 10**6)])
def test_threads_follow_the_cpu_time_of_the_container(monkeypatch: pytest.MonkeyPatch, limit: float, most: int) -> None:
    unlimited = environment.available_cores()
    monkeypatch.setattr(cgroup, "cpu_limit", lambda: None if limit == math.inf else limit)
    assert 1 <= environment.available_cores() <= most
    monkeypatch.setattr(cgroup, "cpu_limit", lambda: 10.0**6)
    assert environment.available_cores() >= unlimited


def test_memory_follows_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "memory_limit", lambda: 5 << 20)
    monkeypatch.setattr(cgroup, "memory_left", lambda: 3 << 20)
    assert (environment.total_memory(), environment.available_memory()) == (5 << 20, 3 << 20)
    monkeypatch.setattr(cgroup, "memory_limit", lambda: None)
    monkeypatch.setattr(cgroup, "memory_left", lambda: None)
    total, available = environment.total_memory(), environment.available_memory()
    assert total is not None and available is not None and GB // 4 < available <= total
