"""Every instruction set against plain C, by compare.c: on this machine, and ARM's under an emulator."""

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from lgbatch.errors import InputError
from lgbatch.kernels import library

KERNELS = Path(library.__file__).parent
COMPILERS = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]
ARM_COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
BOUNDS = {
    "layer": 0.02,  # RMS difference of y, relative to the RMS of y - x. Measured: 0.0122
    "overflow": 0.1,  # the same if attention is one-hot: rounding changes the key of some queries. Measured: 0.0397
    "decisions": 0.03,  # of a confidence or matchability. Measured: 0.0138
    "stem": 3e-3,  # RMS difference of y, relative to its RMS. Measured: 0.0012
    "unequal_matches": 0,
    "scores": 1e-4,  # of a match. Measured: 5e-6
    "nearest": 0,  # rows whose products differ
}
"""The most that kernels may differ from plain C: rounding to 8 bits and to bfloat16 passes small differences on."""

needs_kernels = pytest.mark.skipif(not library.available_isas(), reason="installed without the kernels")


def differences(compiler: str, program: Path, *emulator: str) -> dict[str, dict[str, float]]:
    """Compile and run compare.c: the largest difference of each comparison, by instruction set."""
    sources = [KERNELS / "c/module.c", *(KERNELS / "isa").glob("*.c"), Path(__file__).with_name("compare.c")]
    subprocess.run([compiler, "-O2", *map(str, sources), "-o", str(program), "-lm", "-static"], check=True)
    printed = subprocess.run([*emulator, str(program)], check=True, capture_output=True, text=True).stdout
    largest: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for isa, comparison, value in map(str.split, printed.splitlines()):
        largest[isa][comparison] = max(largest[isa][comparison], float(value))
    return largest


def assert_equal_to_plain_c(largest: dict[str, dict[str, float]]) -> None:
    for isa, values in largest.items():
        assert values["matches"] > 50, isa
        assert not {name: values[name] for name, bound in BOUNDS.items() if not values[name] <= bound}, isa


@needs_kernels
@pytest.mark.skipif(not COMPILERS, reason="there is no C compiler")
def test_the_kernels_for_this_machine_equal_plain_c(tmp_path: Path) -> None:
    largest = differences(COMPILERS[0], tmp_path / "compare")
    assert set(largest) == set(library.available_isas())
    assert_equal_to_plain_c(largest)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(ARM_COMPILER) or not shutil.which(EMULATOR), reason=f"needs {ARM_COMPILER}, qemu")
def test_the_kernels_for_arm_equal_plain_c(tmp_path: Path) -> None:
    largest = differences(ARM_COMPILER, tmp_path / "compare", EMULATOR, "-cpu", "max")
    assert set(largest) == {"neon-bf16", "neon-dotprod", "portable"}
    assert_equal_to_plain_c(largest)


@needs_kernels
@pytest.mark.parametrize("isa", library.available_isas())
def test_an_instruction_set_can_be_forced(isa: str) -> None:
    program = "from lgbatch.kernels.library import chosen_isa; print(chosen_isa())"
    environment = {**os.environ, "LGBATCH_ISA": isa}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert printed.stdout.strip() == isa


@needs_kernels
def test_an_instruction_set_that_is_unavailable_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LGBATCH_ISA", "avx1024")
    with pytest.raises(InputError, match=r"LGBATCH_ISA=avx1024 is unavailable.*this machine runs .*portable"):
        library.unavailable_reason()


@needs_kernels
def test_doctor_names_the_instruction_sets(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lgbatch", "doctor", "--json", "--models", str(tmp_path)]
    environment = {**os.environ, "LGBATCH_ISA": "portable"}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
    found = json.loads(printed)
    assert found["kernels"] == library.available_isas() and "portable" in found["reason"]


def test_plain_c_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LGBATCH_ISA", raising=False)
    assert library.chosen_isa() != library.PORTABLE
