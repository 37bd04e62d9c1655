"""CPU and memory limits of a container: the control group of this process on Linux, versions 1 and 2.

A group is limited by itself and by each of its parents. Files of groups that are not visible are skipped.
"""

from collections.abc import Iterator
from pathlib import Path

ROOT, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 60
"""Version 1 writes a number above this where version 2 writes `max`."""


def cpu_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """Return the CPU time that this process may use, in cores, or None if it is not limited."""
    limits = []
    for folder in _folders(root, _read(membership), "cpu"):
        quota_and_period = _read(folder / "cpu.max")
        if not quota_and_period:
            quota_and_period = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
        limits.append(parse_cpu(quota_and_period))
    return min((limit for limit in limits if limit is not None), default=None)


def memory_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Return the memory that this process and those in its group may use, in bytes, or None if it is not limited."""
    return min((limit for limit, _ in _memory(root, membership)), default=None)


def memory_left(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Return the part of memory_limit that is not in use, in bytes; None if it is not limited.

    Cached files that the kernel can drop do not count as used.
    """
    return min((max(0, limit - used) for limit, used in _memory(root, membership)), default=None)


def parse_cpu(text: str) -> float | None:
    """Parse `QUOTA PERIOD` in microseconds; a quota of `max` or -1 is no limit. Returns cores."""
    fields = text.split()
    if len(fields) != 2 or not (fields[0].isdigit() and fields[1].isdigit()) or int(fields[1]) == 0:
        return None
    return int(fields[0]) / int(fields[1]) or None


def parse_bytes(text: str) -> int | None:
    """Parse a memory limit; `max` and the largest numbers are no limit."""
    value = int(text) if text.strip().isdigit() else _NO_LIMIT
    return value if value < _NO_LIMIT else None


def parse_inactive_file(text: str) -> int:
    """Return the bytes of cached files that can be dropped, from the text of memory.stat; version 1 sums subgroups."""
    values = {key: int(value) for key, _, value in (line.partition(" ") for line in text.splitlines()) if value}
    return values.get("total_inactive_file", values.get("inactive_file", 0))


def _memory(root: Path, membership: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit and the use of each group that limits memory, in bytes."""
    for folder in _folders(root, _read(membership), "memory"):
        for limit_file, use_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = parse_bytes(_read(folder / limit_file))
            if limit is not None:
                used = parse_bytes(_read(folder / use_file)) or 0
                yield limit, used - parse_inactive_file(_read(folder / "memory.stat"))


def _folders(root: Path, membership: str, controller: str) -> Iterator[Path]:
    """Yield the folders of the groups that limit this process, from the text of /proc/self/cgroup."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        group = top / path.lstrip("/") if ".." not in Path(path).parts else top
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _read(path: Path) -> str:
    """The text of a file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
