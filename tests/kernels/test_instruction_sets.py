"""Every instruction set against plain C: on this machine, and ARM's under an emulator.

compare.c and compare_disk.c compare the kernels, within bounds, and products.c their matrix products, exactly.
"""

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
C_TESTS = Path(__file__).parent / "c"
COMPILERS = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]
ARM_COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
ARM_ISAS = {"neon-i8mm", "neon-bf16", "neon-dotprod", "portable"}
BOUNDS = {
    "layer": 0.02,  # RMS difference of y, relative to the RMS of y - x. Measured: 0.0122
    "overflow": 0.1,  # the same if attention is one-hot: rounding changes the key of some queries. Measured: 0.0397
    "decisions": 0.03,  # of a confidence or matchability. Measured: 0.0138
    "stem": 3e-3,  # RMS difference of y, relative to its RMS. Measured: 0.0012
    "unequal_matches": 0,
    "scores": 1e-4,  # of a match. Measured: 5e-6
    "maps": 1e-4,  # of a value of ALIKED's maps. Measured: 1.6e-5
    "nearest": 0,  # rows whose products differ
    "unequal_keypoints": 0.03,  # share of DISK's keypoints. Measured: 0, and 0.0142 in bfloat16
    "disk_scores": 0.01,  # of a keypoint, relative to the best. Measured: 0.0007, and 0.0039 in bfloat16
    "disk_descriptors": 0.005,  # of a value. Measured: 0.0003, and 0.0017 in bfloat16
}
"""The most that kernels may differ from plain C: rounding to 8 bits and to bfloat16 passes small differences on."""

needs_compiler = pytest.mark.skipif(not COMPILERS, reason="there is no C compiler")
needs_arm = pytest.mark.skipif(
    not shutil.which(ARM_COMPILER) or not shutil.which(EMULATOR), reason=f"needs {ARM_COMPILER}, qemu"
)
needs_kernels = pytest.mark.skipif(not library.available_isas(), reason="installed without the kernels")


def differences(compiler: str, program: Path, *emulator: str) -> dict[str, dict[str, float]]:
    """Compile and run the comparisons: the largest difference of each comparison, by instruction set."""
    sources = [KERNELS / "c/module.c", *(KERNELS / "isa").glob("*.c"), *C_TESTS.glob("compare*.c")]
    subprocess.run([compiler, "-O2", *map(str, sources), "-o", str(program), "-lm", "-static"], check=True)
    printed = subprocess.run([*emulator, str(program)], check=True, capture_output=True, text=True).stdout
    largest: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for isa, comparison, value in map(str.split, printed.splitlines()):
        largest[isa][comparison] = max(largest[isa][comparison], float(value))
    return largest


def assert_equal_to_plain_c(largest: dict[str, dict[str, float]]) -> None:
    for isa, values in largest.items():
        assert values["matches"] > 50 and values["keypoints"] > 100, isa
        assert not {name: values[name] for name, bound in BOUNDS.items() if not values[name] <= bound}, isa


def products(compiler: str, isa: str, folder: Path, *emulator: str) -> list[str]:
    """Compile products.c with an instruction set and run it: its lines."""
    source, program = KERNELS / "isa" / f"{isa.replace('-', '_')}.c", folder / isa
    options = ["-O1", f'-DSOURCE="{source}"', "-o", str(program), "-lm", "-static"]
    subprocess.run([compiler, str(C_TESTS / "products.c"), *options], check=True)
    return subprocess.run([*emulator, str(program)], check=True, capture_output=True, text=True).stdout.splitlines()


@needs_kernels
@needs_compiler
def test_the_kernels_for_this_machine_equal_plain_c(tmp_path: Path) -> None:
    largest = differences(COMPILERS[0], tmp_path / "compare")
    assert set(largest) == set(library.available_isas())
    assert_equal_to_plain_c(largest)


@needs_kernels
@needs_compiler
def test_the_products_for_this_machine_equal_plain_c(tmp_path: Path) -> None:
    expected = products(COMPILERS[0], library.PORTABLE, tmp_path)
    for isa in set(library.available_isas()) - {library.PORTABLE}:
        assert products(COMPILERS[0], isa, tmp_path) == expected, isa


@pytest.mark.slow
@needs_arm
def test_the_kernels_for_arm_equal_plain_c(tmp_path: Path) -> None:
    largest = differences(ARM_COMPILER, tmp_path / "compare", EMULATOR, "-cpu", "max")
    assert set(largest) == ARM_ISAS
    assert_equal_to_plain_c(largest)


@pytest.mark.slow
@needs_arm
def test_the_products_for_arm_equal_plain_c(tmp_path: Path) -> None:
    emulator = EMULATOR, "-cpu", "max"
    expected = products(ARM_COMPILER, library.PORTABLE, tmp_path, *emulator)
    for isa in ARM_ISAS - {library.PORTABLE}:
        assert products(ARM_COMPILER, isa, tmp_path, *emulator) == expected, isa


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
        library.int8_unavailable_reason()


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
