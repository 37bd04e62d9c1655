"""Fuzz one reader for some seconds: python fuzz.py TARGET SECONDS SEED FOLDER

Valid files are flipped, cut, spliced and overwritten; only the documented exceptions may come out, within bounds of
time and memory. Prints what was done as JSON. Each input lies in FOLDER/input before it is read, so that it is known
what a crash of this process was about; what went wrong otherwise is kept as FOLDER/wrong-N.
"""

import collections
import json
import resource
import shutil
import signal
import struct
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.torture.fuzz_targets import TARGETS

LONGEST = 5
"""Seconds that an input of some kilobytes may take."""
MEMORY = 6 << 30
_NUMBERS = [struct.pack(form, value) for form in ("<I", ">I", "<Q", "<H") for value in (0, 1, 0x7FFF, 0xFFFF)]
_NUMBERS += [b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0" * 8, b"nan", b"1e999", b"-1"]
_CHANGE = st.tuples(
    st.sampled_from(["flip", "flip", "set", "cut", "splice", "insert", "drop", "repeat"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 2**16),
    st.one_of(st.sampled_from(_NUMBERS), st.binary(max_size=8)),
)


def changed(data: bytes, other: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    for kind, place, number, piece in changes:
        at = int(place * len(data))
        size = number % 64
        if kind == "flip":
            data = data[:at] + bytes(b ^ (1 << number % 8) for b in data[at : at + 1]) + data[at + 1 :]
        elif kind == "set":
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "splice":
            data = data[:at] + other[number % (len(other) + 1) :][: len(data)]
        elif kind == "insert":
            data = data[:at] + piece + data[at:]
        elif kind == "drop":
            data = data[:at] + data[at + size :]
        else:
            data = data[:at] + data[at : at + size] * (1 + number % 50) + data[at + size :]
    return data


def main(name: str, seconds: float, number: int, folder: Path) -> None:
    target = TARGETS[name]
    seeds = target.seeds(folder)
    path, end = folder / "input", time.monotonic() + seconds
    outcomes: collections.Counter[str] = collections.Counter()
    wrong: dict[str, str] = {}

    def fail(what: str) -> None:
        if what not in wrong:
            shutil.copy(path, folder / f"wrong-{len(wrong)}")
            wrong[what] = f"wrong-{len(wrong)}"

    def once(first: bytes, second: bytes, changes: list[tuple[str, float, int, bytes]]) -> None:
        if time.monotonic() > end:
            return
        path.write_bytes(target.mend(changed(first, second, changes)))
        start = time.monotonic()
        signal.alarm(60)  # the end of this process, when it hangs
        try:
            target.read(path)
            outcomes["read"] += 1
        except target.allowed as error:
            outcomes[type(error).__name__] += 1
            if "\n" in str(error):
                fail(f"more than one line: {str(error)[:200]}")
        except Exception as error:
            fail(f"{type(error).__name__}: {str(error)[:200]}")
        signal.alarm(0)
        if time.monotonic() - start > LONGEST:
            fail(f"took {time.monotonic() - start:.0f} s")

    for seed_bytes in seeds:  # untouched, they are read without complaint
        path.write_bytes(seed_bytes)
        if name not in ("crawl", "config", "model"):
            target.read(path)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    options = settings(
        max_examples=200, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    while time.monotonic() < end:
        number += 1

        @options
        @seed(number)
        @given(st.sampled_from(seeds), st.sampled_from(seeds), st.lists(_CHANGE, min_size=1, max_size=6))
        def some(first: bytes, second: bytes, changes: list[tuple[str, float, int, bytes]]) -> None:
            once(first, second, changes)

        some()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"inputs": sum(outcomes.values()), "outcomes": outcomes, "wrong": wrong, "memory_mb": memory}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
