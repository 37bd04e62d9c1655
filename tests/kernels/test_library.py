"""Why the kernels cannot run."""

import pytest

from lgbatch.kernels import library


def test_an_installation_without_a_c_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_library", lambda: None)
    assert "install a C compiler" in str(library.unavailable_reason())


def test_a_processor_without_the_instructions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "available_isas", lambda: ["portable"])
    monkeypatch.delenv("LGBATCH_ISA", raising=False)
    assert "AVX2" in str(library.unavailable_reason())
