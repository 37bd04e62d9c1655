"""Why the kernels cannot run."""

import pytest

from lgbatch.kernels import library


def test_an_installation_without_a_c_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_library", lambda: None)
    assert "install a C compiler" in str(library.unavailable_reason())


def test_a_processor_without_the_instructions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_isas", lambda: {"avx2": False, "portable": False})
    monkeypatch.delenv("LGBATCH_ISA", raising=False)
    assert "faster than fp32" in str(library.unavailable_reason())
