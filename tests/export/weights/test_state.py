"""Loading state dicts from checkpoints; importing the entry points of the export without torch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lgbatch.errors import ModelError
from lgbatch.export.weights.state import load_state
from tests.export.weights.sources import one_line


def test_importing_the_entry_points_does_not_import_torch() -> None:
    code = "import sys, lgbatch.export.weights.find, lgbatch.export.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0


@pytest.mark.parametrize("wrap", [False, True])
def test_a_checkpoint_loads_with_or_without_a_wrapper(tmp_path: Path, wrap: bool) -> None:
    torch = pytest.importorskip("torch")
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
    torch.save({"extractor": state} if wrap else state, tmp_path / "net.pth")
    loaded = load_state(tmp_path / "net.pth")
    assert loaded.keys() == state.keys()
    assert torch.equal(loaded["a.weight"], state["a.weight"])


def test_a_file_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = tmp_path / "net.pth"
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match="not a PyTorch checkpoint") as error:
        load_state(file)
    one_line(error)
    for content in ([1, 2], {"epoch": 3}, {"extractor": {"epoch": 3}}):
        torch.save(content, file)
        with pytest.raises(ModelError, match="holds no state dict"):
            load_state(file)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": _Exploit(tmp_path / "executed")}, tmp_path / "net.pth")
    with pytest.raises(ModelError) as error:
        load_state(tmp_path / "net.pth")
    one_line(error)
    assert not (tmp_path / "executed").exists()


class _Exploit:
    """Pickles as a call that creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)
