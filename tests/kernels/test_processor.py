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
    ("line", "gains"),
    [
        ("flags\t\t: fpu sse4_2 avx fma avx2", True),
        ("flags\t\t: fpu fma avx2 avx512f avx512bw", False),  # Skylake-X
        ("flags\t\t: fpu fma avx2 avx512f avx512_vnni", True),
        ("flags\t\t: fpu fma avx2 avx_vnni", True),
        ("flags\t\t: fpu sse4_2 avx", False),
        ("Features\t: fp asimd crc32 asimddp", True),
        ("Features\t: fp asimd crc32", False),  # Raspberry Pi 4
        ("isa\t\t: rv64imafdc", False),
    ],
)
def test_the_processor_tells_whether_it_gains(
    line: str, gains: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: any\n{line}\n\nprocessor\t: 1\n{line}\n")
    monkeypatch.setattr(processor, "CPUINFO", cpuinfo)
    assert processor.gains_from_kernels() == gains


def test_without_the_file_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    assert processor.features() == frozenset() and not processor.gains_from_kernels()


@pytest.mark.skipif(not library.available_isas(), reason="installed without the kernels")
def test_the_compiled_kernels_say_the_same_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.ISA_VARIABLE, raising=False)
    assert processor.gains_from_kernels() or library.chosen_isa() is None
