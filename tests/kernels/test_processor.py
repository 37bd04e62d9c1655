"""Whether a processor would gain from the kernels, by what Linux says of it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lgbatch.kernels import library, processor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    processor.features.cache_clear()
    yield
    processor.features.cache_clear()


@pytest.mark.parametrize(
    ("line", "runs", "gains"),
    [
        ("flags\t\t: fpu sse4_2 avx fma avx2", True, True),
        ("flags\t\t: fpu fma avx2 avx512f avx512bw", True, False),  # Skylake-X
        ("flags\t\t: fpu fma avx2 avx512f avx512_vnni", True, True),
        ("flags\t\t: fpu fma avx2 avx_vnni", True, True),
        ("flags\t\t: fpu sse4_2 avx", False, False),
        ("Features\t: fp asimd crc32 asimddp", True, True),
        ("Features\t: fp asimd crc32", False, False),  # Raspberry Pi 4
        ("isa\t\t: rv64imafdc", False, False),
    ],
)
def test_the_processor_tells_whether_it_gains(
    line: str, runs: bool, gains: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: any\n{line}\n\nprocessor\t: 1\n{line}\n")
    monkeypatch.setattr(processor, "CPUINFO", cpuinfo)
    assert (processor.runs_kernels(), processor.gains_from_int8()) == (runs, gains)


def test_without_the_file_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    assert processor.features() == frozenset() and not processor.runs_kernels()


@pytest.mark.skipif(not library.available_isas(), reason="installed without the kernels")
def test_the_compiled_kernels_say_the_same_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.ISA_VARIABLE, raising=False)
    assert processor.runs_kernels() == (library.chosen_isa() is not None)
    assert processor.gains_from_int8() or library.int8_unavailable_reason()
