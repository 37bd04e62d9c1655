"""Why the kernels cannot run."""

from types import SimpleNamespace

import pytest

from lgbatch.kernels import library


def test_an_installation_without_a_c_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "load_library", lambda: None)
    assert "install a C compiler" in str(library.unavailable_reason())


def test_a_processor_without_the_instructions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "load_library", lambda: SimpleNamespace(lgbatch_supported=lambda: 0))
    assert "AVX-512 VNNI" in str(library.unavailable_reason())
