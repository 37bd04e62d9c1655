"""Fuzz one reader: python -m tests.torture.corpus.fuzz TARGET SECONDS SEED FOLDER

Mutates valid files. The reader may raise only its documented exceptions, within limits of time and memory. Prints the
outcomes as JSON. Each input is in FOLDER/input while it is read, so that the input of a crash is known. Inputs with any
other wrong outcome are kept as FOLDER/wrong-N.
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

from tests.torture.corpus.fuzz_targets import TARGETS, Target

TIME_LIMIT = 5
"""Seconds that an input of some kilobytes may take."""
HANG_LIMIT = 60
"""Seconds after which SIGALRM ends this process."""
MEMORY = 6 << 30
"""Bytes of address space."""
MAYBE_INVALID = ("crawl", "config", "model")
"""Targets that may reject their seeds."""

Mutation = tuple[str, float, int, bytes]
"""Kind, position as a fraction of the length, a number, and bytes to insert."""

_NUMBERS = [struct.pack(form, value) for form in ("<I", ">I", "<Q", "<H") for value in (0, 1, 0x7FFF, 0xFFFF)]
_NUMBERS += [b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0" * 8, b"nan", b"1e999", b"-1"]
_MUTATION = st.tuples(
    st.sampled_from(["flip", "flip", "set", "cut", "splice", "insert", "drop", "repeat"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 2**16),
    st.one_of(st.sampled_from(_NUMBERS), st.binary(max_size=8)),
)


def mutated(data: bytes, other: bytes, mutations: list[Mutation]) -> bytes:
    """Apply mutations in order; "splice" takes bytes from `other`."""
    for kind, fraction, number, piece in mutations:
        at = int(fraction * len(data))
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


class Fuzzer:
    """Reads mutated files until a time has passed, and counts the outcomes."""

    def __init__(self, target: Target, seconds: float, folder: Path) -> None:
        self.target, self.folder, self.input = target, folder, folder / "input"
        self.end = time.monotonic() + seconds
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.wrong: dict[str, str] = {}
        """Kept input by what went wrong."""

    def fail(self, problem: str) -> None:
        if problem not in self.wrong:
            shutil.copy(self.input, self.folder / f"wrong-{len(self.wrong)}")
            self.wrong[problem] = f"wrong-{len(self.wrong)}"

    def read(self, data: bytes) -> None:
        """Read one input, unless the time is over."""
        if time.monotonic() > self.end:
            return
        self.input.write_bytes(self.target.repair(data))
        start = time.monotonic()
        signal.alarm(HANG_LIMIT)
        try:
            self.target.read(self.input)
            self.outcomes["read"] += 1
        except self.target.allowed as error:
            self.outcomes[type(error).__name__] += 1
            if "\n" in str(error):
                self.fail(f"more than one line: {str(error)[:200]}")
        except Exception as error:
            self.fail(f"{type(error).__name__}: {str(error)[:200]}")
        signal.alarm(0)
        if time.monotonic() - start > TIME_LIMIT:
            self.fail(f"took {time.monotonic() - start:.0f} s")

    def run(self, seeds: list[bytes], number: int) -> None:
        """Mutate the seeds. `number` is the random seed."""
        options = settings(
            max_examples=200,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        while time.monotonic() < self.end:
            number += 1

            @options
            @seed(number)
            @given(st.sampled_from(seeds), st.sampled_from(seeds), st.lists(_MUTATION, min_size=1, max_size=6))
            def read_mutated(first: bytes, second: bytes, mutations: list[Mutation]) -> None:
                self.read(mutated(first, second, mutations))

            read_mutated()


def main(name: str, seconds: float, number: int, folder: Path) -> None:
    target = TARGETS[name]
    seeds = target.seeds(folder)
    fuzzer = Fuzzer(target, seconds, folder)
    for data in seeds:
        fuzzer.input.write_bytes(data)
        if name not in MAYBE_INVALID:
            target.read(fuzzer.input)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    fuzzer.run(seeds, number)
    outcomes = fuzzer.outcomes
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    report = {"inputs": sum(outcomes.values()), "outcomes": outcomes, "wrong": fuzzer.wrong, "memory_mb": memory}
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
