"""Why the kernels cannot run."""

import pytest

from lgbatch.kernels import library


@pytest.fixture(autouse=True)
def nothing_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.ISA_VARIABLE, raising=False)


def test_an_installation_without_a_c_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_library", lambda: None)
    monkeypatch.setattr(library, "runs_kernels", lambda: True)
    reason = library.int8_unavailable_reason()
    assert reason == library.missing_reason() and "install a C compiler" in str(reason)
    assert "--no-cache-dir lgbatch" in str(reason)  # or pip installs what it built without the compiler


@pytest.mark.parametrize("isas", [["portable"], ["avx2", "portable"]])
def test_kernels_of_an_old_compiler_are_named(monkeypatch: pytest.MonkeyPatch, isas: list[str]) -> None:
    monkeypatch.setattr(library, "_isas", lambda: dict.fromkeys(isas, False))
    monkeypatch.setattr(library, "runs_kernels", lambda: True)
    monkeypatch.setattr(library, "gains_from_int8", lambda: True)
    reason = library.int8_unavailable_reason()
    assert reason == library.missing_reason()
    assert "too old a compiler" in str(reason) or library._library() is None


def test_the_kernels_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ISA_VARIABLE, library.NO_KERNELS)
    assert library.chosen_isa() is None and library.missing_reason() is None
    assert "LGBATCH_ISA=none" in str(library.int8_unavailable_reason())


def test_a_processor_without_the_instructions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_isas", lambda: {"avx2": False, "portable": False})
    monkeypatch.setattr(library, "gains_from_int8", lambda: False)
    assert "faster than fp32" in str(library.int8_unavailable_reason())
    assert library.missing_reason() is None and library.chosen_isa() == "avx2"  # for fp32
