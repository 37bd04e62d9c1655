"""What a command imports; libraries that cannot be loaded: one line with the way out, before anything else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lgbatch.cli.commands import COMMANDS, load


@pytest.mark.parametrize(
    ("module", "message", "way_out"),
    [
        ("cv2", "libGL.so.1: cannot open shared object file: No such file or directory", "opencv-python-headless"),
        ("onnxruntime", "cannot import name 'InferenceSession' from 'onnxruntime'", "--no-deps onnxruntime"),
        ("onnxruntime", "module 'onnxruntime' has no attribute", "--force-reinstall --no-deps onnxruntime"),
        ("cv2", "module 'cv2' has no attribute", "--force-reinstall --no-deps opencv-python"),
        ("h5py", "DLL load failed", "pip install --upgrade lgbatch"),
    ],
)
def test_a_library_that_cannot_be_loaded_is_named_with_the_way_out(
    tmp_path: Path, module: str, message: str, way_out: str
) -> None:
    (tmp_path / f"{module}.py").write_text("" if message.startswith("module") else f"raise ImportError({message!r})")
    command = [sys.executable, "-m", "lgbatch", "run", "photos", "-o", str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    (tmp_path / "photos").mkdir()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"lgbatch: cannot start: {message}") and way_out in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_list_of_commands_has_the_first_sentence_of_each_docstring() -> None:
    for name, listed in COMMANDS.items():
        assert load(name).get_short_help_str(1000) == listed.help, name


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], ["numpy", "lgbatch.cli.stages", "lgbatch.cli.bench"]),
        (["match", "--help"], ["jinja2", "urllib.request", "torch", "lgbatch.cli.bench", "lgbatch.report.make"]),
        (["match", "--help"], ["cv2", "pycolmap", "lgbatch.features.extract", "lgbatch.pipelines.second_try"]),
    ],
)
def test_a_command_imports_what_it_needs(arguments: list[str], absent: list[str]) -> None:
    program = f"import sys; from lgbatch.__main__ import main; sys.argv = ['lgbatch', *{arguments}]\n"
    program += f"try: main()\nfinally: print(*[name for name in {absent} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "\n")
    assert done.stdout.startswith("Usage:")


def test_a_command_runs_with_garbage_collection(tmp_path: Path) -> None:
    program = "import gc, lgbatch.__main__, lgbatch.cli.workspace as w\n"
    program += "w.Ledger = lambda *_: exit(f'enabled: {gc.isenabled()}')\nlgbatch.__main__.main()"
    command = [sys.executable, "-c", program, "errors", "-w", str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True).stderr == "enabled: True\n"
